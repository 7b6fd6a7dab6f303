#include "terminal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { ESCAPE_KEY = 0x1d, PIECE_BYTES = 512 };

static struct termios before;
static bool is_raw;

void terminal_restore(void)
{
	if (is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	is_raw = false;
}

void terminal_make_raw(struct terminal *t)
{
	struct termios raw;

	if (is_raw || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before))
		return;
	raw = before;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST;
	t->raw = is_raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	atexit(terminal_restore);
}

void terminal_open(struct terminal *t, int fd, bool filter) { *t = (struct terminal){ .fd = fd, .filter = filter }; }

/*
 * What a guest prints to a terminal: CSI colour and cursor sequences pass; strings that a terminal acts on (OSC, DCS, APC, PM,
 * SOS: titles, clipboard, key definitions) and reports (CSI c, CSI n) do not.
 */
static size_t filter(struct terminal *c, const uint8_t *in, size_t bytes, uint8_t *out)
{
	enum { TEXT, ESC, CSI, STRING, STRING_ESC };
	size_t n = 0;

	for (size_t k = 0; k < bytes; k++) {
		uint8_t b = in[k];

		switch (c->state) {
		case TEXT:
			if (b == 0x1b)
				c->state = ESC;
			else if (b != 0x05 && !(b >= 0x80 && b < 0xa0))
				out[n++] = b;
			break;
		case ESC:
			if (b == '[')
				c->state = CSI;
			else if (strchr("]P_^X", b) && b)
				c->state = STRING;
			else {
				c->state = TEXT;
				if (strchr("78DEM=>", b) && b)
					out[n++] = 0x1b, out[n++] = b;
			}
			c->csi_used = 0;
			break;
		case CSI: /* passes as a whole, or not at all */
			if (b >= 0x20 && c->csi_used < sizeof(c->csi))
				c->csi[c->csi_used++] = b;
			if (b < 0x40 || b > 0x7e)
				break;
			c->state = TEXT;
			if (c->csi_used == sizeof(c->csi) || !strchr("ABCDEFGHJKLMPSTXdfhlmrsu@", b))
				break;
			out[n++] = 0x1b, out[n++] = '[';
			memcpy(out + n, c->csi, c->csi_used);
			n += c->csi_used;
			break;
		case STRING: c->state = b == 0x1b ? STRING_ESC : b == 7 ? TEXT : STRING; break;
		default: c->state = b == '\\' ? TEXT : STRING; break;
		}
	}
	return n;
}

/* In pieces that a pipe takes whole once poll says so: a terminal that does not read stops here, not in write(). */
static void write_all(struct terminal *t, const uint8_t *data, size_t bytes)
{
	while (bytes && t->fd >= 0) {
		struct pollfd ready = { .fd = t->fd, .events = POLLOUT };
		ssize_t n = poll(&ready, 1, -1) < 0 ? -1 : write(t->fd, data, bytes < PIECE_BYTES ? bytes : PIECE_BYTES);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			t->fd = -1; /* nobody reads any more: the guest runs on */
		if (n > 0)
			data += n, bytes -= (size_t)n;
	}
}

void terminal_write(struct terminal *t, const uint8_t *data, size_t bytes)
{
	uint8_t filtered[2 * PIECE_BYTES + sizeof(t->csi)];

	while (bytes) {
		size_t n = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;

		if (t->filter)
			write_all(t, filtered, filter(t, data, n, filtered));
		else
			write_all(t, data, n);
		data += n;
		bytes -= n;
	}
}

bool terminal_key(struct terminal *t, uint8_t b, bool *ret_stop)
{
	static const char help[] = "\r\nCtrl-] q  end the machine\r\nCtrl-] ?  this help\r\nCtrl-] Ctrl-]  send Ctrl-]\r\n";

	if (!t->raw)
		return false;
	if (!t->escaped)
		return t->escaped = b == ESCAPE_KEY;
	t->escaped = false;
	*ret_stop = b == 'q';
	if (b == '?')
		write_all(t, (const uint8_t *)help, sizeof(help) - 1);
	return b != ESCAPE_KEY;
}
