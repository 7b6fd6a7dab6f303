/*
 * The log (MS-VHDX 2.3): a ring of entries, each a header, descriptors and 4 KiB sectors, valid or
 * not as a whole; the newest run of entries is applied when a file is opened that was not closed.
 *
 * How this writer uses it. A commit is: sync; entries with every changed sector, the tail of each
 * at the commit's first; sync; the same sectors in place. The first sync also makes durable what
 * the commit before wrote in place, so that its entries are not needed any more when they are
 * written over: an entry never has to be kept for longer than one commit.
 *
 * Who only reads replays into memory (file_overlay.h); the file stays as it is.
 *
 * A commit that does not fit the ring is made in parts. Sectors are independent of each other, so
 * that a part alone is sound.
 */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/check.h"
#include "lib/crc32c.h"
#include "disk/file_overlay.h"

enum {
	HEAD_BYTES = 64,
	DESCRIPTOR_BYTES = 32,
	FIRST_DESCRIPTORS = (VHDX_SECTOR_BYTES - HEAD_BYTES) / DESCRIPTOR_BYTES,
	MORE_DESCRIPTORS = VHDX_SECTOR_BYTES / DESCRIPTOR_BYTES,
	/* a scan reads at most so many times the ring, whatever lengths the entries say */
	SCAN_FACTOR = 64,
	APPLY_FACTOR = 3,
};

int vhdx_sync(struct vhdx *vhdx)
{
	vhdx->syncs++;
	return file_flush(&vhdx->disk->file);
}

/* ---- headers ---- */

/* The other copy, with the next number; durable when it returns. */
int vhdx_write_header(struct vhdx *vhdx)
{
	struct vhdx_header header = vhdx->header;
	int error;

	header.sequence++;
	header.checksum = 0;
	header.checksum = crc32c(0, &header, sizeof(header));
	error = file_write(&vhdx->disk->file, VHDX_HEADER_OFFSET(!vhdx->header_at), &header,
			   sizeof(header));
	if (!error)
		error = vhdx_sync(vhdx);
	if (!error) {
		vhdx->header = header;
		vhdx->header_at = !vhdx->header_at;
	}
	return error;
}

static int write_both(struct vhdx *vhdx)
{
	int error = vhdx_write_header(vhdx);

	return error ? error : vhdx_write_header(vhdx);
}

int vhdx_begin(struct vhdx *vhdx, bool data)
{
	struct vhdx_header before = vhdx->header;
	int error;

	if (vhdx->data_begun || (vhdx->begun && !data))
		return 0;
	if (!vhdx->begun) {
		vhdx->header.file_write = guid_new();
		vhdx->header.log = guid_new();
		vhdx->log_at = 0;
		vhdx->log_sequence = 1;
	}
	if (data)
		vhdx->header.data_write =
			guid_is_zero(vhdx->next_data_id) ? guid_new() : vhdx->next_data_id;
	error = write_both(vhdx);
	if (error) {
		before.sequence =
			vhdx->header.sequence; /* one copy may be there: numbers only grow */
		vhdx->header = before;
		return error;
	}
	vhdx->begun = true;
	vhdx->half_ended = false;
	__atomic_store_n(&vhdx->changed, true, __ATOMIC_RELEASE);
	if (data)
		__atomic_store_n(&vhdx->data_begun, true, __ATOMIC_RELEASE);
	return 0;
}

int vhdx_end(struct vhdx *vhdx)
{
	int error = vhdx->begun ? vhdx_commit(vhdx) : 0;

	if (error || (!vhdx->begun && !vhdx->half_ended))
		return error;
	error = vhdx_sync(vhdx); /* what was written in place */
	if (error)
		return error;
	vhdx->header.log = (struct guid){ 0 };
	vhdx->begun = vhdx->data_begun = false;
	error = write_both(vhdx);
	vhdx->half_ended = error;
	return error;
}

/* ---- writing ---- */

/* file_bytes: how long the file was, before the sync that comes before the log; a reader refuses a
 * file that is shorter. */
struct batch { struct vhdx_sector *sector; size_t count, room; uint64_t file_bytes; };

static struct vhdx_sector *batch_add(struct batch *batch, uint64_t file_offset)
{
	if (batch->count == batch->room) {
		size_t room = batch->room ? 2 * batch->room : 16;
		struct vhdx_sector *more = realloc(batch->sector, room * sizeof(*more));

		if (!more)
			return NULL;
		batch->sector = more;
		batch->room = room;
	}
	batch->sector[batch->count].file_offset = file_offset;
	return &batch->sector[batch->count++];
}

