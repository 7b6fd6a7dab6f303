/*
 * What a sparse VMDK file consists of (VMware Virtual Disk Format 5.0). Little-endian; everything
 * begins at a sector, and is counted in sectors.
 *
 *   sparse             head   descriptor   directory of tables   tables   grains
 *   stream-optimised   head   descriptor   marks, each with a packed grain, a table, the directory
 *                      or the footer behind it; at last one that says nothing
 */
#pragma once

#include <stdint.h>

#define VMDK_MAGIC 0x564d444bu /* KDMV */
#define VMDK_NO_PARENT 0xffffffffu
enum { VMDK_SECTOR_BYTES = 512, VMDK_ENTRIES = 512 }; /* of a table, each 32 bits: a sector */
enum {
	VMDK_NEWLINES = 1,
	VMDK_ZERO_GRAINS = 1 << 2,
	VMDK_COMPRESSED = 1 << 16,
	VMDK_MARKED = 1 << 17
};

struct vmdk_head {
	uint32_t magic, version, flags;
	uint64_t capacity, grain, descriptor, descriptor_sectors;
	uint32_t entries;
	uint64_t second_directory, directory, overhead;
	uint8_t unclean, end_of_line[4];
	uint16_t compression;
	uint8_t padding[433];
} __attribute__((packed));
_Static_assert(sizeof(struct vmdk_head) == 512, "a sector");

/* Before a grain: where on the disk it is, and the length of what is packed behind these 12 bytes.
 * Else bytes is 0, `sector` how many sectors follow this one, and `kind` says of what. */
struct vmdk_mark {
	uint64_t sector;
	uint32_t bytes;
} __attribute__((packed));
enum vmdk_mark_kind { VMDK_MARK_END, VMDK_MARK_TABLE, VMDK_MARK_DIRECTORY, VMDK_MARK_FOOTER };
