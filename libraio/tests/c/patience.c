/*
 * A program that thinks for longer than the keepalive time between two calls loses nothing; a hung server holds no call
 * for ever, be it start, open, fstat, destroy or stop. The test sets a keepalive and a connect timeout of a second.
 */
#include "check.h"

static void think(void)
{
	raio_context_t ctx;
	struct raio_iocb iocb;
	struct raio_event event;
	struct timespec none = { 0, 0 };
	int fd = opened("/data/file", O_RDONLY, 4, &ctx);

	raio_prep_pread(&iocb, fd, NULL, 4096, 0, NULL);
	EQUAL(submit_one(ctx, &iocb), 1);
	sleep(3);
	EQUAL(raio_getevents(ctx, 1, 1, &event, NULL), 1);
	EQUAL(event.res, 4096);
	EQUAL(raio_release(ctx, 1, &event), 0);
	sleep(2);
	raio_prep_pread(&iocb, fd, NULL, 4096, 0, NULL);
	EQUAL(transfer(ctx, &iocb), 4096);
	sleep(2);
	EQUAL(raio_getevents(ctx, 1, 1, &event, &none), 0);
	finish(fd, ctx);
}

/* Takes back what has not been sent; the server, which is stopped, has taken as much as its grant allows. */
static void cancel(raio_context_t ctx, int fd, unsigned char *memory)
{
	static struct raio_iocb iocbs[3000], *ios[3000];
	struct raio_event event;

	for (int i = 0; i < 3000; i++) {
		raio_prep_pread(&iocbs[i], fd, memory, 1, 0, NULL);
		iocbs[i].data = &iocbs[i].key;
		ios[i] = &iocbs[i];
	}
	EQUAL(raio_submit(ctx, 3000, ios), 3000);
	FAILS(raio_cancel(ctx, &iocbs[0], &event), EAGAIN);
	EQUAL(raio_cancel(ctx, &iocbs[2999], &event), 0);
	EQUAL((long)event.res, -ECANCELED);
	CHECK(event.obj == &iocbs[2999] && event.data == &iocbs[2999].key);
	EQUAL(raio_release(ctx, 1, &event), 0);
	FAILS(raio_cancel(ctx, &iocbs[2999], &event), EINVAL);
	EQUAL(submit_one(ctx, &iocbs[2999]), 1);
}

int main(int argc, char **argv)
{
	raio_context_t ctx, cut;
	struct stat64 stat;
	unsigned char memory[4096];

	SERVER_FROM_ARGUMENTS(argc, argv);
	think();
	int idle = session(), looked = session();
	EQUAL(raio_open(looked, "/data/file", O_RDONLY), 0);
	int fd = opened("/null", O_RDONLY, 3000, &ctx);
	int other = opened("/null", O_RDONLY, 1, &cut);
	struct raio_iocb iocb;
	raio_prep_pread(&iocb, other, memory, sizeof(memory), 0, NULL);
	meet("stop");
	EQUAL(submit_one(cut, &iocb), 1);
	double start = seconds();
	FAILS(try_session(server_transport), ETIMEDOUT);
	FAILS(raio_open(idle, "/data/file", O_RDONLY), ETIMEDOUT);
	FAILS(raio_fstat(looked, &stat), ETIMEDOUT);
	EQUAL(raio_stop(idle), 0);
	EQUAL(raio_close(looked), 0);
	EQUAL(raio_stop(looked), 0);
	cancel(ctx, fd, memory);
	/* Destroyed with requests on their way: afterwards their memory is not touched, though the server goes on. */
	EQUAL(raio_destroy(ctx), 0);
	/* Stopped without destroy. */
	EQUAL(raio_stop(other), 0);
	CHECK(seconds() - start < 40);
	memset(memory, 0x55, sizeof(memory));
	meet("continue");
	usleep(200000);
	for (size_t i = 0; i < sizeof(memory); i++)
		EQUAL(memory[i], 0x55);
	EQUAL(raio_close(fd), 0);
	EQUAL(raio_stop(fd), 0);
	fd = opened("/data/file", O_RDONLY, 1, &ctx);
	finish(fd, ctx);
	return 0;
}
