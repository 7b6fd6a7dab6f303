/* Guest code that changes: the blocks made from it are taken back. */
#include <assert.h>

#include "code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/page_table.h"

enum { WRITES_UNTIL_DATA = 64, EIGHT = 8 };

void soft_replace_by_jump(uint8_t *at, const uint8_t *target)
{
	enum { JMP = 0xe9 };
	unsigned from = (uintptr_t)at % sizeof(uint64_t);
	int32_t rel = (int32_t)(target - (at + JUMP_BYTES));
	uint8_t bytes[sizeof(uint64_t)];
	uint64_t word;

	assert(soft_holds_jump(at));
	memcpy(bytes, at - from, sizeof(bytes));
	bytes[from] = JMP;
	memcpy(bytes + from + 1, &rel, sizeof(rel));
	memcpy(&word, bytes, sizeof(word));
	__atomic_store_n((uint64_t *)(void *)(at - from), word, __ATOMIC_SEQ_CST);
}

/* What is executed at this address. */
static uint8_t *in_write_view(const struct soft_engine *engine, const void *run)
{
	return engine->code_write + ((const uint8_t *)run - engine->code_run);
}

void soft_lead_away(struct soft_engine *engine, const struct block *b)
{
	uint8_t *entry = engine->code_write + b->host_offset;
	uint8_t *stubs = entry + b->stubs;

	soft_replace_by_jump(entry, soft_floats(b->mode)
					    ? in_write_view(engine, engine->dead_floating)
					    : stubs + soft_stub_offset(STUB_DEAD_INDIRECT));
	soft_replace_by_jump(entry + b->direct, stubs + soft_stub_offset(STUB_DEAD_DIRECT));
}

/* Its frame's list has it still: of the links to it that is where to look. */
static void block_kill(struct soft_engine *engine, struct block *b, uint64_t frame)
{
	soft_hide_block(engine, b);
	__atomic_store_n(&b->dead, true, __ATOMIC_SEQ_CST);
	soft_unlink(engine, frame, b->host_offset, b->host_offset + b->hot_bytes);
	soft_lead_home(engine, b);
	soft_lead_away(engine, b);
}

static void block_was_written(struct soft_engine *engine, struct block *b, uint64_t frame)
{
	soft_note_end(engine, b, END_WRITTEN);
	block_kill(engine, b, frame);
}

void soft_take_back(struct soft_engine *engine, struct block *b, uint64_t frame)
{
	uint32_t *link = &engine->page_blocks[frame];

	block_kill(engine, b, frame);
	while (*link && &engine->blocks[*link - 1] != b)
		link = &engine->blocks[*link - 1].next_in_page;
	if (*link)
		*link = b->next_in_page;
	b->next_in_page = UNLISTED;
}

void soft_end_protection(struct soft_engine *engine, uint64_t frame)
{
	if (!engine->page_blocks[frame] && !(engine->frame_flags[frame] & FRAME_STRADDLED))
		__atomic_fetch_and(&engine->frame_flags[frame], (uint8_t)~FRAME_CODE,
				   __ATOMIC_SEQ_CST);
}

bool soft_becomes_data(const struct soft_engine *engine, uint64_t frame)
{
	return __atomic_load_n(&engine->frame_writes[frame], __ATOMIC_RELAXED) + 1 >=
	       WRITES_UNTIL_DATA;
}

/* Guest memory was written: blocks made from these bytes are taken back. */
void soft_invalidate_locked(struct soft_engine *engine, uint64_t gpa, size_t bytes)
{
	uint64_t frame = soft_frame(engine, soft_hva(engine, gpa));
	/* a page that held code once and is data now */
	const bool all = soft_becomes_data(engine, frame);
	const uint8_t writes = engine->frame_writes[frame];

	__atomic_store_n(&engine->frame_writes[frame], all ? 0 : (uint8_t)(writes + 1),
			 __ATOMIC_RELAXED);
	for (uint32_t *link = &engine->page_blocks[frame]; *link;) {
		struct block *b = &engine->blocks[*link - 1];

		if (all || soft_block_has(b, gpa, bytes)) {
			if (!b->dead)
				block_was_written(engine, b, frame);
			*link = b->next_in_page;
			b->next_in_page = UNLISTED;
		} else {
			link = &b->next_in_page;
		}
	}
	if (engine->frame_flags[frame] & FRAME_STRADDLED)
		for (uint32_t *link = &engine->straddlers; *link;) {
			struct block *b = &engine->blocks[*link - 1];

			bool here = b->second_gfn == gpa >> 12;
			uint64_t second = (uint64_t)b->second_gfn << 12;

			/* it stays in the list of its first page until that is written */
			if (!b->dead && here &&
			    (all || (gpa < second + 15 && gpa + bytes > second)))
				block_was_written(engine, b,
						  soft_frame(engine, soft_hva(engine, b->gpa)));
			if (b->dead)
				*link = b->next_straddler;
			else
				link = &b->next_straddler;
		}
	if (all)
		__atomic_fetch_and(&engine->frame_flags[frame], (uint8_t)~FRAME_STRADDLED,
				   __ATOMIC_SEQ_CST);
	soft_end_protection(engine, frame);
}

