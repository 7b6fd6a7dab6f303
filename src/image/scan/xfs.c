/* See xfs.h. */
#include "xfs.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crc32c.h"

enum {
	SUPER_BYTES = 512,
	SUPER_SUM = 224,
	INODE_SUM = 100,
	SHORT_SUM = 52,
	LONG_SUM = 64,
	EXTENT_BYTES = 16
};
#define SUPER_MAGIC 0x58465342u /* XFSB */
#define INODE_MAGIC 0x494eu
#define MAP_MAGIC 0x424d4150u /* BMAP */
#define MAP_MAGIC_SUMS 0x424d4133u
/* file types in directories, sparse inodes, another uuid in metadata, large times, many extents */
#define KNOWN_INCOMPATIBLE 0x2fu
#define NEEDS_REPAIR 0x10u
#define BUDGET_BLOCKS (1ull << 26)

bool xfs_sum_holds(const struct xfs *xfs, const uint8_t *at, size_t bytes, size_t sum_at)
{
	uint32_t sum, kept;

	assert(sum_at + 4 <= bytes);
	if (!xfs->has_sums)
		return true;
	memcpy(&kept, at + sum_at, sizeof(kept));
	sum = crc32c(0, at, sum_at);
	sum = crc32c_zeros(sum, 4);
	return crc32c(sum, at + sum_at + 4, bytes - sum_at - 4) == kept;
}

static bool is_log(uint64_t bytes, uint8_t log) { return log < 32 && bytes == 1ull << log; }

static int check_geometry(const struct xfs *xfs)
{
	if (xfs->block_bytes < 512 || xfs->block_bytes > XFS_BLOCK_MAX_BYTES ||
	    !is_log(xfs->block_bytes, xfs->block_log) || xfs->sector_bytes < 512 ||
	    xfs->sector_bytes > xfs->block_bytes || xfs->sector_bytes & (xfs->sector_bytes - 1) ||
	    xfs->inode_bytes < 256 || xfs->inode_bytes > XFS_INODE_MAX_BYTES ||
	    xfs->inode_bytes > xfs->block_bytes || !is_log(xfs->inode_bytes, xfs->inode_log) ||
	    xfs->inodes_per_block_log != xfs->block_log - xfs->inode_log)
		return -EBADMSG;
	if (!xfs->ags || !xfs->ag_blocks || xfs->ag_block_log > 31 ||
	    xfs->ag_blocks > 1ull << xfs->ag_block_log ||
	    xfs->block_log + xfs->directory_log > 16 ||
	    xfs->blocks > (1ull << 62) / xfs->block_bytes ||
	    (xfs->blocks + xfs->ag_blocks - 1) / xfs->ag_blocks != xfs->ags)
		return -EBADMSG;
	return 0;
}

int xfs_open(const struct scan_volume *volume, struct xfs *ret)
{
	uint8_t super[SUPER_BYTES];
	uint8_t *sector = NULL;
	int error = volume_read(volume, 0, super, sizeof(super));
	uint16_t version = xfs_16(super + 100);
	bool five = (version & 15) == 5;

	if (error)
		return error;
	if (xfs_32(super) != SUPER_MAGIC || ((version & 15) != 4 && !five))
		return -EBADMSG;
	*ret = (struct xfs){
		.volume = volume,
		.block_bytes = xfs_32(super + 4),
		.blocks = xfs_64(super + 8),
		.log_start = xfs_64(super + 48),
		.root_inode = xfs_64(super + 56),
		.ag_blocks = xfs_32(super + 84),
		.ags = xfs_32(super + 88),
		.log_blocks = xfs_32(super + 96),
		.log_unit_bytes = xfs_32(super + 196),
		.sector_bytes = xfs_16(super + 102),
		.inode_bytes = xfs_16(super + 104),
		.block_log = super[120],
		.inode_log = super[122],
		.inodes_per_block_log = super[123],
		.ag_block_log = super[124],
		.directory_log = super[192],
		.ro_compatible = five ? xfs_32(super + 212) : 0,
		.incompatible = five ? xfs_32(super + 216) : 0,
		.has_sums = five,
		.has_file_types = five ? xfs_32(super + 216) & 1
				       : version & 0x8000 && xfs_32(super + 200) & 0x200,
		.not_finished = super[126],
		.budget = BUDGET_BLOCKS,
	};
	memcpy(ret->uuid, super + 32, sizeof(ret->uuid));
	error = check_geometry(ret);
	if (!error)
		sector = malloc(ret->sector_bytes);
	if (!error)
		error = sector ? volume_read(volume, 0, sector, ret->sector_bytes) : -ENOMEM;
	if (!error && !xfs_sum_holds(ret, sector, ret->sector_bytes, SUPER_SUM))
		error = -EBADMSG;
	free(sector);
	if (!error && ret->incompatible & NEEDS_REPAIR)
		ret->not_finished = true;
	if (!error && ret->incompatible & ~(KNOWN_INCOMPATIBLE | NEEDS_REPAIR))
		error = -ENOTSUP;
	return error;
}

