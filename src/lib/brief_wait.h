/*
 * Who waits for an answer that comes at once saves the wake-up, 30 us and more, when it looks for
 * it a little while before it sleeps.
 *
 * Only where the last waits were short does it look, and no longer than they may have been; between
 * looks it yields. A yield that takes long says that somebody else wants this processor: then it
 * sleeps at once, for longer each time that happens. So what is idle looks at nothing, and of a
 * busy host a slice of the scheduler's a second is lost at most.
 *
 *   brief_wait_looks()  nothing is there: true: look again; false: sleep
 *   brief_wait_found()  something is there, seen or slept for
 *
 *    - No vector register is used: in an engine's C they hold the guest's state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>

/* Ticks of the TSC, which has one to five in a nanosecond. */
enum {
	BRIEF_WAIT_TICKS = 1500000,     /* such a wait is short */
	BRIEF_WAIT_FAR_TICKS = 3000000, /* and this one of who waits for several others: is_far */
	BRIEF_WAIT_YIELD_TICKS = 300000, /* somebody else has had the processor */
	BRIEF_WAIT_FAR_YIELD_TICKS = 1200000, /* it may have been one of those others */
	BRIEF_WAIT_IN_A_ROW = 4,        /* so many short ones before it looks */
	BRIEF_WAIT_WAKING_TICKS = 60000, /* what a wake-up costs that did not have to be */
	BRIEF_WAIT_LEAST_REST = 50000000,
};
#define BRIEF_WAIT_MOST_REST 3200000000ull

/* Whoever waits has one, zero at first. */
struct brief_wait {
	uint64_t begun, rests_until, rest; /* ticks; begun 0: it does not wait */
	unsigned in_a_row;
	/* it looks now; how often it has found something so since it last rested */
	bool is_looking;
	uint32_t finds;
	/*
	 * Its answers come by way of others, each of whom may have to be woken: as long as they
	 * are, its waits are longer than those that it would have if all looked. It looks no
	 * longer for that. And who has this processor meanwhile is often one of them, at work.
	 */
	bool is_far;
};

static inline bool brief_wait_was_short(const struct brief_wait *wait)
{
	return __builtin_ia32_rdtsc() - wait->begun <=
	       (wait->is_far ? BRIEF_WAIT_FAR_TICKS : BRIEF_WAIT_TICKS);
}

/* By somebody else than who it waits for, as far as can be seen. */
static inline bool brief_wait_is_wanted(const struct brief_wait *wait, uint64_t yield_ticks)
{
	return yield_ticks > (wait->is_far ? BRIEF_WAIT_FAR_YIELD_TICKS : BRIEF_WAIT_YIELD_TICKS);
}

/*
 * The processor is wanted, for which so much was lost: no looks for a while, which is short where
 * looking has saved more than that since the last time.
 */
static inline void brief_wait_rest(struct brief_wait *wait, uint64_t now, uint64_t lost_ticks)
{
	if (now - wait->rests_until > BRIEF_WAIT_MOST_REST ||
	    (uint64_t)wait->finds * BRIEF_WAIT_WAKING_TICKS > lost_ticks)
		wait->rest = 0;
	wait->finds = 0;
	wait->rest = wait->rest ? 2 * wait->rest : BRIEF_WAIT_LEAST_REST;
	if (wait->rest > BRIEF_WAIT_MOST_REST)
		wait->rest = BRIEF_WAIT_MOST_REST;
	wait->rests_until = now + wait->rest;
}

static inline bool brief_wait_looks(struct brief_wait *wait)
{
	const uint64_t now = __builtin_ia32_rdtsc();
	uint64_t after;
	long result;

	if (!wait->begun)
		wait->begun = now;
	wait->is_looking = wait->in_a_row >= BRIEF_WAIT_IN_A_ROW && now >= wait->rests_until &&
			   now - wait->begun <= BRIEF_WAIT_TICKS;
	if (!wait->is_looking)
		return false;
	__asm__ volatile("syscall" : "=a"(result) : "a"(SYS_sched_yield) : "rcx", "r11", "memory");
	after = __builtin_ia32_rdtsc();
	if (brief_wait_is_wanted(wait, after - now))
		brief_wait_rest(wait, after, after - now);
	return true;
}

static inline void brief_wait_found(struct brief_wait *wait)
{
	if (!wait->begun)
		return;
	if (!brief_wait_was_short(wait))
		wait->in_a_row = 0;
	else if (wait->in_a_row < BRIEF_WAIT_IN_A_ROW)
		wait->in_a_row++;
	wait->finds += wait->is_looking;
	wait->is_looking = false;
	wait->begun = 0;
}

/*
 * What it waited for is of no account: a clock's time, or an end. But that it was long is: else who
 * is only ever woken by clocks would look before each sleep.
 */
static inline void brief_wait_forget(struct brief_wait *wait)
{
	wait->is_looking = false;
	if (wait->begun && !brief_wait_was_short(wait))
		wait->in_a_row = 0;
	wait->begun = 0;
}
