/*
 * The memory of a request: a vector, of which the part from `from` on is meant. Requests are split
 * by moving `from`; the vector is never copied as a whole.
 */
#pragma once

#include "file.h"

struct disk_buffer {
	const struct iovec *iov;
	int count;
	uint64_t from, end; /* in bytes of the vector; end: all of it */
};

struct disk_buffer buffer_of(const struct iovec *iov, int count);
/* What follows `bytes` of it. */
struct disk_buffer buffer_after(const struct disk_buffer *buffer, uint64_t bytes);
void buffer_zero(const struct disk_buffer *buffer, uint64_t bytes);
void buffer_fill(const struct disk_buffer *buffer, const uint8_t *from, uint64_t bytes);
/* Its first `bytes`, where they lie together; else NULL. */
uint8_t *buffer_together(const struct disk_buffer *buffer, uint64_t bytes);
/* The first `bytes` of it, from and to one place of a file. */
int buffer_read(const struct disk_buffer *buffer, const struct disk_file *file, uint64_t at,
		uint64_t bytes);
int buffer_write(const struct disk_buffer *buffer, struct disk_file *file, uint64_t at,
		 uint64_t bytes);

static inline uint64_t iov_bytes(const struct iovec *iov, int count)
{
	uint64_t bytes = 0;

	for (int n = 0; n < count; n++)
		bytes += iov[n].iov_len;
	return bytes;
}
