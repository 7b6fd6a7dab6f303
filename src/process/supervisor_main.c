/*
 * The supervisor's main: starts the net process of one network card, or the relay of a machine, and
 * another one when that has ended while the machine goes on. It keeps what these need to begin: a
 * list of calls, the program and its libraries; so of what a guest or they can write it maps one
 * word, which it counts up, and reads nothing else.
 *
 *   - Each of them has a number, `generation` (ipc/net_card.h, connection_slots.h): it is another
 *     one from the moment at which its predecessor is seen to be gone, so that the link is down,
 *     and connections are at their end, at once.
 *   - One that ends again soon is started again later, and later each time.
 *   - One that does not end when the machine is gone is killed.
 *   - When the supervisor ends, another one goes on (standby.h): what served ends with it. So does
 *     one that has waited for a switch that does not answer, and saw nothing of the machine's end.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/connection_slots.h"
#include "ipc/lockdown.h"
#include "ipc/net_card.h"
#include "ipc/spawn.h"
#include "mains.h"
#include "meeting.h"
#include "net/switch/switch.h"
#include "net/user/slirp.h"
#include "plan.h"
#include "report.h"
#include "sanitized.h"
#include "standby.h"

enum {
	FIRST_DELAY_MS = 20,
	MOST_DELAY_MS = 5000,
	LONG_LIFE_S = 10,
	END_MS = 1000,
	STARTING_MOST_S = 30
};

struct supervisor {
	const struct plan *plan;
	struct grants grants; /* as it was given them: numbers of others are used again */
	enum role role;       /* of who is started */
	int answer_fd;
	uint32_t *generation;
	int delay_ms;
	struct standby standby;
};

