/* umbra image scan, get, set, tag, packages, files, export: what an image says about itself. */
#include <assert.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_cli.h"
#include "image_cli.h"

static void say_scanned(const struct image_arguments *arguments, const json_t *about,
			bool unchanged)
{
	json_t *packages = json_object_get(about, "packages");
	json_t *files = json_object_get(about, "files");
	json_t *os = image_get(about, "os.name");
	json_t *unread = image_get(about, "scanned.unread");
	json_t *entry;
	size_t n;

	if (arguments->disk.json) {
		print_json(json_pack("{s:b, s:O?, s:O?, s:O?, s:O?}", "unchanged", unchanged, "os",
				     os, "packages", packages, "files", files, "unread", unread));
		return;
	}
	printf("%s: ", unchanged ? "not changed since the last scan" : "scanned");
	if (os)
		print_safely(json_string_value(os) ?: "?");
	else
		print_safely("no operating system known");
	printf(", %lld packages, %lld files\n", (long long)json_integer_value(packages),
	       (long long)json_integer_value(files));
	json_array_foreach(unread, n, entry)
	{
		printf("not read: partition at %lld: ",
		       (long long)json_integer_value(json_object_get(entry, "start")));
		print_safely(json_string_value(json_object_get(entry, "says")) ?: "?");
		putchar('\n');
	}
}

/* What should have been readable and was not: the scan is of a part. */
static bool is_damaged(const json_t *about)
{
	const json_t *unread = image_get(about, "scanned.unread");
	const json_t *entry;
	size_t n;

	json_array_foreach(unread, n, entry)
		if (json_is_true(json_object_get(entry, "damaged")))
			return true;
	return false;
}

int image_verb_scan(struct image_arguments *arguments)
{
	const struct scan_options options = { .files = !arguments->packages_only,
					      .digests = arguments->digests };
	bool unchanged = false;
	struct disk *disk;
	json_t *about;
	int code = image_cli_open(arguments, ACTION_ANNOTATE, &disk);
	int error;

	if (code)
		return code;
	error = image_scan(disk, &options, &unchanged);
	if (!error && !unchanged)
		error = image_add_history(disk, "umbra image", "scanned", NULL);
	if (!error && !image_load_about(disk, &about)) {
		say_scanned(arguments, about, unchanged);
		if (is_damaged(about))
			code = complain(EXIT_UNUSABLE, "some of it could not be read",
					arguments->disk.file,
					"look at what was not read; restore it from a copy");
		json_decref(about);
	}
	return disk_access_close(disk, error ? image_failed(arguments->disk.file, error) : code);
}

/* For reading only: the names of kept files are a section of their own. */
static int add_kept(struct disk *disk, json_t *about)
{
	json_t *kept;
	int error = image_load_kept(disk, &kept);

	if (!error && json_object_size(kept))
		json_object_set(about, "kept", kept);
	json_decref(kept);
	return error;
}

int image_verb_get(struct image_arguments *arguments)
{
	struct disk *disk;
	json_t *about;
	const json_t *value = NULL;
	int code = image_cli_open(arguments, ACTION_INSPECT, &disk);
	int error;

	if (code)
		return code;
	error = image_load_about(disk, &about);
	if (!error)
		error = add_kept(disk, about);
	if (error)
		return disk_access_close(disk, image_failed(arguments->disk.file, error));
	value = arguments->count > 1 ? image_get(about, arguments->values[1]) : about;
	if (json_is_string(value) && !arguments->disk.json) {
		print_safely(json_string_value(value));
		puts("");
	} else if (value)
		print_json(json_incref((json_t *)(uintptr_t)value));
	code = value ? 0 : 1;
	json_decref(about);
	return disk_access_close(disk, code);
}

static int set_one(json_t *about, const char *assignment)
{
	int error = image_set(about, assignment);

	if (!error)
		return 0;
	return complain(EXIT_USAGE,
			error == -EILSEQ ? "a value that is no text"
					 : "not a KEY=VALUE of an image",
			assignment, "see umbra image --help for the keys");
}

/* Every section of a JSON file. */
static int set_from(json_t *about, const char *path)
{
	json_error_t where;
	json_t *all = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
	json_t *value;
	const char *key;
	int code = 0;

	if (!json_is_object(all)) {
		json_decref(all);
		return complain(EXIT_UNUSABLE, all ? "not a JSON object" : where.text, path,
				"see docs/image.schema.json");
	}
	json_object_foreach(all, key, value)
	{
		char *name = NULL;

		if (asprintf(&name, "%s=1", key) < 0 || image_set(about, name))
			code = complain(EXIT_USAGE, "not a key of an image", key,
					"see umbra image --help for the keys");
		else
			json_object_set(about, key, value);
		free(name);
	}
	json_decref(all);
	return code;
}

static int change_about(struct image_arguments *arguments,
			int (*change)(struct image_arguments *arguments, json_t *about),
			const char *event)
{
	struct disk *disk;
	char why[160];
	json_t *about = NULL;
	json_t *changes = json_array();
	int code = image_cli_open(arguments, ACTION_ANNOTATE, &disk);
	int error;

	if (code) {
		json_decref(changes);
		return code;
	}
	error = image_load_about(disk, &about);
	code = error ? image_failed(arguments->disk.file, error) : change(arguments, about);
	if (!code && image_check_about(about, why))
		code = complain(EXIT_USAGE, why, arguments->disk.file,
				"see docs/image.md and docs/image.schema.json");
	for (unsigned n = 1; n < arguments->count && n < 20; n++)
		json_array_append_new(changes, json_stringn(arguments->values[n],
							    strlen(arguments->values[n]) < 200
								    ? strlen(arguments->values[n])
								    : 200));
	if (!code) {
		error = image_save_about(disk, about);
		if (!error)
			error = image_add_history(disk, "umbra image", event,
						  json_pack("{s:O}", "what", changes));
		code = error ? image_failed(arguments->disk.file, error) : 0;
	}
	json_decref(changes);
	json_decref(about);
	return disk_access_close(disk, code);
}

