/*
 * Sub-channels: further channels of a device, which its guest's driver asks for by the device's own
 * protocol once the first is open, and opens like others.
 *
 *   not there --bus_want_subs(), room--> offered --the first is closed, or taken away--> rescinded
 *   --RELID_RELEASED--> not there
 *
 *  1. Which places a device's are, its services, and whose lock they share never changes once the
 *     guest runs: who has found a channel needs no lock to lock it.
 *  2. Each number has two places, since a driver that opens its device anew asks again before it
 *     has let the old ones go. first->sub[] is the one that is offered, or still served.
 *  3. What is wanted and finds no room in the outbox, or no place, is offered as soon as it does:
 *     `subs_due`.
 */
#include <assert.h>

#include "vmbus_internal.h"

enum { PLACES_EACH = 2 };

/* ---- before the guest runs ---- */

static void place_make(struct bus *bus, struct bus_channel *first, unsigned number)
{
	const unsigned index = FIRST_SUB + bus->subs++;
	struct bus_channel *channel = &bus->channel[index];

	channel->bus = bus;
	channel->relid = index + 1;
	channel->first = first;
	channel->number = (uint16_t)number;
	channel->service = &first->sub_service[number - 1];
}

unsigned bus_allow_subs(struct bus_channel *first, const struct bus_service *services,
			unsigned count)
{
	struct bus *bus = first->bus;

	assert(!bus->version && first->first == first && !first->subs_allowed);
	if (count > bus->host->cpus - 1)
		count = bus->host->cpus - 1;
	if (count > BUS_SUBS)
		count = BUS_SUBS;
	first->sub_service = services;
	first->subs_allowed = count;
	for (unsigned n = 0; n < PLACES_EACH * count; n++)
		place_make(bus, first, n % count + 1);
	return count;
}

/* ---- the device asks ---- */

static void make_due(struct bus *bus)
{
	__atomic_store_n(&bus->subs_due, true, __ATOMIC_SEQ_CST);
	bus->host->defer(bus->host->context);
}

unsigned bus_want_subs(struct bus_channel *first, unsigned count)
{
	if (first->state != CHANNEL_OPEN || first->subs_wanted)
		return 0;
	first->subs_wanted = count < first->subs_allowed ? count : first->subs_allowed;
	if (first->subs_wanted)
		make_due(first->bus);
	return first->subs_wanted;
}

struct bus_channel *bus_channel_sub(struct bus_channel *first, unsigned number)
{
	struct bus_channel *channel = first;

	assert(number <= first->subs_allowed);
	if (number)
		channel = first->sub[number - 1];
	return channel && channel->state == CHANNEL_OPEN ? channel : NULL;
}

/* ---- offers; with the bus's lock ---- */

/* NULL: the guest has not let them go. */
static struct bus_channel *find_place(struct bus *bus, const struct bus_channel *first,
				      unsigned number)
{
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++) {
		struct bus_channel *channel = &bus->channel[n];

		if (channel->first == first && channel->number == number && !channel->there)
			return channel;
	}
	return NULL;
}

/* False: there is no room. With the channel's lock, too. */
static bool offer_one(struct bus *bus, struct bus_channel *first, unsigned number)
{
	struct bus_channel *channel = find_place(bus, first, number);

	if (!channel || !bus_has_room(bus, OUTBOX_RESERVE))
		return false;
	assert(channel->state == CHANNEL_CLOSED);
	channel->rescinded = channel->rescind_unsaid = false;
	first->sub[number - 1] = channel;
	__atomic_store_n(&channel->there, true, __ATOMIC_RELEASE);
	bus_post_offer(bus, channel);
	return true;
}

static bool offer_wanted(struct bus *bus, struct bus_channel *first)
{
	bool good = true;

	bus_channel_lock(first);
	for (unsigned n = 1; n <= first->subs_wanted && good; n++)
		if (!first->sub[n - 1])
			good = offer_one(bus, first, n);
	bus_channel_unlock(first);
	return good;
}

