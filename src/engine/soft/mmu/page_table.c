/* Page tables of the guest, watched: see page_table.h. */
#include "page_table.h"

#include "mmu.h"

static bool is_overlay(const struct soft_engine *engine, uint64_t frame)
{
	return frame >= engine->memory->ram_bytes / PAGE_BYTES;
}

/* Spaces that have nothing stale, as far as they know, look again. */
static void tell_spaces(struct soft_engine *engine)
{
	__atomic_fetch_add(&engine->table_changes, 1, __ATOMIC_SEQ_CST);
}

uint32_t page_table_note(struct soft_engine *engine, uint64_t frame)
{
	if (!(__atomic_load_n(&engine->frame_flags[frame], __ATOMIC_RELAXED) & FRAME_TABLE))
		__atomic_fetch_or(&engine->frame_flags[frame], FRAME_TABLE, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&engine->table_versions[frame], __ATOMIC_SEQ_CST);
}

bool page_table_has_changed(const struct soft_engine *engine, uint64_t frame, uint32_t version)
{
	return __atomic_load_n(&engine->table_versions[frame], __ATOMIC_SEQ_CST) != version ||
	       !page_table_is_watched(engine, frame);
}

bool page_table_is_watched(const struct soft_engine *engine, uint64_t frame)
{
	return !__atomic_load_n(&engine->frame_holders[frame], __ATOMIC_SEQ_CST) &&
	       !is_overlay(engine, frame);
}

void page_table_written(struct soft_engine *engine, uint64_t frame)
{
	if (!(__atomic_load_n(&engine->frame_flags[frame], __ATOMIC_SEQ_CST) & FRAME_TABLE))
		return;
	__atomic_fetch_add(&engine->table_versions[frame], 1, __ATOMIC_SEQ_CST);
	tell_spaces(engine);
}

void page_table_hold(struct soft_engine *engine, uint64_t frame, uint8_t holder,
		     struct mmu_counters *count)
{
	if (__atomic_load_n(&engine->frame_holders[frame], __ATOMIC_RELAXED) & holder)
		return;
	__atomic_fetch_or(&engine->frame_holders[frame], holder, __ATOMIC_SEQ_CST);
	if (!(__atomic_load_n(&engine->frame_flags[frame], __ATOMIC_SEQ_CST) & FRAME_TABLE))
		return;
	count->tables_opened++;
	tell_spaces(engine);
}

bool page_table_is_held_here(const struct soft_cpu *cpu, uint64_t frame)
{
	const struct soft_engine *engine = cpu->engine;
	uint8_t holders = __atomic_load_n(&engine->frame_holders[frame], __ATOMIC_SEQ_CST);

	return !cpu->shares_holder && holders && !(holders & ~(cpu->holder | HOLDER_COMMON));
}

void page_table_let_go(struct soft_engine *engine, uint64_t frame, uint8_t holder)
{
	__atomic_fetch_add(&engine->table_versions[frame], 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_and(&engine->frame_holders[frame], (uint8_t)~holder, __ATOMIC_SEQ_CST);
	tell_spaces(engine);
}
