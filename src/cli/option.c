/* See option.h. */
#include "option.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "lib/next_option.h"

int option_of_verb(const char *verb, int argc, char **argv, const char *shorts,
		   const struct option *longs)
{
	struct wrong_option wrong;
	char remedy[64];
	int option = next_option(argc, argv, shorts, longs, &wrong);

	if (wrong.what) {
		snprintf(remedy, sizeof(remedy), "see umbra %s --help", verb);
		complain(EXIT_USAGE, wrong.what, wrong.where, remedy);
	}
	return option;
}

int option_wait(const char *text, unsigned most_seconds, unsigned *ret)
{
	char *end;
	const unsigned long seconds = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || seconds > most_seconds)
		return complain(EXIT_USAGE, "not a number of seconds", text,
				"say for example --wait 60");
	*ret = (unsigned)seconds;
	return 0;
}
