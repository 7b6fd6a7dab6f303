/* Channels: opening, closing, and the loop that brings packets from the guest's ring to the service. */
#include "vmbus_internal.h"

void bus_channel_lock(struct bus_channel *c) { pthread_mutex_lock(&c->lock); }
void bus_channel_unlock(struct bus_channel *c) { pthread_mutex_unlock(&c->lock); }

/* Each ring has a control page and at least one of data. */
static bool is_division(const struct gpadl *g, uint32_t host_ring_page)
{
	return g->pages <= RING_PAGES_MAX && host_ring_page >= 2 && host_ring_page < g->pages && g->pages - host_ring_page >= 2;
}

uint32_t channel_open(struct bus *b, const struct vmbus_open *o)
{
	struct bus_channel *c = bus_find_channel(b, o->relid);
	const struct gpadl *g = c ? gpadl_find(b, o->gpadl, o->relid) : NULL;

	if (!g || c->open || !is_division(g, o->host_ring_page) || o->vp_index >= b->host->cpus)
		return STATUS_UNSUCCESSFUL;
	bus_channel_lock(c);
	c->gpadl = g->id;
	c->vp_index = o->vp_index;
	c->in = (struct bus_ring){ .gfn = g->gfn, .bytes = (o->host_ring_page - 1) * PAGE_BYTES };
	c->out = (struct bus_ring){ .gfn = g->gfn + o->host_ring_page, .bytes = (g->pages - o->host_ring_page - 1) * PAGE_BYTES };
	c->broken = c->no_room = false;
	c->open = true;
	c->service->opened(c->service->context);
	bus_channel_unlock(c);
	return 0;
}

void channel_close(struct bus_channel *c)
{
	bus_channel_lock(c);
	if (c->open)
		c->service->closed(c->service->context);
	c->open = false;
	bus_channel_unlock(c);
}

void channel_signal(struct bus_channel *c)
{
	const struct bus_host *host = c->bus->host;

	c->signals++;
	pthread_mutex_lock(host->lock);
	host->signal(host->context, c->vp_index, c->relid);
	pthread_mutex_unlock(host->lock);
}

static void break_channel(struct bus_channel *c)
{
	if (!c->broken)
		__atomic_fetch_add(&c->bus->broken, 1, __ATOMIC_RELAXED);
	c->broken = true;
}

/* 1: there may be more; 0; -EBADMSG. */
static int serve_one(struct bus_channel *c)
{
	struct bus_packet p;
	int got;

	guest_memory_begin();
	got = bus_ring_take(c, &p);
	if (got <= 0)
		return got;
	c->packets++;
	got = c->service->packet(c->service->context, &p);
	return got || c->broken || bus_ring_taken(c) ? -EBADMSG : 1; /* an answer may have broken it */
}

static bool is_ready(const struct bus_channel *c) { return !c->service->ready || c->service->ready(c->service->context); }

static void defer(struct bus_channel *c)
{
	__atomic_store_n(&c->again, true, __ATOMIC_SEQ_CST);
	c->bus->host->defer(c->bus->host->context);
}

/*
 * The guest need not signal while packets are taken: the mask says so. What came before it was lifted is found by a last look. It stays
 * where somebody will come back anyway: when the service is ready again, or who was deferred to.
 */
static int serve(struct bus_channel *c)
{
	uint64_t until = __builtin_ia32_rdtsc() + c->bus->host->slice_tsc;
	int got;

	do {
		if (bus_ring_set_mask(c, 1))
			return -EBADMSG;
		while ((got = serve_one(c)) > 0) {
			if (!is_ready(c))
				return 0;
			if (__builtin_ia32_rdtsc() < until)
				continue;
			defer(c);
			return 0;
		}
		if (got < 0 || bus_ring_set_mask(c, 0))
			return -EBADMSG;
		guest_memory_begin();
		got = bus_ring_has_packet(c);
	} while (got > 0);
	return got;
}

static void run_locked(struct bus_channel *c)
{
	__atomic_store_n(&c->again, false, __ATOMIC_SEQ_CST);
	if (c->open && !c->broken && c->no_room) {
		guest_memory_begin();
		c->no_room = false;
		if (c->service->room)
			c->service->room(c->service->context);
	}
	if (c->open && !c->broken && is_ready(c) && serve(c))
		break_channel(c);
}

void bus_channel_run(struct bus_channel *c)
{
	bus_channel_lock(c);
	run_locked(c);
	bus_channel_unlock(c);
}

int bus_event(struct bus *b, uint32_t connection, uint16_t flag)
{
	uint32_t relid = connection - VMBUS_CONNECTION_CHANNEL;
	struct bus_channel *c = connection < VMBUS_CONNECTION_CHANNEL ? NULL : bus_find_channel(b, relid);

	if (!c)
		return -ENOENT;
	if (flag)
		return -EINVAL;
	/* whoever has the channel may be about to leave it, or copying megabytes: a processor does not wait for that */
	if (c->service->elsewhere || pthread_mutex_trylock(&c->lock)) {
		defer(c);
		return 0;
	}
	run_locked(c);
	bus_channel_unlock(c);
	return 0;
}

void bus_run(struct bus *b)
{
	for (unsigned n = 0; n < b->channels; n++)
		if (__atomic_load_n(&b->channel[n].again, __ATOMIC_SEQ_CST))
			bus_channel_run(&b->channel[n]);
}

int bus_channel_send(struct bus_channel *c, uint16_t type, uint64_t transaction, const void *payload, size_t bytes)
{
	int error = c->open && !c->broken ? bus_ring_put(c, type, transaction, payload, bytes) : -ENOTCONN;

	if (error == -EBADMSG)
		break_channel(c);
	c->no_room |= error == -EAGAIN;
	return error == -EBADMSG ? -ENOTCONN : error;
}
