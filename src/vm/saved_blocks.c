/* See saved_blocks.h. */
#include "saved_blocks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bool saved_blocks_make(struct saved_blocks *blocks, uint64_t file_bytes)
{
	*blocks = (struct saved_blocks){ .blocks = file_bytes / SAVED_BLOCK_BYTES +
						   (file_bytes % SAVED_BLOCK_BYTES != 0) };
	blocks->bits = calloc(1, saved_blocks_bytes(blocks) + 1);
	return blocks->bits;
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
