/* See share.h. */
#include "share.h"

#include <stdbool.h>

/* Those that may still get more, and their weights together. */
static uint64_t open_weight(const struct share *share, size_t count)
{
	uint64_t weight = 0;

	for (size_t n = 0; n < count; n++)
		if (share[n].ret < share[n].high)
			weight += share[n].weight;
	return weight;
}

/* One round: each its part of `rest`, as far as it takes it. What was given. */
static uint64_t give(struct share *share, size_t count, uint64_t rest, uint64_t weight)
{
	uint64_t given = 0;

	for (size_t n = 0; n < count; n++) {
		uint64_t part = (uint64_t)((unsigned __int128)rest * share[n].weight / weight);
		uint64_t room = share[n].high - share[n].ret;

		if (share[n].ret >= share[n].high)
			continue;
		part = part < room ? part : room;
		share[n].ret += part;
		given += part;
	}
	return given;
}

void share_out(struct share *share, size_t count, uint64_t all)
{
	uint64_t weight;
	uint64_t given = 1;

	for (size_t n = 0; n < count; n++) {
		share[n].ret = share[n].low;
		all = all > share[n].low ? all - share[n].low : 0;
	}
	/* each round but the last one fills somebody up */
	for (size_t round = 0; round <= count && given; round++) {
		weight = open_weight(share, count);
		given = weight ? give(share, count, all, weight) : 0;
		all -= given;
	}
}
