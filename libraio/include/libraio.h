/*
 * libraio - read and write files that live on another machine, or in another process, with the ease of Linux AIO.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Compile and run a program where the library was built:
 *
 *     gcc prog.c -I libraio/include -L target/release -lraio
 *     LD_LIBRARY_PATH=target/release ./a.out
 *
 * or, with any build system, PKG_CONFIG_PATH=target/release/pkgconfig and $(pkg-config --cflags --libs libraio).
 *
 * IN SHORT
 *
 *     int fd = raio_start("tcp", (struct sockaddr *)&server, sizeof server);
 *     raio_context_t ctx;
 *     raio_setup(fd, 32, &ctx);
 *     raio_open(fd, "/data/big.img", O_RDONLY);
 *     struct raio_iocb iocb, *ios[] = { &iocb };
 *     raio_prep_pread(&iocb, fd, NULL, 4096, 0, NULL);        // NULL: the library provides the buffer
 *     raio_submit(ctx, 1, ios);
 *     struct raio_event event;
 *     raio_getevents(ctx, 1, 1, &event, NULL);
 *     if ((long)event.res > 0)
 *             use(iocb.u.c.buf, event.res);
 *     raio_release(ctx, 1, &event);
 *     raio_destroy(ctx);
 *     raio_close(fd);
 *     raio_stop(fd);
 *
 * ERRORS
 *
 * Functions return -1 (or NULL) and set errno, but for raio_submit and raio_getevents, which return -errno (and set errno
 * too). No function prints or ends the program. With the variable RAIO_LOG set (to error, warn, info, debug or trace)
 * diagnostics go to standard error. Every function may fail with
 *
 *     EBADF       no session has this handle, no file is open on it, or it belongs to the parent of this process (fork)
 *     EINVAL      no such context, registration or event, or it is gone; a number that can't be meant
 *     EFAULT      a pointer that must not be NULL is
 *     ECONNRESET  the server is lost: it died, or closed the connection
 *     ETIMEDOUT   the server is lost: it did not answer within the keepalive time (10 s) while a call waited for it
 *     EIO         a fault in this library (RAIO_LOG=error tells which)
 *
 * and with what is said at the function. A wrong or stale handle, context, registration or event handle is found out and
 * is an error. Memory of the caller must be what the call says, as anywhere in C.
 *
 * THREADS AND PROCESSES
 *
 * Calls may come from any thread; one session is used by one thread at a time, different sessions are independent. The
 * library runs in the threads of its callers (raio_set_eventfd is the exception). After fork, sessions, contexts,
 * registrations and allocated memory belong to the parent: in the child every call on them fails with EBADF or EINVAL,
 * and their descriptors are closed there. The child may start sessions of its own.
 *
 * A program may take its time between two calls: only time spent inside calls counts against the server.
 *
 * LIMITS
 *
 * Requests of a context: at most 65,536. A request: at most 2,147,479,552 bytes, as in Linux. What is longer than one
 * message may be (4 MiB, or less as the server says) goes in parts, one after the other. A vectored request: at most
 * 1,024 pieces. Buffers that the library provides: 1 GiB in all for a session, taken as answers arrive; requests beyond
 * wait for raio_release.
 *
 * SETTINGS
 *
 * Environment, read by raio_start: RAIO_KEEPALIVE_MS, RAIO_CONNECT_TIMEOUT_MS, RAIO_POLLING_US (longest time that a call
 * polls before it sleeps; 0 never polls), RAIO_CRC (1: checksums over all that travels), RAIO_RDMA_MEMORY_MIB (memory
 * that is registered with RDMA devices beside receive buffers; by default half of what may be locked).
 */
#ifndef LIBRAIO_H
#define LIBRAIO_H

#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef likely
#define likely(condition) __builtin_expect(!!(condition), 1)
#endif
#ifndef unlikely
#define unlikely(condition) __builtin_expect(!!(condition), 0)
#endif

struct timespec;
struct stat64;
struct iovec;
struct raio_context;
struct raio_mr;

/* The I/O context of a session: a token, nothing to look into. */
typedef struct raio_context *raio_context_t;

/* A registration of memory: a token, nothing to look into. */
typedef struct raio_mr *raio_mr_t;

/* What a request does. Those from 2 on are additions to the interface that R-AIO programs know. */
enum raio_iocb_cmd {
	RAIO_CMD_PREAD = 0,   /* read nbytes at offset into buf */
	RAIO_CMD_PWRITE = 1,  /* write nbytes from buf at offset */
	RAIO_CMD_FSYNC = 2,   /* put all writes that have completed on stable storage */
	RAIO_CMD_FDSYNC = 3,  /* the same, less metadata that is not needed to read the data back */
	RAIO_CMD_DISCARD = 4, /* give the storage of nbytes at offset back; they read as zeros (EOPNOTSUPP: it can't) */
	RAIO_CMD_PREADV = 5,  /* read at offset into the nbytes entries of a struct iovec array at buf, in order */
	RAIO_CMD_PWRITEV = 6  /* write from them */
};

