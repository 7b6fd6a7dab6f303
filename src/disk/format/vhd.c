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
 * Lock: `lock` is shared by readers; who writes has it alone. `payload_dirty` is atomic: a queue's
 * transfers set it when they are done. Left out: growing and shrinking
 * (convert to VHDX), saved states.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "lib/check.h"
#include "vhd_internal.h"

/* Invariants 1 and 2, as far as they are in memory; with `lock`. */
void check_vhd(const struct disk *disk)
{
	const struct vhd *vhd = vhd_of(disk);
	bool any = false;

	assert(vhd->type == VHD_FIXED || (vhd->table && vhd->table_dirty && vhd->bitmap));
	for (uint32_t n = 0; n < vhd->entries; n++) {
		const struct vhd_bitmap *bitmap = &vhd->bitmap[n];
		uint64_t offset = vhd_block_offset(vhd, n);

		any |= bitmap->dirty;
		assert(!bitmap->dirty || bitmap->bits);
		if (vhd->table[n] == VHD_UNUSED)
			assert(!bitmap->bits && !bitmap->is_new);
		else
			assert(offset + vhd_place_bytes(disk, n) <= vhd->end);
		if (bitmap->is_new) /* the file's table does not name it yet */
			assert(vhd->table_dirty[n / 128 / 8] >> (n / 128 & 7) & 1);
	}
	assert(!any || vhd->any_dirty);
	assert(vhd_overlap(disk) != 1); /* 2 */
}

/* Of data that the table has a block for. */
static uint64_t place_of(const struct vhd *vhd, uint64_t at)
{
	assert(vhd->table[at / vhd->block_bytes] != VHD_UNUSED);
	return vhd_block_offset(vhd, (uint32_t)(at / vhd->block_bytes)) + vhd->bitmap_bytes +
	       at % vhd->block_bytes;
}

/* ---- sectors ---- */

/* The bits of a block that the table names; NULL: they cannot be read. Any thread that has the
 * lock. */
static uint8_t *bits_of(struct disk *disk, uint32_t block)
{
	struct vhd *vhd = vhd_of(disk);
	uint8_t *bits = __atomic_load_n(&vhd->bitmap[block].bits, __ATOMIC_ACQUIRE);

	if (bits)
		return bits;
	pthread_mutex_lock(&vhd->loading);
	bits = vhd->bitmap[block].bits;
	if (!bits) {
		bits = malloc(vhd->bitmap_bytes);
		if (bits &&
		    file_read(&disk->file, vhd_block_offset(vhd, block), bits, vhd->bitmap_bytes)) {
			free(bits);
			bits = NULL;
		}
		__atomic_store_n(&vhd->bitmap[block].bits, bits, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&vhd->loading);
	return bits;
}

static bool has_bit(const uint8_t *bits, uint32_t sector)
{
	return bits[sector / 8] >> (7 - sector % 8) & 1;
}

/* What begins at an offset, within one block. */
static int vhd_range_unlocked(struct disk *disk, uint64_t offset, uint64_t bytes,
			      struct disk_range *ret)
{
	struct vhd *vhd = vhd_of(disk);
	uint64_t room = vhd->block_bytes - offset % vhd->block_bytes;
	uint32_t block = (uint32_t)(offset / vhd->block_bytes);
	uint32_t sector = (uint32_t)(offset % vhd->block_bytes / VHD_SECTOR);
	uint32_t count = 1;
	const uint8_t *bits;
	bool here;

	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT,
				    .bytes = bytes < room ? bytes : room };
	if (vhd->table[block] == VHD_UNUSED) {
		ret->kind = disk->is_child ? DISK_RANGE_ABSENT : DISK_RANGE_ZERO;
		return 0;
	}
	if (!disk->is_child)
		return 0;
	bits = bits_of(disk, block);
	if (!bits)
		return -EIO;
	here = has_bit(bits, sector);
	while (count < ret->bytes / VHD_SECTOR && has_bit(bits, sector + count) == here)
		count++;
	ret->kind = here ? DISK_RANGE_PRESENT : DISK_RANGE_ABSENT;
	ret->bytes = (uint64_t)count * VHD_SECTOR;
	return 0;
}

