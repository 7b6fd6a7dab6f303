/*
 * Channels: opening, closing, and the loop that brings packets from the guest's ring to the
 * service.
 *
 *   closed --OPEN--> open --what cannot be understood--> broken          CLOSE, and what ends the
 *                                                                        connection: closed
 *
 *  1. Only channel_move() changes the state, under the channel's lock, and only as the table says.
 *  2. An open or broken channel has rings in a complete GPADL of its own; a broken one is not
 *     looked at any more.
 */
#include "vmbus_internal.h"

#include <assert.h>

#include "lib/check.h"

#define TO(state) (1u << (state))
static const unsigned may_become[CHANNEL_STATES] = {
	[CHANNEL_CLOSED] = TO(CHANNEL_OPEN),
	[CHANNEL_OPEN] = TO(CHANNEL_BROKEN) | TO(CHANNEL_CLOSED),
	[CHANNEL_BROKEN] = TO(CHANNEL_CLOSED),
};

void check_channel(const struct bus_channel *channel)
{
	assert(channel->state < CHANNEL_STATES && channel->service);
	assert(channel == &channel->bus->channel[channel->relid - 1]);
	if (channel->state == CHANNEL_CLOSED)
		return;
	check_ring_of_guest(&channel->in);
	check_ring(&channel->out);
	assert(channel->out.gfn == channel->in.gfn + channel->host_ring_page);
	assert(channel->vp_index < channel->bus->host->cpus);
	assert(__atomic_load_n(&channel->there, __ATOMIC_RELAXED));
}

void channel_move(struct bus_channel *channel, enum channel_state to)
{
	assert(may_become[channel->state] & TO(to));
	channel->state = to;
	__atomic_store_n(&channel->is_open, to == CHANNEL_OPEN, __ATOMIC_RELEASE);
	CHECK(check_channel(channel));
}

/* ---- signals that are held; the first channel's lock ---- */

/* As they were when the lock was had: which processor, and of which channel. */
struct held_signals {
	unsigned count;
	struct { uint32_t vp_index, relid; } of[1 + BUS_SUBS];
};

static void take_signal(struct bus_channel *channel, struct held_signals *held)
{
	if (!channel || !channel->signal_due)
		return;
	channel->signal_due = false;
	held->of[held->count].vp_index = channel->vp_index;
	held->of[held->count++].relid = channel->relid;
}

static void take_signals(struct bus_channel *first, struct held_signals *ret)
{
	ret->count = 0;
	if (!first->holds_signals)
		return;
	take_signal(first, ret);
	for (unsigned n = 0; n < first->subs_allowed; n++)
		take_signal(first->sub[n], ret);
}

/* One of a channel that was closed meanwhile its guest passes over. */
static void send_signals(const struct bus_host *host, const struct held_signals *held)
{
	for (unsigned n = 0; n < held->count; n++)
		host->signal(host->context, held->of[n].vp_index, held->of[n].relid);
}

void bus_channel_hold_signals(struct bus_channel *channel) { channel->first->holds_signals = true; }

void bus_channel_tell(struct bus_channel *channel)
{
	struct held_signals held;

	take_signals(channel->first, &held);
	send_signals(channel->bus->host, &held);
}

void bus_channel_lock(struct bus_channel *channel) { pthread_mutex_lock(&channel->first->lock); }

void bus_channel_unlock(struct bus_channel *channel)
{
	struct held_signals held;

	take_signals(channel->first, &held);
	channel->first->holds_signals = false;
	pthread_mutex_unlock(&channel->first->lock);
	send_signals(channel->bus->host, &held);
}

void bus_channel_wait(struct bus_channel *channel, pthread_cond_t *changed)
{
	assert(!channel->first->holds_signals);
	pthread_cond_wait(changed, &channel->first->lock);
}

static void channel_defer(struct bus_channel *channel)
{
	const struct bus_host *host = channel->bus->host;

	__atomic_store_n(&channel->again, true, __ATOMIC_SEQ_CST);
	host->defer(host->context);
}

/* ---- opening and closing ---- */

/* Each ring has a control page and at least one of data. */
bool channel_is_division(const struct gpadl *gpadl, uint32_t host_ring_page)
{
	if (gpadl->pages > RING_PAGES_MAX || host_ring_page >= gpadl->pages)
		return false;
	return host_ring_page >= 2 && gpadl->pages - host_ring_page >= 2;
}

