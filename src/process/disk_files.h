/*
 * The files that a disk process needs while it opens its disks, and no others: the disks
 * themselves, what lies beside them, the places in which their parents may lie, and the policies.
 * For lockdown_for_opening().
 */
#pragma once

#include "ipc/lockdown.h"
#include "plan.h"

enum { DISK_FILES = 3 * BLOCK_DISKS + PLAN_PARENTS + 2 };

struct disk_files { struct lockdown_file file[DISK_FILES]; unsigned count; };

/* What is not there is left out: opening it fails as it would have. */
void disk_files_open(const struct disk_plan *plan, struct disk_files *ret);
void disk_files_close(struct disk_files *files);
