/*
 * Frames that the guest sends: RNDIS messages, one after the other, each with one frame and what is
 * said of it. Every byte of them is read once; the head of a frame is checked in a copy, what
 * follows is only data and goes into the slot as it is read.
 */
#include <errno.h>
#include <string.h>

#include "network_internal.h"

enum {
	INFO_BYTES = 256,
	MACS_BYTES = 12,
	VLAN_BYTES = 4,
	VLAN_ID_BITS = 12,
	VLAN_ID_MOST = 4094,
	MESSAGES_MOST = 64,
};

/* A message that is looked at: its place in the source, and copies. */
struct message {
	uint32_t at, bytes;
	struct rndis_packet head;
	struct offload_wish wish;
	bool has_vlan;
	uint16_t vlan;
};

/* Counted from the ninth byte: whether it lies in the message, behind its head. */
static bool lies_in(const struct message *message, uint32_t offset, uint32_t bytes)
{
	const uint64_t begin = (uint64_t)offset + sizeof(struct rndis_head);

	return begin >= sizeof(message->head) && begin + bytes <= message->bytes;
}

static void take_info_value(struct message *message, uint32_t kind, uint32_t value)
{
	switch (kind) {
	case RNDIS_INFO_CHECKSUM:
		message->wish.checksum =
			value & (RNDIS_SEND_TCP | RNDIS_SEND_UDP | RNDIS_SEND_IP_HEADER);
		message->wish.transport_at = value >> RNDIS_SEND_TRANSPORT_SHIFT & 0x3ff;
		break;
	case RNDIS_INFO_LARGE_SEND:
		message->wish.mss = value & RNDIS_LARGE_SEND_MSS;
		message->wish.transport_at = value >> 20 & 0x3ff;
		break;
	case RNDIS_INFO_VLAN:
		message->has_vlan = true;
		message->vlan = (uint16_t)((value & RNDIS_VLAN_PRIORITY) << 13 | (value & 8) << 9 |
					   (value >> RNDIS_VLAN_ID_SHIFT & RNDIS_VLAN_ID));
		break;
	default: break; /* what is not known is not asked for */
	}
}

/* False: they do not follow each other to the end. */
static bool take_info(struct message *message, const uint8_t *info, uint32_t bytes)
{
	struct rndis_info head;
	uint32_t value;

	while (bytes) {
		if (bytes < sizeof(head))
			return false;
		memcpy(&head, info, sizeof(head));
		if (head.bytes < sizeof(head) || head.bytes > bytes || head.offset < sizeof(head) ||
		    head.offset > head.bytes)
			return false;
		if (head.bytes - head.offset >= sizeof(value)) {
			memcpy(&value, info + head.offset, sizeof(value));
			take_info_value(message, head.kind, value);
		}
		info += head.bytes;
		bytes -= head.bytes;
	}
	return true;
}

static enum nvsp_status read_info(struct network *network, const struct network_source *source,
				  struct message *message)
{
	uint8_t info[INFO_BYTES];
	const struct rndis_packet *head = &message->head;

	if (!head->info_bytes)
		return NVSP_SUCCESS;
	if (head->info_bytes > sizeof(info) ||
	    !lies_in(message, head->info_offset, head->info_bytes))
		return NVSP_INVALID_RNDIS;
	if (network_read(network, source,
			 message->at + head->info_offset + (uint32_t)sizeof(struct rndis_head),
			 info, head->info_bytes))
		return NVSP_FAILURE;
	return take_info(message, info, head->info_bytes) ? NVSP_SUCCESS : NVSP_INVALID_RNDIS;
}

/* Its tag behind the addresses; in *bytes how many there are of the head. */
static void insert_tag(const struct message *message, uint8_t *head, uint32_t *bytes)
{
	uint8_t *tag = head + MACS_BYTES;

	memmove(tag + VLAN_BYTES, tag, *bytes - MACS_BYTES);
	tag[0] = 0x81;
	tag[1] = 0;
	tag[2] = (uint8_t)(message->vlan >> 8);
	tag[3] = (uint8_t)message->vlan;
	*bytes += VLAN_BYTES;
}

