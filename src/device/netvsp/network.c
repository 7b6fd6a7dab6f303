/* See network.h: the channel's life, NVSP, the link, and the unit. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/vmbus_layout.h"
#include "lib/archive.h"
#include "lib/check.h"
#include "network_internal.h"

#define NETWORK_TYPE \
	GUID(0xf8615163, 0xdf3e, 0x46c5, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e)
#define NETWORK_INSTANCE(number) \
	GUID(0x6a1f0c52, 0x3d1b, 0x4c77, 0xa0, 0x58, 0x75, 0x6d, 0x62, 0x72, 0x61, 0x10 + (number))

enum {
	DEFAULT_MTU = 1500,
	MDL_CHAIN = 34,
	CONTROL_BYTES = 1024,
	/* of RNDIS messages in one packet (rndis.c), each of which needs a slot */
	SLOTS_PER_PACKET = 8,
	SEND_SLOTS = NET_SLOTS - NET_RECEIVE_SLOTS,
};

static const uint32_t versions[] = { NVSP_6_1, NVSP_6, NVSP_5, NVSP_4, NVSP_2, NVSP_1 };

static bool is_version(uint32_t version)
{
	for (size_t n = 0; n < sizeof(versions) / sizeof(versions[0]); n++)
		if (versions[n] == version)
			return true;
	return false;
}

/* ---- invariants ---- */

static void check_slots(const struct network *network)
{
	unsigned waiting = 0;
	unsigned send_free = 0;

	for (unsigned n = 0; n < NET_SLOTS; n++) {
		assert(network->slot[n] < SLOT_STATES);
		waiting += network->slot[n] == SLOT_WAITS;
		send_free += n >= NET_RECEIVE_SLOTS && network->slot[n] == SLOT_FREE;
		assert(n < NET_RECEIVE_SLOTS || network->slot[n] != SLOT_WAITS);
	}
	assert(waiting == network->waiting && send_free == network->send_free);
}

static void check_sections(const struct network *network)
{
	unsigned in_state[3] = { 0 };
	unsigned chained = 0;

	assert(network->sections <= SECTIONS);
	for (unsigned n = 0; n < network->sections; n++) {
		const struct section *section = &network->section[n];

		in_state[section->state]++;
		if (section->state != SECTION_FIRST)
			continue;
		for (uint16_t at = section->next; at != SECTIONS; at = network->section[at].next) {
			assert(at < network->sections &&
			       network->section[at].state == SECTION_NEXT);
			chained++;
		}
	}
	assert(in_state[SECTION_FREE] == network->sections_free);
	assert(chained == in_state[SECTION_NEXT]);
}

void check_network(const struct network *network)
{
	check_slots(network);
	check_sections(network);
	assert(network->answers <= ANSWERS && (network->version || !network->initialized));
	assert(!network->sections == !network->receive.gfn);
}

/* ---- to and from the guest ---- */

static size_t message_bytes(const struct network *network)
{
	return network->version < NVSP_6_1 ? NVSP_MESSAGE_BYTES : NVSP_MESSAGE_6_1_BYTES;
}

void network_complete(struct network_queue *queue, uint64_t transaction,
		      const struct nvsp_message *message)
{
	struct network *network = queue->network;
	struct bus_channel *channel = bus_channel_sub(network->channel, queue->number);

	assert(!queue->owed);
	queue->owed = channel && bus_channel_send(channel, PACKET_COMPLETION, transaction, message,
						  message_bytes(network)) == -EAGAIN;
	queue->owed_transaction = transaction;
	queue->owed_message = *message;
}

int network_read(struct network *network, const struct network_source *source, uint32_t at,
		 void *to, uint32_t bytes)
{
	uint8_t *into = to;

	for (unsigned n = 0; n < source->ranges && bytes; n++) {
		const struct bus_range *range = &source->range[n];
		uint32_t count;

		if (at >= range->bytes) {
			at -= range->bytes;
			continue;
		}
		count = range->bytes - at < bytes ? range->bytes - at : bytes;
		if (bus_range_read(network->channel, range, at, into, count))
			return -EFAULT;
		into += count;
		bytes -= count;
		at = 0;
	}
	return bytes ? -EFAULT : 0;
}

/* ---- NVSP ---- */

