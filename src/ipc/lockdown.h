/*
 * Taking rights away, for good: no new privileges, no capabilities, no file system (Landlock),
 * namespaces of its own where the host permits them, and the role's list of system calls; any other
 * one ends the process. What a role keeps is in role.c.
 */
#pragma once

#include "role.h"

/*
 * While there is one thread: everything but the list of calls. `folders` (descriptors, ended by -1;
 * NULL: none) stay reachable for files right in them. A host that knows or permits less costs a
 * layer, not the machine: `umbra doctor` says which. 0 or -errno.
 */
int lockdown_before_threads(enum role role, const int *folders);
/* The list of calls, for all threads of the process. 0 or -errno. */
int lockdown(enum role role);
/* Landlock's version here; 0: none. */
int lockdown_landlock_version(void);
/* Whether a process may have namespaces of its own here: tried in a child. */
bool lockdown_has_namespaces(void);
