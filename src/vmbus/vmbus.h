/*
 * The partition bus (VMBus) of one machine: the guest connects, is offered channels, gives each a
 * pair of rings in its own memory, and talks through them with the service that stands behind the
 * channel. docs/bus.md.
 *
 *   guest's message -> bus_message() -> connection.c, gpadl.c       guest's event -> bus_event() ->
 *                                                                   channel.c -> service's packet()
 *
 * Locks, in this order: the bus's own (connection, GPADLs, which channel is open), a channel's (its
 * rings, and the service behind it), host->lock (messages that wait, interrupts). Functions here
 * are called without any of them unless they say so. Last of all, of pages that GPADLs name: a lock
 * under which nothing else is taken.
 *
 *  1. A channel's rings are fixed when it is opened: page numbers are copied, sizes checked.
 *     Afterwards the guest can change only the words of the control pages, which are read once and
 *     checked each time, and the bytes of packets, which are copied.
 *  2. What cannot be understood breaks the channel: nothing more is taken from it or put into it
 *     until the guest closes it.
 *  3. Whatever a guest can make grow has a limit here: GPADLs and their pages, messages that wait,
 *     packets.
 *  4. When a channel has been closed, or a GPADL torn down, nobody touches the guest's memory for
 *     it any more.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/guid.h"
#include "lib/unit.h"
#include "memory/memory.h"

struct bus;
struct bus_channel;

/*
 * Channels that are offered before the guest runs, and those that come and go (bus_offer_late());
 * of a packet from the guest, and of one to it. hv_balloon fills a page behind the head with ranges
 * when there is nothing left to give up but single pages.
 */
enum {
	BUS_CHANNELS = 16,
	BUS_LATE_CHANNELS = 64,
	/* of one device beside its first, and of all, with those that guests have not let go yet */
	BUS_SUBS = 7,
	BUS_SUB_CHANNELS = 2 * BUS_SUBS * BUS_CHANNELS,
	BUS_MESSAGE_BYTES = 240,
	BUS_PACKET_BYTES = 8192,
	BUS_SEND_BYTES = 16 + (16 << 10),
	BUS_RANGES = 40,
	BUS_USER_BYTES = 8
};

struct bus_host {
	/*
	 * With the lock: a message (SINT 2) for a processor; false: no room now,
	 * bus_messages_taken() comes.
	 */
	bool (*post)(void *context, uint32_t vp_index, const void *payload, size_t bytes);
	/* An event flag; it takes the lock itself, and wakes nobody who would wait for that. */
	void (*signal)(void *context, uint32_t vp_index, unsigned flag);
	/* Guest memory was written. */
	void (*memory_written)(void *context, uint64_t gpa, size_t bytes);
	/* There is work for bus_run(), which is called on another thread than this. */
	void (*defer)(void *context);
	/* The partition's reference time, which goes on where a machine was saved or forked. */
	uint64_t (*now_100ns)(void *context);
	void *context;
	pthread_mutex_t *lock;
	const struct guest_memory *memory;
	unsigned cpus;
	/* how long a processor's own thread may serve a channel before it defers the rest */
	uint64_t slice_tsc;
};

/*
 * Bytes of the guest's memory, as it names them in a packet: bytes from offset in the first page
 * on.
 */
struct bus_range { uint32_t bytes, offset; const uint64_t *gfn; };

/* How many pages it names. */
static inline uint64_t bus_range_pages(const struct bus_range *range)
{
	return ((uint64_t)range->offset + range->bytes + GUEST_PAGE_BYTES - 1) / GUEST_PAGE_BYTES;
}

/* A copy; its pointers are good until packet() returns. */
struct bus_packet {
	uint16_t type, flags;
	uint64_t transaction;
	const uint8_t *payload;
	size_t payload_bytes;
	unsigned ranges;
	struct bus_range range[BUS_RANGES]; /* so many of them are set */
};

/*
 * What stands behind a channel; all but `context` is called with the channel's lock, and may use
 * the functions that say so.
 */
