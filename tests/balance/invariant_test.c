/* The invariants of the controller of memory, each broken: check_balance() sees it. */
#include <stdlib.h>

#include "../lib/caught.h"
#include "balance/balance_internal.h"

enum { THERE = 3 };

static struct known *known_in(void *balance)
{
	return &((struct balance *)balance)->known[THERE];
}

static void check_balance_of(void *balance) { check_balance(balance); }
static void bounds_the_wrong_way(void *balance) { known_in(balance)->low = 9; }
static void uses_more_than_it_gets_along_with(void *balance) { known_in(balance)->uses = 2; }
static void more_in_use_than_its_bound(void *balance) { known_in(balance)->now = 3; }
static void more_than_there_can_be(void *balance) { known_in(balance)->high = SIZE_MOST + 1; }
static void target_of_all_bits(void *balance) { known_in(balance)->target = ~0ull; }
static void less_than_it_uses(void *balance) { known_in(balance)->fast = 8; }
static void less_than_its_working_set(void *balance) { known_in(balance)->demand = 0; }
static void holds_for_nothing(void *balance) { known_in(balance)->hold_us = 0; }
static void holds_for_ever(void *balance) { known_in(balance)->hold_us = HOLD_MOST_US + 1; }
static void no_reason(void *balance) { known_in(balance)->reason = BALANCE_REASONS; }
static void measured_for_too_long(void *balance) { known_in(balance)->rate_us = RATE_US; }
static void boost_without_end(void *balance)
{
	((struct balance *)balance)->boost = SIZE_MOST + 1;
}

static const struct spoiling of_balance[] = {
	{ "bounds the wrong way round", bounds_the_wrong_way },
	{ "uses more than it gets along with", uses_more_than_it_gets_along_with },
	{ "more in use than the lower bound", more_in_use_than_its_bound },
	{ "more than there can be", more_than_there_can_be },
	{ "a target of all bits", target_of_all_bits },
	{ "a working set below what is used", less_than_it_uses },
	{ "a demand below the working set", less_than_its_working_set },
	{ "what holds for nothing", holds_for_nothing },
	{ "what holds for ever", holds_for_ever },
	{ "no reason that there is", no_reason },
	{ "growth that is measured for too long", measured_for_too_long },
	{ "a reserve without end", boost_without_end },
};

int main(void)
{
	struct balance *balance = balance_create();
	unsigned missed;

	balance->known[THERE] = (struct known){ .is_there = true, .now = 1, .low = 2, .high = 3,
						.target = 2, .fast = 1, .working_set = 1,
						.demand = 2, .hold_us = HOLD_US };
	missed = CAUGHT_MISSED("balance", check_balance_of, balance, of_balance);
	balance_destroy(balance);
	return missed != 0;
}
