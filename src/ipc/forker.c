/* See forker.h; the page itself is forker.S. */
#include "forker.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static_assert(FORKER_ASK_FD == GRANT_FIRST_FD + GRANT_FORK_ASK, "forker_abi.h");
static_assert(FORKER_KIT_FD == GRANT_FIRST_FD + GRANT_FORK_KIT, "forker_abi.h");
static_assert(FORKER_SELF_FD == GRANT_FIRST_FD + GRANT_FORK_SELF, "forker_abi.h");
static_assert(FORKER_FORK_FLAGS == (CLONE_PARENT | CLONE_SETTLS | SIGCHLD), "forker_abi.h");
static_assert(FORKER_SELF_FLAGS == (CLONE_VM | CLONE_PARENT | SIGCHLD), "forker_abi.h");
static_assert(FORKER_THREAD_FLAGS == (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
				      CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS),
	      "forker_abi.h");
static_assert(offsetof(struct fork_place, goes) == FORK_PLACE_GOES, "forker_abi.h");
static_assert(offsetof(struct fork_place, tls) == FORK_PLACE_TLS, "forker_abi.h");
static_assert(offsetof(struct fork_place, r15) == FORK_PLACE_R15, "forker_abi.h");

/* Numbers 0 to FORK_KIT: the next forker's sockets are the last two. */
enum { KIT_NUMBERS = FORKER_KIT_FD + 1, START_MS = 5000 };
static_assert(CMSG_SPACE(KIT_NUMBERS * sizeof(int)) <= FORKER_CONTROL_BYTES, "forker_abi.h");

/* forker.S */
long forker_clone(const struct sock_fprog *calls);

/* The page's data. There is one machine in a process, and one page. */
static uint8_t control[FORKER_CONTROL_BYTES] __attribute__((aligned(8)));
extern uint8_t forker_byte;
extern struct fork_place *forker_place, *forker_places[FORKER_THREADS_MOST];
extern struct msghdr forker_message;
extern int forker_started;
extern uint64_t forker_processors[FORKER_PROCESSORS_BYTES / 8];
extern uint64_t forker_one[FORKER_PROCESSORS_BYTES / 8];
extern uint32_t forker_processor;

uint8_t forker_byte = 1;
static struct iovec byte_vector = { .iov_base = &forker_byte, .iov_len = 1 };
struct fork_place *forker_place, *forker_places[FORKER_THREADS_MOST]; /* to the first NULL */
struct msghdr forker_message = { .msg_iov = &byte_vector, .msg_iovlen = 1, .msg_control = control };
int forker_started;
uint64_t forker_processors[FORKER_PROCESSORS_BYTES / 8]; /* that it may be on, and that one only */
uint64_t forker_one[FORKER_PROCESSORS_BYTES / 8];
uint32_t forker_processor;

uintptr_t forker_page(void) { return (uintptr_t)forker_clone; }

int fork_place_enlist(struct fork_place *place)
{
	for (unsigned n = 0; n < FORKER_THREADS_MOST; n++)
		if (!forker_places[n] || forker_places[n] == place) {
			forker_places[n] = place;
			return 0;
		}
	return -ENOSPC;
}

void fork_place_delist(const struct fork_place *place)
{
	unsigned n = 0;

	while (n < FORKER_THREADS_MOST && forker_places[n] && forker_places[n] != place)
		n++;
	for (; n < FORKER_THREADS_MOST && forker_places[n]; n++)
		forker_places[n] = n + 1 < FORKER_THREADS_MOST ? forker_places[n + 1] : NULL;
}

