/* The Internet's checksum (RFC 1071): ones' complement sums of 16-bit words, most significant byte
 * first. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* A sum goes on with these bytes; an even number of them, unless they are the last. */
uint32_t checksum_add(const void *data, size_t bytes, uint32_t sum);
/* As it stands in a packet is its complement. */
uint16_t checksum_fold(uint32_t sum);
