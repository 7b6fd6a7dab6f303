/* --serve and --bind of umbra run, into the plan of a machine's joiners. */
#pragma once

#include "process/plan.h"

/* NAME[=CLASS], MACHINE/NAME[=CLASS]; each: 0 or the exit code. */
int share_option_serve(struct share_plan *shares, const char *text);
int share_option_bind(struct share_plan *shares, const char *text);
/* name: the machine's, or NULL: then it can have no ports. */
int share_option_take(struct share_plan *shares, const char *name);
/* Where the user's rules are. 0 or -errno. */
int share_rules_path(char *path, size_t bytes);
