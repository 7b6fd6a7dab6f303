/*
 * A channel to another machine (docs/sharing.md), from a program in a Linux guest, by
 * uio_hv_generic: the rings, the window in which the other machine's pages appear, and sleeping
 * until there is a packet. The kernel is unmodified (6.1 and later were tried); the program is
 * root's. For programs of one's own that are written as the examples beside it.
 *
 * One thread.
 */
#pragma once

#include "abi/guid_layout.h"
#include "abi/share.h"
#include "guest/umbra_channel.h"
#include "lib/brief_wait.h"

struct uio_channel {
	struct umbra_channel channel;
	int fd;
	volatile uint32_t *pending; /* of the monitor page: this channel's group */
	uint32_t bit;
	uint8_t *rings, *monitor, *window, *memory;
	const uint8_t *read_only; /* as many pages as the window; NULL: the host is of a version
				     without */
	size_t rings_bytes, window_bytes, memory_bytes;
	uint32_t window_pages;
	uint64_t last_transaction;
	bool peer_is_there, has_look;
	struct brief_wait brief; /* for the next packet */
	char place[320]; /* of the device in sysfs */
	char uio[64];    /* the name of its device */
};

/*
 * The number-th channel of this class, which no program has open; its driver becomes
 * uio_hv_generic, whose module is loaded. 0; -ENOENT: there is none; -EPROTO: the host and this
 * program have no version in common; another error of a call.
 */
int uio_channel_open(struct uio_channel *channel, struct guid class, unsigned number);
void uio_channel_close(struct uio_channel *channel);
/* Waits as long as the ring is full. 0, -EMSGSIZE, -EPROTO. */
int uio_channel_send(struct uio_channel *channel, const void *data, uint32_t bytes, uint32_t lend);
/*
 * The next message, waiting so many milliseconds (-1: for any time): its bytes; 0: none came;
 * -EPROTO: the ring makes no sense any more; -EIO: the host has taken the channel away. `room`: at
 * least SHARE_MESSAGE_BYTES. What it says of the other end is in peer_is_there as well.
 */
int uio_channel_receive(struct uio_channel *channel, struct umbra_packet *ret, void *to,
			uint32_t room, int timeout_ms);
/* A number for a completion that is wanted; never 0. */
uint64_t uio_channel_transaction(struct uio_channel *channel);
/*
 * So much memory that can be lent: pages of the driver's, which the kernel does not move as it
 * moves a program's own, locked or not. NULL: more than it has (16 MiB), or no memory. The same
 * each time.
 */
uint8_t *uio_channel_memory(struct uio_channel *channel, size_t bytes);
/* The page numbers of such memory. 0; -errno. */
int uio_channel_pages(const void *memory, uint32_t pages, uint64_t *ret_gfn);
/* Which window it is now (struct share_window_word): 0, none of the other machine's. */
uint64_t uio_channel_window_number(const struct uio_channel *channel);
