/*
 * Code that nobody changes: a process was forked, and copies what it has of this engine's, while
 * processors here go on already.
 *
 *   code_held: 0 free, 1 held, 2 held and waited for
 *
 *   - It is held only while no processor runs, by soft_engine_hold_code(). Until it is free no byte
 *     of code that was there then changes, in either view.
 *   - Who would change code takes the lock by soft_acquire_code(), and has it only while code is
 *     free. Who waits there may be inside (exclusive.c): who wants to be alone waits as long.
 *   - To let go of it needs no lock, so that whoever says that it is free waits for nobody.
 */
#include <assert.h>

#include "code.h"

enum { FREE, HELD, WAITED_FOR };

bool soft_code_is_held(const struct soft_engine *engine)
{
	return __atomic_load_n(&engine->code_held, __ATOMIC_ACQUIRE) != FREE;
}

/* Or it has become free meanwhile. */
static void wait_until_free(struct soft_engine *engine)
{
	uint32_t held = HELD;

	if (__atomic_compare_exchange_n(&engine->code_held, &held, WAITED_FOR, false,
					__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ||
	    held == WAITED_FOR)
		soft_wait(&engine->code_held, WAITED_FOR);
}

void soft_acquire_code(struct soft_engine *engine)
{
	soft_acquire(&engine->lock);
	while (soft_code_is_held(engine)) {
		soft_release(&engine->lock);
		wait_until_free(engine);
		soft_acquire(&engine->lock);
	}
}

void soft_engine_hold_code(struct engine *opaque)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;

	soft_acquire(&engine->lock);
	assert(!engine->inside && !soft_code_is_held(engine));
	__atomic_store_n(&engine->code_held, HELD, __ATOMIC_SEQ_CST);
	soft_release(&engine->lock);
}

void soft_engine_release_code(struct engine *opaque)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;

	if (__atomic_exchange_n(&engine->code_held, FREE, __ATOMIC_SEQ_CST) == WAITED_FOR)
		soft_wake_all(&engine->code_held);
}
