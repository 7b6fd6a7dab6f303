/*
 * A machine that arrives (wire/parcel.h): what umbra listen does with one connection of somebody
 * who has the key, in a process of its own.
 *
 *   FOLDER/umbra-parcel-ID        the file of the machine, with holes; mode 0600, locked by who
 *                                 fills it; removed when he ends
 *   FOLDER/umbra-parcel-ID.line   where he takes further connections of the same id
 *
 * Who takes the first connection of an id stays until all of the file is there, or the machine has
 * ended, and the sender was told so, or no connection has come for wait_s. He starts the machine
 * once what it begins with has come, and tells its pager (process/pager_main.c) which blocks there
 * are; what that wants he asks for.
 *
 * With a folder for them the files of its disks come as well, behind that; who reads these asks for
 * blocks as the pager does (process/extents.h). When the machine ends before they are all there,
 * they come nevertheless: what it has flushed is made on them.
 *
 *   - What comes is hostile, and so is what the pager says: a block is written where nothing was
 *     yet, at its place, when it is what its checksum says.
 *   - A connection that is lost is waited for. Then the pager's line ends, and so does the machine,
 *     which says why.
 *   - He never waits for the pager, and for a connection no longer than
 *     wire_line.h says.
 */
#pragma once

#include <stdint.h>

#include "spare.h"
#include "wire_line.h"

struct arrival_place {
	const char *folder;
	const char *disks; /* where disks land, absolute (landing.h); NULL: they are here already */
	const struct share_plan *ports; /* of a machine that has such */
	const struct arrival_permits *permits;
	uint64_t most_bytes; /* of one file */
	unsigned wait_s;
	int begun; /* closed once a machine has begun, or will not */
};

/*
 * The line is closed, or given to who has it from then on. spare: who was begun for the machine
 * (spare.h).
 */
void arrival_serve(const struct arrival_place *place, struct wire_line *line, struct spare *spare);
/* Of who is gone for an hour. */
void arrival_remove_old(const char *folder);
