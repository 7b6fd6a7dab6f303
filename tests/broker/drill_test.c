/*
 * The assume-breach drill: a process of each role that gives up its rights runs an attacker's code
 * from the moment at which it would run a guest, or serve one. They are started by the code that
 * starts the real ones (spawn_role()), get the same descriptors and the same lock-down; then they
 * act. An act that succeeds is a hole. Each act has a process of its own, and is one row.
 *
 * Who starts others, a supervisor or a joiner, keeps what these need to begin (starter_rights).
 * Left out: the broker, which has no code of a guest's beside it.
 *
 * usage: drill_test [--without landlock|namespaces]... ROLE...   As on a host that has none of it.
 *                             This program is its own machine, disk and net process: --role=NAME.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "ipc/record_ring.h"
#include "ipc/spawn.h"

enum {
	PAGE = 4096,
	BUFFER = 256,
	EXIT_DENIED = 40,
	EXIT_HOLE = 41,
	EXIT_BROKEN = 42,
	LEAST_ACTS = 100
};
/* What stands for a value that is known only then. */
enum {
	OUTSIDER = -1001,
	SELF = -1002,
	SECRET_PATH = -1003,
	TEXT = -1004,
	RANDOM_FD = -1005,
	SOCKET_ADDRESS = -1006
};

/* What the attacker is told: the rings' memory serves as the order. */
struct order {
	uint32_t act;
	int32_t outsider;
	char secret[BUFFER], listener[BUFFER], folder[BUFFER];
};

static char text[BUFFER] = "umbra-drill";
static struct order order;

/* ---- acts that are one system call ---- */

struct call_act { const char *what; long number, arguments[6]; };

