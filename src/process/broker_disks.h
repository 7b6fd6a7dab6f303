/*
 * Disks that come, go and grow while their machine runs, in the broker: what the disk process and
 * the machine process do about one, in this order. One at a time, which control.ask has.
 *
 *   comes   files of its chain -> disk process, opened -> machine, which tells its guest
 *   goes    machine: no request of it is under way -> disk process, which closes it
 *   grows   disk process -> machine
 *
 *  1. The disk process closes nothing that the machine process may still ask for: it hears of what
 *     goes once the machine has said so, and of what did not come after all.
 *  2. While the disk process is asked (`files`, `close`) it has something to answer; while the
 *     machine is told, or there is no work, it has not.
 */
#pragma once

#include "control/machine_control.h"
#include "layer.h"

enum disk_work_state { DISK_WORK_IDLE, DISK_WORK_FILES, DISK_WORK_TELL, DISK_WORK_CLOSE };

struct disk_work {
	enum disk_work_state state;
	struct control *control;
	unsigned asked; /* messages to the disk process that are not answered */
	int error;      /* the first */
};

void disk_work_init(struct disk_work *work, struct control *control);
/* After WISH_DISK. Each of these: true: the machine is to be told what control.ask has. */
bool disk_work_begin(struct disk_work *work);
bool disk_work_heard(struct disk_work *work, const struct layer_answer *answer);
/* Whether what the machine has said was about a disk; else it is somebody else's. */
bool disk_work_done(struct disk_work *work, const struct record_done *done);
/* Invariant 2. */
void check_disk_work(const struct disk_work *work);
