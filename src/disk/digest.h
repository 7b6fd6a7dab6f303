/*
 * Content digests: what the blocks of a file hold, so that a change is noticed that nobody
 * announced.
 *
 * A table has one digest a block. It covers what the file itself says and not what its parents do:
 * the sectors that it has, and which they are; all zero for a block of which it says nothing, and
 * in a file without a parent for one that is zero. Two tables are kept: of the file itself, brought
 * up to date when it is closed; and of its parent, as it was when the child was made.
 *
 * Stored: struct digest_head, a bit for each block that has a digest, those digests. A table is
 * current when it names the file's data identifier (or, of a format without one, when the file's
 * stamp is the one it names).
 *
 * 1. A table has one digest for each block of the disk's size; blocks are a power of two of bytes,
 *    and the algorithm is one that is known.
 * 2. Of what is stored, the head counts the digests that are not empty, and `root` is of them all.
 */
#pragma once

#include "disk_internal.h"

/* accidents and careless tools; also somebody who means it */
enum digest_algorithm { DIGEST_XXH3 = 1, DIGEST_BLAKE2B = 2 };
enum { DIGEST_BLOCK_BYTES = 2 << 20 }; /* of formats that have no blocks */
enum { DIGEST_BLOCK_MIN = 4096 };

struct digest { uint8_t byte[16]; };

struct digest_head {
	uint32_t magic, version, algorithm, block_bytes;
	uint64_t size_bytes, present;
	struct guid data_id;
	struct file_stamp stamp;
	struct digest root; /* of everything behind the head */
};

struct digest_table {
	struct digest_head head;
	uint64_t blocks;
	struct digest *of;
};

#define DIGEST_ITEM_OWN \
	GUID(0x5f1d7c52, 0x6f3a, 0x4d0e, 0x9b, 0x51, 0x7a, 0x20, 0xe4, 0x6c, 0x00, 0x00)
#define DIGEST_ITEM_PARENT \
	GUID(0x5f1d7c52, 0x6f3a, 0x4d0e, 0x9b, 0x51, 0x7a, 0x20, 0xe4, 0x6d, 0x00, 0x00)
#define DIGEST_ITEM_LINK \
	GUID(0x5f1d7c52, 0x6f3a, 0x4d0e, 0x9b, 0x51, 0x7a, 0x20, 0xe4, 0x6e, 0x00, 0x00)

static inline uint32_t digest_block_bytes(const struct disk *disk)
{
	return disk->block_bytes >= DIGEST_BLOCK_MIN ? disk->block_bytes : DIGEST_BLOCK_BYTES;
}

/* Asserts that a table has the shape that its head says. */
void check_digests(const struct digest_table *table);
/* An empty table for a disk; NULL: no memory. */
struct digest_table *digest_new(uint64_t size_bytes, uint32_t block_bytes,
				enum digest_algorithm algorithm);
void digest_free(struct digest_table *table);
/* What block `block` of this file holds now. */
int digest_block(struct disk *disk, const struct digest_table *table, uint64_t block,
		 struct digest *ret);
/* A whole new table. */
int digest_compute(struct disk *disk, enum digest_algorithm algorithm, struct digest_table **ret);
/* The kept table; -ENOENT none, -ESTALE one that is not current, -EBADMSG one that is not sound.
 * *ret is set where it is 0. */
int digest_load(struct disk *disk, struct digest_table **ret);
/* There is nothing to go by: no reason to refuse what does not depend on it. */
static inline bool digest_is_missing(int error)
{
	return error == -ENOENT || error == -ESTALE || error == -EBADMSG;
}
/* Computes and keeps it, where it is not current. */
int digest_refresh(struct disk *disk);
/* For a new file without content; to be freed. */
int digest_encode(struct digest_table *table, uint8_t **ret, size_t *ret_bytes);
int digest_decode(const uint8_t *bytes, size_t count, uint64_t size_bytes,
		  struct digest_table **ret);

/* disk.c tells of changes; what was told is brought up to date when the disk is closed. */
void digest_touch(struct disk *disk, uint64_t offset, uint64_t bytes);
/* Afterwards, for a commit that runs beside it: it may have copied what was there before. */
void digest_written(struct disk *disk, uint64_t offset, uint64_t bytes);
void digest_touch_from(struct disk *disk, uint64_t offset);
int digest_close(struct disk *disk);
/* Of a file that goes on as it was made: its table is of before the first change, which has been.
 * */
void digest_continue(struct disk *disk);

/*
 * Digests of a new file's data while it is written from its beginning to its end: nobody else
 * writes it, and it was empty. data NULL: zeros. End: makes the data durable, and keeps them. *ret
 * NULL: the file keeps none, and the others do nothing.
 */
struct digest_stream;
int digest_stream_begin(struct disk *disk, struct digest_stream **ret);
void digest_stream_add(struct digest_stream *stream, const uint8_t *data, uint64_t bytes);
int digest_stream_end(struct digest_stream *stream, struct disk *disk);
void digest_stream_free(struct digest_stream *stream);

/*
 * The link of a child to its parent: the parent's table as it was, and its stamp. While the stamp
 * is the same, nothing is computed; else each block of the parent is verified before it is read for
 * the first time.
 */
struct link;
/* Where the parent's table comes from: only what it keeps (-ENOENT, -ESTALE); where that is not
 * current, its content; its content. */
enum link_source { LINK_KEPT, LINK_KEPT_OR_COMPUTED, LINK_COMPUTED };
/* Of a child whose parent is open. */
int link_make(struct disk *child, enum link_source source);
/* Items for a child that is being created: to be freed. */
struct link_items { uint8_t *link, *table; size_t link_bytes, table_bytes; };
int link_encode(struct disk *parent, enum link_source source, struct link_items *ret);
/* What the file keeps; NULL when nothing. */
int link_load(struct disk *child, struct link **ret);
void link_free(struct link *link);
/* 0, or -ESTALE: the parent's content there is not what the child was made on. */
int link_verify(struct link *link, struct disk *parent, uint64_t offset, uint64_t bytes);
/* For check --chain: every block of the parent, also those of a stamp that is trusted. `report`
 * gets ranges, in order. */
int link_compare(struct disk *child, struct disk *parent,
		 int (*report)(void *context, uint64_t offset, uint64_t bytes), void *context);
/* The child forgets what it knew (its parent is going to change by a commit). */
int link_drop(struct disk *child);
