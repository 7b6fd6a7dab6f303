/* The table of roles, see role.h. */
#include "role.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>

static_assert(GRANTS <= sizeof(grant_set) * CHAR_BIT, "each has its bit");

/* A call. */
#define NAMED(call) #call, SYS_##call
/* Four that follow each other. */
#define GRANTS_OF_CARDS(first) ((grant_set)15 << (first))
/* Two. */
#define GRANTS_OF_PORTS(first) ((grant_set)3 << (first))

/* Its own memory, without execution. */
#define CALLS_OF_MEMORY                                                                            \
	{ NAMED(mmap), CALL_ANONYMOUS, 0 }, { NAMED(munmap), CALL_ANY, 0 },                        \
	{ NAMED(brk), CALL_ANY, 0 }
/* Signals, and its end, which an assertion may bring. */
#define CALLS_OF_THE_END                                                                           \
	{ NAMED(rt_sigreturn), CALL_ANY, 0 }, { NAMED(restart_syscall), CALL_ANY, 0 },             \
	{ NAMED(tgkill), CALL_OWN_PROCESS, 0 }, { NAMED(exit_group), CALL_ANY, 0 }

enum {
	EVERY_NAMESPACE = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS |
			  CLONE_NEWCGROUP
};

/*
 * Sleeping and waking, guest timers, its events, memory without execution, clocks where the host
 * has no vDSO, windows that its ports' joiners send, the end. None opens, connects, names a
 * process, or makes one.
 */
static const struct role_call machine_calls[] = {
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(read), CALL_ON_GRANTS,
	  GRANT(GRANT_TO_MACHINE) | GRANT(GRANT_ANSWER) | GRANTS_OF_CARDS(GRANT_CARD_ANSWERS) |
		  GRANTS_OF_PORTS(GRANT_PORT_ANSWERS) | GRANT(GRANT_PAGER) },
	{ NAMED(ppoll), CALL_ANY, 0 },
	{ NAMED(write), CALL_ON_GRANTS,
	  GRANT(GRANT_TO_BROKER) | GRANT(GRANT_DOORBELL) | GRANT(GRANT_ANSWER) |
		  GRANT(GRANT_CONNECTION_BELL) | GRANTS_OF_CARDS(GRANT_CARD_BELLS) |
		  GRANTS_OF_PORTS(GRANT_PORT_BELLS) },
	{ NAMED(timer_settime), CALL_ANY, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(clock_nanosleep), CALL_ANY, 0 },
	{ NAMED(rt_sigreturn), CALL_ANY, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(restart_syscall), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(mmap), CALL_OWN_OR_WINDOW, 0 },
	{ NAMED(munmap), CALL_OFF_PAGE, 0 },
	{ NAMED(mremap), CALL_TAKE_PLACE, 0 },
	{ NAMED(recvmsg), CALL_ON_GRANTS, GRANTS_OF_PORTS(GRANT_WINDOW_LINES) },
	{ NAMED(close), CALL_RECEIVED, 0 },
	{ NAMED(madvise), CALL_EMPTY, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	{ NAMED(exit), CALL_ANY, 0 },
	{ NAMED(exit_group), CALL_ANY, 0 },
	/* a thread of what was forked may still have to hear that it may not (forker.S) */
	{ NAMED(getpid), CALL_REFUSED, 0 },
	{ .name = "" },
};

/*
 * What a machine process keeps, and what makes another one of it. The forker executes one page that
 * cannot be written and has no stack (forker.S); who it forks gives up what makes processes there,
 * and the rest once its threads exist.
 */
static const struct role_call forker_calls[] = {
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(read), CALL_ON_GRANTS,
	  GRANT(GRANT_TO_MACHINE) | GRANT(GRANT_ANSWER) | GRANTS_OF_CARDS(GRANT_CARD_ANSWERS) |
		  GRANTS_OF_PORTS(GRANT_PORT_ANSWERS) | GRANT(GRANT_FORK_ASK) },
	{ NAMED(ppoll), CALL_ANY, 0 },
	{ NAMED(write), CALL_ON_GRANTS,
	  GRANT(GRANT_TO_BROKER) | GRANT(GRANT_DOORBELL) | GRANT(GRANT_ANSWER) |
		  GRANT(GRANT_CONNECTION_BELL) | GRANTS_OF_CARDS(GRANT_CARD_BELLS) |
		  GRANTS_OF_PORTS(GRANT_PORT_BELLS) | GRANT(GRANT_READY) },
	{ NAMED(timer_settime), CALL_ANY, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(clock_nanosleep), CALL_ANY, 0 },
	{ NAMED(rt_sigreturn), CALL_ANY, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(restart_syscall), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(mmap), CALL_OWN_MAPPING, 0 },
	{ NAMED(munmap), CALL_OFF_PAGE, 0 },
	{ NAMED(mremap), CALL_TAKE_PLACE, 0 },
	{ NAMED(madvise), CALL_EMPTY, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	{ NAMED(exit), CALL_ANY, 0 },
	{ NAMED(exit_group), CALL_ANY, 0 },
	/* the forker's own */
	{ NAMED(clone), CALL_FORK, 0 },
	{ NAMED(clone3), CALL_UNKNOWN, 0 },
	{ NAMED(sendto), CALL_ON_GRANTS, GRANT(GRANT_FORK_KIT) },
	{ NAMED(recvmsg), CALL_ON_GRANTS,
	  GRANT(GRANT_FORK_KIT) | GRANTS_OF_PORTS(GRANT_WINDOW_LINES) },
	{ NAMED(dup2), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(close_range), CALL_ANY, 0 },
	{ NAMED(getpid), CALL_ANY, 0 },
	{ NAMED(pidfd_open), CALL_ANY, 0 },
	{ NAMED(pidfd_send_signal), CALL_ON_GRANTS, GRANT(GRANT_FORK_SELF) },
	{ NAMED(getcpu), CALL_ANY, 0 },
	{ NAMED(sched_getaffinity), CALL_OWN_ONLY, 0 },
	{ NAMED(sched_setaffinity), CALL_OWN_ONLY, 0 },
	/* until a forked machine runs */
	{ NAMED(pwrite64), CALL_ON_GRANTS, GRANT(GRANT_CODE) },
	{ NAMED(seccomp), CALL_FILTER, 0 },
	{ NAMED(rt_sigaction), CALL_ANY, 0 },
	{ NAMED(sigaltstack), CALL_ANY, 0 },
	{ NAMED(arch_prctl), CALL_GS, 0 },
	{ NAMED(gettid), CALL_ANY, 0 },
	{ NAMED(timer_create), CALL_ANY, 0 },
	{ .name = "" },
};

