/*
 * One processor alone: every other one is outside translated code, at the top of the dispatcher
 * or not in engine_run(). For what cannot be done under the others' feet: reusing code that some
 * may be in, taking write entries out of their tables, and locked instructions whose operand
 * crosses a page or lies in a page with translated code.
 *
 *   1. `inside` counts the processors in engine_run() that are not parked; it and `owner` change
 *      under the lock only.
 *   2. The owner is set before the others are kicked, and the dispatcher looks at it after taking
 *      the kick: nobody is missed.
 *   3. Nobody waits here with the engine's lock or a machine's lock held.
 */
#include <assert.h>

#include "lib/check.h"
#include "lock.h"
#include "engine/soft/mmu/mmu.h"
#include "soft_internal.h"

enum { CHECK_EVERY_TIMES_ALONE = 256 };

static void leave_inside(struct soft_engine *engine)
{
	engine->inside--;
	engine->change++;
	soft_wake_all(&engine->change);
}

/* Under the lock: until nobody is alone. Gives up the place inside meanwhile. */
static void stand_aside(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;

	soft_stop_executing(cpu);
	leave_inside(engine);
	while (engine->owner) {
		uint32_t seen = engine->change;

		soft_release(&engine->lock);
		soft_wait(&engine->change, seen);
		soft_acquire(&engine->lock);
	}
	engine->inside++;
	soft_start_executing(cpu);
}

void soft_enter(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;

	soft_acquire(&engine->lock);
	engine->inside++;
	if (engine->owner)
		stand_aside(cpu);
	soft_release(&engine->lock);
}

void soft_exit(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;

	if (cpu->pending & PENDING_ALONE)
		soft_end_alone(cpu);
	soft_acquire(&engine->lock);
	leave_inside(engine);
	soft_release(&engine->lock);
}

/* Called from the dispatcher only: the guest state is complete there. */
void soft_park(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;

	soft_acquire(&engine->lock);
	if (engine->owner && engine->owner != cpu)
		stand_aside(cpu);
	soft_release(&engine->lock);
}

/* As soft_park(), and afterwards this processor is alone until soft_end_alone(). */
void soft_begin_alone(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;

	soft_acquire(&engine->lock);
	if (engine->owner)
		stand_aside(cpu);
	__atomic_store_n(&engine->owner, cpu, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < engine->cpu_count; n++)
		if (engine->cpus[n] != cpu)
			soft_kick(engine->cpus[n], KICK_PARK);
	soft_stop_executing(cpu);
	while (engine->inside > 1) {
		uint32_t seen = engine->change;

		soft_release(&engine->lock);
		soft_wait(&engine->change, seen);
		soft_acquire(&engine->lock);
	}
	soft_start_executing(cpu);
	cpu->pending |= PENDING_ALONE;
	soft_release(&engine->lock);
}

void soft_end_alone(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;

	soft_acquire(&engine->lock);
	assert(engine->owner == cpu && engine->inside == 1 && cpu->pending & PENDING_ALONE);
	if (!(++engine->times_alone % CHECK_EVERY_TIMES_ALONE))
		CHECK(check_engine(engine));
	cpu->pending &= ~(uint32_t)PENDING_ALONE;
	__atomic_store_n(&engine->owner, NULL, __ATOMIC_SEQ_CST);
	engine->change++;
	soft_wake_all(&engine->change);
	soft_release(&engine->lock);
}
