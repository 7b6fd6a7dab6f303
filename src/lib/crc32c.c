/*
 * See crc32c.h. The instruction takes three cycles and one can begin in each: long data is taken as
 * three lanes beside each other, and each lane's value moved over the next one. General registers
 * only: this is used where guest state is in the others.
 */
#include "crc32c.h"

#include <string.h>

enum { LANE_BYTES = 2048 };
#define POLYNOMIAL 0x82f63b78u  /* reflected: bit 31 is x^0 */
#define LANE_POWER 0xd65762au /* x to the power of a lane's bits, modulo it */

static uint64_t word(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, 8);
	return value;
}

static void add(uint64_t *crc, uint64_t value)
{
	__asm__("crc32q %1, %0" : "+r"(*crc) : "r"(value));
}

/* Of two polynomials, modulo it. */
static uint32_t multiply(uint32_t factor, uint32_t by)
{
	uint32_t product = 0;

	for (unsigned n = 32; n--;) {
		product ^= factor & -(by >> n & 1);
		factor = factor >> 1 ^ (POLYNOMIAL & -(factor & 1));
	}
	return product;
}

/* As if LANE_BYTES of zeros followed. */
static uint64_t over_lane(uint64_t crc) { return multiply((uint32_t)crc, LANE_POWER); }

uint32_t crc32c_zeros(uint32_t crc, size_t bytes)
{
	/* power: x^8, then its squares */
	uint32_t power = 0x00800000;
	uint32_t unit_value = ~crc;

	for (; bytes; bytes >>= 1, power = multiply(power, power))
		if (bytes & 1)
			unit_value = multiply(unit_value, power);
	return ~unit_value;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes)
{
	const uint8_t *at = data;
	uint64_t crc64 = (uint32_t)~crc;

	for (; bytes >= 3 * LANE_BYTES; at += 3 * LANE_BYTES, bytes -= 3 * LANE_BYTES) {
		uint64_t second = 0;
		uint64_t third = 0;

		for (unsigned n = 0; n < LANE_BYTES; n += 8) {
			add(&crc64, word(at + n));
			add(&second, word(at + LANE_BYTES + n));
			add(&third, word(at + 2 * LANE_BYTES + n));
		}
		crc64 = over_lane(over_lane(crc64) ^ second) ^ third;
	}
	for (; bytes >= 8; at += 8, bytes -= 8)
		add(&crc64, word(at));
	for (; bytes; at++, bytes--)
		__asm__("crc32b %1, %0" : "+r"(crc64) : "rm"(*at));
	return ~(uint32_t)crc64;
}
