/*
 * After lock-down: every system call number is tried in a process of its own. Those of the role's
 * list survive, every other one ends the process with SIGSYS. Prints the lists and checks their
 * lengths. Of calls that are kept under a condition: arguments that are as it says, and arguments
 * that are not. Also that nothing of files, capabilities and other processes is left, by the other
 * layers alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "ipc/forker.h"
#include "ipc/lockdown.h"
#include "ipc/port_window.h"
#include "lib/touch.h"

/*
 * uretprobe and uprobe: recent kernels let them past any filter; outside a probe they do nothing.
 */
enum {
	HIGHEST_CALL = 470,
	CALL_URETPROBE = 335,
	CALL_UPROBE = 336,
	PAGE = 4096,
	HALF = WINDOW_HALF_BYTES,
	OWN_PID = -77
};

static const unsigned most_calls[ROLES] = {
	[ROLE_MACHINE] = 20, [ROLE_BROKER] = 24, [ROLE_DISK] = 30, [ROLE_KEEPER] = 20,
	[ROLE_NET] = 34,     [ROLE_FORKER] = 38, [ROLE_SWITCH] = 16, [ROLE_LINE] = 19,
	[ROLE_RELAY] = 18,   [ROLE_HUB] = 23,    [ROLE_BALANCER] = 17,
	[ROLE_PAGER] = 19,   [ROLE_FOLDER] = 28, [ROLE_WIRE] = 22,
};
static int failures;

struct attempt { long number, arguments[6]; };

static void expect(const char *what, int got, int want)
{
	printf("%s %s\n", got == want ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += got != want;
}

static void lock(enum role role)
{
	if (lockdown_before_threads(role, NULL) || lockdown(role))
		_exit(99);
}

/* 0: the call returned; SIGSYS: it ended the process. */
static int try(enum role role, const struct attempt *a)
{
	long values[6];
	int status;
	pid_t child = fork();

	if (!child) {
		alarm(2);
		for (unsigned n = 0; n < 6; n++)
			values[n] = a->arguments[n] == OWN_PID ? getpid() : a->arguments[n];
		lock(role);
		syscall(a->number, values[0], values[1], values[2], values[3], values[4],
			values[5]);
		syscall(SYS_exit_group, 0);
	}
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
		printf("FAIL lock-down itself\n");
		exit(1);
	}
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? SIGSYS : 0;
}

static const struct role_call *find_call(enum role role, long number)
{
	for (const struct role_call *call = role_describe(role)->calls; *call->name; call++)
		if (call->number == number)
			return call;
	return NULL;
}

/* As try(), with nothing but the role's list, which was compiled once for all calls. */
static int try_under(const struct sock_fprog *list, long number)
{
	int status;
	pid_t child = fork();

	if (!child) {
		alarm(2);
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || lockdown_load(list))
			_exit(99);
		syscall(number, -1, -1, -1, -1, -1, -1);
		syscall(SYS_exit_group, 0);
	}
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
		printf("FAIL lock-down itself\n");
		exit(1);
	}
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? SIGSYS : 0;
}

static void all_calls(enum role role)
{
	unsigned kept = 0;
	struct sock_fprog list;

	if (lockdown_compile(role, &list)) {
		printf("FAIL a list that is not compiled\n");
		exit(1);
	}
	printf("%s keeps:", role_describe(role)->name);
	for (long n = 0; n <= HIGHEST_CALL; n++) {
		const struct role_call *call = find_call(role, n);
		int got;

		if (n == CALL_URETPROBE || n == CALL_UPROBE)
			continue;
		kept += call && call->condition != CALL_REFUSED;
		if (call && call->condition != CALL_REFUSED)
			printf(" %s%s", call->name, call->condition ? "(if)" : "");
		if (call && call->condition)
			continue; /* conditions() */
		fflush(stdout);
		got = try_under(&list, n);
		if (!got == !call) {
			printf("\nFAIL call %ld: %s the list\n", n,
			       got ? "denied, but in" : "allowed, but not in");
			failures++;
		}
	}
	munmap(list.filter, list.len * sizeof(*list.filter));
	printf(" (%u)\n", kept);
	expect("no more than were promised", kept <= most_calls[role], true);
}

