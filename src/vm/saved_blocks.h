/*
 * Which blocks of a saved machine's file are there, while it arrives from another place: a bit
 * each. And what is said of them on the line between who fills the file (cli/arrival.c) and who
 * reads it (process/pager_main.c), each of which checks what the other says. There they are grains,
 * of which a block has 32: what somebody waits for is smaller than a block, and comes first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Blocks of wire/parcel.h. */
enum { SAVED_BLOCK_BYTES = 64 << 10, SAVED_GRAIN_BYTES = 2 << 10, SAVED_BLOCKS_WANTED = 64 };

struct saved_blocks { uint8_t *bits; uint64_t blocks, count; /* those that are set */ };

/*
 * From the reader: it wants these, of none: it is there and hears; no more than SAVED_BLOCKS_WANTED
 * at once. To it: these are there.
 */
struct saved_blocks_word { uint64_t block, count; };

/* As `block`, of none: so many blocks of disks are still to come, and this line goes on until
 * then. */
#define SAVED_BLOCKS_OF_DISKS UINT64_MAX

/* As `block`: of the connection by which all of it comes (process/pager_connection.h). */
#define SAVED_BLOCKS_OF_CONNECTION (UINT64_MAX - 1)

/* None is set. False: no memory. */
bool saved_blocks_make(struct saved_blocks *blocks, uint64_t file_bytes);
bool saved_grains_make(struct saved_blocks *grains, uint64_t file_bytes);
/* Some grains of one block more. Whether all of that block's are set then. */
bool saved_grains_part(struct saved_blocks *grains, uint64_t at, uint64_t bytes);
void saved_blocks_clear(struct saved_blocks *blocks);
static inline size_t saved_blocks_room(uint64_t blocks) { return (blocks + 7) / 8; }
static inline size_t saved_blocks_bytes(const struct saved_blocks *blocks)
{
	return saved_blocks_room(blocks->blocks);
}
bool saved_blocks_has(const struct saved_blocks *blocks, uint64_t block);
void saved_blocks_set(struct saved_blocks *blocks, uint64_t block);
/* After bits came from elsewhere: those behind the last are none. */
void saved_blocks_recount(struct saved_blocks *blocks);
