/*
 * umbra disk shrink: gives back what the guest's file systems do not use. They are read in a
 * sandbox while nobody else has the disk; one that is not clean is a reason not to touch it.
 *
 * A file that others are made on stays as it is: children are looked for in its folder and under
 * the --parents places.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_cli.h"

enum { FILES_MAX = 65536 };

/* ---- children ---- */

static bool is_above(struct disk *child, const char *path)
{
	bool found = false;

	for (struct disk *at = disk_parent(child); at && !found; at = disk_parent(at)) {
		char *is = realpath(disk_path(at), NULL);

		found = is && !strcmp(is, path);
		free(is);
	}
	return found;
}

static bool is_child(const struct arguments *arguments, const char *path, enum disk_format format,
		     const char *parent)
{
	const struct disk_options options = { .accept_changed = true, .unlocked = true };
	struct disk_error why;
	struct disk *child;
	bool found;

	if (disk_cli_open_unasked(arguments, path, format, options, &child, &why))
		return false;
	found = is_above(child, parent);
	disk_close(child);
	return found;
}

/* 0, or the exit code: this file is made on `parent`. */
static int look_at(const struct arguments *arguments, const char *folder, const char *name,
		   const char *parent)
{
	enum disk_format format;
	int code = 0;
	char *path;

	if (!disk_format_of_name(name, &format) || format == DISK_RAW)
		return 0;
	if (asprintf(&path, "%s/%s", folder, name) < 0)
		return complain(EXIT_FAULT, "out of memory", folder, "try again");
	if (is_child(arguments, path, format, parent))
		code = complain(EXIT_UNUSABLE, "is made on it, and would not be usable", path,
				"shrink its own file, or commit it first");
	free(path);
	return code;
}

/* 0, or the exit code: a file of this folder is made on `parent`, or that cannot be known. */
static int look_for_child(const struct arguments *arguments, const char *folder, const char *parent)
{
	DIR *directory = opendir(folder);
	const struct dirent *entry;
	unsigned files = 0;
	int code = 0;

	if (!directory)
		return complain(EXIT_UNUSABLE, "cannot be searched for children",
				folder, strerror(errno));
	while (!code && (entry = readdir(directory))) {
		if (files++ < FILES_MAX)
			code = look_at(arguments, folder, entry->d_name, parent);
		else
			code = complain(EXIT_UNUSABLE, "has too many files to search",
					folder, "move it to a folder with fewer");
	}
	closedir(directory);
	return code;
}

static int look_for_children(const struct arguments *arguments)
{
	char *parent = realpath(arguments->file, NULL);
	char *folder = parent ? strdup(parent) : NULL;
	int code = 0;

	if (folder && strrchr(folder, '/')) {
		*strrchr(folder, '/') = 0;
		code = look_for_child(arguments, *folder ? folder : "/", parent);
	}
	for (unsigned n = 0; parent && !code && n < arguments->place_count; n++)
		code = look_for_child(arguments, arguments->places[n], parent);
	free(folder);
	free(parent);
	return code;
}

/* ---- the work ---- */

static void say_volume(const json_t *volume)
{
	const char *name = json_string_value(json_object_get(volume, "name"));
	const char *skipped = json_string_value(json_object_get(volume, "skipped"));

	printf("%16lld  %s ", json_integer_value(json_object_get(volume, "start")),
	       json_string_value(json_object_get(volume, "kind")) ?: "");
	if (name) {
		print_safely(name);
		fputs(": ", stdout);
	}
	if (skipped)
		print_safely(skipped);
	else
		printf("%lld of %lld bytes are free",
		       json_integer_value(json_object_get(volume, "free")),
		       json_integer_value(json_object_get(volume, "bytes")));
	putchar('\n');
}

struct outcome { uint64_t freed_bytes; struct disk_info before, after; };

static void say(const struct arguments *arguments, const struct image_space *space,
		const struct outcome *outcome)
{
	json_t *volume;
	size_t n;

	if (arguments->json) {
		print_json(json_pack("{s:b, s:I, s:I, s:I, s:I, s:O}", "dry-run",
				     arguments->dry_run, "free", (json_int_t)space->free_bytes,
				     "freed", (json_int_t)outcome->freed_bytes,
				     "allocated-before",
				     (json_int_t)outcome->before.allocated_bytes, "allocated",
				     (json_int_t)outcome->after.allocated_bytes, "volumes",
				     space->volumes));
		return;
	}
	json_array_foreach(space->volumes, n, volume)
		say_volume(volume);
	if (arguments->dry_run)
		printf("%lu bytes of the file would be given back at most\n", outcome->freed_bytes);
	else
		printf("%lu bytes are not used any more; the file takes %lu of its host, before "
		       "%lu\n",
		       outcome->freed_bytes, outcome->after.allocated_bytes,
		       outcome->before.allocated_bytes);
}

static int shrink(struct arguments *arguments, struct disk *disk)
{
	struct outcome outcome;
	struct image_space space;
	struct disk_error why;
	struct progress progress;
	struct disk_job job;
	int error = image_find_space(disk, &space, &why);

	if (error == -EUCLEAN)
		disk_error_add(&why, ": it is not shrunk");
	if (error)
		return disk_access_refused(error, &why);
	disk_info(disk, &outcome.before);
	if (arguments->dry_run) {
		error = disk_count_present(disk, space.range, space.ranges, &outcome.freed_bytes);
	} else {
		job = disk_job_begin(&progress);
		error = disk_shrink(disk, space.range, space.ranges, &job, &outcome.freed_bytes);
		progress_end(&progress);
	}
	disk_info(disk, &outcome.after);
	if (!error)
		say(arguments, &space, &outcome);
	image_space_release(&space);
	if (error == -EINTR)
		return complain(EXIT_UNUSABLE, "interrupted, and as sound as before",
				arguments->file, "say it again to go on");
	return error ? disk_access_failed(arguments->file, error) : 0;
}

int verb_disk_shrink(struct arguments *arguments)
{
	enum disk_format format;
	struct disk *disk;
	int code = disk_parse_format(arguments->format, &format);

	if (!code && format == DISK_VMDK && !arguments->dry_run)
		return complain(EXIT_USAGE, "files of this format are not changed", arguments->file,
				"convert it to vhdx, shrink that, and convert it back");
	if (!code && !arguments->dry_run)
		code = look_for_children(arguments);
	if (!code)
		code = disk_cli_open_with(
			arguments, arguments->file, arguments->format,
			IMAGE_ACTION(arguments->dry_run ? ACTION_READ : ACTION_WRITE),
			(struct disk_options){ .write = !arguments->dry_run,
					       .to_shrink = !arguments->dry_run },
			&disk);
	if (code)
		return code;
	code = shrink(arguments, disk);
	if (!code && !arguments->dry_run)
		disk_access_note(disk, "shrunk", NULL);
	return disk_access_close(disk, code);
}
