/* Every function with what must be refused: NULL, stale, wrong, too much, out of order. */
#include <stddef.h>

#include "check.h"

static void sockets(void)
{
	struct sockaddr_un address = socket_address();
	struct sockaddr *any = (struct sockaddr *)&address;
	struct sockaddr_in host;

	FAILS(raio_start(NULL, any, sizeof(address)), EFAULT);
	FAILS(raio_start("shm", NULL, sizeof(address)), EFAULT);
	FAILS(raio_start("shm", any, 0), EINVAL);
	FAILS(raio_start("shm", any, sizeof(sa_family_t)), EINVAL);
	FAILS(raio_start("tcp", any, sizeof(address)), EAFNOSUPPORT);
	FAILS(raio_start("rdma", any, sizeof(address)), EAFNOSUPPORT);
	memset(&host, 0, sizeof(host));
	host.sin_family = AF_INET;
	FAILS(raio_start("shm", (struct sockaddr *)&host, sizeof(host)), EAFNOSUPPORT);
	/* Its length may leave out what is zero. */
	int fd = raio_start("shm", any, offsetof(struct sockaddr_un, sun_path) + strlen(address.sun_path));
	CHECK(fd >= 10);
	EQUAL(raio_stop(fd), 0);
	strcat(address.sun_path, "-missing");
	FAILS(raio_start("shm", any, sizeof(address)), ENOENT);
	FAILS(raio_start("auto", any, sizeof(address)), ENOENT);
	address.sun_path[0] = 0;
	FAILS(raio_start("shm", any, sizeof(address)), EINVAL);
	/* As long as it can be, and a zero at its end: valgrind looks for one. */
	memset(address.sun_path, 'x', sizeof(address.sun_path) - 1);
	address.sun_path[0] = '/';
	address.sun_path[sizeof(address.sun_path) - 1] = 0;
	FAILS(raio_start("shm", any, sizeof(address)), ENOENT);
}

static void hosts(void)
{
	struct sockaddr_in address = server_address();
	struct sockaddr *any = (struct sockaddr *)&address;
	struct sockaddr_storage strange;

	FAILS(raio_start(NULL, any, sizeof(address)), EFAULT);
	FAILS(raio_start("tcp", NULL, sizeof(address)), EFAULT);
	FAILS(raio_start("tcp", any, 0), EINVAL);
	FAILS(raio_start("tcp", any, sizeof(address) - 1), EINVAL);
	FAILS(raio_start("carrier-pigeon", any, sizeof(address)), EPROTONOSUPPORT);
	FAILS(raio_start("pigeon", any, sizeof(address)), EPROTONOSUPPORT);
	FAILS(raio_start("", any, sizeof(address)), EPROTONOSUPPORT);
	memset(&strange, 0, sizeof(strange));
	strange.ss_family = AF_PACKET;
	FAILS(raio_start("tcp", (struct sockaddr *)&strange, sizeof(strange)), EAFNOSUPPORT);
	/* Nobody listens at port 1. */
	address.sin_port = htons(1);
	FAILS(raio_start("tcp", any, sizeof(address)), ECONNREFUSED);
}

static void sessions(void)
{
	FAILS(raio_stop(-1), EINVAL);
	FAILS(raio_stop(0), EINVAL);
	FAILS(raio_stop(1000000), EINVAL);

	int first = session(), second = session();
	EQUAL(second, first + 1);
	EQUAL(raio_stop(first), 0);
	FAILS(raio_stop(first), EINVAL);
	int third = try_session("auto");
	EQUAL(third, second + 1);
	EQUAL(raio_stop(second), 0);
	EQUAL(raio_stop(third), 0);
}