/*
 * What is left of those once its threads exist: of machine_calls, and so windows, too; and beside
 * them the end of the pipe by which it says that it runs, which it then closes, and that each of
 * its threads leaves the host's processor on which they began. A short list, since
 * the kernel takes as long for each machine as it has instructions.
 */
static const struct role_call forked_calls[] = {
	{ NAMED(read), CALL_ON_GRANTS,
	  GRANT(GRANT_TO_MACHINE) | GRANT(GRANT_ANSWER) | GRANTS_OF_CARDS(GRANT_CARD_ANSWERS) |
		  GRANTS_OF_PORTS(GRANT_PORT_ANSWERS) },
	{ NAMED(write), CALL_ON_GRANTS,
	  GRANT(GRANT_TO_BROKER) | GRANT(GRANT_DOORBELL) | GRANT(GRANT_ANSWER) |
		  GRANT(GRANT_CONNECTION_BELL) | GRANTS_OF_CARDS(GRANT_CARD_BELLS) |
		  GRANTS_OF_PORTS(GRANT_PORT_BELLS) | GRANT(GRANT_READY) },
	{ NAMED(mmap), CALL_OWN_OR_RECEIVED, 0 },
	{ NAMED(getpid), CALL_REFUSED, 0 },
	{ NAMED(clone), CALL_NEVER, 0 },
	{ NAMED(clone3), CALL_NEVER, 0 },
	{ NAMED(sendto), CALL_NEVER, 0 },
	{ NAMED(recvmsg), CALL_ON_GRANTS, GRANTS_OF_PORTS(GRANT_WINDOW_LINES) },
	{ NAMED(dup2), CALL_NEVER, 0 },
	{ NAMED(close), CALL_RECEIVED, 0 },
	{ NAMED(close), CALL_ON_GRANTS, GRANT(GRANT_READY) },
	{ NAMED(close_range), CALL_NEVER, 0 },
	{ NAMED(pidfd_open), CALL_NEVER, 0 },
	{ NAMED(pidfd_send_signal), CALL_NEVER, 0 },
	{ NAMED(pwrite64), CALL_NEVER, 0 },
	{ NAMED(seccomp), CALL_NEVER, 0 },
	{ NAMED(rt_sigaction), CALL_NEVER, 0 },
	{ NAMED(sigaltstack), CALL_NEVER, 0 },
	{ NAMED(arch_prctl), CALL_NEVER, 0 },
	{ NAMED(gettid), CALL_NEVER, 0 },
	{ NAMED(timer_create), CALL_NEVER, 0 },
	{ NAMED(getcpu), CALL_NEVER, 0 },
	{ NAMED(sched_getaffinity), CALL_NEVER, 0 },
	{ .name = "" },
};

/*
 * The terminal, the console's file, peers of the control socket, what helpers have to say, the
 * other processes (killed by their descriptors: nobody else can be), its children's ends. It opens
 * nothing.
 */
static const struct role_call broker_calls[] = {
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(read), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(accept4), CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ NAMED(ioctl), CALL_TERMINAL, 0 },
	{ NAMED(pidfd_send_signal), CALL_ON_PROCESSES, 0 },
	{ NAMED(pidfd_open), CALL_ANY, 0 },
	{ NAMED(recvmsg), CALL_ANY, 0 },
	{ NAMED(sendmsg), CALL_ANY, 0 },
	{ NAMED(wait4), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ON_GRANTS, GRANT(GRANT_CONSOLE) | GRANT(GRANT_PAGEMAP) },
	{ NAMED(pwrite64), CALL_ON_GRANTS, GRANT(GRANT_CONSOLE) },
	{ NAMED(ftruncate), CALL_ON_GRANTS, GRANT(GRANT_CONSOLE) },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(restart_syscall), CALL_ANY, 0 },
	{ NAMED(munmap), CALL_ANY, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(getpid), CALL_ANY, 0 },
	{ NAMED(gettid), CALL_ANY, 0 },
	{ NAMED(tgkill), CALL_OWN_PROCESS, 0 },
	{ NAMED(exit_group), CALL_ANY, 0 },
	{ .name = "" },
};

