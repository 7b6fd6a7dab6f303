/*
 * A network in user mode: libslirp answers the guest's frames with sockets of the host's, so that
 * it needs no rights. The guest is 10.0.2.15, by DHCP; 10.0.2.2 is the way out, 10.0.2.3 the host's
 * name server. IPv4.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct net_port;
struct user_net;

enum { USER_FORWARDS = 32 };
/* Connections to a port of the host's go to one of the guest's. address: as it is on the wire. */
struct user_forward {
	uint32_t address;
	uint16_t host_port, guest_port;
	bool is_udp;
};

struct user_options {
	/* The guest may connect to the host's own loopback addresses; 10.0.2.2 is one of them. */
	bool host_loopback;
	unsigned forwards;
	const struct user_forward *forward;
};

/*
 * Listens already: what needs rights comes first. -errno; *ret_failed is the forward that could not
 * be (or options->forwards).
 */
int user_net_create(struct net_port *port, const struct user_options *options,
		    struct user_net **ret, unsigned *ret_failed);
/* Until end_fd is readable, or closed at its other end: 0; or -EBADMSG, or -errno. */
int user_net_serve(struct user_net *net, int end_fd);
