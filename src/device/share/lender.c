/* See lender.h. */
#include "lender_internal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ipc/share_port.h"
#include "lib/check.h"

static size_t run_bytes(uint32_t pages) { return (size_t)pages * GUEST_PAGE_BYTES; }

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
	for (unsigned n = 0; n < LENDER_RUNS; n++)
		lender->held[n].gfn = NO_FRAME;
	return lender;
}

uint64_t lender_window_gpa(unsigned number)
{
	return GUEST_WINDOW_GPA + number * (uint64_t)SHARE_SHOWN_PAGES * GUEST_PAGE_BYTES;
}

uint64_t lender_read_only_gpa(const struct lender *lender, unsigned number)
{
	return GUEST_WINDOW_GPA + lender->memory->window_read_only +
	       number * (uint64_t)SHARE_WINDOW_PAGES * GUEST_PAGE_BYTES;
}

void lender_tell_change(struct lender *lender, uint64_t gpa, size_t bytes)
{
	lender->memory_written(lender->context, gpa, bytes);
}

void lender_destroy(struct lender *lender)
{
	for (unsigned n = 0; n < LENDER_RUNS; n++)
		if (lender->held[n].gfn != NO_FRAME)
			munmap(lender->held[n].hva, run_bytes(lender->held[n].pages));
	free(lender);
}

/* Of frames from gfn on, and of a run. */
static bool is_in(const struct held *held, uint64_t gfn, uint64_t pages)
{
	return held->gfn != NO_FRAME &&
	       (held->gfn - gfn < pages || gfn - held->gfn < held->pages);
}

static bool overlap(const struct held *held, const struct held *other)
{
	return is_in(other, held->gfn, held->pages);
}

static bool holds(const struct lender *lender, uint64_t gfn, uint64_t pages)
{
	for (unsigned n = 0; n < LENDER_RUNS; n++)
		if (is_in(&lender->held[n], gfn, pages))
			return true;
	return false;
}

void check_lender(const struct lender *lender)
{
	for (unsigned n = 0; n < LENDER_RUNS; n++) {
		const struct held *held = &lender->held[n];

		assert((held->gfn == NO_FRAME) == !held->hva);
		assert(!held->hva == !held->pages && held->pages <= GUEST_WINDOW_PAGES);
		assert((uintptr_t)held->hva % GUEST_PAGE_BYTES == 0);
		for (unsigned k = n + 1; held->hva && k < LENDER_RUNS; k++)
			assert(!overlap(held, &lender->held[k]));
	}
}

bool lender_holds_pages(struct lender *lender, uint64_t gfn, uint64_t pages)
{
	bool is_held;

	pthread_mutex_lock(&lender->lock);
	is_held = holds(lender, gfn, pages);
	pthread_mutex_unlock(&lender->lock);
	return is_held;
}

/* Where the page lies; NULL: it is not RAM, or something lies over it. */
static uint8_t *find_page(const struct lender *lender, uint64_t gfn)
{
	uint64_t gpa = gfn * GUEST_PAGE_BYTES;

	if (gfn >= UINT64_MAX / GUEST_PAGE_BYTES || guest_window_hva(lender->memory, gpa) ||
	    guest_overlay_at(lender->memory, gpa) >= 0)
		return NULL;
	return guest_ram_hva(lender->memory, gpa);
}

/* How many of the frames from the first one on lie behind one another, here and in the guest. */
static uint32_t count_run(const struct lender *lender, const uint64_t *gfn, uint32_t pages)
{
	const uint8_t *place = find_page(lender, gfn[0]);
	uint32_t n = 1;

	while (n < pages && gfn[n] == gfn[0] + n &&
	       find_page(lender, gfn[n]) == place + run_bytes(n))
		n++;
	return n;
}

/* The run that begins with this frame, or of NO_FRAME an entry that is free. */
static struct held *find_held(struct lender *lender, uint64_t gfn)
{
	for (unsigned n = 0; n < LENDER_RUNS; n++)
		if (lender->held[n].gfn == gfn)
			return &lender->held[n];
	return NULL;
}

/* of old_bytes 0: of shared pages the same pages once more */
static int take_place(uint8_t *from, size_t old_bytes, uint8_t *place, size_t bytes)
{
	void *at = mremap(from, old_bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);

	return at == MAP_FAILED ? -errno : 0;
}

/*
 * The pages elsewhere, and zeros in their place; fewer where they are of more than one mapping.
 * They are written first: a mapping that no page was written of forgets where it came from, and
 * would not be one with its neighbours again.
 */
