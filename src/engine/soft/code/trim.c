/*
 * When an idle machine gives its code back. What a boot ran once is most of what there is, and is
 * never run again; but a machine that sleeps and wakes runs the same again and again.
 *
 *   idle for patience_s, hardly anything made in that time, and worth it
 *       --> everything is given back, what is needed is made again
 *                                          |
 *   the next time that it would be: made again soon, a quarter or more?
 *      yes: it is as patient again, up to MOST_PATIENCE_S      no: half as patient, down to LEAST
 *
 * Soon is: it was not idle for REST_FACTOR times its patience since. So of a guest that wakes every
 * so many seconds code is made again a few times, until its patience is longer than it sleeps; and
 * of one that sleeps longer than the longest patience, once in that time. Where half and more of
 * what there is had been given back before, it stays until then: such a machine needs it.
 *
 *   - Nothing is given back twice without being made in between: there is more than was needed at
 *     once the last time, by a factor and a constant.
 *   - Nobody is stopped for it: who executes comes through the dispatcher in his own time.
 *
 * Left out: which blocks an idle machine still runs. They are made again, some thousand in ten
 * milliseconds, and lie side by side then.
 */
#include <assert.h>

#include "code.h"

/* The first: behind its first pause a boot goes on for a while, and services end. */
enum { FIRST_PATIENCE_S = 60, LEAST_PATIENCE_S = 5, MOST_PATIENCE_S = 640 };
enum { REST_FACTOR = 20, REGRETTED_PART = 4 };
/* In a second: of a guest that is still about something else. */
enum { RESTLESS_BLOCKS = 200 };
/* What is not worth being made again: twice what an idle machine needs, and so much. */
enum { NEEDED_FACTOR = 2, LEAST_BYTES = 1 << 20 };

static bool is_worth_it(const struct code_trim *trim, size_t used)
{
	return used > NEEDED_FACTOR * trim->needed_bytes + LEAST_BYTES;
}

static uint64_t blocks_made(const struct soft_engine *engine)
{
	uint64_t sum = engine->counts.made_first;

	for (unsigned n = 0; n < BLOCK_ENDS; n++)
		sum += engine->counts.made_again[n];
	return sum;
}

static uint64_t made_again(const struct soft_engine *engine)
{
	return engine->counts.made_again[END_EVICTED] - engine->trim.again_until;
}

/* Most of it was given back once, and made again. */
static bool is_needed(const struct soft_engine *engine, size_t used, unsigned idle_s)
{
	const struct code_trim *trim = &engine->trim;
	const uint64_t made = blocks_made(engine) - trim->made_until;
	const size_t again_bytes = made ? (size_t)(used * made_again(engine) / made) : 0;

	return trim->is_done && idle_s < MOST_PATIENCE_S &&
	       used <= NEEDED_FACTOR * again_bytes + LEAST_BYTES;
}

static void judge(struct soft_engine *engine)
{
	struct code_trim *trim = &engine->trim;
	const bool is_regretted = made_again(engine) * REGRETTED_PART >= trim->blocks &&
				  trim->rest_s < REST_FACTOR * trim->patience_s;

	trim->is_judged = true;
	engine->counts.regrets += is_regretted;
	trim->patience_s = is_regretted ? trim->patience_s * 2 : trim->patience_s / 2;
	if (trim->patience_s > MOST_PATIENCE_S)
		trim->patience_s = MOST_PATIENCE_S;
	if (trim->patience_s < LEAST_PATIENCE_S)
		trim->patience_s = LEAST_PATIENCE_S;
}

static void give_all(struct soft_engine *engine, unsigned idle_s)
{
	const uint64_t before = engine->counts.blocks_evicted;

	if (!soft_close_regions(engine))
		return;
	engine->counts.trims++;
	engine->trim = (struct code_trim){
		.is_done = true,
		.is_settling = true,
		.given_at_s = idle_s,
		.patience_s = engine->trim.patience_s,
		.blocks = engine->counts.blocks_evicted - before,
		.again_until = engine->counts.made_again[END_EVICTED],
		.made_until = blocks_made(engine),
		.restless_s = engine->trim.restless_s,
		.made_at_look = engine->trim.made_at_look,
	};
	soft_give_back_regions(engine);
}

/* For how long it has been idle and has run what it had run before. */
static unsigned quiet_s(struct soft_engine *engine, unsigned idle_s)
{
	struct code_trim *trim = &engine->trim;
	const uint64_t made = blocks_made(engine);

	if (idle_s < trim->restless_s)
		trim->restless_s = 0; /* it has been busy since */
	if (made - trim->made_at_look > RESTLESS_BLOCKS)
		trim->restless_s = idle_s;
	trim->made_at_look = made;
	return idle_s - trim->restless_s;
}

/* Under the lock. */
static void look(struct soft_engine *engine, unsigned idle_s)
{
	struct code_trim *trim = &engine->trim;
	const size_t used = soft_code_used(engine);
	const unsigned quiet = quiet_s(engine, idle_s);

	if (!trim->patience_s)
		trim->patience_s = FIRST_PATIENCE_S;
	if (idle_s > trim->rest_s)
		trim->rest_s = idle_s;
	if (trim->is_settling && idle_s > trim->given_at_s)
		trim->needed_bytes = used;
	trim->is_settling = false;
	if (quiet < trim->patience_s || !is_worth_it(trim, used))
		return;
	if (trim->is_done && !trim->is_judged)
		judge(engine);
	if (quiet >= trim->patience_s && !is_needed(engine, used, idle_s))
		give_all(engine, idle_s);
}

void soft_engine_trim(struct engine *opaque, unsigned idle_s)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;

	assert(idle_s);
	soft_acquire_code(engine);
	soft_give_back_regions(engine);
	if (!engine->trim.is_left_out)
		look(engine, idle_s);
	soft_release(&engine->lock);
}
