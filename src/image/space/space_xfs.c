/*
 * XFS: its two trees of free space, which have to say the same, against its own structures and the
 * extents of every inode that is in use. Its log has to end with the record that an unmount writes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/scan/xfs.h"
#include "space_map.h"

enum { BASIC_BYTES = 512, LOG_PIECE_BYTES = 1 << 20, HEADERS_BYTES = 32768, UNMOUNT = 0x20 };
#define AGF_MAGIC 0x58414746u
#define AGI_MAGIC 0x58414749u
#define RECORD_MAGIC 0xfeedbabeu
/* inodes that are free, reverse map, shared blocks, counts of inode blocks */
#define KNOWN_RO 0xfu

struct xfs_space {
	struct xfs xfs;
	struct space_map *map;
	uint32_t ag;
	uint64_t counted; /* free blocks of this AG by the tree that is walked */
	bool adds;        /* the tree by block; the one by length is compared with it */
	uint8_t *sector;
};

/* ---- log ---- */

struct log { struct xfs *xfs; uint64_t at, blocks; uint8_t *piece; };

static int read_basic(const struct log *log, uint64_t block, uint8_t to[BASIC_BYTES])
{
	return volume_read(log->xfs->volume, log->at + block % log->blocks * BASIC_BYTES, to,
			   BASIC_BYTES);
}

static uint32_t cycle_of(const uint8_t *basic)
{
	return xfs_32(basic) == RECORD_MAGIC ? xfs_32(basic + 4) : xfs_32(basic);
}

/* The block behind the last one that was written: where the cycle is another. */
static int find_head(const struct log *log, uint64_t *ret_head, uint32_t *ret_cycle)
{
	uint64_t bytes = log->blocks * BASIC_BYTES;
	uint32_t first = 0;

	for (uint64_t at = 0; at < bytes; at += LOG_PIECE_BYTES) {
		uint64_t n = bytes - at < LOG_PIECE_BYTES ? bytes - at : LOG_PIECE_BYTES;
		int error = volume_read(log->xfs->volume, log->at + at, log->piece, n);

		if (error)
			return error;
		if (!at)
			*ret_cycle = first = cycle_of(log->piece);
		for (uint64_t in = 0; in < n; in += BASIC_BYTES)
			if (cycle_of(log->piece + in) != first) {
				*ret_head = (at + in) / BASIC_BYTES;
				return 0;
			}
	}
	*ret_head = log->blocks;
	return 0;
}

/* Whether the record that ends at the head is the one of an unmount. */
static bool is_unmounted(const struct log *log, uint64_t head)
{
	uint8_t basic[BASIC_BYTES];
	uint64_t headers = 1;
	uint64_t back = 1;
	uint64_t at;

	for (; back <= log->blocks; back++)
		if (read_basic(log, head + log->blocks - back, basic))
			return false;
		else if (xfs_32(basic) == RECORD_MAGIC)
			break;
	if (back > log->blocks || xfs_32(basic + 40) != 1) /* operations in it */
		return false;
	if (xfs_32(basic + 8) & 2 && xfs_32(basic + 320) > HEADERS_BYTES)
		headers = (xfs_32(basic + 320) + (uint64_t)HEADERS_BYTES - 1) / HEADERS_BYTES;
	at = head + log->blocks - back;
	if (headers + ((uint64_t)xfs_32(basic + 12) + BASIC_BYTES - 1) / BASIC_BYTES != back ||
	    read_basic(log, at + headers, basic))
		return false;
	return basic[9] & UNMOUNT;
}

static int check_log(struct xfs_space *space)
{
	struct log log = { .xfs = &space->xfs };
	uint64_t block;
	uint64_t head = 0;
	uint32_t cycle = 0;
	int error = -ENOMEM;

	if (!space->xfs.log_start)
		return space_refuse(space->map, -ENOTSUP, "has its log on another disk");
	if (!space->xfs.log_blocks || !xfs_block_of(&space->xfs, space->xfs.log_start, &block) ||
	    space->xfs.log_blocks > space->xfs.blocks - block)
		return space_refuse(space->map, -EBADMSG, "its log is not within it");
	log.at = block << space->xfs.block_log;
	log.blocks = ((uint64_t)space->xfs.log_blocks << space->xfs.block_log) / BASIC_BYTES;
	log.piece = malloc(LOG_PIECE_BYTES);
	if (log.piece)
		error = find_head(&log, &head, &cycle);
	free(log.piece);
	if (error)
		return space_refuse(space->map, error, "its log cannot be read");
	if (!cycle && head == log.blocks)
		return 0; /* nothing was ever in it */
	return is_unmounted(&log, head)
		       ? 0
		       : space_refuse(space->map, -EBUSY, "its log has to be replayed");
}

