/*
 * Libraries that only some of a program's processes need: loaded by those, and not by every one
 * that begins. To load GLib and SQLite takes more than all else that `umbra exec` does.
 *
 * LATE_CALL(name), at file level, makes the function `name`, which goes where its slot leads: to
 * the library's, once late_load() has found it. Nobody calls it before.
 */
#pragma once

#include <stdbool.h>

#define LATE_CALL(name)                                                                            \
	extern void *late_of_##name;                                                               \
	__attribute__((visibility("hidden"))) void *late_of_##name;                                \
	__asm__(".pushsection .text\n"                                                             \
		".globl " #name "\n"                                                               \
		".hidden " #name "\n"                                                              \
		".type " #name ", @function\n" #name ":\n"                                         \
		"endbr64\n"                                                                        \
		"jmp *late_of_" #name "(%rip)\n"                                                   \
		".size " #name ", .-" #name "\n"                                                   \
		".popsection\n");

struct late_call { const char *name; void **slot; };
#define LATE_ROW(function) { .name = #function, .slot = &late_of_##function },

struct late_library {
	const char *file;
	const struct late_call *call;
	unsigned calls;
};

/* True: all its functions are there; also when it has been loaded before. Before a lockdown. */
bool late_load(const struct late_library *library);
