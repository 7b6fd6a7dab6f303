/*
 * What umbra's disks cost, one figure a line (bench/disk runs it): disk-bench DIRECTORY [PART].
 * Cached files, one thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "disk/queue.h"
#include "disk/format/vhdx_internal.h"

enum { SECTOR = 4096, RANDOM_READS = 100000 };

static char directory[256];
static uint8_t page[SECTOR];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const char *path(const char *name)
{
	static char text[4][300];
	static unsigned turn;

	turn = (turn + 1) & 3;
	snprintf(text[turn], sizeof(text[turn]), "%s/%s", directory, name);
	return text[turn];
}

static void must(int error, const struct disk_error *e)
{
	if (error) {
		fprintf(stderr, "disk-bench: %s (%d)\n", e ? e->text : "failed", error);
		exit(1);
	}
}

static struct disk *open_one(const char *name, enum disk_format format, bool write)
{
	struct disk_error e;
	struct disk *d;

	must(disk_open(path(name), &(struct disk_options){ .format = format, .write = write }, &d,
		       &e),
	     &e);
	return d;
}

static void create(const char *name, enum disk_format format, uint64_t bytes, const char *parent)
{
	struct disk_create what = { .format = format, .size_bytes = bytes, .parent = parent };
	struct disk_error e;

	unlink(path(name));
	must(disk_create(path(name), &what, &e), &e);
}

static uint64_t written_bytes(void)
{
	unsigned long bytes = 0;
	char line[80];
	FILE *f = fopen("/proc/self/io", "r");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "wchar: %lu", &bytes);
	if (f)
		fclose(f);
	return bytes;
}

static void allocation(void)
{
	enum { BLOCKS = 8192, EVERY = 32 };
	struct disk *d;
	uint64_t syncs;
	double t;

	create("alloc.vhdx", DISK_VHDX, (uint64_t)BLOCKS * (2 << 20), NULL);
	d = open_one("alloc.vhdx", DISK_VHDX, true);
	must(disk_write(d, 0, page, SECTOR), NULL);
	syncs = vhdx_of(d)->syncs;
	t = now();
	for (uint64_t n = 1; n < BLOCKS; n++)
		must(disk_write(d, n * (2 << 20), page, SECTOR), NULL);
	printf("alloc-syncs-before-flush %lu\n", vhdx_of(d)->syncs - syncs);
	must(disk_flush(d), NULL);
	printf("alloc-blocks-per-second %.0f\n", BLOCKS / (now() - t));
	printf("alloc-syncs-with-flush %lu\n", vhdx_of(d)->syncs - syncs);
	disk_close(d);
}

static double reads_per_second(struct disk *d, uint64_t span)
{
	uint64_t state = 88172645463325252ull;
	double t = now();

	for (unsigned n = 0; n < RANDOM_READS; n++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		must(disk_read(d, state % (span / SECTOR) * SECTOR, page, SECTOR), NULL);
	}
	return RANDOM_READS / (now() - t);
}

static double writes_per_second(struct disk *d, uint64_t span)
{
	uint64_t state = 88172645463325252ull;
	double t = now();

	for (unsigned n = 0; n < RANDOM_READS; n++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		must(disk_write(d, state % (span / SECTOR) * SECTOR, page, SECTOR), NULL);
	}
	return RANDOM_READS / (now() - t);
}

static void fill(struct disk *d, uint64_t bytes)
{
	uint8_t *data = malloc(1 << 20);

	memset(data, 7, 1 << 20);
	for (uint64_t at = 0; at < bytes; at += 1 << 20)
		must(disk_write(d, at, data, 1 << 20), NULL);
	must(disk_flush(d), NULL);
	free(data);
}

static void steady(void)
{
	const uint64_t bytes = 256 << 20;
	double best[2][2] = { { 0 } };

	create("steady.vhdx", DISK_VHDX, bytes, NULL);
	create("steady.raw", DISK_RAW, bytes, NULL);
	struct disk *d[2] = { open_one("steady.raw", DISK_RAW, true),
			      open_one("steady.vhdx", DISK_VHDX, true) };

	for (int n = 0; n < 2; n++)
		fill(d[n], bytes);
	for (int k = 0; k < 5; k++)
		for (int n = 0; n < 2; n++) {
			double r = reads_per_second(d[n], bytes),
			       w = writes_per_second(d[n], bytes);

			best[n][0] = r > best[n][0] ? r : best[n][0];
			best[n][1] = w > best[n][1] ? w : best[n][1];
		}
	printf("steady-read-against-raw %.3f\nsteady-overwrite-against-raw %.3f\n",
	       best[1][0] / best[0][0], best[1][1] / best[0][1]);
	disk_close(d[0]);
	disk_close(d[1]);
}

/* ---- queues ---- */

