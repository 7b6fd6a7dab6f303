/*
 * The controller over eight machines of up to 2 GiB on a host that leaves them 4 GiB together: one
 * request after the other at one that has mostly been idle, as in bench/balance. A program writes
 * as fast as it does, and a kernel that has nothing left ends it: a guest has to get more before
 * it is full, not soon afterwards as in balance_test.c, and on a busy host whatever brings it that
 * is late. It keeps a part of what it does not use
 * from the balloon, and pages that a program gave up are the host's two seconds later.
 *
 *     requests_test [REQUESTS [SEED]]
 *
 * More than one of ten thousand programs that are ended is wrong: the host has half of it left.
 */
#include <stdio.h>
#include <stdlib.h>

#include "balance/balance.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

enum { GUESTS = 8, STEP_MS = 5, TURN_MS = 100, MOVE_MS = 60, ADD_MS = 150, REPORT_MS = 1000 };
enum { HINT_MS = 2000, BEGIN_MS = 10000, PAUSE_MS = 30, PAUSE_MOST_MS = 250, MOST_OF = 10000 };
static const uint64_t left_bytes = 4 * GIB;
static const uint64_t reserve_bytes = 16 * GIB;
static const uint64_t kernel_bytes = 100 * MIB;
static const uint64_t process_bytes = 30 * MIB;
static const uint64_t last_bytes = 8 * MIB;
static const uint64_t written = 900 * MIB * STEP_MS / 1000;
static const uint64_t moved = 1000 * MIB * STEP_MS / 1000;

struct simulated {
	uint64_t file, wants; /* what its program has written, and shall */
	uint64_t stale; /* free, and still of the host's memory */
	uint64_t held, assigned, target;
	unsigned freed_ms, move_ms, add_ms; /* add_ms: 0: no region is offered */
};

struct fleet {
	struct simulated guest[GUESTS];
	struct balance_guest known[BALANCE_GUESTS];
	struct balance_verdict verdict[BALANCE_GUESTS];
	struct balance *balance;
	uint64_t random;
	unsigned now_ms, next_ms; /* when the next request comes; 0: one goes on */
	unsigned done, ended;
};

static uint64_t draw(struct fleet *fleet, uint64_t below)
{
	fleet->random ^= fleet->random << 13;
	fleet->random ^= fleet->random >> 7;
	fleet->random ^= fleet->random << 17;
	return fleet->random % below;
}

static uint64_t least_of(uint64_t one, uint64_t other) { return one < other ? one : other; }

static uint64_t used(const struct simulated *guest) { return kernel_bytes + guest->file; }

/* ---- guests ---- */

static void request(struct fleet *fleet)
{
	static const unsigned mebibytes[] = { 32, 64, 96, 128, 256, 400 };
	const uint64_t which = draw(fleet, GUESTS);

	fleet->guest[which].wants = mebibytes[draw(fleet, 6)] * MIB;
	fleet->next_ms = 0;
}

static void end_request(struct fleet *fleet, struct simulated *guest)
{
	fleet->ended += guest->file < guest->wants;
	fleet->done++;
	fleet->next_ms = fleet->now_ms + PAUSE_MS + (unsigned)draw(fleet, PAUSE_MOST_MS);
	guest->stale += guest->file;
	guest->file = guest->wants = 0;
	guest->freed_ms = fleet->now_ms;
}

static void live(struct fleet *fleet, struct simulated *guest)
{
	const uint64_t by = least_of(written, guest->wants - guest->file);

	if (fleet->now_ms - guest->freed_ms > HINT_MS)
		guest->stale -= least_of(guest->stale, 32 * MIB);
	if (!guest->wants)
		return;
	if (used(guest) + by + last_bytes <= guest->assigned) {
		guest->stale -= least_of(guest->stale, by);
		guest->file += by;
		if (guest->file < guest->wants)
			return;
	}
	end_request(fleet, guest);
}

/* Of what it has not in use: more of a large one. */
static uint64_t kept(const struct simulated *guest)
{
	if (guest->assigned < 512 * MIB)
		return 104 * MIB + guest->assigned / 8;
	return 232 * MIB + guest->assigned / 16;
}

