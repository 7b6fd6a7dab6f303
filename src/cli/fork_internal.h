/* What a user says to umbra fork, and what is made of it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "control/names.h"
#include "fork_away.h"
#include "fork_disks.h"
#include "fork_nets.h"
#include "fork_ports.h"
#include "fork_renew.h"
#include "ipc/forker.h"
#include "ipc/record_ring.h"

struct child {
	char name[NAME_MAX_BYTES + 1];
	int control, console, pidfd; /* -1: none */
	pid_t pid, broker;
};

/* What one child is given: ask, kit: its broker's ends. All that is open is this process's. */
struct child_kit {
	int fd[KIT_MOST_FDS], ask, kit;
	struct child_nets nets;
	struct child_ports ports;
};

/*
 * What all their brokers are started with; room, room_line: -1: each has namespaces of its own.
 * failed: a pipe, of which every process that becomes a broker holds an end until it is one, and
 * says in it why it is not going to be (struct broker_failure).
 */
struct brokers_start { int program, room, room_line, failed[2]; };
struct broker_failure { uint32_t child; int32_t error; };

struct fork_command {
	const char *name, *child_name, *console, *parent;
	char *called; /* what this program was called, where its arguments lie */
	unsigned long count;
	bool json, with_secrets;
	unsigned long asked; /* by its guest, by this number; 0: not */
	unsigned long number; /* of the child that a door has made; 0: it is the user's */
	int peer;
	json_t *machine; /* what the parent says of itself */
	struct fork_disks disks;
	struct fork_nets nets;
	struct fork_ports ports;
	struct fork_renew renew;
	struct fork_away away;
	struct child *child; /* so many as `count` */
};

/* ---- a child (fork_child.c) ---- */

/* Its name and its console, while nothing is forked yet. 0 or the exit code. */
int fork_child_begin(const struct fork_command *command, unsigned n);
/* With cards that nobody serves. 0 or the exit code. */
int fork_kit_make_still(struct fork_command *command, enum forked_as as, struct child_kit *kit);
/* With the child's networks. 0 or the exit code. */
int fork_child_make_kit(struct fork_command *command, const struct child *child,
			enum forked_as as, struct child_kit *kit);
/* Who was forked alone holds the end of the pipe that says that he is gone. */
void fork_kit_sent(struct child_kit *kit);
void fork_kit_close(struct child_kit *kit);
/*
 * Its disks first, then who has them; without a broker it ends once the kit is closed. 0 or the
 * exit code.
 */
int fork_child_start_broker(const struct fork_command *command, struct child *child,
			    struct child_kit *kit, const struct brokers_start *start);
/* 0 or the exit code. */
int brokers_begin(struct brokers_start *start);
/*
 * Once all were started: waits until each has become one, or says of one that it has not. 0 or the
 * exit code.
 */
int brokers_end(struct brokers_start *start, const struct fork_command *command);
void fork_child_leave(struct child *child);
/* No machine comes of it: it need not be left to its forker, which may have been killed, too. */
void fork_child_end(const struct child *child);

/* ---- what is asked of NAME's broker (fork_verb.c) ---- */

/* {"do":WORD}. 0 or -errno, as it is answered. */
int fork_ask(const struct fork_command *command, const char *word);
/* A fork with this kit (NULL: of nobody), and its parent's fate. 0 or -errno. */
int fork_send(const struct fork_command *command, struct child_kit *kit, const char *parent);
/* Until all of it is done; *ret: pid and pidfd of who was forked (0: nobody). 0 or -errno. */
int fork_take(const struct fork_command *command, struct child *ret);

/* ---- many of one moment (fork_many.c) ---- */

/*
 * *ret_made of them have brokers, also when something went wrong: *ret_error, or the exit code that
 * is returned.
 */
int fork_many(struct fork_command *command, unsigned *ret_made, int *ret_error);
