/*
 * Which blocks become traces (translate/translate_trace.c): those that a processor is at when it
 * is kicked, twice. An interrupt comes at any time, a timer's some hundred times a second, so what
 * is executed most is found soon, and what is executed a few times costs nothing.
 *
 *   kicked, at a block's begin    the block is taken back, as if its page had been written; the
 *                                 trace is found in its place, by whoever comes there next
 *
 *    - A place is tried once, as long as no other takes its place among those that were seen.
 *
 * Taking a block back is the dearer part: of user code who comes to it then looks for all jumps
 * that lead there (jump_site.c). So once is not enough, of code of which much runs.
 */
#include "code.h"
#include "engine/soft/translate/translate.h"

/* For the second time, and not for the third. */
static bool is_seen_again(struct soft_cpu *cpu, const struct block *b)
{
	const uint64_t tried = 1; /* no address: gpa is shifted */
	uint64_t *seen = &cpu->hot_seen[(b->gpa ^ b->gpa / PAGE_BYTES) % HOT_SEEN];
	const bool is_again = *seen == b->gpa << 1;

	if (is_again)
		*seen |= tried;
	else if (*seen != (b->gpa << 1 | tried))
		*seen = b->gpa << 1;
	return is_again;
}

bool soft_may_be_trace(uint32_t mode)
{
	return !(mode & ~(uint32_t)(MODE_USER | MODE_FPU_OFF | MODE_AVX_OFF));
}

static bool may_become_trace(struct soft_cpu *cpu, const struct block *b)
{
	return b && b->form == BLOCK_WHOLE && !(b->mode & BLOCK_STRADDLES) && !b->dead &&
	       is_seen_again(cpu, b);
}

void soft_note_kicked(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;
	const uint32_t mode = soft_mode(cpu);
	struct code_place place = { .rip = cpu->state.rip, .mode = mode };
	struct block *b, *trace;

	if (!engine->makes_traces || cpu->pending || !soft_may_be_trace(mode) ||
	    !soft_recall_page(cpu, place.rip, mode, &place.gpa))
		return;
	b = soft_look_up_block(cpu, place.gpa, mode);
	if (!may_become_trace(cpu, b))
		return;
	soft_acquire(&engine->lock);
	if (!soft_code_is_held(engine) && soft_make_room(engine) &&
	    soft_look_up_block(cpu, place.gpa, mode) == b) {
		trace = soft_translate_trace(engine, &place);
		if (trace)
			soft_replace_block(engine, b, trace);
	}
	soft_release(&engine->lock);
}
