/*
 * Opening a VHDX file: what it says of itself is checked here, once, so that the rest may rely on
 * it. After vhdx_open():
 *
 *  1. Regions, log and blocks lie in the file and do not overlap; every BAT entry has a state that
 *     the format knows.
 *  2. Sizes are within the format's limits, so that no sum or product of them overflows.
 *  3. A child's parent is open, allowed, and the one that the child was made on: its data
 *     identifier is the child's link.
 *
 * What the format marks as required and this does not know is refused. Equal sequence numbers of
 * both headers (Disk2VHD) are tolerated, and region entries that are not marked as required (QEMU
 * 1.6).
 */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/check.h"
#include "lib/crc32c.h"
#include "disk/digest.h"

enum {
	LOG_MAX_BYTES = 64 << 20,
	BAT_MAX_BYTES = 513 << 20,
	BLOCK_MIN = 1 << 20,
	BLOCK_MAX = 256 << 20
};
enum {
	ITEM_PARAMETERS = 1,
	ITEM_SIZE = 2,
	ITEM_DISK_ID = 4,
	ITEM_LOGICAL = 8,
	ITEM_PHYSICAL = 16,
	ITEM_LOCATOR = 32,
	ITEMS_NEEDED = 31
};

static int unsound(const struct vhdx *v, struct disk_error *error, const char *what)
{
	return disk_fail(error, -EBADMSG, v->disk->path, "%s", what);
}
static int host_error(const struct vhdx *v, struct disk_error *error, int code)
{
	return disk_fail(error, code, v->disk->path, "%s", strerror(-code));
}

/* ---- headers and regions ---- */

/*
 * A structure that begins with a signature and its checksum, which is zero in *to. Nearly all of it
 * is zero: where the checksum of its first bytes and zeros is the one that it has, they are as they
 * were written, the others are zero, and are neither read nor filled in.
 */
enum { FIRST = 512 };

static bool read_summed(const struct vhdx *v, uint64_t offset, uint32_t signature, void *to,
			size_t bytes)
{
	uint32_t head[2], first;

	if (file_read(&v->disk->file, offset, to, FIRST))
		return false;
	memcpy(head, to, sizeof(head));
	if (head[0] != signature)
		return false;
	memset((uint8_t *)to + 4, 0, 4);
	first = crc32c(0, to, FIRST);
	if (crc32c_zeros(first, bytes - FIRST) == head[1])
		return true;
	return !file_read(&v->disk->file, offset + FIRST, (uint8_t *)to + FIRST, bytes - FIRST) &&
	       crc32c(first, (uint8_t *)to + FIRST, bytes - FIRST) == head[1];
}

static bool read_header(struct vhdx *v, int n, struct vhdx_header *ret)
{
	memset(ret, 0, sizeof(*ret));
	return read_summed(v, VHDX_HEADER_OFFSET(n), VHDX_HEAD, ret, sizeof(*ret));
}

static int read_headers(struct vhdx *v, struct disk_error *error)
{
	struct vhdx_header h[2];
	bool good[2] = { read_header(v, 0, &h[0]), read_header(v, 1, &h[1]) };

	if (!good[0] && !good[1])
		return unsound(v, error, "neither header is valid");
	v->header_at = good[0] && good[1] ? h[1].sequence > h[0].sequence : good[1];
	v->header = h[v->header_at];
	if (v->header.version != 1 || v->header.log_version)
		return disk_fail(error, -ENOTSUP, v->disk->path, "version %u, log version %u",
				 v->header.version, v->header.log_version);
	if (!v->header.log_bytes || v->header.log_bytes % VHDX_MIB ||
	    v->header.log_offset % VHDX_MIB || v->header.log_offset < VHDX_MIB)
		return unsound(v, error, "the log is nowhere");
	if (v->header.log_bytes > LOG_MAX_BYTES)
		return disk_fail(error, -ENOTSUP, v->disk->path, "a log of %u bytes",
				 v->header.log_bytes);
	if (v->header.log_offset > v->file_bytes ||
	    v->header.log_bytes > v->file_bytes - v->header.log_offset)
		return unsound(v, error, "the log lies beyond the end of the file");
	return 0;
}