static void files(const char *path)
{
	struct stat64 stat;
	char longest[5000];
	int fd = session();

	FAILS(raio_fstat(fd, &stat), EBADF);
	FAILS(raio_close(fd), EBADF);
	FAILS(raio_fsync(fd), EBADF);
	FAILS(raio_fdatasync(fd), EBADF);
	FAILS(raio_discard(fd, 0, 1), EBADF);
	FAILS(raio_ftruncate(fd, 0), EBADF);
	FAILS(raio_open(fd, NULL, O_RDONLY), EFAULT);
	FAILS(raio_open(fd, "", O_RDONLY), ENOENT);
	FAILS(raio_open(fd, "/data/missing", O_RDONLY), ENOENT);
	FAILS(raio_open(fd, path, O_RDWR | O_APPEND), EOPNOTSUPP);
	FAILS(raio_open(fd, path, O_ACCMODE), EINVAL);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[0] = '/';
	longest[sizeof(longest) - 1] = 0;
	FAILS(raio_open(fd, longest, O_RDONLY), ENAMETOOLONG);
	FAILS(raio_stat(fd, NULL, &stat), EFAULT);
	FAILS(raio_stat(fd, path, NULL), EFAULT);
	FAILS(raio_unlink(fd, NULL), EFAULT);
	FAILS(raio_rename(fd, path, NULL), EFAULT);

	EQUAL(raio_open(fd, path, O_RDONLY | O_LARGEFILE | O_NOATIME | O_CLOEXEC), 0);
	FAILS(raio_open(fd, path, O_RDONLY), EBUSY);
	FAILS(raio_fstat(fd, NULL), EFAULT);
	FAILS(raio_discard(fd, -1, 1), EINVAL);
	FAILS(raio_ftruncate(fd, -1), EINVAL);
	EQUAL(raio_fstat(fd, &stat), 0);
	CHECK(S_ISREG(stat.st_mode) && stat.st_size > 0 && stat.st_nlink == 1 && stat.st_ino != 0);
	EQUAL(raio_close(fd), 0);
	FAILS(raio_close(fd), EBADF);
	FAILS(raio_fstat(fd, &stat), EBADF);
	/* The session stays. */
	EQUAL(raio_open(fd, path, O_RDONLY), 0);
	EQUAL(raio_stop(fd), 0);

	FAILS(raio_open(fd, path, O_RDONLY), EBADF);
	FAILS(raio_fstat(fd, &stat), EBADF);
	FAILS(raio_close(fd), EBADF);
}

