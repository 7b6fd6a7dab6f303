/*
 * A new VHDX file:
 *
 *   0 identifier, headers, region tables   1 MiB log (1 MiB)   2 MiB metadata (1 MiB or more)   BAT
 *   then, when fixed, the blocks
 */
#include "vhdx_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/crc32c.h"
#include "disk/digest.h"

enum { LOG_BYTES = 1 << 20, DEFAULT_BLOCK = 2 << 20, FIRST_ITEM = 65536 };
#define LOG_OFFSET (1 * VHDX_MIB)
#define METADATA_OFFSET (2 * VHDX_MIB)

struct plan {
	uint64_t size_bytes, blocks, entries, bat_offset, bat_bytes;
	uint32_t block_bytes, sector_bytes, chunk_ratio, metadata_bytes;
	bool fixed;
	struct disk *parent;
	const char *path;
	struct guid data_id;
	struct link_items link; /* of a child, where its parent's content is known */
	uint8_t *digests;
	size_t digests_bytes;
	/* of a child of a VHDX file: what is said about the virtual disk */
	struct vhdx_value *inherited;
	size_t inherited_count, inherited_bytes;
};

static int make_plan(const struct disk_create *what, struct disk *parent, const char *path,
		     struct plan *p, struct disk_error *error)
{
	struct disk_info info = { 0 };
	uint64_t chunks;

