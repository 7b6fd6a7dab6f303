/*
 * See pack.h.
 *
 *   range of the disk -> a batch of units: zeros are one unit without memory -> read, compared with
 *   the base, packed by a worker -> taken in order -> free
 *
 * Batches are used round and round. Always: taken <= begun <= asked <= taken + BATCHES; those from
 * `begun` on wait for a worker. `lock` guards the three numbers and each batch's `is_ready`; a
 * batch that is not ready is its worker's, one that is the owner's.
 */
#include "pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "disk/disk_internal.h"
#include "deflate.h"
#include "lib/check.h"

enum { BATCHES = 16, WORKERS_MAX = 16, BATCH_BYTES = 1 << 20 };
enum { UNITS_MAX = BATCH_BYTES / PACK_UNIT_MIN_BYTES };

struct batch {
	uint64_t offset, bytes;
	uint8_t *data, *base, *packed;
	struct pack_unit unit[UNITS_MAX];
	unsigned units, given;
	bool is_ready;
	int error;
	struct disk *failed;
	uint64_t failed_at;
};

struct pack {
	struct disk *from;
	struct pack_options options;
	uint64_t batch_bytes, asked_bytes;
	struct batch *batch;
	uint8_t *memory;
	uint64_t asked, begun, taken;
	bool stop;
	pthread_mutex_t lock;
	pthread_cond_t work, ready;
	struct worker {
		struct pack *pack;
		struct packer *packer;
		pthread_t thread;
	} worker[WORKERS_MAX];
	unsigned workers;
};

/* Held: lock. */
static void check_pack(const struct pack *pack)
{
	assert(pack->taken <= pack->begun && pack->begun <= pack->asked);
	assert(pack->asked - pack->taken <= BATCHES);
}

/* ---- a worker ---- */

static int read_or_say(struct batch *batch, struct disk *disk, uint8_t *to)
{
	uint64_t there = chain_bytes_within(disk, batch->offset, batch->bytes);
	int error = there ? disk_read(disk, batch->offset, to, there) : 0;
	uint64_t at = 0;

	memset(to + there, 0, batch->bytes - there);
	if (!error)
		return 0;
	while (at < there && !disk_read(disk, batch->offset + at, to + at, disk->sector_bytes))
		at += disk->sector_bytes;
	batch->failed = disk;
	batch->failed_at = batch->offset + at;
	return error;
}

static enum pack_kind kind_of(const struct pack *pack, const struct batch *batch, uint64_t at,
			      uint64_t bytes)
{
	bool zero = is_zero(batch->data + at, bytes);

	if (!pack->options.base)
		return zero ? PACK_SAME : PACK_PLAIN;
	if (!memcmp(batch->data + at, batch->base + at, bytes))
		return PACK_SAME;
	return zero ? PACK_ZERO : PACK_PLAIN;
}

static void pack_one(const struct pack *pack, struct packer *packer, struct batch *batch,
		     struct pack_unit *unit)
{
	uint64_t at = unit->offset - batch->offset;
	uint32_t limit = pack->options.packed_limit_bytes;
	size_t packed;

	unit->data = batch->data + at;
	unit->data_bytes = pack->options.unit_bytes;
	if (!packer)
		return;
	packed = packer_pack(packer, unit->data, unit->data_bytes,
			     batch->packed + batch->units * (size_t)limit, limit - 1);
	if (!packed)
		return;
	unit->kind = PACK_PACKED;
	unit->data = batch->packed + batch->units * (size_t)limit;
	unit->data_bytes = (uint32_t)packed;
}

static void pack_batch(struct pack *pack, struct packer *packer, struct batch *batch)
{
	uint32_t unit_bytes = pack->options.unit_bytes;

	batch->error = read_or_say(batch, pack->from, batch->data);
	if (!batch->error && pack->options.base)
		batch->error = read_or_say(batch, pack->options.base, batch->base);
	if (batch->error)
		return;
	if (batch->bytes % unit_bytes)
		memset(batch->data + batch->bytes, 0, unit_bytes - batch->bytes % unit_bytes);
	for (uint64_t at = 0; at < batch->bytes; at += unit_bytes, batch->units++) {
		struct pack_unit *unit = &batch->unit[batch->units];

		*unit = (struct pack_unit){ .offset = batch->offset + at, .bytes = unit_bytes };
		if (unit->bytes > batch->bytes - at)
			unit->bytes = batch->bytes - at;
		unit->kind = kind_of(pack, batch, at, unit->bytes);
		if (unit->kind == PACK_PLAIN)
			pack_one(pack, packer, batch, unit);
	}
}