/* For raio_iocb_common.flags. Other bits must be 0. */
enum raio_iocb_flags {
	RAIO_IOCB_FLAG_RESFD = 1,  /* write the eventfd resfd when the request can be reaped, see raio_set_eventfd */
	RAIO_IOCB_FLAG_DURABLE = 2 /* a write: completes when it is on stable storage */
};

struct raio_iocb_common {
	void *buf;                /* the memory; NULL in a read: the library provides it */
	unsigned long long nbytes;
	long long offset;         /* in bytes, not negative */
	raio_mr_t mr;             /* the registration that the memory lies in, or NULL */
	unsigned int flags;
	unsigned int resfd;
};

/* A request. It must stay until its event is returned; then it may be used again, its event released or not. */
struct raio_iocb {
	void *data;               /* yours; comes back in the event */
	unsigned int key;         /* not used */
	int raio_fildes;          /* not looked at: the file of the context is meant */
	int raio_lio_opcode;      /* enum raio_iocb_cmd */
	int pad;
	union {
		struct raio_iocb_common c;
	} u;
};

/* A request has ended. */
struct raio_event {
	void *data;               /* data of the iocb */
	struct raio_iocb *obj;    /* the iocb */
	unsigned long long handle; /* for raio_release */
	unsigned long res;        /* as a long: bytes moved (0 at the end of the file), or a negative errno */
	unsigned long res2;       /* 0 */
};

/* ---- Sessions ------------------------------------------------------------------------------------------------- */

/*
 * Connects to a server and opens a session. transport is "tcp", "rdma", "shm" (addr is then a struct sockaddr_un) or
 * "auto", the best that both sides have. IPv4 and IPv6. It waits for the server's answer, 10 s at most.
 *
 * Returns a handle, which is used wherever a function takes fd. It is at least 10, and never used a second time. It is
 * no file descriptor.
 * Errors: EPROTONOSUPPORT (a transport that this library does not have, or the server speaks another protocol),
 * EAFNOSUPPORT (a family that the transport does not have), EINVAL (addrlen is too short), ECONNREFUSED, ETIMEDOUT,
 * EHOSTUNREACH and what else connect(2) has, ENOSYS (the kernel or a seccomp profile refuses io_uring), EMFILE, ENFILE,
 * ENOMEM.
 */
extern int raio_start(const char *transport, const struct sockaddr *addr, socklen_t addrlen);

/*
 * Disconnects and frees all of the session, its context and open file too. Requests that have not completed are cut off;
 * without any, the server is told goodbye. Afterwards no memory of a request is touched, and buffers that the library
 * provided are gone. It takes 2 s at most.
 * Returns 0. Errors: EINVAL (no session has this handle).
 */
extern int raio_stop(int fd);

/* ---- The file of a session ------------------------------------------------------------------------------------ */

/*
 * Opens a remote file on the session; the session's handle then stands for it. pathname begins with the export's name
 * (/data/big.img, or as an R-AIO server has it). flags as in open(2): O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL,
 * O_TRUNC, O_DIRECT, O_DSYNC, O_SYNC, O_NOFOLLOW, O_DIRECTORY, O_NOATIME (dropped where the server may not),
 * O_LARGEFILE and others that concern this process only (ignored). A file that is created gets 0666 less the server's
 * umask. The file's offsets and lengths need be aligned for O_DIRECT only; memory may lie anywhere.
 *
 * Returns 0, not a new descriptor.
 * Errors: EBUSY (a file is open on this session already), EOPNOTSUPP (O_APPEND: every write names its offset), and the
 * server's: ENOENT, EACCES, EROFS, EISDIR, EEXIST, ...
 */
extern int raio_open(int fd, const char *pathname, int flags);

/*
 * Attributes of the open file, as fstat64(2) has them. Block devices report their size in st_size, /dev/null 4 GiB.
 * Returns 0. Errors: the server's.
 */
extern int raio_fstat(int fd, struct stat64 *buf);

/*
 * Closes the file. The session stays, and may open another one. Of a session whose server is lost nothing is left to
 * close: 0.
 * Returns 0. Errors: what the server met at last (EIO, ENOSPC, EDQUOT).
 */
extern int raio_close(int fd);

/* ---- Requests ------------------------------------------------------------------------------------------------- */

/*
 * Makes the I/O context of the session, before raio_open or after it, for at most maxevents requests at a time (1 to
 * 65,536): those whose event was not returned yet.
 * Returns 0. Errors: EBUSY (the session has a context already).
 */
