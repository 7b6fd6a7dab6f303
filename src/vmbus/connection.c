/*
 * The connection: versions, offers, and what the guest asks about channels and GPADLs.
 *
 *   not connected --INITIATE_CONTACT--> connected --REQUEST_OFFERS--> offered --UNLOAD--> not connected
 *
 *  1. A guest's message is acted upon only when the outbox has room for all that it can cause; otherwise the post is refused with
 *     -EAGAIN (HV_INSUFFICIENT_BUFFERS), which guests repeat. So bus_post() always finds room.
 *  2. Messages leave in the order in which they were posted, to the processor that the guest named when it connected.
 *  3. INITIATE_CONTACT of a guest that is connected ends the connection first, as its reboot or kexec needs.
 *  4. What makes no sense is counted and has no effect: the protocol has no answer for it.
 */
#include "vmbus_internal.h"

#include <stdio.h>
#include <stdlib.h>

static const uint32_t versions[] = { VMBUS_2_4, VMBUS_3_0, VMBUS_4_0, VMBUS_4_1, VMBUS_5_0, VMBUS_5_1, VMBUS_5_2, VMBUS_5_3 };

/* ---- the outbox; with host->lock ---- */

static void send_waiting(struct bus *b)
{
	while (b->outbox_used) {
		const struct message *m = &b->outbox[b->outbox_first];

		if (!b->host->post(b->host->context, b->vp_index, m->payload, m->bytes))
			return;
		b->outbox_first = (b->outbox_first + 1) % OUTBOX;
		b->outbox_used--;
	}
}

void bus_messages_taken(struct bus *b) { send_waiting(b); }

void bus_post(struct bus *b, const void *payload, size_t bytes)
{
	pthread_mutex_lock(b->host->lock);
	if (b->outbox_used < OUTBOX) {
		struct message *m = &b->outbox[(b->outbox_first + b->outbox_used++) % OUTBOX];

		m->bytes = (uint8_t)bytes;
		memcpy(m->payload, payload, bytes);
	}
	send_waiting(b);
	pthread_mutex_unlock(b->host->lock);
}

static bool has_room(struct bus *b)
{
	bool room;

	pthread_mutex_lock(b->host->lock);
	room = OUTBOX - b->outbox_used > b->channels + 1;
	pthread_mutex_unlock(b->host->lock);
	return room;
}

/* ---- life of a connection ---- */

static void disconnect(struct bus *b)
{
	for (unsigned n = 0; n < b->channels; n++)
		channel_close(&b->channel[n]);
	gpadl_drop_all(b);
	b->version = 0;
	b->offered = false;
}

static bool is_version(uint32_t version)
{
	for (size_t n = 0; n < sizeof(versions) / sizeof(versions[0]); n++)
		if (versions[n] == version)
			return true;
	return false;
}

/* Since 5.0 the guest says which SINT and which trust level it listens at: only these are there. */
static bool is_contact(const struct bus *b, const struct vmbus_contact *c)
{
	if (!is_version(c->version) || c->vp_index >= b->host->cpus)
		return false;
	return c->version < VMBUS_5_0 || (c->interrupt_page & 0xffff) == VMBUS_SINT;
}

static bool initiate_contact(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_version_response r = { .head.kind = VMBUS_VERSION_RESPONSE };
	struct vmbus_contact c;

	if (bytes < sizeof(c))
		return false;
	memcpy(&c, payload, sizeof(c));
	disconnect(b);
	pthread_mutex_lock(b->host->lock);
	b->outbox_used = 0; /* what was said to the one before */
	b->vp_index = c.vp_index < b->host->cpus ? c.vp_index : 0;
	pthread_mutex_unlock(b->host->lock);
	r.supported = is_contact(b, &c);
	r.connection = c.version < VMBUS_5_0 ? c.version : VMBUS_CONNECTION;
	b->version = r.supported ? c.version : 0;
	bus_post(b, &r, sizeof(r));
	return true;
}

static void offer(struct bus *b, const struct bus_channel *c)
{
	struct vmbus_offer o = { .head.kind = VMBUS_OFFER, .type = c->service->type, .instance = c->service->instance, .relid = c->relid,
				 .monitor_id = 0xff, .dedicated_interrupt = 1, .connection = VMBUS_CONNECTION_CHANNEL + c->relid };

	bus_post(b, &o, sizeof(o));
}

static bool request_offers(struct bus *b)
{
	const struct vmbus_head end = { .kind = VMBUS_ALL_OFFERS_DELIVERED };

	if (b->offered)
		return false;
	b->offered = true;
	for (unsigned n = 0; n < b->channels; n++)
		offer(b, &b->channel[n]);
	bus_post(b, &end, sizeof(end));
	return true;
}

static bool unload(struct bus *b)
{
	const struct vmbus_head end = { .kind = VMBUS_UNLOAD_RESPONSE };

	disconnect(b);
	bus_post(b, &end, sizeof(end));
	return true;
}

/* ---- channels ---- */

struct bus_channel *bus_find_channel(struct bus *b, uint32_t relid) { return relid - 1 < b->channels ? &b->channel[relid - 1] : NULL; }

