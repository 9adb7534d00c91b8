/* The layout that compiled programs rely on, and everything that the header promises at compile time. */
#include <stddef.h>

#include <libraio.h>

#ifndef __cplusplus
#define static_assert _Static_assert
#endif
#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset), #type "." #field)

static_assert(sizeof(struct raio_iocb_common) == 40, "raio_iocb_common");
AT(struct raio_iocb_common, buf, 0);
AT(struct raio_iocb_common, nbytes, 8);
AT(struct raio_iocb_common, offset, 16);
AT(struct raio_iocb_common, mr, 24);
AT(struct raio_iocb_common, flags, 32);
AT(struct raio_iocb_common, resfd, 36);

static_assert(sizeof(struct raio_iocb) == 64, "raio_iocb");
AT(struct raio_iocb, data, 0);
AT(struct raio_iocb, key, 8);
AT(struct raio_iocb, raio_fildes, 12);
AT(struct raio_iocb, raio_lio_opcode, 16);
AT(struct raio_iocb, pad, 20);
AT(struct raio_iocb, u, 24);
AT(struct raio_iocb, u.c, 24);

static_assert(sizeof(struct raio_event) == 40, "raio_event");
AT(struct raio_event, data, 0);
AT(struct raio_event, obj, 8);
AT(struct raio_event, handle, 16);
AT(struct raio_event, res, 24);
AT(struct raio_event, res2, 32);

static_assert(RAIO_CMD_PREAD == 0 && RAIO_CMD_PWRITE == 1, "opcodes");
static_assert(RAIO_CMD_FSYNC == 2 && RAIO_CMD_FDSYNC == 3 && RAIO_CMD_DISCARD == 4, "opcodes");
static_assert(RAIO_CMD_PREADV == 5 && RAIO_CMD_PWRITEV == 6, "opcodes");
static_assert(sizeof(raio_context_t) == sizeof(void *) && sizeof(raio_mr_t) == sizeof(void *), "tokens");

/* The functions have the types that programs call them with. */
int (*start)(const char *, const struct sockaddr *, socklen_t) = raio_start;
int (*stop)(int) = raio_stop;
int (*setup)(int, int, raio_context_t *) = raio_setup;
int (*open_)(int, const char *, int) = raio_open;
int (*fstat_)(int, struct stat64 *) = raio_fstat;
int (*close_)(int) = raio_close;
int (*submit)(raio_context_t, long, struct raio_iocb *[]) = raio_submit;
int (*getevents)(raio_context_t, long, long, struct raio_event *, struct timespec *) = raio_getevents;
int (*release)(raio_context_t, long, struct raio_event *) = raio_release;
int (*reg_mr)(raio_context_t, void *, size_t, raio_mr_t *) = raio_reg_mr;
int (*dereg_mr)(raio_context_t, raio_mr_t) = raio_dereg_mr;
int (*cancel)(raio_context_t, struct raio_iocb *, struct raio_event *) = raio_cancel;
int (*destroy)(raio_context_t) = raio_destroy;
int (*poll_fd)(raio_context_t) = raio_poll_fd;

int main(void)
{
	struct raio_iocb iocb;
	char memory[8];

	memset(&iocb, 0xff, sizeof(iocb));
	raio_prep_pread(&iocb, 11, memory, sizeof(memory), 1LL << 40, (raio_mr_t)0);
	if (iocb.data || iocb.key || iocb.pad || iocb.raio_fildes != 11 || iocb.raio_lio_opcode != RAIO_CMD_PREAD ||
	    iocb.u.c.buf != memory || iocb.u.c.nbytes != 8 || iocb.u.c.offset != 1LL << 40 || iocb.u.c.mr ||
	    iocb.u.c.flags || iocb.u.c.resfd)
		return 1;
	raio_set_eventfd(&iocb, 5);
	if (iocb.u.c.flags != 1 || iocb.u.c.resfd != 5)
		return 2;
	raio_prep_pwrite(&iocb, 11, memory, 3, 7, (raio_mr_t)0);
	if (iocb.raio_lio_opcode != RAIO_CMD_PWRITE || iocb.u.c.nbytes != 3 || iocb.u.c.flags)
		return 3;
	raio_set_durable(&iocb);
	if (iocb.u.c.flags != 2)
		return 4;
	if (likely(0) || !unlikely(1))
		return 5;
	return raio_version()[0] == 0;
}
