/*
 * umbra disk commit, stream, rebase, compact, export-changes: long operations, with their progress.
 * Ctrl-C ends one where everything is sound; done again, it goes on.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "disk_cli.h"

static volatile sig_atomic_t interrupted; /* a signal handler has nowhere else to say it */

static void interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

static int step(void *context, uint64_t done, uint64_t all)
{
	struct progress *progress = context;

	progress->all = all;
	progress_show(progress, done);
	return interrupted ? -EINTR : 0;
}

struct disk_job disk_job_begin(struct progress *progress)
{
	progress_begin(progress, 0);
	progress->plain = true;
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = interrupt }, NULL);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = interrupt }, NULL);
	return (struct disk_job){ .step = step, .context = progress };
}

static int end_job(struct disk *disk, struct progress *progress, const char *event, int error,
		   const struct disk_error *why)
{
	if (!error && event)
		disk_access_note(disk, event, NULL);
	progress_end(progress);
	if (interrupted && error)
		return disk_access_close(disk, complain(EXIT_UNUSABLE,
							"interrupted, and as sound as before",
							disk_path(disk), "say it again to go on"));
	if (error && why && why->text[0])
		return disk_access_close(disk, disk_access_refused(error, why));
	return disk_access_close(disk, error ? disk_access_failed(disk_path(disk), error) : 0);
}

int verb_disk_commit(struct arguments *arguments)
{
	struct disk_error error = { .kind = REFUSAL_NONE };
	struct progress progress;
	struct disk_job job;
	struct disk *disk;
	bool overridden;
	int code = disk_cli_open(arguments, arguments->file, NULL, ACTION_WRITE, &disk);

	if (code)
		return code;
	code = disk_parent(disk)
		       ? disk_cli_admit(arguments, disk_parent(disk), ACTION_WRITE, &overridden)
		       : 0;
	if (code)
		return disk_access_close(disk, code);
	if (disk_parent(disk) && overridden)
		disk_access_note(disk, "policy overridden",
				 json_pack("{s:s}", "reason", arguments->override));
	job = disk_job_begin(&progress);
	return end_job(disk, &progress, "committed", disk_commit(disk, &job, &error), &error);
}

/* The parents' content gets into the child's own file, where their policies no longer hold. */
static const unsigned leaves_parent = IMAGE_ACTION(ACTION_WRITE) | IMAGE_ACTION(ACTION_EXPORT);

int verb_disk_stream(struct arguments *arguments)
{
	struct progress progress;
	struct disk_job job;
	struct disk *disk;
	int code = disk_cli_open_with(arguments, arguments->file, NULL, leaves_parent,
				      (struct disk_options){ .write = true }, &disk);

	if (code)
		return code;
	if (!disk_parent(disk))
		return disk_access_close(disk, complain(EXIT_USAGE, "has no parent",
							arguments->file, "nothing is to be done"));
	job = disk_job_begin(&progress);
	return end_job(disk, &progress, "streamed", disk_stream(disk, &job), NULL);
}

int verb_disk_compact(struct arguments *arguments)
{
	struct progress progress;
	struct disk_job job;
	struct disk *disk;
	int code =
		disk_cli_open(arguments, arguments->file, arguments->format, ACTION_WRITE, &disk);

	if (code)
		return code;
	job = disk_job_begin(&progress);
	return end_job(disk, &progress, "compacted", disk_compact(disk, &job), NULL);
}

int verb_disk_rebase(struct arguments *arguments)
{
	struct disk_error error = { .kind = REFUSAL_NONE };
	enum disk_format format;
	struct progress progress;
	struct disk_job job;
	struct disk *disk;
	int code = arguments->parent ? disk_parse_format(arguments->parent_format, &format)
				     : complain(EXIT_USAGE, "no new parent given", arguments->file,
						"say --parent FILE");

	if (!code)
		code = disk_cli_may_fork(arguments, arguments->parent, arguments->parent_format);
	if (!code)
		code = disk_cli_open_with(arguments, arguments->file, NULL, leaves_parent,
					  (struct disk_options){ .write = true }, &disk);
	if (code)
		return code;
	job = disk_job_begin(&progress);
	return end_job(disk, &progress, "rebased",
		       disk_rebase(disk, arguments->parent, format, &job, &error), &error);
}

int verb_disk_export_changes(struct arguments *arguments)
{
	struct disk_error error = { .kind = REFUSAL_NONE };
	struct progress progress;
	struct disk_job job;
	struct disk *disk;
	const char *unfinished;
	int code = arguments->other && arguments->since
			   ? disk_cli_open(arguments, arguments->file, NULL, ACTION_EXPORT, &disk)
			   : complain(EXIT_USAGE, "no target or no ancestor given", arguments->file,
				      "say export-changes FILE TARGET --since ANCESTOR");

	if (code)
		return code;
	code = making_begin(arguments->other, &unfinished);
	if (code)
		return disk_access_close(disk, code);
	job = disk_job_begin(&progress);
	code = disk_export_changes(disk, arguments->since, unfinished, &job, &error);
	return making_end(arguments->other, end_job(disk, &progress, NULL, code, &error));
}
