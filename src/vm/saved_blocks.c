/* See saved_blocks.h. */
#include "saved_blocks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool make(struct saved_blocks *blocks, uint64_t file_bytes, uint64_t unit_bytes)
{
	*blocks = (struct saved_blocks){ .blocks = file_bytes / unit_bytes +
						   (file_bytes % unit_bytes != 0) };
	blocks->bits = calloc(1, saved_blocks_bytes(blocks) + 1);
	return blocks->bits;
}

bool saved_blocks_make(struct saved_blocks *blocks, uint64_t file_bytes)
{
	return make(blocks, file_bytes, SAVED_BLOCK_BYTES);
}

bool saved_grains_make(struct saved_blocks *grains, uint64_t file_bytes)
{
	return make(grains, file_bytes, SAVED_GRAIN_BYTES);
}

bool saved_grains_part(struct saved_blocks *grains, uint64_t at, uint64_t bytes)
{
	const uint64_t of_block = SAVED_BLOCK_BYTES / SAVED_GRAIN_BYTES;
	const uint64_t begin = at / SAVED_BLOCK_BYTES * of_block;

	assert(at % SAVED_GRAIN_BYTES == 0 && at % SAVED_BLOCK_BYTES + bytes <= SAVED_BLOCK_BYTES);
	for (uint64_t done = 0; done < bytes; done += SAVED_GRAIN_BYTES)
		saved_blocks_set(grains, (at + done) / SAVED_GRAIN_BYTES);
	for (uint64_t n = begin; n < begin + of_block && n < grains->blocks; n++)
		if (!saved_blocks_has(grains, n))
			return false;
	return true;
}

void saved_blocks_clear(struct saved_blocks *blocks)
{
	memset(blocks->bits, 0, saved_blocks_bytes(blocks));
	blocks->count = 0;
}

bool saved_blocks_has(const struct saved_blocks *blocks, uint64_t block)
{
	assert(block < blocks->blocks);
	return blocks->bits[block / 8] >> block % 8 & 1;
}

void saved_blocks_set(struct saved_blocks *blocks, uint64_t block)
{
	blocks->count += !saved_blocks_has(blocks, block);
	blocks->bits[block / 8] |= (uint8_t)(1u << block % 8);
}

void saved_blocks_recount(struct saved_blocks *blocks)
{
	blocks->count = 0;
	for (uint64_t n = 0; n < blocks->blocks; n++)
		blocks->count += saved_blocks_has(blocks, n);
}
