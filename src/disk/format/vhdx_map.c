/* The block allocation table and the sector bitmaps in memory, and the space of the file. */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/check.h"

#define GROW_BYTES (64 * VHDX_MIB)

void vhdx_set_entry(struct vhdx *v, uint64_t index, uint64_t value)
{
	assert(index < v->entries && vhdx_offset(value) <= v->file_bytes);
	/* a transfer within a whole block reads it without the lock */
	__atomic_store_n(&v->bat[index], value, __ATOMIC_RELEASE);
	v->bat_dirty[index / 512 / 8] |= (uint8_t)(1 << (index / 512 & 7));
	v->any_dirty = true;
}

/* ---- what holds ---- */

/* Each MiB of the file belongs to one thing: a bit for each. NULL: not looked at. */
static void check_place(const struct vhdx *v, uint8_t *taken, uint64_t offset, uint64_t bytes)
{
	assert(offset && !((offset | bytes) % VHDX_MIB));
	assert(offset <= v->end_offset && bytes <= v->end_offset - offset);
	for (uint64_t n = offset / VHDX_MIB; taken && n < (offset + bytes) / VHDX_MIB; n++) {
		assert(!(taken[n / 8] >> (n & 7) & 1));
		taken[n / 8] |= (uint8_t)(1 << (n & 7));
	}
}

static void check_entries(const struct vhdx *v, uint8_t *taken)
{
	for (uint64_t block = 0; block < v->blocks; block++) {
		uint64_t entry = v->bat[vhdx_entry(v, block)];

		assert(v->has_parent || vhdx_state(entry) != BAT_PARTIAL);
		if (vhdx_holds(entry))
			check_place(v, taken, vhdx_offset(entry), v->block_bytes);
	}
	for (uint64_t chunk = 0; v->has_parent && chunk < v->chunks; chunk++) {
		uint64_t entry = v->bat[vhdx_bitmap_entry(v, chunk)];

		assert(vhdx_holds(entry) || !v->bitmap[chunk].any_dirty);
		assert(v->bitmap[chunk].bits || !v->bitmap[chunk].any_dirty);
		if (vhdx_holds(entry))
			check_place(v, taken, vhdx_offset(entry), BITMAP_BYTES);
	}
}

void check_vhdx(const struct vhdx *v)
{
	uint8_t *taken = calloc(1, v->end_offset / VHDX_MIB / 8 + 1);

	assert(v->bat && v->bat_dirty && (v->bitmap || !v->has_parent));
	assert(!v->data_begun || v->begun); /* 1 */
	assert(!v->begun || (v->changed && !guid_is_zero(v->header.log)));
	assert(v->end_offset % VHDX_MIB == 0 && v->log_at < v->header.log_bytes);
	assert(v->flushes_done <= v->flushes_begun);
	check_place(v, taken, v->header.log_offset, v->header.log_bytes);
	check_place(v, taken, v->metadata_offset, v->metadata_bytes);
	check_place(v, taken, v->bat_offset, v->bat_bytes);
	for (size_t n = 0; n < v->other_count; n++)
		check_place(v, taken, v->others[n].offset, v->others[n].bytes);
	check_entries(v, taken);
	for (size_t n = 0; n < v->freed.count; n++) /* 4 */
		check_place(v, taken, v->freed.offset[n], v->block_bytes);
	for (size_t n = 0; n < v->reusable.count; n++)
		check_place(v, taken, v->reusable.offset[n], v->block_bytes);
	free(taken);
}

/* ---- space ---- */

int vhdx_push(struct vhdx_space *s, uint64_t offset)
{
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		uint64_t *more = realloc(s->offset, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		s->offset = more;
		s->room = room;
	}
	s->offset[s->count++] = offset;
	return 0;
}

int vhdx_free(struct vhdx *v, uint64_t offset)
{
	assert(offset && !(offset % VHDX_MIB) && offset < v->end_offset);
	return vhdx_push(&v->freed, offset);
}

