/*
 * Text that somebody else has made - a path, a name, what a file or another host says - on its way
 * to a terminal: characters alone, none that acts there.
 *
 * Plain is printable ASCII, and UTF-8 of U+00A0 and above. For each byte of anything else there is
 * a question mark, line ends and tabs included: what is said stays one line.
 */
#pragma once

#include <stdio.h>

/* How many bytes the first character of a text has; 0: it is not plain, or there is none. */
unsigned plain_character(const char *text);
/* In its place. */
void plain_text(char *text);
/* The same, without a line end; NULL: nothing. */
void plain_put(FILE *to, const char *text);
/* One line, at once, cut off behind PLAIN_LINE_BYTES. */
enum { PLAIN_LINE_BYTES = 12288 };
void plain_line(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
