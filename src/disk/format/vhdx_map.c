/* The block allocation table and the sector bitmaps in memory, and the space of the file. */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/check.h"

#define GROW_BYTES (64 * VHDX_MIB)

void vhdx_set_entry(struct vhdx *vhdx, uint64_t index, uint64_t value)
{
	assert(index < vhdx->entries && vhdx_offset(value) <= vhdx->file_bytes);
	/* a transfer within a whole block reads it without the lock */
	__atomic_store_n(&vhdx->bat[index], value, __ATOMIC_RELEASE);
	vhdx->bat_dirty[index / 512 / 8] |= (uint8_t)(1 << (index / 512 & 7));
	vhdx->any_dirty = true;
}

/* ---- what holds ---- */

/* Each MiB of the file belongs to one thing: a bit for each. NULL: not looked at. */
static void check_place(const struct vhdx *vhdx, uint8_t *taken, uint64_t offset, uint64_t bytes)
{
	assert(offset && !((offset | bytes) % VHDX_MIB));
	assert(offset <= vhdx->end_offset && bytes <= vhdx->end_offset - offset);
	for (uint64_t n = offset / VHDX_MIB; taken && n < (offset + bytes) / VHDX_MIB; n++) {
		assert(!(taken[n / 8] >> (n & 7) & 1));
		taken[n / 8] |= (uint8_t)(1 << (n & 7));
	}
}

static void check_entries(const struct vhdx *vhdx, uint8_t *taken)
{
	for (uint64_t block = 0; block < vhdx->blocks; block++) {
		uint64_t entry = vhdx->bat[vhdx_entry(vhdx, block)];

		assert(vhdx->has_parent || vhdx_state(entry) != BAT_PARTIAL);
		if (vhdx_holds(entry))
			check_place(vhdx, taken, vhdx_offset(entry), vhdx->block_bytes);
	}
	for (uint64_t chunk = 0; vhdx->has_parent && chunk < vhdx->chunks; chunk++) {
		uint64_t entry = vhdx->bat[vhdx_bitmap_entry(vhdx, chunk)];

		assert(vhdx_holds(entry) || !vhdx->bitmap[chunk].any_dirty);
		assert(vhdx->bitmap[chunk].bits || !vhdx->bitmap[chunk].any_dirty);
		if (vhdx_holds(entry))
			check_place(vhdx, taken, vhdx_offset(entry), BITMAP_BYTES);
	}
}

void check_vhdx(const struct vhdx *vhdx)
{
	uint8_t *taken = calloc(1, vhdx->end_offset / VHDX_MIB / 8 + 1);

	assert(vhdx->bat && vhdx->bat_dirty && (vhdx->bitmap || !vhdx->has_parent));
	assert(!vhdx->data_begun || vhdx->begun); /* 1 */
	assert(!vhdx->begun || (vhdx->changed && !guid_is_zero(vhdx->header.log)));
	assert(vhdx->end_offset % VHDX_MIB == 0 && vhdx->log_at < vhdx->header.log_bytes);
	assert(vhdx->flushes_done <= vhdx->flushes_begun);
	check_place(vhdx, taken, vhdx->header.log_offset, vhdx->header.log_bytes);
	check_place(vhdx, taken, vhdx->metadata_offset, vhdx->metadata_bytes);
	check_place(vhdx, taken, vhdx->bat_offset, vhdx->bat_bytes);
	for (size_t n = 0; n < vhdx->other_count; n++)
		check_place(vhdx, taken, vhdx->others[n].offset, vhdx->others[n].bytes);
	check_entries(vhdx, taken);
	for (size_t n = 0; n < vhdx->freed.count; n++) /* 4 */
		check_place(vhdx, taken, vhdx->freed.offset[n], vhdx->block_bytes);
	for (size_t n = 0; n < vhdx->reusable.count; n++)
		check_place(vhdx, taken, vhdx->reusable.offset[n], vhdx->block_bytes);
	free(taken);
}

/* ---- space ---- */

