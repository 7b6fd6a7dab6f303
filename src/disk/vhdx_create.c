/*
 * A new VHDX file:
 *
 *   0 identifier, headers, region tables   1 MiB log (1 MiB)   2 MiB metadata (1 MiB)   3 MiB BAT   then, when fixed, the blocks
 */
#include "vhdx_internal.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/crc32c.h"

enum { LOG_BYTES = 1 << 20, METADATA_BYTES = 1 << 20, DEFAULT_BLOCK = 2 << 20, FIRST_ITEM = 65536 };
#define LOG_OFFSET (1 * VHDX_MIB)
#define METADATA_OFFSET (2 * VHDX_MIB)
#define BAT_OFFSET (3 * VHDX_MIB)

struct plan { uint64_t size_bytes, blocks, entries, bat_bytes; uint32_t block_bytes, sector_bytes, chunk_ratio; bool fixed; struct disk *parent; const char *path; };

static int make_plan(const struct disk_create *what, struct disk *parent, const char *path, struct plan *p, struct disk_error *error)
{
	struct disk_info info = { 0 };
	uint64_t chunks;

	if (parent)
		disk_info(parent, &info);
	*p = (struct plan){ .size_bytes = parent ? info.size_bytes : what->size_bytes, .fixed = what->fixed, .parent = parent, .path = path };
	p->block_bytes = what->block_bytes ? what->block_bytes : parent ? info.block_bytes : DEFAULT_BLOCK;
	p->sector_bytes = parent ? info.logical_sector_bytes : what->logical_sector_bytes ? what->logical_sector_bytes : 512;
	if (p->block_bytes < VHDX_MIB || p->block_bytes > 256 * VHDX_MIB || p->block_bytes & (p->block_bytes - 1))
		return disk_fail(error, -EINVAL, path, "a block size must be a power of two from 1M to 256M");
	if (p->sector_bytes != 512 && p->sector_bytes != 4096)
		return disk_fail(error, -EINVAL, path, "a sector size must be 512 or 4096");
	if (!p->size_bytes || p->size_bytes > VHDX_MAX_BYTES || p->size_bytes % p->sector_bytes)
		return disk_fail(error, -EINVAL, path, "a size must be a whole number of sectors up to 64 TiB");
	if (parent && p->fixed)
		return disk_fail(error, -EINVAL, path, "a child cannot be fixed");
	p->chunk_ratio = (uint32_t)(8388608ull * p->sector_bytes / p->block_bytes);
	p->blocks = (p->size_bytes + p->block_bytes - 1) / p->block_bytes;
	chunks = (p->blocks + p->chunk_ratio - 1) / p->chunk_ratio;
	p->entries = parent ? chunks * (p->chunk_ratio + 1) : p->blocks + (p->blocks - 1) / p->chunk_ratio;
	p->bat_bytes = (p->entries * 8 + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB;
	return 0;
}

/* ---- the parent's locator ---- */

struct locator { uint8_t *bytes; size_t used; unsigned count; };
enum { LOCATOR_PAIRS = 4, LOCATOR_TEXT = sizeof(struct vhdx_locator_head) + LOCATOR_PAIRS * sizeof(struct vhdx_locator_entry), LOCATOR_BYTES = 32768 };

/* UTF-8 to UTF-16LE behind what is there; its length in bytes, or -EILSEQ, -ENAMETOOLONG. */
static int put_utf16(struct locator *l, const char *text)
{
	size_t before = l->used;

	for (const uint8_t *t = (const uint8_t *)text; *t;) {
		unsigned more = *t < 0x80 ? 0 : (*t & 0xe0) == 0xc0 ? 1 : (*t & 0xf0) == 0xe0 ? 2 : (*t & 0xf8) == 0xf0 ? 3 : 4;
		uint32_t c = more == 0 ? *t : *t & (0x3fu >> more);
		uint16_t unit[2];

		if (more == 4)
			return -EILSEQ;
		for (t++; more; more--, t++) {
			if ((*t & 0xc0) != 0x80)
				return -EILSEQ;
			c = c << 6 | (*t & 63);
		}
		if (l->used + 4 > LOCATOR_BYTES)
			return -ENAMETOOLONG;
		unit[0] = (uint16_t)(c < 0x10000 ? c : 0xd800 | (c - 0x10000) >> 10);
		unit[1] = (uint16_t)(0xdc00 | ((c - 0x10000) & 0x3ff));
		memcpy(l->bytes + l->used, unit, 4);
		l->used += c < 0x10000 ? 2 : 4;
	}
	return (int)(l->used - before);
}

static int put_pair(struct locator *l, const char *key, const char *value)
{
	struct vhdx_locator_entry e = { .key_offset = (uint32_t)l->used };
	int bytes = put_utf16(l, key);

	if (bytes < 0)
		return bytes;
	e.key_bytes = (uint16_t)bytes;
	e.value_offset = (uint32_t)l->used;
	bytes = put_utf16(l, value);
	if (bytes < 0)
		return bytes;
	e.value_bytes = (uint16_t)bytes;
	memcpy(l->bytes + sizeof(struct vhdx_locator_head) + l->count++ * sizeof(e), &e, sizeof(e));
	return 0;
}

static char *with_backslashes(char *path)
{
	for (char *c = path; c && *c; c++)
		*c = *c == '/' ? '\\' : *c;
	return path;
}

/* How to reach `to` from the directory `from`, both resolved. */
static char *relative_path(const char *from, const char *to)
{
	size_t common = 0;
	char *path = strdup("."), *next;

	for (size_t n = 0; from[n] == to[n] || (!from[n] && to[n] == '/'); n++) {
		if (to[n] == '/')
			common = n;
		if (!from[n] || !to[n])
			break;
	}
	for (const char *c = from + common; path && (c = strchr(c, '/')) && c[1]; c++) {
		if (asprintf(&next, "%s/..", path) < 0)
			next = NULL;
		free(path);
		path = next;
	}
	if (!path || asprintf(&next, "%s%s", path, to + common) < 0)
		next = NULL;
	free(path);
	return next;
}

static int put_id(struct locator *l, const char *key, struct guid id)
{
	char text[GUID_TEXT_BYTES], value[GUID_TEXT_BYTES + 2];

	if (guid_is_zero(id))
		return 0;
	guid_print(id, text);
	snprintf(value, sizeof(value), "{%s}", text);
	return put_pair(l, key, value);
}

int vhdx_make_locator(const char *child_path, const char *parent_path, struct guid id, struct guid id2, uint8_t **ret_value, uint32_t *ret_bytes)
{
	struct vhdx_locator_head h = { .type = VHDX_LOCATOR_TYPE };
	char *copy = strdup(child_path), *directory = copy ? realpath(dirname(copy), NULL) : NULL, *parent = realpath(parent_path, NULL);
	char *relative = directory && parent ? relative_path(directory, parent) : NULL;
	struct locator l = { .bytes = calloc(1, LOCATOR_BYTES), .used = LOCATOR_TEXT };
	int error = relative && l.bytes ? 0 : -ENOMEM;

	if (!error)
		error = put_id(&l, "parent_linkage", id);
	if (!error)
		error = put_id(&l, "parent_linkage2", id2);
	if (!error)
		error = put_pair(&l, "relative_path", with_backslashes(relative));
	if (!error)
		error = put_pair(&l, "absolute_win32_path", with_backslashes(parent));
	h.count = (uint16_t)l.count;
	if (l.bytes)
		memcpy(l.bytes, &h, sizeof(h));
	free(copy);
	free(directory);
	free(parent);
	free(relative);
	*ret_value = l.bytes;
	*ret_bytes = (uint32_t)l.used;
	return error;
}

/* ---- the parts ---- */

struct metadata { uint8_t *bytes; uint32_t used; unsigned count; };

static void put_item(struct metadata *m, struct guid id, uint32_t flags, const void *value, uint32_t bytes)
{
	struct vhdx_item i = { .id = id, .offset = m->used, .bytes = bytes, .flags = flags | VHDX_ITEM_REQUIRED };

	memcpy(m->bytes + sizeof(struct vhdx_metadata_head) + m->count++ * sizeof(i), &i, sizeof(i));
	memcpy(m->bytes + m->used, value, bytes);
	m->used += (bytes + 7) & ~7u;
}

static int write_metadata(struct disk_file *f, const struct plan *p)
{
	struct metadata m = { .bytes = calloc(1, METADATA_BYTES), .used = FIRST_ITEM };
	const uint32_t parameters[2] = { p->block_bytes, (p->fixed ? VHDX_FIXED : 0) | (p->parent ? VHDX_HAS_PARENT : 0) }, physical = 4096;
	const struct guid id = p->parent ? vhdx_of(p->parent)->disk_id : guid_new();
	struct vhdx_metadata_head h = { .signature = VHDX_METADATA };
	uint8_t *locator = NULL;
	uint32_t locator_bytes = 0;
	int error = m.bytes ? 0 : -ENOMEM;

	if (!error && p->parent)
		error = vhdx_make_locator(p->path, p->parent->path, vhdx_of(p->parent)->header.data_write, (struct guid){ 0 }, &locator, &locator_bytes);
	if (!error) {
		put_item(&m, VHDX_ITEM_PARAMETERS, 0, parameters, sizeof(parameters));
		put_item(&m, VHDX_ITEM_SIZE, VHDX_ITEM_DISK, &p->size_bytes, 8);
		put_item(&m, VHDX_ITEM_DISK_ID, VHDX_ITEM_DISK, &id, sizeof(id));
		put_item(&m, VHDX_ITEM_LOGICAL, VHDX_ITEM_DISK, &p->sector_bytes, 4);
		put_item(&m, VHDX_ITEM_PHYSICAL, VHDX_ITEM_DISK, &physical, 4);
		if (p->parent)
			put_item(&m, VHDX_ITEM_LOCATOR, 0, locator, locator_bytes);
		h.count = (uint16_t)m.count;
		memcpy(m.bytes, &h, sizeof(h));
		error = file_write(f, METADATA_OFFSET, m.bytes, METADATA_BYTES);
	}
	free(locator);
	free(m.bytes);
	return error;
}

static int write_regions(struct disk_file *f, const struct plan *p)
{
	uint8_t *table = calloc(1, VHDX_TABLE_BYTES);
	const struct vhdx_region regions[2] = { { VHDX_REGION_METADATA, METADATA_OFFSET, METADATA_BYTES, 1 },
						{ VHDX_REGION_BAT, BAT_OFFSET, (uint32_t)p->bat_bytes, 1 } };
	struct vhdx_region_head h = { .signature = VHDX_REGI, .count = 2 };
	int error = table ? 0 : -ENOMEM;

	if (!error) {
		memcpy(table, &h, sizeof(h));
		memcpy(table + sizeof(h), regions, sizeof(regions));
		h.checksum = crc32c(0, table, VHDX_TABLE_BYTES);
		memcpy(table, &h, sizeof(h));
		error = file_write(f, VHDX_REGION_OFFSET(0), table, VHDX_TABLE_BYTES);
	}
	if (!error)
		error = file_write(f, VHDX_REGION_OFFSET(1), table, VHDX_TABLE_BYTES);
	free(table);
	return error;
}

static int write_headers(struct disk_file *f)
{
	static const char creator[] = "U\0m\0b\0r\0a\0";
	struct vhdx_header h = { .signature = VHDX_HEAD, .sequence = 1, .file_write = guid_new(), .data_write = guid_new(), .version = 1,
				 .log_bytes = LOG_BYTES, .log_offset = LOG_OFFSET };
	uint8_t identifier[520] = "vhdxfile";
	int error = 0;

	memcpy(identifier + 8, creator, sizeof(creator));
	error = file_write(f, 0, identifier, sizeof(identifier));
	for (int n = 0; n < 2 && !error; n++, h.sequence++) {
		h.checksum = 0;
		h.checksum = crc32c(0, &h, sizeof(h));
		error = file_write(f, VHDX_HEADER_OFFSET(n), &h, sizeof(h));
	}
	return error;
}

/* Only a fixed file has entries to write: the rest of the table is zero, which says "not present". */
static int write_bat(struct disk_file *f, const struct plan *p)
{
	uint64_t *bat = calloc(p->entries, 8), offset = BAT_OFFSET + p->bat_bytes;
	int error = bat ? 0 : -ENOMEM;

	for (uint64_t block = 0; !error && block < p->blocks; block++, offset += p->block_bytes)
		bat[block + block / p->chunk_ratio] = offset | BAT_PRESENT;
	if (!error)
		error = file_write(f, BAT_OFFSET, bat, p->entries * 8);
	free(bat);
	return error;
}

/* The identifier and headers last: a file that was not finished is not one. */
int vhdx_create(struct disk_file *f, const char *path, const struct disk_create *what, struct disk *parent, struct disk_error *error)
{
	struct plan p;
	int result = make_plan(what, parent, path, &p, error);

	if (result)
		return result;
	result = f->ops->truncate(f->context, BAT_OFFSET + p.bat_bytes + (p.fixed ? p.blocks * p.block_bytes : 0));
	if (!result)
		result = write_regions(f, &p);
	if (!result)
		result = write_metadata(f, &p);
	if (!result && p.fixed)
		result = write_bat(f, &p);
	if (!result)
		result = file_flush(f);
	if (!result)
		result = write_headers(f);
	return result ? disk_fail(error, result, path, "%s", strerror(-result)) : 0;
}
