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
	/* A flush that fails loses what was written since the last one that did not, as Linux may: page by page. Lengths and holes are
	 * the file system's own, and stay. NULL: nothing is lost. */
	struct memory_page **synced;
	uint64_t acts_done;
	pthread_mutex_t lock; /* a disk's threads come beside each other */
};

static inline void memory_forget(struct memory_page *p)
{
	if (p && !--p->references)
		free(p);
}

static inline void memory_put(struct memory_file *f, uint64_t offset, const uint8_t *from,
			      uint64_t bytes)
{
	if (offset + bytes > (uint64_t)MEMORY_MAX_PAGES * MEMORY_PAGE_BYTES)
		abort();
	if (offset + bytes > f->bytes)
		f->bytes = offset + bytes;
	for (uint64_t done = 0; done < bytes;) {
		uint64_t at = offset + done;
		uint64_t in = at % MEMORY_PAGE_BYTES;
		uint64_t n = MEMORY_PAGE_BYTES - in < bytes - done ? MEMORY_PAGE_BYTES - in
								   : bytes - done;
		struct memory_page **p = &f->page[at / MEMORY_PAGE_BYTES];

		if (!*p || (*p)->references > 1) {
			struct memory_page *own = memory_allocate(sizeof(*own));

			own->references = 1;
			if (*p)
				memcpy(own->byte, (*p)->byte, MEMORY_PAGE_BYTES);
			memory_forget(*p);
			*p = own;
		}
		if (from)
			memcpy((*p)->byte + in, from + done, n);
		else
			memset((*p)->byte + in, 0, n);
		done += n;
	}
}

static inline void memory_cut(struct memory_file *f, uint64_t bytes)
{
	for (uint64_t n = (bytes + MEMORY_PAGE_BYTES - 1) / MEMORY_PAGE_BYTES;
	     n < MEMORY_MAX_PAGES && n * MEMORY_PAGE_BYTES < f->bytes; n++) {
		memory_forget(f->page[n]);
		f->page[n] = NULL;
	}
	if (bytes < f->bytes && bytes % MEMORY_PAGE_BYTES && f->page[bytes / MEMORY_PAGE_BYTES])
		memory_put(f, bytes, NULL, MEMORY_PAGE_BYTES - bytes % MEMORY_PAGE_BYTES);
	f->bytes = bytes;
}

/* [from, to) of an act: a torn one is done in part. */
static inline void memory_do(struct memory_file *f, const struct memory_act *a, uint64_t from,
			     uint64_t to)
{
	uint64_t end = f->bytes;

	switch (a->kind) {
	case MEMORY_WRITE: memory_put(f, a->offset + from, a->data + from, to - from); break;
	case MEMORY_TRUNCATE: memory_cut(f, a->bytes); break;
	case MEMORY_DISCARD:
		if (a->offset + from < end)
			memory_put(f, a->offset + from, NULL,
				   (a->offset + to < end ? a->offset + to : end) -
					   (a->offset + from));
		break;
	default: break;
	}
}

static inline bool memory_fails(struct memory_file *f)
{
	f->acts_done++;
	if (f->fail_after < 0 || f->fail_after-- > 0)
		return false;
	f->fail_after = f->fail_always ? 0 : -1;
	return true;
}

static inline void memory_hold(struct memory_page **to, struct memory_page *p)
{
	if (p)
		p->references++;
	memory_forget(*to);
	*to = p;
}

/* From now on a failing flush loses data. */
static inline void memory_lose(struct memory_file *f)
{
	f->synced = memory_allocate(MEMORY_MAX_PAGES * sizeof(*f->synced));
	for (uint64_t n = 0; n < MEMORY_MAX_PAGES; n++)
		memory_hold(&f->synced[n], f->page[n]);
}

static inline void memory_flushed(struct memory_file *f, bool good)
{
	for (uint64_t n = 0; f->synced && n * MEMORY_PAGE_BYTES < f->bytes; n++)
		if (f->page[n] != f->synced[n])
			memory_hold(good ? &f->synced[n] : &f->page[n],
				    good ? f->page[n] : f->synced[n]);
}

/* What a hole or a cut has taken away does not come back. */
static inline void memory_taken(struct memory_file *f)
{
	for (uint64_t n = 0; f->synced && n < MEMORY_MAX_PAGES; n++)
		if (f->synced[n] &&
		    (!f->page[n] || (f->page[n] != f->synced[n] &&
				     !memcmp(f->page[n]->byte, (uint8_t[MEMORY_PAGE_BYTES]){ 0 },
					     MEMORY_PAGE_BYTES))))
			memory_hold(&f->synced[n], NULL);
}

