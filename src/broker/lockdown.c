#include "lockdown.h"

#include <errno.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Machine process: sleeping and waking (futex, nanosleep), guest timers (timer_settime), its two event descriptors (read,
 * write), memory without execution (mmap, munmap, madvise, brk; a thread's stack goes at its end), clocks where the host has no
 * vDSO, the end (exit, exit_group; tgkill and rt_sigprocmask are abort's). None opens, connects, or makes a process.
 */
static const char *const machine_calls[] = {
	"futex", "read", "write", "timer_settime", "clock_gettime", "clock_nanosleep", "rt_sigreturn", "rt_sigprocmask", "restart_syscall",
	"sched_yield", "mmap", "munmap", "madvise", "brk", "getpid", "gettid", "tgkill", "exit", "exit_group", NULL,
};

/* Broker: the terminal (read, write, poll, ioctl), who connects to its control socket (accept4), its child (kill, wait4), the end. It opens nothing. */
static const char *const broker_calls[] = {
	"futex", "read", "write", "poll", "ppoll", "accept4", "ioctl", "kill", "wait4", "waitid", "clock_gettime", "rt_sigreturn", "rt_sigprocmask",
	"restart_syscall", "munmap", "brk", "close", "newfstatat", "fstat", "lseek", "exit", "exit_group", NULL,
};

const char *const *lockdown_calls(enum lockdown_role role) { return role == LOCKDOWN_MACHINE ? machine_calls : broker_calls; }

static void no_files(void)
{
	struct landlock_ruleset_attr all = { .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 }; /* what the first ABI knows */
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);

	if (ruleset < 0)
		return; /* a kernel without Landlock: the list of calls holds alone */
	syscall(SYS_landlock_restrict_self, ruleset, 0);
	close(ruleset);
}

int lockdown_before_threads(enum lockdown_role role)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (role == LOCKDOWN_MACHINE && unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS))
		errno = 0; /* the host does not permit it: one layer less */
	no_files();
	return 0;
}

static int allow(scmp_filter_ctx filter, enum lockdown_role role, const char *name, int event_in, int event_out)
{
	int call = seccomp_syscall_resolve_name(name);

	if (role == LOCKDOWN_MACHINE && call == SCMP_SYS(read))
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)event_in, 0));
	if (role == LOCKDOWN_MACHINE && call == SCMP_SYS(write))
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)event_out, 0));
	if (call == SCMP_SYS(mmap))
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
					SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
}

int lockdown(enum lockdown_role role, int event_in, int event_out)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	const char *const *names = lockdown_calls(role);
	int error = filter ? 0 : -ENOMEM;

	if (!error)
		error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	for (; *names && !error; names++)
		error = allow(filter, role, *names, event_in, event_out);
	if (!error)
		error = seccomp_load(filter);
	seccomp_release(filter);
	return error;
}
