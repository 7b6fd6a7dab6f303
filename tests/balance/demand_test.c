/*
 * The controller over one guest that rests, and then writes 1.5 GiB as fast as it can, on a host
 * that has enough: as in bench/balance demand, at speeds that hosts do not have together, and at
 * any moment between two turns and two reports. A kernel that has nothing left ends the program.
 * Told as often as balance.h asks for, and with a region added as late as on a host that has time
 * for it, the controller lets no program end.
 */
#include <stdio.h>

#include "balance/balance.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

enum { BEGIN_MS = 8000, END_MS = 15000, STARTS = 40, REPORT_MS = 1000 };
enum { ADD_MS = 35, ADVICE_MS = 2, HEAR_MS = 10, STAYS_BUSY_MS = 2000 };
enum { SLOW_MIB = 250, FAST_MIB = 2000 }; /* a second */
static const uint64_t kernel_bytes = 75 * MIB;
static const uint64_t process_bytes = 30 * MIB;
static const uint64_t last_bytes = 8 * MIB;
static const uint64_t wanted_bytes = 1500 * MIB;
static const uint64_t region_bytes = 128 * MIB;

struct run {
	struct balance *balance;
	struct balance_guest known[BALANCE_GUESTS];
	struct balance_verdict verdict[BALANCE_GUESTS];
	uint64_t written, written_per_ms, held, target, resident_before;
	unsigned begin_ms, report_ms;
	unsigned advice_ms, add_ms; /* when it arrives, and is there; 0: nothing comes */
	unsigned turn_ms, busy_until_ms;
	bool is_due; /* it has something to say that no turn has heard */
};

static uint64_t used(const struct run *run) { return kernel_bytes + run->written; }

/* False: there is nothing left. */
static bool write_some(struct run *run, unsigned now_ms)
{
	if (now_ms < run->begin_ms || run->written >= wanted_bytes)
		return true;
	run->written += run->written_per_ms;
	return used(run) + last_bytes <= run->held;
}

static void report(struct run *run)
{
	run->known[0].reports++;
	run->known[0].available = run->held - used(run);
	run->known[0].committed = used(run);
	run->is_due = true;
}

static void obey(struct run *run, unsigned now_ms)
{
	if (run->advice_ms && now_ms >= run->advice_ms) {
		run->target = run->verdict[0].target;
		run->advice_ms = 0;
	}
	if (run->add_ms && now_ms >= run->add_ms) {
		run->held += region_bytes;
		run->add_ms = 0;
		run->is_due = true;
	}
	if (!run->add_ms && run->held < run->target)
		run->add_ms = now_ms + ADD_MS;
}

static bool is_turn(const struct run *run, unsigned now_ms)
{
	const unsigned passed_ms = now_ms - run->turn_ms;

	if (run->is_due)
		return passed_ms >= HEAR_MS;
	return passed_ms >= (now_ms < run->busy_until_ms ? BALANCE_BUSY_MS : BALANCE_IDLE_MS);
}

static void turn(struct run *run, unsigned now_ms)
{
	const struct balance_host host = { .now_us = now_ms * 1000ull,
					   .total_bytes = 24 * GIB,
					   .available_bytes = 20 * GIB - used(run),
					   .reserve_bytes = GIB };

	run->turn_ms = now_ms;
	run->is_due = false;
	run->known[0].assigned = run->held;
	run->known[0].resident = used(run) + process_bytes;
	balance_turn(run->balance, &host, run->known, run->verdict);
	if (run->verdict[0].moves)
		run->advice_ms = now_ms + ADVICE_MS;
	if (run->verdict[0].moves || run->known[0].resident > run->resident_before)
		run->busy_until_ms = now_ms + STAYS_BUSY_MS;
	run->resident_before = run->known[0].resident;
}

static bool simulate(unsigned mib_per_second, unsigned start)
{
	struct run run = { .balance = balance_create(),
			   .written_per_ms = mib_per_second * MIB / 1000,
			   .held = 512 * MIB, .target = 512 * MIB,
			   .begin_ms = BEGIN_MS + start * 7, /* no part of any other time */
			   .report_ms = start * 337 % REPORT_MS };
	bool is_good = true;

	run.known[0] = (struct balance_guest){ .is_there = true, .can_move = true,
					       .least = 512 * MIB, .most = 4 * GIB,
					       .weight = 5000, .buffer_percent = 20 };
	for (unsigned now_ms = 0; now_ms < END_MS && is_good; now_ms++) {
		is_good = write_some(&run, now_ms);
		obey(&run, now_ms);
		if (now_ms % REPORT_MS == run.report_ms)
			report(&run);
		if (is_turn(&run, now_ms))
			turn(&run, now_ms);
	}
	balance_destroy(run.balance);
	return is_good && run.written >= wanted_bytes;
}

int main(void)
{
	unsigned ended = 0;

	for (unsigned speed = SLOW_MIB; speed <= FAST_MIB; speed += SLOW_MIB)
		for (unsigned start = 0; start < STARTS; start++)
			if (!simulate(speed, start)) {
				printf("%u MiB a second, start %u: ended\n", speed, start);
				ended++;
			}
	printf("%u programs ended since their guest had nothing left\n", ended);
	return ended != 0;
}
