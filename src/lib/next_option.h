/*
 * The options of a command line, as getopt_long() takes them, which prints nothing here: what is
 * wrong with one is told, for its caller to say in the form of all its other errors.
 */
#pragma once

#include <getopt.h>

enum { WRONG_OPTION_BYTES = 96 };

/* what: NULL where nothing is wrong; where: the option as it was written, without its value. */
struct wrong_option { const char *what; char where[WRONG_OPTION_BYTES]; };

/* As getopt_long(): '?' with *ret_wrong, where what is written is no option, or not a whole one. */
int next_option(int argc, char **argv, const char *shorts, const struct option *longs,
		struct wrong_option *ret_wrong);
