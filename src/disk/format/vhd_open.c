/* Opening VHD files: everything that they say is checked here, once; and their parents. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "disk/search.h"
#include "vhd_internal.h"

/* One's complement of the sum of all bytes but the sum's own. */
uint32_t vhd_checksum(const void *at, size_t bytes, size_t sum_at)
{
	const uint8_t *byte = at;
	uint32_t sum = 0;

	for (size_t n = 0; n < bytes; n++)
		sum += n < sum_at || n >= sum_at + 4 ? byte[n] : 0;
	return ~sum;
}

bool vhd_is_footer(const struct vhd_footer *footer)
{
	return !memcmp(footer->cookie, "conectix", 8) &&
	       be32toh(footer->checksum) == vhd_checksum(footer, sizeof(*footer),
							 offsetof(struct vhd_footer, checksum)) &&
	       be32toh(footer->version) >> 16 == 1;
}

/* In two different orders of bytes: here it is only compared and shown. */
static struct guid id_of(const uint8_t raw[16])
{
	struct guid id;

	memcpy(id.byte,
	       (uint8_t[16]){ raw[3], raw[2], raw[1], raw[0], raw[5], raw[4], raw[7], raw[6] }, 8);
	memcpy(id.byte + 8, raw + 8, 8);
	return id;
}

/* What lies at the end, of 512 bytes or, as the oldest programs wrote it, 511. */
static bool read_last_footer(struct disk *disk, uint64_t bytes, struct vhd_footer *ret)
{
	uint64_t short_bytes = sizeof(*ret) - 1;

	if (!file_read(&disk->file, bytes / VHD_SECTOR * VHD_SECTOR - VHD_SECTOR, ret,
		       sizeof(*ret)) &&
	    vhd_is_footer(ret))
		return true;
	*ret = (struct vhd_footer){ .type = 0 };
	return bytes % VHD_SECTOR == short_bytes &&
	       !file_read(&disk->file, bytes - short_bytes, ret, short_bytes) && vhd_is_footer(ret);
}

