/*
 * What a qcow2 file begins with, and what its tables say (QEMU's docs/interop/qcow2). Big-endian;
 * offsets in the file are multiples of a cluster, but for those of packed clusters.
 */
#pragma once

#include <stdint.h>

#define QCOW2_MAGIC 0x514649fbu
enum { QCOW2_SECTOR_BYTES = 512, QCOW2_NAME_BYTES = 1023 };
enum {
	QCOW2_FEATURE_CORRUPT = 2,
	QCOW2_FEATURE_EXTERNAL = 4,
	QCOW2_FEATURE_COMPRESSION = 8,
	QCOW2_FEATURE_SUBCLUSTERS = 16,
	QCOW2_FEATURES = 31
};
/* what the backing file is: its name, as text */
#define QCOW2_EXTENSION_FORMAT 0xe2792acau
enum { QCOW2_FORMAT_BYTES = 31 };
/* An entry of either table: where a table or a cluster is, and that nobody else has it. */
#define QCOW2_OFFSET_BITS 0x00fffffffffffe00ull
#define QCOW2_COPIED (1ull << 63)
/* Of a cluster: packed; then the low bits are an offset in bytes, and those above, from
 * QCOW2_PACKED_BITS() on, how many further sectors it reaches into. */
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_PACKED_BITS(cluster_bits) (62 - ((cluster_bits)-8))
#define QCOW2_ZERO 1ull

struct qcow2_head {
	uint32_t magic, version;
	uint64_t backing_offset;
	uint32_t backing_bytes, cluster_bits;
	uint64_t size_bytes;
	uint32_t crypt, l1_entries;
	uint64_t l1_offset, refcounts;
	uint32_t refcount_clusters, snapshots;
	uint64_t snapshots_offset, incompatible, compatible, autoclear;
	uint32_t refcount_order, head_bytes;
	uint8_t compression, padding[7];
} __attribute__((packed));
_Static_assert(sizeof(struct qcow2_head) == 112, "of version 3, with the compression");
