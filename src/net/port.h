/*
 * The serving side of a network card (ipc/net_card.h), for whatever the card is connected to:
 * frames that the guest sends come out of it, frames for the guest go into it.
 *
 * The machine process is taken for lost: what it says is copied, then checked; -EBADMSG ends the
 * port.
 */
#pragma once

#include "ipc/net_card.h"
#include "lib/brief_wait.h"

struct net_port {
	struct net_card_memory *memory;
	uint32_t generation;
	bool begun;
	struct slot_server slots;
	/* slots that the guest's side has given for frames */
	unsigned empty_first, empty;
	uint8_t empty_slot[NET_RECEIVE_SLOTS];
	unsigned untold; /* frames that were sent, of which the guest's side has not heard */
};

/* A frame that the guest sends; `data` is in the slot and may change at any time. */
struct net_sent {
	unsigned slot;
	struct net_frame frame;
	uint8_t *data;
};

/* Serves the generation that the memory has now. */
void net_port_init(struct net_port *port, struct net_card_memory *memory, int doorbell_fd,
		   int answer_fd);
/*
 * 1: a frame of the guest's, until net_port_sent(); 0: none, or it has not seen this side yet;
 * -EBADMSG. Looks for empty slots as well.
 */
int net_port_take(struct net_port *port, struct net_sent *ret);
/* The guest's side hears of it with the next frame for the guest, or with some more of these. */
void net_port_sent(struct net_port *port, const struct net_sent *sent);
/* How many frames can be put. */
static inline unsigned net_port_room(const struct net_port *port) { return port->empty; }
/* A frame for the guest, of frame->bytes; there is room. */
void net_port_put(struct net_port *port, const struct net_frame *frame, const void *data);
/* The same without a copy: where the next frame goes; then of how many bytes it is. */
uint8_t *net_port_next(struct net_port *port);
void net_port_put_next(struct net_port *port, const struct net_frame *frame);
/* The guest's side hears of what was put. */
void net_port_tell(struct net_port *port);
/*
 * Before it waits for whatever else it waits for: true: only a look at that, then at the slots
 * again. False: it may sleep until the doorbell is readable. What it then finds is told to `brief`.
 */
bool net_port_looks_again(struct net_port *port, struct brief_wait *brief);
