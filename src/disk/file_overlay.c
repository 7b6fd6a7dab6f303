/* See file_overlay.h. */
#include "file_overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/check.h"

struct changed_range {
	uint64_t offset, bytes;
	uint8_t *data; /* NULL: zeros */
};

struct file_overlay {
	struct disk_file below;
	struct changed_range *ranges;
	size_t count, room;
	uint64_t data_bytes;
	uint64_t file_bytes; /* as it would be; 0: as it is */
};

static void check_overlay(const struct file_overlay *overlay)
{
	for (size_t n = 0; n + 1 < overlay->count; n++) /* invariant 1 */
		assert(overlay->ranges[n].offset + overlay->ranges[n].bytes <=
		       overlay->ranges[n + 1].offset);
	assert(overlay->count <= OVERLAY_RANGES_MAX && overlay->data_bytes <= OVERLAY_BYTES_MAX);
}

/* The first range that ends behind an offset. */
static size_t find_range(const struct file_overlay *overlay, uint64_t offset)
{
	size_t low = 0;
	size_t high = overlay->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct changed_range *range = &overlay->ranges[middle];

		if (range->offset + range->bytes <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* ---- changing ---- */

static int make_room(struct file_overlay *overlay)
{
	size_t room = overlay->room ? overlay->room * 2 : 64;
	struct changed_range *more;

	if (overlay->count + 2 > OVERLAY_RANGES_MAX)
		return -EFBIG;
	if (overlay->count + 2 <= overlay->room)
		return 0;
	more = realloc(overlay->ranges, room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	overlay->ranges = more;
	overlay->room = room;
	return 0;
}

static void insert_at(struct file_overlay *overlay, size_t at, struct changed_range range)
{
	assert(overlay->count < overlay->room);
	memmove(&overlay->ranges[at + 1], &overlay->ranges[at],
		(overlay->count - at) * sizeof(range));
	overlay->ranges[at] = range;
	overlay->count++;
}

static void remove_at(struct file_overlay *overlay, size_t at, size_t count)
{
	if (!count) /* then there may be no ranges at all */
		return;
	for (size_t n = at; n < at + count; n++)
		if (overlay->ranges[n].data) {
			overlay->data_bytes -= overlay->ranges[n].bytes;
			free(overlay->ranges[n].data);
		}
	memmove(&overlay->ranges[at], &overlay->ranges[at + count],
		(overlay->count - at - count) * sizeof(overlay->ranges[0]));
	overlay->count -= count;
}

/* A part of a range, with data of its own. */
static int copy_part(struct file_overlay *overlay, const struct changed_range *whole,
		     uint64_t offset, uint64_t bytes, struct changed_range *ret)
{
	*ret = (struct changed_range){ .offset = offset, .bytes = bytes };
	if (!whole->data)
		return 0;
	if (bytes > OVERLAY_BYTES_MAX - overlay->data_bytes)
		return -EFBIG;
	ret->data = malloc(bytes);
	if (!ret->data)
		return -ENOMEM;
	memcpy(ret->data, whole->data + (offset - whole->offset), bytes);
	overlay->data_bytes += bytes;
	return 0;
}

/* Splits the range that an offset lies within, so that one begins there. */
static int split_at(struct file_overlay *overlay, uint64_t offset)
{
	size_t at = find_range(overlay, offset);
	struct changed_range *range = &overlay->ranges[at];
	struct changed_range behind;
	int error;

	if (at == overlay->count || range->offset >= offset)
		return 0;
	error = make_room(overlay);
	range = &overlay->ranges[at];
	if (!error)
		error = copy_part(overlay, range, offset, range->offset + range->bytes - offset,
				  &behind);
	if (error)
		return error;
	if (range->data)
		overlay->data_bytes -= behind.bytes;
	range->bytes -= behind.bytes;
	insert_at(overlay, at + 1, behind);
	return 0;
}

static int change(struct file_overlay *overlay, uint64_t offset, uint64_t bytes,
		  const uint8_t *data)
{
	const struct changed_range whole = { .offset = offset,
					     .bytes = bytes,
					     .data = (uint8_t *)(uintptr_t)data };
	struct changed_range range;
	size_t first, last;
	int error = bytes > UINT64_MAX - offset ? -EINVAL : make_room(overlay);

	if (!error)
		error = split_at(overlay, offset);
	if (!error)
		error = split_at(overlay, offset + bytes);
	if (!error)
		error = make_room(overlay);
	if (!error)
		error = copy_part(overlay, &whole, offset, bytes, &range);
	if (error)
		return error;
	first = find_range(overlay, offset);
	last = first;
	while (last < overlay->count && overlay->ranges[last].offset < offset + bytes)
		last++;
	remove_at(overlay, first, last - first);
	insert_at(overlay, first, range);
	return 0;
}

/* ---- the file's functions ---- */

static uint64_t size_of(const struct file_overlay *overlay)
{
	int64_t below = file_size(&overlay->below);

	if (overlay->file_bytes)
		return overlay->file_bytes;
	return below < 0 ? 0 : (uint64_t)below;
}

static int overlay_writev(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	struct file_overlay *overlay = context;
	int error = 0;

	for (int n = 0; n < count && !error; n++) {
		error = change(overlay, offset, iov[n].iov_len, iov[n].iov_base);
		offset += iov[n].iov_len;
		if (!error && offset > size_of(overlay))
			overlay->file_bytes = offset;
	}
	CHECK(check_overlay(overlay));
	return error;
}

static int overlay_discard(void *context, uint64_t offset, uint64_t bytes)
{
	return change(context, offset, bytes, NULL);
}

static int overlay_truncate(void *context, uint64_t bytes)
{
	struct file_overlay *overlay = context;
	uint64_t now = size_of(overlay);
	int error = bytes > now ? 0 : change(overlay, bytes, now - bytes, NULL);

	if (!error)
		overlay->file_bytes = bytes;
	return error;
}

/* What of one range lies in one piece of memory that stands for the file from an offset on. */
static void put_range(const struct changed_range *range, uint64_t offset, uint8_t *to, size_t bytes)
{
	uint64_t begin = range->offset > offset ? range->offset : offset;
	uint64_t range_end = range->offset + range->bytes;
	uint64_t end = range_end < offset + bytes ? range_end : offset + bytes;

	if (range->data)
		memcpy(to + (begin - offset), range->data + (begin - range->offset), end - begin);
	else
		memset(to + (begin - offset), 0, end - begin);
}

static int overlay_readv(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	const struct file_overlay *overlay = context;
	int error = file_readv(&overlay->below, offset, iov, count);

	for (int n = 0; n < count && !error; n++) {
		for (size_t at = find_range(overlay, offset);
		     at < overlay->count && overlay->ranges[at].offset < offset + iov[n].iov_len;
		     at++)
			put_range(&overlay->ranges[at], offset, iov[n].iov_base, iov[n].iov_len);
		offset += iov[n].iov_len;
	}
	return error;
}

static int overlay_flush(void *context)
{
	(void)context; /* nothing of it is ever the file's */
	return 0;
}

static int64_t overlay_size(void *context)
{
	const struct file_overlay *overlay = context;
	int64_t below = file_size(&overlay->below);

	return below < 0 ? below : (int64_t)size_of(overlay);
}

static void overlay_stamp(void *context, struct file_stamp *ret)
{
	file_stamp_take(&((struct file_overlay *)context)->below, ret);
}

static int overlay_lock(void *context, enum file_lock lock)
{
	return file_lock(&((struct file_overlay *)context)->below, lock);
}

static void overlay_close(void *context)
{
	struct file_overlay *overlay = context;

	remove_at(overlay, 0, overlay->count);
	free(overlay->ranges);
	file_close(&overlay->below);
	free(overlay);
}

/* No descriptor: a read past this would not see what has changed. */
static const struct disk_file_ops overlay_ops = {
	.readv = overlay_readv,
	.writev = overlay_writev,
	.flush = overlay_flush,
	.truncate = overlay_truncate,
	.discard = overlay_discard,
	.size = overlay_size,
	.close = overlay_close,
	.stamp = overlay_stamp,
	.lock = overlay_lock,
};

int file_overlay_begin(struct disk_file *file)
{
	struct file_overlay *overlay = calloc(1, sizeof(*overlay));

	if (!overlay)
		return -ENOMEM;
	overlay->below = *file;
	*file = (struct disk_file){ .ops = &overlay_ops,
				    .context = overlay,
				    .sync = PTHREAD_MUTEX_INITIALIZER };
	return 0;
}

const struct disk_file *file_overlay_below(const struct disk_file *file)
{
	return file->ops == &overlay_ops ? &((const struct file_overlay *)file->context)->below
					 : file;
}
