/* Inside the switch: its ports, and what one of them waits for. */
#pragma once

#include "lib/brief_wait.h"
#include "switch.h"

enum { NOBODY = -1 };

struct message {
	struct net_frame frame;
	uint8_t data[NET_FRAME_BYTES];
};

struct port {
	int fd; /* NOBODY: there is none */
	bool has_joined, is_slow;
	uint8_t mac[NET_MAC_BYTES];
	int64_t flood_ms; /* when its second began */
	unsigned flooded;
	/* for how long it has waited for others in this second, which began at stall_ms */
	int64_t stall_ms, stalled_us;
	/* what the port at `to` has not taken yet, and when its turn is */
	int to;
	int64_t since_us;
	uint64_t turn;
	size_t bytes;
	struct message message;
};

struct hub {
	int listen_fd;
	int64_t lonely_ms;
	unsigned ports, top; /* none is at or behind `top` */
	uint64_t turns;
	struct brief_wait brief;
	struct port port[SWITCH_PORTS];
};

/* Invariants 1, 3 and 4, as far as they can be seen after a turn. */
void check_switch(const struct hub *hub);
