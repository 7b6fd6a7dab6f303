/* See balance.h. Times are in microseconds, sizes in bytes. */
#include "balance_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/check.h"
#include "share.h"

#define MIB (1ull << 20)
#define HORIZON_US (SECOND_US / 2) /* how far growth is looked ahead */
#define LEAD_US SECOND_US /* and beyond, where there is enough for all: regions take their time */
#define FORGET_US (8 * SECOND_US) /* in which an estimate falls by most of what it fell short */
#define FORGET_AHEAD_US (2 * SECOND_US) /* the same of what was only looked ahead */
#define TURN_MOST_US SECOND_US /* of a turn that comes late, what counts */

enum {
	BESIDE_MIB = 128, /* what a program writes while its guest gets more: a region */
	MARGIN_MIB = 16,
	MARGIN_SHARE = 16,
	NOW_SHARE = 32,
	FULL_SHARE = 16,
	FULL_STEP_SHARE = 4
};
enum { REGION_MIB = 128 };
enum { RAISE_SHARE = 64, LOWER_SHARE = 16, OVER_SHARE = 32, LEAST_MOVE_MIB = 4, LITTLE_MIB = 4 };
enum { STALLS_PERCENT = 10, BOOST_SHARE = 64, BOOST_MOST_SHARE = 8 };

struct turn {
	struct balance *balance;
	const struct balance_host *host;
	const struct balance_guest *guest;
	uint64_t passed_us;
	unsigned count; /* behind them there is nobody */
	uint64_t all; /* that the guests which can move may have together */
	uint64_t all_calm; /* the same, whether or not the host waits for memory */
	bool is_short, is_tight; /* the host; what all want is more than there is */
};

static uint64_t least_of(uint64_t one, uint64_t other) { return one < other ? one : other; }
static uint64_t most_of(uint64_t one, uint64_t other) { return one > other ? one : other; }
static uint64_t less(uint64_t from, uint64_t what) { return from > what ? from - what : 0; }

static uint64_t scale(uint64_t value, uint64_t times, uint64_t share)
{
	const unsigned __int128 scaled = (unsigned __int128)value * times / share;

	return scaled < SIZE_MOST ? (uint64_t)scaled : SIZE_MOST;
}

static uint64_t between(uint64_t value, uint64_t low, uint64_t high)
{
	return least_of(most_of(value, low), high);
}

struct balance *balance_create(void) { return calloc(1, sizeof(struct balance)); }
void balance_destroy(struct balance *balance) { free(balance); }

const char *balance_reason_text(enum balance_reason reason)
{
	static const char *const texts[BALANCE_REASONS] = {
		[BALANCE_STEADY] = "steady",
		[BALANCE_UNKNOWN] = "not known",
		[BALANCE_NEEDS] = "needs more",
		[BALANCE_GROWS] = "grows",
		[BALANCE_FULL] = "is full",
		[BALANCE_ROOM] = "there is room again",
		[BALANCE_NEEDS_LESS] = "needs less",
		[BALANCE_OTHERS_NEED] = "others need it",
		[BALANCE_HOST_SHORT] = "the host is short",
	};

	assert(reason < BALANCE_REASONS);
	return texts[reason];
}

/* ---- what a guest needs ---- */

static uint64_t size_of(uint64_t bytes) { return least_of(bytes, SIZE_MOST); }
static uint64_t most_for(const struct balance_guest *guest) { return size_of(guest->most); }
static uint64_t least_for(const struct balance_guest *guest)
{
	return least_of(guest->least, most_for(guest));
}
static uint64_t assigned_of(const struct balance_guest *guest) { return size_of(guest->assigned); }
static uint64_t resident_of(const struct balance_guest *guest)
{
	return least_of(guest->resident, assigned_of(guest));
}

/* At once up, slowly down. */
static uint64_t follow(uint64_t held, uint64_t now, uint64_t passed_us, uint64_t forget_us)
{
	if (now >= held)
		return now;
	return held - scale(held - now, least_of(passed_us, forget_us), forget_us);
}

