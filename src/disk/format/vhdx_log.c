/*
 * The log (MS-VHDX 2.3): a ring of entries, each a header, descriptors and 4 KiB sectors, valid or
 * not as a whole; the newest run of entries is applied when a file is opened that was not closed.
 *
 * How this writer uses it. A commit is: sync; entries with every changed sector, the tail of each
 * at the commit's first; sync; the same sectors in place. The first sync also makes durable what
 * the commit before wrote in place, so that its entries are not needed any more when they are
 * written over: an entry never has to be kept for longer than one commit.
 *
 * A commit that does not fit the ring is made in parts. Sectors are independent of each other, so
 * that a part alone is sound.
 */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/check.h"
#include "lib/crc32c.h"

enum {
	HEAD_BYTES = 64,
	DESCRIPTOR_BYTES = 32,
	FIRST_DESCRIPTORS = (VHDX_SECTOR_BYTES - HEAD_BYTES) / DESCRIPTOR_BYTES,
	MORE_DESCRIPTORS = VHDX_SECTOR_BYTES / DESCRIPTOR_BYTES,
	/* a scan reads at most so many times the ring, whatever lengths the entries say */
	SCAN_FACTOR = 64,
	APPLY_FACTOR = 3,
};

int vhdx_sync(struct vhdx *v)
{
	v->syncs++;
	return file_flush(&v->disk->file);
}

/* ---- headers ---- */

/* The other copy, with the next number; durable when it returns. */
int vhdx_write_header(struct vhdx *v)
{
	struct vhdx_header h = v->header;
	int error;

	h.sequence++;
	h.checksum = 0;
	h.checksum = crc32c(0, &h, sizeof(h));
	error = file_write(&v->disk->file, VHDX_HEADER_OFFSET(!v->header_at), &h, sizeof(h));
	if (!error)
		error = vhdx_sync(v);
	if (!error) {
		v->header = h;
		v->header_at = !v->header_at;
	}
	return error;
}

static int write_both(struct vhdx *v)
{
	int error = vhdx_write_header(v);

	return error ? error : vhdx_write_header(v);
}

int vhdx_begin(struct vhdx *v, bool data)
{
	struct vhdx_header before = v->header;
	int error;

	if (v->data_begun || (v->begun && !data))
		return 0;
	if (!v->begun) {
		v->header.file_write = guid_new();
		v->header.log = guid_new();
		v->log_at = 0;
		v->log_sequence = 1;
	}
	if (data)
		v->header.data_write = guid_is_zero(v->next_data_id) ? guid_new() : v->next_data_id;
	error = write_both(v);
	if (error) {
		before.sequence = v->header.sequence; /* one copy may be there: numbers only grow */
		v->header = before;
		return error;
	}
	v->begun = true;
	v->half_ended = false;
	__atomic_store_n(&v->changed, true, __ATOMIC_RELEASE);
	if (data)
		__atomic_store_n(&v->data_begun, true, __ATOMIC_RELEASE);
	return 0;
}

int vhdx_end(struct vhdx *v)
{
	int error = v->begun ? vhdx_commit(v) : 0;

	if (error || (!v->begun && !v->half_ended))
		return error;
	error = vhdx_sync(v); /* what was written in place */
	if (error)
		return error;
	v->header.log = (struct guid){ 0 };
	v->begun = v->data_begun = false;
	error = write_both(v);
	v->half_ended = error;
	return error;
}

/* ---- writing ---- */

/* file_bytes: how long the file was, before the sync that comes before the log; a reader refuses a
 * file that is shorter. */
struct batch { struct vhdx_sector *sector; size_t count, room; uint64_t file_bytes; };

static struct vhdx_sector *batch_add(struct batch *b, uint64_t file_offset)
{
	if (b->count == b->room) {
		size_t room = b->room ? 2 * b->room : 16;
		struct vhdx_sector *more = realloc(b->sector, room * sizeof(*more));

		if (!more)
			return NULL;
		b->sector = more;
		b->room = room;
	}
	b->sector[b->count].file_offset = file_offset;
	return &b->sector[b->count++];
}