/* ---- what is free ---- */

static int take_free(void *context, const uint8_t *record)
{
	struct xfs_space *space = context;
	uint32_t begin = xfs_32(record);
	uint32_t count = xfs_32(record + 4);
	uint32_t length = xfs_ag_length(&space->xfs, space->ag);
	uint64_t block = (uint64_t)space->ag * space->xfs.ag_blocks + begin;

	if (!count || begin >= length || count > length - begin)
		return space_refuse(space->map, -EBADMSG, "free space beyond the end of AG %u",
				    space->ag);
	space->counted += count;
	if (space->adds)
		return space_free(space->map, block, count);
	return space_is_free(space->map, block, count)
		       ? 0
		       : space_refuse(space->map, -EUCLEAN,
				      "its two trees of free space differ in AG %u", space->ag);
}

static int read_sector(struct xfs_space *space, unsigned n, uint32_t magic, size_t sum_at)
{
	uint64_t at = ((uint64_t)space->ag * space->xfs.ag_blocks << space->xfs.block_log) +
		      (uint64_t)n * space->xfs.sector_bytes;
	int error = volume_read(space->xfs.volume, at, space->sector, space->xfs.sector_bytes);

	if (error)
		return space_refuse(space->map, error, "AG %u cannot be read", space->ag);
	if (xfs_32(space->sector) != magic || xfs_32(space->sector + 8) != space->ag ||
	    xfs_32(space->sector + 12) != xfs_ag_length(&space->xfs, space->ag) ||
	    !xfs_sum_holds(&space->xfs, space->sector, space->xfs.sector_bytes, sum_at))
		return space_refuse(space->map, -EBADMSG, "a head of AG %u is not sound",
				    space->ag);
	return 0;
}

static int walk_free(struct xfs_space *space, uint32_t root, uint32_t levels, uint32_t magic,
		     uint32_t magic_sums)
{
	int error = xfs_each_record(&space->xfs, &(struct xfs_tree){ .ag = space->ag,
								     .root = root,
								     .levels = levels,
								     .magic = magic,
								     .magic_sums = magic_sums,
								     .record_bytes = 8,
								     .key_bytes = 8,
								     .record = take_free,
								     .context = space });

	return error ? space_refuse(space->map, error, "a tree of free space of AG %u is not sound",
				    space->ag)
		     : 0;
}

static int read_free(struct xfs_space *space)
{
	uint32_t by_block, by_block_levels, by_length, by_length_levels, free_blocks;
	int error = read_sector(space, 1, AGF_MAGIC, 216);

	if (error)
		return error;
	by_block = xfs_32(space->sector + 16);
	by_length = xfs_32(space->sector + 20);
	by_block_levels = xfs_32(space->sector + 28);
	by_length_levels = xfs_32(space->sector + 32);
	free_blocks = xfs_32(space->sector + 52);
	space->counted = 0;
	space->adds = true;
	error = walk_free(space, by_block, by_block_levels, 0x41425442, 0x41423342);
	if (!error && space->counted == free_blocks) {
		space->counted = 0;
		space->adds = false;
		error = walk_free(space, by_length, by_length_levels, 0x41425443, 0x41423343);
	}
	if (!error && space->counted != free_blocks)
		error = space_refuse(space->map, -EUCLEAN,
				     "AG %u counts other free blocks than its trees have",
				     space->ag);
	return error;
}

/* ---- what is used ---- */

static int use_extent(void *context, const struct xfs_extent *extent)
{
	return space_used(((struct xfs_space *)context)->map, extent->block, extent->count);
}

static int use_block(void *context, uint64_t block)
{
	return space_used(((struct xfs_space *)context)->map, block, 1);
}

static int use_inode(struct xfs_space *space, uint64_t number)
{
	const struct xfs_extents tell = { .extent = use_extent,
					  .tree_block = use_block,
					  .context = space };
	struct xfs_inode inode;
	int error = xfs_read_inode(&space->xfs, number, &inode);

	if (error == -ENOENT) /* on its way out */
		return 0;
	if (!error)
		error = xfs_each_extent(&space->xfs, &inode, false, &tell);
	if (!error)
		error = xfs_each_extent(&space->xfs, &inode, true, &tell);
	return error ? space_refuse(space->map, error, "inode %lu is not sound", number) : 0;
}

