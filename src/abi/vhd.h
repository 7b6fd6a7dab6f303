/* What a VHD file holds (Virtual Hard Disk Image Format Specification, 2006), big-endian as it
 * lies. */
#pragma once

#include <stdint.h>

enum { VHD_SECTOR = 512, VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_CHILD = 4, VHD_LOCATORS = 8 };
#define VHD_UNUSED 0xffffffffu
#define VHD_MAX_BYTES (2040ull << 30)

struct vhd_footer {
	char cookie[8]; /* conectix */
	uint32_t features, version;
	uint64_t header_offset;
	uint32_t seconds; /* since 2000 */
	char creator[4];
	uint32_t creator_version, creator_system;
	uint64_t original_bytes, size_bytes;
	struct { uint16_t cylinders; uint8_t heads, sectors; } geometry;
	uint32_t type, checksum;
	uint8_t id[16], saved_state, reserved[427];
} __attribute__((packed));

struct vhd_locator {
	uint32_t code, space, bytes, reserved;
	uint64_t offset;
} __attribute__((packed));

struct vhd_header {
	char cookie[8]; /* cxsparse */
	uint64_t next, table_offset;
	uint32_t version, entries, block_bytes, checksum;
	uint8_t parent_id[16];
	uint32_t parent_seconds, reserved;
	uint8_t parent_name[512];
	struct vhd_locator locator[VHD_LOCATORS];
	uint8_t reserved2[256];
} __attribute__((packed));

_Static_assert(sizeof(struct vhd_footer) == 512 && sizeof(struct vhd_header) == 1024,
	       "as they lie");
