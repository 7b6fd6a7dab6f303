/*
 * Bringing a machine to the user's balancer (process/balancer.h), which is started where there is
 * none.
 */
#pragma once

/*
 * The machine of this name, whose control socket listens already. 0, or -errno: it follows its own
 * guest then.
 */
int balance_join(const char *name);
/* A connection to the balancer; -ENOENT: there is none. */
int balance_connect(void);
