/* An open VHD file, for what reads and writes it (vhd.c), opens (vhd_open.c) and makes them
 * (vhd_create.c). */
#pragma once

#include <pthread.h>

#include "abi/vhd.h"
#include "disk/disk_internal.h"

enum {
	VHD_BLOCK_BYTES = 2 << 20,
	VHD_BLOCK_MIN = 4096,
	VHD_BLOCK_MAX = 256 << 20,
	VHD_YEAR_2000 = 946684800,
	VHD_LOCATOR_BYTES = 4096,
};
#define VHD_CODE_ABSOLUTE 0x57326b75u /* W2ku */
#define VHD_CODE_RELATIVE 0x57327275u /* W2ru */

struct vhd_bitmap { uint8_t *bits; bool is_new, dirty; };

struct vhd {
	struct vhd_footer footer;
	uint32_t type, block_bytes, bitmap_bytes, entries;
	uint64_t footer_at, table_offset; /* in the file; footer_at: of the one that is used */
	uint64_t end; /* where the next block goes: where the footer is */
	bool footer_missing; /* none is at `end` yet */
	uint32_t *table;            /* in sectors; host order */
	uint8_t *table_dirty;       /* a bit for each sector of it */
	struct vhd_bitmap *bitmap;
	bool any_dirty, payload_dirty;
	struct guid id, parent_id;
	pthread_rwlock_t lock;
	pthread_mutex_t loading;
};

static inline struct vhd *vhd_of(const struct disk *disk) { return disk->format; }

/* One's complement of the sum of all bytes but the sum's own. */
uint32_t vhd_checksum(const void *at, size_t bytes, size_t sum_at);
bool vhd_is_footer(const struct vhd_footer *footer);
/* Of a block that the table names: where its bitmap begins in the file. */
static inline uint64_t vhd_block_offset(const struct vhd *vhd, uint32_t block)
{
	return (uint64_t)vhd->table[block] * VHD_SECTOR;
}

/*
 * How much of a block has to be in the file, with its bitmap: of the last one as much as the disk
 * has of it.
 */
static inline uint64_t vhd_place_bytes(const struct disk *disk, uint32_t block)
{
	const struct vhd *vhd = vhd_of(disk);
	uint64_t left = disk->size_bytes - (uint64_t)block * vhd->block_bytes;

	return vhd->bitmap_bytes + (left < vhd->block_bytes ? left : vhd->block_bytes);
}

/* vhd_open.c: 1 when two blocks of the table lie over each other, 0, or -ENOMEM. */
int vhd_overlap(const struct disk *disk);

/* vhd.c */
extern const struct disk_driver vhd_driver;
void vhd_release(struct vhd *vhd);
void check_vhd(const struct disk *disk);
