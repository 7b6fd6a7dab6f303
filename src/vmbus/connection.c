/*
 * The connection: versions, offers, and what the guest asks about channels and GPADLs.
 *
 *   not connected --INITIATE_CONTACT--> connected --REQUEST_OFFERS--> offered --UNLOAD--> not
 *   connected
 *
 *  1. A guest's message is acted upon only when the outbox has room for all that it can cause;
 *     otherwise the post is refused with -EAGAIN (HV_INSUFFICIENT_BUFFERS), which guests repeat. So
 *     bus_post() always finds room.
 *  2. Messages leave in the order in which they were posted, to the processor that the guest named
 *     when it connected.
 *  3. INITIATE_CONTACT of a guest that is connected ends the connection first, as its reboot or
 *     kexec needs.
 *  4. What makes no sense is counted and has no effect: the protocol has no answer for it.
 */
#include "vmbus_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/check.h"

enum { CONTACT_SINT_BITS = 0xffff, NO_MONITOR = 0xff, MONITOR_TO_HOST = 1 };

static const uint32_t versions[] = { VMBUS_2_4, VMBUS_3_0, VMBUS_4_0, VMBUS_4_1,
				     VMBUS_5_0, VMBUS_5_1, VMBUS_5_2, VMBUS_5_3 };

bool bus_is_version(uint32_t version)
{
	for (size_t n = 0; n < sizeof(versions) / sizeof(versions[0]); n++)
		if (versions[n] == version)
			return true;
	return false;
}

void check_connection(const struct bus *bus)
{
	assert(!bus->version || bus_is_version(bus->version));
	assert(bus->version || !bus->offered);
	assert(bus->channels <= BUS_CHANNELS && bus->vp_index < bus->host->cpus);
	assert(bus->outbox_used <= OUTBOX_MESSAGES && bus->outbox_first < OUTBOX_MESSAGES);
	for (unsigned n = 0; n < FIRST_SUB + bus->subs; n++) {
		const struct bus_channel *channel = &bus->channel[n];

		assert(bus->version || channel->state == CHANNEL_CLOSED);
		assert(!channel->rescind_unsaid || channel->rescinded); /* late.c */
	}
}

void check_bus(const struct bus *bus)
{
	check_connection(bus);
	check_gpadls(bus);
	for (unsigned n = 0; n < bus->channels; n++)
		check_channel(&bus->channel[n]);
	check_subs(bus);
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++)
		check_channel(&bus->channel[n]);
}

/* ---- the outbox; with host->lock ---- */

static void post_waiting(struct bus *bus)
{
	while (bus->outbox_used) {
		const struct outbox_message *message = &bus->outbox[bus->outbox_first];

		if (!bus->host->post(bus->host->context, bus->vp_index, message->payload,
				     message->bytes))
			return;
		bus->outbox_first = (bus->outbox_first + 1) % OUTBOX_MESSAGES;
		bus->outbox_used--;
	}
}

void bus_messages_taken(struct bus *bus)
{
	post_waiting(bus);
	if (__atomic_load_n(&bus->subs_due, __ATOMIC_SEQ_CST))
		bus->host->defer(bus->host->context);
}

void bus_post(struct bus *bus, const void *payload, size_t bytes)
{
	struct outbox_message *message;

	assert(bytes <= BUS_MESSAGE_BYTES);
	pthread_mutex_lock(bus->host->lock);
	assert(bus->outbox_used < OUTBOX_MESSAGES);
	message = &bus->outbox[(bus->outbox_first + bus->outbox_used) % OUTBOX_MESSAGES];
	bus->outbox_used++;
	message->bytes = (uint8_t)bytes;
	memcpy(message->payload, payload, bytes);
	post_waiting(bus);
	pthread_mutex_unlock(bus->host->lock);
}

bool bus_has_room(struct bus *bus, unsigned messages)
{
	bool room;

	pthread_mutex_lock(bus->host->lock);
	room = OUTBOX_MESSAGES - bus->outbox_used > messages;
	pthread_mutex_unlock(bus->host->lock);
	return room;
}

/* ---- life of a connection ---- */

static void disconnect(struct bus *bus)
{
	sub_release_all(bus);
	for (unsigned n = 0; n < bus->channels; n++)
		channel_close(&bus->channel[n]);
	late_release_all(bus);
	gpadl_drop_all(bus);
	bus_set_monitor(bus, 0);
	bus->version = 0;
	bus->offered = false;
}

/* Since 5.0 the guest says which SINT and which trust level it listens at: only these are there. */
static bool is_contact(const struct bus *bus, const struct vmbus_contact *contact)
{
	if (!bus_is_version(contact->version) || contact->vp_index >= bus->host->cpus)
		return false;
	return contact->version < VMBUS_5_0 ||
	       (contact->interrupt_page & CONTACT_SINT_BITS) == VMBUS_SINT;
}

