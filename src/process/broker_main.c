/*
 * The broker's main: starts the processes of a machine, gives up its rights, serves them, and says
 * how it ended.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker.h"
#include "ipc/block.h"
#include "ipc/early.h"
#include "ipc/forker.h"
#include "ipc/group.h"
#include "ipc/lockdown.h"
#include "ipc/net_card.h"
#include "ipc/share_port.h"
#include "keeper.h"
#include "layer.h"
#include "lib/write_all.h"
#include "mains.h"
#include "outcome.h"
#include "pager_left.h"
#include "plan.h"
#include "port_make.h"
#include "report.h"
#include "sanitized.h"
#include "share/hub_line.h"

/* What the other processes are started with. */
struct start {
	const struct plan *plan;
	struct grants grants;
	/* of each network card who serves it has these ends, and the machine process the others */
	int card_bell[NET_CARDS], card_answer[NET_CARDS];
	int line[SHARE_PORTS]; /* of each port that is joined, who joins it */
	/* of a broker that was begun early: these were, too; line -1: they were not */
	struct early machine, pager;
	int pager_line, pager_side, pager_ending[2]; /* the pager's, until it has them */
};

static int fd_if(grant_set grants, enum grant grant)
{
	return grants & GRANT(grant) ? grant_fd(grant) : -1;
}

/*
 * What this process was given, for those that it starts. The other numbers are taken as well: what
 * is opened later may not lie where a descriptor is put by its number (GRANT_MACHINE).
 */
static int grants_take(grant_set here, struct grants *ret)
{
	grants_clear(ret);
	for (unsigned n = 0; n < GRANTS; n++) {
		ret->fd[n] = fd_if(here, (enum grant)n);
		if (ret->fd[n] < 0 &&
		    dup3(grant_fd(GRANT_PROGRAM), grant_fd((enum grant)n), O_CLOEXEC) < 0)
			return -errno;
	}
	return 0;
}

static int broker_options_of(const struct plan *plan, grant_set here, struct broker_options *ret)
{
	*ret = (struct broker_options){
		.console = plan->console,
		.console_fd = fd_if(here, GRANT_CONSOLE),
		.console_limit_bytes = CONSOLE_FILE_BYTES,
		.input_fd = STDIN_FILENO,
		.control_fd = fd_if(here, GRANT_CONTROL),
		.description = plan->description,
		.forks = plan->machine.forks,
		.has_disks = plan->disks.count,
		.disk_places = disk_places(&plan->disks),
		.cards = plan->nets.count,
		.ports = plan_ports(plan),
		.door_comes = plan->adopts && plan->machine.guest_forks,
		.adopts = plan->adopts,
		.rings_fd = fd_if(here, GRANT_RINGS),
		.event_from_fd = fd_if(here, GRANT_TO_BROKER),
		.event_to_fd = fd_if(here, GRANT_TO_MACHINE),
	};
	return plan->console == CONSOLE_FILE && ret->console_fd < 0 ? -EBADF : 0;
}

/*
 * The memory and the events of the disks' slots; a machine with a bus has them, also without a
 * disk.
 */
