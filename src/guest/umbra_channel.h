/*
 * libumbra: an open channel of the partition bus, as a guest's program drives it: packets in the
 * two rings, and the messages of a channel to another machine (abi/share.h, docs/sharing.md). C
 * without libc, at any privilege level; who opened the channel gives the rings and a way to signal
 * the host: code at privilege level 0 by a hypercall, a program in Linux by the monitor page
 * (driver/uio_channel.h).
 *
 * One thread. The host's words are read once and checked: where they make no sense there is no
 * packet any more (UMBRA_CHANNEL_BROKEN).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum umbra_channel_status {
	UMBRA_CHANNEL_DONE,
	UMBRA_CHANNEL_NONE = -1, /* no packet is there */
	UMBRA_CHANNEL_FULL = -2, /* no room in the ring now */
	UMBRA_CHANNEL_BROKEN = -3,
	UMBRA_CHANNEL_LONG = -4, /* too long for the ring, or for `room` */
};

struct umbra_channel {
	/* each a control page and, behind it, so many bytes of data */
	uint8_t *send, *receive;
	uint32_t send_bytes, receive_bytes;
	uint32_t written, read; /* this side's own indices; both rings are new: 0 */
	void (*signal)(void *context);
	void *context;
};

/* A packet's head: what kind, and by which number its completion is known. */
struct umbra_packet { uint16_t type, flags; uint64_t transaction; };
/* Pages of the guest's that it names: bytes from `offset` in the first one on. */
struct umbra_pages { const uint64_t *gfn; uint32_t bytes, offset; };

/*
 * Puts a packet into the ring, and signals where the host waits for it. pages: NULL, or what it
 * names. UMBRA_CHANNEL_DONE, _FULL, _LONG.
 */
int umbra_channel_put(struct umbra_channel *channel, const struct umbra_packet *packet,
		      const struct umbra_pages *pages, const void *payload, uint32_t bytes);
/* The next packet: how many bytes it has, which are at `to`; UMBRA_CHANNEL_NONE, _BROKEN, _LONG. */
int umbra_channel_get(struct umbra_channel *channel, struct umbra_packet *ret, void *to,
		      uint32_t room);
/* Whether there is one. */
bool umbra_channel_has_packet(const struct umbra_channel *channel);
/* Whether the host interrupts when it puts one. Look for packets once after asking. */
void umbra_channel_want_interrupts(struct umbra_channel *channel, bool wants);

/*
 * Messages of a channel to another machine. transaction: of the completion that is wanted; 0: none
 * is. What comes is read with umbra_channel_get(): struct share_head and what belongs to it.
 */
int umbra_share_ask_version(struct umbra_channel *channel, uint64_t transaction);
/* To the other end; lend: an access to what was lent by this number begins; 0: none. */
int umbra_share_send(struct umbra_channel *channel, uint64_t transaction, uint32_t lend,
		     const void *data, uint32_t bytes);
/*
 * Whole pages of RAM; flags: SHARE_ONCE, and SHARE_READ_ONLY where the version is SHARE_1_2. The
 * completion has the number by which they are known.
 */
int umbra_share_lend(struct umbra_channel *channel, uint64_t transaction, const uint64_t *gfn,
		     uint32_t pages, uint32_t flags);
/* An access to what the other end has lent has ended. */
int umbra_share_release(struct umbra_channel *channel, uint64_t transaction, uint32_t lend);
/* Nobody else is to have them any more; flags: SHARE_NOW. The completion says that it is so. */
int umbra_share_end(struct umbra_channel *channel, uint64_t transaction, uint32_t lend,
		    uint32_t flags);
