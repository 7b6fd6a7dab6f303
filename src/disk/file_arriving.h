/*
 * A file that is still arriving from another host, for reading: what has not come is waited for.
 *
 *   - Nothing is read of a range before all of it has come. One that does not come is an error,
 *     never zeros.
 *   - It is never written here, and gives no descriptor: nobody reads past the waiting.
 */
#pragma once

#include "file.h"

/*
 * wait: until these bytes, from `offset` of the file that begins at block `first`, have come; 0 or
 * -errno. Called by several threads at once. The context stays the caller's, as long as the file is
 * open.
 */
struct file_arrivals {
	int (*wait)(void *context, uint64_t first, uint64_t offset, uint64_t bytes);
	void *context;
	uint64_t first;
};

/* `below` is taken over in any case. 0 or -ENOMEM. */
int disk_file_arriving(struct disk_file below, const struct file_arrivals *arrivals,
		       struct disk_file *ret);
