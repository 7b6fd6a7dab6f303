/* CRC-32C (Castagnoli), by the processor's instruction. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* crc: 0 to begin, or what the call for the bytes before returned. */
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);
/* The same for that many bytes of zero, without going over them. */
uint32_t crc32c_zeros(uint32_t crc, size_t bytes);
