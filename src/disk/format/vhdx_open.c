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
	ITEMS_NEEDED = 31,
	ITEMS = 6
};

static int host_error(const struct vhdx *vhdx, struct disk_error *error, int code)
{
	return disk_refuse_host(error, code, vhdx->disk->path, "reading its tables");
}

/* ---- headers and regions ---- */

/*
 * A structure that begins with a signature and its checksum, which is zero in *to. Nearly all of it
 * is zero: where the checksum of its first bytes and zeros is the one that it has, they are as they
 * were written, the others are zero, and are neither read nor filled in.
 */
enum { FIRST = 512 };

static bool read_summed(const struct vhdx *vhdx, uint64_t offset, uint32_t signature, void *to,
			size_t bytes)
{
	uint32_t head[2], first;

	if (file_read(&vhdx->disk->file, offset, to, FIRST))
		return false;
	memcpy(head, to, sizeof(head));
	if (head[0] != signature)
		return false;
	memset((uint8_t *)to + 4, 0, 4);
	first = crc32c(0, to, FIRST);
	if (crc32c_zeros(first, bytes - FIRST) == head[1])
		return true;
	return !file_read(&vhdx->disk->file, offset + FIRST, (uint8_t *)to + FIRST,
			  bytes - FIRST) &&
	       crc32c(first, (uint8_t *)to + FIRST, bytes - FIRST) == head[1];
}

static bool read_header(struct vhdx *vhdx, int n, struct vhdx_header *ret)
{
	memset(ret, 0, sizeof(*ret));
	return read_summed(vhdx, VHDX_HEADER_OFFSET(n), VHDX_HEAD, ret, sizeof(*ret));
}

static int check_header(const struct vhdx *vhdx, struct disk_error *error)
{
	const struct vhdx_header *header = &vhdx->header;
	const char *path = vhdx->disk->path;
	const uint64_t at = VHDX_HEADER_OFFSET(vhdx->header_at);

	if (header->version != 1 || header->log_version)
		return disk_refuse(error, REFUSAL_VHDX_VERSION, path,
				   at + offsetof(struct vhdx_header, log_version),
				   "version %u, log version %u", header->version,
				   header->log_version);
	if (header->log_bytes > LOG_MAX_BYTES)
		return disk_refuse(error, REFUSAL_VHDX_LOG_LARGE, path,
				   at + offsetof(struct vhdx_header, log_bytes),
				   "a log of %u bytes", header->log_bytes);
	if (!header->log_bytes || header->log_bytes % VHDX_MIB || header->log_offset % VHDX_MIB ||
	    header->log_offset < VHDX_MIB || header->log_offset > vhdx->file_bytes ||
	    header->log_bytes > vhdx->file_bytes - header->log_offset)
		return disk_refuse(error, REFUSAL_VHDX_LOG_PLACE, path,
				   at + offsetof(struct vhdx_header, log_bytes),
				   "a log of %u bytes at offset %lu of a file of %lu bytes",
				   header->log_bytes, header->log_offset, vhdx->file_bytes);
	return 0;
}

static int read_headers(struct vhdx *vhdx, struct disk_error *error)
{
	struct vhdx_header header[2];
	bool good[2] = { read_header(vhdx, 0, &header[0]), read_header(vhdx, 1, &header[1]) };

	if (!good[0] && !good[1])
		return disk_refuse(error, REFUSAL_VHDX_HEADERS, vhdx->disk->path,
				   VHDX_HEADER_OFFSET(0), "neither header is valid");
	vhdx->header_at = good[0] && good[1] ? header[1].sequence > header[0].sequence : good[1];
	vhdx->header = header[vhdx->header_at];
	return check_header(vhdx, error);
}

/* Marks [offset, offset + bytes) in MiB; false where something is already, or outside of the file.
 * */
static bool space_claim(struct vhdx *vhdx, uint8_t *map, uint64_t offset, uint64_t bytes)
{
	uint64_t last;

	if (!offset || offset % VHDX_MIB || offset > vhdx->file_bytes ||
	    bytes > vhdx->file_bytes - offset)
		return false;
	last = (offset + bytes - 1) / VHDX_MIB;
	for (uint64_t n = offset / VHDX_MIB; n <= last; n++) {
		if (map[n / 8] >> (n & 7) & 1)
			return false;
		map[n / 8] |= (uint8_t)(1 << (n & 7));
	}
	if ((last + 1) * VHDX_MIB > vhdx->end_offset)
		vhdx->end_offset = (last + 1) * VHDX_MIB;
	return true;
}

