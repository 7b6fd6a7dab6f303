/*
 * How much of a machine's memory its pager has still to bring: memory that the pager writes, and
 * the broker shows to who asks (control/machine_control.h).
 *
 *   - Each number is written and read at once: nobody waits, and nothing of it grows.
 *   - A lost pager writes what it likes. The broker reads it once each time that it is asked for,
 *     and says no more than the machine has memory.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/* 0: all is there, or nothing comes while it runs. */
struct pager_left {
	_Atomic uint64_t bytes;
	_Atomic uint64_t disk_bytes; /* of disks that arrive with it */
};

enum { PAGER_LEFT_MEMORY_BYTES = 4096 };
_Static_assert(sizeof(struct pager_left) <= PAGER_LEFT_MEMORY_BYTES, "a page");
