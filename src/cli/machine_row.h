/* What a machine with a name says of itself, for lists of machines: nobody is waited for long. */
#pragma once

#include <jansson.h>

/*
 * As umbra info --json has it, with "state": running, paused; or, of one that does not answer
 * within ROW_MS, its name, "pid" and "state" alone: starting, while it is not served yet, or
 * silent. To be released; NULL: no machine of that name runs.
 */
enum { ROW_MS = 2000 };
json_t *machine_row(const char *name);
/* Which of running and paused one is that answers. */
const char *machine_row_state(const json_t *machine);