/* As it is when the guest begins anew. */
static void forget(struct network *network)
{
	const struct network_buffer none = { .gfn = NULL };

	network->version = 0;
	network->mtu = DEFAULT_MTU;
	network->filter = 0;
	network->renewal.is_made = false;
	network->initialized = false;
	network->send = none;
	network->offloads = (struct network_offloads){ .ipv4 = false };
	network->scale = (struct network_scale){ .entries = 0 };
	network->queue[0].owed = false;
	network->answers = 0;
	network_set_receive_buffer(network, &none);
}

/* The highest version that both have. */
static void init(struct network *network, const struct nvsp_message *message,
		 struct nvsp_message *answer)
{
	forget(network);
	*answer = (struct nvsp_message){ .kind = NVSP_INIT_COMPLETE,
					 .init_complete = { .mdl_chain = MDL_CHAIN,
							    .status = NVSP_FAILURE } };
	for (size_t n = 0; n < sizeof(versions) / sizeof(versions[0]); n++) {
		if (versions[n] < message->init.least || versions[n] > message->init.most)
			continue;
		network->version = versions[n];
		answer->init_complete.version = versions[n];
		answer->init_complete.status = NVSP_SUCCESS;
		return;
	}
}

static int configure(struct network *network, const struct nvsp_message *message)
{
	const uint32_t frame_bytes = message->ndis_config.mtu;

	if (frame_bytes < NET_LEAST_MTU + NET_HEAD_BYTES)
		return -EBADMSG;
	network->mtu = frame_bytes - NET_HEAD_BYTES;
	if (network->mtu > NET_MOST_MTU)
		network->mtu = NET_MOST_MTU;
	return 0;
}

/* False: it is none of this channel's, or of a size that is of no use. */
static bool find_buffer(struct network *network, const struct nvsp_message *message,
			uint32_t least_bytes, struct network_buffer *ret)
{
	uint32_t pages = 0;

	ret->gpadl = message->buffer.gpadl;
	ret->gfn = bus_channel_gpadl(network->channel, ret->gpadl, &pages);
	if (!ret->gfn || pages > BUFFER_MOST_BYTES / GUEST_PAGE_BYTES ||
	    pages < least_bytes / GUEST_PAGE_BYTES)
		return false;
	ret->bytes = pages * GUEST_PAGE_BYTES;
	return true;
}

static void set_receive_buffer(struct network *network, const struct nvsp_message *message,
			       struct nvsp_message *answer)
{
	struct network_buffer buffer;

	*answer = (struct nvsp_message){ .kind = NVSP_RECEIVE_BUFFER_COMPLETE,
					 .receive_complete.status = NVSP_FAILURE };
	if (network->receive.gfn ||
	    !find_buffer(network, message, (SECTIONS_OF_ANSWERS + 1) * SECTION_BYTES, &buffer))
		return;
	network_set_receive_buffer(network, &buffer);
	answer->receive_complete.status = NVSP_SUCCESS;
	answer->receive_complete.sections = 1;
	answer->receive_complete.section = (struct nvsp_section){
		.bytes = SECTION_BYTES,
		.count = network->sections,
		.end = network->sections * SECTION_BYTES,
	};
}

static void set_send_buffer(struct network *network, const struct nvsp_message *message,
			    struct nvsp_message *answer)
{
	struct network_buffer buffer;

	*answer = (struct nvsp_message){ .kind = NVSP_SEND_BUFFER_COMPLETE,
					 .send_complete.status = NVSP_FAILURE };
	if (network->send.gfn || !find_buffer(network, message, GUEST_PAGE_BYTES, &buffer))
		return;
	network->send = buffer;
	answer->send_complete.status = NVSP_SUCCESS;
	answer->send_complete.section_bytes = SEND_SECTION_BYTES;
}

static int revoke_buffer(struct network *network, uint32_t kind)
{
	const struct network_buffer none = { .gfn = NULL };

	if (kind == NVSP_REVOKE_SEND_BUFFER)
		network->send = none;
	else
		network_set_receive_buffer(network, &none);
	return 0;
}

/* ---- RNDIS in NVSP ---- */

/*
 * What a message consists of: a section of the send buffer, ranges of the packet, or the first
 * before the second. Its bytes; -EBADMSG.
 */