struct bus_service {
	struct guid type, instance;
	void (*opened)(void *context);
	void (*closed)(void *context);
	/*
	 * False: no packet can be taken now; bus_channel_run() when that has changed. NULL: always.
	 */
	bool (*ready)(void *context);
	/* 0; -EBADMSG: not of the service's protocol, the channel is broken. */
	int (*packet)(void *context, const struct bus_packet *packet);
	/* A GPADL's pages are taken away. NULL: bus_channel_gpadl() is never asked for any. */
	void (*gpadl_gone)(void *context, uint32_t gpadl);
	/* Packets that could not be sent may find room now. NULL: they are not sent again. */
	void (*room)(void *context);
	/*
	 * Of a late channel: the guest has let it go, or is not there any more; nothing of it is
	 * called again. With the bus's lock alone.
	 */
	void (*released)(void *context);
	/* Its packets are always left to bus_run(): they take long. */
	bool elsewhere;
	/* The guest may say by its monitor page that there are some (bus_monitor()). */
	bool is_monitored;
	/* What its offer says beside (abi/vmbus_layout.h). */
	uint16_t offer_flags, offer_mmio_mib;
	uint8_t user_data[BUS_USER_BYTES];
	void *context;
};

/* The unit: a struct bus. */
extern const struct unit_ops bus_unit;

/* NULL: no memory. */
struct bus *bus_create(const struct bus_host *host);
/* By the machine's clock, for who names things by it. */
uint64_t bus_now_100ns(const struct bus *bus);
void bus_destroy(struct bus *bus);
/* Before the guest runs. NULL: BUS_CHANNELS are there. The service stays where it is. */
struct bus_channel *bus_offer(struct bus *bus, const struct bus_service *service);

/*
 * One that comes while the guest runs, and goes with the connection or by bus_rescind(). NULL: the
 * guest has not asked for offers, BUS_LATE_CHANNELS are there, or messages wait for it.
 */
struct bus_channel *bus_offer_late(struct bus *bus, const struct bus_service *service);
/* Takes a late channel away; released() once the guest has let it go. Again: says it again where
 * there was no room. */
void bus_rescind(struct bus_channel *channel);
/*
 * Takes a channel away that was offered before the guest ran, and offers it anew once the guest has
 * let it go: what its device says of itself has changed. Of a guest that has not asked for offers
 * nothing: it hears of it when it does.
 */
void bus_renew(struct bus_channel *channel);

/*
 * Before the guest runs: a device may have so many further channels (sub-channels), but no more
 * than there are processors beside the first, nor than BUS_SUBS; how many. Of the number-th the
 * service is services[number - 1], which stays where it is; its channel's lock is the first one's,
 * and it ends with that.
 */
unsigned bus_allow_subs(struct bus_channel *first, const struct bus_service *services,
			unsigned count);
/*
 * With the lock: the guest asks for so many of them; how many it gets, soon. Once until the first
 * is closed.
 */
unsigned bus_want_subs(struct bus_channel *first, unsigned count);
/* With the lock: the number-th, 0 is the first; NULL: not open. */
struct bus_channel *bus_channel_sub(struct bus_channel *first, unsigned number);

/* The guest asks for a connection to a service of the host's (hv_sock). With the bus's lock. */
struct bus_connector {
	void (*connect)(void *context, struct guid endpoint, struct guid service);
	void *context;
};
/* Before the guest runs. It stays where it is. */
void bus_set_connector(struct bus *bus, const struct bus_connector *connector);
/* That nothing came of it. Guests wait no longer than they want: one may not hear of it. */
void bus_refuse_connect(struct bus *bus, struct guid endpoint, struct guid service);

/* hv_host's message and event; 0, -ENOENT, -EAGAIN, -EINVAL. */
int bus_message(struct bus *bus, uint32_t connection, uint32_t type, const uint8_t *payload,
		size_t bytes);
