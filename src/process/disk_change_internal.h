/* What disk_change.c knows of disks that come, and of those that have come. */
#pragma once

#include "disk/disk_internal.h"
#include "disk_change.h"

/* What came along with a file; of the place that its disk is in. */
struct given_side {
	struct disk_side_keeper keeper;
	int file;
	struct given_side *next;
};

struct disk_changes {
	struct disk **disks;
	struct disk_queue **queues;
	bool *writes;
	unsigned count;
	struct given_side *sides[BLOCK_DISKS];
	/* of the chain that has begun: what is open of it */
	struct disk *below;
	struct given_side *sides_below;
};

/*
 * What invariants 1 and 2 come to: what came along is there once for each file of the chain that
 * has begun, of a disk no more often than it has files (layers bring none), and of no disk never.
 */
void check_disk_changes(const struct disk_changes *changes);