/* Marks [offset, offset + bytes) in MiB; false where something is already, or outside of the file.
 * */
static bool space_claim(struct vhdx *v, uint8_t *map, uint64_t offset, uint64_t bytes)
{
	uint64_t last;

	if (!offset || offset % VHDX_MIB || offset > v->file_bytes ||
	    bytes > v->file_bytes - offset)
		return false;
	last = (offset + bytes - 1) / VHDX_MIB;
	for (uint64_t n = offset / VHDX_MIB; n <= last; n++) {
		if (map[n / 8] >> (n & 7) & 1)
			return false;
		map[n / 8] |= (uint8_t)(1 << (n & 7));
	}
	if ((last + 1) * VHDX_MIB > v->end_offset)
		v->end_offset = (last + 1) * VHDX_MIB;
	return true;
}

static bool read_table(struct vhdx *v, int n, uint8_t *table)
{
	struct vhdx_region_head h;

	if (!read_summed(v, VHDX_REGION_OFFSET(n), VHDX_REGI, table, VHDX_TABLE_BYTES))
		return false;
	memcpy(&h, table, sizeof(h));
	if (h.count >
	    (FIRST - sizeof(h)) /
		    sizeof(struct vhdx_region)) /* more than there are regions: no hurry */
		return h.count <= VHDX_TABLE_ENTRIES &&
		       !file_read(&v->disk->file, VHDX_REGION_OFFSET(n) + FIRST, table + FIRST,
				  VHDX_TABLE_BYTES - FIRST);
	return true;
}

static int region_take(struct vhdx *v, const struct vhdx_region *r, uint8_t *map,
		       struct disk_error *error)
{
	char text[GUID_TEXT_BYTES];

	if (!r->bytes || r->bytes % VHDX_MIB || !space_claim(v, map, r->offset, r->bytes))
		return unsound(v, error, "a region lies over another one or outside of the file");
	if (guid_equal(r->id, VHDX_REGION_BAT)) {
		if (v->bat_bytes)
			return unsound(v, error, "two block allocation tables");
		v->bat_offset = r->offset;
		v->bat_bytes = r->bytes;
	} else if (guid_equal(r->id, VHDX_REGION_METADATA)) {
		if (v->metadata_bytes)
			return unsound(v, error, "two metadata regions");
		v->metadata_offset = r->offset;
		v->metadata_bytes = r->bytes;
	} else if (r->required & 1) {
		guid_print(r->id, text);
		return disk_fail(error, -ENOTSUP, v->disk->path,
				 "needs region %s, which is not known here", text);
	} else {
		struct vhdx_extent *more = realloc(v->others, (v->other_count + 1) * sizeof(*more));

		if (!more)
			return host_error(v, error, -ENOMEM);
		v->others = more;
		v->others[v->other_count++] = (struct vhdx_extent){ r->offset, r->bytes };
	}
	return 0;
}

static int read_regions(struct vhdx *v, uint8_t *map, struct disk_error *error)
{
	uint8_t *table = malloc(VHDX_TABLE_BYTES);
	struct vhdx_region_head h;
	int result = 0;

	if (!table)
		return host_error(v, error, -ENOMEM);
	if (!read_table(v, 0, table) && !read_table(v, 1, table))
		result = unsound(v, error, "neither region table is valid");
	memcpy(&h, table, sizeof(h));
	for (uint32_t n = 0; !result && n < h.count; n++) {
		struct vhdx_region r;

		memcpy(&r, table + sizeof(h) + n * sizeof(r), sizeof(r));
		result = region_take(v, &r, map, error);
	}
	if (!result && (!v->bat_bytes || !v->metadata_bytes))
		result = unsound(v, error, "has no block allocation table or no metadata");
	if (!result &&
	    (v->bat_bytes > BAT_MAX_BYTES || v->metadata_bytes > VHDX_METADATA_MAX_BYTES))
		result = disk_fail(error, -ENOTSUP, v->disk->path, "its tables are too large");
	free(table);
	return result;
}