int bus_event(struct bus *bus, uint32_t connection, uint16_t flag);
/* With host->lock. */
void bus_messages_taken(struct bus *bus);
/* Serves every channel that was deferred. */
void bus_run(struct bus *bus);
/*
 * Serves every channel of which the guest's monitor page says that there is something. Nobody tells
 * the host of a change of that page: whoever calls this calls it again, unless it is
 * BUS_MONITOR_NONE, which changes when such a channel opens (host->defer()). BUS_MONITOR_ASKED:
 * the guest was told something, to which it may answer. BUS_MONITOR_BUSY: there was something.
 */
enum bus_monitor { BUS_MONITOR_NONE, BUS_MONITOR_QUIET, BUS_MONITOR_ASKED, BUS_MONITOR_BUSY };
enum bus_monitor bus_monitor(struct bus *bus);

/*
 * Whether a GPADL names one of these pages: what a device may use is not given back to the host.
 * Any thread, with whatever locks.
 */
bool bus_holds_pages(struct bus *bus, uint64_t gfn, uint64_t pages);

void bus_channel_lock(struct bus_channel *channel);
/*
 * With the channel's lock: that there are packets for the guest it hears once the lock is given
 * back, or at bus_channel_tell(), and once for all of them. A processor that was woken earlier
 * would wait for who has the lock, or be interrupted for each packet.
 */
void bus_channel_hold_signals(struct bus_channel *channel);
void bus_channel_tell(struct bus_channel *channel);
void bus_channel_unlock(struct bus_channel *channel);
/* With the channel's lock, which is given up meanwhile. */
void bus_channel_wait(struct bus_channel *channel, pthread_cond_t *changed);
/*
 * With the channel's lock: a completion or another packet without ranges. 0; -EAGAIN: no room,
 * room() is called; -ENOTCONN: not open, or broken.
 */
int bus_channel_send(struct bus_channel *channel, uint16_t type, uint64_t transaction,
		     const void *payload, size_t bytes);
/* Bytes of a buffer whose pages the guest has named before, as a transfer page packet has them. */
struct bus_piece { uint32_t bytes, offset; };
/*
 * The same, for a packet that points to pieces of a GPADL which the guest knows by a number of its
 * own (`page_set`): at most BUS_PIECES.
 */
enum { BUS_PIECES = 64 };
int bus_channel_send_pieces(struct bus_channel *channel, uint64_t transaction, uint16_t page_set,
			    const struct bus_piece *pieces, unsigned count, const void *payload,
			    size_t bytes);
/*
 * With the channel's lock: the pages of a complete GPADL of this channel, good until gpadl_gone();
 * NULL: there is none, or it was one too many.
 */
const uint64_t *bus_channel_gpadl(struct bus_channel *channel, uint32_t gpadl, uint32_t *ret_pages);
/*
 * Takes packets, of its sub-channels as well, until there are none, the service is not ready, or
 * the time is up. Without the lock.
 */
void bus_channel_run(struct bus_channel *channel);
/*
 * With the channel's lock: whether both sides have taken all packets, of its sub-channels as well.
 */
bool bus_channel_is_drained(struct bus_channel *first);
/*
 * Copies from and to the pages of a range; 0 or -EFAULT. With the channel's lock. at + bytes lies
 * in the range.
 */
int bus_range_read(struct bus_channel *channel, const struct bus_range *range, uint32_t at,
		   void *to, uint32_t bytes);
int bus_range_write(struct bus_channel *channel, const struct bus_range *range, uint32_t at,
		    const void *from, uint32_t bytes);
/*
 * The connection, its GPADLs and channels as bytes and back: into a new bus with the same services,
 * in the same order. Nothing of it may run meanwhile. Then bus_restored(): what waits in the
 * guest's rings is looked at.
 */
void bus_archive(struct archive *archive, struct bus *bus);
void bus_restored(struct bus *bus);
/* Of one that was restored, once its guest may run: says which late channels are gone. */
void bus_go_on(struct bus *bus);
/*
 * Every invariant of the bus, its connection, GPADLs, channels and rings. Under no lock, while
 * nothing of it runs.
 */
void check_bus(const struct bus *bus);
/* Counters as text; the length without the NUL. */
size_t bus_statistics(const struct bus *bus, char *text, size_t bytes);