void sub_offer(struct bus *bus)
{
	bool good = true;

	if (!__atomic_exchange_n(&bus->subs_due, false, __ATOMIC_SEQ_CST))
		return;
	for (unsigned n = 0; n < bus->channels && good; n++)
		if (bus->channel[n].subs_allowed)
			good = offer_wanted(bus, &bus->channel[n]);
	if (!good)
		__atomic_store_n(&bus->subs_due, true, __ATOMIC_SEQ_CST);
}

/* ---- the end of them; with the bus's lock ---- */

static void want_none(struct bus_channel *first)
{
	bus_channel_lock(first);
	first->subs_wanted = 0;
	bus_channel_unlock(first);
}

static void forget(struct bus_channel *channel)
{
	struct bus_channel **sub = &channel->first->sub[channel->number - 1];

	bus_channel_lock(channel);
	if (*sub == channel)
		*sub = NULL;
	bus_channel_unlock(channel);
}

void sub_take_away(struct bus_channel *first)
{
	struct bus *bus = first->bus;

	if (!first->subs_allowed)
		return;
	want_none(first);
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++)
		if (bus->channel[n].first == first)
			late_take_away(bus, &bus->channel[n]);
}

void sub_close(struct bus_channel *first)
{
	struct bus *bus = first->bus;

	if (!first->subs_allowed)
		return;
	sub_take_away(first);
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++) {
		struct bus_channel *channel = &bus->channel[n];

		if (channel->first != first || !channel->there)
			continue;
		channel_close(channel);
		forget(channel);
	}
}

void sub_release(struct bus *bus, struct bus_channel *channel)
{
	channel_close(channel);
	forget(channel);
	gpadl_drop_of_channel(bus, channel->relid);
	channel->rescinded = channel->rescind_unsaid = false;
	__atomic_store_n(&channel->there, false, __ATOMIC_RELEASE);
	if (__atomic_load_n(&bus->subs_due, __ATOMIC_SEQ_CST))
		bus->host->defer(bus->host->context);
}

void sub_release_all(struct bus *bus)
{
	for (unsigned n = 0; n < bus->channels; n++)
		if (bus->channel[n].subs_allowed)
			want_none(&bus->channel[n]);
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++)
		if (bus->channel[n].there)
			sub_release(bus, &bus->channel[n]);
	__atomic_store_n(&bus->subs_due, false, __ATOMIC_SEQ_CST);
}

/* ---- after a restore ---- */

bool sub_restore(struct bus *bus, uint32_t relid)
{
	struct bus_channel *channel;

	if (relid <= FIRST_SUB || relid > FIRST_SUB + bus->subs)
		return false;
	channel = &bus->channel[relid - 1];
	assert(!channel->there && channel->state == CHANNEL_CLOSED);
	channel->there = true;
	return true;
}

bool sub_restored(struct bus_channel *channel)
{
	struct bus_channel *first = channel->first;

	if (channel->rescinded && channel->state == CHANNEL_CLOSED)
		return true;
	if (first->sub[channel->number - 1] || first->state == CHANNEL_CLOSED ||
	    (!channel->rescinded && channel->number > first->subs_wanted))
		return false;
	first->sub[channel->number - 1] = channel;
	return true;
}

void check_subs(const struct bus *bus)
{
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++) {
		const struct bus_channel *channel = &bus->channel[n];
		const struct bus_channel *first = channel->first;

		assert(channel->number && channel->number <= first->subs_allowed);
		assert(first->first == first && first->subs_wanted <= first->subs_allowed);
		assert(channel->there || channel->state == CHANNEL_CLOSED);
		assert(channel->state == CHANNEL_CLOSED ||
		       first->sub[channel->number - 1] == channel);
		assert(channel->state == CHANNEL_CLOSED || first->state != CHANNEL_CLOSED);
	}
}
