/*
 * Frees what nobody needs any more, as a list of ranges says. Each goes by disk_zero(), which is as
 * safe against a power cut as any write: a range that was not reached still has its old content,
 * which nobody asks for. Done again, it goes on.
 */
#include "disk/digest.h"
#include "disk/disk_internal.h"

/* What the file has at an offset, at most `bytes`; *ret_bytes of it. False: nothing. */
static int find_present(struct disk *disk, uint64_t offset, uint64_t bytes, bool *ret,
			uint64_t *ret_bytes)
{
	struct disk_range range;
	int error = disk_range(disk, offset, bytes, &range);

	*ret = !error && range.kind == DISK_RANGE_PRESENT;
	*ret_bytes = error ? 0 : range.bytes;
	return error;
}

/* *ret_bytes: how many of them. */
typedef int present_act(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes);

static int count_only(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
	(void)disk;
	(void)offset;
	*ret_bytes = bytes;
	return 0;
}

static int zero(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
	*ret_bytes = bytes;
	return disk_zero(disk, offset, bytes);
}

static int give_back(struct disk *disk, const struct disk_extent *extent, size_t count,
		     const struct disk_job *job, uint64_t *ret_bytes)
{
	int error = 0;

	for (size_t n = 0; n < count && !error; n++) {
		uint64_t done = 0;

		error = job_step(job, n, count);
		if (error)
			break;
		digest_touch(disk, extent[n].offset, extent[n].bytes);
		error = disk->driver->give_back(disk, extent[n].offset, extent[n].bytes, &done);
		digest_written(disk, extent[n].offset, extent[n].bytes);
		*ret_bytes += done;
	}
	return error;
}

static int each_present(struct disk *disk, const struct disk_extent *extent, size_t count,
			const struct disk_job *job, present_act *act, uint64_t *ret_bytes)
{
	int error = 0;

	*ret_bytes = 0;
	for (size_t n = 0; n < count && !error; n++) {
		uint64_t end = extent[n].offset + extent[n].bytes;
		uint64_t bytes, done;

		error = job_step(job, n, count);
		for (uint64_t at = extent[n].offset; at < end && !error; at += bytes) {
			bool present;

			error = find_present(disk, at, end - at, &present, &bytes);
			if (error || !present)
				continue;
			error = act(disk, at, bytes, &done);
			*ret_bytes += done;
		}
	}
	return error;
}

int disk_count_present(struct disk *disk, const struct disk_extent *extent, size_t extents,
		       uint64_t *ret_bytes)
{
	return each_present(disk, extent, extents, NULL, count_only, ret_bytes);
}

int disk_shrink(struct disk *disk, const struct disk_extent *extent, size_t count,
		const struct disk_job *job, uint64_t *ret_bytes)
{
	struct disk_info info;
	int error;

	*ret_bytes = 0;
	if (!disk->write)
		return -EROFS;
	if (!disk->driver->zero && !disk->driver->give_back)
		return -ENOTSUP;
	error = disk->driver->give_back ? give_back(disk, extent, count, job, ret_bytes)
					: each_present(disk, extent, count, job, zero, ret_bytes);
	if (!error)
		error = disk_flush(disk);
	disk_info(disk, &info);
	if (!error && disk->format_id == DISK_VHDX && !info.fixed)
		error = disk_compact(disk, job);
	return error;
}
