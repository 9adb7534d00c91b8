/*
 * Reads a remote file over RDMA with libraio, several reads at a time, into memory of its own, and compares it with a
 * local copy; then reads past its end.
 *
 *     reader ADDRESS PORT PATH COPY
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <libraio.h>

enum { DEPTH = 4, BLOCK = 256 << 10 };

static int failed(const char *what, int number)
{
	fprintf(stderr, "%s: %s\n", what, strerror(number));
	return 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_in server = { .sin_family = AF_INET };
	struct raio_iocb iocbs[DEPTH + 1], *batch[DEPTH];
	struct raio_event event;
	raio_context_t ctx;
	struct stat64 stat;
	FILE *copy;
	int fd;

	if (argc != 5 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		return failed("usage: reader ADDRESS PORT PATH COPY", EINVAL);
	server.sin_port = htons((unsigned short)atoi(argv[2]));
	copy = fopen(argv[4], "rb");
	if (!copy)
		return failed(argv[4], errno);
	fd = raio_start("rdma", (struct sockaddr *)&server, sizeof(server));
	if (fd < 0)
		return failed("raio_start", errno);
	if (raio_setup(fd, DEPTH, &ctx))
		return failed("raio_setup", errno);
	if (raio_open(fd, argv[3], O_RDONLY | O_LARGEFILE))
		return failed(argv[3], errno);
	if (raio_fstat(fd, &stat))
		return failed("raio_fstat", errno);

	size_t size = (size_t)stat.st_size, rounded = (size + BLOCK - 1) / BLOCK * BLOCK;
	unsigned char *read = malloc(rounded), *expected = malloc(rounded);
	if (!read || !expected)
		return failed("malloc", ENOMEM);
	if (fread(expected, 1, rounded, copy) != size)
		return failed(argv[4], EIO);
	for (size_t asked = 0; asked < rounded;) {
		int count = 0;
		for (; count < DEPTH && asked < rounded; count++, asked += BLOCK) {
			raio_prep_pread(&iocbs[count], fd, read + asked, BLOCK, (long long)asked, NULL);
			batch[count] = &iocbs[count];
		}
		if (raio_submit(ctx, count, batch) != count)
			return failed("raio_submit", EIO);
		for (int ended = 0; ended < count; ended++) {
			if (raio_getevents(ctx, 1, 1, &event, NULL) != 1)
				return failed("raio_getevents", EIO);
			if ((long)event.res < 0)
				return failed("read", (int)-(long)event.res);
		}
	}
	if (memcmp(read, expected, size))
		return failed("the file read is another", EIO);
	raio_prep_pread(&iocbs[0], fd, read, BLOCK, (long long)rounded, NULL);
	batch[0] = &iocbs[0];
	if (raio_submit(ctx, 1, batch) != 1 || raio_getevents(ctx, 1, 1, &event, NULL) != 1 || event.res != 0)
		return failed("a read past the end", EIO);
	if (raio_destroy(ctx) || raio_close(fd) || raio_stop(fd))
		return failed("the end", errno);
	printf("%zu bytes\n", size);
	return 0;
}
