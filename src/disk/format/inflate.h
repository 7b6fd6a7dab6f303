/*
 * Unpacking what other formats keep compressed, in units: for one open file, by any number of
 * threads. What a thread needs for it (contexts of the libraries, memory for a unit) is kept for
 * the next one.
 */
#pragma once

#include <stdint.h>

#include "disk/buffer.h"

/* deflate: as qcow2 has it, without a head */
enum compression { COMPRESSION_DEFLATE, COMPRESSION_ZLIB, COMPRESSION_ZSTD };

struct inflater;
/* No unit is longer than unit_bytes. NULL: no memory. */
struct inflater *inflater_create(enum compression compression, uint32_t unit_bytes);
void inflater_destroy(struct inflater *inflater); /* NULL: nothing */

/* Where in the file a unit is, and how long it is once it is unpacked: at least one byte. */
struct packed_unit { uint64_t at; uint32_t packed_bytes, bytes; };
/*
 * Into the buffer: `bytes` of the unit, from `from` on. All of the unit is unpacked, and exactly as
 * long as it says; what stands in the file behind it is not looked at. -EBADMSG, -ENOMEM, or the
 * file's error.
 */
int inflater_read(struct inflater *inflater, const struct disk_file *file,
		  const struct packed_unit *unit, const struct disk_buffer *buffer, uint32_t from,
		  uint64_t bytes);
