/* Inside the hub: its ports, what was decided about them, and what is said of it. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "abi/share.h"
#include "agent.h"
#include "hub.h"
#include "ipc/share_port.h"
#include "rules.h"

enum {
	HUB_PORTS = 32,
	HUB_NOBODY = -1,
	HUB_PATIENCE_MS = 10000,
	HUB_LOOK_MS = 1000,
	HUB_LOG = 64,
	HUB_REASON_BYTES = 96
};

/* Slots of a port, first in, first out. */
struct queue { unsigned first, count; uint8_t slot[SHARE_SLOTS]; };

static inline void queue_put(struct queue *queue, unsigned slot)
{
	assert(queue->count < SHARE_SLOTS);
	queue->slot[(queue->first + queue->count++) % SHARE_SLOTS] = (uint8_t)slot;
}
static inline unsigned queue_first(const struct queue *queue)
{
	assert(queue->count);
	return queue->slot[queue->first];
}
static inline unsigned queue_take(struct queue *queue)
{
	const unsigned slot = queue_first(queue);

	queue->first = (queue->first + 1) % SHARE_SLOTS;
	queue->count--;
	return slot;
}

/* What was decided, until when. */
struct decision {
	bool allows, is_known;
	int64_t until_ms;
	uint64_t bytes_per_s, requests_per_s;
	char reason[HUB_REASON_BYTES];
};

/* Of a rule's rate: what may pass yet, in thousandths. */
struct bucket { int64_t filled_ms; uint64_t bytes, requests; };

struct port {
	int line; /* HUB_NOBODY: there is none; without memory it has not joined */
	int bell, answer;
	int window; /* and which memory it is */
	uint64_t window_inode;
	struct share_memory *memory;
	struct slot_server slots;
	struct wire_join join;
	uint32_t generation;
	bool begun, was_joined;
	int64_t joined_ms, wait_until_ms;
	struct port *peer;
	struct queue empty, waiting;
	struct decision decision[RULE_ACTS];
	struct bucket bucket;
	uint64_t packets, bytes, lost, held;
};

struct log_line {
	int64_t at_s; /* of the host's clock */
	enum rule_act act;
	bool allows;
	char machine[WIRE_MACHINE_BYTES], instance[WIRE_INSTANCE_BYTES], class[WIRE_CLASS_BYTES];
	char reason[HUB_REASON_BYTES];
};

struct hub {
	int listen_fd, pid;
	int64_t lonely_ms, looked_ms;
	unsigned ports, asked; /* asked: for an agent, the last time */
	struct port port[HUB_PORTS];
	struct rules rules;
	struct agent *agent;
	uint64_t joints, broken, rules_read, decisions, denied;
	struct log_line log[HUB_LOG]; /* decision n is at n % HUB_LOG */
};

int64_t hub_now_ms(void);

/* ---- decisions.c ---- */

/* Whether a port may offer, or see and open, what it has joined as. */
bool hub_may_be_joined(struct hub *hub, struct port *port, int64_t now_ms);
/*
 * Whether a packet of this port may go now. False: not yet, *wait_until_ms says when to ask again;
 * of what no rule lets pass that is the next look.
 */
bool hub_may_pass(struct hub *hub, struct port *from, uint32_t bytes, int64_t *wait_until_ms);

/* Whether this port's machine may lend pages to the other. */
bool hub_may_lend(struct hub *hub, struct port *port);

/* ---- hub_report.c ---- */

/* Everything as JSON, in pieces. False: the line is of no use. */
bool hub_show(const struct hub *hub, int line);
