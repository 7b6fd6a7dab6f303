/*
 * A layer is a new, empty file that becomes a child of a disk while that is in use: what was
 * written stays in the file beneath, frozen, and what is written goes into the layer. So a machine
 * that is forked leaves its children the disk of that moment.
 *
 *   umbra fork -- file --> broker == ask, file ==> disk process   drains its queue, goes on in it
 *                                 <== on ========                 requests go to the layer
 *                                 <== settled ===                 the file beneath is clean, frozen
 *
 * By the same socket the disk process hears of disks that come, go and grow (disk_change.h), each
 * answered once: a file of a chain, and that of another disk which is to be let go or to have
 * another size.
 *
 *   - A disk process has each file from its broker, who has it from the user: it opens none.
 *   - `settled` is said after `on`, however fast the disk is.
 *   - Between `on` and `settled` of a disk another one for it is refused: -EBUSY.
 *   - Whether the machine process has really let all requests end does not matter here: what it
 *     asks for after `on` is in the layer, and what came before it is not.
 */
#pragma once

#include <stdint.h>

#include "plan.h"

enum layer_kind { LAYER_PUT_ON, LAYER_FILE, LAYER_DETACH, LAYER_RESIZE, LAYER_KINDS };
/* Of a file of a chain. */
enum {
	LAYER_FILE_FIRST = 1, LAYER_FILE_LAST = 2, LAYER_FILE_WRITE = 4, LAYER_FILE_DVD = 8,
	LAYER_FILES = 2 /* descriptors of one message: the file, and what lies beside it */
};
struct layer_ask {
	uint32_t kind, disk, format, flags;
	uint64_t size_bytes;
	char path[PLAN_PATH_BYTES];
};
enum layer_news { LAYER_ON, LAYER_SETTLED, LAYER_CHANGED, LAYER_NEWS };
/*
 * error: 0 or -errno: the disk is not on it, and as before; or not settled. CHANGED: what the disk
 * is now, after the last file of a chain, or with another size.
 */
struct layer_answer { uint32_t news; int32_t error; struct block_disk disk; };
/* Why what is beneath is frozen; the layer's own name follows. */
#define LAYER_REASON "its machine was forked, and goes on in "

/* ---- the broker's side: at grant_fd(GRANT_LAYERS). 0 or -errno. ---- */

/* This end, and that of the disk process. */
int layer_make_socket(int ret[2]);
int layer_ask(uint32_t disk, const char *path, int file);
/* Of the other kinds. Whoever passes files on closes them. */
int layer_send(const struct layer_ask *ask, const int *files, unsigned count);
/* 1: *ret; 0: nothing yet; -errno: the disk process is gone, or says what makes no sense. */
int layer_hear(struct layer_answer *ret);

/* ---- the disk process's ---- */

struct disk_queue;
struct layers;

/*
 * Of these disks and their queues, while it may make a thread. disks: replaced where a layer is
 * put on, and where one comes or goes, with which of them are written. NULL: no memory, no thread.
 */
struct layers *layers_begin(struct disk **disks, struct disk_queue **queues, bool *writes,
			    unsigned count);
/*
 * The socket has something; on the thread that the queues belong to. -EBADMSG: the broker is gone,
 * or not one.
 */
int layers_take(struct layers *layers);
/* Waits for what is being settled. */
void layers_end(struct layers *layers);
