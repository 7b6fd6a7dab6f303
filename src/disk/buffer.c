/* See buffer.h. Parts go to the host in vectors of at most SLICE_IOVS pieces. */
#include "buffer.h"

#include <assert.h>
#include <string.h>

enum { SLICE_IOVS = 64 };

struct disk_buffer buffer_of(const struct iovec *iov, int count)
{
	assert(count >= 0 && (iov || !count));
	return (struct disk_buffer){ .iov = iov, .count = count, .end = iov_bytes(iov, count) };
}

struct disk_buffer buffer_after(const struct disk_buffer *buffer, uint64_t bytes)
{
	struct disk_buffer after = *buffer;

	assert(bytes <= buffer->end - buffer->from);
	after.from += bytes;
	return after;
}

/* The first `bytes` of a buffer as a vector of its own; *ret_bytes: how many of them fit. Its
 * number of pieces. */
static int buffer_slice(const struct disk_buffer *buffer, uint64_t bytes,
			struct iovec slice[SLICE_IOVS], uint64_t *ret_bytes)
{
	uint64_t skipped = buffer->from;
	int used = 0;

	assert(bytes <= buffer->end - buffer->from);
	*ret_bytes = 0;
	for (int n = 0; n < buffer->count && bytes && used < SLICE_IOVS; n++) {
		uint64_t left = buffer->iov[n].iov_len;

		if (skipped >= left) {
			skipped -= left;
			continue;
		}
		left -= skipped;
		left = left < bytes ? left : bytes;
		slice[used].iov_base = (uint8_t *)buffer->iov[n].iov_base + skipped;
		slice[used].iov_len = left;
		used++;
		skipped = 0;
		bytes -= left;
		*ret_bytes += left;
	}
	return used;
}

void buffer_zero(const struct disk_buffer *buffer, uint64_t bytes)
{
	struct disk_buffer rest = *buffer;

	assert(buffer->from <= buffer->end && bytes <= buffer->end - buffer->from);
	while (bytes) {
		struct iovec slice[SLICE_IOVS];
		uint64_t sliced;
		int count = buffer_slice(&rest, bytes, slice, &sliced);

		for (int n = 0; n < count; n++)
			memset(slice[n].iov_base, 0, slice[n].iov_len);
		rest.from += sliced;
		bytes -= sliced;
	}
}

void buffer_fill(const struct disk_buffer *buffer, const uint8_t *from, uint64_t bytes)
{
	struct disk_buffer rest = *buffer;

	while (bytes) {
		struct iovec slice[SLICE_IOVS];
		uint64_t sliced;
		int count = buffer_slice(&rest, bytes, slice, &sliced);

		for (int n = 0; n < count; n++) {
			memcpy(slice[n].iov_base, from, slice[n].iov_len);
			from += slice[n].iov_len;
		}
		rest.from += sliced;
		bytes -= sliced;
	}
}

uint8_t *buffer_together(const struct disk_buffer *buffer, uint64_t bytes)
{
	struct iovec slice[SLICE_IOVS];
	uint64_t sliced;
	int count = buffer_slice(buffer, bytes, slice, &sliced);

	return count == 1 && sliced == bytes ? slice[0].iov_base : NULL;
}

static bool buffer_is_whole(const struct disk_buffer *buffer, uint64_t bytes)
{
	return !buffer->from && bytes == buffer->end;
}

int buffer_read(const struct disk_buffer *buffer, const struct disk_file *file, uint64_t at,
		uint64_t bytes)
{
	struct disk_buffer rest = *buffer;
	int error = 0;

	if (buffer_is_whole(buffer, bytes)) /* the usual request: no copy of its vector */
		return file_readv(file, at, buffer->iov, buffer->count);
	while (bytes && !error) {
		struct iovec slice[SLICE_IOVS];
		uint64_t sliced;
		int count = buffer_slice(&rest, bytes, slice, &sliced);

		error = file_readv(file, at, slice, count);
		rest.from += sliced;
		at += sliced;
		bytes -= sliced;
	}
	return error;
}

int buffer_write(const struct disk_buffer *buffer, struct disk_file *file, uint64_t at,
		 uint64_t bytes)
{
	struct disk_buffer rest = *buffer;
	int error = 0;

	if (buffer_is_whole(buffer, bytes))
		return file_writev(file, at, buffer->iov, buffer->count);
	while (bytes && !error) {
		struct iovec slice[SLICE_IOVS];
		uint64_t sliced;
		int count = buffer_slice(&rest, bytes, slice, &sliced);

		error = file_writev(file, at, slice, count);
		rest.from += sliced;
		at += sliced;
		bytes -= sliced;
	}
	return error;
}