/* ---- what fails, and ends nobody ---- */

/* With the list that a forked machine's threads have before they have left the forker's page. */
static void refusals(void)
{
	struct sock_fprog list;
	int status;
	pid_t child;

	expect("a machine process's list", lockdown_compile(ROLE_MACHINE, &list), 0);
	child = fork();
	if (!child) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || lockdown_load(&list))
			_exit(99);
		syscall(SYS_exit_group, syscall(SYS_getpid) < 0 ? errno : 0);
	}
	waitpid(child, &status, 0);
	munmap(list.filter, list.len * sizeof(*list.filter));
	expect("a thread in the forker's page hears that it may not ask who it is",
	       WIFEXITED(status) ? WEXITSTATUS(status) : -1, EACCES);
}

/* ---- conditions ---- */

static void denied(enum role role, const char *what, const struct attempt *a)
{
	char text[128];

	snprintf(text, sizeof(text), "%s: not %s", role_describe(role)->name, what);
	expect(text, try(role, a), SIGSYS);
}

static void allowed(enum role role, const char *what, const struct attempt *a)
{
	char text[128];

	snprintf(text, sizeof(text), "%s: %s", role_describe(role)->name, what);
	expect(text, try(role, a), 0);
}

static void conditions_of_all(enum role role)
{
	static int word = 1;
	long address = (long)&word;
	long anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

	allowed(role, "a wake", &(struct attempt){ SYS_futex, { address, FUTEX_WAKE_PRIVATE, 1 } });
	allowed(role, "a wait that does not",
		&(struct attempt){ SYS_futex, { address, FUTEX_WAIT, 2 } });
	denied(role, "a futex with priority inheritance",
	       &(struct attempt){ SYS_futex, { address, FUTEX_LOCK_PI, 0 } });
	denied(role, "a requeueing futex",
	       &(struct attempt){ SYS_futex, { address, FUTEX_CMP_REQUEUE_PI, 1 } });
	if (find_call(role, SYS_tgkill))
		allowed(role, "a signal to itself",
			&(struct attempt){ SYS_tgkill, { OWN_PID, OWN_PID, 0 } });
	denied(role, "a signal to its parent",
	       &(struct attempt){ SYS_tgkill, { getpid(), getpid(), SIGKILL } });
	denied(role, "a signal to nobody",
	       &(struct attempt){ SYS_tgkill, { 0x7fffffff, 0x7fffffff, 0 } });
	denied(role, "a signal, by kill", &(struct attempt){ SYS_kill, { OWN_PID, 0 } });
	denied(role, "a signal, by tkill", &(struct attempt){ SYS_tkill, { OWN_PID, 0 } });
	if (role != ROLE_NET)
		denied(role, "a socket",
		       &(struct attempt){ SYS_socket, { AF_INET, SOCK_STREAM, 0 } });
	denied(role, "a pair of sockets",
	       &(struct attempt){ SYS_socketpair, { AF_UNIX, SOCK_STREAM, 0, address } });
	if (role == ROLE_BROKER)
		return; /* keeps neither */
	allowed(role, "memory",
		&(struct attempt){ SYS_mmap, { 0, PAGE, PROT_READ | PROT_WRITE, anonymous, -1 } });
	denied(role, "executable memory",
	       &(struct attempt){ SYS_mmap, { 0, PAGE, PROT_READ | PROT_EXEC, anonymous, -1 } });
	denied(role, "memory that it would share",
	       &(struct attempt){ SYS_mmap,
				  { 0, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1 } });
	denied(role, "a mapped file",
	       &(struct attempt){ SYS_mmap,
				  { 0, PAGE, PROT_READ, MAP_PRIVATE, grant_fd(GRANT_PLAN) } });
	if (role == ROLE_KEEPER || role == ROLE_SWITCH || role == ROLE_RELAY ||
	    role == ROLE_BALANCER || role == ROLE_LINE || role == ROLE_PAGER)
		return;
	denied(role, "executable memory, by mprotect",
	       &(struct attempt){ SYS_mprotect, { 0, PAGE, PROT_READ | PROT_EXEC } });
	/* of what it shares; there is no file that it could have mapped */
	if (role == ROLE_MACHINE) {
		allowed(role, "shared memory emptied",
			&(struct attempt){ SYS_madvise, { 0, PAGE, MADV_REMOVE } });
		allowed(role, "pages of its memory asked for",
			&(struct attempt){ SYS_madvise, { 0, PAGE, MADV_POPULATE_WRITE } });
		allowed(role, "large pages of its memory asked for",
			&(struct attempt){ SYS_madvise, { 0, PAGE, MADV_COLLAPSE } });
	} else {
		denied(role, "memory of a file taken away",
		       &(struct attempt){ SYS_madvise, { 0, PAGE, MADV_REMOVE } });
	}
	allowed(role, "memory given back",
		&(struct attempt){ SYS_madvise, { 0, PAGE, MADV_DONTNEED } });
}