static int64_t find_source(const struct network *network, const struct nvsp_message *message,
			   const struct bus_packet *packet, struct bus_range ranges[BUS_RANGES + 1],
			   struct network_source *ret)
{
	const uint64_t at = (uint64_t)message->rndis.section * SEND_SECTION_BYTES;
	const uint32_t bytes = message->rndis.section_bytes;
	int64_t sum = 0;
	unsigned count = 0;

	if (message->rndis.section != NVSP_NO_SECTION) {
		if (!network->send.gfn || bytes > SEND_SECTION_BYTES ||
		    at + SEND_SECTION_BYTES > network->send.bytes)
			return -EBADMSG;
		ranges[count++] =
			(struct bus_range){ .bytes = bytes,
					    .offset = (uint32_t)(at % GUEST_PAGE_BYTES),
					    .gfn = network->send.gfn + at / GUEST_PAGE_BYTES };
	}
	for (unsigned n = 0; n < packet->ranges; n++)
		ranges[count++] = packet->range[n];
	for (unsigned n = 0; n < count; n++)
		sum += ranges[n].bytes;
	*ret = (struct network_source){ .range = ranges, .ranges = count };
	return sum;
}

static int take_control(struct network *network, const struct network_source *source, int64_t bytes)
{
	_Alignas(8) uint8_t message[CONTROL_BYTES];

	if (bytes < (int64_t)sizeof(struct rndis_head) || bytes > CONTROL_BYTES ||
	    network_read(network, source, 0, message, (uint32_t)bytes))
		return -EBADMSG;
	return network_control(network, message, (uint32_t)bytes);
}

static int take_rndis(struct network *network, const struct nvsp_message *message,
		      const struct bus_packet *packet, struct nvsp_message *answer)
{
	struct bus_range ranges[BUS_RANGES + 1];
	struct network_source source;
	const int64_t bytes = find_source(network, message, packet, ranges, &source);

	renewal_sent(&network->renewal);
	*answer = (struct nvsp_message){ .kind = NVSP_RNDIS_COMPLETE,
					 .rndis_complete.status = NVSP_SUCCESS };
	if (bytes < 0)
		return (int)bytes;
	if (message->rndis.channel == NVSP_CHANNEL_CONTROL)
		return take_control(network, &source, bytes);
	if (message->rndis.channel != NVSP_CHANNEL_DATA || !network->initialized)
		return -EBADMSG;
	/* more than all messages of a packet can be */
	if (bytes > 2 * NET_SLOT_BYTES)
		answer->rndis_complete.status = NVSP_INVALID_RNDIS;
	else
		answer->rndis_complete.status = network_transmit(network, &source, (uint32_t)bytes);
	return 0;
}

/* ---- further channels ---- */

static int ask_subs(struct network *network, const struct nvsp_message *message,
		    struct nvsp_message *answer)
{
	unsigned count = 0;

	if (network->version < NVSP_5)
		return -EBADMSG;
	if (message->subchannels.operation == NVSP_SUBCHANNELS_ALLOCATE)
		count = bus_want_subs(network->channel, message->subchannels.count);
	answer->subchannels_complete.status = count ? NVSP_SUCCESS : NVSP_FAILURE;
	answer->subchannels_complete.count = count;
	return 0;
}

/*
 * By which of its channels the guest is to send: it looks at the entry of a frame's hash. Behind a
 * message of the latest version, where older drivers look for it, too.
 */
static void tell_table(struct network *network)
{
	struct {
		struct nvsp_message message;
		uint32_t queue[NVSP_INDIRECTIONS];
	} table = { .message = { .kind = NVSP_INDIRECTION_TABLE,
				 .indirection = { .count = NVSP_INDIRECTIONS,
						  .offset = sizeof(struct nvsp_message) } } };
	unsigned queues = 1;

	while (queues < network->queues && bus_channel_sub(network->channel, queues))
		queues++;
	for (unsigned n = 0; n < NVSP_INDIRECTIONS; n++)
		table.queue[n] = n % queues;
	/* where there is no room the guest chooses by itself */
	bus_channel_send(network->channel, PACKET_INBAND, 0, &table, sizeof(table));
}

/* ---- packets ---- */