void fork_place_revive(struct fork_place *place)
{
	__atomic_store_n(&place->goes, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &place->goes, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void forker_leave_processor(void)
{
	syscall(SYS_sched_setaffinity, 0, sizeof(forker_processors), forker_processors);
}

void forker_set_place(struct fork_place *place)
{
	__atomic_store_n(&forker_place, place, __ATOMIC_SEQ_CST);
}

int forker_wait(void)
{
	const struct timespec pause = { .tv_nsec = 100000 };

	for (unsigned n = 0; n < START_MS * 10; n++) {
		if (__atomic_load_n(&forker_started, __ATOMIC_ACQUIRE))
			return 0;
		nanosleep(&pause, NULL);
	}
	return -ETIMEDOUT;
}

int forker_start(const struct sock_fprog *calls)
{
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	long forker;
	int error = 0;

	if (self < 0)
		return -errno;
	if (self != FORKER_SELF_FD) {
		if (dup2(self, FORKER_SELF_FD) < 0)
			error = -errno;
		close(self);
	}
	forker = error ? error : forker_clone(calls);
	error = forker < 0 ? (int)forker : 0;
	close(FORKER_ASK_FD);
	close(FORKER_KIT_FD);
	close(FORKER_SELF_FD);
	return error;
}

static bool is_kept(grant_set kept, int fd)
{
	return fd >= GRANT_FIRST_FD && kept & GRANT(fd - GRANT_FIRST_FD);
}

void forker_keep(grant_set kept)
{
	int end;

	for (int fd = 0; fd < FORKER_ASK_FD; fd = end + 1) {
		for (end = fd; end < FORKER_ASK_FD && !is_kept(kept, end);)
			end++;
		if (end > fd && syscall(SYS_close_range, fd, end - 1, 0))
			for (int one = fd; one < end; one++)
				close(one);
	}
}

/* ---- the broker's side ---- */

static int socket_pair(int ret[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret) ? -errno : 0;
}

int forker_make_sockets(int ask[2], int kit[2])
{
	const int on = 1;
	int error = socket_pair(ask);

	if (!error)
		error = socket_pair(kit);
	if (!error && (setsockopt(kit[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) ||
		       fcntl(kit[0], F_SETFL, O_NONBLOCK)))
		error = -errno;
	return error;
}

/* Where its row has none, another one, which is closed at once (forker_keep()). */
static void fill_kit(const int fd[GRANTS], int kit[KIT_NUMBERS])
{
	for (int n = 0; n < KIT_NUMBERS; n++) {
		int own = n < GRANT_FIRST_FD ? -1 : fd[n - GRANT_FIRST_FD];

		kit[n] = own >= 0 ? own : fd[GRANT_RINGS];
	}
}

/* Its devices', of which a machine closes those that it has not. */
static void ports_grants(const int port[KIT_PORT_FDS], unsigned n, int fd[GRANTS])
{
	fd[GRANT_PORTS + n] = port[KIT_PORT];
	fd[GRANT_PORT_BELLS + n] = port[KIT_PORT_BELL];
	fd[GRANT_PORT_ANSWERS + n] = port[KIT_PORT_ANSWER];
	fd[GRANT_WINDOW_LINES + n] = port[KIT_PORT_LINE];
}

static void devices_grants(const int kit[KIT_MOST_FDS], unsigned cards, unsigned ports,
			   int fd[GRANTS])
{
	fd[GRANT_SLOTS] = kit[KIT_SLOTS];
	fd[GRANT_DOORBELL] = kit[KIT_DOORBELL];
	fd[GRANT_ANSWER] = kit[KIT_ANSWER];
	fd[GRANT_CONNECTIONS] = kit[KIT_CONNECTIONS];
	fd[GRANT_CONNECTION_BELL] = kit[KIT_CONNECTION_BELL];
	for (unsigned n = 0; n < ports; n++)
		ports_grants(kit + fork_kit_ports_at(cards) + n * KIT_PORT_FDS, n, fd);
	for (unsigned n = 0; n < cards; n++) {
		const int *card = kit + KIT_FDS + n * KIT_CARD_FDS;

		fd[GRANT_CARDS + n] = card[KIT_CARD];
		fd[GRANT_CARD_BELLS + n] = card[KIT_CARD_BELL];
		fd[GRANT_CARD_ANSWERS + n] = card[KIT_CARD_ANSWER];
	}
}

void fork_kit_grants(const int kit[KIT_MOST_FDS], unsigned cards, unsigned ports, int fd[GRANTS])
{
	memset(fd, -1, GRANTS * sizeof(*fd));
	fd[GRANT_RINGS] = kit[KIT_RINGS];
	fd[GRANT_TO_BROKER] = kit[KIT_TO_BROKER];
	fd[GRANT_TO_MACHINE] = kit[KIT_TO_MACHINE];
	devices_grants(kit, cards, ports, fd);
	fd[GRANT_CODE] = kit[KIT_CODE];
	fd[GRANT_FORK_ASK] = kit[KIT_ASK];
	fd[GRANT_FORK_KIT] = kit[KIT_KIT];
	fd[GRANT_READY] = kit[KIT_READY];
}

int forker_ask(int ask, int kit, const int fd[GRANTS])
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(KIT_NUMBERS * sizeof(int))];
	} ancillary = { .head = { .cmsg_len = CMSG_LEN(KIT_NUMBERS * sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	uint8_t byte = 1;
	struct iovec vector = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };

	assert(fd[GRANT_RINGS] >= 0 && fd[GRANT_FORK_ASK] >= 0 && fd[GRANT_FORK_KIT] >= 0);
	fill_kit(fd, (int *)(void *)CMSG_DATA(&ancillary.head));
	if (sendmsg(kit, &message, MSG_NOSIGNAL) != 1 || write(ask, &byte, 1) != 1)
		return -errno;
	return 0;
}

pid_t forker_hear(int kit)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(struct ucred))];
	} ancillary;
	uint8_t byte;
	struct iovec vector = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };
	ssize_t got = recvmsg(kit, &message, MSG_CMSG_CLOEXEC);
	struct ucred who = { 0 };

	if (got <= 0)
		return got < 0 ? -errno : -ECONNRESET;
	if (message.msg_controllen >= sizeof(ancillary) &&
	    ancillary.head.cmsg_type == SCM_CREDENTIALS)
		memcpy(&who, CMSG_DATA(&ancillary.head), sizeof(who));
	return who.pid > 0 ? who.pid : -EPROTO;
}