/* Copies what has changed, and calls it unchanged. Under `map`. */
static int batch_collect(struct vhdx *v, struct batch *b)
{
	for (uint64_t n = 0; n * VHDX_SECTOR_ENTRIES < v->entries; n++) {
		struct vhdx_sector *s;
		uint64_t left = v->entries - n * VHDX_SECTOR_ENTRIES;

		if (!(v->bat_dirty[n / 8] >> (n & 7) & 1))
			continue;
		s = batch_add(b, v->bat_offset + n * VHDX_SECTOR_BYTES);
		if (!s)
			return -ENOMEM;
		memset(s->data, 0, sizeof(s->data));
		memcpy(s->data, v->bat + n * VHDX_SECTOR_ENTRIES,
		       (left < VHDX_SECTOR_ENTRIES ? left : VHDX_SECTOR_ENTRIES) * 8);
	}
	for (uint64_t chunk = 0; v->bitmap && chunk < v->chunks; chunk++)
		for (unsigned page = 0; v->bitmap[chunk].any_dirty && page < BITMAP_PAGES; page++) {
			struct vhdx_sector *s;

			if (!(v->bitmap[chunk].dirty[page / 8] >> (page & 7) & 1))
				continue;
			s = batch_add(b, vhdx_offset(v->bat[vhdx_bitmap_entry(v, chunk)]) +
						 page * VHDX_SECTOR_BYTES);
			if (!s)
				return -ENOMEM;
			memcpy(s->data, v->bitmap[chunk].bits + page * VHDX_SECTOR_BYTES,
			       sizeof(s->data));
		}
	return 0;
}

static void mark_clean(struct vhdx *v)
{
	memset(v->bat_dirty, 0, vhdx_dirty_bytes(v->entries));
	for (uint64_t chunk = 0; v->bitmap && chunk < v->chunks; chunk++)
		if (v->bitmap[chunk].any_dirty) {
			memset(v->bitmap[chunk].dirty, 0, sizeof(v->bitmap[chunk].dirty));
			v->bitmap[chunk].any_dirty = false;
		}
	v->any_dirty = false;
}

static size_t descriptor_sectors(size_t count)
{
	return count <= FIRST_DESCRIPTORS
		       ? 1
		       : 1 + (count - FIRST_DESCRIPTORS + MORE_DESCRIPTORS - 1) / MORE_DESCRIPTORS;
}

static int write_ring(struct vhdx *v, uint32_t at, const uint8_t *from, size_t bytes)
{
	size_t first = v->header.log_bytes - at < bytes ? v->header.log_bytes - at : bytes;
	int error = file_write(&v->disk->file, v->header.log_offset + at, from, first);

	return error || first == bytes ? error
				       : file_write(&v->disk->file, v->header.log_offset,
						    from + first, bytes - first);
}

