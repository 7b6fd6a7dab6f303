/* What a guest in user mode may send where (net/user/guard.h), and its SYN's segment size. */
#include <stdio.h>
#include <string.h>

#include "lib/checksum.h"
#include "net/user/frame.h"
#include "net/user/guard.h"

enum { FRAME_BYTES = 128, IP_AT = 14, TRANSPORT_AT = 34, BYTES = 74 };
#define ADDRESS(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static int failures;
static uint8_t frame[FRAME_BYTES];
static struct loopback_guard guard;

static void expect(const char *what, bool got, bool want)
{
	printf("%s %s\n", got == want ? "ok  " : "FAIL", what);
	failures += got != want;
}

static void put(unsigned at, uint32_t value)
{
	frame[at] = (uint8_t)(value >> 8);
	frame[at + 1] = (uint8_t)value;
}

static void make(uint8_t protocol, uint32_t to, uint16_t from_port, uint16_t port)
{
	memset(frame, 0, sizeof(frame));
	put(12, 0x0800);
	frame[IP_AT] = 0x45;
	frame[IP_AT + 9] = protocol;
	put(IP_AT + 16, to >> 16);
	put(IP_AT + 18, to & 0xffff);
	put(TRANSPORT_AT, from_port);
	put(TRANSPORT_AT + 2, port);
	frame[TRANSPORT_AT + 12] = 0x60;
}

/* A datagram for the guest. */
static void hear(uint32_t from, uint16_t port)
{
	make(FRAME_UDP, ADDRESS(10, 0, 2, 15), port, 53);
	put(IP_AT + 12, from >> 16);
	put(IP_AT + 14, from & 0xffff);
	guard_note(&guard, frame, BYTES);
}

static bool passes(void) { return guard_lets_pass(&guard, frame, BYTES); }

static bool udp_passes(uint32_t to, uint16_t port)
{
	make(FRAME_UDP, to, 1000, port);
	return passes();
}

static bool tcp_passes(uint32_t to, uint16_t port, uint8_t flags)
{
	make(FRAME_TCP, to, 1000, port);
	frame[TRANSPORT_AT + FRAME_TCP_FLAGS_AT] = flags;
	return passes();
}

static void addresses(void)
{
	static const uint32_t closed[] = {
		ADDRESS(127, 0, 0, 1), ADDRESS(127, 255, 255, 255), ADDRESS(0, 0, 0, 0),
		ADDRESS(0, 1, 2, 3),   ADDRESS(10, 0, 2, 2),        ADDRESS(10, 0, 2, 4),
		ADDRESS(10, 0, 2, 255)
	};

	for (unsigned n = 0; n < sizeof(closed) / sizeof(closed[0]); n++) {
		expect("TCP to a closed address", tcp_passes(closed[n], 22, FRAME_TCP_SYN), false);
		expect("UDP to a closed address", udp_passes(closed[n], 161), false);
	}
	expect("TCP out", tcp_passes(ADDRESS(10, 0, 3, 2), 22, FRAME_TCP_SYN), true);
	expect("UDP out", udp_passes(ADDRESS(192, 0, 2, 1), 123), true);
	expect("the name server", udp_passes(ADDRESS(10, 0, 2, 3), 53), true);
	expect("the name server by TCP", tcp_passes(ADDRESS(10, 0, 2, 3), 53, FRAME_TCP_SYN), true);
	expect("another port of it", udp_passes(ADDRESS(10, 0, 2, 3), 54), false);
	expect("DHCP", udp_passes(UINT32_MAX, 67), true);
	expect("DHCP of the router", udp_passes(ADDRESS(10, 0, 2, 2), 67), true);
	expect("another broadcast", udp_passes(UINT32_MAX, 68), false);
	expect("a TCP broadcast", tcp_passes(UINT32_MAX, 67, FRAME_TCP_SYN), false);
	make(FRAME_ICMP, ADDRESS(10, 0, 2, 2), 0, 0);
	expect("ping", passes(), true);
	make(47, ADDRESS(10, 0, 2, 2), 0, 0);
	expect("another protocol", passes(), false);
}

