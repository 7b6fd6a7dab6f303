/*
 * The trusted half of a machine: it holds the terminal and whatever else is the host's, and serves
 * the machine process through two rings (ipc/record_ring.h). It believes nothing that comes out of
 * them.
 *
 * broker_create(), the processes are started and told of by broker_set_machine() and
 * broker_add_helper(), broker_serve() until the machine is gone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "console.h"
#include "ipc/record_ring.h"
#include "ipc/spawn.h"

struct broker;

enum { BROKER_HELPER_MS = 60000, BROKER_DOOR_MS = 30000 };

struct broker_options {
	enum console_kind console;
	int console_fd;           /* of CONSOLE_FILE */
	uint64_t console_limit_bytes;
	int input_fd;             /* -1: none */
	int control_fd;           /* a socket that listens (control/machine_control.h); -1: none */
	const char *description;  /* one line for who asks there */
	unsigned helper_ms;       /* how long a helper may take to end; 0: as BROKER_HELPER_MS */
	bool forks;               /* there is a forker at grant_fd(GRANT_FORK_ASK) and FORK_KIT */
	bool has_disks;           /* there is a disk process at grant_fd(GRANT_LAYERS) */
	unsigned disk_places; /* numbers that its disks can have */
	unsigned cards, ports;    /* network cards of the machine, and ports */
	bool door_comes;          /* somebody is going to have it forked for its guest */
	unsigned answer_ms; /* so long who asks waits for the machine; 0: CONTROL_ANSWER_MS */
	unsigned fork_step_ms; /* so long a step of a fork may take; 0: FORK_STEP_MS */
	unsigned door_ms;         /* for how long he is waited for; 0: as BROKER_DOOR_MS */
	bool adopts;              /* the machine runs already, with these; it is at GRANT_MACHINE */
	int rings_fd, event_from_fd, event_to_fd;
};

enum broker_outcome {
	BROKER_ENDED,
	BROKER_REFUSED,
	BROKER_STOPPED,
	BROKER_MACHINE_DIED,
	BROKER_RUBBISH,
	BROKER_HELPER_ENDED
};

struct broker_end {
	enum broker_outcome outcome;
	int32_t code, debug_exit_code; /* of RECORD_ENDED and RECORD_REFUSED */
	int wait_status;               /* of the machine process, as waitpid() has it */
	enum role helper;              /* the first that did not end with 0 */
	int helper_status;             /* and how it ended; 0: all ended in order */
	uint64_t unmapped;             /* blocks that are not in its perf map */
	char text[RING_RECORD_MAX_BYTES + 1]; /* printable ASCII and line ends */
	char statistics[RING_RECORD_MAX_BYTES + 1];
};

/*
 * Blocks SIGTERM, SIGINT, SIGHUP, SIGCHLD, to take them itself: each of the first three asks the
 * machine to stop, and kills it when it has not half a second later; but the first SIGTERM asks its
 * guest to power off, if that listens, and leaves it half a minute. 0 or -errno.
 */
int broker_create(const struct broker_options *options, struct broker **ret);
/* What a machine process gets: rings and events. */
void broker_give(const struct broker *broker, struct grants *grants);
/*
 * What the machine process occupies, to be read by who watches it: after it was set or adopted,
 * while files can be opened.
 */
void broker_open_occupied(struct broker *broker);
/* As that; what its code is called is written there. 0 or -errno: then it is not. */
int broker_open_perf_map(struct broker *broker);
/* Once; from here on it can be killed, by its descriptor at grant_fd(GRANT_MACHINE). */
int broker_set_machine(struct broker *broker, const struct spawned *machine);
/* How much its pager has still to bring, in this memory (pager_left.h); 0 or -errno. */
int broker_watch_pager(struct broker *broker, int memory_fd);
/* Instead, of one that adopts. */
void broker_adopt_machine(struct broker *broker, pid_t machine);
/* Rings, the event from the machine process, the event to it; 0 or -errno. */
int broker_make_rings(int ret[3]);
/*
 * A process that serves the machine until end_fd is closed. It may take its time then, since
 * nothing may be lost: helper_ms, after which it is killed, by its descriptor at HELPERS_FIRST_FD
 * and what follows, of which this takes the next.
 */
int broker_add_helper(struct broker *broker, enum role role, const struct spawned *helper,
		      int end_fd);
/*
 * Where helpers write what they have to say: text of it is shown on standard error, up to
 * ERRORS_MOST_BYTES. The caller closes it when they have it.
 */
int broker_errors_fd(const struct broker *broker);
/*
 * Until the helper that was added last has written to ready_fd that it can serve; take() reads it,
 * false: that is not what it says. Who asks at the control socket is answered meanwhile. False,
 * with *end: it has ended, or the user does not want to wait, by a signal or at that socket: then
 * it is killed, and broker_end_helpers() ends those before it in order.
 */
bool broker_wait_helper(struct broker *broker, int ready_fd,
			bool (*take)(int ready_fd, void *context), void *context,
			struct broker_end *end);
/* Until the machine and all helpers are gone; the terminal is then as it was. */
void broker_serve(struct broker *broker, struct broker_end *ret);
/* No helper may be left: they are ended first. */
void broker_destroy(struct broker *broker);
/* Ends all helpers; for who does not come to broker_serve(). */
void broker_end_helpers(struct broker *broker, struct broker_end *end);
