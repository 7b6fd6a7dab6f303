/* Reading, writing and zeroing the blocks of a VHDX file, and asking what they are. */
#include "disk/digest.h"
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

/* A request is done block by block. */
struct piece { uint64_t block; uint32_t at, bytes; };

static struct piece piece_at(const struct vhdx *v, uint64_t offset, uint64_t bytes)
{
	struct piece p = { .block = offset / v->block_bytes, .at = (uint32_t)(offset % v->block_bytes) };

	p.bytes = v->block_bytes - p.at < bytes ? v->block_bytes - p.at : (uint32_t)bytes;
	return p;
}

static int on_slices(const struct vhdx *v, bool write, uint64_t file_offset, const struct iovec *iov, int count, uint64_t from, uint64_t bytes)
{
	while (bytes) {
		struct iovec part[SLICE_IOVS];
		uint64_t n;
		int parts = iov_slice(iov, count, from, bytes, part, &n), error;

		error = write ? file_writev(&v->disk->file, file_offset, part, parts)
			      : file_readv(&v->disk->file, file_offset, part, parts);
		if (error)
			return error;
		file_offset += n;
		from += n;
		bytes -= n;
	}
	return 0;
}

static void zero_slices(const struct iovec *iov, int count, uint64_t from, uint64_t bytes)
{
	while (bytes) {
		struct iovec part[SLICE_IOVS];
		uint64_t n;

		iov_zero(part, iov_slice(iov, count, from, bytes, part, &n));
		from += n;
		bytes -= n;
	}
}

/* ---- reading ---- */

/* Whether an ancestor says something about a block; only of one that divides the disk as we do it need not be asked. */
static bool is_silent(const struct vhdx *v, const struct disk *ancestor, uint64_t block)
{
	const struct vhdx *p = vhdx_of(ancestor);

	if (ancestor->driver != &vhdx_driver || p->block_bytes != v->block_bytes)
		return false;
	return block >= p->blocks || vhdx_state(p->bat[vhdx_entry(p, block)]) == BAT_NOT_PRESENT;
}

/*
 * The nearest ancestor that says something about a block; *ret NULL: none. Remembered for every block, so that a read costs the
 * same at any depth. Links whose content has to be verified are, on the way there.
 */
static int speaker(struct vhdx *v, uint64_t block, struct disk **ret)
{
	uint16_t n = __atomic_load_n(&v->skip[block], __ATOMIC_RELAXED);
	struct disk *child = v->disk;
	int error = 0;

	for (unsigned at = 0; n == NO_SKIP && at < v->ancestors; child = v->ancestor[at++]) {
		if (child->link)
			error = link_verify(child->link, v->ancestor[at], block * v->block_bytes, v->block_bytes);
		if (error)
			return error;
		if (!is_silent(v, v->ancestor[at], block)) {
			n = (uint16_t)at;
			break;
		}
	}
	if (n == NO_SKIP)
		n = (uint16_t)v->ancestors;
	__atomic_store_n(&v->skip[block], n, __ATOMIC_RELAXED);
	*ret = n < v->ancestors ? v->ancestor[n] : NULL;
	return 0;
}

static int read_parent(struct vhdx *v, uint64_t block, uint64_t offset, const struct iovec *iov, int count, uint64_t from, uint64_t bytes)
{
	struct disk *parent = NULL;
	int error = speaker(v, block, &parent);
	uint64_t there = error || !parent || offset >= parent->size_bytes ? 0 : parent->size_bytes - offset < bytes ? parent->size_bytes - offset : bytes;

	while (there) {
		struct iovec part[SLICE_IOVS];
		uint64_t n;
		int parts = iov_slice(iov, count, from, there, part, &n);

		error = parent->driver->readv(parent, offset, part, parts, n);
		if (error)
			return error;
		offset += n;
		from += n;
		there -= n;
		bytes -= n;
	}
	if (!error)
		zero_slices(iov, count, from, bytes);
	return error;
}

