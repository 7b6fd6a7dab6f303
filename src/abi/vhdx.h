/*
 * What a VHDX file consists of (MS-VHDX section 2). Little-endian; offsets in the file are
 * multiples of 1 MiB but for the two headers and the two region tables.
 *
 *   0 identifier   64 KiB, 128 KiB headers   192 KiB, 256 KiB region tables
 *   from 1 MiB: log, metadata, BAT, blocks
 */
#pragma once

#include "guid_layout.h"

#define VHDX_MIB (1ull << 20)
enum {
	VHDX_HEADER_BYTES = 4096,
	VHDX_TABLE_BYTES = 65536,
	VHDX_SECTOR_BYTES = 4096,
	VHDX_TABLE_ENTRIES = 2047,
	VHDX_USER_ITEMS = 1024
};
#define VHDX_HEADER_OFFSET(n) ((n) ? 0x20000ull : 0x10000ull)
#define VHDX_REGION_OFFSET(n) ((n) ? 0x40000ull : 0x30000ull)
#define VHDX_MAX_BYTES (64ull << 40)
#define VHDX_METADATA_MAX_BYTES (128 * VHDX_MIB)
#define VHDX_IDENTIFIER 0x656c696678646876ull /* "vhdxfile" */
#define VHDX_METADATA 0x617461646174656dull   /* "metadata" */
#define VHDX_HEAD 0x64616568u
#define VHDX_REGI 0x69676572u
#define VHDX_LOGE 0x65676f6cu
#define VHDX_DESC 0x63736564u
#define VHDX_ZERO 0x6f72657au
#define VHDX_DATA 0x61746164u

struct vhdx_header {
	uint32_t signature, checksum;
	uint64_t sequence;
	struct guid file_write, data_write, log;
	uint16_t log_version, version;
	uint32_t log_bytes;
	uint64_t log_offset;
	uint8_t reserved[4016];
};
struct vhdx_region_head { uint32_t signature, checksum, count, reserved; };
struct vhdx_region { struct guid id; uint64_t offset; uint32_t bytes, required; };
struct vhdx_metadata_head { uint64_t signature; uint16_t reserved, count; uint32_t reserved2[5]; };
struct vhdx_item { struct guid id; uint32_t offset, bytes, flags, reserved; };
struct vhdx_log_head {
	uint32_t signature, checksum, bytes, tail;
	uint64_t sequence;
	uint32_t descriptors, reserved;
	struct guid log;
	uint64_t flushed_file_bytes, last_file_bytes;
};
/* desc: trailing 4 bytes, leading 8; zero: reserved, length */
struct vhdx_descriptor { uint32_t signature, trailing; uint64_t leading, file_offset, sequence; };
struct vhdx_data_sector {
	uint32_t signature, sequence_high;
	uint8_t data[4084];
	uint32_t sequence_low;
};
struct vhdx_locator_head { struct guid type; uint16_t reserved, count; };
struct vhdx_locator_entry { uint32_t key_offset, value_offset; uint16_t key_bytes, value_bytes; };

_Static_assert(sizeof(struct vhdx_header) == VHDX_HEADER_BYTES &&
		       sizeof(struct vhdx_region) == 32 && sizeof(struct vhdx_item) == 32,
	       "sizes");
_Static_assert(sizeof(struct vhdx_log_head) == 64 && sizeof(struct vhdx_descriptor) == 32 &&
		       sizeof(struct vhdx_data_sector) == VHDX_SECTOR_BYTES,
	       "sizes");
_Static_assert(sizeof(struct vhdx_metadata_head) == 32 && sizeof(struct vhdx_locator_head) == 20 &&
		       sizeof(struct vhdx_locator_entry) == 12,
	       "sizes");

enum {
	VHDX_ITEM_USER = 1,
	VHDX_ITEM_DISK = 2,
	VHDX_ITEM_REQUIRED = 4,
	VHDX_FIXED = 1,
	VHDX_HAS_PARENT = 2
};
/* A BAT entry is a file offset, a multiple of 1 MiB, and a state in its low bits. */
enum {
	BAT_NOT_PRESENT,
	BAT_UNDEFINED,
	BAT_ZERO,
	BAT_UNMAPPED,
	BAT_PRESENT = 6,
	BAT_PARTIAL = 7,
	BAT_STATE = 7
};

#define VHDX_REGION_BAT \
	GUID(0x2dc27766, 0xf623, 0x4200, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08)
#define VHDX_REGION_METADATA \
	GUID(0x8b7ca206, 0x4790, 0x4b9a, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e)
#define VHDX_ITEM_PARAMETERS \
	GUID(0xcaa16737, 0xfa36, 0x4d43, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b)
#define VHDX_ITEM_SIZE \
	GUID(0x2fa54224, 0xcd1b, 0x4876, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8)
#define VHDX_ITEM_DISK_ID \
	GUID(0xbeca12ab, 0xb2e6, 0x4523, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46)
#define VHDX_ITEM_LOGICAL \
	GUID(0x8141bf1d, 0xa96f, 0x4709, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f)
#define VHDX_ITEM_PHYSICAL \
	GUID(0xcda348c7, 0x445d, 0x4471, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56)
#define VHDX_ITEM_LOCATOR \
	GUID(0xa8d35f2d, 0xb30b, 0x454d, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c)
#define VHDX_LOCATOR_TYPE \
	GUID(0xb04aefb7, 0xd19e, 0x4a81, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13)
/* ours: a parent that is no VHDX file */
#define VHDX_LOCATOR_FOREIGN \
	GUID(0x7d0f3a61, 0x2c0b, 0x4b7e, 0xa4, 0x0e, 0x55, 0xd6, 0x0c, 0x9f, 0x31, 0x88)
