/* The options of a verb; what is wrong with one is one line, as every error of a verb is. */
#pragma once

#include <getopt.h>

/* As getopt_long(): '?' where the line has been said. verb: whose --help knows them. */
int option_of_verb(const char *verb, int argc, char **argv, const char *shorts,
		   const struct option *longs);
/* Of --wait: whole seconds, at most so many. 0, or the exit code, once the line has been said. */
int option_wait(const char *text, unsigned most_seconds, unsigned *ret);
