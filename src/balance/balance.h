/*
 * Who of a user's machines gets how much of the host's memory: pure code, without a clock, a file
 * or a lock of its own. Who owns it tells it what is known, some times a second, and does what it
 * says; a simulation does that as well (tests/balance).
 *
 *   host: available, reserve, stalls ----.
 *   guest's report: available, committed --> working set, demand --> shares --> target, reason
 *   seen from outside: resident ---------'
 *
 * Of each guest it estimates
 *
 *   working set  what it uses now: assigned less available at its last report, and by how much it
 *                has come to occupy more of the host since (a report is up to a second old), and
 *                will in the next half second
 *   demand       the larger of that and what its kernel has promised to programs
 *
 * Both follow at once what grows, and slowly what shrinks. All may have together what they occupy
 * and what the host has beyond its reserve. If that suffices, each gets its demand and its buffer;
 * else each its working set, and of the rest by weight; if not even that, what it uses just now;
 * and if there is not enough for that, its least. Who has less than it uses gets it first, then who
 * will soon have, then the others, of what nobody has been promised. Who gets more gets whole
 * regions of memory, as long as there is enough for all.
 *
 *  1. Every target is between the guest's least and most.
 *  2. While the host has more than its reserve, no target is below the guest's working set as far
 *     as it is known, for longer than the room takes to be given away.
 *  3. What was raised is not lowered again for `hold`, which doubles each time that this turns out
 *     to have been wrong; unless the host is short, or others need it. Little is not moved at all.
 *  4. Targets together grow, in one turn, by no more than what the host has beyond its reserve.
 *  5. They are no more than a thirty-second beyond what all may have, but for what is too little to
 *     be moved: what the host's other work takes is taken from them in the same turn.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { BALANCE_GUESTS = 256 };
/*
 * How often it is told: while something moves, and otherwise. A program that begins to write 2 GiB
 * a second must not have used what its guest has beside, before it is seen.
 */
enum { BALANCE_BUSY_MS = 50, BALANCE_IDLE_MS = 100 };

enum balance_reason {
	BALANCE_STEADY,
	BALANCE_UNKNOWN, /* it has not said how it is, or does not answer: it is left alone */
	BALANCE_NEEDS, /* by its own report it needs more */
	BALANCE_GROWS, /* it occupies more and more, before it has reported */
	BALANCE_FULL, /* it has nothing left of what it has */
	BALANCE_ROOM, /* what others held back before is there again */
	BALANCE_NEEDS_LESS,
	BALANCE_OTHERS_NEED, /* the host is not short, but what it has left others get */
	BALANCE_HOST_SHORT, /* the host has less than its reserve, or waits for memory */
	BALANCE_REASONS
};

struct balance_host {
	uint64_t now_us; /* of a clock that never goes back */
	uint64_t total_bytes, available_bytes, reserve_bytes;
	uint64_t stall_us; /* how long somebody has waited for memory, since whenever */
};

/* One guest, as it is known just now. Bytes. */
struct balance_guest {
	bool is_there; /* false: what was known of it is forgotten */
	bool can_move; /* its driver answers, and nobody has set what it shall have */
	uint64_t least, most;
	unsigned weight, buffer_percent;
	uint64_t reports; /* another number: available and committed are new; 0: none came */
	uint64_t assigned, available;
	uint64_t committed; /* without its balloon */
	uint64_t resident; /* of the host's memory */
};

struct balance_verdict {
	uint64_t target, demand, working_set;
	unsigned pressure_percent; /* of what it has, what it needs */
	bool moves; /* the target is another one than at the last turn */
	enum balance_reason reason; /* of the last move */
};

struct balance;

/* NULL: no memory. */
struct balance *balance_create(void);
void balance_destroy(struct balance *balance);
/*
 * guest, ret: BALANCE_GUESTS of each, a guest at the same place each time; ret is written up to the
 * last one that is there. Numbers may be anything; what is absurd is bounded.
 */
void balance_turn(struct balance *balance, const struct balance_host *host,
		  const struct balance_guest *guest, struct balance_verdict *ret);
/* "needs more", for people. */
const char *balance_reason_text(enum balance_reason reason);
