/*
 * Dynamic memory against a driver that says what no driver should, or nothing: what is refused
 * breaks the channel, nothing is discarded that the guest did not give up, and what it has is what
 * it has acknowledged. Prints TAP.
 */
#include <stdio.h>

#include "live_guest.h"

enum {
	SAYS_VERSION = 1, SAYS_CAPABILITIES = 3, SAYS_STATUS = 5, SAYS_PAGES = 7,
	SAYS_DEFLATED = 9, SAYS_ADDED = 11, IS_ASKED_TO_INFLATE = 6, IS_ASKED_TO_ADD = 10,
	PAGES = FAKE_RAM_BYTES / GUEST_PAGE_BYTES, REGION = FAKE_REGION_BYTES / GUEST_PAGE_BYTES,
	LOW_PAGES = FAKE_LOW_BYTES / GUEST_PAGE_BYTES, MARK = 0x5a,
	FREE_GFN = 0xa0, WORDS = GUEST_PAGE_BYTES / 8 - 1
};
#define HIGH_GFN (1ull << 20)
#define RANGE(gfn, count) ((gfn) | (uint64_t)(count) << 40)
#define COUNTED(ranges, more) ((uint64_t)((ranges) << 1 | (more)) << 32)

static unsigned checks, bad;
static struct live guest;

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

static void say(uint16_t type, unsigned words, const uint64_t *word)
{
	struct { uint16_t type, bytes; uint32_t transaction; uint64_t word[WORDS]; } message = {
		.type = type, .bytes = (uint16_t)(8 + 8 * words)
	};

	if (words)
		memcpy(message.word, word, words * sizeof(*word));
	live_put_inband(&guest, LIVE_BALLOON, &message, message.bytes);
}

static void say_one(uint16_t type, uint64_t word) { say(type, 1, &word); }

static uint32_t heard(void) { return *live_word(&guest, LIVE_BALLOON, true, RING_WRITE_INDEX); }

/* A channel that is broken answers nothing. */
static bool is_broken(void)
{
	uint32_t before = heard();

	say_one(SAYS_VERSION, 0x20000);
	return heard() == before;
}

/* The type of the last message; 0: none came since `before`. */
static uint16_t asked_since(uint32_t before)
{
	const uint8_t *data =
		(uint8_t *)live_word(&guest, LIVE_BALLOON, true, 0) + GUEST_PAGE_BYTES;
	uint16_t type;

	if (heard() == before)
		return 0;
	memcpy(&type, data + (before + sizeof(struct vmbus_packet)) % LIVE_RING_BYTES,
	       sizeof(type));
	return type;
}

static struct balloon_status status(void)
{
	struct balloon_status current;

	balloon_status(guest.fake.balloon, &current);
	return current;
}

/* With a driver that can do all of it, and a target of `pages`. What it is asked for. */
static uint16_t begin(uint64_t pages)
{
	uint32_t before;

	memset(&guest, 0, sizeof(guest));
	fake_create(&guest.fake, 1000000000);
	fake_contact(&guest.fake);
	for (uint32_t relid = 1; relid <= FAKE_CHANNELS; relid++)
		fake_open(&guest.fake, relid);
	memset(guest.fake.memory.ram + FREE_GFN * GUEST_PAGE_BYTES, MARK, 32 * GUEST_PAGE_BYTES);
	say_one(SAYS_VERSION, 0x20000);
	say_one(SAYS_CAPABILITIES, 3 | 7 << 2);
	before = heard();
	balloon_set_target(guest.fake.balloon, pages * GUEST_PAGE_BYTES);
	return asked_since(before);
}

static bool is_untouched(uint64_t gfn)
{
	return guest.fake.memory.ram[gfn * GUEST_PAGE_BYTES] == MARK;
}

static bool has(uint64_t held, uint64_t assigned)
{
	struct balloon_status current = status();

	return current.held_bytes == held * GUEST_PAGE_BYTES &&
	       current.assigned_bytes == assigned * GUEST_PAGE_BYTES;
}

/* ---- the balloon ---- */

static void pages_twice(void)
{
	check("it is asked to inflate", begin(PAGES - 16) == IS_ASKED_TO_INFLATE);
	say(SAYS_PAGES, 2, (uint64_t[]){ COUNTED(1, 1), RANGE(FREE_GFN, 4) });
	check("what is given up is discarded", !is_untouched(FREE_GFN) &&
						       is_untouched(FREE_GFN + 4));
	say(SAYS_PAGES, 2, (uint64_t[]){ COUNTED(1, 0), RANGE(FREE_GFN + 3, 4) });
	check("a page given up twice breaks the channel", is_broken());
	check("and nothing of its range is discarded", is_untouched(FREE_GFN + 4));
	live_destroy(&guest);
}

