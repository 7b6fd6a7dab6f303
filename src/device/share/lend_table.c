/* See lend_table.h. */
#include "lend_table.h"

#include <assert.h>
#include <stdlib.h>

static bool is_taken(const struct lend_half *half, uint32_t page)
{
	return half->taken[page / 64] >> page % 64 & 1;
}

static struct lend_half *half_of(struct lend_table *table, const struct lend *lend)
{
	return &table->half[lend->is_read_only];
}

uint64_t *lend_frames(struct lend_table *table, const struct lend *lend)
{
	return &half_of(table, lend)->gfn[lend->first];
}

static void mark(struct lend_table *table, const struct lend *lend, bool taken)
{
	struct lend_half *half = half_of(table, lend);

	for (uint32_t n = lend->first; n < lend->first + lend->pages; n++) {
		const uint64_t bit = 1ull << n % 64;

		assert(is_taken(half, n) != taken);
		if (taken)
			half->taken[n / 64] |= bit;
		else
			half->taken[n / 64] &= ~bit;
	}
}

void check_lends(const struct lend_table *table)
{
	uint32_t taken = 0;
	uint32_t pages = 0;

	for (unsigned n = 0; n < LENDS; n++) {
		const struct lend *lend = &table->lend[n];

		assert(lend->state < LEND_STATES && lend->accesses <= LEND_MOST_ACCESSES);
		if (lend->state == LEND_FREE)
			continue;
		assert(lend->pages && lend->pages <= SHARE_WINDOW_PAGES &&
		       lend->first <= SHARE_WINDOW_PAGES - lend->pages);
		pages += lend->pages;
	}
	for (uint32_t n = 0; n < 2 * SHARE_WINDOW_PAGES; n++)
		taken += is_taken(&table->half[n / SHARE_WINDOW_PAGES], n % SHARE_WINDOW_PAGES);
	assert(taken == pages);
}

/* The first run that is long enough; SHARE_WINDOW_PAGES: there is none. */
static uint32_t find_run(const struct lend_half *half, uint32_t pages)
{
	uint32_t length = 0;

	for (uint32_t n = 0; n < SHARE_WINDOW_PAGES; n++) {
		length = is_taken(half, n) ? 0 : length + 1;
		if (length == pages)
			return n + 1 - pages;
	}
	return SHARE_WINDOW_PAGES;
}

struct lend *lend_ask(struct lend_table *table, uint32_t pages, bool is_read_only)
{
	const uint32_t first =
		pages ? find_run(&table->half[is_read_only], pages) : SHARE_WINDOW_PAGES;

	for (unsigned n = 0; n < LENDS && first < SHARE_WINDOW_PAGES; n++) {
		struct lend *lend = &table->lend[n];

		if (lend->state != LEND_FREE)
			continue;
		/* 0 is no number, and a new one of each entry is another than its last */
		table->last_id = table->last_id == UINT32_MAX ? 1 : table->last_id + 1;
		*lend = (struct lend){ .state = LEND_ASKED, .id = table->last_id, .first = first,
				       .pages = pages, .is_read_only = is_read_only };
		mark(table, lend, true);
		return lend;
	}
	return NULL;
}

struct lend *lend_find(struct lend_table *table, uint32_t id)
{
	for (unsigned n = 0; n < LENDS; n++)
		if (table->lend[n].state != LEND_FREE && table->lend[n].id == id)
			return &table->lend[n];
	return NULL;
}

static void give_back(struct lend_table *table, const struct lend *lend)
{
	/* it has what it needs (lender.h, 4); else the pages would stay with the other machine */
	if (lender_end(table->lender, lend_frames(table, lend), lend->pages,
		       half_of(table, lend)->page[lend->first]))
		abort();
}

void lend_forget(struct lend_table *table, struct lend *lend)
{
	mark(table, lend, false);
	*lend = (struct lend){ .state = LEND_FREE };
}

int lend_begin(struct lend_table *table, struct lend *lend)
{
	int error;

	assert(lend->state == LEND_ASKED);
	error = lender_lend(table->lender, lend_frames(table, lend), lend->pages,
			    half_of(table, lend)->page[lend->first]);
	if (error)
		lend_forget(table, lend);
	else
		lend->state = LEND_LENT;
	return error;
}

bool lend_use(struct lend *lend)
{
	if (lend->state != LEND_LENT || lend->accesses == LEND_MOST_ACCESSES)
		return false;
	lend->accesses++;
	return true;
}

bool lend_release(struct lend *lend)
{
	if (lend->state == LEND_ASKED || !lend->accesses)
		return false;
	lend->accesses--;
	return !lend->accesses && (lend->once || lend->state == LEND_ENDING);
}

void lend_end(struct lend_table *table, struct lend *lend)
{
	assert(lend->state != LEND_FREE);
	if (lend->state != LEND_ASKED)
		give_back(table, lend);
	lend_forget(table, lend);
}