static int read_piece(struct vhdx *v, const struct piece *p, const struct iovec *iov, int count, uint64_t from)
{
	uint32_t sector = p->at / v->sector_bytes, left = p->bytes / v->sector_bytes;

	while (left) {
		uint64_t entry, bytes, offset = (uint64_t)sector * v->sector_bytes;
		uint32_t n = left;
		bool here = false;
		int error;

		pthread_mutex_lock(&v->map);
		entry = v->bat[vhdx_entry(v, p->block)];
		error = vhdx_run(v, p->block, sector, left, &here, &n);
		pthread_mutex_unlock(&v->map);
		if (error)
			return error;
		bytes = (uint64_t)n * v->sector_bytes;
		if (here)
			error = on_slices(v, false, vhdx_offset(entry) + offset, iov, count, from, bytes);
		else if (v->has_parent && (vhdx_state(entry) == BAT_NOT_PRESENT || vhdx_state(entry) == BAT_PARTIAL))
			error = read_parent(v, p->block, p->block * v->block_bytes + offset, iov, count, from, bytes);
		else
			zero_slices(iov, count, from, bytes);
		if (error)
			return error;
		from += bytes;
		sector += n;
		left -= n;
	}
	return 0;
}

static int read_range(struct vhdx *v, uint64_t offset, const struct iovec *iov, int count, uint64_t bytes)
{
	int error = 0;

	for (uint64_t done = 0; done < bytes && !error;) {
		struct piece p = piece_at(v, offset + done, bytes - done);

		error = read_piece(v, &p, iov, count, done);
		done += p.bytes;
	}
	return error;
}

int vhdx_read_unlocked(struct vhdx *v, uint64_t offset, void *to, uint64_t bytes) { return read_range(v, offset, &(struct iovec){ to, bytes }, 1, bytes); }

/* Where a request within one block that the file has whole lies; 0: it is another one. With `io`: the block stays there. */
static uint64_t whole_place(struct vhdx *v, uint64_t offset, uint64_t bytes)
{
	uint64_t block = offset / v->block_bytes, at = offset % v->block_bytes, entry;

	if (bytes > v->block_bytes - at)
		return 0;
	entry = __atomic_load_n(&v->bat[vhdx_entry(v, block)], __ATOMIC_ACQUIRE);
	return vhdx_state(entry) == BAT_PRESENT ? vhdx_offset(entry) + at : 0;
}

static int vhdx_readv(struct disk *d, uint64_t offset, const struct iovec *iov, int count, uint64_t bytes)
{
	struct vhdx *v = vhdx_of(d);
	uint64_t place;
	int error;

	pthread_rwlock_rdlock(&v->io);
	place = whole_place(v, offset, bytes);
	error = place ? file_readv(&d->file, place, iov, count) : read_range(v, offset, iov, count, bytes);
	pthread_rwlock_unlock(&v->io);
	return error;
}

/* ---- writing ---- */

/* Gives the block a place; of a child without any sector of its own yet. Under `map`. */
static int make_present(struct vhdx *v, uint64_t block, bool whole)
{
	uint64_t index = vhdx_entry(v, block), offset;
	bool parent_shows = v->has_parent && vhdx_state(v->bat[index]) == BAT_NOT_PRESENT && !whole;
	uint8_t *bits;
	int error = parent_shows ? vhdx_bits(v, block / v->chunk_ratio, true, &bits) : 0;

	if (!error)
		error = vhdx_allocate(v, v->block_bytes, &offset);
	if (error)
		return error;
	if (parent_shows)
		vhdx_set_bits(v, block, 0, v->block_bytes / v->sector_bytes, false);
	vhdx_set_entry(v, index, offset | (parent_shows ? BAT_PARTIAL : BAT_PRESENT));
	return 0;
}

/* A block of a child every sector of which is its own hides its parent: nobody has to look at its bits any more. Under `map`. */
static int set_own(struct vhdx *v, const struct piece *p)
{
	uint64_t index = vhdx_entry(v, p->block);
	uint32_t sectors = v->block_bytes / v->sector_bytes, run;
	bool here;
	int error;

	vhdx_set_bits(v, p->block, p->at / v->sector_bytes, p->bytes / v->sector_bytes, true);
	error = vhdx_run(v, p->block, 0, sectors, &here, &run);
	if (!error && here && run == sectors)
		vhdx_set_entry(v, index, vhdx_offset(v->bat[index]) | BAT_PRESENT);
	return error;
}