/* Copies what has changed, and calls it unchanged. Under `map`. */
static int batch_collect(struct vhdx *vhdx, struct batch *batch)
{
	for (uint64_t n = 0; n * VHDX_SECTOR_ENTRIES < vhdx->entries; n++) {
		struct vhdx_sector *sector;
		uint64_t left = vhdx->entries - n * VHDX_SECTOR_ENTRIES;

		if (!(vhdx->bat_dirty[n / 8] >> (n & 7) & 1))
			continue;
		sector = batch_add(batch, vhdx->bat_offset + n * VHDX_SECTOR_BYTES);
		if (!sector)
			return -ENOMEM;
		memset(sector->data, 0, sizeof(sector->data));
		memcpy(sector->data, vhdx->bat + n * VHDX_SECTOR_ENTRIES,
		       (left < VHDX_SECTOR_ENTRIES ? left : VHDX_SECTOR_ENTRIES) * 8);
	}
	for (uint64_t chunk = 0; vhdx->bitmap && chunk < vhdx->chunks; chunk++)
		for (unsigned page = 0; vhdx->bitmap[chunk].any_dirty && page < BITMAP_PAGES;
		     page++) {
			struct vhdx_sector *sector;

			if (!(vhdx->bitmap[chunk].dirty[page / 8] >> (page & 7) & 1))
				continue;
			sector = batch_add(batch,
					   vhdx_offset(vhdx->bat[vhdx_bitmap_entry(vhdx, chunk)]) +
						   page * VHDX_SECTOR_BYTES);
			if (!sector)
				return -ENOMEM;
			memcpy(sector->data, vhdx->bitmap[chunk].bits + page * VHDX_SECTOR_BYTES,
			       sizeof(sector->data));
		}
	return 0;
}

static void mark_clean(struct vhdx *vhdx)
{
	memset(vhdx->bat_dirty, 0, vhdx_dirty_bytes(vhdx->entries));
	for (uint64_t chunk = 0; vhdx->bitmap && chunk < vhdx->chunks; chunk++)
		if (vhdx->bitmap[chunk].any_dirty) {
			memset(vhdx->bitmap[chunk].dirty, 0, sizeof(vhdx->bitmap[chunk].dirty));
			vhdx->bitmap[chunk].any_dirty = false;
		}
	vhdx->any_dirty = false;
}

static size_t descriptor_sectors(size_t count)
{
	return count <= FIRST_DESCRIPTORS
		       ? 1
		       : 1 + (count - FIRST_DESCRIPTORS + MORE_DESCRIPTORS - 1) / MORE_DESCRIPTORS;
}

static int write_ring(struct vhdx *vhdx, uint32_t at, const uint8_t *from, size_t bytes)
{
	size_t first = vhdx->header.log_bytes - at < bytes ? vhdx->header.log_bytes - at : bytes;
	int error = file_write(&vhdx->disk->file, vhdx->header.log_offset + at, from, first);

	return error || first == bytes ? error
				       : file_write(&vhdx->disk->file, vhdx->header.log_offset,
						    from + first, bytes - first);
}

