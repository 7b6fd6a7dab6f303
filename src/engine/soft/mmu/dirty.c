/*
 * The dirty log: which frames were written since it was last taken.
 *
 *   writer                                       soft_engine_take_dirty()
 *   mark the frame, or write and then mark       take the marks back
 *   write by an entry until a flush              flush everything of every processor, and wait
 *                                                for it
 *                                                ... then the pages are read
 *
 *    - Who gets an entry of a write table marks its frame; so do the walker for a table whose A
 *      or D it sets, and every write in C.
 *    - A mark that was taken back before the write it was for: the write is over when the flush
 *      is, and so in what is read afterwards. One that was set after: the frame is in the next
 *      call, too. Nothing is missed; some is told twice.
 *    - After the flush no write entry is left, so that the next write marks again.
 *    - A frame whose mark was taken back is FRAME_TAKEN for good, and so is one that had something
 *      before the engine was there: one that is neither was never written.
 *
 * Beside it, for as long as somebody wants to know, which frames processors come to: who has an
 * entry or a way in a jump cache is not seen again until a flush, as of a write.
 */
#include <assert.h>

#include "engine/soft/code/code.h"
#include "mmu.h"

enum { MARKS_IN_WORD = 8 };

uint64_t soft_engine_take_dirty(struct engine *opaque, uint64_t *dirty)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	uint64_t frames = guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES;
	uint64_t count = 0;
	const uint64_t marks = 0x0101010101010101ull * FRAME_DIRTY;

	for (uint64_t n = 0; n < frames; n++) {
		uint64_t word;

		if (n % MARKS_IN_WORD == 0 && n + MARKS_IN_WORD <= frames) {
			memcpy(&word, engine->frame_flags + n, sizeof(word));
			if (!(word & marks)) {
				n += MARKS_IN_WORD - 1;
				continue;
			}
		}
		if (!(engine->frame_flags[n] & FRAME_DIRTY))
			continue;
		__atomic_fetch_or(&engine->frame_flags[n], FRAME_TAKEN, __ATOMIC_SEQ_CST);
		__atomic_fetch_and(&engine->frame_flags[n], (uint8_t)~FRAME_DIRTY,
				   __ATOMIC_SEQ_CST);
		dirty[n / 64] |= 1ull << n % 64;
		count++;
	}
	soft_forget_everywhere(engine);
	return count;
}

void soft_engine_find_written(struct engine *opaque, uint64_t *written)
{
	const struct soft_engine *engine = (const struct soft_engine *)opaque;
	const uint64_t frames =
		guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES;

	for (uint64_t n = 0; n < frames; n++)
		if (engine->frame_flags[n] & (FRAME_DIRTY | FRAME_TAKEN))
			written[n / 64] |= 1ull << n % 64;
}

void soft_engine_note_written(struct engine *opaque, uint64_t frame, uint64_t frames)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;

	assert(frame + frames <=
	       guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES);
	for (uint64_t n = frame; n < frame + frames; n++)
		__atomic_fetch_or(&engine->frame_flags[n], FRAME_TAKEN, __ATOMIC_RELAXED);
}

void soft_engine_note_use(struct engine *opaque, bool notes)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	const uint64_t frames =
		guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES;

	if (notes)
		soft_forget_uses(engine);
	__atomic_store_n(&engine->notes_use, notes, __ATOMIC_SEQ_CST);
	for (uint64_t n = 0; n < frames && notes; n++)
		if (engine->frame_flags[n] & FRAME_USED)
			__atomic_fetch_and(&engine->frame_flags[n], (uint8_t)~FRAME_USED,
					   __ATOMIC_SEQ_CST);
}

void soft_engine_find_used(struct engine *opaque, uint64_t *used, uint64_t most)
{
	const struct soft_engine *engine = (const struct soft_engine *)opaque;
	const uint64_t frames =
		guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES;

	for (uint64_t n = 0; n < frames && most; n++) {
		if (!(engine->frame_flags[n] & FRAME_USED))
			continue;
		used[n / 64] |= 1ull << n % 64;
		most--;
	}
}