/*
 * Its open disks (reads, writes, a ring that can do nothing else, syncs, space, locks), memory
 * without execution, its events, the end. It has opened them before (disk_opening_calls), and opens
 * nothing now: what lies beside a disk the keeper has, and new files come from the broker.
 */
static const struct role_call disk_calls[] = {
	{ NAMED(recvmsg), CALL_ON_GRANTS, GRANT(GRANT_LAYERS) },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(read), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(preadv), CALL_ANY, 0 },
	{ NAMED(pwritev), CALL_ANY, 0 },
	{ NAMED(io_uring_enter), CALL_RING_ENTER, 0 },
	{ NAMED(fdatasync), CALL_ANY, 0 },
	{ NAMED(fsync), CALL_ANY, 0 },
	{ NAMED(fallocate), CALL_ANY, 0 },
	{ NAMED(ftruncate), CALL_ANY, 0 },
	{ NAMED(newfstatat), CALL_ON_OPEN_FILE, 0 },
	{ NAMED(openat), CALL_REFUSED, 0 },
	{ NAMED(fcntl), CALL_LOCKS, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(mmap), CALL_ANONYMOUS, 0 },
	{ NAMED(munmap), CALL_ANY, 0 },
	{ NAMED(mremap), CALL_ANY, 0 },
	{ NAMED(madvise), CALL_GIVE_BACK, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	{ NAMED(getrandom), CALL_ANY, 0 },
	{ NAMED(uname), CALL_ANY, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(clock_nanosleep), CALL_ANY, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(rt_sigreturn), CALL_ANY, 0 },
	{ NAMED(restart_syscall), CALL_ANY, 0 },
	{ NAMED(exit), CALL_ANY, 0 },
	{ NAMED(exit_group), CALL_ANY, 0 },
	{ .name = "" },
};

/*
 * While the disks are opened, whose formats a hostile file may break: files, which Landlock keeps
 * to those of the plan and the places of their parents; threads; what gives up the rest. No
 * process, no program, no socket, no ring, no signal to others, nothing executable.
 */
static const struct role_call disk_opening_calls[] = {
	{ NAMED(recvmsg), CALL_ON_GRANTS, GRANT(GRANT_LAYERS) }, /* what disk_calls keeps */
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(read), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ANY, 0 },
	{ NAMED(pwrite64), CALL_ANY, 0 },
	{ NAMED(preadv), CALL_ANY, 0 },
	{ NAMED(pwritev), CALL_ANY, 0 },
	{ NAMED(lseek), CALL_ANY, 0 },
	{ NAMED(openat), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(newfstatat), CALL_ANY, 0 },
	{ NAMED(fstat), CALL_ANY, 0 },
	{ NAMED(access), CALL_ANY, 0 },
	{ NAMED(faccessat2), CALL_ANY, 0 },
	{ NAMED(readlink), CALL_ANY, 0 },
	{ NAMED(getdents64), CALL_ANY, 0 },
	{ NAMED(getcwd), CALL_ANY, 0 },
	{ NAMED(fcntl), CALL_FILE_CONTROL, 0 },
	{ NAMED(fadvise64), CALL_ANY, 0 },
	{ NAMED(fdatasync), CALL_ANY, 0 },
	{ NAMED(fsync), CALL_ANY, 0 },
	{ NAMED(fallocate), CALL_ANY, 0 },
	{ NAMED(ftruncate), CALL_ANY, 0 },
	{ NAMED(io_uring_enter), CALL_RING_ENTER, 0 },
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(mmap), CALL_NO_EXECUTION, 0 },
	{ NAMED(munmap), CALL_ANY, 0 },
	{ NAMED(mremap), CALL_ANY, 0 },
	{ NAMED(madvise), CALL_GIVE_BACK, 0 },
	{ NAMED(mprotect), CALL_NO_EXECUTION, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	{ NAMED(getrandom), CALL_ANY, 0 },
	{ NAMED(uname), CALL_ANY, 0 },
	{ NAMED(getuid), CALL_ANY, 0 },
	{ NAMED(geteuid), CALL_ANY, 0 },
	{ NAMED(getpid), CALL_ANY, 0 },
	{ NAMED(gettid), CALL_ANY, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(clock_getres), CALL_ANY, 0 },
	{ NAMED(clock_nanosleep), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(sched_getaffinity), CALL_ANY, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(rt_sigreturn), CALL_ANY, 0 },
	{ NAMED(restart_syscall), CALL_ANY, 0 },
	{ NAMED(clone), CALL_THREAD, 0 },
	{ NAMED(clone3), CALL_UNKNOWN, 0 },
	{ NAMED(set_robust_list), CALL_ANY, 0 },
	{ NAMED(rseq), CALL_ANY, 0 },
	{ NAMED(prctl), CALL_ANY, 0 },
	{ NAMED(seccomp), CALL_ANY, 0 },
	{ NAMED(capset), CALL_ANY, 0 },
	{ NAMED(unshare), CALL_ANY, 0 },
	{ NAMED(fchdir), CALL_ANY, 0 },
	{ NAMED(chroot), CALL_ANY, 0 },
	{ NAMED(landlock_create_ruleset), CALL_ANY, 0 },
	{ NAMED(landlock_add_rule), CALL_ANY, 0 },
	{ NAMED(landlock_restrict_self), CALL_ANY, 0 },
	{ NAMED(exit), CALL_ANY, 0 },
	{ NAMED(exit_group), CALL_ANY, 0 },
	{ .name = "" },
};

