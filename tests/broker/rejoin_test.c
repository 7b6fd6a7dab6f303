/*
 * What a broker has put together again after a fork (process/rejoin.h), with a file in pagemap's
 * place: each large page that is the machine's own once, in spans, none of those that are common
 * until they are its own, and nothing after the last pass; whatever a machine says of where its RAM
 * lies, nothing outside of what it said.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "process/rejoin.h"

enum { PAGE = 4096, ENTRIES = 512, LARGE_PAGES = 100, FIRST = 7, STEPS = 1000000 };
#define OWN (1ull << 63 | 1ull << 56)
#define COMMON (1ull << 63)
#define LARGE ((uint64_t)TOUCH_LARGE_BYTES)

static int failures;

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	failures += !good;
}

/* Of one small page. */
static void set(int pagemap, unsigned large, unsigned small, uint64_t entry)
{
	const off_t at = (off_t)((FIRST + large) * ENTRIES + small) * 8;

	if (pwrite(pagemap, &entry, sizeof(entry), at) != sizeof(entry))
		failures++;
}

static void set_large(int pagemap, unsigned large, uint64_t entry)
{
	for (unsigned n = 0; n < ENTRIES; n++)
		set(pagemap, large, n, entry);
}

/* Nothing more is to be told before that, or due. */
static void say_done(struct rejoin *rejoin)
{
	const uint64_t at = rejoin->span.at;
	const uint64_t other = at + LARGE;

	if (rejoin_turn(rejoin, UINT64_MAX / 2) || rejoin_due_ms(rejoin) ||
	    !rejoin_done(rejoin, &other, sizeof(other)) || !rejoin->span.bytes ||
	    !rejoin_done(rejoin, &at, sizeof(at)) || rejoin->span.bytes)
		failures++;
}

/* Until it looks no more; counts how often each was told. The time is its own. */
static uint64_t run(struct rejoin *rejoin, uint64_t now_ms, unsigned passes, unsigned told[])
{
	for (unsigned n = 0; n < STEPS && rejoin->due_ms && rejoin->pass < passes; n++) {
		now_ms = rejoin->due_ms > now_ms ? rejoin->due_ms : now_ms;
		if (!rejoin_turn(rejoin, now_ms))
			continue;
		check_rejoin(rejoin);
		for (uint64_t at = 0; at < rejoin->span.bytes; at += LARGE)
			told[(rejoin->span.at + at) / LARGE]++;
		rejoin_told(rejoin);
		say_done(rejoin);
	}
	return now_ms;
}

static bool is_each(const unsigned told[], unsigned from, unsigned end, unsigned times)
{
	bool good = true;

	for (unsigned n = from; n < end; n++)
		good &= told[n] == times;
	return good;
}

static bool say_ram(struct rejoin *rejoin, uint64_t hva, uint64_t bytes)
{
	const struct record_ram ram = { .hva = hva, .bytes = bytes };

	return rejoin_set_ram(rejoin, &ram, sizeof(ram));
}

static void try_passes(int pagemap)
{
	unsigned told[LARGE_PAGES] = { 0 };
	struct rejoin rejoin;
	uint64_t now_ms;

	for (unsigned n = 0; n < LARGE_PAGES; n++)
		set_large(pagemap, n, OWN);
	set_large(pagemap, 40, COMMON);
	set(pagemap, 41, 511, COMMON);
	set(pagemap, 42, 0, 0);
	set(pagemap, 42, 1, COMMON);
	rejoin_init(&rejoin, pagemap);
	expect("where RAM lies is heard", say_ram(&rejoin, FIRST * LARGE, LARGE_PAGES * LARGE));
	expect("nothing is due before a fork", !rejoin_turn(&rejoin, 1000));
	rejoin_begin(&rejoin, 1000);
	now_ms = run(&rejoin, 1000, 1, told);
	expect("its own are told once",
	       is_each(told, 0, 40, 1) && is_each(told, 43, LARGE_PAGES, 1));
	expect("what is common, or not there, is not", is_each(told, 40, 43, 0));
	set(pagemap, 41, 511, OWN);
	now_ms = run(&rejoin, now_ms, 2, told);
	expect("what became its own is told in the next pass", told[41] == 1 && !told[40]);
	now_ms = run(&rejoin, now_ms, 1000, told);
	expect("after the last pass nothing is due", !rejoin.due_ms && rejoin.pass > 2);
	expect("each was told once", is_each(told, 0, 40, 1) && told[41] == 1);
	set_large(pagemap, 40, OWN);
	set_large(pagemap, 42, OWN);
	rejoin_begin(&rejoin, now_ms);
	now_ms = run(&rejoin, now_ms, 1000, told);
	expect("after another fork all are, in one pass",
	       rejoin.pass == 1 && is_each(told, 0, 40, 2) && told[40] == 1);
	set_large(pagemap, 50, 0);
	rejoin_begin(&rejoin, now_ms);
	run(&rejoin, now_ms, 1000, told);
	expect("what is not there is not waited for", rejoin.pass == 1 && told[50] == 2);
	rejoin_end(&rejoin);
}

/* One that begins with its RAM elsewhere, in the middle of it. */
static void try_another_ram(int pagemap)
{
	struct rejoin rejoin;

	rejoin_init(&rejoin, pagemap);
	say_ram(&rejoin, FIRST * LARGE, LARGE_PAGES * LARGE);
	rejoin_begin(&rejoin, 1);
	while (!rejoin.span.at)
		if (rejoin_turn(&rejoin, rejoin.due_ms)) {
			rejoin_told(&rejoin);
			if (!rejoin.span.at)
				say_done(&rejoin);
		}
	say_ram(&rejoin, FIRST * LARGE, LARGE);
	rejoin_begin(&rejoin, 1);
	rejoin_turn(&rejoin, rejoin.due_ms);
	check_rejoin(&rejoin);
	expect("of a span of other RAM nothing is left", !rejoin.span.at);
	expect("nothing of another length is done", !rejoin_done(&rejoin, &rejoin, 7));
	rejoin_end(&rejoin);
}

static void try_lies(int pagemap)
{
	const uint64_t lies[][2] = { { LARGE + PAGE, LARGE }, { ~0ull - LARGE + 1, LARGE },
				     { FIRST * LARGE, 1ull << 50 }, { 0, 0 },
				     { FIRST * LARGE, PAGE }, { 0, LARGE_PAGES * LARGE } };
	unsigned told[LARGE_PAGES];
	struct rejoin rejoin;
	bool good = true;

	rejoin_init(&rejoin, pagemap);
	for (unsigned n = 0; n < sizeof(lies) / sizeof(lies[0]); n++) {
		memset(told, 0, sizeof(told));
		good &= say_ram(&rejoin, lies[n][0], lies[n][1]);
		rejoin_begin(&rejoin, 1);
		run(&rejoin, 1, 1000, told);
		rejoin_end(&rejoin);
	}
	expect("whatever it says of its RAM is heard", good);
	expect("what has another length is not", !rejoin_set_ram(&rejoin, lies, 7));
	expect("nothing is", rejoin_set_ram(&rejoin, NULL, 0));
	rejoin_init(&rejoin, -1);
	say_ram(&rejoin, FIRST * LARGE, LARGE_PAGES * LARGE);
	rejoin_begin(&rejoin, 1);
	expect("without a file nothing is due", !rejoin.due_ms);
	rejoin_end(&rejoin);
}

int main(void)
{
	const int pagemap = memfd_create("pagemap", MFD_CLOEXEC);

	try_passes(pagemap);
	try_another_ram(pagemap);
	try_lies(pagemap);
	close(pagemap);
	return failures != 0;
}
