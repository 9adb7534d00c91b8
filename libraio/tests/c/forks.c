/*
 * Fork: in the child the parent's sessions are not there, their descriptors are closed, and it may have its own; the parent
 * goes on as if nothing had happened, even with requests on their way.
 */
#include <dirent.h>
#include <sys/wait.h>

#include "check.h"

/* Descriptors of this process that are sockets, rings, eventfds or epolls. */
static int special_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	int count = 0;

	CHECK(folder != NULL);
	while ((entry = readdir(folder)) != NULL) {
		char name[300], target[300];
		snprintf(name, sizeof(name), "/proc/self/fd/%s", entry->d_name);
		ssize_t length = readlink(name, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = 0;
		if (strncmp(target, "socket:", 7) == 0 || strncmp(target, "anon_inode:", 11) == 0)
			count++;
	}
	closedir(folder);
	return count;
}

static void child(int fd, raio_context_t ctx, struct raio_iocb *iocb, int before)
{
	struct raio_event event;
	struct stat64 stat;
	raio_context_t own;
	raio_mr_t mr;
	char bytes[64];

	EQUAL(special_descriptors(), before);
	FAILS(raio_fstat(fd, &stat), EBADF);
	FAILS(raio_open(fd, "/data/file", O_RDONLY), EBADF);
	FAILS(raio_setup(fd, 1, &own), EBADF);
	FAILS(raio_close(fd), EBADF);
	FAILS(raio_stop(fd), EBADF);
	EQUAL(submit_one(ctx, iocb), -EBADF);
	EQUAL(raio_getevents(ctx, 1, 1, &event, NULL), -EBADF);
	FAILS(raio_release(ctx, 1, &event), EBADF);
	FAILS(raio_cancel(ctx, iocb, &event), EBADF);
	FAILS(raio_poll_fd(ctx), EBADF);
	FAILS(raio_destroy(ctx), EBADF);
	FAILS(raio_stop(100000), EINVAL);

	struct raio_iocb mine;
	int other = opened("/data/file", O_RDONLY, 4, &own);
	CHECK(other > fd);
	EQUAL(raio_reg_mr(own, bytes, sizeof(bytes), &mr), 0);
	raio_prep_pread(&mine, other, bytes, sizeof(bytes), 33, mr);
	EQUAL(transfer(own, &mine), sizeof(bytes));
	CHECK(same((unsigned char *)bytes, sizeof(bytes), 33));
	EQUAL(raio_dereg_mr(own, mr), 0);
	/* A child of the child finds neither. */
	pid_t grandchild = fork();
	if (grandchild == 0) {
		FAILS(raio_fstat(fd, &stat), EBADF);
		FAILS(raio_fstat(other, &stat), EBADF);
		EQUAL(submit_one(own, &mine), -EBADF);
		EQUAL(special_descriptors(), before);
		_exit(0);
	}
	int status;
	EQUAL(waitpid(grandchild, &status, 0), grandchild);
	EQUAL(status, 0);
	finish(other, own);
	_exit(0);
}

int main(int argc, char **argv)
{
	raio_context_t ctx;
	struct raio_iocb iocbs[8], *ios[8];
	struct raio_event events[8];

	SERVER_FROM_ARGUMENTS(argc, argv);
	int before = special_descriptors();
	int fd = opened("/data/file", O_RDONLY, 8, &ctx);
	CHECK(raio_poll_fd(ctx) >= 0);
	CHECK(special_descriptors() > before);
	for (int i = 0; i < 8; i++) {
		raio_prep_pread(&iocbs[i], fd, NULL, 100000, i * 1000, NULL);
		ios[i] = &iocbs[i];
	}
	EQUAL(raio_submit(ctx, 8, ios), 8);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		child(fd, ctx, &iocbs[0], before);
	EQUAL(raio_getevents(ctx, 8, 8, events, NULL), 8);
	for (int i = 0; i < 8; i++) {
		struct raio_iocb *iocb = events[i].obj;
		EQUAL(events[i].res, 100000);
		CHECK(same(iocb->u.c.buf, 100000, iocb->u.c.offset));
	}
	EQUAL(raio_release(ctx, 8, events), 0);
	int status;
	EQUAL(waitpid(pid, &status, 0), pid);
	EQUAL(status, 0);
	/* The child's end has not ended ours. */
	raio_prep_pread(&iocbs[0], fd, NULL, 10, 0, NULL);
	EQUAL(transfer(ctx, &iocbs[0]), 10);
	finish(fd, ctx);
	EQUAL(special_descriptors(), before);
	return 0;
}
