/*
 * What of an arriving machine's file is there, grain by grain (vm/saved_blocks.h), for its pager:
 * what that has heard of, and what it has asked for. A block that has come whole is all of its
 * grains; a part of one that was asked for comes before it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vm/saved_blocks.h"

struct arrival_grains {
	struct saved_blocks here, told, asked;
	struct saved_blocks parts; /* that have come by this connection, of blocks that have not */
	uint64_t next; /* where what it has not heard of is looked for first */
};

/* Of a file of so many bytes, and of what is sent of it. False: no memory. */
bool arrival_grains_make(struct arrival_grains *grains, uint64_t bytes, uint64_t span_bytes);
/* These bytes are there; they end with a grain, or with the file. */
void arrival_grains_come(struct arrival_grains *grains, uint64_t at, uint64_t bytes);
/* Whether any of them was not asked for yet; from now on all were. */
bool arrival_grains_ask(struct arrival_grains *grains, uint64_t first, uint64_t count);
/*
 * A part of a block has come. Whether with it all of that has come by this connection: then it is
 * as if it had come whole, as its sender knows, too.
 */
bool arrival_grains_part(struct arrival_grains *grains, uint64_t at, uint64_t bytes);
/* Another connection: of parts its sender knows nothing. */
void arrival_grains_forget_parts(struct arrival_grains *grains);
bool arrival_grains_have_news(const struct arrival_grains *grains);
/* Some that follow each other, of which nothing was heard; and once it was. */
struct saved_blocks_word arrival_grains_news(struct arrival_grains *grains);
void arrival_grains_tell(struct arrival_grains *grains, const struct saved_blocks_word *word);
