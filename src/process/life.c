/* The table of a machine's life, see life.h. */
#include "life.h"

#include <assert.h>

#define TO(state) (1u << LIFE_##state)

static const struct life_row {
	const char *name;
	uint64_t time_ms;
	enum life_state then;
	unsigned to;
} rows[LIFE_STATES] = {
	[LIFE_STARTING] = { .name = "starting",
			    .to = TO(RUNNING) | TO(ASKING) | TO(STOPPING) | TO(ENDED) | TO(KILLED) |
				  TO(GONE) },
	[LIFE_RUNNING] = { .name = "running",
			   .to = TO(ASKING) | TO(STOPPING) | TO(ENDED) | TO(KILLED) | TO(GONE) },
	[LIFE_ASKING] = { .name = "asking",
			  .time_ms = 500,
			  .then = LIFE_STOPPING,
			  .to = TO(POWERING_OFF) | TO(STOPPING) | TO(ENDED) | TO(KILLED) |
				TO(GONE) },
	[LIFE_POWERING_OFF] = { .name = "powering off",
				.time_ms = 30000,
				.then = LIFE_STOPPING,
				.to = TO(STOPPING) | TO(ENDED) | TO(KILLED) | TO(GONE) },
	[LIFE_STOPPING] = { .name = "stopping",
			    .time_ms = 500,
			    .then = LIFE_KILLED,
			    .to = TO(ENDED) | TO(KILLED) | TO(GONE) },
	[LIFE_ENDED] = { .name = "ended",
			 .time_ms = 10000,
			 .then = LIFE_KILLED,
			 .to = TO(KILLED) | TO(GONE) },
	[LIFE_KILLED] = { .name = "killed", .to = TO(GONE) },
	[LIFE_GONE] = { .name = "gone" },
};

void check_life(const struct life *life)
{
	assert(life->state < LIFE_STATES);
	assert(!rows[life->state].time_ms == !life->deadline_ms);
	assert(!(rows[life->state].to & ((2u << life->state) - 1))); /* never back */
}

bool life_can_move(const struct life *life, enum life_state to)
{
	assert(to < LIFE_STATES);
	return rows[life->state].to & (1u << to);
}

void life_move(struct life *life, enum life_state to, uint64_t now_ms)
{
	assert(life_can_move(life, to));
	life->state = to;
	life->deadline_ms = rows[to].time_ms ? now_ms + rows[to].time_ms : 0;
	check_life(life);
}

enum life_state life_due(const struct life *life, uint64_t now_ms)
{
	return life->deadline_ms && now_ms >= life->deadline_ms ? rows[life->state].then
								: life->state;
}

const char *life_name(enum life_state state)
{
	assert(state < LIFE_STATES);
	return rows[state].name;
}
