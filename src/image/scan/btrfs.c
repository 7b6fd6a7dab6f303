/* See btrfs.h. */
#include "btrfs.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/crc32c.h"

enum {
	SUPER_BYTES = 4096,
	SECTOR_MIN_BYTES = 4096,
	SUPER_AT = 65536,
	MIRROR_AT = 64 << 20,
	SUM_BYTES = 32,
	SYSTEM_AT = 811,
	SYSTEM_BYTES = 2048,
	HEAD_BYTES = 101,
	KEY_BYTES = 17,
	ITEM_BYTES = 25,
	POINTER_BYTES = 33,
	CHUNK_BYTES = 48,
	STRIPE_BYTES = 32,
	ROOT_BYTES = 239,
	LEVELS = 8,
	CHUNKS = 1 << 16,
	SLOTS = 256
};
/* all but zones, the second extent tree and the tree of stripes */
#define KNOWN_INCOMPATIBLE 0x10fffull
#define METADATA_ID 0x400ull
#define SUM_TREE 7
#define FIRST_CHUNK_TREE 256
#define BUDGET_BLOCKS (1ull << 26)

/* ---- keys ---- */

struct btrfs_key btrfs_key_at(const uint8_t *at)
{
	return (struct btrfs_key){ btrfs_64(at), at[8], btrfs_64(at + 9) };
}

static int compare(const struct btrfs_key *one, const struct btrfs_key *other)
{
	if (one->object != other->object)
		return one->object < other->object ? -1 : 1;
	if (one->type != other->type)
		return one->type < other->type ? -1 : 1;
	if (one->offset != other->offset)
		return one->offset < other->offset ? -1 : 1;
	return 0;
}

int btrfs_refuse(struct btrfs *btrfs, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(btrfs->why, sizeof(btrfs->why), format, arguments);
	va_end(arguments);
	return error;
}

static bool sum_holds(const uint8_t *block, size_t bytes)
{
	return crc32c(0, block + SUM_BYTES, bytes - SUM_BYTES) == btrfs_32(block);
}

/* ---- chunks ---- */

static const char *refused_kind(uint64_t type)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} kinds[] = {
		{ 1 << 3, "RAID0" }, { 1 << 6, "RAID10" }, { 1 << 7, "RAID5" }, { 1 << 8, "RAID6" }
	};

	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
		if (type & kinds[n].bit)
			return kinds[n].name;
	return type >> 11 ? "an unknown kind" : NULL;
}

/* The chunk with an address, or behind which it would have to be put (*ret_place). */
static struct btrfs_chunk *find_chunk(const struct btrfs *btrfs, uint64_t logical,
				      size_t *ret_place)
{
	size_t low = 0;
	size_t high = btrfs->chunks;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (btrfs->chunk[middle].logical <= logical)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_place = low;
	return low && logical - btrfs->chunk[low - 1].logical < btrfs->chunk[low - 1].bytes
		       ? &btrfs->chunk[low - 1]
		       : NULL;
}

static int insert_chunk(struct btrfs *btrfs, const struct btrfs_chunk *chunk)
{
	size_t place;
	const struct btrfs_chunk *there = find_chunk(btrfs, chunk->logical, &place);

	if (there && there->logical == chunk->logical)
		return 0; /* the superblock had it, too */
	if (there || (place < btrfs->chunks &&
		      btrfs->chunk[place].logical - chunk->logical < chunk->bytes))
		return btrfs_refuse(btrfs, -EBADMSG, "chunks lie over each other at %lu",
				    chunk->logical);
	if (btrfs->chunks == CHUNKS)
		return btrfs_refuse(btrfs, -ENOTSUP, "more than %d chunks", CHUNKS);
	memmove(btrfs->chunk + place + 1, btrfs->chunk + place,
		(btrfs->chunks - place) * sizeof(*chunk));
	btrfs->chunk[place] = *chunk;
	btrfs->chunks++;
	return 0;
}

