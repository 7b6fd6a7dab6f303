/*
 * What a card does for its guest with the heads of frames: checksums, and frames that are to be cut
 * into segments. The sum over the data is left to who cuts or sends the frame on a wire: between
 * two guests nobody needs it.
 *
 * Everything here reads a copy of the head, and writes it. RFC 791, 793, 768, 1071, 8200.
 */
#include <string.h>

#include "lib/checksum.h"
#include "network_internal.h"

enum {
	ETHERTYPE_AT = 12,
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_IPV6 = 0x86dd,
	ETHERTYPE_VLAN = 0x8100,
	VLAN_BYTES = 4,
	IPV4_HEAD_BYTES = 20,
	IPV6_HEAD_BYTES = 40,
	TCP_HEAD_BYTES = 20,
	UDP_HEAD_BYTES = 8,
	TCP_CHECKSUM_AT = 16,
	UDP_CHECKSUM_AT = 6,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	TCP_FIN = 1,
	TCP_PUSH = 8,
	TCP_CWR = 128,
};

static uint32_t load16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

static void store16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* Where what lies in a frame: found in its head, within head_bytes. */
struct layers {
	uint32_t ip_at, transport_at, end;
	bool is_ipv4;
};

static bool find_ip(const uint8_t *head, uint32_t head_bytes, struct layers *ret)
{
	uint32_t type_at = ETHERTYPE_AT;

	if (head_bytes < NET_HEAD_BYTES + VLAN_BYTES)
		return false;
	if (load16(head + type_at) == ETHERTYPE_VLAN)
		type_at += VLAN_BYTES;
	ret->ip_at = type_at + 2;
	ret->is_ipv4 = load16(head + type_at) == ETHERTYPE_IPV4;
	return ret->is_ipv4 || load16(head + type_at) == ETHERTYPE_IPV6;
}

/* ret->end: where the IP packet ends; of one that is to be cut that is the end of the frame. */
static bool find_ipv4(uint8_t *head, uint32_t head_bytes, uint32_t frame_bytes, bool is_large,
		      struct layers *ret)
{
	uint8_t *ip = head + ret->ip_at;
	uint32_t ip_bytes;

	if (head_bytes < ret->ip_at + IPV4_HEAD_BYTES || ip[0] >> 4 != 4)
		return false;
	ip_bytes = (uint32_t)(ip[0] & 15) * 4;
	if (ip_bytes < IPV4_HEAD_BYTES || head_bytes < ret->ip_at + ip_bytes)
		return false;
	if (is_large)
		store16(ip + 2, frame_bytes - ret->ip_at);
	ret->transport_at = ret->ip_at + ip_bytes;
	ret->end = ret->ip_at + load16(ip + 2);
	return ret->end >= ret->transport_at && ret->end <= frame_bytes;
}

static bool find_ipv6(uint8_t *head, uint32_t head_bytes, uint32_t frame_bytes, bool is_large,
		      uint32_t transport_at, struct layers *ret)
{
	uint8_t *ip = head + ret->ip_at;
	const uint32_t behind_at = ret->ip_at + IPV6_HEAD_BYTES;

	if (head_bytes < behind_at || ip[0] >> 4 != 6 || frame_bytes < behind_at)
		return false;
	if (is_large)
		store16(ip + 4, frame_bytes - behind_at);
	ret->transport_at = transport_at > behind_at ? transport_at : behind_at;
	ret->end = behind_at + load16(ip + 4);
	return ret->end >= ret->transport_at && ret->end <= frame_bytes;
}

static void write_ipv4_checksum(uint8_t *head, const struct layers *layers)
{
	uint8_t *ip = head + layers->ip_at;

	store16(ip + 10, 0);
	store16(ip + 10, 0xffffu & ~checksum_fold(checksum_add(
					   ip, layers->transport_at - layers->ip_at, 0)));
}

static uint32_t pseudo_sum(const uint8_t *head, const struct layers *layers, uint32_t protocol)
{
	const uint8_t *ip = head + layers->ip_at;
	const uint32_t sum = protocol + (layers->end - layers->transport_at);

	return layers->is_ipv4 ? checksum_add(ip + 12, 8, sum) : checksum_add(ip + 8, 32, sum);
}

/* The checksum of the transport is left to be completed. */
static bool leave_checksum(const struct offload_wish *wish, uint8_t *head, uint32_t head_bytes,
			   const struct layers *layers, struct net_frame *frame)
{
	const bool is_tcp = wish->mss || wish->checksum & RNDIS_SEND_TCP;
	const uint32_t least = is_tcp ? TCP_HEAD_BYTES : UDP_HEAD_BYTES;
	const uint32_t at = is_tcp ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT;

	if (layers->end - layers->transport_at < least || layers->transport_at + least > head_bytes)
		return false;
	store16(head + layers->transport_at + at,
		checksum_fold(pseudo_sum(head, layers, is_tcp ? PROTOCOL_TCP : PROTOCOL_UDP)));
	frame->checksum_at = (uint16_t)layers->transport_at;
	frame->checksum_offset = (uint16_t)at;
	frame->flags |= NET_CHECKSUM_MISSING | (is_tcp ? NET_TCP : NET_UDP);
	return true;
}

