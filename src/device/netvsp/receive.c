/*
 * What the guest receives: frames that wait in slots, and answers to its control messages, in
 * sections of its receive buffer. A packet tells of several of them; the guest's completion of it
 * gives all its sections back. Where a section or room in the ring is missing, what waits goes on
 * waiting: its slot is not given back to the server, which so learns to stop.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "network_internal.h"

enum { INFO_AT = sizeof(struct rndis_packet), TAG_BYTES = 4 };

/* ---- sections ---- */

void network_set_receive_buffer(struct network *network, const struct network_buffer *buffer)
{
	uint32_t sections = buffer->gfn ? buffer->bytes / SECTION_BYTES : 0;

	network->receive = *buffer;
	network->sections = sections < SECTIONS ? sections : SECTIONS;
	network->sections_free = 0;
	for (unsigned n = network->sections; n-- > 0;) {
		network->section[n] = (struct section){ .state = SECTION_FREE, .next = SECTIONS };
		network->section_stack[network->sections_free++] = (uint16_t)n;
	}
}

static void section_release(struct network *network, uint16_t index)
{
	network->section[index] = (struct section){ .state = SECTION_FREE, .next = SECTIONS };
	network->section_stack[network->sections_free++] = index;
}

/* All of a packet. */
static void sections_release(struct network *network, uint16_t first)
{
	for (uint16_t index = first, next; index != SECTIONS; index = next) {
		next = network->section[index].next;
		section_release(network, index);
	}
}

int network_delivered(struct network *network, uint64_t transaction)
{
	const uint64_t index = transaction - 1;

	if (index >= network->sections || network->section[index].state != SECTION_FIRST)
		return -EBADMSG;
	sections_release(network, (uint16_t)index);
	return 0;
}

/* A packet that is being made, for one channel: its pieces in sections. */
struct packet {
	unsigned queue;
	struct bus_piece piece[PACKET_FRAMES];
	unsigned pieces;
	uint16_t first, last;
};

/* There is a free one. The offset of its bytes in the buffer. */
static uint32_t packet_take_section(struct network *network, struct packet *packet, uint32_t bytes)
{
	const uint16_t index = network->section_stack[--network->sections_free];
	const uint32_t at = (uint32_t)index * SECTION_BYTES;

	assert(bytes <= SECTION_BYTES && packet->pieces < PACKET_FRAMES);
	network->section[index] =
		(struct section){ .state = packet->pieces ? SECTION_NEXT : SECTION_FIRST,
				  .next = SECTIONS };
	if (packet->pieces)
		network->section[packet->last].next = index;
	else
		packet->first = index;
	packet->last = index;
	packet->piece[packet->pieces++] = (struct bus_piece){ .bytes = bytes, .offset = at };
	return at;
}

static int packet_send(struct network *network, const struct packet *packet, uint32_t channel)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = channel, .section = NVSP_NO_SECTION },
	};
	struct bus_channel *to = bus_channel_sub(network->channel, packet->queue);
	int error = -ENOTCONN;

	if (to)
		error = bus_channel_send_pieces(to, packet->first + 1ull,
					    NVSP_RECEIVE_BUFFER_ID, packet->piece, packet->pieces,
					    &message, sizeof(message));

	if (error)
		sections_release(network, packet->first);
	return error;
}

static int write_buffer(struct network *network, uint32_t at, const void *from, uint32_t bytes)
{
	const struct bus_range range = { .bytes = network->receive.bytes,
					 .gfn = network->receive.gfn };

	return bus_range_write(network->channel, &range, at, from, bytes);
}

/* ---- answers ---- */

static bool deliver_answer(struct network *network)
{
	const struct answer *answer = &network->answer[network->answer_first];
	struct packet packet = { .pieces = 0 };
	uint32_t at;

	if (!network->sections_free)
		return false;
	at = packet_take_section(network, &packet, answer->bytes);
	if (write_buffer(network, at, answer->data, answer->bytes))
		network->counters.receive_dropped++; /* its buffer is no memory: it hears rubbish */
	if (packet_send(network, &packet, NVSP_CHANNEL_CONTROL))
		return false;
	network->answer_first = (network->answer_first + 1) % ANSWERS;
	network->answers--;
	return true;
}

