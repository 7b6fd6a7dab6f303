/*
 * Opening a disk for what will be done with it, as the policies of its image, the user and the
 * system allow; the lines for what does not go; and what its history is told. For `umbra disk` and
 * the disk process: as the user, who may be forbidden things but is no enemy.
 */
#pragma once

#include <jansson.h>

#include "disk/disk.h"
#include "image/image.h"
#include "plan.h"

extern const char disk_system_policy[];

/* Where parents are looked for, and who decides; "": no such file. */
struct disk_search {
	const char *parents[PLAN_PARENTS + 1]; /* ended by NULL; none: the directory of the child */
	const char *override;                  /* the reason to pass over a rule; NULL: none */
	char user_policy[PLAN_PATH_BYTES], catalog[PLAN_PATH_BYTES];
	const char *user_name;        /* NULL: looked up */
	/* disk_search_open_catalog(); NULL: opened where it is asked */
	struct catalog *open_catalog;
	/* why disk_access_open() has refused a disk: as JSON on standard output, beside the line;
	 * or here, and no line */
	bool as_json;
	struct disk_error *refused;
};

/* The texts of the place stay the caller's, as long as disks are open. */
void disk_search_of_place(const struct disk_place *place, struct disk_search *ret);
/* The user's own catalog, before a process gives up the right to open it. */
void disk_search_open_catalog(struct disk_search *search);
struct image_policies disk_search_policies(const struct disk_search *search);
struct disk_options disk_search_options(const struct disk_search *search, enum disk_format format);

/*
 * Each returns an exit code, and says a line when it is not 0. Of `more`, write, direct,
 * accept_changed, without_parents, thaw and parent count.
 */
int disk_access_open(const struct disk_search *search, const char *path, enum disk_format format,
		     unsigned actions, struct disk_options more, struct disk **ret);
/* The same of a disk that is open, for reading; one that is refused is closed. */
int disk_access_admit(const struct disk_search *search, struct disk *disk, const char *path,
		      unsigned actions);
/* The last that is written to it; `code` when that is not 0. */
int disk_access_close(struct disk *disk, int code);
int disk_access_refused(int error, const struct disk_error *why);
/* Its parts: kind, file, offset (null: in none of its bytes), structure, found, expected, remedy.
 */
json_t *disk_refusal_json(const struct disk_error *why);
int disk_access_failed(const char *path, int error);
int disk_access_forbidden(const char *path, const struct image_refusal *refusal);

/* Whether the format keeps a history, or its side file has more than its identity. */
bool disk_has_history(struct disk *disk);
/* Into the history of a disk open for writing, where it has a place for one; `more` is released. */
void disk_access_note(struct disk *disk, const char *event, json_t *more);