static void take_report(struct known *known, const struct balance_guest *guest)
{
	if (guest->reports == known->reports)
		return;
	known->reports = guest->reports;
	known->used = less(assigned_of(guest), guest->available);
	known->resident_at_report = resident_of(guest);
}

/*
 * Measured over RATE_US: over less, two large pages seem like a flood. A little comes of what the
 * machine process needs for itself.
 */
static void take_rate(struct known *known, const struct balance_guest *guest, uint64_t passed_us)
{
	uint64_t grown;

	known->rate_us += passed_us;
	if (known->rate_us < RATE_US)
		return;
	grown = less(resident_of(guest), known->resident_before + LITTLE_MIB * MIB);
	known->rate = (known->rate + scale(grown, SECOND_US, known->rate_us)) / 2;
	known->resident_before = resident_of(guest);
	known->rate_us = 0;
}

/*
 * While a guest gives memory up, it may come to occupy as much as it still has to give: a kernel
 * may clear pages before it hands them over. What goes beyond is what it needs, also of one that
 * keeps what it shall give.
 */
static void take_grown(struct known *known, const struct balance_guest *guest)
{
	const uint64_t resident = resident_of(guest);
	const uint64_t gives = less(assigned_of(guest), known->target);
	const bool is_giving = gives > LEAST_MOVE_MIB * MIB;

	if (is_giving)
		known->resident_at_report = least_of(known->resident_at_report, resident);
	known->growth = less(resident, known->resident_at_report + 2 * LITTLE_MIB * MIB + gives);
	if (is_giving && !known->growth)
		known->resident_before = resident;
}

static void estimate(struct known *known, const struct balance_guest *guest, uint64_t passed_us)
{
	const uint64_t assigned = assigned_of(guest);
	uint64_t ahead;

	take_report(known, guest);
	take_grown(known, guest);
	take_rate(known, guest, passed_us);
	ahead = scale(known->rate, HORIZON_US, SECOND_US);
	known->fast = least_of(known->used + known->growth + ahead,
			       assigned + assigned / FULL_STEP_SHARE);
	known->is_full = less(assigned, known->used) < assigned / FULL_SHARE &&
			 less(assigned, resident_of(guest)) < assigned / FULL_SHARE;
	if (known->is_full)
		known->fast = most_of(known->fast, assigned + assigned / FULL_STEP_SHARE);
	known->fast = least_of(known->fast, most_for(guest));
	known->proved = follow(known->proved, least_of(known->used + known->growth, known->fast),
			       passed_us, FORGET_US);
	known->ahead = follow(known->ahead, known->fast, passed_us, FORGET_AHEAD_US);
	known->working_set = most_of(known->proved, known->ahead);
	known->demand =
		follow(known->demand,
		       most_of(known->working_set, least_of(guest->committed, most_for(guest))),
		       passed_us, FORGET_US);
}

static void bound(struct known *known, const struct balance_guest *guest)
{
	const uint64_t least = least_for(guest);
	const uint64_t most = most_for(guest);
	const uint64_t uses = least_of(known->used + known->growth, assigned_of(guest));
	const uint64_t buffer = scale(known->demand, guest->buffer_percent, 100);

	known->uses = between(uses, least, most);
	known->now = between(uses + uses / NOW_SHARE + LEAST_MOVE_MIB * MIB, known->uses, most);
	known->low =
		between(known->working_set + known->working_set / MARGIN_SHARE + MARGIN_MIB * MIB,
			known->now, most);
	known->high = between(known->demand + buffer + BESIDE_MIB * MIB +
				      scale(known->rate, LEAD_US, SECOND_US),
			      known->low, most);
}

static bool can_move(const struct balance_guest *guest)
{
	return guest->is_there && guest->can_move && guest->reports;
}

static void meet(struct known *known, const struct balance_guest *guest, uint64_t now_us)
{
	*known = (struct known){ .is_there = true,
				 .hold_us = HOLD_US,
				 .raised_us = now_us,
				 .target = assigned_of(guest),
				 .resident_before = resident_of(guest),
				 .resident_at_report = resident_of(guest),
				 .used = resident_of(guest) };
}

