/* See reader.h. Of a pipe or a connection whose other end is closed poll() says so. */
#include "reader.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "cli.h"

int reader_wait(int milliseconds)
{
	struct pollfd gone = { .fd = STDOUT_FILENO };

	if (fflush(stdout))
		return errno == EPIPE ? READER_GONE : EXIT_UNUSABLE;
	if (ferror(stdout))
		return EXIT_UNUSABLE;
	poll(&gone, 1, milliseconds);
	return gone.revents & (POLLERR | POLLHUP) ? READER_GONE : 0;
}