/* The file grows in large steps: its new part is zero, and costs nothing until it is written. */
int vhdx_extend(struct vhdx *v, uint64_t to)
{
	uint64_t bytes = (to + GROW_BYTES - 1) / GROW_BYTES * GROW_BYTES;
	int error;

	if (to <= v->file_bytes)
		return 0;
	error = file_truncate(&v->disk->file, bytes);
	if (!error)
		__atomic_store_n(&v->file_bytes, bytes, __ATOMIC_RELEASE);
	return error;
}

int vhdx_allocate(struct vhdx *v, uint64_t bytes, uint64_t *ret)
{
	int error;

	assert(bytes && !(bytes % VHDX_MIB) && v->begun);
	if (bytes == v->block_bytes && v->reusable.count) {
		*ret = v->reusable.offset[v->reusable.count - 1];
		error = file_discard(&v->disk->file, *ret, bytes);
		if (!error)
			v->reusable.count--;
		return error;
	}
	error = vhdx_extend(v, v->end_offset + bytes);
	if (error)
		return error;
	*ret = v->end_offset;
	v->end_offset += bytes;
	return 0;
}

/* ---- bitmaps ---- */

int vhdx_bits(struct vhdx *v, uint64_t chunk, bool make, uint8_t **ret)
{
	struct vhdx_bitmap *b = &v->bitmap[chunk];
	uint64_t index = vhdx_bitmap_entry(v, chunk);
	uint64_t entry = v->bat[index];
	uint64_t offset;
	int error;

	*ret = b->bits;
	if (b->bits || (!vhdx_holds(entry) && !make))
		return 0;
	b->bits = calloc(1, BITMAP_BYTES);
	if (!b->bits)
		return -ENOMEM;
	if (vhdx_holds(entry)) {
		error = file_read(&v->disk->file, vhdx_offset(entry), b->bits, BITMAP_BYTES);
	} else {
		error = vhdx_allocate(v, BITMAP_BYTES, &offset);
		if (!error)
			vhdx_set_entry(v, index, offset | BAT_PRESENT);
	}
	if (error) {
		free(b->bits);
		b->bits = NULL;
	}
	*ret = b->bits;
	return error;
}

static uint64_t first_bit(const struct vhdx *v, uint64_t block)
{
	return block % v->chunk_ratio * (v->block_bytes / v->sector_bytes);
}

void vhdx_set_bits(struct vhdx *v, uint64_t block, uint32_t first, uint32_t count, bool set)
{
	struct vhdx_bitmap *b = &v->bitmap[block / v->chunk_ratio];
	uint64_t bit = first_bit(v, block) + first;

	assert(b->bits && count && first + count <= v->block_bytes / v->sector_bytes);
	for (uint64_t n = bit; n < bit + count;) {
		uint8_t mask = (uint8_t)(1 << (n & 7));

		if (!(n & 7) && bit + count - n >= 8) {
			b->bits[n >> 3] = set ? 0xff : 0;
			n += 8;
			continue;
		}
		b->bits[n >> 3] = set ? b->bits[n >> 3] | mask : b->bits[n >> 3] & (uint8_t)~mask;
		n++;
	}
	for (uint64_t page = bit >> 15; page <= (bit + count - 1) >> 15; page++)
		b->dirty[page >> 3] |= (uint8_t)(1 << (page & 7));
	b->any_dirty = v->any_dirty = true;
}

static bool bit_at(const uint8_t *bits, uint64_t n) { return bits[n >> 3] >> (n & 7) & 1; }

int vhdx_run(struct vhdx *v, uint64_t block, uint32_t sector, uint32_t count, bool *ret_here,
	     uint32_t *ret_count)
{
	uint64_t entry = v->bat[vhdx_entry(v, block)];
	uint64_t bit = first_bit(v, block) + sector;
	uint32_t n = 1;
	uint8_t *bits;
	int error;

	assert(count && sector + count <= v->block_bytes / v->sector_bytes);
	*ret_here = vhdx_state(entry) == BAT_PRESENT;
	*ret_count = count;
	if (vhdx_state(entry) != BAT_PARTIAL)
		return 0;
	error = vhdx_bits(v, block / v->chunk_ratio, false, &bits);
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
