/*
 * Disks whose files are still arriving from another host (cli/landing.h), for who reads them: who
 * makes a machine's layers on them, then its disk process.
 *
 *   who fills the files                               who reads them
 *   memory: a bit for each block that has come  --->  looks there before it reads
 *   line                                        <---  these blocks are wanted
 *                                               --->  something that was wanted has come
 *
 *   - Nothing is read of a block whose bit is not set, and a bit is set once the block is written.
 *     The reader maps the bits for reading alone, and cannot map them otherwise.
 *   - When the line ends before all has come, who needs more of it ends the process, and so the
 *     machine, with a code: a guest is given neither zeros nor an error that it would write down.
 *   - Of those that wait one reads the line, and wakes the others. `lock` guards who that is.
 *   - Which files there are is believed as the plan is; what is in them is as hostile as any disk.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "disk/disk.h"
#include "plan.h"

struct extents {
	const struct arriving_plan *plan;
	const uint8_t *bits;
	int line;
	bool is_heard; /* somebody reads the line */
	pthread_mutex_t lock;
	pthread_cond_t news;
};

/* With the line and the memory, which stay the caller's. 0 or -errno. */
int extents_open(struct extents *extents, const struct arriving_plan *plan, int line, int memory);
/* Whether files of this disk arrive. */
bool extents_has(const struct arriving_plan *plan, unsigned disk);
/*
 * The chain of them, for reading, each beneath the one before it. names: what the files are called,
 * by their number; NULL: as they are while they arrive. 0, or as disk_open(), with *why.
 */
int extents_open_chain(struct extents *extents, unsigned disk, char *const *names,
		       struct disk **ret, struct disk_error *why);
