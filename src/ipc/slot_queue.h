/*
 * A slot queue: requests of a machine process to a process that serves it, and their outcomes, in
 * memory that both map. Disks (block.h) and network cards (net_card.h) lie on it.
 *
 *   client: machine process --- requests, doorbell ---> server: disk or net process, switch
 *                           <--- replies, answer ------
 *
 * A request occupies a slot from submission to its reply. Whoever lays a queue out has memory for
 * each slot, which is copied in or out by who has it: nothing of the guest's memory is mapped by
 * the other side.
 *
 *  1. Each side keeps its own index of what it has written and read; the other's is read once and
 *     checked. Both rings have room for all slots, so that neither is ever full.
 *  2. Neither side believes the other: more requests or replies than there are slots, or a slot
 *     that is not the other's to name, is -EBADMSG. What a slot holds may change at any time; it is
 *     only data.
 *  3. Who finds nothing says so in `sleeps`, looks once more, and then sleeps on its event; who
 *     adds something writes the event only when the other sleeps.
 *  4. One thread collects for all clients of a machine process and sleeps for them
 *     (slot_clients_sleep()). Another one that has nothing to do may look for replies in its place
 *     for a moment (slot_clients_watch()): whoever has taken `sleeps` back sees to what comes until
 *     it stands there again.
 *  5. Nobody waits when he writes an event, and nobody else can make him: disks have two eventfds
 *     that never block, and whose other users cannot change that; a card has two pipes, since a net
 *     process can, and each side has its own end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SLOTS_MAX = 128, SLOT_PAGE_BYTES = 4096, SLOT_CLIENTS_MOST = 8 };
/* Of an event that is a pipe so many are taken at once; an eventfd has one. */
enum { SLOT_RINGS = 64 };

/* What kind, target, offset and bytes mean, who lays the queue out says. */
struct slot_request {
	uint16_t slot, target, kind, reserved;
	uint64_t offset, bytes;
};
struct slot_reply {
	uint32_t slot;
	int32_t result;
};

struct slot_requests {
	_Alignas(64) uint32_t written;
	_Alignas(64) uint32_t sleeps;
	_Alignas(64) struct slot_request entry[SLOTS_MAX];
};
struct slot_replies {
	_Alignas(64) uint32_t written;
	_Alignas(64) uint32_t sleeps;
	_Alignas(64) struct slot_reply entry[SLOTS_MAX];
};
struct slot_queue {
	struct slot_requests requests;
	struct slot_replies replies;
};

/* ---- the client ---- */

/*
 * doorbell_fd: written, wakes the server; answer_fd: read, and written to wake this side's reader.
 */
struct slot_client {
	struct slot_queue *queue;
	unsigned slots; /* at most SLOTS_MAX */
	int doorbell_fd, answer_fd;
	uint32_t submitted, collected;
	bool ignored; /* the server has failed: nobody collects what it says */
	/* The server is in this process: told instead of the doorbell. NULL: it is not. */
	void (*kicked)(void *context);
	void *context;
};

/* The slot is the caller's, and in no other request. The caller orders its submissions. */
void slot_submit(struct slot_client *client, const struct slot_request *request);
/* After slot_submit()s: wakes who serves them. */
void slot_kick(struct slot_client *client);
/* 1: *ret; 0: none; -EBADMSG: the server has failed. One thread. */
int slot_collect(struct slot_client *client, struct slot_reply *ret);
/* What the server says wakes nobody any more, until the next slot_restart(). */
void slot_ignore(struct slot_client *client);
/* Both sides begin anew; the server does nothing meanwhile. */
void slot_restart(struct slot_client *client);
/*
 * Sleeps until one of them may have a reply, or slot_wake(), or so much time has passed (0: any).
 * The thread that collects. False: the event of the first is gone.
 */
bool slot_clients_sleep(struct slot_client *const *clients, unsigned count, uint32_t timeout_us);
void slot_wake(struct slot_client *client);
/*
 * Another thread may look for replies of theirs while that one sleeps, and collect under a lock
 * that both take: between slot_clients_watch(), which may come again at any time, and
 * slot_clients_unwatch() the server wakes nobody. True: a reply may have come meanwhile, for which
 * somebody has to look again.
 */
void slot_clients_watch(struct slot_client *const *clients, unsigned count);
bool slot_clients_unwatch(struct slot_client *const *clients, unsigned count);
/* Whether there is something to collect. From any thread. */
bool slot_has_reply(const struct slot_client *client);

/* ---- the server ---- */

struct slot_server {
	struct slot_queue *queue;
	unsigned slots;
	int doorbell_fd, answer_fd;
	uint32_t taken, answered;
	bool answers; /* not yet told */
	bool busy[SLOTS_MAX];
};

/* 1: *ret, a copy whose slot is this side's now; 0: none; -EBADMSG: the client has failed. */
int slot_take(struct slot_server *server, struct slot_request *ret);
void slot_answer(struct slot_server *server, unsigned slot, int32_t result);
/* One that need not be told by itself: who collects sees it with the next. */
void slot_answer_later(struct slot_server *server, unsigned slot, int32_t result);
/* After slot_answer()s: wakes who collects them. */
void slot_tell(struct slot_server *server);
/*
 * Before it sleeps: whether it may, until doorbell_fd is readable; and after it has slept, which
 * takes what the doorbell says. Other things to wait for are the caller's.
 */
bool slot_server_may_sleep(struct slot_server *server);
/* Whether a request is there, for who only looks. */
bool slot_server_has_request(const struct slot_server *server);
void slot_server_wakes(struct slot_server *server, bool rung);
/* As many requests are this side's as slots are busy: invariant 1, whatever the client writes. */
void check_slot_server(const struct slot_server *server);
