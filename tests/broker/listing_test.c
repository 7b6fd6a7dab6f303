/*
 * What a machine says of translated code, read by who does not believe it (ipc/code_listing.h): a
 * listing that is good, each way in which it may lie, and random ones, of which nothing outside of
 * what was said is touched.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/code_listing.h"

enum { GUEST = 7, HOST = 90, MAPS = 3, RANDOM_ROUNDS = 200000, RANDOM_BYTES = 4000 };

struct said {
	struct listing_head head;
	struct listing_map map[MAPS];
	uint8_t guest[GUEST], host[HOST];
} __attribute__((packed));

static int failed;

static void check(const char *what, bool good)
{
	if (!good)
		printf("listing: %s\n", what);
	failed |= !good;
}

static struct said good_one(void)
{
	return (struct said){ .head = { .gva = 0x2000,
					.code_bits = 64,
					.insns = MAPS,
					.guest_bytes = GUEST,
					.host_bytes = HOST,
					.hot_begin = 16,
					.hot_end = 80,
					.maps = MAPS },
			      .map = { { 16, 0 }, { 20, 3 }, { 20, 6 } },
			      .guest = { 1 },
			      .host = { 2 } };
}

/* In memory that ends where it does. */
static size_t read_exactly(const void *data, size_t bytes, struct listing *ret)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);
	size_t got;

	memcpy(copy, data, bytes);
	got = listing_read(copy, bytes, ret);
	if (got)
		for (unsigned n = 0; n < ret->head.host_bytes; n++)
			((volatile const uint8_t *)ret->host)[n];
	free(copy);
	return got;
}

static void test_good(void)
{
	const struct said said = good_one();
	struct listing listing;

	check("a good one", listing_read((const uint8_t *)&said, sizeof(said), &listing) ==
					    sizeof(said) &&
				    listing.guest == said.guest && listing.host == said.host);
	for (size_t bytes = 0; bytes < sizeof(said); bytes++)
		check("one that is cut off", !read_exactly(&said, bytes, &listing));
}

static void test_lies(void)
{
	struct said said[12];
	struct listing listing;

	for (unsigned n = 0; n < 12; n++)
		said[n] = good_one();
	said[0].head.code_bits = 8;
	said[1].head.guest_bytes = 0;
	said[2].head.guest_bytes = LISTING_GUEST_BYTES + 1;
	said[3].head.host_bytes = LISTING_HOST_BYTES + 1;
	said[4].head.hot_begin = 81;
	said[5].head.hot_end = HOST + 1;
	said[6].head.maps = LISTING_MAPS + 1;
	said[7].map[2].host = HOST + 1;
	said[8].map[2].host = 19;
	said[9].map[1].guest = GUEST;
	said[10].head.maps = UINT16_MAX;
	said[11].head.host_bytes = HOST + 1;
	for (unsigned n = 0; n < 12; n++)
		if (read_exactly(&said[n], sizeof(said[n]), &listing)) {
			printf("listing: lie %u was believed\n", n);
			failed = 1;
		}
}

static void test_random(unsigned seed)
{
	static uint8_t data[RANDOM_BYTES];
	struct listing listing;
	unsigned good = 0;

	srand(seed);
	for (unsigned round = 0; round < RANDOM_ROUNDS; round++) {
		struct said said = good_one();
		uint8_t *bytes = (uint8_t *)&said;
		const size_t length = (size_t)rand() % (sizeof(data) - sizeof(said));

		for (int n = rand() % 4; n >= 0; n--)
			bytes[(size_t)rand() % (sizeof(said.head) + sizeof(said.map))] =
				(uint8_t)rand();
		memcpy(data, &said, sizeof(said));
		good += read_exactly(data, length, &listing) != 0;
	}
	check("some are good", good);
}

int main(void)
{
	test_good();
	test_lies();
	test_random(1);
	return failed;
}
