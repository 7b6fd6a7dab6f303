/*
 * Faults for programs that are linked with --wrap for what is named here: the n-th allocation gets nothing, the n-th access to a file
 * of the host fails (names that end in 64: what files of any length are reached by). Both count only while `counting` is set; a number below zero: none fails.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

static long allocations_left = -1, accesses_left = -1;
static int access_error;
static bool counting;

static inline bool is_fault(long *left) { return counting && *left >= 0 && (*left)-- == 0; }

#define WRAP(type, name, parameters, arguments, left, refused)          \
	type __real_##name parameters;                                  \
	type __wrap_##name parameters;                                  \
	type __wrap_##name parameters                                   \
	{                                                               \
		return is_fault(&(left)) ? refused : __real_##name arguments; \
	}

WRAP(void *, malloc, (size_t bytes), (bytes), allocations_left, NULL)
WRAP(void *, calloc, (size_t count, size_t bytes), (count, bytes), allocations_left, NULL)
WRAP(void *, realloc, (void *at, size_t bytes), (at, bytes), allocations_left, NULL)
WRAP(char *, strdup, (const char *text), (text), allocations_left, NULL)
WRAP(ssize_t, preadv64, (int fd, const struct iovec *iov, int count, off_t at), (fd, iov, count, at), accesses_left, (errno = access_error, -1))
WRAP(ssize_t, pwritev64, (int fd, const struct iovec *iov, int count, off_t at), (fd, iov, count, at), accesses_left, (errno = access_error, -1))
WRAP(int, fdatasync, (int fd), (fd), accesses_left, (errno = access_error, -1))
WRAP(int, fsync, (int fd), (fd), accesses_left, (errno = access_error, -1))
WRAP(int, ftruncate64, (int fd, off_t bytes), (fd, bytes), accesses_left, (errno = access_error, -1))
WRAP(int, open64, (const char *path, int flags, mode_t mode), (path, flags, mode), accesses_left, (errno = access_error, -1))
WRAP(int, rename, (const char *from, const char *to), (from, to), accesses_left, (errno = access_error, -1))
