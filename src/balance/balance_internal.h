/*
 * What the controller knows of each guest, behind balance.h: for balance.c and for the test that
 * breaks it. Of a guest that is there, after each turn:
 *
 *  1. What it uses is no more than what it gets along with, that no more than its lower bound, and
 *     that no more than its upper one.
 *  2. What it seems to use now is no more than its working set, and that no more than its demand.
 *  3. Nothing is larger than SIZE_MOST, so that sums over all guests do not overflow.
 *  4. `hold` is between HOLD_US and HOLD_MOST_US.
 */
#pragma once

#include "balance.h"

#define SECOND_US 1000000ull
#define RATE_US (SECOND_US / 10) /* over which growth is measured */
#define HOLD_US (10 * SECOND_US)
#define HOLD_MOST_US (160 * SECOND_US)
#define SIZE_MOST (1ull << 50) /* nothing real is larger: sums of guests do not overflow */

struct known {
	bool is_there;
	uint64_t reports, used, resident_at_report, resident_before;
	uint64_t growth; /* since its last report */
	uint64_t rate, rate_us; /* bytes a second, that it comes to occupy more; since when */
	uint64_t fast; /* its working set, as it seems now */
	bool is_full; /* it had nothing left at its last report, and has used the rest */
	uint64_t proved, ahead; /* of its working set: what it has used; and what it may come to */
	uint64_t working_set, demand;
	uint64_t uses; /* just now, between its least and most */
	uint64_t now, low, high; /* to get along with, just now; for some seconds; and a buffer */
	uint64_t ideal, target, target_before;
	uint64_t raised_us, lowered_us, hold_us;
	enum balance_reason reason;
};

struct balance {
	struct known known[BALANCE_GUESTS];
	uint64_t before_us, stall_us, boost; /* of the reserve, while the host waits for memory */
	bool is_begun;
};

void check_balance(const struct balance *balance);
