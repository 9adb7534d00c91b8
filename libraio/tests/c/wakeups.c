/* Programs that wait outside of the library: on eventfds, on raio_poll_fd, on both. */
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "check.h"

#define DEPTH 32

static struct raio_iocb iocbs[DEPTH], *ios[DEPTH];
static struct raio_event events[DEPTH];
static struct timespec zero;

/* Rounds of each kind. */
static int rounds = 50;

static int readable(int fd, int milliseconds)
{
	struct pollfd source = { .fd = fd, .events = POLLIN };
	int ready = poll(&source, 1, milliseconds);

	CHECK(ready >= 0);
	return ready;
}

static uint64_t taken(int fd)
{
	uint64_t count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void prepare(int fd, int eventfd_, int count, size_t length)
{
	for (int i = 0; i < count; i++) {
		raio_prep_pread(&iocbs[i], fd, NULL, length, i * 4096, NULL);
		if (eventfd_ >= 0)
			raio_set_eventfd(&iocbs[i], eventfd_);
		ios[i] = &iocbs[i];
	}
}

/* As with Linux AIO: read the eventfd, then reap as many. */
static void sleep_on_eventfd(void)
{
	raio_context_t ctx;
	int bell = eventfd(0, 0);
	int fd = opened("/data/file", O_RDONLY, DEPTH, &ctx);

	for (int round = 0; round < rounds; round++) {
		prepare(fd, bell, DEPTH, 10000);
		EQUAL(raio_submit(ctx, DEPTH, ios), DEPTH);
		int reaped = 0;
		while (reaped < DEPTH) {
			CHECK(readable(bell, 10000) == 1);
			long count = (long)taken(bell);
			EQUAL(raio_getevents(ctx, count, count, events, &zero), count);
			for (int i = 0; i < count; i++) {
				EQUAL(events[i].res, 10000);
				CHECK(same(events[i].obj->u.c.buf, 10000, events[i].obj->u.c.offset));
			}
			EQUAL(raio_release(ctx, count, events), 0);
			reaped += count;
		}
		EQUAL(readable(bell, 0), 0);
	}
	finish(fd, ctx);
	close(bell);
}

/* Each request adds one to its own, whoever runs the loop; a request without one adds nothing. */
static void eventfds_are_told_apart(void)
{
	raio_context_t ctx;
	int one = eventfd(0, EFD_NONBLOCK), other = eventfd(0, EFD_NONBLOCK);
	int fd = opened("/data/file", O_RDONLY, DEPTH, &ctx);

	prepare(fd, -1, 6, 512);
	for (int i = 0; i < 3; i++)
		raio_set_eventfd(&iocbs[i], one);
	raio_set_eventfd(&iocbs[3], other);
	EQUAL(raio_submit(ctx, 6, ios), 6);
	EQUAL(raio_getevents(ctx, 6, 6, events, NULL), 6);
	EQUAL(taken(one), 3);
	EQUAL(taken(other), 1);
	EQUAL(raio_release(ctx, 6, events), 0);

	/* The file that the number meant at submit is written, not what it means later. */
	prepare(fd, one, 1, 512);
	int kept = dup(one);
	EQUAL(raio_submit(ctx, 1, ios), 1);
	EQUAL(dup2(other, one), one);
	EQUAL(raio_getevents(ctx, 1, 1, events, NULL), 1);
	EQUAL(taken(kept), 1);
	EQUAL(taken(other), 0);
	/* Stopped with a watcher and requests on their way. */
	prepare(fd, other, DEPTH, 100000);
	EQUAL(raio_submit(ctx, DEPTH, ios), DEPTH);
	EQUAL(raio_stop(fd), 0);
	close(kept);
	close(one);
	close(other);
}

static void outer_loop(void)
{
	raio_context_t ctx;
	int fd = opened("/data/file", O_RDONLY, DEPTH, &ctx);
	int source = raio_poll_fd(ctx);

	CHECK(source >= 0);
	EQUAL(raio_poll_fd(ctx), source);
	EQUAL(readable(source, 0), 0);
	for (int round = 0; round < rounds; round++) {
		prepare(fd, -1, DEPTH, 4096);
		EQUAL(raio_submit(ctx, DEPTH, ios), DEPTH);
		int reaped = 0;
		while (reaped < DEPTH) {
			CHECK(readable(source, 10000) == 1);
			int got = raio_getevents(ctx, 0, 3, events, &zero);
			CHECK(got >= 0 && got <= 3);
			EQUAL(raio_release(ctx, got, events), 0);
			reaped += got;
		}
	}
	/* A call that runs the loop for itself takes nothing away from who waits. */
	struct stat64 stat;
	prepare(fd, -1, 4, 4096);
	EQUAL(raio_submit(ctx, 4, ios), 4);
	for (int i = 0; i < 20; i++)
		EQUAL(raio_fstat(fd, &stat), 0);
	for (int reaped = 0; reaped < 4;) {
		CHECK(readable(source, 10000) == 1);
		int got = raio_getevents(ctx, 0, DEPTH, events, &zero);
		EQUAL(raio_release(ctx, got, events), 0);
		reaped += got;
	}
	EQUAL(readable(source, 0), 0);
	finish(fd, ctx);
}

static void both(void)
{
	raio_context_t ctx;
	int bell = eventfd(0, EFD_NONBLOCK);
	int fd = opened("/data/file", O_RDONLY, DEPTH, &ctx);
	int source = raio_poll_fd(ctx);

	for (int round = 0; round < rounds; round++) {
		prepare(fd, bell, DEPTH, 4096);
		EQUAL(raio_submit(ctx, DEPTH, ios), DEPTH);
		uint64_t told = 0;
		while (told < DEPTH) {
			CHECK(readable(bell, 10000) == 1);
			told += taken(bell);
		}
		EQUAL(told, DEPTH);
		EQUAL(readable(source, 10000), 1);
		EQUAL(raio_getevents(ctx, DEPTH, DEPTH, events, &zero), DEPTH);
		EQUAL(raio_release(ctx, DEPTH, events), 0);
	}
	finish(fd, ctx);
	close(bell);
}

int main(int argc, char **argv)
{
	SERVER_FROM_ARGUMENTS(argc, argv);
	if (argc > 3)
		rounds = 5;
	sleep_on_eventfd();
	eventfds_are_told_apart();
	outer_loop();
	both();
	return 0;
}
