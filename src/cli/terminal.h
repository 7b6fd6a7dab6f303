/* The user's terminal: raw mode and its end, the escape key, and what of the guest's output may reach it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct terminal {
	int fd;
	bool filter, raw, escaped;
	int state;
	uint8_t csi[32]; /* parameters and end of the control sequence that is coming */
	size_t csi_used;
};

/* fd: where the console goes; -1: nowhere. */
void terminal_open(struct terminal *terminal, int fd, bool filter);
/* Raw mode until the process ends, whichever way that is its own. */
void terminal_make_raw(struct terminal *terminal);
void terminal_restore(void);
void terminal_write(struct terminal *terminal, const uint8_t *data, size_t bytes);
/* True: the key is not the guest's. */
bool terminal_key(struct terminal *terminal, uint8_t byte, bool *ret_stop);