static int add_chunk(void *context, const struct btrfs_key *key, const uint8_t *data,
		     uint32_t bytes)
{
	struct btrfs *btrfs = context;
	struct btrfs_chunk chunk = { .logical = key->offset };
	uint32_t stripes = bytes < CHUNK_BYTES ? 0 : btrfs_16(data + 44);

	if (key->type != BTRFS_CHUNK)
		return 0;
	if (!stripes || stripes > (bytes - CHUNK_BYTES) / STRIPE_BYTES)
		return btrfs_refuse(btrfs, -EBADMSG, "the chunk at %lu is not sound", key->offset);
	chunk.bytes = btrfs_64(data);
	chunk.refused = refused_kind(btrfs_64(data + 24));
	if (!chunk.bytes || chunk.bytes > UINT64_MAX - chunk.logical)
		return btrfs_refuse(btrfs, -EBADMSG, "the chunk at %lu is not sound", key->offset);
	for (uint32_t n = 0; n < stripes && chunk.copies < BTRFS_COPIES; n++) {
		const uint8_t *stripe = data + CHUNK_BYTES + (size_t)n * STRIPE_BYTES;
		uint64_t at = btrfs_64(stripe + 8);

		if (btrfs_64(stripe) == btrfs->device && at <= INT64_MAX &&
		    chunk.bytes <= INT64_MAX - at)
			chunk.at[chunk.copies++] = at;
	}
	return insert_chunk(btrfs, &chunk);
}

int btrfs_read(struct btrfs *btrfs, uint64_t logical, unsigned copy, void *to, size_t bytes)
{
	size_t unused;
	const struct btrfs_chunk *chunk = find_chunk(btrfs, logical, &unused);
	uint64_t in;

	if (!chunk || bytes > chunk->bytes - (logical - chunk->logical))
		return btrfs_refuse(btrfs, -EBADMSG, "no chunk has the address %lu", logical);
	if (chunk->refused)
		return btrfs_refuse(btrfs, -ENOTSUP, "chunks of %s", chunk->refused);
	if (!chunk->copies)
		return btrfs_refuse(btrfs, -ENOTSUP, "the chunk at %lu is on another disk",
				    chunk->logical);
	if (copy >= chunk->copies)
		return -ENOENT;
	in = chunk->at[copy] + (logical - chunk->logical);
	if (in > btrfs->volume->bytes || bytes > btrfs->volume->bytes - in)
		return btrfs_refuse(btrfs, -EBADMSG, "the address %lu is behind the end", logical);
	return volume_read(btrfs->volume, in, to, bytes);
}

/* ---- blocks of trees ---- */

struct btrfs_cache { uint64_t block[SLOTS]; uint8_t *data[SLOTS]; };

static bool is_block(const struct btrfs *btrfs, uint64_t number, const uint8_t *block)
{
	return sum_holds(block, btrfs->node_bytes) && btrfs_64(block + 48) == number &&
	       !memcmp(block + 32, btrfs->id, sizeof(btrfs->id));
}

static int read_block(struct btrfs *btrfs, uint64_t number, uint8_t *to)
{
	int error = 0;

	for (unsigned copy = 0; !error; copy++) {
		error = btrfs_read(btrfs, number, copy, to, btrfs->node_bytes);
		if (!error && is_block(btrfs, number, to))
			return 0;
	}
	return error == -ENOENT ? btrfs_refuse(btrfs, -EBADMSG, "the tree block %lu is not sound",
					       number)
				: error;
}

