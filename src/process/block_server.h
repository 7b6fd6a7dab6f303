/* The disk process's side of ipc/block.h. */
#pragma once

#include "ipc/block.h"
#include "disk/disk.h"

/*
 * rings: of the places' queues, made before (disk/queue.h). doorbell_fd: read; answer_fd: written;
 * end_fd: readable, or closed at its other end, when the machine is gone.
 */
struct block_service {
	struct block_memory *memory;
	struct disk **disks; /* NULL: that place has none */
	bool *writes;        /* which of them are written */
	struct disk_ring **rings;
	unsigned count; /* of places */
	int doorbell_fd, answer_fd, end_fd;
	int layers_fd; /* whose news are layer.h's; -1: no layers come, and no disks */
};

/* Of a format without an identifier: its file's place, which stays the same while the file does;
 * zero: it is not there. */
struct guid block_place_id(const char *path);
/* What the machine is told of a disk; `write`: whether it was opened for that. */
void block_describe(struct disk *disk, bool write, struct block_disk *ret);
/*
 * Serves until the end; then nothing is under way any more. `ready` is called once everything that
 * needs rights is there, and may take them away. 0; -EBADMSG: the machine process broke the
 * protocol; -errno.
 */
int block_serve(const struct block_service *service, int (*ready)(void *context), void *context);