extern int raio_setup(int fd, int maxevents, raio_context_t *ctxp);

/*
 * Takes up to nr requests, in order; what the connection takes now is on its way when it returns, the library keeps the
 * rest and sends it in later calls. An iocb that can't be taken ends the call: those before it are taken.
 *
 * Returns how many were taken, or the negative of
 *     EAGAIN      as many as maxevents are outstanding: reap events first
 *     EBADF       no file is open, or the eventfd is none of this process's descriptors
 *     EFAULT      a NULL pointer: ios, an iocb, the memory of a write
 *     EINVAL      an unknown opcode or flag; a negative offset, or one that the length carries beyond 2^63 - 1; more bytes
 *                 or pieces than the limits say; memory outside its registration; an eventfd that is none
 *     ENOMEM      no memory for a buffer that the library provides
 *     ECONNRESET  the server is lost
 */
extern int raio_submit(raio_context_t ctx, long nr, struct raio_iocb *ios[]);

/*
 * Runs the loop in this thread until min_nr events are there, or the time is over (NULL: no limit; zero: one turn that
 * does not block), and returns up to nr events, in the order of completion. min_nr is lowered to the number of requests
 * that are outstanding; with none it returns 0 at once.
 *
 * When the server is lost, every outstanding request ends with an event whose res is -ECONNRESET or -ETIMEDOUT; whether
 * such a write was done is not known. When these are returned, the call fails.
 *
 * Returns how many events it put into events, or the negative of
 *     EINVAL      nr is less than min_nr, one of them is negative, or the timeout is none
 *     ECONNRESET  the server is lost, and no event is left
 */
extern int raio_getevents(raio_context_t ctx, long min_nr, long nr, struct raio_event *events,
			  struct timespec *timeout);

/*
 * Gives back what the library holds for nr events: a buffer that it provided stays valid until then. The iocbs are not
 * looked at. Events of other requests hold nothing; to release them is allowed and does nothing.
 * Returns 0. Errors: EINVAL (one of them was released before, or is none of this context's; the others are released).
 */
extern int raio_release(raio_context_t ctx, long nr, struct raio_event *events);

/*
 * Takes a request back that has not been sent to the server yet. Then evt is its event, with res -ECANCELED, and no other
 * will come; its eventfd is not written.
 * Returns 0. Errors: EAGAIN (too late: it is on its way or has completed, its event will come), EINVAL (not found).
 */
extern int raio_cancel(raio_context_t ctx, struct raio_iocb *iocb, struct raio_event *evt);

/*
 * Ends every outstanding request without events, and frees the context; buffers that it provided are gone. Requests that
 * were sent are waited for, 5 s at most; then the connection is cut (and the session is lost), since otherwise the
 * answer could still arrive in their memory. Afterwards nothing is touched.
 * Returns 0.
 */
extern int raio_destroy(raio_context_t ctx);

/*
 * A descriptor for poll(2), select(2) or epoll(7), readable when there may be something to reap: then call
 * raio_getevents with a timeout of zero. It belongs to the library, which closes it with the context. It costs a few
 * system calls per call from then on. With a time limit on the wait, of a second or less, the call also notices a server
 * that has fallen silent; without one, the descriptor wakes you for that.
 */
extern int raio_poll_fd(raio_context_t ctx);

/* ---- Memory --------------------------------------------------------------------------------------------------- */

/*
 * Registers len bytes at buf, so that transports which need that do it once; pass mr in requests whose memory lies in
 * there. Registrations belong to the process: ctx may be NULL, any other, or destroyed. At most 1,048,576.
 * Returns 0. Errors: ENOMEM (no place left).
 */
extern int raio_reg_mr(raio_context_t ctx, void *buf, size_t len, raio_mr_t *mr);

/*
 * Takes a registration back, when the requests that use it have ended.
 * Returns 0. Errors: EINVAL (it was taken back before, or belongs to memory of raio_alloc).
 */
extern int raio_dereg_mr(raio_context_t ctx, raio_mr_t mr);

/*
 * Memory that every transport likes best: zeroed, aligned to pages, registered (mr may be NULL if you don't want to
 * know). Give it back with raio_free; requests that still use it keep it mapped until they end.
 * Returns its address, or NULL. Errors: EINVAL (len is 0 or above 2^63 - 1), ENOMEM.
 */
extern void *raio_alloc(size_t len, raio_mr_t *mr);

/* Returns 0. Errors: EINVAL (raio_alloc did not give this address, or it was freed before). NULL is nothing. */
extern int raio_free(void *buf);

/* ---- More on files -------------------------------------------------------------------------------------------- */
/* These wait for the server's answer. Errors: the server's. */

