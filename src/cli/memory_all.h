/*
 * umbra memory without a name: all machines whose memory is adjusted, as their balancer knows
 * them.
 */
#pragma once

#include <stdbool.h>

struct memory_all {
	bool json, live, history;
	const char *svg, *reserve; /* a file; a size; NULL */
};

/* The exit code. */
int memory_all(const struct memory_all *wanted);