static void contexts(const char *path)
{
	raio_context_t ctx = NULL, again = NULL, nonsense = (raio_context_t)(void *)&ctx;
	struct raio_event events[4];
	struct raio_iocb iocb, *ios[2] = { &iocb, NULL };
	struct timespec zero = { 0, 0 }, wrong = { 0, 1000000000 }, negative = { -1, 0 };
	char memory[16];
	int fd = session();

	memset(events, 0, sizeof(events));
	FAILS(raio_setup(fd, 1, NULL), EFAULT);
	FAILS(raio_setup(fd, 0, &ctx), EINVAL);
	FAILS(raio_setup(fd, -1, &ctx), EINVAL);
	FAILS(raio_setup(fd, 65537, &ctx), EINVAL);
	FAILS(raio_setup(9, 1, &ctx), EBADF);
	CHECK(ctx == NULL);
	EQUAL(raio_setup(fd, 1, &ctx), 0);
	CHECK(ctx != NULL);
	FAILS(raio_setup(fd, 1, &again), EBUSY);

	raio_prep_pread(&iocb, fd, memory, sizeof(memory), 0, NULL);
	EQUAL(raio_submit(ctx, 1, ios), -EBADF);
	EQUAL(raio_open(fd, path, O_RDONLY), 0);
	EQUAL(raio_submit(NULL, 1, ios), -EINVAL);
	EQUAL(raio_submit(nonsense, 1, ios), -EINVAL);
	EQUAL(raio_submit(ctx, -1, ios), -EINVAL);
	EQUAL(raio_submit(ctx, 1, NULL), -EFAULT);
	EQUAL(raio_submit(ctx, 0, NULL), 0);
	EQUAL(raio_submit(ctx, 1, ios + 1), -EFAULT);
	iocb.raio_lio_opcode = 99;
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	iocb.raio_lio_opcode = RAIO_CMD_PREAD;
	iocb.u.c.offset = -1;
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	iocb.u.c.offset = 0x7fffffffffffffffLL;
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	iocb.u.c.offset = 0;
	iocb.u.c.nbytes = 1ULL << 32;
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	iocb.u.c.nbytes = sizeof(memory);
	iocb.u.c.flags = 1U << 31;
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	iocb.u.c.flags = 0;
	iocb.u.c.mr = (raio_mr_t)(void *)memory;
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	iocb.u.c.mr = NULL;
	raio_set_eventfd(&iocb, 1000000);
	EQUAL(raio_submit(ctx, 1, ios), -EBADF);
	raio_set_eventfd(&iocb, -1);
	EQUAL(raio_submit(ctx, 1, ios), -EBADF);
	int null = open("/dev/null", O_RDONLY);
	raio_set_eventfd(&iocb, null);
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	close(null);
	raio_prep_pwrite(&iocb, fd, NULL, 1, 0, NULL);
	EQUAL(raio_submit(ctx, 1, ios), -EFAULT);

	EQUAL(raio_getevents(ctx, 0, 0, NULL, &zero), 0);
	EQUAL(raio_getevents(ctx, 1, 4, events, NULL), 0);
	EQUAL(raio_getevents(ctx, 2, 1, events, &zero), -EINVAL);
	EQUAL(raio_getevents(ctx, -1, 1, events, &zero), -EINVAL);
	EQUAL(raio_getevents(ctx, -2, -1, events, &zero), -EINVAL);
	EQUAL(raio_getevents(ctx, 1, 1, NULL, &zero), -EFAULT);
	EQUAL(raio_getevents(ctx, 1, 1, events, &wrong), -EINVAL);
	EQUAL(raio_getevents(ctx, 1, 1, events, &negative), -EINVAL);
	EQUAL(raio_getevents(NULL, 1, 1, events, &zero), -EINVAL);

	/* Taken until the first that is wrong; depth 1 is full then. */
	raio_prep_pread(&iocb, fd, memory, sizeof(memory), 0, NULL);
	EQUAL(raio_submit(ctx, 2, ios), 1);
	ios[1] = &iocb;
	EQUAL(raio_submit(ctx, 2, ios), -EAGAIN);
	EQUAL(raio_cancel(ctx, NULL, events), -1);
	EQUAL(raio_cancel(ctx, &iocb, NULL), -1);
	FAILS(raio_cancel(ctx, (struct raio_iocb *)(void *)memory, events), EINVAL);
	FAILS(raio_cancel(ctx, &iocb, events), EAGAIN);
	EQUAL(raio_getevents(ctx, 1, 4, events, NULL), 1);
	FAILS(raio_cancel(ctx, &iocb, events + 1), EINVAL);
	EQUAL(events[0].res, sizeof(memory));
	CHECK(same((unsigned char *)memory, sizeof(memory), 0));
	EQUAL(raio_release(ctx, 1, events), 0);

	FAILS(raio_release(ctx, 1, NULL), EFAULT);
	FAILS(raio_release(ctx, -1, events), EINVAL);
	FAILS(raio_release(NULL, 1, events), EINVAL);
	EQUAL(raio_release(ctx, 0, NULL), 0);
	memset(events, 0, sizeof(events));
	FAILS(raio_release(ctx, 1, events), EINVAL);
	memset(events, 0xee, sizeof(events));
	FAILS(raio_release(ctx, 4, events), EINVAL);
	/* A buffer of the library is given back once. */
	raio_prep_pread(&iocb, fd, NULL, 100, 0, NULL);
	EQUAL(submit_one(ctx, &iocb), 1);
	EQUAL(raio_getevents(ctx, 1, 1, events, NULL), 1);
	CHECK(iocb.u.c.buf != NULL && same(iocb.u.c.buf, 100, 0));
	EQUAL(raio_release(ctx, 1, events), 0);
	CHECK(iocb.u.c.buf != NULL);
	FAILS(raio_release(ctx, 1, events), EINVAL);

	FAILS(raio_poll_fd(NULL), EINVAL);
	FAILS(raio_destroy(NULL), EINVAL);
	FAILS(raio_destroy(nonsense), EINVAL);
	EQUAL(raio_destroy(ctx), 0);
	FAILS(raio_destroy(ctx), EINVAL);
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	EQUAL(raio_getevents(ctx, 1, 1, events, NULL), -EINVAL);
	FAILS(raio_release(ctx, 1, events), EINVAL);
	FAILS(raio_cancel(ctx, &iocb, events), EINVAL);

	/* Another one after it, which the old token does not reach; stop frees it. */
	EQUAL(raio_setup(fd, 2, &again), 0);
	CHECK(again != ctx);
	EQUAL(raio_submit(ctx, 1, ios), -EINVAL);
	EQUAL(transfer(again, &iocb), 100);
	EQUAL(raio_stop(fd), 0);
	FAILS(raio_destroy(again), EINVAL);
	EQUAL(raio_submit(again, 1, ios), -EINVAL);
}

