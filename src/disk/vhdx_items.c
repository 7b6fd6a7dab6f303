/*
 * Changing what a VHDX file says of itself while it is open: metadata items, and with them its size.
 *
 * An item's new value goes to a free place of the metadata region and is synced; then the table's sectors change together through
 * the log. So there is always the old value or the new one. The old place is free once the table no longer names it.
 */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "../lib/crc32c.h"

enum { TABLE_SECTORS = VHDX_TABLE_BYTES / 4096 };

struct table { uint8_t before[VHDX_TABLE_BYTES], now[VHDX_TABLE_BYTES]; };

static struct vhdx_metadata_head *head_of(struct table *t) { return (struct vhdx_metadata_head *)(void *)t->now; }
static struct vhdx_item *item_at(struct table *t, unsigned n) { return (struct vhdx_item *)(void *)(t->now + sizeof(struct vhdx_metadata_head)) + n; }

/* Opening has checked it. */
static struct table *read_table(struct vhdx *v)
{
	struct table *t = malloc(sizeof(*t));

	if (t && file_read(&v->disk->file, v->metadata_offset, t->before, sizeof(t->before))) {
		free(t);
		t = NULL;
	}
	if (t)
		memcpy(t->now, t->before, sizeof(t->now));
	return t;
}

static int find(struct table *t, struct guid id, bool user)
{
	for (unsigned n = 0; n < head_of(t)->count; n++)
		if (guid_equal(item_at(t, n)->id, id) && !(item_at(t, n)->flags & VHDX_ITEM_USER) == !user)
			return (int)n;
	return -ENOENT;
}

int vhdx_read_item(struct vhdx *v, struct guid id, bool user, uint8_t **ret, uint32_t *ret_bytes)
{
	struct table *t = read_table(v);
	int n = t ? find(t, id, user) : -EIO, error = n < 0 ? n : 0;
	struct vhdx_item i = { 0 };

	if (!error)
		i = *item_at(t, (unsigned)n);
	free(t);
	if (error)
		return error;
	*ret = malloc(i.bytes + 1);
	*ret_bytes = i.bytes;
	error = *ret ? file_read(&v->disk->file, v->metadata_offset + i.offset, *ret, i.bytes) : -ENOMEM;
	if (error)
		free(*ret);
	return error;
}

/* The first place where `bytes` fit between the items; 0: none. */
static uint32_t find_room(const struct vhdx *v, struct table *t, uint32_t bytes)
{
	uint64_t at = VHDX_TABLE_BYTES;

	for (bool moved = true; moved;) {
		moved = false;
		for (unsigned n = 0; n < head_of(t)->count; n++) {
			const struct vhdx_item *i = item_at(t, n);

			if (i->bytes && at < (uint64_t)i->offset + i->bytes && i->offset < at + bytes) {
				at = ((uint64_t)i->offset + i->bytes + 7) & ~7ull;
				moved = true;
			}
		}
	}
	return at + bytes <= v->metadata_bytes ? (uint32_t)at : 0;
}

static int write_table(struct vhdx *v, const struct table *t)
{
	struct vhdx_sector *sectors = malloc(TABLE_SECTORS * sizeof(*sectors));
	size_t count = 0;
	int error;

	if (!sectors)
		return -ENOMEM;
	for (unsigned n = 0; n < TABLE_SECTORS; n++)
		if (memcmp(t->before + n * 4096, t->now + n * 4096, 4096)) {
			sectors[count].file_offset = v->metadata_offset + n * 4096;
			memcpy(sectors[count++].data, t->now + n * 4096, 4096);
		}
	error = count ? vhdx_write_sectors(v, sectors, count) : 0;
	free(sectors);
	return error;
}

static int write_item(struct vhdx *v, struct table *t, struct guid id, uint32_t flags, const void *value, uint32_t bytes)
{
	uint32_t at = find_room(v, t, bytes);
	int n = find(t, id, flags & VHDX_ITEM_USER), error;

	if (!at || bytes > VHDX_MIB || (n < 0 && head_of(t)->count == VHDX_TABLE_ENTRIES))
		return -ENOSPC;
	error = vhdx_begin(v, false);
	if (!error)
		error = file_write(&v->disk->file, v->metadata_offset + at, value, bytes);
	if (error)
		return error;
	if (n < 0)
		n = head_of(t)->count++;
	*item_at(t, (unsigned)n) = (struct vhdx_item){ .id = id, .offset = at, .bytes = bytes, .flags = flags };
	return write_table(v, t);
}