/* Ranges that lie side by side, up and down, and one apart. */
static void pages_side_by_side(void)
{
	static const uint64_t gone[] = { 0, 1, 2, 3, 4, 5, 9 };
	bool good = true;

	begin(PAGES - 16);
	say(SAYS_PAGES, 6,
	    (uint64_t[]){ COUNTED(5, 0), RANGE(FREE_GFN + 2, 2), RANGE(FREE_GFN, 2),
			  RANGE(FREE_GFN + 4, 1), RANGE(FREE_GFN + 5, 1), RANGE(FREE_GFN + 9, 1) });
	for (unsigned n = 0; n < sizeof(gone) / sizeof(gone[0]); n++)
		good &= !is_untouched(FREE_GFN + gone[n]);
	check("pages side by side are all discarded", good);
	check("and no others", is_untouched(FREE_GFN + 6) && is_untouched(FREE_GFN + 8) &&
				       is_untouched(FREE_GFN + 10) &&
				       has(PAGES, PAGES - sizeof(gone) / sizeof(gone[0])));
	live_destroy(&guest);
}

static void pages_in_one_message_twice(void)
{
	begin(PAGES - 16);
	say(SAYS_PAGES, 3,
	    (uint64_t[]){ COUNTED(2, 0), RANGE(FREE_GFN, 4), RANGE(FREE_GFN, 4) });
	check("also within one message", is_broken());
	live_destroy(&guest);
}

/* Linux fills a page with ranges when it has nothing left but single pages. */
static void pages_in_the_longest_message(void)
{
	static uint64_t words[WORDS] = { COUNTED(WORDS - 1, 0) };

	for (unsigned n = 1; n < WORDS; n++)
		words[n] = RANGE(FREE_GFN + (n - 1) % 16, n <= 16);
	begin(PAGES - 16);
	say(SAYS_PAGES, WORDS, words);
	check("a message of a page is taken whole",
	      !is_broken() && status().assigned_bytes == FAKE_RAM_BYTES - 16 * GUEST_PAGE_BYTES);
	live_destroy(&guest);
}

static void pages_out_of_range(void)
{
	static const uint64_t ranges[] = {
		RANGE(LOW_PAGES - 1, 2), RANGE(LOW_PAGES, 1),
		RANGE(HIGH_GFN - 1, 2), RANGE(HIGH_GFN + 64, 1), RANGE(HIGH_GFN + 63, 2),
		RANGE((1ull << 40) - 1, 1), RANGE(0, (1 << 24) - 1), RANGE(HIGH_GFN, 65)
	};

	for (unsigned n = 0; n < sizeof(ranges) / sizeof(ranges[0]); n++) {
		char name[64];

		begin(PAGES - 16);
		say(SAYS_PAGES, 2, (uint64_t[]){ COUNTED(1, 0), ranges[n] });
		snprintf(name, sizeof(name), "range %u that is not RAM breaks the channel", n);
		check(name, is_broken() && status().assigned_bytes == FAKE_RAM_BYTES);
		live_destroy(&guest);
	}
}

static void pages_unasked(void)
{
	begin(PAGES);
	say(SAYS_PAGES, 2, (uint64_t[]){ COUNTED(1, 0), RANGE(FREE_GFN, 4) });
	check("pages that nobody asked for break the channel", is_broken());
	check("and are not discarded", is_untouched(FREE_GFN));
	live_destroy(&guest);
}

static void deflated_unasked(void)
{
	begin(PAGES);
	say(SAYS_DEFLATED, 0, NULL);
	check("so does thanks for nothing", is_broken());
	live_destroy(&guest);
}

/* ---- regions ---- */

static void regions(void)
{
	uint32_t before;

	check("it is asked to add", begin(PAGES + 2 * REGION) == IS_ASKED_TO_ADD);
	check("what is not acknowledged it has not", has(PAGES, PAGES));
	before = heard();
	say_one(SAYS_ADDED, REGION | 1ull << 32);
	check("what it acknowledges it has", has(PAGES + REGION, PAGES + REGION));
	check("the next is asked for at once", asked_since(before) == IS_ASKED_TO_ADD);
	say_one(SAYS_ADDED, REGION | 1ull << 32);
	before = heard();
	balloon_tick(guest.fake.balloon);
	check("and no more than was wanted",
	      has(PAGES + 2 * REGION, PAGES + 2 * REGION) && heard() == before);
	balloon_set_target(guest.fake.balloon, FAKE_RAM_BYTES);
	say(SAYS_PAGES, 2,
	    (uint64_t[]){ COUNTED(1, 0), RANGE(HIGH_GFN + 60, 2 * REGION) });
	check("added pages are given up", has(PAGES + 2 * REGION, PAGES));
	live_destroy(&guest);
}

static void region_overlap(void)
{
	begin(PAGES + REGION);
	say_one(SAYS_ADDED, REGION | 1ull << 32);
	balloon_set_target(guest.fake.balloon, FAKE_RAM_BYTES / 2);
	say(SAYS_PAGES, 2, (uint64_t[]){ COUNTED(1, 0), RANGE(HIGH_GFN + 64 + 8, REGION) });
	check("pages across the end of what was added break the channel", is_broken());
	live_destroy(&guest);
}

static void region_before_acknowledged(void)
{
	begin(PAGES + REGION);
	say(SAYS_PAGES, 2, (uint64_t[]){ COUNTED(1, 0), RANGE(HIGH_GFN + 64, REGION) });
	check("so do pages of one that it has not taken", is_broken());
	live_destroy(&guest);
}

