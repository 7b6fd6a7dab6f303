/*
 * A network card on a channel of the bus: NVSP and RNDIS (abi/nvsp.h, abi/rndis.h) on the guest's
 * side, the slots of a network card (ipc/net_card.h) on the other.
 *
 *   guest sends:    RNDIS message in the send buffer or in ranges -> transmit.c -> slot -> server
 *   guest receives: server -> slot -> receive.c -> a section of the receive buffer, one packet for
 *                   several of them; the guest's completion gives the sections back
 *   guest asks:     RNDIS control message -> rndis.c -> its answer is received like a frame
 *
 * network.c has the channel's life, NVSP, and the link; offload.c what a card does for the guest
 * with the heads of frames; renewal.c what becomes of a card in a machine that was forked.
 *
 * Lock: the channel's.
 *
 *  1. A slot is the server's, or a frame for the guest waits in it, or it is free: `slot`.
 *  2. A section of the receive buffer is free, or the guest has it with a packet whose transaction
 *     is the number of the packet's first section, from 1 on.
 *  3. No frame leaves the guest's ring unless there is a slot for it, as long as the link is up.
 *     While it is down frames are taken and dropped.
 *  4. What the guest has to be told and finds no room in its ring waits: one completion of each
 *     channel (`owed`) and some answers (`answer`). Nothing more is taken from a ring until there
 *     is room for both.
 *  5. When the pages of a buffer are taken away, or the channel is closed, it is forgotten.
 *  6. A guest with several processors may have further channels (sub-channels), for frames alone.
 *     What it sends by one is completed there; what it receives comes by the one that it has chosen
 *     (scale.c).
 *  7. In a machine that was forked the server is another one, and frames that were under way are
 *     lost. Where the memory says another address the card is taken away and offered anew, and
 *     nothing is sent or received until the guest has let the old one go.
 */
#pragma once

#include "ipc/net_card.h"
#include "vmbus/vmbus.h"

struct network;
struct archive;

/* The unit: a struct network. */
extern const struct unit_ops network_unit;

/*
 * The number-th card, on a bus that does not run yet; its server is at the client's queue, which is
 * memory's. NULL: no memory, or no channel.
 */
struct network *network_create(struct bus *bus, unsigned number, struct net_card_memory *memory,
			       struct slot_client *client);
void network_destroy(struct network *network);
/*
 * Whatever has come from the server, and its comings and goings; on the thread that collects. A
 * server that breaks the protocol is cut off: the link is down until there is another.
 */
void network_collect(struct network *network);
/*
 * After each bus_run(), on the same thread: a card that was forked with another address is taken
 * away when nothing of it is under way, and offered anew (renewal.c). A guest that keeps something
 * keeps the old card, whose link is down. False: not yet; to be asked again within milliseconds,
 * since nobody hears when a guest has taken what is in its ring.
 */
bool network_renew(struct network *network);
/* Nothing is taken from the guest, or given to it, until network_resume(). */
void network_pause(struct network *network);
void network_resume(struct network *network);
/* In a machine that was forked, while it is paused: its memory is new. */
void network_forked(struct network *network);
/* In a machine that was restored, once its guest may run, on the thread that collects: the link is
 * down until it is served, and a card that has another address now is renewed. */
void network_go_on(struct network *network);
/*
 * As bytes and back, while it is paused or before anything runs. Frames that are under way are
 * lost, as a network may lose them.
 */
void network_archive(struct archive *archive, struct network *network);
/* Invariants 1, 2 and 4. With the channel's lock, or while nothing runs. */
void check_network(const struct network *network);
size_t network_statistics(const struct network *network, char *text, size_t bytes);
