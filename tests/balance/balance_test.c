/*
 * The controller over random fleets: guests that use, promise and cache memory by patterns, report
 * once a second, and follow targets at the speed of a balloon; a host with other work. What
 * balance.h promises is checked at every step, of
 *
 *   sizes       a target between least and most
 *   the host    not driven out of memory while what all use fits
 *   promises    together not much more than there is, where everybody's least is less
 *   need        nobody stays with less than it uses while the host has more than its reserve
 *   rest        a guest whose use does not change is left alone
 *
 *     balance_test [FLEETS [SEED]]
 *
 * Prints what is wrong, with the fleet's seed, and how much was simulated.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "balance/balance.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

enum {
	STEP_MS = 50,
	SECONDS = 60,
	STEPS = SECONDS * 1000 / STEP_MS,
	GUESTS_MOST = 12,
	STEPS_PER_SECOND = 1000 / STEP_MS,
	/* a report is up to a second old, and a balloon or a region takes its time */
	LATE_STEPS = 3 * STEPS_PER_SECOND,
	SETTLED_STEPS = 25 * STEPS_PER_SECOND,
	CHANGES_MOST = 2,
	GROWTH_SHARE = 64,
	OVER_SHARE = 32,
	LITTLE_MIB = 4,
	ABSURD_STEPS = 200
};
static const uint64_t balloon_step_bytes = GIB * STEP_MS / 1000;

enum pattern { CONSTANT, STAIRS, RAMP, BURSTS, SAWTOOTH, PATTERNS };

struct simulated {
	enum pattern pattern;
	uint64_t low, high; /* of what it uses */
	unsigned period, phase; /* steps */
	bool fills_cache, promises;
	uint64_t uses, cache, assigned, resident, balloon_floor;
	uint64_t said; /* that it uses, at its last report */
	uint64_t had; /* when it was last seen to have enough, or to get more */
	unsigned starved;
	int direction; /* of the last move */
	unsigned changes;
};

struct fleet {
	uint64_t seed, random;
	unsigned guests;
	bool is_calm; /* the host's other work does not change */
	struct simulated guest[GUESTS_MOST];
	uint64_t total, reserve, other, stall_us;
	unsigned other_period;
	struct balance *balance;
	struct balance_guest known[BALANCE_GUESTS];
	struct balance_verdict verdict[BALANCE_GUESTS];
	/* for how long the host has had more than its reserve, and what all use has fitted */
	unsigned enough_steps, fit_steps;
};

static unsigned bad;
static uint64_t simulated_steps, moves;

static void wrong(const struct fleet *fleet, unsigned step, unsigned guest, const char *what)
{
	if (bad++ < 20)
		printf("fleet %lu, step %u, guest %u: %s\n", fleet->seed, step, guest, what);
}

static uint64_t draw(struct fleet *fleet, uint64_t below)
{
	fleet->random ^= fleet->random << 13;
	fleet->random ^= fleet->random >> 7;
	fleet->random ^= fleet->random << 17;
	return fleet->random % below;
}

static uint64_t draw_any(struct fleet *fleet)
{
	const uint64_t number = draw(fleet, UINT64_MAX);

	return number >> draw(fleet, 64);
}

/* ---- what happens in guests ---- */

static uint64_t used_at(const struct simulated *guest, unsigned step)
{
	const unsigned at = (step + guest->phase) % guest->period;
	const uint64_t span = guest->high - guest->low;

	switch (guest->pattern) {
	case STAIRS: return at < guest->period / 2 ? guest->low : guest->high;
	case RAMP:
		return guest->low + span * (at < guest->period / 2 ? at : guest->period - at) * 2 /
					    guest->period;
	case BURSTS: return at < guest->period / 8 ? guest->high : guest->low;
	case SAWTOOTH: return guest->low + span * at / guest->period;
	default: return guest->low;
	}
}

/* It takes what it needs as far as it has it, its cache what is left. */
static void live(struct simulated *guest, unsigned step)
{
	uint64_t wants = used_at(guest, step);

	if (wants > guest->uses + balloon_step_bytes) /* as fast as a program writes memory */
		wants = guest->uses + balloon_step_bytes;
	guest->uses = wants < guest->assigned ? wants : guest->assigned;
	if (guest->fills_cache)
		guest->cache += 8 * MIB;
	if (guest->cache > guest->assigned - guest->uses)
		guest->cache = guest->assigned - guest->uses;
	if (guest->resident < guest->uses + guest->cache)
		guest->resident = guest->uses + guest->cache;
	if (guest->resident > guest->assigned)
		guest->resident = guest->assigned;
}