/* ---- blocks ---- */

uint32_t xfs_ag_length(const struct xfs *xfs, uint32_t ag)
{
	uint64_t begin = (uint64_t)ag * xfs->ag_blocks;

	assert(ag < xfs->ags);
	return xfs->blocks - begin < xfs->ag_blocks ? (uint32_t)(xfs->blocks - begin)
						    : xfs->ag_blocks;
}

bool xfs_block_of(const struct xfs *xfs, uint64_t number, uint64_t *ret_block)
{
	uint64_t ag = number >> xfs->ag_block_log;
	uint64_t in = number & ((1ull << xfs->ag_block_log) - 1);

	if (ag >= xfs->ags || in >= xfs_ag_length(xfs, (uint32_t)ag))
		return false;
	*ret_block = ag * xfs->ag_blocks + in;
	return true;
}

int xfs_read_blocks(struct xfs *xfs, uint64_t block, uint32_t count, uint8_t *to)
{
	if (block >= xfs->blocks || count > xfs->blocks - block)
		return -EBADMSG;
	if (xfs->budget < count)
		return -ELOOP;
	xfs->budget -= count;
	return volume_read(xfs->volume, block << xfs->block_log, to,
			   (size_t)count << xfs->block_log);
}

/* ---- inodes ---- */

static bool forks_find(struct xfs_inode *inode, uint32_t inode_bytes)
{
	uint32_t begin = inode->version == 3 ? 176 : 100;
	uint32_t attributes = begin + inode->raw[82] * 8u;

	inode->data_at = begin;
	inode->data_bytes = inode_bytes - begin;
	if (!inode->raw[82])
		return true;
	inode->attribute_at = attributes;
	inode->data_bytes = attributes - begin;
	if (attributes >= inode_bytes)
		return false;
	inode->attribute_bytes = inode_bytes - attributes;
	return true;
}

static void extents_count(const struct xfs *xfs, struct xfs_inode *inode)
{
	bool many = inode->version == 3 && xfs->incompatible & 0x20 &&
		    xfs_64(inode->raw + 120) & 0x10;

	inode->data_extents = many ? xfs_64(inode->raw + 24) : xfs_32(inode->raw + 76);
	inode->attribute_extents = many ? xfs_32(inode->raw + 76) : xfs_16(inode->raw + 80);
}

int xfs_read_inode(struct xfs *xfs, uint64_t number, struct xfs_inode *ret)
{
	uint64_t block;
	uint64_t in = number & ((1ull << xfs->inodes_per_block_log) - 1);
	int error;

	*ret = (struct xfs_inode){ .number = number };
	if (!xfs_block_of(xfs, number >> xfs->inodes_per_block_log, &block))
		return -EBADMSG;
	if (!xfs->budget)
		return -ELOOP;
	xfs->budget--;
	error = volume_read(xfs->volume, (block << xfs->block_log) + (in << xfs->inode_log),
			    ret->raw, xfs->inode_bytes);
	if (error)
		return error;
	ret->mode = xfs_16(ret->raw + 2);
	ret->version = ret->raw[4];
	ret->format = ret->raw[5];
	ret->attribute_format = ret->raw[83];
	ret->bytes = xfs_64(ret->raw + 56);
	ret->change_seconds = xfs_32(ret->raw + 48);
	if (ret->version == 3 && xfs_64(ret->raw + 120) & 8) /* from 1901 on, in ns */
		ret->change_seconds = xfs_64(ret->raw + 48) / 1000000000 - (1ull << 31);
	ret->is_realtime = xfs_16(ret->raw + 90) & 1;
	if (xfs_16(ret->raw) != INODE_MAGIC || ret->version > 3 ||
	    (xfs->has_sums && ret->version != 3) ||
	    (ret->version == 3 && !xfs_sum_holds(xfs, ret->raw, xfs->inode_bytes, INODE_SUM)) ||
	    !forks_find(ret, xfs->inode_bytes))
		return -EBADMSG;
	extents_count(xfs, ret);
	return ret->mode ? 0 : -ENOENT;
}

/* ---- extents ---- */

static int take_extent(const struct xfs *xfs, const uint8_t *record, const struct xfs_extents *tell)
{
	uint64_t high = xfs_64(record);
	uint64_t low = xfs_64(record + 8);
	struct xfs_extent extent = { .file_block = (high & INT64_MAX) >> 9,
				     .count = low & 0x1fffff,
				     .unwritten = high >> 63 };
	uint64_t last;

	if (!extent.count ||
	    !xfs_block_of(xfs, (high & 0x1ff) << 43 | low >> 21, &extent.block) ||
	    !xfs_block_of(xfs, ((high & 0x1ff) << 43 | low >> 21) + extent.count - 1, &last) ||
	    last != extent.block + extent.count - 1)
		return -EBADMSG;
	return tell->extent(tell->context, &extent);
}

