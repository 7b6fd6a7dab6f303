/*
 * The host's side of connections with the guest's programs (ipc/connection_slots.h): local sockets
 * with the text protocol that clients of other monitors speak.
 *
 *   a program of the host's   connects to NAME and writes "CONNECT PORT\n"; when a program of the
 *                             guest has accepted at that port it reads "OK NUMBER\n", else its
 *                             connection is closed; then bytes go both ways
 *   a program of the guest's  connects to PORT of the host (CID 2), and finds who listens at the
 *                             socket NAME_PORT
 *
 * Each direction ends by itself, as sockets do. One thread. What the machine process says is
 * checked, and ends the relay when it makes no sense; of who connects only the first line is
 * understood.
 */
#pragma once

#include "ipc/connection_slots.h"

enum { RELAY_NAME_BYTES = 80 };

struct relay_options {
	struct connection_memory *memory;
	int doorbell_fd, answer_fd;
	int listener_fd; /* does not block */
	int end_fd;      /* closed once the machine is gone */
	/* sockets of the host's who are looked for are NAME_PORT in the working directory */
	const char *name;
};

/*
 * Serves the generation that the memory has now, until the machine is gone: 0; or -EBADMSG: it says
 * what cannot be.
 */
int relay_serve(const struct relay_options *options);
