/*
 * Queues against a model: several threads, each with a queue on the same disk and a part of it for
 * itself, many requests under way at once; reads, writes, zeroing, flushes at random, with and
 * without the ring, past the cache and through it, over every kind of disk. What is read is what
 * was written; afterwards the whole disk is, and a file that is opened again. usage: queue_test
 * [REQUESTS [SEED]]
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/queue.h"

enum { QUEUES = 3, DEPTH = 24, PART = 16 << 20, MAX = 64 << 10, UNIT = 4096, SLOTS = PART / MAX };
enum { WOKEN_MS = 20000 };

static uint8_t *model; /* QUEUES * PART */
static unsigned long requests, faults;
static bool no_ring;

struct worker {
	struct disk *disk;
	struct disk_queue *queue;
	unsigned n;
	uint64_t random;
	struct slot {
		struct disk_request request;
		struct iovec iov[3];
		uint8_t *memory, *want;
		struct worker *worker;
		bool busy;
	} slot[DEPTH];
	bool taken[SLOTS]; /* a part of the disk that a request is at */
};

static uint64_t rnd(struct worker *worker)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 7;
	worker->random ^= worker->random << 17;
	return worker->random;
}

static void fault(const char *what, uint64_t offset, int error)
{
	fprintf(stderr, "queue_test: %s at %lu: %d\n", what, offset, error);
	__atomic_add_fetch(&faults, 1, __ATOMIC_RELAXED);
}

static void done(struct disk_request *request, int error)
{
	struct slot *slot = request->context;
	struct worker *worker = slot->worker;

	if (error)
		fault("an error", request->offset, error);
	else if (request->kind == DISK_READ &&
		 memcmp(slot->memory, slot->want,
			slot->request.iov[0].iov_len +
				(request->count > 1 ? request->iov[1].iov_len : 0)))
		fault("another content", request->offset, 0);
	if (request->kind != DISK_FLUSH)
		worker->taken[(request->offset - worker->n * (uint64_t)PART) / MAX] = false;
	slot->busy = false;
}

static void begin(struct worker *worker, struct slot *sector)
{
	uint64_t place = rnd(worker) % SLOTS;
	uint64_t bytes = (rnd(worker) % (MAX / UNIT) + 1) * UNIT;
	uint64_t in = (MAX - bytes) / UNIT ? rnd(worker) % ((MAX - bytes) / UNIT + 1) * UNIT : 0;
	uint64_t offset = worker->n * (uint64_t)PART + place * MAX + in;
	struct disk_request *request = &sector->request;

	if (worker->taken[place])
		return;
	*request = (struct disk_request){ .kind = (enum disk_request_kind)(rnd(worker) % 16),
					  .offset = offset,
					  .bytes = bytes,
					  .iov = sector->iov,
					  .count = bytes > UNIT ? 2 : 1,
					  .done = done,
					  .context = sector };
	if (request->kind > DISK_FLUSH) /* mostly reads and writes */
		request->kind = request->kind & 1 ? DISK_READ : DISK_WRITE;
	sector->iov[0] = (struct iovec){ sector->memory, request->count > 1 ? UNIT : bytes };
	sector->iov[1] = (struct iovec){ sector->memory + UNIT, bytes - UNIT };
	if (request->kind == DISK_READ)
		memcpy(sector->want, model + offset, bytes);
	if (request->kind == DISK_ZERO)
		memset(model + offset, 0, bytes);
	if (request->kind == DISK_WRITE) {
		memset(sector->memory, (int)rnd(worker) | 1, bytes);
		memcpy(model + offset, sector->memory, bytes);
	}
	worker->taken[place] |= request->kind != DISK_FLUSH;
	sector->busy = true;
	if (disk_queue_submit(worker->queue, request))
		fault("not taken", offset, 0);
}

static bool is_any_busy(const struct worker *worker)
{
	for (unsigned n = 0; n < DEPTH; n++)
		if (worker->slot[n].busy)
			return true;
	return false;
}

/* Whoever sleeps is woken by the first that is done. */
static void sleep_until_some(struct worker *worker)
{
	struct pollfd event = { .fd = disk_queue_fd(worker->queue), .events = POLLIN };
	const bool may_sleep = disk_queue_may_sleep(worker->queue);

	if (!poll(&event, 1, may_sleep ? WOKEN_MS : 0) && may_sleep)
		fault("not woken", 0, 0);
	disk_queue_wakes(worker->queue, event.revents);
}

