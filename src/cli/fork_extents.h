/*
 * The files that the disks of a machine lie in, as they were when it was forked: read by who sends
 * it to another place, for who has no such files there (wire/parcel.h).
 *
 *   - They are frozen, or only read, and locked against who would write them, as long as they are
 *     open here: what is read twice is the same.
 *   - One whose image's policy forbids that it is exported is named, and never read.
 */
#pragma once

#include "disk/file.h"
#include "fork_disks.h"
#include "wire/parcel.h"

struct fork_extents {
	struct parcel_space space;
	struct disk_file file[PARCEL_FILES];
	unsigned open; /* so many of them are */
};

/* Behind a machine of so many bytes. 0 or the exit code; then nothing is open. */
int fork_extents_open(struct fork_extents *extents, const struct fork_disks *disks,
		      uint64_t machine_bytes);
/* A block of a file, with zeros behind its end. 0; -EPERM: it is kept; -errno. */
int fork_extents_read(const struct fork_extents *extents, uint64_t block,
		      uint8_t to[PARCEL_PIECE_BYTES]);
void fork_extents_close(struct fork_extents *extents);