static bool read_table(struct vhdx *vhdx, int n, uint8_t *table)
{
	struct vhdx_region_head head;

	if (!read_summed(vhdx, VHDX_REGION_OFFSET(n), VHDX_REGI, table, VHDX_TABLE_BYTES))
		return false;
	memcpy(&head, table, sizeof(head));
	if (head.count >
	    (FIRST - sizeof(head)) /
		    sizeof(struct vhdx_region)) /* more than there are regions: no hurry */
		return head.count <= VHDX_TABLE_ENTRIES &&
		       !file_read(&vhdx->disk->file, VHDX_REGION_OFFSET(n) + FIRST, table + FIRST,
				  VHDX_TABLE_BYTES - FIRST);
	return true;
}

/* The one of two that there has to be; `at`: of its entry in the file. */
static int known_region_take(struct vhdx *vhdx, const struct vhdx_region *region, uint64_t at,
			     uint64_t *offset, uint32_t *bytes, uint64_t max_bytes,
			     struct disk_error *error)
{
	if (*bytes)
		return disk_refuse(error, REFUSAL_VHDX_REGION_TWICE, vhdx->disk->path, at,
				   "a second one at offset %lu", region->offset);
	if (region->bytes > max_bytes)
		return disk_refuse(error, REFUSAL_VHDX_REGION_LARGE, vhdx->disk->path,
				   at + offsetof(struct vhdx_region, bytes),
				   "a region of %u bytes: too large", region->bytes);
	*offset = region->offset;
	*bytes = region->bytes;
	return 0;
}

static int region_take(struct vhdx *vhdx, const struct vhdx_region *region, uint64_t at,
		       uint8_t *map, struct disk_error *error)
{
	char text[GUID_TEXT_BYTES];

	if (!region->bytes || region->bytes % VHDX_MIB ||
	    !space_claim(vhdx, map, region->offset, region->bytes))
		return disk_refuse(error, REFUSAL_VHDX_REGION, vhdx->disk->path, at,
				   "%u bytes at offset %lu: over another one, or outside of the "
				   "file",
				   region->bytes, region->offset);
	if (guid_equal(region->id, VHDX_REGION_BAT)) {
		return known_region_take(vhdx, region, at, &vhdx->bat_offset, &vhdx->bat_bytes,
					 BAT_MAX_BYTES, error);
	} else if (guid_equal(region->id, VHDX_REGION_METADATA)) {
		return known_region_take(vhdx, region, at, &vhdx->metadata_offset,
					 &vhdx->metadata_bytes, VHDX_METADATA_MAX_BYTES, error);
	} else if (region->required & 1) {
		guid_print(region->id, text);
		return disk_refuse(error, REFUSAL_VHDX_REGION_UNKNOWN, vhdx->disk->path, at,
				   "needs region %s, which is not known here", text);
	} else {
		struct vhdx_extent *more =
			realloc(vhdx->others, (vhdx->other_count + 1) * sizeof(*more));

		if (!more)
			return host_error(vhdx, error, -ENOMEM);
		vhdx->others = more;
		vhdx->others[vhdx->other_count++] =
			(struct vhdx_extent){ region->offset, region->bytes };
	}
	return 0;
}

static int read_regions(struct vhdx *vhdx, uint8_t *map, struct disk_error *error)
{
	uint8_t *table = malloc(VHDX_TABLE_BYTES);
	struct vhdx_region_head head;
	int which = 0;
	uint64_t at;
	int result = 0;

	if (!table)
		return host_error(vhdx, error, -ENOMEM);
	if (!read_table(vhdx, 0, table))
		which = read_table(vhdx, 1, table) ? 1 : -1;
	at = VHDX_REGION_OFFSET(which < 0 ? 0 : which);
	if (which < 0)
		result = disk_refuse(error, REFUSAL_VHDX_REGIONS, vhdx->disk->path, at,
				     "neither region table is valid");
	memcpy(&head, table, sizeof(head));
	for (uint32_t n = 0; !result && n < head.count; n++) {
		struct vhdx_region region;

		memcpy(&region, table + sizeof(head) + n * sizeof(region), sizeof(region));
		result = region_take(vhdx, &region, at + sizeof(head) + n * sizeof(region), map,
				     error);
	}
	if (!result && (!vhdx->bat_bytes || !vhdx->metadata_bytes))
		result = disk_refuse(error, REFUSAL_VHDX_REGION_MISSING, vhdx->disk->path, at,
				     "no %s", vhdx->bat_bytes ? "metadata" : "BAT");
	free(table);
	return result;
}