/* Sets *answer. */
static int dispatch(struct network *network, const struct nvsp_message *message,
		    const struct bus_packet *packet, struct nvsp_message *answer)
{
	if (!network->version && message->kind != NVSP_INIT)
		return -EBADMSG;
	*answer = (struct nvsp_message){ .kind = message->kind };
	switch (message->kind) {
	case NVSP_INIT: init(network, message, answer); return 0;
	case NVSP_NDIS_VERSION: return 0;
	case NVSP_NDIS_CONFIG:
		return network->version < NVSP_2 ? -EBADMSG : configure(network, message);
	case NVSP_RECEIVE_BUFFER: set_receive_buffer(network, message, answer); return 0;
	case NVSP_SEND_BUFFER: set_send_buffer(network, message, answer); return 0;
	case NVSP_REVOKE_RECEIVE_BUFFER:
	case NVSP_REVOKE_SEND_BUFFER: return revoke_buffer(network, message->kind);
	case NVSP_RNDIS: return take_rndis(network, message, packet, answer);
	/* there is one path, and it is used already */
	case NVSP_SWITCH_DATA_PATH: return network->version < NVSP_4 ? -EBADMSG : 0;
	case NVSP_SUBCHANNELS: return ask_subs(network, message, answer);
	default: return -EBADMSG;
	}
}

static void kick(struct network *network)
{
	if (network->submitted)
		slot_kick(network->client);
	network->submitted = false;
}

static int take_completion(struct network *network, const struct bus_packet *packet)
{
	int error;

	/* the guest may still have done with packets of a buffer that it has taken away */
	if (!network->sections)
		return 0;
	error = network_delivered(network, packet->transaction);
	if (!error)
		network_deliver(network);
	return error;
}

/* Everything by the first channel, frames by the others. */
static bool belongs(const struct network_queue *queue, const struct nvsp_message *message)
{
	return !queue->number ||
	       (message->kind == NVSP_RNDIS && message->rndis.channel == NVSP_CHANNEL_DATA);
}

static int take_message(struct network_queue *queue, const struct bus_packet *packet)
{
	struct network *network = queue->network;
	struct nvsp_message message = { .kind = 0 };
	struct nvsp_message answer;
	int error;

	if ((packet->type != PACKET_INBAND && packet->type != PACKET_GPA_DIRECT) ||
	    packet->payload_bytes < NVSP_MESSAGE_BYTES)
		return -EBADMSG;
	memcpy(&message, packet->payload,
	       packet->payload_bytes < sizeof(message) ? packet->payload_bytes : sizeof(message));
	if (!belongs(queue, &message))
		return -EBADMSG;
	error = dispatch(network, &message, packet, &answer);
	if (error)
		return error;
	if (packet->flags & PACKET_WANTS_COMPLETION)
		network_complete(queue, packet->transaction, &answer);
	if (network->answers)
		network_deliver(network);
	return 0;
}

static int packet(void *context, const struct bus_packet *packet)
{
	struct network_queue *queue = context;
	struct network *network = queue->network;
	int error = packet->type == PACKET_COMPLETION ? take_completion(network, packet)
						      : take_message(queue, packet);

	renewal_heard(&network->renewal);
	kick(network);
	CHECK(check_network(network));
	return error;
}

static bool ready(void *context)
{
	const struct network_queue *queue = context;
	const struct network *network = queue->network;

	return !network->paused && !queue->owed && network->answers + 1 < ANSWERS &&
	       (!network->is_up || network->send_free >= SLOTS_PER_PACKET);
}

static void room(void *context)
{
	struct network_queue *queue = context;
	struct network *network = queue->network;

	if (queue->owed) {
		queue->owed = false;
		network_complete(queue, queue->owed_transaction, &queue->owed_message);
	}
	network_deliver(network);
	kick(network);
}

static void opened(void *context)
{
	struct network_queue *queue = context;
	struct network *network = queue->network;

	queue->owed = false;
	if (queue->number) {
		tell_table(network);
		return;
	}
	forget(network);
	renewal_heard(&network->renewal);
	network->taken = false;
}

/* What waits for the guest is for nobody. */
static void drop_waiting(struct network *network)
{
	network->cut_bytes = 0;
	for (; network->waiting; network->waiting--) {
		unsigned slot = network->wait[network->waiting_first];

		network->waiting_first = (network->waiting_first + 1) % NET_RECEIVE_SLOTS;
		network_submit_receive(network, slot);
	}
}

static void follow_link(struct network *network);

