/* Inside the bus. */
#pragma once

#include <errno.h>
#include <string.h>

#include "vmbus.h"
#include "abi/vmbus.h"

enum { GPADLS = 256, GPADL_PAGES_MAX = 1 << 16, RING_PAGES_MAX = 4096, OUTBOX = 64, PAGE_BYTES = GUEST_PAGE_BYTES };
#define STATUS_UNSUCCESSFUL 0xc0000001u

/* Pages that the guest has named; complete when all of their numbers have come. */
struct gpadl { bool used, complete; uint32_t id, relid, pages, have; uint64_t *gfn; };

/* One direction: data pages of which the first gfn is the control page's. */
struct bus_ring {
	const uint64_t *gfn;
	uint32_t bytes; /* of data */
	uint32_t index; /* the host's own: what it reads next, or writes next */
};

struct bus_channel {
	struct bus *bus;
	const struct bus_service *service;
	uint32_t relid;
	pthread_mutex_t lock; /* of all that follows */
	bool open, broken, no_room;
	bool again; /* deferred; atomic */
	uint32_t gpadl, vp_index;
	struct bus_ring in, out;
	uint64_t packets, signals;
	_Alignas(8) uint8_t packet[BUS_PACKET_BYTES];
};

struct message { uint8_t bytes; uint8_t payload[BUS_MESSAGE_BYTES]; };

struct bus {
	const struct bus_host *host;
	pthread_mutex_t lock; /* of what follows until the outbox */
	uint32_t version; /* 0: not connected */
	bool offered;
	struct gpadl gpadl[GPADLS];
	uint32_t gpadl_pages;
	unsigned channels;
	struct bus_channel channel[BUS_CHANNELS];
	uint64_t messages, bad_messages, broken;
	/* under host->lock */
	uint32_t vp_index;
	unsigned outbox_first, outbox_used;
	struct message outbox[OUTBOX];
};

/* connection.c: into the outbox, which has room: bus_message() has looked. With the bus's lock. */
void bus_post(struct bus *bus, const void *payload, size_t bytes);
struct bus_channel *bus_find_channel(struct bus *bus, uint32_t relid);

/* gpadl.c; with the bus's lock. False: not a message that makes sense. */
bool gpadl_header(struct bus *bus, const uint8_t *payload, size_t bytes);
bool gpadl_body(struct bus *bus, const uint8_t *payload, size_t bytes);
bool gpadl_teardown(struct bus *bus, const uint8_t *payload, size_t bytes);
void gpadl_drop_all(struct bus *bus);
/* A complete one of this channel; NULL. */
const struct gpadl *gpadl_find(struct bus *bus, uint32_t id, uint32_t relid);

/* channel.c; with the bus's lock */
uint32_t channel_open(struct bus *bus, const struct vmbus_open *open);
/* Nothing of it runs any more when this returns. */
void channel_close(struct bus_channel *channel);

/* ring.c; with the channel's lock. 1: a packet in channel->packet; 0: none; -EBADMSG. */
int bus_ring_take(struct bus_channel *channel, struct bus_packet *ret);
int bus_ring_has_packet(struct bus_channel *channel);
/* The packet that was taken gives its room back. 0 or -EBADMSG. */
int bus_ring_taken(struct bus_channel *channel);
int bus_ring_set_mask(struct bus_channel *channel, uint32_t mask);
int bus_ring_put(struct bus_channel *channel, uint16_t type, uint64_t transaction, const void *payload, size_t bytes);
void channel_signal(struct bus_channel *channel);
