/*
 * Taking rights away, for good: no new privileges, no capabilities, no file system (Landlock),
 * namespaces of its own where the host permits them, and the role's list of system calls; any other
 * one ends the process. What a role keeps is in role.c.
 */
#pragma once

#include <linux/filter.h>

#include "role.h"

/*
 * While there is one thread: everything but the list of calls. `folders` (descriptors, ended by -1;
 * NULL: none) stay reachable for files right in them. A host that knows or permits less costs a
 * layer, not the machine: `umbra doctor` says which. 0 or -errno.
 */
int lockdown_before_threads(enum role role, const int *folders);
/*
 * For several processes of the role, from one that makes them and has its rights: namespaces and an
 * empty root that they have in common, so that none is made for each. In lockdown_before_threads()
 * who has GRANT_ROOM and GRANT_ROOM_LINE goes there, or has namespaces of his own after all.
 * *ret_line, and a process, for these two; -errno: there are none.
 */
int lockdown_make_room(enum role role, int *ret_line);
/*
 * The same, and instead of an empty root this folder, whose descriptor is closed: nothing in it can
 * be opened, but who listens there can be connected to, and nobody elsewhere. 0 or -errno.
 */
int lockdown_in_folder(enum role role, int folder);
/*
 * The same, and everything in the folder can be read, and changed where it is to be. Its descriptor
 * stays. 0 or -errno.
 */
int lockdown_on_folder(enum role role, int folder, bool writes);
/* The list of calls, for all threads of the process. 0 or -errno. */
int lockdown(enum role role);

/*
 * A process that reads what others made gives up its rights in two steps. Before it opens anything
 * hostile lockdown_for_opening(): namespaces of its own, no capability that reaches beyond files,
 * role_description.opening_calls, and of the files these. Afterwards, instead of
 * lockdown_before_threads(), lockdown_after_opening(); then lockdown() as everybody.
 */
enum lockdown_access {
	LOCKDOWN_READ,
	LOCKDOWN_WRITE,
	LOCKDOWN_READ_BENEATH,
	LOCKDOWN_MEET, /* of a folder: the same, and sockets are made and removed */
	LOCKDOWN_EXECUTE,
};

struct lockdown_file { int fd; enum lockdown_access access; }; /* fd: O_PATH will do */

/*
 * While there is one thread. *ret_root: an empty root to be entered afterwards; -1: the host
 * permits none. 0 or -errno.
 */
int lockdown_for_opening(enum role role, const struct lockdown_file *files, unsigned count,
			 int *ret_root);
int lockdown_after_opening(enum role role, int root);
/*
 * A process that starts others (`started`), while there is one thread: no new privileges, no
 * capability but for ports below 1024; no signal and no abstract socket beyond itself and these, no
 * file but the program's own and `files` (Landlock); role_description.starting_calls and, where it
 * meets others, meeting_calls. What it executes has the same, once, and an empty root at
 * GRANT_ROOT. 0 or -errno.
 */
int lockdown_to_start(enum role role, enum role started, bool meets,
		      const struct lockdown_file *files, unsigned count);
/* Of a process that only waits: no capability, and none comes back. 0 or -errno. */
int lockdown_capabilities(void);
/*
 * The same in two steps: what is compiled before is loaded by a process that may no longer compile
 * it. 0 or -errno.
 */
int lockdown_compile(enum role role, struct sock_fprog *ret);
/* Of one that was forked: what its forker's list is to lose (role_description.forked_calls). */
int lockdown_compile_forked(enum role role, struct sock_fprog *ret);
int lockdown_load(const struct sock_fprog *program);
/* Landlock's version here; 0: none. */
int lockdown_landlock_version(void);
/* Whether a process may have namespaces of its own here: tried in a child. */
bool lockdown_has_namespaces(void);
