/*
 * A machine process that is lost, and its forker: it cannot have itself forked, whatever it writes
 * where, and what comes of a fork that it has spoiled is no process that can make another. This
 * process is the broker, and the parent of all, so that it can count them.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/forker.h"
#include "ipc/lockdown.h"
#include "ipc/spawn.h"

enum { WAIT_MS = 60000, LOST_MS = 3000, PAGE = 4096 };

static int failures;

/* Of the page's data: what a lost machine process would look for. */
extern struct fork_place *forker_place, *forker_places[FORKER_THREADS_MOST];
extern uint8_t forker_byte;
long forker_clone(const struct sock_fprog *calls);

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !good;
}

/* ---- the machine process ---- */

static struct fork_place place;

/* What one that is lost would do next, with what only the page needs. */
static const struct attempt { const char *what; long number, arguments[5]; } attempts[] = {
	{ "make a process", SYS_clone, { FORKER_FORK_FLAGS } },
	{ "make a forker", SYS_clone, { FORKER_SELF_FLAGS } },
	{ "make a thread", SYS_clone, { FORKER_THREAD_FLAGS } },
	{ "name a process", SYS_pidfd_open, { 1 } },
	{ "signal one", SYS_pidfd_send_signal, { FORKER_SELF_FD } },
	{ "put its event in another's place", SYS_dup2, { FORKER_KIT_FD, FORKER_ASK_FD } },
	{ "send", SYS_sendto, { FORKER_KIT_FD } },
	{ "receive a descriptor", SYS_recvmsg, { FORKER_KIT_FD } },
	{ "make its code longer", SYS_ftruncate, { FORKER_KIT_FD - 1, PAGE } },
	{ "be asked about calls", SYS_seccomp, { 1, 8 /* NEW_LISTENER */ } },
	{ "share memory with who it forks",
	  SYS_mmap,
	  { 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1 } },
};

enum { ATTEMPTS = sizeof(attempts) / sizeof(attempts[0]) };

static const struct attempt *attempt;

static void go_on_forked(void)
{
	const struct attempt *a = attempt;

	forker_keep(GRANT(GRANT_READY));
	if (write(grant_fd(GRANT_READY), "r", 1) != 1)
		_exit(1);
	syscall(a->number, a->arguments[0], a->arguments[1], a->arguments[2], a->arguments[3],
		a->arguments[4], 0);
	_exit(2); /* it does not come to that */
}

static void machine(void (*lost)(void))
{
	const uint64_t one = 1;
	struct sock_fprog calls;

	if (lockdown_before_threads(ROLE_MACHINE, NULL) || lockdown_compile(ROLE_FORKER, &calls))
		_exit(99);
	forker_set_place(&place);
	if (forker_start(&calls) || forker_wait() || lockdown(ROLE_MACHINE))
		_exit(98);
	if (fork_place_take(&place))
		go_on_forked();
	lost();
	if (write(grant_fd(GRANT_TO_BROKER), &one, sizeof(one)) != sizeof(one))
		_exit(97);
	for (;;)
		sched_yield();
}

static void sound(void) {}
static void place_is_nowhere(void) { forker_place = (struct fork_place *)(uintptr_t)PAGE; }
/* Each of them waits there, and what lies behind the list is no end of it. */
static void places_are_many(void)
{
	for (unsigned n = 0; n < FORKER_THREADS_MOST; n++)
		forker_places[n] = &place;
}
static void place_is_garbage(void) { memset(&place, 0x41, sizeof(place)); }
static void place_has_other_registers(void) { place.rsp = place.rip = PAGE; }
static void page_is_gone(void) { munmap((void *)forker_page(), PAGE); }
static void much_is_gone(void) { munmap((void *)(forker_page() - PAGE), 4ul << 40); }
static void page_is_another(void)
{
	const int in_place = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	mmap((void *)forker_page(), PAGE, PROT_READ, in_place, -1, 0);
}
static void data_is_gone(void)
{
	munmap((void *)((uintptr_t)&forker_byte & ~(uintptr_t)(PAGE - 1)), PAGE);
}
static void calls_into_the_page(void)
{
	struct sock_fprog none = { .len = 0 };

	forker_clone(&none);
}

/* ---- the broker ---- */

static int kit_sockets[2];
static int ask_sockets[2];
static int ready[2];
static int is_lost;

static pid_t start(void (*lost)(void))
{
	pid_t child;

	is_lost = eventfd(0, 0);
	if (is_lost < 0 || forker_make_sockets(ask_sockets, kit_sockets) || pipe(ready))
		exit(1);
	child = fork();
	if (!child) {
		close(ask_sockets[0]);
		dup2(ask_sockets[1], FORKER_ASK_FD);
		dup2(kit_sockets[1], FORKER_KIT_FD);
		dup2(is_lost, grant_fd(GRANT_TO_BROKER));
		machine(lost);
	}
	close(ask_sockets[1]);
	close(kit_sockets[1]);
	dup2(ask_sockets[0], FORKER_ASK_FD);
	dup2(kit_sockets[0], FORKER_KIT_FD);
	return child;
}

static pid_t hear(int timeout_ms)
{
	struct pollfd fd = { .fd = FORKER_KIT_FD, .events = POLLIN };

	return poll(&fd, 1, timeout_ms) == 1 ? forker_hear(FORKER_KIT_FD) : -ETIMEDOUT;
}

