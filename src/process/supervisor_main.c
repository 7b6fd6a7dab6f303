/*
 * The supervisor's main: starts the net process of one network card, and another one when that has
 * ended while the machine goes on. It keeps the user's rights, which a net process needs to begin;
 * so it maps nothing that a guest or a net process can write, but for one word that it only writes,
 * and reads nothing.
 *
 *  1. Each net process has a number, `generation` (ipc/net_card.h): it is another one from the
 *     moment at which its predecessor is seen to be gone, so that the link is down at once.
 *  2. One that ends again soon is started again later, and later each time.
 *  3. One that does not end when the machine is gone is killed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/net_card.h"
#include "ipc/spawn.h"
#include "mains.h"
#include "meeting.h"
#include "net/switch/switch.h"
#include "plan.h"
#include "report.h"

enum { FIRST_DELAY_MS = 20, MOST_DELAY_MS = 5000, LONG_LIFE_S = 10, END_MS = 1000 };

struct supervisor {
	const struct plan *plan;
	struct grants grants; /* as it was given them: numbers of others are used again */
	uint32_t *generation;
	uint32_t count;
	int delay_ms;
};

static void tell_machine(struct supervisor *supervisor)
{
	ssize_t written;

	__atomic_store_n(supervisor->generation, ++supervisor->count, __ATOMIC_RELEASE);
	written = write(grant_fd(GRANT_CARD_ANSWER), &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
}

/* A line to the switch, which is started where there is none. -errno. */
static int join_switch(const struct supervisor *supervisor, const struct net_choice *choice)
{
	int line = line_open(choice->path, choice->mac);

	if (line != -ENOENT && line != -ECONNREFUSED)
		return line;
	line = meeting_start(choice->path, ROLE_SWITCH, supervisor->grants.fd[GRANT_PROGRAM]);
	return line ? line : line_open(choice->path, choice->mac);
}

/* ---- a net process ---- */

static int start(const struct supervisor *supervisor, struct spawned *ret)
{
	const struct net_choice *choice = &supervisor->plan->nets.card[supervisor->plan->nets.mine];
	const enum role role = choice->kind == NET_USER ? ROLE_NET : ROLE_LINE;
	struct grants grants = supervisor->grants;
	int error;

	grants.fd[GRANT_PLAN] = plan_seal(supervisor->plan, role);
	if (grants.fd[GRANT_PLAN] < 0)
		return grants.fd[GRANT_PLAN];
	if (choice->kind == NET_SWITCH)
		grants.fd[GRANT_TAP] = join_switch(supervisor, choice);
	error = choice->kind == NET_SWITCH && grants.fd[GRANT_TAP] < 0
			? grants.fd[GRANT_TAP]
			: spawn_role(role, &grants, -1, ret);
	if (choice->kind == NET_SWITCH && grants.fd[GRANT_TAP] >= 0)
		close(grants.fd[GRANT_TAP]);
	close(grants.fd[GRANT_PLAN]);
	return error;
}

/* True: the machine is gone. */
static bool wait_ms(int pidfd, int timeout_ms)
{
	struct pollfd polls[] = { { .fd = grant_fd(GRANT_END), .events = POLLIN },
				  { .fd = pidfd, .events = POLLIN } };

	while (poll(polls, 2, timeout_ms) < 0 && errno == EINTR)
		;
	return polls[0].revents;
}

/* What is asked to end by the same pipe as this process. */
static void end_by_force(const struct spawned *net)
{
	struct pollfd polls = { .fd = net->pidfd, .events = POLLIN };

	if (poll(&polls, 1, END_MS) != 1)
		syscall(SYS_pidfd_send_signal, net->pidfd, SIGKILL, NULL, 0);
}

/* How it ended; *ret_machine_gone: in order, because of that. */
static int wait_for_end(const struct spawned *net, bool *ret_machine_gone)
{
	int status = 0;

	*ret_machine_gone = wait_ms(net->pidfd, -1);
	if (*ret_machine_gone)
		end_by_force(net);
	while (waitpid(net->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(net->pidfd);
	return status;
}

static void choose_delay(struct supervisor *supervisor, time_t lived_s)
{
	if (lived_s >= LONG_LIFE_S)
		supervisor->delay_ms = FIRST_DELAY_MS;
	else if (supervisor->delay_ms < MOST_DELAY_MS)
		supervisor->delay_ms *= 2;
}

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* One after the other. The exit code: the first one's, where it could not begin. */
static int supervise(struct supervisor *supervisor)
{
	bool machine_is_gone = false;

	tell_machine(supervisor);
	for (bool is_first = true; !machine_is_gone; is_first = false) {
		const time_t begun_s = now_s();
		struct spawned net;
		int error = start(supervisor, &net);
		int status = 0;

		if (is_first) {
			close(grant_fd(GRANT_READY));
			supervisor->grants.fd[GRANT_READY] = -1;
		}
		if (error && is_first)
			return complain(EXIT_FAULT, strerror(-error), "starting the net process",
					"see umbra doctor");
		if (!error)
			status = wait_for_end(&net, &machine_is_gone);
		if (is_first && WIFEXITED(status) && WEXITSTATUS(status) &&
		    WEXITSTATUS(status) != EXIT_FAULT)
			return WEXITSTATUS(status);
		if (machine_is_gone)
			break;
		tell_machine(supervisor);
		choose_delay(supervisor, now_s() - begun_s);
		machine_is_gone = wait_ms(-1, supervisor->delay_ms);
	}
	return 0;
}

static void take_grants(struct grants *ret)
{
	const uint64_t here = role_grants_here();

	grants_clear(ret);
	for (unsigned n = 0; n < GRANTS; n++)
		if (here & GRANT(n))
			ret->fd[n] = grant_fd((enum grant)n);
}

int supervisor_main(void)
{
	struct supervisor supervisor = { .delay_ms = FIRST_DELAY_MS };
	struct net_card_memory *memory = mmap(NULL, SLOT_PAGE_BYTES, PROT_READ | PROT_WRITE,
					      MAP_SHARED, grant_fd(GRANT_CARD), 0);
	const struct plan *plan;

	take_grants(&supervisor.grants);
	plan = plan_of_process();
	supervisor.plan = plan;
	if (!plan || memory == MAP_FAILED)
		return complain(EXIT_USAGE, "it has no plan", "the supervisor",
				"use umbra run: it starts the processes of a machine");
	supervisor.generation = &memory->generation;
	return supervise(&supervisor);
}
