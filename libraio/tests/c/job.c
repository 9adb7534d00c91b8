/*
 * What an fio engine does: a look at the file's size in a session without requests, which is not destroyed; then jobs in
 * processes of their own, each with a registered region per request, which write, read back and compare.
 */
#include <sys/wait.h>

#include "check.h"

#define DEPTH 16
#define BLOCK 4096
#define ROUNDS 20

static long long size_of_file(const char *path)
{
	raio_context_t ctx;
	struct stat64 stat;
	int fd = session();

	EQUAL(raio_setup(fd, 1, &ctx), 0);
	EQUAL(raio_open(fd, path, O_RDONLY), 0);
	EQUAL(raio_fstat(fd, &stat), 0);
	EQUAL(raio_close(fd), 0);
	EQUAL(raio_stop(fd), 0);
	return stat.st_size;
}

static int reap(raio_context_t ctx, int wanted)
{
	struct raio_event events[DEPTH];
	struct timespec second = { 1, 0 };
	int reaped = 0;

	while (reaped < wanted) {
		int got = raio_getevents(ctx, 1, DEPTH, events, &second);
		CHECK(got >= 0);
		for (int i = 0; i < got; i++) {
			EQUAL((long)events[i].res, BLOCK);
			EQUAL((long)events[i].data, (long)events[i].obj->u.c.offset);
		}
		EQUAL(raio_release(ctx, got, events), 0);
		reaped += got;
	}
	return reaped;
}

static void job(const char *path, int number, long long size)
{
	raio_context_t ctx;
	raio_mr_t mrs[DEPTH];
	struct raio_iocb iocbs[DEPTH], *ios[DEPTH];
	unsigned char *buffers = aligned_alloc(4096, DEPTH * BLOCK);
	int fd = opened(path, O_RDWR | O_CREAT, DEPTH, &ctx);

	CHECK(buffers != NULL);
	for (int i = 0; i < DEPTH; i++)
		EQUAL(raio_reg_mr(ctx, buffers + i * BLOCK, BLOCK, &mrs[i]), 0);
	for (int round = 0; round < ROUNDS; round++) {
		for (int pass = 0; pass < 2; pass++) {
			for (int i = 0; i < DEPTH; i++) {
				long long at = ((long long)(number * ROUNDS + round) * DEPTH + i) * BLOCK % size;
				unsigned char *buffer = buffers + i * BLOCK;
				if (pass == 0) {
					fill(buffer, BLOCK, at);
					raio_prep_pwrite(&iocbs[i], fd, buffer, BLOCK, at, mrs[i]);
				} else {
					memset(buffer, 0, BLOCK);
					raio_prep_pread(&iocbs[i], fd, buffer, BLOCK, at, mrs[i]);
				}
				iocbs[i].data = (void *)(long)at;
				ios[i] = &iocbs[i];
			}
			EQUAL(raio_submit(ctx, 6, ios), 6);
			EQUAL(raio_submit(ctx, DEPTH - 6, ios + 6), DEPTH - 6);
			EQUAL(reap(ctx, DEPTH), DEPTH);
		}
		for (int i = 0; i < DEPTH; i++)
			CHECK(same(buffers + i * BLOCK, BLOCK, iocbs[i].u.c.offset));
	}
	for (int i = 0; i < DEPTH; i++)
		EQUAL(raio_dereg_mr(ctx, mrs[i]), 0);
	finish(fd, ctx);
	free(buffers);
}

int main(int argc, char **argv)
{
	pid_t children[4];

	SERVER_FROM_ARGUMENTS(argc, argv);
	long long size = size_of_file("/data/file");
	CHECK(size >= BLOCK * DEPTH);
	for (int i = 0; i < 4; i++) {
		children[i] = fork();
		CHECK(children[i] >= 0);
		if (children[i] == 0) {
			job("/data/job", i, size);
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++) {
		int status;
		EQUAL(waitpid(children[i], &status, 0), children[i]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	return 0;
}