void channel_lay_rings(struct bus_channel *channel, const struct gpadl *gpadl)
{
	uint32_t in_pages = channel->host_ring_page;

	assert(gpadl->complete && channel_is_division(gpadl, in_pages));
	channel->in = (struct bus_ring){ .gfn = gpadl->gfn, .bytes = (in_pages - 1) * PAGE_BYTES };
	channel->out = (struct bus_ring){
		.gfn = gpadl->gfn + in_pages, .bytes = (gpadl->pages - in_pages - 1) * PAGE_BYTES,
	};
}

uint32_t channel_open(struct bus *bus, const struct vmbus_open *open)
{
	struct bus_channel *channel = bus_find_channel(bus, open->relid);
	const struct gpadl *gpadl =
		channel ? gpadl_of_channel(bus, open->gpadl, open->relid) : NULL;

	if (!gpadl || channel->state != CHANNEL_CLOSED ||
	    !channel_is_division(gpadl, open->host_ring_page))
		return STATUS_UNSUCCESSFUL;
	/* there may be another one of its number by now */
	if (channel->number && channel->rescinded)
		return STATUS_UNSUCCESSFUL;
	if (open->vp_index >= bus->host->cpus)
		return STATUS_UNSUCCESSFUL;
	bus_channel_lock(channel);
	channel->gpadl = gpadl->id;
	channel->vp_index = open->vp_index;
	channel->host_ring_page = open->host_ring_page;
	channel->no_room = false;
	channel_lay_rings(channel, gpadl);
	channel_move(channel, CHANNEL_OPEN);
	channel->service->opened(channel->service->context);
	bus_channel_unlock(channel);
	if (channel->service->is_monitored) /* bus_monitor() is called by whom this wakes */
		channel_defer(channel);
	return 0;
}

void channel_close(struct bus_channel *channel)
{
	sub_close(channel);
	bus_channel_lock(channel);
	if (channel->state != CHANNEL_CLOSED) {
		channel->service->closed(channel->service->context);
		channel_move(channel, CHANNEL_CLOSED);
	}
	bus_channel_unlock(channel);
}

void channel_signal(struct bus_channel *channel)
{
	const struct bus_host *host = channel->bus->host;

	channel->signals++;
	__atomic_store_n(&channel->told, true, __ATOMIC_RELEASE);
	if (channel->first->holds_signals)
		channel->signal_due = true;
	else
		host->signal(host->context, channel->vp_index, channel->relid);
}

static void channel_break(struct bus_channel *channel)
{
	if (channel->state != CHANNEL_OPEN)
		return; /* an answer has broken it before */
	__atomic_fetch_add(&channel->bus->broken, 1, __ATOMIC_RELAXED);
	channel_move(channel, CHANNEL_BROKEN);
}

/* ---- packets to the service ---- */

/* 1: there may be more; 0; -EBADMSG. */
static int serve_packet(struct bus_channel *channel)
{
	struct bus_packet packet;
	int got;

	guest_memory_begin();
	got = bus_ring_take(channel, &packet);
	if (got <= 0)
		return got;
	channel->packets++;
	got = channel->service->packet(channel->service->context, &packet);
	if (got || channel->state == CHANNEL_BROKEN) /* an answer may have broken it */
		return -EBADMSG;
	if (bus_ring_keeps_much(channel) && bus_ring_taken(channel))
		return -EBADMSG;
	return 1;
}

static bool is_ready(const struct bus_channel *channel)
{
	return !channel->service->ready || channel->service->ready(channel->service->context);
}

/*
 * Takes packets until there are none, or (*ret_left) somebody will come back for the rest. 0 or
 * -EBADMSG.
 */
static int serve_packets(struct bus_channel *channel, uint64_t until_tsc, bool *ret_left)
{
	bool ready = true;
	int got = 0;

	*ret_left = false;
	while (!*ret_left && (got = serve_packet(channel)) > 0) {
		ready = is_ready(channel);
		*ret_left = !ready || __builtin_ia32_rdtsc() >= until_tsc;
	}
	if (got < 0 || bus_ring_taken(channel))
		return -EBADMSG;
	if (*ret_left && ready)
		channel_defer(channel);
	return 0;
}

/*
 * The guest need not signal while packets are taken: the mask says so. What came before it was
 * lifted is found by a last look. It stays where somebody will come back anyway: when the service
 * is ready again, or who was deferred to.
 */
static int serve_channel(struct bus_channel *channel)
{
	uint64_t until_tsc = __builtin_ia32_rdtsc() + channel->bus->host->slice_tsc;
	bool left;
	int got;

	do {
		if (bus_ring_set_mask(channel, 1))
			return -EBADMSG;
		got = serve_packets(channel, until_tsc, &left);
		if (got || left)
			return got;
		if (bus_ring_set_mask(channel, 0))
			return -EBADMSG;
		guest_memory_begin();
		got = bus_ring_has_packet(channel);
	} while (got > 0);
	return got;
}

