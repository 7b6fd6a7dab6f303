/* The keyboard of a machine: what is typed here goes to its guest. */
#pragma once

/*
 * A text; or, NULL, what standard input says until it ends, a terminal's keys one by one until
 * Ctrl-]. The exit code.
 */
int keyboard_line(const char *machine, const char *text);