/* By its balloon, which leaves it what it uses; more comes as fast as less. */
static void obey(struct simulated *guest, uint64_t target)
{
	const uint64_t floor = guest->uses + guest->balloon_floor;

	if (target > guest->assigned) {
		const uint64_t by = target - guest->assigned;

		guest->assigned += by < balloon_step_bytes ? by : balloon_step_bytes;
	} else if (guest->assigned > floor) {
		uint64_t by = guest->assigned - target;

		by = by < balloon_step_bytes ? by : balloon_step_bytes;
		guest->assigned -= by < guest->assigned - floor ? by : guest->assigned - floor;
	}
	if (guest->resident > guest->assigned)
		guest->resident = guest->assigned;
}

static void report(struct balance_guest *known, struct simulated *guest)
{
	guest->said = guest->uses;
	known->reports++;
	known->available = guest->assigned - guest->uses;
	known->committed = guest->promises ? guest->high : guest->uses;
}

/* ---- fleets ---- */

static void make_guest(struct fleet *fleet, unsigned n)
{
	struct simulated *guest = &fleet->guest[n];
	struct balance_guest *known = &fleet->known[n];
	const uint64_t most = (8 + draw(fleet, 24)) * 128 * MIB;

	guest->pattern = (enum pattern)draw(fleet, PATTERNS);
	guest->low = 64 * MIB + draw(fleet, most / 4);
	guest->high = guest->low + draw(fleet, most * 3 / 4 - guest->low);
	guest->period = (unsigned)(2 + draw(fleet, 30)) * STEPS_PER_SECOND;
	guest->phase = (unsigned)draw(fleet, guest->period);
	guest->fills_cache = draw(fleet, 2);
	guest->promises = draw(fleet, 4) == 0;
	guest->balloon_floor = 32 * MIB;
	guest->assigned = guest->low + 128 * MIB;
	*known = (struct balance_guest){
		.is_there = true,
		.can_move = true,
		.least = 64 * MIB,
		.most = most,
		.weight = (unsigned)(1 + draw(fleet, 10000)),
		.buffer_percent = 20,
	};
}

static void make_fleet(struct fleet *fleet, uint64_t seed)
{
	uint64_t sum = 0;

	*fleet = (struct fleet){ .seed = seed, .random = seed * 0x9e3779b97f4a7c15ull + 1 };
	fleet->guests = (unsigned)(1 + draw(fleet, GUESTS_MOST));
	for (unsigned n = 0; n < fleet->guests; n++) {
		make_guest(fleet, n);
		sum += fleet->guest[n].high;
	}
	fleet->is_calm = draw(fleet, 2);
	fleet->other = draw(fleet, 2 * GIB);
	fleet->other_period = (unsigned)(5 + draw(fleet, 30)) * STEPS_PER_SECOND;
	/* from one that is short at peaks to one with plenty */
	fleet->total = 2 * GIB + 2 * fleet->other + sum / 2 + draw(fleet, sum);
	fleet->reserve = fleet->total / 20;
	fleet->balance = balance_create();
}

/* It grows to twice as much, and back, as fast as a program writes memory. */
static uint64_t other_at(const struct fleet *fleet, unsigned step)
{
	const unsigned at = step % fleet->other_period;
	const uint64_t grown =
		(at < fleet->other_period / 2 ? at : fleet->other_period - at) * balloon_step_bytes;

	if (fleet->is_calm)
		return fleet->other;
	return fleet->other + (grown < fleet->other ? grown : fleet->other);
}

static uint64_t available_at(const struct fleet *fleet, unsigned step)
{
	uint64_t taken = other_at(fleet, step);

	for (unsigned n = 0; n < fleet->guests; n++)
		taken += fleet->guest[n].resident;
	return fleet->total > taken ? fleet->total - taken : 0;
}

/* What a guest gave up since its last report nobody knows of, and nobody can give away. */
static bool all_fits(const struct fleet *fleet, unsigned step)
{
	uint64_t sum = other_at(fleet, step) + fleet->reserve;

	for (unsigned n = 0; n < fleet->guests; n++) {
		const struct simulated *guest = &fleet->guest[n];
		const uint64_t uses = used_at(guest, step);

		sum += (uses > guest->said ? uses : guest->said) + guest->balloon_floor;
	}
	return sum < fleet->total;
}

/* ---- what is promised ---- */

static void check_need(struct fleet *fleet, unsigned step, unsigned n)
{
	struct simulated *guest = &fleet->guest[n];
	const uint64_t wants = used_at(guest, step);

	if (guest->assigned >= wants || fleet->known[n].most < wants || !fleet->enough_steps ||
	    guest->assigned > guest->had + guest->had / GROWTH_SHARE) {
		guest->starved = 0;
		guest->had = guest->assigned;
		return;
	}
	if (++guest->starved > LATE_STEPS && fleet->enough_steps > LATE_STEPS)
		wrong(fleet, step, n, "less than it uses, and the host has more than its reserve");
}

