/* Reading, writing and zeroing the blocks of a VHDX file, and asking what they are. */
#include "disk/digest.h"
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

/* The part of a range that lies in one block. */
struct piece { uint64_t block; uint32_t at, bytes; };

static struct piece piece_at(const struct vhdx *vhdx, uint64_t offset, uint64_t bytes)
{
	struct piece piece = { .block = offset / vhdx->block_bytes,
			       .at = (uint32_t)(offset % vhdx->block_bytes) };

	piece.bytes = vhdx->block_bytes - piece.at < bytes ? vhdx->block_bytes - piece.at
							   : (uint32_t)bytes;
	return piece;
}

/* ---- what is where ---- */

/* Of sectors that the file does not hold. */
static enum disk_range_kind kind_without_data(const struct vhdx *vhdx, uint64_t entry)
{
	unsigned state = vhdx_state(entry);

	return vhdx->has_parent && (state == BAT_NOT_PRESENT || state == BAT_PARTIAL)
		       ? DISK_RANGE_ABSENT
		       : DISK_RANGE_ZERO;
}

/* What a piece begins with, and where that lies in the file when it is present. */
static int piece_range(struct vhdx *vhdx, const struct piece *piece, struct disk_range *ret,
		       uint64_t *ret_place)
{
	uint64_t entry;
	uint32_t sectors = piece->bytes / vhdx->sector_bytes;
	bool here = false;
	int error;

	pthread_mutex_lock(&vhdx->map);
	entry = vhdx->bat[vhdx_entry(vhdx, piece->block)];
	error = vhdx_run(vhdx, piece->block, piece->at / vhdx->sector_bytes, sectors, &here,
			 &sectors);
	pthread_mutex_unlock(&vhdx->map);
	ret->kind = here ? DISK_RANGE_PRESENT : kind_without_data(vhdx, entry);
	ret->bytes = (uint64_t)sectors * vhdx->sector_bytes;
	*ret_place = vhdx_offset(entry) + piece->at;
	return error;
}

/* Blocks that are alike as a whole are one range: a disk may have millions that hold nothing. */
static int vhdx_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct vhdx *vhdx = vhdx_of(disk);
	struct piece piece = piece_at(vhdx, offset, bytes);
	uint64_t place;
	unsigned state;
	int error = piece_range(vhdx, &piece, ret, &place);

	if (error || ret->bytes < piece.bytes)
		return error;
	pthread_mutex_lock(&vhdx->map);
	state = vhdx_state(vhdx->bat[vhdx_entry(vhdx, piece.block)]);
	while (ret->bytes < bytes && state != BAT_PARTIAL) {
		piece = piece_at(vhdx, offset + ret->bytes, bytes - ret->bytes);
		if (vhdx_state(vhdx->bat[vhdx_entry(vhdx, piece.block)]) != state)
			break;
		ret->bytes += piece.bytes;
	}
	pthread_mutex_unlock(&vhdx->map);
	return 0;
}

/* ---- reading ---- */

int vhdx_read_unlocked(struct vhdx *vhdx, uint64_t offset, const struct disk_buffer *buffer,
		       uint64_t bytes, struct disk_range *ret)
{
	struct piece piece = piece_at(vhdx, offset, bytes);
	uint64_t place;
	int error = piece_range(vhdx, &piece, ret, &place);

	if (error || ret->kind != DISK_RANGE_PRESENT)
		return error;
	return buffer_read(buffer, &vhdx->disk->file, place, ret->bytes);
}

/* Where a request within one block that the file has whole lies; 0: it is another one. With `io`:
 * the block stays there. */
static uint64_t whole_place(struct vhdx *vhdx, uint64_t offset, uint64_t bytes)
{
	uint64_t block = offset / vhdx->block_bytes;
	uint64_t at = offset % vhdx->block_bytes;
	uint64_t entry;

	if (bytes > vhdx->block_bytes - at)
		return 0;
	entry = __atomic_load_n(&vhdx->bat[vhdx_entry(vhdx, block)], __ATOMIC_ACQUIRE);
	return vhdx_state(entry) == BAT_PRESENT ? vhdx_offset(entry) + at : 0;
}

static int vhdx_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes, struct disk_range *ret)
{
	struct vhdx *vhdx = vhdx_of(disk);
	uint64_t place;
	int error;

	pthread_rwlock_rdlock(&vhdx->io);
	place = whole_place(vhdx, offset, bytes);
	if (place) {
		*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
		error = buffer_read(buffer, &disk->file, place, bytes);
	} else {
		error = vhdx_read_unlocked(vhdx, offset, buffer, bytes, ret);
	}
	pthread_rwlock_unlock(&vhdx->io);
	return error;
}

/* ---- writing ---- */

