/* See space_map.h. */
#include "space_map.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_MAX (1ull << 32)

int space_refuse(struct space_map *map, int error, const char *format, ...)
{
	va_list arguments;

	assert(error < 0);
	if (map->why[0])
		return error;
	va_start(arguments, format);
	vsnprintf(map->why, sizeof(map->why), format, arguments);
	va_end(arguments);
	return error;
}

int space_begin(struct space_map *map, uint64_t blocks, uint32_t block_bytes)
{
	if (!blocks || block_bytes < 512 || block_bytes & (block_bytes - 1))
		return space_refuse(map, -EBADMSG,
				    "its size, or that of its blocks, is not possible");
	if (blocks > BLOCKS_MAX)
		return space_refuse(map, -EFBIG, "has more than 2^32 blocks");
	map->blocks = blocks;
	map->block_bytes = block_bytes;
	map->free = calloc(1, blocks / 8 + 9); /* words are read past the last byte */
	return map->free ? 0 : space_refuse(map, -ENOMEM, "no memory");
}

void space_end(struct space_map *map)
{
	free(map->free);
	map->free = NULL;
}

static int check_range(struct space_map *map, uint64_t block, uint64_t count)
{
	if (block < map->blocks && count <= map->blocks - block)
		return 0;
	return space_refuse(map, -EBADMSG, "names blocks beyond its end (%lu, %lu of them)", block,
			    count);
}

int space_free(struct space_map *map, uint64_t block, uint64_t count)
{
	int error = check_range(map, block, count);

	for (uint64_t n = block; !error && n < block + count; n++) {
		if (!(n & 7) && block + count - n >= 8 && !map->free[n / 8]) {
			map->free[n / 8] = 0xff;
			n += 7;
			continue;
		}
		if (map->free[n / 8] >> (n & 7) & 1)
			return space_refuse(map, -EUCLEAN, "says twice that block %lu is free", n);
		map->free[n / 8] |= (uint8_t)(1u << (n & 7));
	}
	map->free_blocks += error ? 0 : count;
	return error;
}

/* The first block from `block` on that is free, or `end`. */
static uint64_t find_free(const struct space_map *map, uint64_t block, uint64_t end)
{
	while (block < end) {
		uint64_t word = 0;

		if (!(block & 7))
			memcpy(&word, map->free + block / 8, sizeof(word));
		if (!(block & 7) && !word)
			block += 64;
		else if (map->free[block / 8] >> (block & 7) & 1)
			break;
		else
			block++;
	}
	return block < end ? block : end;
}

int space_used(struct space_map *map, uint64_t block, uint64_t count)
{
	int error = check_range(map, block, count);
	uint64_t found = error ? 0 : find_free(map, block, block + count);

	if (error || found == block + count)
		return error;
	return space_refuse(map, -EUCLEAN, "says that block %lu is free, and has data in it",
			    found);
}

bool space_is_free(const struct space_map *map, uint64_t block, uint64_t count)
{
	if (block >= map->blocks || count > map->blocks - block)
		return false;
	for (uint64_t n = block; n < block + count; n++)
		if (!(map->free[n / 8] >> (n & 7) & 1))
			return false;
	return true;
}