static const struct call_act call_acts[] = {
	/* files */
	{ "open a file of the user", SYS_open, { SECRET_PATH, O_RDONLY } },
	{ "openat a file of the user", SYS_openat, { AT_FDCWD, SECRET_PATH, O_RDONLY } },
	{ "openat2", SYS_openat2, { AT_FDCWD, SECRET_PATH, TEXT, 24 } },
	{ "make a file", SYS_openat, { AT_FDCWD, TEXT, O_RDWR | O_CREAT, 0600 } },
	{ "creat", SYS_creat, { TEXT, 0600 } },
	{ "open by handle", SYS_open_by_handle_at, { AT_FDCWD, TEXT, O_RDONLY } },
	{ "stat a file", SYS_stat, { SECRET_PATH, TEXT } },
	{ "newfstatat a file", SYS_newfstatat, { AT_FDCWD, SECRET_PATH, TEXT, 0 } },
	{ "statx a file", SYS_statx, { AT_FDCWD, SECRET_PATH, 0, 0x7ff, TEXT } },
	{ "ask for access to a file", SYS_access, { SECRET_PATH, F_OK } },
	{ "faccessat2", SYS_faccessat2, { AT_FDCWD, SECRET_PATH, F_OK, 0 } },
	{ "read a link", SYS_readlink, { TEXT, TEXT, BUFFER } },
	{ "rename a file", SYS_rename, { SECRET_PATH, TEXT } },
	{ "renameat2", SYS_renameat2, { AT_FDCWD, SECRET_PATH, AT_FDCWD, TEXT, 0 } },
	{ "remove a file", SYS_unlink, { SECRET_PATH } },
	{ "unlinkat", SYS_unlinkat, { AT_FDCWD, SECRET_PATH, 0 } },
	{ "link a file", SYS_link, { SECRET_PATH, TEXT } },
	{ "make a symbolic link", SYS_symlink, { SECRET_PATH, TEXT } },
	{ "make a directory", SYS_mkdir, { TEXT, 0700 } },
	{ "make a device", SYS_mknod, { TEXT, 0600 | 0020000, 0x101 } },
	{ "change a file's mode", SYS_chmod, { SECRET_PATH, 04777 } },
	{ "change a file's owner", SYS_chown, { SECRET_PATH, 0, 0 } },
	{ "make a file shorter", SYS_truncate, { SECRET_PATH, 0 } },
	{ "change the directory", SYS_chdir, { TEXT } },
	{ "list the directory", SYS_getdents64, { RANDOM_FD, TEXT, BUFFER } },
	{ "where it is", SYS_getcwd, { TEXT, BUFFER } },
	{ "watch files", SYS_inotify_init1, { 0 } },
	{ "mount", SYS_mount, { 0, TEXT, 0, 0, 0 } },
	{ "unmount", SYS_umount2, { TEXT, MNT_DETACH } },
	{ "another root", SYS_chroot, { TEXT } },
	{ "pivot_root", SYS_pivot_root, { TEXT, TEXT } },
	{ "open a tree of mounts", SYS_open_tree, { AT_FDCWD, TEXT, 0 } },
	{ "a new file system", SYS_fsopen, { TEXT, 0 } },
	{ "swap on a file", SYS_swapon, { SECRET_PATH, 0 } },
	/* network */
	{ "a TCP socket", SYS_socket, { AF_INET, SOCK_STREAM, 0 } },
	{ "a UDP socket", SYS_socket, { AF_INET6, SOCK_DGRAM, 0 } },
	{ "a local socket", SYS_socket, { AF_UNIX, SOCK_STREAM, 0 } },
	{ "a socket to the kernel", SYS_socket, { AF_NETLINK, SOCK_RAW, 0 } },
	{ "a raw socket", SYS_socket, { AF_PACKET, SOCK_RAW, 0 } },
	{ "a socket to the host's machine monitor", SYS_socket, { AF_VSOCK, SOCK_STREAM, 0 } },
	{ "a pair of sockets", SYS_socketpair, { AF_UNIX, SOCK_STREAM, 0, TEXT } },
	{ "connect a descriptor", SYS_connect, { RANDOM_FD, SOCKET_ADDRESS, 16 } },
	{ "bind a descriptor", SYS_bind, { RANDOM_FD, SOCKET_ADDRESS, 16 } },
	{ "accept", SYS_accept, { RANDOM_FD, 0, 0 } },
	{ "send a message", SYS_sendmsg, { RANDOM_FD, TEXT, 0 } },
	{ "pass a descriptor", SYS_sendmmsg, { RANDOM_FD, TEXT, 1, 0 } },
	{ "receive a descriptor", SYS_recvmsg, { RANDOM_FD, TEXT, 0 } },
	/* other processes */
	{ "kill a process of the user", SYS_kill, { OUTSIDER, SIGKILL } },
	/* whether it may: they are the user's, and root's are all */
	{ "kill all it can", SYS_kill, { -1, 0 } },
	{ "kill its group", SYS_kill, { 0, 0 } },
	{ "kill a thread", SYS_tkill, { OUTSIDER, SIGKILL } },
	{ "kill a thread of a process", SYS_tgkill, { OUTSIDER, OUTSIDER, SIGKILL } },
	{ "queue a signal", SYS_rt_sigqueueinfo, { OUTSIDER, SIGTERM, TEXT } },
	{ "queue a signal to a thread",
	  SYS_rt_tgsigqueueinfo,
	  { OUTSIDER, OUTSIDER, SIGTERM, TEXT } },
	{ "a descriptor of a process", SYS_pidfd_open, { OUTSIDER, 0 } },
	{ "signal by a descriptor", SYS_pidfd_send_signal, { RANDOM_FD, SIGKILL, 0, 0 } },
	{ "take a descriptor of a process", SYS_pidfd_getfd, { RANDOM_FD, 0, 0 } },
	{ "trace a process", SYS_ptrace, { 16 /* PTRACE_ATTACH */, OUTSIDER, 0, 0 } },
	{ "seize a process", SYS_ptrace, { 0x4206 /* PTRACE_SEIZE */, OUTSIDER, 0, 0 } },
	{ "read memory of a process", SYS_process_vm_readv, { OUTSIDER, TEXT, 1, TEXT, 1, 0 } },
	{ "write memory of a process", SYS_process_vm_writev, { OUTSIDER, TEXT, 1, TEXT, 1, 0 } },
	{ "advise memory of a process", SYS_process_madvise, { RANDOM_FD, TEXT, 1, MADV_COLD, 0 } },
	{ "compare with a process", SYS_kcmp, { OUTSIDER, OUTSIDER, 0, 0, 0 } },
	{ "slow a process down", SYS_setpriority, { 0, OUTSIDER, 19 } },
	{ "schedule a process", SYS_sched_setscheduler, { OUTSIDER, SCHED_BATCH, TEXT } },
	{ "move a process", SYS_sched_setaffinity, { OUTSIDER, 8, TEXT } },
	{ "limit a process", SYS_prlimit64, { OUTSIDER, 7, 0, TEXT } },
	{ "limits of its own", SYS_setrlimit, { 7, TEXT } },
	/* new processes and programs */
	{ "fork", SYS_fork, { 0 } },
	{ "vfork", SYS_vfork, { 0 } },
	{ "clone", SYS_clone, { SIGCHLD, 0, 0, 0, 0 } },
	{ "clone3", SYS_clone3, { TEXT, 88 } },
	{ "a thread", SYS_clone, { CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0 } },
	{ "another program", SYS_execve, { SECRET_PATH, 0, 0 } },
	{ "another program, by descriptor", SYS_execveat, { AT_FDCWD, SECRET_PATH, 0, 0, 0 } },
	/* namespaces, rights, the kernel */
	{ "a user namespace", SYS_unshare, { CLONE_NEWUSER } },
	{ "a mount namespace", SYS_unshare, { CLONE_NEWNS } },
	{ "another's namespace", SYS_setns, { RANDOM_FD, 0 } },
	{ "become root", SYS_setuid, { 0 } },
	{ "become root, by setresuid", SYS_setresuid, { 0, 0, 0 } },
	{ "capabilities", SYS_capset, { TEXT, TEXT } },
	{ "to be dumped", SYS_prctl, { PR_SET_DUMPABLE, 1 } },
	{ "another filter of calls", SYS_seccomp, { 0, 0, 0 } },
	{ "a key", SYS_add_key, { TEXT, TEXT, TEXT, 4, -3 } },
	{ "ask for a key", SYS_request_key, { TEXT, TEXT, 0, -3 } },
	{ "the keyring", SYS_keyctl, { 0, -3, 1 } },
	{ "a program in the kernel", SYS_bpf, { 5, TEXT, 64 } },
	{ "count events", SYS_perf_event_open, { TEXT, 0, -1, -1, 0 } },
	{ "handle page faults", SYS_userfaultfd, { 0 } },
	{ "load a module", SYS_init_module, { TEXT, 16, TEXT } },
	{ "load a kernel", SYS_kexec_load, { 0, 0, 0, 0 } },
	{ "the kernel's log", SYS_syslog, { 3, TEXT, BUFFER } },
	{ "restart the host", SYS_reboot, { 0xfee1dead, 672274793, 0x01234567, 0 } },
	{ "ports", SYS_iopl, { 3 } },
	{ "a local descriptor table", SYS_modify_ldt, { 1, TEXT, 16 } },
	/* clocks */
	{ "set the clock", SYS_clock_settime, { CLOCK_REALTIME, TEXT } },
	{ "set the time of day", SYS_settimeofday, { TEXT, 0 } },
	{ "turn the clock", SYS_adjtimex, { TEXT } },
	{ "a timer more", SYS_timer_create, { CLOCK_MONOTONIC, 0, TEXT } },
	{ "a descriptor of a timer", SYS_timerfd_create, { CLOCK_MONOTONIC, 0 } },
	/* memory */
	{ "executable memory",
	  SYS_mmap,
	  { 0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0 } },
	{ "executable memory of its own",
	  SYS_pkey_mprotect,
	  { 0, PAGE, PROT_READ | PROT_EXEC, -1 } },
	{ "memory that is mapped by a descriptor",
	  SYS_mmap,
	  { 0, PAGE, PROT_READ, MAP_SHARED, RANDOM_FD, 0 } },
	{ "memory by name", SYS_memfd_create, { TEXT, 0 } },
	{ "secret memory", SYS_memfd_secret, { 0 } },
	{ "shared memory of System V", SYS_shmget, { 1, PAGE, 01600 } },
	{ "to attach shared memory", SYS_shmat, { 0, 0, 0 } },
	{ "a message queue", SYS_msgget, { 1, 01600 } },
	{ "a semaphore", SYS_semget, { 1, 1, 01600 } },
	{ "a message queue of POSIX", SYS_mq_open, { TEXT, O_RDWR | O_CREAT, 0600, 0 } },
	{ "to keep memory in memory", SYS_mlockall, { 3 } },
	{ "to move pages of a process", SYS_move_pages, { OUTSIDER, 1, TEXT, 0, TEXT, 0 } },
	/* rings, descriptors, the terminal */
	{ "a new asynchronous ring", SYS_io_uring_setup, { 8, TEXT } },
	{ "to register at a ring", SYS_io_uring_register, { RANDOM_FD, 0, TEXT, 1 } },
	{ "asynchronous requests of old", SYS_io_setup, { 8, TEXT } },
	{ "a pipe", SYS_pipe2, { TEXT, 0 } },
	{ "an event more", SYS_eventfd2, { 0, 0 } },
	{ "to copy a descriptor", SYS_dup, { RANDOM_FD } },
	{ "to wait for descriptors", SYS_epoll_create1, { 0 } },
	{ "to splice", SYS_splice, { RANDOM_FD, 0, RANDOM_FD, 0, PAGE, 0 } },
	{ "to copy between files", SYS_copy_file_range, { RANDOM_FD, 0, RANDOM_FD, 0, PAGE, 0 } },
	{ "a byte into the terminal", SYS_ioctl, { 0, TIOCSTI, TEXT } },
	{ "priority inheritance", SYS_futex, { TEXT, FUTEX_LOCK_PI, 0, 0, 0, 0 } },
	{ "requeueing", SYS_futex, { TEXT, FUTEX_CMP_REQUEUE_PI, 1, 1, TEXT, 0 } },
};