/* What a port's joiner sends, and nothing else that comes with it. */
static void windows(void)
{
	const long place = (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const long data = PROT_READ | PROT_WRITE;
	const long in_place = MAP_SHARED | MAP_FIXED;
	const long fd = WINDOW_RECEIVED_FD;

	allowed(ROLE_MACHINE, "a window that has come",
		&(struct attempt){ SYS_mmap, { place, PAGE, data, in_place, fd } });
	allowed(ROLE_MACHINE, "a part of it that is only read",
		&(struct attempt){ SYS_mmap, { place, PAGE, PROT_READ, in_place, fd } });
	allowed(ROLE_MACHINE, "its descriptor closed",
		&(struct attempt){ SYS_close, { fd } });
	allowed(ROLE_MACHINE, "a word at the line of its windows",
		&(struct attempt){ SYS_recvmsg, { grant_fd(GRANT_WINDOW_LINES_LAST), 0, 0 } });
	denied(ROLE_MACHINE, "a word elsewhere",
	       &(struct attempt){ SYS_recvmsg, { grant_fd(GRANT_PORT_BELLS), 0, 0 } });
	denied(ROLE_MACHINE, "another descriptor closed",
	       &(struct attempt){ SYS_close, { grant_fd(GRANT_TO_MACHINE) } });
	denied(ROLE_MACHINE, "a window of another descriptor",
	       &(struct attempt){ SYS_mmap, { place, PAGE, data, in_place, fd + 1 } });
	denied(ROLE_MACHINE, "a window where it likes",
	       &(struct attempt){ SYS_mmap, { 0, PAGE, data, MAP_SHARED, fd } });
	denied(ROLE_MACHINE, "a window that can be executed",
	       &(struct attempt){ SYS_mmap,
				  { place, PAGE, data | PROT_EXEC, in_place, fd } });
	for (long before = 1l << 32; before < 1l << 46; before <<= 1)
		denied(ROLE_MACHINE, "memory over the forker's page, from far before it",
		       &(struct attempt){ SYS_mmap,
					  { (long)forker_page() - before, before + PAGE, data,
					    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1 } });
	denied(ROLE_MACHINE, "a window in the forker's place",
	       &(struct attempt){ SYS_mmap, { (long)forker_page(), PAGE, data, in_place, fd } });
}

static char some_bytes[8];

static void conditions_of_places(void)
{
	const long data = (long)some_bytes;

	denied(ROLE_MACHINE, "more pages that take places than are half a window",
	       &(struct attempt){ SYS_mremap, { 0, HALF + PAGE, HALF + PAGE, 3, data } });
	denied(ROLE_MACHINE, "few that become more",
	       &(struct attempt){ SYS_mremap, { 0, PAGE, HALF + PAGE, 3, data } });
	denied(ROLE_MACHINE, "memory that grows",
	       &(struct attempt){ SYS_mremap, { 0, PAGE, PAGE, 1 } });
	allowed(ROLE_MACHINE, "pages that take a place",
		&(struct attempt){ SYS_mremap, { 0, HALF, HALF, 3, 0 } });
	allowed(ROLE_MACHINE, "shared ones once more",
		&(struct attempt){ SYS_mremap, { 0, 0, HALF, 3, 0 } });
	allowed(ROLE_MACHINE, "pages that leave their place",
		&(struct attempt){ SYS_mremap, { 0, HALF, HALF, 5, 0 } });
	denied(ROLE_MACHINE, "more that leave theirs",
	       &(struct attempt){ SYS_mremap, { 0, HALF + PAGE, HALF + PAGE, 5, 0 } });
	denied(ROLE_MACHINE, "a page that leaves for the place of another",
	       &(struct attempt){ SYS_mremap, { 0, PAGE, PAGE, 7, data } });
	denied(ROLE_MACHINE, "the forker's page, which leaves",
	       &(struct attempt){ SYS_mremap, { (long)forker_page(), PAGE, PAGE, 5, 0 } });
	for (long before = 0; before < HALF; before += HALF / 2) {
		const long from = (long)forker_page() - before;

		denied(ROLE_MACHINE, "pages with the forker's among them, which leave",
		       &(struct attempt){ SYS_mremap, { from, HALF, HALF, 5, 0 } });
		denied(ROLE_MACHINE, "and which take a place",
		       &(struct attempt){ SYS_mremap, { from, HALF, HALF, 3, 0 } });
		denied(ROLE_MACHINE, "and whose place others take",
		       &(struct attempt){ SYS_mremap, { 0, HALF, HALF, 3, from } });
	}
}

static void conditions_of_machine(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_MACHINE);
	allowed(ROLE_MACHINE, "a word of its pager's",
		&(struct attempt){ SYS_read, { grant_fd(GRANT_PAGER), data, 0 } });
	denied(ROLE_MACHINE, "pages that are missed",
	       &(struct attempt){ SYS_ioctl, { 0, UFFDIO_COPY, data } });
	allowed(ROLE_MACHINE, "read of its event",
		&(struct attempt){ SYS_read, { grant_fd(GRANT_TO_MACHINE), data, 8 } });
	denied(ROLE_MACHINE, "read of another descriptor",
	       &(struct attempt){ SYS_read, { grant_fd(GRANT_TO_BROKER), data, 8 } });
	denied(ROLE_MACHINE, "read of standard input",
	       &(struct attempt){ SYS_read, { 0, data, 8 } });
	allowed(ROLE_MACHINE, "write to its event",
		&(struct attempt){ SYS_write, { grant_fd(GRANT_TO_BROKER), data, 8 } });
	denied(ROLE_MACHINE, "write to another descriptor",
	       &(struct attempt){ SYS_write, { grant_fd(GRANT_TO_MACHINE), data, 8 } });
	denied(ROLE_MACHINE, "write to standard error",
	       &(struct attempt){ SYS_write, { 2, data, 0 } });
	windows();
	denied(ROLE_MACHINE, "a process", &(struct attempt){ SYS_clone, { FORKER_FORK_FLAGS } });
	denied(ROLE_MACHINE, "a thread", &(struct attempt){ SYS_clone, { FORKER_THREAD_FLAGS } });
	denied(ROLE_MACHINE, "memory that is inherited again",
	       &(struct attempt){ SYS_madvise, { 0, PAGE, MADV_DOFORK } });
	conditions_of_places();
}

