/*
 * Writes a remote file, reads it back and prints it: every step of libraio once.
 *
 *     gcc -O2 examples/c/hello_world.c -I raio/include -L target/release -lraio -o hello_world
 *     LD_LIBRARY_PATH=target/release ./hello_world 127.0.0.1 5555 /data/hello.txt
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

int main(int argc, char **argv)
{
	struct addrinfo hints, *server;

	if (argc != 4) {
		fprintf(stderr, "usage: %s HOST PORT PATH\n", argv[0]);
		return 2;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	int error = getaddrinfo(argv[1], argv[2], &hints, &server);
	if (error) {
		fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
		return 1;
	}
	int fd = raio_start("tcp", server->ai_addr, server->ai_addrlen);
	freeaddrinfo(server);
	if (fd < 0) {
		fprintf(stderr, "%s port %s: %s\n", argv[1], argv[2], strerror(errno));
		return 1;
	}
	int outcome = greet(fd, argv[3]);
	/* Frees all that is left of the session. */
	raio_stop(fd);
	return outcome;
}
