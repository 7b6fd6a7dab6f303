/* What the verbs on disks share. */
#pragma once

#include <time.h>

#include "disk/disk.h"
#include "image/image.h"
#include "process/disk_access.h"
#include "cli.h"

enum { PLACES = PLAN_PARENTS };
#define COPY_BYTES (1u << 20)
enum { SECTOR_MAX_BYTES = 4096 }; /* of a disk */
enum { EXIT_INCOMPLETE = 1 }; /* of rescue: something is missing */

enum { PIPE_PATH_BYTES = 64, FURTHER_DISKS = 63 };

struct arguments {
	const char *file, *other, *parent, *from, *to, *format, *other_format, *reason,
		*parent_format, *since, *socket, *override, *machine, *compress;
	uint64_t size, block, sector, offset, length;
	bool has_size, has_offset, has_length, fixed, json, chain, quick, undo, rebuild, digests,
		read_only, direct, no_sync, azure, device, dry_run, remove;
	struct disk_error *refused; /* NULL, or instead of a line: why a disk is not opened */
	const char *places[PLACES + 1];
	unsigned place_count;
	const char *disks[FURTHER_DISKS]; /* of export, beside `file` */
	unsigned disk_count;
	char piped[PIPE_PATH_BYTES]; /* `file`, when it is standard input */
};

extern const char disk_help[];
/* What follows the verb (disk_arguments.c): 0 or the exit code, and why not has been said. */
int disk_parse_arguments(int argc, char **argv, struct arguments *arguments);
/*
 * Making a file (disk_making.c): *ret_path is the name that it has until making_end(), which gives
 * it its own when `code` is 0, and else removes it. Both return the exit code. Refused:
 * disk_access_refused() with the name that the user knows.
 */
int making_begin(const char *path, const char **ret_path);
int making_end(const char *path, int code);
/* Without waiting until the name is on the host's disk. */
int making_end_unsynced(const char *path, int code);
int making_refused(const char *path, int error, const struct disk_error *why);

/* Whether a name of convert is standard input or output. */
bool disk_is_pipe(const char *path);
/* A path by which what comes in can be opened, for as long as this process lives. */
int disk_pipe_in(const char *target, char path[PIPE_PATH_BYTES]);
int disk_pipe_out(struct disk *from, const struct disk_create *what);

/* Each returns the exit code. */
int disk_parse_format(const char *text, enum disk_format *ret);
/* Of a file in a folder, by what its name ends with: formats are not guessed. False: no disk. */
bool disk_format_of_name(const char *name, enum disk_format *ret);
/* Opens for what will be done with it, if the policies allow that. */
int disk_cli_open(const struct arguments *arguments, const char *path, const char *format,
		  enum image_action action, struct disk **ret);
/* For several actions (IMAGE_ACTION()); of `more`, write, direct, accept_changed and thaw count. */
int disk_cli_open_with(const struct arguments *arguments, const char *path, const char *format,
		       unsigned actions, struct disk_options more, struct disk **ret);
/*
 * Opens without asking the policies; of `more`, write, direct, accept_changed, beside_writer and
 * unlocked count. 0 or -errno, with *why.
 */
int disk_cli_open_unasked(const struct arguments *arguments, const char *path,
			  enum disk_format format, struct disk_options more, struct disk **ret,
			  struct disk_error *why);
/* Where parents may lie and are looked for, and the user's files that decide about it. */
void disk_cli_search(const struct arguments *arguments, struct disk_search *ret);
/* A disk that is open. 0 or the exit code. */
int disk_cli_admit(const struct arguments *arguments, struct disk *disk, enum image_action action,
		   bool *ret_overridden);
/* The same for a disk in use: 0, -EPERM with *why. */
int disk_cli_allows(struct disk *disk, enum image_action action, struct disk_error *why);
/* Into the history of a file that nobody has open; `more` is released. */
int disk_cli_note_closed(const struct arguments *arguments, const char *path,
			 enum disk_format format, const char *event, json_t *more);
/* Whether children may be made on a file. */
int disk_cli_may_fork(const struct arguments *arguments, const char *parent, const char *format);

/* Released; escaped, so that it may have what a file told us. */
void print_json(json_t *json);
/* Text that a file told us: control characters as ?. */
void print_safely(const char *text);

/*
 * On a terminal: how much, how fast, how long still. For a program that sets UMBRA_PROGRESS: lines
 * {"done":N,"all":N} on standard error.
 */
struct progress {
	uint64_t all, shown;
	struct timespec begin;
	bool on, plain; /* plain: steps that are no bytes */
	bool is_for_program;
};
void progress_begin(struct progress *progress, uint64_t all);
void progress_show(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress);
/* Its steps are shown, and a signal ends it where everything is sound (-EINTR). */
struct disk_job disk_job_begin(struct progress *progress);

/* A file of the user under $VARIABLE or ~/OTHERWISE. */
int cli_user_file(const char *variable, const char *otherwise, const char *name, char *to,
		  size_t bytes);
/* disk_layers.c */
int verb_disk_layers(struct arguments *arguments);
int verb_disk_create(struct arguments *arguments);
int verb_disk_convert(struct arguments *arguments);
/* Of a machine that runs (disk_hot.c). */
int verb_disk_attach(struct arguments *arguments);
int verb_disk_detach(struct arguments *arguments);
int verb_disk_resize_running(struct arguments *arguments);
int verb_disk_check(struct arguments *arguments);
int verb_disk_import(struct arguments *arguments);
int verb_disk_export(struct arguments *arguments);
int verb_disk_repair_link(struct arguments *arguments);
int verb_disk_freeze(struct arguments *arguments);
int verb_disk_watch(struct arguments *arguments);
int verb_disk_rescue(struct arguments *arguments);
int verb_disk_replay(struct arguments *arguments);
int verb_disk_commit(struct arguments *arguments);
int verb_disk_stream(struct arguments *arguments);
int verb_disk_compact(struct arguments *arguments);
int verb_disk_shrink(struct arguments *arguments);
int verb_disk_rebase(struct arguments *arguments);
int verb_disk_export_changes(struct arguments *arguments);
int verb_disk_serve(struct arguments *arguments);
/* The same of a disk that is being served at a->socket. */
int disk_ask_server(const struct arguments *arguments, const char *what, const char *file);