/* ---- metadata ---- */

struct items {
	unsigned seen;
	uint32_t flags;
	uint64_t at[ITEMS]; /* where in the file each value is */
};

/* Only what is known is read, and each once: however many items a file claims to have. */
static int item_take(struct vhdx *vhdx, const struct vhdx_item *item, uint64_t entry_at,
		     struct items *items, struct disk_error *error)
{
	static const uint32_t sizes[] = { 8, 8, 16, 4, 4 };
	uint8_t *at;
	int result;
	const struct guid known[] = { VHDX_ITEM_PARAMETERS, VHDX_ITEM_SIZE,     VHDX_ITEM_DISK_ID,
				      VHDX_ITEM_LOGICAL,    VHDX_ITEM_PHYSICAL, VHDX_ITEM_LOCATOR };
	char text[GUID_TEXT_BYTES];
	unsigned n = 0;

	while (n < ITEMS && (item->flags & VHDX_ITEM_USER || !guid_equal(item->id, known[n])))
		n++;
	if (n == ITEMS && item->flags & VHDX_ITEM_REQUIRED) {
		guid_print(item->id, text);
		return disk_refuse(error, REFUSAL_VHDX_ITEM_UNKNOWN, vhdx->disk->path, entry_at,
				   "needs metadata item %s, which is not known here", text);
	}
	if (n == ITEMS && item->flags & VHDX_ITEM_USER && guid_equal(item->id, DIGEST_ITEM_LINK))
		vhdx->link_item = *item;
	if (n == ITEMS)
		return 0;
	if (items->seen >> n & 1)
		return disk_refuse(error, REFUSAL_VHDX_ITEM_TWICE, vhdx->disk->path, entry_at,
				   "item %u of the specification comes twice", n + 1);
	if (n < ITEMS - 1 && item->bytes != sizes[n])
		return disk_refuse(error, REFUSAL_VHDX_ITEM_LENGTH, vhdx->disk->path,
				   entry_at + offsetof(struct vhdx_item, bytes),
				   "%u bytes, where such an item has %u", item->bytes, sizes[n]);
	items->seen |= 1u << n;
	items->at[n] = vhdx->metadata_offset + item->offset;
	at = malloc(item->bytes + 1);
	result = at ? vhdx_read_value(vhdx, item, at) : -ENOMEM;
	if (result) {
		free(at);
		return host_error(vhdx, error, result);
	}
	switch (n) {
	case 0:
		memcpy(&vhdx->block_bytes, at, 4);
		memcpy(&items->flags, at + 4, 4);
		break;
	case 1: memcpy(&vhdx->disk->size_bytes, at, 8); break;
	case 2: memcpy(&vhdx->disk_id, at, 16); break;
	case 3: memcpy(&vhdx->sector_bytes, at, 4); break;
	case 4: memcpy(&vhdx->physical_bytes, at, 4); break;
	default:
		vhdx->locator_at = items->at[n];
		result = vhdx_read_locator(vhdx, at, item->bytes, error);
	}
	free(at);
	return result;
}