static void *worker_run(void *context)
{
	struct worker *worker = context;
	struct pack *pack = worker->pack;

	pthread_mutex_lock(&pack->lock);
	while (!pack->stop) {
		struct batch *batch = &pack->batch[pack->begun % BATCHES];

		if (pack->begun == pack->asked) {
			pthread_cond_wait(&pack->work, &pack->lock);
			continue;
		}
		pack->begun++;
		if (batch->is_ready) /* zeros: there is nothing to do */
			continue;
		pthread_mutex_unlock(&pack->lock);
		pack_batch(pack, worker->packer, batch);
		pthread_mutex_lock(&pack->lock);
		batch->is_ready = true;
		pthread_cond_signal(&pack->ready);
	}
	pthread_mutex_unlock(&pack->lock);
	return NULL;
}

/* ---- the owner ---- */

static bool is_zeros(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
	uint64_t there = chain_bytes_within(disk, offset, bytes);
	struct disk_range range = { .bytes = bytes };

	if (there && (disk_range(disk, offset, there, &range) || range.kind != DISK_RANGE_ZERO))
		return false;
	*ret_bytes = range.bytes == there ? bytes : range.bytes;
	return true;
}

/* How many bytes of whole units from here on nobody has anything of; 0: somebody may. */
static uint64_t silent_bytes(const struct pack *pack, uint64_t left)
{
	uint64_t most = left < pack->batch_bytes ? left : pack->batch_bytes;
	uint64_t bytes = 0;

	/* how far data goes does not matter, and is dear to know */
	if (!is_zeros(pack->from, pack->asked_bytes, most, &bytes) || bytes < most ||
	    !is_zeros(pack->from, pack->asked_bytes, left, &bytes))
		return 0;
	if (pack->options.base && !is_zeros(pack->options.base, pack->asked_bytes, bytes, &bytes))
		return 0;
	return bytes == left ? bytes : bytes / pack->options.unit_bytes * pack->options.unit_bytes;
}

/* Held: lock. */
static void ask_for(struct pack *pack)
{
	struct batch *batch = &pack->batch[pack->asked % BATCHES];
	uint64_t left = pack->from->size_bytes - pack->asked_bytes;
	uint64_t silent = silent_bytes(pack, left);

	batch->offset = pack->asked_bytes;
	batch->bytes = left < pack->batch_bytes ? left : pack->batch_bytes;
	batch->units = batch->given = 0;
	batch->error = 0;
	batch->is_ready = silent > 0;
	if (silent) {
		batch->bytes = silent;
		batch->unit[0] = (struct pack_unit){ .kind = PACK_SAME,
						     .offset = batch->offset,
						     .bytes = silent };
		batch->units = 1;
	}
	pack->asked_bytes += batch->bytes;
	pack->asked++;
	pthread_cond_signal(&pack->work);
}

static struct batch *current(struct pack *pack) { return &pack->batch[pack->taken % BATCHES]; }

/* Held: lock. What was taken is free; the next one, when it is ready. */
static void advance(struct pack *pack)
{
	if (pack->taken < pack->asked && current(pack)->is_ready &&
	    current(pack)->given == current(pack)->units && !current(pack)->error)
		pack->taken++;
	while (pack->asked - pack->taken < BATCHES && pack->asked_bytes < pack->from->size_bytes)
		ask_for(pack);
	while (pack->taken < pack->asked && !current(pack)->is_ready)
		pthread_cond_wait(&pack->ready, &pack->lock);
	/* zeros, which no worker has come to: none needs to */
	if (pack->taken < pack->asked && pack->begun == pack->taken)
		pack->begun++;
	CHECK(check_pack(pack));
}