/* Puts all writes that have completed on stable storage; raio_fdatasync leaves out metadata that is not needed to read
 * the data back. */
extern int raio_fsync(int fd);
extern int raio_fdatasync(int fd);

/* Gives the storage of length bytes (not 0) at offset back; they read as zeros, the size stays. EOPNOTSUPP: it can't. */
extern int raio_discard(int fd, long long offset, unsigned long long length);

/* Sets the size in bytes; what is new reads as zeros. */
extern int raio_ftruncate(int fd, long long size);

/* Attributes of a path, whether a file is open on the session or not. */
extern int raio_stat(int fd, const char *pathname, struct stat64 *buf);

/* Removes a file's name; an open file stays usable. */
extern int raio_unlink(int fd, const char *pathname);

/* Gives a file another name in its export; one that exists is replaced. */
extern int raio_rename(int fd, const char *from, const char *to);

/* The library's version, for people. */
extern const char *raio_version(void);

/* ---- Filling in requests -------------------------------------------------------------------------------------- */

static inline void raio_prep_common(struct raio_iocb *iocb, int fd, enum raio_iocb_cmd command, void *buf,
				    unsigned long long nbytes, long long offset, raio_mr_t mr)
{
	memset(iocb, 0, sizeof(*iocb));
	iocb->raio_fildes = fd;
	iocb->raio_lio_opcode = command;
	iocb->u.c.buf = buf;
	iocb->u.c.nbytes = nbytes;
	iocb->u.c.offset = offset;
	iocb->u.c.mr = mr;
}

/*
 * A read. With buf and mr NULL the library provides the buffer: when the event is returned, u.c.buf of the iocb points
 * to the data, valid until raio_release.
 */
static inline void raio_prep_pread(struct raio_iocb *iocb, int fd, void *buf, size_t count, long long offset,
				   raio_mr_t mr)
{
	raio_prep_common(iocb, fd, RAIO_CMD_PREAD, buf, count, offset, mr);
}

/* A write. The memory is left alone until the event is returned. */
static inline void raio_prep_pwrite(struct raio_iocb *iocb, int fd, void *buf, size_t count, long long offset,
				    raio_mr_t mr)
{
	raio_prep_common(iocb, fd, RAIO_CMD_PWRITE, buf, count, offset, mr);
}

/* A read into several pieces of memory. The array itself may go after raio_submit. */
static inline void raio_prep_preadv(struct raio_iocb *iocb, int fd, const struct iovec *pieces, int count,
				    long long offset, raio_mr_t mr)
{
	raio_prep_common(iocb, fd, RAIO_CMD_PREADV, (void *)pieces, (unsigned long long)count, offset, mr);
}

/* A write from several pieces of memory. The array itself may go after raio_submit. */
static inline void raio_prep_pwritev(struct raio_iocb *iocb, int fd, const struct iovec *pieces, int count,
				     long long offset, raio_mr_t mr)
{
	raio_prep_common(iocb, fd, RAIO_CMD_PWRITEV, (void *)pieces, (unsigned long long)count, offset, mr);
}

/* A flush: covers the writes that have completed before it is submitted. */
static inline void raio_prep_fsync(struct raio_iocb *iocb, int fd)
{
	raio_prep_common(iocb, fd, RAIO_CMD_FSYNC, (void *)0, 0, 0, (raio_mr_t)0);
}

static inline void raio_prep_fdsync(struct raio_iocb *iocb, int fd)
{
	raio_prep_common(iocb, fd, RAIO_CMD_FDSYNC, (void *)0, 0, 0, (raio_mr_t)0);
}

/* A discard of a range. */
static inline void raio_prep_discard(struct raio_iocb *iocb, int fd, long long offset, unsigned long long length)
{
	raio_prep_common(iocb, fd, RAIO_CMD_DISCARD, (void *)0, length, offset, (raio_mr_t)0);
}

/*
 * The eventfd is written (1 is added) when the request can be reaped. As a program that sleeps on it runs no loop, the
 * first such request starts a thread for the session, which waits on the link and runs the loop while no call does. A
 * request keeps the eventfd that its number meant when it was submitted. raio_poll_fd does without a thread.
 */
static inline void raio_set_eventfd(struct raio_iocb *iocb, int eventfd)
{
	iocb->u.c.flags |= RAIO_IOCB_FLAG_RESFD;
	iocb->u.c.resfd = (unsigned int)eventfd;
}

/* A write completes only when it is on stable storage. */
static inline void raio_set_durable(struct raio_iocb *iocb)
{
	iocb->u.c.flags |= RAIO_IOCB_FLAG_DURABLE;
}

#ifdef __cplusplus
}
#endif

#endif