/* ---- metadata ---- */

struct items { unsigned seen; uint32_t flags; };

/* Only what is known is read, and each once: however many items a file claims to have. */
static int item_take(struct vhdx *v, const struct vhdx_item *i, struct items *items,
		     struct disk_error *error)
{
	static const uint32_t sizes[] = { 8, 8, 16, 4, 4 };
	uint8_t *at;
	int result;
	const struct guid known[] = { VHDX_ITEM_PARAMETERS, VHDX_ITEM_SIZE,     VHDX_ITEM_DISK_ID,
				      VHDX_ITEM_LOGICAL,    VHDX_ITEM_PHYSICAL, VHDX_ITEM_LOCATOR };
	char text[GUID_TEXT_BYTES];
	unsigned n = 0;

	while (n < 6 && (i->flags & VHDX_ITEM_USER || !guid_equal(i->id, known[n])))
		n++;
	if (n == 6 && i->flags & VHDX_ITEM_REQUIRED) {
		guid_print(i->id, text);
		return disk_fail(error, -ENOTSUP, v->disk->path,
				 "needs metadata item %s, which is not known here", text);
	}
	if (n == 6 && i->flags & VHDX_ITEM_USER && guid_equal(i->id, DIGEST_ITEM_LINK))
		v->link_item = *i;
	if (n == 6)
		return 0;
	if (items->seen >> n & 1 || (n < 5 && i->bytes != sizes[n]))
		return unsound(v, error, "a metadata item comes twice, or with a wrong length");
	items->seen |= 1u << n;
	at = malloc(i->bytes + 1);
	result = at ? vhdx_read_value(v, i, at) : -ENOMEM;
	if (result) {
		free(at);
		return host_error(v, error, result);
	}
	switch (n) {
	case 0:
		memcpy(&v->block_bytes, at, 4);
		memcpy(&items->flags, at + 4, 4);
		break;
	case 1: memcpy(&v->disk->size_bytes, at, 8); break;
	case 2: memcpy(&v->disk_id, at, 16); break;
	case 3: memcpy(&v->sector_bytes, at, 4); break;
	case 4: memcpy(&v->physical_bytes, at, 4); break;
	default: result = vhdx_read_locator(v, at, i->bytes, error);
	}
	free(at);
	return result;
}

static int check_sizes(struct vhdx *v, const struct items *items, struct disk_error *error)
{
	bool locator = items->seen & ITEM_LOCATOR;

	if ((items->seen & ITEMS_NEEDED) != ITEMS_NEEDED)
		return unsound(v, error, "a required metadata item is missing");
	v->fixed = items->flags & VHDX_FIXED;
	v->has_parent = items->flags & VHDX_HAS_PARENT;
	if (items->flags & ~(uint32_t)(VHDX_FIXED | VHDX_HAS_PARENT) || locator != v->has_parent)
		return unsound(v, error, "its parameters contradict each other");
	if (v->block_bytes < BLOCK_MIN || v->block_bytes > BLOCK_MAX ||
	    v->block_bytes & (v->block_bytes - 1))
		return unsound(v, error, "the block size is not a power of two from 1 to 256 MiB");
	if (!vhdx_is_sector_size(v->sector_bytes) || !vhdx_is_sector_size(v->physical_bytes))
		return unsound(v, error, "the sector size is neither 512 nor 4096");
	if (!v->disk->size_bytes || v->disk->size_bytes > VHDX_MAX_BYTES ||
	    v->disk->size_bytes % v->sector_bytes)
		return unsound(v, error,
			       "the disk's size is not a whole number of sectors up to 64 TiB");
	v->chunk_ratio = (uint32_t)((8388608ull * v->sector_bytes) / v->block_bytes);
	v->blocks = (v->disk->size_bytes + v->block_bytes - 1) / v->block_bytes;
	v->chunks = (v->blocks + v->chunk_ratio - 1) / v->chunk_ratio;
	v->entries = v->has_parent ? v->chunks * (v->chunk_ratio + 1)
				   : v->blocks + (v->blocks - 1) / v->chunk_ratio;
	if (v->entries * 8 > v->bat_bytes)
		return unsound(v, error, "the block allocation table is too short for the disk");
	return 0;
}

