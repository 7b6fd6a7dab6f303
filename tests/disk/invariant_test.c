/*
 * The invariants of open files (format/vhdx_internal.h, format/vhd.c, digest.h, chain.h), each
 * broken: check_*() sees it. The files are in a temporary folder, which goes with them.
 */
#include <stdlib.h>
#include <string.h>

#include "../lib/caught.h"
#include "disk/chain.h"
#include "disk/digest.h"
#include "disk/format/vhd_internal.h"
#include "disk/format/vhdx_internal.h"

enum { DISK_BYTES = 16 << 20, BLOCK_BYTES = 2 << 20, SECTOR_BYTES = 512 };

static void make(const char *path, enum disk_format format, uint64_t size_bytes,
		 const char *parent)
{
	const struct disk_create what = { .format = format,
					  .size_bytes = size_bytes,
					  .block_bytes = parent ? 0 : BLOCK_BYTES,
					  .parent = parent,
					  .parent_format = DISK_VHDX };
	struct disk_error error;

	if (disk_create(path, &what, &error)) {
		printf("%s\n", error.text);
		exit(1);
	}
}

/* Open, with a block that is mapped and not flushed. */
static struct disk *opened(const char *path, enum disk_format format)
{
	static uint8_t content[BLOCK_BYTES];
	struct disk_error error;
	struct disk *disk;

	if (disk_open(path, &(struct disk_options){ .format = format, .write = true }, &disk,
		      &error)) {
		printf("%s\n", error.text);
		exit(1);
	}
	memset(content, 1, sizeof(content));
	if (disk_write(disk, 0, content, sizeof(content)) ||
	    disk_write(disk, BLOCK_BYTES, content, SECTOR_BYTES))
		exit(1);
	return disk;
}

/* ---- VHDX ---- */

static struct vhdx *vhdx_in(void *disk) { return vhdx_of(disk); }
static void check_vhdx_of(void *disk) { check_vhdx(vhdx_in(disk)); }

static void begun_without_log(void *disk) { vhdx_in(disk)->header.log = (struct guid){ { 0 } }; }
static void data_before_file(void *disk)
{
	vhdx_in(disk)->data_begun = true;
	vhdx_in(disk)->begun = false;
}
static void two_in_one_place(void *disk)
{
	struct vhdx *vhdx = vhdx_in(disk);

	vhdx->bat[vhdx_entry(vhdx, 1)] = vhdx->bat[vhdx_entry(vhdx, 0)];
}
static void behind_the_end(void *disk)
{
	struct vhdx *vhdx = vhdx_in(disk);

	vhdx->bat[vhdx_entry(vhdx, 0)] += VHDX_MIB << 10;
}
static void over_the_log(void *disk)
{
	struct vhdx *vhdx = vhdx_in(disk);
	uint64_t *entry = &vhdx->bat[vhdx_entry(vhdx, 0)];

	*entry = vhdx->header.log_offset | vhdx_state(*entry);
}
static void freed_and_used(void *disk)
{
	struct vhdx *vhdx = vhdx_in(disk);

	if (vhdx_push(&vhdx->freed, vhdx_offset(vhdx->bat[vhdx_entry(vhdx, 0)])))
		_exit(1);
}
static void reusable_before_durable(void *disk)
{
	struct vhdx *vhdx = vhdx_in(disk);

	if (vhdx_free(vhdx, vhdx->end_offset - BLOCK_BYTES) ||
	    vhdx_push(&vhdx->reusable, vhdx->end_offset - BLOCK_BYTES))
		_exit(1);
}
static void more_flushes_done(void *disk) { vhdx_in(disk)->flushes_done += 2; }
static void log_past_its_end(void *disk)
{
	vhdx_in(disk)->log_at = vhdx_in(disk)->header.log_bytes;
}
static void partial_without_parent(void *disk)
{
	struct vhdx *vhdx = vhdx_in(disk);
	uint64_t *entry = &vhdx->bat[vhdx_entry(vhdx, 0)];

	*entry = vhdx_offset(*entry) | BAT_PARTIAL;
}
static void changed_bits_without_bits(void *disk)
{
	struct vhdx_bitmap *bitmap = &vhdx_in(disk)->bitmap[0];

	bitmap->any_dirty = true;
	bitmap->bits = NULL;
}

static const struct spoiling of_vhdx[] = {
	{ "a log that is used and has no name", begun_without_log },
	{ "data that changed before the file", data_before_file },
	{ "two blocks in one place", two_in_one_place },
	{ "a block behind the end", behind_the_end },
	{ "a block over the log", over_the_log },
	{ "a freed place that is used", freed_and_used },
	{ "a freed place that is given out", reusable_before_durable },
	{ "flushes that are done and were not begun", more_flushes_done },
	{ "a log that goes on behind its end", log_past_its_end },
	{ "half a block without a parent", partial_without_parent },
};
static const struct spoiling of_vhdx_child[] = {
	{ "two blocks in one place", two_in_one_place },
	{ "bits to be written that are not there", changed_bits_without_bits },
};

/* ---- VHD ---- */

static void check_vhd_of(void *disk) { check_vhd(disk); }

