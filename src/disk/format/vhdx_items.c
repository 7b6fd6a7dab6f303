/*
 * Changing what a VHDX file says of itself while it is open: metadata items, and with them its
 * size.
 *
 * An item's new value goes to a free place of the metadata region and is synced; then the table's
 * sectors change together through the log. So there is always the old value or the new one. The old
 * place is free once the table no longer names it.
 */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/crc32c.h"
#include "disk/digest.h"

enum { TABLE_SECTORS = VHDX_TABLE_BYTES / VHDX_SECTOR_BYTES };

struct table {
	_Alignas(8) uint8_t before[VHDX_TABLE_BYTES];
	_Alignas(8) uint8_t now[VHDX_TABLE_BYTES];
};

static struct vhdx_metadata_head *head_of(struct table *table)
{
	return (struct vhdx_metadata_head *)(void *)table->now;
}
static struct vhdx_item *item_at(struct table *table, unsigned n)
{
	return (struct vhdx_item *)(void *)(table->now + sizeof(struct vhdx_metadata_head)) + n;
}

/* What opening has read is old. */
static bool is_changed(const struct vhdx *vhdx)
{
	return __atomic_load_n(&vhdx->changed, __ATOMIC_ACQUIRE);
}

int vhdx_read_value(struct vhdx *vhdx, const struct vhdx_item *item, void *to)
{
	if (!is_changed(vhdx) && item->offset >= VHDX_TABLE_BYTES &&
	    (uint64_t)item->offset + item->bytes <= VHDX_TABLE_BYTES + sizeof(vhdx->values_near)) {
		memcpy(to, vhdx->values_near + item->offset - VHDX_TABLE_BYTES, item->bytes);
		return 0;
	}
	return file_read(&vhdx->disk->file, vhdx->metadata_offset + item->offset, to, item->bytes);
}

/* One item's entry, without reading more of the table than is used. Opening has checked it. */
static int find_entry(struct vhdx *vhdx, struct guid id, bool user, struct vhdx_item *ret)
{
	enum { FIRST = VHDX_SECTOR_BYTES };
	_Alignas(8) uint8_t first[FIRST];
	uint8_t *table = first;
	struct vhdx_metadata_head head;
	size_t bytes;
	int error = 0;

	if (is_changed(vhdx))
		error = file_read(&vhdx->disk->file, vhdx->metadata_offset, first, FIRST);
	else
		memcpy(first, vhdx->table_near, FIRST);
	if (error)
		return error;
	memcpy(&head, first, sizeof(head));
	bytes = sizeof(head) + head.count * sizeof(*ret);
	if (bytes > VHDX_TABLE_BYTES)
		return -EBADMSG;
	if (bytes > FIRST) {
		table = malloc(bytes);
		error = table ? file_read(&vhdx->disk->file, vhdx->metadata_offset, table, bytes)
			      : -ENOMEM;
	}
	error = error ? error : -ENOENT;
	for (unsigned n = 0; error == -ENOENT && n < head.count; n++) {
		memcpy(ret, table + sizeof(head) + n * sizeof(*ret), sizeof(*ret));
		if (guid_equal(ret->id, id) && !(ret->flags & VHDX_ITEM_USER) == !user)
			error = 0;
	}
	if (table != first)
		free(table);
	return error;
}

static struct table *read_table(struct vhdx *vhdx)
{
	struct table *table = malloc(sizeof(*table));

	if (table && file_read(&vhdx->disk->file, vhdx->metadata_offset, table->before,
			       sizeof(table->before))) {
		free(table);
		table = NULL;
	}
	if (table)
		memcpy(table->now, table->before, sizeof(table->now));
	return table;
}

static int find(struct table *table, struct guid id, bool user)
{
	for (unsigned n = 0; n < head_of(table)->count; n++)
		if (guid_equal(item_at(table, n)->id, id) &&
		    !(item_at(table, n)->flags & VHDX_ITEM_USER) == !user)
			return (int)n;
	return -ENOENT;
}

int vhdx_read_item(struct vhdx *vhdx, struct guid id, bool user, uint8_t **ret, uint32_t *ret_bytes)
{
	struct vhdx_item item;
	int error = find_entry(vhdx, id, user, &item);

	if (error)
		return error;
	*ret = malloc(item.bytes + 1);
	*ret_bytes = item.bytes;
	error = *ret ? vhdx_read_value(vhdx, &item, *ret) : -ENOMEM;
	if (error)
		free(*ret);
	return error;
}

