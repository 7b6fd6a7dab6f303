/*
 * VHD files: fixed, dynamic, differencing.
 *
 *   fixed      the disk, footer
 *   dynamic    footer's copy, header, block table, blocks, footer
 *   a block    a bit for each sector that the file has (all, without a parent), padded to a sector;
 *              then its sectors
 *
 * 1. What a flush has returned for is there: sectors and the bitmaps of new blocks are synced
 *    before the table names the blocks, and before a bit says that an old block has a sector. In
 *    between those live in memory: at most two syncs a flush, none without one.
 * 2. A new block lies where the last footer was; a new footer is written behind it first. The copy
 *    in front is always valid. What lies before the footer and in no block is somebody's (locators,
 *    spare entries of the table, other programs' own maps), and is not written. A file without a
 *    footer at its end gets one behind everything, with the first flush of a change.
 * 3. The unique identifier is the disk's, as other programs have it: it does not change with the
 *    data. So a parent's content is what a child of ours compares (digest.h); of one that others
 *    made, only the identifier.
 *
 * Lock: `lock` is shared by readers; who writes has it alone. Left out: growing and shrinking
 * (convert to VHDX), saved states.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "lib/check.h"
#include "vhd_internal.h"

/* Invariants 1 and 2, as far as they are in memory; with `lock`. */
void check_vhd(const struct disk *d)
{
	const struct vhd *v = vhd_of(d);
	bool any = false;

	assert(v->type == VHD_FIXED || (v->table && v->table_dirty && v->bitmap));
	for (uint32_t n = 0; n < v->entries; n++) {
		const struct vhd_bitmap *b = &v->bitmap[n];
		uint64_t offset = vhd_block_offset(v, n);

		any |= b->dirty;
		assert(!b->dirty || b->bits);
		if (v->table[n] == VHD_UNUSED)
			assert(!b->bits && !b->is_new);
		else
			assert(offset + v->bitmap_bytes + v->block_bytes <= v->end);
		if (b->is_new) /* the file's table does not name it yet */
			assert(v->table_dirty[n / 128 / 8] >> (n / 128 & 7) & 1);
	}
	assert(!any || v->any_dirty);
}

/* Of data that the table has a block for. */
static uint64_t place_of(const struct vhd *v, uint64_t at)
{
	assert(v->table[at / v->block_bytes] != VHD_UNUSED);
	return vhd_block_offset(v, (uint32_t)(at / v->block_bytes)) + v->bitmap_bytes +
	       at % v->block_bytes;
}

/* ---- sectors ---- */

/* The bits of a block that the table names; NULL: they cannot be read. Any thread that has the
 * lock. */
static uint8_t *bits_of(struct disk *d, uint32_t block)
{
	struct vhd *v = vhd_of(d);
	uint8_t *bits = __atomic_load_n(&v->bitmap[block].bits, __ATOMIC_ACQUIRE);

	if (bits)
		return bits;
	pthread_mutex_lock(&v->loading);
	bits = v->bitmap[block].bits;
	if (!bits) {
		bits = malloc(v->bitmap_bytes);
		if (bits &&
		    file_read(&d->file, vhd_block_offset(v, block), bits, v->bitmap_bytes)) {
			free(bits);
			bits = NULL;
		}
		__atomic_store_n(&v->bitmap[block].bits, bits, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&v->loading);
	return bits;
}

static bool has_bit(const uint8_t *bits, uint32_t sector)
{
	return bits[sector / 8] >> (7 - sector % 8) & 1;
}

/* What begins at an offset, within one block. */
static int vhd_range_unlocked(struct disk *d, uint64_t offset, uint64_t bytes,
			      struct disk_range *ret)
{
	struct vhd *v = vhd_of(d);
	uint64_t room = v->block_bytes - offset % v->block_bytes;
	uint32_t block = (uint32_t)(offset / v->block_bytes);
	uint32_t sector = (uint32_t)(offset % v->block_bytes / VHD_SECTOR);
	uint32_t count = 1;
	const uint8_t *bits;
	bool here;

	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT,
				    .bytes = bytes < room ? bytes : room };
	if (v->table[block] == VHD_UNUSED) {
		ret->kind = d->is_child ? DISK_RANGE_ABSENT : DISK_RANGE_ZERO;
		return 0;
	}
	if (!d->is_child)
		return 0;
	bits = bits_of(d, block);
	if (!bits)
		return -EIO;
	here = has_bit(bits, sector);
	while (count < ret->bytes / VHD_SECTOR && has_bit(bits, sector + count) == here)
		count++;
	ret->kind = here ? DISK_RANGE_PRESENT : DISK_RANGE_ABSENT;
	ret->bytes = (uint64_t)count * VHD_SECTOR;
	return 0;
}