static void answers(void)
{
	const uint32_t router = ADDRESS(10, 0, 2, 2);

	expect("an answer by TCP", tcp_passes(router, 4000, FRAME_TCP_SYN | FRAME_TCP_ACK), true);
	expect("data by TCP", tcp_passes(router, 4000, FRAME_TCP_ACK), true);
	expect("SYN and FIN", tcp_passes(router, 4000, FRAME_TCP_SYN | 1), false);
	expect("an answer that nobody asked for", udp_passes(router, 4000), false);
	hear(ADDRESS(192, 0, 2, 1), 4000);
	expect("where a port is open outside", udp_passes(router, 4000), false);
	hear(ADDRESS(10, 0, 2, 3), 53);
	expect("the name server's port elsewhere", udp_passes(router, 53), false);
	hear(router, 4000);
	expect("an answer by UDP", udp_passes(router, 4000), true);
	expect("to the same port of another", udp_passes(ADDRESS(10, 0, 2, 4), 4000), false);
	expect("to another port", udp_passes(router, 4001), false);
	for (unsigned n = 0; n < GUARD_ASKERS; n++)
		hear(router, (uint16_t)(5000 + n));
	expect("to who is forgotten", udp_passes(router, 4000), false);
	hear(router, 0);
	expect("to port 0", udp_passes(router, 0), false);
}

static void fragments(void)
{
	make(FRAME_TCP, ADDRESS(10, 0, 2, 2), 1000, 22);
	put(IP_AT + 6, 0x2000);
	expect("a first fragment", passes(), false);
	put(IP_AT + 6, 1);
	expect("a later one", passes(), false);
	make(FRAME_UDP, ADDRESS(10, 0, 2, 3), 1000, 53);
	put(IP_AT + 6, 0x2000);
	expect("a fragment for the name server", passes(), false);
	make(FRAME_UDP, ADDRESS(192, 0, 2, 1), 1000, 53);
	put(IP_AT + 6, 0x2000);
	expect("a fragment that goes out", passes(), true);
	make(FRAME_UDP, ADDRESS(10, 0, 2, 3), 1000, 53);
	frame[IP_AT] = 0x4f;
	expect("a head without end", guard_lets_pass(&guard, frame, BYTES), false);
	make(FRAME_TCP, ADDRESS(10, 0, 2, 2), 1000, 22);
	expect("a head that is cut off", guard_lets_pass(&guard, frame, TRANSPORT_AT + 13), false);
	expect("less than IP", guard_lets_pass(&guard, frame, IP_AT + 19), true);
}

static uint16_t tcp_sum(void)
{
	return checksum_fold(checksum_add(frame + TRANSPORT_AT, BYTES - TRANSPORT_AT, 0));
}

static void segment_sizes(void)
{
	static const uint8_t option[] = { 2, 4, 1460 >> 8, 1460 & 255 };

	for (unsigned blanks = 0; blanks < 4; blanks++) {
		make(FRAME_TCP, ADDRESS(192, 0, 2, 1), 1000, 80);
		frame[TRANSPORT_AT + 12] = 0xa0;
		frame[TRANSPORT_AT + FRAME_TCP_FLAGS_AT] = FRAME_TCP_SYN;
		memset(frame + TRANSPORT_AT + 20, 1, blanks);
		memcpy(frame + TRANSPORT_AT + 20 + blanks, option, sizeof(option));
		put(TRANSPORT_AT + 16, 0xffffu & ~tcp_sum());
		expect("a segment size is found", frame_raise_mss(frame, BYTES, 65481) == 1460,
		       true);
		expect("its checksum follows", tcp_sum() == 0xffff, true);
		expect("and is another one", frame_raise_mss(frame, BYTES, 1000) == 65481, true);
	}
	frame[TRANSPORT_AT + FRAME_TCP_FLAGS_AT] = FRAME_TCP_ACK;
	expect("not without SYN", frame_raise_mss(frame, BYTES, 1000), false);
	make(FRAME_TCP, ADDRESS(192, 0, 2, 1), 1000, 80);
	frame[TRANSPORT_AT + 12] = 0xf0;
	frame[TRANSPORT_AT + FRAME_TCP_FLAGS_AT] = FRAME_TCP_SYN;
	frame[TRANSPORT_AT + 20] = 3;
	expect("an option without length", frame_raise_mss(frame, FRAME_BYTES, 1000), false);
	frame[TRANSPORT_AT + 21] = 200;
	expect("an option beyond the end", frame_raise_mss(frame, FRAME_BYTES, 1000), false);
	expect("options beyond the frame", frame_raise_mss(frame, TRANSPORT_AT + 40, 1000), false);
}

int main(void)
{
	guard = (struct loopback_guard){ .network = ADDRESS(10, 0, 2, 0),
					 .mask = ADDRESS(255, 255, 255, 0),
					 .name_server = ADDRESS(10, 0, 2, 3) };
	addresses();
	answers();
	fragments();
	segment_sizes();
	return failures != 0;
}