enum { QUEUE_DEPTH = 32, QUEUE_REQUESTS = 100000 };
struct stream {
	struct disk_queue *queue;
	struct disk_request request[QUEUE_DEPTH];
	struct iovec iov[QUEUE_DEPTH];
	uint64_t state, span;
	unsigned left;
};

static void next_request(struct disk_request *r, int error)
{
	struct stream *s = r->context;

	must(error, NULL);
	if (!s->left)
		return;
	s->left--;
	s->state ^= s->state << 13;
	s->state ^= s->state >> 7;
	s->state ^= s->state << 17;
	r->offset = s->state % (s->span / SECTOR) * SECTOR;
	disk_queue_submit(s->queue, r);
}

static double queued_per_second(struct disk *d, uint64_t span, enum disk_request_kind kind,
				bool no_ring)
{
	struct stream s = { .state = 88172645463325252ull, .span = span, .left = QUEUE_REQUESTS };
	uint8_t *memory = aligned_alloc(SECTOR, QUEUE_DEPTH * SECTOR);
	double t = now();

	memset(memory, 3, QUEUE_DEPTH * SECTOR);
	must(disk_queue_open(
		     d,
		     &(struct disk_queue_options){ .depth = QUEUE_DEPTH + 1, .no_ring = no_ring },
		     &s.queue),
	     NULL);
	for (unsigned n = 0; n < QUEUE_DEPTH; n++) {
		s.iov[n] = (struct iovec){ memory + n * SECTOR, SECTOR };
		s.request[n] = (struct disk_request){ .kind = kind,
						      .iov = &s.iov[n],
						      .count = 1,
						      .done = next_request,
						      .context = &s };
		next_request(&s.request[n], 0);
	}
	disk_queue_drain(s.queue);
	disk_queue_close(s.queue);
	free(memory);
	return QUEUE_REQUESTS / (now() - t);
}

/* The same engine (ring, depth 32) below a raw file and a VHDX file. */
static void queues(void)
{
	const uint64_t bytes = 256 << 20;
	double best[2][2] = { { 0 } }, threads = 0;
	struct disk *d[2] = { open_one("steady.raw", DISK_RAW, true),
			      open_one("steady.vhdx", DISK_VHDX, true) };

	for (int k = 0; k < 5; k++)
		for (int n = 0; n < 2; n++)
			for (int write = 0; write < 2; write++) {
				double r = queued_per_second(d[n], bytes,
							     write ? DISK_WRITE : DISK_READ, false);

				best[n][write] = r > best[n][write] ? r : best[n][write];
			}
	threads = queued_per_second(d[1], bytes, DISK_READ, true);
	printf("queue-read-against-raw %.3f\nqueue-overwrite-against-raw %.3f\n",
	       best[1][0] / best[0][0], best[1][1] / best[0][1]);
	printf("queue-reads-per-second %.0f\nqueue-reads-per-second-without-ring %.0f\n",
	       best[1][0], threads);
	disk_close(d[0]);
	disk_close(d[1]);
}

static int order(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) -
	       (*(const double *)a < *(const double *)b);
}

/*
 * A write-heavy run on a disk with digests and one without: what identity and seal cost, closing
 * included; medians of interleaved runs.
 */
