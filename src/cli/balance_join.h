/*
 * Bringing a machine to the user's balancer (process/balancer.h), which is started where there is
 * none, or none any more.
 */
#pragma once

#include <sys/types.h>

/*
 * The machine of this name, whose control socket listens already, and which ends with process
 * `broker`. It is brought again to the next balancer when this one has ended, by a process that
 * stays as long as the broker does, with the user's rights: it reads nothing but one short answer
 * for each time, and waits longer each time that a balancer ends soon. 0, or -errno: it follows its
 * own guest then.
 */
int balance_join(const char *name, pid_t broker);
/* A connection to the balancer; -ENOENT: there is none. */
int balance_connect(void);