static int check_sizes(struct vhdx *vhdx, const struct items *items, struct disk_error *error)
{
	bool locator = items->seen & ITEM_LOCATOR;
	const char *path = vhdx->disk->path;

	if ((items->seen & ITEMS_NEEDED) != ITEMS_NEEDED)
		return disk_refuse(error, REFUSAL_VHDX_ITEM_MISSING, path, vhdx->metadata_offset,
				   "a required item is missing (%#x of %#x are there)",
				   items->seen & ITEMS_NEEDED, ITEMS_NEEDED);
	vhdx->fixed = items->flags & VHDX_FIXED;
	vhdx->has_parent = items->flags & VHDX_HAS_PARENT;
	if (items->flags & ~(uint32_t)(VHDX_FIXED | VHDX_HAS_PARENT) || locator != vhdx->has_parent)
		return disk_refuse(error, REFUSAL_VHDX_PARAMETERS, path, items->at[0],
				   "flags %#x, %s a parent locator", items->flags,
				   locator ? "with" : "without");
	if (vhdx->block_bytes < BLOCK_MIN || vhdx->block_bytes > BLOCK_MAX ||
	    vhdx->block_bytes & (vhdx->block_bytes - 1))
		return disk_refuse(error, REFUSAL_VHDX_BLOCK_SIZE, path, items->at[0],
				   "blocks of %u bytes", vhdx->block_bytes);
	if (!vhdx_is_sector_size(vhdx->sector_bytes) || !vhdx_is_sector_size(vhdx->physical_bytes))
		return disk_refuse(error, REFUSAL_VHDX_SECTOR_SIZE, path,
				   items->at[vhdx_is_sector_size(vhdx->sector_bytes) ? 4 : 3],
				   "sectors of %u and %u bytes", vhdx->sector_bytes,
				   vhdx->physical_bytes);
	if (!vhdx->disk->size_bytes || vhdx->disk->size_bytes > VHDX_MAX_BYTES ||
	    vhdx->disk->size_bytes % vhdx->sector_bytes)
		return disk_refuse(error, REFUSAL_VHDX_DISK_SIZE, path, items->at[1],
				   "a size of %lu bytes", vhdx->disk->size_bytes);
	vhdx->chunk_ratio = (uint32_t)((8388608ull * vhdx->sector_bytes) / vhdx->block_bytes);
	vhdx->blocks = (vhdx->disk->size_bytes + vhdx->block_bytes - 1) / vhdx->block_bytes;
	vhdx->chunks = (vhdx->blocks + vhdx->chunk_ratio - 1) / vhdx->chunk_ratio;
	vhdx->entries = vhdx->has_parent ? vhdx->chunks * (vhdx->chunk_ratio + 1)
					 : vhdx->blocks + (vhdx->blocks - 1) / vhdx->chunk_ratio;
	if (vhdx->entries * 8 > vhdx->bat_bytes)
		return disk_refuse(error, REFUSAL_VHDX_BAT_SHORT, path, vhdx->bat_offset,
				   "%u bytes for %lu entries of 8: too short for the disk",
				   vhdx->bat_bytes, vhdx->entries);
	return 0;
}

static int read_metadata(struct vhdx *vhdx, struct disk_error *error)
{
	uint8_t *table = malloc(VHDX_TABLE_BYTES);
	struct vhdx_metadata_head head;
	struct items items = { .seen = 0 };
	int result = table ? file_read(&vhdx->disk->file, vhdx->metadata_offset, table,
				       sizeof(vhdx->table_near))
			   : -ENOMEM;

	if (!result)
		memcpy(&head, table, sizeof(head));
	if (!result)
		memcpy(vhdx->table_near, table, sizeof(vhdx->table_near));
	if (!result && sizeof(head) + head.count * sizeof(struct vhdx_item) >
			       VHDX_SECTOR_BYTES) /* few have more than a sector of them */
		result = file_read(&vhdx->disk->file, vhdx->metadata_offset, table,
				   VHDX_TABLE_BYTES);
	if (!result)
		result = file_read(&vhdx->disk->file, vhdx->metadata_offset + VHDX_TABLE_BYTES,
				   vhdx->values_near, sizeof(vhdx->values_near));
	if (result) {
		free(table);
		return host_error(vhdx, error, result);
	}
	if (head.signature != VHDX_METADATA || head.count > VHDX_TABLE_ENTRIES)
		result = disk_refuse(error, REFUSAL_VHDX_METADATA, vhdx->disk->path,
				     vhdx->metadata_offset, "signature %#lx, %u entries",
				     head.signature, head.count);
	for (unsigned n = 0; !result && n < head.count; n++) {
		const uint64_t at = vhdx->metadata_offset + sizeof(head) +
				    n * sizeof(struct vhdx_item);
		struct vhdx_item item;

		memcpy(&item, table + sizeof(head) + n * sizeof(item), sizeof(item));
		if (item.bytes > VHDX_MIB ||
		    (item.bytes &&
		     (item.offset < VHDX_TABLE_BYTES || item.offset > vhdx->metadata_bytes ||
		      item.bytes > vhdx->metadata_bytes - item.offset))) {
			result = disk_refuse(error, REFUSAL_VHDX_ITEM_PLACE, vhdx->disk->path,
					     at + offsetof(struct vhdx_item, offset),
					     "%u bytes at %u of a region of %u: outside of it",
					     item.bytes, item.offset, vhdx->metadata_bytes);
			break;
		}
		result = item_take(vhdx, &item, at, &items, error);
	}
	free(table);
	return result ? result : check_sizes(vhdx, &items, error);
}

