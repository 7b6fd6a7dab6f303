/* --disk, --parents and --override of umbra run, into the plan of its disk process. */
#pragma once

#include "process/plan.h"

/* FILE[,format=FORMAT][,readonly][,direct][,dvd]. Each: 0 or the exit code. */
int disk_option_add(struct disk_plan *plan, const char *text);
/* FILE[,format=FORMAT] of a disc; "": a drive without one. */
int disk_option_add_disc(struct disk_plan *plan, const char *path);
/* The same for the disk that the machine boots from: it becomes the first. */
int disk_option_add_first(struct disk_plan *plan, const char *text);
/* Whose policies count, and the user's catalog. */
void disk_option_take_places(struct disk_place *place);
int disk_option_add_parents(struct disk_plan *plan, const char *path);
int disk_option_set_override(struct disk_plan *plan, const char *reason);
