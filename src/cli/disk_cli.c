/* Opening, closing and refusing disks for the verbs; progress on a terminal. */
#include "disk_cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/plain_text.h"

int disk_parse_format(const char *text, enum disk_format *ret)
{
	if (disk_format_parse(text ? text : "vhdx", ret))
		return 0;
	return complain(EXIT_USAGE, "not a format", text, "say vhdx, vhd, raw, qcow2 or vmdk");
}

bool disk_format_of_name(const char *name, enum disk_format *ret)
{
	const char *last = strrchr(name, '/');
	const char *suffix = strrchr(last ? last : name, '.');

	if (!suffix || suffix == (last ? last + 1 : name))
		return false;
	*ret = DISK_RAW;
	return !strcmp(suffix, ".img") || disk_format_parse(suffix + 1, ret);
}

void disk_cli_search(const struct arguments *arguments, struct disk_search *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (unsigned n = 0; n < arguments->place_count; n++)
		ret->parents[n] = arguments->places[n];
	ret->override = arguments->override;
	ret->as_json = arguments->json;
	ret->refused = arguments->refused;
	if (cli_user_file("XDG_CONFIG_HOME", ".config", "policy.json", ret->user_policy,
			  sizeof(ret->user_policy)))
		ret->user_policy[0] = 0;
	if (cli_user_file("XDG_DATA_HOME", ".local/share", "catalog.db", ret->catalog,
			  sizeof(ret->catalog)))
		ret->catalog[0] = 0;
}

int disk_cli_open_with(const struct arguments *arguments, const char *path, const char *format,
		       unsigned actions, struct disk_options more, struct disk **ret)
{
	struct disk_search search;
	enum disk_format is;
	int code = disk_parse_format(format, &is);

	if (code)
		return code;
	disk_cli_search(arguments, &search);
	more.direct |= arguments->direct;
	return disk_access_open(&search, path, is, actions, more, ret);
}

int disk_cli_open(const struct arguments *arguments, const char *path, const char *format,
		  enum image_action action, struct disk **ret)
{
	const struct disk_options options = { .write = action == ACTION_WRITE ||
						       action == ACTION_ANNOTATE };

	return disk_cli_open_with(arguments, path, format, IMAGE_ACTION(action), options, ret);
}

int disk_cli_open_unasked(const struct arguments *arguments, const char *path,
			  enum disk_format format, struct disk_options more, struct disk **ret,
			  struct disk_error *why)
{
	struct disk_search search;
	struct disk_options options;

	disk_cli_search(arguments, &search);
	options = disk_search_options(&search, format);
	options.write = more.write;
	options.direct = more.direct;
	options.accept_changed = more.accept_changed;
	options.beside_writer = more.beside_writer;
	options.unlocked = more.unlocked;
	return disk_open(path, &options, ret, why);
}

/* ---- output ---- */

void print_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	puts("");
	json_decref(json);
}

void print_safely(const char *text)
{
	plain_put(stdout, text);
}

/* ---- progress on a terminal ---- */

static double seconds_since(const struct timespec *when)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - when->tv_sec) + (double)(now.tv_nsec - when->tv_nsec) / 1e9;
}

void progress_begin(struct progress *progress, uint64_t all)
{
	*progress = (struct progress){ .all = all,
				       .on = isatty(STDERR_FILENO),
				       .is_for_program = getenv("UMBRA_PROGRESS") };
	progress->on |= progress->is_for_program;
	clock_gettime(CLOCK_MONOTONIC, &progress->begin);
}

void progress_show(struct progress *progress, uint64_t done)
{
	double seconds = seconds_since(&progress->begin);
	double rate = seconds > 0 ? (double)done / seconds : 0;

	if (!progress->on || !progress->all ||
	    (done < progress->all && done - progress->shown < progress->all / 200 + 1))
		return;
	progress->shown = done;
	if (progress->is_for_program) {
		fprintf(stderr, "{\"done\":%lu,\"all\":%lu}\n", done, progress->all);
		return;
	}
	fprintf(stderr, "\r%5.1f %%  ", 100.0 * (double)done / (double)progress->all);
	if (!progress->plain)
		fprintf(stderr, "%6.0f MiB/s  ", rate / 1048576);
	fprintf(stderr, "%4.0f s left ", rate > 0 ? (double)(progress->all - done) / rate : 0);
	if (done == progress->all)
		progress_end(progress);
}

void progress_end(struct progress *progress)
{
	if (progress->on && progress->shown && !progress->is_for_program)
		fputc('\n', stderr);
	progress->shown = 0;
}