bool offload_send(const struct offload_wish *wish, uint8_t *head, uint32_t head_bytes,
		  struct net_frame *frame)
{
	const bool has_transport = wish->mss || wish->checksum & (RNDIS_SEND_TCP | RNDIS_SEND_UDP);
	struct layers layers;
	bool found;

	if (!wish->mss && !wish->checksum)
		return true;
	if (!find_ip(head, head_bytes, &layers))
		return false;
	found = layers.is_ipv4 ? find_ipv4(head, head_bytes, frame->bytes, wish->mss, &layers)
			       : find_ipv6(head, head_bytes, frame->bytes, wish->mss,
					   wish->transport_at, &layers);
	if (!found)
		return false;
	frame->bytes = layers.end;
	frame->flags |= layers.is_ipv4 ? NET_IPV4 : NET_IPV6;
	if (has_transport && !leave_checksum(wish, head, head_bytes, &layers, frame))
		return false;
	if (layers.is_ipv4 && (wish->mss || wish->checksum & RNDIS_SEND_IP_HEADER))
		write_ipv4_checksum(head, &layers);
	if (wish->mss) {
		frame->mss = wish->mss < UINT16_MAX ? (uint16_t)wish->mss : UINT16_MAX;
		frame->flags |= NET_LARGE;
	}
	return true;
}

/* ---- cutting ---- */

/* The heads of a frame that is to be cut. */
static bool find_heads(const struct net_frame *frame, const uint8_t *head, uint32_t head_bytes,
		       struct layers *ret)
{
	const uint32_t tcp_at = frame->checksum_at;

	if (!find_ip(head, head_bytes, ret) || tcp_at + TCP_HEAD_BYTES > head_bytes ||
	    tcp_at < ret->ip_at + (ret->is_ipv4 ? IPV4_HEAD_BYTES : IPV6_HEAD_BYTES))
		return false;
	ret->transport_at = tcp_at;
	ret->end = tcp_at + (uint32_t)(head[tcp_at + 12] >> 4) * 4;
	return ret->end >= tcp_at + TCP_HEAD_BYTES && ret->end <= head_bytes;
}

static void write_segment_ip(uint8_t *head, const struct layers *layers, uint32_t number)
{
	uint8_t *ip = head + layers->ip_at;

	if (!layers->is_ipv4) {
		store16(ip + 4, layers->end - layers->ip_at - IPV6_HEAD_BYTES);
		return;
	}
	store16(ip + 2, layers->end - layers->ip_at);
	store16(ip + 4, load16(ip + 4) + number);
	write_ipv4_checksum(head, layers);
}

/* What only the last segment says, and only the first. */
static void write_segment_tcp(uint8_t *tcp, uint32_t done, bool is_last)
{
	uint32_t sequence = (load16(tcp + 4) << 16 | load16(tcp + 6)) + done;

	store16(tcp + 4, sequence >> 16);
	store16(tcp + 6, sequence & 0xffff);
	if (!is_last)
		tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PUSH);
	if (done)
		tcp[13] &= (uint8_t)~TCP_CWR;
}

bool offload_cut(const struct net_frame *frame, const uint8_t *data, uint32_t done, bool with_sum,
		 uint8_t head[OFFLOAD_HEAD_BYTES], uint32_t *ret_head_bytes, uint32_t *ret_bytes)
{
	const uint32_t copied =
		frame->bytes < OFFLOAD_HEAD_BYTES ? frame->bytes : OFFLOAD_HEAD_BYTES;
	struct layers layers;
	uint32_t heads_bytes;
	uint32_t left;
	uint8_t *tcp;

	memcpy(head, data, copied);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (!find_heads(frame, head, copied, &layers) || layers.end + done >= frame->bytes)
		return false;
	heads_bytes = layers.end;
	left = frame->bytes - heads_bytes - done;
	*ret_bytes = left < frame->mss ? left : frame->mss;
	*ret_head_bytes = heads_bytes;
	layers.end += *ret_bytes;
	tcp = head + layers.transport_at;
	write_segment_ip(head, &layers, done / frame->mss);
	write_segment_tcp(tcp, done, left == *ret_bytes);
	if (!with_sum)
		return true;
	store16(tcp + TCP_CHECKSUM_AT, 0);
	left = pseudo_sum(head, &layers, PROTOCOL_TCP);
	left = checksum_add(tcp, heads_bytes - layers.transport_at, left);
	left = checksum_add(data + heads_bytes + done, *ret_bytes, left);
	store16(tcp + TCP_CHECKSUM_AT, 0xffffu & ~checksum_fold(left));
	return true;
}

uint32_t offload_receive_info(const struct network_offloads *offloads,
			      const struct net_frame *frame)
{
	const bool is_ipv4 = frame->flags & NET_IPV4;
	uint32_t info = 0;

	if (!(frame->flags & (NET_CHECKSUM_MISSING | NET_CHECKSUM_GOOD)))
		return 0;
	if (is_ipv4 && offloads->ipv4)
		info |= RNDIS_RECEIVED_IP_OK;
	if (frame->flags & NET_TCP && (is_ipv4 ? offloads->tcp_ipv4 : offloads->tcp_ipv6))
		info |= RNDIS_RECEIVED_TCP_OK;
	if (frame->flags & NET_UDP && (is_ipv4 ? offloads->udp_ipv4 : offloads->udp_ipv6))
		info |= RNDIS_RECEIVED_UDP_OK;
	return info;
}
