/* What there is, among those who want it, by weight. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* From `low` to `high`; *ret gets what falls to it. */
struct share {
	uint64_t low, high, weight, ret;
};

/*
 * Everybody gets low, which together is not more than `all`; of the rest each by weight, nobody
 * more than high. What is given is never more than `all`.
 */
void share_out(struct share *share, size_t count, uint64_t all);
