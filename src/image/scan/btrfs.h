/*
 * btrfs, as far as it is read here: superblock, chunks, trees. (Source: the on-disk format as
 * btrfs's documentation describes it, "On-disk Format".)
 *
 *   superblock (64 KiB; copies at 64 MiB, 256 GiB) -> chunk tree -> where logical addresses lie
 *                                                  -> root tree  -> all other trees
 *   a tree's block: head, then items (leaf: key, place, size) or pointers (key, block, generation)
 *
 * Everything is little-endian. Nothing is used whose CRC-32C is wrong: of two copies (DUP, RAID1)
 * the one where it is right. Work is bounded: a block's keys go up, and the first is the one that
 * its parent has for it, so no block has two parents in a tree; levels go down to 0; `budget`
 * counts what is looked at.
 */
#pragma once

#include <endian.h>
#include <string.h>

#include "scan_internal.h"

enum { BTRFS_NODE_MAX_BYTES = 65536, BTRFS_WHY_BYTES = 128, BTRFS_COPIES = 4 };
enum btrfs_type {
	BTRFS_INODE = 1,
	BTRFS_DIR_ITEM = 84,
	BTRFS_DIR_INDEX = 96,
	BTRFS_EXTENT_DATA = 108,
	BTRFS_EXTENT_CSUM = 128,
	BTRFS_ROOT = 132,
	BTRFS_CHUNK = 228
};

struct btrfs_key { uint64_t object; uint8_t type; uint64_t offset; };
/* copies: where it lies on this device; none: on others alone */
struct btrfs_chunk {
	uint64_t logical, bytes, at[BTRFS_COPIES];
	unsigned copies;
	const char *refused; /* a kind that is not read; NULL: it is */
};
struct btrfs_tree { uint64_t block, generation; uint8_t level; };
struct btrfs_cache;

struct btrfs {
	const struct scan_volume *volume;
	uint32_t node_bytes, sector_bytes;
	uint64_t device, bytes;
	uint8_t id[16];   /* of metadata */
	uint8_t uuid[16]; /* as it is mounted by */
	struct btrfs_tree roots, chunk_tree, sums;
	bool has_sums;
	struct btrfs_chunk *chunk;
	size_t chunks;
	struct btrfs_cache *cache; /* blocks that were read and hold */
	uint64_t budget;	   /* blocks that may still be looked at */
	char why[BTRFS_WHY_BYTES]; /* what was refused last */
};

static inline uint16_t btrfs_16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}
static inline uint32_t btrfs_32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}
static inline uint64_t btrfs_64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}
struct btrfs_key btrfs_key_at(const uint8_t *at);

/* -EBADMSG, -ENOTSUP, -ENOMEM, with `why`. To be closed in any case. */
int btrfs_open(const struct scan_volume *volume, struct btrfs *ret);
void btrfs_close(struct btrfs *btrfs);
/* Says why, and returns the error. */
int btrfs_refuse(struct btrfs *btrfs, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The items of a tree from one key to another, both included, in order. Not 0 from `item`: ends it,
 * and is returned. */
struct btrfs_items {
	struct btrfs_key from, to;
	int (*item)(void *context, const struct btrfs_key *key, const uint8_t *data,
		    uint32_t bytes);
	void *context;
};
int btrfs_each_item(struct btrfs *btrfs, const struct btrfs_tree *tree,
		    const struct btrfs_items *tell);
/* The tree with a number; -ENOENT. */
int btrfs_find_tree(struct btrfs *btrfs, uint64_t number, struct btrfs_tree *ret);
/* One copy of bytes at a logical address, within a chunk. -ENOENT: there is no such copy; -EBADMSG,
 * -ENOTSUP with `why`. */
int btrfs_read(struct btrfs *btrfs, uint64_t logical, unsigned copy, void *to, size_t bytes);