/* One entry with these sectors, its tail at itself. */
static int write_entry(struct vhdx *vhdx, const struct vhdx_sector *sector, size_t count,
		       uint64_t file_bytes)
{
	size_t head = descriptor_sectors(count) * VHDX_SECTOR_BYTES;
	size_t bytes = head + count * VHDX_SECTOR_BYTES;
	uint8_t *entry = calloc(1, bytes);
	struct vhdx_log_head *log_head = (struct vhdx_log_head *)(void *)entry;
	int error;

	assert(count && bytes <= vhdx->header.log_bytes && !(vhdx->log_at % VHDX_SECTOR_BYTES));
	if (!entry)
		return -ENOMEM;
	*log_head = (struct vhdx_log_head){ .signature = VHDX_LOGE,
					    .bytes = (uint32_t)bytes,
					    .tail = vhdx->log_at,
					    .sequence = vhdx->log_sequence,
					    .descriptors = (uint32_t)count,
					    .log = vhdx->header.log,
					    .flushed_file_bytes = file_bytes / VHDX_MIB * VHDX_MIB,
					    .last_file_bytes = (file_bytes + VHDX_MIB - 1) /
							       VHDX_MIB * VHDX_MIB };
	for (size_t n = 0; n < count; n++) {
		struct vhdx_descriptor descriptor = { .signature = VHDX_DESC,
						      .file_offset = sector[n].file_offset,
						      .sequence = vhdx->log_sequence };
		struct vhdx_data_sector *data =
			(struct vhdx_data_sector *)(void *)(entry + head + n * VHDX_SECTOR_BYTES);

		memcpy(&descriptor.leading, sector[n].data, 8);
		memcpy(&descriptor.trailing, sector[n].data + 4092, 4);
		memcpy(entry + 64 + n * sizeof(descriptor), &descriptor, sizeof(descriptor));
		data->signature = VHDX_DATA;
		data->sequence_high = (uint32_t)(vhdx->log_sequence >> 32);
		data->sequence_low = (uint32_t)vhdx->log_sequence;
		memcpy(data->data, sector[n].data + 8, sizeof(data->data));
	}
	log_head->checksum = crc32c(0, entry, bytes);
	error = write_ring(vhdx, vhdx->log_at, entry, bytes);
	free(entry);
	if (!error) {
		vhdx->log_at = (uint32_t)((vhdx->log_at + bytes) % vhdx->header.log_bytes);
		vhdx->log_sequence++;
	}
	return error;
}

/* Logged, durable, then in place. The sync before it has been made. */
static int write_part(struct vhdx *vhdx, const struct vhdx_sector *sector, size_t count,
		      uint64_t file_bytes)
{
	int error = write_entry(vhdx, sector, count, file_bytes);

	if (!error)
		error = vhdx_sync(vhdx);
	for (size_t n = 0; n < count && !error; n++)
		error = file_write(&vhdx->disk->file, sector[n].file_offset, sector[n].data,
				   sizeof(sector[n].data));
	return error;
}

/* Half the ring for an entry: the one before it, which may still be needed, stays whole. */
static int write_batch(struct vhdx *vhdx, const struct batch *batch)
{
	/* 9: the descriptors of 1 MiB */
	size_t most = vhdx->header.log_bytes / 2 / VHDX_SECTOR_BYTES - 9;
	size_t done = 0;
	int error = 0;

	while (done < batch->count && !error) {
		size_t n = batch->count - done < most ? batch->count - done : most;

		if (done)
			error = vhdx_sync(vhdx);
		if (!error)
			error = write_part(vhdx, batch->sector + done, n, batch->file_bytes);
		done += n;
	}
	return error;
}

int vhdx_write_sectors(struct vhdx *vhdx, const struct vhdx_sector *sectors, size_t count)
{
	uint64_t file_bytes = __atomic_load_n(&vhdx->file_bytes, __ATOMIC_ACQUIRE);
	int error = vhdx_sync(vhdx);

	assert(vhdx->begun);
	return error ? error : write_part(vhdx, sectors, count, file_bytes);
}

/* What was freed before the flush that is done now may be used again. */
static int freed_release(struct vhdx *vhdx, size_t count)
{
	size_t done = 0;
	int error = 0;

	assert(count <= vhdx->freed.count);
	while (done < count && !(error = vhdx_push(&vhdx->reusable, vhdx->freed.offset[done])))
		/* space back; a failure costs only that */
		file_discard(&vhdx->disk->file, vhdx->freed.offset[done++], vhdx->block_bytes);
	vhdx->freed.count -= done;
	if (done)
		memmove(vhdx->freed.offset, vhdx->freed.offset + done,
			vhdx->freed.count * sizeof(*vhdx->freed.offset));
	return error;
}

