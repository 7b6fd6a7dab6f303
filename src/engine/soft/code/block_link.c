/*
 * Links: jumps from block to block within a page, patched in place, and taken back when the block
 * that they lead to goes.
 *
 * A list for each block of its own links, those of its cold parts among them. Who goes looks at
 * the lists of its page: nobody else links to it. A part that goes takes its links with it. A block
 * that is dead is in no list, though it may be executed still: its links lead home.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/translate/emit.h"

static uint32_t target_of(const struct soft_engine *engine, const struct code_link *link)
{
	int32_t rel;

	memcpy(&rel, engine->code_write + link->at, sizeof(rel));
	return link->at + (uint32_t)sizeof(rel) + (uint32_t)rel;
}

static void lead(struct soft_engine *engine, const struct code_link *link, uint32_t target)
{
	set_jump(engine->code_write + link->at, engine->code_write + target);
}

static struct code_link *find_link(struct soft_engine *engine, const struct block *from,
				   uint32_t at)
{
	for (uint32_t n = from->links; n; n = engine->links[n - 1].next)
		if (engine->links[n - 1].at == at)
			return &engine->links[n - 1];
	return NULL;
}

/* In the part of the list that the block's region has; NULL: that is full. */
static struct code_link *new_link(struct soft_engine *engine, struct block *from, uint32_t at,
				  uint32_t home)
{
	uint32_t number = soft_region_of(engine, from->host_offset);
	struct code_region *region = &engine->regions[number];
	uint32_t index = number * engine->budget.region_links + region->links;

	if (region->links == engine->budget.region_links)
		return NULL;
	region->links++;
	engine->links[index] = (struct code_link){ .at = at, .home = home, .next = from->links };
	from->links = index + 1;
	return &engine->links[index];
}

void soft_link(struct soft_engine *engine, struct block *from, uint32_t at, uint32_t home,
	       uint32_t target)
{
	struct code_link *link = find_link(engine, from, at);

	if (engine->regions[soft_region_of(engine, from->host_offset)].closed ||
	    engine->regions[soft_region_of(engine, at)].closed)
		return;
	if (!link)
		link = new_link(engine, from, at, home);
	if (link)
		lead(engine, link, target);
}

void soft_unlink(struct soft_engine *engine, uint64_t frame, uint32_t begin, uint32_t end)
{
	for (uint32_t b = engine->page_blocks[frame]; b; b = engine->blocks[b - 1].next_in_page)
		for (uint32_t n = engine->blocks[b - 1].links; n; n = engine->links[n - 1].next) {
			const struct code_link *link = &engine->links[n - 1];

			if (target_of(engine, link) - begin < end - begin)
				lead(engine, link, link->home);
		}
}

bool soft_leads_to(const struct soft_engine *engine, uint32_t at, uint32_t target)
{
	return target_of(engine, &(struct code_link){ .at = at }) == target;
}

const struct block *soft_follow(const struct soft_engine *engine, uint32_t *link)
{
	while (*link) {
		const struct code_link *at = &engine->links[*link - 1];
		const uint32_t target = target_of(engine, at);

		*link = at->next;
		if (target != at->home)
			return soft_block_of(engine, (uint64_t)(engine->code_run + target));
	}
	return NULL;
}

void soft_lead_home(struct soft_engine *engine, const struct block *from)
{
	for (uint32_t n = from->links; n; n = engine->links[n - 1].next)
		lead(engine, &engine->links[n - 1], engine->links[n - 1].home);
}

void soft_drop_links(struct soft_engine *engine, struct block *from, uint32_t begin, uint32_t end)
{
	uint32_t *link = &from->links;

	while (*link) {
		struct code_link *at = &engine->links[*link - 1];

		if (at->at - begin < end - begin)
			*link = at->next;
		else
			link = &at->next;
	}
}

static void check_link(const struct soft_engine *engine, const struct block *from,
		       const struct code_link *link)
{
	uint32_t target = target_of(engine, link);
	const struct block *to;

	assert(!engine->regions[soft_region_of(engine, link->at)].closed &&
	       !engine->regions[soft_region_of(engine, link->home)].closed);
	if (target == link->home)
		return;
	assert(!from->dead);
	to = soft_block_of(engine, (uint64_t)(engine->code_run + target));
	assert(to && !to->dead && !engine->regions[soft_region_of(engine, target)].closed);
	assert(to->gpa / PAGE_BYTES == from->gpa / PAGE_BYTES);
	assert(soft_key_mode(to) == soft_key_mode(from));
}

void check_links(const struct soft_engine *engine)
{
	for (uint32_t number = 0; number < CODE_REGIONS; number++) {
		const struct block *b = &engine->blocks[number * engine->budget.region_blocks];

		if (engine->regions[number].closed)
			continue;
		for (const struct block *end = b + engine->regions[number].blocks; b < end; b++)
			for (uint32_t n = b->form == BLOCK_PART ? 0 : b->links; n;
			     n = engine->links[n - 1].next)
				check_link(engine, b, &engine->links[n - 1]);
	}
}
