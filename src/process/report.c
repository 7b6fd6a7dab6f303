/* See report.h. The line is written at once: a process that is locked down has no other way. */
#include "report.h"

#include <assert.h>
#include <stdio.h>

#include "lib/plain_text.h"

int complain(int code, const char *what, const char *where, const char *remedy)
{
	assert(what && where && remedy);
	plain_line(stderr, "umbra: %s: %s; %s", where, what, remedy);
	return code;
}
