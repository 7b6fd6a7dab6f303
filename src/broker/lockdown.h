/*
 * Taking rights away, for good: no new privileges, no file system (Landlock), own namespaces where the host permits them, and
 * a list of system calls; any other one ends the process.
 */
#pragma once

enum lockdown_role { LOCKDOWN_MACHINE, LOCKDOWN_BROKER };

/*
 * While there is one thread: no new privileges, Landlock without any rule, and for a machine process its own user, network, IPC
 * and mount namespaces. A host that knows or permits less costs a layer, not the machine. 0 or -errno.
 */
int lockdown_before_threads(enum lockdown_role role);
/* For all threads of the process. event_in, event_out: the only descriptors that a machine process may read and write. 0 or -errno. */
int lockdown(enum lockdown_role role, int event_in, int event_out);
/* The names of the calls that a role keeps, NULL at the end. */
const char *const *lockdown_calls(enum lockdown_role role);
