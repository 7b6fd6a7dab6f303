/* See terminal.h. */
#include "terminal.h"

#include <unistd.h>

enum { ESCAPE_KEY = 0x1d };

const char terminal_help[] =
	"\r\nCtrl-] q  end the machine\r\nCtrl-] ?  this help\r\nCtrl-] Ctrl-]  send Ctrl-]\r\n";

void terminal_restore(struct terminal *terminal)
{
	if (terminal->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal->before);
	terminal->raw = false;
}

void terminal_make_raw(struct terminal *terminal)
{
	struct termios raw;

	if (terminal->raw || tcgetattr(STDIN_FILENO, &terminal->before))
		return;
	raw = terminal->before;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST;
	terminal->raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

enum terminal_key terminal_key(struct terminal *terminal, uint8_t byte)
{
	if (!terminal->raw)
		return KEY_OF_GUEST;
	if (!terminal->escaped) {
		terminal->escaped = byte == ESCAPE_KEY;
		return terminal->escaped ? KEY_TAKEN : KEY_OF_GUEST;
	}
	terminal->escaped = false;
	switch (byte) {
	case ESCAPE_KEY: return KEY_OF_GUEST;
	case 'q': return KEY_STOP;
	case '?': return KEY_HELP;
	default: return KEY_TAKEN;
	}
}
