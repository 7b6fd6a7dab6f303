/*
 * Remote NDIS: frames with what is said of them, and the requests that set up a network card.
 * Offsets in a message count from its ninth byte (behind kind and bytes) unless said. All
 * little-endian.
 */
#pragma once

#include <stdint.h>

enum rndis_kind {
	RNDIS_PACKET = 1,
	RNDIS_INITIALIZE = 2,
	RNDIS_HALT = 3,
	RNDIS_QUERY = 4,
	RNDIS_SET = 5,
	RNDIS_RESET = 6,
	RNDIS_INDICATE = 7,
	RNDIS_KEEPALIVE = 8,
	RNDIS_ANSWER = (int)0x80000000, /* to each of them */
};

#define RNDIS_SUCCESS 0u
#define RNDIS_FAILURE 0xc0000001u
#define RNDIS_INVALID_DATA 0xc0010015u
#define RNDIS_NOT_SUPPORTED 0xc00000bbu
#define RNDIS_MEDIA_CONNECT 0x4001000bu
#define RNDIS_MEDIA_DISCONNECT 0x4001000cu

struct rndis_head {
	uint32_t kind, bytes;
};

struct rndis_packet {
	struct rndis_head head;
	uint32_t data_offset, data_bytes;
	uint32_t oob_offset, oob_bytes, oob_count;
	uint32_t info_offset, info_bytes;
	uint32_t vc, reserved;
};
_Static_assert(sizeof(struct rndis_packet) == 44, "a packet's head");

/* Per-packet info: this, then its value at `offset` from here. */
struct rndis_info {
	uint32_t bytes, kind, offset;
};
enum rndis_info_kind {
	RNDIS_INFO_CHECKSUM = 0,
	RNDIS_INFO_LARGE_SEND = 2,
	RNDIS_INFO_VLAN = 6,
	RNDIS_INFO_HASH = 8
};
/* Of a frame that is sent; the offset of the transport header above it. */
enum {
	RNDIS_SEND_IPV4 = 1,
	RNDIS_SEND_IPV6 = 2,
	RNDIS_SEND_TCP = 4,
	RNDIS_SEND_UDP = 8,
	RNDIS_SEND_IP_HEADER = 16,
	RNDIS_SEND_TRANSPORT_SHIFT = 16
};
/* Of a frame that is received. */
enum { RNDIS_RECEIVED_TCP_OK = 8, RNDIS_RECEIVED_UDP_OK = 16, RNDIS_RECEIVED_IP_OK = 32 };
enum { RNDIS_LARGE_SEND_MSS = (1 << 20) - 1 };
/* Of a VLAN value: priority 3 bits, then one, then the number of 12 bits from bit 4 on. */
enum { RNDIS_VLAN_PRIORITY = 7, RNDIS_VLAN_ID_SHIFT = 4, RNDIS_VLAN_ID = 0xfff };

struct rndis_initialize {
	struct rndis_head head;
	uint32_t id, major, minor, transfer_bytes;
};
struct rndis_initialize_answer {
	struct rndis_head head;
	uint32_t id, status, major, minor, flags, medium, packets, transfer_bytes, alignment_shift,
		list_offset, list_bytes;
};
/* QUERY and SET. */
struct rndis_request {
	struct rndis_head head;
	uint32_t id, oid, bytes, offset, vc;
};
struct rndis_query_answer {
	struct rndis_head head;
	uint32_t id, status, bytes, offset;
};
/* Of SET and KEEPALIVE. */
struct rndis_answer {
	struct rndis_head head;
	uint32_t id, status;
};
struct rndis_reset_answer {
	struct rndis_head head;
	uint32_t status, filter_is_lost;
};
struct rndis_indication {
	struct rndis_head head;
	uint32_t status, bytes, offset;
};