enum { CALL_ACTS = sizeof(call_acts) / sizeof(call_acts[0]) };

static long value_of(long value)
{
	static const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/tmp/x" };

	switch (value) {
	case OUTSIDER: return order.outsider;
	case SELF: return getpid();
	case SECRET_PATH: return (long)order.secret;
	case TEXT: return (long)text;
	case RANDOM_FD: return grant_fd(GRANT_ANSWER);
	case SOCKET_ADDRESS: return (long)&address;
	default: return value;
	}
}

static bool act_by_call(const struct call_act *a)
{
	long values[6];

	for (unsigned n = 0; n < 6; n++)
		values[n] = value_of(a->arguments[n]);
	return syscall(a->number, values[0], values[1], values[2], values[3], values[4],
		       values[5]) >= 0;
}

/* ---- acts of other kinds ---- */

static enum role lost_role;

static bool starts_others(enum role role) { return role_describe(role)->starting_calls; }

/*
 * Every descriptor that it might have been left, by every number. A net process, and who starts
 * one, may ask for its own.
 */
static bool act_descriptors(void)
{
	bool found = false;

	const bool may_ask = lost_role == ROLE_NET || starts_others(lost_role);

	for (int fd = may_ask ? grant_fd(GRANTS) : 0; fd < 1024; fd++)
		found |= fcntl(fd, F_GETFD) >= 0;
	return found;
}

