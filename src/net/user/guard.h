/*
 * What keeps a guest in user mode from the host's own loopback addresses: libslirp would lead there
 * every frame to 127.0.0.0/8, 0.0.0.0/8, and to any address of its own network but the guest's.
 *
 * A guest may ask libslirp itself (ARP, DHCP, ping), the name server's port, and may answer: a TCP
 * connection that it did not begin, and a datagram to who has sent one through a forwarded port.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { GUARD_ASKERS = 256 };

struct loopback_guard {
	uint32_t network, mask, name_server; /* in the host's order */
	/* who has asked the guest by UDP through its network, the oldest is forgotten first */
	struct { uint32_t address; uint16_t port; } asker[GUARD_ASKERS];
	unsigned next;
};

/* Of a frame that the guest sends; a copy that nobody changes. */
bool guard_lets_pass(const struct loopback_guard *guard, const uint8_t *data, uint32_t bytes);
/*
 * A frame for the guest: who asks from its own network, which is how the host's loopback looks, may
 * be answered there. An answer from outside, or of the name server, is nobody who asks.
 */
void guard_note(struct loopback_guard *guard, const uint8_t *data, uint32_t bytes);
