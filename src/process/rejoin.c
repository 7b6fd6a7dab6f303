/* See rejoin.h. */
#include "rejoin.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/check.h"

enum {
	PAGE = 4096,
	ENTRIES = TOUCH_LARGE_BYTES / PAGE,
	LOOKS = 16,     /* large pages in a turn */
	TURN_MS = 2,    /* from one to the next */
	REST_MS = 20,   /* before the first pass; twice as long before each that follows */
	PASSES = 12
};
#define RAM_MOST (1ull << 40)

/* Documentation/admin-guide/mm/pagemap.rst */
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_EXCLUSIVE (1ull << 56)

static uint64_t large_pages(const struct rejoin *rejoin)
{
	return rejoin->ram.bytes / TOUCH_LARGE_BYTES;
}

void check_rejoin(const struct rejoin *rejoin)
{
	const struct record_span *span = &rejoin->span;

	assert(span->at % TOUCH_LARGE_BYTES == 0 && span->bytes % TOUCH_LARGE_BYTES == 0);
	assert(span->bytes <= REJOIN_SPAN_MOST * (uint64_t)TOUCH_LARGE_BYTES);
	assert(span->at <= rejoin->ram.bytes && span->bytes <= rejoin->ram.bytes - span->at);
}

void rejoin_init(struct rejoin *rejoin, int pagemap)
{
	*rejoin = (struct rejoin){ .pagemap = pagemap };
}

bool rejoin_set_ram(struct rejoin *rejoin, const void *data, uint32_t bytes)
{
	struct record_ram ram = { .hva = 0 };

	if (bytes && bytes != sizeof(ram))
		return false;
	if (bytes)
		memcpy(&ram, data, bytes);
	rejoin_end(rejoin);
	rejoin->ram = (struct record_ram){ .hva = 0 };
	/* small machines, and those whose RAM does not begin with a large page, have none */
	if (ram.bytes <= RAM_MOST && ram.hva <= UINT64_MAX / 2 &&
	    ram.hva % TOUCH_LARGE_BYTES == 0)
		rejoin->ram = ram;
	return true;
}

void rejoin_end(struct rejoin *rejoin)
{
	free(rejoin->told);
	rejoin->told = NULL;
	rejoin->due_ms = 0;
	rejoin->span = (struct record_span){ .bytes = 0 };
	rejoin->is_told = false;
}

void rejoin_begin(struct rejoin *rejoin, uint64_t now_ms)
{
	rejoin_end(rejoin);
	if (rejoin->pagemap < 0 || !large_pages(rejoin))
		return;
	rejoin->told = calloc(large_pages(rejoin) / 8 + 1, 1);
	if (!rejoin->told)
		return;
	rejoin->pass = 0;
	rejoin->at = 0;
	rejoin->leaves_some = false;
	rejoin->due_ms = now_ms + REST_MS;
}

static bool is_told(const struct rejoin *rejoin, uint64_t page)
{
	return rejoin->told[page / 8] >> page % 8 & 1;
}

enum whose { NOT_THERE, COMMON, OWN };

/* Common as soon as some page is: it may become its own. */
static enum whose look_at(const struct rejoin *rejoin, uint64_t page)
{
	const uint64_t first = rejoin->ram.hva / PAGE + page * ENTRIES;
	enum whose whose = OWN;
	uint64_t entry[ENTRIES];

	if (pread(rejoin->pagemap, entry, sizeof(entry), (off_t)(first * sizeof(entry[0]))) !=
	    (ssize_t)sizeof(entry))
		return NOT_THERE;
	for (unsigned n = 0; n < ENTRIES && whose != COMMON; n++)
		if (!(entry[n] & ENTRY_PRESENT))
			whose = NOT_THERE;
		else if (!(entry[n] & ENTRY_EXCLUSIVE))
			whose = COMMON;
	return whose;
}

/* The next one of this pass. True: the span ends before it, or with it. */
static bool look_at_one(struct rejoin *rejoin)
{
	struct record_span *span = &rejoin->span;
	const uint64_t page = rejoin->at++;
	const enum whose whose = is_told(rejoin, page) ? NOT_THERE : look_at(rejoin, page);

	rejoin->leaves_some |= whose == COMMON;
	if (whose != OWN)
		return span->bytes;
	rejoin->told[page / 8] |= (uint8_t)(1u << page % 8);
	if (!span->bytes)
		span->at = page * TOUCH_LARGE_BYTES;
	span->bytes += TOUCH_LARGE_BYTES;
	return span->bytes == REJOIN_SPAN_MOST * (uint64_t)TOUCH_LARGE_BYTES;
}

static void end_pass(struct rejoin *rejoin, uint64_t now_ms)
{
	rejoin->at = 0;
	rejoin->pass++;
	if (!rejoin->leaves_some || rejoin->pass == PASSES)
		rejoin->due_ms = 0;
	else
		rejoin->due_ms = now_ms + ((uint64_t)REST_MS << rejoin->pass);
	rejoin->leaves_some = false;
}

uint64_t rejoin_due_ms(const struct rejoin *rejoin)
{
	return rejoin->span.bytes ? 0 : rejoin->due_ms;
}

bool rejoin_turn(struct rejoin *rejoin, uint64_t now_ms)
{
	bool is_whole = false;

	if (rejoin->span.bytes || !rejoin->due_ms || now_ms < rejoin->due_ms)
		return rejoin->span.bytes && !rejoin->is_told;
	rejoin->due_ms = now_ms + TURN_MS;
	for (unsigned n = 0; n < LOOKS && rejoin->at < large_pages(rejoin) && !is_whole; n++)
		is_whole = look_at_one(rejoin);
	if (rejoin->at == large_pages(rejoin))
		end_pass(rejoin, now_ms);
	CHECK(check_rejoin(rejoin));
	return rejoin->span.bytes;
}

void rejoin_told(struct rejoin *rejoin) { rejoin->is_told = true; }

bool rejoin_done(struct rejoin *rejoin, const void *data, uint32_t bytes)
{
	uint64_t at;

	if (bytes != sizeof(at))
		return false;
	memcpy(&at, data, sizeof(at));
	if (rejoin->is_told && at == rejoin->span.at) {
		rejoin->span.bytes = 0;
		rejoin->is_told = false;
	}
	return true;
}
