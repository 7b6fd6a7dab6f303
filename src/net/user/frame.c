/* See frame.h. RFC 791, 793, 1624. */
#include "frame.h"

#include "ipc/net_card.h"
#include "lib/checksum.h"

enum {
	IP_AT = 14,
	IPV4_HEAD_BYTES = 20,
	ETHERTYPE_IPV4 = 0x0800,
	MORE_FRAGMENTS_AND_OFFSET = 0x3fff,
	TCP_CHECKSUM_AT = 16,
	OPTION_END = 0,
	OPTION_NONE = 1,
	OPTION_MSS = 2,
	OPTION_MSS_BYTES = 4,
};

bool frame_find_ip(const uint8_t *data, uint32_t bytes, struct frame_ip *ret)
{
	const uint8_t *ip = data + IP_AT;

	if (bytes < IP_AT + IPV4_HEAD_BYTES || frame_word(data + 12) != ETHERTYPE_IPV4)
		return false;
	*ret = (struct frame_ip){
		.from = (uint32_t)frame_word(ip + 12) << 16 | frame_word(ip + 14),
		.to = (uint32_t)frame_word(ip + 16) << 16 | frame_word(ip + 18),
		.transport_at = IP_AT + (ip[0] & 15u) * 4,
		.protocol = ip[9],
		.is_fragment = frame_word(ip + 6) & MORE_FRAGMENTS_AND_OFFSET,
	};
	return true;
}

uint32_t frame_find_tcp(const uint8_t *data, uint32_t bytes)
{
	struct frame_ip ip;

	if (!frame_find_ip(data, bytes, &ip) || ip.protocol != FRAME_TCP || ip.is_fragment ||
	    ip.transport_at < IP_AT + IPV4_HEAD_BYTES ||
	    bytes < ip.transport_at + FRAME_TCP_HEAD_BYTES)
		return 0;
	return ip.transport_at;
}

/* Where the option's value is; 0: there is none. */
static uint32_t find_mss(const uint8_t *data, uint32_t at, uint32_t end)
{
	while (at < end) {
		if (data[at] == OPTION_END)
			return 0;
		if (data[at] == OPTION_NONE) {
			at++;
			continue;
		}
		if (end - at < 2 || data[at + 1] < 2)
			return 0;
		if (data[at] == OPTION_MSS)
			return data[at + 1] == OPTION_MSS_BYTES && end - at >= OPTION_MSS_BYTES
				       ? at + 2
				       : 0;
		at += data[at + 1];
	}
	return 0;
}

/* The checksum follows. A word at an odd place counts with its bytes swapped. */
static void replace_mss(uint8_t *data, uint32_t tcp_at, uint32_t at, uint16_t mss)
{
	uint8_t *sum = data + tcp_at + TCP_CHECKSUM_AT;
	uint32_t before = frame_word(data + at);
	uint32_t after = mss;

	data[at] = (uint8_t)(mss >> 8);
	data[at + 1] = (uint8_t)mss;
	if ((at - tcp_at) % 2) {
		before = __builtin_bswap16((uint16_t)before);
		after = __builtin_bswap16((uint16_t)after);
	}
	after = 0xffffu &
		~checksum_fold((0xffffu & ~frame_word(sum)) + (0xffffu & ~before) + after);
	sum[0] = (uint8_t)(after >> 8);
	sum[1] = (uint8_t)after;
}

uint16_t frame_raise_mss(uint8_t *data, uint32_t bytes, uint16_t mss)
{
	const uint32_t tcp_at = frame_find_tcp(data, bytes);
	uint32_t end;
	uint32_t at;
	uint16_t before;

	if (!tcp_at || !(data[tcp_at + FRAME_TCP_FLAGS_AT] & FRAME_TCP_SYN))
		return 0;
	end = tcp_at + (data[tcp_at + 12] >> 4) * 4u;
	if (end > bytes)
		return 0;
	at = find_mss(data, tcp_at + FRAME_TCP_HEAD_BYTES, end);
	if (!at)
		return 0;
	before = frame_word(data + at);
	replace_mss(data, tcp_at, at, mss);
	return before;
}

uint16_t frame_flags(const uint8_t *data, uint32_t bytes)
{
	struct frame_ip ip;

	if (!frame_find_ip(data, bytes, &ip) || ip.is_fragment)
		return 0;
	switch (ip.protocol) {
	case FRAME_TCP: return NET_IPV4 | NET_TCP;
	case FRAME_UDP: return NET_IPV4 | NET_UDP;
	default: return NET_IPV4;
	}
}
