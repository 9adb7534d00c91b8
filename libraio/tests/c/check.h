/* What the test programs share: checks that say where they failed, and a session at the server that the test names. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <libraio.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not so: %s (errno %d, %s)\n", __FILE__, __LINE__, #condition, errno, \
				strerror(errno)); \
			_exit(1); \
		} \
	} while (0)

/* A value that must be another one; both are shown. */
#define EQUAL(left, right) \
	do { \
		long left_ = (long)(left), right_ = (long)(right); \
		if (left_ != right_) { \
			fprintf(stderr, "%s:%d: %s is %ld, not %s = %ld (errno %d, %s)\n", __FILE__, __LINE__, #left, \
				left_, #right, right_, errno, strerror(errno)); \
			_exit(1); \
		} \
	} while (0)

/* A call that must return -1 with this errno. */
#define FAILS(call, number) \
	do { \
		errno = 0; \
		EQUAL(call, -1); \
		EQUAL(errno, number); \
	} while (0)

/* HOST PORT, HOST auto:PORT, or the path of a socket and the transport for it. */
static char *server_host, *server_port;
static const char *server_transport;

static inline int by_socket(void)
{
	return server_host[0] == '/';
}

static inline struct sockaddr_un socket_address(void)
{
	struct sockaddr_un address;

	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	CHECK(strlen(server_host) < sizeof(address.sun_path));
	strcpy(address.sun_path, server_host);
	return address;
}

static inline struct sockaddr_in server_address(void)
{
	struct sockaddr_in address;

	memset(&address, 0, sizeof(address));
	address.sin_family = AF_INET;
	address.sin_port = htons((unsigned short)atoi(server_port));
	CHECK(inet_pton(AF_INET, server_host, &address.sin_addr) == 1);
	return address;
}

static inline int try_session(const char *transport)
{
	if (by_socket()) {
		struct sockaddr_un address = socket_address();
		return raio_start(transport, (struct sockaddr *)&address, sizeof(address));
	}
	struct sockaddr_in address = server_address();
	return raio_start(transport, (struct sockaddr *)&address, sizeof(address));
}

/* A session at the server of the test. */
static inline int session(void)
{
	int fd = try_session(server_transport);

	CHECK(fd >= 10);
	return fd;
}

/* A session with a context and an open file. */
static inline int opened(const char *path, int flags, int depth, raio_context_t *ctx)
{
	int fd = session();

	EQUAL(raio_setup(fd, depth, ctx), 0);
	EQUAL(raio_open(fd, path, flags), 0);
	return fd;
}

static inline void finish(int fd, raio_context_t ctx)
{
	EQUAL(raio_destroy(ctx), 0);
	EQUAL(raio_close(fd), 0);
	EQUAL(raio_stop(fd), 0);
}

static inline int submit_one(raio_context_t ctx, struct raio_iocb *iocb)
{
	struct raio_iocb *ios[1] = { iocb };

	return raio_submit(ctx, 1, ios);
}

/* Submits one request and waits for its event; what it moved, or a negative errno. */
static inline long transfer(raio_context_t ctx, struct raio_iocb *iocb)
{
	struct raio_event event;

	EQUAL(submit_one(ctx, iocb), 1);
	EQUAL(raio_getevents(ctx, 1, 1, &event, NULL), 1);
	CHECK(event.obj == iocb);
	CHECK(event.data == iocb->data);
	EQUAL(event.res2, 0);
	EQUAL(raio_release(ctx, 1, &event), 0);
	return (long)event.res;
}

/* Byte number `at` of every file that the tests make. */
static inline unsigned char noise(unsigned long long at)
{
	return (unsigned char)((at * 2654435761u) >> 13);
}

static inline void fill(unsigned char *bytes, size_t length, unsigned long long at)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = noise(at + i);
}

static inline int same(const unsigned char *bytes, size_t length, unsigned long long at)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != noise(at + i))
			return 0;
	return 1;
}

/* Tells the test that a point is reached, and waits until it has done its part. */
static inline void meet(const char *word)
{
	char line[16];

	puts(word);
	fflush(stdout);
	CHECK(fgets(line, sizeof(line), stdin) != NULL);
}

static inline double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

#define SERVER_FROM_ARGUMENTS(argc, argv) \
	do { \
		if ((argc) < 3) { \
			fprintf(stderr, "usage: %s HOST [auto:]PORT | SOCKET shm|auto\n", (argv)[0]); \
			return 2; \
		} \
		server_host = (argv)[1]; \
		server_port = (argv)[2]; \
		server_transport = "tcp"; \
		if (by_socket()) { \
			server_transport = server_port; \
		} else if (strncmp(server_port, "auto:", 5) == 0) { \
			server_transport = "auto"; \
			server_port += 5; \
		} \
	} while (0)

#endif