static void look_at(struct turn *turn, unsigned n)
{
	const struct balance_guest *guest = &turn->guest[n];
	struct known *known = &turn->balance->known[n];

	if (!guest->is_there) {
		known->is_there = false;
		return;
	}
	if (!known->is_there)
		meet(known, guest, turn->host->now_us);
	estimate(known, guest, turn->passed_us);
	bound(known, guest);
	if (can_move(guest) && known->reason != BALANCE_UNKNOWN)
		return;
	/* it begins with what it has, once it can */
	known->target = assigned_of(guest);
	known->raised_us = turn->host->now_us;
	known->reason = can_move(guest) ? BALANCE_STEADY : BALANCE_UNKNOWN;
}

/* ---- what there is ---- */

/* While somebody waits for memory, the reserve grows, and slowly goes back when nobody does. */
static void take_stalls(struct turn *turn)
{
	struct balance *balance = turn->balance;
	const uint64_t total = size_of(turn->host->total_bytes);
	const uint64_t waited =
		least_of(less(turn->host->stall_us, balance->stall_us), TURN_MOST_US);
	const uint64_t step = total / BOOST_SHARE * turn->passed_us / SECOND_US;

	balance->stall_us = turn->host->stall_us;
	if (balance->is_begun && waited * 100 > turn->passed_us * STALLS_PERCENT)
		balance->boost = least_of(balance->boost + step * 4, total / BOOST_MOST_SHARE);
	else
		balance->boost = less(balance->boost, step);
}

static void count_all(struct turn *turn)
{
	const uint64_t reserve = size_of(turn->host->reserve_bytes);
	const uint64_t available = size_of(turn->host->available_bytes);
	uint64_t has = available;
	uint64_t wants = 0;

	for (unsigned n = 0; n < turn->count; n++) {
		const struct balance_guest *guest = &turn->guest[n];

		if (!guest->is_there)
			continue;
		if (can_move(guest))
			has += resident_of(guest);
		else /* what it has not taken yet it may take at any time */
			has = less(has, assigned_of(guest) - resident_of(guest));
		if (can_move(guest))
			wants += turn->balance->known[n].high;
	}
	turn->all_calm = less(has, reserve);
	turn->all = less(has, reserve + turn->balance->boost);
	turn->is_short = available < reserve + turn->balance->boost;
	turn->is_tight = wants > turn->all;
}

/* ---- who gets it ---- */

/*
 * The bounds of what each gets, so that everybody may have the lower one: between its working set
 * and its demand; what it gets along with and its working set; what it uses and what it gets along
 * with, so that nobody keeps what he does not use while another lacks what it uses; its least and
 * what it uses. What may be given away in all.
 */
static uint64_t choose_bounds(const struct turn *turn, struct share *share, const unsigned *at,
			      unsigned count)
{
	const struct known *known = turn->balance->known;
	uint64_t low = 0;
	uint64_t now = 0;
	uint64_t uses = 0;

	for (unsigned n = 0; n < count; n++) {
		low += known[at[n]].low;
		now += known[at[n]].now;
		uses += known[at[n]].uses;
	}
	for (unsigned n = 0; n < count; n++) {
		const struct known *one = &known[at[n]];

		if (low <= turn->all)
			share[n] = (struct share){ .low = one->low, .high = one->high };
		else if (now <= turn->all_calm)
			share[n] = (struct share){ .low = one->now, .high = one->low };
		else if (uses <= turn->all_calm)
			share[n] = (struct share){ .low = one->uses, .high = one->now };
		else
			share[n] = (struct share){ .low = least_for(&turn->guest[at[n]]),
						   .high = one->uses };
	}
	return now > turn->all ? turn->all_calm : turn->all;
}

/*
 * Who gets more gets whole regions, as guests add memory: what it would not use of one would go
 * back at once.
 */
static uint64_t whole_regions(const struct known *known, const struct balance_guest *guest)
{
	const uint64_t region = REGION_MIB * MIB;

	if (known->ideal <= known->target)
		return known->ideal;
	return least_of((known->ideal + region - 1) / region * region, most_for(guest));
}