int vhdx_write_item(struct vhdx *v, struct guid id, uint32_t flags, const void *value, uint32_t bytes)
{
	struct table *t;
	int error;

	pthread_mutex_lock(&v->flush_lock);
	t = read_table(v);
	error = t ? write_item(v, t, id, flags, value, bytes) : -EIO;
	pthread_mutex_unlock(&v->flush_lock);
	free(t);
	return error;
}

/* ---- size ---- */

struct shape { uint64_t size_bytes, blocks, chunks, entries; };

static struct shape shape_of(const struct vhdx *v, uint64_t size_bytes)
{
	struct shape s = { .size_bytes = size_bytes, .blocks = (size_bytes + v->block_bytes - 1) / v->block_bytes };

	s.chunks = (s.blocks + v->chunk_ratio - 1) / v->chunk_ratio;
	s.entries = v->has_parent ? s.chunks * (v->chunk_ratio + 1) : s.blocks + (s.blocks - 1) / v->chunk_ratio;
	return s;
}

/* More memory for what is per block; what is there is a prefix of what will be. */
static int widen(struct vhdx *v, const struct shape *s)
{
	size_t dirty_before = (v->entries + 4095) / 4096 + 1, dirty = (s->entries + 4095) / 4096 + 1;
	uint64_t *bat = realloc(v->bat, s->entries * 8);
	uint8_t *bits = bat ? (v->bat = bat, realloc(v->bat_dirty, dirty)) : NULL;
	struct vhdx_bitmap *bitmap = v->bitmap;
	uint16_t *skip = v->skip;

	if (!bits)
		return -ENOMEM;
	v->bat_dirty = bits;
	memset(v->bat + v->entries, 0, (s->entries - v->entries) * 8);
	memset(v->bat_dirty + dirty_before, 0, dirty - dirty_before);
	if (!v->has_parent)
		return 0;
	bitmap = realloc(v->bitmap, s->chunks * sizeof(*bitmap));
	if (bitmap)
		v->bitmap = bitmap, memset(bitmap + v->chunks, 0, (s->chunks - v->chunks) * sizeof(*bitmap));
	skip = realloc(v->skip, s->blocks * sizeof(*skip));
	if (skip)
		v->skip = skip, memset(skip + v->blocks, 0xff, (s->blocks - v->blocks) * sizeof(*skip));
	return bitmap && skip ? 0 : -ENOMEM;
}

/* A longer table at the end of the file, in the sectors of both region tables (entries and checksum lie in the first of each). */
static int move_bat(struct vhdx *v, uint64_t bytes, struct vhdx_sector sectors[2], uint64_t *ret_offset)
{
	uint8_t *table = malloc(VHDX_TABLE_BYTES);
	uint64_t offset = v->end_offset;
	struct vhdx_region_head h;
	int error = table ? vhdx_extend(v, offset + bytes) : -ENOMEM;

	if (!error)
		error = file_write(&v->disk->file, offset, v->bat, v->entries * 8);
	if (!error)
		error = file_read(&v->disk->file, VHDX_REGION_OFFSET(0), table, VHDX_TABLE_BYTES);
	if (!error) {
		memcpy(&h, table, sizeof(h));
		error = h.signature != VHDX_REGI || h.count > (4096 - sizeof(h)) / sizeof(struct vhdx_region) ? -ENOTSUP : 0;
	}
	for (uint32_t n = 0; !error && n < h.count; n++) {
		struct vhdx_region *r = (struct vhdx_region *)(void *)(table + sizeof(h)) + n;

		if (guid_equal(r->id, VHDX_REGION_BAT))
			r->offset = offset, r->bytes = (uint32_t)bytes;
	}
	if (!error) {
		h.checksum = 0;
		memcpy(table, &h, sizeof(h));
		h.checksum = crc32c(0, table, VHDX_TABLE_BYTES);
		memcpy(table, &h, sizeof(h));
		for (int n = 0; n < 2; n++) {
			sectors[n].file_offset = VHDX_REGION_OFFSET(n);
			memcpy(sectors[n].data, table, 4096);
		}
		v->end_offset += bytes;
		*ret_offset = offset;
	}
	free(table);
	return error;
}

