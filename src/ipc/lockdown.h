/*
 * Taking rights away, for good: no new privileges, no file system (Landlock), own namespaces where the host permits them, and
 * a list of system calls; any other one ends the process.
 */
#pragma once

enum lockdown_role { LOCKDOWN_MACHINE, LOCKDOWN_BROKER, LOCKDOWN_DISKS };

/*
 * While there is one thread: no new privileges, Landlock without any rule but for files right in `folders` (descriptors, ended by -1;
 * NULL: none), and for a machine process its own user, network, IPC and mount namespaces. A host that knows or permits less costs a
 * layer, not the machine. 0 or -errno.
 */
int lockdown_before_threads(enum lockdown_role role, const int *folders);
/* For all threads of the process. The only descriptors that a machine process may read and write, ended by -1; else NULL. 0 or -errno. */
int lockdown(enum lockdown_role role, const int *readable, const int *writable);
/* Every descriptor but these, ended by -1. */
void lockdown_close_all_but(const int *kept);
/* The names of the calls that a role keeps, NULL at the end. */
const char *const *lockdown_calls(enum lockdown_role role);
