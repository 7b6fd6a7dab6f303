/* The translate room: from guest code to host code. */
#pragma once

#include "engine/soft/soft_internal.h"

struct block;

/* Of soft_engine.translation. */
size_t soft_translation_bytes(void);
/*
 * Guest code: rip, which is gpa; second_page: 1 more than the frame of the page behind it, or 0:
 * none. cs_*: where it is not code of 64 bits.
 */
struct code_place { uint64_t rip, gpa, second_page, cs_base; uint32_t cs_limit, mode; };
/* Under the lock, with room in the open region: a block for it. NULL: *fault. */
struct block *soft_translate(struct soft_engine *engine, const struct code_place *place,
			     struct fault *fault);
/*
 * The same of 64-bit code that lies in one page, as a trace. NULL: it would be as that, or not all
 * of it can be in one.
 */
struct block *soft_translate_trace(struct soft_engine *engine, const struct code_place *place);
/*
 * Where in its page the instruction of a trace is that begins so many bytes into those that were
 * kept.
 */
unsigned soft_trace_place(const struct soft_engine *engine, const struct block *b, unsigned at);
/*
 * The same without the lock, a draft by one thread at a time (translate_draft.c): begun; made,
 * where false is that there is none; and taken under the lock, with room in the open region, when
 * its page is protected. NULL: the guest's bytes are others by now, or it does not fit.
 */
size_t soft_draft_bytes(void);
void soft_begin_draft(struct soft_engine *engine, struct draft *draft);
bool soft_make_draft(struct soft_engine *engine, struct draft *draft,
		     const struct code_place *place);
struct block *soft_take_draft(struct soft_engine *engine, struct draft *draft);
/* As soft_translate_part(), of the block that was taken last, before the lock is given up. */
void *soft_translate_draft_part(struct draft *draft, struct block *b, unsigned stub);
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
