/* See write_all.h. */
#include "write_all.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

int write_all(int fd, const void *data, size_t bytes)
{
	const char *from = data;

	assert(data || !bytes);
	while (bytes) {
		const ssize_t put = write(fd, from, bytes);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put ? -errno : -ENOSPC;
		from += put;
		bytes -= (size_t)put;
	}
	return 0;
}