static int size_sector(struct vhdx *v, uint64_t size_bytes, struct vhdx_sector *ret)
{
	struct table *t = read_table(v);
	int n = t ? find(t, VHDX_ITEM_SIZE, false) : -EIO, error = n < 0 ? n : 0;
	uint64_t at = error ? 0 : v->metadata_offset + item_at(t, (unsigned)n)->offset;

	free(t);
	if (error)
		return error;
	if ((at & 4095) + 8 > 4096)
		return -ENOTSUP;
	ret->file_offset = at & ~4095ull;
	error = file_read(&v->disk->file, ret->file_offset, ret->data, 4096);
	memcpy(ret->data + (at & 4095), &size_bytes, 8);
	return error;
}

static bool holds_beyond(const struct vhdx *v, uint64_t first_block)
{
	for (uint64_t block = first_block; block < v->blocks; block++)
		if (vhdx_holds(v->bat[vhdx_entry(v, block)]))
			return true;
	return false;
}

static int add_fixed_blocks(struct vhdx *v, uint64_t from, uint64_t to)
{
	int error = 0;

	for (uint64_t block = from; block < to && !error; block++) {
		uint64_t offset;

		error = vhdx_allocate(v, v->block_bytes, &offset);
		if (!error)
			vhdx_set_entry(v, vhdx_entry(v, block), offset | BAT_PRESENT);
	}
	return error;
}

/* Everything that has changed is committed before, so that the tables in the file are those in memory. */
static int grow(struct vhdx *v, const struct shape *s)
{
	struct vhdx_sector *sectors = calloc(3, sizeof(*sectors));
	uint64_t bat_bytes = (s->entries * 8 + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB, bat_offset = v->bat_offset;
	bool moves = s->entries * 8 > v->bat_bytes;
	int error = sectors ? size_sector(v, s->size_bytes, &sectors[0]) : -ENOMEM;

	if (!error && s->entries > v->entries)
		error = widen(v, s);
	if (!error && moves)
		error = move_bat(v, bat_bytes, sectors + 1, &bat_offset);
	if (!error)
		error = vhdx_write_sectors(v, sectors, moves ? 3 : 1);
	free(sectors);
	if (error)
		return error;
	if (moves)
		v->bat_offset = bat_offset, v->bat_bytes = (uint32_t)bat_bytes;
	v->disk->size_bytes = s->size_bytes;
	v->blocks = s->blocks;
	v->chunks = s->chunks;
	v->entries = s->entries;
	return 0;
}

/*
 * A disk gets smaller only where nothing is lost, the block in which it is to end included: so growing again shows no old bytes. A
 * child stays at least as large as its parent.
 */
int vhdx_resize(struct disk *d, uint64_t size_bytes)
{
	struct vhdx *v = vhdx_of(d);
	struct shape s = shape_of(v, size_bytes);
	uint64_t blocks = v->blocks;
	int error;

	if (size_bytes > VHDX_MAX_BYTES)
		return -EFBIG;
	error = vhdx_commit(v);
	pthread_mutex_lock(&v->flush_lock);
	pthread_rwlock_wrlock(&v->io);
	pthread_mutex_lock(&v->map);
	if (!error && size_bytes < d->size_bytes && (v->fixed || holds_beyond(v, size_bytes / v->block_bytes) || (d->parent && size_bytes < d->parent->size_bytes)))
		error = -EBUSY;
	if (!error)
		error = vhdx_begin(v, true);
	if (!error && size_bytes < d->size_bytes) {
		struct vhdx_sector *sector = malloc(sizeof(*sector));

		/* the table stays as long as it is: nothing that a reader looks at lies behind the end */
		error = sector ? size_sector(v, size_bytes, sector) : -ENOMEM;
		if (!error)
			error = vhdx_write_sectors(v, sector, 1);
		free(sector);
		if (!error) {
			d->size_bytes = size_bytes;
			v->blocks = s.blocks;
			v->chunks = s.chunks;
			v->entries = s.entries;
		}
	} else if (!error && size_bytes > d->size_bytes) {
		error = grow(v, &s);
		if (!error && v->fixed)
			error = add_fixed_blocks(v, blocks, v->blocks);
	}
	pthread_mutex_unlock(&v->map);
	pthread_rwlock_unlock(&v->io);
	pthread_mutex_unlock(&v->flush_lock);
	return error ? error : vhdx_commit(v);
}
