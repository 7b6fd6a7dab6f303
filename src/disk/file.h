/*
 * The file below a disk: bytes, flush, size. A table of functions, so that tests can cut the power.
 *
 * Reads beyond the end give zeros. All return 0 or -errno; interrupted and short transfers are
 * finished here.
 */
#pragma once

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* When the host says the file was last changed, and when it was asked; all zero: not known. */
struct file_stamp { uint64_t file_bytes, mtime_ns, ctime_ns, taken_ns; };

enum file_lock { FILE_UNLOCKED, FILE_SHARED, FILE_ALONE };

struct disk_file_ops {
	int (*readv)(void *context, uint64_t offset, const struct iovec *iov, int count);
	int (*writev)(void *context, uint64_t offset, const struct iovec *iov, int count);
	int (*flush)(void *context);
	int (*truncate)(void *context, uint64_t bytes);
	/* reads as zero afterwards, space given back where possible */
	int (*discard)(void *context, uint64_t offset, uint64_t bytes);
	int64_t (*size)(void *context);
	void (*close)(void *context);
	void (*stamp)(void *context, struct file_stamp *ret); /* NULL: never known */
	/* how much from there on the file has no room for, and reads as zero; NULL: never known */
	uint64_t (*hole)(void *context, uint64_t offset, uint64_t bytes);
	int (*lock)(void *context, enum file_lock lock);              /* NULL: nobody else has it */
	/* What to give to the host's asynchronous I/O for this transfer; NULL: there is none */
	int (*descriptor)(void *context, uint64_t offset, const struct iovec *iov, int count);
};

/*
 * An open file. `failed` is its sticky error: after a failed flush the host may have dropped what
 * was not yet durable (Linux calls such pages clean), so that a later flush would succeed for data
 * that is nowhere. From then on every write and flush is refused with it, until the file is opened
 * again; reads go on. `sync` lets one flush run at a time: of two beside each other on one
 * descriptor the host tells only one of the error.
 */
struct disk_file {
	const struct disk_file_ops *ops;
	void *context;
	bool no_sync;         /* a flush is nothing */
	bool direct;          /* what is aligned goes past the host's cache */
	int failed;           /* 0, or -errno of the flush that failed; atomic */
	pthread_mutex_t sync; /* guards done */
	uint64_t begun, done; /* flushes; begun: atomic */
};

/* -EBUSY: locked; a reader shares with readers, a writer with nobody. The lock goes with the
 * process. */
int disk_file_open(const char *path, bool write, bool direct, struct disk_file *ret);
/* For reading beside a writer, who does not know of it. */
int disk_file_open_beside(const char *path, struct disk_file *ret);
/* Whether somebody else has a lock on it, of whatever kind. */
bool disk_file_is_used(int fd);
/* What bytes are written to in order, and not read: a pipe. The descriptor stays the caller's. */
int disk_file_stream(int fd, struct disk_file *ret);
/* Its name is durable, or with `later` becomes so with the first flush. -EEXIST: it is never
 * written over. */
int disk_file_create(const char *path, bool later, struct disk_file *ret);
/* One that somebody else has opened, as it is used; the descriptor is the file's, also when it is
 * locked by others. */
int disk_file_given(int fd, bool write, struct disk_file *ret);
/* One that somebody else has made, empty and with a durable name; the descriptor is the file's. */
int disk_file_adopt(int fd, struct disk_file *ret);

/* 0, or the sticky error. */
static inline int file_failed(const struct disk_file *file)
{
	int failed = __atomic_load_n(&file->failed, __ATOMIC_ACQUIRE);

	assert(failed <= 0);
	return failed;
}

static inline int file_readv(const struct disk_file *file, uint64_t offset, const struct iovec *iov,
			     int count)
{
	assert(iov && count > 0);
	return file->ops->readv(file->context, offset, iov, count);
}

static inline int file_writev(struct disk_file *file, uint64_t offset, const struct iovec *iov,
			      int count)
{
	int failed = file_failed(file);

	assert(iov && count > 0);
	return failed ? failed : file->ops->writev(file->context, offset, iov, count);
}

static inline int file_read(const struct disk_file *file, uint64_t offset, void *to, size_t bytes)
{
	const struct iovec iov = { .iov_base = to, .iov_len = bytes };

	return file_readv(file, offset, &iov, 1);
}

static inline int file_write(struct disk_file *file, uint64_t offset, const void *from,
			     size_t bytes)
{
	const struct iovec iov = { .iov_base = (void *)(uintptr_t)from, .iov_len = bytes };

	return file_writev(file, offset, &iov, 1);
}

static inline int file_discard(struct disk_file *file, uint64_t offset, uint64_t bytes)
{
	int failed = file_failed(file);

	return failed ? failed : file->ops->discard(file->context, offset, bytes);
}

static inline int file_truncate(struct disk_file *file, uint64_t bytes)
{
	int failed = file_failed(file);

	return failed ? failed : file->ops->truncate(file->context, bytes);
}

static inline int64_t file_size(const struct disk_file *file)
{
	return file->ops->size(file->context);
}
/* 0: nothing, or not known. Not where only some calls may be made: it is one of its own. */
static inline uint64_t file_hole(const struct disk_file *file, uint64_t offset, uint64_t bytes)
{
	return file->ops->hole ? file->ops->hole(file->context, offset, bytes) : 0;
}
static inline void file_close(struct disk_file *file) { file->ops->close(file->context); }

/* Nobody else has a file without locks. */
static inline int file_lock(const struct disk_file *file, enum file_lock lock)
{
	return file->ops->lock ? file->ops->lock(file->context, lock) : 0;
}

/* Makes durable what was written before the call; who waited while another flush began and ended
 * has nothing left to do. */
int file_flush(struct disk_file *file);
/* A failure beside the file, of what belongs to it, is as final as its own. The first one stays. */
void file_fail(struct disk_file *file, int error);
void file_stamp_take(const struct disk_file *file, struct file_stamp *ret);
