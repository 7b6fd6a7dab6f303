/*
 * umbra disk layers: what machines that were forked, or saved, go on in, of a folder; and which of
 * these files are left over: of a child that has ended, with nobody who uses it and nothing that
 * is made on it. A file that was frozen when its machine was forked names what that goes on in:
 * this is the machine's own, whether it runs or not; another file made on it is a child's.
 *
 * A child's file that is frozen itself may be what a saved machine needs, of which nothing is known
 * here: it is removed only by its name.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/names.h"
#include "disk_cli.h"
#include "machine_row.h"
#include "process/layer.h"

enum { FILES_MOST = 65536, CHAIN_MOST = 256 };

/* is_listed: of the folder that was named, and not of a place where children may lie, too. */
struct layer {
	char *path; /* as realpath() has it */
	char **beneath; /* its parents, so many, from the nearest on */
	size_t beneath_count;
	uint64_t allocated_bytes;
	bool is_listed, is_child, is_used, is_frozen;
};

/* silent: "", or a machine that does not say what its disks are. */
struct layers_found { struct layer *layer; size_t count; char silent[NAME_MAX_BYTES + 1]; };

/* ---- what there is ---- */

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Frozen by a fork: what the machine goes on in, "" where it is something else. */
static bool learn_frozen(struct disk *disk, char goes_on[DISK_REASON_BYTES])
{
	char reason[DISK_REASON_BYTES];

	goes_on[0] = 0;
	if (disk_frozen_reason(disk, reason))
		return false;
	if (!strncmp(reason, LAYER_REASON, strlen(LAYER_REASON)))
		memcpy(goes_on, reason + strlen(LAYER_REASON),
		       DISK_REASON_BYTES - strlen(LAYER_REASON));
	return true;
}

/* Its parents, and whether there is a fork beneath it. False: it has none, or no memory. */
static bool learn_chain(struct disk *disk, struct layer *layer, bool *ret_is_of_fork)
{
	const char *above = layer->path;

	*ret_is_of_fork = false;
	layer->beneath = calloc(CHAIN_MOST, sizeof(*layer->beneath));
	for (struct disk *at = disk_parent(disk);
	     layer->beneath && at && layer->beneath_count < CHAIN_MOST; at = disk_parent(at)) {
		char *path = realpath(disk_path(at), NULL);
		char goes_on[DISK_REASON_BYTES];

		if (!path)
			return false;
		if (learn_frozen(at, goes_on) && goes_on[0]) {
			*ret_is_of_fork = true;
			layer->is_child |= strcmp(goes_on, name_of(above)) != 0;
		}
		above = layer->beneath[layer->beneath_count++] = path;
	}
	return layer->beneath_count;
}

static void layer_free(struct layer *layer)
{
	while (layer->beneath_count)
		free(layer->beneath[--layer->beneath_count]);
	free(layer->beneath);
	free(layer->path);
}

/* False: it is no file of a chain, or one of which nothing can be said now. */
static bool learn(const struct arguments *arguments, const char *path, struct layer *layer)
{
	const struct disk_options options = { .accept_changed = true, .unlocked = true };
	struct disk_error why;
	char unused[DISK_REASON_BYTES];
	struct disk_info info;
	struct disk *disk;
	bool is_of_fork;
	bool is_one;

	if (disk_cli_open_unasked(arguments, path, DISK_VHDX, options, &disk, &why))
		return false;
	layer->path = realpath(path, NULL);
	disk_info(disk, &info);
	layer->allocated_bytes = info.allocated_bytes;
	layer->is_used = disk_is_used(path);
	layer->is_frozen = learn_frozen(disk, unused);
	is_one = layer->path && learn_chain(disk, layer, &is_of_fork);
	layer->is_listed &= is_one && is_of_fork;
	disk_close(disk);
	return is_one;
}

/* One that lies in two places that were named is looked at once. */
static bool is_known(const struct layers_found *found, const char *path)
{
	for (size_t n = 0; n < found->count; n++)
		if (!strcmp(found->layer[n].path, path))
			return true;
	return false;
}

