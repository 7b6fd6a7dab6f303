/*
 * The disks of a machine: a slot queue (slot_queue.h) to the process that holds them
 * (process/block_server.c), and what the machine is told of each.
 *
 * Of a request: kind is an enum block_kind, target a disk. bytes of READ and WRITE are at most
 * BLOCK_SLOT_BYTES. A reply's result is 0 or -errno.
 *
 * The disk process believes nothing: a disk that is not there, or a length beyond a slot ends it,
 * and the machine with it, as what slot_queue.h names does.
 *
 * Disks come and go while the machine runs, at most BLOCK_HOT_DISKS more than it began with: the
 * broker tells the disk process first of one that comes, and the machine process first of one that
 * goes (process/layer.h).
 */
#pragma once

#include "slot_queue.h"

enum { BLOCK_SLOTS = 64, BLOCK_SLOT_BYTES = 1 << 20, BLOCK_DISKS = 16, BLOCK_HOT_DISKS = 4 };
enum block_kind { BLOCK_READ, BLOCK_WRITE, BLOCK_ZERO, BLOCK_FLUSH, BLOCK_KINDS };

/*
 * Written before the machine process exists; of one that comes later it is told. sector_bytes 0:
 * there is none of this number. size_bytes 0: a drive without a medium.
 */
struct block_disk {
	uint64_t size_bytes;
	uint32_t sector_bytes, physical_bytes;
	uint8_t id[16];
	bool read_only;
	bool is_dvd; /* a drive, and what is in it */
};

/* A drive without a disc. */
static inline struct block_disk block_empty_drive(void)
{
	return (struct block_disk){
		.sector_bytes = 512, .physical_bytes = 512, .read_only = true, .is_dvd = true,
	};
}

struct block_memory {
	uint32_t disks; /* numbers that are used, also by none */
	struct block_disk disk[BLOCK_DISKS];
	struct slot_queue queue;
	_Alignas(SLOT_PAGE_BYTES) uint8_t data[BLOCK_SLOTS][BLOCK_SLOT_BYTES];
};