/* Files beside the disks, which Landlock keeps to their folders: read, written anew, renamed. */
static const struct role_call keeper_calls[] = {
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(read), CALL_ON_GRANTS, GRANT(GRANT_ASK_IN) },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ANY, 0 },
	{ NAMED(openat), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(newfstatat), CALL_ON_OPEN_FILE, 0 },
	{ NAMED(fsync), CALL_ANY, 0 },
	{ NAMED(rename), CALL_ANY, 0 },
	{ NAMED(unlink), CALL_ANY, 0 },
	CALLS_OF_MEMORY,
	CALLS_OF_THE_END,
	{ .name = "" },
};

/*
 * Sockets of the Internet: it asks for them, connects, and takes connections where it listened
 * before; files are read only, and there is one (keeps_resolver). Its events, memory without
 * execution, the end.
 */
static const struct role_call net_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(read), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(socket), CALL_INTERNET, 0 },
	{ NAMED(connect), CALL_ANY, 0 },
	{ NAMED(accept), CALL_ANY, 0 },
	{ NAMED(sendto), CALL_ANY, 0 },
	{ NAMED(recvfrom), CALL_ANY, 0 },
	{ NAMED(recvmsg), CALL_ANY, 0 },
	{ NAMED(shutdown), CALL_ANY, 0 },
	{ NAMED(getsockname), CALL_ANY, 0 },
	{ NAMED(getpeername), CALL_ANY, 0 },
	{ NAMED(getsockopt), CALL_ANY, 0 },
	{ NAMED(setsockopt), CALL_ANY, 0 },
	{ NAMED(ioctl), CALL_READABLE_BYTES, 0 },
	{ NAMED(fcntl), CALL_BLOCKING, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(openat), CALL_READS_ONLY, 0 },
	{ NAMED(newfstatat), CALL_ANY, 0 },
	{ NAMED(mmap), CALL_ANONYMOUS, 0 },
	{ NAMED(munmap), CALL_ANY, 0 },
	{ NAMED(mremap), CALL_ANY, 0 },
	{ NAMED(madvise), CALL_GIVE_BACK, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(gettid), CALL_ANY, 0 },
	{ NAMED(getpid), CALL_ANY, 0 },
	CALLS_OF_THE_END,
	{ .name = "" },
};

/* One tap, or one line to a switch: frames to and from it. Its pipes, memory, the end. */
static const struct role_call line_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(read), CALL_ON_GRANTS, GRANT(GRANT_CARD_BELL) },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(writev), CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	{ NAMED(readv), CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	{ NAMED(recvmsg), CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	{ NAMED(sendmsg), CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	CALLS_OF_MEMORY,
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(gettid), CALL_ANY, 0 },
	{ NAMED(getpid), CALL_ANY, 0 },
	CALLS_OF_THE_END,
	{ .name = "" },
};

/* Lines of net processes, which come by its one socket. It opens nothing, and joins nobody. */
static const struct role_call switch_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(accept4), CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ NAMED(recvfrom), CALL_ANY, 0 },
	{ NAMED(sendto), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	CALLS_OF_MEMORY,
	CALLS_OF_THE_END,
	{ .name = "" },
};

/*
 * Machines' sockets and who asks, and text of /proc that it has open, or is given with a machine.
 * It opens nothing.
 */
static const struct role_call balancer_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(accept4), CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ NAMED(recvmsg), CALL_ANY, 0 },
	{ NAMED(sendto), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(mremap), CALL_ANY, 0 },
	CALLS_OF_MEMORY,
	CALLS_OF_THE_END,
	{ .name = "" },
};

/*
 * Files of one folder, which is its root, as Landlock permits them there; its line. It cannot look
 * for a file but by opening it, and opens none that it has not named beneath the folder.
 */
