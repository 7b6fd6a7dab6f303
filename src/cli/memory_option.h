/* --memory and --memory-min of umbra run, into the plan of its machine process. */
#pragma once

#include <stdint.h>

#include "process/plan.h"

/*
 * text: SIZE, or start=SIZE,min=SIZE,max=SIZE,buffer=N%,weight=N with any of them left out; NULL:
 * 512M. least: of --memory-min, or NULL. host_bytes: what the host has, and so the most. 0 or the
 * exit code.
 */
int memory_option_take(const char *text, const char *least, uint64_t host_bytes,
		       struct machine_plan *plan);
/* Whether what the guest has is adjusted while it runs. */
bool memory_is_adjusted(const struct machine_plan *plan);
/*
 * Whether what the guest has is adjusted to what others of the user's need, too: --memory said it
 * by words. With --memory-min alone it follows its own guest.
 */
bool memory_is_balanced(const char *text, const struct machine_plan *plan);