static bool initiate_contact(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_version_response response = { .head.kind = VMBUS_VERSION_RESPONSE };
	struct vmbus_contact contact;

	if (bytes < sizeof(contact))
		return false;
	memcpy(&contact, payload, sizeof(contact));
	disconnect(bus);
	pthread_mutex_lock(bus->host->lock);
	bus->outbox_used = 0; /* what was said to the one before */
	bus->vp_index = contact.vp_index < bus->host->cpus ? contact.vp_index : 0;
	pthread_mutex_unlock(bus->host->lock);
	response.supported = is_contact(bus, &contact);
	response.connection = contact.version < VMBUS_5_0 ? contact.version : VMBUS_CONNECTION;
	bus->version = response.supported ? contact.version : 0;
	bus_set_monitor(bus, response.supported ? contact.monitor_page[MONITOR_TO_HOST] : 0);
	bus_post(bus, &response, sizeof(response));
	return true;
}

void bus_post_offer(struct bus *bus, const struct bus_channel *channel)
{
	const bool is_monitored = channel->service->is_monitored;
	struct vmbus_offer offer = {
		.head.kind = VMBUS_OFFER,
		.type = channel->service->type,
		.instance = channel->service->instance,
		.flags = channel->service->offer_flags,
		.mmio_mib = channel->service->offer_mmio_mib,
		.sub_channel = channel->number,
		.relid = channel->relid,
		.monitor_id = is_monitored ? (uint8_t)(channel->relid - 1) : NO_MONITOR,
		.has_monitor = is_monitored,
		.dedicated_interrupt = 1,
		.connection = VMBUS_CONNECTION_CHANNEL + channel->relid,
	};

	memcpy(offer.user_data, channel->service->user_data, BUS_USER_BYTES);
	bus_post(bus, &offer, sizeof(offer));
}

static bool request_offers(struct bus *bus)
{
	const struct vmbus_head end = { .kind = VMBUS_ALL_OFFERS_DELIVERED };

	if (bus->offered)
		return false;
	bus->offered = true;
	for (unsigned n = 0; n < bus->channels; n++)
		bus_post_offer(bus, &bus->channel[n]);
	bus_post(bus, &end, sizeof(end));
	return true;
}

static bool unload(struct bus *bus)
{
	const struct vmbus_head end = { .kind = VMBUS_UNLOAD_RESPONSE };

	disconnect(bus);
	bus_post(bus, &end, sizeof(end));
	return true;
}

/* ---- channels ---- */

struct bus_channel *bus_find_channel(struct bus *bus, uint32_t relid)
{
	const uint32_t place = relid - 1;
	struct bus_channel *channel;

	if (place >= CHANNELS)
		return NULL;
	channel = &bus->channel[speculation_bound(place, CHANNELS)];
	return __atomic_load_n(&channel->there, __ATOMIC_ACQUIRE) ? channel : NULL;
}

static bool open_channel(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_open open;
	struct vmbus_open_result result = { .head.kind = VMBUS_OPEN_RESULT };

	if (bytes < sizeof(open))
		return false;
	memcpy(&open, payload, sizeof(open));
	result.relid = open.relid;
	result.open_id = open.open_id;
	result.status = channel_open(bus, &open);
	bus_post(bus, &result, sizeof(result));
	return !result.status;
}

static bool close_channel(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_relid request;
	struct bus_channel *channel;

	if (bytes < sizeof(request))
		return false;
	memcpy(&request, payload, sizeof(request));
	channel = bus_find_channel(bus, request.relid);
	if (!channel || channel->state == CHANNEL_CLOSED)
		return false;
	channel_close(channel);
	return true;
}

static bool release_channel(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_relid request;

	if (bytes < sizeof(request))
		return false;
	memcpy(&request, payload, sizeof(request));
	return late_release(bus, request.relid);
}

/* Its interrupts go to another processor. */
static uint32_t retarget(struct bus *bus, const struct vmbus_modify *request)
{
	struct bus_channel *channel = bus_find_channel(bus, request->relid);

	if (!channel || channel->state == CHANNEL_CLOSED || request->vp_index >= bus->host->cpus)
		return STATUS_UNSUCCESSFUL;
	bus_channel_lock(channel);
	channel->vp_index = request->vp_index;
	bus_channel_unlock(channel);
	return 0;
}

static bool modify_channel(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_modify_response response = { .head.kind = VMBUS_MODIFY_CHANNEL_RESPONSE };
	struct vmbus_modify request;

	if (bytes < sizeof(request) || bus->version < VMBUS_4_1)
		return false;
	memcpy(&request, payload, sizeof(request));
	response.relid = request.relid;
	response.status = retarget(bus, &request);
	if (bus->version >= VMBUS_5_3)
		bus_post(bus, &response, sizeof(response));
	return !response.status;
}