static void conditions_of_broker(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_BROKER);
	denied(ROLE_BROKER, "memory, by mprotect",
	       &(struct attempt){ SYS_mprotect, { 0, 0, PROT_READ | PROT_WRITE } });
	denied(ROLE_BROKER, "a byte into the terminal's input",
	       &(struct attempt){ SYS_ioctl, { 0, TIOCSTI, data } });
	denied(ROLE_BROKER, "another descriptor's terminal",
	       &(struct attempt){ SYS_ioctl, { 1, TCGETS, data } });
	allowed(ROLE_BROKER, "a signal to a helper of its",
		&(struct attempt){ SYS_pidfd_send_signal, { HELPERS_FIRST_FD, 0, 0, 0 } });
	denied(ROLE_BROKER, "a signal to what is not its machine",
	       &(struct attempt){ SYS_pidfd_send_signal, { grant_fd(GRANT_END), 0, 0, 0 } });
	allowed(ROLE_BROKER, "a signal to its machine",
		&(struct attempt){ SYS_pidfd_send_signal, { grant_fd(GRANT_MACHINE), 0, 0, 0 } });
	denied(ROLE_BROKER, "a peer of another socket",
	       &(struct attempt){ SYS_accept4, { grant_fd(GRANT_END), 0, 0, 0 } });
	denied(ROLE_BROKER, "another file made shorter",
	       &(struct attempt){ SYS_ftruncate, { grant_fd(GRANT_END), 0 } });
}