static void vhd_behind_the_footer(void *disk) { vhd_of(disk)->end -= BLOCK_BYTES; }
static void vhd_two_in_one_place(void *disk)
{
	struct vhd *vhd = vhd_of(disk);

	vhd->table[1] = vhd->table[0];
}
static void vhd_bits_of_nothing(void *disk) { vhd_of(disk)->table[0] = VHD_UNUSED; }
static void vhd_new_and_not_noted(void *disk)
{
	struct vhd *vhd = vhd_of(disk);

	vhd->bitmap[0].is_new = true;
	vhd->table_dirty[0] = 0;
}
static void vhd_dirty_without_bits(void *disk)
{
	struct vhd *vhd = vhd_of(disk);

	vhd->bitmap[0].dirty = true;
	vhd->bitmap[0].bits = NULL;
}
static void vhd_dirty_and_not_noted(void *disk)
{
	struct vhd *vhd = vhd_of(disk);

	vhd->bitmap[0].dirty = true;
	vhd->any_dirty = false;
}
static void vhd_without_table(void *disk) { vhd_of(disk)->table_dirty = NULL; }

/* Its last block is the last in the file, and other programs leave out what no disk has of it. */
static void vhd_ends_with_the_disk(void *disk) { vhd_of(disk)->end -= BLOCK_BYTES / 2; }

static const struct spoiling of_vhd[] = {
	{ "a block behind the footer", vhd_behind_the_footer },
	{ "two blocks in one place", vhd_two_in_one_place },
	{ "bits of a block that is not there", vhd_bits_of_nothing },
	{ "a new block that the table will not name", vhd_new_and_not_noted },
	{ "bits to be written that are not there", vhd_dirty_without_bits },
	{ "bits to be written that no flush looks for", vhd_dirty_and_not_noted },
	{ "no table", vhd_without_table },
};

/* ---- digests ---- */

static struct digest_table *table_in(void *table) { return table; }
static void check_digests_of(void *table) { check_digests(table); }

static void other_algorithm(void *table) { table_in(table)->head.algorithm = 3; }
static void odd_blocks(void *table) { table_in(table)->head.block_bytes += 512; }
static void block_too_many(void *table) { table_in(table)->blocks++; }
static void block_too_few(void *table) { table_in(table)->blocks--; }
static void more_than_all(void *table)
{
	table_in(table)->head.present = table_in(table)->blocks + 1;
}

static const struct spoiling of_digests[] = {
	{ "an algorithm that nobody knows", other_algorithm },
	{ "blocks that are no power of two", odd_blocks },
	{ "a block too many", block_too_many },
	{ "a block too few", block_too_few },
	{ "more digests than blocks", more_than_all },
};

/* ---- chains ---- */

static struct disk *disk_in(void *disk) { return disk; }
static void check_chain_of(void *disk) { check_chain(disk); }

static void parent_changed(void *disk) { disk_in(disk)->parent = NULL; }
static void itself_as_ancestor(void *disk) { disk_in(disk)->chain.ancestor[0] = disk; }
static void ancestor_forgotten(void *disk) { disk_in(disk)->chain.ancestors = 0; }
static void silent_too_many(void *disk) { disk_in(disk)->chain.silent[0] = UINT16_MAX; }
static void no_child(void *disk) { disk_in(disk)->is_child = false; }

static const struct spoiling of_chain[] = {
	{ "a parent that is gone", parent_changed },
	{ "a disk above itself", itself_as_ancestor },
	{ "an ancestor that is left out", ancestor_forgotten },
	{ "more ancestors silent than there are", silent_too_many },
	{ "a parent of what is no child", no_child },
};

int main(void)
{
	static const char *const files[] = { "a.vhdx", "child.vhdx", "a.vhd", "short.vhd" };
	char folder[] = "/tmp/umbra-invariant-XXXXXX";
	struct digest_table *table = digest_new(DISK_BYTES, BLOCK_BYTES, DIGEST_XXH3);
	struct disk *disk;
	struct disk *child;
	struct disk *other;
	unsigned missed = 0;

	if (!table || !mkdtemp(folder) || chdir(folder))
		return 1;
	make("a.vhdx", DISK_VHDX, DISK_BYTES, NULL);
	make("child.vhdx", DISK_VHDX, 0, "a.vhdx");
	make("a.vhd", DISK_VHD, DISK_BYTES, NULL);
	make("short.vhd", DISK_VHD, BLOCK_BYTES + BLOCK_BYTES / 2, NULL);
	child = opened("child.vhdx", DISK_VHDX);
	missed += CAUGHT_MISSED("VHDX child", check_vhdx_of, child, of_vhdx_child);
	missed += CAUGHT_MISSED("chain", check_chain_of, child, of_chain);
	missed += disk_close(child) != 0;
	disk = opened("a.vhdx", DISK_VHDX);
	missed += CAUGHT_MISSED("VHDX", check_vhdx_of, disk, of_vhdx);
	missed += disk_close(disk) != 0;
	other = opened("a.vhd", DISK_VHD);
	missed += CAUGHT_MISSED("VHD", check_vhd_of, other, of_vhd);
	missed += disk_close(other) != 0;
	other = opened("short.vhd", DISK_VHD);
	if (caught_status(check_vhd_of, vhd_ends_with_the_disk, other)) {
		printf("VHD: a last block that is as long as the disk does not pass\n");
		missed++;
	}
	missed += disk_close(other) != 0;
	missed += CAUGHT_MISSED("digests", check_digests_of, table, of_digests);
	digest_free(table);
	for (size_t n = 0; n < sizeof(files) / sizeof(files[0]); n++)
		unlink(files[n]);
	if (chdir("/") || rmdir(folder))
		missed++;
	return missed != 0;
}
