/*
 * Faults for programs that are linked with --wrap for what is named here: the n-th allocation gets
 * nothing, the n-th access to a file of the host fails (names that end in 64: what files of any
 * length are reached by). Both count only while `counting` is set; a number below zero: none fails.
 *
 * A sync that fails takes away what pwritev() has written to the file since the last one, as Linux
 * may: the next sync can then succeed, and the data is nowhere.
 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

static long allocations_left = -1;
static long accesses_left = -1;
static int access_error;
static bool counting;

static inline bool is_fault(long *left) { return counting && *left >= 0 && (*left)-- == 0; }

static inline int refused_access(void)
{
	errno = access_error;
	return -1;
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
	return is_fault(&allocations_left) ? NULL : __real_malloc(bytes);
}

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes)
{
	return is_fault(&allocations_left) ? NULL : __real_calloc(count, bytes);
}

void *__real_realloc(void *at, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes)
{
	return is_fault(&allocations_left) ? NULL : __real_realloc(at, bytes);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	return is_fault(&allocations_left) ? NULL : __real_strdup(text);
}

ssize_t __real_preadv64(int fd, const struct iovec *iov, int count, off_t at);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t at);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t at)
{
	return is_fault(&accesses_left) ? refused_access() : __real_preadv64(fd, iov, count, at);
}

/* What was there before each write that is not synced, the last first. */
struct unsynced {
	struct unsynced *next;
	dev_t device;
	ino_t inode;
	off_t at;
	size_t bytes;
	uint8_t before[];
};
static struct unsynced *unsynced_first;
static pthread_mutex_t unsynced_lock = PTHREAD_MUTEX_INITIALIZER; /* workers write at once */

static inline void unsynced_note(int fd, const struct iovec *iov, int count, off_t at)
{
	struct unsynced *entry;
	struct stat st;
	size_t bytes = 0;

	for (int n = 0; n < count; n++)
		bytes += iov[n].iov_len;
	if (fstat(fd, &st) || at >= st.st_size) /* behind the end there was nothing */
		return;
	bytes = (off_t)bytes < st.st_size - at ? bytes : (size_t)(st.st_size - at);
	entry = __real_malloc(sizeof(*entry) + bytes);
	*entry = (struct unsynced){ .device = st.st_dev,
				    .inode = st.st_ino,
				    .at = at,
				    .bytes = bytes };
	pthread_mutex_lock(&unsynced_lock);
	entry->next = unsynced_first;
	if (__real_preadv64(fd, &(struct iovec){ entry->before, bytes }, 1, at) == (ssize_t)bytes)
		unsynced_first = entry;
	else
		free(entry);
	pthread_mutex_unlock(&unsynced_lock);
}

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int count, off_t at);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t at);

/* The file was synced, or what was not is lost. */
static inline void unsynced_end(int fd, bool lost)
{
	struct unsynced **at = &unsynced_first;
	struct stat st;

	if (fstat(fd, &st))
		return;
	while (*at) {
		struct unsynced *entry = *at;

		if (entry->device != st.st_dev || entry->inode != st.st_ino) {
			at = &entry->next;
			continue;
		}
		if (lost && entry->at < st.st_size) {
			size_t bytes = (off_t)entry->bytes < st.st_size - entry->at
					       ? entry->bytes
					       : (size_t)(st.st_size - entry->at);

			if (__real_pwritev64(fd, &(struct iovec){ entry->before, bytes }, 1,
					     entry->at) != (ssize_t)bytes)
				abort();
		}
		*at = entry->next;
		free(entry);
	}
}

/* Other files may get the same numbers. */
static inline void unsynced_forget(void)
{
	while (unsynced_first) {
		struct unsynced *next = unsynced_first->next;

		free(unsynced_first);
		unsynced_first = next;
	}
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t at)
{
	if (is_fault(&accesses_left)) {
		errno = access_error;
		return -1;
	}
	if (counting)
		unsynced_note(fd, iov, count, at);
	return __real_pwritev64(fd, iov, count, at);
}

static inline int synced(int fd, int (*sync_file)(int fd))
{
	bool fails = is_fault(&accesses_left);

	unsynced_end(fd, fails);
	return fails ? refused_access() : sync_file(fd);
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
	return synced(fd, __real_fdatasync);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	return synced(fd, __real_fsync);
}

int __real_ftruncate64(int fd, off_t bytes);
int __wrap_ftruncate64(int fd, off_t bytes);
int __wrap_ftruncate64(int fd, off_t bytes)
{
	return is_fault(&accesses_left) ? refused_access() : __real_ftruncate64(fd, bytes);
}

int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode)
{
	return is_fault(&accesses_left) ? refused_access() : __real_open64(path, flags, mode);
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
	return is_fault(&accesses_left) ? refused_access() : __real_rename(from, to);
}