static int take_extents(const struct xfs *xfs, const uint8_t *at, uint64_t count,
			const struct xfs_extents *tell)
{
	int error = 0;

	for (uint64_t n = 0; n < count && !error; n++)
		error = take_extent(xfs, at + n * EXTENT_BYTES, tell);
	return error;
}

static int walk_map(struct xfs *xfs, const uint8_t *children, uint32_t count, uint32_t level,
		    const struct xfs_extents *tell);

/* A block of a file's tree. */
static int walk_map_block(struct xfs *xfs, uint64_t number, uint32_t level,
			  const struct xfs_extents *tell)
{
	uint32_t head = xfs->has_sums ? 72 : 24;
	uint32_t most = (xfs->block_bytes - head) / 16;
	uint8_t *block = malloc(xfs->block_bytes);
	uint64_t at;
	uint32_t count;
	int error = -EBADMSG;

	if (block && xfs_block_of(xfs, number, &at))
		error = xfs_read_blocks(xfs, at, 1, block);
	if (!error && tell->tree_block)
		error = tell->tree_block(tell->context, at);
	count = error ? 0 : xfs_16(block + 6);
	if (!error && (xfs_32(block) != (xfs->has_sums ? MAP_MAGIC_SUMS : MAP_MAGIC) ||
		       xfs_16(block + 4) != level || count > most ||
		       !xfs_sum_holds(xfs, block, xfs->block_bytes, LONG_SUM)))
		error = -EBADMSG;
	if (!error && !level)
		error = take_extents(xfs, block + head, count, tell);
	else if (!error)
		error = walk_map(xfs, block + head + most * 8, count, level - 1, tell);
	free(block);
	return error;
}

static int walk_map(struct xfs *xfs, const uint8_t *children, uint32_t count, uint32_t level,
		    const struct xfs_extents *tell)
{
	int error = 0;

	for (uint32_t n = 0; n < count && !error; n++)
		error = walk_map_block(xfs, xfs_64(children + n * 8ull), level, tell);
	return error;
}

int xfs_each_extent(struct xfs *xfs, const struct xfs_inode *inode, bool attributes,
		    const struct xfs_extents *tell)
{
	const uint8_t *fork = inode->raw + (attributes ? inode->attribute_at : inode->data_at);
	uint32_t bytes = attributes ? inode->attribute_bytes : inode->data_bytes;
	uint8_t format = attributes ? inode->attribute_format : inode->format;
	uint64_t extents = attributes ? inode->attribute_extents : inode->data_extents;
	uint32_t most = bytes < 20 ? 0 : (bytes - 4) / 16;

	if (!bytes || format == XFS_LOCAL || format == 0 || (!attributes && inode->is_realtime))
		return 0;
	if (format == XFS_EXTENTS)
		return extents > bytes / EXTENT_BYTES ? -EBADMSG
						      : take_extents(xfs, fork, extents, tell);
	if (format != XFS_BTREE || !most || !xfs_16(fork) || xfs_16(fork) >= XFS_LEVELS ||
	    xfs_16(fork + 2) > most)
		return -EBADMSG;
	return walk_map(xfs, fork + 4 + most * 8, xfs_16(fork + 2), xfs_16(fork) - 1u, tell);
}

/* ---- trees of an AG ---- */

static int walk_tree(struct xfs *xfs, const struct xfs_tree *tree, uint32_t number, uint32_t level)
{
	uint32_t head = xfs->has_sums ? 56 : 16;
	uint32_t each = level ? tree->key_bytes + 4 : tree->record_bytes;
	uint32_t most = (xfs->block_bytes - head) / each;
	uint64_t at = (uint64_t)tree->ag * xfs->ag_blocks + number;
	uint8_t *block = malloc(xfs->block_bytes);
	uint32_t count;
	int error = block ? 0 : -ENOMEM;

	if (number >= xfs_ag_length(xfs, tree->ag))
		error = -EBADMSG;
	if (!error)
		error = xfs_read_blocks(xfs, at, 1, block);
	count = error ? 0 : xfs_16(block + 6);
	if (!error && (xfs_32(block) != (xfs->has_sums ? tree->magic_sums : tree->magic) ||
		       xfs_16(block + 4) != level || count > most ||
		       !xfs_sum_holds(xfs, block, xfs->block_bytes, SHORT_SUM)))
		error = -EBADMSG;
	if (!error && tree->tree_block)
		error = tree->tree_block(tree->context, at);
	for (uint32_t n = 0; n < count && !error; n++)
		error = level ? walk_tree(xfs, tree,
					  xfs_32(block + head + most * tree->key_bytes + n * 4ull),
					  level - 1)
			      : tree->record(tree->context,
					     block + head + (uint64_t)n * tree->record_bytes);
	free(block);
	return error;
}

int xfs_each_record(struct xfs *xfs, const struct xfs_tree *tree)
{
	assert(tree->ag < xfs->ags);
	if (!tree->levels || tree->levels > XFS_LEVELS)
		return -EBADMSG;
	return walk_tree(xfs, tree, tree->root, tree->levels - 1);
}