static void memory(const char *path)
{
	raio_mr_t mr = NULL, other = NULL, allocated = NULL;
	raio_context_t ctx;
	struct raio_iocb iocb;
	unsigned char bytes[8192];
	int fd = opened(path, O_RDONLY, 4, &ctx);

	FAILS(raio_reg_mr(ctx, NULL, 1, &mr), EFAULT);
	FAILS(raio_reg_mr(ctx, bytes, 0, &mr), EINVAL);
	FAILS(raio_reg_mr(ctx, bytes, 1, NULL), EFAULT);
	FAILS(raio_reg_mr(ctx, bytes, (size_t)-1, &mr), EINVAL);
	FAILS(raio_dereg_mr(ctx, NULL), EINVAL);
	FAILS(raio_dereg_mr(ctx, (raio_mr_t)(void *)bytes), EINVAL);
	EQUAL(raio_reg_mr(NULL, bytes, 4096, &mr), 0);
	EQUAL(raio_reg_mr(ctx, bytes + 4096, 4096, &other), 0);
	CHECK(mr != other);

	raio_prep_pread(&iocb, fd, bytes, 4096, 0, mr);
	EQUAL(transfer(ctx, &iocb), 4096);
	CHECK(same(bytes, 4096, 0) && iocb.u.c.buf == bytes);
	raio_prep_pread(&iocb, fd, bytes + 100, 4096, 0, mr);
	EQUAL(submit_one(ctx, &iocb), -EINVAL);
	raio_prep_pread(&iocb, fd, bytes, 4096, 0, other);
	EQUAL(submit_one(ctx, &iocb), -EINVAL);
	raio_prep_pread(&iocb, fd, NULL, 4096, 0, mr);
	EQUAL(submit_one(ctx, &iocb), -EINVAL);
	EQUAL(raio_dereg_mr(NULL, mr), 0);
	FAILS(raio_dereg_mr(NULL, mr), EINVAL);
	raio_prep_pread(&iocb, fd, bytes, 4096, 0, mr);
	EQUAL(submit_one(ctx, &iocb), -EINVAL);

	errno = 0;
	CHECK(raio_alloc(0, &allocated) == NULL && errno == EINVAL);
	CHECK(raio_alloc((size_t)1 << 62, &allocated) == NULL && errno == ENOMEM);
	unsigned char *shared = raio_alloc(100000, &allocated);
	CHECK(shared != NULL && ((size_t)shared & 4095) == 0 && shared[99999] == 0);
	FAILS(raio_dereg_mr(ctx, allocated), EINVAL);
	raio_prep_pread(&iocb, fd, shared + 5000, 90000, 7, allocated);
	EQUAL(transfer(ctx, &iocb), 90000);
	CHECK(same(shared + 5000, 90000, 7));
	FAILS(raio_free(bytes), EINVAL);
	EQUAL(raio_free(NULL), 0);
	EQUAL(raio_free(shared), 0);
	FAILS(raio_free(shared), EINVAL);
	finish(fd, ctx);
	/* Registrations belong to the process. */
	EQUAL(raio_dereg_mr(ctx, other), 0);
}

int main(int argc, char **argv)
{
	SERVER_FROM_ARGUMENTS(argc, argv);
	if (by_socket())
		sockets();
	else
		hosts();
	sessions();
	files("/data/file");
	contexts("/data/file");
	memory("/data/file");
	return 0;
}