static int read_metadata(struct vhdx *v, struct disk_error *error)
{
	uint8_t *table = malloc(VHDX_TABLE_BYTES);
	struct vhdx_metadata_head h;
	struct items items = { .seen = 0 };
	int result = table ? file_read(&v->disk->file, v->metadata_offset, table,
				       sizeof(v->table_near))
			   : -ENOMEM;

	if (!result)
		memcpy(&h, table, sizeof(h));
	if (!result)
		memcpy(v->table_near, table, sizeof(v->table_near));
	if (!result && sizeof(h) + h.count * sizeof(struct vhdx_item) >
			       VHDX_SECTOR_BYTES) /* few have more than a sector of them */
		result = file_read(&v->disk->file, v->metadata_offset, table, VHDX_TABLE_BYTES);
	if (!result)
		result = file_read(&v->disk->file, v->metadata_offset + VHDX_TABLE_BYTES,
				   v->values_near, sizeof(v->values_near));
	if (result) {
		free(table);
		return host_error(v, error, result);
	}
	if (h.signature != VHDX_METADATA || h.count > VHDX_TABLE_ENTRIES)
		result = unsound(v, error, "the metadata table is not one");
	for (unsigned n = 0; !result && n < h.count; n++) {
		struct vhdx_item i;

		memcpy(&i, table + sizeof(h) + n * sizeof(i), sizeof(i));
		if (i.bytes > VHDX_MIB ||
		    (i.bytes && (i.offset < VHDX_TABLE_BYTES || i.offset > v->metadata_bytes ||
				 i.bytes > v->metadata_bytes - i.offset))) {
			result = unsound(v, error, "a metadata item lies outside of its region");
			break;
		}
		result = item_take(v, &i, &items, error);
	}
	free(table);
	return result ? result : check_sizes(v, &items, error);
}

/* ---- blocks ---- */

static bool is_good_entry(struct vhdx *v, uint64_t index, uint8_t *map)
{
	uint64_t entry = v->bat[index];
	uint64_t ratio = v->chunk_ratio + 1;
	bool bitmap = index % ratio == v->chunk_ratio;
	unsigned state = vhdx_state(entry);

	if (bitmap && (!v->has_parent || state == BAT_NOT_PRESENT))
		return state == BAT_NOT_PRESENT;
	if (bitmap)
		return state == BAT_PRESENT && space_claim(v, map, vhdx_offset(entry), VHDX_MIB);
	if (index - index / ratio >= v->blocks) /* behind the disk's end */
		return state != 4 && state != 5;
	if (!vhdx_holds(entry))
		return state <= BAT_UNMAPPED;
	return (state != BAT_PARTIAL || v->has_parent) &&
	       space_claim(v, map, vhdx_offset(entry), v->block_bytes);
}

static int read_bat(struct vhdx *v, uint8_t *map, struct disk_error *error)
{
	int result;

	v->bat = calloc(v->entries, 8);
	v->bat_dirty = calloc(1, vhdx_dirty_bytes(v->entries) + 1);
	if (v->has_parent)
		v->bitmap = calloc(v->chunks, sizeof(*v->bitmap));
	if (!v->bat || !v->bat_dirty || (v->has_parent && !v->bitmap))
		return host_error(v, error, -ENOMEM);
	result = file_read(&v->disk->file, v->bat_offset, v->bat, v->entries * 8);
	if (result)
		return host_error(v, error, result);
	for (uint64_t n = 0; n < v->entries; n++)
		if (!is_good_entry(v, n, map))
			return disk_fail(
				error, -EBADMSG, v->disk->path,
				"entry %lu of the block allocation table (%#lx) is not possible", n,
				v->bat[n]);
	return 0;
}

