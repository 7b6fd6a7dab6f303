/*
 * Channels that come while the guest runs, and go: connections between programs of the host and of
 * the guest (device/hvsock).
 *
 *   not there --bus_offer_late()--> there --bus_rescind()--> rescinded --RELID_RELEASED--> not
 *   there
 *
 * Those that are there from the beginning are only taken away to be offered again (bus_renew()).
 *
 *   - A place is used again only once the guest has let it go, or the connection has ended.
 *   - What was rescinded is said as soon as the outbox has room; a guest's own messages come first.
 *   - A service is not looked at any more once it was released; its channel's pointer to it stays,
 *     for who has found the channel just before.
 */
#include <assert.h>

#include "vmbus_internal.h"

/* With the bus's lock. */
static struct bus_channel *find_place(struct bus *bus)
{
	for (unsigned n = 0; n < BUS_LATE_CHANNELS; n++) {
		unsigned place = (bus->late + n) % BUS_LATE_CHANNELS;
		struct bus_channel *channel = &bus->channel[FIRST_LATE + place];

		if (channel->there)
			continue;
		bus->late = place + 1;
		return channel;
	}
	return NULL;
}

struct bus_channel *bus_offer_late(struct bus *bus, const struct bus_service *service)
{
	struct bus_channel *channel = NULL;

	assert(service->opened && service->closed && service->packet && service->released);
	pthread_mutex_lock(&bus->lock);
	if (bus->offered && bus_has_room(bus, OUTBOX_RESERVE))
		channel = find_place(bus);
	if (channel) {
		assert(channel->state == CHANNEL_CLOSED);
		bus_channel_lock(channel);
		channel->service = service;
		bus_channel_unlock(channel);
		channel->rescinded = channel->rescind_unsaid = false;
		__atomic_store_n(&channel->there, true, __ATOMIC_RELEASE);
		bus_post_offer(bus, channel);
	}
	pthread_mutex_unlock(&bus->lock);
	return channel;
}

/* ---- the end of one ---- */

void late_take_away(struct bus *bus, struct bus_channel *channel)
{
	if (!channel->there || (channel->rescinded && !channel->rescind_unsaid))
		return;
	sub_take_away(channel);
	channel->rescinded = channel->rescind_unsaid = true;
	late_say(bus);
}

void bus_rescind(struct bus_channel *channel)
{
	struct bus *bus = channel->bus;

	assert(channel->relid > FIRST_LATE && channel->relid <= FIRST_SUB);
	pthread_mutex_lock(&bus->lock);
	late_take_away(bus, channel);
	pthread_mutex_unlock(&bus->lock);
}

void bus_renew(struct bus_channel *channel)
{
	struct bus *bus = channel->bus;

	assert(channel->relid <= BUS_CHANNELS);
	pthread_mutex_lock(&bus->lock);
	if (bus->offered)
		late_take_away(bus, channel);
	pthread_mutex_unlock(&bus->lock);
}

static void say_rescind(struct bus *bus, struct bus_channel *channel)
{
	const struct vmbus_relid rescind = { .head.kind = VMBUS_RESCIND, .relid = channel->relid };

	channel->rescind_unsaid = false;
	bus_post(bus, &rescind, sizeof(rescind));
}

/* Drivers forget a device with its first channel: its sub-channels, the last ones, go before. */
void late_say(struct bus *bus)
{
	for (unsigned n = FIRST_SUB + bus->subs; n-- > 0;) {
		if (!bus->channel[n].rescind_unsaid)
			continue;
		if (!bus_has_room(bus, OUTBOX_RESERVE))
			return;
		say_rescind(bus, &bus->channel[n]);
	}
}

static void release(struct bus *bus, struct bus_channel *channel)
{
	channel_close(channel);
	gpadl_drop_of_channel(bus, channel->relid);
	channel->rescind_unsaid = false;
	__atomic_store_n(&channel->there, false, __ATOMIC_RELEASE);
	channel->service->released(channel->service->context);
}

void late_release_all(struct bus *bus)
{
	for (unsigned n = 0; n < BUS_CHANNELS; n++)
		bus->channel[n].rescinded = bus->channel[n].rescind_unsaid = false;
	for (unsigned n = FIRST_LATE; n < FIRST_SUB; n++)
		if (bus->channel[n].there)
			release(bus, &bus->channel[n]);
}

static void renew(struct bus *bus, struct bus_channel *channel)
{
	channel_close(channel);
	gpadl_drop_of_channel(bus, channel->relid);
	channel->rescinded = channel->rescind_unsaid = false;
	bus_post_offer(bus, channel);
}

bool late_release(struct bus *bus, uint32_t relid)
{
	struct bus_channel *channel = bus_find_channel(bus, relid);

	/* one that was not taken away yet is still the host's to give */
	if (!channel || !channel->rescinded)
		return false;
	if (relid <= BUS_CHANNELS)
		renew(bus, channel);
	else if (channel->number)
		sub_release(bus, channel);
	else
		release(bus, channel);
	return true;
}

/* ---- after a restore ---- */

/* What stood behind it stayed with the bus that was saved; whatever the guest puts in is lost. */
static void nobody(void *context) { (void)context; }
static int nobody_takes(void *context, const struct bus_packet *packet)
{
	(void)context;
	(void)packet;
	return 0;
}

static const struct bus_service gone = {
	.opened = nobody, .closed = nobody, .packet = nobody_takes, .released = nobody
};

void late_restore(struct bus *bus, uint32_t relid)
{
	struct bus_channel *channel = &bus->channel[relid - 1];

	assert(relid > FIRST_LATE && relid <= FIRST_SUB && !channel->there);
	channel->service = &gone;
	channel->rescinded = channel->rescind_unsaid = true;
	channel->there = true;
}

void bus_go_on(struct bus *bus)
{
	pthread_mutex_lock(&bus->lock);
	late_say(bus);
	pthread_mutex_unlock(&bus->lock);
}

/* ---- the guest asks ---- */

void bus_set_connector(struct bus *bus, const struct bus_connector *connector)
{
	assert(!bus->version);
	bus->connector = connector;
}

bool late_connect(const struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_tl_connect request;

	if (bytes < sizeof(request) || bus->version < VMBUS_4_0 || !bus->connector)
		return false;
	memcpy(&request, payload, sizeof(request));
	bus->connector->connect(bus->connector->context, request.endpoint, request.service);
	return true;
}

void bus_refuse_connect(struct bus *bus, struct guid endpoint, struct guid service)
{
	const struct vmbus_tl_connect_result result = { .head.kind = VMBUS_TL_CONNECT_RESULT,
							.endpoint = endpoint,
							.service = service,
							.status = STATUS_UNSUCCESSFUL };

	pthread_mutex_lock(&bus->lock);
	if (bus->offered && bus_has_room(bus, OUTBOX_RESERVE))
		bus_post(bus, &result, sizeof(result));
	pthread_mutex_unlock(&bus->lock);
}
