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
	struct progress *p = context;

	p->all = all;
	progress_show(p, done);
	return interrupted ? -EINTR : 0;
}

static struct disk_job begin_job(struct progress *p)
{
	progress_begin(p, 0);
	p->plain = true;
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = interrupt }, NULL);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = interrupt }, NULL);
	return (struct disk_job){ .step = step, .context = p };
}

static int end_job(struct disk *d, struct progress *p, const char *event, int error,
		   const struct disk_error *why)
{
	if (!error && event)
		disk_access_note(d, event, NULL);
	progress_end(p);
	if (interrupted && error)
		return disk_access_close(d, complain(EXIT_UNUSABLE,
						     "interrupted, and as sound as before",
						     disk_path(d), "say it again to go on"));
	if (error && why && why->text[0])
		return disk_access_close(d, disk_access_refused(error, why));
	return disk_access_close(d, error ? disk_access_failed(disk_path(d), error) : 0);
}

int verb_disk_commit(struct arguments *a)
{
	struct disk_error e = { "" };
	struct progress p;
	struct disk_job job;
	struct disk *d;
	bool overridden;
	int code = disk_cli_open(a, a->file, NULL, ACTION_WRITE, &d);

	if (code)
		return code;
	code = disk_parent(d) ? disk_cli_admit(a, disk_parent(d), ACTION_WRITE, &overridden) : 0;
	if (code)
		return disk_access_close(d, code);
	if (disk_parent(d) && overridden)
		disk_access_note(d, "policy overridden", json_pack("{s:s}", "reason", a->override));
	job = begin_job(&p);
	return end_job(d, &p, "committed", disk_commit(d, &job, &e), &e);
}

/* The parents' content gets into the child's own file, where their policies no longer hold. */
static const unsigned leaves_parent = IMAGE_ACTION(ACTION_WRITE) | IMAGE_ACTION(ACTION_EXPORT);

int verb_disk_stream(struct arguments *a)
{
	struct progress p;
	struct disk_job job;
	struct disk *d;
	int code = disk_cli_open_with(a, a->file, NULL, leaves_parent,
				      (struct disk_options){ .write = true }, &d);

	if (code)
		return code;
	if (!disk_parent(d))
		return disk_access_close(
			d, complain(EXIT_USAGE, "has no parent", a->file, "nothing is to be done"));
	job = begin_job(&p);
	return end_job(d, &p, "streamed", disk_stream(d, &job), NULL);
}

int verb_disk_compact(struct arguments *a)
{
	struct progress p;
	struct disk_job job;
	struct disk *d;
	int code = disk_cli_open(a, a->file, a->format, ACTION_WRITE, &d);

	if (code)
		return code;
	job = begin_job(&p);
	return end_job(d, &p, "compacted", disk_compact(d, &job), NULL);
}

int verb_disk_rebase(struct arguments *a)
{
	struct disk_error e = { "" };
	enum disk_format format;
	struct progress p;
	struct disk_job job;
	struct disk *d;
	int code = a->parent ? disk_parse_format(a->parent_format, &format)
			     : complain(EXIT_USAGE, "no new parent given", a->file,
					"say --parent FILE");

	if (!code)
		code = disk_cli_may_fork(a, a->parent, a->parent_format);
	if (!code)
		code = disk_cli_open_with(a, a->file, NULL, leaves_parent,
					  (struct disk_options){ .write = true }, &d);
	if (code)
		return code;
	job = begin_job(&p);
	return end_job(d, &p, "rebased", disk_rebase(d, a->parent, format, &job, &e), &e);
}

int verb_disk_export_changes(struct arguments *a)
{
	struct disk_error e = { "" };
	struct progress p;
	struct disk_job job;
	struct disk *d;
	const char *unfinished;
	int code = a->other && a->since
			   ? disk_cli_open(a, a->file, NULL, ACTION_EXPORT, &d)
			   : complain(EXIT_USAGE, "no target or no ancestor given", a->file,
				      "say export-changes FILE TARGET --since ANCESTOR");

	if (code)
		return code;
	code = making_begin(a->other, &unfinished);
	if (code)
		return disk_access_close(d, code);
	job = begin_job(&p);
	code = disk_export_changes(d, a->since, unfinished, &job, &e);
	return making_end(a->other, end_job(d, &p, NULL, code, &e));
}