/* Whatever number stands there, the next one is another. */
static void tell_machine(const struct supervisor *supervisor)
{
	ssize_t written;

	__atomic_fetch_add(supervisor->generation, 1, __ATOMIC_ACQ_REL);
	written = write(supervisor->answer_fd, &(uint64_t){ 1 }, 8);
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

/* ---- who serves ---- */

static int start_line(const struct supervisor *supervisor, struct grants *grants,
		      struct spawned *ret)
{
	const struct net_choice *choice = &supervisor->plan->nets.card[supervisor->plan->nets.mine];
	int error;

	if (choice->kind != NET_SWITCH)
		return spawn_role(ROLE_LINE, grants, -1, ret);
	grants->fd[GRANT_TAP] = join_switch(supervisor, choice);
	if (grants->fd[GRANT_TAP] < 0)
		return grants->fd[GRANT_TAP];
	error = spawn_role(ROLE_LINE, grants, -1, ret);
	close(grants->fd[GRANT_TAP]);
	return error;
}

static int start(const struct supervisor *supervisor, struct spawned *ret)
{
	struct grants grants = supervisor->grants;
	int error;

	grants.fd[GRANT_PLAN] = plan_seal(supervisor->plan, supervisor->role);
	if (grants.fd[GRANT_PLAN] < 0)
		return grants.fd[GRANT_PLAN];
	alarm(STARTING_MOST_S);
	error = supervisor->role == ROLE_LINE ? start_line(supervisor, &grants, ret)
					      : spawn_role(supervisor->role, &grants, -1, ret);
	close(grants.fd[GRANT_PLAN]);
	alarm(0);
	return error;
}

/* True: the machine is gone. */
static bool wait_ms(struct supervisor *supervisor, int pidfd, int timeout_ms)
{
	for (;;) {
		struct pollfd polls[] = { { .fd = grant_fd(GRANT_END), .events = POLLIN },
					  { .fd = pidfd, .events = POLLIN },
					  { .fd = supervisor->standby.pidfd, .events = POLLIN } };
		const int count = poll(polls, 3, timeout_ms);

		if (count < 0)
			continue;
		if (!count || polls[0].revents || polls[1].revents)
			return polls[0].revents;
		standby_keep(&supervisor->standby);
	}
}

/* What is asked to end by the same pipe as this process. */
static void end_by_force(const struct spawned *server)
{
	struct pollfd polls = { .fd = server->pidfd, .events = POLLIN };

	if (poll(&polls, 1, END_MS) != 1)
		syscall(SYS_pidfd_send_signal, server->pidfd, SIGKILL, NULL, 0);
}

/* How it ended; *ret_machine_gone: in order, because of that. */
static int wait_for_end(struct supervisor *supervisor, const struct spawned *server,
			bool *ret_machine_gone)
{
	int status = 0;

	*ret_machine_gone = wait_ms(supervisor, server->pidfd, -1);
	if (*ret_machine_gone)
		end_by_force(server);
	while (waitpid(server->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(server->pidfd);
	return status;
}

static void choose_delay(struct supervisor *supervisor, time_t lived_s)
{
	if (lived_s >= LONG_LIFE_S)
		supervisor->delay_ms = FIRST_DELAY_MS;
	else if (supervisor->delay_ms < MOST_DELAY_MS)
		supervisor->delay_ms *= 2;
	assert(supervisor->delay_ms >= FIRST_DELAY_MS &&
	       supervisor->delay_ms < 2 * MOST_DELAY_MS);
}

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* It has told that it serves. */
static void forget_ready(struct supervisor *supervisor)
{
	if (supervisor->grants.fd[GRANT_READY] < 0)
		return;
	close(grant_fd(GRANT_READY));
	supervisor->grants.fd[GRANT_READY] = -1;
}

/* One after the other. The exit code: the first one's, where it could not begin. */
static int supervise(struct supervisor *supervisor)
{
	bool is_first = supervisor->grants.fd[GRANT_READY] >= 0;

	tell_machine(supervisor);
	for (;; is_first = false) {
		const time_t begun_s = now_s();
		bool machine_is_gone = false;
		struct spawned server;
		int error = start(supervisor, &server);
		int status = 0;

		forget_ready(supervisor);
		if (error && is_first)
			return complain(EXIT_FAULT, strerror(-error), "starting who serves it",
					"see umbra doctor");
		standby_keep(&supervisor->standby);
		if (!error)
			status = wait_for_end(supervisor, &server, &machine_is_gone);
		if (is_first && WIFEXITED(status) && WEXITSTATUS(status) &&
		    WEXITSTATUS(status) != EXIT_FAULT)
			return WEXITSTATUS(status);
		if (machine_is_gone)
			return 0;
		tell_machine(supervisor);
		choose_delay(supervisor, now_s() - begun_s);
		if (wait_ms(supervisor, -1, supervisor->delay_ms))
			return 0;
	}
}

/* The word that counts who serves; MAP_FAILED. */
static void *map_generation(const struct supervisor *supervisor)
{
	const bool is_relay = supervisor->role == ROLE_RELAY;
	uint8_t *memory = mmap(NULL, SLOT_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			       grant_fd(is_relay ? GRANT_CONNECTIONS : GRANT_CARD), 0);

	if (memory == MAP_FAILED)
		return memory;
	return memory + (is_relay ? offsetof(struct connection_memory, generation)
				  : offsetof(struct net_card_memory, generation));
}

static enum role choose_role(const struct supervisor *supervisor)
{
	const struct net_plan *nets = &supervisor->plan->nets;

	if (supervisor->grants.fd[GRANT_CONNECTIONS] >= 0)
		return ROLE_RELAY;
	return nets->card[nets->mine].kind == NET_USER ? ROLE_NET : ROLE_LINE;
}

/* A sanitizer's memory is written and executed, and wants calls that nobody else does. */
static int give_up_rights(const struct supervisor *supervisor)
{
	const struct net_choice *choice = &supervisor->plan->nets.card[supervisor->plan->nets.mine];
	const bool meets = supervisor->role == ROLE_LINE && choice->kind == NET_SWITCH;
	struct lockdown_file place = { .fd = -1, .access = LOCKDOWN_MEET };
	int error;

	if (SANITIZED)
		return 0;
	/* who is started opens the libraries that this process has, and no others */
	if (supervisor->role == ROLE_NET && !slirp_load())
		return -ELIBACC;
	if (meets)
		place.fd = meeting_folder(choice->path);
	error = lockdown_to_start(ROLE_SUPERVISOR, supervisor->role, meets, &place,
				  place.fd >= 0);
	if (place.fd >= 0)
		close(place.fd);
	return error;
}

int supervisor_main(void)
{
	struct supervisor supervisor = { .delay_ms = FIRST_DELAY_MS };
	int error;

	grants_of_process(&supervisor.grants);
	supervisor.plan = plan_of_process();
	supervisor.generation = MAP_FAILED;
	if (supervisor.plan) {
		supervisor.role = choose_role(&supervisor);
		supervisor.generation = map_generation(&supervisor);
	}
	if (supervisor.generation == MAP_FAILED)
		return complain(EXIT_USAGE, "it has no plan", "the supervisor",
				"use umbra run: it starts the processes of a machine");
	error = give_up_rights(&supervisor);
	if (role_was_given(GRANT_ROOT))
		supervisor.grants.fd[GRANT_ROOT] = grant_fd(GRANT_ROOT);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "the supervisor", "see umbra doctor");
	supervisor.answer_fd =
		grant_fd(supervisor.role == ROLE_RELAY ? GRANT_ANSWER : GRANT_CARD_ANSWER);
	supervisor.standby = (struct standby){ .role = ROLE_SUPERVISOR,
					       .plan = supervisor.plan,
					       .grants = &supervisor.grants,
					       .pidfd = -1 };
	return supervise(&supervisor);
}
