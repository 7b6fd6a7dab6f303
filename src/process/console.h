/*
 * Where the guest's console goes: standard output (through the filter when that is a terminal), a
 * file, or nowhere.
 *
 *  1. A file never grows beyond CONSOLE_FILE_BYTES: when it is full, its newer half stays.
 *  2. A reader that does not read holds up the console, and with it a guest that prints; one that
 *     is gone does not.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "terminal_filter.h"

#define CONSOLE_FILE_BYTES (64ull << 20)

enum console_kind { CONSOLE_STDIO, CONSOLE_RAW, CONSOLE_FILE, CONSOLE_NONE, CONSOLE_KINDS };

struct console {
	int fd; /* -1: nowhere */
	bool filters, is_file;
	uint64_t at_bytes, limit_bytes; /* of a file: how long it is, and may be */
	struct terminal_filter filter;
};

/* fd: of CONSOLE_FILE, else unused. */
void console_open(struct console *console, enum console_kind kind, int fd, uint64_t limit_bytes);
void console_write(struct console *console, const uint8_t *data, size_t bytes);
