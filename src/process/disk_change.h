/*
 * Disks that come, go and grow while their machine runs, in the disk process: it opens no files, so
 * the user's side has opened those of a chain, as the policies allow, and has passed them on by the
 * broker (layer.h): the lowest parent first. Here each is opened as every disk is: locked, checked,
 * compared with what its child knows of it.
 *
 *   user: umbra disk attach -- files --> broker == FILE, FILE, ... the last ==> disk process
 *                                               <== CHANGED ================
 *
 *  1. A chain that was begun is one at a time; what came of a part of it is closed when another one
 *     begins or this one fails.
 *  2. A file beside a disk (PATH.umbra) is read where it came along, and never replaced.
 */
#pragma once

#include "ipc/block.h"
#include "layer.h"

struct disk_queue;
struct disk_changes;

/*
 * Of all places, whose disk is NULL where there is none, and which have queues; writes: which are
 * written. They stay the caller's, and are changed. NULL: no memory.
 */
struct disk_changes *disk_changes_begin(struct disk **disks, struct disk_queue **queues,
					bool *writes, unsigned count);
/* One more file, whose descriptors are taken over; side -1: nothing lies beside it. 0 or -errno. */
int disk_changes_file(struct disk_changes *changes, const struct layer_ask *ask, int file, int side,
		      struct block_disk *ret);
int disk_changes_detach(struct disk_changes *changes, uint32_t disk);
int disk_changes_resize(struct disk_changes *changes, const struct layer_ask *ask,
			struct block_disk *ret);
/* What no disk was made of. What lies beside disks is read no more. */
void disk_changes_end(struct disk_changes *changes);