static bool open_channel(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_open o;
	struct vmbus_open_result r = { .head.kind = VMBUS_OPEN_RESULT };

	if (bytes < sizeof(o))
		return false;
	memcpy(&o, payload, sizeof(o));
	r.relid = o.relid;
	r.open_id = o.open_id;
	r.status = channel_open(b, &o);
	bus_post(b, &r, sizeof(r));
	return !r.status;
}

static bool close_channel(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_relid m;
	struct bus_channel *c;

	if (bytes < sizeof(m))
		return false;
	memcpy(&m, payload, sizeof(m));
	c = bus_find_channel(b, m.relid);
	if (!c || !c->open)
		return false;
	channel_close(c);
	return true;
}

static bool modify_channel(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_modify_response r = { .head.kind = VMBUS_MODIFY_CHANNEL_RESPONSE };
	struct vmbus_modify m;
	struct bus_channel *c;

	if (bytes < sizeof(m) || b->version < VMBUS_4_1)
		return false;
	memcpy(&m, payload, sizeof(m));
	c = bus_find_channel(b, m.relid);
	r.relid = m.relid;
	r.status = !c || !c->open || m.vp_index >= b->host->cpus ? STATUS_UNSUCCESSFUL : 0;
	if (!r.status) {
		bus_channel_lock(c);
		c->vp_index = m.vp_index;
		bus_channel_unlock(c);
	}
	if (b->version >= VMBUS_5_3)
		bus_post(b, &r, sizeof(r));
	return !r.status;
}

static bool dispatch(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_head head;

	if (bytes < sizeof(head))
		return false;
	memcpy(&head, payload, sizeof(head));
	if (head.kind == VMBUS_INITIATE_CONTACT)
		return initiate_contact(b, payload, bytes);
	if (!b->version)
		return false;
	switch (head.kind) {
	case VMBUS_REQUEST_OFFERS: return request_offers(b);
	case VMBUS_OPEN: return open_channel(b, payload, bytes);
	case VMBUS_CLOSE: return close_channel(b, payload, bytes);
	case VMBUS_GPADL_HEADER: return gpadl_header(b, payload, bytes);
	case VMBUS_GPADL_BODY: return gpadl_body(b, payload, bytes);
	case VMBUS_GPADL_TEARDOWN: return gpadl_teardown(b, payload, bytes);
	case VMBUS_UNLOAD: return unload(b);
	case VMBUS_MODIFY_CHANNEL: return modify_channel(b, payload, bytes);
	default: return false; /* RELID_RELEASED too: nothing is rescinded */
	}
}

int bus_message(struct bus *b, uint32_t connection, uint32_t type, const uint8_t *payload, size_t bytes)
{
	if (connection != VMBUS_CONNECTION_OLD && connection != VMBUS_CONNECTION)
		return -ENOENT;
	if (type != VMBUS_MESSAGE_TYPE)
		return -EINVAL;
	pthread_mutex_lock(&b->lock);
	if (!has_room(b)) {
		pthread_mutex_unlock(&b->lock);
		return -EAGAIN;
	}
	b->messages++;
	b->bad_messages += !dispatch(b, payload, bytes);
	pthread_mutex_unlock(&b->lock);
	return 0;
}

/* ---- the bus ---- */

struct bus *bus_create(const struct bus_host *host)
{
	struct bus *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->host = host;
	pthread_mutex_init(&b->lock, NULL);
	for (unsigned n = 0; n < BUS_CHANNELS; n++) {
		b->channel[n].bus = b;
		b->channel[n].relid = n + 1;
		pthread_mutex_init(&b->channel[n].lock, NULL);
	}
	return b;
}

void bus_destroy(struct bus *b)
{
	if (b) {
		gpadl_drop_all(b);
		free(b);
	}
}

struct bus_channel *bus_offer(struct bus *b, const struct bus_service *service)
{
	if (b->channels == BUS_CHANNELS)
		return NULL;
	b->channel[b->channels].service = service;
	return &b->channel[b->channels++];
}

size_t bus_statistics(const struct bus *b, char *text, size_t bytes)
{
	int used = snprintf(text, bytes, "bus: version %u.%u, %lu messages, %lu without effect, %lu channels broken\n", b->version >> 16, b->version & 0xffff,
			    b->messages, b->bad_messages, b->broken);

	for (unsigned n = 0; n < b->channels && used > 0 && (size_t)used < bytes; n++)
		used += snprintf(text + used, bytes - (size_t)used, "  channel %u: %lu packets, %lu interrupts\n", n + 1, b->channel[n].packets, b->channel[n].signals);
	return used < 0 ? 0 : (size_t)used < bytes ? (size_t)used : bytes - 1;
}

/* ---- the unit ---- */

static void unit_destroy(void *self) { bus_destroy(self); }
static size_t unit_statistics(const void *self, char *text, size_t bytes) { return bus_statistics(self, text, bytes); }

const struct unit_ops bus_unit = { .name = "bus", .destroy = unit_destroy, .statistics = unit_statistics };
