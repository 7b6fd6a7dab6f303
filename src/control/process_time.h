/* How long a process of this host has run, as /proc says it. */
#pragma once

#include <stdint.h>

/* User's and kernel's, in ticks of sysconf(_SC_CLK_TCK); of one that is gone 0. */
uint64_t process_ticks(long long pid);
