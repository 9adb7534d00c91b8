/* Depth: 1,024 reads of 1 MiB without a buffer, asked for at once; full means EAGAIN; small depth is kept to. */
#include "check.h"

#define DEPTH 1024
#define MIB (1 << 20)

static struct raio_iocb iocbs[DEPTH + 1];
static struct raio_event events[DEPTH];
static struct raio_iocb *ios[DEPTH + 1];

static void deep(const char *path, unsigned blocks, int checked)
{
	raio_context_t ctx;
	int fd = opened(path, O_RDONLY, DEPTH, &ctx);

	for (int i = 0; i <= DEPTH; i++) {
		raio_prep_pread(&iocbs[i], fd, NULL, MIB, (long long)(i % blocks) * MIB, NULL);
		iocbs[i].data = &iocbs[i];
		ios[i] = &iocbs[i];
	}
	EQUAL(raio_submit(ctx, DEPTH + 1, ios), DEPTH);
	EQUAL(raio_submit(ctx, 1, ios + DEPTH), -EAGAIN);
	int reaped = 0;
	while (reaped < DEPTH) {
		int got = raio_getevents(ctx, 100, DEPTH, events, NULL);
		CHECK(got >= (DEPTH - reaped < 100 ? DEPTH - reaped : 100));
		for (int i = 0; i < got; i++) {
			struct raio_iocb *iocb = events[i].obj;
			EQUAL((long)events[i].res, MIB);
			CHECK(events[i].data == iocb && iocb->u.c.buf != NULL);
			if (checked) {
				CHECK(same(iocb->u.c.buf, 4096, iocb->u.c.offset));
				CHECK(same((unsigned char *)iocb->u.c.buf + MIB - 100, 100, iocb->u.c.offset + MIB - 100));
			}
		}
		EQUAL(raio_release(ctx, got, events), 0);
		reaped += got;
	}
	EQUAL(raio_getevents(ctx, 1, 1, events, NULL), 0);
	/* Once more, from the same memory. */
	EQUAL(submit_one(ctx, &iocbs[0]), 1);
	EQUAL(raio_getevents(ctx, 5, 8, events, NULL), 1);
	EQUAL(raio_release(ctx, 1, events), 0);
	finish(fd, ctx);
}

/* Unreleased events don't count; a buffer stays as it is until its release. */
static void held(const char *path)
{
	raio_context_t ctx;
	struct timespec zero = { 0, 0 };
	int fd = opened(path, O_RDONLY, 2, &ctx);

	for (int i = 0; i < 100; i++) {
		raio_prep_pread(&iocbs[i], fd, NULL, 4096, i * 4096, NULL);
		EQUAL(submit_one(ctx, &iocbs[i]), 1);
		EQUAL(raio_getevents(ctx, 1, 1, &events[i], NULL), 1);
	}
	for (int i = 0; i < 100; i++)
		CHECK(same(iocbs[i].u.c.buf, 4096, i * 4096));
	EQUAL(raio_release(ctx, 50, events), 0);
	for (int i = 50; i < 100; i++)
		CHECK(same(iocbs[i].u.c.buf, 4096, i * 4096));
	/* The iocb may be used again before its event is released. */
	memset(&iocbs[99], 0xaa, sizeof(iocbs[99]));
	EQUAL(raio_release(ctx, 50, events + 50), 0);
	for (size_t i = 0; i < sizeof(iocbs[99]); i++)
		EQUAL(((unsigned char *)&iocbs[99])[i], 0xaa);

	/* Depth 2 means two, and zero time does not block. */
	for (int i = 0; i < 3; i++) {
		raio_prep_pread(&iocbs[i], fd, NULL, 4096, 0, NULL);
		ios[i] = &iocbs[i];
	}
	EQUAL(raio_submit(ctx, 3, ios), 2);
	EQUAL(raio_submit(ctx, 1, ios), -EAGAIN);
	int got = 0;
	while (got < 2) {
		int now = raio_getevents(ctx, 0, 1, events, &zero);
		CHECK(now == 0 || now == 1);
		got += now;
		EQUAL(raio_release(ctx, now, events), 0);
	}
	EQUAL(raio_submit(ctx, 1, ios), 1);
	/* Destroyed with a request on its way. */
	finish(fd, ctx);
}

int main(int argc, char **argv)
{
	SERVER_FROM_ARGUMENTS(argc, argv);
	held("/data/file");
	if (argc > 3)
		return 0;
	deep("/data/file", 2, 1);
	deep("/null", 1024, 0);
	return 0;
}
