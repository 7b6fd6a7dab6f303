/* See errors.h. */
#include "errors.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

enum { CHUNK_BYTES = 4096, PIECE_BYTES = 512 };

int errors_make(struct errors *errors)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) || fcntl(ends[0], F_SETFL, O_NONBLOCK))
		return -errno;
	errors->read_fd = ends[0];
	errors->write_fd = ends[1];
	return 0;
}

/* As far as whoever reads it takes it now: one that does not holds up nobody. */
static void show_text(const uint8_t *text, size_t bytes)
{
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };

	for (size_t n; bytes && poll(&ready, 1, 0) > 0; text += n, bytes -= n) {
		n = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
		if (write(STDERR_FILENO, text, n) != (ssize_t)n)
			return;
	}
}

void errors_show(struct errors *errors)
{
	uint8_t bytes[CHUNK_BYTES];
	uint8_t shown[CHUNK_BYTES + FILTER_TOKEN_BYTES];
	ssize_t got = read(errors->read_fd, bytes, sizeof(bytes));
	size_t count;

	for (ssize_t n = 0; n < got; n++)
		if (bytes[n] < ' ' && bytes[n] != '\n')
			bytes[n] = '.';
	if (!got) { /* nobody is left to say something */
		close(errors->read_fd);
		errors->read_fd = -1;
	}
	count = terminal_filter(&errors->filter, bytes, got > 0 ? (size_t)got : 0, shown);
	if (errors->shown_bytes + count > ERRORS_MOST_BYTES)
		return;
	errors->shown_bytes += count;
	show_text(shown, count);
}