static void *work(void *context)
{
	struct worker *worker = context;
	const struct disk_queue_options options = { .depth = DEPTH,
						    .threads = 2,
						    .no_ring = no_ring };

	if (disk_queue_open(worker->disk, &options, &worker->queue)) {
		fault("no queue", 0, 0);
		return NULL;
	}
	for (unsigned n = 0; n < DEPTH; n++) {
		worker->slot[n].worker = worker;
		worker->slot[n].memory = aligned_alloc(UNIT, MAX);
		worker->slot[n].want = malloc(MAX);
	}
	for (unsigned long n = 0; n < requests; n++) {
		struct slot *slot = &worker->slot[rnd(worker) % DEPTH];

		if (!slot->busy)
			begin(worker, slot);
		if (rnd(worker) % 4 == 0 && !disk_queue_poll(worker->queue) &&
		    is_any_busy(worker))
			sleep_until_some(worker);
	}
	disk_queue_close(worker->queue);
	for (unsigned n = 0; n < DEPTH; n++) {
		free(worker->slot[n].memory);
		free(worker->slot[n].want);
	}
	return NULL;
}

static void must(int error, const struct disk_error *reason)
{
	if (error) {
		fprintf(stderr, "queue_test: %s\n", reason->text);
		exit(1);
	}
}

static void compare(struct disk *disk)
{
	uint8_t *all = malloc(PART);

	for (unsigned n = 0; n < QUEUES; n++)
		if (disk_read(disk, n * (uint64_t)PART, all, PART) ||
		    memcmp(all, model + n * (uint64_t)PART, PART))
			fault("the disk is another", n * (uint64_t)PART, 0);
	free(all);
}

static void one(enum disk_format format, bool child, bool direct, uint64_t seed)
{
	static struct worker worker[QUEUES];
	struct disk_create what = { .format = format,
				    .size_bytes = (uint64_t)QUEUES * PART,
				    .block_bytes = format == DISK_RAW ? 0 : 1 << 20 };
	struct disk_options options = { .format = format, .write = true, .direct = direct };
	char path[64], parent[64], side[80];
	pthread_t thread[QUEUES];
	struct disk_error error;
	struct disk *disk;

	snprintf(path, sizeof(path), "build/queue-%d.%s", getpid(), disk_format_name(format));
	snprintf(parent, sizeof(parent), "build/queue-parent-%d.%s", getpid(),
		 disk_format_name(format));
	memset(model, 0, (size_t)QUEUES * PART);
	if (child) {
		must(disk_create(parent, &what, &error), &error);
		must(disk_open(parent, &options, &disk, &error), &error);
		memset(model, 5, PART);
		disk_write(disk, 0, model, PART);
		disk_close(disk);
		what.parent = parent;
		what.parent_format = format;
	}
	must(disk_create(path, &what, &error), &error);
	must(disk_open(path, &options, &disk, &error), &error);
	for (unsigned n = 0; n < QUEUES; n++) {
		worker[n] = (struct worker){ .disk = disk,
					     .n = n,
					     .random = seed * 0x9e3779b97f4a7c15ull + n + 1 };
		pthread_create(&thread[n], NULL, work, &worker[n]);
	}
	for (unsigned n = 0; n < QUEUES; n++)
		pthread_join(thread[n], NULL);
	compare(disk);
	must(disk_close(disk), &(struct disk_error){ .text = "close" });
	must(disk_open(path, &options, &disk, &error), &error);
	compare(disk);
	disk_close(disk);
	unlink(path);
	unlink(parent);
	for (int n = 0; n < 2; n++) {
		snprintf(side, sizeof(side), "%s.umbra", n ? parent : path);
		unlink(side);
	}
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	requests = argc > 1 ? strtoul(argv[1], NULL, 0) : 3000;
	model = malloc((size_t)QUEUES * PART);
	for (unsigned n = 0; n < 16 && !faults; n++) {
		static const struct { enum disk_format format; bool child;
		} kinds[] = {
			{ DISK_VHDX, false },
			{ DISK_VHDX, true },
			{ DISK_RAW, false },
			{ DISK_VHD, true },
		};

		no_ring = n & 8;
		one(kinds[n % 4].format, kinds[n % 4].child, n & 4, seed + n);
	}
	printf("queue_test: 16 disks, %lu requests for each of %d queues, %lu faults\n", requests,
	       QUEUES, faults);
	free(model);
	return faults != 0;
}