static void seal(void)
{
	enum { WRITES = 600000, FLUSH_EVERY = 2000, PAIRS = 5 };
	const uint64_t bytes = 1ull << 30;
	double seconds[2][PAIRS], closing[2][PAIRS];

	for (int k = 0; k < 2 * PAIRS; k++) {
		struct disk_create what = { .format = DISK_VHDX,
					    .size_bytes = bytes,
					    .no_digests = k & 1 };
		uint64_t state = 88172645463325252ull;
		struct disk_error e;
		struct disk *d;
		double t, end;

		unlink(path("seal.vhdx"));
		must(disk_create(path("seal.vhdx"), &what, &e), &e);
		d = open_one("seal.vhdx", DISK_VHDX, true);
		fill(d, bytes);
		disk_close(d);
		d = open_one("seal.vhdx", DISK_VHDX, true);
		t = now();
		for (unsigned n = 0; n < WRITES; n++) {
			state ^= state << 13, state ^= state >> 7, state ^= state << 17;
			must(disk_write(d, state % (bytes / SECTOR) * SECTOR, page, SECTOR), NULL);
			if (n % FLUSH_EVERY == 0)
				must(disk_flush(d), NULL);
		}
		must(disk_flush(d), NULL);
		end = now();
		must(disk_close(d), NULL);
		seconds[k & 1][k / 2] = now() - t;
		closing[k & 1][k / 2] = now() - end;
	}
	for (int n = 0; n < 2; n++) {
		qsort(seconds[n], PAIRS, sizeof(double), order);
		qsort(closing[n], PAIRS, sizeof(double), order);
	}
	printf("seal-write-heavy-against-none %.3f\nseal-run-seconds %.2f\n",
	       seconds[0][PAIRS / 2] / seconds[1][PAIRS / 2], seconds[0][PAIRS / 2]);
	printf("seal-closing-seconds %.3f\nseal-closing-seconds-without %.3f\n",
	       closing[0][PAIRS / 2], closing[1][PAIRS / 2]);
}

static void chains(void)
{
	const uint64_t bytes = 256 << 20;
	static const unsigned depths[] = { 1, 64, 512 };
	double rate[3] = { 0 }, open_ms[3] = { 1e9, 1e9, 1e9 };
	char name[32], parent[300];
	struct disk *d;

	create("chain-0.vhdx", DISK_VHDX, bytes, NULL);
	d = open_one("chain-0.vhdx", DISK_VHDX, true);
	fill(d, bytes);
	disk_close(d);
	for (unsigned n = 1; n <= 512; n++) {
		snprintf(name, sizeof(name), "chain-%u.vhdx", n - 1);
		snprintf(parent, sizeof(parent), "%s", path(name));
		snprintf(name, sizeof(name), "chain-%u.vhdx", n);
		create(name, DISK_VHDX, 0, parent);
	}
	for (int k = 0; k < 5; k++)
		for (int n = 0; n < 3; n++) {
			double t = now(), r;

			snprintf(name, sizeof(name), "chain-%u.vhdx", depths[n]);
			d = open_one(name, DISK_VHDX, false);
			t = (now() - t) * 1000;
			open_ms[n] = t < open_ms[n] ? t : open_ms[n];
			r = reads_per_second(d, bytes);
			rate[n] = r > rate[n] ? r : rate[n];
			disk_close(d);
		}
	printf("chain-64-read-against-1 %.3f\nchain-512-read-against-1 %.3f\nchain-64-open-ms "
	       "%.2f\nchain-512-open-ms %.2f\n",
	       rate[1] / rate[0], rate[2] / rate[0], open_ms[1], open_ms[2]);
}

static void first_writes(void)
{
	enum { WRITES = 2000 };
	struct disk *d;
	uint64_t before;

	create("first.vhdx", DISK_VHDX, 0, path("chain-0.vhdx"));
	d = open_one("first.vhdx", DISK_VHDX, true);
	must(disk_write(d, 0, page, SECTOR), NULL);
	before = written_bytes();
	for (uint64_t n = 1; n <= WRITES; n++)
		must(disk_write(d, n * (128 << 10), page, SECTOR), NULL);
	must(disk_flush(d), NULL);
	printf("child-first-write-bytes-per-byte %.3f\n",
	       (double)(written_bytes() - before) / WRITES / SECTOR);
	disk_close(d);
}

static void empty(void)
{
	double best = 1e9;

	for (int k = 0; k < 5; k++) {
		double t = now();

		create("empty.vhdx", DISK_VHDX, 64ull << 30, NULL);
		t = now() - t;
		best = t < best ? t : best;
	}
	printf("create-64G-ms %.2f\n", best * 1000);
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*measure)(void);
	} parts[] = {
		{ "allocation", allocation }, { "steady", steady },
		{ "queues", queues },         { "seal", seal },
		{ "chains", chains },         { "first", first_writes },
		{ "empty", empty },
	};

	if (argc < 2 || argc > 3)
		return 64;
	snprintf(directory, sizeof(directory), "%s", argv[1]);
	memset(page, 9, sizeof(page));
	for (size_t n = 0; n < sizeof(parts) / sizeof(parts[0]); n++)
		if (argc == 2 || !strcmp(parts[n].name, argv[2]))
			parts[n].measure();
	return 0;
}