/* Gives the block a place; of a child without any sector of its own yet. Under `map`. */
static int make_present(struct vhdx *vhdx, uint64_t block, bool whole)
{
	uint64_t index = vhdx_entry(vhdx, block);
	uint64_t offset;
	bool parent_shows =
		vhdx->has_parent && vhdx_state(vhdx->bat[index]) == BAT_NOT_PRESENT && !whole;
	uint8_t *bits;
	int error = parent_shows ? vhdx_bits(vhdx, block / vhdx->chunk_ratio, true, &bits) : 0;

	if (!error)
		error = vhdx_allocate(vhdx, vhdx->block_bytes, &offset);
	if (error)
		return error;
	if (parent_shows)
		vhdx_set_bits(vhdx, block, 0, vhdx->block_bytes / vhdx->sector_bytes, false);
	vhdx_set_entry(vhdx, index, offset | (parent_shows ? BAT_PARTIAL : BAT_PRESENT));
	return 0;
}

/* A block of a child every sector of which is its own hides its parent: nobody has to look at its
 * bits any more. Under `map`. */
static int set_own(struct vhdx *vhdx, const struct piece *piece)
{
	uint64_t index = vhdx_entry(vhdx, piece->block);
	uint32_t sectors = vhdx->block_bytes / vhdx->sector_bytes;
	uint32_t run;
	bool here;
	int error;

	vhdx_set_bits(vhdx, piece->block, piece->at / vhdx->sector_bytes,
		      piece->bytes / vhdx->sector_bytes, true);
	error = vhdx_run(vhdx, piece->block, 0, sectors, &here, &run);
	if (!error && here && run == sectors)
		vhdx_set_entry(vhdx, index, vhdx_offset(vhdx->bat[index]) | BAT_PRESENT);
	return error;
}

static int write_piece(struct vhdx *vhdx, const struct piece *piece,
		       const struct disk_buffer *buffer)
{
	uint64_t entry;
	uint64_t index = vhdx_entry(vhdx, piece->block);
	uint8_t *bits;
	int error = 0;

	pthread_mutex_lock(&vhdx->map);
	/* a whole block of a child may hide its parent only once its data is there: it starts out
	 * partial, too */
	if (!vhdx_holds(vhdx->bat[index]))
		error = make_present(vhdx, piece->block, false);
	if (!error && vhdx_state(vhdx->bat[index]) == BAT_PARTIAL)
		error = vhdx_bits(vhdx, piece->block / vhdx->chunk_ratio, true, &bits);
	entry = vhdx->bat[index];
	pthread_mutex_unlock(&vhdx->map);
	if (!error)
		error = buffer_write(buffer, &vhdx->disk->file, vhdx_offset(entry) + piece->at,
				     piece->bytes);
	if (error)
		return error;
	pthread_mutex_lock(&vhdx->map);
	vhdx_note_payload(vhdx);
	if (vhdx_state(vhdx->bat[index]) == BAT_PARTIAL)
		error = set_own(vhdx, piece);
	pthread_mutex_unlock(&vhdx->map);
	return error;
}

