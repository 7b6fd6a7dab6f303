/* Unpacking what other formats keep compressed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* deflate: as qcow2 has it, without a head */
enum compression { COMPRESSION_DEFLATE, COMPRESSION_ZLIB, COMPRESSION_ZSTD };

/* Exactly `bytes` come out; what stands behind the packed data is not looked at. -EBADMSG, -ENOMEM.
 * */
int inflate_bytes(enum compression compression, const uint8_t *packed, size_t packed_bytes,
		  uint8_t *to, size_t bytes);