/* One entry with these sectors, its tail at itself. */
static int write_entry(struct vhdx *v, const struct vhdx_sector *s, size_t count,
		       uint64_t file_bytes)
{
	size_t head = descriptor_sectors(count) * VHDX_SECTOR_BYTES;
	size_t bytes = head + count * VHDX_SECTOR_BYTES;
	uint8_t *entry = calloc(1, bytes);
	struct vhdx_log_head *h = (struct vhdx_log_head *)(void *)entry;
	int error;

	assert(count && bytes <= v->header.log_bytes && !(v->log_at % VHDX_SECTOR_BYTES));
	if (!entry)
		return -ENOMEM;
	*h = (struct vhdx_log_head){ .signature = VHDX_LOGE,
				     .bytes = (uint32_t)bytes,
				     .tail = v->log_at,
				     .sequence = v->log_sequence,
				     .descriptors = (uint32_t)count,
				     .log = v->header.log,
				     .flushed_file_bytes = file_bytes / VHDX_MIB * VHDX_MIB,
				     .last_file_bytes =
					     (file_bytes + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB };
	for (size_t n = 0; n < count; n++) {
		struct vhdx_descriptor d = { .signature = VHDX_DESC,
					     .file_offset = s[n].file_offset,
					     .sequence = v->log_sequence };
		struct vhdx_data_sector *data =
			(struct vhdx_data_sector *)(void *)(entry + head + n * VHDX_SECTOR_BYTES);

		memcpy(&d.leading, s[n].data, 8);
		memcpy(&d.trailing, s[n].data + 4092, 4);
		memcpy(entry + 64 + n * sizeof(d), &d, sizeof(d));
		data->signature = VHDX_DATA;
		data->sequence_high = (uint32_t)(v->log_sequence >> 32);
		data->sequence_low = (uint32_t)v->log_sequence;
		memcpy(data->data, s[n].data + 8, sizeof(data->data));
	}
	h->checksum = crc32c(0, entry, bytes);
	error = write_ring(v, v->log_at, entry, bytes);
	free(entry);
	if (!error) {
		v->log_at = (uint32_t)((v->log_at + bytes) % v->header.log_bytes);
		v->log_sequence++;
	}
	return error;
}

/* Logged, durable, then in place. The sync before it has been made. */
static int write_part(struct vhdx *v, const struct vhdx_sector *s, size_t count,
		      uint64_t file_bytes)
{
	int error = write_entry(v, s, count, file_bytes);

	if (!error)
		error = vhdx_sync(v);
	for (size_t n = 0; n < count && !error; n++)
		error = file_write(&v->disk->file, s[n].file_offset, s[n].data, sizeof(s[n].data));
	return error;
}

/* Half the ring for an entry: the one before it, which may still be needed, stays whole. */
static int write_batch(struct vhdx *v, const struct batch *b)
{
	/* 9: the descriptors of 1 MiB */
	size_t most = v->header.log_bytes / 2 / VHDX_SECTOR_BYTES - 9;
	size_t done = 0;
	int error = 0;

	while (done < b->count && !error) {
		size_t n = b->count - done < most ? b->count - done : most;

		if (done)
			error = vhdx_sync(v);
		if (!error)
			error = write_part(v, b->sector + done, n, b->file_bytes);
		done += n;
	}
	return error;
}

int vhdx_write_sectors(struct vhdx *v, const struct vhdx_sector *sectors, size_t count)
{
	uint64_t file_bytes = __atomic_load_n(&v->file_bytes, __ATOMIC_ACQUIRE);
	int error = vhdx_sync(v);

	assert(v->begun);
	return error ? error : write_part(v, sectors, count, file_bytes);
}

/* What was freed before the flush that is done now may be used again. */
static int freed_release(struct vhdx *v, size_t count)
{
	size_t done = 0;
	int error = 0;

	assert(count <= v->freed.count);
	while (done < count && !(error = vhdx_push(&v->reusable, v->freed.offset[done])))
		/* space back; a failure costs only that */
		file_discard(&v->disk->file, v->freed.offset[done++], v->block_bytes);
	v->freed.count -= done;
	if (done)
		memmove(v->freed.offset, v->freed.offset + done,
			v->freed.count * sizeof(*v->freed.offset));
	return error;
}

static int flush_now(struct vhdx *v)
{
	struct batch b = { 0 };
	bool payload;
	size_t freed;
	int error = 0;

	pthread_mutex_lock(&v->map);
	payload = __atomic_load_n(&v->payload_dirty, __ATOMIC_SEQ_CST);
	freed = v->freed.count;
	b.file_bytes = v->file_bytes;
	if (v->any_dirty)
		error = batch_collect(v, &b);
	if (!error) {
		mark_clean(v);
		__atomic_store_n(&v->payload_dirty, false, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&v->map);
	if (!error && (payload || b.count))
		error = vhdx_sync(v);
	if (!error && b.count)
		error = write_batch(v, &b);
	pthread_mutex_lock(&v->map);
	if (!error)
		error = freed_release(v, freed);
	if (error) { /* all of it once more, next time */
		memset(v->bat_dirty, 0xff, vhdx_dirty_bytes(v->entries));
		for (uint64_t chunk = 0; v->bitmap && chunk < v->chunks; chunk++)
			if (v->bitmap[chunk].bits) {
				memset(v->bitmap[chunk].dirty, 0xff,
				       sizeof(v->bitmap[chunk].dirty));
				v->bitmap[chunk].any_dirty = true;
			}
		v->any_dirty = true;
		vhdx_note_payload(v);
	}
	CHECK(check_vhdx(v));
	pthread_mutex_unlock(&v->map);
	free(b.sector);
	return error;
}

/* One at a time; who waited while another one began and ended has nothing left to do. */
int vhdx_commit(struct vhdx *v)
{
	uint64_t seen = __atomic_load_n(&v->flushes_begun, __ATOMIC_SEQ_CST);
	int error = 0;

	pthread_mutex_lock(&v->flush_lock);
	assert(v->flushes_done <= v->flushes_begun);
	if (v->flushes_done <= seen) {
		uint64_t this = __atomic_add_fetch(&v->flushes_begun, 1, __ATOMIC_SEQ_CST);

		error = flush_now(v);
		if (!error)
			v->flushes_done = this;
	}
	pthread_mutex_unlock(&v->flush_lock);
	return error;
}

/* ---- replay ---- */

struct log { struct vhdx *v; uint8_t *bytes; uint32_t size; uint64_t budget; };
struct run { uint32_t tail, head; uint64_t head_sequence; bool any; };

static void copy_ring(const struct log *l, uint32_t at, void *to, size_t bytes)
{
	size_t first = l->size - at < bytes ? l->size - at : bytes;

	memcpy(to, l->bytes + at, first);
	memcpy((uint8_t *)to + first, l->bytes, bytes - first);
}

/* A whole, valid entry of this log at `at`, copied; NULL: none. */
static uint8_t *entry_read(struct log *l, uint32_t at)
{
	struct vhdx_log_head h;
	uint8_t *entry;
	size_t head;
	uint32_t sum;

	copy_ring(l, at, &h, sizeof(h));
	if (h.signature != VHDX_LOGE || !guid_equal(h.log, l->v->header.log) || !h.bytes ||
	    h.bytes % VHDX_SECTOR_BYTES || h.bytes > l->size || h.tail % VHDX_SECTOR_BYTES ||
	    h.tail >= l->size || !h.sequence || h.reserved || h.bytes > l->budget)
		return NULL;
	head = descriptor_sectors(h.descriptors) * VHDX_SECTOR_BYTES;
	if (h.descriptors > l->size / 32 || head > h.bytes || h.flushed_file_bytes % VHDX_MIB ||
	    h.last_file_bytes % VHDX_MIB)
		return NULL;
	l->budget -= h.bytes;
	entry = malloc(h.bytes);
	if (!entry)
		return NULL;
	copy_ring(l, at, entry, h.bytes);
	sum = h.checksum;
	memset(entry + 4, 0, 4);
	if (crc32c(0, entry, h.bytes) != sum) {
		free(entry);
		return NULL;
	}
	return entry;
}

/* Every descriptor and its sector belong to this entry. */
static bool entry_is_complete(const uint8_t *entry)
{
	const struct vhdx_log_head *h = (const struct vhdx_log_head *)(const void *)entry;
	size_t at = descriptor_sectors(h->descriptors) * VHDX_SECTOR_BYTES;

	for (uint32_t n = 0; n < h->descriptors; n++) {
		struct vhdx_descriptor d;
		struct vhdx_data_sector s;

		memcpy(&d, entry + 64 + n * sizeof(d), sizeof(d));
		if (d.sequence != h->sequence || d.file_offset % VHDX_SECTOR_BYTES ||
		    d.file_offset < VHDX_REGION_OFFSET(0))
			return false;
		if (d.signature == VHDX_ZERO) {
			if (d.leading % VHDX_SECTOR_BYTES || d.file_offset > h->last_file_bytes ||
			    d.leading > h->last_file_bytes - d.file_offset)
				return false;
			continue;
		}
		if (d.signature != VHDX_DESC || at + VHDX_SECTOR_BYTES > h->bytes ||
		    d.file_offset >= h->last_file_bytes)
			return false;
		memcpy(&s, entry + at, sizeof(s));
		at += VHDX_SECTOR_BYTES;
		if (s.signature != VHDX_DATA ||
		    ((uint64_t)s.sequence_high << 32 | s.sequence_low) != h->sequence)
			return false;
	}
	return at == h->bytes;
}

/* The entries that follow each other from `at` on. */
static struct run run_follow(struct log *l, uint32_t at)
{
	struct run r = { .tail = at };
	uint64_t next = 0;
	uint32_t covered = 0;
	bool tail_seen = false;

	for (;;) {
		uint8_t *entry = entry_read(l, at);
		const struct vhdx_log_head *h = (const struct vhdx_log_head *)(const void *)entry;

		if (!entry || (next && h->sequence != next) ||
		    covered + (uint64_t)h->bytes > l->size || !entry_is_complete(entry)) {
			free(entry);
			break;
		}
		tail_seen = h->tail == at ||
			    (tail_seen && (h->tail - r.tail + l->size) % l->size <= covered);
		if (tail_seen) {
			r.any = true;
			r.head = at;
			r.head_sequence = h->sequence;
		}
		next = h->sequence + 1;
		covered += h->bytes;
		at = (at + h->bytes) % l->size;
		free(entry);
		if (covered == l->size)
			break;
	}
	return r;
}

static int entry_apply(struct vhdx *v, const uint8_t *entry)
{
	const struct vhdx_log_head *h = (const struct vhdx_log_head *)(const void *)entry;
	size_t at = descriptor_sectors(h->descriptors) * VHDX_SECTOR_BYTES;
	int error = 0;

	for (uint32_t n = 0; n < h->descriptors && !error; n++) {
		struct vhdx_descriptor d;
		uint8_t sector[VHDX_SECTOR_BYTES];

		memcpy(&d, entry + 64 + n * sizeof(d), sizeof(d));
		if (d.signature == VHDX_ZERO) {
			/* what lies beyond the end is zero anyway */
			uint64_t end = (uint64_t)file_size(&v->disk->file);
			uint64_t left = d.file_offset < end ? end - d.file_offset : 0;

			if (left && d.leading)
				error = file_discard(&v->disk->file, d.file_offset,
						     d.leading < left ? d.leading : left);
			continue;
		}
		memcpy(sector, entry + at, sizeof(sector));
		memcpy(sector, &d.leading, 8);
		memcpy(sector + 4092, &d.trailing, 4);
		error = file_write(&v->disk->file, d.file_offset, sector, sizeof(sector));
		at += VHDX_SECTOR_BYTES;
	}
	return error;
}

static int run_apply(struct log *l, const struct run *r, struct disk_error *error)
{
	struct vhdx *v = l->v;
	uint8_t *head;
	struct vhdx_log_head h;
	uint32_t at;
	int result = 0;

	/* whatever the scan has left: the run is read once more, its head twice */
	l->budget += (uint64_t)l->size * APPLY_FACTOR;
	head = entry_read(l, r->head);
	if (!head)
		return disk_fail(error, -EBADMSG, v->disk->path, "the log cannot be read");
	memcpy(&h, head, sizeof(h));
	free(head);
	if ((int64_t)h.flushed_file_bytes > file_size(&v->disk->file))
		return disk_fail(error, -EBADMSG, v->disk->path,
				 "the file is shorter than its log knows it: it was cut");
	if (h.last_file_bytes > VHDX_MAX_BYTES * 2)
		return disk_fail(error, -EBADMSG, v->disk->path, "the log makes the file too long");
	for (at = h.tail; !result;) {
		uint8_t *entry = entry_read(l, at);
		uint32_t bytes;

		if (!entry || !entry_is_complete(entry)) {
			free(entry);
			return disk_fail(error, -EBADMSG, v->disk->path, "the log has a hole");
		}
		result = entry_apply(v, entry);
		memcpy(&bytes, entry + 8, 4);
		free(entry);
		if (at == r->head)
			break;
		at = (at + bytes) % l->size;
	}
	if (!result && (int64_t)h.last_file_bytes > file_size(&v->disk->file))
		result = file_truncate(&v->disk->file, h.last_file_bytes);
	if (!result)
		result = vhdx_sync(v);
	return result ? disk_fail(error, result, v->disk->path, "replaying the log: %s",
				  strerror(-result))
		      : 0;
}

int vhdx_replay(struct vhdx *v, bool *ret_replayed, struct disk_error *error)
{
	struct log l = { .v = v,
			 .size = v->header.log_bytes,
			 .budget = (uint64_t)v->header.log_bytes * SCAN_FACTOR };
	struct run best = { 0 };
	int result;

	*ret_replayed = false;
	if (guid_is_zero(v->header.log))
		return 0;
	l.bytes = malloc(l.size);
	if (!l.bytes)
		return disk_fail(error, -ENOMEM, v->disk->path, "no memory for a log of %u bytes",
				 l.size);
	result = file_read(&v->disk->file, v->header.log_offset, l.bytes, l.size);
	for (uint32_t at = 0; at < l.size && !result; at += VHDX_SECTOR_BYTES) {
		struct run r = run_follow(&l, at);

		if (r.any && (!best.any || r.head_sequence > best.head_sequence))
			best = r;
	}
	if (result)
		disk_fail(error, result, v->disk->path, "reading the log: %s", strerror(-result));
	else if (best.any && !v->disk->write)
		result = disk_fail(
			error, -EUCLEAN, v->disk->path,
			"was not closed, and its log can only be replayed when it is opened for "
			"writing");
	else if (best.any)
		result = run_apply(&l, &best, error);
	if (!result && v->disk->write) {
		v->header.file_write = guid_new();
		v->header.log = (struct guid){ 0 };
		result = write_both(v);
		*ret_replayed = best.any;
		if (result)
			disk_fail(error, result, v->disk->path, "writing the headers: %s",
				  strerror(-result));
	}
	free(l.bytes);
	return result;
}