/* Where there is enough for all of them; else each gets what it was found to. */
static void round_up(struct turn *turn, const unsigned *at, unsigned count, uint64_t all)
{
	struct known *known = turn->balance->known;
	uint64_t whole = 0;

	for (unsigned n = 0; n < count; n++)
		whole += whole_regions(&known[at[n]], &turn->guest[at[n]]);
	for (unsigned n = 0; n < count && whole <= all; n++)
		known[at[n]].ideal = whole_regions(&known[at[n]], &turn->guest[at[n]]);
}

static void divide(struct turn *turn)
{
	struct share share[BALANCE_GUESTS];
	unsigned at[BALANCE_GUESTS];
	unsigned count = 0;
	uint64_t all;

	for (unsigned n = 0; n < turn->count; n++)
		if (can_move(&turn->guest[n]))
			at[count++] = n;
	all = choose_bounds(turn, share, at, count);
	for (unsigned n = 0; n < count; n++)
		share[n].weight = most_of(turn->guest[at[n]].weight, 1);
	share_out(share, count, all);
	for (unsigned n = 0; n < count; n++)
		turn->balance->known[at[n]].ideal = share[n].ret;
	round_up(turn, at, count, all);
}

static enum balance_reason why_more(const struct known *known)
{
	if (known->is_full)
		return BALANCE_FULL;
	if (known->target >= known->high || known->fast > known->used + known->used / RAISE_SHARE)
		return BALANCE_GROWS;
	return known->target < known->low || known->ideal == known->high ? BALANCE_NEEDS
									 : BALANCE_ROOM;
}

/* At most *room. */
static void raise_target(struct known *known, uint64_t now_us, uint64_t *room)
{
	const uint64_t by = least_of(known->ideal - known->target, *room);

	assert(known->ideal > known->target);
	if (by < most_of(known->target / RAISE_SHARE, LEAST_MOVE_MIB * MIB) &&
	    (known->target >= known->now || !by))
		return;
	if (known->lowered_us && now_us - known->lowered_us < 2 * known->hold_us)
		known->hold_us = least_of(2 * known->hold_us, HOLD_MOST_US); /* it was too early */
	known->reason = why_more(known);
	known->target += by;
	known->raised_us = now_us;
	known->lowered_us = 0;
	*room -= by;
}

/* must: others need it. has_enough: who keeps a little of it takes nothing from them. */
static void lower_target(struct known *known, const struct turn *turn, bool must, bool has_enough)
{
	const uint64_t now_us = turn->host->now_us;
	/* less would go to and fro for nothing */
	const uint64_t little = known->target / (has_enough ? LOWER_SHARE : RAISE_SHARE);

	if (known->target - known->ideal < most_of(little, LEAST_MOVE_MIB * MIB))
		return;
	if (!must && now_us - known->raised_us < known->hold_us)
		return;
	if (!must && now_us - known->raised_us > 2 * known->hold_us)
		known->hold_us = most_of(known->hold_us / 2, HOLD_US);
	known->reason = BALANCE_NEEDS_LESS;
	if (known->ideal < known->high && must)
		known->reason = turn->is_short ? BALANCE_HOST_SHORT : BALANCE_OTHERS_NEED;
	known->target = known->ideal;
	known->lowered_us = now_us;
}

/* What others may take already is not there to be given away; who lacks what it uses gets it. */
static uint64_t promised_beyond_resident(const struct turn *turn)
{
	uint64_t promised = 0;

	for (unsigned n = 0; n < turn->count; n++) {
		const struct known *known = &turn->balance->known[n];

		if (can_move(&turn->guest[n]))
			promised += less(least_of(known->target, known->low),
					 resident_of(&turn->guest[n]));
	}
	return promised;
}

/* Who gets more first. */
enum rank { LACKS, WILL_LACK, OTHERS };

static enum rank rank_of(const struct known *known)
{
	if (known->target < known->now)
		return LACKS;
	return known->target < known->fast ? WILL_LACK : OTHERS;
}

