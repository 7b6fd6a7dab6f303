/*
 * What is left of a disk, into a new one: what cannot be read is zero there, and reported. Looked
 * for by halves, down to a sector; of a piece of which neither end can be read, because the file
 * does not have it, nothing else is tried.
 */
#include <stdlib.h>
#include <string.h>

#include "disk/disk_internal.h"

enum { STEP_BYTES = 1 << 20, PIECE_BYTES = 64 << 10 };

struct rescue {
	struct disk *from, *to;
	const struct disk_job *job;
	disk_loss_report *report;
	void *context;
	uint8_t *buffer;
	uint64_t lost_at, lost_bytes; /* not yet reported: what follows may belong to it */
	int lost_why;
};

static int tell(struct rescue *rescue)
{
	uint64_t bytes = rescue->lost_bytes;

	rescue->lost_bytes = 0;
	return bytes ? rescue->report(rescue->context, rescue->lost_at, bytes, rescue->lost_why)
		     : 0;
}

static int lose(struct rescue *rescue, uint64_t at, uint64_t bytes, int why)
{
	int result = 0;

	if (rescue->lost_bytes &&
	    (rescue->lost_at + rescue->lost_bytes != at || rescue->lost_why != why))
		result = tell(rescue);
	if (!rescue->lost_bytes)
		rescue->lost_at = at;
	rescue->lost_bytes += bytes;
	rescue->lost_why = why;
	return result;
}

static int keep(struct rescue *rescue, uint64_t at, uint64_t bytes)
{
	return is_zero(rescue->buffer, bytes) ? 0
					      : disk_write(rescue->to, at, rescue->buffer, bytes);
}

/* Whether one entry of its tables, and of each parent's, says where all of it is. */
static bool is_of_one_entry(const struct disk *disk, uint64_t at, uint64_t bytes)
{
	for (; disk; disk = disk_parent(disk))
		if (!disk->block_bytes ||
		    at / disk->block_bytes != (at + bytes - 1) / disk->block_bytes)
			return false;
	return true;
}

/* The file does not have it, which holds for as much as its tables say with one entry. */
static bool is_lost_whole(struct rescue *rescue, uint64_t at, uint64_t bytes, int why)
{
	uint32_t sector = rescue->from->sector_bytes;

	if (bytes > PIECE_BYTES || (why != -ENODATA && why != -EBADMSG) ||
	    !is_of_one_entry(rescue->from, at, bytes))
		return false;
	return disk_read(rescue->from, at, rescue->buffer, sector) == why &&
	       disk_read(rescue->from, at + bytes - sector, rescue->buffer, sector) == why;
}

static int take(struct rescue *rescue, uint64_t at, uint64_t bytes)
{
	uint32_t sector = rescue->from->sector_bytes;
	int why = disk_read(rescue->from, at, rescue->buffer, bytes);
	uint64_t half = bytes / 2 / sector * sector;
	int result;

	if (!why)
		return keep(rescue, at, bytes);
	if (why == -ENOMEM)
		return why;
	if (!half || is_lost_whole(rescue, at, bytes, why))
		return lose(rescue, at, bytes, why);
	result = take(rescue, at, half);
	return result ? result : take(rescue, at + half, bytes - half);
}

/* One range that is the same, of a part: what only a parent has, which is not there, is lost. */
static int take_range(struct rescue *rescue, uint64_t at, uint64_t bytes, uint64_t *ret_bytes)
{
	struct disk *from = rescue->from;
	struct disk_range range;
	int error = disk_range(from, at, bytes, &range);

	*ret_bytes = error || range.bytes > STEP_BYTES ? STEP_BYTES : range.bytes;
	if (*ret_bytes > bytes)
		*ret_bytes = bytes;
	if (error || range.kind == DISK_RANGE_PRESENT ||
	    (range.kind == DISK_RANGE_ABSENT && from->parent))
		return take(rescue, at, *ret_bytes);
	*ret_bytes = range.bytes;
	return range.kind == DISK_RANGE_ZERO ? 0 : lose(rescue, at, range.bytes, -ENOENT);
}

int disk_rescue(struct disk *from, struct disk *to, const struct disk_job *job,
		disk_loss_report *report, void *context)
{
	struct rescue rescue = {
		.from = from, .to = to, .job = job, .report = report, .context = context
	};
	uint64_t bytes;
	int result = to->write && to->size_bytes == from->size_bytes ? 0 : -EINVAL;

	rescue.buffer = malloc(STEP_BYTES);
	if (!rescue.buffer)
		result = -ENOMEM;
	for (uint64_t at = 0; at < from->size_bytes && !result; at += bytes) {
		result = job_step(job, at, from->size_bytes);
		if (!result)
			result = take_range(&rescue, at, from->size_bytes - at, &bytes);
		if (result)
			break;
	}
	if (!result)
		result = tell(&rescue);
	free(rescue.buffer);
	return result;
}
