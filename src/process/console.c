/* See console.h. */
#include "console.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/check.h"

enum { PIECE_BYTES = 512, COPY_BYTES = 65536 };

void check_console(const struct console *console)
{
	assert(console->held_first < CONSOLE_HELD_BYTES);
	assert(console->held_bytes <= CONSOLE_HELD_BYTES);
	assert(console->fd >= 0 || !console->held_bytes);
	assert(!console->is_file || (!console->held_bytes && !console->filters));
	assert(console->filter.used <= sizeof(console->filter.token));
}

void console_open(struct console *console, enum console_kind kind, int fd, uint64_t limit_bytes)
{
	struct stat st;

	assert(kind < CONSOLE_KINDS);
	memset(console, 0, offsetof(struct console, held)); /* all but what costs memory */
	console->fd = -1;
	console->limit_bytes = limit_bytes;
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

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool has_stopped(const struct console *console)
{
	return console->waits_ms && now_ms() - console->waits_ms >= CONSOLE_PATIENCE_MS;
}

static void hold(struct console *console, const uint8_t *data, size_t bytes)
{
	const size_t room = CONSOLE_HELD_BYTES - console->held_bytes;
	const size_t kept = bytes < room ? bytes : room;

	for (size_t n = 0; n < kept; n++)
		console->held[(console->held_first + console->held_bytes++) % CONSOLE_HELD_BYTES] =
			data[n];
	console->lost_bytes += bytes - kept;
}

static void say_lost(struct console *console)
{
	char text[64];
	int bytes = snprintf(text, sizeof(text), "\r\n[umbra: %lu bytes were not read]\r\n",
			     console->lost_bytes);

	console->lost_bytes = 0;
	hold(console, (const uint8_t *)text, (size_t)bytes);
}

/*
 * A piece that a pipe takes whole once poll says so: a terminal that does not read stops here, not
 * in write(). False: none was taken.
 */
static bool push_piece(struct console *console, int timeout_ms)
{
	struct pollfd ready = { .fd = console->fd, .events = POLLOUT };
	const size_t to_end = CONSOLE_HELD_BYTES - console->held_first;
	size_t bytes = console->held_bytes < to_end ? console->held_bytes : to_end;
	ssize_t n;

	if (bytes > PIECE_BYTES)
		bytes = PIECE_BYTES;
	if (poll(&ready, 1, timeout_ms) <= 0)
		return false;
	n = write(console->fd, console->held + console->held_first, bytes);
	if (n < 0 && errno != EINTR && errno != EAGAIN) {
		console->fd = -1; /* nobody reads any more: the guest runs on */
		console->held_bytes = 0;
	}
	if (n <= 0)
		return false;
	console->held_first = (console->held_first + (size_t)n) % CONSOLE_HELD_BYTES;
	console->held_bytes -= (size_t)n;
	console->waits_ms = 0;
	return true;
}

void console_push(struct console *console)
{
	while (console->held_bytes && push_piece(console, 0))
		;
	if (console->held_bytes && !console->waits_ms)
		console->waits_ms = now_ms();
	if (!console->held_bytes && console->lost_bytes) {
		say_lost(console);
		console_push(console);
	}
	CHECK(check_console(console));
}

bool console_has_room(const struct console *console, size_t bytes)
{
	/* the filter makes no more of it than this */
	const size_t most = bytes + FILTER_TOKEN_BYTES;

	return console->fd < 0 || console->is_file || has_stopped(console) ||
	       console->held_bytes + most <= CONSOLE_HELD_BYTES;
}

int console_waits_for(const struct console *console)
{
	return console->held_bytes ? console->fd : -1;
}

void console_finish(struct console *console)
{
	while (console->held_bytes && !has_stopped(console) &&
	       push_piece(console, CONSOLE_PATIENCE_MS))
		;
}

static void stream_write(struct console *console, const uint8_t *data, size_t bytes)
{
	hold(console, data, bytes);
	console_push(console);
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
