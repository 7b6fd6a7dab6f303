/*
 * A file of the host, cached, locked by open file description locks (they survive neither a close
 * nor kill -9).
 *
 * The locks are those of QEMU (its file-posix driver), so that its programs and ours agree: single
 * bytes, all locked as a reader does. Byte 100 + N: somebody does what permission N stands for.
 * Byte 200 + N: somebody is not to be disturbed by others who do. Who locks looks then whether
 * somebody has the other byte; of two that come at once both may be refused.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { IOVS = 64, DIRECT_ALIGN = 4096 };

/*
 * direct: the same file past the host's cache, for what is aligned; -1: not. The host keeps both
 * views together. directory: of a new file, to be synced with it once; -1: it is.
 */
struct os_file { int fd, direct, directory; };

static int fd_of(void *context) { return ((const struct os_file *)context)->fd; }

static bool is_aligned(uint64_t offset, const struct iovec *iov, int count)
{
	uint64_t all = offset;

	for (int n = 0; n < count; n++)
		all |= (uintptr_t)iov[n].iov_base | iov[n].iov_len;
	return !(all & (DIRECT_ALIGN - 1));
}

static int os_descriptor(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	const struct os_file *file = context;

	return file->direct >= 0 && is_aligned(offset, iov, count) ? file->direct : file->fd;
}

/* Drops what is done from a copy of the vector. */
static void iov_advance(struct iovec *iov, int *first, int count, size_t done)
{
	while (*first < count && done >= iov[*first].iov_len)
		done -= iov[(*first)++].iov_len;
	if (*first < count) {
		iov[*first].iov_base = (uint8_t *)iov[*first].iov_base + done;
		iov[*first].iov_len -= done;
	}
}

static int os_transfer(int fd, uint64_t offset, const struct iovec *iov, int count, bool write)
{
	assert(fd >= 0 && count >= 0);
	while (count) {
		struct iovec part[IOVS];
		int n = count < IOVS ? count : IOVS, first = 0;

		memcpy(part, iov, (size_t)n * sizeof(*iov));
		iov_advance(part, &first, n, 0);
		while (first < n) {
			ssize_t done = write ? pwritev(fd, part + first, n - first, (off_t)offset)
					     : preadv(fd, part + first, n - first, (off_t)offset);

			if (done < 0 && errno == EINTR)
				continue;
			if (done < 0)
				return -errno;
			if (!done && write)
				return -ENOSPC;
			if (!done) { /* the end: the rest is zero */
				for (; first < n; first++)
					memset(part[first].iov_base, 0, part[first].iov_len);
				break;
			}
			offset += (uint64_t)done;
			iov_advance(part, &first, n, (size_t)done);
		}
		iov += n;
		count -= n;
	}
	return 0;
}

static int os_readv(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	return os_transfer(os_descriptor(context, offset, iov, count), offset, iov, count, false);
}
static int os_writev(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	return os_transfer(os_descriptor(context, offset, iov, count), offset, iov, count, true);
}

/* One flush at a time sees to the directory; who else flushes meanwhile was told nothing yet of the
 * file being there. */
