/*
 * Reads a remote file from its beginning to its end, as R-AIO's own client does: up to DEPTH reads in flight, into buffers
 * that the library provides. It prints the bytes, their checksum and the time.
 *
 *     gcc -O2 examples/c/raio_reader.c -I libraio/include -L target/release -lraio -o raio_reader
 *     LD_LIBRARY_PATH=target/release ./raio_reader 127.0.0.1 5555 /data/big.img [BLOCK [DEPTH [ROUNDS]]]
 *     LD_LIBRARY_PATH=target/release ./raio_reader /run/raio.sock shm /data/big.img [BLOCK [DEPTH [ROUNDS]]]
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include <libraio.h>

static int failed(const char *what, int number)
{
	fprintf(stderr, "%s: %s\n", what, strerror(number));
	return 1;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A sum that does not depend on the order in which the blocks arrive: FNV-1a over each block, added up. */
static uint64_t sum_of(const unsigned char *bytes, size_t length, uint64_t offset)
{
	uint64_t sum = 14695981039346656037u ^ offset;

	for (size_t i = 0; i < length; i++)
		sum = (sum ^ bytes[i]) * 1099511628211u;
	return sum;
}

/* Where the server is: by the network, or on this machine by shared memory. */
struct place {
	const char *transport;
	struct sockaddr_storage address;
	socklen_t length;
};

/* Reads the file once; 0 when all went well. */
static int read_file(const struct place *server, const char *path, size_t block, int depth)
{
	raio_context_t ctx;
	struct stat64 stat;
	int fd = raio_start(server->transport, (const struct sockaddr *)&server->address, server->length);

	if (fd < 0)
		return failed("raio_start", errno);
	if (raio_setup(fd, depth, &ctx))
		return failed("raio_setup", errno);
	if (raio_open(fd, path, O_RDONLY | O_LARGEFILE))
		return failed(path, errno);
	if (raio_fstat(fd, &stat))
		return failed("raio_fstat", errno);

	struct raio_iocb *iocbs = calloc((size_t)depth, sizeof(*iocbs));
	struct raio_iocb **idle = calloc((size_t)depth, sizeof(*idle)), **batch = calloc((size_t)depth, sizeof(*batch));
	if (!iocbs || !idle || !batch)
		return failed("calloc", ENOMEM);
	int idle_count = 0;
	for (int i = 0; i < depth; i++)
		idle[idle_count++] = &iocbs[i];

	uint64_t size = (uint64_t)stat.st_size, asked = 0, done = 0, sum = 0;
	double start = seconds();
	while (done < size) {
		int prepared = 0;
		while (asked < size && idle_count > 0) {
			struct raio_iocb *iocb = idle[--idle_count];
			size_t length = size - asked < block ? (size_t)(size - asked) : block;
			raio_prep_pread(iocb, fd, NULL, length, (long long)asked, NULL);
			batch[prepared++] = iocb;
			asked += length;
		}
		for (int taken = 0; taken < prepared;) {
			int count = raio_submit(ctx, prepared - taken, batch + taken);
			if (count < 0)
				return failed("raio_submit", -count);
			taken += count;
		}
		struct raio_event event;
		int count = raio_getevents(ctx, 1, 1, &event, NULL);
		if (count < 0)
			return failed("raio_getevents", -count);
		if (count == 0)
			continue;
		struct raio_iocb *iocb = event.obj;
		long moved = (long)event.res;
		if (moved < 0)
			return failed("read", (int)-moved);
		if ((unsigned long long)moved != iocb->u.c.nbytes) {
			fprintf(stderr, "%s: it has become shorter meanwhile\n", path);
			return 1;
		}
		sum += sum_of(iocb->u.c.buf, (size_t)moved, (uint64_t)iocb->u.c.offset);
		done += (uint64_t)moved;
		raio_release(ctx, 1, &event);
		idle[idle_count++] = iocb;
	}
	double took = seconds() - start;
	printf("%" PRIu64 " bytes, sum %016" PRIx64 ", %.3f s, %.1f MB/s\n", done, sum, took,
	       took > 0 ? (double)done / took / 1e6 : 0.0);
	free(iocbs);
	free(idle);
	free(batch);

	if (raio_destroy(ctx))
		return failed("raio_destroy", errno);
	if (raio_close(fd))
		return failed("raio_close", errno);
	if (raio_stop(fd))
		return failed("raio_stop", errno);
	return 0;
}

/* Finds out where a server is; 0 when all went well. */
static int find(struct place *server, const char *host, const char *port)
{
	struct addrinfo hints, *found;

	memset(server, 0, sizeof(*server));
	if (host[0] == '/') {
		struct sockaddr_un *local = (struct sockaddr_un *)&server->address;
		local->sun_family = AF_UNIX;
		strncpy(local->sun_path, host, sizeof(local->sun_path) - 1);
		server->transport = "shm";
		server->length = sizeof(*local);
		return 0;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	int error = getaddrinfo(host, port, &hints, &found);
	if (error) {
		fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
		return 1;
	}
	server->transport = "tcp";
	memcpy(&server->address, found->ai_addr, found->ai_addrlen);
	server->length = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

int main(int argc, char **argv)
{
	struct place server;

	if (argc < 4 || argc > 7) {
		fprintf(stderr, "usage: %s HOST PORT | SOCKET shm  PATH [BLOCK [DEPTH [ROUNDS]]]\n", argv[0]);
		return 2;
	}
	size_t block = argc > 4 ? strtoul(argv[4], NULL, 0) : 1 << 20;
	int depth = argc > 5 ? atoi(argv[5]) : 1024;
	int rounds = argc > 6 ? atoi(argv[6]) : 1;
	if (block == 0 || depth <= 0 || rounds <= 0) {
		fprintf(stderr, "BLOCK, DEPTH and ROUNDS are numbers from 1\n");
		return 2;
	}
	if (find(&server, argv[1], argv[2]))
		return 1;
	int outcome = 0;
	for (int i = 0; i < rounds && outcome == 0; i++)
		outcome = read_file(&server, argv[3], block, depth);
	return outcome;
}
