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

struct lender {
	const struct guest_memory *memory;
	void (*memory_written)(void *context, uint64_t gpa, size_t bytes);
	void *context;
	pthread_mutex_t lock;
	uint64_t gfn[MOST_PAGES]; /* NO_FRAME: free */
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
		lender->gfn[n] = NO_FRAME;
	return lender;
}

void lender_destroy(struct lender *lender) { free(lender); }

bool lender_holds_pages(struct lender *lender, uint64_t gfn, uint64_t pages)
{
	bool holds = false;

	pthread_mutex_lock(&lender->lock);
	for (unsigned n = 0; n < MOST_PAGES && !holds; n++)
		holds = lender->gfn[n] != NO_FRAME && lender->gfn[n] - gfn < pages;
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

static uint64_t *find_entry(struct lender *lender, uint64_t gfn)
{
	for (unsigned n = 0; n < MOST_PAGES; n++)
		if (lender->gfn[n] == gfn)
			return &lender->gfn[n];
	return NULL;
}

/* of old_bytes 0: of a shared page the same page once more */
static int take_place(uint8_t *page, size_t old_bytes, uint8_t *place)
{
	void *at = mremap(page, old_bytes, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, place);

	return at == MAP_FAILED ? -errno : 0;
}

static int lend(struct lender *lender, uint64_t gfn, uint8_t *window_page)
{
	uint8_t *page = find_page(lender, gfn);
	uint64_t *entry;
	int error;

	if (!page)
		return -EFAULT;
	if (find_entry(lender, gfn))
		return -EBUSY;
	entry = find_entry(lender, NO_FRAME);
	if (!entry)
		return -ENOSPC;
	memcpy(window_page, page, PAGE_BYTES);
	error = take_place(window_page, 0, page);
	if (error) {
		memset(window_page, 0, PAGE_BYTES);
		return error;
	}
	*entry = gfn;
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
	uint64_t *entry = find_entry(lender, gfn);
	uint8_t *place = guest_ram_hva(lender->memory, gfn * PAGE_BYTES);
	uint8_t *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int error;

	assert(entry && place);
	if (page == MAP_FAILED)
		return -errno;
	memcpy(page, window_page, PAGE_BYTES);
	error = take_place(page, PAGE_BYTES, place);
	if (error) {
		munmap(page, PAGE_BYTES);
		return error;
	}
	memset(window_page, 0, PAGE_BYTES);
	*entry = NO_FRAME;
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