void soft_invalidate(struct soft_engine *engine, uint64_t gpa, size_t bytes)
{
	soft_acquire_code(engine);
	soft_invalidate_locked(engine, gpa, bytes);
	soft_release(&engine->lock);
}

static bool has_writers(struct soft_engine *engine, uint64_t frame)
{
	return __atomic_fetch_or(&engine->frame_flags[frame], FRAME_CODE, __ATOMIC_SEQ_CST) &
	       FRAME_WRITTEN;
}

bool soft_try_to_protect_code(struct soft_engine *engine, uint64_t frame)
{
	if (!has_writers(engine, frame))
		return true;
	soft_end_protection(engine, frame);
	return false;
}

/*
 * From now on every write to this frame comes to C. False: done, but the lock was given up
 * meanwhile, so that what was found before must be found again. Called with the lock.
 */
bool soft_protect_code(struct soft_cpu *cpu, uint64_t frame)
{
	struct soft_engine *engine = cpu->engine;

	if (!has_writers(engine, frame))
		return true;
	soft_release(&engine->lock);
	soft_begin_alone(cpu);
	engine->counts.protected_alone++;
	soft_revoke_writes(engine, frame);
	__atomic_fetch_and(&engine->frame_flags[frame], (uint8_t)~FRAME_WRITTEN, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&engine->frame_flags[frame], FRAME_CODE, __ATOMIC_SEQ_CST);
	soft_end_alone(cpu);
	soft_acquire_code(engine);
	return false;
}

/*
 * Bytes of whole pages from gpa on of which a write changes nothing that is known: RAM without an
 * overlay, written before, no code and no page tables in it; 0, or those of EIGHT pages.
 */
static size_t plain_bytes(const struct soft_engine *engine, uint64_t gpa, size_t bytes)
{
	const uint64_t each = 0x0101010101010101; /* of eight bytes */
	const uint64_t looked_at = each * (FRAME_DIRTY | FRAME_TABLE | FRAME_CODE);
	const size_t all = EIGHT * (size_t)PAGE_BYTES;
	const uint8_t *first = guest_ram_hva(engine->memory, gpa);
	uint64_t flags;

	if (bytes < all || gpa & PAGE_OFFSET_MASK || !first ||
	    guest_ram_hva(engine->memory, gpa + all - PAGE_BYTES) != first + all - PAGE_BYTES)
		return 0;
	for (unsigned n = 0; n < EIGHT; n++)
		if (guest_may_be_overlaid(engine->memory, gpa + n * (uint64_t)PAGE_BYTES))
			return 0;
	memcpy(&flags, &engine->frame_flags[soft_frame(engine, first)], sizeof(flags));
	return (flags & looked_at) == each * FRAME_DIRTY ? all : 0;
}

/* Of one page; how many. */
static size_t page_written(struct soft_engine *engine, uint64_t gpa, size_t bytes)
{
	const size_t left = PAGE_BYTES - (gpa & PAGE_OFFSET_MASK);
	const size_t n = bytes < left ? bytes : left;
	uint8_t *hva = soft_hva(engine, gpa);

	if (hva) {
		soft_mark_dirty(engine, hva);
		page_table_written(engine, soft_frame(engine, hva));
	}
	if (hva && engine->frame_flags[soft_frame(engine, hva)] & FRAME_CODE)
		soft_invalidate(engine, gpa, n);
	return n;
}

void soft_engine_memory_written(struct engine *opaque, uint64_t gpa, size_t bytes)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;

	/* the write before the look: see soft_find_block() */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (bytes) {
		size_t n = plain_bytes(engine, gpa, bytes);

		if (!n)
			n = page_written(engine, gpa, bytes);
		gpa += n;
		bytes -= n;
	}
}