static const struct role_call folder_calls[] = {
	{ NAMED(recvfrom), CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ NAMED(sendto), CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ NAMED(openat2), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(fstat), CALL_ANY, 0 },
	{ NAMED(newfstatat), CALL_ON_OPEN_FILE, 0 },
	{ NAMED(fstatfs), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ANY, 0 },
	{ NAMED(pwrite64), CALL_ANY, 0 },
	{ NAMED(getdents64), CALL_ANY, 0 },
	{ NAMED(lseek), CALL_ANY, 0 },
	{ NAMED(readlinkat), CALL_ANY, 0 },
	{ NAMED(mkdirat), CALL_ANY, 0 },
	{ NAMED(unlinkat), CALL_ANY, 0 },
	{ NAMED(renameat2), CALL_ANY, 0 },
	{ NAMED(symlinkat), CALL_ANY, 0 },
	{ NAMED(linkat), CALL_ANY, 0 },
	{ NAMED(fchmod), CALL_ANY, 0 },
	{ NAMED(ftruncate), CALL_ANY, 0 },
	{ NAMED(utimensat), CALL_ANY, 0 },
	{ NAMED(fsync), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	CALLS_OF_MEMORY,
	{ NAMED(rt_sigreturn), CALL_ANY, 0 },
	{ NAMED(restart_syscall), CALL_ANY, 0 },
	{ NAMED(exit_group), CALL_ANY, 0 },
	{ .name = "" },
};

/*
 * Sockets of this host: who connects where it listened before, and who listens in its working
 * directory. It opens nothing.
 */
static const struct role_call relay_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(accept4), CALL_ON_GRANTS, GRANT(GRANT_LISTENER) },
	{ NAMED(read), CALL_ON_GRANTS, GRANT(GRANT_CONNECTION_BELL) },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(recvfrom), CALL_ANY, 0 },
	{ NAMED(sendto), CALL_ANY, 0 },
	{ NAMED(socket), CALL_LOCAL, 0 },
	{ NAMED(connect), CALL_ANY, 0 },
	{ NAMED(shutdown), CALL_ANY, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	CALLS_OF_MEMORY,
	CALLS_OF_THE_END,
	{ .name = "" },
};

/*
 * Lines of joiners, which come by its one socket, and what they bring: memory of ports, a file that
 * is read, a socket where an agent answers. It opens nothing, and joins nobody.
 */
static const struct role_call hub_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(sched_yield), CALL_ANY, 0 },
	{ NAMED(accept4), CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ NAMED(recvmsg), CALL_ANY, 0 },
	{ NAMED(recvfrom), CALL_ANY, 0 },
	{ NAMED(sendmsg), CALL_ANY, 0 },
	{ NAMED(sendto), CALL_ANY, 0 },
	{ NAMED(read), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ANY, 0 },
	{ NAMED(newfstatat), CALL_ON_OPEN_FILE, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(dup), CALL_ANY, 0 },
	{ NAMED(fcntl), CALL_SEALS, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(mmap), CALL_NO_EXECUTION, 0 },
	{ NAMED(munmap), CALL_ANY, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	CALLS_OF_THE_END,
	{ .name = "" },
};

/*
 * The file that it was given, at any place of it; what the kernel says of pages that are missed,
 * and what brings them; memory without execution, the end.
 */
static const struct role_call pager_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(recvmsg), CALL_ON_GRANTS, GRANT(GRANT_PAGER) | GRANT(GRANT_PAGES) },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(read), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ON_GRANTS, GRANT(GRANT_SAVED) },
	{ NAMED(preadv), CALL_ON_GRANTS, GRANT(GRANT_SAVED) },
	{ NAMED(newfstatat), CALL_ON_OPEN_FILE, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(ioctl), CALL_PAGES, 0 },
	{ NAMED(mremap), CALL_ANY, 0 },
	{ NAMED(madvise), CALL_GIVE_BACK, 0 },
	CALLS_OF_MEMORY,
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	CALLS_OF_THE_END,
	{ .name = "" },
};

/*
 * Who starts net processes, relays, switches and hubs: the program anew, by its descriptor, until
 * it has its own list; and what these lists have. It names no process, traces none, changes no file
 * that was there, and has no memory that is written and executed.
 */