static bool act_run_data(void)
{
	static unsigned char code[] = { 0xc3 };
	void (*run)(void) = (void (*)(void))(uintptr_t)code;

	run();
	return true;
}

/* Over namespaces that it was not given: another name of the host, say. */
static bool act_capability(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct all[_LINUX_CAPABILITY_U32S_3] = {
		{ .effective = ~0u, .permitted = ~0u },
	};

	return !chroot("/") || !syscall(SYS_capset, &head, all);
}

static bool act_change_code(void)
{
	volatile unsigned char *code = (volatile unsigned char *)(uintptr_t)act_run_data;

	*code = 0xc3;
	return true;
}

static bool act_change_plan(void)
{
	unsigned char *at =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grant_fd(GRANT_PLAN), 0);

	return at != MAP_FAILED;
}

static bool act_shrink_rings(void) { return !ftruncate(grant_fd(GRANT_RINGS), 0); }
static bool act_environment(void) { return environ && environ[0]; }

static bool act_parent(void)
{
	return syscall(SYS_getppid) > 0;
}

static bool act_ring_socket(void)
{
	struct io_uring_params parameters = { 0 };
	long ring = syscall(SYS_io_uring_setup, 4, &parameters);

	return ring >= 0;
}

static bool connects(const struct sockaddr_un *at, socklen_t bytes)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && !connect(fd, (const struct sockaddr *)at, bytes);
}

