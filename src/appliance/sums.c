/* See sums.h. */
#include "sums.h"

#include <string.h>

enum { ROUNDS = 80, GIVEN = 16, LENGTH_AT = SHA1_BLOCK - 8 };

static uint32_t turn(uint32_t word, unsigned bits) { return word << bits | word >> (32 - bits); }

static void take_block(uint32_t word[SHA1_WORDS], const uint8_t *from)
{
	static const uint32_t constants[] = { 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6 };
	uint32_t schedule[ROUNDS];
	uint32_t now[SHA1_WORDS];

	for (unsigned n = 0; n < GIVEN; n++)
		schedule[n] = (uint32_t)from[4 * n] << 24 | (uint32_t)from[4 * n + 1] << 16 |
			      (uint32_t)from[4 * n + 2] << 8 | from[4 * n + 3];
	for (unsigned n = GIVEN; n < ROUNDS; n++)
		schedule[n] = turn(
			schedule[n - 3] ^ schedule[n - 8] ^ schedule[n - 14] ^ schedule[n - 16], 1);
	memcpy(now, word, sizeof(now));
	for (unsigned n = 0; n < ROUNDS; n++) {
		uint32_t mixed = now[1] ^ now[2] ^ now[3];
		uint32_t next;

		if (n < 20)
			mixed = (now[1] & now[2]) | (~now[1] & now[3]);
		else if (n >= 40 && n < 60)
			mixed = (now[1] & now[2]) | (now[1] & now[3]) | (now[2] & now[3]);
		next = turn(now[0], 5) + mixed + now[4] + constants[n / 20] + schedule[n];
		now[4] = now[3];
		now[3] = now[2];
		now[2] = turn(now[1], 30);
		now[1] = now[0];
		now[0] = next;
	}
	for (unsigned n = 0; n < SHA1_WORDS; n++)
		word[n] += now[n];
}

void sums_begin(struct sums *sums)
{
	*sums = (struct sums){ .word = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
					 0xc3d2e1f0 } };
	crypto_hash_sha256_init(&sums->sha256);
}

static void add_to_blocks(struct sums *sums, const uint8_t *data, size_t bytes)
{
	while (bytes) {
		size_t in = sums->bytes % SHA1_BLOCK;
		size_t part = SHA1_BLOCK - in < bytes ? SHA1_BLOCK - in : bytes;

		memcpy(sums->block + in, data, part);
		sums->bytes += part;
		data += part;
		bytes -= part;
		if (sums->bytes % SHA1_BLOCK == 0)
			take_block(sums->word, sums->block);
	}
}

void sums_add(struct sums *sums, const void *data, size_t bytes)
{
	crypto_hash_sha256_update(&sums->sha256, data, bytes);
	add_to_blocks(sums, data, bytes);
}

void sums_end(struct sums *sums, uint8_t sha1[SHA1_BYTES], uint8_t sha256[SHA256_BYTES])
{
	static const uint8_t padding[SHA1_BLOCK] = { 0x80 };
	uint64_t bits = sums->bytes * 8;
	size_t in = sums->bytes % SHA1_BLOCK;
	uint8_t length[8];

	crypto_hash_sha256_final(&sums->sha256, sha256);
	for (unsigned n = 0; n < 8; n++)
		length[n] = (uint8_t)(bits >> (56 - 8 * n));
	add_to_blocks(sums, padding, in < LENGTH_AT ? LENGTH_AT - in : SHA1_BLOCK + LENGTH_AT - in);
	add_to_blocks(sums, length, sizeof(length));
	for (unsigned n = 0; n < SHA1_BYTES; n++)
		sha1[n] = (uint8_t)(sums->word[n / 4] >> (24 - n % 4 * 8));
}
