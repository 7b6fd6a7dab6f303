/*
 * One processor makes others forget translations: a mailbox per processor, emptied by its owner.
 *
 *   sender                                    owner
 *   ranges into the mailbox, posted++         executing = 1; fence; posted != done? empty the
 *                                             mailbox, done = posted
 *   fence; executing? kick, and wait until    ... executes the guest ...
 *   done reaches posted or it stops           executing = 0
 *
 *   1. A mailbox has room for FLUSH_RANGES; more means everything. What arrives late is never lost,
 *      only made coarser.
 *
 *    - `executing` is 1 while a processor may use its tables: in translated code and in what that
 *      calls. It is 0 in engine_ops, in waits and outside soft_engine_run(); nobody is waited for
 *      there, since the owner looks before it goes on.
 *    - A sender's own `executing` is 0 while it waits, so that two that flush each other both go
 *      on.
 *    - MMIO in the middle of a block passes through engine_ops, so that the block's last
 *      instructions may still be those of before a flush; their memory accesses are not.
 */
#include <assert.h>

#include "engine/soft/lock.h"
#include "lib/check.h"
#include "lib/give_way.h"
#include "engine/soft/code/code.h"
#include "mmu.h"

enum { SPINS = 20000, PAGES_ONE_BY_ONE = 64 };

void soft_stop_executing(struct soft_cpu *cpu)
{
	__atomic_store_n(&cpu->executing, 0, __ATOMIC_RELEASE);
}

void soft_start_executing(struct soft_cpu *cpu)
{
	__atomic_store_n(&cpu->executing, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->flush_posted, __ATOMIC_SEQ_CST) != cpu->flush_done)
		soft_take_flushes(cpu);
}

static void flush_range(struct soft_cpu *cpu, struct engine_gva_range range)
{
	for (uint32_t n = 0; n < range.pages; n++)
		soft_flush_page_everywhere(cpu, range.gva + (uint64_t)n * PAGE_BYTES);
}

void soft_take_flushes(struct soft_cpu *cpu)
{
	soft_acquire(&cpu->flush_lock);
	cpu->count.shootdowns_taken++;
	if (cpu->flush_forgets)
		soft_forget(cpu);
	else if (cpu->flush_all)
		soft_flush(cpu, cpu->flush_all_global);
	else
		for (uint32_t n = 0; n < cpu->flush_count; n++)
			flush_range(cpu, cpu->flush[n]);
	cpu->flush_all = cpu->flush_all_global = cpu->flush_forgets = false;
	cpu->flush_count = 0;
	__atomic_store_n(&cpu->flush_done, cpu->flush_posted, __ATOMIC_SEQ_CST);
	CHECK(check_mailbox(cpu));
	soft_release(&cpu->flush_lock);
	/* the current space may be another, and a block that waits for a device goes on in it */
	soft_select_view(cpu);
}

/* What one shootdown asks for. */
struct shootdown {
	const struct engine_gva_range *ranges;
	unsigned count; /* 0: everything */
	bool global;    /* of everything: also global pages */
	bool forget;    /* also what the guest's tables still give */
};

void check_mailbox(const struct soft_cpu *cpu)
{
	assert(cpu->executing <= 1);
	assert(cpu->flush_count <= FLUSH_RANGES);
	assert(cpu->flush_all || !cpu->flush_all_global);
	/* what is taken is empty, and what is not is taken before the next instruction */
	assert(cpu->flush_posted != cpu->flush_done ||
	       (!cpu->flush_count && !cpu->flush_all && !cpu->flush_forgets));
}

static uint32_t post(struct soft_cpu *cpu, const struct shootdown *what)
{
	uint32_t posted;

	soft_acquire(&cpu->flush_lock);
	cpu->flush_forgets |= what->forget;
	if (!what->count || cpu->flush_all || cpu->flush_count + what->count > FLUSH_RANGES) {
		/* single pages: also global ones */
		cpu->flush_all_global |= what->global || what->count || cpu->flush_count;
		cpu->flush_all = true;
	} else {
		for (unsigned n = 0; n < what->count; n++)
			cpu->flush[cpu->flush_count++] = what->ranges[n];
	}
	posted = cpu->flush_posted + 1;
	__atomic_store_n(&cpu->flush_posted, posted, __ATOMIC_SEQ_CST);
	CHECK(check_mailbox(cpu));
	soft_release(&cpu->flush_lock);
	return posted;
}

static bool is_through(struct soft_cpu *cpu, uint32_t posted)
{
	return !__atomic_load_n(&cpu->executing, __ATOMIC_SEQ_CST) ||
	       (int32_t)(__atomic_load_n(&cpu->flush_done, __ATOMIC_SEQ_CST) - posted) >= 0;
}

static void wait_for(struct soft_cpu *cpu, uint32_t posted)
{
	struct give_way way = { 0 };

	for (unsigned spins = 0; !is_through(cpu, posted); spins++)
		if (spins < SPINS)
			__builtin_ia32_pause();
		else
			/* it has no host processor now: it may have this one */
			give_way(&way);
}

static void shoot_down(struct soft_engine *engine, uint64_t targets, const struct shootdown *what)
{
	uint32_t posted[MAX_CPUS];
	uint64_t waits = 0;

	for (unsigned n = 0; n < engine->cpu_count; n++) {
		if (!(targets >> n & 1))
			continue;
		posted[n] = post(engine->cpus[n], what);
		if (is_through(engine->cpus[n], posted[n]))
			continue;
		soft_kick(engine->cpus[n], KICK_FLUSH);
		waits |= 1ull << n;
	}
	for (; waits; waits &= waits - 1) {
		unsigned n = (unsigned)__builtin_ctzll(waits);

		wait_for(engine->cpus[n], posted[n]);
	}
}

void soft_engine_flush(struct engine *opaque, uint64_t targets,
		       const struct engine_gva_range *ranges, unsigned count, bool global)
{
	struct shootdown what = { .ranges = ranges, .count = count, .global = global };
	uint64_t pages = 0;

	for (unsigned n = 0; n < count; n++)
		pages += ranges[n].pages;
	if (pages > PAGES_ONE_BY_ONE) {
		what.count = 0;
		what.global = true;
	}
	shoot_down((struct soft_engine *)opaque, targets, &what);
}

void soft_forget_everywhere(struct soft_engine *engine)
{
	shoot_down(engine, ~0ull, &(struct shootdown){ .global = true, .forget = true });
}

void soft_engine_place_overlay(struct engine *opaque, struct guest_memory *memory, unsigned n,
			       uint64_t gpa, bool read_only)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	uint8_t *flags = &engine->frame_flags[soft_frame(engine, guest_overlay_page(memory, n))];
	uint64_t places[2] = { memory->overlay[n].gpa, gpa };

	/*
	 * under the lock nobody takes what was translated: what is taken back here was made from
	 * the old bytes, what is taken later is of the new, or was compared with them
	 */
	soft_acquire_code(engine);
	for (unsigned i = 0; i < 2; i++)
		if (places[i] != GUEST_NOWHERE && soft_hva(engine, places[i]))
			soft_invalidate_locked(engine, places[i] & ~(uint64_t)PAGE_OFFSET_MASK,
					      PAGE_BYTES);
	if (read_only)
		__atomic_fetch_or(flags, FRAME_READ_ONLY, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(flags, (uint8_t)~FRAME_READ_ONLY, __ATOMIC_SEQ_CST);
	guest_overlay_place(memory, n, gpa, read_only);
	soft_release(&engine->lock);
	soft_forget_everywhere(engine);
}