/* Where somebody of the user's listens. */
static bool act_connect(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	memcpy(at.sun_path, order.listener, strnlen(order.listener, sizeof(at.sun_path) - 1));
	return connects(&at, sizeof(at));
}

/* The same of the names that are no files. */
static bool act_connect_abstract(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	const size_t length = strlen(order.listener);

	memcpy(at.sun_path + 1, order.listener, length);
	return connects(&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length));
}

/* A file that it could read before, by the way out of its folder. */
static bool act_climb(void)
{
	char path[2 * BUFFER] = "../../../../../../..";

	strncat(path, order.secret, sizeof(path) - strlen(path) - 1);
	return open(path, O_RDONLY | O_CLOEXEC) >= 0;
}

/* What others of its role, and the broker, are given. */
static bool act_others_grants(void)
{
	const grant_set own = role_describe(lost_role)->grants;
	bool reads = false;
	char byte;

	for (unsigned n = 0; n < GRANTS; n++)
		if (!(own & GRANT(n)))
			reads |= syscall(SYS_read, grant_fd((enum grant)n), &byte, 0) >= 0;
	return reads;
}

static const struct { const char *what; bool (*act)(void); } acts[] = {
	{ "connect to who listens elsewhere", act_connect },
	{ "connect to an abstract name", act_connect_abstract },
	{ "open a file by the way up", act_climb },
	{ "read what only others are given", act_others_grants },
	{ "find a descriptor that it was left", act_descriptors },
	{ "run data", act_run_data },
	{ "have a capability", act_capability },
	{ "change code", act_change_code },
	{ "change its plan", act_change_plan },
	{ "make shared memory shorter", act_shrink_rings },
	{ "read the user's environment", act_environment },
	{ "learn who its parent is", act_parent },
	{ "a socket, by a ring", act_ring_socket },
};

enum { OTHER_ACTS = sizeof(acts) / sizeof(acts[0]), ACTS = CALL_ACTS + OTHER_ACTS };

/* ---- the lost process ---- */

/* Memory that the role has. */
static enum grant order_grant(enum role role)
{
	switch (role) {
	case ROLE_MACHINE:
	case ROLE_WIRE: return GRANT_RINGS;
	case ROLE_NET:
	case ROLE_LINE: return GRANT_CARD;
	case ROLE_KEEPER: return GRANT_SIDE;
	case ROLE_RELAY: return GRANT_CONNECTIONS;
	case ROLE_SWITCH:
	case ROLE_HUB:
	case ROLE_BALANCER: return GRANT_CONTROL;
	case ROLE_PAGER: return GRANT_SAVED;
	case ROLE_FOLDER: return GRANT_CONTROL;
	case ROLE_SUPERVISOR: return GRANT_CARD;
	case ROLE_JOINER: return GRANT_PORT;
	default: return GRANT_SLOTS;
	}
}

