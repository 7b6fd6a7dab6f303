/* Digests that a package's manifest has: SHA-1 (FIPS 180-4; libsodium has none) and SHA-256. */
#pragma once

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA1_BYTES = 20, SHA256_BYTES = 32, SHA1_BLOCK = 64, SHA1_WORDS = 5 };

/* Both of what was added. */
struct sums {
	uint32_t word[SHA1_WORDS];
	uint8_t block[SHA1_BLOCK];
	uint64_t bytes;
	crypto_hash_sha256_state sha256;
};

void sums_begin(struct sums *sums);
void sums_add(struct sums *sums, const void *data, size_t bytes);
/* Nothing can be added afterwards. */
void sums_end(struct sums *sums, uint8_t sha1[SHA1_BYTES], uint8_t sha256[SHA256_BYTES]);
