/*
 * A disk's content in units of one size, read and packed by several threads, taken in order by one:
 * for formats whose files are written once, from their beginning to their end.
 */
#pragma once

#include "disk/disk.h"
#include "inflate.h"

enum pack_kind {
	PACK_SAME, /* as the base has it; without a base: zeros */
	PACK_ZERO, /* zeros, and the base has something else */
	PACK_PLAIN, /* as it is: packed it would not be shorter, or nothing is to be packed */
	PACK_PACKED
};
/* data: until the next one is taken. `bytes` of the disk: a unit, or less at the end; of PACK_SAME
 * any number of units. */
struct pack_unit {
	enum pack_kind kind;
	uint64_t offset, bytes;
	const uint8_t *data;
	/* of PACK_PLAIN all of the unit, with zeros behind the end of the disk */
	uint32_t data_bytes;
};

struct pack_options {
	struct disk *base; /* NULL: there is none */
	uint32_t unit_bytes; /* a power of two, of PACK_UNIT_MIN_BYTES to PACK_UNIT_MAX_BYTES */
	bool packs;
	enum compression compression;
	uint32_t packed_limit_bytes; /* what is not shorter than this stays plain */
};
enum { PACK_UNIT_MIN_BYTES = 4096, PACK_UNIT_MAX_BYTES = 2 << 20 };

struct disk_conversion;
/*
 * All of the disk that is converted, in order, each unit to take(), which says -errno to end it.
 * The conversion's job hears how far it is. 0, what take() or the job says, -ENOMEM and other
 * errors of threads; -errno with *error, which says what cannot be read, and where.
 */
int pack_each(const struct disk_conversion *conversion, const struct pack_options *options,
	      int (*take)(void *context, const struct pack_unit *unit), void *context,
	      struct disk_error *error);
