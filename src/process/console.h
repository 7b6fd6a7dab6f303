/*
 * Where the guest's console goes: standard output (through the filter when that is a terminal), a
 * file, or nowhere.
 *
 *  1. A file never grows beyond CONSOLE_FILE_BYTES: when it is full, its newer half stays.
 *  2. What a reader has not taken yet is held, CONSOLE_HELD_BYTES of it; then a guest that prints
 *     waits, and nobody else. One that has taken nothing for CONSOLE_PATIENCE_MS, or is gone, holds
 *     up nobody: what it does not take then is lost, and it is told how much when it reads again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "terminal_filter.h"

#define CONSOLE_FILE_BYTES (64ull << 20)

enum { CONSOLE_HELD_BYTES = 1 << 20, CONSOLE_PATIENCE_MS = 1000 };

enum console_kind { CONSOLE_STDIO, CONSOLE_RAW, CONSOLE_FILE, CONSOLE_NONE, CONSOLE_KINDS };

struct console {
	int fd; /* -1: nowhere */
	bool filters, is_file;
	uint64_t at_bytes, limit_bytes; /* of a file: how long it is, and may be */
	struct terminal_filter filter;
	/* of a stream: what its reader has not taken, since when it has taken nothing (0: it does),
	 * and what was lost meanwhile */
	size_t held_first, held_bytes;
	uint64_t waits_ms, lost_bytes;
	uint8_t held[CONSOLE_HELD_BYTES];
};

/* fd: of CONSOLE_FILE, else unused. */
void console_open(struct console *console, enum console_kind kind, int fd, uint64_t limit_bytes);
/* Never waits. */
void console_write(struct console *console, const uint8_t *data, size_t bytes);
/* What is held, as far as it is taken now. */
void console_push(struct console *console);
/* Whether so much more can be written with nothing lost, or for want of a reader may be. */
bool console_has_room(const struct console *console, size_t bytes);
/* The descriptor that has to become writable for the next console_push(); -1: nothing is held. */
int console_waits_for(const struct console *console);
/* What is held goes to a reader that takes it. */
void console_finish(struct console *console);
/* Invariant 2, and of its filter that it keeps one token. */
void check_console(const struct console *console);