/* ---- blocks ---- */

static bool is_good_entry(struct vhdx *vhdx, uint64_t index, uint8_t *map)
{
	uint64_t entry = vhdx->bat[index];
	uint64_t ratio = vhdx->chunk_ratio + 1;
	bool bitmap = index % ratio == vhdx->chunk_ratio;
	unsigned state = vhdx_state(entry);

	if (bitmap && (!vhdx->has_parent || state == BAT_NOT_PRESENT))
		return state == BAT_NOT_PRESENT;
	if (bitmap)
		return state == BAT_PRESENT && space_claim(vhdx, map, vhdx_offset(entry), VHDX_MIB);
	if (index - index / ratio >= vhdx->blocks) /* behind the disk's end */
		return state != 4 && state != 5;
	if (!vhdx_holds(entry))
		return state <= BAT_UNMAPPED;
	return (state != BAT_PARTIAL || vhdx->has_parent) &&
	       space_claim(vhdx, map, vhdx_offset(entry), vhdx->block_bytes);
}

static int read_bat(struct vhdx *vhdx, uint8_t *map, struct disk_error *error)
{
	int result;

	vhdx->bat = calloc(vhdx->entries, 8);
	vhdx->bat_dirty = calloc(1, vhdx_dirty_bytes(vhdx->entries) + 1);
	if (vhdx->has_parent)
		vhdx->bitmap = calloc(vhdx->chunks, sizeof(*vhdx->bitmap));
	if (!vhdx->bat || !vhdx->bat_dirty || (vhdx->has_parent && !vhdx->bitmap))
		return host_error(vhdx, error, -ENOMEM);
	result = file_read(&vhdx->disk->file, vhdx->bat_offset, vhdx->bat, vhdx->entries * 8);
	if (result)
		return host_error(vhdx, error, result);
	for (uint64_t n = 0; n < vhdx->entries; n++)
		if (!is_good_entry(vhdx, n, map))
			return disk_refuse(error, REFUSAL_VHDX_BAT_ENTRY, vhdx->disk->path,
					   vhdx->bat_offset + n * sizeof(*vhdx->bat),
					   "entry %lu (%#lx) is not possible in a file of %lu "
					   "bytes",
					   n, vhdx->bat[n], vhdx->file_bytes);
	return 0;
}

/* ---- opening ---- */

static void vhdx_release(struct vhdx *vhdx)
{
	for (uint64_t n = 0; vhdx->bitmap && n < vhdx->chunks; n++)
		free(vhdx->bitmap[n].bits);
	for (int n = 0; n < 3; n++)
		free(vhdx->parent_path[n]);
	free(vhdx->others);
	free(vhdx->bitmap);
	free(vhdx->bat);
	free(vhdx->bat_dirty);
	free(vhdx->freed.offset);
	free(vhdx->reusable.offset);
	free(vhdx);
}

static int read_start(struct vhdx *vhdx, struct disk_error *error)
{
	uint64_t identifier = 0;
	int64_t bytes = file_size(&vhdx->disk->file);

	if (bytes < 0)
		return disk_refuse_type(error, (int)bytes, vhdx->disk->path);
	vhdx->file_bytes = (uint64_t)bytes;
	if (file_read(&vhdx->disk->file, 0, &identifier, 8) || identifier != VHDX_IDENTIFIER)
		return disk_refuse(error, REFUSAL_VHDX_TYPE, vhdx->disk->path, 0,
				   "%#lx: it is of another format, raw, or damaged", identifier);
	if (vhdx->file_bytes > 2 * VHDX_MAX_BYTES || vhdx->file_bytes < VHDX_MIB)
		return disk_refuse(error, REFUSAL_VHDX_LENGTH, vhdx->disk->path, DISK_NOWHERE,
				   "%lu bytes", vhdx->file_bytes);
	return read_headers(vhdx, error);
}

/* What stands behind the headers; the log is replayed. */
static int read_tables(struct vhdx *vhdx, const struct disk_options *options,
		       struct disk_error *error)
{
	uint8_t *map;
	int result = options->just_made ? 0 : vhdx_replay(vhdx, &vhdx->replayed, error);