/* ---- frames ---- */

void network_submit_receive(struct network *network, unsigned slot)
{
	const struct slot_request request = { .slot = (uint16_t)slot, .kind = NET_RECEIVE };

	assert(slot < NET_RECEIVE_SLOTS);
	network->slot[slot] = SLOT_SERVERS;
	slot_submit(network->client, &request);
	network->submitted = true;
}

static bool takes_frames(const struct network *network)
{
	return network->initialized && network->filter && network->sections;
}

/* Within the guest's MTU, or of a guest that takes longer ones. */
static bool fits(const struct network *network, const struct net_frame *frame)
{
	const struct network_offloads *offloads = &network->offloads;

	if (frame->bytes <= network->mtu + NET_HEAD_BYTES + TAG_BYTES)
		return true;
	if (!(frame->flags & NET_LARGE))
		return false;
	return frame->flags & NET_IPV4 ? offloads->coalesces_ipv4 : offloads->coalesces_ipv6;
}

/* It goes in segments, which do. */
static bool is_cut(const struct network *network, const struct net_frame *frame)
{
	return !fits(network, frame) && frame->flags & NET_LARGE &&
	       frame->mss + (uint32_t)frame->checksum_at - NET_HEAD_BYTES <= network->mtu;
}

void network_received(struct network *network, unsigned slot)
{
	struct net_frame *frame = &network->frame[slot];
	const uint8_t *data;

	memcpy(frame, network->memory->data[slot], sizeof(*frame));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (!takes_frames(network) || !net_frame_is_sound(frame) ||
	    (!fits(network, frame) && !is_cut(network, frame))) {
		network->counters.receive_dropped += takes_frames(network);
		network_submit_receive(network, slot);
		return;
	}
	data = network->memory->data[slot] + sizeof(*frame);
	network->comes_by[slot] = (uint8_t)scale_queue(network, frame, data);
	network->slot[slot] = SLOT_WAITS;
	network->wait[(network->waiting_first + network->waiting) % NET_RECEIVE_SLOTS] =
		(uint8_t)slot;
	network->waiting++;
}

/* The head of an RNDIS message for a frame; how long it is. */
static uint32_t make_head(const struct network *network, const struct net_frame *frame,
			  uint8_t head[RECEIVED_HEAD_BYTES])
{
	const uint32_t value = offload_receive_info(&network->offloads, frame);
	const struct rndis_info info = { .bytes = sizeof(info) + sizeof(value),
					 .kind = RNDIS_INFO_CHECKSUM,
					 .offset = sizeof(info) };
	const uint32_t head_bytes = INFO_AT + (value ? info.bytes : 0);
	struct rndis_packet packet = {
		.head = { .kind = RNDIS_PACKET, .bytes = head_bytes + frame->bytes },
		.data_offset = head_bytes - (uint32_t)sizeof(struct rndis_head),
		.data_bytes = frame->bytes,
	};

	if (value) {
		packet.info_offset = INFO_AT - sizeof(struct rndis_head);
		packet.info_bytes = info.bytes;
		memcpy(head + INFO_AT, &info, sizeof(info));
		memcpy(head + INFO_AT + sizeof(info), &value, sizeof(value));
	}
	memcpy(head, &packet, sizeof(packet));
	return head_bytes;
}

static void add_frame(struct network *network, struct packet *packet, unsigned slot)
{
	const struct net_frame *frame = &network->frame[slot];
	uint8_t *data = network->memory->data[slot] + sizeof(*frame);
	uint8_t head[RECEIVED_HEAD_BYTES];
	const uint32_t head_bytes = make_head(network, frame, head);
	const uint32_t at = packet_take_section(network, packet, head_bytes + frame->bytes);

	/* unless the guest is told that it need not look at the sum */
	if (frame->flags & NET_CHECKSUM_MISSING && head_bytes == INFO_AT)
		net_frame_complete_checksum(frame, data);
	if (write_buffer(network, at, head, head_bytes) ||
	    write_buffer(network, at + head_bytes, data, frame->bytes))
		network->counters.receive_dropped++; /* its buffer is no memory: it hears rubbish */
	network->counters.received++;
	network->counters.received_bytes += frame->bytes;
}