static void region_more_than_asked(void)
{
	begin(PAGES + REGION);
	say_one(SAYS_ADDED, (REGION + 1) | 1ull << 32);
	check("so does more than was offered", is_broken() && has(PAGES, PAGES));
	live_destroy(&guest);
}

static void region_unasked(void)
{
	begin(PAGES);
	say_one(SAYS_ADDED, REGION | 1ull << 32);
	check("and what was not offered", is_broken() && has(PAGES, PAGES));
	live_destroy(&guest);
}

static void region_in_part(void)
{
	begin(PAGES + 2 * REGION);
	say_one(SAYS_ADDED, (REGION / 2) | 1ull << 32);
	check("of a region taken in part it has that part", has(PAGES + REGION / 2,
								PAGES + REGION / 2));
	for (unsigned n = 0; n < 30; n++)
		balloon_tick(guest.fake.balloon);
	check("and is offered no other", !is_broken() && !status().is_silent);
	live_destroy(&guest);
}

static void region_refused(void)
{
	uint32_t before;

	begin(PAGES + REGION);
	say_one(SAYS_ADDED, REGION); /* with the result that says no */
	check("a region that it refuses it has not", has(PAGES, PAGES));
	before = heard();
	for (unsigned n = 0; n < 5; n++)
		balloon_tick(guest.fake.balloon);
	check("and it is left alone for a while", heard() == before);
	for (unsigned n = 0; n < 6; n++)
		balloon_tick(guest.fake.balloon);
	check("then asked again", asked_since(before) == IS_ASKED_TO_ADD);
	say_one(SAYS_ADDED, REGION | 1ull << 32);
	check("and may take it", has(PAGES + REGION, PAGES + REGION));
	live_destroy(&guest);
}

/* As Linux does it where nobody puts memory on line. */
static void region_unused(void)
{
	begin(PAGES);
	say(SAYS_STATUS, 5, (uint64_t[]){ 40, 200, 0, 40, 0 });
	balloon_set_target(guest.fake.balloon, FAKE_RAM_BYTES + 3 * FAKE_REGION_BYTES);
	for (unsigned n = 0; n < 5; n++)
		balloon_tick(guest.fake.balloon);
	say_one(SAYS_ADDED, REGION | 1ull << 32);
	balloon_tick(guest.fake.balloon);
	say(SAYS_STATUS, 5, (uint64_t[]){ 40, 200 + REGION, 0, 40, 0 });
	balloon_tick(guest.fake.balloon);
	check("nothing more is added to what nobody uses",
	      has(PAGES + REGION, PAGES + REGION) && status().counters.unused == 1 &&
		      !status().can_grow);
	live_destroy(&guest);
}

static void region_unanswered(void)
{
	uint32_t before;

	begin(PAGES + REGION);
	before = heard();
	for (unsigned n = 0; n < 100; n++)
		balloon_tick(guest.fake.balloon);
	check("one that never answers is asked once, and is silent",
	      heard() == before && status().is_silent && has(PAGES, PAGES));
	live_destroy(&guest);
}

/* ---- statuses ---- */

static void status_absurd(void)
{
	begin(PAGES);
	balloon_set_target(guest.fake.balloon, 0);
	say(SAYS_STATUS, 5, (uint64_t[]){ ~0ull, ~0ull, ~0ull, ~0ull, ~0ull });
	balloon_tick(guest.fake.balloon);
	check("a status of 2^64 pages wants no more than there may be",
	      status().target_bytes == FAKE_MOST_BYTES &&
		      status().available_bytes <= FAKE_RAM_BYTES);
	live_destroy(&guest);
}

/* ---- saved ---- */

static void saved_while_asked(void)
{
	static uint8_t first[1 << 16], second[1 << 16];
	static struct live child;
	size_t bytes;

	begin(PAGES + 3 * REGION);
	say_one(SAYS_ADDED, REGION | 1ull << 32);
	bytes = live_save(&guest, PART_BALLOON, first, sizeof(first));
	live_create(&child, 0);
	check("what was added is saved, with what it is asked",
	      !live_load(&child, PART_BALLOON, first, bytes) &&
		      live_save(&child, PART_BALLOON, second, sizeof(second)) == bytes &&
		      !memcmp(first, second, bytes));
	check("and is RAM again, also what is being added",
	      guest_memory_populated_bytes(&child.fake.memory) ==
		      FAKE_RAM_BYTES + 2 * FAKE_REGION_BYTES);
	live_use(&child);
	live_destroy(&child);
	live_destroy(&guest);
}

int main(void)
{
	pages_twice();
	pages_side_by_side();
	pages_in_one_message_twice();
	pages_in_the_longest_message();
	pages_out_of_range();
	pages_unasked();
	deflated_unasked();
	regions();
	region_overlap();
	region_before_acknowledged();
	region_more_than_asked();
	region_unasked();
	region_in_part();
	region_refused();
	region_unused();
	region_unanswered();
	status_absurd();
	saved_while_asked();
	printf("1..%u\n", checks);
	return bad != 0;
}
