/*
 * XFS, versions 4 and 5, as far as it is read here: superblock, inodes, extents. (Source: "XFS
 * Algorithms & Data Structures", 3rd edition.)
 *
 *   AG 0: superblock, AGF, AGI, AGFL (a sector each), blocks      AG 1: the same      ...
 *   a block's number: AG << agblklog | block in the AG
 *   an inode's number: block << inopblog | which of the block's
 *
 * Everything is big-endian. What has a checksum (version 5) is not used when that is wrong. Work is
 * bounded: a tree has at most XFS_LEVELS levels, each of its blocks is within the volume, and
 * `budget` counts what is read.
 */
#pragma once

#include "scan_internal.h"

enum { XFS_LEVELS = 9, XFS_INODE_MAX_BYTES = 2048, XFS_BLOCK_MAX_BYTES = 65536 };

struct xfs {
	const struct scan_volume *volume;
	uint32_t block_bytes, sector_bytes, inode_bytes, ag_blocks, ags, log_blocks, log_unit_bytes;
	uint64_t blocks, root_inode, log_start;
	uint8_t block_log, inode_log, inodes_per_block_log, ag_block_log, directory_log;
	uint32_t incompatible, ro_compatible;
	bool has_sums, has_file_types, not_finished; /* the last: mkfs or repair was cut off */
	uint8_t uuid[16];
	uint64_t budget; /* blocks that may still be read */
};

/* -EBADMSG: not sound; -ENOTSUP: features that are not known here. */
int xfs_open(const struct scan_volume *volume, struct xfs *ret);

static inline uint16_t xfs_16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static inline uint32_t xfs_32(const uint8_t *at)
{
	return (uint32_t)xfs_16(at) << 16 | xfs_16(at + 2);
}
static inline uint64_t xfs_64(const uint8_t *at)
{
	return (uint64_t)xfs_32(at) << 32 | xfs_32(at + 4);
}

/* Whether the sum at sum_at is that of the rest. Always, without sums. */
bool xfs_sum_holds(const struct xfs *xfs, const uint8_t *at, size_t bytes, size_t sum_at);
/* How many blocks an AG has; the last one may be shorter. */
uint32_t xfs_ag_length(const struct xfs *xfs, uint32_t ag);
/* A block's number counted from the volume's beginning; false: there is no such block. */
bool xfs_block_of(const struct xfs *xfs, uint64_t number, uint64_t *ret_block);
/* Blocks counted from the volume's beginning; -EBADMSG, -ELOOP: the budget is used up. */
int xfs_read_blocks(struct xfs *xfs, uint64_t block, uint32_t count, uint8_t *to);

struct xfs_inode {
	uint64_t number;
	uint16_t mode;
	uint8_t version, format, attribute_format;
	bool is_realtime;
	uint64_t bytes, change_seconds;
	uint64_t data_extents;
	uint32_t attribute_extents;
	uint32_t data_at, data_bytes, attribute_at, attribute_bytes; /* in `raw` */
	uint8_t raw[XFS_INODE_MAX_BYTES];
};
enum { XFS_LOCAL = 1, XFS_EXTENTS = 2, XFS_BTREE = 3 };

/* -ENOENT: nothing is there; -EBADMSG. */
int xfs_read_inode(struct xfs *xfs, uint64_t number, struct xfs_inode *ret);

/* file_block: where in the file; block: on the volume, from its beginning. */
struct xfs_extent { uint64_t file_block, block, count; bool unwritten; };
struct xfs_extents {
	int (*extent)(void *context, const struct xfs_extent *extent);
	int (*tree_block)(void *context, uint64_t block); /* NULL: not told of */
	void *context;
};
/* In order; what a function returns, when that is not 0, ends it and is returned. */
int xfs_each_extent(struct xfs *xfs, const struct xfs_inode *inode, bool attributes,
		    const struct xfs_extents *tell);

/* A tree whose blocks are within an AG: of free space, of inodes. `record` is told of each record,
 * in order, `tree_block` of each of its blocks (of the volume). */
struct xfs_tree {
	uint32_t ag, root, levels, magic, magic_sums, record_bytes, key_bytes;
	int (*record)(void *context, const uint8_t *record);
	int (*tree_block)(void *context, uint64_t block);
	void *context;
};
int xfs_each_record(struct xfs *xfs, const struct xfs_tree *tree);
