/*
 * A layer is a new, empty file that becomes a child of a disk while that is in use: what was
 * written stays in the file beneath, frozen, and what is written goes into the layer. So a machine
 * that is forked leaves its children the disk of that moment.
 *
 *   umbra fork -- file --> broker == ask, file ==> disk process   drains its queue, goes on in it
 *                                 <== on ========                 requests go to the layer
 *                                 <== settled ===                 the file beneath is clean, frozen
 *
 *  1. A disk process has each file from its broker, who has it from the user: it opens none.
 *  2. Between `on` and `settled` of a disk another one for it is refused: -EBUSY.
 *  3. Whether the machine process has really let all requests end does not matter here: what it
 *     asks for after `on` is in the layer, and what came before it is not.
 */
#pragma once

#include <stdint.h>

#include "plan.h"

struct layer_ask { uint32_t disk; char path[PLAN_PATH_BYTES]; };
enum layer_news { LAYER_ON, LAYER_SETTLED, LAYER_NEWS };
/* error: 0 or -errno: the disk is not on it, and as before; or not settled. */
struct layer_answer { uint32_t news; int32_t error; };

/* ---- the broker's side: at grant_fd(GRANT_LAYERS). 0 or -errno. ---- */

/* This end, and that of the disk process. */
int layer_make_socket(int ret[2]);
int layer_ask(uint32_t disk, const char *path, int file);
/* 1: *ret; 0: nothing yet; -errno: the disk process is gone, or says what makes no sense. */
int layer_hear(struct layer_answer *ret);

/* ---- the disk process's ---- */

struct disk_queue;
struct layers;

/*
 * Of these disks and their queues, while it may make a thread. disks: replaced where a layer is
 * put on. NULL: no memory, no thread.
 */
struct layers *layers_begin(struct disk **disks, struct disk_queue **queues, unsigned count);
/*
 * The socket has something; on the thread that the queues belong to. -EBADMSG: the broker is gone,
 * or not one.
 */
int layers_take(struct layers *layers);
/* Waits for what is being settled. */
void layers_end(struct layers *layers);