static int vhd_read(struct disk *d, uint64_t offset, const struct disk_buffer *buffer,
		    uint64_t bytes, struct disk_range *ret)
{
	struct vhd *v = vhd_of(d);
	int error;

	if (v->type == VHD_FIXED) {
		*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
		return buffer_read(buffer, &d->file, offset, bytes);
	}
	pthread_rwlock_rdlock(&v->lock);
	error = vhd_range_unlocked(d, offset, bytes, ret);
	if (!error && ret->kind == DISK_RANGE_PRESENT)
		error = buffer_read(buffer, &d->file, place_of(v, offset), ret->bytes);
	pthread_rwlock_unlock(&v->lock);
	return error;
}

/* A place for a block, behind which the footer moves. It reads as zero. */
static int allocate(struct disk *d, uint32_t block)
{
	struct vhd *v = vhd_of(d);
	uint64_t bytes = v->bitmap_bytes + (uint64_t)v->block_bytes;
	uint8_t *bits = malloc(v->bitmap_bytes);
	int error = bits ? 0 : -ENOMEM;

	assert(block < v->entries && v->table[block] == VHD_UNUSED);
	if (v->end / VHD_SECTOR + bytes / VHD_SECTOR >= VHD_UNUSED)
		error = -ENOSPC;
	if (!error)
		error = file_write(&d->file, v->end + bytes, &v->footer, sizeof(v->footer));
	if (!error) /* the last footer, and what a cut may have left there */
		error = file_discard(&d->file, v->end, bytes);
	if (error) {
		free(bits);
		return error;
	}
	memset(bits, d->is_child ? 0 : 0xff, v->bitmap_bytes);
	v->bitmap[block] = (struct vhd_bitmap){ .bits = bits, .is_new = true, .dirty = true };
	v->footer_missing = false;
	v->table[block] = (uint32_t)(v->end / VHD_SECTOR);
	v->table_dirty[block / 128 / 8] |= (uint8_t)(1u << (block / 128 & 7));
	v->end += bytes;
	v->any_dirty = true;
	return 0;
}

static int set_bits(struct disk *d, uint32_t block, uint32_t sector, uint32_t count)
{
	struct vhd *v = vhd_of(d);
	uint8_t *bits = d->is_child ? bits_of(d, block) : NULL;

	assert(sector + count <= v->block_bytes / VHD_SECTOR);
	if (!d->is_child)
		return 0;
	if (!bits)
		return -EIO;
	for (; count--; sector++) {
		if (has_bit(bits, sector))
			continue;
		bits[sector / 8] |= (uint8_t)(0x80u >> sector % 8);
		v->bitmap[block].dirty = v->any_dirty = true;
	}
	return 0;
}

/* buffer NULL: zeros. Within one block, with `lock` alone. */
static int write_block(struct disk *d, uint64_t at, const struct disk_buffer *buffer,
		       uint64_t bytes)
{
	struct vhd *v = vhd_of(d);
	uint32_t block = (uint32_t)(at / v->block_bytes);
	bool fresh = v->table[block] == VHD_UNUSED;
	uint64_t place;
	int error = fresh ? allocate(d, block) : 0;

	if (error)
		return error;
	place = place_of(v, at);
	v->payload_dirty = true;
	if (buffer)
		error = buffer_write(buffer, &d->file, place, bytes);
	else if (!fresh)
		error = file_discard(&d->file, place, bytes);
	return error ? error
		     : set_bits(d, block, (uint32_t)(at % v->block_bytes / VHD_SECTOR),
				(uint32_t)(bytes / VHD_SECTOR));
}

static int vhd_write(struct disk *d, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes)
{
	struct vhd *v = vhd_of(d);
	int error;

	if (v->type == VHD_FIXED)
		return buffer_write(buffer, &d->file, offset, bytes);
	pthread_rwlock_wrlock(&v->lock);
	error = write_block(d, offset, buffer, bytes);
	CHECK(check_vhd(d));
	pthread_rwlock_unlock(&v->lock);
	return error;
}

static int vhd_zero(struct disk *d, uint64_t offset, uint64_t bytes)
{
	struct vhd *v = vhd_of(d);
	int error = 0;

	if (v->type == VHD_FIXED)
		return file_discard(&d->file, offset, bytes);
	pthread_rwlock_wrlock(&v->lock);
	if (d->is_child ||
	    v->table[offset / v->block_bytes] != VHD_UNUSED) /* else it is zero already */
		error = write_block(d, offset, NULL, bytes);
	pthread_rwlock_unlock(&v->lock);
	return error;
}

/* ---- flushing ---- */

static int write_bitmaps(struct disk *d, bool of_new)
{
	struct vhd *v = vhd_of(d);
	int error = 0;

	for (uint32_t n = 0; n < v->entries && !error; n++) {
		struct vhd_bitmap *b = &v->bitmap[n];

		if (!b->dirty || b->is_new != of_new)
			continue;
		error = file_write(&d->file, vhd_block_offset(v, n), b->bits, v->bitmap_bytes);
		b->dirty = error;
	}
	return error;
}

