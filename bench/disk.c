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
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static const char *path(const char *name)
{
	static char text[4][300];
	static unsigned turn;

	turn = (turn + 1) & 3;
	snprintf(text[turn], sizeof(text[turn]), "%s/%s", directory, name);
	return text[turn];
}

static void must(int error, const struct disk_error *reason)
{
	if (error) {
		fprintf(stderr, "disk-bench: %s (%d)\n", reason ? reason->text : "failed", error);
		exit(1);
	}
}

static struct disk *open_one(const char *name, enum disk_format format, bool write)
{
	struct disk_error error;
	struct disk *disk;

	must(disk_open(path(name), &(struct disk_options){ .format = format, .write = write },
		       &disk, &error),
	     &error);
	return disk;
}

static void create(const char *name, enum disk_format format, uint64_t bytes, const char *parent)
{
	struct disk_create what = { .format = format, .size_bytes = bytes, .parent = parent };
	struct disk_error error;

	unlink(path(name));
	must(disk_create(path(name), &what, &error), &error);
}

static uint64_t written_bytes(void)
{
	unsigned long bytes = 0;
	char line[80];
	FILE *file = fopen("/proc/self/io", "r");

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "wchar: %lu", &bytes);
	if (file)
		fclose(file);
	return bytes;
}

static void allocation(void)
{
	enum { BLOCKS = 8192, EVERY = 32 };
	struct disk *disk;
	uint64_t syncs;
	double start;

	create("alloc.vhdx", DISK_VHDX, (uint64_t)BLOCKS * (2 << 20), NULL);
	disk = open_one("alloc.vhdx", DISK_VHDX, true);
	must(disk_write(disk, 0, page, SECTOR), NULL);
	syncs = vhdx_of(disk)->syncs;
	start = now();
	for (uint64_t n = 1; n < BLOCKS; n++)
		must(disk_write(disk, n * (2 << 20), page, SECTOR), NULL);
	printf("alloc-syncs-before-flush %lu\n", vhdx_of(disk)->syncs - syncs);
	must(disk_flush(disk), NULL);
	printf("alloc-blocks-per-second %.0f\n", BLOCKS / (now() - start));
	printf("alloc-syncs-with-flush %lu\n", vhdx_of(disk)->syncs - syncs);
	disk_close(disk);
}

static double reads_per_second(struct disk *disk, uint64_t span)
{
	uint64_t state = 88172645463325252ull;
	double start = now();

	for (unsigned n = 0; n < RANDOM_READS; n++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		must(disk_read(disk, state % (span / SECTOR) * SECTOR, page, SECTOR), NULL);
	}
	return RANDOM_READS / (now() - start);
}

static double writes_per_second(struct disk *disk, uint64_t span)
{
	uint64_t state = 88172645463325252ull;
	double start = now();

	for (unsigned n = 0; n < RANDOM_READS; n++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		must(disk_write(disk, state % (span / SECTOR) * SECTOR, page, SECTOR), NULL);
	}
	return RANDOM_READS / (now() - start);
}

static void fill(struct disk *disk, uint64_t bytes)
{
	uint8_t *data = malloc(1 << 20);

	memset(data, 7, 1 << 20);
	for (uint64_t at = 0; at < bytes; at += 1 << 20)
		must(disk_write(disk, at, data, 1 << 20), NULL);
	must(disk_flush(disk), NULL);
	free(data);
}

