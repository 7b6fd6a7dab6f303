/*
 * New VHD files: footer, header, an empty table, and of a child both paths of its parent. The copy
 * of the footer in front is written last: a file that was not finished is not one.
 */
#include <endian.h>
#include <libgen.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "disk/digest.h"
#include "vhd_internal.h"

/* Cylinders, heads and sectors as the specification's appendix counts them. */
static void set_geometry(struct vhd_footer *footer, uint64_t size_bytes)
{
	enum { HEADS_MIN = 4, CYLINDERS_MAX = 1024 };
	uint64_t sectors = size_bytes / VHD_SECTOR;
	uint64_t tracks;
	uint32_t per_track = 17;
	uint32_t heads;

	if (sectors > 65535ull * 16 * 255)
		sectors = 65535ull * 16 * 255;
	if (sectors >= 65535ull * 16 * 63) {
		per_track = 255;
		heads = 16;
		tracks = sectors / per_track;
	} else {
		tracks = sectors / per_track;
		heads = HEADS_MIN;
		if (tracks >= HEADS_MIN * CYLINDERS_MAX)
			heads = (uint32_t)((tracks + CYLINDERS_MAX - 1) / CYLINDERS_MAX);
		if (tracks >= heads * 1024ull || heads > 16) {
			per_track = 31;
			heads = 16;
			tracks = sectors / per_track;
		}
		if (tracks >= heads * 1024ull) {
			per_track = 63;
			heads = 16;
			tracks = sectors / per_track;
		}
	}
	footer->geometry.cylinders = htobe16((uint16_t)(tracks / heads));
	footer->geometry.heads = (uint8_t)heads;
	footer->geometry.sectors = (uint8_t)per_track;
}

/* The creator is the one of Hyper-V: others take the exact size only from names that they know, and
 * else the geometry's. */
static void make_footer(struct vhd_footer *footer, uint64_t size_bytes, uint32_t type)
{
	const struct guid id = guid_new();

	*footer = (struct vhd_footer){ .features = htobe32(2),
				       .version = htobe32(0x10000),
				       .header_offset =
					       type == VHD_FIXED ? UINT64_MAX : htobe64(VHD_SECTOR),
				       .seconds = htobe32((uint32_t)(time(NULL) - VHD_YEAR_2000)),
				       .creator_version = htobe32(0xa0000),
				       .creator_system = htobe32(0x5769326b),
				       .original_bytes = htobe64(size_bytes),
				       .size_bytes = htobe64(size_bytes),
				       .type = htobe32(type) };
	memcpy(footer->cookie, "conectix", 8);
	memcpy(footer->creator, "win ", 4);
	memcpy(footer->id, id.byte, 16);
	set_geometry(footer, size_bytes);
	footer->checksum = htobe32(
		vhd_checksum(footer, sizeof(*footer), offsetof(struct vhd_footer, checksum)));
}

/* Both paths, absolute first. */
static int write_locators(struct disk_file *file, struct vhd_header *header, const char *child,
			  struct disk *parent, uint64_t at)
{
	char *absolute = realpath(parent->path, NULL);
	char *copy = strdup(child);
	char *here = copy ? realpath(dirname(copy), NULL) : NULL;
	char *relative = NULL;
	static const uint32_t codes[2] = { VHD_CODE_ABSOLUTE, VHD_CODE_RELATIVE };
	const char *paths[2];
	const char *below = NULL;
	int error = 0;

	if (absolute && here)
		below = !strncmp(absolute, here, strlen(here)) && absolute[strlen(here)] == '/'
				? absolute + strlen(here) + 1
				: absolute;
	if (!below || asprintf(&relative, ".\\%s", below) < 0)
		error = -ENOMEM;
	for (char *character = relative; !error && *character; character++)
		*character = *character == '/' ? '\\' : *character;
	paths[0] = absolute;
	paths[1] = relative;
	for (int n = 0; n < 2 && !error; n++) {
		uint8_t text[VHD_LOCATOR_BYTES] = { 0 };
		int bytes = parent_utf16(paths[n], text, sizeof(text), false);

		header->locator[n] = (struct vhd_locator){
			.code = htobe32(codes[n]),
			.space = htobe32(VHD_LOCATOR_BYTES),
			.bytes = htobe32((uint32_t)(bytes > 0 ? bytes : 0)),
			.offset = htobe64(at + (uint64_t)n * VHD_LOCATOR_BYTES),
		};
		error = bytes <= 0 ? -ENAMETOOLONG
				   : file_write(file, at + (uint64_t)n * VHD_LOCATOR_BYTES, text,
						sizeof(text));
	}
	if (!error && parent_utf16(basename(absolute), header->parent_name,
				   sizeof(header->parent_name) - 2, true) <= 0)
		error = -ENAMETOOLONG;
	free(absolute);
	free(relative);
	free(here);
	free(copy);
	return error;
}

