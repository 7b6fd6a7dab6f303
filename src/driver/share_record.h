/*
 * What a server of a disk knows of the last requests of a proxy (abi/share_disk.h), in a file that
 * is mapped: so it is there still when the program is started again, as what it has written is.
 *
 *   - What was written and not flushed does not live longer than the guest's kernel, and so does
 *     not the record, be the file in memory (/run) or not: it names the boot that it is of. Whoever
 *     serves after that is another disk to its proxies.
 *   - Where there is no such folder, and no other place was named, it is the program's own, and
 *     ends with that.
 *   - It is of one file or device, by its numbers and size; of another one it begins anew.
 *   - An outcome has its number last: who is killed meanwhile has not recorded it.
 *   - One program has it at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "abi/share_disk.h"

enum { SHARE_RECORD_BOOT_BYTES = 40 };

/* What came of a request; number 0: nothing is known. */
struct share_outcome { uint64_t number, window; uint32_t act, status; };

struct share_record {
	uint64_t magic;
	uint64_t device, inode, size_bytes;
	char boot[SHARE_RECORD_BOOT_BYTES]; /* zeros: the kernel does not say */
	uint8_t id[16]; /* of the disk */
	uint64_t session;
	struct share_outcome outcome[SHARE_DISK_SPAN];
};

/*
 * Of the file at `path`, whose state is *st; where: NULL, or where the record is. 0; -EBUSY:
 * another program has it; -errno.
 */
int share_record_open(const char *path, const struct stat *st, uint64_t size_bytes,
		      const char *where, struct share_record **ret);
/* A proxy's; another one's begins anew. */
void share_record_begin(struct share_record *record, uint64_t session);
/* NULL: it is not known, or a later one has its place. */
const struct share_outcome *share_record_find(const struct share_record *record, uint64_t number);
void share_record_put(struct share_record *record, const struct share_outcome *outcome);