/* Into `to`, from the cache or into it. */
static int get_block(struct btrfs *btrfs, uint64_t number, uint8_t *to)
{
	size_t slot = (number / btrfs->node_bytes) % SLOTS;
	uint8_t **kept = &btrfs->cache->data[slot];
	int error;

	if (!btrfs->budget)
		return btrfs_refuse(btrfs, -ELOOP, "its trees have more blocks than any has");
	btrfs->budget--;
	if (*kept && btrfs->cache->block[slot] == number) {
		memcpy(to, *kept, btrfs->node_bytes);
		return 0;
	}
	error = read_block(btrfs, number, to);
	if (!error && !*kept)
		*kept = malloc(btrfs->node_bytes);
	if (!error && *kept) {
		memcpy(*kept, to, btrfs->node_bytes);
		btrfs->cache->block[slot] = number;
	}
	return error;
}

/* first: the key that its parent has for it; NULL: it is the root. */
static int check_node(struct btrfs *btrfs, const struct btrfs_tree *tree,
		      const struct btrfs_key *first, const uint8_t *block)
{
	const uint32_t each = tree->level ? POINTER_BYTES : ITEM_BYTES;
	const uint32_t count = btrfs_32(block + 96);
	struct btrfs_key before, key;

	if (block[100] != tree->level || btrfs_64(block + 80) != tree->generation ||
	    count > (btrfs->node_bytes - HEAD_BYTES) / each || (!count && (first || tree->level)))
		return btrfs_refuse(btrfs, -EBADMSG, "the tree block %lu is not the one meant",
				    tree->block);
	for (uint32_t n = 0; n < count; n++) {
		key = btrfs_key_at(block + HEAD_BYTES + (size_t)n * each);
		if (n ? compare(&before, &key) >= 0 : first && compare(first, &key))
			return btrfs_refuse(btrfs, -EBADMSG,
					    "the keys of the tree block %lu are not in order",
					    tree->block);
		before = key;
	}
	return 0;
}

static int walk(struct btrfs *btrfs, const struct btrfs_tree *tree, const struct btrfs_key *first,
		const struct btrfs_items *tell);

static int tell_items(struct btrfs *btrfs, const uint8_t *block, const struct btrfs_items *tell)
{
	const uint32_t count = btrfs_32(block + 96);
	const uint32_t room = btrfs->node_bytes - HEAD_BYTES;
	int error = 0;

	for (uint32_t n = 0; n < count && !error; n++) {
		const uint8_t *item = block + HEAD_BYTES + (size_t)n * ITEM_BYTES;
		const struct btrfs_key key = btrfs_key_at(item);
		uint32_t at = btrfs_32(item + KEY_BYTES);
		uint32_t bytes = btrfs_32(item + KEY_BYTES + 4);

		if (at > room || bytes > room - at || at < count * ITEM_BYTES)
			return btrfs_refuse(btrfs, -EBADMSG, "an item of the tree block %lu is "
							     "not within it",
					    btrfs_64(block + 48));
		if (compare(&key, &tell->from) >= 0 && compare(&key, &tell->to) <= 0)
			error = tell->item(tell->context, &key, block + HEAD_BYTES + at, bytes);
	}
	return error;
}

static int walk_children(struct btrfs *btrfs, const struct btrfs_tree *tree, const uint8_t *block,
			 const struct btrfs_items *tell)
{
	const uint32_t count = btrfs_32(block + 96);
	int error = 0;

	for (uint32_t n = 0; n < count && !error; n++) {
		const uint8_t *pointer = block + HEAD_BYTES + (size_t)n * POINTER_BYTES;
		const struct btrfs_key key = btrfs_key_at(pointer);
		const struct btrfs_tree child = { .block = btrfs_64(pointer + KEY_BYTES),
						  .generation = btrfs_64(pointer + KEY_BYTES + 8),
						  .level = tree->level - 1 };
		struct btrfs_key next;

		if (compare(&key, &tell->to) > 0)
			break;
		if (n + 1 < count) {
			next = btrfs_key_at(pointer + POINTER_BYTES);
			if (compare(&next, &tell->from) <= 0)
				continue;
		}
		error = walk(btrfs, &child, &key, tell);
	}
	return error;
}

