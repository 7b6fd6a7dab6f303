/* The table of roles, see role.h. */
#include "role.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>

/* Four that follow each other. */
#define GRANTS_OF_CARDS(first) (15ull << (first))
/* Two. */
#define GRANTS_OF_PORTS(first) (3ull << (first))

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
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "read", CALL_ON_GRANTS,
	  GRANT(GRANT_TO_MACHINE) | GRANT(GRANT_ANSWER) | GRANTS_OF_CARDS(GRANT_CARD_ANSWERS) |
		  GRANTS_OF_PORTS(GRANT_PORT_ANSWERS) | GRANT(GRANT_PAGER) },
	{ "poll", CALL_ANY, 0 },
	{ "write", CALL_ON_GRANTS,
	  GRANT(GRANT_TO_BROKER) | GRANT(GRANT_DOORBELL) | GRANT(GRANT_ANSWER) |
		  GRANT(GRANT_CONNECTION_BELL) | GRANTS_OF_CARDS(GRANT_CARD_BELLS) |
		  GRANTS_OF_PORTS(GRANT_PORT_BELLS) },
	{ "timer_settime", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "clock_nanosleep", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "sched_yield", CALL_ANY, 0 },
	{ "mmap", CALL_OWN_OR_WINDOW, 0 },
	{ "munmap", CALL_OFF_PAGE, 0 },
	{ "mremap", CALL_TAKE_PLACE, 0 },
	{ "recvmsg", CALL_ON_GRANTS, GRANTS_OF_PORTS(GRANT_WINDOW_LINES) },
	{ "close", CALL_RECEIVED, 0 },
	{ "madvise", CALL_EMPTY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "exit", CALL_ANY, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * What a machine process keeps, and what makes another one of it. The forker executes one page that
 * cannot be written and has no stack (forker.S); who it forks gives up what makes processes there,
 * and the rest once its threads exist.
 */
static const struct role_call forker_calls[] = {
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "read", CALL_ON_GRANTS,
	  GRANT(GRANT_TO_MACHINE) | GRANT(GRANT_ANSWER) | GRANTS_OF_CARDS(GRANT_CARD_ANSWERS) |
		  GRANT(GRANT_FORK_ASK) },
	{ "poll", CALL_ANY, 0 },
	{ "write", CALL_ON_GRANTS,
	  GRANT(GRANT_TO_BROKER) | GRANT(GRANT_DOORBELL) | GRANT(GRANT_ANSWER) |
		  GRANT(GRANT_CONNECTION_BELL) | GRANTS_OF_CARDS(GRANT_CARD_BELLS) |
		  GRANT(GRANT_READY) },
	{ "timer_settime", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "clock_nanosleep", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "sched_yield", CALL_ANY, 0 },
	{ "mmap", CALL_OWN_MAPPING, 0 },
	{ "munmap", CALL_OFF_PAGE, 0 },
	{ "madvise", CALL_EMPTY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "exit", CALL_ANY, 0 },
	{ "exit_group", CALL_ANY, 0 },
	/* the forker's own */
	{ "clone", CALL_FORK, 0 },
	{ "clone3", CALL_UNKNOWN, 0 },
	{ "sendto", CALL_ON_GRANTS, GRANT(GRANT_FORK_KIT) },
	{ "recvmsg", CALL_ON_GRANTS, GRANT(GRANT_FORK_KIT) },
	{ "dup2", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "close_range", CALL_ANY, 0 },
	{ "getpid", CALL_ANY, 0 },
	{ "pidfd_open", CALL_ANY, 0 },
	{ "pidfd_send_signal", CALL_ON_GRANTS, GRANT(GRANT_FORK_SELF) },
	/* until a forked machine runs */
	{ "seccomp", CALL_FILTER, 0 },
	{ "rt_sigaction", CALL_ANY, 0 },
	{ "sigaltstack", CALL_ANY, 0 },
	{ "arch_prctl", CALL_GS, 0 },
	{ "gettid", CALL_ANY, 0 },
	{ "timer_create", CALL_ANY, 0 },
	{ 0 },
};

