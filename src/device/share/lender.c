/* See lender.h. */
#include "lender.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory/memory.h"

enum { MOST_PAGES = GUEST_WINDOW_PAGES, PAGE_BYTES = GUEST_PAGE_BYTES };
#define NO_FRAME (~0ull)

/* A page that is lent, and where it is meanwhile. */
struct held { uint64_t gfn; /* NO_FRAME: none */ uint8_t *hva; };

struct lender {
	const struct guest_memory *memory;
	void (*memory_written)(void *context, uint64_t gpa, size_t bytes);
	void *context;
	pthread_mutex_t lock;
	struct held held[MOST_PAGES];
};

struct lender *lender_create(const struct guest_memory *memory,
			     void (*memory_written)(void *context, uint64_t gpa, size_t bytes),
			     void *context)
{
	struct lender *lender = calloc(1, sizeof(*lender));

	if (!lender)
		return NULL;
	*lender = (struct lender){ .memory = memory, .memory_written = memory_written,
				   .context = context };
	pthread_mutex_init(&lender->lock, NULL);
	for (unsigned n = 0; n < MOST_PAGES; n++)
		lender->held[n].gfn = NO_FRAME;
	return lender;
}

void lender_tell_change(struct lender *lender, uint64_t gpa, size_t bytes)
{
	lender->memory_written(lender->context, gpa, bytes);
}

void lender_destroy(struct lender *lender)
{
	for (unsigned n = 0; n < MOST_PAGES; n++)
		if (lender->held[n].gfn != NO_FRAME)
			munmap(lender->held[n].hva, PAGE_BYTES);
	free(lender);
}

bool lender_holds_pages(struct lender *lender, uint64_t gfn, uint64_t pages)
{
	bool holds = false;

	pthread_mutex_lock(&lender->lock);
	for (unsigned n = 0; n < MOST_PAGES && !holds; n++)
		holds = lender->held[n].gfn != NO_FRAME && lender->held[n].gfn - gfn < pages;
	pthread_mutex_unlock(&lender->lock);
	return holds;
}

/* Where the page lies; NULL: it is not RAM, or something lies over it. */
static uint8_t *find_page(const struct lender *lender, uint64_t gfn)
{
	uint64_t gpa = gfn * PAGE_BYTES;

	if (gfn >= UINT64_MAX / PAGE_BYTES || guest_window_hva(lender->memory, gpa) ||
	    guest_overlay_at(lender->memory, gpa) >= 0)
		return NULL;
	return guest_ram_hva(lender->memory, gpa);
}

static struct held *find_held(struct lender *lender, uint64_t gfn)
{
	for (unsigned n = 0; n < MOST_PAGES; n++)
		if (lender->held[n].gfn == gfn)
			return &lender->held[n];
	return NULL;
}

/* of old_bytes 0: of a shared page the same page once more */
static int take_place(uint8_t *page, size_t old_bytes, uint8_t *place)
{
	void *at = mremap(page, old_bytes, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, place);

	return at == MAP_FAILED ? -errno : 0;
}

/*
 * The page elsewhere, and zeros in its place. It is written first: a mapping that no page was
 * written of forgets where it came from, and would not be one with its neighbours again.
 */
static uint8_t *move_away(uint8_t *page)
{
	__atomic_fetch_or(page, 0, __ATOMIC_RELAXED);
	return mremap(page, PAGE_BYTES, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
}

/* By its bytes: that needs no other mapping. */
static void put_back(uint8_t *held, uint8_t *page, uint8_t *window_page)
{
	memcpy(page, held, PAGE_BYTES);
	munmap(held, PAGE_BYTES);
	memset(window_page, 0, PAGE_BYTES);
}

static int lend(struct lender *lender, uint64_t gfn, uint8_t *window_page)
{
	uint8_t *page = find_page(lender, gfn);
	struct held *held;
	uint8_t *moved;
	int error;

	if (!page)
		return -EFAULT;
	if (find_held(lender, gfn))
		return -EBUSY;
	held = find_held(lender, NO_FRAME);
	if (!held)
		return -ENOSPC;
	moved = move_away(page);
	if (moved == MAP_FAILED)
		return -errno;
	memcpy(window_page, moved, PAGE_BYTES);
	error = take_place(window_page, 0, page);
	if (error) {
		put_back(moved, page, window_page);
		return error;
	}
	*held = (struct held){ .gfn = gfn, .hva = moved };
	return 0;
}

int lender_lend(struct lender *lender, uint64_t gfn, uint8_t *window_page)
{
	int error;

	pthread_mutex_lock(&lender->lock);
	error = lend(lender, gfn, window_page);
	pthread_mutex_unlock(&lender->lock);
	if (!error)
		lender->memory_written(lender->context, gfn * PAGE_BYTES, PAGE_BYTES);
	return error;
}

static int end(struct lender *lender, uint64_t gfn, uint8_t *window_page)
{
	struct held *held = find_held(lender, gfn);
	uint8_t *place = guest_ram_hva(lender->memory, gfn * PAGE_BYTES);
	int error;

	assert(held && place);
	memcpy(held->hva, window_page, PAGE_BYTES);
	error = take_place(held->hva, PAGE_BYTES, place);
	if (error)
		return error;
	memset(window_page, 0, PAGE_BYTES);
	*held = (struct held){ .gfn = NO_FRAME };
	return 0;
}

int lender_end(struct lender *lender, uint64_t gfn, uint8_t *window_page)
{
	int error;

	pthread_mutex_lock(&lender->lock);
	error = end(lender, gfn, window_page);
	pthread_mutex_unlock(&lender->lock);
	if (!error)
		lender->memory_written(lender->context, gfn * PAGE_BYTES, PAGE_BYTES);
	return error;
}