static int flush_now(struct vhdx *vhdx)
{
	struct batch batch = { 0 };
	bool payload;
	size_t freed;
	int error = 0;

	pthread_mutex_lock(&vhdx->map);
	payload = __atomic_load_n(&vhdx->payload_dirty, __ATOMIC_SEQ_CST);
	freed = vhdx->freed.count;
	batch.file_bytes = vhdx->file_bytes;
	if (vhdx->any_dirty)
		error = batch_collect(vhdx, &batch);
	if (!error) {
		mark_clean(vhdx);
		__atomic_store_n(&vhdx->payload_dirty, false, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&vhdx->map);
	if (!error && (payload || batch.count))
		error = vhdx_sync(vhdx);
	if (!error && batch.count)
		error = write_batch(vhdx, &batch);
	pthread_mutex_lock(&vhdx->map);
	if (!error)
		error = freed_release(vhdx, freed);
	if (error) { /* all of it once more, next time */
		memset(vhdx->bat_dirty, 0xff, vhdx_dirty_bytes(vhdx->entries));
		for (uint64_t chunk = 0; vhdx->bitmap && chunk < vhdx->chunks; chunk++)
			if (vhdx->bitmap[chunk].bits) {
				memset(vhdx->bitmap[chunk].dirty, 0xff,
				       sizeof(vhdx->bitmap[chunk].dirty));
				vhdx->bitmap[chunk].any_dirty = true;
			}
		vhdx->any_dirty = true;
		vhdx_note_payload(vhdx);
	}
	CHECK(check_vhdx(vhdx));
	pthread_mutex_unlock(&vhdx->map);
	free(batch.sector);
	return error;
}

/* One at a time; who waited while another one began and ended has nothing left to do. */
int vhdx_commit(struct vhdx *vhdx)
{
	uint64_t seen = __atomic_load_n(&vhdx->flushes_begun, __ATOMIC_SEQ_CST);
	int error = 0;

	pthread_mutex_lock(&vhdx->flush_lock);
	assert(vhdx->flushes_done <= vhdx->flushes_begun);
	if (vhdx->flushes_done <= seen) {
		uint64_t this = __atomic_add_fetch(&vhdx->flushes_begun, 1, __ATOMIC_SEQ_CST);

		error = flush_now(vhdx);
		if (!error)
			vhdx->flushes_done = this;
	}
	pthread_mutex_unlock(&vhdx->flush_lock);
	return error;
}

/* ---- replay ---- */

struct log {
	struct vhdx *vhdx;
	uint8_t *bytes;
	uint32_t size;
	uint64_t budget;
};
struct run { uint32_t tail, head; uint64_t head_sequence; bool any; };

int vhdx_log_sum(const struct vhdx *vhdx, const struct disk_file *file, uint32_t *ret)
{
	enum { PART = 65536 };
	uint8_t *part = malloc(PART);
	uint32_t sum = 0;
	int error = part ? 0 : -ENOMEM;

	for (int n = 0; n < 2 && !error; n++) {
		error = file_read(file, VHDX_HEADER_OFFSET(n), part,
				  VHDX_SECTOR_BYTES);
		sum = error ? sum : crc32c(sum, part, VHDX_SECTOR_BYTES);
	}
	for (uint32_t at = 0; at < vhdx->header.log_bytes && !error; at += PART) {
		error = file_read(file, vhdx->header.log_offset + at, part, PART);
		sum = error ? sum : crc32c(sum, part, PART);
	}
	free(part);
	*ret = sum;
	return error;
}

static void copy_ring(const struct log *log, uint32_t at, void *to, size_t bytes)
{
	size_t first = log->size - at < bytes ? log->size - at : bytes;

	memcpy(to, log->bytes + at, first);
	memcpy((uint8_t *)to + first, log->bytes, bytes - first);
}

/* A whole, valid entry of this log at `at`, copied; NULL: none. */
static uint8_t *entry_read(struct log *log, uint32_t at)
{
	struct vhdx_log_head log_head;
	uint8_t *entry;
	size_t head;
	uint32_t sum;

	copy_ring(log, at, &log_head, sizeof(log_head));
	if (log_head.signature != VHDX_LOGE || !guid_equal(log_head.log, log->vhdx->header.log) ||
	    !log_head.bytes || log_head.bytes % VHDX_SECTOR_BYTES || log_head.bytes > log->size ||
	    log_head.tail % VHDX_SECTOR_BYTES || log_head.tail >= log->size || !log_head.sequence ||
	    log_head.reserved || log_head.bytes > log->budget)
		return NULL;
	head = descriptor_sectors(log_head.descriptors) * VHDX_SECTOR_BYTES;
	if (log_head.descriptors > log->size / 32 || head > log_head.bytes ||
	    log_head.flushed_file_bytes % VHDX_MIB || log_head.last_file_bytes % VHDX_MIB)
		return NULL;
	log->budget -= log_head.bytes;
	entry = malloc(log_head.bytes);
	if (!entry)
		return NULL;
	copy_ring(log, at, entry, log_head.bytes);
	sum = log_head.checksum;
	memset(entry + 4, 0, 4);
	if (crc32c(0, entry, log_head.bytes) != sum) {
		free(entry);
		return NULL;
	}
	return entry;
}

/* Every descriptor and its sector belong to this entry. */
static bool entry_is_complete(const uint8_t *entry)
{
	const struct vhdx_log_head *head = (const struct vhdx_log_head *)(const void *)entry;
	size_t at = descriptor_sectors(head->descriptors) * VHDX_SECTOR_BYTES;

	for (uint32_t n = 0; n < head->descriptors; n++) {
		struct vhdx_descriptor descriptor;
		struct vhdx_data_sector sector;

		memcpy(&descriptor, entry + 64 + n * sizeof(descriptor), sizeof(descriptor));
		if (descriptor.sequence != head->sequence ||
		    descriptor.file_offset % VHDX_SECTOR_BYTES ||
		    descriptor.file_offset < VHDX_REGION_OFFSET(0))
			return false;
		if (descriptor.signature == VHDX_ZERO) {
			if (descriptor.leading % VHDX_SECTOR_BYTES ||
			    descriptor.file_offset > head->last_file_bytes ||
			    descriptor.leading > head->last_file_bytes - descriptor.file_offset)
				return false;
			continue;
		}
		if (descriptor.signature != VHDX_DESC || at + VHDX_SECTOR_BYTES > head->bytes ||
		    descriptor.file_offset >= head->last_file_bytes)
			return false;
		memcpy(&sector, entry + at, sizeof(sector));
		at += VHDX_SECTOR_BYTES;
		if (sector.signature != VHDX_DATA ||
		    ((uint64_t)sector.sequence_high << 32 | sector.sequence_low) != head->sequence)
			return false;
	}
	return at == head->bytes;
}

/* The entries that follow each other from `at` on. */
static struct run run_follow(struct log *log, uint32_t at)
{
	struct run run = { .tail = at };
	uint64_t next = 0;
	uint32_t covered = 0;
	bool tail_seen = false;

	for (;;) {
		uint8_t *entry = entry_read(log, at);
		const struct vhdx_log_head *head =
			(const struct vhdx_log_head *)(const void *)entry;

		if (!entry || (next && head->sequence != next) ||
		    covered + (uint64_t)head->bytes > log->size || !entry_is_complete(entry)) {
			free(entry);
			break;
		}
		tail_seen =
			head->tail == at ||
			(tail_seen && (head->tail - run.tail + log->size) % log->size <= covered);
		if (tail_seen) {
			run.any = true;
			run.head = at;
			run.head_sequence = head->sequence;
		}
		next = head->sequence + 1;
		covered += head->bytes;
		at = (at + head->bytes) % log->size;
		free(entry);
		if (covered == log->size)
			break;
	}
	return run;
}

static int entry_apply(struct vhdx *vhdx, const uint8_t *entry)
{
	const struct vhdx_log_head *head = (const struct vhdx_log_head *)(const void *)entry;
	size_t at = descriptor_sectors(head->descriptors) * VHDX_SECTOR_BYTES;
	int error = 0;

	for (uint32_t n = 0; n < head->descriptors && !error; n++) {
		struct vhdx_descriptor descriptor;
		uint8_t sector[VHDX_SECTOR_BYTES];

		memcpy(&descriptor, entry + 64 + n * sizeof(descriptor), sizeof(descriptor));
		if (descriptor.signature == VHDX_ZERO) {
			/* what lies beyond the end is zero anyway */
			uint64_t end = (uint64_t)file_size(&vhdx->disk->file);
			uint64_t left =
				descriptor.file_offset < end ? end - descriptor.file_offset : 0;

			if (left && descriptor.leading)
				error = file_discard(&vhdx->disk->file, descriptor.file_offset,
						     descriptor.leading < left ? descriptor.leading
									       : left);
			continue;
		}
		memcpy(sector, entry + at, sizeof(sector));
		memcpy(sector, &descriptor.leading, 8);
		memcpy(sector + 4092, &descriptor.trailing, 4);
		error = file_write(&vhdx->disk->file, descriptor.file_offset, sector,
				   sizeof(sector));
		at += VHDX_SECTOR_BYTES;
	}
	return error;
}

static int run_apply(struct log *log, const struct run *run, struct disk_error *error)
{
	struct vhdx *vhdx = log->vhdx;
	uint8_t *head;
	const uint64_t head_at = vhdx->header.log_offset + run->head;
	struct vhdx_log_head log_head;
	uint32_t at;
	int result = 0;

	/* whatever the scan has left: the run is read once more, its head twice */
	log->budget += (uint64_t)log->size * APPLY_FACTOR;
	head = entry_read(log, run->head);
	if (!head)
		return disk_refuse_host(error, -ENOMEM, vhdx->disk->path, "replaying its log");
	memcpy(&log_head, head, sizeof(log_head));
	free(head);
	if ((int64_t)log_head.flushed_file_bytes > file_size(&vhdx->disk->file))
		return disk_refuse(error, REFUSAL_VHDX_LOG_CUT, vhdx->disk->path,
				   head_at + offsetof(struct vhdx_log_head, flushed_file_bytes),
				   "%lu bytes, where the file has %ld: cut off",
				   log_head.flushed_file_bytes, file_size(&vhdx->disk->file));
	if (log_head.last_file_bytes > VHDX_MAX_BYTES * 2)
		return disk_refuse(error, REFUSAL_VHDX_LOG_ENDLESS, vhdx->disk->path,
				   head_at + offsetof(struct vhdx_log_head, last_file_bytes),
				   "%lu bytes: the log makes the file too long",
				   log_head.last_file_bytes);
	for (at = log_head.tail; !result;) {
		uint8_t *entry = entry_read(log, at);
		uint32_t bytes;

		if (!entry || !entry_is_complete(entry)) {
			free(entry);
			return disk_refuse(error, REFUSAL_VHDX_LOG_HOLE, vhdx->disk->path,
					   vhdx->header.log_offset + at,
					   "no whole entry: the log has a hole");
		}
		result = entry_apply(vhdx, entry);
		memcpy(&bytes, entry + 8, 4);
		free(entry);
		if (at == run->head)
			break;
		at = (at + bytes) % log->size;
	}
	if (!result && (int64_t)log_head.last_file_bytes > file_size(&vhdx->disk->file))
		result = file_truncate(&vhdx->disk->file, log_head.last_file_bytes);
	if (!result)
		result = vhdx_sync(vhdx);
	return result ? disk_refuse_host(error, result, vhdx->disk->path, "replaying its log") : 0;
}

/* In the file, or for who only reads in memory. */
static int replay_run(struct log *log, const struct run *run, struct disk_error *error)
{
	struct disk *disk = log->vhdx->disk;
	int result = disk->write ? 0 : file_overlay_begin(&disk->file);

	if (result)
		return disk_refuse_host(error, result, disk->path, "replaying its log in memory");
	result = run_apply(log, run, error);
	if (result == -EFBIG)
		return disk_refuse(error, REFUSAL_VHDX_LOG_MEMORY, disk->path,
				   log->vhdx->header.log_offset,
				   "more changes than are replayed in memory");
	return result;
}

int vhdx_replay(struct vhdx *vhdx, bool *ret_replayed, struct disk_error *error)
{
	struct log log = { .vhdx = vhdx,
			   .size = vhdx->header.log_bytes,
			   .budget = (uint64_t)vhdx->header.log_bytes * SCAN_FACTOR };
	struct run best = { 0 };
	int result;

	*ret_replayed = false;
	if (guid_is_zero(vhdx->header.log))
		return 0;
	log.bytes = malloc(log.size);
	if (!log.bytes)
		return disk_refuse_host(error, -ENOMEM, vhdx->disk->path, "reading its log");
	result = file_read(&vhdx->disk->file, vhdx->header.log_offset, log.bytes, log.size);
	for (uint32_t at = 0; at < log.size && !result; at += VHDX_SECTOR_BYTES) {
		struct run run = run_follow(&log, at);

		if (run.any && (!best.any || run.head_sequence > best.head_sequence))
			best = run;
	}
	if (result)
		disk_refuse_host(error, result, vhdx->disk->path, "reading its log");
	else if (best.any)
		result = replay_run(&log, &best, error);
	*ret_replayed = best.any;
	if (!result && vhdx->disk->write) {
		vhdx->header.file_write = guid_new();
		vhdx->header.log = (struct guid){ 0 };
		result = write_both(vhdx);
		if (result)
			disk_refuse_host(error, result, vhdx->disk->path, "writing its headers");
	}
	free(log.bytes);
	return result;
}
