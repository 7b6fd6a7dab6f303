/*
 * A broker as the tests have it: its machine process, and perhaps a helper, are functions in
 * children made by fork.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "process/broker.h"

/* The machine process's side. */
struct client {
	struct broker_memory *memory;
	struct ring_end to_broker, from_broker;
	int event_in, event_out;
};

struct helper_ends { int ready_fd, end_fd; };

struct harness {
	int (*machine)(struct client *client);
	int (*helper)(const struct helper_ends *ends); /* NULL: none */
	bool helper_is_spare;
	unsigned helper_ms;                            /* as broker_options has it */
	int console_fd, control_fd;                    /* -1: none */
	const char *description;
	/* To who plays the forker, and the disk process; 0: there is none. */
	int fork_ask_fd, fork_kit_fd, layers_fd;
	bool door_comes; /* as broker_options has it */
	unsigned door_ms, fork_step_ms, answer_ms;
};

static void harness_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static struct spawned harness_fork(void)
{
	struct spawned spawned = { .pid = fork() };

	if (!spawned.pid)
		harness_signals();
	spawned.pidfd = spawned.pid > 0 ? (int)syscall(SYS_pidfd_open, spawned.pid, 0) : -1;
	return spawned;
}

static struct spawned harness_machine(const struct harness *harness, const struct broker *b)
{
	struct spawned machine = harness_fork();
	struct grants grants;
	struct client client;

	if (machine.pid)
		return machine;
	broker_give(b, &grants);
	client.memory = mmap(NULL, sizeof(*client.memory), PROT_READ | PROT_WRITE, MAP_SHARED,
			     grants.fd[GRANT_RINGS], 0);
	client.to_broker = (struct ring_end){ .memory = &client.memory->to_broker,
					      .wake_fd = grants.fd[GRANT_TO_BROKER] };
	client.from_broker = (struct ring_end){ .memory = &client.memory->to_machine };
	client.event_in = grants.fd[GRANT_TO_MACHINE];
	client.event_out = grants.fd[GRANT_TO_BROKER];
	_exit(harness->machine(&client));
}

/* 0, or -ECHILD: it has ended, as *end says. */
static bool harness_take_byte(int ready_fd, void *context)
{
	char byte;

	(void)context;
	return read(ready_fd, &byte, 1) == 1;
}

static int harness_helper(const struct harness *harness, struct broker *b, struct broker_end *end)
{
	int ready[2], ending[2];
	struct spawned helper;

	if (pipe(ready) || pipe(ending))
		exit(2);
	helper = harness_fork();
	if (!helper.pid) {
		close(ready[0]);
		close(ending[1]);
		dup2(broker_errors_fd(b), STDERR_FILENO);
		_exit(harness->helper(&(struct helper_ends){ ready[1], ending[0] }));
	}
	close(ready[1]);
	close(ending[0]);
	broker_add_helper(b, harness->helper_is_spare ? ROLE_SUPERVISOR : ROLE_DISK, &helper,
			  ending[1]);
	close(helper.pidfd);
	if (broker_wait_helper(b, ready[0], harness_take_byte, NULL, end))
		return 0;
	broker_end_helpers(b, end);
	broker_destroy(b);
	return -ECHILD;
}

/* In a process of its own: it is locked down. */
static int harness_run(const struct harness *harness, struct broker_end *end)
{
	struct broker_options options = { .console = harness->console_fd < 0 ? CONSOLE_NONE
									     : CONSOLE_FILE,
					  .console_fd = grant_fd(GRANT_CONSOLE),
					  .console_limit_bytes = CONSOLE_FILE_BYTES,
					  .helper_ms = harness->helper_ms,
					  .input_fd = -1,
					  .control_fd = -1,
					  .description = harness->description,
					  .door_comes = harness->door_comes,
					  .door_ms = harness->door_ms,
					  .fork_step_ms = harness->fork_step_ms,
					  .answer_ms = harness->answer_ms,
					  .forks = harness->fork_kit_fd > 0,
					  .has_disks = harness->layers_fd > 0 };
	struct broker *b;
	struct spawned machine;
	int error;

	for (unsigned n = 0; n < GRANTS; n++) /* nobody else takes the numbers */
		if (fcntl(grant_fd((enum grant)n), F_GETFD) < 0 &&
		    dup2(2, grant_fd((enum grant)n)) < 0)
			return -errno;
	if (harness->console_fd >= 0 && dup2(harness->console_fd, grant_fd(GRANT_CONSOLE)) < 0)
		return -errno;
	if (harness->control_fd >= 0 && dup2(harness->control_fd, grant_fd(GRANT_CONTROL)) < 0)
		return -errno;
	if (harness->fork_kit_fd > 0 && (dup2(harness->fork_ask_fd, grant_fd(GRANT_FORK_ASK)) < 0 ||
					 dup2(harness->fork_kit_fd, grant_fd(GRANT_FORK_KIT)) < 0))
		return -errno;
	if (harness->layers_fd > 0 && dup2(harness->layers_fd, grant_fd(GRANT_LAYERS)) < 0)
		return -errno;
	if (harness->control_fd >= 0)
		options.control_fd = grant_fd(GRANT_CONTROL);
	error = broker_create(&options, &b);
	if (!error && harness->helper)
		error = harness_helper(harness, b, end);
	if (error)
		return error == -ECHILD ? 0 : error;
	machine = harness_machine(harness, b);
	error = broker_set_machine(b, &machine);
	if (!error)
		error = lockdown_before_threads(ROLE_BROKER, NULL);
	if (!error)
		error = lockdown(ROLE_BROKER);
	if (error)
		return error;
	broker_serve(b, end);
	broker_destroy(b);
	return 0;
}
