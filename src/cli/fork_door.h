/*
 * Who forks a machine when its guest asks (umbra run --guest-forks): a process of the user's beside
 * the machine and all that were forked through it, which runs `umbra fork` for each request that
 * the limits permit.
 *
 *   guest's kernel -- request (docs/umbra-interface.md) -- broker -- this process -- the same
 *   guest's program -- hv_sock -- relay -- SOCKET_50112 -- this process -- umbra fork NAME
 *
 *  - What a guest says, or a machine process that is lost, is one line of two words
 *    (abi/guest_fork.h): it chooses neither names nor files, only when; and that as often as was
 *    permitted, all children of the lineage counted together.
 *  - One fork is under way at a time; others are refused meanwhile.
 *  - It ends with the last of these machines.
 */
#pragma once

#include <sys/types.h>

enum { FORK_DOOR_CHILDREN = 128, FORK_DOOR_PER_MINUTE = 10 };

struct fork_door_limits { unsigned children, per_minute; /* 0: none may be made */ };

/* "COUNT" or "COUNT,PER-MINUTE". 0 or the exit code. */
int fork_door_parse(const char *text, struct fork_door_limits *ret);
/*
 * Beside the machine of this name, whose programs connect at `socket` ("": they cannot), and which
 * ends with process `broker`. 0 or -errno.
 */
int fork_door_begin(const char *name, const char *socket, struct fork_door_limits limits,
		    pid_t broker);
