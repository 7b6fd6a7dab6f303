/*
 * A list of system calls as the kernel takes it: rules become a program for seccomp(2), of x86-64
 * alone. It is made in microseconds, since every process of a machine has one before its guest's
 * first instruction.
 *
 *   the architecture, no numbers of x32
 *   calls whose number alone says what happens: one comparison for each, one end for all of a kind
 *   of each other call of the rules, in the order of their first:
 *     another number: on to the next call
 *     its rules, one after the other: the first whose tests all hold says what happens; tests that
 *       neighbours begin with are made once, as is what values of one argument have in common
 *     none: `otherwise`
 *   no such call: `otherwise`
 *
 *   - Whatever is not said by a rule is `otherwise`; another architecture ends the process.
 *   - An argument is compared with all its 64 bits.
 *   - Of two rules for one call that both hold the first counts.
 *
 * It is short, since the kernel checks and compiles each instruction again for each process: some
 * 0.3 us of what every machine waits for.
 *
 * Left out: numbers of calls are not sorted (the kernel remembers which calls are let through
 * whatever their arguments are, and executes nothing for them).
 */
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>

enum { FILTER_TESTS = 5 };

enum filter_compare {
	FILTER_EQUAL,
	FILTER_DIFFERENT,
	FILTER_MASKED, /* what it has of `mask` is `value` */
	FILTER_GREATER, /* than value, as numbers without a sign */
	FILTER_AT_MOST,
};

struct filter_test {
	unsigned argument; /* 0 to 5 */
	enum filter_compare compare;
	uint64_t value, mask;
};

struct filter_rule {
	uint32_t action; /* SECCOMP_RET_... */
	uint32_t call;
	unsigned tests;
	struct filter_test test[FILTER_TESTS];
};

struct call_filter;

/* otherwise: SECCOMP_RET_... NULL: no memory. */
struct call_filter *call_filter_new(uint32_t otherwise);
void call_filter_free(struct call_filter *filter);
/* A rule more, of so many tests (at most FILTER_TESTS), all of which have to hold. 0 or -errno. */
int call_filter_add(struct call_filter *filter, uint32_t action, uint32_t call, unsigned count,
		    const struct filter_test *tests);
/* The rule with that number; NULL: there are no more. */
const struct filter_rule *call_filter_rule(const struct call_filter *filter, unsigned number);
/*
 * The program, in memory of its own that cannot be written (it is never given back). 0, -ENOMEM, or
 * -E2BIG: more than the kernel takes.
 */
int call_filter_compile(const struct call_filter *filter, struct sock_fprog *ret);
/*
 * For all threads of the process, which has no new privileges (PR_SET_NO_NEW_PRIVS). 0 or -errno.
 */
int call_filter_load(const struct sock_fprog *program);
