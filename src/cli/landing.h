/*
 * Where the files of an arriving machine's disks land (wire/parcel.h): in the folder that
 * umbra listen --disks names.
 *
 *   DISKS/.umbra-parcel-ID/0, 1, ...  the files, with holes, while they arrive: 0600 in a folder of
 *                                     0700, which is locked by who fills them
 *   DISKS/.umbra-parcel-ID/names      what they may be called, a line each
 *   DISKS/.umbra-parcel-ID/taken      empty
 *   DISKS/NAME.0.vhdx, NAME.0.1.vhdx  disk 0 of machine NAME, what lies beneath it: links of taken
 *                                     until all has come, then the files
 *
 *   - Every name is made here, of the machine's name and numbers: nothing that the sender says is
 *     one. No file is written over: where there is one of that name, a number is added.
 *   - A file has no name by which anybody finds it as a disk before all of it is there and durable:
 *     what did not come is never read as zeros by somebody who knows nothing of it.
 *   - Who fills them never waits for the host's disks: what is made durable is by a process of its
 *     own, so that meanwhile the sender hears that he lives.
 *   - A block is written once. Its bit is set afterwards, in memory that others read alone
 *     (process/extents.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "process/plan.h"
#include "wire/parcel.h"

enum { LANDING_NAME_BYTES = 128 };

struct landing {
	const char *root; /* the folder, absolute */
	const struct parcel_space *space;
	uint64_t first, blocks; /* of all files */
	char folder[LANDING_NAME_BYTES]; /* in the root */
	int root_fd, folder_fd, file[PARCEL_FILES];
	char name[PARCEL_FILES][LANDING_NAME_BYTES];
	uint32_t named;
	uint8_t *bits;
	int memory;      /* the bits, for others */
	int line, there; /* who reads the files has the other end; -1 */
	bool is_whole;
};

/*
 * Of a machine of that name; one without files has no disk here, whatever it says. 0; -ENOSPC: for
 * them there is no room; -EOPNOTSUPP: of a format that cannot land; -EPERM: the sender's policy
 * keeps one there; -errno.
 */
int landing_begin(struct landing *landing, const char *root, const char *machine, const char *id,
		  const struct parcel_space *space);
/* One that has not come yet; NULL: of zeros. 0 or -errno. */
int landing_write(struct landing *landing, uint64_t block, const uint8_t *data);
/*
 * All have come: a process makes them durable, which may take as long as the host's disks need. Its
 * descriptor, or -errno. Once that has ended, with this status: they get their names. 0 or -errno.
 */
int landing_begin_finish(const struct landing *landing, pid_t *ret);
int landing_finish(struct landing *landing, int status);
/* What has not got its name is removed. */
void landing_end(struct landing *landing);
/* How who reads them finds them, and what they are called. 0 or -ENAMETOOLONG. */
int landing_plan(const struct landing *landing, struct arriving_plan *ret);
/* The paths that they are going to have, to be freed. False: no memory. */
bool landing_paths(const struct landing *landing, char *ret[PARCEL_FILES]);
/* Of who is gone for a minute. */
void landing_remove_old(const char *root);