static int walk(struct btrfs *btrfs, const struct btrfs_tree *tree, const struct btrfs_key *first,
		const struct btrfs_items *tell)
{
	uint8_t *block = malloc(btrfs->node_bytes);
	int error = block ? get_block(btrfs, tree->block, block) : -ENOMEM;

	if (!error)
		error = check_node(btrfs, tree, first, block);
	if (!error)
		error = tree->level ? walk_children(btrfs, tree, block, tell)
				    : tell_items(btrfs, block, tell);
	free(block);
	return error;
}

int btrfs_each_item(struct btrfs *btrfs, const struct btrfs_tree *tree,
		    const struct btrfs_items *tell)
{
	if (tree->level >= LEVELS)
		return btrfs_refuse(btrfs, -EBADMSG, "a tree of %u levels", tree->level + 1u);
	return walk(btrfs, tree, NULL, tell);
}

/* ---- roots ---- */

struct found { struct btrfs_tree *tree; unsigned count; };

static int take_root(void *context, const struct btrfs_key *key, const uint8_t *data,
		     uint32_t bytes)
{
	struct found *found = context;

	(void)key;
	if (bytes < ROOT_BYTES)
		return -EBADMSG;
	*found->tree = (struct btrfs_tree){ .block = btrfs_64(data + 176),
					    .generation = btrfs_64(data + 160),
					    .level = data[238] };
	found->count++;
	return 0;
}

int btrfs_find_tree(struct btrfs *btrfs, uint64_t number, struct btrfs_tree *ret)
{
	struct found found = { .tree = ret };
	int error = btrfs_each_item(btrfs, &btrfs->roots,
				    &(struct btrfs_items){ .from = { number, BTRFS_ROOT, 0 },
							   .to = { number, BTRFS_ROOT, UINT64_MAX },
							   .item = take_root,
							   .context = &found });

	if (error)
		return error;
	return found.count ? 0 : -ENOENT;
}

/* ---- the superblock ---- */

/* other_sums: with checksums of another kind, which are not looked at. */
static bool read_super(const struct scan_volume *volume, uint64_t at, bool other_sums,
		       uint8_t super[SUPER_BYTES])
{
	return at + SUPER_BYTES <= volume->bytes && !volume_read(volume, at, super, SUPER_BYTES) &&
	       !memcmp(super + 64, "_BHRfS_M", 8) && btrfs_64(super + 48) == at &&
	       (other_sums ? btrfs_16(super + 196) : sum_holds(super, SUPER_BYTES));
}

/* The newest of those that hold. */
static bool find_super(const struct scan_volume *volume, bool other_sums,
		       uint8_t super[SUPER_BYTES])
{
	static const uint64_t places[] = { SUPER_AT, MIRROR_AT, 256ull << 30 };
	uint8_t other[SUPER_BYTES];
	bool found = false;

	for (size_t n = 0; n < sizeof(places) / sizeof(places[0]); n++) {
		if (!read_super(volume, places[n], other_sums, other) ||
		    (found && btrfs_64(other + 72) <= btrfs_64(super + 72)))
			continue;
		memcpy(super, other, SUPER_BYTES);
		found = true;
	}
	return found;
}

static bool is_power(uint32_t bytes, uint32_t most)
{
	return bytes >= SECTOR_MIN_BYTES && bytes <= most && !(bytes & (bytes - 1));
}

