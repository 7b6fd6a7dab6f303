/*
 * assert()'s end in this program. libc's own writes to standard error and raises a signal; a
 * process that is locked down can do neither, and would end by a system call that it may not make,
 * without a word.
 */
#include "assertion.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "report.h"

static struct { char *text; size_t bytes; } description; /* of the process, as assert() is */

void assertion_describe_in(char *text, size_t bytes)
{
	description.bytes = bytes;
	description.text = text;
}

/* What <assert.h> calls. */
void __assert_fail(const char *expression, const char *file, unsigned line, const char *function)
{
	if (description.text) {
		snprintf(description.text, description.bytes, "%s:%u: %s: not so: %s", file, line,
			 function, expression);
		_exit(EXIT_FAULT);
	}
	fprintf(stderr, "umbra: %s:%u: %s: not so: %s\n", file, line, function, expression);
	abort();
}
