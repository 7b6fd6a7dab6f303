/*
 * What lies beside a disk's file (PATH.umbra, disk/side.c), for the disk process: it may open and
 * rename nothing, so that a process of its own, the keeper, does: it knows the names, and the disk
 * process says which disk and what is to be in the file.
 *
 *   disk process ── a byte: look ──> keeper          in memory that both map: which disk, read or
 *                                                    replace,
 *                <── a byte: done ──                 how many bytes, the bytes; then 0 or -errno
 *
 *  1. One request at a time. Who has the byte has the memory; the keeper copies everything out of
 *     it before it looks.
 *  2. The keeper writes only PATH.umbra of disks that the plan has for writing, whole, and only
 *     what is a sound file of that kind.
 *  3. It ends when the disk process has: its pipe is closed.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk/disk.h"
#include "plan.h"

#define KEEPER_BYTES (64u << 20)

enum keeper_request { KEEPER_LOAD, KEEPER_STORE };

struct keeper_memory {
	uint32_t request, disk;
	int32_t error;
	uint32_t unsynced;
	uint64_t bytes;
	_Alignas(64) uint8_t data[KEEPER_BYTES];
};

/* Whether a machine with these disks needs one. */
bool keeper_is_needed(const struct disk_plan *plan);
bool keeper_has_side_file(const struct disk_plan *plan, uint32_t disk);

/* The disk process's side: of one disk. */
struct keeper_client {
	struct keeper_memory *memory;
	pthread_mutex_t *lock; /* of all clients */
	uint32_t disk;
	struct disk_side_keeper side; /* disk_options.side_keeper */
};

/* Invariant 1, with the client's lock; what is in the memory is the other side's too. */
void check_keeper(const struct keeper_client *client);
void keeper_client_init(struct keeper_client *client, struct keeper_memory *memory,
			pthread_mutex_t *lock, uint32_t disk);