static void ask(int next_ask[2], int next_kit[2])
{
	int fd[GRANTS];
	uint64_t count;

	/* it stands at its place, and has done what it could */
	if (read(is_lost, &count, sizeof(count)) != sizeof(count))
		exit(1);
	memset(fd, -1, sizeof(fd));
	if (forker_make_sockets(next_ask, next_kit))
		exit(1);
	fd[GRANT_RINGS] = spawn_share("rings", PAGE);
	fd[GRANT_READY] = ready[1];
	fd[GRANT_FORK_ASK] = next_ask[1];
	fd[GRANT_FORK_KIT] = next_kit[1];
	forker_ask(FORKER_ASK_FD, FORKER_KIT_FD, fd);
	close(fd[GRANT_RINGS]);
	close(next_ask[1]);
	close(next_kit[1]);
}

/* How one ended: its signal, or 0. All others are gone then, too. */
static int ends_by(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void end_all(pid_t child)
{
	close(FORKER_ASK_FD);
	close(FORKER_KIT_FD);
	close(ask_sockets[0]);
	close(kit_sockets[0]);
	close(ready[0]);
	close(ready[1]);
	close(is_lost);
	kill(child, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		; /* forkers end with their sockets */
}

static void a_sound_one(const struct attempt *a)
{
	char text[128];
	int next_ask[2];
	int next_kit[2];
	pid_t child;
	pid_t forker;
	pid_t forked;
	char byte;

	attempt = a;
	child = start(sound);
	forker = hear(WAIT_MS);
	ask(next_ask, next_kit);
	forked = hear(WAIT_MS);
	expect("the forker says who it is", forker > 0 && forker != child);
	expect("and what it has forked who that is", forked > 0 && forked != forker);
	expect("which goes on at its place with its kit", read(ready[0], &byte, 1) == 1);
	snprintf(text, sizeof(text), "and cannot %s", a->what);
	expect(text, ends_by(forked) == SIGSYS);
	close(next_ask[0]);
	close(next_kit[0]);
	end_all(child);
}

/* How many threads it has, if all of them have the same number of filters; else 0. */
static unsigned count_threads(pid_t pid)
{
	char command[128];
	unsigned count = 0;
	unsigned others;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "grep -h Seccomp_filters /proc/%d/task/*/status | sort | uniq -c", (int)pid);
	pipe = popen(command, "r");
	if (!pipe)
		return 0;
	if (fscanf(pipe, "%u Seccomp_filters: %*u", &count) != 1 ||
	    fscanf(pipe, "%u", &others) == 1)
		count = 0;
	pclose(pipe);
	return count;
}

/* Whatever it has in its memory, what is forked has no more threads, and all of them the filter. */
static void one_with_many_threads(void)
{
	static const struct attempt waits = { "wait", SYS_ppoll, { 0, 0, 0 } };
	int next_ask[2];
	int next_kit[2];
	pid_t child;
	pid_t forked;
	char byte;

	attempt = &waits;
	child = start(places_are_many);
	hear(WAIT_MS);
	ask(next_ask, next_kit);
	forked = hear(WAIT_MS);
	expect("what is forked with many threads goes on", read(ready[0], &byte, 1) == 1);
	expect("and has so many at most, of which none may make another",
	       count_threads(forked) == FORKER_THREADS_MOST + 1);
	kill(forked, SIGKILL);
	close(next_ask[0]);
	close(next_kit[0]);
	end_all(child);
}

/* Nothing comes of a fork, or what is killed at once. */
static void a_lost_one(const char *what, void (*lost)(void))
{
	pid_t child = start(lost);
	int next_ask[2];
	int next_kit[2];
	pid_t forker = hear(WAIT_MS);
	pid_t forked;
	char byte;

	ask(next_ask, next_kit);
	forked = hear(LOST_MS);
	/* the forker itself: it could not */
	expect(what, forker > 0 && (forked < 0 || forked == forker || ends_by(forked)));
	fcntl(ready[0], F_SETFL, O_NONBLOCK);
	expect("and it never got as far as to say so", read(ready[0], &byte, 1) != 1);
	close(next_ask[0]);
	close(next_kit[0]);
	end_all(child);
}

/* The page is there for as long as the machine is. */
static void one_that_is_ended(const char *what, void (*lost)(void))
{
	pid_t child = start(lost);

	expect(what, ends_by(child) == SIGSYS);
	end_all(child);
}

static void one_without_data(void)
{
	pid_t child = start(data_is_gone);
	uint64_t count;

	if (hear(WAIT_MS) < 0 || read(is_lost, &count, sizeof(count)) != sizeof(count))
		exit(1);
	/* as when the broker is killed by force */
	close(FORKER_ASK_FD);
	close(ask_sockets[0]);
	expect("one without the page's data ends with its broker", ends_by(child) == SIGKILL);
	end_all(child);
}

int main(void)
{

	/* what is forked is whose child this is, also when its parent has ended */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	for (unsigned n = 0; n < ATTEMPTS; n++)
		a_sound_one(&attempts[n]);
	a_lost_one("a place that is nowhere", place_is_nowhere);
	a_lost_one("a place of garbage", place_is_garbage);
	a_lost_one("a place with other registers", place_has_other_registers);
	one_that_is_ended("who unmaps the page ends", page_is_gone);
	one_that_is_ended("who unmaps all around it ends", much_is_gone);
	one_that_is_ended("who puts something in its place ends", page_is_another);
	one_that_is_ended("who calls the page itself ends", calls_into_the_page);
	one_without_data();
	one_with_many_threads();
	return failures != 0;
}
