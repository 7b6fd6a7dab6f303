/*
 * Requests of a machine process to the process that holds its disks, and their outcomes, in memory
 * that both map.
 *
 *   machine process --- requests, doorbell ---> disk process (process/block_server.c)
 *                   <--- replies, answer  -----
 *
 * A request occupies a slot from submission to its reply; the slot has room for its data, which is
 * copied in or out by whoever has it: nothing of the guest's memory is mapped by the other side.
 *
 *  1. Each side keeps its own index of what it has written and read; the other's is read once and
 *     checked. Both queues have room for all slots, so that neither is ever full.
 *  2. The disk process believes nothing: a slot that is in use, a disk that is not there, or a
 *     length beyond a slot ends it, and the machine with it. What a slot holds may change at any
 *     time; it is only data.
 *  3. Who finds nothing says so in `sleeps`, looks once more, and then sleeps on its event; who
 *     adds something writes the event only when the other sleeps.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BLOCK_SLOTS = 64, BLOCK_SLOT_BYTES = 256 << 10, BLOCK_DISKS = 16, BLOCK_PAGE_BYTES = 4096 };
enum block_kind { BLOCK_READ, BLOCK_WRITE, BLOCK_ZERO, BLOCK_FLUSH, BLOCK_KINDS };

/* bytes: of READ and WRITE at most BLOCK_SLOT_BYTES. */
struct block_request { uint16_t slot, disk, kind, reserved; uint64_t offset, bytes; };
struct block_reply { uint32_t slot; int32_t error; }; /* 0 or -errno */

/*
 * What the machine is told of a disk before it is made; written before the machine process exists.
 */
struct block_disk {
	uint64_t size_bytes;
	uint32_t sector_bytes, physical_bytes;
	uint8_t id[16];
	bool read_only;
};

struct block_requests {
	_Alignas(64) uint32_t written;
	_Alignas(64) uint32_t sleeps;
	_Alignas(64) struct block_request entry[BLOCK_SLOTS];
};
struct block_replies {
	_Alignas(64) uint32_t written;
	_Alignas(64) uint32_t sleeps;
	_Alignas(64) struct block_reply entry[BLOCK_SLOTS];
};

struct block_memory {
	uint32_t disks;
	struct block_disk disk[BLOCK_DISKS];
	struct block_requests requests;
	struct block_replies replies;
	_Alignas(BLOCK_PAGE_BYTES) uint8_t data[BLOCK_SLOTS][BLOCK_SLOT_BYTES];
};

/*
 * The machine process's side. doorbell_fd: written, wakes the disk process; answer_fd: read, and
 * written to wake this side's reader.
 */
struct block_client {
	struct block_memory *memory;
	int doorbell_fd, answer_fd;
	uint32_t submitted, collected;
};

/* The slot is the caller's, and in no other request. */
void block_submit(struct block_client *client, const struct block_request *request);
/* After block_submit()s: wakes who serves them. */
void block_kick(struct block_client *client);
/* 1: *ret; 0: none; -EBADMSG: the other side has failed. One thread. */
int block_collect(struct block_client *client, struct block_reply *ret);
/*
 * Sleeps until there may be a reply, or block_wake(). The thread that collects. False: the event is
 * gone.
 */
bool block_sleep(struct block_client *client);
void block_wake(struct block_client *client);