static const struct role_call starting_calls[] = {
	/* itself */
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(read), CALL_ANY, 0 },
	{ NAMED(write), CALL_ANY, 0 },
	{ NAMED(pipe2), CALL_ANY, 0 },
	{ NAMED(alarm), CALL_ANY, 0 },
	{ NAMED(memfd_create), CALL_ANY, 0 },
	{ NAMED(fcntl), CALL_DESCRIPTORS, 0 },
	{ NAMED(wait4), CALL_ANY, 0 },
	{ NAMED(pidfd_send_signal), CALL_ANY, 0 }, /* it has descriptors of its children alone */
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(clock_nanosleep), CALL_ANY, 0 },
	{ NAMED(rt_sigaction), CALL_ANY, 0 },
	{ NAMED(rt_sigprocmask), CALL_ANY, 0 },
	{ NAMED(rt_sigreturn), CALL_ANY, 0 },
	{ NAMED(restart_syscall), CALL_ANY, 0 },
	{ NAMED(getpid), CALL_ANY, 0 },
	{ NAMED(getppid), CALL_ANY, 0 },
	{ NAMED(gettid), CALL_ANY, 0 },
	{ NAMED(exit), CALL_ANY, 0 },
	{ NAMED(exit_group), CALL_ANY, 0 },
	/* a process more */
	{ NAMED(clone), CALL_PROCESS, 0 },
	{ NAMED(clone3), CALL_UNKNOWN, 0 },
	{ NAMED(execveat), CALL_BY_DESCRIPTOR, 0 },
	{ NAMED(close), CALL_ANY, 0 },
	{ NAMED(close_range), CALL_ANY, 0 },
	{ NAMED(dup2), CALL_ANY, 0 },
	{ NAMED(prctl), CALL_GIVE_UP, 0 },
	/* its libraries */
	{ NAMED(openat), CALL_OPENS, 0 },
	{ NAMED(fstat), CALL_ANY, 0 },
	{ NAMED(newfstatat), CALL_ANY, 0 },
	{ NAMED(pread64), CALL_ANY, 0 },
	{ NAMED(lseek), CALL_ANY, 0 },
	{ NAMED(mmap), CALL_NOT_BOTH, 0 },
	{ NAMED(mprotect), CALL_NOT_BOTH, 0 },
	{ NAMED(munmap), CALL_ANY, 0 },
	{ NAMED(mremap), CALL_ANY, 0 },
	{ NAMED(madvise), CALL_ANY, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(arch_prctl), CALL_ANY, 0 },
	{ NAMED(set_tid_address), CALL_ANY, 0 },
	{ NAMED(set_robust_list), CALL_ANY, 0 },
	{ NAMED(rseq), CALL_ANY, 0 },
	{ NAMED(prlimit64), CALL_OWN_ONLY, 0 },
	{ NAMED(getrandom), CALL_ANY, 0 },
	/* what gives up its rights */
	{ NAMED(unshare), CALL_ANY, 0 },
	{ NAMED(mount), CALL_ANY, 0 },
	{ NAMED(umount2), CALL_ANY, 0 },
	{ NAMED(pivot_root), CALL_ANY, 0 },
	{ NAMED(chroot), CALL_ANY, 0 },
	{ NAMED(chdir), CALL_ANY, 0 },
	{ NAMED(fchdir), CALL_ANY, 0 },
	{ NAMED(mkdir), CALL_OF_COPY, 0 },
	{ NAMED(landlock_create_ruleset), CALL_ANY, 0 },
	{ NAMED(landlock_add_rule), CALL_ANY, 0 },
	{ NAMED(landlock_restrict_self), CALL_ANY, 0 },
	{ NAMED(capset), CALL_ANY, 0 },
	{ NAMED(seccomp), CALL_ANY, 0 },
	/* who serves */
	{ NAMED(socket), CALL_SOCKETS, 0 },
	{ NAMED(connect), CALL_ANY, 0 },
	{ NAMED(bind), CALL_ANY, 0 },
	{ NAMED(listen), CALL_ANY, 0 },
	{ NAMED(accept), CALL_ANY, 0 },
	{ NAMED(accept4), CALL_ANY, 0 },
	{ NAMED(sendto), CALL_ANY, 0 },
	{ NAMED(recvfrom), CALL_ANY, 0 },
	{ NAMED(sendmsg), CALL_ANY, 0 },
	{ NAMED(recvmsg), CALL_ANY, 0 },
	{ NAMED(readv), CALL_ANY, 0 },
	{ NAMED(writev), CALL_ANY, 0 },
	{ NAMED(shutdown), CALL_ANY, 0 },
	{ NAMED(getsockname), CALL_ANY, 0 },
	{ NAMED(getpeername), CALL_ANY, 0 },
	{ NAMED(getsockopt), CALL_ANY, 0 },
	{ NAMED(setsockopt), CALL_ANY, 0 },
	{ NAMED(ioctl), CALL_CARDS, 0 },
	{ .name = "" },
};

const struct role_call meeting_calls[] = {
	/* a place where somebody listened who is gone (process/meeting.h) */
	{ NAMED(flock), CALL_ANY, 0 },
	{ NAMED(unlink), CALL_ANY, 0 },
	{ NAMED(setsid), CALL_ANY, 0 },
	{ NAMED(getuid), CALL_ANY, 0 },
	{ NAMED(geteuid), CALL_ANY, 0 },
	/* a joiner's rules, windows, and its hub's copies of descriptors */
	{ NAMED(inotify_init1), CALL_ANY, 0 },
	{ NAMED(inotify_add_watch), CALL_ANY, 0 },
	{ NAMED(ftruncate), CALL_ANY, 0 },
	{ NAMED(dup), CALL_ANY, 0 },
	{ .name = "" },
};

/*
 * One connection that is there already, and one line; memory without execution, random numbers,
 * the end. gettimeofday, getpid and getrusage are asked for by what it links.
 */
static const struct role_call wire_calls[] = {
	{ NAMED(poll), CALL_ANY, 0 },
	{ NAMED(read), CALL_ON_GRANTS, GRANT(GRANT_WIRE_LINE) },
	{ NAMED(write), CALL_ON_GRANTS, GRANT(GRANT_WIRE_LINE) },
	{ NAMED(recvfrom), CALL_ON_GRANTS, GRANT(GRANT_WIRE_CONNECTION) },
	{ NAMED(sendto), CALL_ON_GRANTS, GRANT(GRANT_WIRE_CONNECTION) },
	{ NAMED(sendmsg), CALL_ON_GRANTS, GRANT(GRANT_WIRE_CONNECTION) },
	{ NAMED(shutdown), CALL_ON_GRANTS, GRANT(GRANT_WIRE_LINE) },
	{ NAMED(getrandom), CALL_ANY, 0 },
	{ NAMED(clock_gettime), CALL_ANY, 0 },
	{ NAMED(gettimeofday), CALL_ANY, 0 },
	{ NAMED(getpid), CALL_ANY, 0 },
	{ NAMED(getrusage), CALL_ANY, 0 },
	{ NAMED(futex), CALL_WAIT_OR_WAKE, 0 },
	{ NAMED(mmap), CALL_ANONYMOUS, 0 },
	{ NAMED(mremap), CALL_ANY, 0 },
	{ NAMED(munmap), CALL_ANY, 0 },
	{ NAMED(madvise), CALL_GIVE_BACK, 0 },
	{ NAMED(brk), CALL_ANY, 0 },
	CALLS_OF_THE_END,
	{ .name = "" },
};

