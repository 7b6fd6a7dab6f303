/*
 * RNDIS control messages: the guest initializes the card, asks what it is and sets what it shall
 * do. A message comes as a copy. Every one that asks for an answer gets one; what is not known is
 * "not supported".
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "network_internal.h"

enum {
	MEDIUM_ETHERNET = 0,
	CONNECTIONLESS = 1,
	PACKETS_PER_MESSAGE = 8,
	ALIGNMENT_SHIFT = 3,
	LINK_SPEED_100BPS = 100000000, /* 10 Gbit/s */
	MEDIA_CONNECTED = 0,
	MEDIA_DISCONNECTED = 1,
	MULTICAST_MOST = 64,
	/* of what a guest may send in one frame that is cut */
	LARGE_SEND_BYTES = 62 << 10,
	LARGE_SEND_SEGMENTS = 2,
	SCALE_FLAGS = 0x300,
	SCALE_INDIRECTIONS = 128,
	OFFLOAD_6_0_BYTES = offsetof(struct ndis_offload, ipsec_2),
	OFFLOAD_6_1_BYTES = offsetof(struct ndis_offload, coalesces_ipv4),
	TRANSFER_BYTES = 64 << 10,
};

/* ---- answers ---- */

static void answer_put(struct network *network, const void *head, uint32_t head_bytes,
		       const void *data, uint32_t bytes)
{
	struct answer *answer =
		&network->answer[(network->answer_first + network->answers) % ANSWERS];

	assert(network->answers < ANSWERS && head_bytes + bytes <= ANSWER_BYTES);
	network->answers++;
	answer->bytes = head_bytes + bytes;
	memcpy(answer->data, head, head_bytes);
	if (bytes)
		memcpy(answer->data + head_bytes, data, bytes);
}

static void answer_query(struct network *network, uint32_t id, uint32_t status, const void *data,
			 uint32_t bytes)
{
	const struct rndis_query_answer answer = {
		.head = { .kind = (uint32_t)RNDIS_ANSWER | RNDIS_QUERY,
			  .bytes = (uint32_t)sizeof(answer) + bytes },
		.id = id,
		.status = status,
		.bytes = bytes,
		.offset = bytes ? sizeof(answer) - sizeof(struct rndis_head) : 0,
	};

	answer_put(network, &answer, sizeof(answer), data, bytes);
}

static void answer_status(struct network *network, uint32_t kind, uint32_t id, uint32_t status)
{
	const struct rndis_answer answer = {
		.head = { .kind = (uint32_t)RNDIS_ANSWER | kind, .bytes = sizeof(answer) },
		.id = id,
		.status = status,
	};

	answer_put(network, &answer, sizeof(answer), NULL, 0);
}

void network_tell_link(struct network *network)
{
	const struct rndis_indication indication = {
		.head = { .kind = RNDIS_INDICATE, .bytes = sizeof(indication) },
		.status = network->is_up ? RNDIS_MEDIA_CONNECT : RNDIS_MEDIA_DISCONNECT,
	};

	if (!network->initialized || network->told_up == network->is_up ||
	    network->answers == ANSWERS)
		return;
	network->told_up = network->is_up;
	renewal_link_told(&network->renewal);
	answer_put(network, &indication, sizeof(indication), NULL, 0);
}

/* ---- what it is asked ---- */

static void initialize(struct network *network, const uint8_t *message, uint32_t bytes)
{
	struct rndis_initialize request;
	struct rndis_initialize_answer answer = {
		.head = { .kind = (uint32_t)RNDIS_ANSWER | RNDIS_INITIALIZE,
			  .bytes = sizeof(answer) },
		.major = 1,
		.flags = CONNECTIONLESS,
		.medium = MEDIUM_ETHERNET,
		.packets = PACKETS_PER_MESSAGE,
		.transfer_bytes = TRANSFER_BYTES,
		.alignment_shift = ALIGNMENT_SHIFT,
	};

	(void)bytes;
	memcpy(&request, message, sizeof(request));
	answer.id = request.id;
	answer.status = request.major == 1 ? RNDIS_SUCCESS : RNDIS_NOT_SUPPORTED;
	network->initialized = request.major == 1;
	network->told_up = network->is_up; /* the guest asks for it */
	renewal_link_told(&network->renewal);
	network->filter = 0;
	network->offloads = (struct network_offloads){ .ipv4 = false };
	answer_put(network, &answer, sizeof(answer), NULL, 0);
}

/* As much of it as the guest's version of NDIS has: it says how much that is. */
static uint32_t describe_offloads(const struct network *network, uint32_t wanted_bytes,
				  struct ndis_offload *ret)
{
	const uint32_t ipv4 = NDIS_IPV4 | NDIS_IP_OPTIONS | NDIS_TCP | NDIS_TCP_OPTIONS | NDIS_UDP;
	const uint32_t ipv6 = NDIS_IP_OPTIONS | NDIS_TCP | NDIS_TCP_OPTIONS | NDIS_UDP;
	const bool coalesces = network->version >= NVSP_6_1;
	uint32_t bytes = sizeof(*ret);

