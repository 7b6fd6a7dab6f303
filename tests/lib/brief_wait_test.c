/* Who waits looks only after some short waits, and for no longer than one of those. */
#include <stdio.h>
#include <stdlib.h>

#include "lib/brief_wait.h"

enum { LOST_TICKS = 6 * BRIEF_WAIT_WAKING_TICKS };

static int failures;

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

/* A wait that is found to have begun so long ago. */
static void wait_for(struct brief_wait *wait, uint64_t ticks)
{
	brief_wait_looks(wait);
	wait->begun = __builtin_ia32_rdtsc() - ticks;
	brief_wait_found(wait);
}

static struct brief_wait after_short_ones(unsigned count)
{
	struct brief_wait wait = { 0 };

	while (count--)
		wait_for(&wait, 0);
	return wait;
}

static void test_begin(void)
{
	struct brief_wait wait = after_short_ones(BRIEF_WAIT_IN_A_ROW - 1);
	const bool sleeps = !brief_wait_looks(&wait);
	bool looks;

	brief_wait_found(&wait); /* before anything is printed, which may take long */
	looks = brief_wait_looks(&wait);
	expect("it sleeps at once before there were some short waits", sleeps);
	expect("then it looks", looks);
	brief_wait_forget(&wait);
	wait_for(&wait, BRIEF_WAIT_TICKS + 1);
	expect("and not after a long one", !brief_wait_looks(&wait));
}

/* What a clock ended so long after its begin. */
static unsigned left_in_a_row(uint64_t ticks)
{
	struct brief_wait wait = { .in_a_row = BRIEF_WAIT_IN_A_ROW };

	wait.begun = __builtin_ia32_rdtsc() - ticks;
	brief_wait_forget(&wait);
	return wait.in_a_row;
}

static void test_clock(void)
{
	bool is_kept = false;

	/* a busy host may make a long one of it */
	for (unsigned n = 0; n < 1000 && !is_kept; n++)
		is_kept = left_in_a_row(0) == BRIEF_WAIT_IN_A_ROW;
	expect("a short wait that a clock ended is of no account", is_kept);
	expect("a long one ends the looks", !left_in_a_row(BRIEF_WAIT_TICKS + 1));
}

static void test_end(void)
{
	struct brief_wait wait = after_short_ones(BRIEF_WAIT_IN_A_ROW);

	brief_wait_looks(&wait);
	wait.begun -= BRIEF_WAIT_TICKS;
	expect("it sleeps when the wait is no short one any more", !brief_wait_looks(&wait));
}

static void test_far(void)
{
	struct brief_wait wait = after_short_ones(BRIEF_WAIT_IN_A_ROW);
	bool looks;

	expect("a processor is wanted when a yield takes as long",
	       brief_wait_is_wanted(&wait, BRIEF_WAIT_YIELD_TICKS + 1));
	wait.is_far = true;
	expect("and not where those others may have had it",
	       !brief_wait_is_wanted(&wait, BRIEF_WAIT_YIELD_TICKS + 1));
	wait_for(&wait, BRIEF_WAIT_TICKS + 1);
	wait.rests_until = 0; /* of a busy host's yield */
	looks = brief_wait_looks(&wait);
	wait.rests_until = 0;
	expect("who waits for several others looks after a longer one, too", looks);
	wait.begun -= BRIEF_WAIT_TICKS;
	expect("for no longer than others", !brief_wait_looks(&wait));
	brief_wait_forget(&wait);
	wait_for(&wait, BRIEF_WAIT_FAR_TICKS + 1);
	wait.rests_until = 0;
	expect("and not after one that is long for it", !brief_wait_looks(&wait));
}

static void test_rest(void)
{
	const uint64_t now = __builtin_ia32_rdtsc();
	struct brief_wait wait = after_short_ones(BRIEF_WAIT_IN_A_ROW);
	uint64_t before;

	brief_wait_rest(&wait, now, LOST_TICKS);
	expect("it rests when somebody else wants the processor",
	       wait.rest == BRIEF_WAIT_LEAST_REST && !brief_wait_looks(&wait));
	do {
		before = wait.rest;
		brief_wait_rest(&wait, wait.rests_until, LOST_TICKS);
	} while (wait.rest == 2 * before);
	expect("for longer each time, up to a limit", wait.rest == BRIEF_WAIT_MOST_REST);
	brief_wait_rest(&wait, wait.rests_until + BRIEF_WAIT_MOST_REST + 1, LOST_TICKS);
	expect("which is forgotten after a while", wait.rest == BRIEF_WAIT_LEAST_REST);
}

/* Looks that found something so often, and then a processor that was wanted a third time. */
static uint64_t rest_after(unsigned finds)
{
	struct brief_wait wait = { .in_a_row = BRIEF_WAIT_IN_A_ROW };

	brief_wait_rest(&wait, __builtin_ia32_rdtsc(), LOST_TICKS);
	brief_wait_rest(&wait, wait.rests_until, LOST_TICKS);
	while (wait.finds < finds) {
		wait.rests_until = 0; /* of a busy host's yield, too */
		wait.in_a_row = BRIEF_WAIT_IN_A_ROW;
		wait_for(&wait, 0);
	}
	wait.rest = 2 * BRIEF_WAIT_LEAST_REST;
	brief_wait_rest(&wait, wait.rests_until, LOST_TICKS);
	return wait.rest;
}

static void test_worth(void)
{
	const unsigned worth = LOST_TICKS / BRIEF_WAIT_WAKING_TICKS;

	expect("it rests no longer than at first where looking has saved more than was lost",
	       rest_after(worth + 1) == BRIEF_WAIT_LEAST_REST);
	expect("and longer where it has saved less",
	       rest_after(worth - 1) == 4 * BRIEF_WAIT_LEAST_REST);
	expect("what was slept for saves nothing", !after_short_ones(BRIEF_WAIT_IN_A_ROW).finds);
}

int main(void)
{
	test_begin();
	test_clock();
	test_end();
	test_far();
	test_rest();
	test_worth();
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
