/* What the reader of qcow2 files (qcow2.c) and what gives clusters back (qcow2_shrink.c) share. */
#pragma once

#include <pthread.h>

#include "abi/qcow2.h"
#include "disk/disk_internal.h"

enum { QCOW2_CACHED = 16 };

struct inflater;
struct qcow2_shrinker;
struct qcow2_cached { uint64_t offset, used; uint64_t *entries; };

struct qcow2 {
	uint32_t cluster_bits, cluster_bytes, entry_words, l1_entries;
	uint64_t l2_entries, *l1, l1_at, ticks;
	/* when it was opened: what its tables name beyond is missing, not zero */
	uint64_t file_bytes;
	struct inflater *inflater;
	struct qcow2_cached cache[QCOW2_CACHED];
	pthread_mutex_t lock;
	struct qcow2_shrinker *shrinker; /* NULL: it is only read */
};

static inline struct qcow2 *qcow2_of(const struct disk *disk) { return disk->format; }

/* Where a packed cluster is: with how many bytes, to the end of the last sector that it is in. */
static inline uint64_t qcow2_packed_at(const struct qcow2 *qcow2, uint64_t entry)
{
	return entry & ((1ull << QCOW2_PACKED_BITS(qcow2->cluster_bits)) - 1);
}
static inline uint32_t qcow2_packed_bytes(const struct qcow2 *qcow2, uint64_t entry)
{
	const unsigned bits = QCOW2_PACKED_BITS(qcow2->cluster_bits);
	const uint64_t sectors = ((entry & (QCOW2_COMPRESSED - 1)) >> bits) + 1;

	return (uint32_t)(sectors * QCOW2_SECTOR_BYTES -
			  (qcow2_packed_at(qcow2, entry) & (QCOW2_SECTOR_BYTES - 1)));
}

/* Held: lock. A table of clusters; NULL: it cannot be read, or with -ENODATA is not all there. */
uint64_t *qcow2_table_at(struct disk *disk, uint64_t offset, int *ret_error);

/* qcow2_shrink.c. begin: refuses what is not sound, or has more than a plain disk. */
int qcow2_shrink_begin(struct disk *disk, const struct qcow2_head *head, struct disk_error *error);
void qcow2_shrink_end(struct qcow2 *qcow2);
/* As struct disk_driver says. */
int qcow2_give_back(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes);
int qcow2_shrink_flush(struct disk *disk);