static int read_footer(struct disk *disk, uint64_t bytes, struct disk_error *error)
{
	struct vhd *vhd = vhd_of(disk);
	struct vhd_footer first, last;
	bool is_first, is_last;

	if (bytes < 2 * VHD_SECTOR || file_read(&disk->file, 0, &first, sizeof(first)))
		return disk_refuse(error, REFUSAL_VHD_SHORT, disk->path, DISK_NOWHERE,
				   "%lu bytes, too short for a VHD file", bytes);
	is_last = read_last_footer(disk, bytes, &last);
	vhd->footer = vhd_is_footer(&first) && be32toh(first.type) != VHD_FIXED ? first : last;
	vhd->type = be32toh(vhd->footer.type);
	is_first = vhd->type != VHD_FIXED && !memcmp(&vhd->footer, &first, sizeof(first));
	if (!is_first)
		vhd->footer_at = bytes % VHD_SECTOR && is_last
					 ? bytes - bytes % VHD_SECTOR
					 : bytes / VHD_SECTOR * VHD_SECTOR - VHD_SECTOR;
	if (!vhd_is_footer(&vhd->footer))
		return disk_refuse(error, REFUSAL_VHD_FOOTER, disk->path, vhd->footer_at,
				   "no footer, and none at offset 0");
	if (vhd->type < VHD_FIXED || vhd->type > VHD_CHILD)
		return disk_refuse(error, REFUSAL_VHD_TYPE, disk->path,
				   vhd->footer_at + offsetof(struct vhd_footer, type), "type %u",
				   vhd->type);
	disk->size_bytes = be64toh(vhd->footer.size_bytes);
	vhd->id = id_of(vhd->footer.id);
	vhd->footer_missing = !is_last || bytes % VHD_SECTOR;
	vhd->end = (bytes + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	if (!vhd->footer_missing)
		vhd->end -= VHD_SECTOR;
	if (!disk->size_bytes || disk->size_bytes % VHD_SECTOR || disk->size_bytes > VHD_MAX_BYTES)
		return disk_refuse(error, REFUSAL_VHD_SIZE, disk->path,
				   vhd->footer_at + offsetof(struct vhd_footer, size_bytes),
				   "a size of %lu bytes", disk->size_bytes);
	if (vhd->type == VHD_FIXED &&
	    disk->size_bytes > bytes / VHD_SECTOR * VHD_SECTOR -
				       (is_last && !vhd->footer_missing ? VHD_SECTOR : 0))
		return disk_refuse(error, REFUSAL_VHD_FIXED_CUT, disk->path,
				   vhd->footer_at + offsetof(struct vhd_footer, size_bytes),
				   "a disk of %lu bytes in a file of %lu: cut off",
				   disk->size_bytes, bytes);
	return 0;
}

struct vhd_place { uint64_t begin, end; };

static int by_begin(const void *one, const void *other)
{
	const struct vhd_place *a = one;
	const struct vhd_place *b = other;

	return (a->begin > b->begin) - (a->begin < b->begin);
}

static struct vhd_place place_of(const struct disk *disk, uint32_t block)
{
	uint64_t begin = vhd_block_offset(vhd_of(disk), block);

	return (struct vhd_place){ .begin = begin, .end = begin + vhd_place_bytes(disk, block) };
}

int vhd_overlap(const struct disk *disk)
{
	const struct vhd *vhd = vhd_of(disk);
	struct vhd_place *places = malloc((vhd->entries + 1ull) * sizeof(*places));
	uint32_t count = 0;
	int result = 0;

	if (!places)
		return -ENOMEM;
	for (uint32_t n = 0; n < vhd->entries; n++)
		if (vhd->table[n] != VHD_UNUSED)
			places[count++] = place_of(disk, n);
	qsort(places, count, sizeof(*places), by_begin);
	for (uint32_t n = 1; n < count && !result; n++)
		result = places[n].begin < places[n - 1].end;
	free(places);
	return result;
}

/* Each block in the file, not over another one, the tables or the footer. */
static int check_table(struct disk *disk, uint64_t first, uint64_t bytes, struct disk_error *error)
{
	struct vhd *vhd = vhd_of(disk);
	int result;

	for (uint32_t n = 0; n < vhd->entries; n++) {
		struct vhd_place place = place_of(disk, n);

		if (vhd->table[n] == VHD_UNUSED)
			continue;
		if (place.begin < first)
			return disk_refuse(error, REFUSAL_VHD_ENTRY_TABLES, disk->path,
					   vhd->table_offset + (uint64_t)n * 4,
					   "entry %u, sector %u, lies within the tables, which end "
					   "at %lu",
					   n, vhd->table[n], first);
		if (place.end > bytes)
			return disk_refuse(error, REFUSAL_VHD_ENTRY_CUT, disk->path,
					   vhd->table_offset + (uint64_t)n * 4,
					   "entry %u, sector %u, ends at %lu of a file of %lu "
					   "bytes: cut off",
					   n, vhd->table[n], place.end, bytes);
		if (place.end > vhd->end)
			return disk_refuse(error, REFUSAL_VHD_ENTRY_FOOTER, disk->path,
					   vhd->table_offset + (uint64_t)n * 4,
					   "entry %u, sector %u, lies over the footer at %lu", n,
					   vhd->table[n], vhd->end);
	}
	result = vhd_overlap(disk);
	if (result < 0)
		return disk_refuse_host(error, result, disk->path, "checking its table");
	return result ? disk_refuse(error, REFUSAL_VHD_OVERLAP, disk->path, vhd->table_offset,
				    "two blocks lie over each other")
		      : 0;
}

/* In memory to the end of its last sector; `all`: how many entries the file has. */
static int read_table(struct disk *disk, uint32_t all, uint64_t bytes, struct disk_error *error)
{
	struct vhd *vhd = vhd_of(disk);
	uint64_t end =
		vhd->table_offset + ((uint64_t)all * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	uint32_t whole = (vhd->entries + 127) / 128 * 128;
	int result;

	vhd->table = malloc((uint64_t)whole * 4);
	vhd->table_dirty = calloc(1, vhd->entries / 128 / 8 + 1);
	vhd->bitmap = calloc(vhd->entries, sizeof(*vhd->bitmap));
	if (!vhd->table || !vhd->table_dirty || !vhd->bitmap)
		return disk_refuse_host(error, -ENOMEM, disk->path, "reading its table");
	memset(vhd->table, 0xff, (uint64_t)whole * 4);
	result = file_read(&disk->file, vhd->table_offset, vhd->table,
			   (uint64_t)(whole < all ? whole : all) * 4);
	if (result)
		return disk_refuse_host(error, result, disk->path, "reading its table");
	for (uint32_t n = 0; n < whole; n++)
		vhd->table[n] = be32toh(vhd->table[n]);
	return check_table(disk, end, bytes, error);
}

static int check_header(struct disk *disk, const struct vhd_header *header, uint64_t bytes,
			struct disk_error *error)
{
	struct vhd *vhd = vhd_of(disk);
	const uint64_t at = be64toh(vhd->footer.header_offset);
	uint64_t needed;

	if (memcmp(header->cookie, "cxsparse", 8) ||
	    be32toh(header->checksum) !=
		    vhd_checksum(header, sizeof(*header), offsetof(struct vhd_header, checksum)))
		return disk_refuse(error, REFUSAL_VHD_HEADER, disk->path, at,
				   "no header: another start, or a wrong checksum");
	vhd->block_bytes = be32toh(header->block_bytes);
	if (vhd->block_bytes < VHD_BLOCK_MIN || vhd->block_bytes > VHD_BLOCK_MAX ||
	    vhd->block_bytes & (vhd->block_bytes - 1))
		return disk_refuse(error, REFUSAL_VHD_BLOCK_SIZE, disk->path,
				   at + offsetof(struct vhd_header, block_bytes),
				   "blocks of %u bytes", vhd->block_bytes);
	vhd->bitmap_bytes =
		(vhd->block_bytes / VHD_SECTOR / 8 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	needed = (disk->size_bytes + vhd->block_bytes - 1) / vhd->block_bytes;
	vhd->table_offset = be64toh(header->table_offset);
	if (needed > be32toh(header->entries) || vhd->table_offset % VHD_SECTOR ||
	    vhd->table_offset < 3 * VHD_SECTOR || vhd->table_offset > bytes ||
	    be32toh(header->entries) * 4ull > bytes - vhd->table_offset)
		return disk_refuse(error, REFUSAL_VHD_TABLE, disk->path,
				   at + offsetof(struct vhd_header, table_offset),
				   "a block table of %u entries at offset %lu, for %lu blocks, in "
				   "a file of %lu bytes",
				   be32toh(header->entries), vhd->table_offset, needed, bytes);
	vhd->entries = (uint32_t)needed;
	return 0;
}

static int read_header(struct disk *disk, struct vhd_header *ret, uint64_t bytes,
		       struct disk_error *error)
{
	const struct vhd *vhd = vhd_of(disk);
	const uint64_t at = be64toh(vhd->footer.header_offset);
	int result;

	if (at > bytes || sizeof(*ret) > bytes - at)
		return disk_refuse(error, REFUSAL_VHD_HEADER_PLACE, disk->path,
				   vhd->footer_at + offsetof(struct vhd_footer, header_offset),
				   "a header at offset %lu of a file of %lu bytes", at, bytes);
	result = file_read(&disk->file, at, ret, sizeof(*ret));
	return result ? disk_refuse_host(error, result, disk->path, "reading its header")
		      : check_header(disk, ret, bytes, error);
}

/* ---- the parent ---- */

static int vhd_check_parent(struct disk *disk, struct disk *parent, struct disk_error *error)
{
	struct vhd *vhd = vhd_of(disk);
	char want[GUID_TEXT_BYTES], has[GUID_TEXT_BYTES];

	if (!guid_equal(vhd_of(parent)->id, vhd->parent_id)) {
		guid_print(vhd->parent_id, want);
		guid_print(vhd_of(parent)->id, has);
		return disk_refuse(
			error, REFUSAL_VHD_PARENT_ID, disk->path,
			be64toh(vhd->footer.header_offset) + offsetof(struct vhd_header, parent_id),
			"was made on the disk %s, but %s is %s", want, parent->path, has);
	}
	return parent->size_bytes > disk->size_bytes
		       ? disk_refuse(error, REFUSAL_VHD_PARENT_SIZE, disk->path, DISK_NOWHERE,
				     "its parent %s is larger", parent->path)
		       : 0;
}

static char *read_locator(struct disk *disk, const struct vhd_locator *locator, uint64_t bytes,
			  bool *ret_relative)
{
	uint32_t code = be32toh(locator->code);
	uint32_t count = be32toh(locator->bytes);
	uint64_t at = be64toh(locator->offset);
	uint8_t *text;
	char *path = NULL;

	*ret_relative = code == VHD_CODE_RELATIVE;
	if ((!*ret_relative && code != VHD_CODE_ABSOLUTE) || !count || count > VHD_LOCATOR_BYTES ||
	    at > bytes || count > bytes - at)
		return NULL;
	text = malloc(count);
	if (text && !file_read(&disk->file, at, text, count))
		path = parent_utf8(text, count & ~1u, false);
	free(text);
	return path;
}

/* The name that the header has: UTF-16, big-endian. */
static char *read_parent_name(const struct disk *disk, const struct vhd_header *header)
{
	size_t length = 0;
	char *text, *name;

	while (length + 2 <= sizeof(header->parent_name) &&
	       (header->parent_name[length] | header->parent_name[length + 1]))
		length += 2;
	text = length ? parent_utf8(header->parent_name, length, true) : NULL;
	name = text ? parent_host_path(disk->path, text, false) : NULL;
	free(text);
	return name;
}

static int vhd_find_parent(struct disk *disk, const struct vhd_header *header,
			   const struct disk_options *options, uint64_t bytes,
			   struct disk_error *error)
{
	char *name = read_parent_name(disk, header);
	struct parent_query query = { .format = DISK_VHD, .name = name, .check = vhd_check_parent };
	enum { PATHS = sizeof(query.path) / sizeof(query.path[0]) };
	int paths = 0;
	int result;

	for (int n = 0; n < VHD_LOCATORS && paths < PATHS; n++) {
		bool relative;
		char *text = read_locator(disk, &header->locator[n], bytes, &relative);

		if (text)
			query.path[paths++] = parent_host_path(disk->path, text, relative);
		free(text);
	}
	result = search_parent(disk, &query, options, error);
	while (paths--)
		free(query.path[paths]);
	free(name);
	return result;
}

int vhd_open(struct disk *disk, const struct disk_options *options, struct disk_error *error)
{
	struct vhd *vhd = calloc(1, sizeof(*vhd));
	int64_t bytes = file_size(&disk->file);
	struct vhd_header header;
	int result;

	if (!vhd)
		return disk_refuse_host(error, -ENOMEM, disk->path, "opening it");
	if (bytes < 0) {
		free(vhd);
		return disk_refuse_type(error, (int)bytes, disk->path);
	}
	disk->format = vhd;
	disk->sector_bytes = VHD_SECTOR;
	pthread_rwlock_init(&vhd->lock, NULL);
	pthread_mutex_init(&vhd->loading, NULL);
	result = read_footer(disk, (uint64_t)bytes, error);
	if (!result && vhd->type != VHD_FIXED) {
		result = read_header(disk, &header, (uint64_t)bytes, error);
		if (!result)
			result = read_table(disk, be32toh(header.entries), (uint64_t)bytes, error);
		disk->block_bytes = vhd->block_bytes;
	}
	if (!result && vhd->type == VHD_CHILD) {
		disk->is_child = true;
		vhd->parent_id = id_of(header.parent_id);
		result = options->without_parents
				 ? 0
				 : vhd_find_parent(disk, &header, options, (uint64_t)bytes, error);
	}
	if (result) {
		if (disk->parent)
			disk_close(disk->parent);
		vhd_release(vhd);
		return result;
	}
	disk->driver = &vhd_driver;
	return 0;
}
