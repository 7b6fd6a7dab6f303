/* The disk process of a machine: opens its disks as the user, gives up its rights, serves them, and closes them when the machine is gone. */
#pragma once

#include "ipc/block.h"
#include "process/broker.h"
#include "vm/machine.h"
#include "disk_cli.h"

struct disk_choice { char *path; const char *format; bool read_only, direct; };

struct disk_process {
	struct disk_choice disk[BLOCK_DISKS];
	unsigned count;
	const char *parents[PLACES + 1];
	unsigned parent_count;
	const char *override;
	struct block_memory *memory;
	int doorbell_fd, answer_fd;
};

/* --disk and --parents. 0 or the exit code. */
int disk_process_add(struct disk_process *process, const char *text);
/* The same for the disk that the machine boots from: it becomes the first. */
int disk_process_add_image(struct disk_process *process, const char *text);
/* What the first disk boots. 0 or the exit code. */
int disk_process_find_boot(struct disk_process *process, struct image_boot *ret);
int disk_process_add_parents(struct disk_process *process, const char *path);
/* What both processes share; before either of them exists. 0 or the exit code. */
int disk_process_prepare(struct disk_process *process, struct machine_disks *ret);
/* broker_options.helper: says one line for what is wrong; its exit code. */
int disk_process(const struct broker_helper *helper, struct disk_process *process);
/* Umbra's exit code when the process has ended so; says a line where it could not itself. */
int disk_process_code(int wait_status);
