/* Inside the bus. Locks are those of vmbus.h: of the bus, of a channel, of the host. */
#pragma once

#include <errno.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "lib/speculation.h"
#include "vmbus.h"

enum {
	CHANNEL_GPADLS = 8,
	/* channels by their place: from the beginning, late ones, sub-channels */
	FIRST_LATE = BUS_CHANNELS,
	FIRST_SUB = FIRST_LATE + BUS_LATE_CHANNELS,
	CHANNELS = FIRST_SUB + BUS_SUB_CHANNELS,
	/* of the outbox: what one message of the guest's can cause */
	OUTBOX_RESERVE = BUS_CHANNELS + 1,
	GPADLS = 256, GPADL_PAGES_MAX = 1 << 16, RING_PAGES_MAX = 4096, OUTBOX_MESSAGES = 64,
	PAGE_BYTES = GUEST_PAGE_BYTES, RING_ALIGNMENT = 8
};
#define STATUS_UNSUCCESSFUL 0xc0000001u

/* Pages that the guest has named; complete when all of their numbers have come. */
struct gpadl { bool used, complete; uint32_t id, relid, pages, have; uint64_t *gfn; };

/* One direction: data pages; the gfn before the first of them is the control page's. */
struct bus_ring {
	const uint64_t *gfn;
	uint32_t bytes; /* of data */
	uint32_t index; /* the host's own: what it reads next, or writes next */
	/* from the guest only: how far there are packets, and from where on their room is kept */
	uint32_t written, kept;
};

/* channel.c has the table of what follows what. */
enum channel_state { CHANNEL_CLOSED, CHANNEL_OPEN, CHANNEL_BROKEN, CHANNEL_STATES };

struct bus_channel {
	struct bus *bus;
	const struct bus_service *service;
	uint32_t relid;
	bool there; /* it was offered, or will be; atomic */
	bool rescinded, rescind_unsaid; /* with the bus's lock */
	/* the first channel of its device, whose lock it shares, and its number there; itself, 0 */
	struct bus_channel *first;
	uint16_t number;
	/* of a first one: sub.c */
	const struct bus_service *sub_service;
	unsigned subs_allowed;
	pthread_mutex_t lock; /* of all that follows; of a sub-channel its first one's */
	unsigned subs_wanted;
	struct bus_channel *sub[BUS_SUBS];
	bool holds_signals;
	enum channel_state state;
	bool signal_due; /* held */
	bool no_room; /* a packet found none; the service is told when there is */
	bool again;   /* deferred; atomic */
	bool is_open; /* as `state` says; atomic, for who has no lock */
	bool told;    /* the guest was, since bus_monitor() has looked: it may answer; atomic */
	uint32_t gpadl, host_ring_page, vp_index; /* as it was opened */
	struct bus_ring in, out;
	/* copies of complete ones, that its service may use (gpadl.c); the first of them */
	struct gpadl buffer[CHANNEL_GPADLS];
	uint64_t packets, signals;
};

struct outbox_message { uint8_t bytes; uint8_t payload[BUS_MESSAGE_BYTES]; };

struct bus {
	const struct bus_host *host;
	pthread_mutex_t lock; /* of what follows until the outbox */
	uint32_t version;     /* 0: not connected */
	uint64_t monitor_gpa; /* the guest's page for the host; 0: none; atomic */
	bool offered;
	struct gpadl gpadl[GPADLS];
	/* The lists change under both; who holds either can read them. */
	pthread_mutex_t pages_lock;
	uint32_t gpadl_pages;
	unsigned channels;
	unsigned late; /* where the next late channel is looked for */
	unsigned subs; /* places of sub-channels that are some device's */
	bool subs_due; /* some wait to be offered; atomic */
	const struct bus_connector *connector;
	struct bus_channel channel[CHANNELS];
	uint64_t messages, bad_messages, broken;
	/* under host->lock */
	uint32_t vp_index;
	unsigned outbox_first, outbox_used;
	struct outbox_message outbox[OUTBOX_MESSAGES];
	/*
	 * Of each channel what it takes a packet into, with that one's lock: not in the channels,
	 * of which most are never opened, and each would have pages of its own for its few words.
	 */
	_Alignas(8) uint8_t packet[CHANNELS][BUS_PACKET_BYTES];
};

/* ---- connection.c; with the bus's lock ---- */

/* Into the outbox, which has room: bus_message() has looked. */
void bus_post(struct bus *bus, const void *payload, size_t bytes);
void bus_post_offer(struct bus *bus, const struct bus_channel *channel);
/* Whether more than so many messages find room in it. */
bool bus_has_room(struct bus *bus, unsigned messages);
/* NULL: there is none. */
struct bus_channel *bus_find_channel(struct bus *bus, uint32_t relid);
bool bus_is_version(uint32_t version);
/* Invariants 1 and 2 of connection.c. */
void check_connection(const struct bus *bus);
/* monitor.c */
void check_monitor(const struct bus *bus);