static int slots_make(struct grants *grants)
{
	grants->fd[GRANT_SLOTS] = spawn_share("umbra-slots", sizeof(struct block_memory));
	grants->fd[GRANT_DOORBELL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	grants->fd[GRANT_ANSWER] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (grants->fd[GRANT_SLOTS] < 0)
		return grants->fd[GRANT_SLOTS];
	return grants->fd[GRANT_DOORBELL] < 0 || grants->fd[GRANT_ANSWER] < 0 ? -errno : 0;
}

/* Two pipes whose ends are of different processes: none makes another wait (slot_queue.h, 5). */
static int card_make_pipes(struct start *start, unsigned card)
{
	int bell[2];
	int answer[2];

	assert(card < NET_CARDS);
	if (pipe2(bell, O_CLOEXEC | O_NONBLOCK) || pipe2(answer, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	start->card_bell[card] = bell[0];
	start->grants.fd[GRANT_CARD_BELLS + card] = bell[1];
	start->grants.fd[GRANT_CARD_ANSWERS + card] = answer[0];
	start->card_answer[card] = answer[1];
	return 0;
}

/* Of each network card: memory, which says its address, and its pipes. */
static int cards_make(struct start *start)
{
	const off_t mac_at = offsetof(struct net_card_memory, mac);
	const struct net_plan *nets = &start->plan->nets;
	int error = 0;

	for (unsigned n = 0; n < nets->count && !error; n++) {
		int memory = spawn_share("umbra-card", sizeof(struct net_card_memory));

		if (memory < 0)
			return memory;
		start->grants.fd[GRANT_CARDS + n] = memory;
		error = write_all_at(memory, nets->card[n].mac, NET_MAC_BYTES, mac_at);
		if (!error)
			error = card_make_pipes(start, n);
	}
	return error;
}

/* Of each port; nobody is at those that are not joined. line: for who joins it. */
static int ports_make(struct start *start)
{
	const struct plan *plan = start->plan;
	int error = 0;

	for (unsigned n = 0; n < plan_ports(plan) && !error; n++) {
		const bool is_joined = n < plan->shares.count;
		struct port_parts parts;

		error = port_make(is_joined ? plan->machine.port[n] : SHARE_PORT_NONE, &parts);
		if (error)
			return error;
		start->grants.fd[GRANT_PORTS + n] = parts.memory;
		start->grants.fd[GRANT_PORT_BELLS + n] = parts.bell;
		start->grants.fd[GRANT_PORT_ANSWERS + n] = parts.answer;
		start->grants.fd[GRANT_WINDOW_LINES + n] = parts.machine_line;
		start->line[n] = parts.joiner_line;
		if (!is_joined)
			close(parts.joiner_line);
	}
	return error;
}

/* Closes what the broker itself has no use for. */
static void grants_leave(const struct grants *grants)
{
	const grant_set forker =
		GRANT(GRANT_FORK_ASK) | GRANT(GRANT_FORK_KIT) | GRANT(GRANT_LAYERS);
	const grant_set kept =
		GRANT(GRANT_MACHINE) | forker | GRANT(GRANT_CONSOLE) | GRANT(GRANT_CONTROL);

	for (unsigned n = 0; n < GRANTS; n++) {
		/* the machine lies where it was put, and is no grant */
		if (!(kept & GRANT(n)) || (n != GRANT_MACHINE && grants->fd[n] < 0))
			close(grant_fd((enum grant)n));
		if (grants->fd[n] > grant_fd(GRANTS))
			close(grants->fd[n]);
	}
}

/* One that was begun early is in no group yet: what it has of memory is counted elsewhere. */
static int role_go_on(enum role role, const struct grants *grants, int group, struct early *early,
		      struct spawned *ret)
{
	int error = group >= 0 ? group_take_in(group, early->process.pid) : 0;

	*ret = early->process;
	return error ? error : early_give(early, role, grants);
}

/* early: NULL, or who may have been begun. */
static int role_start(enum role role, const struct plan *plan, struct grants *grants, int group,
		      struct early *early, struct spawned *ret)
{
	int error;

	grants->fd[GRANT_PLAN] = plan_seal(plan, role);
	if (grants->fd[GRANT_PLAN] < 0)
		return grants->fd[GRANT_PLAN];
	error = early && early->line >= 0 ? role_go_on(role, grants, group, early, ret)
					  : spawn_role(role, grants, group, ret);
	close(grants->fd[GRANT_PLAN]);
	return error;
}

/* 0 once it can serve; -ECHILD: it has ended, as *end says. */
static int helper_start_by(struct broker *broker, enum role role, const struct start *start,
			   struct broker_end *end, bool (*take)(int ready_fd, void *context),
			   int ready[2], void *context)
{
	struct grants grants = start->grants;
	struct spawned helper;
	int ending[2];
	int error;

	if (pipe2(ending, O_CLOEXEC))
		return -errno;
	grants.fd[GRANT_READY] = ready[1];
	grants.fd[GRANT_END] = ending[0];
	error = role_start(role, start->plan, &grants, -1, NULL, &helper);
	close(ready[1]);
	close(ending[0]);
	if (error)
		return error;
	error = broker_add_helper(broker, role, &helper, ending[1]);
	close(helper.pidfd);
	if (!error && !broker_wait_helper(broker, ready[0], take, context, end)) {
		/* one that waits for the end of a pipe */
		grants_leave(&start->grants);
		broker_end_helpers(broker, end);
		if (end->outcome == BROKER_STOPPED)
			end->helper_status = 0;
		error = -ECHILD;
	}
	close(ready[0]);
	return error;
}

static bool take_byte(int ready_fd, void *context)
{
	char byte;

	(void)context;
	return read(ready_fd, &byte, 1) == 1;
}

static int helper_start(struct broker *broker, enum role role, const struct start *start,
			struct broker_end *end)
{
	int ready[2];

	if (pipe2(ready, O_CLOEXEC))
		return -errno;
	return helper_start_by(broker, role, start, end, take_byte, ready, NULL);
}

/* Before the disk process, which asks it: it ends by itself when that has. */
static int keeper_start(struct broker *broker, struct start *start, struct broker_end *end)
{
	struct grants *grants = &start->grants;
	int ask[2];
	int told[2];

	if (!keeper_is_needed(&start->plan->disks))
		return 0;
	grants->fd[GRANT_SIDE] = spawn_share("umbra-side", sizeof(struct keeper_memory));
	if (grants->fd[GRANT_SIDE] < 0)
		return grants->fd[GRANT_SIDE];
	if (pipe2(ask, O_CLOEXEC) || pipe2(told, O_CLOEXEC))
		return -errno;
	grants->fd[GRANT_ASK_IN] = ask[0];
	grants->fd[GRANT_ASK_OUT] = ask[1];
	grants->fd[GRANT_TOLD_IN] = told[0];
	grants->fd[GRANT_TOLD_OUT] = told[1];
	return helper_start(broker, ROLE_KEEPER, start, end);
}

/* This process's end of the socket for layers lies at the same number as the other one there. */
static int disk_start(struct broker *broker, struct start *start, struct broker_end *end)
{
	int layers[2];
	int error = start->plan->disks.count ? layer_make_socket(layers) : 0;

	if (error || !start->plan->disks.count)
		return error;
	start->grants.fd[GRANT_LAYERS] = layers[1];
	error = dup3(layers[0], grant_fd(GRANT_LAYERS), O_CLOEXEC) < 0 ? -errno : 0;
	close(layers[0]);
	return error ? error : helper_start(broker, ROLE_DISK, start, end);
}

/* Of each card somebody who starts what serves it, and starts it again. */
static int supervisors_start(struct broker *broker, const struct start *start,
			     struct broker_end *end)
{
	struct plan *plan = start->plan->nets.count ? plan_new() : NULL;
	struct start one = { .plan = plan };
	int error = plan || !start->plan->nets.count ? 0 : -ENOMEM;

	if (plan) {
		*plan = *start->plan;
		memset(&plan->relay, 0, sizeof(plan->relay));
	}
	for (unsigned n = 0; n < start->plan->nets.count && !error; n++) {
		plan->nets.mine = n;
		one.grants = start->grants;
		one.grants.fd[GRANT_CARD] = start->grants.fd[GRANT_CARDS + n];
		one.grants.fd[GRANT_CARD_BELL] = start->card_bell[n];
		one.grants.fd[GRANT_CARD_ANSWER] = start->card_answer[n];
		one.grants.fd[GRANT_TAP] = start->grants.fd[GRANT_CARD_TAPS + n];
		/* a relay's */
		one.grants.fd[GRANT_ANSWER] = one.grants.fd[GRANT_LISTENER] = -1;
		one.grants.fd[GRANT_CONNECTIONS] = one.grants.fd[GRANT_CONNECTION_BELL] = -1;
		error = helper_start(broker, ROLE_SUPERVISOR, &one, end);
		close(start->card_bell[n]);
		close(start->card_answer[n]);
	}
	free(plan);
	return error;
}

static int connections_make(struct grants *grants)
{
	grants->fd[GRANT_CONNECTIONS] =
		spawn_share("umbra-connections", sizeof(struct connection_memory));
	grants->fd[GRANT_CONNECTION_BELL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (grants->fd[GRANT_CONNECTIONS] < 0)
		return grants->fd[GRANT_CONNECTIONS];
	return grants->fd[GRANT_CONNECTION_BELL] < 0 ? -errno : 0;
}

/*
 * Whether programs of the host can connect to the guest's: somebody who starts who serves them, and
 * starts it again.
 */
static int relay_start(struct broker *broker, struct start *start, struct broker_end *end)
{
	int error = 0;

	if (!start->plan->relay.name[0])
		return 0;
	if (!start->plan->adopts)
		error = connections_make(&start->grants);
	return error ? error : helper_start(broker, ROLE_SUPERVISOR, start, end);
}

/* Of each port somebody who joins it to the hub, and joins it again. */
static int joiners_start(struct broker *broker, struct start *start, struct broker_end *end)
{
	struct plan *plan = start->plan->shares.count ? plan_new() : NULL;
	struct start one = { .plan = plan };
	int error = plan || !start->plan->shares.count ? 0 : -ENOMEM;

	if (plan)
		*plan = *start->plan;
	for (unsigned n = 0; n < start->plan->shares.count && !error; n++) {
		plan->shares.mine = n;
		one.grants = start->grants;
		one.grants.fd[GRANT_PORT] = start->grants.fd[GRANT_PORTS + n];
		one.grants.fd[GRANT_PORT_BELL] = start->grants.fd[GRANT_PORT_BELLS + n];
		one.grants.fd[GRANT_PORT_ANSWER] = start->grants.fd[GRANT_PORT_ANSWERS + n];
		one.grants.fd[GRANT_WINDOW_LINE] = start->line[n];
		error = helper_start(broker, ROLE_JOINER, &one, end);
		close(start->line[n]);
	}
	free(plan);
	return error;
}

/* Who asked for the fork has made them, with the other ends of the lines for who joins them. */
static int ports_take(struct start *start)
{
	for (unsigned n = 0; n < start->plan->shares.count; n++) {
		start->line[n] = fcntl(start->grants.fd[GRANT_WINDOW_LINES + n], F_DUPFD_CLOEXEC,
				       grant_fd(GRANTS));
		if (start->line[n] < 0)
			return -errno;
	}
	return 0;
}

/*
 * What a machine process uses at most, with what the kernel has for it: page tables, what it shares
 * with others, what it begins with.
 */
static uint64_t machine_most_bytes(const struct plan *plan)
{
	enum { PAGE_TABLES_SHARE = 256, REST_BYTES = 96 << 20, BYTES_PER_VCPU = 1 << 20 };
	const struct machine_plan *machine = &plan->machine;
	const struct machine_options options = { .memory_bytes = machine->memory_bytes,
						 .overhead_bytes = machine->overhead_bytes,
						 .cpus = machine->cpus };

	return machine_ceiling_bytes(&options) + machine->memory_bytes / PAGE_TABLES_SHARE +
	       REST_BYTES + sizeof(struct block_memory) +
	       plan_ports(plan) * sizeof(struct share_memory) +
	       plan->nets.count * sizeof(struct net_card_memory) +
	       sizeof(struct connection_memory) +
	       machine->cpus * (uint64_t)BYTES_PER_VCPU;
}

/* -1: the host has delegated none. */
static int machine_group(const struct plan *plan)
{
	struct group_place place;

	/* shadow memory is far beyond any limit */
	if (SANITIZED || group_place_find(&place))
		return -1;
	return group_make(&place, machine_most_bytes(plan));
}

/* The sockets of its forker: this process's ends lie at the same numbers as the others there. */
static int forker_sockets(struct grants *grants)
{
	int ask[2];
	int kit[2];
	int error = forker_make_sockets(ask, kit);

	if (error)
		return error;
	grants->fd[GRANT_FORK_ASK] = ask[1];
	grants->fd[GRANT_FORK_KIT] = kit[1];
	return dup3(ask[0], grant_fd(GRANT_FORK_ASK), O_CLOEXEC) < 0 ||
			       dup3(kit[0], grant_fd(GRANT_FORK_KIT), O_CLOEXEC) < 0
		       ? -errno
		       : 0;
}

/* Of a machine that goes on from a file: the ends of who brings its pages. */
static int pager_make(struct broker *broker, struct start *start)
{
	int line[2];

	if (!start->plan->restores)
		return 0;
	if (pipe2(start->pager_ending, O_CLOEXEC) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line))
		return -errno;
	start->pager_line = line[0];
	start->grants.fd[GRANT_PAGER] = line[1];
	start->pager_side = spawn_share("umbra-left", PAGER_LEFT_MEMORY_BYTES);
	return start->pager_side < 0 ? start->pager_side
				     : broker_watch_pager(broker, start->pager_side);
}

/*
 * Nobody waits for it: it has given up its rights before it does anything, and the machine process,
 * which has more to do until then and so begins before it, waits for its word.
 */
static int pager_start(struct broker *broker, struct start *start)
{
	struct grants grants = start->grants;
	struct spawned pager;
	int error;

	if (!start->plan->restores)
		return 0;
	grants.fd[GRANT_END] = start->pager_ending[0];
	grants.fd[GRANT_PAGER] = start->pager_line; /* GRANT_PAGES is the user's, if there is one */
	grants.fd[GRANT_SIDE] = start->pager_side;
	error = role_start(ROLE_PAGER, start->plan, &grants, -1, &start->pager, &pager);
	close(start->pager_side);
	close(start->pager_ending[0]);
	close(start->pager_line);
	if (error)
		return error;
	error = broker_add_helper(broker, ROLE_PAGER, &pager, start->pager_ending[1]);
	close(pager.pidfd);
	return error;
}

static int machine_start(struct broker *broker, struct start *start)
{
	struct grants grants;
	struct spawned machine;
	int error = start->plan->machine.forks ? forker_sockets(&start->grants) : 0;
	int group;

	if (error)
		return error;
	grants = start->grants;
	group = machine_group(start->plan);
	broker_give(broker, &grants);
	error = role_start(ROLE_MACHINE, start->plan, &grants, group, &start->machine, &machine);
	if (group >= 0)
		close(group);
	return error ? error : broker_set_machine(broker, &machine);
}

/* After the other processes are there, which have no use for more descriptors. */
static int broker_lock_down(void)
{
	int error;

	spawn_raise_descriptors(FORK_FDS);
	error = lockdown_before_threads(ROLE_BROKER, NULL);

	return error ? error : lockdown(ROLE_BROKER);
}

/* As grants_leave(): all of it lies where it was given. */
static void grants_leave_adopted(const struct grants *grants)
{
	const grant_set kept = GRANT(GRANT_MACHINE) | GRANT(GRANT_FORK_ASK) |
			       GRANT(GRANT_FORK_KIT) | GRANT(GRANT_CONSOLE) | GRANT(GRANT_CONTROL) |
			       GRANT(GRANT_TO_BROKER) | GRANT(GRANT_TO_MACHINE) |
			       GRANT(GRANT_LAYERS) | GRANT(GRANT_ROOM) | GRANT(GRANT_ROOM_LINE);

	for (unsigned n = 0; n < GRANTS; n++) {
		/* where the plan was something else lies by now */
		if (n == GRANT_PLAN && grants->fd[n] >= 0)
			continue;
		if (!(kept & GRANT(n)) || grants->fd[n] < 0)
			close(grant_fd((enum grant)n));
		if (grants->fd[n] > grant_fd(GRANTS))
			close(grants->fd[n]);
	}
}

/* Who asked for the fork has made them, with these ends for who serves them. */
static int cards_take(struct start *start)
{
	const int *bell = &start->grants.fd[GRANT_CARD_BELLS];
	const int *answer = &start->grants.fd[GRANT_CARD_ANSWERS];

	for (unsigned n = 0; n < start->plan->nets.count; n++) {
		start->card_bell[n] = fcntl(bell[n], F_DUPFD_CLOEXEC, grant_fd(GRANTS));
		start->card_answer[n] = fcntl(answer[n], F_DUPFD_CLOEXEC, grant_fd(GRANTS));
		if (start->card_bell[n] < 0 || start->card_answer[n] < 0)
			return -errno;
	}
	return 0;
}

/*
 * Until now it is in the group of the machine that it was forked of; what it shares with that is
 * counted there. 0 or -errno: where there is a group it is not to run without its limit.
 */
static int group_of_forked(const struct plan *plan)
{
	const int group = machine_group(plan);
	int error;

	if (group < 0)
		return 0;
	error = group_take_in(group, plan->machine_pid);
	close(group);
	return error;
}

/* What serves it was not forked with it. */
static int adopt(struct broker *broker, struct start *start, struct broker_end *end)
{
	int error;

	broker_adopt_machine(broker, start->plan->machine_pid);
	error = group_of_forked(start->plan);
	if (!error)
		error = keeper_start(broker, start, end);
	if (!error)
		error = disk_start(broker, start, end);
	if (!error)
		error = cards_take(start);
	if (!error)
		error = supervisors_start(broker, start, end);
	if (!error)
		error = relay_start(broker, start, end);
	if (!error)
		error = ports_take(start);
	if (!error)
		error = joiners_start(broker, start, end);
	grants_leave_adopted(&start->grants);
	if (!error)
		broker_open_occupied(broker);
	return error ? error : broker_lock_down();
}

/* The machine runs without one, too. */
static void open_perf_map(struct broker *broker)
{
	const int error = broker_open_perf_map(broker);

	if (error)
		complain(0, strerror(-error), "the perf map in /tmp",
			 "the machine goes on without it");
}

/* Everything that needs rights; 0, -errno, or -ECHILD with *end. */
static int processes_start(struct broker *broker, struct start *start, struct broker_end *end)
{
	int error;

	if (start->plan->adopts)
		return adopt(broker, start, end);
	error = start->plan->machine.has_bus ? slots_make(&start->grants) : 0;
	if (!error)
		error = keeper_start(broker, start, end);
	if (!error)
		error = disk_start(broker, start, end);
	if (!error)
		error = cards_make(start);
	if (!error)
		error = supervisors_start(broker, start, end);
	if (!error)
		error = relay_start(broker, start, end);
	if (!error)
		error = ports_make(start);
	if (!error)
		error = joiners_start(broker, start, end);
	if (!error)
		error = pager_make(broker, start);
	if (!error)
		error = machine_start(broker, start);
	if (!error)
		error = pager_start(broker, start);
	grants_leave(&start->grants);
	if (error)
		return error;
	broker_open_occupied(broker);
	if (start->plan->machine.perf_map)
		open_perf_map(broker);
	return broker_lock_down();
}

/* Of a broker that is begun early: who it will need in any case, before it waits. 0 or -errno. */
static int begin_early(struct start *start)
{
	struct grants grants;
	int error;

	if (!role_was_given(GRANT_EARLY))
		return 0;
	grants_of_process(&grants);
	error = early_begin(ROLE_PAGER, &grants, &start->pager);
	if (!error)
		error = early_begin(ROLE_MACHINE, &grants, &start->machine);
	return error ? error : early_take();
}

/*
 * Of a broker whose umbra run has begun them (cli/run.c), while nothing else is open. Who cannot be
 * taken is begun anew. What is left of its grants.
 */
static grant_set adopt_early(grant_set here, struct start *start)
{
	const grant_set lines = GRANT(GRANT_EARLY_MACHINE) | GRANT(GRANT_EARLY_PAGER);

	if (here & GRANT(GRANT_EARLY_MACHINE))
		early_adopt(GRANT_EARLY_MACHINE, start->plan->early_machine, &start->machine);
	if (here & GRANT(GRANT_EARLY_PAGER))
		early_adopt(GRANT_EARLY_PAGER, start->plan->early_pager, &start->pager);
	return here & ~lines;
}

static int broker_run(struct start *start, grant_set here)
{
	static struct broker_end end;
	struct broker_options options;
	struct broker *broker;
	int error;

	if (!start->plan || broker_options_of(start->plan, here, &options))
		return complain(EXIT_USAGE, "it has no plan", "the broker",
				"use umbra run: it starts the processes of a machine");
	here = adopt_early(here, start);
	error = grants_take(here, &start->grants);
	if (!error)
		error = broker_create(&options, &broker);
	if (!error) {
		start->grants.errors = broker_errors_fd(broker);
		error = processes_start(broker, start, &end);
		close(start->grants.errors);
	}
	/* a number that is beyond the limit is EBADF where something is put at it */
	if (error == -EMFILE || error == -EBADF)
		return complain(EXIT_UNUSABLE, strerror(EMFILE), "starting the machine process",
				"permit more, ulimit -n 1024");
	if (error && error != -ECHILD)
		return complain(EXIT_FAULT, strerror(-error), "starting the machine process",
				"see umbra doctor");
	if (!error)
		broker_serve(broker, &end);
	broker_destroy(broker);
	return outcome_report(&end, start->plan);
}

int broker_main(void)
{
	struct start start = { .machine.line = -1, .pager.line = -1 };
	grant_set here;

	if (begin_early(&start)) /* who began it hears of that */
		return EXIT_FAULT;
	here = role_grants_here();
	start.plan = plan_of_process();
	return broker_run(&start, here);
}

int broker_main_here(const struct plan *plan)
{
	struct start start = { .plan = plan, .machine.line = -1, .pager.line = -1 };

	assert(plan_is_sound(plan));
	return broker_run(&start, role_grants_here());
}
