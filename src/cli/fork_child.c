/*
 * What a child of a fork is given: a name, a console, a kit, and a broker, which is a process that
 * this one forks, and which does not begin anew (process/mains.h): it has what is loaded here, and
 * of descriptors its own alone.
 */
#include "fork_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "balance_join.h"
#include "cli.h"
#include "detach.h"
#include "ipc/block.h"
#include "ipc/connection_slots.h"
#include "ipc/spawn.h"
#include "lib/write_all.h"
#include "process/broker.h"
#include "process/mains.h"
#include "process/plan.h"

/* ---- what a child is given ---- */

static int child_name(const struct fork_command *command, unsigned n, char name[NAME_MAX_BYTES + 1])
{
	const char *base = command->child_name ? command->child_name : command->name;
	const char *fork = command->child_name ? "" : "-fork";
	char number[16] = "";
	int bytes;

	if (command->count > 1)
		snprintf(number, sizeof(number), "-%u", n + 1);
	bytes = snprintf(name, NAME_MAX_BYTES + 1, "%s%s%s", base, fork, number);
	return bytes > NAME_MAX_BYTES ? -EINVAL : 0;
}

/* Also for a machine without a bus, or without sockets, which closes them. */
static int make_slots(struct child_kit *kit)
{
	kit->fd[KIT_CONNECTIONS] =
		spawn_share("umbra-connections", sizeof(struct connection_memory));
	kit->fd[KIT_CONNECTION_BELL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	kit->fd[KIT_SLOTS] = spawn_share("umbra-slots", sizeof(struct block_memory));
	kit->fd[KIT_DOORBELL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	kit->fd[KIT_ANSWER] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (kit->fd[KIT_SLOTS] < 0 || kit->fd[KIT_CONNECTIONS] < 0)
		return -ENOMEM;
	return kit->fd[KIT_DOORBELL] < 0 || kit->fd[KIT_ANSWER] < 0 ||
			       kit->fd[KIT_CONNECTION_BELL] < 0
		       ? -errno
		       : 0;
}

/* Its code is part of its overhead: so it has at most as much, and nobody can change that. */
static int make_code_memory(const struct fork_command *command)
{
	json_int_t bytes = json_integer_value(json_object_get(command->machine, "overhead"));

	return bytes > 0 ? spawn_share("umbra-code", (size_t)bytes) : -EPROTO;
}

static void kit_begin(struct child_kit *kit)
{
	memset(kit->fd, -1, sizeof(kit->fd));
	kit->ask = kit->kit = -1;
	child_nets_begin(&kit->nets);
	child_ports_begin(&kit->ports);
}

static int make_kit(const struct fork_command *command, struct child_kit *kit)
{
	int ask[2];
	int taken[2];
	int ready[2];
	int error;

	kit_begin(kit);
	error = broker_make_rings(&kit->fd[KIT_RINGS]);
	if (!error)
		error = make_slots(kit);
	if (!error)
		error = forker_make_sockets(ask, taken);
	if (error)
		return error;
	if (pipe2(ready, O_CLOEXEC))
		return -errno;
	kit->ask = ask[0];
	kit->kit = taken[0];
	kit->fd[KIT_ASK] = ask[1];
	kit->fd[KIT_KIT] = taken[1];
	kit->fd[KIT_READY] = ready[1];
	kit->fd[KIT_READY_HERE] = ready[0];
	kit->fd[KIT_CODE] = make_code_memory(command);
	return kit->fd[KIT_CODE] < 0 ? kit->fd[KIT_CODE] : 0;
}

void fork_kit_sent(struct child_kit *kit)
{
	close(kit->fd[KIT_READY]);
	kit->fd[KIT_READY] = -1;
}

void fork_kit_close(struct child_kit *kit)
{
	for (unsigned n = 0; n < KIT_MOST_FDS; n++)
		if (kit->fd[n] >= 0)
			close(kit->fd[n]);
	if (kit->ask >= 0)
		close(kit->ask);
	if (kit->kit >= 0)
		close(kit->kit);
	child_nets_close(&kit->nets);
	child_ports_close(&kit->ports);
	kit_begin(kit);
}

/* Whoever gets it looks there before everything else. */
static int mark_rings(int rings_fd, enum forked_as as)
{
	const uint32_t word = as;

	return write_all_at(rings_fd, &word, sizeof(word),
			    offsetof(struct broker_memory, forked_as));
}

/* Behind those of its cards; name: NULL: of one that never runs. */
static int make_ports(const struct fork_command *command, const char *name, struct child_kit *kit)
{
	return fork_ports_of_child(&command->ports, name, &kit->ports,
				   kit->fd + fork_kit_ports_at(kit->nets.plan.count));
}

int fork_kit_make_still(struct fork_command *command, enum forked_as as, struct child_kit *kit)
{
	int error = make_kit(command, kit);
	int code;

	if (!error)
		error = mark_rings(kit->fd[KIT_RINGS], as);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), command->name, "see umbra doctor");
	code = fork_nets_of_image(&command->nets, command->name, command->machine, &kit->nets,
				  kit->fd);
	return code ? code : make_ports(command, NULL, kit);
}