static int vhd_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		    uint64_t bytes, struct disk_range *ret)
{
	struct vhd *vhd = vhd_of(disk);
	int error;

	if (vhd->type == VHD_FIXED) {
		*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
		return buffer_read(buffer, &disk->file, offset, bytes);
	}
	pthread_rwlock_rdlock(&vhd->lock);
	error = vhd_range_unlocked(disk, offset, bytes, ret);
	if (!error && ret->kind == DISK_RANGE_PRESENT)
		error = buffer_read(buffer, &disk->file, place_of(vhd, offset), ret->bytes);
	pthread_rwlock_unlock(&vhd->lock);
	return error;
}

/* A place for a block, behind which the footer moves. It reads as zero. */
static int allocate(struct disk *disk, uint32_t block)
{
	struct vhd *vhd = vhd_of(disk);
	uint64_t bytes = vhd->bitmap_bytes + (uint64_t)vhd->block_bytes;
	int64_t file_bytes = file_size(&disk->file);
	uint8_t *bits = malloc(vhd->bitmap_bytes);
	int error = bits ? 0 : -ENOMEM;

	assert(block < vhd->entries && vhd->table[block] == VHD_UNUSED);
	if (!error && file_bytes < 0)
		error = (int)file_bytes;
	if (vhd->end / VHD_SECTOR + bytes / VHD_SECTOR >= VHD_UNUSED)
		error = -ENOSPC;
	if (!error)
		error = file_write(&disk->file, vhd->end + bytes, &vhd->footer,
				   sizeof(vhd->footer));
	/* What a cut may have left there. The last footer alone lies where the bitmap is going to
	 * be before anything names the block; and to punch a hole the host writes out what it has
	 * of that page, once for each block. */
	if (!error && (uint64_t)file_bytes > vhd->end + VHD_SECTOR)
		error = file_discard(&disk->file, vhd->end, bytes);
	if (error) {
		free(bits);
		return error;
	}
	memset(bits, disk->is_child ? 0 : 0xff, vhd->bitmap_bytes);
	vhd->bitmap[block] = (struct vhd_bitmap){ .bits = bits, .is_new = true, .dirty = true };
	vhd->footer_missing = false;
	vhd->table[block] = (uint32_t)(vhd->end / VHD_SECTOR);
	vhd->table_dirty[block / 128 / 8] |= (uint8_t)(1u << (block / 128 & 7));
	vhd->end += bytes;
	vhd->any_dirty = true;
	return 0;
}

static int set_bits(struct disk *disk, uint32_t block, uint32_t sector, uint32_t count)
{
	struct vhd *vhd = vhd_of(disk);
	uint8_t *bits = disk->is_child ? bits_of(disk, block) : NULL;

	assert(sector + count <= vhd->block_bytes / VHD_SECTOR);
	if (!disk->is_child)
		return 0;
	if (!bits)
		return -EIO;
	for (; count--; sector++) {
		if (has_bit(bits, sector))
			continue;
		bits[sector / 8] |= (uint8_t)(0x80u >> sector % 8);
		vhd->bitmap[block].dirty = vhd->any_dirty = true;
	}
	return 0;
}

/* buffer NULL: zeros. Within one block, with `lock` alone. */
static int write_block(struct disk *disk, uint64_t at, const struct disk_buffer *buffer,
		       uint64_t bytes)
{
	struct vhd *vhd = vhd_of(disk);
	uint32_t block = (uint32_t)(at / vhd->block_bytes);
	bool fresh = vhd->table[block] == VHD_UNUSED;
	uint64_t place;
	int error = fresh ? allocate(disk, block) : 0;

	if (error)
		return error;
	place = place_of(vhd, at);
	__atomic_store_n(&vhd->payload_dirty, true, __ATOMIC_SEQ_CST);
	if (buffer)
		error = buffer_write(buffer, &disk->file, place, bytes);
	else if (!fresh)
		error = file_discard(&disk->file, place, bytes);
	return error ? error
		     : set_bits(disk, block, (uint32_t)(at % vhd->block_bytes / VHD_SECTOR),
				(uint32_t)(bytes / VHD_SECTOR));
}

