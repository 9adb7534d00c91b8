/* What libraio has beyond the functions of R-AIO: flush, discard, truncate, vectors, names, durable and long requests. */
#include "check.h"

#define LONG (9 * 1024 * 1024 + 123)

static void names(void)
{
	struct stat64 stat;
	int fd = session();

	EQUAL(raio_open(fd, "/data/made", O_RDWR | O_CREAT | O_EXCL), 0);
	EQUAL(raio_ftruncate(fd, 10000), 0);
	EQUAL(raio_fstat(fd, &stat), 0);
	EQUAL(stat.st_size, 10000);
	EQUAL(raio_fsync(fd), 0);
	EQUAL(raio_fdatasync(fd), 0);
	EQUAL(raio_close(fd), 0);
	FAILS(raio_open(fd, "/data/made", O_RDWR | O_CREAT | O_EXCL), EEXIST);
	EQUAL(raio_rename(fd, "/data/made", "/data/renamed"), 0);
	FAILS(raio_stat(fd, "/data/made", &stat), ENOENT);
	EQUAL(raio_stat(fd, "/data/renamed", &stat), 0);
	EQUAL(stat.st_size, 10000);
	EQUAL(raio_unlink(fd, "/data/renamed"), 0);
	FAILS(raio_unlink(fd, "/data/renamed"), ENOENT);
	EQUAL(raio_stop(fd), 0);
}

static void requests(void)
{
	raio_context_t ctx;
	struct raio_iocb iocb;
	struct iovec pieces[300];
	unsigned char *from = malloc(LONG), *to = malloc(LONG);
	int fd = opened("/data/new", O_RDWR | O_CREAT | O_TRUNC, 8, &ctx);

	CHECK(from && to);
	fill(from, LONG, 0);
	/* Longer than a message: in parts. */
	raio_prep_pwrite(&iocb, fd, from, LONG, 0, NULL);
	EQUAL(transfer(ctx, &iocb), LONG);
	raio_prep_pread(&iocb, fd, to, LONG, 0, NULL);
	EQUAL(transfer(ctx, &iocb), LONG);
	CHECK(memcmp(from, to, LONG) == 0);
	raio_prep_pread(&iocb, fd, to, LONG, 1000, NULL);
	EQUAL(transfer(ctx, &iocb), LONG - 1000);

	/* And with a buffer of the library. */
	struct raio_event event;
	raio_prep_pread(&iocb, fd, NULL, LONG, 5, NULL);
	EQUAL(submit_one(ctx, &iocb), 1);
	EQUAL(raio_getevents(ctx, 1, 1, &event, NULL), 1);
	EQUAL(event.res, LONG - 5);
	CHECK(memcmp(iocb.u.c.buf, from + 5, LONG - 5) == 0);
	EQUAL(raio_release(ctx, 1, &event), 0);
	FAILS(raio_release(ctx, 1, &event), EINVAL);

	/* Pieces, more than fit one message, some of them empty. */
	memset(to, 0, LONG);
	for (int i = 0; i < 300; i++) {
		pieces[i].iov_base = to + i * 10;
		pieces[i].iov_len = i % 7 == 3 ? 0 : 10;
	}
	size_t total = 0;
	for (int i = 0; i < 300; i++)
		total += pieces[i].iov_len;
	raio_prep_preadv(&iocb, fd, pieces, 300, 11, NULL);
	EQUAL(submit_one(ctx, &iocb), 1);
	struct iovec copy[300];
	memcpy(copy, pieces, sizeof(copy));
	memset(pieces, 0, sizeof(pieces));
	EQUAL(raio_getevents(ctx, 1, 1, &event, NULL), 1);
	EQUAL(event.res, total);
	size_t at = 11;
	for (int i = 0; i < 300; i++) {
		CHECK(same(copy[i].iov_base, copy[i].iov_len, at));
		at += copy[i].iov_len;
	}
	raio_prep_pwritev(&iocb, fd, copy, 300, 20000000, NULL);
	EQUAL(transfer(ctx, &iocb), total);
	raio_prep_pread(&iocb, fd, to, total, 20000000, NULL);
	EQUAL(transfer(ctx, &iocb), total);
	CHECK(same(to, total, 11));
	raio_prep_preadv(&iocb, fd, copy, 1025, 0, NULL);
	EQUAL(submit_one(ctx, &iocb), -EINVAL);
	raio_prep_preadv(&iocb, fd, NULL, 1, 0, NULL);
	EQUAL(submit_one(ctx, &iocb), -EFAULT);

	raio_prep_pwrite(&iocb, fd, from, 4096, 0, NULL);
	raio_set_durable(&iocb);
	EQUAL(transfer(ctx, &iocb), 4096);
	raio_prep_fsync(&iocb, fd);
	EQUAL(transfer(ctx, &iocb), 0);
	raio_prep_fdsync(&iocb, fd);
	EQUAL(transfer(ctx, &iocb), 0);
	raio_set_durable(&iocb);
	EQUAL(submit_one(ctx, &iocb), -EINVAL);
	raio_prep_discard(&iocb, fd, 0, 0);
	EQUAL(submit_one(ctx, &iocb), -EINVAL);
	raio_prep_discard(&iocb, fd, 4096, 8192);
	EQUAL(transfer(ctx, &iocb), 0);
	raio_prep_pread(&iocb, fd, to, 16384, 0, NULL);
	EQUAL(transfer(ctx, &iocb), 16384);
	CHECK(same(to, 4096, 0) && same(to + 12288, 4096, 12288));
	for (int i = 4096; i < 12288; i++)
		EQUAL(to[i], 0);
	EQUAL(raio_discard(fd, 0, 4096), 0);
	raio_prep_pread(&iocb, fd, to, 1, 0, NULL);
	EQUAL(transfer(ctx, &iocb), 1);
	EQUAL(to[0], 0);

	/* Nothing is something, too. */
	raio_prep_pread(&iocb, fd, to, 0, 0, NULL);
	EQUAL(transfer(ctx, &iocb), 0);
	raio_prep_pread(&iocb, fd, NULL, 0, 0, NULL);
	EQUAL(transfer(ctx, &iocb), 0);
	raio_prep_pwrite(&iocb, fd, from, 0, 0, NULL);
	EQUAL(transfer(ctx, &iocb), 0);
	/* At and past the end. */
	raio_prep_pread(&iocb, fd, NULL, 100, 1LL << 40, NULL);
	EQUAL(transfer(ctx, &iocb), 0);
	CHECK(iocb.u.c.buf == NULL);
	finish(fd, ctx);

	/* A write that the server refuses. */
	fd = opened("/data/file", O_RDONLY, 8, &ctx);
	raio_prep_pwrite(&iocb, fd, from, 10, 0, NULL);
	EQUAL(transfer(ctx, &iocb), -EBADF);
	finish(fd, ctx);
	free(from);
	free(to);
}

int main(int argc, char **argv)
{
	SERVER_FROM_ARGUMENTS(argc, argv);
	names();
	requests();
	return 0;
}