/* Of `room`, those of a rank. What is left. */
static uint64_t raise_all(struct turn *turn, enum rank rank, uint64_t room)
{
	for (unsigned n = 0; n < turn->count; n++) {
		struct known *known = &turn->balance->known[n];

		if (can_move(&turn->guest[n]) && known->ideal > known->target &&
		    rank_of(known) == rank)
			raise_target(known, turn->host->now_us, &room);
	}
	return room;
}

static void raise_some(struct turn *turn)
{
	uint64_t room =
		less(size_of(turn->host->available_bytes), size_of(turn->host->reserve_bytes));

	room = raise_all(turn, LACKS, room);
	room = raise_all(turn, WILL_LACK, room);
	raise_all(turn, OTHERS, less(room, promised_beyond_resident(turn)));
}

static uint64_t promised_to_all(const struct turn *turn)
{
	uint64_t promised = 0;

	for (unsigned n = 0; n < turn->count; n++)
		if (can_move(&turn->guest[n]))
			promised += turn->balance->known[n].target;
	return promised;
}

/* As long as more is promised than there is by more than a little, nobody keeps a little. */
static void lower_some(struct turn *turn)
{
	uint64_t promised = promised_to_all(turn);
	const uint64_t most = turn->all + turn->all / OVER_SHARE;
	const bool must = turn->is_short || turn->is_tight || promised > turn->all;

	for (unsigned n = 0; n < turn->count; n++) {
		struct known *known = &turn->balance->known[n];
		const uint64_t had = known->target;

		if (!can_move(&turn->guest[n]) || known->ideal >= had)
			continue;
		lower_target(known, turn, must, !turn->is_short && promised <= most);
		promised -= had - known->target;
	}
}

static void check_known(const struct known *known)
{
	assert(known->uses <= known->now && known->now <= known->low && known->low <= known->high);
	assert(known->high <= SIZE_MOST && known->target <= SIZE_MOST);
	assert(known->fast <= known->working_set && known->working_set <= known->demand);
	assert(known->hold_us >= HOLD_US && known->hold_us <= HOLD_MOST_US);
	assert(known->reason < BALANCE_REASONS);
	assert(known->rate_us < RATE_US);
}

void check_balance(const struct balance *balance)
{
	assert(balance->boost <= SIZE_MOST);
	for (unsigned n = 0; n < BALANCE_GUESTS; n++)
		if (balance->known[n].is_there)
			check_known(&balance->known[n]);
}

/* Also those that were there: they have to be forgotten. */
static unsigned count_guests(const struct balance *balance, const struct balance_guest *guest)
{
	unsigned count = BALANCE_GUESTS;

	while (count && !guest[count - 1].is_there && !balance->known[count - 1].is_there)
		count--;
	return count;
}

static void judge(const struct known *known, const struct balance_guest *guest,
		  struct balance_verdict *ret)
{
	const uint64_t assigned = assigned_of(guest);

	*ret = (struct balance_verdict){ .reason = BALANCE_UNKNOWN };
	if (!known->is_there)
		return;
	ret->reason = known->reason;
	ret->target = known->target;
	ret->demand = known->demand;
	ret->working_set = known->working_set;
	ret->moves = known->target != known->target_before;
	if (assigned)
		ret->pressure_percent =
			(unsigned)(least_of(known->demand, assigned * 10) * 100 / assigned);
}

void balance_turn(struct balance *balance, const struct balance_host *host,
		  const struct balance_guest *guest, struct balance_verdict *ret)
{
	struct turn turn = { .balance = balance, .host = host, .guest = guest };

	turn.count = count_guests(balance, guest);
	if (balance->is_begun)
		turn.passed_us = least_of(less(host->now_us, balance->before_us), TURN_MOST_US);
	for (unsigned n = 0; n < turn.count; n++) {
		look_at(&turn, n);
		balance->known[n].target_before = balance->known[n].target;
	}
	take_stalls(&turn);
	balance->is_begun = true;
	balance->before_us = host->now_us;
	count_all(&turn);
	divide(&turn);
	raise_some(&turn);
	lower_some(&turn);
	for (unsigned n = 0; n < turn.count; n++)
		judge(&balance->known[n], &guest[n], &ret[n]);
	CHECK(check_balance(balance));
}
