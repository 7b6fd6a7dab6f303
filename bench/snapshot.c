/*
 * Snapshots of a disk in use: how long one takes, and the longest that a client of the export waits
 * for an answer meanwhile. A client writes and reads 4 KiB at random places, one after the other,
 * over NBD; every 50 ms a snapshot is asked for on the control socket. For comparison the longest
 * wait in windows as long without a snapshot. usage: snapshot-bench DIRECTORY [SNAPSHOTS]
 */
#include <endian.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "serve/served.h"

/* The part of the disk that the client uses: what a snapshot has to make clean. */
#ifndef SPAN_MIB
#define SPAN_MIB 256
#endif
enum { DISK_BYTES = 1 << 30, SPAN = SPAN_MIB << 20, WINDOW_US = 50000, SNAPSHOTS_MAX = 1000 };
enum { BLOCK_BYTES = 4096, LINE_BYTES = 4096 };

static struct served served;
static int client_end[2], control_end[2];
static bool over; /* atomic */
static double longest_us; /* of this window */
static unsigned long requests;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "snapshot-bench: %s\n", what);
	exit(1);
}

static void all(int fd, void *at, size_t bytes, bool out)
{
	while (bytes) {
		ssize_t n = out ? write(fd, at, bytes) : read(fd, at, bytes);

		if (n <= 0)
			fail("the connection broke");
		at = (uint8_t *)at + n;
		bytes -= (size_t)n;
	}
}

static void *serve_client(void *context)
{
	(void)context;
	nbd_serve(&served, client_end[1]);
	return NULL;
}

static void *serve_control(void *context)
{
	(void)context;
	control_serve(&served, control_end[1]);
	return NULL;
}

/* ---- the client ---- */

static void shake_hands(int fd)
{
	struct { uint64_t magic, option_magic; uint16_t flags; } __attribute__((packed)) hello;
	struct {
		uint32_t flags;
		uint64_t magic;
		uint32_t option, bytes;
	} __attribute__((packed))
	answer = { htobe32(3), htobe64(0x49484156454f5054), htobe32(1), 0 };
	uint8_t export[10];

	all(fd, &hello, sizeof(hello), false);
	all(fd, &answer, sizeof(answer), true);
	all(fd, export, sizeof(export), false);
}

static void one_request(int fd, uint64_t *state)
{
	struct {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t cookie, offset;
		uint32_t bytes;
	} __attribute__((packed))
	request = { htobe32(0x25609513), 0, 0, 1, 0, htobe32(BLOCK_BYTES) };
	struct { uint32_t magic, error; uint64_t cookie; } __attribute__((packed)) answer;
	static uint8_t data[BLOCK_BYTES];
	bool write;

	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	write = *state >> 40 & 1;
	request.type = htobe16(write);
	request.offset = htobe64(*state % (SPAN / BLOCK_BYTES) * BLOCK_BYTES);
	all(fd, &request, sizeof(request), true);
	if (write)
		all(fd, data, sizeof(data), true);
	all(fd, &answer, sizeof(answer), false);
	if (answer.error)
		fail("a request failed");
	if (!write)
		all(fd, data, sizeof(data), false);
}

static void *run_client(void *context)
{
	uint64_t state = 88172645463325252ull;

	(void)context;
	shake_hands(client_end[0]);
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		double begin = now_us();
		double took;

		one_request(client_end[0], &state);
		took = now_us() - begin;
		pthread_mutex_lock(&lock);
		longest_us = took > longest_us ? took : longest_us;
		requests++;
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static double take_longest(void)
{
	double us;

	pthread_mutex_lock(&lock);
	us = longest_us;
	longest_us = 0;
	pthread_mutex_unlock(&lock);
	return us;
}

/* ---- snapshots ---- */

/*
 * How long it took until requests went to the child. The rest, making the parent clean, is waited
 * for, too.
 */
static double snapshot(FILE *from, const char *directory, unsigned n)
{
	char line[LINE_BYTES], whole[LINE_BYTES];
	double us = 0;
	double begin = now_us();

	dprintf(control_end[0], "{\"do\":\"snapshot\",\"file\":\"%s/c%u.vhdx\"}\n", directory, n);
	while (fgets(line, sizeof(line), from)) {
		json_t *json = json_loads(line, 0, NULL);
		json_t *value = json_object_get(json, "done");

		snprintf(whole, sizeof(whole), "%s", line);
		if (value && !us)
			us = now_us() - begin;
		if (json_object_get(json, "ok") && !json_is_true(json_object_get(json, "ok")))
			fail(whole);
		value = json_object_get(json, "ok");
		json_decref(json);
		if (value)
			return us;
	}
	fail("the server went away");
	return 0;
}

static int order(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) -
	       (*(const double *)a < *(const double *)b);
}

static void report(const char *what, double *us, unsigned count)
{
	qsort(us, count, sizeof(*us), order);
	printf("%-44s median %8.0f us, p90 %8.0f us, longest %8.0f us\n", what, us[count / 2],
	       us[count * 9 / 10], us[count - 1]);
}

static void prepare(const char *directory)
{
	char path[PATH_MAX];
	struct disk_error error;
	struct disk *disk;

	snprintf(path, sizeof(path), "%s/base.vhdx", directory);
	unlink(path);
	if (disk_create(path,
			&(struct disk_create){ .format = DISK_VHDX, .size_bytes = DISK_BYTES },
			&error) ||
	    disk_open(path, &(struct disk_options){ .format = DISK_VHDX, .write = true }, &disk,
		      &error))
		fail(error.text);
	served_init(&served, disk, false);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, client_end) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, control_end))
		fail("no sockets");
}

int main(int argc, char **argv)
{
	static double call[SNAPSHOTS_MAX], gap[SNAPSHOTS_MAX], quiet[SNAPSHOTS_MAX];
	unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 128;
	pthread_t threads[3];
	FILE *from;

	if (argc < 2 || !count || count > SNAPSHOTS_MAX)
		fail("usage: snapshot-bench DIRECTORY [SNAPSHOTS]");
	prepare(argv[1]);
	pthread_create(&threads[0], NULL, serve_client, NULL);
	pthread_create(&threads[1], NULL, serve_control, NULL);
	pthread_create(&threads[2], NULL, run_client, NULL);
	from = fdopen(control_end[0], "r+");
	usleep(500000);
	for (unsigned n = 0; n < count; n++) {
		double begin;

		take_longest();
		usleep(WINDOW_US);
		quiet[n] = take_longest();
		begin = now_us();
		call[n] = snapshot(from, argv[1], n);
		if (now_us() - begin < WINDOW_US)
			usleep(WINDOW_US - (unsigned)(now_us() - begin));
		gap[n] = take_longest();
	}
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	pthread_join(threads[2], NULL);
	printf("%u snapshots, so many links at the end; %lu requests\n", count, requests);
	report("a snapshot, until requests go to the child", call, count);
	report("longest wait of a client with a snapshot", gap, count);
	report("longest wait without", quiet, count);
	shutdown(client_end[0], SHUT_RDWR);
	shutdown(control_end[0], SHUT_RDWR);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	return served_end(&served) != 0;
}