static int open_console(const struct fork_command *command, unsigned n, struct child *child)
{
	char path[PLAN_PATH_BYTES];

	child->console = -1;
	if (!command->console)
		return 0;
	if (command->count > 1)
		snprintf(path, sizeof(path), "%s-%u", command->console, n + 1);
	else
		snprintf(path, sizeof(path), "%s", command->console);
	child->console = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	return child->console < 0 ? -errno : 0;
}

int fork_child_begin(const struct fork_command *command, unsigned n)
{
	struct child *child = &command->child[n];
	int error = child_name(command, n, child->name);

	child->console = child->pidfd = -1;
	if (!error) {
		child->control = name_listen(child->name);
		error = child->control < 0 ? child->control : open_console(command, n, child);
	}
	if (!error)
		return 0;
	return complain(error == -EADDRINUSE || error == -EINVAL ? EXIT_USAGE : EXIT_UNUSABLE,
			error == -EADDRINUSE ? "a machine of that name runs" : strerror(-error),
			child->name, "give another --name or --console");
}

int fork_child_make_kit(struct fork_command *command, const struct child *child,
			enum forked_as as, struct child_kit *kit)
{
	int error = make_kit(command, kit);
	int code;

	if (!error && as != FORKED_TO_RUN)
		error = mark_rings(kit->fd[KIT_RINGS], as);
	if (error)
		return complain(EXIT_UNUSABLE, strerror(-error), child->name, "see umbra doctor");
	code = fork_nets_of_child(&command->nets, child->name, &kit->nets, kit->fd);
	return code ? code : make_ports(command, child->name, kit);
}

/* ---- its broker ---- */

/* What the balancer, and a save, ask of a machine's description. */
static void describe_memory(const json_t *parent, json_t *child)
{
	static const char *const keys[] = { "memory-start", "memory-min", "memory-buffer",
					    "memory-weight", "bus" };

	for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++)
		json_object_set(child, keys[n], json_object_get(parent, keys[n]));
}

static bool is_adjusted(const json_t *machine)
{
	const json_int_t most = json_integer_value(json_object_get(machine, "memory"));
	const json_t *least = json_object_get(machine, "memory-min");
	const json_t *start = json_object_get(machine, "memory-start");

	return least && start &&
	       (json_integer_value(least) < most || json_integer_value(start) < most);
}

static int describe_child(const struct fork_command *command, const struct child *child,
			  struct plan *plan)
{
	json_t *json =
		json_pack("{s:s, s:i, s:O, s:O, s:O, s:O, s:I, s:s}", "name", child->name, "pid",
			  (int)getpid(), "cpus", json_object_get(command->machine, "cpus"),
			  "memory", json_object_get(command->machine, "memory"), "overhead",
			  json_object_get(command->machine, "overhead"), "from",
			  json_object_get(command->machine, "from"), "started",
			  (json_int_t)time(NULL), "parent", command->name);
	char *text = NULL;
	int error;

	describe_memory(command->machine, json);
	if (json_is_true(json_object_get(command->machine, "secrets")))
		json_object_set_new(json, "secrets", json_true());
	if (json && !fork_disks_describe_child(&command->disks, &plan->disks, json) &&
	    !fork_ports_describe(command->ports.kind, json) &&
	    !fork_nets_describe(&plan->nets, &plan->relay, json))
		text = json_dumps(json, JSON_COMPACT);
	error = text ? plan_set_text(plan->description, sizeof(plan->description), text) : -EINVAL;
	json_decref(json);
	free(text);
	return error;
}

/* What its group's limit is made of: as its parent's. */
static void describe_limits(const json_t *parent, struct machine_plan *ret)
{
	ret->cpus = (unsigned)json_integer_value(json_object_get(parent, "cpus"));
	ret->memory_bytes = (uint64_t)json_integer_value(json_object_get(parent, "memory"));
	ret->overhead_bytes = (uint64_t)json_integer_value(json_object_get(parent, "overhead"));
}

static void give(const struct child *child, const struct child_kit *kit,
		 const struct brokers_start *start, struct grants *ret)
{
	grants_clear(ret);
	ret->fd[GRANT_PROGRAM] = start->program;
	ret->fd[GRANT_ROOM] = start->room;
	ret->fd[GRANT_ROOM_LINE] = start->room_line;
	ret->fd[GRANT_RINGS] = kit->fd[KIT_RINGS];
	ret->fd[GRANT_TO_BROKER] = kit->fd[KIT_TO_BROKER];
	ret->fd[GRANT_TO_MACHINE] = kit->fd[KIT_TO_MACHINE];
	ret->fd[GRANT_SLOTS] = kit->fd[KIT_SLOTS];
	ret->fd[GRANT_DOORBELL] = kit->fd[KIT_DOORBELL];
	ret->fd[GRANT_ANSWER] = kit->fd[KIT_ANSWER];
	ret->fd[GRANT_CONNECTIONS] = kit->fd[KIT_CONNECTIONS];
	ret->fd[GRANT_CONNECTION_BELL] = kit->fd[KIT_CONNECTION_BELL];
	ret->fd[GRANT_MACHINE] = child->pidfd;
	ret->fd[GRANT_FORK_ASK] = kit->ask;
	ret->fd[GRANT_FORK_KIT] = kit->kit;
	ret->fd[GRANT_CONTROL] = child->control;
	ret->fd[GRANT_CONSOLE] = child->console;
	child_nets_give(&kit->nets, ret);
	child_ports_give(&kit->ports, ret);
}

