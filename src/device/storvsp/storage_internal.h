/* Inside the controller; the lock and the invariants are storage.h's. */
#pragma once

#include "abi/vstor.h"
#include "scsi.h"
#include "storage.h"

/*
 * Free: nobody's. Waits: for room in the guest's ring. Orphan: its channel was closed while it was
 * under way. Part: no request, whose slot has data of one before it.
 */
enum request_state {
	REQUEST_FREE, REQUEST_UNDER_WAY, REQUEST_WAITS, REQUEST_ORPHAN, REQUEST_PART, REQUEST_STATES
};

enum { GFNS = BLOCK_SLOT_BYTES / GUEST_PAGE_BYTES + 1 };

/* One of the controller's channels: 0 the first, others are sub-channels, for commands alone. */
struct storage_queue {
	struct storage *storage;
	unsigned number;
};

struct request {
	enum request_state state;
	unsigned queue; /* by which it has come, and is answered */
	uint64_t transaction;
	unsigned disk;
	struct vstor_packet packet; /* becomes the answer */
	struct scsi_command command;
	struct bus_range range;
	uint64_t unmap[SCSI_UNMAP_RANGES][2];
	int unmaps, unmapped;
	bool flush_follows; /* it was written, and has to be durable */
	bool is_bulk;       /* counted in `bulk` until it is answered */
	unsigned parts;     /* so many slots behind its own are its, too */
	uint64_t gfn[GFNS]; /* so many of them are set as range has pages */
};

/* What the guest is told of a disk with its next command, each once. */
enum { ATTENTION_MEDIUM = 1, ATTENTION_CAPACITY = 2 };
enum { NOBODY = BLOCK_DISKS };

enum { STORAGE_QUEUES = BUS_SUBS + 1 };

struct storage {
	struct storage_queue queue[STORAGE_QUEUES];
	struct bus_service service[STORAGE_QUEUES];
	unsigned queues; /* that the guest may have */
	struct bus_channel *channel;
	struct block_memory *memory;
	struct slot_client *client;
	uint32_t slot_bytes, most_bytes; /* most_bytes: what one command transfers at most */
	uint8_t *written;    /* slots of what the guest gives; else they are memory->data */
	struct scsi_disk disk[BLOCK_DISKS];
	uint8_t attention[BLOCK_DISKS];
	unsigned disks;   /* numbers that were used */
	unsigned luns;    /* that are there: bit n */
	unsigned leaving; /* the disk whose requests are waited for; NOBODY: none goes */
	/* The guest is to look which disks there are, and could not be told yet. */
	bool must_tell;
	void (*released)(void *context);
	void *context;
	uint32_t version; /* 0: not agreed upon */
	bool begun, submitted, paused;
	/*
	 * Nobody knows its disk yet; whoever serves it is away. What is asked of it then waits, its
	 * data in the guest's memory, and nothing more is taken. So it is where it needs more slots
	 * than are free behind one another.
	 */
	bool awaited, away;
	struct request *held;
	pthread_cond_t drained; /* nothing is under way; with the channel's lock */
	unsigned free, waiting; /* of the requests */
	unsigned bulk;          /* that the disk process has; changed with the lock */
	uint64_t commands, bytes_read, bytes_written, flushes, refused, failed, attached, detached;
	struct request request[BLOCK_SLOTS];
};

/* ---- storage.c ---- */

/* The disk process has none of the requests. */
bool storage_is_drained(const struct storage *storage);
bool storage_is_version(uint32_t version);

/* ---- storage_slots.c ---- */

/* How many slots so many bytes need; at least 1. */
unsigned storage_slots_for(const struct storage *storage, uint64_t bytes);
/*
 * Gives a request of which nothing was begun yet so many slots, where they are free behind one
 * another: it is there then, and what is returned. NULL: that is nowhere.
 */
struct request *storage_slots_spread(struct storage *storage, struct request *request,
				     unsigned slots);
/* The request is nobody's any more, and the slots behind its own that were its. */
void storage_slots_release(struct storage *storage, struct request *request);