static void give(struct simulated *guest)
{
	const uint64_t available = guest->assigned - used(guest);
	uint64_t by = least_of(moved, guest->assigned - guest->target);

	if (available <= kept(guest))
		return;
	by = least_of(by, available - kept(guest));
	guest->assigned -= by;
	guest->stale -= least_of(guest->stale, by);
}

/* What is in its balloon comes back before anything is added. */
static void take(struct simulated *guest, unsigned now_ms)
{
	if (guest->assigned < guest->held) {
		guest->assigned +=
			least_of(2 * moved, least_of(guest->target, guest->held) - guest->assigned);
		return;
	}
	if (!guest->add_ms)
		guest->add_ms = now_ms + ADD_MS;
	if (now_ms < guest->add_ms)
		return;
	guest->held += 128 * MIB;
	guest->assigned += 128 * MIB;
	guest->add_ms = 0;
}

static void obey(struct simulated *guest, unsigned now_ms)
{
	if (now_ms < guest->move_ms)
		return;
	if (guest->target < guest->assigned)
		give(guest);
	else if (guest->target > guest->assigned)
		take(guest, now_ms);
}

/* ---- the host ---- */

static uint64_t resident(const struct simulated *guest) { return used(guest) + guest->stale; }

static void report(struct balance_guest *known, const struct simulated *guest)
{
	known->reports++;
	known->available = guest->assigned - used(guest);
	known->committed = 30 * MIB;
}

static void turn(struct fleet *fleet)
{
	struct balance_host host = { .now_us = fleet->now_ms * 1000ull,
				     .total_bytes = 24 * GIB,
				     .available_bytes = reserve_bytes + left_bytes,
				     .reserve_bytes = reserve_bytes };

	for (unsigned n = 0; n < GUESTS; n++) {
		host.available_bytes -= resident(&fleet->guest[n]);
		fleet->known[n].assigned = fleet->guest[n].assigned;
		fleet->known[n].resident = resident(&fleet->guest[n]) + process_bytes;
	}
	balance_turn(fleet->balance, &host, fleet->known, fleet->verdict);
	for (unsigned n = 0; n < GUESTS; n++) {
		if (!fleet->known[n].reports || !fleet->verdict[n].moves)
			continue;
		fleet->guest[n].target = fleet->verdict[n].target;
		fleet->guest[n].move_ms = fleet->now_ms + MOVE_MS;
	}
}

static void step(struct fleet *fleet)
{
	fleet->now_ms += STEP_MS;
	if (fleet->next_ms && fleet->now_ms >= fleet->next_ms)
		request(fleet);
	for (unsigned n = 0; n < GUESTS; n++) {
		live(fleet, &fleet->guest[n]);
		obey(&fleet->guest[n], fleet->now_ms);
		if ((fleet->now_ms + n * REPORT_MS / GUESTS) % REPORT_MS == 0)
			report(&fleet->known[n], &fleet->guest[n]);
	}
	if (fleet->now_ms % TURN_MS == 0)
		turn(fleet);
}

static void make_fleet(struct fleet *fleet, uint64_t seed)
{
	*fleet = (struct fleet){ .random = seed * 0x9e3779b97f4a7c15ull + 1,
				 .next_ms = BEGIN_MS,
				 .balance = balance_create() };
	for (unsigned n = 0; n < GUESTS; n++) {
		fleet->guest[n] = (struct simulated){ .held = 512 * MIB,
						      .assigned = 512 * MIB,
						      .target = 512 * MIB };
		fleet->known[n] = (struct balance_guest){ .is_there = true,
							  .can_move = true,
							  .least = 256 * MIB,
							  .most = 2 * GIB,
							  .weight = 5000,
							  .buffer_percent = 20 };
	}
}

int main(int argc, char **argv)
{
	const uint64_t requests = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000;
	static struct fleet fleet;

	make_fleet(&fleet, argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
	while (fleet.done < requests)
		step(&fleet);
	balance_destroy(fleet.balance);
	printf("%u requests, %u programs ended since their guest had nothing left\n", fleet.done,
	       fleet.ended);
	return fleet.ended > requests / MOST_OF;
}
