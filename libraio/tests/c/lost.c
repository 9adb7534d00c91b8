/*
 * A server that dies or hangs while requests are on their way: every one ends, in time, with the error that the test
 * names; then every call says so, or has nothing left to do. How the program waits is the other argument.
 */
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "check.h"

#define DEPTH 64
#define LENGTH (1 << 20)

int main(int argc, char **argv)
{
	raio_context_t ctx;
	static struct raio_iocb iocbs[DEPTH], *ios[DEPTH];
	static struct raio_event events[DEPTH];
	static unsigned char memory[LENGTH];
	struct timespec zero = { 0, 0 };
	struct stat64 stat;

	SERVER_FROM_ARGUMENTS(argc, argv);
	CHECK(argc == 5);
	long expected = strcmp(argv[3], "timedout") == 0 ? -ETIMEDOUT : -ECONNRESET;
	const char *way = argv[4];
	int fd = opened("/null", O_RDWR, DEPTH, &ctx);
	int bell = strcmp(way, "eventfd") == 0 ? eventfd(0, 0) : -1;
	int source = strcmp(way, "poll") == 0 ? raio_poll_fd(ctx) : bell;

	meet("open");
	for (int i = 0; i < DEPTH; i++) {
		if (i % 2)
			raio_prep_pread(&iocbs[i], fd, NULL, LENGTH, 0, NULL);
		else
			raio_prep_pwrite(&iocbs[i], fd, memory, LENGTH, 0, NULL);
		if (bell >= 0)
			raio_set_eventfd(&iocbs[i], bell);
		ios[i] = &iocbs[i];
	}
	EQUAL(raio_submit(ctx, DEPTH, ios), DEPTH);
	meet("submitted");
	double start = seconds();
	int reaped = 0, failed = 0;
	while (reaped < DEPTH) {
		if (source >= 0) {
			struct pollfd wait = { .fd = source, .events = POLLIN };
			EQUAL(poll(&wait, 1, 30000), 1);
			uint64_t count;
			if (bell >= 0)
				CHECK(read(bell, &count, sizeof(count)) == sizeof(count));
		}
		int got = raio_getevents(ctx, source >= 0 ? 0 : DEPTH, DEPTH, events, source >= 0 ? &zero : NULL);
		CHECK(got >= 0);
		for (int i = 0; i < got; i++) {
			CHECK(events[i].obj >= iocbs && events[i].obj < iocbs + DEPTH);
			if ((long)events[i].res != LENGTH) {
				EQUAL((long)events[i].res, expected);
				failed++;
			}
		}
		EQUAL(raio_release(ctx, got, events), 0);
		reaped += got;
	}
	CHECK(failed > 0);
	CHECK(seconds() - start < 30);

	start = seconds();
	EQUAL(raio_getevents(ctx, 1, DEPTH, events, NULL), -ECONNRESET);
	EQUAL(raio_submit(ctx, 1, ios), -ECONNRESET);
	errno = 0;
	EQUAL(raio_fstat(fd, &stat), -1);
	EQUAL(-errno, expected);
	EQUAL(raio_destroy(ctx), 0);
	EQUAL(raio_close(fd), 0);
	EQUAL(raio_stop(fd), 0);
	FAILS(raio_stop(fd), EINVAL);
	CHECK(seconds() - start < 5);
	return 0;
}
