/* See console.h. */
#include "console.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 512, COPY_BYTES = 65536 };

void console_open(struct console *c, enum console_kind kind, int fd, uint64_t limit_bytes)
{
	struct stat st;

	assert(kind < CONSOLE_KINDS);
	*c = (struct console){ .fd = -1, .limit_bytes = limit_bytes };
	if (kind == CONSOLE_STDIO || kind == CONSOLE_RAW)
		c->fd = STDOUT_FILENO;
	c->filters = kind == CONSOLE_STDIO && isatty(STDOUT_FILENO);
	if (kind != CONSOLE_FILE)
		return;
	c->fd = fd;
	c->is_file = !fstat(fd, &st) && S_ISREG(st.st_mode); /* a pipe or a device has no end */
	c->at_bytes = c->is_file ? (uint64_t)st.st_size : 0;
}

/* ---- a file ---- */

/* The newer half to the front; what cannot be kept is given up. */
static void file_keep_half(struct console *c)
{
	uint8_t data[COPY_BYTES];
	uint64_t from = c->at_bytes > c->limit_bytes / 2 ? c->at_bytes - c->limit_bytes / 2 : 0;
	uint64_t to = 0;

	while (from < c->at_bytes) {
		ssize_t n = pread(c->fd, data, sizeof(data), (off_t)from);

		if (n <= 0 || pwrite(c->fd, data, (size_t)n, (off_t)to) != n)
			break;
		from += (uint64_t)n;
		to += (uint64_t)n;
	}
	c->at_bytes = ftruncate(c->fd, (off_t)to) ? 0 : to;
}

static void file_write(struct console *c, const uint8_t *data, size_t bytes)
{
	if (c->at_bytes + bytes > c->limit_bytes)
		file_keep_half(c);
	while (bytes) {
		ssize_t n = pwrite(c->fd, data, bytes, (off_t)c->at_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* no room: the guest runs on */
		data += n;
		bytes -= (size_t)n;
		c->at_bytes += (uint64_t)n;
	}
}

/* ---- a stream ---- */

/*
 * In pieces that a pipe takes whole once poll says so: a terminal that does not read stops here,
 * not in write().
 */
static void stream_write(struct console *c, const uint8_t *data, size_t bytes)
{
	while (bytes && c->fd >= 0) {
		struct pollfd ready = { .fd = c->fd, .events = POLLOUT };
		ssize_t n = -1;

		if (poll(&ready, 1, -1) >= 0)
			n = write(c->fd, data, bytes < PIECE_BYTES ? bytes : PIECE_BYTES);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			c->fd = -1; /* nobody reads any more: the guest runs on */
		if (n > 0) {
			data += n;
			bytes -= (size_t)n;
		}
	}
}

static void stream_filter(struct console *c, const uint8_t *data, size_t bytes)
{
	uint8_t filtered[PIECE_BYTES + FILTER_TOKEN_BYTES];

	for (size_t n; bytes; data += n, bytes -= n) {
		n = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
		stream_write(c, filtered, terminal_filter(&c->filter, data, n, filtered));
	}
}

void console_write(struct console *c, const uint8_t *data, size_t bytes)
{
	assert(data || !bytes);
	assert(!(c->is_file && c->filters));
	if (c->fd < 0)
		return;
	if (c->is_file)
		file_write(c, data, bytes);
	else if (c->filters)
		stream_filter(c, data, bytes);
	else
		stream_write(c, data, bytes);
}