	if (wanted_bytes < OFFLOAD_6_1_BYTES)
		bytes = OFFLOAD_6_0_BYTES;
	else if (wanted_bytes < sizeof(*ret))
		bytes = OFFLOAD_6_1_BYTES;
	*ret = (struct ndis_offload){
		.object = { .type = NDIS_OBJECT_OFFLOAD, .revision = 3, .bytes = (uint16_t)bytes },
		.checksums = { .ipv4_send_encapsulation = NDIS_ENCAPSULATION_ETHERNET,
			       .ipv4_send = ipv4,
			       .ipv4_receive_encapsulation = NDIS_ENCAPSULATION_ETHERNET,
			       .ipv4_receive = ipv4,
			       .ipv6_send_encapsulation = NDIS_ENCAPSULATION_ETHERNET,
			       .ipv6_send = ipv6,
			       .ipv6_receive_encapsulation = NDIS_ENCAPSULATION_ETHERNET,
			       .ipv6_receive = ipv6 },
		.large_send = { .ipv4_encapsulation = NDIS_ENCAPSULATION_ETHERNET,
				.ipv4_bytes = LARGE_SEND_BYTES,
				.ipv4_segments = LARGE_SEND_SEGMENTS,
				.ipv6_encapsulation = NDIS_ENCAPSULATION_ETHERNET,
				.ipv6_bytes = LARGE_SEND_BYTES,
				.ipv6_segments = LARGE_SEND_SEGMENTS,
				.ipv6_options = NDIS_IP_OPTIONS | NDIS_TCP_OPTIONS },
		.coalesces_ipv4 = coalesces,
		.coalesces_ipv6 = coalesces,
	};
	if (bytes == OFFLOAD_6_0_BYTES)
		ret->object.revision = 1;
	else if (bytes == OFFLOAD_6_1_BYTES)
		ret->object.revision = 2;
	return bytes;
}

static uint32_t counter_of(const struct network *network, uint32_t oid)
{
	const struct network_counters *counters = &network->counters;

	switch (oid) {
	case OID_FRAMES_SENT: return (uint32_t)counters->sent;
	case OID_FRAMES_RECEIVED: return (uint32_t)counters->received;
	case OID_SEND_ERRORS: return (uint32_t)(counters->send_bad + counters->send_dropped);
	case OID_RECEIVE_ERRORS: return (uint32_t)counters->receive_dropped;
	default: return (uint32_t)counters->receive_no_buffer;
	}
}

/* A number that is the whole answer; false: it is none of these. */
static bool number_of(const struct network *network, uint32_t oid, uint32_t *ret)
{
	switch (oid) {
	case OID_MAXIMUM_FRAME: *ret = network->mtu; return true;
	case OID_MAXIMUM_TOTAL: *ret = network->mtu + NET_HEAD_BYTES; return true;
	case OID_LINK_SPEED: *ret = LINK_SPEED_100BPS; return true;
	case OID_PACKET_FILTER: *ret = network->filter; return true;
	case OID_MEDIA_STATUS:
		*ret = network->is_up ? MEDIA_CONNECTED : MEDIA_DISCONNECTED;
		return true;
	case OID_MULTICAST_MOST: *ret = MULTICAST_MOST; return true;
	case OID_FRAMES_SENT:
	case OID_FRAMES_RECEIVED:
	case OID_SEND_ERRORS:
	case OID_RECEIVE_ERRORS:
	case OID_RECEIVE_NO_BUFFER: *ret = counter_of(network, oid); return true;
	default: return false;
	}
}

static void query(struct network *network, const struct rndis_request *request)
{
	const struct ndis_scale_capabilities scale = {
		.object = { .type = NDIS_OBJECT_SCALE_CAPABILITIES,
			    .revision = 2,
			    .bytes = sizeof(scale) },
		.flags = SCALE_FLAGS,
		.messages = 1,
		.queues = network->queues,
		.indirections = SCALE_INDIRECTIONS,
	};
	struct ndis_offload offload;
	uint32_t number;

	if (number_of(network, request->oid, &number)) {
		answer_query(network, request->id, RNDIS_SUCCESS, &number, sizeof(number));
		return;
	}
	switch (request->oid) {
	case OID_PERMANENT_ADDRESS:
	case OID_CURRENT_ADDRESS:
		answer_query(network, request->id, RNDIS_SUCCESS, network->mac, NET_MAC_BYTES);
		break;
	case (uint32_t)OID_OFFLOAD_CAPABILITIES:
		number = describe_offloads(network, request->bytes, &offload);
		answer_query(network, request->id, RNDIS_SUCCESS, &offload, number);
		break;
	case OID_SCALE_CAPABILITIES:
		answer_query(network, request->id, RNDIS_SUCCESS, &scale, sizeof(scale));
		break;
	default: answer_query(network, request->id, RNDIS_NOT_SUPPORTED, NULL, 0); break;
	}
}

/* ---- what it is told ---- */