static int give_up_rights(enum role role)
{
	const int folder = open(order.folder, O_PATH | O_CLOEXEC);
	const struct lockdown_file place = { .fd = folder, .access = LOCKDOWN_MEET };
	int error;

	if (starts_others(role))
		return lockdown_to_start(role, role == ROLE_JOINER ? ROLE_HUB : ROLE_NET,
					 role == ROLE_JOINER, &place, 1);
	if (role == ROLE_RELAY)
		error = lockdown_in_folder(role, folder);
	else if (role == ROLE_FOLDER) /* of one that it may read */
		error = lockdown_on_folder(role, folder, false);
	else
		error = lockdown_before_threads(role, NULL);
	return error ? error : lockdown(role);
}

static int lost_process(enum role role)
{
	struct order *told = mmap(NULL, sizeof(*told), PROT_READ, MAP_SHARED,
				  grant_fd(order_grant(role)), 0);
	bool hole;

	if (told == MAP_FAILED)
		return EXIT_BROKEN;
	order = *told;
	lost_role = role;
	alarm(5);
	if (give_up_rights(role))
		return EXIT_BROKEN;
	hole = order.act < CALL_ACTS ? act_by_call(&call_acts[order.act])
				     : acts[order.act - CALL_ACTS].act();
	syscall(SYS_exit_group, hole ? EXIT_HOLE : EXIT_DENIED);
	return EXIT_BROKEN;
}

/* ---- who starts it ---- */

static struct grants grants;
static unsigned failures;

static const char *name_of(unsigned act)
{
	return act < CALL_ACTS ? call_acts[act].what : acts[act - CALL_ACTS].what;
}

/*
 * What succeeds on hosts that have less, as isolation.md and `umbra doctor` say. Where the kernel
 * has no Landlock nothing keeps the keeper to its folders.
 */
static const struct weaker { enum role role; bool has_landlock; const char *act; } weaker[] = {
	{ ROLE_NET, true, "newfstatat a file" },
	{ ROLE_NET, false, "newfstatat a file" },
	{ ROLE_NET, false, "openat a file of the user" },
	{ ROLE_NET, false, "open a file by the way up" },
	{ ROLE_RELAY, false, "connect to an abstract name" },
	/* root's, for those that it starts: it may enter another root */
	{ ROLE_SUPERVISOR, true, "have a capability" },
	{ ROLE_SUPERVISOR, false, "have a capability" },
	{ ROLE_JOINER, true, "have a capability" },
	{ ROLE_JOINER, false, "have a capability" },
};

static bool is_weaker(enum role role, unsigned act)
{
	const bool has_landlock = lockdown_landlock_version();

	if (role == ROLE_KEEPER && !has_landlock)
		return true;
	if (lockdown_has_namespaces())
		return false;
	for (unsigned n = 0; n < sizeof(weaker) / sizeof(weaker[0]); n++)
		if (weaker[n].role == role && weaker[n].has_landlock == has_landlock &&
		    !strcmp(weaker[n].act, name_of(act)))
			return true;
	return false;
}

/*
 * What whoever starts others keeps for them: to ask whether a file is there, sockets, processes,
 * memory, and to give up rights. isolation.md says so.
 */
static const char *const starter_rights[] = {
	"newfstatat a file",
	"connect to who listens elsewhere",
	"a TCP socket",
	"a UDP socket",
	"a local socket",
	"clone",
	"learn who its parent is",
	"a pipe",
	"memory by name",
	"a user namespace",
	"a mount namespace",
	"another filter of calls",
};
/* And where others meet: a file with rules is watched. */
static const char *const joiner_rights[] = {
	"watch files",
	"to copy a descriptor",
};

static bool is_among(const char *name, const char *const *rights, size_t count)
{
	for (size_t n = 0; n < count; n++)
		if (!strcmp(name, rights[n]))
			return true;
	return false;
}

