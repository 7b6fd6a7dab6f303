/* See next_option.h. What getopt_long() found wrong is known by optopt, and by where it stands. */
#include "next_option.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool is_long(const char *text) { return text[0] == '-' && text[1] == '-'; }

static bool begins_one(const char *text, const struct option *longs)
{
	for (const struct option *at = longs; at->name; at++)
		if (!strncmp(at->name, text + 2, strcspn(text, "=") - 2))
			return true;
	return false;
}

/* Whether this word is the option with that value, and what it says or lacks is why it is none. */
static bool is_wrong_long(const char *text, const struct option *longs, int value)
{
	const bool has_value = strchr(text, '=');

	for (const struct option *at = longs; is_long(text) && at->name; at++)
		if (at->val == value && !strncmp(at->name, text + 2, strcspn(text, "=") - 2))
			return has_value == (at->has_arg == no_argument);
	return false;
}

static void tell_long(const char *text, const char *what, struct wrong_option *wrong)
{
	wrong->what = what;
	snprintf(wrong->where, sizeof(wrong->where), "%.*s", (int)strcspn(text, "="), text);
}

static void tell(const char *text, const char *shorts, const struct option *longs,
		 struct wrong_option *wrong)
{
	const char *lacks = "it needs a value";

	if (!optopt) {
		tell_long(text, begins_one(text, longs) ? "it stands for several options"
							: "no such option", wrong);
	} else if (is_wrong_long(text, longs, optopt)) {
		tell_long(text, strchr(text, '=') ? "it takes no value" : lacks, wrong);
	} else {
		wrong->what = strchr(shorts, optopt) ? lacks : "no such option";
		snprintf(wrong->where, sizeof(wrong->where), "-%c", optopt);
	}
}

int next_option(int argc, char **argv, const char *shorts, const struct option *longs,
		struct wrong_option *ret_wrong)
{
	int option;

	opterr = 0;
	*ret_wrong = (struct wrong_option){ .what = NULL };
	option = getopt_long(argc, argv, shorts, longs, NULL);
	if (option == '?') {
		assert(optind > 0);
		tell(argv[optind - 1], shorts, longs, ret_wrong);
	}
	return option;
}