static const struct role_description roles[ROLES] = {
	[ROLE_MACHINE] = {
		.name = "machine",
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_RINGS) | GRANT(GRANT_TO_BROKER) |
			  GRANT(GRANT_TO_MACHINE) | GRANT(GRANT_SLOTS) | GRANT(GRANT_DOORBELL) |
			  GRANT(GRANT_ANSWER) | GRANT(GRANT_KERNEL) | GRANT(GRANT_INITRD) |
			  GRANT(GRANT_SAVED) | GRANTS_OF_CARDS(GRANT_CARDS) |
			  GRANTS_OF_CARDS(GRANT_CARD_BELLS) |
			  GRANTS_OF_CARDS(GRANT_CARD_ANSWERS) | GRANTS_OF_PORTS(GRANT_PORTS) |
			  GRANTS_OF_PORTS(GRANT_PORT_BELLS) |
			  GRANTS_OF_PORTS(GRANT_PORT_ANSWERS) |
			  GRANTS_OF_PORTS(GRANT_WINDOW_LINES) |
			  GRANT(GRANT_CONNECTIONS) |
			  GRANT(GRANT_CONNECTION_BELL) | GRANT(GRANT_FORK_ASK) |
			  GRANT(GRANT_FORK_KIT) | GRANT(GRANT_PAGER) | GRANT(GRANT_EARLY),
		/* none of processes: a forked one would end with the first */
		.spawn_namespaces = EVERY_NAMESPACE,
		.own_namespaces = CLONE_NEWUSER | CLONE_NEWNS,
		.empties_root = true,
		.dies_with_parent = true,
		.signals_nobody = true,
		.calls = machine_calls,
		.forked_calls = forked_calls,
	},
	[ROLE_BROKER] = {
		.name = "broker",
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_PROGRAM) | GRANT(GRANT_KERNEL) |
			  GRANT(GRANT_INITRD) | GRANT(GRANT_SAVED) | GRANT(GRANT_CONSOLE) |
			  GRANT(GRANT_CONTROL) | GRANT(GRANT_RINGS) | GRANT(GRANT_TO_BROKER) |
			  GRANT(GRANT_TO_MACHINE) | GRANT(GRANT_SLOTS) | GRANT(GRANT_DOORBELL) |
			  GRANT(GRANT_ANSWER) | GRANT(GRANT_MACHINE) | GRANT(GRANT_FORK_ASK) |
			  GRANT(GRANT_FORK_KIT) | GRANT(GRANT_LISTENER) |
			  GRANTS_OF_CARDS(GRANT_CARD_TAPS) | GRANTS_OF_CARDS(GRANT_CARDS) |
			  GRANTS_OF_CARDS(GRANT_CARD_BELLS) |
			  GRANTS_OF_CARDS(GRANT_CARD_ANSWERS) | GRANT(GRANT_CONNECTIONS) |
			  GRANTS_OF_PORTS(GRANT_PORTS) | GRANTS_OF_PORTS(GRANT_PORT_BELLS) |
			  GRANTS_OF_PORTS(GRANT_PORT_ANSWERS) |
			  GRANTS_OF_PORTS(GRANT_WINDOW_LINES) |
			  GRANT(GRANT_CONNECTION_BELL) | GRANT(GRANT_PAGES) |
			  GRANT(GRANT_EXTENTS) | GRANT(GRANT_EXTENT_BITS) | GRANT(GRANT_EARLY) |
			  GRANT(GRANT_ROOM) | GRANT(GRANT_ROOM_LINE) |
			  GRANT(GRANT_EARLY_MACHINE) | GRANT(GRANT_EARLY_PAGER),
		.stdio = 3,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.calls = broker_calls,
	},
	[ROLE_DISK] = {
		.name = "disk",
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_SLOTS) | GRANT(GRANT_DOORBELL) |
			  GRANT(GRANT_ANSWER) | GRANT(GRANT_READY) | GRANT(GRANT_END) |
			  GRANT(GRANT_SIDE) | GRANT(GRANT_ASK_OUT) | GRANT(GRANT_TOLD_IN) |
			  GRANT(GRANT_LAYERS) | GRANT(GRANT_EXTENTS) | GRANT(GRANT_EXTENT_BITS),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = disk_calls,
		.opening_calls = disk_opening_calls,
	},
	[ROLE_KEEPER] = {
		.name = "keeper",
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_READY) | GRANT(GRANT_SIDE) |
			  GRANT(GRANT_ASK_IN) | GRANT(GRANT_TOLD_OUT) | GRANT(GRANT_END),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.signals_nobody = true,
		.calls = keeper_calls,
	},
	[ROLE_SUPERVISOR] = {
		.name = "supervisor",
		.grants = GRANT(GRANT_ROOT) | GRANT(GRANT_PLAN) | GRANT(GRANT_PROGRAM) |
			  GRANT(GRANT_CARD_ANSWER) |
			  GRANT(GRANT_READY) | GRANT(GRANT_END) | GRANT(GRANT_CARD) |
			  GRANT(GRANT_CARD_BELL) | GRANT(GRANT_TAP) | GRANT(GRANT_ANSWER) |
			  GRANT(GRANT_CONNECTIONS) | GRANT(GRANT_CONNECTION_BELL) |
			  GRANT(GRANT_LISTENER),
		.stdio = 1,
		.dies_with_parent = true,
		.connects = true,
		.signals_nobody = true,
		.starting_calls = starting_calls,
	},
	[ROLE_NET] = {
		.name = "net",
		.grants = GRANT(GRANT_ROOT) | GRANT(GRANT_PLAN) | GRANT(GRANT_CARD_ANSWER) |
			  GRANT(GRANT_READY) |
			  GRANT(GRANT_END) | GRANT(GRANT_CARD) | GRANT(GRANT_CARD_BELL),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE & ~CLONE_NEWNET,
		.empties_root = true,
		.keeps_resolver = true,
		.connects = true,
		.dies_with_parent = true,
		.signals_nobody = true,
		.calls = net_calls,
	},
	[ROLE_LINE] = {
		.name = "line",
		.grants = GRANT(GRANT_ROOT) | GRANT(GRANT_PLAN) | GRANT(GRANT_CARD_ANSWER) |
			  GRANT(GRANT_READY) |
			  GRANT(GRANT_END) | GRANT(GRANT_CARD) | GRANT(GRANT_CARD_BELL) |
			  GRANT(GRANT_TAP),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.dies_with_parent = true,
		.signals_nobody = true,
		.calls = line_calls,
	},
	[ROLE_FORKER] = {
		.name = "forker",
		.grants = GRANT(GRANT_FORK_ASK) | GRANT(GRANT_FORK_KIT) | GRANT(GRANT_FORK_SELF),
		.signals_nobody = true,
		.calls = forker_calls,
	},
	[ROLE_RELAY] = {
		.name = "relay",
		.dies_with_parent = true,
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_ANSWER) | GRANT(GRANT_READY) |
			  GRANT(GRANT_END) | GRANT(GRANT_CONNECTIONS) |
			  GRANT(GRANT_CONNECTION_BELL) | GRANT(GRANT_LISTENER),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = relay_calls,
	},
	[ROLE_FOLDER] = {
		.name = "folder",
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_FOLDER) | GRANT(GRANT_CONTROL),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = folder_calls,
	},
	[ROLE_SWITCH] = {
		.name = "switch",
		.grants = GRANT(GRANT_ROOT) | GRANT(GRANT_CONTROL),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = switch_calls,
	},
	[ROLE_BALANCER] = {
		.name = "balancer",
		.grants = GRANT(GRANT_ROOT) | GRANT(GRANT_CONTROL),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = balancer_calls,
	},
	[ROLE_PAGER] = {
		.name = "pager",
		.dies_with_parent = true,
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_END) | GRANT(GRANT_SAVED) |
			  GRANT(GRANT_PAGER) | GRANT(GRANT_PAGES) | GRANT(GRANT_SIDE) |
			  GRANT(GRANT_EARLY),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = pager_calls,
	},
	[ROLE_JOINER] = {
		.name = "joiner",
		.dies_with_parent = true,
		.grants = GRANT(GRANT_ROOT) | GRANT(GRANT_PLAN) | GRANT(GRANT_PROGRAM) |
			  GRANT(GRANT_PORT_ANSWER) |
			  GRANT(GRANT_READY) | GRANT(GRANT_END) | GRANT(GRANT_PORT) |
			  GRANT(GRANT_PORT_BELL) | GRANT(GRANT_WINDOW_LINE),
		.stdio = 1,
		.connects = true,
		.signals_nobody = true,
		.starting_calls = starting_calls,
	},
	[ROLE_HUB] = {
		.name = "hub",
		.grants = GRANT(GRANT_ROOT) | GRANT(GRANT_CONTROL),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = hub_calls,
	},
	[ROLE_WIRE] = {
		.name = "wire",
		.grants = GRANT(GRANT_WIRE_CONNECTION) | GRANT(GRANT_WIRE_LINE) |
			  GRANT(GRANT_WIRE_KEY),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = wire_calls,
	},
};

const struct role_description *role_describe(enum role role)
{
	assert(role < ROLES);
	return &roles[role];
}

int role_find(const char *name, enum role *ret)
{
	for (unsigned n = 0; n < ROLES; n++)
		if (!strcmp(roles[n].name, name)) {
			*ret = (enum role)n;
			return 0;
		}
	return -ENOENT;
}

bool role_was_given(enum grant grant) { return fcntl(grant_fd(grant), F_GETFD) >= 0; }

grant_set role_grants_here(void)
{
	grant_set grants = 0;

	for (unsigned n = 0; n < GRANTS; n++)
		if (role_was_given((enum grant)n))
			grants |= GRANT(n);
	return grants;
}
