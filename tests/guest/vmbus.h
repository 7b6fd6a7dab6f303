/*
 * A client of the partition bus for bare-metal guests: connection, channels, packets, and SCSI
 * commands on a storage channel.
 */
#pragma once

#include "abi/vmbus_layout.h"
#include "abi/vstor.h"
#include "hv.h"

enum { CHANNEL_PAGES = 4 /* of each ring, the control page with them */, BUS_VECTOR = 0xf3 };

struct channel {
	uint32_t relid, connection, gpadl;
	uint8_t *send, *receive; /* control page, then data */
	uint32_t written, read, ring_bytes;
	uint64_t transaction;
};

struct message {
	uint32_t type;
	uint8_t bytes, flags;
	uint16_t reserved;
	uint64_t sender;
	uint8_t payload[240];
};

/* SynIC pages and SINT 2 of this processor, masked or with an interrupt. */
void bus_prepare(void);
/* The channel's event flag, which is clear then. */
bool bus_take_event(uint32_t relid);
uint64_t bus_post_on(uint32_t connection, const void *payload, uint32_t bytes);
/* The next message of the host's; within a second, else NULL. */
const struct message *bus_receive(void);
/* The next of this kind: others in between are taken for wrong. */
const void *bus_expect(uint32_t kind);
/* Whether no message comes within some milliseconds. */
bool bus_is_quiet(void);
/* INITIATE_CONTACT; whether the host supports it. */
bool bus_contact(uint32_t version);
/* What is offered; a screen is not counted, which only some machines have. */
enum {
	BUS_OFFERS = 9,
	OFFER_STORAGE = 0xba6163d9,
	OFFER_SHUTDOWN = 0x0e0b6031,
	OFFER_HEARTBEAT = 0x57164f39,
	OFFER_TIME = 0x9527e630,
	OFFER_MEMORY = 0x525074dc,
	OFFER_KEYS = 0xa9a0f4e7,
	OFFER_BACKUP = 0x35fa2e29,
	OFFER_KEYBOARD = 0xf912ad6d,
	OFFER_FILE_COPY = 0x34d14be3,
	OFFER_VIDEO = 0xda0a7802
};
/* Asks for offers; the number of them, in *ret the one whose interface begins so. */
unsigned bus_offers(uint32_t type, struct vmbus_offer *ret);
/* A GPADL over pages that follow each other; the status that came. */
uint32_t bus_gpadl(uint32_t id, uint32_t relid, const void *first, uint32_t pages);
void bus_teardown(uint32_t id, uint32_t relid);
/* Opens with fresh rings; the status that came. */
uint32_t channel_open(struct channel *channel, const struct vmbus_offer *offer, uint32_t gpadl);
/* The same beside another, in 2 * CHANNEL_PAGES pages. */
uint32_t channel_open_in(struct channel *channel, const struct vmbus_offer *offer, uint32_t gpadl,
			 uint8_t *pages);
void channel_close(struct channel *channel);
/*
 * Contact, offers, opens the storage channel and speaks its first words; ends the test where that
 * fails.
 */
void storage_open(struct channel *channel);
/* The same of the last controller among so many offers: a served disk's. */
void storage_open_last(struct channel *channel, unsigned offers);
/* Puts a packet into the ring: head, ranges (where bytes is not 0: of `data`), payload. Signals. */
void channel_put(struct channel *channel, uint16_t type, const void *payload,
		 uint32_t payload_bytes, const void *data, uint32_t bytes);
void channel_put_raw(struct channel *channel, const void *packet, uint32_t bytes);
uint64_t channel_signal(const struct channel *channel);
/* The payload of the next packet, within a second, else false. */
bool channel_get(struct channel *channel, struct vmbus_packet *ret, void *payload, uint32_t room);
/* One command; the SRB that came back (in *ret). False: nothing came. */
bool storage_command(struct channel *channel, uint8_t lun, const void *cdb, uint8_t cdb_bytes,
		     uint8_t direction, void *data, uint32_t bytes, struct vstor_srb *ret);
static inline volatile uint32_t *ring_word(uint8_t *ring, uint32_t word)
{
	return (volatile uint32_t *)(void *)(ring + word);
}
/* Pages that follow each other. */
void *new_pages(unsigned count);