static int begin_data(struct vhdx *vhdx)
{
	int error = 0;

	if (__atomic_load_n(&vhdx->data_begun, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&vhdx->flush_lock);
	error = vhdx_begin(vhdx, true);
	pthread_mutex_unlock(&vhdx->flush_lock);
	return error;
}

static int vhdx_write(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		      uint64_t bytes)
{
	struct vhdx *vhdx = vhdx_of(disk);
	const struct piece piece = piece_at(vhdx, offset, bytes);
	uint64_t place;
	int error = begin_data(vhdx);

	if (error)
		return error;
	pthread_rwlock_rdlock(&vhdx->io);
	place = whole_place(vhdx, offset, bytes);
	if (place) {
		error = buffer_write(buffer, &disk->file, place, bytes);
		if (!error)
			vhdx_note_payload(vhdx);
	} else {
		error = write_piece(vhdx, &piece, buffer);
	}
	pthread_rwlock_unlock(&vhdx->io);
	return error;
}

/* ---- zeroing ---- */

/* With `io` alone: nobody reads or writes the block's place meanwhile. */
static int zero_whole(struct vhdx *vhdx, uint64_t block)
{
	uint64_t index = vhdx_entry(vhdx, block);
	uint64_t entry = vhdx->bat[index];
	int error = 0;

	if (!vhdx->has_parent && vhdx_state(entry) == BAT_NOT_PRESENT)
		return 0;
	vhdx_note_payload(vhdx);
	if (vhdx_holds(entry) &&
	    (vhdx->fixed || (vhdx->in_flight && vhdx_state(entry) == BAT_PRESENT)))
		return file_discard(&vhdx->disk->file, vhdx_offset(entry), vhdx->block_bytes);
	if (vhdx_holds(entry))
		error = vhdx_free(vhdx, vhdx_offset(entry));
	if (!error && vhdx_state(entry) != BAT_ZERO)
		vhdx_set_entry(vhdx, index, BAT_ZERO);
	return error;
}

static int zero_part(struct vhdx *vhdx, const struct piece *piece)
{
	uint64_t index = vhdx_entry(vhdx, piece->block);
	uint64_t entry = vhdx->bat[index];
	uint8_t *bits;
	int error = 0;

	if (!vhdx_holds(entry) && (!vhdx->has_parent || vhdx_state(entry) != BAT_NOT_PRESENT))
		return 0; /* zero already */
	if (!vhdx_holds(entry))
		error = make_present(vhdx, piece->block, false);
	entry = vhdx->bat[index];
	if (!error && vhdx_state(entry) == BAT_PARTIAL)
		error = vhdx_bits(vhdx, piece->block / vhdx->chunk_ratio, true, &bits);
	if (!error)
		error = file_discard(&vhdx->disk->file, vhdx_offset(entry) + piece->at,
				     piece->bytes);
	vhdx_note_payload(vhdx);
	return !error && vhdx_state(entry) == BAT_PARTIAL ? set_own(vhdx, piece) : error;
}

static int vhdx_zero(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	struct vhdx *vhdx = vhdx_of(disk);
	const struct piece piece = piece_at(vhdx, offset, bytes);
	bool to_end =
		!piece.at && piece.block + 1 == vhdx->blocks && offset + bytes == disk->size_bytes;
	int error = begin_data(vhdx);

	if (error)
		return error;
	pthread_rwlock_wrlock(&vhdx->io);
	pthread_mutex_lock(&vhdx->map);
	error = piece.bytes == vhdx->block_bytes || to_end ? zero_whole(vhdx, piece.block)
							   : zero_part(vhdx, &piece);
	pthread_mutex_unlock(&vhdx->map);
	pthread_rwlock_unlock(&vhdx->io);
	return error;
}

/* ---- transfers that others make ---- */

/* Within one block that the file has whole. A block is not freed while one of them is under way. */
static bool vhdx_map(struct disk *disk, bool write, uint64_t offset, uint64_t bytes,
		     uint64_t *ret_at)
{
	struct vhdx *vhdx = vhdx_of(disk);
	struct piece piece = piece_at(vhdx, offset, bytes);
	uint64_t entry;
	bool good;

	if (piece.bytes != bytes || (write && begin_data(vhdx)))
		return false;
	pthread_mutex_lock(&vhdx->map);
	entry = vhdx->bat[vhdx_entry(vhdx, piece.block)];
	good = vhdx_state(entry) == BAT_PRESENT;
	vhdx->in_flight += good;
	pthread_mutex_unlock(&vhdx->map);
	*ret_at = vhdx_offset(entry) + piece.at;
	return good;
}

static void vhdx_unmap(struct disk *disk, bool write)
{
	struct vhdx *vhdx = vhdx_of(disk);

	pthread_mutex_lock(&vhdx->map);
	vhdx->in_flight--;
	if (write)
		vhdx_note_payload(vhdx);
	pthread_mutex_unlock(&vhdx->map);
}

static int vhdx_flush(struct disk *disk) { return vhdx_commit(vhdx_of(disk)); }

/* ---- what is wrong, what it is ---- */

/* What opening does not look at: bitmaps that a partial block needs and does not have. */
static int vhdx_check(struct disk *disk, disk_fault_report *report, void *context)
{
	struct vhdx *vhdx = vhdx_of(disk);
	struct disk_error fault;
	int faults = 0;

	for (uint64_t block = 0; block < vhdx->blocks; block++) {
		uint64_t chunk = block / vhdx->chunk_ratio;

		if (vhdx_state(vhdx->bat[vhdx_entry(vhdx, block)]) != BAT_PARTIAL ||
		    vhdx_holds(vhdx->bat[vhdx_bitmap_entry(vhdx, chunk)]))
			continue;
		disk_refuse(&fault, REFUSAL_VHDX_BAT_BITMAP, disk->path,
			    vhdx->bat_offset + vhdx_bitmap_entry(vhdx, chunk) * sizeof(*vhdx->bat),
			    "block %lu is partial, and its chunk has no bitmap", block);
		report(context, &fault);
		faults++;
	}
	return faults;
}

static void vhdx_info(const struct disk *disk, struct disk_info *ret)
{
	const struct vhdx *vhdx = vhdx_of(disk);

	*ret = (struct disk_info){
		.format = DISK_VHDX,
		.size_bytes = disk->size_bytes,
		.block_bytes = vhdx->block_bytes,
		.logical_sector_bytes = vhdx->sector_bytes,
		.physical_sector_bytes = vhdx->physical_bytes,
		.fixed = vhdx->fixed,
		.has_parent = vhdx->has_parent,
		.file_id = vhdx->header.file_write,
		.data_id = vhdx->header.data_write,
		.disk_id = vhdx->disk_id,
		.parent_data_id = vhdx->parent_id,
		.blocks = vhdx->blocks,
		.has_log = vhdx->replayed && !disk->write,
	};
	if (disk->parent)
		ret->is_linked = vhdx->parent_format != DISK_VHDX ||
				 vhdx_names_data(vhdx, disk_data_id(disk->parent));
	for (uint64_t block = 0; vhdx->bat && block < vhdx->blocks; block++)
		ret->blocks_present += vhdx_holds(vhdx->bat[vhdx_entry(vhdx, block)]);
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
