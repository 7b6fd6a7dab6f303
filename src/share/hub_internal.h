/* Inside the hub: its ports, what was decided about them, and what is said of it. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "abi/share.h"
#include "agent.h"
#include "hub.h"
#include "ipc/share_port.h"
#include "lib/brief_wait.h"
#include "rules.h"

enum {
	HUB_PORTS = 32,
	HUB_WINDOWS = 2 * HUB_PORTS,
	HUB_NO_ROOM = 1,
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

/* Of a count that grows: how fast it did between the last two looks (HUB_LOOK_MS). */
struct rate { uint64_t before, per_s; };

/* hub_window.c */
enum window_state {
	WINDOW_NONE,
	WINDOW_ASKED,
	WINDOW_GIVEN,
	WINDOW_COMMON,
	WINDOW_KEPT,
	WINDOW_TAKEN,
	WINDOW_ENDED
};
/* port: who has it, the first first. */
struct window {
	enum window_state state;
	bool was_left;
	unsigned parts; /* that it has: 1, or SHARE_PARTS */
	int fd[SHARE_PARTS];
	uint64_t inode; /* of the first */
	int64_t until_ms;
	struct port *port[2];
};

struct port {
	int line; /* HUB_NOBODY: there is none; without memory it has not joined */
	int bell, answer;
	int end; /* a pipe: readable once its machine is gone; HUB_NOBODY */
	struct window *window;
	uint32_t window_number; /* what its joiner was told last */
	int64_t asked_ms; /* since when its guest waits for one; 0: it does not */
	bool is_deaf; /* its joiner does not read */
	bool has_lost; /* it has joined with a window that it may not keep, and is not told yet */
	struct share_memory *memory;
	uint64_t memory_inode;
	struct slot_server slots;
	struct wire_join join;
	uint32_t version; /* of its joiner, as agreed */
	uint32_t generation;
	bool begun, was_joined;
	bool is_held; /* its joiner is gone, and its machine not: nobody serves it until then */
	/* Until when it is as it was before its joiner ended, and what is for it waits; 0: not. */
	int64_t between_until_ms;
	int64_t joined_ms, wait_until_ms;
	struct port *peer;
	struct queue empty, waiting;
	bool hears_later[SHARE_SLOTS]; /* of what was sent, as it was asked */
	struct decision decision[RULE_ACTS];
	struct bucket bucket;
	uint64_t packets, bytes, lost, held;
	struct rate packets_rate, bytes_rate; /* what it has sent, of late */
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
	struct brief_wait brief;
	bool looks; /* before it sleeps; else who calls hub_turn() does as he likes */
	unsigned ports, asked; /* asked: for an agent, the last time */
	/* behind these there is none */
	unsigned top, windows_top;
	struct port port[HUB_PORTS];
	struct window window[HUB_WINDOWS];
	struct rules rules;
	struct agent *agent;
	uint64_t joints, broken, rules_read, decisions, denied;
	struct log_line log[HUB_LOG]; /* decision n is at n % HUB_LOG */
};

int64_t hub_now_ms(void);

/* ---- hub.c: what hub_serve() consists of ---- */

/* NULL: no memory. */
struct hub *hub_create(int listen_fd, int pid);
void hub_destroy(struct hub *hub);
/* One look at everything, and a sleep before it. False: it is of no use any more. */
bool hub_turn(struct hub *hub);
/* A line that somebody has opened, which is the hub's then. */
void hub_add_line(struct hub *hub, int line);

/* ---- hub_hold.c ---- */

/* The line of a port has ended: whether its place is held, for at most HUB_PATIENCE_MS. */
bool hold_begin(struct port *port);
/*
 * Takes the place of the port that is held with the same memory and the same names, which has to
 * leave then; NULL: there is none.
 */
struct port *hold_end(struct hub *hub, struct port *port);
/* Whether it is known that its machine is gone. */
bool hold_has_ended(const struct port *port);
/* Whether what is for it has to wait: it is held, or its device has not come to the new line. */
bool hold_waits(const struct port *port);
/* It was held for long enough, or without need. */
bool hold_is_over(const struct port *port);

/* hub_check.c: after each turn. */
void check_hub(const struct hub *hub);

/* ---- decisions.c ---- */

/* Whether a port may offer, or see and open, what it has joined as. */
bool hub_may_be_joined(struct hub *hub, struct port *port, int64_t now_ms);
/*
 * Whether a packet of this port may go now. False: not yet, *wait_until_ms says when to ask again;
 * of what no rule lets pass that is the next look.
 */
bool hub_may_pass(struct hub *hub, struct port *from, uint32_t bytes, int64_t *wait_until_ms);

/* Whether this port's machine may lend pages to the other; to be read only. */
bool hub_may_lend(struct hub *hub, struct port *port, bool read_only);

/* ---- hub_window.c ---- */

/*
 * A port wants to lend, perhaps only what is read: 0, its machine and the other one have a window;
 * HUB_NO_ROOM: not yet, *from says when to ask again; -EPERM: it may not; -ENOTCONN: one of them
 * does not come to it.
 */
int window_ask(struct hub *hub, struct port *from, bool read_only);
/* What the joiner of a port has brought, which is the hub's then. False: none was wanted. */
bool window_bring(struct port *port, const int fds[SHARE_PARTS]);
/* The one that a port has from the hub before; HUB_NOBODY: none. False: there are too many. */
bool window_join(struct hub *hub, struct port *port, const int fds[SHARE_PARTS]);
/* Before it is anything, and at the end. */
void window_clear(struct window *window);
/* Once its joiner has heard that it has joined: whether it has lost that one. */
void window_joined(struct port *port);
/* From those who have it; NULL: from nobody. */
void window_take(struct window *window);
/* The port goes. */
void window_leave(struct port *port);
/* What has come of all of them, and what time it is. */
void windows_look(struct hub *hub);

/* ---- hub_report.c ---- */

/* Everything as JSON, in pieces. False: the line is of no use. */
bool hub_show(const struct hub *hub, int line);