static bool is_starters_right(enum role role, unsigned act)
{
	return is_among(name_of(act), starter_rights,
			sizeof(starter_rights) / sizeof(starter_rights[0])) ||
	       (role == ROLE_JOINER &&
		is_among(name_of(act), joiner_rights,
			 sizeof(joiner_rights) / sizeof(joiner_rights[0])));
}

/* The Internet is what a net process is for, and local sockets a relay. */
static bool is_its_right(enum role role, unsigned act)
{
	const long family = act < CALL_ACTS && call_acts[act].number == SYS_socket
				    ? call_acts[act].arguments[0]
				    : AF_UNSPEC;

	return is_weaker(role, act) || (starts_others(role) && is_starters_right(role, act)) ||
	       (role == ROLE_NET && (family == AF_INET || family == AF_INET6)) ||
	       (role == ROLE_RELAY && family == AF_UNIX);
}

/* How it ended: by SIGSYS or another signal, or by itself. */
static void drill(enum role role, unsigned act, struct order *shared, pid_t outsider)
{
	struct spawned lost;
	const char *how = "ended the process";
	int status;
	bool denied;

	shared->act = act;
	shared->outsider = outsider;
	if (spawn_role(role, &grants, -1, &lost) || waitpid(lost.pid, &status, 0) != lost.pid)
		exit(2);
	close(lost.pidfd);
	denied = WIFSIGNALED(status) || WEXITSTATUS(status) == EXIT_DENIED;
	if (denied && !WIFSIGNALED(status))
		how = "was refused";
	printf("%s %s, lost: %s %s\n", denied ? "ok  " : "FAIL", role_describe(role)->name,
	       name_of(act), denied ? how : "succeeded");
	failures += !denied;
}

static bool is_there(pid_t outsider) { return waitpid(outsider, NULL, WNOHANG) == 0; }

static pid_t start_outsider(void)
{
	pid_t child = fork();

	if (!child)
		for (;;)
			pause();
	return child;
}

/*
 * A role that may do everything that it was left does it: the control, without which all rows above
 * would pass for the wrong reason.
 */
static void control(enum role role)
{
	int status;
	pid_t child = fork();

	if (!child) {
		const int error = starts_others(role) ? give_up_rights(role)
						      : lockdown_before_threads(role, NULL);

		if (error || (!starts_others(role) && lockdown(role)))
			_exit(EXIT_BROKEN);
		syscall(SYS_exit_group, syscall(SYS_brk, 0) > 0 ? EXIT_HOLE : EXIT_DENIED);
	}
	waitpid(child, &status, 0);
	printf("%s %s: what is left works\n",
	       WIFEXITED(status) && WEXITSTATUS(status) == EXIT_HOLE ? "ok  " : "FAIL",
	       role_describe(role)->name);
	failures += !WIFEXITED(status) || WEXITSTATUS(status) != EXIT_HOLE;
}

/* Who listens at both names, for as long as this process is there. */
static void listen_as_others(const char *path)
{
	for (unsigned n = 0; n < 2; n++) {
		const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct sockaddr_un at = { .sun_family = AF_UNIX };
		const socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n +
						    strlen(path));

		memcpy(at.sun_path + n, path, strlen(path));
		if (bind(fd, (const struct sockaddr *)&at, bytes) || listen(fd, 1))
			exit(2);
		if (!connects(&at, bytes)) /* as the user does */
			exit(2);
	}
}

static void make_grants(void)
{
	grants_clear(&grants);
	grants.fd[GRANT_PROGRAM] = spawn_open_program();
	grants.fd[GRANT_PLAN] = spawn_seal("plan", text, sizeof(text));
	grants.fd[GRANT_RINGS] = spawn_share("rings", PAGE);
	grants.fd[GRANT_SLOTS] = grants.fd[GRANT_CARD] = grants.fd[GRANT_SIDE] =
		grants.fd[GRANT_CONNECTIONS] = grants.fd[GRANT_CONTROL] =
			grants.fd[GRANT_SAVED] = grants.fd[GRANT_PORT] = grants.fd[GRANT_RINGS];
	grants.fd[GRANT_ANSWER] = eventfd(0, 0);
	grants.fd[GRANT_TO_BROKER] = eventfd(0, 0);
}

