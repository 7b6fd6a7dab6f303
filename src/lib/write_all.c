/* See write_all.h. */
#include "write_all.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

/* What is left, behind the bytes that a call has taken; 0: all is taken. Or -errno. */
static ssize_t go_on(ssize_t put, const char **from, size_t bytes)
{
	if (put < 0 && errno == EINTR)
		return (ssize_t)bytes;
	if (put <= 0)
		return put ? -errno : -ENOSPC;
	*from += put;
	return (ssize_t)bytes - put;
}

int write_all(int fd, const void *data, size_t bytes)
{
	const char *from = data;
	ssize_t left = (ssize_t)bytes;

	assert(data || !bytes);
	while (left > 0)
		left = go_on(write(fd, from, (size_t)left), &from, (size_t)left);
	return (int)left;
}

int write_all_at(int fd, const void *data, size_t bytes, off_t at)
{
	const char *from = data;
	ssize_t left = (ssize_t)bytes;

	assert(data || !bytes);
	while (left > 0)
		left = go_on(pwrite(fd, from, (size_t)left, at + (from - (const char *)data)),
			     &from, (size_t)left);
	return (int)left;
}
