/*
 * A control group (version 2) of a process's own, in which the kernel limits its memory: all of it,
 * also page tables and shared memory, which a resource limit does not count. Only where the group
 * of whoever starts it was delegated to him: a service or a scope with Delegate=yes, a container
 * whose groups may be written.
 *
 *   own group ── umbra-self-PID      who was in it, when nobody else was: a group that gives its
 *            │                       controllers on may hold no process
 *            └── umbra-machine-PID   memory.max, and as much of swap; entered by the process
 *                                    itself, before execve
 *
 * An empty group stays behind; the next one to make a group there removes it, when PID is no more.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Where the host keeps them, and what a process reads in /proc/self/cgroup. */
enum { GROUP_TEXT_BYTES = 4 << 10 };
struct group_place { const char *mount; char membership[GROUP_TEXT_BYTES]; };

/* This process's own. -ENOENT: the host has no groups of version 2. */
int group_place_find(struct group_place *ret);
/*
 * A group with this limit: a descriptor that makes who writes "0" to it a member. -ENOENT: no
 * controller of memory; -EACCES: not delegated; -EBUSY: others are in it; or another -errno.
 */
int group_make(const struct group_place *place, uint64_t most_bytes);
/* Another process becomes one, by what group_make() gave. 0 or -errno. */
int group_take_in(int members, int pid);
/* 0, or what group_make() would say; changes nothing. */
int group_look(const struct group_place *place);
