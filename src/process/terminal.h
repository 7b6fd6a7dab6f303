/* The user's terminal: raw mode and its end, and the escape key. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

/* What a key that is pressed does. */
enum terminal_key { KEY_OF_GUEST, KEY_TAKEN, KEY_HELP, KEY_STOP };

struct terminal {
	struct termios before;
	bool raw;
	bool escaped; /* Ctrl-] was pressed */
};

extern const char terminal_help[];

/* Raw mode, where standard input is a terminal. */
void terminal_make_raw(struct terminal *terminal);
void terminal_restore(struct terminal *terminal);
enum terminal_key terminal_key(struct terminal *terminal, uint8_t byte);
