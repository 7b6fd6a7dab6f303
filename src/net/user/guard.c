/* See guard.h. */
#include "guard.h"

#include "frame.h"

enum {
	PORT_DNS = 53,
	PORT_DHCP = 67,
	UDP_HEAD_BYTES = 8,
};

/* 127.0.0.0/8 and 0.0.0.0/8, which is the same to a socket. */
static bool is_loopback(uint32_t address) { return address >> 24 == 127 || !(address >> 24); }

static bool may_be_asked(const struct loopback_guard *guard, const struct frame_ip *ip,
			 uint16_t port)
{
	return ip->to == guard->name_server && port == PORT_DNS;
}

static bool is_asker(const struct loopback_guard *guard, uint32_t address, uint16_t port)
{
	for (unsigned n = 0; n < GUARD_ASKERS; n++)
		if (port && guard->asker[n].address == address && guard->asker[n].port == port)
			return true;
	return false;
}

static bool udp_passes(const struct loopback_guard *guard, const struct frame_ip *ip,
		       const uint8_t *udp)
{
	const uint16_t port = frame_word(udp + 2);

	return port == PORT_DHCP || may_be_asked(guard, ip, port) ||
	       is_asker(guard, ip->to, port);
}

/* One that does not begin a connection belongs to one that somebody else began, or to none. */
static bool tcp_passes(const struct loopback_guard *guard, const struct frame_ip *ip,
		       const uint8_t *tcp)
{
	const bool begins =
		(tcp[FRAME_TCP_FLAGS_AT] & (FRAME_TCP_SYN | FRAME_TCP_ACK)) == FRAME_TCP_SYN;

	return !begins || may_be_asked(guard, ip, frame_word(tcp + 2));
}

bool guard_lets_pass(const struct loopback_guard *guard, const uint8_t *data, uint32_t bytes)
{
	struct frame_ip ip;

	if (!frame_find_ip(data, bytes, &ip))
		return true; /* ARP, and what libslirp does not know */
	if (ip.to == UINT32_MAX)
		return ip.protocol == FRAME_UDP && !ip.is_fragment &&
		       bytes >= ip.transport_at + UDP_HEAD_BYTES &&
		       frame_word(data + ip.transport_at + 2) == PORT_DHCP;
	if (is_loopback(ip.to))
		return false;
	if ((ip.to & guard->mask) != guard->network)
		return true;
	/* what is put together later cannot be looked at here */
	if (ip.is_fragment)
		return false;
	if (ip.protocol == FRAME_UDP)
		return bytes >= ip.transport_at + UDP_HEAD_BYTES &&
		       udp_passes(guard, &ip, data + ip.transport_at);
	if (ip.protocol == FRAME_TCP)
		return bytes >= ip.transport_at + FRAME_TCP_HEAD_BYTES &&
		       tcp_passes(guard, &ip, data + ip.transport_at);
	return ip.protocol == FRAME_ICMP;
}

void guard_note(struct loopback_guard *guard, const uint8_t *data, uint32_t bytes)
{
	struct frame_ip ip;
	uint16_t port;

	if (!frame_find_ip(data, bytes, &ip) || ip.protocol != FRAME_UDP || ip.is_fragment ||
	    bytes < ip.transport_at + UDP_HEAD_BYTES ||
	    (ip.from & guard->mask) != guard->network || ip.from == guard->name_server)
		return;
	port = frame_word(data + ip.transport_at);
	if (is_asker(guard, ip.from, port))
		return;
	guard->asker[guard->next].address = ip.from;
	guard->asker[guard->next].port = port;
	guard->next = (guard->next + 1) % GUARD_ASKERS;
}
