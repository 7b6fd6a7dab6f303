/* Reading, writing and zeroing the blocks of a VHDX file, and asking what they are. */
#include "disk/digest.h"
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

/* The part of a range that lies in one block. */
struct piece { uint64_t block; uint32_t at, bytes; };

static struct piece piece_at(const struct vhdx *v, uint64_t offset, uint64_t bytes)
{
	struct piece p = { .block = offset / v->block_bytes,
			   .at = (uint32_t)(offset % v->block_bytes) };

	p.bytes = v->block_bytes - p.at < bytes ? v->block_bytes - p.at : (uint32_t)bytes;
	return p;
}

/* ---- what is where ---- */

/* Of sectors that the file does not hold. */
static enum disk_range_kind kind_without_data(const struct vhdx *v, uint64_t entry)
{
	unsigned state = vhdx_state(entry);

	return v->has_parent && (state == BAT_NOT_PRESENT || state == BAT_PARTIAL)
		       ? DISK_RANGE_ABSENT
		       : DISK_RANGE_ZERO;
}

/* What a piece begins with, and where that lies in the file when it is present. */
static int piece_range(struct vhdx *v, const struct piece *p, struct disk_range *ret,
		       uint64_t *ret_place)
{
	uint64_t entry;
	uint32_t sectors = p->bytes / v->sector_bytes;
	bool here = false;
	int error;

	pthread_mutex_lock(&v->map);
	entry = v->bat[vhdx_entry(v, p->block)];
	error = vhdx_run(v, p->block, p->at / v->sector_bytes, sectors, &here, &sectors);
	pthread_mutex_unlock(&v->map);
	ret->kind = here ? DISK_RANGE_PRESENT : kind_without_data(v, entry);
	ret->bytes = (uint64_t)sectors * v->sector_bytes;
	*ret_place = vhdx_offset(entry) + p->at;
	return error;
}

/* Blocks that are alike as a whole are one range: a disk may have millions that hold nothing. */
static int vhdx_range(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct vhdx *v = vhdx_of(d);
	struct piece p = piece_at(v, offset, bytes);
	uint64_t place;
	unsigned state;
	int error = piece_range(v, &p, ret, &place);

	if (error || ret->bytes < p.bytes)
		return error;
	pthread_mutex_lock(&v->map);
	state = vhdx_state(v->bat[vhdx_entry(v, p.block)]);
	while (ret->bytes < bytes && state != BAT_PARTIAL) {
		p = piece_at(v, offset + ret->bytes, bytes - ret->bytes);
		if (vhdx_state(v->bat[vhdx_entry(v, p.block)]) != state)
			break;
		ret->bytes += p.bytes;
	}
	pthread_mutex_unlock(&v->map);
	return 0;
}

/* ---- reading ---- */

int vhdx_read_unlocked(struct vhdx *v, uint64_t offset, const struct disk_buffer *buffer,
		       uint64_t bytes, struct disk_range *ret)
{
	struct piece p = piece_at(v, offset, bytes);
	uint64_t place;
	int error = piece_range(v, &p, ret, &place);

	if (error || ret->kind != DISK_RANGE_PRESENT)
		return error;
	return buffer_read(buffer, &v->disk->file, place, ret->bytes);
}

/* Where a request within one block that the file has whole lies; 0: it is another one. With `io`:
 * the block stays there. */
static uint64_t whole_place(struct vhdx *v, uint64_t offset, uint64_t bytes)
{
	uint64_t block = offset / v->block_bytes;
	uint64_t at = offset % v->block_bytes;
	uint64_t entry;

	if (bytes > v->block_bytes - at)
		return 0;
	entry = __atomic_load_n(&v->bat[vhdx_entry(v, block)], __ATOMIC_ACQUIRE);
	return vhdx_state(entry) == BAT_PRESENT ? vhdx_offset(entry) + at : 0;
}

static int vhdx_read(struct disk *d, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes, struct disk_range *ret)
{
	struct vhdx *v = vhdx_of(d);
	uint64_t place;
	int error;

	pthread_rwlock_rdlock(&v->io);
	place = whole_place(v, offset, bytes);
	if (place) {
		*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
		error = buffer_read(buffer, &d->file, place, bytes);
	} else {
		error = vhdx_read_unlocked(v, offset, buffer, bytes, ret);
	}
	pthread_rwlock_unlock(&v->io);
	return error;
}

/* ---- writing ---- */

