/*
 * Cold parts on first use. A block's way into a cold part leads to a stub, which names itself in
 * r11 and comes here; most stubs are never reached.
 *
 *   hot code   ... jcc stub ...
 *   stub       mov r11d, name;  jmp short to   jmp gs:[thunk_way_out]
 *   made       jmp part;        (the short jump stays: who was between the two comes here again)
 *
 *   kind       what happens
 *   CHAIN      the jump to the stub leads to its target from now on
 *   KICKED     the dispatcher looks what others want
 *   LATE       the block is made again from the bytes that were kept, into memory of our own; the
 *              cold part is emitted for where the block is; the stub becomes a jump to it
 *
 * The guest's registers and flags are as they were at the way out, r10 as well (an address);
 * r11 is nobody's there.
 *
 * The block may be dead, and its region closed: the guest's memory may hold other code. Nothing
 * of the instruction has happened yet, and so the dispatcher goes on with it, in a block of its
 * own, whose cold parts are made at once. The same when there is no room.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/translate/translate.h"

static struct way_out way_of(const struct soft_engine *engine, const struct block *b, unsigned stub)
{
	struct way_out way;

	memcpy(&way, engine->kept + b->kept_first + b->guest_bytes + stub * sizeof(way),
	       sizeof(way));
	return way;
}

static void *chain(struct soft_cpu *cpu, const struct block *b, const uint8_t *stub,
		   struct way_out way)
{
	const uint8_t *host = cpu->engine->code_run + b->host_offset;

	if (!way.flags_in_word)
		cpu->flags_word = cpu->way_flags;
	cpu->state.rip = soft_page_rip(cpu, b) + way.target;
	if (x86_code_bits(&cpu->state) != 64)
		cpu->state.rip = (uint32_t)cpu->state.rip;
	if (way.kind == WAY_KICKED)
		return soft_dispatch(cpu);
	return soft_chain(cpu, way.flags_in_word, stub, host + way.link);
}

/* Where the new part begins; NULL: not made, and state is as the dispatcher wants it. */
static void *make_part(struct soft_cpu *cpu, struct block *b, unsigned stub)
{
	struct soft_engine *engine = cpu->engine;
	void *part = NULL;

	soft_acquire(&engine->lock);
	if (soft_make_room(engine) && !b->dead)
		part = soft_translate_part(engine, b, stub);
	if (!part)
		soft_leave_at_stub(cpu, b, stub);
	soft_release(&engine->lock);
	return part;
}

void *soft_way_out(struct soft_cpu *cpu, uint64_t unused, uint64_t name)
{
	const struct soft_engine *engine = cpu->engine;
	struct block *b = &engine->blocks[(uint32_t)name >> STUB_BITS];
	unsigned stub = name & ((1 << STUB_BITS) - 1);
	const uint8_t *host = engine->code_run + b->host_offset;
	struct way_out way;
	void *part;

	(void)unused;
	if (stub < STUBS_OF_ENTRIES) {
		if (stub == STUB_DEAD_DIRECT)
			cpu->flags_word = cpu->way_flags;
		/* at the indirect entry of one that floats it is that already, and code_page old */
		if (stub == STUB_DEAD_DIRECT || !soft_floats(b->mode))
			cpu->state.rip = soft_page_rip(cpu, b) + (b->gpa & PAGE_OFFSET_MASK);
		if (x86_code_bits(&cpu->state) != 64)
			cpu->state.rip = (uint32_t)cpu->state.rip;
		return soft_dispatch(cpu);
	}
	way = way_of(engine, b, stub);
	if (way.kind != WAY_LATE)
		return chain(cpu, b, host + b->stubs + soft_stub_offset(stub), way);
	part = make_part(cpu, b, stub);
	return part ? part : soft_dispatch(cpu);
}
