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

/*
 * Disk process: its open disks (reads, writes, their asynchronous ring, syncs, space, locks), what they keep in files beside them (openat
 * and renames, which Landlock keeps to the disks' own folders), memory without execution, its events, its queues' threads
 * (whose first calls may come late: rseq, set_robust_list, sigaltstack), the end.
 */
static const char *const disk_calls[] = {
	"futex", "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "io_uring_enter", "fdatasync",
	"fsync", "sync_file_range", "fallocate", "ftruncate", "fstat", "newfstatat", "lseek", "fcntl", "fadvise64", "openat", "close", "rename", "renameat",
	"renameat2", "unlink", "unlinkat", "poll", "ppoll", "mmap", "munmap", "mremap", "madvise", "mprotect", "brk", "getrandom", "uname", "getuid",
	"clock_gettime", "clock_nanosleep", "sched_yield", "sched_getaffinity", "rt_sigreturn", "rt_sigprocmask", "restart_syscall", "rseq",
	"set_robust_list", "sigaltstack", "getpid", "gettid", "tgkill", "exit", "exit_group", NULL,
};

const char *const *lockdown_calls(enum lockdown_role role)
{
	return role == LOCKDOWN_MACHINE ? machine_calls : role == LOCKDOWN_DISKS ? disk_calls : broker_calls;
}

static void keep_to_folders(const int *folders)
{
	struct landlock_ruleset_attr all = { .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 }; /* what the first ABI knows */
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);

	if (ruleset < 0)
		return; /* a kernel without Landlock: the list of calls holds alone */
	for (; folders && *folders >= 0; folders++) {
		struct landlock_path_beneath_attr files = {
			.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
					  LANDLOCK_ACCESS_FS_REMOVE_FILE,
			.parent_fd = *folders,
		};

		syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &files, 0);
	}
	syscall(SYS_landlock_restrict_self, ruleset, 0);
	close(ruleset);
}

int lockdown_before_threads(enum lockdown_role role, const int *folders)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (role == LOCKDOWN_MACHINE && unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS))
		errno = 0; /* the host does not permit it: one layer less */
	keep_to_folders(folders);
	return 0;
}

static int allow_on(scmp_filter_ctx filter, int call, const int *descriptors)
{
	int error = 0;

	for (; *descriptors >= 0 && !error; descriptors++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)*descriptors, 0));
	return error;
}

static int allow(scmp_filter_ctx filter, enum lockdown_role role, const char *name, const int *readable, const int *writable)
{
	int call = seccomp_syscall_resolve_name(name);

	if (role == LOCKDOWN_MACHINE && call == SCMP_SYS(read))
		return allow_on(filter, call, readable);
	if (role == LOCKDOWN_MACHINE && call == SCMP_SYS(write))
		return allow_on(filter, call, writable);
	if (call == SCMP_SYS(mprotect))
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (call == SCMP_SYS(mmap))
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
					SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
}

int lockdown(enum lockdown_role role, const int *readable, const int *writable)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	const char *const *names = lockdown_calls(role);
	int error = filter ? 0 : -ENOMEM;

	if (!error)
		error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	for (; *names && !error; names++)
		error = allow(filter, role, *names, readable, writable);
	if (!error)
		error = seccomp_load(filter);
	seccomp_release(filter);
	return error;
}

void lockdown_close_all_but(const int *kept)
{
	for (unsigned from = 0;;) {
		unsigned next = ~0u;

		for (const int *fd = kept; *fd >= 0; fd++)
			next = (unsigned)*fd >= from && (unsigned)*fd < next ? (unsigned)*fd : next;
		if (next == ~0u) {
			syscall(SYS_close_range, from, ~0u, 0);
			return;
		}
		if (next > from)
			syscall(SYS_close_range, from, next - 1, 0);
		from = next + 1;
	}
}
