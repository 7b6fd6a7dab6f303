/*
 * Checks of the numbered invariants at the top of files: each has a check_*() function, which
 * asserts it over a whole object.
 *
 * Builds with -DUMBRA_CHECKS (sanitizers, fuzzing, tests) run them at the borders of their object;
 * in others the call is compiled, so that it cannot rot, and left out. A check may take time in the
 * order of what it looks at, and never changes anything.
 */
#pragma once

#include <assert.h>

#ifdef UMBRA_CHECKS
enum { CHECKS_RUN = 1 };
#else
enum { CHECKS_RUN = 0 };
#endif

#define CHECK(call) \
	do { \
		if (CHECKS_RUN) \
			call; \
	} while (0)
