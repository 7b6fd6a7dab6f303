/* Guest code that changes: the blocks made from it are taken back. */
#include "code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/page_table.h"

enum { WRITES_UNTIL_DATA = 64 };

/*
 * Both entries begin with one instruction of at least five bytes at a multiple of eight: a
 * processor is before it or behind it, and one aligned store makes it a jump.
 */
static void replace_entry(uint8_t *entry, const uint8_t *target)
{
	uint64_t word;
	uint64_t rel = (uint32_t)(target - (entry + 5));

	memcpy(&word, entry, 8);
	word = (word & ~0xffffffffffull) | 0xe9 | rel << 8;
	__atomic_store_n((uint64_t *)(void *)entry, word, __ATOMIC_SEQ_CST);
}

static void block_kill(struct soft_engine *e, struct block *b)
{
	uint8_t *stub = e->code_write + b->stub_offset;
	const size_t flag_save_bytes = 3 + 1 + 3 + 9 + 3; /* of emit_save_flags(r10 free) */

	soft_hide_block(e, b);
	__atomic_store_n(&b->dead, true, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < e->cpu_count; n++)
		soft_forget_block(e->cpus[n], b);
	replace_entry(e->code_write + b->host_offset, stub + flag_save_bytes);
	replace_entry(e->code_write + b->direct_offset, stub);
}

/* Guest memory was written: blocks made from these bytes are taken back. */
void soft_invalidate_locked(struct soft_engine *e, uint64_t gpa, size_t bytes)
{
	uint64_t frame = soft_frame(e, soft_hva(e, gpa));
	bool all;

	/* a page that held code once and is data now */
	all = ++e->frame_writes[frame] >= WRITES_UNTIL_DATA;
	if (all)
		e->frame_writes[frame] = 0;
	for (uint32_t *link = &e->page_blocks[frame]; *link;) {
		struct block *b = &e->blocks[*link - 1];

		if (all || (gpa < b->gpa + b->guest_bytes && gpa + bytes > b->gpa)) {
			if (!b->dead)
				block_kill(e, b);
			*link = b->next_in_page;
		} else {
			link = &b->next_in_page;
		}
	}
	if (e->frame_flags[frame] & FRAME_STRADDLED)
		for (uint32_t *link = &e->straddlers; *link;) {
			struct block *b = &e->blocks[*link - 1];

			bool here = b->second_gpa >> 12 == gpa >> 12;

			/* it stays in the list of its first page until that is written */
			if (!b->dead && here &&
			    (all || (gpa < b->second_gpa + 15 && gpa + bytes > b->second_gpa)))
				block_kill(e, b);
			if (b->dead)
				*link = b->next_straddler;
			else
				link = &b->next_straddler;
		}
	if (all)
		__atomic_fetch_and(&e->frame_flags[frame], (uint8_t)~FRAME_STRADDLED,
				   __ATOMIC_SEQ_CST);
	if (!e->page_blocks[frame] && !(e->frame_flags[frame] & FRAME_STRADDLED))
		__atomic_fetch_and(&e->frame_flags[frame], (uint8_t)~FRAME_CODE, __ATOMIC_SEQ_CST);
}

void soft_invalidate(struct soft_engine *e, uint64_t gpa, size_t bytes)
{
	soft_acquire(&e->lock);
	soft_invalidate_locked(e, gpa, bytes);
	soft_release(&e->lock);
}

/*
 * From now on every write to this frame comes to C. False: done, but the lock was given up
 * meanwhile, so that what was found before must be found again. Called with the lock.
 */
bool soft_protect_code(struct soft_cpu *cpu, uint64_t frame)
{
	struct soft_engine *e = cpu->engine;

	if (!(__atomic_fetch_or(&e->frame_flags[frame], FRAME_CODE, __ATOMIC_SEQ_CST) &
	      FRAME_WRITTEN))
		return true;
	soft_release(&e->lock);
	soft_begin_alone(cpu);
	for (unsigned n = 0; n < e->cpu_count; n++)
		soft_revoke_writes(e->cpus[n], frame);
	__atomic_fetch_and(&e->frame_flags[frame], (uint8_t)~FRAME_WRITTEN, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&e->frame_flags[frame], FRAME_CODE, __ATOMIC_SEQ_CST);
	soft_end_alone(cpu);
	soft_acquire(&e->lock);
	return false;
}

void soft_engine_memory_written(struct engine *opaque, uint64_t gpa, size_t bytes)
{
	struct soft_engine *e = (struct soft_engine *)opaque;

	/* the write before the look: see soft_find_block() */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (bytes) {
		size_t left = PAGE_BYTES - (gpa & PAGE_OFFSET_MASK);
		size_t n = bytes < left ? bytes : left;
		uint8_t *hva = soft_hva(e, gpa);

		if (hva) {
			soft_mark_dirty(e, hva);
			page_table_written(e, soft_frame(e, hva));
		}
		if (hva && e->frame_flags[soft_frame(e, hva)] & FRAME_CODE)
			soft_invalidate(e, gpa, n);
		gpa += n;
		bytes -= n;
	}
}