static int write_piece(struct vhdx *v, const struct piece *p, const struct iovec *iov, int count, uint64_t from)
{
	uint64_t entry, index = vhdx_entry(v, p->block);
	uint8_t *bits;
	int error = 0;

	pthread_mutex_lock(&v->map);
	/* a whole block of a child may hide its parent only once its data is there: it starts out partial, too */
	if (!vhdx_holds(v->bat[index]))
		error = make_present(v, p->block, false);
	if (!error && vhdx_state(v->bat[index]) == BAT_PARTIAL)
		error = vhdx_bits(v, p->block / v->chunk_ratio, true, &bits);
	entry = v->bat[index];
	pthread_mutex_unlock(&v->map);
	if (!error)
		error = on_slices(v, true, vhdx_offset(entry) + p->at, iov, count, from, p->bytes);
	if (error)
		return error;
	pthread_mutex_lock(&v->map);
	vhdx_note_payload(v);
	if (vhdx_state(v->bat[index]) == BAT_PARTIAL)
		error = set_own(v, p);
	pthread_mutex_unlock(&v->map);
	return error;
}

static int begin_data(struct vhdx *v)
{
	int error = 0;

	if (__atomic_load_n(&v->data_begun, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&v->flush_lock);
	error = vhdx_begin(v, true);
	pthread_mutex_unlock(&v->flush_lock);
	return error;
}

static int vhdx_writev(struct disk *d, uint64_t offset, const struct iovec *iov, int count, uint64_t bytes)
{
	struct vhdx *v = vhdx_of(d);
	uint64_t place;
	int error = begin_data(v);

	pthread_rwlock_rdlock(&v->io);
	place = error ? 0 : whole_place(v, offset, bytes);
	if (place) {
		error = file_writev(&d->file, place, iov, count);
		if (!error)
			vhdx_note_payload(v);
	}
	for (uint64_t done = 0; done < bytes && !error && !place;) {
		struct piece p = piece_at(v, offset + done, bytes - done);

		error = write_piece(v, &p, iov, count, done);
		done += p.bytes;
	}
	pthread_rwlock_unlock(&v->io);
	return error;
}

/* ---- zeroing ---- */

/* With `io` alone: nobody reads or writes the block's place meanwhile. */
static int zero_whole(struct vhdx *v, uint64_t block)
{
	uint64_t index = vhdx_entry(v, block), entry = v->bat[index];
	int error = 0;

	if (!v->has_parent && vhdx_state(entry) == BAT_NOT_PRESENT)
		return 0;
	vhdx_note_payload(v);
	if (vhdx_holds(entry) && (v->fixed || (v->in_flight && vhdx_state(entry) == BAT_PRESENT)))
		return file_discard(&v->disk->file, vhdx_offset(entry), v->block_bytes);
	if (vhdx_holds(entry))
		error = vhdx_free(v, vhdx_offset(entry));
	if (!error && vhdx_state(entry) != BAT_ZERO)
		vhdx_set_entry(v, index, BAT_ZERO);
	return error;
}

static int zero_part(struct vhdx *v, const struct piece *p)
{
	uint64_t index = vhdx_entry(v, p->block), entry = v->bat[index];
	uint8_t *bits;
	int error = 0;

	if (!vhdx_holds(entry) && (!v->has_parent || vhdx_state(entry) != BAT_NOT_PRESENT))
		return 0; /* zero already */
	if (!vhdx_holds(entry))
		error = make_present(v, p->block, false);
	entry = v->bat[index];
	if (!error && vhdx_state(entry) == BAT_PARTIAL)
		error = vhdx_bits(v, p->block / v->chunk_ratio, true, &bits);
	if (!error)
		error = file_discard(&v->disk->file, vhdx_offset(entry) + p->at, p->bytes);
	vhdx_note_payload(v);
	return !error && vhdx_state(entry) == BAT_PARTIAL ? set_own(v, p) : error;
}

static int vhdx_zero(struct disk *d, uint64_t offset, uint64_t bytes)
{
	struct vhdx *v = vhdx_of(d);
	int error = begin_data(v);

	pthread_rwlock_wrlock(&v->io);
	pthread_mutex_lock(&v->map);
	for (uint64_t done = 0; done < bytes && !error;) {
		struct piece p = piece_at(v, offset + done, bytes - done);
		bool whole = p.bytes == v->block_bytes || (!p.at && p.block + 1 == v->blocks && offset + done + p.bytes == d->size_bytes);

		error = whole ? zero_whole(v, p.block) : zero_part(v, &p);
		done += p.bytes;
	}
	pthread_mutex_unlock(&v->map);
	pthread_rwlock_unlock(&v->io);
	return error;
}

/* ---- transfers that others make ---- */

/* Within one block that the file has whole. A block is not freed while one of them is under way. */
static bool vhdx_map(struct disk *d, bool write, uint64_t offset, uint64_t bytes, uint64_t *ret_at)
{
	struct vhdx *v = vhdx_of(d);
	struct piece p = piece_at(v, offset, bytes);
	uint64_t entry;
	bool good;

	if (p.bytes != bytes || (write && begin_data(v)))
		return false;
	pthread_mutex_lock(&v->map);
	entry = v->bat[vhdx_entry(v, p.block)];
	good = vhdx_state(entry) == BAT_PRESENT;
	v->in_flight += good;
	pthread_mutex_unlock(&v->map);
	*ret_at = vhdx_offset(entry) + p.at;
	return good;
}

static void vhdx_unmap(struct disk *d, bool write)
{
	struct vhdx *v = vhdx_of(d);

	pthread_mutex_lock(&v->map);
	v->in_flight--;
	if (write)
		vhdx_note_payload(v);
	pthread_mutex_unlock(&v->map);
}

static int vhdx_flush(struct disk *d) { return vhdx_commit(vhdx_of(d)); }

/* ---- what is where ---- */

static int vhdx_range(struct disk *d, uint64_t offset, uint64_t bytes, enum disk_range_kind *ret_kind, uint64_t *ret_bytes)
{
	struct vhdx *v = vhdx_of(d);
	int error = 0;

	*ret_bytes = 0;
	pthread_mutex_lock(&v->map);
	while (*ret_bytes < bytes && !error) {
		struct piece p = piece_at(v, offset + *ret_bytes, bytes - *ret_bytes);
		uint64_t entry = v->bat[vhdx_entry(v, p.block)];
		uint32_t n = p.bytes / v->sector_bytes;
		enum disk_range_kind kind;
		bool here = false;

		error = vhdx_run(v, p.block, p.at / v->sector_bytes, n, &here, &n);
		kind = here ? DISK_RANGE_DATA
			    : v->has_parent && (vhdx_state(entry) == BAT_NOT_PRESENT || vhdx_state(entry) == BAT_PARTIAL) ? DISK_RANGE_PARENT : DISK_RANGE_ZERO;
		if (*ret_bytes && kind != *ret_kind)
			break;
		*ret_kind = kind;
		*ret_bytes += (uint64_t)n * v->sector_bytes;
		if (n * v->sector_bytes < p.bytes)
			break;
	}
	pthread_mutex_unlock(&v->map);
	return error;
}

/* What opening does not look at: bitmaps that a partial block needs and does not have. */
static int vhdx_check(struct disk *d, void (*report)(void *, const char *), void *context)
{
	struct vhdx *v = vhdx_of(d);
	int faults = 0;

	for (uint64_t block = 0; block < v->blocks; block++) {
		uint64_t chunk = block / v->chunk_ratio;
		char line[80];

		if (vhdx_state(v->bat[vhdx_entry(v, block)]) != BAT_PARTIAL || vhdx_holds(v->bat[vhdx_bitmap_entry(v, chunk)]))
			continue;
		snprintf(line, sizeof(line), "block %lu is partial, and its chunk has no bitmap", block);
		report(context, line);
		faults++;
	}
	return faults;
}

static void vhdx_info(const struct disk *d, struct disk_info *ret)
{
	const struct vhdx *v = vhdx_of(d);

	*ret = (struct disk_info){
		.format = DISK_VHDX, .size_bytes = d->size_bytes, .block_bytes = v->block_bytes, .logical_sector_bytes = v->sector_bytes,
		.physical_sector_bytes = v->physical_bytes, .fixed = v->fixed, .has_parent = v->has_parent, .file_id = v->header.file_write,
		.data_id = v->header.data_write, .disk_id = v->disk_id, .parent_data_id = v->parent_id, .blocks = v->blocks,
	};
	if (d->parent)
		ret->is_linked = v->parent_format != DISK_VHDX || guid_equal(disk_data_id(d->parent), v->parent_id) || guid_equal(disk_data_id(d->parent), v->parent_id2);
	for (uint64_t block = 0; v->bat && block < v->blocks; block++)
		ret->blocks_present += vhdx_holds(v->bat[vhdx_entry(v, block)]);
}

const struct disk_driver vhdx_driver = { vhdx_readv, vhdx_writev, vhdx_zero, vhdx_flush, vhdx_resize, vhdx_range, vhdx_check, vhdx_info, vhdx_close,
					vhdx_read_long, vhdx_write_long, vhdx_map, vhdx_unmap };