/* Gives the block a place; of a child without any sector of its own yet. Under `map`. */
static int make_present(struct vhdx *v, uint64_t block, bool whole)
{
	uint64_t index = vhdx_entry(v, block);
	uint64_t offset;
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

/* A block of a child every sector of which is its own hides its parent: nobody has to look at its
 * bits any more. Under `map`. */
static int set_own(struct vhdx *v, const struct piece *p)
{
	uint64_t index = vhdx_entry(v, p->block);
	uint32_t sectors = v->block_bytes / v->sector_bytes;
	uint32_t run;
	bool here;
	int error;

	vhdx_set_bits(v, p->block, p->at / v->sector_bytes, p->bytes / v->sector_bytes, true);
	error = vhdx_run(v, p->block, 0, sectors, &here, &run);
	if (!error && here && run == sectors)
		vhdx_set_entry(v, index, vhdx_offset(v->bat[index]) | BAT_PRESENT);
	return error;
}

static int write_piece(struct vhdx *v, const struct piece *p, const struct disk_buffer *buffer)
{
	uint64_t entry;
	uint64_t index = vhdx_entry(v, p->block);
	uint8_t *bits;
	int error = 0;

	pthread_mutex_lock(&v->map);
	/* a whole block of a child may hide its parent only once its data is there: it starts out
	 * partial, too */
	if (!vhdx_holds(v->bat[index]))
		error = make_present(v, p->block, false);
	if (!error && vhdx_state(v->bat[index]) == BAT_PARTIAL)
		error = vhdx_bits(v, p->block / v->chunk_ratio, true, &bits);
	entry = v->bat[index];
	pthread_mutex_unlock(&v->map);
	if (!error)
		error = buffer_write(buffer, &v->disk->file, vhdx_offset(entry) + p->at, p->bytes);
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

static int vhdx_write(struct disk *d, uint64_t offset, const struct disk_buffer *buffer,
		      uint64_t bytes)
{
	struct vhdx *v = vhdx_of(d);
	const struct piece p = piece_at(v, offset, bytes);
	uint64_t place;
	int error = begin_data(v);

	if (error)
		return error;
	pthread_rwlock_rdlock(&v->io);
	place = whole_place(v, offset, bytes);
	if (place) {
		error = buffer_write(buffer, &d->file, place, bytes);
		if (!error)
			vhdx_note_payload(v);
	} else {
		error = write_piece(v, &p, buffer);
	}
	pthread_rwlock_unlock(&v->io);
	return error;
}

/* ---- zeroing ---- */

/* With `io` alone: nobody reads or writes the block's place meanwhile. */
static int zero_whole(struct vhdx *v, uint64_t block)
{
	uint64_t index = vhdx_entry(v, block);
	uint64_t entry = v->bat[index];
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
	uint64_t index = vhdx_entry(v, p->block);
	uint64_t entry = v->bat[index];
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
	const struct piece p = piece_at(v, offset, bytes);
	bool to_end = !p.at && p.block + 1 == v->blocks && offset + bytes == d->size_bytes;
	int error = begin_data(v);

	if (error)
		return error;
	pthread_rwlock_wrlock(&v->io);
	pthread_mutex_lock(&v->map);
	error = p.bytes == v->block_bytes || to_end ? zero_whole(v, p.block) : zero_part(v, &p);
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

/* ---- what is wrong, what it is ---- */

/* What opening does not look at: bitmaps that a partial block needs and does not have. */
static int vhdx_check(struct disk *d, void (*report)(void *, const char *), void *context)
{
	struct vhdx *v = vhdx_of(d);
	int faults = 0;

	for (uint64_t block = 0; block < v->blocks; block++) {
		uint64_t chunk = block / v->chunk_ratio;
		char line[80];

		if (vhdx_state(v->bat[vhdx_entry(v, block)]) != BAT_PARTIAL ||
		    vhdx_holds(v->bat[vhdx_bitmap_entry(v, chunk)]))
			continue;
		snprintf(line, sizeof(line), "block %lu is partial, and its chunk has no bitmap",
			 block);
		report(context, line);
		faults++;
	}
	return faults;
}

static void vhdx_info(const struct disk *d, struct disk_info *ret)
{
	const struct vhdx *v = vhdx_of(d);

	*ret = (struct disk_info){
		.format = DISK_VHDX,
		.size_bytes = d->size_bytes,
		.block_bytes = v->block_bytes,
		.logical_sector_bytes = v->sector_bytes,
		.physical_sector_bytes = v->physical_bytes,
		.fixed = v->fixed,
		.has_parent = v->has_parent,
		.file_id = v->header.file_write,
		.data_id = v->header.data_write,
		.disk_id = v->disk_id,
		.parent_data_id = v->parent_id,
		.blocks = v->blocks,
	};
	if (d->parent)
		ret->is_linked = v->parent_format != DISK_VHDX ||
				 vhdx_names_data(v, disk_data_id(d->parent));
	for (uint64_t block = 0; v->bat && block < v->blocks; block++)
		ret->blocks_present += vhdx_holds(v->bat[vhdx_entry(v, block)]);
}

const struct disk_driver vhdx_driver = {
	.read = vhdx_read,
	.write = vhdx_write,
	.zero = vhdx_zero,
	.flush = vhdx_flush,
	.resize = vhdx_resize,
	.range = vhdx_range,
	.check = vhdx_check,
	.info = vhdx_info,
	.close = vhdx_close,
	.read_item = vhdx_read_long,
	.write_item = vhdx_write_long,
	.map = vhdx_map,
	.unmap = vhdx_unmap,
};