static int vhd_write(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes)
{
	struct vhd *vhd = vhd_of(disk);
	int error;

	if (vhd->type == VHD_FIXED)
		return buffer_write(buffer, &disk->file, offset, bytes);
	pthread_rwlock_wrlock(&vhd->lock);
	error = write_block(disk, offset, buffer, bytes);
	CHECK(check_vhd(disk));
	pthread_rwlock_unlock(&vhd->lock);
	return error;
}

static int vhd_zero(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	struct vhd *vhd = vhd_of(disk);
	int error = 0;

	if (vhd->type == VHD_FIXED)
		return file_discard(&disk->file, offset, bytes);
	pthread_rwlock_wrlock(&vhd->lock);
	if (disk->is_child ||
	    vhd->table[offset / vhd->block_bytes] != VHD_UNUSED) /* else it is zero already */
		error = write_block(disk, offset, NULL, bytes);
	pthread_rwlock_unlock(&vhd->lock);
	return error;
}

/* ---- flushing ---- */

static int write_bitmaps(struct disk *disk, bool of_new)
{
	struct vhd *vhd = vhd_of(disk);
	int error = 0;

	for (uint32_t n = 0; n < vhd->entries && !error; n++) {
		struct vhd_bitmap *bitmap = &vhd->bitmap[n];

		if (!bitmap->dirty || bitmap->is_new != of_new)
			continue;
		error = file_write(&disk->file, vhd_block_offset(vhd, n), bitmap->bits,
				   vhd->bitmap_bytes);
		bitmap->dirty = error;
	}
	return error;
}

static int write_table(struct disk *disk)
{
	struct vhd *vhd = vhd_of(disk);
	uint32_t sectors = (vhd->entries + 127) / 128;
	int error = 0;

	for (uint32_t n = 0; n < sectors && !error; n++) {
		uint32_t big[128];

		if (!(vhd->table_dirty[n / 8] >> (n & 7) & 1))
			continue;
		for (uint32_t k = 0; k < 128; k++)
			/* with the spare ones of its last sector */
			big[k] = htobe32(vhd->table[n * 128 + k]);
		error = file_write(&disk->file, vhd->table_offset + (uint64_t)n * VHD_SECTOR, big,
				   sizeof(big));
		if (!error)
			vhd->table_dirty[n / 8] &= (uint8_t) ~(1u << (n & 7));
	}
	return error;
}

static int vhd_flush(struct disk *disk)
{
	struct vhd *vhd = vhd_of(disk);
	int error = 0;
	bool payload;

	if (vhd->type == VHD_FIXED)
		return file_flush(&disk->file);
	pthread_rwlock_wrlock(&vhd->lock);
	/* before the sync: what is written meanwhile (vhd_unmap()) says so again */
	payload = __atomic_exchange_n(&vhd->payload_dirty, false, __ATOMIC_SEQ_CST);
	if (vhd->footer_missing && (vhd->any_dirty || payload)) {
		error = file_write(&disk->file, vhd->end, &vhd->footer, sizeof(vhd->footer));
		vhd->footer_missing = error;
	}
	if (!error && vhd->any_dirty)
		error = write_bitmaps(disk, true);
	if (!error && (payload || vhd->any_dirty))
		error = file_flush(&disk->file);
	if (!error && vhd->any_dirty) {
		for (uint32_t n = 0; n < vhd->entries; n++)
			vhd->bitmap[n].is_new = false;
		error = write_bitmaps(disk, false);
		if (!error)
			error = write_table(disk);
		if (!error)
			error = file_flush(&disk->file);
	}
	if (!error)
		vhd->any_dirty = false;
	else if (payload)
		__atomic_store_n(&vhd->payload_dirty, true, __ATOMIC_SEQ_CST);
	CHECK(check_vhd(disk));
	pthread_rwlock_unlock(&vhd->lock);
	return error;
}

/* ---- transfers that others make ---- */

/* A block that the file has stays where it is, so that nothing is held meanwhile. Of a child a
 * sector has a bit, which is not set before it is there: that is write_block()'s. */
