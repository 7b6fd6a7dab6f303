/*
 * A bus as bytes and back: the connection, messages that wait, GPADLs, and of each channel its
 * state, its rings' geometry and indices.
 *
 *  1. Whatever a service keeps for its channel is in the service's own archive.
 *  2. What is loaded passes the checks that the guest's own messages pass, and is a bus of which
 *     check_bus() holds.
 *     One that was saved before there were the last channels has the others alone: its guest hears
 *     of these when it asks for offers again.
 *  3. Counters are not saved: they are the host's.
 *  4. Of version 1 there are no sub-channels.
 *  5. Of late channels only is saved that they are there: what they lead to stays behind. Where the
 *     bus goes on they are taken away, and the guest sees its connections end.
 */
#include "vmbus_internal.h"

#include <assert.h>

#include "lib/archive.h"

static void outbox_archive(struct archive *archive, struct bus *bus)
{
	uint32_t count = bus->outbox_used;

	archive_u32(archive, &count);
	if (!archive_check(archive, count <= OUTBOX_MESSAGES))
		return;
	if (archive->loading) {
		bus->outbox_first = 0;
		bus->outbox_used = count;
	}
	for (uint32_t n = 0; n < count; n++) {
		struct outbox_message *message =
			&bus->outbox[(bus->outbox_first + n) % OUTBOX_MESSAGES];

		archive_u8(archive, &message->bytes);
		if (!archive_check(archive, message->bytes <= BUS_MESSAGE_BYTES))
			return;
		archive_bytes(archive, message->payload, message->bytes);
	}
}

static void connection_archive(struct archive *archive, struct bus *bus)
{
	archive_u32(archive, &bus->version);
	archive_bool(archive, &bus->offered);
	archive_u32(archive, &bus->vp_index);
	archive_check(archive, !bus->version || bus_is_version(bus->version));
	archive_check(archive, bus->version || !bus->offered);
	archive_check(archive, bus->vp_index < bus->host->cpus);
	outbox_archive(archive, bus);
}

/* ---- GPADLs ---- */

static void gpadl_archive(struct archive *archive, struct bus *bus, struct gpadl *gpadl)
{
	struct gpadl head = { .id = 0 };

	if (gpadl)
		head = *gpadl;
	archive_u32(archive, &head.id);
	archive_u32(archive, &head.relid);
	archive_u32(archive, &head.pages);
	archive_u32(archive, &head.have);
	if (!archive_check(archive, head.have <= head.pages))
		return;
	if (archive->loading) {
		gpadl = gpadl_make(bus, head.id, head.relid, head.pages);
		if (!archive_check(archive, gpadl))
			return;
		gpadl->have = head.have;
		gpadl->complete = head.have == head.pages;
	}
	archive_u64s(archive, gpadl->gfn, head.have);
	if (archive->loading && !archive->error && gpadl->complete)
		gpadl_completed(bus, gpadl);
}

static void gpadls_archive(struct archive *archive, struct bus *bus)
{
	uint32_t count = 0;

	for (unsigned n = 0; n < GPADLS; n++)
		count += bus->gpadl[n].used;
	archive_u32(archive, &count);
	archive_check(archive, count <= GPADLS);
	if (archive->loading) {
		for (uint32_t n = 0; n < count && !archive->error; n++)
			gpadl_archive(archive, bus, NULL);
		return;
	}
	for (unsigned n = 0; n < GPADLS; n++)
		if (bus->gpadl[n].used)
			gpadl_archive(archive, bus, &bus->gpadl[n]);
}

/* ---- channels ---- */

/* While loading: whether a channel can have been opened so. */
static bool channel_restore(struct bus *bus, struct bus_channel *channel, uint32_t in_index,
			    uint32_t out_index)
{
	const struct gpadl *gpadl = gpadl_of_channel(bus, channel->gpadl, channel->relid);

	if (!gpadl || !channel_is_division(gpadl, channel->host_ring_page) ||
	    channel->vp_index >= bus->host->cpus)
		return false;
	channel_lay_rings(channel, gpadl);
	if (in_index >= channel->in.bytes || in_index % RING_ALIGNMENT)
		return false;
	if (out_index >= channel->out.bytes || out_index % RING_ALIGNMENT)
		return false;
	channel->in.index = channel->in.written = channel->in.kept = in_index;
	channel->out.index = out_index;
	return true;
}