/* The next segment; how much was delivered with it, or 0: it was the last. */
static uint32_t add_segment(struct network *network, struct packet *packet, unsigned slot,
			    uint32_t done)
{
	const struct net_frame *frame = &network->frame[slot];
	const uint8_t *data = network->memory->data[slot] + sizeof(*frame);
	const bool with_sum =
		!(offload_receive_info(&network->offloads, frame) & RNDIS_RECEIVED_TCP_OK);
	struct net_frame segment = *frame;
	uint8_t heads[OFFLOAD_HEAD_BYTES];
	uint8_t head[RECEIVED_HEAD_BYTES];
	uint32_t heads_bytes;
	uint32_t head_bytes;
	uint32_t bytes;
	uint32_t at;

	if (!offload_cut(frame, data, done, with_sum, heads, &heads_bytes, &bytes)) {
		network->counters.receive_dropped++;
		return 0;
	}
	segment.bytes = heads_bytes + bytes;
	head_bytes = make_head(network, &segment, head);
	at = packet_take_section(network, packet, head_bytes + segment.bytes);
	if (write_buffer(network, at, head, head_bytes) ||
	    write_buffer(network, at + head_bytes, heads, heads_bytes) ||
	    write_buffer(network, at + head_bytes + heads_bytes, data + heads_bytes + done, bytes))
		network->counters.receive_dropped++; /* its buffer is no memory: it hears rubbish */
	network->counters.received++;
	network->counters.received_bytes += segment.bytes;
	return heads_bytes + done + bytes < frame->bytes ? done + bytes : 0;
}

/* Those that were delivered are the server's again. */
static void give_slots_back(struct network *network, unsigned count)
{
	for (; count; count--) {
		unsigned slot = network->wait[network->waiting_first];

		network->waiting_first = (network->waiting_first + 1) % NET_RECEIVE_SLOTS;
		network->waiting--;
		network_submit_receive(network, slot);
	}
}

/* The slot of the n-th frame that waits. */
static unsigned waiting_slot(const struct network *network, unsigned n)
{
	return network->wait[(network->waiting_first + n) % NET_RECEIVE_SLOTS];
}

/* One that is not open has none. */
static unsigned queue_of(const struct network *network, unsigned slot)
{
	const unsigned queue = network->comes_by[slot];

	return bus_channel_sub(network->channel, queue) ? queue : 0;
}

static bool deliver_frames(struct network *network)
{
	struct packet packet = { .queue = queue_of(network, waiting_slot(network, 0)) };
	uint32_t cut_bytes = network->cut_bytes;
	unsigned done = 0;

	while (done < network->waiting && packet.pieces < PACKET_FRAMES &&
	       network->sections_free > SECTIONS_OF_ANSWERS) {
		unsigned slot = waiting_slot(network, done);

		if (queue_of(network, slot) != packet.queue)
			break;
		if (is_cut(network, &network->frame[slot])) {
			cut_bytes = add_segment(network, &packet, slot, cut_bytes);
		} else {
			/* perhaps the guest takes all of it since a moment ago */
			cut_bytes = 0;
			add_frame(network, &packet, slot);
		}
		done += !cut_bytes;
	}
	if (!packet.pieces) {
		network->counters.receive_no_buffer += !done;
		network->cut_bytes = cut_bytes;
		give_slots_back(network, done);
		return done;
	}
	if (packet_send(network, &packet, NVSP_CHANNEL_DATA))
		return false;
	network->cut_bytes = cut_bytes;
	give_slots_back(network, done);
	return true;
}

void network_deliver(struct network *network)
{
	if (network->paused || network->taken || !network->sections)
		return;
	network_tell_link(network); /* of which there was no room to tell it, perhaps */
	while (network->answers && deliver_answer(network))
		;
	if (network->renewal.due)
		return;
	while (!network->answers && network->waiting && deliver_frames(network))
		;
}
