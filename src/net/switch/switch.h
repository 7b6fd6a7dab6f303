/*
 * A switch between network cards of one user's machines: a process to which each card's net process
 * has a connection of whole messages (SOCK_SEQPACKET), a struct net_frame and the frame.
 *
 *   machine == slots == net process -- line --> switch -- line --> net process == slots == machine
 *
 *  1. A port has one address, which its supervisor has said when it joined: a frame that comes
 *     from another one is lost, and a frame for an address goes to its port alone, or to nobody.
 *  2. Frames for many go to all other ports, FLOOD_PER_S of them from each port.
 *  3. A frame whose port does not take it waits, and nothing more is taken from where it came;
 *     after STALL_MS it is lost, and so are others for that port until it takes one again. A port
 *     waits for others STALL_MS of each second, beside what a frame needs (FREE_US and
 *     FREE_NS_PER_BYTE): what they do not take then is lost at once. So of each port one frame is
 *     kept, beside what the kernel keeps of its line.
 *  4. Frames are taken of each port in turn, and who waits for a port has its turn in the order in
 *     which it came: who sends without end has no more of a line than each of those who also do.
 *  5. A port that says anything else is closed. Nobody else notices.
 *  6. Who may join and what may pass a policy decides (switch_policy.c).
 */
#pragma once

#include "ipc/net_card.h"

enum { SWITCH_PORTS = 64, SWITCH_VERSION = 1 };
#define SWITCH_MAGIC 0x68637773u

/* The first message of a line. */
struct switch_hello {
	uint32_t magic, version;
	uint8_t mac[NET_MAC_BYTES];
	uint8_t reserved[2];
};

/*
 * Ports come by listen_fd. Returns when there have been none for some seconds: 0, or -errno of the
 * socket's.
 */
int switch_serve(int listen_fd);

/* ---- switch_policy.c ---- */

/* Who may join, beside the ports that are there. */
bool switch_policy_admits(const struct switch_hello *hello);
/* What may pass; from: the port's address. data: of frame->bytes, at least an Ethernet head. */
bool switch_policy_lets_pass(const uint8_t from[NET_MAC_BYTES], const struct net_frame *frame,
			     const uint8_t *data);

/* ---- line.c: the other end ---- */

struct net_port;
/* Joins what listens at path: a connection, or -errno. */
int line_open(const char *path, const uint8_t mac[NET_MAC_BYTES]);
/* Until end_fd is readable, or closed at its other end: 0; or -EBADMSG, or -errno. */
int line_serve(struct net_port *port, int line_fd, int end_fd);