static void steady(void)
{
	const uint64_t bytes = 256 << 20;
	double best[2][2] = { { 0 } };

	create("steady.vhdx", DISK_VHDX, bytes, NULL);
	create("steady.raw", DISK_RAW, bytes, NULL);
	struct disk *disk[2] = { open_one("steady.raw", DISK_RAW, true),
				 open_one("steady.vhdx", DISK_VHDX, true) };

	for (int n = 0; n < 2; n++)
		fill(disk[n], bytes);
	for (int k = 0; k < 5; k++)
		for (int n = 0; n < 2; n++) {
			double reads = reads_per_second(disk[n], bytes),
			       writes = writes_per_second(disk[n], bytes);

			best[n][0] = reads > best[n][0] ? reads : best[n][0];
			best[n][1] = writes > best[n][1] ? writes : best[n][1];
		}
	printf("steady-read-against-raw %.3f\nsteady-overwrite-against-raw %.3f\n",
	       best[1][0] / best[0][0], best[1][1] / best[0][1]);
	disk_close(disk[0]);
	disk_close(disk[1]);
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

static void next_request(struct disk_request *request, int error)
{
	struct stream *stream = request->context;

	must(error, NULL);
	if (!stream->left)
		return;
	stream->left--;
	stream->state ^= stream->state << 13;
	stream->state ^= stream->state >> 7;
	stream->state ^= stream->state << 17;
	request->offset = stream->state % (stream->span / SECTOR) * SECTOR;
	disk_queue_submit(stream->queue, request);
}

static double queued_per_second(struct disk *disk, uint64_t span, enum disk_request_kind kind,
				bool no_ring)
{
	struct stream stream = { .state = 88172645463325252ull,
				 .span = span,
				 .left = QUEUE_REQUESTS };
	uint8_t *memory = aligned_alloc(SECTOR, QUEUE_DEPTH * SECTOR);
	double start = now();

	memset(memory, 3, QUEUE_DEPTH * SECTOR);
	must(disk_queue_open(
		     disk,
		     &(struct disk_queue_options){ .depth = QUEUE_DEPTH + 1, .no_ring = no_ring },
		     &stream.queue),
	     NULL);
	for (unsigned n = 0; n < QUEUE_DEPTH; n++) {
		stream.iov[n] = (struct iovec){ memory + n * SECTOR, SECTOR };
		stream.request[n] = (struct disk_request){ .kind = kind,
							   .iov = &stream.iov[n],
							   .count = 1,
							   .done = next_request,
							   .context = &stream };
		next_request(&stream.request[n], 0);
	}
	disk_queue_drain(stream.queue);
	disk_queue_close(stream.queue);
	free(memory);
	return QUEUE_REQUESTS / (now() - start);
}

/* The same engine (ring, depth 32) below a raw file and a VHDX file. */
static void queues(void)
{
	const uint64_t bytes = 256 << 20;
	double best[2][2] = { { 0 } }, threads = 0;
	struct disk *disk[2] = { open_one("steady.raw", DISK_RAW, true),
				 open_one("steady.vhdx", DISK_VHDX, true) };

	for (int k = 0; k < 5; k++)
		for (int n = 0; n < 2; n++)
			for (int write = 0; write < 2; write++) {
				double reads = queued_per_second(
					disk[n], bytes, write ? DISK_WRITE : DISK_READ, false);

				best[n][write] = reads > best[n][write] ? reads : best[n][write];
			}
	threads = queued_per_second(disk[1], bytes, DISK_READ, true);
	printf("queue-read-against-raw %.3f\nqueue-overwrite-against-raw %.3f\n",
	       best[1][0] / best[0][0], best[1][1] / best[0][1]);
	printf("queue-reads-per-second %.0f\nqueue-reads-per-second-without-ring %.0f\n",
	       best[1][0], threads);
	disk_close(disk[0]);
	disk_close(disk[1]);
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
		struct disk_error error;
		struct disk *disk;
		double start, end;

		unlink(path("seal.vhdx"));
		must(disk_create(path("seal.vhdx"), &what, &error), &error);
		disk = open_one("seal.vhdx", DISK_VHDX, true);
		fill(disk, bytes);
		disk_close(disk);
		disk = open_one("seal.vhdx", DISK_VHDX, true);
		start = now();
		for (unsigned n = 0; n < WRITES; n++) {
			state ^= state << 13, state ^= state >> 7, state ^= state << 17;
			must(disk_write(disk, state % (bytes / SECTOR) * SECTOR, page, SECTOR),
			     NULL);
			if (n % FLUSH_EVERY == 0)
				must(disk_flush(disk), NULL);
		}
		must(disk_flush(disk), NULL);
		end = now();
		must(disk_close(disk), NULL);
		seconds[k & 1][k / 2] = now() - start;
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
	struct disk *disk;

	create("chain-0.vhdx", DISK_VHDX, bytes, NULL);
	disk = open_one("chain-0.vhdx", DISK_VHDX, true);
	fill(disk, bytes);
	disk_close(disk);
	for (unsigned n = 1; n <= 512; n++) {
		snprintf(name, sizeof(name), "chain-%u.vhdx", n - 1);
		snprintf(parent, sizeof(parent), "%s", path(name));
		snprintf(name, sizeof(name), "chain-%u.vhdx", n);
		create(name, DISK_VHDX, 0, parent);
	}
	for (int k = 0; k < 5; k++)
		for (int n = 0; n < 3; n++) {
			double start = now(), result;

			snprintf(name, sizeof(name), "chain-%u.vhdx", depths[n]);
			disk = open_one(name, DISK_VHDX, false);
			start = (now() - start) * 1000;
			open_ms[n] = start < open_ms[n] ? start : open_ms[n];
			result = reads_per_second(disk, bytes);
			rate[n] = result > rate[n] ? result : rate[n];
			disk_close(disk);
		}
	printf("chain-64-read-against-1 %.3f\nchain-512-read-against-1 %.3f\nchain-64-open-ms "
	       "%.2f\nchain-512-open-ms %.2f\n",
	       rate[1] / rate[0], rate[2] / rate[0], open_ms[1], open_ms[2]);
}

static void first_writes(void)
{
	enum { WRITES = 2000 };
	struct disk *disk;
	uint64_t before;

	create("first.vhdx", DISK_VHDX, 0, path("chain-0.vhdx"));
	disk = open_one("first.vhdx", DISK_VHDX, true);
	must(disk_write(disk, 0, page, SECTOR), NULL);
	before = written_bytes();
	for (uint64_t n = 1; n <= WRITES; n++)
		must(disk_write(disk, n * (128 << 10), page, SECTOR), NULL);
	must(disk_flush(disk), NULL);
	printf("child-first-write-bytes-per-byte %.3f\n",
	       (double)(written_bytes() - before) / WRITES / SECTOR);
	disk_close(disk);
}

static void empty(void)
{
	double best = 1e9;

	for (int k = 0; k < 5; k++) {
		double start = now();

		create("empty.vhdx", DISK_VHDX, 64ull << 30, NULL);
		start = now() - start;
		best = start < best ? start : best;
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
