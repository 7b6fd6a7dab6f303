/*
 * Who waits for somebody else's step in a loop gives way to who may have no processor now.
 *
 * Where nobody else wants this processor the other one has it at once by a yield, in a microsecond
 * or less. Where somebody does, a yield hands over a whole slice of the scheduler's, milliseconds,
 * and Linux (from 6.18 on) takes as much off the one that yields: two that wait for each other take
 * turns some fifty times a second. Who sleeps for a moment instead keeps what is his, and has a
 * processor soon after it: about six hundred turns a second. So: yields, until one takes as long as
 * a slice; then some moments of sleep before the next yield tries again.
 *
 *    - No vector register is used: in an engine's C they hold the guest's state.
 */
#pragma once

#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

enum { GIVE_WAY_SLEEP_NS = 50000, GIVE_WAY_SLEEPS = 64, GIVE_WAY_SLICE_TICKS = 1000000 };

/* Whoever waits has one; zero at first. */
struct give_way { uint32_t sleeps; /* that are left before it yields again */ };

static inline void give_way(struct give_way *way)
{
	struct timespec moment = { .tv_nsec = GIVE_WAY_SLEEP_NS };
	uint64_t begin;
	long result;

	if (way->sleeps) {
		register long r10 __asm__("r10") = 0;

		way->sleeps--;
		__asm__ volatile("syscall"
				 : "=a"(result)
				 : "a"(SYS_clock_nanosleep), "D"(CLOCK_MONOTONIC), "S"(0),
				   "d"(&moment), "r"(r10)
				 : "rcx", "r11", "memory");
		return;
	}
	begin = __builtin_ia32_rdtsc();
	__asm__ volatile("syscall" : "=a"(result) : "a"(SYS_sched_yield) : "rcx", "r11", "memory");
	if (__builtin_ia32_rdtsc() - begin > GIVE_WAY_SLICE_TICKS)
		way->sleeps = GIVE_WAY_SLEEPS;
}
