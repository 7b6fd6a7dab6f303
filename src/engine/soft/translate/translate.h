/* The translate room: from guest code to host code. */
#pragma once

#include "engine/soft/soft_internal.h"

struct block;

/* Of soft_engine.translation. */
size_t soft_translation_bytes(void);
/*
 * Under the lock, with room in the open region: a block for state.rip, which is gpa; second_gpa:
 * the page behind it, or 0. NULL: *fault.
 */
struct block *soft_translate(struct soft_cpu *cpu, uint64_t gpa, uint64_t second_gpa, uint32_t mode,
			     struct fault *fault);
/*
 * Under the lock, with room in the open region: the cold part that this stub of the block stands
 * for. Where to go on: what its other stubs lead to as well from now on.
 */
void *soft_translate_part(struct soft_engine *engine, struct block *b, unsigned stub);
/*
 * Under the lock: what the dispatcher wants when there is to be no such part. The instruction has
 * not begun, and is to be the next one, in a block of its own; or it was a jump that was taken.
 */
void soft_leave_at_stub(struct soft_cpu *cpu, const struct block *b, unsigned stub);
