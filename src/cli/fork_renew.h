/*
 * What a child of a fork has anew by its guest's agent (src/agent/twin.c): random numbers, and its
 * name and machine-id where they are asked for.
 */
#pragma once

#include <stdbool.h>

struct fork_renew { bool random, hostname, machine_id; };

/* Words by commas: random, hostname, machine-id, all. 0 or the exit code. */
int fork_renew_parse(struct fork_renew *renew, const char *text);
/* The machine's, which is called so. 0, or the exit code: then it is as it was, or in part. */
int fork_renew(const struct fork_renew *renew, const char *child);
