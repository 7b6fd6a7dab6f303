/* What umbrad --listen takes: a TCP port, its certificate and key, the token of its clients. */
#pragma once

#include "front.h"

struct secure_options { const char *listen, *certificate, *key, *token; };

struct secure_port {
	int listener; /* -1: none was asked for */
	struct front_door tls; /* all texts are the port's */
};

/*
 * options: listen: ADDRESS:PORT, an IPv6 address in brackets; the others name files. 0, or -errno
 * with what is wrong at *ret_where: -EPERM, others can read the key or the token; -EMSGSIZE, a file
 * of more than 64 KiB; -EKEYREJECTED, a token of fewer than 32 or more than 500 characters;
 * -EADDRNOTAVAIL, no address.
 */
int secure_port_open(const struct secure_options *options, struct secure_port *ret,
		     const char **ret_where);
/* The listener is the front's. */
void secure_port_close(struct secure_port *port);
