/* See arrival_grains.h. */
#include "arrival_grains.h"

#include <assert.h>

bool arrival_grains_make(struct arrival_grains *grains, uint64_t bytes, uint64_t span_bytes)
{
	grains->next = 0;
	return saved_grains_make(&grains->here, bytes) && saved_grains_make(&grains->told, bytes) &&
	       saved_grains_make(&grains->asked, bytes) &&
	       saved_grains_make(&grains->parts, span_bytes);
}

bool arrival_grains_part(struct arrival_grains *grains, uint64_t at, uint64_t bytes)
{
	return saved_grains_part(&grains->parts, at, bytes);
}

void arrival_grains_forget_parts(struct arrival_grains *grains)
{
	saved_blocks_clear(&grains->parts);
}

void arrival_grains_come(struct arrival_grains *grains, uint64_t at, uint64_t bytes)
{
	const uint64_t first = at / SAVED_GRAIN_BYTES;
	const uint64_t end = (at + bytes + SAVED_GRAIN_BYTES - 1) / SAVED_GRAIN_BYTES;

	assert(at % SAVED_GRAIN_BYTES == 0 && end <= grains->here.blocks);
	for (uint64_t grain = end; grain > first; grain--) {
		saved_blocks_set(&grains->here, grain - 1);
		if (!saved_blocks_has(&grains->told, grain - 1))
			grains->next = grain - 1;
	}
}

bool arrival_grains_ask(struct arrival_grains *grains, uint64_t first, uint64_t count)
{
	const uint64_t before = grains->asked.count;

	for (uint64_t n = 0; n < count; n++)
		saved_blocks_set(&grains->asked, first + n);
	return grains->asked.count > before;
}

bool arrival_grains_have_news(const struct arrival_grains *grains)
{
	return grains->told.count < grains->here.count;
}

static bool is_news(const struct arrival_grains *grains, uint64_t grain)
{
	return saved_blocks_has(&grains->here, grain) && !saved_blocks_has(&grains->told, grain);
}

struct saved_blocks_word arrival_grains_news(struct arrival_grains *grains)
{
	struct saved_blocks_word word = { .count = 0 };

	assert(arrival_grains_have_news(grains));
	while (!is_news(grains, grains->next))
		grains->next = (grains->next + 1) % grains->here.blocks;
	word.block = grains->next;
	while (word.block + word.count < grains->here.blocks &&
	       is_news(grains, word.block + word.count))
		word.count++;
	return word;
}

void arrival_grains_tell(struct arrival_grains *grains, const struct saved_blocks_word *word)
{
	for (uint64_t n = 0; n < word->count; n++)
		saved_blocks_set(&grains->told, word->block + n);
	grains->next = (word->block + word->count) % grains->here.blocks;
}