static int take_super(struct btrfs *btrfs, const uint8_t *super)
{
	uint64_t unknown = btrfs_64(super + 188) & ~KNOWN_INCOMPATIBLE;
	bool other_id = btrfs_64(super + 188) & METADATA_ID;

	btrfs->node_bytes = btrfs_32(super + 148);
	btrfs->sector_bytes = btrfs_32(super + 144);
	btrfs->device = btrfs_64(super + 201);
	btrfs->bytes = btrfs_64(super + 112);
	btrfs->roots = (struct btrfs_tree){ btrfs_64(super + 80), btrfs_64(super + 72),
					    super[198] };
	btrfs->chunk_tree = (struct btrfs_tree){ btrfs_64(super + 88), btrfs_64(super + 164),
						 super[199] };
	memcpy(btrfs->id, super + (other_id ? 571 : 32), sizeof(btrfs->id));
	memcpy(btrfs->uuid, super + 32, sizeof(btrfs->uuid));
	if (btrfs_16(super + 196))
		return btrfs_refuse(btrfs, -ENOTSUP, "checksums of kind %u, not CRC-32C",
				    btrfs_16(super + 196));
	if (unknown)
		return btrfs_refuse(btrfs, -ENOTSUP, "features that are not known here: %#lx",
				    unknown);
	if (!is_power(btrfs->node_bytes, BTRFS_NODE_MAX_BYTES) ||
	    !is_power(btrfs->sector_bytes, btrfs->node_bytes) ||
	    btrfs_32(super + 160) > SYSTEM_BYTES)
		return btrfs_refuse(btrfs, -EBADMSG, "its superblock is not sound");
	return 0;
}

/* The chunks that the superblock itself has: those of the chunk tree. */
static int take_system_chunks(struct btrfs *btrfs, const uint8_t *super)
{
	const uint8_t *all = super + SYSTEM_AT;
	const uint32_t bytes = btrfs_32(super + 160);
	int error = 0;

	for (uint32_t at = 0; at < bytes && !error;) {
		struct btrfs_key key;
		uint32_t size;

		if (bytes - at < KEY_BYTES + CHUNK_BYTES)
			return btrfs_refuse(btrfs, -EBADMSG, "its list of chunks is not sound");
		key = btrfs_key_at(all + at);
		size = CHUNK_BYTES + btrfs_16(all + at + KEY_BYTES + 44) * (uint32_t)STRIPE_BYTES;
		if (key.type != BTRFS_CHUNK || size > bytes - at - KEY_BYTES)
			return btrfs_refuse(btrfs, -EBADMSG, "its list of chunks is not sound");
		error = add_chunk(btrfs, &key, all + at + KEY_BYTES, size);
		at += KEY_BYTES + size;
	}
	return error;
}

static int read_chunks(struct btrfs *btrfs)
{
	return btrfs_each_item(btrfs, &btrfs->chunk_tree,
			       &(struct btrfs_items){
				       .from = { FIRST_CHUNK_TREE, BTRFS_CHUNK, 0 },
				       .to = { FIRST_CHUNK_TREE, BTRFS_CHUNK, UINT64_MAX },
				       .item = add_chunk,
				       .context = btrfs });
}

int btrfs_open(const struct scan_volume *volume, struct btrfs *ret)
{
	uint8_t super[SUPER_BYTES];
	int error;

	*ret = (struct btrfs){ .volume = volume, .budget = BUDGET_BLOCKS };
	if (!find_super(volume, false, super) && !find_super(volume, true, super))
		return btrfs_refuse(ret, -EBADMSG, "no superblock is sound");
	error = take_super(ret, super);
	if (error)
		return error;
	ret->chunk = calloc(CHUNKS, sizeof(*ret->chunk));
	ret->cache = calloc(1, sizeof(*ret->cache));
	if (!ret->chunk || !ret->cache)
		return btrfs_refuse(ret, -ENOMEM, "no memory");
	error = take_system_chunks(ret, super);
	if (!error)
		error = read_chunks(ret);
	if (error)
		return error;
	error = btrfs_find_tree(ret, SUM_TREE, &ret->sums);
	ret->has_sums = !error;
	return error == -ENOENT ? 0 : error;
}

void btrfs_close(struct btrfs *btrfs)
{
	for (size_t n = 0; btrfs->cache && n < SLOTS; n++)
		free(btrfs->cache->data[n]);
	free(btrfs->cache);
	free(btrfs->chunk);
	btrfs->cache = NULL;
	btrfs->chunk = NULL;
}