	if (result)
		return result;
	if (vhdx->replayed)
		vhdx->file_bytes = (uint64_t)file_size(&vhdx->disk->file);
	map = calloc(1, vhdx->file_bytes / VHDX_MIB / 8 + 2);
	if (!map)
		return host_error(vhdx, error, -ENOMEM);
	map[0] = 1;
	if (!space_claim(vhdx, map, vhdx->header.log_offset, vhdx->header.log_bytes))
		result = disk_refuse(error, REFUSAL_VHDX_LOG_PLACE, vhdx->disk->path,
				     VHDX_HEADER_OFFSET(vhdx->header_at) +
					     offsetof(struct vhdx_header, log_bytes),
				     "a log of %u bytes at offset %lu of a file of %lu bytes",
				     vhdx->header.log_bytes, vhdx->header.log_offset,
				     vhdx->file_bytes);
	if (!result)
		result = read_regions(vhdx, map, error);
	if (!result)
		result = read_metadata(vhdx, error);
	if (!result && !options->items_only)
		result = read_bat(vhdx, map, error);
	free(map);
	return result;
}

/*
 * Beside a writer: every change of a table is in the log before it is in its place, so that tables
 * that were read while the log stayed the same are those of one moment. The headers said where the
 * log is; they are read again in that time, since a writer may have begun before it. -EAGAIN: the
 * log did not stay the same.
 */
static int read_beside(struct vhdx *vhdx, const struct disk_options *options,
		       struct disk_error *error)
{
	struct disk_file file = vhdx->disk->file; /* without what is replayed */
	uint32_t before, after;
	int result = vhdx_log_sum(vhdx, &file, &before);
	int read = result ? result : read_start(vhdx, error);

	if (!read)
		read = read_tables(vhdx, options, error);
	if (!result)
		result = vhdx_log_sum(vhdx, &file, &after);
	if (result)
		return host_error(vhdx, error, result);
	if (before != after)
		return disk_refuse(error, REFUSAL_MOVING, vhdx->disk->path, DISK_NOWHERE,
				   "is in use, and changed while it was read");
	return read;
}

static int read_all(struct vhdx *vhdx, const struct disk_options *options, struct disk_error *error)
{
	int result = read_start(vhdx, error);

	if (!result)
		result = vhdx->disk->in_use ? read_beside(vhdx, options, error)
					    : read_tables(vhdx, options, error);
	if (!result && vhdx->has_parent && !options->without_parents)
		result = vhdx_find_parent(vhdx, options, error);
	return result;
}

int vhdx_open(struct disk *disk, const struct disk_options *options, struct disk_error *error)
{
	struct vhdx *vhdx = calloc(1, sizeof(*vhdx));
	int result;

	if (!vhdx)
		return disk_refuse_host(error, -ENOMEM, disk->path, "opening it");
	vhdx->disk = disk;
	disk->format = vhdx;
	pthread_mutex_init(&vhdx->flush_lock, NULL);
	pthread_mutex_init(&vhdx->map, NULL);
	pthread_rwlock_init(&vhdx->io, NULL);
	result = read_all(vhdx, options, error);
	if (result) {
		if (disk->parent && disk->parent != options->parent)
			disk_close(disk->parent);
		vhdx_release(vhdx);
		return result;
	}
	disk->sector_bytes = vhdx->sector_bytes;
	disk->block_bytes = vhdx->block_bytes;
	disk->data_id = &vhdx->header.data_write;
	disk->is_child = vhdx->has_parent;
	disk->driver = &vhdx_driver;
	if (options->just_made) {
		vhdx->begun = vhdx->data_begun = vhdx->changed = true;
		vhdx->payload_dirty = true; /* nothing of it was synced */
		vhdx->log_sequence = 1;
	}
	if (!options->items_only)
		CHECK(check_vhdx(vhdx));
	return 0;
}

int vhdx_close(struct disk *disk)
{
	struct vhdx *vhdx = vhdx_of(disk);
	int error = disk->write ? vhdx_end(vhdx) : 0;

	/* what was only reserved goes back; blocks end where the last one does */
	if (!error && disk->write && vhdx->end_offset < vhdx->file_bytes)
		file_truncate(&vhdx->disk->file, vhdx->end_offset);
	vhdx_release(vhdx);
	return error;
}
