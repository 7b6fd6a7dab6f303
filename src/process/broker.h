/*
 * The trusted half of a machine: it holds the terminal and whatever else is the host's, starts the machine process, and serves
 * it through two rings (ring.h). It believes nothing that comes out of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/record_ring.h"

struct broker;

/* The machine process's side. */
struct broker_client {
	struct broker_memory *memory;
	struct ring_end to_broker, from_broker;
	int event_in, event_out;
};

/*
 * What a helper gets: it writes a byte to ready_fd when the machine can be made, and serves until end_fd is readable or closed at its
 * other end. It is not told to stop in another way, and may take its time then: nothing may be lost.
 */
struct broker_helper { int ready_fd, end_fd; };

struct broker_options {
	/* The machine process: runs in the child, returns its exit code. */
	int (*machine)(struct broker_client *client, void *context);
	/* In the broker: bytes of the guest's console; a key pressed at the terminal: true when it is not for the guest. */
	void (*console)(void *context, const uint8_t *data, size_t bytes);
	bool (*key)(void *context, uint8_t byte, bool *ret_stop);
	/* Once when the guest begins to run. */
	void (*started)(void *context);
	void *context;
	int input_fd; /* -1: none */
	int control_fd; /* a socket that listens (control.h); -1: none */
	const char *description; /* one line for who asks there */
	/* A process that is there before the machine process, and after it; returns its exit code. NULL: none. */
	int (*helper)(const struct broker_helper *helper, void *context);
};

enum broker_outcome { BROKER_ENDED, BROKER_REFUSED, BROKER_STOPPED, BROKER_MACHINE_DIED, BROKER_RUBBISH, BROKER_HELPER_ENDED };

struct broker_end {
	enum broker_outcome outcome;
	int32_t code, debug_exit_code; /* of RECORD_ENDED and RECORD_REFUSED */
	int wait_status; /* of the machine process, as waitpid() has it */
	int helper_status; /* of the helper */
	char text[RING_RECORD_MAX_BYTES + 1]; /* printable ASCII and line ends */
	char statistics[RING_RECORD_MAX_BYTES + 1];
};

/*
 * Starts the machine process and serves it until it ends. Blocks SIGTERM, SIGINT, SIGHUP, SIGCHLD and takes them itself: each
 * of the first three asks the machine to stop, and kills it when it has not half a second later; but the first SIGTERM asks its
 * guest to power off, if that listens, and leaves it half a minute. 0 or -errno.
 */
int broker_run(const struct broker_options *options, struct broker_end *ret_end);