/* ---- gpadl.c; with the bus's lock. False: not a message that makes sense. ---- */

bool gpadl_header(struct bus *bus, const uint8_t *payload, size_t bytes);
bool gpadl_body(struct bus *bus, const uint8_t *payload, size_t bytes);
bool gpadl_teardown(struct bus *bus, const uint8_t *payload, size_t bytes);
void gpadl_drop_all(struct bus *bus);
void gpadl_drop_of_channel(struct bus *bus, uint32_t relid);
/* A complete one of this channel; NULL. */
const struct gpadl *gpadl_of_channel(struct bus *bus, uint32_t id, uint32_t relid);
/* An empty one for so many pages; NULL: no room, no memory, or the number is used. */
struct gpadl *gpadl_make(struct bus *bus, uint32_t id, uint32_t relid, uint64_t pages);
/* All of its numbers have come: its channel may use it. */
void gpadl_completed(struct bus *bus, const struct gpadl *gpadl);
void check_gpadls(const struct bus *bus);

/* ---- late.c; with the bus's lock ---- */

/* All of them: their guest has left. Nothing is taken away any more. */
void late_release_all(struct bus *bus);
/* The guest lets one go: one that was renewed is offered. False: not one that was taken away. */
bool late_release(struct bus *bus, uint32_t relid);
/* One that was there when the bus was saved: it is taken away once there is room to say so. */
void late_restore(struct bus *bus, uint32_t relid);
/* What had no room in the outbox. */
void late_say(struct bus *bus);
/* Says that a channel is taken away, once. */
void late_take_away(struct bus *bus, struct bus_channel *channel);
/* False: nobody is asked. */
bool late_connect(const struct bus *bus, const uint8_t *payload, size_t bytes);

/* ---- monitor.c; with the bus's lock ---- */

/* The page of a new connection, as the guest says; 0: there is none. */
void bus_set_monitor(struct bus *bus, uint64_t gpa);

/* ---- sub.c; with the bus's lock ---- */

/* What is wanted, as far as there is room. */
void sub_offer(struct bus *bus);
/* All of a first channel are taken away; closed by the guest, or at once. */
void sub_take_away(struct bus_channel *first);
void sub_close(struct bus_channel *first);
/* The guest lets one go, that was taken away; all of them, since it has left. */
void sub_release(struct bus *bus, struct bus_channel *channel);
void sub_release_all(struct bus *bus);
/* One was there when the bus was saved; then, that its state is loaded. False: it cannot be. */
bool sub_restore(struct bus *bus, uint32_t relid);
bool sub_restored(struct bus_channel *channel);
void check_subs(const struct bus *bus);

/* ---- channel.c; with the bus's lock ---- */

uint32_t channel_open(struct bus *bus, const struct vmbus_open *open);
/* Nothing of it runs any more when this returns. */
void channel_close(struct bus_channel *channel);
/* Whether a GPADL can be divided at this page into two rings. */
bool channel_is_division(const struct gpadl *gpadl, uint32_t host_ring_page);
/* The rings in the pages of a GPADL, both empty. With the channel's lock, too. */
void channel_lay_rings(struct bus_channel *channel, const struct gpadl *gpadl);

/* ---- channel.c; without a lock ---- */

/* The guest has said that there is something: now, or by bus_run(). */
void channel_serve(struct bus_channel *channel);

/* ---- channel.c; with the channel's lock ---- */

void channel_move(struct bus_channel *channel, enum channel_state to);
/* Now, or where its signals are held, later. */
void channel_signal(struct bus_channel *channel);
/*
 * What the state says of the rest; rings of an open channel are within their GPADL, which is not
 * looked at.
 */
void check_channel(const struct bus_channel *channel);

/* ---- ring.c; with the channel's lock. 1: a packet in channel->packet; 0: none; -EBADMSG. ---- */

int bus_ring_take(struct bus_channel *channel, struct bus_packet *ret);
int bus_ring_has_packet(struct bus_channel *channel);
/* The packets that were taken give their room back. 0 or -EBADMSG. */
int bus_ring_taken(struct bus_channel *channel);
/* Whether so much of the ring is kept that it is time for that, although there are more. */
bool bus_ring_keeps_much(const struct bus_channel *channel);
/* Whether both sides have taken all packets: 1, 0 or -EBADMSG. */
int bus_ring_is_drained(const struct bus_channel *channel);
int bus_ring_set_mask(struct bus_channel *channel, uint32_t mask);
/* head: what comes between the packet's own head and its payload, whole units of 8 bytes. */
int bus_ring_put(struct bus_channel *channel, uint16_t type, uint64_t transaction, const void *head,
		 size_t head_bytes, const void *payload, size_t bytes);
/* Invariant 1 of ring.c as far as it can be seen here. */
void check_ring(const struct bus_ring *ring);
/* And invariant 4, of the one that the guest writes. */
void check_ring_of_guest(const struct bus_ring *ring);
