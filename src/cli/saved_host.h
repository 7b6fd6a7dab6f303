/*
 * The host part of a saved machine (vm/saved_file.h): its disks and networks as they were, and
 * how a machine that is restored gets them again.
 *
 *  1. A disk that was written is frozen beneath the moment of the save: a restored machine goes on
 *     in a file of its own that is made on it. One that was read is the same file.
 *  2. A disk is known by its data: the identifier that a VHDX file has of it, the lengths and the
 *     times of all files of any other, and of those in its chain. One that is not as it was is
 *     refused, never used.
 *  3. Networks are as those of a child of umbra fork, but that none leads to services of this host:
 *     a file is not believed that its user has asked for that.
 */
#pragma once

#include <jansson.h>

#include "fork_disks.h"
#include "fork_nets.h"
#include "process/plan.h"

struct landing;
struct arrival_permits;

/* Of a machine that arrives (arrival.h). */
struct saved_arrival {
	const struct landing *landing; /* where its disks land, of which no path in the file is
					* used; NULL: they are here */
	const struct arrival_permits *permits;
};

/*
 * What `info` says of a machine with these disks, which stand still: JSON text, to be freed. 0 or
 * the exit code.
 */
int saved_host_text(const struct fork_disks *disks, const json_t *info, char **ret);
/*
 * The host part of a file into the plan of a machine that is called `name` (NULL: it has no name):
 * its disks are checked, and files of its own made; its networks are `options`, or where those name
 * none the saved ones. arrival: NULL of a file of the user's own. 0 or the exit code.
 */
int saved_host_take(const char *file, int fd, const char *name, const struct saved_arrival *arrival,
		    struct net_options *options, struct plan *plan);
