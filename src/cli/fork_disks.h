/*
 * The disks of a machine that is forked, on the user's side: where they lie the machine's broker
 * says (umbra info), their new files are made here.
 *
 *   before                     after
 *   disk.vhdx   written        disk.vhdx            frozen
 *                                disk.NAME.vhdx       written by NAME
 *                                disk.CHILD.vhdx      written by CHILD
 *
 *   - No file is written over: where there is one of that name, a number is added.
 *   - What came of nothing is removed. A layer that a disk has gone on in is not, whatever else
 *     went wrong.
 */
#pragma once

#include <jansson.h>

#include "ipc/block.h"
#include "process/plan.h"

struct fork_disk {
	struct disk_choice choice; /* as the machine has it */
	char stem[PLAN_PATH_BYTES]; /* what its layers' names begin with */
	char layer[PLAN_PATH_BYTES]; /* what the machine goes on in; "": nothing */
	int layer_file;
	struct disk *opened; /* what a child is made on, where that still arrives; NULL: its path */
};

struct fork_disks {
	unsigned count;
	struct fork_disk disk[BLOCK_DISKS];
	struct disk_place place;
	const char *folder; /* where new files are put; NULL: beside their disk */
};

/* What umbra info says of a machine's disks, for machines that start. 0 or -errno. */
int fork_disks_describe(const struct disk_plan *plan, json_t *machine);
/* Adds by what the guest knows a disk whose format does not say; zero: nothing. */
void fork_disks_describe_id(struct guid id, json_t *disk);
int fork_disks_describe_child(const struct fork_disks *disks, const struct disk_plan *plan,
			      json_t *child);
/* From what info has said. 0 or the exit code. */
int fork_disks_learn(struct fork_disks *disks, const char *machine, const json_t *info);
/*
 * The same of a machine whose disks land in `folder` (landing.h), where disk n is called path[n]
 * (NULL: none of this number lands). Of what info says no path is used. 0 or the exit code.
 */
int fork_disks_land(struct fork_disks *disks, const char *machine, const json_t *info,
		    const char *folder, char *const path[BLOCK_DISKS]);
bool fork_disks_are_written(const struct fork_disks *disks);
/* A layer for each disk that is written, yet empty. 0 or the exit code. */
int fork_disks_make_layers(struct fork_disks *disks, const char *machine);
/* To the broker at its control socket, which answers. 0 or -errno. */
int fork_disks_send_layer(const struct fork_disks *disks, unsigned n, int peer);
/* Of a machine that is gone, and has not gone on in them: removes all. */
void fork_disks_remove_layers(const struct fork_disks *disks);
/* Of a machine that says `info` now: removes what it does not go on in. */
void fork_disks_drop_layers(struct fork_disks *disks, const json_t *info);
/* What is beneath the layers: whether children may be made on it, and that nobody writes it. */
int fork_disks_freeze(const struct fork_disks *disks);
/*
 * The disks of one child, made on what is beneath, into its broker's plan. 0 or the exit code: then
 * none is there.
 */
int fork_disks_of_child(const struct fork_disks *disks, const char *child, struct disk_plan *ret);
/* Those, of a child that does not begin. */
void fork_disks_remove_child(struct disk_plan *plan);