static uint8_t *move_away(uint8_t *place, uint32_t *pages)
{
	uint8_t *moved;

	for (uint32_t n = 0; n < *pages; n++)
		__atomic_fetch_or(place + run_bytes(n), 0, __ATOMIC_RELAXED);
	do
		moved = mremap(place, run_bytes(*pages), run_bytes(*pages),
			       MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	while (moved == MAP_FAILED && errno == EFAULT && (*pages /= 2));
	return moved;
}

/* By their bytes: that needs no other mapping. */
static void put_back(uint8_t *held, uint8_t *place, uint8_t *window, size_t bytes)
{
	memcpy(place, held, bytes);
	munmap(held, bytes);
	memset(window, 0, bytes);
}

/* What lies behind one another from the first frame on: how many pages are lent now, or -errno. */
static int lend_run(struct lender *lender, const uint64_t *gfn, uint32_t most, uint8_t *window)
{
	uint8_t *place = find_page(lender, gfn[0]);
	struct held *held = find_held(lender, NO_FRAME);
	uint32_t pages;
	uint8_t *moved;
	int error;

	if (!place)
		return -EFAULT;
	pages = count_run(lender, gfn, most);
	if (holds(lender, gfn[0], pages))
		return -EBUSY;
	if (!held)
		return -ENOSPC;
	moved = move_away(place, &pages);
	if (moved == MAP_FAILED)
		return -errno;
	memcpy(window, moved, run_bytes(pages));
	error = take_place(window, 0, place, run_bytes(pages));
	if (error) {
		put_back(moved, place, window, run_bytes(pages));
		return error;
	}
	*held = (struct held){ .gfn = gfn[0], .pages = pages, .hva = moved };
	return (int)pages;
}

static uint8_t *place_of(const struct lender *lender, const struct held *held)
{
	uint8_t *place = guest_ram_hva(lender->memory, held->gfn * GUEST_PAGE_BYTES);

	assert(place);
	return place;
}

static int end_run(const struct lender *lender, struct held *held, uint8_t *window)
{
	uint8_t *place = place_of(lender, held);
	const size_t bytes = run_bytes(held->pages);
	int error;

	memcpy(held->hva, window, bytes);
	error = take_place(held->hva, bytes, place, bytes);
	if (error)
		return error;
	memset(window, 0, bytes);
	*held = (struct held){ .gfn = NO_FRAME };
	return 0;
}

void lender_stand(struct lender *lender)
{
	pthread_mutex_lock(&lender->lock);
	for (unsigned n = 0; n < LENDER_RUNS; n++) {
		const struct held *held = &lender->held[n];

		if (held->gfn != NO_FRAME)
			memcpy(held->hva, place_of(lender, held), run_bytes(held->pages));
	}
	pthread_mutex_unlock(&lender->lock);
}

void lender_mark(struct lender *lender, uint64_t *frames)
{
	pthread_mutex_lock(&lender->lock);
	for (unsigned n = 0; n < LENDER_RUNS; n++) {
		const struct held *held = &lender->held[n];
		uint64_t frame = 0;

		if (held->gfn != NO_FRAME)
			frame = (uint64_t)(place_of(lender, held) - lender->memory->ram) /
				GUEST_PAGE_BYTES;
		for (uint32_t k = 0; k < held->pages; k++)
			frames[(frame + k) / 64] |= 1ull << (frame + k) % 64;
	}
	pthread_mutex_unlock(&lender->lock);
}

/* What stood there is not inherited: nothing has to change places. */
void lender_forked(struct lender *lender)
{
	pthread_mutex_init(&lender->lock, NULL);
	for (unsigned n = 0; n < LENDER_RUNS; n++) {
		struct held *held = &lender->held[n];
		uint8_t *place = held->gfn == NO_FRAME ? NULL : place_of(lender, held);
		const size_t bytes = run_bytes(held->pages);

		if (!place)
			continue;
		if (mmap(place, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != place)
			abort();
		memcpy(place, held->hva, bytes);
		munmap(held->hva, bytes);
		*held = (struct held){ .gfn = NO_FRAME };
	}
	CHECK(check_lender(lender));
}

static int end(struct lender *lender, const uint64_t *gfn, uint32_t pages, uint8_t *window)
{
	for (uint32_t done = 0; done < pages;) {
		struct held *held = find_held(lender, gfn[done]);
		uint32_t run;
		int error;

		assert(held && held->pages <= pages - done);
		run = held->pages;
		error = end_run(lender, held, window + run_bytes(done));
		if (error)
			return error;
		done += run;
	}
	return 0;
}

static int lend(struct lender *lender, const uint64_t *gfn, uint32_t pages, uint8_t *window)
{
	for (uint32_t done = 0; done < pages;) {
		int lent = lend_run(lender, gfn + done, pages - done, window + run_bytes(done));

		if (lent < 0) {
			/* it has what it needs (invariant 4) */
			if (end(lender, gfn, done, window))
				abort();
			return lent;
		}
		done += (uint32_t)lent;
	}
	return 0;
}

static void tell(const struct lender *lender, const uint64_t *gfn, uint32_t pages)
{
	for (uint32_t n = 0; n < pages;) {
		const uint32_t run = count_run(lender, gfn + n, pages - n);

		lender->memory_written(lender->context, gfn[n] * GUEST_PAGE_BYTES, run_bytes(run));
		n += run;
	}
}

int lender_lend(struct lender *lender, const uint64_t *gfn, uint32_t pages, uint8_t *window)
{
	int error;

	pthread_mutex_lock(&lender->lock);
	error = lend(lender, gfn, pages, window);
	CHECK(check_lender(lender));
	pthread_mutex_unlock(&lender->lock);
	if (!error)
		tell(lender, gfn, pages);
	return error;
}

int lender_end(struct lender *lender, const uint64_t *gfn, uint32_t pages, uint8_t *window)
{
	int error;

	pthread_mutex_lock(&lender->lock);
	error = end(lender, gfn, pages, window);
	CHECK(check_lender(lender));
	pthread_mutex_unlock(&lender->lock);
	if (!error)
		tell(lender, gfn, pages);
	return error;
}