/*
 * The terminal, the console's file, peers of the control socket, what helpers have to say, the
 * other processes (killed by their descriptors: nobody else can be), its children's ends. It opens
 * nothing.
 */
static const struct role_call broker_calls[] = {
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "read", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "poll", CALL_ANY, 0 },
	{ "accept4", CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ "ioctl", CALL_TERMINAL, 0 },
	{ "pidfd_send_signal", CALL_ON_PROCESSES, 0 },
	{ "pidfd_open", CALL_ANY, 0 },
	{ "recvmsg", CALL_ANY, 0 },
	{ "sendmsg", CALL_ANY, 0 },
	{ "wait4", CALL_ANY, 0 },
	{ "pread64", CALL_ON_GRANTS, GRANT(GRANT_CONSOLE) },
	{ "pwrite64", CALL_ON_GRANTS, GRANT(GRANT_CONSOLE) },
	{ "ftruncate", CALL_ON_GRANTS, GRANT(GRANT_CONSOLE) },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "getpid", CALL_ANY, 0 },
	{ "gettid", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * Its open disks (reads, writes, a ring that can do nothing else, syncs, space, locks), memory
 * without execution, its events, the end. It has opened them before (disk_opening_calls), and opens
 * nothing now: what lies beside a disk the keeper has, and new files come from the broker.
 */
static const struct role_call disk_calls[] = {
	{ "recvmsg", CALL_ON_GRANTS, GRANT(GRANT_LAYERS) },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "read", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "preadv", CALL_ANY, 0 },
	{ "pwritev", CALL_ANY, 0 },
	{ "io_uring_enter", CALL_RING_ENTER, 0 },
	{ "fdatasync", CALL_ANY, 0 },
	{ "fsync", CALL_ANY, 0 },
	{ "fallocate", CALL_ANY, 0 },
	{ "ftruncate", CALL_ANY, 0 },
	{ "newfstatat", CALL_ON_OPEN_FILE, 0 },
	{ "openat", CALL_REFUSED, 0 },
	{ "fcntl", CALL_LOCKS, 0 },
	{ "close", CALL_ANY, 0 },
	{ "poll", CALL_ANY, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "mremap", CALL_ANY, 0 },
	{ "madvise", CALL_GIVE_BACK, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "getrandom", CALL_ANY, 0 },
	{ "uname", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "sched_yield", CALL_ANY, 0 },
	{ "clock_nanosleep", CALL_ANY, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "exit", CALL_ANY, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * While the disks are opened, whose formats a hostile file may break: files, which Landlock keeps
 * to those of the plan and the places of their parents; threads; what gives up the rest. No
 * process, no program, no socket, no ring, no signal to others, nothing executable.
 */
static const struct role_call disk_opening_calls[] = {
	{ "recvmsg", CALL_ON_GRANTS, GRANT(GRANT_LAYERS) }, /* what disk_calls keeps */
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "read", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "pread64", CALL_ANY, 0 },
	{ "pwrite64", CALL_ANY, 0 },
	{ "preadv", CALL_ANY, 0 },
	{ "pwritev", CALL_ANY, 0 },
	{ "lseek", CALL_ANY, 0 },
	{ "openat", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "newfstatat", CALL_ANY, 0 },
	{ "fstat", CALL_ANY, 0 },
	{ "access", CALL_ANY, 0 },
	{ "faccessat2", CALL_ANY, 0 },
	{ "readlink", CALL_ANY, 0 },
	{ "getdents64", CALL_ANY, 0 },
	{ "getcwd", CALL_ANY, 0 },
	{ "fcntl", CALL_FILE_CONTROL, 0 },
	{ "fadvise64", CALL_ANY, 0 },
	{ "fdatasync", CALL_ANY, 0 },
	{ "fsync", CALL_ANY, 0 },
	{ "fallocate", CALL_ANY, 0 },
	{ "ftruncate", CALL_ANY, 0 },
	{ "io_uring_enter", CALL_RING_ENTER, 0 },
	{ "poll", CALL_ANY, 0 },
	{ "mmap", CALL_NO_EXECUTION, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "mremap", CALL_ANY, 0 },
	{ "madvise", CALL_GIVE_BACK, 0 },
	{ "mprotect", CALL_NO_EXECUTION, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "getrandom", CALL_ANY, 0 },
	{ "uname", CALL_ANY, 0 },
	{ "getuid", CALL_ANY, 0 },
	{ "geteuid", CALL_ANY, 0 },
	{ "getpid", CALL_ANY, 0 },
	{ "gettid", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "clock_getres", CALL_ANY, 0 },
	{ "clock_nanosleep", CALL_ANY, 0 },
	{ "sched_yield", CALL_ANY, 0 },
	{ "sched_getaffinity", CALL_ANY, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "clone", CALL_THREAD, 0 },
	{ "clone3", CALL_UNKNOWN, 0 },
	{ "set_robust_list", CALL_ANY, 0 },
	{ "rseq", CALL_ANY, 0 },
	{ "prctl", CALL_ANY, 0 },
	{ "seccomp", CALL_ANY, 0 },
	{ "capset", CALL_ANY, 0 },
	{ "unshare", CALL_ANY, 0 },
	{ "fchdir", CALL_ANY, 0 },
	{ "chroot", CALL_ANY, 0 },
	{ "landlock_create_ruleset", CALL_ANY, 0 },
	{ "landlock_add_rule", CALL_ANY, 0 },
	{ "landlock_restrict_self", CALL_ANY, 0 },
	{ "exit", CALL_ANY, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/* Files beside the disks, which Landlock keeps to their folders: read, written anew, renamed. */
static const struct role_call keeper_calls[] = {
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "read", CALL_ON_GRANTS, GRANT(GRANT_ASK_IN) },
	{ "write", CALL_ANY, 0 },
	{ "pread64", CALL_ANY, 0 },
	{ "openat", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "newfstatat", CALL_ON_OPEN_FILE, 0 },
	{ "fsync", CALL_ANY, 0 },
	{ "rename", CALL_ANY, 0 },
	{ "unlink", CALL_ANY, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * Sockets of the Internet: it asks for them, connects, and takes connections where it listened
 * before; files are read only, and there is one (keeps_resolver). Its events, memory without
 * execution, the end.
 */
static const struct role_call net_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "read", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "socket", CALL_INTERNET, 0 },
	{ "connect", CALL_ANY, 0 },
	{ "accept", CALL_ANY, 0 },
	{ "sendto", CALL_ANY, 0 },
	{ "recvfrom", CALL_ANY, 0 },
	{ "recvmsg", CALL_ANY, 0 },
	{ "shutdown", CALL_ANY, 0 },
	{ "getsockname", CALL_ANY, 0 },
	{ "getpeername", CALL_ANY, 0 },
	{ "getsockopt", CALL_ANY, 0 },
	{ "setsockopt", CALL_ANY, 0 },
	{ "ioctl", CALL_READABLE_BYTES, 0 },
	{ "fcntl", CALL_BLOCKING, 0 },
	{ "close", CALL_ANY, 0 },
	{ "openat", CALL_READS_ONLY, 0 },
	{ "newfstatat", CALL_ANY, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "mremap", CALL_ANY, 0 },
	{ "madvise", CALL_GIVE_BACK, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "gettid", CALL_ANY, 0 },
	{ "getpid", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/* One tap, or one line to a switch: frames to and from it. Its pipes, memory, the end. */
static const struct role_call line_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "read", CALL_ON_GRANTS, GRANT(GRANT_CARD_BELL) },
	{ "write", CALL_ANY, 0 },
	{ "writev", CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	{ "readv", CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	{ "recvmsg", CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	{ "sendmsg", CALL_ON_GRANTS, GRANT(GRANT_TAP) },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "gettid", CALL_ANY, 0 },
	{ "getpid", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/* Lines of net processes, which come by its one socket. It opens nothing, and joins nobody. */
static const struct role_call switch_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "accept4", CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ "recvfrom", CALL_ANY, 0 },
	{ "sendto", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * Machines' sockets and who asks, and text of /proc that it has open, or is given with a machine.
 * It opens nothing.
 */
static const struct role_call balancer_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "accept4", CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ "recvmsg", CALL_ANY, 0 },
	{ "sendto", CALL_ANY, 0 },
	{ "pread64", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "mremap", CALL_ANY, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * Files of one folder, which is its root, as Landlock permits them there; its line. It cannot look
 * for a file but by opening it, and opens none that it has not named beneath the folder.
 */
static const struct role_call folder_calls[] = {
	{ "recvfrom", CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ "sendto", CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ "openat2", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "fstat", CALL_ANY, 0 },
	{ "newfstatat", CALL_ON_OPEN_FILE, 0 },
	{ "fstatfs", CALL_ANY, 0 },
	{ "pread64", CALL_ANY, 0 },
	{ "pwrite64", CALL_ANY, 0 },
	{ "getdents64", CALL_ANY, 0 },
	{ "lseek", CALL_ANY, 0 },
	{ "readlinkat", CALL_ANY, 0 },
	{ "mkdirat", CALL_ANY, 0 },
	{ "unlinkat", CALL_ANY, 0 },
	{ "renameat2", CALL_ANY, 0 },
	{ "symlinkat", CALL_ANY, 0 },
	{ "linkat", CALL_ANY, 0 },
	{ "fchmod", CALL_ANY, 0 },
	{ "ftruncate", CALL_ANY, 0 },
	{ "utimensat", CALL_ANY, 0 },
	{ "fsync", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * Sockets of this host: who connects where it listened before, and who listens in its working
 * directory. It opens nothing.
 */
static const struct role_call relay_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "accept4", CALL_ON_GRANTS, GRANT(GRANT_LISTENER) },
	{ "read", CALL_ON_GRANTS, GRANT(GRANT_CONNECTION_BELL) },
	{ "write", CALL_ANY, 0 },
	{ "recvfrom", CALL_ANY, 0 },
	{ "sendto", CALL_ANY, 0 },
	{ "socket", CALL_LOCAL, 0 },
	{ "connect", CALL_ANY, 0 },
	{ "shutdown", CALL_ANY, 0 },
	{ "close", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * Lines of joiners, which come by its one socket, and what they bring: memory of ports, a file that
 * is read, a socket where an agent answers. It opens nothing, and joins nobody.
 */
static const struct role_call hub_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "accept4", CALL_ON_GRANTS, GRANT(GRANT_CONTROL) },
	{ "recvmsg", CALL_ANY, 0 },
	{ "recvfrom", CALL_ANY, 0 },
	{ "sendmsg", CALL_ANY, 0 },
	{ "sendto", CALL_ANY, 0 },
	{ "read", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "pread64", CALL_ANY, 0 },
	{ "newfstatat", CALL_ON_OPEN_FILE, 0 },
	{ "close", CALL_ANY, 0 },
	{ "dup", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "mmap", CALL_NO_EXECUTION, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * The file that it was given, at any place of it; what the kernel says of pages that are missed,
 * and what brings them; memory without execution, the end.
 */
static const struct role_call pager_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "recvmsg", CALL_ON_GRANTS, GRANT(GRANT_PAGER) },
	{ "read", CALL_ANY, 0 },
	{ "pread64", CALL_ON_GRANTS, GRANT(GRANT_SAVED) },
	{ "preadv", CALL_ON_GRANTS, GRANT(GRANT_SAVED) },
	{ "newfstatat", CALL_ON_OPEN_FILE, 0 },
	{ "write", CALL_ANY, 0 },
	{ "ioctl", CALL_PAGES, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "mremap", CALL_ANY, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
};

/*
 * Who starts net processes, relays, switches and hubs: the program anew, by its descriptor, until
 * it has its own list; and what these lists have. It names no process, traces none, changes no file
 * that was there, and has no memory that is written and executed.
 */
static const struct role_call starting_calls[] = {
	/* itself */
	{ "poll", CALL_ANY, 0 },
	{ "read", CALL_ANY, 0 },
	{ "write", CALL_ANY, 0 },
	{ "pipe2", CALL_ANY, 0 },
	{ "alarm", CALL_ANY, 0 },
	{ "memfd_create", CALL_ANY, 0 },
	{ "fcntl", CALL_DESCRIPTORS, 0 },
	{ "wait4", CALL_ANY, 0 },
	{ "pidfd_send_signal", CALL_ANY, 0 }, /* it has descriptors of its children alone */
	{ "clock_gettime", CALL_ANY, 0 },
	{ "clock_nanosleep", CALL_ANY, 0 },
	{ "rt_sigaction", CALL_ANY, 0 },
	{ "rt_sigprocmask", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "getpid", CALL_ANY, 0 },
	{ "getppid", CALL_ANY, 0 },
	{ "gettid", CALL_ANY, 0 },
	{ "exit", CALL_ANY, 0 },
	{ "exit_group", CALL_ANY, 0 },
	/* a process more */
	{ "clone", CALL_PROCESS, 0 },
	{ "clone3", CALL_UNKNOWN, 0 },
	{ "execveat", CALL_BY_DESCRIPTOR, 0 },
	{ "close", CALL_ANY, 0 },
	{ "close_range", CALL_ANY, 0 },
	{ "dup2", CALL_ANY, 0 },
	{ "prctl", CALL_GIVE_UP, 0 },
	/* its libraries */
	{ "openat", CALL_OPENS, 0 },
	{ "fstat", CALL_ANY, 0 },
	{ "newfstatat", CALL_ANY, 0 },
	{ "pread64", CALL_ANY, 0 },
	{ "lseek", CALL_ANY, 0 },
	{ "mmap", CALL_NOT_BOTH, 0 },
	{ "mprotect", CALL_NOT_BOTH, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "mremap", CALL_ANY, 0 },
	{ "madvise", CALL_ANY, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "arch_prctl", CALL_ANY, 0 },
	{ "set_tid_address", CALL_ANY, 0 },
	{ "set_robust_list", CALL_ANY, 0 },
	{ "rseq", CALL_ANY, 0 },
	{ "prlimit64", CALL_OWN_LIMITS, 0 },
	{ "getrandom", CALL_ANY, 0 },
	/* what gives up its rights */
	{ "unshare", CALL_ANY, 0 },
	{ "mount", CALL_ANY, 0 },
	{ "umount2", CALL_ANY, 0 },
	{ "pivot_root", CALL_ANY, 0 },
	{ "chroot", CALL_ANY, 0 },
	{ "chdir", CALL_ANY, 0 },
	{ "fchdir", CALL_ANY, 0 },
	{ "mkdir", CALL_OF_COPY, 0 },
	{ "landlock_create_ruleset", CALL_ANY, 0 },
	{ "landlock_add_rule", CALL_ANY, 0 },
	{ "landlock_restrict_self", CALL_ANY, 0 },
	{ "capset", CALL_ANY, 0 },
	{ "seccomp", CALL_ANY, 0 },
	/* who serves */
	{ "socket", CALL_SOCKETS, 0 },
	{ "connect", CALL_ANY, 0 },
	{ "bind", CALL_ANY, 0 },
	{ "listen", CALL_ANY, 0 },
	{ "accept", CALL_ANY, 0 },
	{ "accept4", CALL_ANY, 0 },
	{ "sendto", CALL_ANY, 0 },
	{ "recvfrom", CALL_ANY, 0 },
	{ "sendmsg", CALL_ANY, 0 },
	{ "recvmsg", CALL_ANY, 0 },
	{ "readv", CALL_ANY, 0 },
	{ "writev", CALL_ANY, 0 },
	{ "shutdown", CALL_ANY, 0 },
	{ "getsockname", CALL_ANY, 0 },
	{ "getpeername", CALL_ANY, 0 },
	{ "getsockopt", CALL_ANY, 0 },
	{ "setsockopt", CALL_ANY, 0 },
	{ "ioctl", CALL_CARDS, 0 },
	{ 0 },
};

const struct role_call meeting_calls[] = {
	/* a place where somebody listened who is gone (process/meeting.h) */
	{ "flock", CALL_ANY, 0 },
	{ "unlink", CALL_ANY, 0 },
	{ "setsid", CALL_ANY, 0 },
	/* a joiner's rules, windows, and its hub's copies of descriptors */
	{ "inotify_init1", CALL_ANY, 0 },
	{ "inotify_add_watch", CALL_ANY, 0 },
	{ "ftruncate", CALL_ANY, 0 },
	{ "dup", CALL_ANY, 0 },
	{ 0 },
};

/*
 * One connection that is there already, and one line; memory without execution, random numbers,
 * the end. gettimeofday, getpid and getrusage are asked for by what it links.
 */
static const struct role_call wire_calls[] = {
	{ "poll", CALL_ANY, 0 },
	{ "read", CALL_ON_GRANTS, GRANT(GRANT_WIRE_LINE) },
	{ "write", CALL_ON_GRANTS, GRANT(GRANT_WIRE_LINE) },
	{ "recvfrom", CALL_ON_GRANTS, GRANT(GRANT_WIRE_CONNECTION) },
	{ "sendto", CALL_ON_GRANTS, GRANT(GRANT_WIRE_CONNECTION) },
	{ "sendmsg", CALL_ON_GRANTS, GRANT(GRANT_WIRE_CONNECTION) },
	{ "shutdown", CALL_ON_GRANTS, GRANT(GRANT_WIRE_LINE) },
	{ "getrandom", CALL_ANY, 0 },
	{ "clock_gettime", CALL_ANY, 0 },
	{ "gettimeofday", CALL_ANY, 0 },
	{ "getpid", CALL_ANY, 0 },
	{ "getrusage", CALL_ANY, 0 },
	{ "futex", CALL_WAIT_OR_WAKE, 0 },
	{ "mmap", CALL_ANONYMOUS, 0 },
	{ "mremap", CALL_ANY, 0 },
	{ "munmap", CALL_ANY, 0 },
	{ "madvise", CALL_GIVE_BACK, 0 },
	{ "brk", CALL_ANY, 0 },
	{ "rt_sigreturn", CALL_ANY, 0 },
	{ "restart_syscall", CALL_ANY, 0 },
	{ "tgkill", CALL_OWN_PROCESS, 0 },
	{ "exit_group", CALL_ANY, 0 },
	{ 0 },
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
			  GRANT(GRANT_FORK_KIT) | GRANT(GRANT_PAGER),
		/* none of processes: a forked one would end with the first */
		.spawn_namespaces = EVERY_NAMESPACE,
		.own_namespaces = CLONE_NEWUSER | CLONE_NEWNS,
		.empties_root = true,
		.dies_with_parent = true,
		.signals_nobody = true,
		.calls = machine_calls,
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
			  GRANT(GRANT_CONNECTION_BELL) | GRANT(GRANT_PAGES),
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
			  GRANT(GRANT_LAYERS),
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
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_PROGRAM) | GRANT(GRANT_CARD_ANSWER) |
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
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_CARD_ANSWER) | GRANT(GRANT_READY) |
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
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_CARD_ANSWER) | GRANT(GRANT_READY) |
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
		.grants = GRANT(GRANT_CONTROL),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = switch_calls,
	},
	[ROLE_BALANCER] = {
		.name = "balancer",
		.grants = GRANT(GRANT_CONTROL),
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
			  GRANT(GRANT_PAGER) | GRANT(GRANT_PAGES) | GRANT(GRANT_SIDE),
		.stdio = 1,
		.own_namespaces = EVERY_NAMESPACE,
		.empties_root = true,
		.signals_nobody = true,
		.calls = pager_calls,
	},
	[ROLE_JOINER] = {
		.name = "joiner",
		.dies_with_parent = true,
		.grants = GRANT(GRANT_PLAN) | GRANT(GRANT_PROGRAM) | GRANT(GRANT_PORT_ANSWER) |
			  GRANT(GRANT_READY) | GRANT(GRANT_END) | GRANT(GRANT_PORT) |
			  GRANT(GRANT_PORT_BELL) | GRANT(GRANT_WINDOW_LINE),
		.stdio = 1,
		.connects = true,
		.signals_nobody = true,
		.starting_calls = starting_calls,
	},
	[ROLE_HUB] = {
		.name = "hub",
		.grants = GRANT(GRANT_CONTROL),
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

uint64_t role_grants_here(void)
{
	uint64_t grants = 0;

	for (unsigned n = 0; n < GRANTS; n++)
		if (fcntl(grant_fd((enum grant)n), F_GETFD) >= 0)
			grants |= GRANT(n);
	return grants;
}
