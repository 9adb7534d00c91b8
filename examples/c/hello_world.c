/*
 * Writes a remote file, reads it back and prints it: every step of libraio once.
 *
 *     gcc -O2 examples/c/hello_world.c -I libraio/include -L target/release -lraio -o hello_world
 *     LD_LIBRARY_PATH=target/release ./hello_world 127.0.0.1 5555 /data/hello.txt
 *     LD_LIBRARY_PATH=target/release ./hello_world /run/raio.sock shm /data/hello.txt
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/un.h>

#include <libraio.h>

static const char greeting[] = "hello, world\n";

/* Submits one request and waits for its end; bytes moved, or a negative errno. */
static long finish(raio_context_t ctx, struct raio_iocb *iocb, struct raio_event *event)
{
	int count = raio_submit(ctx, 1, &iocb);

	if (count == 1)
		count = raio_getevents(ctx, 1, 1, event, NULL);
	return count == 1 ? (long)event->res : count;
}

static int greet(int fd, const char *path)
{
	raio_context_t ctx;
	struct raio_iocb iocb;
	struct raio_event event;
	const char *what = "raio_setup";
	long moved;

	if (raio_setup(fd, 1, &ctx))
		goto failed;
	what = path;
	if (raio_open(fd, path, O_RDWR | O_CREAT | O_TRUNC))
		goto failed;

	raio_prep_pwrite(&iocb, fd, (void *)greeting, strlen(greeting), 0, NULL);
	what = "write";
	moved = finish(ctx, &iocb, &event);
	if (moved < 0) {
		errno = (int)-moved;
		goto failed;
	}
	what = "raio_fsync";
	if (raio_fsync(fd))
		goto failed;

	/* Without a buffer of our own the library provides one; it is ours until raio_release. */
	raio_prep_pread(&iocb, fd, NULL, 4096, 0, NULL);
	what = "read";
	moved = finish(ctx, &iocb, &event);
	if (moved < 0) {
		errno = (int)-moved;
		goto failed;
	}
	fwrite(iocb.u.c.buf, 1, (size_t)moved, stdout);
	raio_release(ctx, 1, &event);

	what = "raio_close";
	if (raio_destroy(ctx) || raio_close(fd))
		goto failed;
	return 0;

failed:
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}

/* A session with a server at a host and port, or on this machine at a socket; -1 after a word about why not. */
static int start(const char *host, const char *port)
{
	struct addrinfo hints, *server;
	struct sockaddr_un local;
	int fd;

	if (host[0] == '/') {
		/* Shared memory. */
		memset(&local, 0, sizeof(local));
		local.sun_family = AF_UNIX;
		strncpy(local.sun_path, host, sizeof(local.sun_path) - 1);
		fd = raio_start("shm", (struct sockaddr *)&local, sizeof(local));
	} else {
		memset(&hints, 0, sizeof(hints));
		hints.ai_socktype = SOCK_STREAM;
		int error = getaddrinfo(host, port, &hints, &server);
		if (error) {
			fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
			return -1;
		}
		fd = raio_start("tcp", server->ai_addr, server->ai_addrlen);
		freeaddrinfo(server);
	}
	if (fd < 0)
		fprintf(stderr, "%s %s: %s\n", host, port, strerror(errno));
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s HOST PORT PATH, or %s SOCKET shm PATH\n", argv[0], argv[0]);
		return 2;
	}
	int fd = start(argv[1], argv[2]);
	if (fd < 0)
		return 1;
	int outcome = greet(fd, argv[3]);
	/* Frees all that is left of the session. */
	raio_stop(fd);
	return outcome;
}
