/*
 * The machine's clocks: the host's monotonic clock and TSC, and the partition's reference time,
 * which is a function of the partition's TSC alone. The reference TSC page shows the same scale and
 * offset, so that a guest reads the same time from either.
 *
 * A machine that stands for less than STEAL_NS finds that its clocks went on, as if the time had
 * been stolen from it: so they stay the host's, however often it is forked or saved. After a longer
 * standstill, whoever asked for it and whatever came between, they go on where they were: a guest
 * takes a processor that has not run for so long for one that hangs, and all its timers are due.
 *
 *  - All processors' TSCs move by the same, while all of them stand: none is ever set back.
 *  - Scale and offset of the reference time stay, and so does the reference TSC page.
 */
#include "machine_internal.h"

#include <assert.h>

#define NS_PER_S 1000000000ull
#define UNITS_100NS_PER_S 10000000ull
enum { CLOCK_LOOKS = 64, TSC_HZ_STEP = 10000 };
/* Longer ago the host may have slept. */
enum { MEASURE_MOST_S = 60 };
#define STEAL_NS NS_PER_S

uint64_t clock_monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t clock_tsc(void) { return __builtin_ia32_rdtsc(); }

/* Of several looks the one that was interrupted least. */
struct machine_moment machine_moment_now(void)
{
	uint64_t least = UINT64_MAX;
	struct machine_moment best = { 0 };

	for (int n = 0; n < CLOCK_LOOKS; n++) {
		uint64_t before = clock_tsc();
		uint64_t ns = clock_monotonic_ns();
		uint64_t took = clock_tsc() - before;

		if (took < least) {
			least = took;
			best = (struct machine_moment){ .ns = ns, .tsc = before + took / 2 };
		}
	}
	return best;
}

static bool can_measure_from(const struct machine_moment *begun, const struct machine_moment *now)
{
	return begun->ns && begun->ns < now->ns && begun->tsc < now->tsc &&
	       now->ns - begun->ns < MEASURE_MOST_S * NS_PER_S;
}

uint64_t clock_measure_tsc_hz(const struct machine_moment *begun, uint64_t least_ns)
{
	struct machine_moment end = machine_moment_now();
	const struct machine_moment begin = can_measure_from(begun, &end) ? *begun : end;

	if (end.ns - begin.ns < least_ns) {
		nanosleep(&(struct timespec){ .tv_nsec = (long)(begin.ns + least_ns - end.ns) },
			  NULL);
		end = machine_moment_now();
	}
	assert(end.ns > begin.ns && end.tsc > begin.tsc);
	return (uint64_t)((unsigned __int128)(end.tsc - begin.tsc) * NS_PER_S /
			  (end.ns - begin.ns)) /
	       TSC_HZ_STEP * TSC_HZ_STEP;
}

static uint64_t scaled(const struct machine_clock *clock, uint64_t tsc)
{
	return (uint64_t)(((unsigned __int128)tsc * clock->scale) >> 64);
}

void clock_set(struct machine *machine, uint64_t tsc_hz, uint64_t partition_tsc,
	       uint64_t reference_100ns)
{
	struct machine_clock *clock = &machine->clock;

	assert(tsc_hz);
	clock->tsc_hz = tsc_hz;
	clock->scale = (uint64_t)(((unsigned __int128)UNITS_100NS_PER_S << 64) / tsc_hz);
	clock->offset_100ns = reference_100ns - scaled(clock, partition_tsc);
	machine->hv_host.reference_scale = clock->scale;
	machine->hv_host.reference_offset_100ns = clock->offset_100ns;
}

uint64_t clock_reference_100ns(const struct machine *machine, uint64_t host_tsc)
{
	uint64_t partition_tsc = host_tsc + machine->hv_host.tsc_offset;

	return scaled(&machine->clock, partition_tsc) + machine->clock.offset_100ns;
}

uint64_t machine_now_100ns(void *context) { return clock_reference_100ns(context, clock_tsc()); }

/* ---- a machine that stands ---- */

void clock_move_tsc(struct machine *machine, uint64_t by)
{
	machine->hv_host.tsc_offset += by;
	for (unsigned n = 0; n < machine->options.cpus; n++) {
		struct engine_state state;

		engine_get(machine->vcpus[n].cpu, ENGINE_MSRS, &state);
		state.x86.tsc_offset += by;
		engine_set(machine->vcpus[n].cpu, ENGINE_MSRS, &state);
	}
}

/*
 * Who is interrupted between two looks has the standstill longer by the monotonic clock than by the
 * TSC, here and in clock_goes_on(): what counts by that comes late, and never too soon.
 */
void clock_stands(struct machine *machine)
{
	machine->clock.stands.ns = clock_monotonic_ns();
	machine->clock.stands.tsc = clock_tsc();
}

uint64_t clock_goes_on(struct machine *machine)
{
	const struct machine_moment since = machine->clock.stands;
	const uint64_t tsc = clock_tsc();
	const uint64_t stood_ns = clock_monotonic_ns() - since.ns;

	assert(since.ns);
	machine->clock.stands = (struct machine_moment){ 0 };
	if (stood_ns < STEAL_NS)
		return 0;
	clock_move_tsc(machine, since.tsc - tsc);
	return stood_ns;
}

struct machine_moment clock_moment(const struct machine *machine)
{
	if (machine->clock.stands.ns)
		return machine->clock.stands;
	return (struct machine_moment){ .ns = clock_monotonic_ns(), .tsc = clock_tsc() };
}
