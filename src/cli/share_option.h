/* --serve and --bind of umbra run, into the plan of a machine's joiners. */
#pragma once

#include "process/plan.h"

/* NAME[=CLASS], MACHINE/NAME[=CLASS]; each: 0 or the exit code. */
int share_option_serve(struct share_plan *shares, const char *text);
int share_option_bind(struct share_plan *shares, const char *text);
/* share_port_kind() of each. */
void share_option_kinds(const struct share_plan *shares, uint8_t ret[SHARE_PORTS]);
/* Whether these are as many, and of the same kinds (share_port_kind()). */
bool share_option_fits(const struct share_plan *shares, const uint8_t kind[SHARE_PORTS]);
/* name: the machine's, or NULL: then it can have no ports. */
int share_option_take(struct share_plan *shares, const char *name);
/* Where the user's rules are. 0 or -errno. */
int share_rules_path(char *path, size_t bytes);