static void channel_archive(struct archive *archive, struct bus *bus, struct bus_channel *channel)
{
	struct guid type = channel->service->type;
	uint32_t in_index = channel->in.index;
	uint32_t out_index = channel->out.index;
	uint8_t state = (uint8_t)channel->state;

	archive_bytes(archive, &type, sizeof(type));
	archive_u8(archive, &state);
	archive_bool(archive, &channel->rescinded);
	archive_bool(archive, &channel->rescind_unsaid);
	archive_check(archive, channel->rescinded || !channel->rescind_unsaid);
	archive_check(archive, bus->offered || !channel->rescinded);
	if (!archive_check(archive, !memcmp(&type, &channel->service->type, sizeof(type)) &&
					    state < CHANNEL_STATES))
		return;
	if (state == CHANNEL_CLOSED)
		return;
	archive_bool(archive, &channel->no_room);
	archive_u32(archive, &channel->gpadl);
	archive_u32(archive, &channel->host_ring_page);
	archive_u32(archive, &channel->vp_index);
	archive_u32(archive, &in_index);
	archive_u32(archive, &out_index);
	if (!archive->loading || archive->error)
		return;
	if (!archive_check(archive,
			   bus->version && channel_restore(bus, channel, in_index, out_index)))
		return;
	channel_move(channel, CHANNEL_OPEN);
	if (state == CHANNEL_BROKEN)
		channel_move(channel, CHANNEL_BROKEN);
}

/* Their relids, in order. */
static void late_archive(struct archive *archive, struct bus *bus)
{
	uint32_t count = 0;
	uint32_t before = FIRST_LATE;

	for (unsigned n = FIRST_LATE; n < FIRST_SUB; n++)
		count += bus->channel[n].there;
	archive_u32(archive, &count);
	archive_check(archive, count <= BUS_LATE_CHANNELS && (bus->offered || !count));
	for (uint32_t n = 0; n < count && !archive->error; n++) {
		uint32_t relid = before + 1;

		while (!archive->loading && !bus->channel[relid - 1].there)
			relid++;
		archive_u32(archive, &relid);
		if (!archive_check(archive, relid > before && relid <= FIRST_SUB))
			return;
		if (archive->loading)
			late_restore(bus, relid);
		before = relid;
	}
}

/* Which are there, before the GPADLs that name them. */
static void subs_archive(struct archive *archive, struct bus *bus)
{
	uint32_t count = 0;
	uint32_t before = FIRST_SUB;

	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++)
		count += bus->channel[n].there;
	archive_u32(archive, &count);
	archive_check(archive, count <= bus->subs && (bus->offered || !count));
	for (uint32_t n = 0; n < count && !archive->error; n++) {
		uint32_t relid = before + 1;

		while (!archive->loading && !bus->channel[relid - 1].there)
			relid++;
		archive_u32(archive, &relid);
		if (!archive_check(archive, relid > before))
			return;
		if (archive->loading)
			archive_check(archive, sub_restore(bus, relid));
		before = relid;
	}
}

static void wanted_archive(struct archive *archive, struct bus_channel *first)
{
	uint32_t wanted = first->subs_wanted;

	if (!first->subs_allowed)
		return;
	archive_u32(archive, &wanted);
	if (!archive_check(archive, wanted <= first->subs_allowed &&
					    (!wanted || first->state != CHANNEL_CLOSED)))
		return;
	first->subs_wanted = wanted;
}

static void sub_states_archive(struct archive *archive, struct bus *bus)
{
	for (unsigned n = 0; n < bus->channels && !archive->error; n++)
		wanted_archive(archive, &bus->channel[n]);
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs && !archive->error; n++) {
		struct bus_channel *channel = &bus->channel[n];

		if (!channel->there)
			continue;
		channel_archive(archive, bus, channel);
		if (archive->loading && !archive->error)
			archive_check(archive, sub_restored(channel));
	}
}

void bus_archive(struct archive *archive, struct bus *bus)
{
	uint32_t channels = bus->channels;

	assert(!archive->loading || (!bus->version && !bus->gpadl_pages));
	connection_archive(archive, bus);
	late_archive(archive, bus);
	if (archive->version != 1)
		subs_archive(archive, bus);
	gpadls_archive(archive, bus);
	archive_u32(archive, &channels);
	archive_check(archive, channels <= bus->channels && (bus->version || !bus->gpadl_pages));
	for (unsigned n = 0; n < channels && !archive->error; n++)
		channel_archive(archive, bus, &bus->channel[n]);
	if (archive->version != 1)
		sub_states_archive(archive, bus);
}

void bus_restored(struct bus *bus)
{
	for (unsigned n = FIRST_SUB; n < FIRST_SUB + bus->subs; n++)
		if (bus->channel[n].state == CHANNEL_OPEN)
			__atomic_store_n(&bus->channel[n].again, true, __ATOMIC_SEQ_CST);
	__atomic_store_n(&bus->subs_due, true, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < bus->channels; n++)
		if (bus->channel[n].state == CHANNEL_OPEN)
			__atomic_store_n(&bus->channel[n].again, true, __ATOMIC_SEQ_CST);
	bus->host->defer(bus->host->context);
	check_bus(bus);
}
