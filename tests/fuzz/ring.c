/*
 * The broker's side of a ring whose memory is the input, read until it is empty or rubbish; every
 * copy must stay in bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "ipc/record_ring.h"
#include "fuzz.h"

enum { SEED_BYTES = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct ring_memory memory;
	uint8_t *record = malloc(RING_RECORD_MAX_BYTES);
	struct ring_end end = { .memory = &memory };
	uint32_t kind, length;
	size_t total = 0;

	memset(&memory, 0, sizeof(memory));
	if (bytes >= 8) {
		memcpy(&end.at, data, 4);
		end.at &= ~7u; /* its own, and never anything else */
		memcpy(&memory.head, data + 4, 4);
		memory.tail = end.at;
		memcpy(memory.data, data + 8, bytes - 8 < RING_BYTES ? bytes - 8 : RING_BYTES);
	}
	while (ring_get(&end, &kind, record, &length) > 0) {
		if (length > RING_RECORD_MAX_BYTES || (total += 8 + length) > RING_BYTES)
			abort();
	}
	free(record);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	uint32_t *words = (uint32_t *)(void *)data;
	size_t at = 2;

	words[0] = n % 4 ? n * 1024 : 0xfffffff0;
	memset(data + 8, 0, SEED_BYTES);
	for (unsigned k = 0; k < 1 + n % 9; k++) {
		words[at] = 1 + k;
		words[at + 1] = n * k % 60;
		at += 2 + ((words[at + 1] + 7) / 8) * 2;
	}
	words[1] = words[0] + (uint32_t)(at - 2) * 4;
	return at * 4;
}