int vhdx_push(struct vhdx_space *space, uint64_t offset)
{
	if (space->count == space->room) {
		size_t room = space->room ? 2 * space->room : 64;
		uint64_t *more = realloc(space->offset, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		space->offset = more;
		space->room = room;
	}
	space->offset[space->count++] = offset;
	return 0;
}

int vhdx_free(struct vhdx *vhdx, uint64_t offset)
{
	assert(offset && !(offset % VHDX_MIB) && offset < vhdx->end_offset);
	return vhdx_push(&vhdx->freed, offset);
}

/* The file grows in large steps: its new part is zero, and costs nothing until it is written. */
int vhdx_extend(struct vhdx *vhdx, uint64_t to)
{
	uint64_t bytes = (to + GROW_BYTES - 1) / GROW_BYTES * GROW_BYTES;
	int error;

	if (to <= vhdx->file_bytes)
		return 0;
	error = file_truncate(&vhdx->disk->file, bytes);
	if (!error)
		__atomic_store_n(&vhdx->file_bytes, bytes, __ATOMIC_RELEASE);
	return error;
}

int vhdx_allocate(struct vhdx *vhdx, uint64_t bytes, uint64_t *ret)
{
	int error;

	assert(bytes && !(bytes % VHDX_MIB) && vhdx->begun);
	if (bytes == vhdx->block_bytes && vhdx->reusable.count) {
		*ret = vhdx->reusable.offset[vhdx->reusable.count - 1];
		error = file_discard(&vhdx->disk->file, *ret, bytes);
		if (!error)
			vhdx->reusable.count--;
		return error;
	}
	error = vhdx_extend(vhdx, vhdx->end_offset + bytes);
	if (error)
		return error;
	*ret = vhdx->end_offset;
	vhdx->end_offset += bytes;
	return 0;
}

/* ---- bitmaps ---- */

int vhdx_bits(struct vhdx *vhdx, uint64_t chunk, bool make, uint8_t **ret)
{
	struct vhdx_bitmap *bitmap = &vhdx->bitmap[chunk];
	uint64_t index = vhdx_bitmap_entry(vhdx, chunk);
	uint64_t entry = vhdx->bat[index];
	uint64_t offset;
	int error;

	*ret = bitmap->bits;
	if (bitmap->bits || (!vhdx_holds(entry) && !make))
		return 0;
	bitmap->bits = calloc(1, BITMAP_BYTES);
	if (!bitmap->bits)
		return -ENOMEM;
	if (vhdx_holds(entry)) {
		error = file_read(&vhdx->disk->file, vhdx_offset(entry), bitmap->bits,
				  BITMAP_BYTES);
	} else {
		error = vhdx_allocate(vhdx, BITMAP_BYTES, &offset);
		if (!error)
			vhdx_set_entry(vhdx, index, offset | BAT_PRESENT);
	}
	if (error) {
		free(bitmap->bits);
		bitmap->bits = NULL;
	}
	*ret = bitmap->bits;
	return error;
}

static uint64_t first_bit(const struct vhdx *vhdx, uint64_t block)
{
	return block % vhdx->chunk_ratio * (vhdx->block_bytes / vhdx->sector_bytes);
}

void vhdx_set_bits(struct vhdx *vhdx, uint64_t block, uint32_t first, uint32_t count, bool set)
{
	struct vhdx_bitmap *bitmap = &vhdx->bitmap[block / vhdx->chunk_ratio];
	uint64_t bit = first_bit(vhdx, block) + first;

	assert(bitmap->bits && count && first + count <= vhdx->block_bytes / vhdx->sector_bytes);
	for (uint64_t n = bit; n < bit + count;) {
		uint8_t mask = (uint8_t)(1 << (n & 7));

		if (!(n & 7) && bit + count - n >= 8) {
			bitmap->bits[n >> 3] = set ? 0xff : 0;
			n += 8;
			continue;
		}
		bitmap->bits[n >> 3] =
			set ? bitmap->bits[n >> 3] | mask : bitmap->bits[n >> 3] & (uint8_t)~mask;
		n++;
	}
	for (uint64_t page = bit >> 15; page <= (bit + count - 1) >> 15; page++)
		bitmap->dirty[page >> 3] |= (uint8_t)(1 << (page & 7));
	bitmap->any_dirty = vhdx->any_dirty = true;
}

static bool bit_at(const uint8_t *bits, uint64_t n) { return bits[n >> 3] >> (n & 7) & 1; }

int vhdx_run(struct vhdx *vhdx, uint64_t block, uint32_t sector, uint32_t count, bool *ret_here,
	     uint32_t *ret_count)
{
	uint64_t entry = vhdx->bat[vhdx_entry(vhdx, block)];
	uint64_t bit = first_bit(vhdx, block) + sector;
	uint32_t n = 1;
	uint8_t *bits;
	int error;

	assert(count && sector + count <= vhdx->block_bytes / vhdx->sector_bytes);
	*ret_here = vhdx_state(entry) == BAT_PRESENT;
	*ret_count = count;
	if (vhdx_state(entry) != BAT_PARTIAL)
		return 0;
	error = vhdx_bits(vhdx, block / vhdx->chunk_ratio, false, &bits);
	if (error || !bits)
		return error;
	*ret_here = bit_at(bits, bit);
	while (n < count) {
		uint64_t at = bit + n;

		if (!(at & 63) && count - n >= 64) { /* whole words of the one or the other */
			uint64_t word;

			memcpy(&word, bits + (at >> 3), 8);
			if (word == (*ret_here ? ~0ull : 0)) {
				n += 64;
				continue;
			}
		}
		if (bit_at(bits, at) != *ret_here)
			break;
		n++;
	}
	*ret_count = n;
	return 0;
}
