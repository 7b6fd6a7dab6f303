/*
 * Which code there is, for who profiles the process (engine_take_code()): a ring of notes, one for
 * each block and part that is made. Without notes_code there is no ring, and nothing is noted.
 *
 *  1. head - tail is at most CODE_NOTES, modulo 2^32.
 *
 * One producer, under the engine's lock; one consumer, without it. Neither waits: what finds no
 * room is counted, and gone.
 */
#include <assert.h>

#include "code.h"
#include "lib/check.h"

_Static_assert((CODE_NOTES & (CODE_NOTES - 1)) == 0, "counters wrap");

void check_code_notes(const struct code_notes *notes)
{
	assert(notes->head - __atomic_load_n(&notes->tail, __ATOMIC_ACQUIRE) <= CODE_NOTES);
}

static void put(struct code_notes *notes, const struct engine_code *code)
{
	const uint32_t head = notes->head;

	if (head - __atomic_load_n(&notes->tail, __ATOMIC_ACQUIRE) == CODE_NOTES) {
		__atomic_store_n(&notes->lost, notes->lost + 1, __ATOMIC_RELAXED);
		return;
	}
	notes->note[head % CODE_NOTES] = *code;
	__atomic_store_n(&notes->head, head + 1, __ATOMIC_RELEASE);
	CHECK(check_code_notes(notes));
}

void soft_note_code(struct soft_engine *engine, const struct block *b)
{
	const struct block *owner = b->form == BLOCK_PART ? &engine->blocks[b->parent] : b;

	if (!engine->notes)
		return;
	put(engine->notes, &(struct engine_code){
				   .hva = (uint64_t)(engine->code_run + b->host_offset),
				   .gva = owner->gva,
				   .bytes = b->host_bytes });
}

void soft_note_thunks(struct soft_engine *engine)
{
	if (engine->notes)
		put(engine->notes, &(struct engine_code){ .hva = (uint64_t)engine->code_run,
							  .gva = ENGINE_CODE_OWN,
							  .bytes = CODE_THUNK_BYTES });
}

unsigned soft_engine_take_code(struct engine *engine, struct engine_code *ret, unsigned most,
			       uint64_t *ret_lost)
{
	struct code_notes *notes = ((struct soft_engine *)engine)->notes;
	uint32_t there;

	*ret_lost = 0;
	if (!notes)
		return 0;
	there = __atomic_load_n(&notes->head, __ATOMIC_ACQUIRE) - notes->tail;
	assert(there <= CODE_NOTES);
	if (there > most)
		there = most;
	for (uint32_t n = 0; n < there; n++)
		ret[n] = notes->note[(notes->tail + n) % CODE_NOTES];
	__atomic_store_n(&notes->tail, notes->tail + there, __ATOMIC_RELEASE);
	*ret_lost = __atomic_load_n(&notes->lost, __ATOMIC_RELAXED);
	return there;
}