static int set_values(struct image_arguments *arguments, json_t *about)
{
	int code = 0;

	if (arguments->disk.from)
		code = set_from(about, arguments->disk.from);
	else if (arguments->count < 2)
		code = complain(EXIT_USAGE, "nothing to set", arguments->disk.file,
				"say KEY=VALUE");
	for (unsigned n = 1; n < arguments->count && !code; n++)
		code = set_one(about, arguments->values[n]);
	return code;
}

int image_verb_set(struct image_arguments *arguments)
{
	return change_about(arguments, set_values, "set");
}

static size_t find_tag(const json_t *tags, const char *tag)
{
	size_t n = 0;

	while (n < json_array_size(tags) &&
	       strcmp(json_string_value(json_array_get(tags, n)) ?: "", tag))
		n++;
	return n;
}

static int set_tags(struct image_arguments *arguments, json_t *about)
{
	json_t *tags = json_object_get(about, "tags");

	if (!json_is_array(tags)) {
		tags = json_array();
		json_object_set_new(about, "tags", tags);
	}
	for (unsigned n = 1; n < arguments->count; n++) {
		const char *tag = arguments->values[n];
		size_t at = find_tag(tags, *tag == '-' ? tag + 1 : tag);

		if (*tag == '-')
			json_array_remove(tags, at);
		else if (at == json_array_size(tags) &&
			 json_array_append_new(tags, json_string(tag)))
			return complain(EXIT_USAGE, "a tag that is no text", arguments->disk.file,
					"use UTF-8");
	}
	return 0;
}

int image_verb_tag(struct image_arguments *arguments)
{
	if (arguments->count > 1)
		return change_about(arguments, set_tags, "tagged");
	assert(arguments->count < IMAGE_VALUES);
	arguments->values[arguments->count++] = "tags";
	return image_verb_get(arguments);
}

int image_verb_packages(struct image_arguments *arguments)
{
	struct disk *disk;
	json_t *content, *package;
	json_t *all = json_array();
	size_t n;
	int code = image_cli_open(arguments, ACTION_INSPECT, &disk);
	int error;
	int found = 0;

	if (code)
		return code;
	error = image_load_content(disk, &content);
	if (error)
		return disk_access_close(disk, image_failed_content(arguments->disk.file, error));
	json_array_foreach(json_object_get(content, "packages"), n, package)
	{
		const char *name = json_string_value(json_object_get(package, "name"));
		const char *version = json_string_value(json_object_get(package, "version"));

		if (!name || !version ||
		    (arguments->count > 1 && fnmatch(arguments->values[1], name, 0)))
			continue;
		found++;
		if (arguments->disk.json) {
			json_array_append(all, package);
			continue;
		}
		print_safely(name);
		putchar(' ');
		print_safely(version);
		puts("");
	}
	if (arguments->disk.json)
		print_json(json_incref(all));
	json_decref(all);
	json_decref(content);
	return disk_access_close(disk, found ? 0 : 1);
}

int image_verb_files(struct image_arguments *arguments)
{
	struct disk *disk;
	json_t *files, *entry;
	json_t *all = json_array();
	const char *path;
	int code = image_cli_open(arguments, ACTION_INSPECT, &disk);
	int error;
	int found = 0;

	if (code)
		return code;
	error = image_load_files(disk, &files);
	if (error)
		return disk_access_close(disk, image_failed_content(arguments->disk.file, error));
	json_object_foreach(files, path, entry)
	{
		if (arguments->count > 1 && fnmatch(arguments->values[1], path, 0))
			continue;
		found++;
		if (arguments->disk.json) {
			json_array_append_new(all,
					      json_pack("{s:s, s:O?, s:O?, s:O?}", "path", path,
							"bytes", json_array_get(entry, 0), "time",
							json_array_get(entry, 1), "blake2b",
							json_array_get(entry, 2)));
			continue;
		}
		printf("%12lld ", (long long)json_integer_value(json_array_get(entry, 0)));
		print_safely(json_string_value(json_array_get(entry, 2)) ?: "");
		if (json_array_size(entry) > 2)
			putchar(' ');
		print_safely(path);
		puts("");
	}
	if (arguments->disk.json)
		print_json(json_incref(all));
	json_decref(all);
	json_decref(files);
	return disk_access_close(disk, found ? 0 : 1);
}

int image_verb_export(struct image_arguments *arguments)
{
	bool spdx = arguments->disk.to && !strcmp(arguments->disk.to, "spdx");
	struct disk *disk;
	json_t *about = NULL;
	json_t *content = NULL;
	json_t *out;
	int code = 0;
	int error;

	if (!spdx && (!arguments->disk.to || strcmp(arguments->disk.to, "cyclonedx")))
		return complain(EXIT_USAGE, "no format to export to", arguments->disk.file,
				"say --to spdx or --to cyclonedx");
	code = image_cli_open(arguments, ACTION_INSPECT, &disk);
	if (code)
		return code;
	error = image_load_about(disk, &about);
	if (!error)
		error = image_load_content(disk, &content);
	if (!error) {
		out = spdx ? image_to_spdx(about, content, arguments->disk.file)
			   : image_to_cyclonedx(about, content, arguments->disk.file);
		print_json(out);
	}
	json_decref(about);
	json_decref(content);
	return disk_access_close(disk,
				 error ? image_failed_content(arguments->disk.file, error) : 0);
}