enum rndis_oid {
	OID_SUPPORTED = 0x00010101,
	OID_MAXIMUM_FRAME = 0x00010106,
	OID_LINK_SPEED = 0x00010107,
	OID_PACKET_FILTER = 0x0001010e,
	OID_MAXIMUM_TOTAL = 0x00010111,
	OID_MEDIA_STATUS = 0x00010114,
	OID_SCALE_CAPABILITIES = 0x00010203,
	OID_SCALE_PARAMETERS = 0x00010204,
	OID_FRAMES_SENT = 0x00020101,
	OID_FRAMES_RECEIVED = 0x00020102,
	OID_SEND_ERRORS = 0x00020103,
	OID_RECEIVE_ERRORS = 0x00020104,
	OID_RECEIVE_NO_BUFFER = 0x00020105,
	OID_PERMANENT_ADDRESS = 0x01010101,
	OID_CURRENT_ADDRESS = 0x01010102,
	OID_MULTICAST_LIST = 0x01010103,
	OID_MULTICAST_MOST = 0x01010104,
	OID_OFFLOAD_PARAMETERS = (int)0xfc01020c,
	OID_OFFLOAD_CAPABILITIES = (int)0xfc01020d,
};
enum {
	RNDIS_FILTER_DIRECTED = 1,
	RNDIS_FILTER_MULTICAST = 2,
	RNDIS_FILTER_ALL_MULTICAST = 4,
	RNDIS_FILTER_BROADCAST = 8,
	RNDIS_FILTER_PROMISCUOUS = 32
};

struct ndis_object {
	uint8_t type, revision;
	uint16_t bytes;
};
enum {
	NDIS_OBJECT_DEFAULT = 0x80,
	NDIS_OBJECT_SCALE_CAPABILITIES = 0x88,
	NDIS_OBJECT_OFFLOAD = 0xa7
};

/* Which checksums; the same bits for what is sent and what is received. */
enum {
	NDIS_IP_OPTIONS = 1,
	NDIS_TCP_OPTIONS = 4,
	NDIS_TCP = 0x10,
	NDIS_UDP = 0x40,
	NDIS_IPV4 = 0x100,
	NDIS_ENCAPSULATION_ETHERNET = 2
};
struct ndis_checksums {
	uint32_t ipv4_send_encapsulation, ipv4_send, ipv4_receive_encapsulation, ipv4_receive;
	uint32_t ipv6_send_encapsulation, ipv6_send, ipv6_receive_encapsulation, ipv6_receive;
};
struct ndis_large_send {
	uint32_t ipv4_encapsulation, ipv4_bytes, ipv4_segments;
	uint32_t ipv6_encapsulation, ipv6_bytes, ipv6_segments, ipv6_options;
};
/* What a card can do. Until NDIS 6.0 it ends before ipsec2, until 6.1 before coalesces_ipv4. */
struct ndis_offload {
	struct ndis_object object;
	struct ndis_checksums checksums;
	uint32_t large_send_1[4];
	uint32_t ipsec_1[7];
	struct ndis_large_send large_send;
	uint32_t flags;
	uint32_t ipsec_2[8];
	uint8_t coalesces_ipv4, coalesces_ipv6;
	uint8_t padding[2];
	uint32_t encapsulations[2];
};

/* What it shall do: of each 0 nothing changes, 1 off, and then what is on. */
struct ndis_offload_parameters {
	struct ndis_object object;
	uint8_t ipv4_checksum, tcp_ipv4, udp_ipv4, tcp_ipv6, udp_ipv6;
	uint8_t large_send_1, ipsec_1, large_send_ipv4, large_send_ipv6;
	uint8_t tcp_connection_ipv4, tcp_connection_ipv6;
	uint32_t flags;
	uint8_t ipsec_2, ipsec_2_ipv4;
	uint8_t coalesce_ipv4, coalesce_ipv6; /* 1 off, 2 on */
	uint8_t encapsulation[2];
};
enum {
	NDIS_CHECKSUM_OFF = 1,
	NDIS_CHECKSUM_SEND = 2,
	NDIS_CHECKSUM_RECEIVE = 3,
	NDIS_CHECKSUM_BOTH = 4,
	NDIS_COALESCE_ON = 2
};

struct ndis_scale_capabilities {
	struct ndis_object object;
	uint32_t flags, messages, queues;
	uint16_t indirections;
} __attribute__((packed));
/* Of scaling: what the hash is of (its lowest bit, the only function, left out); flags. */
enum {
	NDIS_HASH_IPV4 = 0x100,
	NDIS_HASH_TCP_IPV4 = 0x200,
	NDIS_HASH_IPV6 = 0x400,
	NDIS_HASH_TCP_IPV6 = 0x1000
};
enum {
	NDIS_SCALE_SAME_HASH = 2,
	NDIS_SCALE_SAME_TABLE = 4,
	NDIS_SCALE_SAME_KEY = 8,
	NDIS_SCALE_OFF = 16
};
struct ndis_scale_parameters {
	struct ndis_object object;
	uint16_t flags, base;
	uint32_t hash;
	uint16_t table_bytes;
	uint32_t table_offset;
	uint16_t key_bytes;
	uint32_t key_offset;
	uint32_t masks_offset, masks, mask_bytes;
};
