/*
 * Why a file, or what was asked of it, is refused: always which file, where in it, which structure
 * (by the specification's name), what was found there, what was expected, and the remedy.
 *
 * The kinds are the rows of refusals.h, which say all of it that is the same for each of a kind;
 * who refuses adds the file, the offset and what was found. So none can be left out, and a test
 * (tests/disk/refusals.py) sees that each row happens. An offset is in bytes of that file and
 * within it, or DISK_NOWHERE, where the row says so: the file is not there, is of a wrong length as
 * a whole, or the fault is in none of its bytes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DISK_NOWHERE UINT64_MAX

enum disk_refusal {
	REFUSAL_NONE,
#define REFUSAL(name, code, place, structure, expected, remedy) REFUSAL_##name,
#include "refusals.h"
#undef REFUSAL
	REFUSALS
};

enum { DISK_LINE_BYTES = 1280, DISK_FOUND_BYTES = 360, DISK_PATH_BYTES = 512 };

/*
 * Empty: REFUSAL_NONE. Of a path that is longer, its end. Nothing in it steers a terminal.
 * text: PATH: STRUCTURE at offset N: FOUND; expected: EXPECTED; REMEDY
 */
struct disk_error {
	char text[DISK_LINE_BYTES];
	enum disk_refusal kind;
	int code; /* -errno */
	uint64_t offset;
	char path[DISK_PATH_BYTES], found[DISK_FOUND_BYTES];
};

/* All of it, member by member; none is NULL or empty. Borrowed from the error. */
struct disk_refusal_parts {
	const char *kind, *path, *structure, *found, *expected, *remedy;
	uint64_t offset; /* DISK_NOWHERE */
};
void disk_error_parts(const struct disk_error *error, struct disk_refusal_parts *ret);

/*
 * Fills *error, and returns the code of the kind. NULL: nobody wants to know. `format`: what was
 * found.
 */
int disk_refuse(struct disk_error *error, enum disk_refusal kind, const char *path, uint64_t offset,
		const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Of a kind whose code is the host's. */
int disk_refuse_as(struct disk_error *error, enum disk_refusal kind, int code, const char *path,
		   uint64_t offset, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* The host has said no (-errno), or has no memory, when something was done with a file. */
int disk_refuse_host(struct disk_error *error, int code, const char *path, const char *doing);
/* It has no length (-errno of file_size()). */
int disk_refuse_type(struct disk_error *error, int code, const char *path);
/* What a user can do about an error. */
const char *disk_remedy(int code);
/* Another name for the same file. */
void disk_error_rename(struct disk_error *error, const char *path);
/* More of what was found. */
void disk_error_add(struct disk_error *error, const char *text);