static int os_flush(void *context)
{
	struct os_file *file = context;
	int directory = __atomic_load_n(&file->directory, __ATOMIC_ACQUIRE);

	if (fdatasync(file->fd) || (directory >= 0 && fsync(directory)))
		return -errno;
	if (directory >= 0 && __atomic_compare_exchange_n(&file->directory, &directory, -1, false,
							  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		close(directory);
	return 0;
}

static int os_truncate(void *context, uint64_t bytes)
{
	return ftruncate(fd_of(context), (off_t)bytes) ? -errno : 0;
}

static int os_discard(void *context, uint64_t offset, uint64_t bytes)
{
	static const uint8_t zeros[65536];

	if (!fallocate(fd_of(context), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		       (off_t)bytes))
		return 0;
	while (bytes) { /* a file system without holes */
		size_t n = bytes < sizeof(zeros) ? bytes : sizeof(zeros);
		int error = os_transfer(fd_of(context), offset,
					&(struct iovec){ (void *)(uintptr_t)zeros, n }, 1, true);

		if (error)
			return error;
		offset += n;
		bytes -= n;
	}
	return 0;
}

static int64_t os_size(void *context)
{
	struct stat st;
	off_t end;

	if (fstat(fd_of(context), &st))
		return -errno;
	if (!S_ISBLK(st.st_mode))
		return S_ISREG(st.st_mode) ? st.st_size : -ENOTSUP;
	end = lseek(fd_of(context), 0, SEEK_END); /* everything else says where it reads */
	return end < 0 ? -errno : end;
}

static uint64_t os_hole(void *context, uint64_t offset, uint64_t bytes)
{
	off_t data = lseek(fd_of(context), (off_t)offset, SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? bytes : 0; /* that is: none up to the end */
	assert((uint64_t)data >= offset);
	return (uint64_t)data - offset < bytes ? (uint64_t)data - offset : bytes;
}

static void os_close(void *context)
{
	struct os_file *file = context;

	close(file->fd);
	if (file->direct >= 0)
		close(file->direct);
	if (file->directory >= 0)
		close(file->directory);
	free(file);
}

static uint64_t in_ns(const struct timespec *now)
{
	return (uint64_t)now->tv_sec * 1000000000 + (uint64_t)now->tv_nsec;
}

static void os_stamp(void *context, struct file_stamp *ret)
{
	struct timespec now;
	struct stat st;

	*ret = (struct file_stamp){ 0 };
	clock_gettime(CLOCK_REALTIME, &now);
	/* a block device does not tell when it is written */
	if (!fstat(fd_of(context), &st) && !S_ISBLK(st.st_mode))
		*ret = (struct file_stamp){
			.file_bytes = (uint64_t)st.st_size,
			.mtime_ns = in_ns(&st.st_mtim),
			.ctime_ns = in_ns(&st.st_ctim),
			.taken_ns = in_ns(&now),
		};
}

void file_fail(struct disk_file *file, int error)
{
	int none = 0;

	assert(error < 0);
	__atomic_compare_exchange_n(&file->failed, &none, error, false, __ATOMIC_ACQ_REL,
				    __ATOMIC_ACQUIRE);
}

int file_flush(struct disk_file *file)
{
	uint64_t seen = __atomic_load_n(&file->begun, __ATOMIC_SEQ_CST);
	int error;

	pthread_mutex_lock(&file->sync);
	assert(file->done <= file->begun);
	error = file_failed(file);
	if (!error && file->done <= seen) {
		uint64_t own = __atomic_add_fetch(&file->begun, 1, __ATOMIC_SEQ_CST);

		error = file->no_sync ? 0 : file->ops->flush(file->context);
		if (error)
			file_fail(file, error);
		else
			file->done = own;
	}
	pthread_mutex_unlock(&file->sync);
	return error;
}

void file_stamp_take(const struct disk_file *file, struct file_stamp *ret)
{
	*ret = (struct file_stamp){ 0 };
	if (file->ops->stamp)
		file->ops->stamp(file->context, ret);
}

enum {
	PERMISSION_READ,
	PERMISSION_WRITE,
	PERMISSION_WRITE_UNCHANGED,
	PERMISSION_RESIZE,
	PERMISSIONS
};
enum { LOCK_DOES = 100, LOCK_REFUSES = 200 };

/* What each kind of lock does, and does not bear from others: a bit a permission. */
static const struct { unsigned does, refuses;
} lock_bytes[] = {
	[FILE_UNLOCKED] = { .does = 0, .refuses = 0 },
	[FILE_SHARED] = { .does = 1u << PERMISSION_READ,
			  .refuses = 1u << PERMISSION_WRITE | 1u << PERMISSION_RESIZE },
	[FILE_ALONE] = { .does = (1u << PERMISSIONS) - 1, .refuses = (1u << PERMISSIONS) - 1 },
};

static int lock_byte(int fd, off_t at, bool locked)
{
	struct flock flock = { .l_type = locked ? F_RDLCK : F_UNLCK,
			       .l_whence = SEEK_SET,
			       .l_start = at,
			       .l_len = 1 };

	if (!fcntl(fd, F_OFD_SETLK, &flock))
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static bool is_locked_by_others(int fd, off_t at)
{
	struct flock flock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };

	return fcntl(fd, F_OFD_GETLK, &flock) || flock.l_type != F_UNLCK;
}

static int os_lock(void *context, enum file_lock lock)
{
	unsigned does = lock_bytes[lock].does;
	unsigned refuses = lock_bytes[lock].refuses;
	int fd = fd_of(context);
	int error = 0;

	for (int n = 0; n < PERMISSIONS && !error; n++) {
		error = lock_byte(fd, LOCK_DOES + n, does >> n & 1);
		if (!error)
			error = lock_byte(fd, LOCK_REFUSES + n, refuses >> n & 1);
	}
	for (int n = 0; n < PERMISSIONS && !error; n++)
		if ((does >> n & 1 && is_locked_by_others(fd, LOCK_REFUSES + n)) ||
		    (refuses >> n & 1 && is_locked_by_others(fd, LOCK_DOES + n)))
			error = -EBUSY;
	for (int n = 0; n < PERMISSIONS && error; n++) {
		lock_byte(fd, LOCK_DOES + n, false);
		lock_byte(fd, LOCK_REFUSES + n, false);
	}
	return error;
}

static const struct disk_file_ops os_ops = {
	.readv = os_readv,
	.writev = os_writev,
	.flush = os_flush,
	.truncate = os_truncate,
	.discard = os_discard,
	.size = os_size,
	.close = os_close,
	.stamp = os_stamp,
	.hole = os_hole,
	.lock = os_lock,
	.descriptor = os_descriptor,
};

static int os_finish(int fd, int direct, enum file_lock lock, struct disk_file *ret)
{
	struct os_file *file = fd < 0 ? NULL : malloc(sizeof(*file));
	int error = file ? 0 : -ENOMEM;

	if (fd < 0)
		error = -errno;
	if (file)
		*file = (struct os_file){ .fd = fd, .direct = direct, .directory = -1 };
	if (!error)
		error = os_lock(file, lock);
	*ret = (struct disk_file){ .ops = &os_ops,
				   .context = file,
				   .direct = direct >= 0,
				   .sync = PTHREAD_MUTEX_INITIALIZER };
	if (!error)
		return 0;
	free(file);
	if (fd >= 0)
		close(fd);
	if (direct >= 0)
		close(direct);
	return error;
}

int disk_file_open(const char *path, bool write, bool direct, struct disk_file *ret)
{
	int flags = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
	struct stat st;
	int past = -1;
	int fd;
	char same[64];

	/* a device that somebody has mounted is in use */
	if (write && !stat(path, &st) && S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	fd = open(path, flags);
	/* of the file that is open, whatever its name is now; a file system that cannot is used
	 * through the cache */
	if (fd >= 0 && direct) {
		snprintf(same, sizeof(same), "/proc/self/fd/%d", fd);
		past = open(same, (flags & ~O_EXCL) | O_DIRECT);
	}
	return os_finish(fd, past, write ? FILE_ALONE : FILE_SHARED, ret);
}

int disk_file_open_beside(const char *path, struct disk_file *ret)
{
	return os_finish(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), -1, FILE_UNLOCKED, ret);
}

bool disk_file_is_used(int fd)
{
	struct flock flock = { .l_type = F_WRLCK,
			       .l_whence = SEEK_SET,
			       .l_start = LOCK_DOES,
			       .l_len = PERMISSIONS };

	return !fcntl(fd, F_OFD_GETLK, &flock) && flock.l_type != F_UNLCK;
}

int disk_file_adopt(int fd, struct disk_file *ret)
{
	assert(fd >= 0);
	return os_finish(fd, -1, FILE_ALONE, ret);
}

int disk_file_given(int fd, bool write, struct disk_file *ret)
{
	assert(fd >= 0);
	return os_finish(fd, -1, write ? FILE_ALONE : FILE_SHARED, ret);
}

/* A name that a power cut takes away was never there. */
int disk_file_create(const char *path, bool later, struct disk_file *ret)
{
	int error = os_finish(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644), -1,
			      FILE_ALONE, ret);
	struct os_file *file = error ? NULL : ret->context;
	char *copy = error ? NULL : strdup(path);

	if (error)
		return error;
	file->directory = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (file->directory < 0)
		error = copy ? -errno : -ENOMEM;
	free(copy);
	if (!error && !later)
		error = os_flush(file);
	if (error)
		os_close(file);
	return error;
}
