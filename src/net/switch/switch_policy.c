/*
 * The policy of a switch, in one place: every machine of the user's may join by an address of its
 * own, and sends from that alone.
 */
#include <string.h>

#include "switch.h"

enum { GROUP = 1 };

bool switch_policy_admits(const struct switch_hello *hello)
{
	static const uint8_t none[NET_MAC_BYTES];

	return !(hello->mac[0] & GROUP) && memcmp(hello->mac, none, sizeof(none));
}

bool switch_policy_lets_pass(const uint8_t from[NET_MAC_BYTES], const struct net_frame *frame,
			     const uint8_t *data)
{
	(void)frame;
	return !memcmp(data + NET_MAC_BYTES, from, NET_MAC_BYTES);
}