static void run_locked(struct bus_channel *channel)
{
	__atomic_store_n(&channel->again, false, __ATOMIC_SEQ_CST);
	if (channel->state == CHANNEL_OPEN && channel->no_room) {
		guest_memory_begin();
		channel->no_room = false;
		if (channel->service->room)
			channel->service->room(channel->service->context);
	}
	if (channel->state == CHANNEL_OPEN && is_ready(channel) && serve_channel(channel))
		channel_break(channel);
	CHECK(check_channel(channel));
}

/* One that is not open has nothing in it, and of one that is broken nothing is taken any more. */
static bool is_drained(struct bus_channel *channel)
{
	return channel->state != CHANNEL_OPEN || bus_ring_is_drained(channel);
}

bool bus_channel_is_drained(struct bus_channel *first)
{
	bool drained;

	guest_memory_begin();
	drained = is_drained(first);
	for (unsigned n = 0; n < first->subs_allowed && drained; n++)
		drained = !first->sub[n] || is_drained(first->sub[n]);
	return drained;
}

void bus_channel_run(struct bus_channel *channel)
{
	bus_channel_lock(channel);
	run_locked(channel);
	for (unsigned n = 0; n < channel->subs_allowed; n++)
		if (channel->sub[n])
			run_locked(channel->sub[n]);
	bus_channel_unlock(channel);
}

/*
 * Whoever has the channel may be about to leave it, or copying megabytes: a processor does not wait
 * for that
 */
void channel_serve(struct bus_channel *channel)
{
	if (__atomic_load_n(&channel->service->elsewhere, __ATOMIC_RELAXED) ||
	    pthread_mutex_trylock(&channel->first->lock)) {
		channel_defer(channel);
		return;
	}
	run_locked(channel);
	bus_channel_unlock(channel);
}

int bus_event(struct bus *bus, uint32_t connection, uint16_t flag)
{
	struct bus_channel *channel = NULL;

	if (connection >= VMBUS_CONNECTION_CHANNEL)
		channel = bus_find_channel(bus, connection - VMBUS_CONNECTION_CHANNEL);
	if (!channel)
		return -ENOENT;
	if (flag)
		return -EINVAL;
	channel_serve(channel);
	return 0;
}

void bus_run(struct bus *bus)
{
	for (unsigned n = 0; n < FIRST_SUB + bus->subs; n++)
		if (__atomic_load_n(&bus->channel[n].again, __ATOMIC_SEQ_CST))
			bus_channel_run(&bus->channel[n]);
	if (!__atomic_load_n(&bus->subs_due, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&bus->lock);
	sub_offer(bus);
	pthread_mutex_unlock(&bus->lock);
}

/* ---- packets to the guest ---- */

static int channel_send(struct bus_channel *channel, uint16_t type, uint64_t transaction,
			const void *head, size_t head_bytes, const void *payload, size_t bytes)
{
	int error;

	assert(head_bytes + bytes <= BUS_SEND_BYTES);
	if (channel->state != CHANNEL_OPEN)
		return -ENOTCONN;
	error = bus_ring_put(channel, type, transaction, head, head_bytes, payload, bytes);
	assert(!error || error == -EAGAIN || error == -EBADMSG);
	if (error == -EBADMSG) {
		channel_break(channel);
		return -ENOTCONN;
	}
	channel->no_room |= error == -EAGAIN;
	return error;
}

int bus_channel_send(struct bus_channel *channel, uint16_t type, uint64_t transaction,
		     const void *payload, size_t bytes)
{
	return channel_send(channel, type, transaction, NULL, 0, payload, bytes);
}

int bus_channel_send_pieces(struct bus_channel *channel, uint64_t transaction, uint16_t page_set,
			    const struct bus_piece *pieces, unsigned count, const void *payload,
			    size_t bytes)
{
	struct { struct vmbus_transfer_pages pages; struct bus_piece piece[BUS_PIECES]; } head = {
		.pages = { .page_set = page_set, .ranges = count }
	};

	assert(count && count <= BUS_PIECES);
	memcpy(head.piece, pieces, count * sizeof(*pieces));
	return channel_send(channel, PACKET_TRANSFER_PAGES, transaction, &head,
		    sizeof(head.pages) + count * sizeof(*pieces), payload, bytes);
}