static void closed(void *context)
{
	struct network_queue *queue = context;
	struct network *network = queue->network;

	queue->owed = false;
	if (queue->number)
		return;
	forget(network);
	drop_waiting(network);
	network->taken = false;
	if (network->held) {
		network->held = false;
		follow_link(network);
	}
	kick(network);
}

static void gpadl_gone(void *context, uint32_t gpadl)
{
	struct network *network = ((struct network_queue *)context)->network;

	if (network->receive.gfn && network->receive.gpadl == gpadl)
		revoke_buffer(network, NVSP_REVOKE_RECEIVE_BUFFER);
	if (network->send.gfn && network->send.gpadl == gpadl)
		revoke_buffer(network, NVSP_REVOKE_SEND_BUFFER);
}

/* ---- the server ---- */

/* Another server than before: it begins with empty slots for what the guest receives. */
static void begin_anew(struct network *network, uint32_t generation)
{
	ssize_t written;

	network->generation = generation;
	network->cut_off = false;
	network->waiting = 0;
	network->cut_bytes = 0;
	network->send_free = 0;
	slot_restart(network->client);
	for (unsigned n = 0; n < NET_RECEIVE_SLOTS; n++)
		network_submit_receive(network, n);
	for (unsigned n = NET_SLOTS; n-- > NET_RECEIVE_SLOTS;) {
		network->slot[n] = SLOT_FREE;
		network->send_stack[network->send_free++] = (uint8_t)n;
	}
	network->submitted = false;
	__atomic_store_n(&network->memory->accepted, generation, __ATOMIC_RELEASE);
	written = write(network->client->doorbell_fd, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
}

/* 0 or -EBADMSG. */
static int take_reply(struct network *network, const struct slot_reply *reply)
{
	if (network->slot[reply->slot] != SLOT_SERVERS)
		return -EBADMSG;
	if (reply->slot < NET_RECEIVE_SLOTS) {
		if (reply->result > 0)
			network_received(network, reply->slot);
		else
			network_submit_receive(network, reply->slot);
		return 0;
	}
	network->slot[reply->slot] = SLOT_FREE;
	network->send_stack[network->send_free++] = (uint8_t)reply->slot;
	return 0;
}

/* As many as there are slots: one that answers without end holds up nobody else. */
static void take_replies(struct network *network)
{
	struct slot_reply reply;
	int got;

	for (unsigned n = 0; n < NET_SLOTS && !network->cut_off; n++) {
		got = slot_collect(network->client, &reply);
		if (!got)
			return;
		if (got > 0)
			got = take_reply(network, &reply);
		if (got >= 0)
			continue;
		network->cut_off = true;
		slot_ignore(network->client);
		network->counters.server_failed++;
	}
}

static void follow_link(struct network *network)
{
	const uint32_t serving = __atomic_load_n(&network->memory->serving, __ATOMIC_ACQUIRE);
	const bool is_up = serving == network->generation && serving && !network->cut_off &&
			   !network->held;

	network->serving = serving;
	network->counters.links += is_up != network->is_up;
	network->is_up = is_up;
	network_tell_link(network);
}

/* The thread that collects serves other queues, too: most of its turns are not for this one. */
static bool has_news(const struct network *network)
{
	const struct net_card_memory *memory = network->memory;
	const struct slot_client *client = network->client;

	return network->generation != __atomic_load_n(&memory->generation, __ATOMIC_ACQUIRE) ||
	       network->serving != __atomic_load_n(&memory->serving, __ATOMIC_ACQUIRE) ||
	       client->collected !=
		       __atomic_load_n(&client->queue->replies.written, __ATOMIC_ACQUIRE);
}

void network_collect(struct network *network)
{
	const uint32_t generation = __atomic_load_n(&network->memory->generation, __ATOMIC_ACQUIRE);

	if (!has_news(network))
		return;
	bus_channel_lock(network->channel);
	guest_memory_begin();
	if (generation != network->generation)
		begin_anew(network, generation);
	if (generation)
		take_replies(network);
	follow_link(network);
	network_deliver(network);
	kick(network);
	CHECK(check_network(network));
	bus_channel_unlock(network->channel);
	/* slots are free: what waits in the guest's ring can be taken */
	bus_channel_run(network->channel);
}

/* ---- life ---- */

void network_without_server(struct network *network)
{
	network->generation = network->serving = 0;
	network->is_up = network->cut_off = network->submitted = false;
	network->waiting = network->cut_bytes = network->send_free = 0;
	for (unsigned n = 0; n < NET_SLOTS; n++)
		network->slot[n] = SLOT_SERVERS;
}

static void queue_make(struct network *network, unsigned number)
{
	struct network_queue *queue = &network->queue[number];

	*queue = (struct network_queue){ .network = network, .number = number };
	network->service[number] =
		(struct bus_service){ .type = NETWORK_TYPE,
				      .instance = NETWORK_INSTANCE((uint8_t)network->number),
				      .opened = opened,
				      .closed = closed,
				      .ready = ready,
				      .packet = packet,
				      .gpadl_gone = number ? NULL : gpadl_gone,
				      .room = room,
				      .context = queue };
}

struct network *network_create(struct bus *bus, unsigned number, struct net_card_memory *memory,
			       struct slot_client *client)
{
	struct network *network = calloc(1, sizeof(*network));

	assert(client->slots == NET_SLOTS && number < NET_CARDS);
	if (!network)
		return NULL;
	network->memory = memory;
	network->client = client;
	network->number = number;
	memcpy(network->mac, memory->mac, sizeof(network->mac));
	for (unsigned n = 0; n < NETWORK_QUEUES; n++)
		queue_make(network, n);
	network_without_server(network);
	forget(network);
	network->channel = bus_offer(bus, &network->service[0]);
	if (!network->channel) {
		free(network);
		return NULL;
	}
	network->queues = 1 + bus_allow_subs(network->channel, &network->service[1], BUS_SUBS);
	return network;
}

void network_destroy(struct network *network) { free(network); }

size_t network_statistics(const struct network *network, char *text, size_t bytes)
{
	const struct network_counters *counters = &network->counters;
	int used =
		snprintf(text, bytes,
			 "net: sent-frames %lu, sent-bytes %lu, received-frames %lu, "
			 "received-bytes %lu, send-dropped %lu, receive-dropped %lu, wrong %lu, "
			 "waits-for-a-buffer %lu, link-changes %lu, servers-failed %lu\n",
			 counters->sent, counters->sent_bytes, counters->received,
			 counters->received_bytes, counters->send_dropped,
			 counters->receive_dropped, counters->send_bad, counters->receive_no_buffer,
			 counters->links, counters->server_failed);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

/* ---- pauses and saved state ---- */

void network_pause(struct network *network)
{
	bus_channel_lock(network->channel);
	network->paused = true;
	bus_channel_unlock(network->channel);
}

void network_resume(struct network *network)
{
	bus_channel_lock(network->channel);
	network->paused = false;
	guest_memory_begin();
	network_deliver(network);
	kick(network);
	bus_channel_unlock(network->channel);
	bus_channel_run(network->channel);
}

static void buffer_archive(struct archive *archive, struct network *network,
			   struct network_buffer *buffer)
{
	bool is_there = buffer->gfn;
	uint32_t pages = 0;

	archive_bool(archive, &is_there);
	archive_u32(archive, &buffer->gpadl);
	if (!archive->loading || archive->error || !is_there)
		return;
	buffer->gfn = bus_channel_gpadl(network->channel, buffer->gpadl, &pages);
	if (archive_check(archive,
			  buffer->gfn && pages && pages <= BUFFER_MOST_BYTES / GUEST_PAGE_BYTES))
		buffer->bytes = pages * GUEST_PAGE_BYTES;
}

/* Whether what was loaded is packets, each a chain of its own. */
static bool sections_are_chains(const struct network *network)
{
	unsigned chained = 0;
	unsigned next = 0;

	for (unsigned n = 0; n < network->sections; n++) {
		const struct section *section = &network->section[n];
		uint16_t at = section->next;

		next += section->state == SECTION_NEXT;
		if (section->state != SECTION_FIRST)
			continue;
		/* a loop, or two that meet, have more links than there are sections */
		for (; at != SECTIONS && chained <= network->sections; chained++) {
			if (at >= network->sections || network->section[at].state != SECTION_NEXT)
				return false;
			at = network->section[at].next;
		}
	}
	return chained == next;
}

static void sections_archive(struct archive *archive, struct network *network)
{
	uint32_t count = network->sections;

	archive_u32(archive, &count);
	if (!archive_check(archive, count == network->sections))
		return;
	network->sections_free = 0;
	for (unsigned n = 0; n < count; n++) {
		struct section *section = &network->section[n];

		archive_u8(archive, &section->state);
		archive_u16(archive, &section->next);
		if (!archive_check(archive, section->state <= SECTION_NEXT))
			return;
		if (section->state == SECTION_FREE)
			network->section_stack[network->sections_free++] = (uint16_t)n;
	}
	archive_check(archive, sections_are_chains(network));
}

static void owed_archive(struct archive *archive, struct network_queue *queue)
{
	archive_bool(archive, &queue->owed);
	archive_u64(archive, &queue->owed_transaction);
	archive_bytes(archive, &queue->owed_message, sizeof(queue->owed_message));
}

/* Of version 1 there is one channel. */
static void queues_archive(struct archive *archive, struct network *network)
{
	if (archive->version == 1)
		return;
	for (unsigned n = 1; n < network->queues; n++)
		owed_archive(archive, &network->queue[n]);
	scale_archive(archive, network);
}

static void answers_archive(struct archive *archive, struct network *network)
{
	uint32_t count = network->answers;

	owed_archive(archive, &network->queue[0]);
	archive_u32(archive, &count);
	if (!archive_check(archive, count <= ANSWERS))
		return;
	for (uint32_t n = 0; n < count && !archive->error; n++) {
		struct answer *answer = &network->answer[(network->answer_first + n) % ANSWERS];

		archive_u32(archive, &answer->bytes);
		if (archive_check(archive, answer->bytes <= ANSWER_BYTES))
			archive_bytes(archive, answer->data, answer->bytes);
	}
	if (archive->loading && !archive->error)
		network->answers = count;
}

static void offloads_archive(struct archive *archive, struct network_offloads *offloads)
{
	archive_bool(archive, &offloads->ipv4);
	archive_bool(archive, &offloads->tcp_ipv4);
	archive_bool(archive, &offloads->udp_ipv4);
	archive_bool(archive, &offloads->tcp_ipv6);
	archive_bool(archive, &offloads->udp_ipv6);
	archive_bool(archive, &offloads->coalesces_ipv4);
	archive_bool(archive, &offloads->coalesces_ipv6);
}

/* As the guest knows it: what it has been given now is taken by network_go_on(). */
static void card_archive(struct archive *archive, struct network *network)
{
	archive_bytes(archive, network->mac, sizeof(network->mac));
	renewal_archive(archive, network);
}

void network_archive(struct archive *archive, struct network *network)
{
	struct network_buffer receive = network->receive;

	card_archive(archive, network);
	archive_u32(archive, &network->version);
	archive_u32(archive, &network->mtu);
	archive_u32(archive, &network->filter);
	archive_bool(archive, &network->initialized);
	archive_bool(archive, &network->told_up);
	archive_check(archive, !network->version || is_version(network->version));
	archive_check(archive, network->version || !network->initialized);
	archive_check(archive, network->mtu >= NET_LEAST_MTU && network->mtu <= NET_MOST_MTU);
	offloads_archive(archive, &network->offloads);
	buffer_archive(archive, network, &network->send);
	buffer_archive(archive, network, &receive);
	if (archive->loading && !archive->error)
		network_set_receive_buffer(network, &receive);
	archive_check(archive, !receive.gfn == !network->sections);
	sections_archive(archive, network);
	answers_archive(archive, network);
	queues_archive(archive, network);
	if (archive->error && archive->loading)
		forget(network);
	if (!archive->error)
		check_network(network);
}

/* ---- the unit ---- */

static void unit_pause(void *self) { network_pause(self); }
static void unit_resume(void *self) { network_resume(self); }
static void unit_forked(void *self) { network_forked(self); }
static void unit_stood(void *self, uint64_t ns)
{
	renewal_stood(&((struct network *)self)->renewal, ns);
}

static void unit_archive(struct archive *archive, void *self) { network_archive(archive, self); }
static void unit_destroy(void *self) { network_destroy(self); }
static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	return network_statistics(self, text, bytes);
}

const struct unit_ops network_unit = {
	.name = "network",
	.section = UNIT_SECTION('N', 'E', 'T', ' '),
	.numbered = true,
	.pause = unit_pause,
	.resume = unit_resume,
	.forked = unit_forked,
	.stood = unit_stood,
	.destroy = unit_destroy,
	.archive = unit_archive,
	.statistics = unit_statistics,
};
