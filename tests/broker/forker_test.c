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

enum { WAIT_MS = 3000, PAGE = 4096 };

static int failures;

/* Of the page's data: what a lost machine process would look for. */
extern struct fork_place *forker_place;
long forker_clone(const struct sock_fprog *calls);

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !good;
}

/* ---- the machine process ---- */

static struct fork_place place;

static void go_on_forked(void)
{
	long clone;

	forker_keep(GRANT(GRANT_READY));
	if (write(grant_fd(GRANT_READY), "r", 1) != 1)
		_exit(1);
	clone = syscall(SYS_clone, FORKER_FORK_FLAGS, NULL, NULL, NULL, 0);
	_exit(clone < 0 ? 2 : 3); /* it does not come to that */
}

static void machine(void (*lost)(void))
{
	const uint64_t one = 1;
	struct sock_fprog calls;

	if (lockdown_before_threads(ROLE_MACHINE, NULL) || lockdown_compile(ROLE_FORKER, &calls))
		_exit(99);
	forker_set_place(&place);
	if (forker_start(&calls) || lockdown(ROLE_MACHINE))
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
static void place_is_garbage(void) { memset(&place, 0x41, sizeof(place)); }
static void place_has_other_registers(void) { place.rsp = place.rip = PAGE; }
static void page_is_gone(void)
{
	munmap((void *)((uintptr_t)forker_clone & ~(uintptr_t)(PAGE - 1)), PAGE);
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

static pid_t hear(void)
{
	struct pollfd fd = { .fd = FORKER_KIT_FD, .events = POLLIN };

	return poll(&fd, 1, WAIT_MS) == 1 ? forker_hear() : -ETIMEDOUT;
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
	forker_ask(fd);
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

static void a_sound_one(void)
{
	pid_t child = start(sound);
	pid_t forker = hear();
	int next_ask[2];
	int next_kit[2];
	pid_t forked;
	char byte;

	ask(next_ask, next_kit);
	forked = hear();
	expect("the forker says who it is", forker > 0 && forker != child);
	expect("and what it has forked who that is", forked > 0 && forked != forker);
	expect("which goes on at its place with its kit", read(ready[0], &byte, 1) == 1);
	expect("and cannot make a process", ends_by(forked) == SIGSYS);
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
	pid_t forker = hear();
	pid_t forked;
	char byte;

	ask(next_ask, next_kit);
	forked = hear();
	/* the forker itself: it could not */
	expect(what, forker > 0 && (forked < 0 || forked == forker || ends_by(forked)));
	fcntl(ready[0], F_SETFL, O_NONBLOCK);
	expect("and it never got as far as to say so", read(ready[0], &byte, 1) != 1);
	close(next_ask[0]);
	close(next_kit[0]);
	end_all(child);
}

int main(void)
{
	pid_t child;

	/* what is forked is whose child this is, also when its parent has ended */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	a_sound_one();
	a_lost_one("a place that is nowhere", place_is_nowhere);
	a_lost_one("a place of garbage", place_is_garbage);
	a_lost_one("a place with other registers", place_has_other_registers);
	a_lost_one("no page", page_is_gone);
	child = start(calls_into_the_page);
	expect("the machine process calls the page itself, and ends", ends_by(child) == SIGSYS);
	end_all(child);
	return failures != 0;
}