/* The frame into a slot. */
static enum nvsp_status fill_slot(struct network *network, const struct network_source *source,
				  struct message *message, uint8_t *slot)
{
	const uint32_t at = message->at + message->head.data_offset + sizeof(struct rndis_head);
	const uint32_t bytes = message->head.data_bytes;
	const uint32_t tag_bytes = message->has_vlan ? VLAN_BYTES : 0;
	struct net_frame frame = { .bytes = bytes + tag_bytes };
	uint8_t head[OFFLOAD_HEAD_BYTES + VLAN_BYTES];
	uint32_t head_bytes = bytes < OFFLOAD_HEAD_BYTES ? bytes : OFFLOAD_HEAD_BYTES;
	uint32_t read_bytes = head_bytes;
	uint8_t *to = slot + sizeof(frame);

	if (network_read(network, source, at, head, head_bytes))
		return NVSP_FAILURE;
	if (message->has_vlan) {
		insert_tag(message, head, &head_bytes);
		message->wish.transport_at += VLAN_BYTES;
	}
	if (!offload_send(&message->wish, head, head_bytes, &frame))
		return NVSP_INVALID_RNDIS;
	if (network_read(network, source, at + read_bytes, to + head_bytes, bytes - read_bytes))
		return NVSP_FAILURE;
	memcpy(to, head, head_bytes);
	memcpy(slot, &frame, sizeof(frame));
	network->counters.sent_bytes += frame.bytes;
	return NVSP_SUCCESS;
}

static enum nvsp_status send_frame(struct network *network, const struct network_source *source,
				   struct message *message)
{
	struct slot_request request = { .kind = NET_SEND };
	enum nvsp_status status;

	if (!network->is_up || !network->send_free) {
		/* there was a slot for the first of several messages only, or there is no link */
		network->counters.send_dropped++;
		return NVSP_SUCCESS;
	}
	request.slot = network->send_stack[network->send_free - 1];
	status = fill_slot(network, source, message, network->memory->data[request.slot]);
	if (status != NVSP_SUCCESS)
		return status;
	network->send_free--;
	network->slot[request.slot] = SLOT_SERVERS;
	network->counters.sent++;
	slot_submit(network->client, &request);
	network->submitted = true;
	return NVSP_SUCCESS;
}

static enum nvsp_status take_packet(struct network *network, const struct network_source *source,
				    struct message *message)
{
	const uint32_t behind = sizeof(message->head) - sizeof(message->head.head);
	const struct rndis_packet *head = &message->head;
	enum nvsp_status status;

	if (message->bytes < sizeof(*head))
		return NVSP_INVALID_RNDIS;
	if (network_read(network, source, message->at + (uint32_t)sizeof(head->head),
			 (uint8_t *)&message->head + sizeof(head->head), behind))
		return NVSP_FAILURE;
	if (head->data_bytes < NET_HEAD_BYTES || head->data_bytes > NET_FRAME_BYTES - VLAN_BYTES ||
	    !lies_in(message, head->data_offset, head->data_bytes))
		return NVSP_INVALID_RNDIS;
	status = read_info(network, source, message);
	return status == NVSP_SUCCESS ? send_frame(network, source, message) : status;
}

enum nvsp_status network_transmit(struct network *network, const struct network_source *source,
				  uint32_t bytes)
{
	enum nvsp_status status = NVSP_SUCCESS;
	uint32_t at = 0;

	for (unsigned n = 0; at < bytes && status == NVSP_SUCCESS; n++) {
		struct message message = { .at = at };

		if (n == MESSAGES_MOST || bytes - at < sizeof(message.head.head))
			status = NVSP_INVALID_RNDIS;
		else if (network_read(network, source, at, &message.head.head,
				      sizeof(message.head.head)))
			status = NVSP_FAILURE;
		else if (message.head.head.kind != RNDIS_PACKET ||
			 message.head.head.bytes < sizeof(message.head.head) ||
			 message.head.head.bytes > bytes - at)
			status = NVSP_INVALID_RNDIS;
		if (status != NVSP_SUCCESS)
			break;
		message.bytes = message.head.head.bytes;
		status = take_packet(network, source, &message);
		at += message.bytes;
	}
	network->counters.send_bad += status != NVSP_SUCCESS;
	return status;
}
