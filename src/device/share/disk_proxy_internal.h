/* Inside the proxy; the lock and the invariants are disk_proxy.h's. */
#pragma once

#include <pthread.h>

#include "abi/share_disk.h"
#include "device/storvsp/storage.h"
#include "disk_proxy.h"

enum {
	SLOTS = SHARE_DISK_REQUESTS,
	SLOT_BYTES = SHARE_DISK_1_2_MAX_BYTES,
	SLOT_PAGES = SLOT_BYTES / SLOT_PAGE_BYTES,
	AGAIN_MS = 1000,
	SECTOR_LEAST_BYTES = 512,
};
_Static_assert((int)SHARE_DISK_MAX_BYTES <= (int)BLOCK_SLOT_BYTES &&
		       (int)SHARE_DISK_MAX_BYTES == SLOTS * SLOT_BYTES,
	       "a controller takes such commands, and the longest has all slots");
_Static_assert((int)SHARE_DISK_READ == (int)BLOCK_READ && (int)SHARE_DISK_FLUSH == (int)BLOCK_FLUSH,
	       "a request says what the controller says");
_Static_assert(SLOTS * SLOT_PAGES <= (int)SHARE_WINDOW_PAGES, "the half of a window has them");

/* Refused: the hub is asked again later. Stranger: not before another one comes. */
enum server_state { NOBODY, STRANGER, ASKING, REFUSED, GREETING, SERVING };

/*
 * Of more bytes than a slot has it has as many slots behind its own as it needs. A server before
 * version 1.3 is asked for each of them by itself: its pieces, which have the SLOTS numbers before
 * its own.
 */
struct pending {
	bool is_there;
	uint8_t sent, done; /* a bit for each piece; in this round */
	int result;
	uint64_t number;
	struct slot_request request;
};

struct proxy_counters {
	uint64_t requests, answered, again, late, rounds, strangers, wrong, refused, hubs;
	uint64_t hubs_failed;
};

struct disk_proxy {
	pthread_mutex_t lock;
	unsigned number;

	/* the controller's side */
	struct storage *storage;
	struct slot_client disk_client;
	struct slot_server disk_server;
	struct block_memory *block;
	size_t block_bytes;
	uint8_t *written; /* as block->data, of what the server only reads */
	uint8_t *stood;   /* of disk_proxy_stand(): as written */
	bool stood_lost;  /* they are not what was written */
	struct pending pending[SLOTS];
	uint64_t last_number;
	bool answers, arrived, told_served; /* told_served: the controller, at last */
	bool is_lost; /* the controller is to be told */

	/* the hub's side */
	struct share_memory *memory;
	struct port_window *window;
	struct lender *lender;
	struct slot_client *client, *wakes;
	uint32_t generation;
	uint32_t peer_word; /* another each time that the server opens its channel; 0: nobody */
	bool cut_off, peer_is_there, submitted;
	uint64_t epoch, number_sent;
	bool is_hubs[SHARE_SLOTS];
	unsigned send_free;
	uint8_t send_stack[SHARE_SEND_SLOTS];
	struct share_packet sent[SHARE_SLOTS];

	/* the server's */
	enum server_state state;
	int64_t again_ms; /* refused, or greeting: invariant 4 */
	bool is_asked, asks_anew; /* of ASK: it is with the hub; it is time for the next */
	uint32_t round;
	/* invariant 7: while is_old, of numbers up to last_old alone; then it is the next one */
	uint64_t session, next_session, last_old;
	bool is_old;
	bool is_known;
	struct share_disk_welcome disk; /* as the first server said */

	struct proxy_counters counters;
};

/* What a server may say of its disk. */
bool disk_proxy_is_disk(const struct share_disk_welcome *said);
struct block_disk disk_proxy_block_disk(const struct disk_proxy *proxy);
/* Whether something is pending that was before the last time it stood. */
bool disk_proxy_has_old(const struct disk_proxy *proxy);
/* Whether its bytes need more than one slot. */
static inline bool disk_proxy_is_long(const struct slot_request *request)
{
	return request->kind <= BLOCK_WRITE && request->bytes > SLOT_BYTES;
}
void disk_proxy_fail_pending(struct disk_proxy *proxy);
/* Nobody is at the port, or nobody who goes on with what was: the disk is gone. */
void disk_proxy_leave(struct disk_proxy *proxy);