	if (parent)
		disk_info(parent, &info);
	*p = (struct plan){ .size_bytes = parent ? info.size_bytes : what->size_bytes,
			    .fixed = what->fixed,
			    .parent = parent,
			    .path = path };
	p->data_id = guid_new();
	p->block_bytes =
		parent && parent->format_id == DISK_VHDX ? info.block_bytes : DEFAULT_BLOCK;
	if (what->block_bytes)
		p->block_bytes = what->block_bytes;
	p->sector_bytes = what->logical_sector_bytes ? what->logical_sector_bytes : 512;
	if (parent)
		p->sector_bytes = info.logical_sector_bytes;
	if (p->block_bytes < VHDX_MIB || p->block_bytes > 256 * VHDX_MIB ||
	    p->block_bytes & (p->block_bytes - 1))
		return disk_fail(error, -EINVAL, path,
				 "a block size must be a power of two from 1M to 256M");
	if (!vhdx_is_sector_size(p->sector_bytes))
		return disk_fail(error, -EINVAL, path, "a sector size must be 512 or 4096");
	if (!p->size_bytes || p->size_bytes > VHDX_MAX_BYTES || p->size_bytes % p->sector_bytes)
		return disk_fail(error, -EINVAL, path,
				 "a size must be a whole number of sectors up to 64 TiB");
	if (parent && p->fixed)
		return disk_fail(error, -EINVAL, path, "a child cannot be fixed");
	p->chunk_ratio = (uint32_t)(8388608ull * p->sector_bytes / p->block_bytes);
	p->blocks = (p->size_bytes + p->block_bytes - 1) / p->block_bytes;
	chunks = (p->blocks + p->chunk_ratio - 1) / p->chunk_ratio;
	p->entries = parent ? chunks * (p->chunk_ratio + 1)
			    : p->blocks + (p->blocks - 1) / p->chunk_ratio;
	p->bat_bytes = (p->entries * 8 + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB;
	return 0;
}

/* ---- the parts ---- */

struct metadata { uint8_t *bytes; uint32_t used; unsigned count; };

static void put_item(struct metadata *m, struct guid id, uint32_t flags, const void *value,
		     uint32_t bytes)
{
	struct vhdx_item i = { .id = id,
			       .offset = bytes ? m->used : 0,
			       .bytes = bytes,
			       .flags = flags & VHDX_ITEM_USER ? flags
							       : flags | VHDX_ITEM_REQUIRED };

	memcpy(m->bytes + sizeof(struct vhdx_metadata_head) + m->count++ * sizeof(i), &i,
	       sizeof(i));
	memcpy(m->bytes + m->used, value, bytes);
	m->used += (bytes + 7) & ~7u;
}

static void put_long(struct metadata *m, struct guid id, const uint8_t *value, size_t bytes)
{
	for (unsigned part = 0; value && part <= bytes / VHDX_MIB; part++) {
		size_t left = bytes - part * VHDX_MIB;

		put_item(m, vhdx_part_id(id, part), VHDX_ITEM_USER, value + part * VHDX_MIB,
			 (uint32_t)(left < VHDX_MIB ? left : VHDX_MIB));
	}
}

static int write_metadata(struct disk_file *f, const struct plan *p)
{
	struct metadata m = { .bytes = calloc(1, p->metadata_bytes), .used = FIRST_ITEM };
	const uint32_t flags =
		(p->fixed ? (uint32_t)VHDX_FIXED : 0) | (p->parent ? (uint32_t)VHDX_HAS_PARENT : 0);
	const uint32_t parameters[2] = { p->block_bytes, flags };
	const uint32_t physical = PHYSICAL_SECTOR_BYTES;
	const bool of_vhdx = p->parent && p->parent->format_id == DISK_VHDX;
	const struct guid id = of_vhdx ? vhdx_of(p->parent)->disk_id : guid_new();
	struct vhdx_metadata_head h = { .signature = VHDX_METADATA };
	uint8_t *locator = NULL;
	uint32_t locator_bytes = 0;
	int error = m.bytes ? 0 : -ENOMEM;

	if (!error && p->parent)
		error = vhdx_make_locator(p->path, p->parent->path, p->parent->format_id,
					  disk_data_id(p->parent), (struct guid){ 0 }, &locator,
					  &locator_bytes);
	if (!error) {
		put_item(&m, VHDX_ITEM_PARAMETERS, 0, parameters, sizeof(parameters));
		put_item(&m, VHDX_ITEM_SIZE, VHDX_ITEM_DISK, &p->size_bytes, 8);
		put_item(&m, VHDX_ITEM_DISK_ID, VHDX_ITEM_DISK, &id, sizeof(id));
		put_item(&m, VHDX_ITEM_LOGICAL, VHDX_ITEM_DISK, &p->sector_bytes, 4);
		put_item(&m, VHDX_ITEM_PHYSICAL, VHDX_ITEM_DISK, &physical, 4);
		if (p->parent)
			put_item(&m, VHDX_ITEM_LOCATOR, 0, locator, locator_bytes);
		put_long(&m, DIGEST_ITEM_OWN, p->digests, p->digests_bytes);
		put_long(&m, DIGEST_ITEM_PARENT, p->link.table, p->link.table_bytes);
		put_long(&m, DIGEST_ITEM_LINK, p->link.link, p->link.link_bytes);
		for (size_t n = 0; n < p->inherited_count; n++)
			put_item(&m, p->inherited[n].id, p->inherited[n].flags,
				 p->inherited[n].value, p->inherited[n].bytes);
		h.count = (uint16_t)m.count;
		memcpy(m.bytes, &h, sizeof(h));
		error = file_write(f, METADATA_OFFSET, m.bytes, m.used); /* what follows is zero */
	}
	free(locator);
	free(m.bytes);
	return error;
}

static int write_regions(struct disk_file *f, const struct plan *p)
{
	uint8_t *table = calloc(1, VHDX_TABLE_BYTES);
	const struct vhdx_region regions[2] = {
		{ VHDX_REGION_METADATA, METADATA_OFFSET, p->metadata_bytes, 1 },
		{ VHDX_REGION_BAT, p->bat_offset, (uint32_t)p->bat_bytes, 1 }
	};
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

/* in_use: with a log, that is without being clean. */
static int write_headers(struct disk_file *f, const struct plan *p, bool in_use)
{
	static const char creator[] = "U\0m\0b\0r\0a\0";
	struct vhdx_header h = { .signature = VHDX_HEAD,
				 .sequence = 1,
				 .file_write = guid_new(),
				 .data_write = p->data_id,
				 .version = 1,
				 .log_bytes = LOG_BYTES,
				 .log_offset = LOG_OFFSET };
	uint8_t identifier[520] = "vhdxfile";
	int error = 0;

	if (in_use)
		h.log = guid_new();
	memcpy(identifier + 8, creator, sizeof(creator));
	error = file_write(f, 0, identifier, sizeof(identifier));
	for (int n = 0; n < 2 && !error; n++, h.sequence++) {
		h.checksum = 0;
		h.checksum = crc32c(0, &h, sizeof(h));
		error = file_write(f, VHDX_HEADER_OFFSET(n), &h, sizeof(h));
	}
	return error;
}

/* Only a fixed file has entries to write: the rest of the table is zero, which says "not present".
 * */
static int write_bat(struct disk_file *f, const struct plan *p)
{
	uint64_t *bat = calloc(p->entries, 8);
	uint64_t offset = p->bat_offset + p->bat_bytes;
	int error = bat ? 0 : -ENOMEM;

	for (uint64_t block = 0; !error && block < p->blocks; block++, offset += p->block_bytes)
		bat[block + block / p->chunk_ratio] = offset | BAT_PRESENT;
	if (!error)
		error = file_write(f, p->bat_offset, bat, p->entries * 8);
	free(bat);
	return error;
}

/* What the new file knows from the start: that it holds nothing, and what its parent holds. */
static int make_digests(struct plan *p, const struct disk_create *what)
{
	bool no_digests = what->no_digests;
	struct digest_table *own =
		no_digests ? NULL : digest_new(p->size_bytes, p->block_bytes, DIGEST_XXH3);
	int error = own || no_digests ? 0 : -ENOMEM;

	if (own) {
		/* as after a first write: not current until the file is closed */
		own->head.data_id = what->in_use ? guid_new() : p->data_id;
		error = digest_encode(own, &p->digests, &p->digests_bytes);
		digest_free(own);
	}
	if (!error && p->parent && !what->in_use &&
	    (!no_digests || p->parent->format_id != DISK_VHDX))
		error = link_encode(p->parent, LINK_KEPT_OR_COMPUTED, &p->link);
	return error;
}

/* What the disk is, is said of the child as well, until it is said otherwise. A live parent's is
 * copied when it is settled. */
static int inherit(struct plan *p, const struct disk_create *what)
{
	int error = 0;

	if (p->parent && p->parent->format_id == DISK_VHDX && !what->in_use)
		error = vhdx_load_disk_items(vhdx_of(p->parent), &p->inherited,
					     &p->inherited_count);
	for (size_t n = 0; n < p->inherited_count; n++)
		p->inherited_bytes += (p->inherited[n].bytes + 7) & ~7u;
	return error;
}

static int place(struct plan *p)
{
	uint64_t items = p->digests_bytes + p->link.table_bytes + p->inherited_bytes;
	/* what put_long() makes of them, and the link */
	size_t own = p->digests_bytes / VHDX_MIB + p->link.table_bytes / VHDX_MIB + 3;

	p->metadata_bytes = (uint32_t)((2ull * FIRST_ITEM + LOCATOR_BYTES + items + VHDX_MIB - 1) /
				       VHDX_MIB * VHDX_MIB);
	p->bat_offset = METADATA_OFFSET + p->metadata_bytes;
	return items > VHDX_METADATA_MAX_BYTES / 2 || own + p->inherited_count > VHDX_USER_ITEMS
		       ? -EFBIG
		       : 0;
}

static int write_file(struct disk_file *f, const struct plan *p, bool in_use)
{
	int result = file_truncate(f, p->bat_offset + p->bat_bytes +
					      (p->fixed ? p->blocks * p->block_bytes : 0));

	if (!result)
		result = write_regions(f, p);
	if (!result)
		result = write_metadata(f, p);
	if (!result && p->fixed)
		result = write_bat(f, p);
	if (!result && !in_use)
		result = file_flush(f);
	if (!result)
		result = write_headers(f, p, in_use);
	return result || in_use ? result : file_flush(f);
}

/* The identifier and headers last: a file that was not finished is not one. */
int vhdx_create(struct disk_file *f, const char *path, const struct disk_create *what,
		struct disk *parent, struct disk_error *error)
{
	struct plan p;
	int result = make_plan(what, parent, path, &p, error);

	if (result)
		return result;
	result = make_digests(&p, what);
	if (!result)
		result = inherit(&p, what);
	if (!result)
		result = place(&p);
	if (!result)
		result = write_file(f, &p, what->in_use);
	vhdx_free_values(p.inherited, p.inherited_count);
	free(p.digests);
	free(p.link.table);
	free(p.link.link);
	return result ? disk_fail(error, result, path, "%s", strerror(-result)) : 0;
}
