/*
 * A file in memory below a disk, which writes down what is done to it, so that the power can be cut
 * at any moment afterwards.
 *
 * Pages are shared between copies of a file and copied when they are written.
 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk_internal.h"

/* A test in which allocations fail has another one for this. */
#ifndef memory_allocate
#define memory_allocate(bytes) calloc(1, bytes)
#endif

enum { MEMORY_PAGE_BYTES = 4096, MEMORY_MAX_PAGES = 65536 };

struct memory_page { unsigned references; uint8_t byte[MEMORY_PAGE_BYTES]; };
enum memory_kind { MEMORY_WRITE, MEMORY_TRUNCATE, MEMORY_DISCARD, MEMORY_FLUSH };
struct memory_act { enum memory_kind kind; uint64_t offset, bytes; uint8_t *data; };

struct memory_file {
	uint64_t bytes;
	struct memory_page *page[MEMORY_MAX_PAGES];
	struct memory_act *acts;
	size_t count, room;
	bool recording;
	/*
	 * Acts (with fail_reads: reads, too) until one, or with fail_always all from then on,
	 * fails; negative: never
	 */
	long fail_after;
	int fail_with; /* 0: -EIO */
	bool fail_reads, fail_always;
	/*
	 * A flush that fails loses what was written since the last one that did not, as Linux may:
	 * page by page. Lengths and holes are the file system's own, and stay. NULL: nothing is
	 * lost.
	 */
	struct memory_page **synced;
	uint64_t acts_done;
	pthread_mutex_t lock; /* a disk's threads come beside each other */
};

static inline void memory_forget(struct memory_page *page)
{
	if (page && !--page->references)
		free(page);
}

static inline void memory_put(struct memory_file *file, uint64_t offset, const uint8_t *from,
			      uint64_t bytes)
{
	if (offset + bytes > (uint64_t)MEMORY_MAX_PAGES * MEMORY_PAGE_BYTES)
		abort();
	if (offset + bytes > file->bytes)
		file->bytes = offset + bytes;
	for (uint64_t done = 0; done < bytes;) {
		uint64_t at = offset + done;
		uint64_t in = at % MEMORY_PAGE_BYTES;
		uint64_t n = MEMORY_PAGE_BYTES - in < bytes - done ? MEMORY_PAGE_BYTES - in
								   : bytes - done;
		struct memory_page **page = &file->page[at / MEMORY_PAGE_BYTES];

		if (!*page || (*page)->references > 1) {
			struct memory_page *own = memory_allocate(sizeof(*own));

			own->references = 1;
			if (*page)
				memcpy(own->byte, (*page)->byte, MEMORY_PAGE_BYTES);
			memory_forget(*page);
			*page = own;
		}
		if (from)
			memcpy((*page)->byte + in, from + done, n);
		else
			memset((*page)->byte + in, 0, n);
		done += n;
	}
}

static inline void memory_cut(struct memory_file *file, uint64_t bytes)
{
	for (uint64_t n = (bytes + MEMORY_PAGE_BYTES - 1) / MEMORY_PAGE_BYTES;
	     n < MEMORY_MAX_PAGES && n * MEMORY_PAGE_BYTES < file->bytes; n++) {
		memory_forget(file->page[n]);
		file->page[n] = NULL;
	}
	if (bytes < file->bytes && bytes % MEMORY_PAGE_BYTES &&
	    file->page[bytes / MEMORY_PAGE_BYTES])
		memory_put(file, bytes, NULL, MEMORY_PAGE_BYTES - bytes % MEMORY_PAGE_BYTES);
	file->bytes = bytes;
}

/* [from, to) of an act: a torn one is done in part. */
static inline void memory_do(struct memory_file *file, const struct memory_act *a, uint64_t from,
			     uint64_t to)
{
	uint64_t end = file->bytes;

	switch (a->kind) {
	case MEMORY_WRITE: memory_put(file, a->offset + from, a->data + from, to - from); break;
	case MEMORY_TRUNCATE: memory_cut(file, a->bytes); break;
	case MEMORY_DISCARD:
		if (a->offset + from < end)
			memory_put(file, a->offset + from, NULL,
				   (a->offset + to < end ? a->offset + to : end) -
					   (a->offset + from));
		break;
	default: break;
	}
}

static inline bool memory_fails(struct memory_file *file)
{
	file->acts_done++;
	if (file->fail_after < 0 || file->fail_after-- > 0)
		return false;
	file->fail_after = file->fail_always ? 0 : -1;
	return true;
}

static inline void memory_hold(struct memory_page **to, struct memory_page *page)
{
	if (page)
		page->references++;
	memory_forget(*to);
	*to = page;
}

/* From now on a failing flush loses data. */
static inline void memory_lose(struct memory_file *file)
{
	file->synced = memory_allocate(MEMORY_MAX_PAGES * sizeof(*file->synced));
	for (uint64_t n = 0; n < MEMORY_MAX_PAGES; n++)
		memory_hold(&file->synced[n], file->page[n]);
}

static inline void memory_flushed(struct memory_file *file, bool good)
{
	for (uint64_t n = 0; file->synced && n * MEMORY_PAGE_BYTES < file->bytes; n++)
		if (file->page[n] != file->synced[n])
			memory_hold(good ? &file->synced[n] : &file->page[n],
				    good ? file->page[n] : file->synced[n]);
}