static int look_at(const struct arguments *arguments, const char *path, bool is_listed,
		   struct layers_found *found)
{
	struct layer layer = { .is_listed = is_listed };
	struct layer *more;

	if (!learn(arguments, path, &layer) || is_known(found, layer.path)) {
		layer_free(&layer);
		return 0;
	}
	more = realloc(found->layer, (found->count + 1) * sizeof(*more));
	if (!more || found->count == FILES_MOST) {
		layer_free(&layer);
		found->layer = more ? more : found->layer;
		return -ENOMEM;
	}
	found->layer = more;
	found->layer[found->count++] = layer;
	return 0;
}

/* only: NULL, or the one that is listed. 0 or the exit code. */
static int look_at_folder(const struct arguments *arguments, const char *folder, const char *only,
			  bool is_listed, struct layers_found *found)
{
	DIR *directory = opendir(folder);
	const struct dirent *entry;
	enum disk_format format;
	int error = directory ? 0 : -errno;

	while (!error && (entry = readdir(directory))) {
		char *path;

		if (!disk_format_of_name(entry->d_name, &format) || format != DISK_VHDX)
			continue;
		if (asprintf(&path, "%s/%s", folder, entry->d_name) < 0)
			error = -ENOMEM;
		if (!error)
			error = look_at(arguments, path,
					is_listed && (!only || !strcmp(only, entry->d_name)),
					found);
		free(path);
	}
	if (directory)
		closedir(directory);
	return error ? disk_access_failed(folder, error) : 0;
}

/* Of a file its folder. 0 or the exit code. */
static int look_around(const struct arguments *arguments, struct layers_found *found)
{
	char *folder = realpath(arguments->file, NULL);
	const char *only = NULL;
	struct stat st;
	int code;

	if (!folder || stat(folder, &st)) {
		code = disk_access_failed(arguments->file, -errno);
		free(folder);
		return code;
	}
	if (!S_ISDIR(st.st_mode)) {
		only = name_of(folder);
		*strrchr(folder, '/') = 0;
	}
	code = look_at_folder(arguments, *folder ? folder : "/", only, true, found);
	for (unsigned n = 0; n < arguments->place_count && !code; n++)
		code = look_at_folder(arguments, arguments->places[n], NULL, false, found);
	free(folder);
	return code;
}

/* ---- whose they are ---- */

static void note_machine(void *context, const char *name)
{
	struct layers_found *found = context;
	json_t *machine = machine_row(name);
	const json_t *disk;
	size_t n;

	json_array_foreach(json_object_get(machine, "disks"), n, disk) {
		const char *file = json_string_value(json_object_get(disk, "file"));

		for (size_t k = 0; file && k < found->count; k++)
			found->layer[k].is_used |= !strcmp(found->layer[k].path, file);
	}
	if (machine && !json_object_get(machine, "process"))
		snprintf(found->silent, sizeof(found->silent), "%s", name);
	json_decref(machine);
}

/*
 * Its disk process may not have opened it yet: a machine has its name before its files, and they
 * are in its description before it serves.
 */
static int note_machines(struct layers_found *found)
{
	const int error = name_list(note_machine, found);

	return error ? complain(EXIT_UNUSABLE, strerror(-error),
				"the folder of the machines' names",
				"have XDG_RUNTIME_DIR name a folder of yours alone")
		     : 0;
}

/* ---- what is left over ---- */

static bool is_made_on(const struct layer *above, const struct layer *layer)
{
	for (size_t n = 0; n < above->beneath_count; n++)
		if (!strcmp(above->beneath[n], layer->path))
			return true;
	return false;
}

static size_t count_above(const struct layers_found *found, const struct layer *layer)
{
	size_t count = 0;

	for (size_t n = 0; n < found->count; n++)
		count += is_made_on(&found->layer[n], layer);
	return count;
}

static bool is_left_over(const struct layers_found *found, const struct layer *layer)
{
	return layer->is_child && !layer->is_frozen && !layer->is_used &&
	       !count_above(found, layer);
}

/* ---- what is said ---- */

