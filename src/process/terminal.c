/* See terminal.h. */
#include "terminal.h"

#include <unistd.h>

enum { ESCAPE_KEY = 0x1d };

const char terminal_help[] =
	"\r\nCtrl-] q  end the machine\r\nCtrl-] ?  this help\r\nCtrl-] Ctrl-]  send Ctrl-]\r\n";

void terminal_restore(struct terminal *t)
{
	if (t->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
	t->raw = false;
}

void terminal_make_raw(struct terminal *t)
{
	struct termios raw;

	if (t->raw || tcgetattr(STDIN_FILENO, &t->before))
		return;
	raw = t->before;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST;
	t->raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

enum terminal_key terminal_key(struct terminal *t, uint8_t byte)
{
	if (!t->raw)
		return KEY_OF_GUEST;
	if (!t->escaped) {
		t->escaped = byte == ESCAPE_KEY;
		return t->escaped ? KEY_TAKEN : KEY_OF_GUEST;
	}
	t->escaped = false;
	switch (byte) {
	case ESCAPE_KEY: return KEY_OF_GUEST;
	case 'q': return KEY_STOP;
	case '?': return KEY_HELP;
	default: return KEY_TAKEN;
	}
}