/* What a hole or a cut has taken away does not come back. */
static inline void memory_taken(struct memory_file *file)
{
	for (uint64_t n = 0; file->synced && n < MEMORY_MAX_PAGES; n++)
		if (file->synced[n] &&
		    (!file->page[n] ||
		     (file->page[n] != file->synced[n] &&
		      !memcmp(file->page[n]->byte, (uint8_t[MEMORY_PAGE_BYTES]){ 0 },
			      MEMORY_PAGE_BYTES))))
			memory_hold(&file->synced[n], NULL);
}

static inline int memory_act(struct memory_file *file, enum memory_kind kind, uint64_t offset,
			     uint64_t bytes, const uint8_t *data)
{
	struct memory_act a = { kind, offset, bytes, NULL };

	if (memory_fails(file)) {
		if (kind == MEMORY_FLUSH)
			memory_flushed(file, false);
		return file->fail_with ? file->fail_with : -EIO;
	}
	if (kind == MEMORY_FLUSH)
		memory_flushed(file, true);
	if (kind == MEMORY_WRITE) {
		a.data = memory_allocate(bytes);
		memcpy(a.data, data, bytes);
	}
	memory_do(file, &a, 0, bytes);
	if (kind == MEMORY_TRUNCATE || kind == MEMORY_DISCARD)
		memory_taken(file);
	if (!file->recording) {
		free(a.data);
		return 0;
	}
	if (file->count == file->room)
		file->acts = realloc(file->acts, (file->room = file->room ? 2 * file->room : 64) *
							 sizeof(*file->acts));
	file->acts[file->count++] = a;
	return 0;
}

static inline int memory_note(struct memory_file *file, enum memory_kind kind, uint64_t offset,
			      uint64_t bytes, const uint8_t *data)
{
	int error;

	pthread_mutex_lock(&file->lock);
	error = memory_act(file, kind, offset, bytes, data);
	pthread_mutex_unlock(&file->lock);
	return error;
}

static inline size_t memory_acts(struct memory_file *file)
{
	size_t count;

	pthread_mutex_lock(&file->lock);
	count = file->count;
	pthread_mutex_unlock(&file->lock);
	return count;
}

static inline int memory_readv(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	struct memory_file *file = context;
	bool fails;

	pthread_mutex_lock(&file->lock);
	fails = file->fail_reads && memory_fails(file);
	for (; count-- && !fails; iov++)
		for (uint64_t done = 0; done < iov->iov_len;) {
			uint64_t at = offset + done;
			uint64_t in = at % MEMORY_PAGE_BYTES;
			uint64_t left = iov->iov_len - done;
			uint64_t n = MEMORY_PAGE_BYTES - in < left ? MEMORY_PAGE_BYTES - in : left;
			const struct memory_page *page =
				at / MEMORY_PAGE_BYTES < MEMORY_MAX_PAGES
					? file->page[at / MEMORY_PAGE_BYTES]
					: NULL;

			if (page && at < file->bytes)
				memcpy((uint8_t *)iov->iov_base + done, page->byte + in, n);
			else
				memset((uint8_t *)iov->iov_base + done, 0, n);
			done += n;
			if (done == iov->iov_len)
				offset += iov->iov_len;
		}
	pthread_mutex_unlock(&file->lock);
	if (!fails)
		return 0;
	return file->fail_with ? file->fail_with : -EIO;
}

static inline int memory_writev(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	int error = 0;

	for (; count-- && !error; offset += iov++->iov_len)
		error = memory_note(context, MEMORY_WRITE, offset, iov->iov_len, iov->iov_base);
	return error;
}

static inline int memory_flush(void *context)
{
	return memory_note(context, MEMORY_FLUSH, 0, 0, NULL);
}
static inline int memory_truncate(void *context, uint64_t bytes)
{
	return bytes > (uint64_t)MEMORY_MAX_PAGES * MEMORY_PAGE_BYTES
		       ? -ENOSPC
		       : memory_note(context, MEMORY_TRUNCATE, 0, bytes, NULL);
}
static inline int memory_discard(void *context, uint64_t offset, uint64_t bytes)
{
	return memory_note(context, MEMORY_DISCARD, offset, bytes, NULL);
}
static inline int64_t memory_size(void *context)
{
	return (int64_t)((struct memory_file *)context)->bytes;
}
static inline void memory_close(void *context) { (void)context; }

static const struct disk_file_ops memory_ops = {
	.readv = memory_readv,
	.writev = memory_writev,
	.flush = memory_flush,
	.truncate = memory_truncate,
	.discard = memory_discard,
	.size = memory_size,
	.close = memory_close,
};

static inline struct memory_file *memory_new(void)
{
	struct memory_file *file = calloc(1, sizeof(*file));

	file->fail_after = -1;
	pthread_mutex_init(&file->lock, NULL);
	return file;
}

static inline struct memory_file *memory_copy(const struct memory_file *from)
{
	struct memory_file *file = memory_new();

	file->bytes = from->bytes;
	for (uint64_t n = 0; n * MEMORY_PAGE_BYTES < from->bytes; n++)
		if ((file->page[n] = from->page[n]))
			file->page[n]->references++;
	return file;
}

static inline void memory_free(struct memory_file *file)
{
	memory_cut(file, 0);
	for (uint64_t n = 0; file->synced && n < MEMORY_MAX_PAGES; n++)
		memory_forget(file->synced[n]);
	free(file->synced);
	for (size_t n = 0; n < file->count; n++)
		free(file->acts[n].data);
	free(file->acts);
	free(file);
}

static inline struct disk_file memory_disk_file(struct memory_file *file)
{
	return (struct disk_file){ .ops = &memory_ops,
				   .context = file,
				   .sync = PTHREAD_MUTEX_INITIALIZER };
}
