/*
 * A file of the host's into the guest (hv_fcopy_daemon), a piece at a time.
 *
 *   idle -> begun: name, folder and length are there -> pieces, in their order -> complete -> idle
 *
 *  1. One question at a time; whoever asked hears once how it ended.
 *  2. A file that was begun is completed, or given up: by who copies it, after an answer that is
 *     an error, or when FILE_COPY_IDLE_SECONDS have gone without a word of his. The guest's daemon
 *     removes what was given up.
 *
 * Lock: the channel's. Messages: 1.1.
 */
#pragma once

#include "vmbus/vmbus.h"

/* A piece with its heads is what hv_fcopy_daemon reads at once: 6,196 bytes. */
enum { FILE_COPY_PIECE_BYTES = 6112, FILE_COPY_NAME_BYTES = 260, FILE_COPY_IDLE_SECONDS = 10 };

struct file_copy;

struct file_copy_host {
	/* 0; -EIO: the guest could not; -EEXIST; -ENOSPC; -ETIMEDOUT. With the channel's lock. */
	void (*answered)(void *context, int error);
	void *context;
};

/* The unit: a struct file_copy. */
extern const struct unit_ops file_copy_unit;

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct file_copy *file_copy_create(struct bus *bus, const struct file_copy_host *host);
void file_copy_destroy(struct file_copy *copy);
/*
 * Each: 0, and the answer comes by file_copy_host.answered(); -ENOTCONN: nobody in the guest
 * listens; -EBUSY: it is asked already, or another file is under way; -EBADF: none is; -EINVAL: not
 * this piece of it.
 *
 * Texts are UTF-8 of the basic plane: -EILSEQ, and -ENAMETOOLONG beyond FILE_COPY_NAME_BYTES - 1
 * units.
 */
int file_copy_begin(struct file_copy *copy, const char *folder, const char *name, uint64_t bytes,
		    bool replaces);
int file_copy_piece(struct file_copy *copy, const uint8_t *data, size_t bytes);
/* All pieces were there; or it is given up. */
int file_copy_end(struct file_copy *copy, bool is_complete);
