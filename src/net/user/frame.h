/*
 * Heads of frames of a guest in user mode: Ethernet without tags and IPv4, as libslirp knows them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
	FRAME_ICMP = 1,
	FRAME_TCP = 6,
	FRAME_UDP = 17,
	FRAME_TCP_HEAD_BYTES = 20,
	FRAME_TCP_FLAGS_AT = 13,
	FRAME_TCP_SYN = 2,
	FRAME_TCP_ACK = 16,
};

/* Addresses in the host's order. transport_at: of what is not a fragment but the first. */
struct frame_ip {
	uint32_t from, to, transport_at;
	uint8_t protocol;
	bool is_fragment;
};

/* Two bytes as a network has them. */
static inline uint16_t frame_word(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
/* False: it is not IPv4. */
bool frame_find_ip(const uint8_t *data, uint32_t bytes, struct frame_ip *ret);
/*
 * In a TCP segment that begins a connection: another maximum segment size, so that the other side
 * may send as much in one as an IP packet holds. The checksum follows. What it was; 0: there was
 * none.
 */
uint16_t frame_raise_mss(uint8_t *data, uint32_t bytes, uint16_t mss);
/* Of a frame for the guest: the flags NET_IPV4 and so on (ipc/net_card.h). */
uint16_t frame_flags(const uint8_t *data, uint32_t bytes);
/* Where the TCP head of an IPv4 frame is; 0: there is none. */
uint32_t frame_find_tcp(const uint8_t *data, uint32_t bytes);
