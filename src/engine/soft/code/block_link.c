/*
 * Links: jumps from block to block within a page, patched in place, and taken back when the block
 * that they lead to goes.
 *
 * A list for each block of its own links. Who goes looks at the lists of its page: nobody else
 * links to it.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/translate/emit.h"

static uint32_t target_of(const struct soft_engine *e, const struct code_link *link)
{
	int32_t rel;

	memcpy(&rel, e->code_write + link->at, sizeof(rel));
	return link->at + (uint32_t)sizeof(rel) + (uint32_t)rel;
}

static void lead(struct soft_engine *e, const struct code_link *link, uint32_t target)
{
	set_jump(e->code_write + link->at, e->code_write + target);
}

static struct code_link *find_link(struct soft_engine *e, const struct block *from, uint32_t at)
{
	for (uint32_t n = from->links; n; n = e->links[n - 1].next)
		if (e->links[n - 1].at == at)
			return &e->links[n - 1];
	return NULL;
}

/* In the part of the list that the block's region has; NULL: that is full. */
static struct code_link *new_link(struct soft_engine *e, struct block *from, uint32_t at,
				  uint32_t home)
{
	uint32_t number = soft_region_of(e, from->host_offset);
	struct code_region *r = &e->regions[number];
	uint32_t index = number * e->budget.region_links + r->links;

	if (r->links == e->budget.region_links)
		return NULL;
	r->links++;
	e->links[index] = (struct code_link){ .at = at, .home = home, .next = from->links };
	from->links = index + 1;
	return &e->links[index];
}

void soft_link(struct soft_engine *e, struct block *from, uint32_t at, uint32_t home,
	       uint32_t target)
{
	struct code_link *link = find_link(e, from, at);

	if (e->regions[soft_region_of(e, from->host_offset)].closed)
		return;
	if (!link)
		link = new_link(e, from, at, home);
	if (link)
		lead(e, link, target);
}

void soft_unlink(struct soft_engine *e, uint64_t frame, uint32_t begin, uint32_t end)
{
	for (uint32_t b = e->page_blocks[frame]; b; b = e->blocks[b - 1].next_in_page)
		for (uint32_t n = e->blocks[b - 1].links; n; n = e->links[n - 1].next) {
			const struct code_link *link = &e->links[n - 1];

			if (target_of(e, link) - begin < end - begin)
				lead(e, link, link->home);
		}
}

static void check_link(const struct soft_engine *e, const struct block *from,
		       const struct code_link *link)
{
	uint32_t target = target_of(e, link);
	const struct block *to;

	if (target == link->home)
		return;
	to = soft_block_of(e, (uint64_t)(e->code_run + target));
	assert(to && !to->dead && !e->regions[soft_region_of(e, target)].closed);
	assert(to->gpa / PAGE_BYTES == from->gpa / PAGE_BYTES);
	assert(soft_key_mode(to) == soft_key_mode(from));
}

void check_links(const struct soft_engine *e)
{
	for (uint32_t number = 0; number < CODE_REGIONS; number++) {
		const struct block *b = &e->blocks[number * e->budget.region_blocks];

		if (e->regions[number].closed)
			continue;
		for (const struct block *end = b + e->regions[number].blocks; b < end; b++)
			for (uint32_t n = b->form == BLOCK_PART || b->dead ? 0 : b->links; n;
			     n = e->links[n - 1].next)
				check_link(e, b, &e->links[n - 1]);
	}
}
