/*
 * CRC-32C against the definition, bit by bit, at every length around the lanes and at odd places;
 * and the published check value.
 */
#include <stdio.h>
#include <string.h>

#include "lib/crc32c.h"

static uint32_t by_bits(uint32_t crc, const uint8_t *at, size_t bytes)
{
	crc = ~crc;
	while (bytes--) {
		crc ^= *at++;
		for (int n = 0; n < 8; n++)
			crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
	}
	return ~crc;
}

/* what the fast way takes at a time */
enum { PART_BYTES = 4096 };

int main(void)
{
	static uint8_t data[70000];
	static const size_t lengths[] = { 0,    1,    7,     8,     9,     PART_BYTES, 6143,
					  6144, 6145, 12287, 12288, 12290, 65536,      69990 };
	uint32_t random = 1;
	unsigned faults = crc32c(0, "123456789", 9) != 0xe3069283u;

	for (size_t n = 0; n < sizeof(data); n++)
		data[n] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
	for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++)
		for (unsigned at = 0; at < 9; at += 3)
			faults += crc32c(n * 77, data + at, lengths[n]) !=
				  by_bits((uint32_t)n * 77, data + at, lengths[n]);
	memset(data, 0, sizeof(data));
	for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++)
		faults += crc32c_zeros((uint32_t)n * 7777, lengths[n]) !=
			  by_bits((uint32_t)n * 7777, data, lengths[n]);
	printf("crc32c_test: %u faults\n", faults);
	return faults != 0;
}
