/*
 * Connections between programs of the guest (AF_VSOCK by hv_sock) and of the host: a channel that
 * comes and goes for each. The host's side of them is the relay process's (ipc/connection_slots.h).
 *
 *   free --CONNECT of the relay--> offered --the guest opens it--> open --either end--> ending --+
 *     ^  --the guest asks--> asking --the relay has connected--> offered                         |
 *     +---- both have said GONE, and the guest has let the channel go --------------------------+
 *
 *  1. One message of a connection is under way in each direction: a guest that does not read, or a
 *     program of the host's that does not, keeps its own connection waiting alone.
 *  2. An offer that the guest does not open within OFFER_SECONDS is taken away.
 *  3. What a guest can make of it are CONNECTIONS - CONNECTIONS_OF_HOST connections; more are
 *     refused.
 *  4. When the relay is another one, every connection that there is ends; one whose channel the
 *     guest has not let go yet is free when it has.
 *
 * Locks: the device's own lies behind a channel's. Offers and rescinds need the bus's, so they are
 * made on the thread that collects.
 */
#pragma once

#include "ipc/connection_slots.h"
#include "vmbus/vmbus.h"

struct hvsock;

/* The unit: a struct hvsock. */
extern const struct unit_ops hvsock_unit;

/* On a bus that does not run yet; the client's queue is memory's. NULL: no memory. */
struct hvsock *hvsock_create(struct bus *bus, struct connection_memory *memory,
			     struct slot_client *client);
void hvsock_destroy(struct hvsock *hvsock);
/*
 * Whatever has come from the relay, and what the guest's side has left to do, on the thread that
 * collects. A relay that breaks the protocol is cut off, until there is another: every connection
 * ends.
 */
void hvsock_collect(struct hvsock *hvsock);
/* With no lock of the device's. */
void check_hvsock(struct hvsock *hvsock);
