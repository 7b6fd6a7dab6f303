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
	bool resolved;
	struct guid data_id;
	struct link_items link; /* of a child, where its parent's content is known */
	uint8_t *digests;
	size_t digests_bytes;
	/* of a child of a VHDX file: what is said about the virtual disk */
	struct vhdx_value *inherited;
	size_t inherited_count, inherited_bytes;
};

static int make_plan(const struct disk_create *what, struct disk *parent, const char *path,
		     struct plan *plan, struct disk_error *error)
{
	struct disk_info info = { 0 };
	uint64_t chunks;

	if (parent)
		disk_info(parent, &info);
	*plan = (struct plan){ .size_bytes = parent ? info.size_bytes : what->size_bytes,
			       .fixed = what->fixed,
			       .parent = parent,
			       .path = path,
			       .resolved = what->resolved };
	plan->data_id = guid_new();
	plan->block_bytes =
		parent && parent->format_id == DISK_VHDX ? info.block_bytes : DEFAULT_BLOCK;
	if (what->block_bytes)
		plan->block_bytes = what->block_bytes;
	plan->sector_bytes = what->logical_sector_bytes ? what->logical_sector_bytes : 512;
	if (parent)
		plan->sector_bytes = info.logical_sector_bytes;
	if (plan->block_bytes < VHDX_MIB || plan->block_bytes > 256 * VHDX_MIB ||
	    plan->block_bytes & (plan->block_bytes - 1))
		return disk_refuse(error, REFUSAL_MAKE_BLOCK, path, DISK_NOWHERE,
				   "VHDX blocks of %u bytes", plan->block_bytes);
	if (!vhdx_is_sector_size(plan->sector_bytes))
		return disk_refuse(error, REFUSAL_MAKE_SECTOR, path, DISK_NOWHERE,
				   "VHDX sectors of %u bytes", plan->sector_bytes);
	if (!plan->size_bytes || plan->size_bytes > VHDX_MAX_BYTES ||
	    plan->size_bytes % plan->sector_bytes)
		return disk_refuse(error, REFUSAL_MAKE_SIZE, path, DISK_NOWHERE,
				   "%lu bytes, of VHDX", plan->size_bytes);
	if (parent && plan->fixed)
		return disk_refuse(error, REFUSAL_MAKE_CHILD, path, DISK_NOWHERE,
				   "a fixed VHDX child");
	plan->chunk_ratio = (uint32_t)(8388608ull * plan->sector_bytes / plan->block_bytes);
	plan->blocks = (plan->size_bytes + plan->block_bytes - 1) / plan->block_bytes;
	chunks = (plan->blocks + plan->chunk_ratio - 1) / plan->chunk_ratio;
	plan->entries = parent ? chunks * (plan->chunk_ratio + 1)
			       : plan->blocks + (plan->blocks - 1) / plan->chunk_ratio;
	plan->bat_bytes = (plan->entries * 8 + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB;
	return 0;
}

/* ---- the parts ---- */

struct metadata { uint8_t *bytes; uint32_t used; unsigned count; };

static void put_item(struct metadata *metadata, struct guid id, uint32_t flags, const void *value,
		     uint32_t bytes)
{
	struct vhdx_item item = { .id = id,
				  .offset = bytes ? metadata->used : 0,
				  .bytes = bytes,
				  .flags = flags & VHDX_ITEM_USER ? flags
								  : flags | VHDX_ITEM_REQUIRED };

	memcpy(metadata->bytes + sizeof(struct vhdx_metadata_head) +
		       metadata->count++ * sizeof(item),
	       &item, sizeof(item));
	memcpy(metadata->bytes + metadata->used, value, bytes);
	metadata->used += (bytes + 7) & ~7u;
}

static void put_long(struct metadata *metadata, struct guid id, const uint8_t *value, size_t bytes)
{
	for (unsigned part = 0; value && part <= bytes / VHDX_MIB; part++) {
		size_t left = bytes - part * VHDX_MIB;

		put_item(metadata, vhdx_part_id(id, part), VHDX_ITEM_USER, value + part * VHDX_MIB,
			 (uint32_t)(left < VHDX_MIB ? left : VHDX_MIB));
	}
}

static int write_metadata(struct disk_file *file, const struct plan *plan)
{
	struct metadata metadata = { .bytes = calloc(1, plan->metadata_bytes), .used = FIRST_ITEM };
	const uint32_t flags = (plan->fixed ? (uint32_t)VHDX_FIXED : 0) |
			       (plan->parent ? (uint32_t)VHDX_HAS_PARENT : 0);
	const uint32_t parameters[2] = { plan->block_bytes, flags };
	const uint32_t physical = PHYSICAL_SECTOR_BYTES;
	const bool of_vhdx = plan->parent && plan->parent->format_id == DISK_VHDX;
	const struct guid id = of_vhdx ? vhdx_of(plan->parent)->disk_id : guid_new();
	struct vhdx_metadata_head head = { .signature = VHDX_METADATA };
	uint8_t *locator = NULL;
	uint32_t locator_bytes = 0;
	int error = metadata.bytes ? 0 : -ENOMEM;

	if (!error && plan->parent)
		error = vhdx_make_locator(plan->path, plan->parent->path, plan->resolved,
					  plan->parent->format_id, disk_data_id(plan->parent),
					  (struct guid){ 0 }, &locator, &locator_bytes);
	if (!error) {
		put_item(&metadata, VHDX_ITEM_PARAMETERS, 0, parameters, sizeof(parameters));
		put_item(&metadata, VHDX_ITEM_SIZE, VHDX_ITEM_DISK, &plan->size_bytes, 8);
		put_item(&metadata, VHDX_ITEM_DISK_ID, VHDX_ITEM_DISK, &id, sizeof(id));
		put_item(&metadata, VHDX_ITEM_LOGICAL, VHDX_ITEM_DISK, &plan->sector_bytes, 4);
		put_item(&metadata, VHDX_ITEM_PHYSICAL, VHDX_ITEM_DISK, &physical, 4);
		if (plan->parent)
			put_item(&metadata, VHDX_ITEM_LOCATOR, 0, locator, locator_bytes);
		put_long(&metadata, DIGEST_ITEM_OWN, plan->digests, plan->digests_bytes);
		put_long(&metadata, DIGEST_ITEM_PARENT, plan->link.table, plan->link.table_bytes);
		put_long(&metadata, DIGEST_ITEM_LINK, plan->link.link, plan->link.link_bytes);
		for (size_t n = 0; n < plan->inherited_count; n++)
			put_item(&metadata, plan->inherited[n].id, plan->inherited[n].flags,
				 plan->inherited[n].value, plan->inherited[n].bytes);
		head.count = (uint16_t)metadata.count;
		memcpy(metadata.bytes, &head, sizeof(head));
		error = file_write(file, METADATA_OFFSET, metadata.bytes,
				   metadata.used); /* what follows is zero */
	}
	free(locator);
	free(metadata.bytes);
	return error;
}

static int write_regions(struct disk_file *file, const struct plan *plan)
{
	uint8_t *table = calloc(1, VHDX_TABLE_BYTES);
	const struct vhdx_region regions[2] = {
		{ VHDX_REGION_METADATA, METADATA_OFFSET, plan->metadata_bytes, 1 },
		{ VHDX_REGION_BAT, plan->bat_offset, (uint32_t)plan->bat_bytes, 1 }
	};
	struct vhdx_region_head head = { .signature = VHDX_REGI, .count = 2 };
	int error = table ? 0 : -ENOMEM;

	if (!error) {
		memcpy(table, &head, sizeof(head));
		memcpy(table + sizeof(head), regions, sizeof(regions));
		head.checksum = crc32c(0, table, VHDX_TABLE_BYTES);
		memcpy(table, &head, sizeof(head));
		error = file_write(file, VHDX_REGION_OFFSET(0), table, VHDX_TABLE_BYTES);
	}
	if (!error)
		error = file_write(file, VHDX_REGION_OFFSET(1), table, VHDX_TABLE_BYTES);
	free(table);
	return error;
}

/* in_use: with a log, that is without being clean. */
static int write_headers(struct disk_file *file, const struct plan *plan, bool in_use)
{
	static const char creator[] = "U\0m\0b\0r\0a\0";
	struct vhdx_header header = { .signature = VHDX_HEAD,
				      .sequence = 1,
				      .file_write = guid_new(),
				      .data_write = plan->data_id,
				      .version = 1,
				      .log_bytes = LOG_BYTES,
				      .log_offset = LOG_OFFSET };
	uint8_t identifier[520] = "vhdxfile";
	int error = 0;

	if (in_use)
		header.log = guid_new();
	memcpy(identifier + 8, creator, sizeof(creator));
	error = file_write(file, 0, identifier, sizeof(identifier));
	for (int n = 0; n < 2 && !error; n++, header.sequence++) {
		header.checksum = 0;
		header.checksum = crc32c(0, &header, sizeof(header));
		error = file_write(file, VHDX_HEADER_OFFSET(n), &header, sizeof(header));
	}
	return error;
}

/* Only a fixed file has entries to write: the rest of the table is zero, which says "not present".
 * */
static int write_bat(struct disk_file *file, const struct plan *plan)
{
	uint64_t *bat = calloc(plan->entries, 8);
	uint64_t offset = plan->bat_offset + plan->bat_bytes;
	int error = bat ? 0 : -ENOMEM;

	for (uint64_t block = 0; !error && block < plan->blocks;
	     block++, offset += plan->block_bytes)
		bat[block + block / plan->chunk_ratio] = offset | BAT_PRESENT;
	if (!error)
		error = file_write(file, plan->bat_offset, bat, plan->entries * 8);
	free(bat);
	return error;
}

/* What the new file knows from the start: that it holds nothing, and what its parent holds. */
static int make_digests(struct plan *plan, const struct disk_create *what)
{
	bool no_digests = what->no_digests;
	struct digest_table *own =
		no_digests ? NULL : digest_new(plan->size_bytes, plan->block_bytes, DIGEST_XXH3);
	int error = own || no_digests ? 0 : -ENOMEM;

	if (own) {
		/* as after a first write: not current until the file is closed */
		own->head.data_id = what->in_use ? guid_new() : plan->data_id;
		error = digest_encode(own, &plan->digests, &plan->digests_bytes);
		digest_free(own);
	}
	if (!error && plan->parent && !what->in_use &&
	    (!no_digests || plan->parent->format_id != DISK_VHDX))
		error = link_encode(plan->parent, LINK_KEPT_OR_COMPUTED, &plan->link);
	return error;
}

/* What the disk is, is said of the child as well, until it is said otherwise. A live parent's is
 * copied when it is settled. */
static int inherit(struct plan *plan, const struct disk_create *what)
{
	int error = 0;

	if (plan->parent && plan->parent->format_id == DISK_VHDX && !what->in_use)
		error = vhdx_load_disk_items(vhdx_of(plan->parent), &plan->inherited,
					     &plan->inherited_count);
	for (size_t n = 0; n < plan->inherited_count; n++)
		plan->inherited_bytes += (plan->inherited[n].bytes + 7) & ~7u;
	return error;
}

static int place(struct plan *plan)
{
	uint64_t items = plan->digests_bytes + plan->link.table_bytes + plan->inherited_bytes;
	/* what put_long() makes of them, and the link */
	size_t own = plan->digests_bytes / VHDX_MIB + plan->link.table_bytes / VHDX_MIB + 3;

	plan->metadata_bytes =
		(uint32_t)((2ull * FIRST_ITEM + LOCATOR_BYTES + items + VHDX_MIB - 1) / VHDX_MIB *
			   VHDX_MIB);
	plan->bat_offset = METADATA_OFFSET + plan->metadata_bytes;
	return items > VHDX_METADATA_MAX_BYTES / 2 || own + plan->inherited_count > VHDX_USER_ITEMS
		       ? -EFBIG
		       : 0;
}

static int write_file(struct disk_file *file, const struct plan *plan, bool in_use)
{
	int result =
		file_truncate(file, plan->bat_offset + plan->bat_bytes +
					    (plan->fixed ? plan->blocks * plan->block_bytes : 0));

	if (!result)
		result = write_regions(file, plan);
	if (!result)
		result = write_metadata(file, plan);
	if (!result && plan->fixed)
		result = write_bat(file, plan);
	if (!result && !in_use)
		result = file_flush(file);
	if (!result)
		result = write_headers(file, plan, in_use);
	return result || in_use ? result : file_flush(file);
}

/* The identifier and headers last: a file that was not finished is not one. */
int vhdx_create(struct disk_file *file, const char *path, const struct disk_create *what,
		struct disk *parent, struct disk_error *error)
{
	struct plan plan;
	int result = make_plan(what, parent, path, &plan, error);

	if (result)
		return result;
	result = make_digests(&plan, what);
	if (!result)
		result = inherit(&plan, what);
	if (!result)
		result = place(&plan);
	if (!result)
		result = write_file(file, &plan, what->in_use);
	vhdx_free_values(plan.inherited, plan.inherited_count);
	free(plan.digests);
	free(plan.link.table);
	free(plan.link.link);
	return result ? disk_refuse_host(error, result, path, "making it") : 0;
}