static void conditions_of_disk(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_DISK);
	denied(ROLE_DISK, "another use of a descriptor",
	       &(struct attempt){ SYS_fcntl, { 0, F_SETFL, 0 } });
	allowed(ROLE_DISK, "a file's lock", &(struct attempt){ SYS_fcntl, { 0, F_OFD_SETLK, 0 } });
	denied(ROLE_DISK, "a rename", &(struct attempt){ SYS_rename, { data, data } });
	denied(ROLE_DISK, "a removal", &(struct attempt){ SYS_unlink, { data } });
	denied(ROLE_DISK, "a new ring", &(struct attempt){ SYS_io_uring_setup, { 8, data } });
	denied(ROLE_DISK, "another registration at its ring",
	       &(struct attempt){ SYS_io_uring_register, { 0, 0, data } });
	denied(ROLE_DISK, "memory, by mprotect",
	       &(struct attempt){ SYS_mprotect, { 0, 0, PROT_READ | PROT_WRITE } });
}

static void conditions_of_net(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_NET);
	allowed(ROLE_NET, "a TCP socket",
		&(struct attempt){ SYS_socket, { AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0 } });
	allowed(ROLE_NET, "a UDP socket",
		&(struct attempt){ SYS_socket, { AF_INET6, SOCK_DGRAM, 0 } });
	denied(ROLE_NET, "a local socket",
	       &(struct attempt){ SYS_socket, { AF_UNIX, SOCK_STREAM, 0 } });
	denied(ROLE_NET, "a raw socket", &(struct attempt){ SYS_socket, { AF_INET, SOCK_RAW, 0 } });
	denied(ROLE_NET, "a stream of another protocol",
	       &(struct attempt){ SYS_socket, { AF_INET, SOCK_STREAM, 132 /* SCTP */ } });
	denied(ROLE_NET, "one of many ways",
	       &(struct attempt){ SYS_socket, { AF_INET6, SOCK_STREAM, 262 /* MPTCP */ } });
	denied(ROLE_NET, "datagrams of another protocol",
	       &(struct attempt){ SYS_socket, { AF_INET, SOCK_DGRAM, 136 /* UDPLITE */ } });
	allowed(ROLE_NET, "a ping, which is refused",
		&(struct attempt){ SYS_socket, { AF_INET, SOCK_DGRAM, 1 } });
	allowed(ROLE_NET, "a raw ping, too",
		&(struct attempt){ SYS_socket, { AF_INET, SOCK_RAW, 1 } });
	denied(ROLE_NET, "a socket to the kernel",
	       &(struct attempt){ SYS_socket, { AF_NETLINK, SOCK_RAW, 0 } });
	denied(ROLE_NET, "a name for a socket", &(struct attempt){ SYS_bind, { 0, data, 16 } });
	denied(ROLE_NET, "a file to be written",
	       &(struct attempt){ SYS_openat, { AT_FDCWD, data, O_WRONLY } });
	denied(ROLE_NET, "a new file",
	       &(struct attempt){ SYS_openat, { AT_FDCWD, data, O_RDONLY | O_CREAT, 0600 } });
	denied(ROLE_NET, "another request to a descriptor",
	       &(struct attempt){ SYS_ioctl, { 0, TCGETS, data } });
}