/* The first place where `bytes` fit between the items, those that are to be replaced included; 0:
 * none. */
static uint32_t find_room(const struct vhdx *vhdx, struct table *table, uint32_t bytes)
{
	uint64_t at = VHDX_TABLE_BYTES;

	for (bool moved = true; moved;) {
		moved = false;
		for (unsigned n = 0; n < 2u * VHDX_TABLE_ENTRIES; n++) {
			const uint8_t *side = n & 1 ? table->before : table->now;
			const struct vhdx_item *item =
				(const struct vhdx_item
					 *)(const void *)(side +
							  sizeof(struct vhdx_metadata_head)) +
				n / 2;

			if (n / 2 >= ((const struct vhdx_metadata_head *)(const void *)side)->count)
				continue;
			if (item->bytes && at < (uint64_t)item->offset + item->bytes &&
			    item->offset < at + bytes) {
				at = ((uint64_t)item->offset + item->bytes + 7) & ~7ull;
				moved = true;
			}
		}
	}
	return at + bytes <= vhdx->metadata_bytes ? (uint32_t)at : 0;
}

static int write_table(struct vhdx *vhdx, const struct table *table)
{
	struct vhdx_sector *sectors = malloc(TABLE_SECTORS * sizeof(*sectors));
	size_t count = 0;
	int error;

	if (!sectors)
		return -ENOMEM;
	for (unsigned n = 0; n < TABLE_SECTORS; n++)
		if (memcmp(table->before + n * VHDX_SECTOR_BYTES,
			   table->now + n * VHDX_SECTOR_BYTES, VHDX_SECTOR_BYTES)) {
			sectors[count].file_offset = vhdx->metadata_offset + n * VHDX_SECTOR_BYTES;
			memcpy(sectors[count++].data, table->now + n * VHDX_SECTOR_BYTES,
			       VHDX_SECTOR_BYTES);
		}
	error = count ? vhdx_write_sectors(vhdx, sectors, count) : 0;
	free(sectors);
	return error;
}

static void remove_entry(struct table *table, int n)
{
	struct vhdx_metadata_head *head = head_of(table);

	*item_at(table, (unsigned)n) = *item_at(table, head->count - 1u);
	memset(item_at(table, --head->count), 0, sizeof(struct vhdx_item));
}

static unsigned user_items(struct table *table)
{
	unsigned count = 0;

	for (unsigned n = 0; n < head_of(table)->count; n++)
		count += item_at(table, n)->flags & VHDX_ITEM_USER;
	return count;
}

/* -EXFULL: no room in the region, which can grow; -ENOSPC is what the host says of its disk. */
static int put_value(struct vhdx *vhdx, struct table *table, const struct vhdx_value *value)
{
	int n = find(table, value->id, value->flags & VHDX_ITEM_USER);
	int error;
	uint32_t at = 0;

	if (value->remove) {
		if (n >= 0)
			remove_entry(table, n);
		return 0;
	}
	if (value->bytes > VHDX_MIB || (n < 0 && head_of(table)->count == VHDX_TABLE_ENTRIES))
		return -EFBIG;
	if (n < 0 && value->flags & VHDX_ITEM_USER && user_items(table) == VHDX_USER_ITEMS)
		return -EFBIG;
	if (value->bytes && !(at = find_room(vhdx, table, value->bytes)))
		return -EXFULL;
	error = value->bytes ? file_write(&vhdx->disk->file, vhdx->metadata_offset + at,
					  value->value, value->bytes)
			     : 0;
	if (error)
		return error;
	if (n < 0)
		n = head_of(table)->count++;
	*item_at(table, (unsigned)n) = (struct vhdx_item){
		.id = value->id, .offset = at, .bytes = value->bytes, .flags = value->flags
	};
	return 0;
}

/* The first sector of both region tables (entries and checksum lie in it), the region `id` being
 * elsewhere. */
static int region_sectors(struct vhdx *vhdx, struct guid id, uint64_t offset, uint64_t bytes,
			  struct vhdx_sector sectors[2])
{
	uint8_t *table = malloc(VHDX_TABLE_BYTES);
	struct vhdx_region_head head;
	int error =
		table ? file_read(&vhdx->disk->file, VHDX_REGION_OFFSET(0), table, VHDX_TABLE_BYTES)
		      : -ENOMEM;