static inline int memory_act(struct memory_file *f, enum memory_kind kind, uint64_t offset,
			     uint64_t bytes, const uint8_t *data)
{
	struct memory_act a = { kind, offset, bytes, NULL };

	if (memory_fails(f)) {
		if (kind == MEMORY_FLUSH)
			memory_flushed(f, false);
		return f->fail_with ? f->fail_with : -EIO;
	}
	if (kind == MEMORY_FLUSH)
		memory_flushed(f, true);
	if (kind == MEMORY_WRITE) {
		a.data = memory_allocate(bytes);
		memcpy(a.data, data, bytes);
	}
	memory_do(f, &a, 0, bytes);
	if (kind == MEMORY_TRUNCATE || kind == MEMORY_DISCARD)
		memory_taken(f);
	if (!f->recording) {
		free(a.data);
		return 0;
	}
	if (f->count == f->room)
		f->acts =
			realloc(f->acts, (f->room = f->room ? 2 * f->room : 64) * sizeof(*f->acts));
	f->acts[f->count++] = a;
	return 0;
}

static inline int memory_note(struct memory_file *f, enum memory_kind kind, uint64_t offset,
			      uint64_t bytes, const uint8_t *data)
{
	int error;

	pthread_mutex_lock(&f->lock);
	error = memory_act(f, kind, offset, bytes, data);
	pthread_mutex_unlock(&f->lock);
	return error;
}

static inline size_t memory_acts(struct memory_file *f)
{
	size_t count;

	pthread_mutex_lock(&f->lock);
	count = f->count;
	pthread_mutex_unlock(&f->lock);
	return count;
}

static inline int memory_readv(void *c, uint64_t offset, const struct iovec *iov, int count)
{
	struct memory_file *f = c;
	bool fails;

	pthread_mutex_lock(&f->lock);
	fails = f->fail_reads && memory_fails(f);
	for (; count-- && !fails; iov++)
		for (uint64_t done = 0; done < iov->iov_len;) {
			uint64_t at = offset + done;
			uint64_t in = at % MEMORY_PAGE_BYTES;
			uint64_t left = iov->iov_len - done;
			uint64_t n = MEMORY_PAGE_BYTES - in < left ? MEMORY_PAGE_BYTES - in : left;
			const struct memory_page *p = at / MEMORY_PAGE_BYTES < MEMORY_MAX_PAGES
							      ? f->page[at / MEMORY_PAGE_BYTES]
							      : NULL;

			if (p && at < f->bytes)
				memcpy((uint8_t *)iov->iov_base + done, p->byte + in, n);
			else
				memset((uint8_t *)iov->iov_base + done, 0, n);
			done += n;
			if (done == iov->iov_len)
				offset += iov->iov_len;
		}
	pthread_mutex_unlock(&f->lock);
	if (!fails)
		return 0;
	return f->fail_with ? f->fail_with : -EIO;
}

static inline int memory_writev(void *c, uint64_t offset, const struct iovec *iov, int count)
{
	int error = 0;

	for (; count-- && !error; offset += iov++->iov_len)
		error = memory_note(c, MEMORY_WRITE, offset, iov->iov_len, iov->iov_base);
	return error;
}

static inline int memory_flush(void *c) { return memory_note(c, MEMORY_FLUSH, 0, 0, NULL); }
static inline int memory_truncate(void *c, uint64_t bytes)
{
	return bytes > (uint64_t)MEMORY_MAX_PAGES * MEMORY_PAGE_BYTES
		       ? -ENOSPC
		       : memory_note(c, MEMORY_TRUNCATE, 0, bytes, NULL);
}
static inline int memory_discard(void *c, uint64_t offset, uint64_t bytes)
{
	return memory_note(c, MEMORY_DISCARD, offset, bytes, NULL);
}
static inline int64_t memory_size(void *c) { return (int64_t)((struct memory_file *)c)->bytes; }
static inline void memory_close(void *c) { (void)c; }

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
	struct memory_file *f = calloc(1, sizeof(*f));

	f->fail_after = -1;
	pthread_mutex_init(&f->lock, NULL);
	return f;
}

static inline struct memory_file *memory_copy(const struct memory_file *from)
{
	struct memory_file *f = memory_new();

	f->bytes = from->bytes;
	for (uint64_t n = 0; n * MEMORY_PAGE_BYTES < from->bytes; n++)
		if ((f->page[n] = from->page[n]))
			f->page[n]->references++;
	return f;
}

static inline void memory_free(struct memory_file *f)
{
	memory_cut(f, 0);
	for (uint64_t n = 0; f->synced && n < MEMORY_MAX_PAGES; n++)
		memory_forget(f->synced[n]);
	free(f->synced);
	for (size_t n = 0; n < f->count; n++)
		free(f->acts[n].data);
	free(f->acts);
	free(f);
}

static inline struct disk_file memory_disk_file(struct memory_file *f)
{
	return (struct disk_file){ .ops = &memory_ops,
				   .context = f,
				   .sync = PTHREAD_MUTEX_INITIALIZER };
}
