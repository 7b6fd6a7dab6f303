/*
 * XXH3 with vectors of 32 bytes: twice as fast, and the same digest. hash_wide.c alone is compiled
 * for processors that have them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

bool hash_wide_is_there(void);
/* state: an XXH3_state_t that was reset for 128 bits. */
void hash_wide_add(void *state, const void *at, size_t bytes);