static void set_checksum(uint8_t wish, bool *receive)
{
	if (wish)
		*receive = wish == NDIS_CHECKSUM_RECEIVE || wish == NDIS_CHECKSUM_BOTH;
}

static uint32_t set_offloads(struct network *network, const uint8_t *data, uint32_t bytes)
{
	struct network_offloads *offloads = &network->offloads;
	struct ndis_offload_parameters wish = { .flags = 0 };

	if (bytes < offsetof(struct ndis_offload_parameters, flags))
		return RNDIS_INVALID_DATA;
	memcpy(&wish, data, bytes < sizeof(wish) ? bytes : sizeof(wish));
	set_checksum(wish.ipv4_checksum, &offloads->ipv4);
	set_checksum(wish.tcp_ipv4, &offloads->tcp_ipv4);
	set_checksum(wish.udp_ipv4, &offloads->udp_ipv4);
	set_checksum(wish.tcp_ipv6, &offloads->tcp_ipv6);
	set_checksum(wish.udp_ipv6, &offloads->udp_ipv6);
	if (network->version < NVSP_6_1)
		return RNDIS_SUCCESS;
	if (wish.coalesce_ipv4)
		offloads->coalesces_ipv4 = wish.coalesce_ipv4 == NDIS_COALESCE_ON;
	if (wish.coalesce_ipv6)
		offloads->coalesces_ipv6 = wish.coalesce_ipv6 == NDIS_COALESCE_ON;
	return RNDIS_SUCCESS;
}

static uint32_t set_value(struct network *network, uint32_t oid, const uint8_t *data,
			  uint32_t bytes)
{
	switch (oid) {
	case OID_PACKET_FILTER:
		if (bytes < sizeof(network->filter))
			return RNDIS_INVALID_DATA;
		memcpy(&network->filter, data, sizeof(network->filter));
		network->renewal.is_made |= network->filter != 0;
		return RNDIS_SUCCESS;
	/* all multicast frames come: there are few, and the guest looks at them itself */
	case OID_MULTICAST_LIST:
		return bytes % NET_MAC_BYTES || bytes > MULTICAST_MOST * NET_MAC_BYTES
			       ? RNDIS_INVALID_DATA
			       : RNDIS_SUCCESS;
	case (uint32_t)OID_OFFLOAD_PARAMETERS: return set_offloads(network, data, bytes);
	case OID_SCALE_PARAMETERS: return scale_set(network, data, bytes);
	default: return RNDIS_NOT_SUPPORTED;
	}
}

static void set(struct network *network, const struct rndis_request *request,
		const uint8_t *message, uint32_t bytes)
{
	const uint64_t at = (uint64_t)request->offset + sizeof(struct rndis_head);
	uint32_t status = RNDIS_INVALID_DATA;

	if (at >= sizeof(*request) && at + request->bytes <= bytes)
		status = set_value(network, request->oid, message + at, request->bytes);
	answer_status(network, RNDIS_SET, request->id, status);
}

static void reset(struct network *network)
{
	const struct rndis_reset_answer answer = {
		.head = { .kind = (uint32_t)RNDIS_ANSWER | RNDIS_RESET, .bytes = sizeof(answer) },
		.status = RNDIS_SUCCESS,
	};

	answer_put(network, &answer, sizeof(answer), NULL, 0);
}

static void halt(struct network *network)
{
	network->initialized = false;
	network->filter = 0;
}

/* The least bytes of a message of this kind; 0: there is none. */
static uint32_t least_bytes(uint32_t kind)
{
	switch (kind) {
	case RNDIS_INITIALIZE: return sizeof(struct rndis_initialize);
	case RNDIS_QUERY:
	case RNDIS_SET: return sizeof(struct rndis_request);
	case RNDIS_HALT:
	case RNDIS_RESET:
	case RNDIS_KEEPALIVE: return sizeof(struct rndis_head) + sizeof(uint32_t);
	default: return 0;
	}
}

int network_control(struct network *network, const uint8_t *message, uint32_t bytes)
{
	struct rndis_request request = { .id = 0 };
	struct rndis_head head;

	memcpy(&head, message, sizeof(head));
	if (!least_bytes(head.kind) || head.bytes < least_bytes(head.kind) || head.bytes > bytes)
		return -EBADMSG;
	memcpy(&request, message, head.bytes < sizeof(request) ? head.bytes : sizeof(request));
	if (!network->initialized && head.kind != RNDIS_INITIALIZE && head.kind != RNDIS_HALT)
		return -EBADMSG;
	switch (head.kind) {
	case RNDIS_INITIALIZE: initialize(network, message, head.bytes); break;
	case RNDIS_QUERY: query(network, &request); break;
	case RNDIS_SET: set(network, &request, message, head.bytes); break;
	case RNDIS_RESET: reset(network); break;
	case RNDIS_KEEPALIVE:
		answer_status(network, RNDIS_KEEPALIVE, request.id, RNDIS_SUCCESS);
		break;
	default: halt(network); break;
	}
	return 0;
}
