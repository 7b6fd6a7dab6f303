/*
 * umbra disk rescue: what is left of a disk that is damaged, cut off, or without its parents, into
 * a new one, and a map of what is missing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_cli.h"
#include "lib/plain_text.h"

/* A file of a few KiB may say of each cluster of a large disk that it is lost. */
enum { LISTED_MOST = 10000 };

struct losses {
	json_t *all;
	uint64_t bytes, unlisted_bytes; /* unlisted: of places beyond LISTED_MOST */
	bool as_json;
};

static const char *why_text(int why)
{
	return why == -ENOENT ? "only its parent had this, which is not there" : disk_strerror(why);
}

static int note_loss(void *context, uint64_t offset, uint64_t bytes, int why)
{
	struct losses *losses = context;

	losses->bytes += bytes;
	if (losses->as_json && json_array_size(losses->all) == LISTED_MOST)
		losses->unlisted_bytes += bytes;
	else if (losses->as_json)
		json_array_append_new(losses->all,
				      json_pack("{s:I, s:I, s:s}", "start", (json_int_t)offset,
						"length", (json_int_t)bytes, "why", why_text(why)));
	else
		printf("%16lu %16lu %s\n", offset, bytes, why_text(why));
	return 0;
}

static int step(void *context, uint64_t done, uint64_t all)
{
	(void)all;
	progress_show(context, done);
	return 0;
}

/* With its parents, or where these cannot be had, alone. */
static int open_what_is_left(const struct arguments *arguments, struct disk **ret)
{
	enum disk_format format;
	struct disk_error why;
	struct disk *disk;
	int code = disk_parse_format(arguments->from, &format);
	int error;

	if (code)
		return code;
	error = disk_cli_open_unasked(arguments, arguments->file, format,
				      (struct disk_options){ 0 }, &disk, &why);
	if (!error)
		error = disk_close(disk);
	if (error == -ENOENT || error == -ESTALE || error == -EPERM || error == -EBADMSG) {
		plain_line(stderr, "umbra: %s; its own data alone is looked at", why.text);
		return disk_cli_open_with(arguments, arguments->file, arguments->from,
					  IMAGE_ACTION(ACTION_EXPORT),
					  (struct disk_options){ .without_parents = true }, ret);
	}
	return disk_cli_open(arguments, arguments->file, arguments->from, ACTION_EXPORT, ret);
}

static int rescue_into(const struct arguments *arguments, struct disk *from, const char *path,
		       struct losses *losses)
{
	struct progress progress;
	struct disk *to;
	int code = disk_cli_open_with(arguments, path, arguments->to, IMAGE_ACTION(ACTION_WRITE),
				      (struct disk_options){ .write = true }, &to);
	int error;

	if (code)
		return code;
	progress_begin(&progress, disk_size_bytes(from));
	error = disk_rescue(from, to, &(struct disk_job){ .step = step, .context = &progress },
			    note_loss, losses);
	progress_end(&progress);
	return disk_access_close(to, error ? disk_access_failed(arguments->other, error) : 0);
}

static int say_losses(const struct arguments *arguments, const struct losses *losses)
{
	if (arguments->json)
		print_json(json_pack("{s:I, s:O, s:I}", "lost", (json_int_t)losses->bytes,
				     "missing", losses->all, "unlisted",
				     (json_int_t)losses->unlisted_bytes));
	else if (losses->bytes)
		plain_line(stderr, "umbra: %s: %lu bytes are missing, and zero in %s",
			   arguments->file, losses->bytes, arguments->other);
	return losses->bytes ? EXIT_INCOMPLETE : 0;
}

static int rescue(const struct arguments *arguments, struct disk *from,
		  const struct disk_create *what)
{
	struct losses losses = { .all = json_array(), .as_json = arguments->json };
	struct disk_error why;
	const char *unfinished;
	int code = making_begin(arguments->other, &unfinished);
	int error;

	if (!code) {
		error = disk_create(unfinished, what, &why);
		code = error ? making_refused(arguments->other, error, &why)
			     : rescue_into(arguments, from, unfinished, &losses);
		code = making_end(arguments->other, code);
	}
	if (!code)
		code = say_losses(arguments, &losses);
	json_decref(losses.all);
	return code;
}

int verb_disk_rescue(struct arguments *arguments)
{
	struct disk_create what = { .block_bytes = (uint32_t)arguments->block };
	struct disk *from;
	int code = arguments->other ? disk_parse_format(arguments->to, &what.format)
				    : complain(EXIT_USAGE, "no target given", arguments->file,
					       "say umbra disk rescue SOURCE TARGET");

	if (!code && disk_is_written_once(what.format))
		code = complain(EXIT_USAGE, "not a format that is rescued into", arguments->to,
				"say --to raw, vhdx or vhd, and convert that");
	if (!code)
		code = open_what_is_left(arguments, &from);
	if (code)
		return code;
	what.size_bytes = disk_size_bytes(from);
	what.logical_sector_bytes = disk_sector_bytes(from);
	return disk_access_close(from, rescue(arguments, from, &what));
}