int brokers_begin(struct brokers_start *start)
{
	*start = (struct brokers_start){ .program = spawn_open_program(),
					 .room = -1,
					 .room_line = -1 };
	if (pipe2(start->failed, O_CLOEXEC))
		return complain(EXIT_UNUSABLE, strerror(errno), "fork",
				"permit more, ulimit -n 1024");
	return 0;
}

static int broker_failed(const char *child, int error)
{
	if (error == -EMFILE)
		return complain(EXIT_UNUSABLE, strerror(EMFILE), child,
				"permit more, ulimit -n 1024");
	if (error == -ENAMETOOLONG)
		return complain(EXIT_UNUSABLE, "its disks' paths are too long together", child,
				"name a folder with a shorter one by --disks");
	return complain(EXIT_UNUSABLE, strerror(-error), child, "see umbra doctor");
}

int brokers_end(struct brokers_start *start, const struct fork_command *command)
{
	struct broker_failure failure;
	int code = 0;

	close(start->failed[1]);
	while (read(start->failed[0], &failure, sizeof(failure)) == sizeof(failure))
		if (!code && failure.child < command->count)
			code = broker_failed(command->child[failure.child].name, failure.error);
	close(start->failed[0]);
	close(start->program);
	if (start->room >= 0)
		close(start->room);
	if (start->room_line >= 0)
		close(start->room_line);
	return code;
}

/* In a process of its own. Returns only with -errno. */
static int become_broker(const struct fork_command *command, const struct child *child,
			 const struct child_kit *kit, struct plan *plan,
			 const struct brokers_start *start)
{
	struct grants grants;
	int error = describe_child(command, child, plan);
	int null = error ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);
	int log = error ? -1 : detach_open_log(child->name); /* of why it ends, if it says so */

	if (error)
		return error;
	plan->adopts = true;
	plan->machine_pid = child->pid;
	plan->machine.forks = true;
	plan->machine.guest_forks = command->number; /* who asked is its door, too */
	describe_limits(command->machine, &plan->machine);
	plan->console = child->console < 0 ? CONSOLE_NONE : CONSOLE_FILE;
	give(child, kit, start, &grants);
	setsid();
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (null < 0 || dup2(fd == STDERR_FILENO && log >= 0 ? log : null, fd) < 0)
			return -errno;
	error = spawn_go_on(ROLE_BROKER, &grants);
	if (error) /* a number that is beyond the limit is EINVAL */
		return error == -EINVAL ? -EMFILE : error;
	spawn_call_self(command->called, ROLE_BROKER);
	_exit(broker_main_here(plan));
}

void fork_child_leave(struct child *child)
{
	close(child->pidfd);
	close(child->control);
	if (child->console >= 0)
		close(child->console);
}

void fork_child_end(const struct child *child)
{
	if (child->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
}

int fork_child_start_broker(const struct fork_command *command, struct child *child,
			    struct child_kit *kit, const struct brokers_start *start)
{
	struct plan *plan = plan_new();
	int code = plan ? fork_disks_of_child(&command->disks, child->name, &plan->disks)
			: complain(EXIT_FAULT, strerror(ENOMEM), child->name, "see umbra doctor");

	if (!code) {
		code = fork_nets_listen(&command->nets, child->name, &kit->nets, &plan->relay);
		if (code)
			fork_disks_remove_child(&plan->disks);
	}
	if (!code) {
		plan->nets = kit->nets.plan;
		plan->shares = kit->ports.plan;
		memcpy(plan->machine.port, command->ports.kind, sizeof(plan->machine.port));
		child->broker = fork();
	}
	if (!code && child->broker < 0) {
		fork_disks_remove_child(&plan->disks);
		code = complain(EXIT_UNUSABLE, strerror(errno), child->name, "end some machines");
	}
	if (!code && !child->broker) {
		const struct broker_failure failure = {
			.child = (uint32_t)(child - command->child),
			.error = become_broker(command, child, kit, plan, start)
		};

		fork_disks_remove_child(&plan->disks);
		_exit(write(start->failed[1], &failure, sizeof(failure)) < 0 ? EXIT_FAULT
									     : EXIT_UNUSABLE);
	}
	if (!code &&
	    is_adjusted(command->machine)) /* without a balancer it follows its own guest */
		balance_join(child->name, child->broker);
	if (code)
		fork_child_end(child);
	fork_child_leave(child);
	free(plan);
	return code;
}