static void conditions_of_switch(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_SWITCH);
	denied(ROLE_SWITCH, "a connection", &(struct attempt){ SYS_connect, { 0, data, 16 } });
	denied(ROLE_SWITCH, "a port of another socket",
	       &(struct attempt){ SYS_accept4, { grant_fd(GRANT_END), 0, 0, 0 } });
}

static void conditions_of_line(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_LINE);
	denied(ROLE_LINE, "a frame of another descriptor",
	       &(struct attempt){ SYS_sendmsg, { grant_fd(GRANT_END), data, 0 } });
	denied(ROLE_LINE, "a read of its answers",
	       &(struct attempt){ SYS_read, { grant_fd(GRANT_CARD_ANSWER), data, 8 } });
	denied(ROLE_LINE, "a change of how a descriptor blocks",
	       &(struct attempt){ SYS_fcntl, { grant_fd(GRANT_TAP), F_SETFL, 0 } });
}

static void conditions_of_relay(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_RELAY);
	allowed(ROLE_RELAY, "a local socket",
		&(struct attempt){ SYS_socket, { AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0 } });
	denied(ROLE_RELAY, "a local socket of packets",
	       &(struct attempt){ SYS_socket, { AF_UNIX, SOCK_SEQPACKET, 0 } });
	denied(ROLE_RELAY, "a port of another socket",
	       &(struct attempt){ SYS_accept4, { grant_fd(GRANT_END), 0, 0, 0 } });
	denied(ROLE_RELAY, "read of another descriptor",
	       &(struct attempt){ SYS_read, { grant_fd(GRANT_END), data, 8 } });
}

static void conditions_of_balancer(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_BALANCER);
	denied(ROLE_BALANCER, "a connection",
	       &(struct attempt){ SYS_connect, { 0, data, 16 } });
	denied(ROLE_BALANCER, "a file",
	       &(struct attempt){ SYS_openat, { AT_FDCWD, data, O_RDONLY } });
}

static void conditions_of_pager(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_PAGER);
	allowed(ROLE_PAGER, "pages that are missed",
		&(struct attempt){ SYS_ioctl, { 0, UFFDIO_COPY, data } });
	denied(ROLE_PAGER, "memory watched, too",
	       &(struct attempt){ SYS_ioctl, { 0, UFFDIO_REGISTER, data } });
	denied(ROLE_PAGER, "pages that are moved",
	       &(struct attempt){ SYS_ioctl, { 0, 0xc028aa05 /* UFFDIO_MOVE */, data } });
	denied(ROLE_PAGER, "another file",
	       &(struct attempt){ SYS_pread64, { grant_fd(GRANT_PLAN), data, 8, 0 } });
	denied(ROLE_PAGER, "what another descriptor brings",
	       &(struct attempt){ SYS_recvmsg, { grant_fd(GRANT_PLAN), 0, 0 } });
	denied(ROLE_PAGER, "a socket",
	       &(struct attempt){ SYS_socket, { AF_UNIX, SOCK_STREAM, 0 } });
	denied(ROLE_PAGER, "parts of another file",
	       &(struct attempt){ SYS_preadv, { grant_fd(GRANT_PLAN), 0, 0, 0 } });
	denied(ROLE_PAGER, "a file", &(struct attempt){ SYS_openat, { AT_FDCWD, data, O_RDONLY } });
}

static void conditions_of_wire(void)
{
	const long data = (long)some_bytes;

	conditions_of_all(ROLE_WIRE);
	allowed(ROLE_WIRE, "what is said to it",
		&(struct attempt){ SYS_read, { grant_fd(GRANT_WIRE_LINE), data, 0 } });
	denied(ROLE_WIRE, "the key",
	       &(struct attempt){ SYS_read, { grant_fd(GRANT_WIRE_KEY), data, 0 } });
	denied(ROLE_WIRE, "another descriptor's words",
	       &(struct attempt){ SYS_recvfrom, { grant_fd(GRANT_CONTROL), data, 0 } });
	denied(ROLE_WIRE, "a connection", &(struct attempt){ SYS_connect, { 0, data, 16 } });
	denied(ROLE_WIRE, "a file", &(struct attempt){ SYS_openat, { AT_FDCWD, data, O_RDONLY } });
}

