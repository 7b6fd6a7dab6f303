/*
 * A file in memory below a disk, for fuzz targets: one piece of memory, which is as it was after
 * each input. Only the pages that were written are put back, so that an input costs what it does.
 *
 * For one thread. What was behind an end is there again when the file grows; it is no longer than
 * FLAT_BYTES: beyond, the host has no room.
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "disk/disk_internal.h"

enum { FLAT_BYTES = 64 << 20, FLAT_PAGE = 4096, FLAT_PAGES = FLAT_BYTES / FLAT_PAGE };

struct flat_file {
	uint8_t *now, *before;
	uint64_t bytes, bytes_before;
	uint8_t dirty[FLAT_PAGES];
	uint32_t list[FLAT_PAGES], listed;
	long fail_after; /* acts until all fail; negative: none does */
};

static inline void flat_touch(struct flat_file *file, uint64_t at, uint64_t bytes)
{
	for (uint64_t page = at / FLAT_PAGE; bytes && page <= (at + bytes - 1) / FLAT_PAGE; page++)
		if (!file->dirty[page]) {
			file->dirty[page] = 1;
			file->list[file->listed++] = (uint32_t)page;
		}
}

static inline void flat_put(struct flat_file *file, uint64_t at, const void *from, uint64_t bytes)
{
	if (at > FLAT_BYTES || bytes > FLAT_BYTES - at)
		abort();
	flat_touch(file, at, bytes);
	if (from)
		memcpy(file->now + at, from, bytes);
	else
		memset(file->now + at, 0, bytes);
	if (at + bytes > file->bytes)
		file->bytes = at + bytes;
}

/* What it is now is what it is before each input. */
static inline void flat_keep(struct flat_file *file)
{
	for (uint32_t n = 0; n < file->listed; n++) {
		uint64_t at = (uint64_t)file->list[n] * FLAT_PAGE;

		memcpy(file->before + at, file->now + at, FLAT_PAGE);
		file->dirty[file->list[n]] = 0;
	}
	file->listed = 0;
	file->bytes_before = file->bytes;
}

static inline void flat_back(struct flat_file *file)
{
	for (uint32_t n = 0; n < file->listed; n++) {
		uint64_t at = (uint64_t)file->list[n] * FLAT_PAGE;

		memcpy(file->now + at, file->before + at, FLAT_PAGE);
		file->dirty[file->list[n]] = 0;
	}
	file->listed = 0;
	file->bytes = file->bytes_before;
	file->fail_after = -1;
}

static inline struct flat_file *flat_new(const void *from, uint64_t bytes)
{
	struct flat_file *file = calloc(1, sizeof(*file));
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	file->now = mmap(NULL, FLAT_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
	file->before = mmap(NULL, FLAT_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (file->now == MAP_FAILED || file->before == MAP_FAILED)
		abort();
	file->fail_after = -1;
	if (bytes)
		flat_put(file, 0, from, bytes);
	flat_keep(file);
	return file;
}

/* ---- what the disk calls ---- */

static inline bool flat_fails(struct flat_file *file)
{
	if (file->fail_after < 0)
		return false;
	if (file->fail_after)
		file->fail_after--;
	return !file->fail_after;
}

static inline int flat_readv(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	const struct flat_file *file = context;

	for (; count--; offset += iov++->iov_len) {
		uint64_t left = offset < file->bytes ? file->bytes - offset : 0;
		uint64_t bytes = iov->iov_len < left ? iov->iov_len : left;

		if (bytes)
			memcpy(iov->iov_base, file->now + offset, bytes);
		if (bytes < iov->iov_len)
			memset((uint8_t *)iov->iov_base + bytes, 0, iov->iov_len - bytes);
	}
	return 0;
}

static inline int flat_writev(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	if (flat_fails(context))
		return -EIO;
	for (; count--; offset += iov++->iov_len) {
		if (offset > FLAT_BYTES || iov->iov_len > FLAT_BYTES - offset)
			return -ENOSPC;
		flat_put(context, offset, iov->iov_base, iov->iov_len);
	}
	return 0;
}

static inline int flat_flush(void *context) { return flat_fails(context) ? -EIO : 0; }

static inline int flat_truncate(void *context, uint64_t bytes)
{
	if (flat_fails(context))
		return -EIO;
	if (bytes > FLAT_BYTES)
		return -ENOSPC;
	((struct flat_file *)context)->bytes = bytes;
	return 0;
}

static inline int flat_discard(void *context, uint64_t offset, uint64_t bytes)
{
	struct flat_file *file = context;
	uint64_t left = offset < file->bytes ? file->bytes - offset : 0;

	if (flat_fails(file))
		return -EIO;
	if (left)
		flat_put(file, offset, NULL, bytes < left ? bytes : left);
	return 0;
}

static inline int64_t flat_size(void *context)
{
	return (int64_t)((const struct flat_file *)context)->bytes;
}
static inline void flat_close(void *context) { (void)context; }

static const struct disk_file_ops flat_ops = {
	.readv = flat_readv,
	.writev = flat_writev,
	.flush = flat_flush,
	.truncate = flat_truncate,
	.discard = flat_discard,
	.size = flat_size,
	.close = flat_close,
};

static inline struct disk_file flat_disk_file(struct flat_file *file)
{
	return (struct disk_file){ .ops = &flat_ops,
				   .context = file,
				   .sync = PTHREAD_MUTEX_INITIALIZER };
}