static int write_table(struct disk *d)
{
	struct vhd *v = vhd_of(d);
	uint32_t sectors = (v->entries + 127) / 128;
	int error = 0;

	for (uint32_t n = 0; n < sectors && !error; n++) {
		uint32_t big[128];

		if (!(v->table_dirty[n / 8] >> (n & 7) & 1))
			continue;
		for (uint32_t k = 0; k < 128; k++)
			/* with the spare ones of its last sector */
			big[k] = htobe32(v->table[n * 128 + k]);
		error = file_write(&d->file, v->table_offset + (uint64_t)n * VHD_SECTOR, big,
				   sizeof(big));
		if (!error)
			v->table_dirty[n / 8] &= (uint8_t) ~(1u << (n & 7));
	}
	return error;
}

static int vhd_flush(struct disk *d)
{
	struct vhd *v = vhd_of(d);
	int error = 0;

	if (v->type == VHD_FIXED)
		return file_flush(&d->file);
	pthread_rwlock_wrlock(&v->lock);
	if (v->footer_missing && (v->any_dirty || v->payload_dirty)) {
		error = file_write(&d->file, v->end, &v->footer, sizeof(v->footer));
		v->footer_missing = error;
	}
	if (!error && v->any_dirty)
		error = write_bitmaps(d, true);
	if (!error && (v->payload_dirty || v->any_dirty))
		error = file_flush(&d->file);
	if (!error && v->any_dirty) {
		for (uint32_t n = 0; n < v->entries; n++)
			v->bitmap[n].is_new = false;
		error = write_bitmaps(d, false);
		if (!error)
			error = write_table(d);
		if (!error)
			error = file_flush(&d->file);
	}
	if (!error)
		v->any_dirty = v->payload_dirty = false;
	CHECK(check_vhd(d));
	pthread_rwlock_unlock(&v->lock);
	return error;
}

/* ---- the rest ---- */

static int vhd_resize(struct disk *d, uint64_t size_bytes)
{
	(void)d;
	(void)size_bytes;
	return -ENOTSUP;
}

static int vhd_range(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct vhd *v = vhd_of(d);
	int error;

	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
	if (v->type == VHD_FIXED)
		return 0;
	pthread_rwlock_rdlock(&v->lock);
	error = vhd_range_unlocked(d, offset, bytes, ret);
	pthread_rwlock_unlock(&v->lock);
	return error;
}

static int vhd_check(struct disk *d, void (*report)(void *, const char *), void *context)
{
	const struct vhd *v = vhd_of(d);
	struct vhd_footer end;
	int64_t bytes = file_size(&d->file);

	if (bytes < VHD_SECTOR ||
	    file_read(&d->file, (uint64_t)bytes - VHD_SECTOR, &end, sizeof(end)) ||
	    !vhd_is_footer(&end)) {
		report(context,
		       v->type == VHD_FIXED
			       ? "its footer does not end with the file"
			       : "has no footer at its end: the next who writes makes one "
				 "behind it");
		return 1;
	}
	if (v->type != VHD_FIXED && memcmp(&end, &v->footer, sizeof(end))) {
		report(context, "its two footers differ");
		return 1;
	}
	return 0;
}

static void vhd_info(const struct disk *d, struct disk_info *ret)
{
	const struct vhd *v = vhd_of(d);

	*ret = (struct disk_info){ .format = DISK_VHD,
				   .size_bytes = d->size_bytes,
				   .logical_sector_bytes = VHD_SECTOR,
				   .physical_sector_bytes = VHD_SECTOR,
				   .fixed = v->type == VHD_FIXED,
				   .has_parent = d->is_child,
				   .disk_id = v->id,
				   .block_bytes = v->block_bytes,
				   .blocks = v->entries };
	for (uint32_t n = 0; n < v->entries; n++)
		ret->blocks_present += v->table[n] != VHD_UNUSED;
	ret->parent_data_id = v->parent_id;
	if (d->parent)
		ret->is_linked = d->parent->format_id == DISK_VHD &&
				 guid_equal(vhd_of(d->parent)->id, v->parent_id);
}

void vhd_release(struct vhd *v)
{
	for (uint32_t n = 0; v->bitmap && n < v->entries; n++)
		free(v->bitmap[n].bits);
	free(v->bitmap);
	free(v->table);
	free(v->table_dirty);
	pthread_rwlock_destroy(&v->lock);
	pthread_mutex_destroy(&v->loading);
	free(v);
}

/* disk_close() has flushed. */
static int vhd_close(struct disk *d)
{
	vhd_release(vhd_of(d));
	return 0;
}

const struct disk_driver vhd_driver = {
	.read = vhd_read,
	.write = vhd_write,
	.zero = vhd_zero,
	.flush = vhd_flush,
	.resize = vhd_resize,
	.range = vhd_range,
	.check = vhd_check,
	.info = vhd_info,
	.close = vhd_close,
};