	if (!error) {
		memcpy(&head, table, sizeof(head));
		if (head.signature != VHDX_REGI ||
		    head.count > (VHDX_SECTOR_BYTES - sizeof(head)) / sizeof(struct vhdx_region))
			error = -ENOTSUP;
	}
	for (uint32_t n = 0; !error && n < head.count; n++) {
		struct vhdx_region *region =
			(struct vhdx_region *)(void *)(table + sizeof(head)) + n;

		if (guid_equal(region->id, id)) {
			region->offset = offset;
			region->bytes = (uint32_t)bytes;
		}
	}
	if (!error) {
		head.checksum = 0;
		memcpy(table, &head, sizeof(head));
		head.checksum = crc32c(0, table, VHDX_TABLE_BYTES);
		memcpy(table, &head, sizeof(head));
		for (int n = 0; n < 2; n++) {
			sectors[n].file_offset = VHDX_REGION_OFFSET(n);
			memcpy(sectors[n].data, table, VHDX_SECTOR_BYTES);
		}
	}
	free(table);
	return error;
}

/* Room for `more` bytes of items: the region moves to the end of the file, as large again. Its old
 * place is lost until compaction. */
static int grow_metadata(struct vhdx *vhdx, uint64_t more)
{
	struct vhdx_sector *sectors = malloc(2 * sizeof(*sectors));
	uint64_t offset;
	uint64_t bytes =
		(2 * (uint64_t)vhdx->metadata_bytes + more + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB;
	uint8_t *all = malloc(vhdx->metadata_bytes);
	int error;

	if (!sectors || !all)
		error = -ENOMEM;
	else if (bytes > VHDX_METADATA_MAX_BYTES)
		error = -EFBIG;
	else
		error = file_read(&vhdx->disk->file, vhdx->metadata_offset, all,
				  vhdx->metadata_bytes);
	pthread_mutex_lock(&vhdx->map);
	offset = vhdx->end_offset;
	if (!error)
		error = vhdx_extend(vhdx, offset + bytes);
	if (!error)
		vhdx->end_offset += bytes;
	pthread_mutex_unlock(&vhdx->map);
	if (!error)
		error = file_write(&vhdx->disk->file, offset, all, vhdx->metadata_bytes);
	if (!error)
		error = region_sectors(vhdx, VHDX_REGION_METADATA, offset, bytes, sectors);
	if (!error)
		error = vhdx_write_sectors(vhdx, sectors, 2);
	if (!error) {
		vhdx->metadata_offset = offset;
		vhdx->metadata_bytes = (uint32_t)bytes;
	}
	free(all);
	free(sectors);
	return error;
}

static int write_values(struct vhdx *vhdx, const struct vhdx_value *values, size_t count)
{
	struct table *table = read_table(vhdx);
	int error = table ? 0 : -EIO;

	for (size_t n = 0; n < count && !error; n++)
		error = put_value(vhdx, table, &values[n]);
	if (!error)
		error = write_table(vhdx, table);
	free(table);
	return error;
}

int vhdx_write_values(struct vhdx *vhdx, const struct vhdx_value *values, size_t count)
{
	uint64_t all = 0;
	int error;

	for (size_t n = 0; n < count; n++)
		all += values[n].bytes;
	pthread_mutex_lock(&vhdx->flush_lock);
	error = vhdx_begin(vhdx, false);
	if (!error)
		error = write_values(vhdx, values, count);
	if (error == -EXFULL) {
		error = grow_metadata(vhdx, all);
		if (!error)
			error = write_values(vhdx, values, count);
	}
	pthread_mutex_unlock(&vhdx->flush_lock);
	return error;
}

int vhdx_write_item(struct vhdx *vhdx, struct guid id, uint32_t flags, const void *value,
		    uint32_t bytes)
{
	return vhdx_write_values(
		vhdx,
		&(struct vhdx_value){ .id = id, .flags = flags, .value = value, .bytes = bytes },
		1);
}

/* ---- long values: an item for each MiB, the last one shorter ---- */

struct guid vhdx_part_id(struct guid id, unsigned part)
{
	id.byte[14] ^= (uint8_t)(part >> 8);
	id.byte[15] ^= (uint8_t)part;
	return id;
}

static int read_link_item(struct vhdx *vhdx, uint8_t **ret, size_t *ret_bytes)
{
	int error;

	if (!vhdx->link_item.bytes)
		return -ENOENT;
	*ret = malloc(vhdx->link_item.bytes);
	*ret_bytes = vhdx->link_item.bytes;
	error = *ret ? vhdx_read_value(vhdx, &vhdx->link_item, *ret) : -ENOMEM;
	if (error)
		free(*ret);
	return error;
}

int vhdx_read_long(struct disk *disk, struct guid id, uint8_t **ret, size_t *ret_bytes)
{
	struct vhdx *vhdx = vhdx_of(disk);
	uint8_t *value = NULL;
	size_t bytes = 0;
	int error = 0;

	if (guid_equal(id, DIGEST_ITEM_LINK) &&
	    !is_changed(vhdx)) /* asked for at every opening, which has seen it */
		return read_link_item(vhdx, ret, ret_bytes);
	for (unsigned part = 0; !error; part++) {
		struct vhdx_item item;
		uint8_t *more;

		error = part >= VHDX_LONG_PARTS
				? -EFBIG
				: find_entry(vhdx, vhdx_part_id(id, part), true, &item);
		if (error)
			break;
		more = realloc(value, bytes + item.bytes + 1);
		error = more ? vhdx_read_value(vhdx, &item, more + bytes) : -ENOMEM;
		value = more ? more : value;
		bytes += item.bytes;
		if (item.bytes < VHDX_MIB)
			break;
	}
	if (error)
		free(value);
	*ret = error ? NULL : value;
	*ret_bytes = bytes;
	return error;
}

int vhdx_long_values(struct vhdx_value values[VHDX_LONG_PARTS], struct guid id, uint32_t flags,
		     const void *value, size_t bytes)
{
	size_t parts = value ? bytes / VHDX_MIB + 1 : 0;

	if (parts > VHDX_LONG_PARTS)
		return -EFBIG;
	for (unsigned n = 0; n < VHDX_LONG_PARTS; n++) {
		size_t left = n < parts ? bytes - n * VHDX_MIB : 0;

		values[n] = (struct vhdx_value){ .id = vhdx_part_id(id, n),
						 .flags = VHDX_ITEM_USER | flags,
						 .remove = n >= parts };
		values[n].value = n < parts ? (const uint8_t *)value + n * VHDX_MIB : NULL;
		values[n].bytes = (uint32_t)(left < VHDX_MIB ? left : VHDX_MIB);
	}
	return 0;
}

int vhdx_write_long(struct disk *disk, struct guid id, enum disk_item_subject subject,
		    const void *value, size_t bytes)
{
	struct vhdx_value *values = calloc(VHDX_LONG_PARTS, sizeof(*values));
	const uint32_t flags = subject == DISK_ITEM_OF_DISK ? VHDX_ITEM_DISK : 0;
	int error = values ? vhdx_long_values(values, id, flags, value, bytes) : -ENOMEM;

	if (!error)
		error = vhdx_write_values(vhdx_of(disk), values, VHDX_LONG_PARTS);
	free(values);
	return error;
}

/* ---- items about the virtual disk ---- */

static bool is_of_disk(const struct vhdx_item *item)
{
	return (item->flags & (VHDX_ITEM_USER | VHDX_ITEM_DISK)) ==
	       (VHDX_ITEM_USER | VHDX_ITEM_DISK);
}

void vhdx_free_values(struct vhdx_value *values, size_t count)
{
	for (size_t n = 0; n < count; n++)
		free((void *)(uintptr_t)values[n].value);
	free(values);
}

int vhdx_load_disk_items(struct vhdx *vhdx, struct vhdx_value **ret, size_t *ret_count)
{
	struct table *table = read_table(vhdx);
	struct vhdx_value *values =
		table ? calloc(head_of(table)->count + 1u, sizeof(*values)) : NULL;
	size_t count = 0;
	int error = values ? 0 : -ENOMEM;

	for (unsigned n = 0; !error && n < head_of(table)->count; n++) {
		const struct vhdx_item *item = item_at(table, n);
		uint8_t *value = is_of_disk(item) ? malloc(item->bytes + 1) : NULL;

		if (!is_of_disk(item))
			continue;
		error = value ? vhdx_read_value(vhdx, item, value) : -ENOMEM;
		values[count++] = (struct vhdx_value){
			.id = item->id, .flags = item->flags, .value = value, .bytes = item->bytes
		};
	}
	free(table);
	if (error) {
		vhdx_free_values(values, count);
		return error;
	}
	*ret = values;
	*ret_count = count;
	return 0;
}

static bool names(const struct vhdx_value *values, size_t count, struct guid id)
{
	while (count && !guid_equal(values[count - 1].id, id))
		count--;
	return count;
}

int vhdx_copy_disk_items(struct vhdx *from, struct vhdx *to)
{
	struct vhdx_value *values = NULL;
	struct vhdx_value *old = NULL;
	struct vhdx_value *more;
	size_t count = 0;
	size_t olds = 0;
	size_t all;
	int error = vhdx_load_disk_items(from, &values, &count);

	if (!error)
		error = vhdx_load_disk_items(to, &old, &olds);
	all = count;
	more = error ? NULL : realloc(values, (count + olds + 1) * sizeof(*values));
	if (!error && !more)
		error = -ENOMEM;
	if (more)
		values = more;
	for (size_t n = 0; !error && n < olds; n++)
		if (!names(values, count, old[n].id))
			values[all++] = (struct vhdx_value){ .id = old[n].id,
							     .flags = old[n].flags,
							     .remove = true };
	if (!error && all)
		error = vhdx_write_values(to, values, all);
	vhdx_free_values(old, olds);
	vhdx_free_values(values, count);
	return error;
}

/* ---- size ---- */

struct shape { uint64_t size_bytes, blocks, chunks, entries; };

static struct shape shape_of(const struct vhdx *vhdx, uint64_t size_bytes)
{
	struct shape shape = { .size_bytes = size_bytes,
			       .blocks = (size_bytes + vhdx->block_bytes - 1) / vhdx->block_bytes };

	shape.chunks = (shape.blocks + vhdx->chunk_ratio - 1) / vhdx->chunk_ratio;
	shape.entries = vhdx->has_parent ? shape.chunks * (vhdx->chunk_ratio + 1)
					 : shape.blocks + (shape.blocks - 1) / vhdx->chunk_ratio;
	return shape;
}

/* More memory for what is per block; what is there is a prefix of what will be. */
static int widen(struct vhdx *vhdx, const struct shape *shape)
{
	size_t dirty_before = vhdx_dirty_bytes(vhdx->entries) + 1;
	size_t dirty = vhdx_dirty_bytes(shape->entries) + 1;
	uint64_t *bat = realloc(vhdx->bat, shape->entries * 8);
	struct vhdx_bitmap *bitmap;
	uint8_t *bits;

	if (!bat)
		return -ENOMEM;
	vhdx->bat = bat;
	bits = realloc(vhdx->bat_dirty, dirty);
	if (!bits)
		return -ENOMEM;
	vhdx->bat_dirty = bits;
	memset(vhdx->bat + vhdx->entries, 0, (shape->entries - vhdx->entries) * 8);
	memset(vhdx->bat_dirty + dirty_before, 0, dirty - dirty_before);
	if (!vhdx->has_parent)
		return 0;
	bitmap = realloc(vhdx->bitmap, shape->chunks * sizeof(*bitmap));
	if (!bitmap)
		return -ENOMEM;
	memset(bitmap + vhdx->chunks, 0, (shape->chunks - vhdx->chunks) * sizeof(*bitmap));
	vhdx->bitmap = bitmap;
	return 0;
}

/* A longer table at the end of the file. Under `map`. */
static int move_bat(struct vhdx *vhdx, uint64_t bytes, struct vhdx_sector sectors[2],
		    uint64_t *ret_offset)
{
	uint64_t offset = vhdx->end_offset;
	int error = vhdx_extend(vhdx, offset + bytes);

	if (!error)
		error = file_write(&vhdx->disk->file, offset, vhdx->bat, vhdx->entries * 8);
	if (!error)
		error = region_sectors(vhdx, VHDX_REGION_BAT, offset, bytes, sectors);
	if (!error) {
		vhdx->end_offset += bytes;
		*ret_offset = offset;
	}
	return error;
}

static int size_sector(struct vhdx *vhdx, uint64_t size_bytes, struct vhdx_sector *ret)
{
	struct table *table = read_table(vhdx);
	int n = table ? find(table, VHDX_ITEM_SIZE, false) : -EIO;
	int error = n < 0 ? n : 0;
	uint64_t at = error ? 0 : vhdx->metadata_offset + item_at(table, (unsigned)n)->offset;

	free(table);
	if (error)
		return error;
	if (at % VHDX_SECTOR_BYTES + sizeof(size_bytes) > VHDX_SECTOR_BYTES)
		return -ENOTSUP;
	ret->file_offset = at - at % VHDX_SECTOR_BYTES;
	error = file_read(&vhdx->disk->file, ret->file_offset, ret->data, sizeof(ret->data));
	memcpy(ret->data + at % VHDX_SECTOR_BYTES, &size_bytes, sizeof(size_bytes));
	return error;
}

static bool holds_beyond(const struct vhdx *vhdx, uint64_t first_block)
{
	for (uint64_t block = first_block; block < vhdx->blocks; block++)
		if (vhdx_holds(vhdx->bat[vhdx_entry(vhdx, block)]))
			return true;
	return false;
}

static int add_fixed_blocks(struct vhdx *vhdx, uint64_t from, uint64_t to)
{
	int error = 0;

	for (uint64_t block = from; block < to && !error; block++) {
		uint64_t offset;

		error = vhdx_allocate(vhdx, vhdx->block_bytes, &offset);
		if (!error)
			vhdx_set_entry(vhdx, vhdx_entry(vhdx, block), offset | BAT_PRESENT);
	}
	return error;
}

/* Everything that has changed is committed before, so that the tables in the file are those in
 * memory. */
static int grow(struct vhdx *vhdx, const struct shape *shape)
{
	struct vhdx_sector *sectors = calloc(3, sizeof(*sectors));
	uint64_t bat_bytes = (shape->entries * 8 + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB;
	uint64_t bat_offset = vhdx->bat_offset;
	bool moves = shape->entries * 8 > vhdx->bat_bytes;
	int error = sectors ? size_sector(vhdx, shape->size_bytes, &sectors[0]) : -ENOMEM;

	if (!error && shape->entries > vhdx->entries)
		error = widen(vhdx, shape);
	if (!error && moves)
		error = move_bat(vhdx, bat_bytes, sectors + 1, &bat_offset);
	if (!error)
		error = vhdx_write_sectors(vhdx, sectors, moves ? 3 : 1);
	free(sectors);
	if (error)
		return error;
	if (moves) {
		vhdx->bat_offset = bat_offset;
		vhdx->bat_bytes = (uint32_t)bat_bytes;
	}
	vhdx->disk->size_bytes = shape->size_bytes;
	vhdx->blocks = shape->blocks;
	vhdx->chunks = shape->chunks;
	vhdx->entries = shape->entries;
	return 0;
}

/*
 * A disk gets smaller only where nothing is lost, the block in which it is to end included: so
 * growing again shows no old bytes. A child stays at least as large as its parent.
 */
int vhdx_resize(struct disk *disk, uint64_t size_bytes)
{
	struct vhdx *vhdx = vhdx_of(disk);
	struct shape shape = shape_of(vhdx, size_bytes);
	uint64_t blocks = vhdx->blocks;
	int error;

	if (size_bytes > VHDX_MAX_BYTES)
		return -EFBIG;
	error = vhdx_commit(vhdx);
	pthread_mutex_lock(&vhdx->flush_lock);
	pthread_rwlock_wrlock(&vhdx->io);
	pthread_mutex_lock(&vhdx->map);
	if (!error && size_bytes < disk->size_bytes &&
	    (vhdx->fixed || holds_beyond(vhdx, size_bytes / vhdx->block_bytes) ||
	     (disk->parent && size_bytes < disk->parent->size_bytes)))
		error = -EBUSY;
	if (!error)
		error = vhdx_begin(vhdx, true);
	if (!error && size_bytes < disk->size_bytes) {
		struct vhdx_sector *sector = malloc(sizeof(*sector));

		/* the table stays as long as it is: nothing that a reader looks at lies behind the
		 * end */
		error = sector ? size_sector(vhdx, size_bytes, sector) : -ENOMEM;
		if (!error)
			error = vhdx_write_sectors(vhdx, sector, 1);
		free(sector);
		if (!error) {
			disk->size_bytes = size_bytes;
			vhdx->blocks = shape.blocks;
			vhdx->chunks = shape.chunks;
			vhdx->entries = shape.entries;
		}
	} else if (!error && size_bytes > disk->size_bytes) {
		error = grow(vhdx, &shape);
		if (!error && vhdx->fixed)
			error = add_fixed_blocks(vhdx, blocks, vhdx->blocks);
	}
	pthread_mutex_unlock(&vhdx->map);
	pthread_rwlock_unlock(&vhdx->io);
	pthread_mutex_unlock(&vhdx->flush_lock);
	return error ? error : vhdx_commit(vhdx);
}
