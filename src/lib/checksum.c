/*
 * See checksum.h. Sums in the host's order, four bytes at a time: the sum of swapped words is the
 * swapped sum.
 */
#include "checksum.h"

#include <string.h>

uint16_t checksum_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static uint64_t add_words(const uint8_t **data, size_t *bytes)
{
	uint64_t low = 0;
	uint64_t high = 0;

	for (; *bytes >= 8; *data += 8, *bytes -= 8) {
		uint64_t word;

		memcpy(&word, *data, sizeof(word));
		low += word & UINT32_MAX;
		high += word >> 32;
	}
	return low + high;
}

uint32_t checksum_add(const void *data, size_t bytes, uint32_t sum)
{
	const uint8_t *from = data;
	uint64_t wide = add_words(&from, &bytes);
	uint16_t word;

	for (; bytes >= 2; from += 2, bytes -= 2) {
		memcpy(&word, from, sizeof(word));
		wide += word;
	}
	if (bytes)
		wide += *from;
	while (wide >> 16)
		wide = (wide & 0xffff) + (wide >> 16);
	return (uint32_t)checksum_fold(sum) + __builtin_bswap16((uint16_t)wide);
}
