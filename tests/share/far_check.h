/* What tests of far sides have in common: TAP, and numbers that are the same each time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

static unsigned checks, bad;
static uint64_t seed = 88172645463325252ull;

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

static uint32_t random_below(uint32_t limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 32) % limit;
}
