/* See report.h. The line is written at once: a process that is locked down has no other way. */
#include "report.h"

#include <assert.h>
#include <stdio.h>

int complain(int code, const char *what, const char *where, const char *remedy)
{
	assert(what && where && remedy);
	fprintf(stderr, "umbra: %s: %s; %s\n", where, what, remedy);
	return code;
}
