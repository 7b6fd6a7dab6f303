/*
 * The net process's main: what one network card is connected to. It opens what it needs as the
 * user, gives up its rights, and serves until the machine is gone. Where it ends before that its
 * supervisor starts another. One of a tap or a switch has the role of a line: it needs no socket.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "mains.h"
#include "net/port.h"
#include "net/switch/switch.h"
#include "net/tap/tap.h"
#include "net/user/user.h"
#include "plan.h"
#include "report.h"
#include "sanitized.h"

enum { MOST_MEMORY_BYTES = 256 << 20 };

struct process {
	enum role role;
	const struct net_choice *choice;
	struct net_port port;
	struct user_net *user;
};

static int complain_of_forward(const struct net_forward *forward, int error)
{
	const struct in_addr address = { .s_addr = forward->address };
	char where[64];

	snprintf(where, sizeof(where), "-p %s:%u", inet_ntoa(address), forward->host_port);
	return complain(EXIT_UNUSABLE, strerror(-error), where,
			"take a port that is free, from 1024 on unless you are root");
}

static int open_user(struct process *process)
{
	struct user_forward forwards[USER_FORWARDS];
	const struct user_options options = { .host_loopback = process->choice->host_loopback,
					      .forwards = process->choice->forwards,
					      .forward = forwards };
	unsigned failed;
	int error;

	_Static_assert((int)PLAN_FORWARDS == (int)USER_FORWARDS, "a plan's forwards");
	for (unsigned n = 0; n < process->choice->forwards; n++) {
		const struct net_forward *from = &process->choice->forward[n];

		forwards[n] = (struct user_forward){ .address = from->address,
						     .host_port = from->host_port,
						     .guest_port = from->guest_port,
						     .is_udp = from->is_udp };
	}
	error = user_net_create(&process->port, &options, &process->user, &failed);
	if (error && failed < options.forwards)
		return complain_of_forward(&process->choice->forward[failed], error);
	return error ? complain(EXIT_FAULT, strerror(-error), "the network", "see umbra doctor")
		     : 0;
}

static int open_tap(struct process *process)
{
	int error = tap_begin(grant_fd(GRANT_TAP));

	return error ? complain(EXIT_UNUSABLE, strerror(-error), process->choice->name,
				"give a tap with IFF_NO_PI and IFF_VNET_HDR")
		     : 0;
}

static int open_network(struct process *process)
{
	switch (process->choice->kind) {
	case NET_TAP: return open_tap(process);
	case NET_SWITCH: return 0; /* its supervisor has joined it */
	default: return open_user(process);
	}
}

/*
 * What a guest sends in pieces libslirp keeps for half a minute, as much as comes: that may cost a
 * link, and not the host's memory.
 */
static int limit_memory(void)
{
	const struct rlimit most = { .rlim_cur = MOST_MEMORY_BYTES, .rlim_max = MOST_MEMORY_BYTES };

	return setrlimit(RLIMIT_DATA, &most) ? -errno : 0;
}

/* The last that needs rights is there. A supervisor's first process tells that it can serve. */
static int give_up_rights(enum role role)
{
	int error = SANITIZED ? 0 : limit_memory();

	if (!error)
		error = lockdown_before_threads(role, NULL);
	if (!error && role_was_given(GRANT_READY)) {
		if (write(grant_fd(GRANT_READY), "", 1) != 1)
			error = -errno;
		close(grant_fd(GRANT_READY));
	}
	return error ? error : lockdown(role);
}

static int serve(struct process *process)
{
	int error = give_up_rights(process->role);

	if (error)
		return complain(EXIT_FAULT, strerror(-error), "the network", "see umbra doctor");
	switch (process->choice->kind) {
	case NET_TAP:
		error = tap_serve(&process->port, grant_fd(GRANT_TAP), grant_fd(GRANT_END));
		break;
	case NET_SWITCH:
		error = line_serve(&process->port, grant_fd(GRANT_TAP), grant_fd(GRANT_END));
		break;
	default: error = user_net_serve(process->user, grant_fd(GRANT_END)); break;
	}
	return error ? EXIT_FAULT : 0;
}

static int card_main(enum role role)
{
	const struct plan *plan = plan_of_process();
	struct net_card_memory *memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE,
					      MAP_SHARED, grant_fd(GRANT_CARD), 0);
	struct process process = { .role = role,
				   .choice = plan ? &plan->nets.card[plan->nets.mine] : NULL };
	int code;

	/* libslirp takes a socket's number 0 for none */
	for (int fd = 0; fd < STDERR_FILENO; fd++)
		dup2(grant_fd(GRANT_END), fd);
	close(grant_fd(GRANT_CARD));
	if (!plan || memory == MAP_FAILED)
		return complain(EXIT_USAGE, "it has no plan", "the net process",
				"use umbra run: it starts the processes of a machine");
	net_port_init(&process.port, memory, grant_fd(GRANT_CARD_BELL),
		      grant_fd(GRANT_CARD_ANSWER));
	code = open_network(&process);
	return code ? code : serve(&process);
}

int net_main(void) { return card_main(ROLE_NET); }
int line_main(void) { return card_main(ROLE_LINE); }