static bool vhd_map(struct disk *disk, bool write, uint64_t offset, uint64_t bytes,
		    uint64_t *ret_at)
{
	struct vhd *vhd = vhd_of(disk);
	uint64_t room = vhd->type == VHD_FIXED ? bytes
					       : vhd->block_bytes - offset % vhd->block_bytes;
	bool good = bytes <= room && !disk->is_child;

	*ret_at = offset;
	if (vhd->type == VHD_FIXED || !good)
		return good;
	pthread_rwlock_rdlock(&vhd->lock);
	good = vhd->table[offset / vhd->block_bytes] != VHD_UNUSED;
	if (good)
		*ret_at = place_of(vhd, offset);
	pthread_rwlock_unlock(&vhd->lock);
	return good && (!write || !file_failed(&disk->file));
}

static void vhd_unmap(struct disk *disk, bool write)
{
	if (write)
		__atomic_store_n(&vhd_of(disk)->payload_dirty, true, __ATOMIC_SEQ_CST);
}

/* ---- the rest ---- */

static int vhd_resize(struct disk *disk, uint64_t size_bytes)
{
	(void)disk;
	(void)size_bytes;
	return -ENOTSUP;
}

static int vhd_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct vhd *vhd = vhd_of(disk);
	int error;

	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
	if (vhd->type == VHD_FIXED)
		return 0;
	pthread_rwlock_rdlock(&vhd->lock);
	error = vhd_range_unlocked(disk, offset, bytes, ret);
	pthread_rwlock_unlock(&vhd->lock);
	return error;
}

static int vhd_check(struct disk *disk, disk_fault_report *report, void *context)
{
	const struct vhd *vhd = vhd_of(disk);
	struct disk_error fault;
	struct vhd_footer end;
	int64_t bytes = file_size(&disk->file);

	if (bytes < VHD_SECTOR ||
	    file_read(&disk->file, (uint64_t)bytes - VHD_SECTOR, &end, sizeof(end)) ||
	    !vhd_is_footer(&end)) {
		disk_refuse(&fault, REFUSAL_VHD_END, disk->path, DISK_NOWHERE, "%s",
			    vhd->type == VHD_FIXED ? "its footer does not end with the file"
						   : "has no footer at its end");
		report(context, &fault);
		return 1;
	}
	if (vhd->type != VHD_FIXED && memcmp(&end, &vhd->footer, sizeof(end))) {
		disk_refuse(&fault, REFUSAL_VHD_FOOTERS, disk->path, (uint64_t)bytes - VHD_SECTOR,
			    "its two footers differ");
		report(context, &fault);
		return 1;
	}
	return 0;
}

static void vhd_info(const struct disk *disk, struct disk_info *ret)
{
	const struct vhd *vhd = vhd_of(disk);

	*ret = (struct disk_info){ .format = DISK_VHD,
				   .size_bytes = disk->size_bytes,
				   .logical_sector_bytes = VHD_SECTOR,
				   .physical_sector_bytes = VHD_SECTOR,
				   .fixed = vhd->type == VHD_FIXED,
				   .has_parent = disk->is_child,
				   .disk_id = vhd->id,
				   .block_bytes = vhd->block_bytes,
				   .blocks = vhd->entries };
	for (uint32_t n = 0; n < vhd->entries; n++)
		ret->blocks_present += vhd->table[n] != VHD_UNUSED;
	ret->parent_data_id = vhd->parent_id;
	if (disk->parent)
		ret->is_linked = disk->parent->format_id == DISK_VHD &&
				 guid_equal(vhd_of(disk->parent)->id, vhd->parent_id);
}

void vhd_release(struct vhd *vhd)
{
	for (uint32_t n = 0; vhd->bitmap && n < vhd->entries; n++)
		free(vhd->bitmap[n].bits);
	free(vhd->bitmap);
	free(vhd->table);
	free(vhd->table_dirty);
	pthread_rwlock_destroy(&vhd->lock);
	pthread_mutex_destroy(&vhd->loading);
	free(vhd);
}

/* disk_close() has flushed. */
static int vhd_close(struct disk *disk)
{
	vhd_release(vhd_of(disk));
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
	.map = vhd_map,
	.unmap = vhd_unmap,
};