/* 64 inodes, of which groups of four may not be there. */
static int use_inodes(void *context, const uint8_t *record)
{
	struct xfs_space *space = context;
	uint32_t first = xfs_32(record);
	uint16_t holes = space->xfs.incompatible & 2 ? xfs_16(record + 4) : 0;
	uint64_t free = xfs_64(record + 8);
	uint64_t base = ((uint64_t)space->ag << space->xfs.ag_block_log)
			<< space->xfs.inodes_per_block_log;
	int error = 0;

	for (unsigned n = 0; n < 64 && !error; n++) {
		uint64_t number = base + first + n;
		uint64_t block;

		if (holes >> n / 4 & 1)
			continue;
		if (!xfs_block_of(&space->xfs, number >> space->xfs.inodes_per_block_log, &block))
			return -EBADMSG;
		error = use_block(space, block);
		if (!error && !(free >> n & 1))
			error = use_inode(space, number);
	}
	return error;
}

static int use_ag(struct xfs_space *space)
{
	uint64_t begin = (uint64_t)space->ag * space->xfs.ag_blocks;
	uint32_t heads =
		(4 * space->xfs.sector_bytes + space->xfs.block_bytes - 1) / space->xfs.block_bytes;
	int error = space_used(space->map, begin, heads);

	if (!error)
		error = read_sector(space, 2, AGI_MAGIC, 312);
	if (!error)
		error = xfs_each_record(&space->xfs,
					&(struct xfs_tree){ .ag = space->ag,
							    .root = xfs_32(space->sector + 20),
							    .levels = xfs_32(space->sector + 24),
							    .magic = 0x49414254,
							    .magic_sums = 0x49414233,
							    .record_bytes = 16,
							    .key_bytes = 4,
							    .record = use_inodes,
							    .tree_block = use_block,
							    .context = space });
	return error ? space_refuse(space->map, error, "the inodes of AG %u are not sound",
				    space->ag)
		     : 0;
}

/* The blocks that a tree of free space itself lies in. */
static int no_record(void *context, const uint8_t *record)
{
	(void)context;
	(void)record;
	return 0;
}

static int use_free_trees(struct xfs_space *space)
{
	int error = read_sector(space, 1, AGF_MAGIC, 216);

	for (unsigned n = 0; n < 2 && !error; n++)
		error = xfs_each_record(
			&space->xfs,
			&(struct xfs_tree){ .ag = space->ag,
					    .root = xfs_32(space->sector + 16 + 4 * n),
					    .levels = xfs_32(space->sector + 28 + 4 * n),
					    .magic = 0x41425442 + n,
					    .magic_sums = 0x41423342 + n,
					    .record_bytes = 8,
					    .key_bytes = 8,
					    .record = no_record,
					    .tree_block = use_block,
					    .context = space });
	return error ? space_refuse(space->map, error, "AG %u is not sound", space->ag) : 0;
}

static int use_log(struct xfs_space *space)
{
	uint64_t block;

	return xfs_block_of(&space->xfs, space->xfs.log_start, &block)
		       ? space_used(space->map, block, space->xfs.log_blocks)
		       : -EBADMSG;
}

static int compare(struct xfs_space *space)
{
	int error = check_log(space);

	if (!error)
		error = space_begin(space->map, space->xfs.blocks, space->xfs.block_bytes);
	for (space->ag = 0; space->ag < space->xfs.ags && !error; space->ag++)
		error = read_free(space);
	for (space->ag = 0; space->ag < space->xfs.ags && !error; space->ag++) {
		error = use_free_trees(space);
		if (!error)
			error = use_ag(space);
	}
	return error ? error : use_log(space);
}

int space_xfs(const struct scan_volume *volume, struct space_map *map)
{
	struct xfs_space space = { .map = map };
	int error = xfs_open(volume, &space.xfs);

	if (error)
		return space_refuse(map, error,
				    "its superblock is not sound, or has features that are not "
				    "known here");
	if (space.xfs.not_finished || space.xfs.ro_compatible & ~KNOWN_RO)
		return space_refuse(map, -ENOTSUP,
				    "needs a repair, or has features that are not known here");
	space.sector = malloc(space.xfs.sector_bytes);
	error = space.sector ? compare(&space) : space_refuse(map, -ENOMEM, "no memory");
	free(space.sector);
	return error;
}
