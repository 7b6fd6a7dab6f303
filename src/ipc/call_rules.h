/* What the rows of a role's list (role.h) say, as rules of a list of calls (lib/call_filter.h). */
#pragma once

#include <fcntl.h>

#include "lib/call_filter.h"
#include "role.h"

/* The only file that is made, where none was (CALL_OPENS), and its folder (CALL_OF_COPY). */
enum { COPY_FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, COPY_MODE = 0444,
       COPY_FOLDER_MODE = 0555 };

/*
 * A list with these rows, of this process: its number and where its forker's page is are in it.
 * otherwise: SECCOMP_RET_... of every other call. NULL: no memory.
 */
struct call_filter *call_rules_make(const struct role_call *calls, uint32_t otherwise);
/*
 * What another list is to lose: a call with a row is let through as far as that says, or else ends
 * the process; all others are let through. NULL: no memory.
 */
struct call_filter *call_rules_make_less(const struct role_call *calls);
/* Rows more. 0 or -errno. */
int call_rules_add(struct call_filter *filter, const struct role_call *calls);
