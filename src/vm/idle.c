/*
 * Whether the machine has nothing to do: of each second that somebody looks its process has used
 * less than a twentieth. Then the engine gives back what it has made for something else
 * (engine_trim()). Whether its processors wait just then says less: on a busy host one that is
 * woken nine times a second for nothing is seldom found asleep sixty times in a row.
 */
#include <time.h>

#include "machine_internal.h"

enum { BUSY_NS = 50000000 };

static uint64_t used_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

void idle_tick(struct machine *machine)
{
	const uint64_t now = used_ns();
	const bool is_busy = now - machine->idle_used_ns > BUSY_NS; /* also a fork's first */

	machine->idle_used_ns = now;
	machine->idle_s = is_busy ? 0 : machine->idle_s + 1;
	if (machine->idle_s)
		engine_trim(machine->engine, machine->idle_s);
}