static void conditions_of_forker(void)
{
	denied(ROLE_FORKER, "memory that is inherited again",
	       &(struct attempt){ SYS_madvise, { 0, PAGE, MADV_DOFORK } });
	denied(ROLE_FORKER, "a process with its files",
	       &(struct attempt){ SYS_clone, { FORKER_FORK_FLAGS | 0x400 } });
	denied(ROLE_FORKER, "namespaces",
	       &(struct attempt){ SYS_clone, { FORKER_FORK_FLAGS | 0x10000000 } });
	denied(ROLE_FORKER, "executable memory that is not the translator's",
	       &(struct attempt){ SYS_mmap,
				  { 0, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED,
				    grant_fd(GRANT_RINGS) } });
	denied(ROLE_FORKER, "code that can be written",
	       &(struct attempt){ SYS_mmap,
				  { 0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
				    MAP_SHARED | MAP_FIXED, grant_fd(GRANT_CODE) } });
	denied(ROLE_FORKER, "a signal to what is not its machine",
	       &(struct attempt){ SYS_pidfd_send_signal, { grant_fd(GRANT_MACHINE), 0, 0, 0 } });
}

static void conditions(void)
{
	conditions_of_machine();
	conditions_of_broker();
	conditions_of_disk();
	conditions_of_net();
	conditions_of_switch();
	conditions_of_line();
	conditions_of_relay();
	conditions_of_balancer();
	conditions_of_pager();
	conditions_of_wire();
	conditions_of_forker();
	conditions_of_all(ROLE_KEEPER);
}

/* ---- the other layers ---- */

/* What a child says that has given up everything but the list of calls. */
static void by_other_layers(enum role role, const char *what, int (*act)(void))
{
	char text[128];
	int status;
	pid_t child = fork();

	if (!child)
		_exit(lockdown_before_threads(role, NULL) ? 99 : act());
	waitpid(child, &status, 0);
	snprintf(text, sizeof(text), "%s: %s, without the list of calls", role_describe(role)->name,
		 what);
	expect(text, status, 0);
}

static bool is_out_of_reach(void) { return errno == EACCES || errno == ENOENT || errno == EROFS; }

static int open_a_file(void)
{
	if (open("/etc/passwd", O_RDONLY) >= 0)
		return 1;
	return is_out_of_reach() ? 0 : 2;
}

static int find_a_file(void) { return access("/etc/passwd", F_OK) ? 0 : 1; }

static int make_a_file(void)
{
	if (open("/tmp/umbra-lockdown-elsewhere", O_RDWR | O_CREAT, 0600) >= 0)
		return 1;
	return is_out_of_reach() ? 0 : 2;
}

static int has_capabilities(void)
{
	uint64_t data[3] = { 0 };
	uint32_t head[2] = { 0x20080522, 0 };

	return syscall(SYS_capget, head, data) || data[0] || data[1] || data[2];
}

/* Its network has nothing but a loopback that is down. */
static int reach_the_network(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct sockaddr_storage loopback = { .ss_family = AF_INET,
						   .__ss_padding = { 0, 9, 127, 0, 0, 1 } };

	if (fd < 0)
		return 0;
	return connect(fd, (const struct sockaddr *)&loopback, 16) ? 0 : 1;
}

static int signal_the_parent(void) { return kill(getppid(), 0) ? 0 : 1; }

static int new_privileges(void) { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1; }

static void other_layers(enum role role)
{
	if (lockdown_landlock_version()) {
		by_other_layers(role, "no file", open_a_file);
		by_other_layers(role, "no new file", make_a_file);
	}
	by_other_layers(role, "no capability", has_capabilities);
	by_other_layers(role, "no new privilege", new_privileges);
	if (lockdown_has_namespaces() && role_describe(role)->empties_root)
		by_other_layers(role, "no file is even there", find_a_file);
	if (lockdown_has_namespaces() && role_describe(role)->own_namespaces & CLONE_NEWNET)
		by_other_layers(role, "no network", reach_the_network);
	if (lockdown_landlock_version() >= 6 && role_describe(role)->signals_nobody)
		by_other_layers(role, "no signal", signal_the_parent);
}

