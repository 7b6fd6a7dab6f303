/*
 * Asynchronous requests to a disk. A queue belongs to one thread, which submits and collects; a
 * disk may have several queues.
 *
 * What lies together in the disk's file goes to the host's io_uring; everything else (new blocks,
 * parents, trim, flush, formats without a map) to the queue's own threads, as does all where the
 * host has no io_uring. Requests complete in any order; a flush covers those whose completion was
 * collected before it was submitted.
 *
 * Whoever changes a chain under its users (snapshot, commit) lets their queues run empty first:
 * disk_queue_drain().
 */
#pragma once

#include "disk.h"

struct disk_queue;
struct disk_ring;

enum disk_request_kind { DISK_READ, DISK_WRITE, DISK_ZERO, DISK_FLUSH };

/* The caller's until done() is called, which may submit it again. */
struct disk_request {
	enum disk_request_kind kind;
	uint64_t offset, bytes; /* bytes: of DISK_ZERO; reads and writes have their vector's */
	const struct iovec *iov; /* stays until then, too; at most 1024 */
	int count;
	void (*done)(struct disk_request *request, int error);
	void *context;
	struct { struct disk_request *next; uint64_t bytes; int error; } own; /* the queue's */
};

/*
 * depth, threads: 0 stands for 64 and 4. ring: NULL, or one that was made before with the same
 * options, and is the queue's from then on.
 */
struct disk_queue_options { unsigned depth, threads; bool no_ring; struct disk_ring *ring; };

/*
 * What a queue needs system calls for that a process gives up before it opens what others made: the
 * asynchronous ring, where the host has one. 0 or -errno.
 */
int disk_ring_create(const struct disk_queue_options *options, struct disk_ring **ret);
void disk_ring_destroy(struct disk_ring *ring);

/* disk NULL: before disk_queue_move() none may be submitted. */
int disk_queue_open(struct disk *disk, const struct disk_queue_options *options,
		    struct disk_queue **ret);
/* Collects everything, and ends; before the disk is closed. */
void disk_queue_close(struct disk_queue *queue);
/* -EAGAIN: `depth` requests are under way. What is wrong with a request is said when it is done.
 * Begins with the next kick or poll. */
int disk_queue_submit(struct disk_queue *queue, struct disk_request *request);
void disk_queue_kick(struct disk_queue *queue);
/* Calls done() of what has completed; their number. */
unsigned disk_queue_poll(struct disk_queue *queue);
/*
 * To sleep until there is something to collect: may_sleep() says that there is nothing yet, and
 * that the descriptor becomes readable when there is (with nothing under way: never); wakes()
 * comes afterwards, slept or not, with whether it was. Who does not sleep need not be told.
 */
int disk_queue_fd(const struct disk_queue *queue);
bool disk_queue_may_sleep(struct disk_queue *queue);
void disk_queue_wakes(struct disk_queue *queue, bool rung);
/* Collects, and where there is nothing yet waits for it; not with nothing under way. */
void disk_queue_wait(struct disk_queue *queue);
/* Collects until nothing is under way. */
void disk_queue_drain(struct disk_queue *queue);
/* Requests go to another disk from now on: after disk_queue_drain(). NULL: none may be
 * submitted. */
void disk_queue_move(struct disk_queue *queue, struct disk *disk);
bool disk_queue_has_ring(const struct disk_queue *queue);
