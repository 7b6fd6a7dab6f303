/*
 * The file below a disk: bytes, flush, size. A table of functions, so that tests can cut the power.
 *
 * Reads beyond the end give zeros. All return 0 or -errno; interrupted and short transfers are finished here.
 */
#pragma once

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
	int (*discard)(void *context, uint64_t offset, uint64_t bytes); /* reads as zero afterwards, space given back where possible */
	int64_t (*size)(void *context);
	void (*close)(void *context);
	void (*stamp)(void *context, struct file_stamp *ret); /* NULL: never known */
	int (*lock)(void *context, enum file_lock lock);              /* NULL: nobody else has it */
	/* What to give to the host's asynchronous I/O for this transfer; NULL: there is none */
	int (*descriptor)(void *context, uint64_t offset, const struct iovec *iov, int count);
};

struct disk_file { const struct disk_file_ops *ops; void *context; };

/* -EBUSY: locked; a reader shares with readers, a writer with nobody. The lock goes with the process. */
int disk_file_open(const char *path, bool write, bool direct, struct disk_file *ret);
/* Its name is durable, or with `later` becomes so with the first flush. -EEXIST: it is never written over. */
int disk_file_create(const char *path, bool later, struct disk_file *ret);

static inline int file_read(const struct disk_file *f, uint64_t offset, void *to, size_t bytes)
{
	return f->ops->readv(f->context, offset, &(struct iovec){ to, bytes }, 1);
}
static inline int file_write(const struct disk_file *f, uint64_t offset, const void *from, size_t bytes)
{
	return f->ops->writev(f->context, offset, &(struct iovec){ (void *)(uintptr_t)from, bytes }, 1);
}
static inline int file_flush(const struct disk_file *f) { return f->ops->flush(f->context); }
static inline int64_t file_size(const struct disk_file *f) { return f->ops->size(f->context); }
/* Where a stamp still holds, nobody has changed the file since it was taken. One taken within a clock tick of a change never does. */
void file_stamp_take(const struct disk_file *file, struct file_stamp *ret);
/* Waits for the next tick where it has to, so that the stamp holds until the file is changed. */
void file_stamp_settle(const struct disk_file *file, struct file_stamp *ret);
bool file_stamp_holds(const struct disk_file *file, const struct file_stamp *stamp);