static int write_dynamic(struct disk_file *file, const char *path, const struct vhd_footer *footer,
			 uint64_t size_bytes, uint32_t block_bytes, struct disk *parent)
{
	uint32_t entries = (uint32_t)((size_bytes + block_bytes - 1) / block_bytes);
	uint64_t table_bytes = ((uint64_t)entries * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	uint64_t table = VHD_SECTOR + sizeof(struct vhd_header);
	uint64_t end = table + table_bytes + (parent ? 2 * VHD_LOCATOR_BYTES : 0);
	struct vhd_header header = { .next = UINT64_MAX,
				     .table_offset = htobe64(table),
				     .version = htobe32(0x10000),
				     .entries = htobe32(entries),
				     .block_bytes = htobe32(block_bytes) };
	uint8_t *unused = malloc(table_bytes);
	int error = unused ? 0 : -ENOMEM;

	memcpy(header.cookie, "cxsparse", 8);
	if (!error) {
		memset(unused, 0xff, table_bytes);
		error = file_write(file, table, unused, table_bytes);
	}
	if (!error && parent) {
		struct stat st;

		memcpy(header.parent_id, vhd_of(parent)->footer.id, 16);
		header.parent_seconds = htobe32(
			stat(parent->path, &st) ? 0 : (uint32_t)(st.st_mtime - VHD_YEAR_2000));
		error = write_locators(file, &header, path, parent, table + table_bytes);
	}
	header.checksum = htobe32(
		vhd_checksum(&header, sizeof(header), offsetof(struct vhd_header, checksum)));
	if (!error)
		error = file_write(file, VHD_SECTOR, &header, sizeof(header));
	if (!error)
		error = file_write(file, end, footer, sizeof(*footer));
	if (!error)
		error = file_flush(file);
	free(unused);
	/* last: a file that was not finished is not one */
	return error ? error : file_write(file, 0, footer, sizeof(*footer));
}

/* What the parent holds goes beside the child: the format has no place for it. */
static int write_link(const char *path, struct disk *parent)
{
	struct link_items items;
	bool unsynced; /* the child is removed then */
	int error = link_encode(parent, LINK_KEPT_OR_COMPUTED, &items);

	if (error)
		return error;
	error = side_write(NULL, path, DIGEST_ITEM_PARENT, items.table, items.table_bytes,
			   &unsynced);
	if (!error)
		error = side_write(NULL, path, DIGEST_ITEM_LINK, items.link, items.link_bytes,
				   &unsynced);
	free(items.link);
	free(items.table);
	return error;
}

int vhd_create(struct disk_file *file, const char *path, const struct disk_create *what,
	       struct disk *parent, struct disk_error *error)
{
	uint64_t size_bytes = parent ? parent->size_bytes : what->size_bytes;
	uint32_t like_parent =
		parent && parent->block_bytes ? parent->block_bytes : VHD_BLOCK_BYTES;
	uint32_t block_bytes = what->block_bytes ? what->block_bytes : like_parent;
	uint32_t type = what->fixed ? VHD_FIXED : VHD_DYNAMIC;
	struct vhd_footer footer;
	int result;

	if (parent && (parent->format_id != DISK_VHD || what->fixed))
		return disk_refuse(error, REFUSAL_MAKE_CHILD, path, DISK_NOWHERE,
				   "a%s VHD child of a %s file", what->fixed ? " fixed" : "",
				   disk_format_name(parent->format_id));
	if (!size_bytes || size_bytes % VHD_SECTOR || size_bytes > VHD_MAX_BYTES)
		return disk_refuse(error, REFUSAL_MAKE_SIZE, path, DISK_NOWHERE,
				   "%lu bytes, of VHD", size_bytes);
	if (block_bytes < VHD_BLOCK_MIN || block_bytes > VHD_BLOCK_MAX ||
	    block_bytes & (block_bytes - 1))
		return disk_refuse(error, REFUSAL_MAKE_BLOCK, path, DISK_NOWHERE,
				   "VHD blocks of %u bytes", block_bytes);
	if (what->logical_sector_bytes && what->logical_sector_bytes != VHD_SECTOR)
		return disk_refuse(error, REFUSAL_MAKE_SECTOR, path, DISK_NOWHERE,
				   "VHD sectors of %u bytes", what->logical_sector_bytes);
	make_footer(&footer, size_bytes, parent ? VHD_CHILD : type);
	result = parent && !what->in_use ? write_link(path, parent) : 0;
	if (!result)
		result = what->fixed ? file_write(file, size_bytes, &footer, sizeof(footer))
				     : write_dynamic(file, path, &footer, size_bytes, block_bytes,
						     parent);
	if (!result)
		result = file_flush(file);
	return result ? disk_refuse_host(error, result, path, "making it") : 0;
}
