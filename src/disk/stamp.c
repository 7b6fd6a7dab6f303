/*
 * What the host says of the files that a disk's own data lies in, as one stamp: all their bytes,
 * the last times that any of them has, and when the first of them was asked. So the extents of a
 * VMDK descriptor count as it does. A file that tells nothing (a block device) leaves nothing
 * known.
 */
#include "disk_internal.h"

#include <time.h>

static int add_stamp(void *context, const struct file_stamp *more)
{
	struct file_stamp *all = context;

	all->file_bytes += more->file_bytes;
	if (more->mtime_ns > all->mtime_ns)
		all->mtime_ns = more->mtime_ns;
	if (more->ctime_ns > all->ctime_ns)
		all->ctime_ns = more->ctime_ns;
	if (more->taken_ns < all->taken_ns)
		all->taken_ns = more->taken_ns;
	return 0;
}

void disk_stamp_add(const struct disk_file *file, struct file_stamp *all)
{
	struct file_stamp more;

	file_stamp_take(file, &more);
	add_stamp(all, &more);
}

void disk_stamp_take(const struct disk *disk, struct file_stamp *ret)
{
	file_stamp_take(&disk->file, ret);
	if (disk->driver->further_files)
		disk->driver->further_files(disk, add_stamp, ret);
}

/* The clock of files goes in ticks. */
static uint64_t tick_ns(void)
{
	struct timespec tick;

	if (clock_getres(CLOCK_REALTIME_COARSE, &tick))
		return 20000000;
	return (uint64_t)tick.tv_sec * 1000000000 + (uint64_t)tick.tv_nsec + 1000000;
}

void disk_stamp_settle(const struct disk *disk, struct file_stamp *ret)
{
	disk_stamp_take(disk, ret);
	if (!ret->taken_ns || ret->ctime_ns + tick_ns() < ret->taken_ns)
		return;
	nanosleep(&(struct timespec){ .tv_nsec = (long)tick_ns() }, NULL);
	disk_stamp_take(disk, ret);
}

bool disk_stamp_holds(const struct disk *disk, const struct file_stamp *stamp)
{
	struct file_stamp now;

	disk_stamp_take(disk, &now);
	return stamp->taken_ns && stamp->taken_ns <= now.taken_ns &&
	       stamp->ctime_ns + tick_ns() < stamp->taken_ns &&
	       now.file_bytes == stamp->file_bytes && now.mtime_ns == stamp->mtime_ns &&
	       now.ctime_ns == stamp->ctime_ns;
}