/* ---- opening ---- */

static void vhdx_release(struct vhdx *v)
{
	for (uint64_t n = 0; v->bitmap && n < v->chunks; n++)
		free(v->bitmap[n].bits);
	for (int n = 0; n < 3; n++)
		free(v->parent_path[n]);
	free(v->others);
	free(v->bitmap);
	free(v->bat);
	free(v->bat_dirty);
	free(v->freed.offset);
	free(v->reusable.offset);
	free(v);
}

static int read_all(struct vhdx *v, const struct disk_options *o, struct disk_error *error)
{
	uint64_t identifier = 0;
	int64_t bytes = file_size(&v->disk->file);
	uint8_t *map;
	bool replayed = false;
	int result;

	if (bytes < 0)
		return disk_fail(error, (int)bytes, v->disk->path, "not a regular file");
	v->file_bytes = (uint64_t)bytes;
	if (file_read(&v->disk->file, 0, &identifier, 8) || identifier != VHDX_IDENTIFIER)
		return disk_fail(error, -EBADMSG, v->disk->path, "not a VHDX file");
	if (v->file_bytes > 2 * VHDX_MAX_BYTES)
		return disk_fail(error, -ENOTSUP, v->disk->path, "the file is too long");
	result = read_headers(v, error);
	if (!result && !o->just_made)
		result = vhdx_replay(v, &replayed, error);
	if (result)
		return result;
	if (replayed)
		v->file_bytes = (uint64_t)file_size(&v->disk->file);
	map = calloc(1, v->file_bytes / VHDX_MIB / 8 + 2);
	if (!map)
		return host_error(v, error, -ENOMEM);
	map[0] = 1;
	if (!space_claim(v, map, v->header.log_offset, v->header.log_bytes))
		result = unsound(v, error, "the log lies beyond the end of the file");
	if (!result)
		result = read_regions(v, map, error);
	if (!result)
		result = read_metadata(v, error);
	if (!result && !o->items_only)
		result = read_bat(v, map, error);
	free(map);
	if (!result && v->has_parent && !o->without_parents)
		result = vhdx_find_parent(v, o, error);
	return result;
}

int vhdx_open(struct disk *d, const struct disk_options *o, struct disk_error *error)
{
	struct vhdx *v = calloc(1, sizeof(*v));
	int result;

	if (!v)
		return disk_fail(error, -ENOMEM, d->path, "no memory");
	v->disk = d;
	d->format = v;
	pthread_mutex_init(&v->flush_lock, NULL);
	pthread_mutex_init(&v->map, NULL);
	pthread_rwlock_init(&v->io, NULL);
	result = read_all(v, o, error);
	if (result) {
		if (d->parent && d->parent != o->parent)
			disk_close(d->parent);
		vhdx_release(v);
		return result;
	}
	d->sector_bytes = v->sector_bytes;
	d->block_bytes = v->block_bytes;
	d->data_id = &v->header.data_write;
	d->is_child = v->has_parent;
	d->driver = &vhdx_driver;
	if (o->just_made) {
		v->begun = v->data_begun = v->changed = true;
		v->payload_dirty = true; /* nothing of it was synced */
		v->log_sequence = 1;
	}
	if (!o->items_only)
		CHECK(check_vhdx(v));
	return 0;
}

int vhdx_close(struct disk *d)
{
	struct vhdx *v = vhdx_of(d);
	int error = d->write ? vhdx_end(v) : 0;

	/* what was only reserved goes back; blocks end where the last one does */
	if (!error && d->write && v->end_offset < v->file_bytes)
		file_truncate(&v->disk->file, v->end_offset);
	vhdx_release(v);
	return error;
}