static bool dispatch(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_head head;

	if (bytes < sizeof(head))
		return false;
	memcpy(&head, payload, sizeof(head));
	if (head.kind == VMBUS_INITIATE_CONTACT)
		return initiate_contact(bus, payload, bytes);
	if (!bus->version)
		return false;
	switch (head.kind) {
	case VMBUS_REQUEST_OFFERS: return request_offers(bus);
	case VMBUS_OPEN: return open_channel(bus, payload, bytes);
	case VMBUS_CLOSE: return close_channel(bus, payload, bytes);
	case VMBUS_GPADL_HEADER: return gpadl_header(bus, payload, bytes);
	case VMBUS_GPADL_BODY: return gpadl_body(bus, payload, bytes);
	case VMBUS_GPADL_TEARDOWN: return gpadl_teardown(bus, payload, bytes);
	case VMBUS_UNLOAD: return unload(bus);
	case VMBUS_MODIFY_CHANNEL: return modify_channel(bus, payload, bytes);
	case VMBUS_RELID_RELEASED: return release_channel(bus, payload, bytes);
	case VMBUS_TL_CONNECT: return late_connect(bus, payload, bytes);
	default: return false;
	}
}

int bus_message(struct bus *bus, uint32_t connection, uint32_t type, const uint8_t *payload,
		size_t bytes)
{
	if (connection != VMBUS_CONNECTION_OLD && connection != VMBUS_CONNECTION)
		return -ENOENT;
	if (type != VMBUS_MESSAGE_TYPE)
		return -EINVAL;
	pthread_mutex_lock(&bus->lock);
	if (!bus_has_room(bus, OUTBOX_RESERVE)) {
		pthread_mutex_unlock(&bus->lock);
		return -EAGAIN;
	}
	bus->messages++;
	if (!dispatch(bus, payload, bytes))
		bus->bad_messages++;
	late_say(bus);
	pthread_mutex_unlock(&bus->lock);
	return 0;
}

/* ---- the bus ---- */

static void locks_make(struct bus *bus)
{
	pthread_mutex_init(&bus->lock, NULL);
	pthread_mutex_init(&bus->pages_lock, NULL);
	for (unsigned n = 0; n < FIRST_SUB; n++)
		pthread_mutex_init(&bus->channel[n].lock, NULL);
}

uint64_t bus_now_100ns(const struct bus *bus) { return bus->host->now_100ns(bus->host->context); }

struct bus *bus_create(const struct bus_host *host)
{
	struct bus *bus = calloc(1, sizeof(*bus));

	assert(host->post && host->signal && host->memory_written && host->defer && host->lock &&
	       host->memory && host->cpus);
	if (!bus)
		return NULL;
	bus->host = host;
	locks_make(bus);
	for (unsigned n = 0; n < FIRST_SUB; n++) {
		bus->channel[n].bus = bus;
		bus->channel[n].first = &bus->channel[n];
		bus->channel[n].relid = n + 1;
	}
	return bus;
}

/* The last of all: its services may be freed already, and none of them is called again. */
void bus_destroy(struct bus *bus)
{
	if (!bus)
		return;
	for (unsigned n = 0; n < FIRST_SUB + bus->subs; n++)
		bus->channel[n].service = NULL;
	gpadl_drop_all(bus);
	free(bus);
}

struct bus_channel *bus_offer(struct bus *bus, const struct bus_service *service)
{
	assert(service->opened && service->closed && service->packet && !bus->version);
	if (bus->channels == BUS_CHANNELS)
		return NULL;
	bus->channel[bus->channels].service = service;
	bus->channel[bus->channels].there = true;
	return &bus->channel[bus->channels++];
}

size_t bus_statistics(const struct bus *bus, char *text, size_t bytes)
{
	int used = snprintf(
		text, bytes,
		"bus: version %u.%u, %lu messages, %lu without effect, %lu channels broken\n",
		bus->version >> 16, bus->version & 0xffff, bus->messages, bus->bad_messages,
		bus->broken);

	for (unsigned n = 0; n < FIRST_SUB + bus->subs && used > 0 && (size_t)used < bytes; n++) {
		const struct bus_channel *channel = &bus->channel[n];

		if (n < bus->channels || n >= FIRST_SUB)
			used += snprintf(text + used, bytes - (size_t)used,
					 "  channel %u: %lu packets, %lu interrupts\n", n + 1,
					 channel->packets, channel->signals);
	}
	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

/* ---- the unit ---- */

static void unit_destroy(void *self) { bus_destroy(self); }
/* None is held; a page with one that is as it was made stays shared with the parent's. */
static void unit_forked(void *self)
{
	static const pthread_mutex_t made = PTHREAD_MUTEX_INITIALIZER;
	struct bus *bus = self;

	pthread_mutex_init(&bus->lock, NULL);
	pthread_mutex_init(&bus->pages_lock, NULL);
	for (unsigned n = 0; n < FIRST_SUB; n++)
		if (memcmp(&bus->channel[n].lock, &made, sizeof(made)))
			pthread_mutex_init(&bus->channel[n].lock, NULL);
}
static void unit_archive(struct archive *archive, void *self) { bus_archive(archive, self); }
static void unit_restored(void *self) { bus_restored(self); }
static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	return bus_statistics(self, text, bytes);
}

const struct unit_ops bus_unit = {
	.name = "bus", .section = UNIT_SECTION('B', 'U', 'S', ' '), .forked = unit_forked,
	.destroy = unit_destroy,
	.archive = unit_archive,
	.restored = unit_restored, .statistics = unit_statistics,
};
