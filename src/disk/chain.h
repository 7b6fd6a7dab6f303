/*
 * The layer between the requests on a disk and the formats of its chain. A format answers for its
 * own file only (struct disk_driver); what falls through to the parents, how a request is split,
 * and that nothing is written after a failed flush is decided here, once for all formats.
 *
 *     disk_readv() ...          checks what the caller says: -EINVAL, -ENOSPC, -EROFS, the sticky
 *                               error
 *     chain_read() ...          asserts it, splits, falls through
 *     driver->read() ...        one file: present, zero or absent
 *
 * 1. A driver is asked for at least a sector within the disk, aligned; to write or zero, for
 *    nothing beyond one block (where the format has blocks). It answers for at least a sector and
 *    at most what it was asked for, and a range that is absent only of a child.
 * 2. An ancestor does not change while it is open as one, so that what is remembered about it stays
 *    true (struct chain).
 * 3. Before a byte of a parent is read through its child for the first time, the content is
 *    compared with what the child was made on, where that has to be (digest.h).
 *
 * Locks: none of its own; `silent` is read and written atomically, and threads that beside each
 * other find out the same write the same.
 */
#pragma once

#include "buffer.h"

struct disk;
struct disk_error;
struct disk_range;

/*
 * Of a child: its ancestors, the parent first, and for each granule how many of them say nothing
 * about it, so that a read costs the same at any depth.
 */
struct chain {
	struct disk **ancestor;
	unsigned ancestors;
	/* as far as the parent reaches: behind it everything is zero */
	uint64_t granule_bytes, granules;
	uint16_t *silent; /* one more than that number; 0: not known yet */
};

/* After disk->parent was set or has changed; what was remembered is forgotten. Nobody else uses the
 * disk. */
int chain_attach(struct disk *disk);
void chain_detach(struct disk *disk);
/* Asserts that the ancestors are those that follow each other from disk->parent on. */
void check_chain(const struct disk *disk);

int chain_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
	       uint64_t bytes);
/* The rest of what a driver's read() leaves to do: a range that is zero or absent is put into the
 * buffer. */
int chain_fall_through(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		       const struct disk_range *range);
/* How much of a range lies within a disk. Of a parent: what lies behind its end is zero to its
 * child. */
uint64_t chain_bytes_within(const struct disk *disk, uint64_t offset, uint64_t bytes);
/* Whether any ancestor says something about the granule at `offset` but zeros. */
int chain_anybody_has(struct disk *disk, uint64_t offset, bool *ret);