/* 1: a unit; 0: the end; -errno with *error. */
static int pack_next(struct pack *pack, struct pack_unit *ret, struct disk_error *error)
{
	struct batch *batch = current(pack);

	if (pack->taken == pack->asked || !batch->is_ready || batch->given == batch->units) {
		pthread_mutex_lock(&pack->lock);
		advance(pack);
		pthread_mutex_unlock(&pack->lock);
		batch = current(pack);
	}
	if (pack->taken == pack->asked)
		return 0;
	if (batch->error)
		return disk_explain(batch->failed, batch->failed_at, batch->error, error);
	*ret = batch->unit[batch->given++];
	return 1;
}

static int begin_workers(struct pack *pack)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned most = processors > 1 ? (unsigned)processors : 1;
	int error = 0;

	while (!error && pack->workers < most && pack->workers < WORKERS_MAX) {
		struct worker *worker = &pack->worker[pack->workers];

		worker->pack = pack;
		if (pack->options.packs)
			error = packer_create(pack->options.compression, &worker->packer);
		if (!error)
			error = -pthread_create(&worker->thread, NULL, worker_run, worker);
		if (error)
			packer_destroy(worker->packer);
		pack->workers += !error;
	}
	return pack->workers ? 0 : error;
}

static int begin_memory(struct pack *pack)
{
	uint64_t units = pack->batch_bytes / pack->options.unit_bytes;
	uint64_t packed = pack->options.packs ? units * pack->options.packed_limit_bytes : 0;
	uint64_t base = pack->options.base ? pack->batch_bytes : 0;
	uint64_t each = pack->batch_bytes + base + packed;

	pack->batch = calloc(BATCHES, sizeof(*pack->batch));
	pack->memory = malloc(BATCHES * each);
	if (!pack->batch || !pack->memory)
		return -ENOMEM;
	for (unsigned n = 0; n < BATCHES; n++) {
		struct batch *batch = &pack->batch[n];

		batch->data = pack->memory + n * each;
		batch->base = batch->data + pack->batch_bytes;
		batch->packed = batch->base + base;
	}
	return 0;
}

static void pack_end(struct pack *pack)
{
	pthread_mutex_lock(&pack->lock);
	pack->stop = true;
	pthread_cond_broadcast(&pack->work);
	pthread_mutex_unlock(&pack->lock);
	while (pack->workers) {
		pthread_join(pack->worker[--pack->workers].thread, NULL);
		packer_destroy(pack->worker[pack->workers].packer);
	}
	pthread_cond_destroy(&pack->work);
	pthread_cond_destroy(&pack->ready);
	pthread_mutex_destroy(&pack->lock);
	free(pack->memory);
	free(pack->batch);
	free(pack);
}

static int pack_begin(struct disk *from, const struct pack_options *options, struct pack **ret)
{
	struct pack *pack = calloc(1, sizeof(*pack));
	int error;

	assert(options->unit_bytes >= PACK_UNIT_MIN_BYTES);
	assert(options->unit_bytes <= PACK_UNIT_MAX_BYTES);
	assert(!(options->unit_bytes & (options->unit_bytes - 1)));
	if (!pack)
		return -ENOMEM;
	pack->from = from;
	pack->options = *options;
	pack->batch_bytes = options->unit_bytes > BATCH_BYTES ? options->unit_bytes : BATCH_BYTES;
	pthread_mutex_init(&pack->lock, NULL);
	pthread_cond_init(&pack->work, NULL);
	pthread_cond_init(&pack->ready, NULL);
	error = begin_memory(pack);
	if (!error)
		error = begin_workers(pack);
	if (error)
		pack_end(pack);
	else
		*ret = pack;
	return error;
}

int pack_each(const struct disk_conversion *conversion, const struct pack_options *options,
	      int (*take)(void *context, const struct pack_unit *unit), void *context,
	      struct disk_error *error)
{
	struct pack_unit unit;
	struct pack *pack;
	int result = pack_begin(conversion->from, options, &pack);
	int got = 1;

	if (result)
		return result;
	while (!result && got > 0) {
		got = pack_next(pack, &unit, error);
		if (got > 0)
			result = job_step(conversion->job, unit.offset,
					  conversion->from->size_bytes);
		if (!result && got > 0)
			result = take(context, &unit);
	}
	pack_end(pack);
	return got < 0 ? got : result;
}