static void check_rest(struct fleet *fleet, unsigned step, unsigned n, uint64_t before)
{
	struct simulated *guest = &fleet->guest[n];
	const uint64_t target = fleet->verdict[n].target;
	const int direction = target > before ? 1 : -1;

	if (target == before || step < SETTLED_STEPS)
		return;
	moves++;
	if (guest->direction && direction != guest->direction)
		guest->changes++;
	guest->direction = direction;
}

static void check_guest(struct fleet *fleet, unsigned step, unsigned n, uint64_t before)
{
	const struct balance_verdict *verdict = &fleet->verdict[n];

	if (verdict->target < fleet->known[n].least || verdict->target > fleet->known[n].most)
		wrong(fleet, step, n, "not between least and most");
	check_need(fleet, step, n);
	check_rest(fleet, step, n, before);
}

/* Of what each has so little may be left that it is not worth a move. */
static void check_promised(struct fleet *fleet, unsigned step, const struct balance_host *host)
{
	uint64_t all = host->available_bytes;
	uint64_t promised = 0;
	uint64_t least = 0;

	for (unsigned n = 0; n < fleet->guests; n++) {
		all += fleet->known[n].resident;
		promised += fleet->verdict[n].target;
		least += fleet->known[n].least;
	}
	if (step < SETTLED_STEPS || all < fleet->reserve + least)
		return;
	all -= fleet->reserve;
	if (promised > all + all / OVER_SHARE + fleet->guests * LITTLE_MIB * MIB)
		wrong(fleet, step, 0, "much more is promised than there is");
}

static bool is_all_constant(const struct fleet *fleet)
{
	for (unsigned n = 0; n < fleet->guests; n++)
		if (fleet->guest[n].pattern != CONSTANT)
			return false;
	return fleet->is_calm;
}

/* ---- the run ---- */

static void turn(struct fleet *fleet, unsigned step)
{
	struct balance_host host = { .now_us = step * STEP_MS * 1000ull,
				     .total_bytes = fleet->total,
				     .available_bytes = available_at(fleet, step),
				     .reserve_bytes = fleet->reserve,
				     .stall_us = fleet->stall_us };
	uint64_t before[GUESTS_MOST];

	if (host.available_bytes < fleet->total / 100)
		fleet->stall_us += STEP_MS * 1000 / 2;
	fleet->fit_steps = all_fits(fleet, step) ? fleet->fit_steps + 1 : 0;
	if (!host.available_bytes && fleet->fit_steps > LATE_STEPS)
		wrong(fleet, step, 0, "the host has nothing left, and it would have been enough");
	fleet->enough_steps =
		host.available_bytes > fleet->reserve + fleet->guests * LITTLE_MIB * MIB
			? fleet->enough_steps + 1
			: 0;
	for (unsigned n = 0; n < fleet->guests; n++) {
		before[n] = fleet->verdict[n].target;
		fleet->known[n].assigned = fleet->guest[n].assigned;
		fleet->known[n].resident = fleet->guest[n].resident;
	}
	balance_turn(fleet->balance, &host, fleet->known, fleet->verdict);
	check_promised(fleet, step, &host);
	for (unsigned n = 0; n < fleet->guests; n++)
		check_guest(fleet, step, n, before[n]);
}

static void run_fleet(uint64_t seed)
{
	static struct fleet fleet;

	make_fleet(&fleet, seed);
	for (unsigned step = LATE_STEPS; step < STEPS; step++) {
		for (unsigned n = 0; n < fleet.guests; n++) {
			live(&fleet.guest[n], step);
			if ((step + 7 * n) % STEPS_PER_SECOND == 0)
				report(&fleet.known[n], &fleet.guest[n]);
		}
		turn(&fleet, step);
		for (unsigned n = 0; n < fleet.guests; n++)
			if (fleet.known[n].reports)
				obey(&fleet.guest[n], fleet.verdict[n].target);
		simulated_steps += fleet.guests;
	}
	for (unsigned n = 0; n < fleet.guests; n++)
		if (fleet.guest[n].changes > CHANGES_MOST && is_all_constant(&fleet))
			wrong(&fleet, STEPS, n, "to and fro, and nothing has changed");
	balance_destroy(fleet.balance);
}

