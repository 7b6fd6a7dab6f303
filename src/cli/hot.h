/* umbra info --hot: in which functions a guest's processors are most often. */
#pragma once

#include <stdbool.h>

struct hot_wanted {
	const char *name;
	const char *symbols; /* a System.map or kallsyms; NULL: the guest's own */
	const char *seconds; /* as it was said; NULL: 1 */
	bool json;
};

/* The exit code. */
int hot_show(const struct hot_wanted *wanted);