/* Not by the list of calls, which ends a process: what is refused fails. */
static void refused_calls(void)
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct stat st;

		lock(ROLE_DISK);
		if (openat(AT_FDCWD, "/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
			_exit(1);
		_exit(stat("/etc/passwd", &st) || fstat(grant_fd(GRANT_TO_BROKER), &st) ? 0 : 2);
	}
	waitpid(child, &status, 0);
	expect("disk: no file is opened, or asked for, and it goes on", status, 0);
}

/* A keeper with one folder: files there, and none elsewhere. */
static void one_folder(void)
{
	char name[] = "/tmp/umbra-lockdown-XXXXXX", path[64];
	int status, folder = mkdtemp(name) ? open(name, O_RDONLY | O_DIRECTORY) : -1;
	pid_t child = fork();

	snprintf(path, sizeof(path), "%s/file", name);
	if (!child) {
		if (folder < 0 || lockdown_before_threads(ROLE_KEEPER, (const int[]){ folder, -1 }))
			_exit(99);
		if (open(path, O_RDWR | O_CREAT, 0600) < 0 || unlink(path))
			_exit(1);
		_exit(make_a_file());
	}
	waitpid(child, &status, 0);
	close(folder);
	rmdir(name);
	expect("a keeper has files in its folder only", status, 0);
}

static int connect_to(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	error = connect(fd, (const struct sockaddr *)&at, sizeof(at)) ? errno : 0;
	close(fd);
	return error;
}

static int listen_at(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof(at)) || listen(fd, 4))
		printf("FAIL nobody listens at %s\n", path);
	return fd;
}

static int connects_within(int folder, const char *beside)
{
	if (connect_to(beside))
		return 99;
	if (lockdown_in_folder(ROLE_RELAY, folder))
		return 98;
	if (connect_to("within") || connect_to("/within"))
		return 1;
	if (connect_to("../beside") != ENOENT || connect_to(beside) != ENOENT)
		return 2;
	if (open_a_file() || find_a_file() || make_a_file())
		return 3;
	return has_capabilities() ? 4 : 0;
}

/* A relay in /tmp/x/folder: who listens within, and not at /tmp/x/beside. */
static void one_folder_to_connect_in(void)
{
	char name[] = "/tmp/umbra-lockdown-XXXXXX", folder[64], within[64], beside[64];
	int fds[3], status;
	pid_t child;

	if (!mkdtemp(name))
		exit(1);
	snprintf(folder, sizeof(folder), "%s/folder", name);
	snprintf(within, sizeof(within), "%s/folder/within", name);
	snprintf(beside, sizeof(beside), "%s/beside", name);
	mkdir(folder, 0700);
	fds[0] = listen_at(within);
	fds[1] = listen_at(beside);
	fds[2] = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	child = fork();
	if (!child)
		_exit(connects_within(fds[2], beside));
	waitpid(child, &status, 0);
	for (unsigned n = 0; n < 3; n++)
		close(fds[n]);
	unlink(within);
	unlink(beside);
	rmdir(folder);
	rmdir(name);
	expect("a relay connects to who listens in its folder only", status, 0);
}

int main(void)
{
	dup2(eventfd(1, 0), grant_fd(GRANT_TO_MACHINE));
	dup2(eventfd(0, 0), grant_fd(GRANT_TO_BROKER));
	for (int role = 0; role < ROLES; role++)
		if (role_describe((enum role)role)->calls)
			all_calls((enum role)role);
	refusals();
	conditions();
	for (int role = 0; role < ROLES; role++)
		if (role_describe((enum role)role)->calls)
			other_layers((enum role)role);
	refused_calls();
	one_folder();
	if (lockdown_has_namespaces())
		one_folder_to_connect_in();
	return failures != 0;
}