/* Numbers of any size: nothing but the bounds of targets is promised, and nothing overflows. */
static void run_absurd(uint64_t seed)
{
	static struct fleet fleet;

	make_fleet(&fleet, seed);
	for (unsigned step = 1; step < ABSURD_STEPS; step++) {
		struct balance_host host = { .now_us = draw_any(&fleet),
					     .total_bytes = draw_any(&fleet),
					     .available_bytes = draw_any(&fleet),
					     .reserve_bytes = draw_any(&fleet),
					     .stall_us = draw_any(&fleet) };

		for (unsigned n = 0; n < fleet.guests; n++)
			fleet.known[n] = (struct balance_guest){
				.is_there = draw(&fleet, 8),
				.can_move = draw(&fleet, 8),
				.least = draw_any(&fleet),
				.most = draw_any(&fleet),
				.weight = (unsigned)draw_any(&fleet),
				.buffer_percent = (unsigned)draw_any(&fleet),
				.reports = draw(&fleet, 4),
				.assigned = draw_any(&fleet),
				.available = draw_any(&fleet),
				.committed = draw_any(&fleet),
				.resident = draw_any(&fleet),
			};
		balance_turn(fleet.balance, &host, fleet.known, fleet.verdict);
		for (unsigned n = 0; n < fleet.guests; n++)
			if (fleet.verdict[n].moves && fleet.known[n].can_move &&
			    fleet.verdict[n].target > fleet.known[n].most)
				wrong(&fleet, step, n, "more than its most");
	}
	balance_destroy(fleet.balance);
}

/* What it would not use of a region it would have to give back, and so seem not to grow. */
static void run_regions(void)
{
	static struct fleet fleet;
	struct balance_guest *guest = &fleet.known[0];
	struct balance_host host = { .total_bytes = 64 * GIB, .available_bytes = 32 * GIB,
				     .reserve_bytes = GIB };

	memset(&fleet, 0, sizeof(fleet));
	fleet.balance = balance_create();
	*guest = (struct balance_guest){ .is_there = true, .can_move = true, .least = 512 * MIB,
					 .most = 4 * GIB, .weight = 5000, .buffer_percent = 20,
					 .reports = 1, .assigned = 512 * MIB,
					 .available = 360 * MIB, .resident = 152 * MIB };
	for (unsigned step = 1; step < 100; step++) {
		host.now_us = step * 50000ull;
		guest->resident += 16 * MIB;
		balance_turn(fleet.balance, &host, fleet.known, fleet.verdict);
		if (fleet.verdict[0].target % (128 * MIB))
			wrong(&fleet, step, 0, "not whole regions");
		if (guest->resident > fleet.verdict[0].target)
			wrong(&fleet, step, 0, "it is not seen to grow");
		guest->assigned = fleet.verdict[0].target;
	}
	balance_destroy(fleet.balance);
}

/* A driver that keeps what it shall give hides nothing of what its guest comes to use. */
static void run_kept(void)
{
	static struct fleet fleet;
	struct balance_guest *guest = &fleet.known[0];
	struct balance_host host = { .total_bytes = 64 * GIB, .available_bytes = 32 * GIB,
				     .reserve_bytes = GIB };

	memset(&fleet, 0, sizeof(fleet));
	fleet.balance = balance_create();
	*guest = (struct balance_guest){ .is_there = true, .can_move = true, .least = 256 * MIB,
					 .most = 2 * GIB, .weight = 5000, .buffer_percent = 20,
					 .reports = 1, .assigned = 320 * MIB,
					 .available = 220 * MIB, .resident = 110 * MIB };
	for (unsigned step = 1; guest->resident < 300 * MIB; step++) {
		host.now_us = step * 50000ull;
		guest->resident += step > SETTLED_STEPS ? 16 * MIB : 0;
		balance_turn(fleet.balance, &host, fleet.known, fleet.verdict);
		if (step == SETTLED_STEPS && fleet.verdict[0].target >= guest->assigned)
			wrong(&fleet, step, 0, "it is not asked for what it does not need");
	}
	if (fleet.verdict[0].target <= guest->assigned)
		wrong(&fleet, 0, 0, "it keeps what it shall give, and is not seen to grow");
	balance_destroy(fleet.balance);
}

/* Fleets that broke a rule once. */
static const uint64_t broke[] = { 495, 4528, 8716, 16184, 19375, 1010056 };

int main(int argc, char **argv)
{
	const uint64_t fleets = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
	const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	for (uint64_t n = 0; n < fleets; n++)
		run_fleet(seed + n);
	for (uint64_t n = 0; n < fleets / 10; n++)
		run_absurd(seed + n);
	for (size_t n = 0; n < sizeof(broke) / sizeof(broke[0]); n++)
		run_fleet(broke[n]);
	run_regions();
	run_kept();
	printf("%lu fleets, %lu turns of guests, %lu moves, %u wrong\n", fleets, simulated_steps,
	       moves, bad);
	return bad != 0;
}