static void drill_all(enum role role, struct order *shared, pid_t outsider)
{
	unsigned tried = 0;

	control(role);
	for (unsigned act = 0; act < ACTS; act++)
		if (!is_its_right(role, act)) {
			drill(role, act, shared, outsider);
			tried++;
		}
	printf("# %s: %u acts\n", role_describe(role)->name, tried);
}

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	failures += !good;
}

/* ---- a host that has less ---- */

static bool refuse(scmp_filter_ctx filter, int error, const char *call)
{
	return !seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)error),
				 seccomp_syscall_resolve_name(call), 0);
}

/* clone() is what a process is made by: with namespaces of its own it fails. */
static bool refuse_namespaces(scmp_filter_ctx filter)
{
	return refuse(filter, EPERM, "unshare") && refuse(filter, ENOSYS, "clone3") &&
	       !seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM),
				 seccomp_syscall_resolve_name("clone"), 1,
				 SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER));
}

/*
 * Root's acts would reach all of the host where a lock-down is left out, to be tried: so they have
 * a namespace of processes, in which nothing else is named, and which alone is restarted.
 */
static void enter_own_processes(void)
{
	int status;
	pid_t child;

	if (geteuid())
		return;
	if (unshare(CLONE_NEWPID)) {
		printf("FAIL as root it needs a namespace of processes: %s\n", strerror(errno));
		exit(1);
	}
	child = fork();
	if (!child)
		return;
	if (child < 0 || waitpid(child, &status, 0) != child)
		exit(2);
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

/* For this process and all that it starts. */
static bool do_without(const char *what)
{
	const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	bool good = filter && (strcmp(what, "landlock")
				       ? refuse_namespaces(filter)
				       : refuse(filter, ENOSYS, "landlock_create_ruleset"));

	good = good && !seccomp_load(filter);
	seccomp_release(filter);
	if (!good)
		return false;
	return strcmp(what, "landlock") ? !lockdown_has_namespaces() : !lockdown_landlock_version();
}

int main(int argc, char **argv)
{
	static const char role_word[] = "--role=";
	char folder[] = "/tmp/umbra-drill-XXXXXX";
	struct order *shared;
	enum role role;
	pid_t outsider;

	if (argc == 2 && !strncmp(argv[1], role_word, strlen(role_word)))
		return role_find(argv[1] + strlen(role_word), &role) ? EXIT_BROKEN
								     : lost_process(role);
	enter_own_processes();
	for (; argc > 2 && !strcmp(argv[1], "--without"); argv += 2, argc -= 2)
		if (!do_without(argv[2]))
			return 2;
	make_grants();
	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grants.fd[GRANT_RINGS], 0);
	if (shared == MAP_FAILED || grants.fd[GRANT_PLAN] < 0 || !mkdtemp(folder))
		return 2;
	snprintf(shared->secret, BUFFER, "%s/secret", folder);
	snprintf(shared->listener, BUFFER, "%s/listener", folder);
	snprintf(shared->folder, BUFFER, "%s/sockets", folder);
	close(open(shared->secret, O_RDWR | O_CREAT, 0600));
	mkdir(shared->folder, 0700);
	listen_as_others(shared->listener);
	outsider = start_outsider();
	for (int n = 1; n < argc; n++)
		if (role_find(argv[n], &role))
			return 2;
		else
			drill_all(role, shared, outsider);
	expect("the process that they were after is still there", is_there(outsider));
	expect("the file, too", !access(shared->secret, F_OK));
	expect("at least 100 acts of each", (int)ACTS >= LEAST_ACTS);
	kill(outsider, SIGKILL);
	unlink(shared->secret);
	unlink(shared->listener);
	rmdir(shared->folder);
	rmdir(folder);
	return failures != 0;
}
