/* See console.h. */
#include "console.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 512, COPY_BYTES = 65536 };

void console_open(struct console *console, enum console_kind kind, int fd, uint64_t limit_bytes)
{
	struct stat st;

	assert(kind < CONSOLE_KINDS);
	*console = (struct console){ .fd = -1, .limit_bytes = limit_bytes };
	if (kind == CONSOLE_STDIO || kind == CONSOLE_RAW)
		console->fd = STDOUT_FILENO;
	console->filters = kind == CONSOLE_STDIO && isatty(STDOUT_FILENO);
	if (kind != CONSOLE_FILE)
		return;
	console->fd = fd;
	console->is_file =
		!fstat(fd, &st) && S_ISREG(st.st_mode); /* a pipe or a device has no end */
	console->at_bytes = console->is_file ? (uint64_t)st.st_size : 0;
}

/* ---- a file ---- */

/* The newer half to the front; what cannot be kept is given up. */
static void file_keep_half(struct console *console)
{
	uint8_t data[COPY_BYTES];
	uint64_t from = console->at_bytes > console->limit_bytes / 2
				? console->at_bytes - console->limit_bytes / 2
				: 0;
	uint64_t to = 0;

	while (from < console->at_bytes) {
		ssize_t n = pread(console->fd, data, sizeof(data), (off_t)from);

		if (n <= 0 || pwrite(console->fd, data, (size_t)n, (off_t)to) != n)
			break;
		from += (uint64_t)n;
		to += (uint64_t)n;
	}
	console->at_bytes = ftruncate(console->fd, (off_t)to) ? 0 : to;
}

static void file_write(struct console *console, const uint8_t *data, size_t bytes)
{
	if (console->at_bytes + bytes > console->limit_bytes)
		file_keep_half(console);
	while (bytes) {
		ssize_t n = pwrite(console->fd, data, bytes, (off_t)console->at_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* no room: the guest runs on */
		data += n;
		bytes -= (size_t)n;
		console->at_bytes += (uint64_t)n;
	}
}

/* ---- a stream ---- */

/*
 * In pieces that a pipe takes whole once poll says so: a terminal that does not read stops here,
 * not in write().
 */
static void stream_write(struct console *console, const uint8_t *data, size_t bytes)
{
	while (bytes && console->fd >= 0) {
		struct pollfd ready = { .fd = console->fd, .events = POLLOUT };
		ssize_t n = -1;

		if (poll(&ready, 1, -1) >= 0)
			n = write(console->fd, data, bytes < PIECE_BYTES ? bytes : PIECE_BYTES);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			console->fd = -1; /* nobody reads any more: the guest runs on */
		if (n > 0) {
			data += n;
			bytes -= (size_t)n;
		}
	}
}

static void stream_filter(struct console *console, const uint8_t *data, size_t bytes)
{
	uint8_t filtered[PIECE_BYTES + FILTER_TOKEN_BYTES];

	for (size_t n; bytes; data += n, bytes -= n) {
		n = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
		stream_write(console, filtered,
			     terminal_filter(&console->filter, data, n, filtered));
	}
}

void console_write(struct console *console, const uint8_t *data, size_t bytes)
{
	assert(data || !bytes);
	assert(!(console->is_file && console->filters));
	if (console->fd < 0)
		return;
	if (console->is_file)
		file_write(console, data, bytes);
	else if (console->filters)
		stream_filter(console, data, bytes);
	else
		stream_write(console, data, bytes);
}