static const char *state_of(const struct layers_found *found, const struct layer *layer)
{
	if (count_above(found, layer))
		return "needed";
	if (layer->is_used)
		return "used";
	if (is_left_over(found, layer))
		return *found->silent ? "unknown" : "left over";
	return layer->is_frozen ? "frozen" : "kept";
}

static void print(const struct layer *layer, const char *state)
{
	printf("%-9s %8.1f MiB  ", state, (double)layer->allocated_bytes / (1 << 20));
	print_safely(layer->path);
	fputs(", on ", stdout);
	print_safely(name_of(layer->beneath[0]));
	putchar('\n');
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(((const struct layer *)a)->path, ((const struct layer *)b)->path);
}

static void list(const struct arguments *arguments, struct layers_found *found)
{
	json_t *all = arguments->json ? json_array() : NULL;

	if (found->count)
		qsort(found->layer, found->count, sizeof(*found->layer), compare_paths);
	for (size_t n = 0; n < found->count; n++) {
		const struct layer *layer = &found->layer[n];
		const char *state = state_of(found, layer);

		if (layer->is_listed && all)
			json_array_append_new(
				all, json_pack("{s:s, s:s, s:s, s:I}", "file", layer->path, "state",
					       state, "parent", layer->beneath[0], "allocated",
					       (json_int_t)layer->allocated_bytes));
		else if (layer->is_listed)
			print(layer, state);
	}
	if (all)
		print_json(all);
}

/* ---- removing ---- */

static int is_in_use(const struct layer *layer)
{
	return complain(EXIT_UNUSABLE, "somebody uses it", layer->path,
			"end the machine that does");
}

static int remove_one(const struct layer *layer)
{
	const int error = disk_remove(layer->path);

	if (error == -EBUSY)
		return is_in_use(layer);
	if (error)
		return disk_access_failed(layer->path, error);
	print_safely(layer->path);
	puts(" is removed");
	return 0;
}

/* One that was named may also be frozen. */
static int remove_named(const struct layers_found *found, const struct layer *layer)
{
	for (size_t n = 0; n < found->count; n++)
		if (is_made_on(&found->layer[n], layer))
			return complain(EXIT_UNUSABLE, "another file is made on it",
					found->layer[n].path, "remove that one first");
	if (layer->is_used)
		return is_in_use(layer);
	if (!layer->is_child)
		return complain(EXIT_UNUSABLE, "a machine that was forked goes on in it",
				layer->path, "remove it with rm if that is not needed any more");
	return remove_one(layer);
}

static int remove_listed(const struct layers_found *found, bool is_named)
{
	int code = 0;

	for (size_t n = 0; n < found->count && !code; n++) {
		const struct layer *layer = &found->layer[n];

		if (layer->is_listed && is_named)
			return remove_named(found, layer);
		if (layer->is_listed && is_left_over(found, layer))
			code = remove_one(layer);
	}
	return code;
}

static bool is_any_listed(const struct layers_found *found)
{
	for (size_t n = 0; n < found->count; n++)
		if (found->layer[n].is_listed)
			return true;
	return false;
}

static int do_verb(const struct arguments *arguments, struct layers_found *found)
{
	struct stat st;
	const bool is_named = !stat(arguments->file, &st) && !S_ISDIR(st.st_mode);

	if (is_named && !is_any_listed(found))
		return complain(EXIT_UNUSABLE, "it is no layer of a machine that was forked",
				arguments->file, "see umbra disk info --chain");
	if (arguments->remove && *found->silent)
		return complain(EXIT_UNUSABLE, "it does not say what its disks are", found->silent,
				"wait until it does, or end it");
	if (arguments->remove)
		return remove_listed(found, is_named);
	list(arguments, found);
	return 0;
}

int verb_disk_layers(struct arguments *arguments)
{
	struct layers_found found = { .count = 0 };
	int code = arguments->file ? look_around(arguments, &found)
				   : complain(EXIT_USAGE, "no folder given", "layers",
					      "say umbra disk layers FOLDER");

	if (!code)
		code = note_machines(&found);
	if (!code)
		code = do_verb(arguments, &found);
	while (found.count)
		layer_free(&found.layer[--found.count]);
	free(found.layer);
	return code;
}
