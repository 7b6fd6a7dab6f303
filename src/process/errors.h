/*
 * What a machine's helpers say on their standard error, on its way to the user's: text alone, and
 * not more than ERRORS_MOST_BYTES. Nothing of a guest's, of a lost helper's or of a file's acts on
 * the terminal.
 */
#pragma once

#include <stddef.h>

#include "terminal_filter.h"

enum { ERRORS_MOST_BYTES = 64 << 10 };

/* write_fd: the helpers'. read_fd: -1 once nobody is left to say something. */
struct errors { int read_fd, write_fd; size_t shown_bytes; struct terminal_filter filter; };

/* 0 or -errno. */
int errors_make(struct errors *errors);
/* What has come; as far as whoever reads it takes it now: one that does not holds up nobody. */
void errors_show(struct errors *errors);
