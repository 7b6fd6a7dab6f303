/* See fork_disks.h. */
#include "fork_disks.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "disk_option.h"
#include "say.h"
#include "process/disk_access.h"

enum { NAMES_MAX = 10000, LAYER_LINE_BYTES = 16384 };
static const char suffix[] = ".vhdx";

/* ---- what is said of them ---- */

/* Of a number without a disk null, of a drive without a disc no file. */
static json_t *describe_nothing(const struct disk_choice *choice)
{
	if (!choice->is_dvd)
		return json_null();
	return json_pack("{s:s, s:b, s:b, s:b}", "format", disk_format_name(choice->format),
			 "read-only", true, "direct", false, "dvd", true);
}

void fork_disks_describe_id(struct guid id, json_t *disk)
{
	char text[GUID_TEXT_BYTES];

	if (guid_is_zero(id))
		return;
	guid_print(id, text);
	json_object_set_new(disk, "id", json_string(text));
}

static json_t *describe_disk(const struct disk_choice *choice)
{
	char *path = choice->path[0] ? realpath(choice->path, NULL) : NULL;
	json_t *disk = NULL;

	if (!choice->path[0])
		return describe_nothing(choice);
	if (path)
		disk = json_pack("{s:s, s:s, s:s, s:b, s:b}", "file", path, "stem", path, "format",
				 disk_format_name(choice->format), "read-only", choice->read_only,
				 "direct", choice->direct);
	if (disk && choice->is_dvd)
		json_object_set_new(disk, "dvd", json_true());
	fork_disks_describe_id(choice->id, disk);
	free(path);
	return disk;
}

static void describe_places(const struct disk_place *place, json_t *machine)
{
	json_t *places = json_array();

	for (unsigned n = 0; n < place->parent_count; n++) {
		char *path = realpath(place->parent[n], NULL);

		if (path)
			json_array_append_new(places, json_string(path));
		free(path);
	}
	json_object_set_new(machine, "parents", places);
}

int fork_disks_describe(const struct disk_plan *plan, json_t *machine)
{
	json_t *disks = json_array();
	bool good = true;

	for (unsigned n = 0; n < plan->count; n++)
		good &= !json_array_append_new(disks, describe_disk(&plan->disk[n]));
	if (!good || !plan->count) {
		json_decref(disks);
		return good ? 0 : -EINVAL;
	}
	json_object_set_new(machine, "disks", disks);
	if (plan->place.parent_count)
		describe_places(&plan->place, machine);
	return 0;
}

int fork_disks_describe_child(const struct fork_disks *disks, const struct disk_plan *plan,
			      json_t *child)
{
	int error = fork_disks_describe(plan, child);
	json_t *all = json_object_get(child, "disks");

	for (unsigned n = 0; n < disks->count && !error; n++)
		if (disks->disk[n].choice.path[0])
			error = json_object_set_new(json_array_get(all, n), "stem",
						    json_string(disks->disk[n].stem));
	return error ? -EINVAL : 0;
}

/* ---- what is learned ---- */

static int take_text(const json_t *object, const char *key, char *to, size_t room)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? plan_set_text(to, room, text) : -EINVAL;
}

/* Layers of layers are named as those of the first file are, not longer each time. */
static void take_stem(const json_t *about, struct fork_disk *disk)
{
	size_t bytes;

	if (take_text(about, "stem", disk->stem, sizeof(disk->stem)))
		memcpy(disk->stem, disk->choice.path, sizeof(disk->stem));
	bytes = strlen(disk->stem);
	if (bytes > strlen(suffix) && !strcmp(disk->stem + bytes - strlen(suffix), suffix))
		disk->stem[bytes - strlen(suffix)] = 0;
}

static int learn_disk(const json_t *about, struct fork_disk *disk)
{
	const char *id = json_string_value(json_object_get(about, "id"));
	char format[16];

	if (id && !guid_parse(id, &disk->choice.id))
		return -EINVAL;
	disk->choice.is_dvd = json_is_true(json_object_get(about, "dvd"));
	if (json_is_null(about) || (disk->choice.is_dvd && !json_object_get(about, "file"))) {
		disk->choice.read_only = true;
		return 0;
	}
	if (take_text(about, "file", disk->choice.path, sizeof(disk->choice.path)) ||
	    take_text(about, "format", format, sizeof(format)) ||
	    !disk_format_parse(format, &disk->choice.format))
		return -EINVAL;
	disk->choice.read_only = json_is_true(json_object_get(about, "read-only"));
	disk->choice.direct = json_is_true(json_object_get(about, "direct"));
	take_stem(about, disk);
	return 0;
}

static void add_place(struct disk_place *place, const char *path)
{
	for (unsigned n = 0; n < place->parent_count; n++)
		if (!strcmp(place->parent[n], path))
			return;
	if (place->parent_count < PLAN_PARENTS &&
	    !plan_set_text(place->parent[place->parent_count], PLAN_PATH_BYTES, path))
		place->parent_count++;
}

static void add_folder_of(struct disk_place *place, const char *path)
{
	char copy[PLAN_PATH_BYTES];

	snprintf(copy, sizeof(copy), "%s", path);
	add_place(place, dirname(copy));
}

static int wrong_disks(const char *machine)
{
	return complain(EXIT_UNUSABLE, "what it says of its disks is wrong", machine,
			"see umbra info");
}

int fork_disks_learn(struct fork_disks *disks, const char *machine, const json_t *info)
{
	const json_t *all = json_object_get(info, "disks");
	const json_t *places = json_object_get(info, "parents");

	disks->count = (unsigned)json_array_size(all);
	if (disks->count > BLOCK_DISKS)
		return complain(EXIT_UNUSABLE, "it says of more than 16 disks", machine,
				"see umbra info");
	for (unsigned n = 0; n < disks->count; n++)
		disks->disk[n].layer_file = -1;
	disk_option_take_places(&disks->place);
	for (size_t n = 0; n < json_array_size(places); n++)
		add_place(&disks->place, json_string_value(json_array_get(places, n)) ?: "");
	for (unsigned n = 0; n < disks->count; n++) {
		struct fork_disk *disk = &disks->disk[n];

		if (learn_disk(json_array_get(all, n), disk))
			return wrong_disks(machine);
		if (!disk->choice.read_only && disk->choice.format != DISK_VHDX)
			return complain(EXIT_UNUSABLE,
					"a disk that is written has to be VHDX for that",
					disk->choice.path, "make one with umbra disk convert");
		if (disk->choice.path[0])
			add_folder_of(&disks->place, disk->choice.path);
	}
	return 0;
}

static int land_disk(const json_t *about, const char *path, struct fork_disk *disk)
{
	size_t bytes;

	if (learn_disk(about, disk) || !disk->choice.path[0] != !path)
		return -EINVAL;
	if (!path)
		return 0;
	bytes = strlen(path);
	if (plan_set_text(disk->choice.path, sizeof(disk->choice.path), path))
		return -ENAMETOOLONG;
	memcpy(disk->stem, disk->choice.path, bytes + 1);
	disk->stem[bytes - strlen(strrchr(path, '.'))] = 0;
	return disk->choice.read_only || disk->choice.format == DISK_VHDX ? 0 : -EINVAL;
}

int fork_disks_land(struct fork_disks *disks, const char *machine, const json_t *info,
		    const char *folder, char *const path[BLOCK_DISKS])
{
	const json_t *all = json_object_get(info, "disks");

	disks->count = (unsigned)json_array_size(all);
	if (disks->count > BLOCK_DISKS)
		return wrong_disks(machine);
	disks->folder = folder;
	disk_option_take_places(&disks->place);
	add_place(&disks->place, folder);
	for (unsigned n = 0; n < BLOCK_DISKS; n++) {
		disks->disk[n].layer_file = -1;
		if (n >= disks->count ? path[n] != NULL
				      : land_disk(json_array_get(all, n), path[n],
						  &disks->disk[n]))
			return wrong_disks(machine);
	}
	return 0;
}

bool fork_disks_are_written(const struct fork_disks *disks)
{
	for (unsigned n = 0; n < disks->count; n++)
		if (!disks->disk[n].choice.read_only)
			return true;
	return false;
}

/* ---- names ---- */

/* The number-th name for what `machine` goes on in. 0 or -ENAMETOOLONG. */
static int layer_name(const struct fork_disks *disks, const struct fork_disk *disk,
		      const char *machine, unsigned number, char ret[PLAN_PATH_BYTES])
{
	char folder[PLAN_PATH_BYTES];
	char stem[PLAN_PATH_BYTES];
	char count[16] = "";
	int bytes;

	memcpy(stem, disk->stem, sizeof(stem));
	memcpy(folder, disk->choice.path, sizeof(folder));
	if (number > 1)
		snprintf(count, sizeof(count), ".%u", number);
	bytes = snprintf(ret, PLAN_PATH_BYTES, "%s/%s.%s%s%s",
			 disks->folder ? disks->folder : dirname(folder), basename(stem), machine,
			 count, suffix);
	return bytes < PLAN_PATH_BYTES ? 0 : -ENAMETOOLONG;
}

static int sync_folder_of(const char *path)
{
	char copy[PLAN_PATH_BYTES];
	int folder;
	int error;

	snprintf(copy, sizeof(copy), "%s", path);
	folder = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return -errno;
	error = fsync(folder) ? -errno : 0;
	close(folder);
	return error;
}

/* The disk process can look up no path. */
static int resolve(char path[PLAN_PATH_BYTES])
{
	char *whole = realpath(path, NULL);
	int error = whole ? plan_set_text(path, PLAN_PATH_BYTES, whole) : -errno;

	free(whole);
	return error;
}

/* ---- layers ---- */

static int make_layer(const struct fork_disks *disks, struct fork_disk *disk, const char *machine)
{
	int error = -EEXIST;

	for (unsigned n = 1; n < NAMES_MAX && error == -EEXIST; n++) {
		error = layer_name(disks, disk, machine, n, disk->layer);
		if (error)
			break;
		disk->layer_file = open(disk->layer, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		error = disk->layer_file < 0 ? -errno : 0;
	}
	if (!error)
		error = resolve(disk->layer);
	if (!error)
		error = sync_folder_of(disk->layer);
	return error ? complain(EXIT_UNUSABLE, strerror(-error), disk->layer,
				"name a folder that can be written, with --disks")
		     : 0;
}

int fork_disks_make_layers(struct fork_disks *disks, const char *machine)
{
	int code = 0;

	for (unsigned n = 0; n < disks->count && !code; n++)
		if (!disks->disk[n].choice.read_only)
			code = make_layer(disks, &disks->disk[n], machine);
	return code;
}

int fork_disks_send_layer(const struct fork_disks *disks, unsigned n, int peer)
{
	const struct fork_disk *disk = &disks->disk[n];
	json_t *question = json_pack("{s:i, s:s, s:i, s:s}", "id", 1, "do", "layer", "disk", (int)n,
				     "file", disk->layer);
	char *text = json_dumps(question, JSON_COMPACT);
	char line[LAYER_LINE_BYTES];
	int error = text ? 0 : -EINVAL;

	snprintf(line, sizeof(line), "%s\n", text ?: "");
	if (!error)
		error = say_line(peer, line, &disk->layer_file, 1);
	json_decref(question);
	free(text);
	return error;
}

void fork_disks_remove_layers(const struct fork_disks *disks)
{
	for (unsigned n = 0; n < disks->count; n++)
		if (disks->disk[n].layer_file >= 0)
			unlink(disks->disk[n].layer);
}

void fork_disks_drop_layers(struct fork_disks *disks, const json_t *info)
{
	const json_t *all = json_object_get(info, "disks");
	const bool may_come = json_is_true(json_object_get(info, "layering"));

	for (unsigned n = 0; n < disks->count; n++) {
		struct fork_disk *disk = &disks->disk[n];
		const char *now =
			json_string_value(json_object_get(json_array_get(all, n), "file"));

		if (disk->layer_file < 0)
			continue;
		/* of a machine that says nothing it is not known */
		if (now && !may_come && strcmp(now, disk->layer))
			unlink(disk->layer);
		close(disk->layer_file);
		disk->layer_file = -1;
	}
}

static int freeze_one(const struct fork_disks *disks, const char *path)
{
	const struct disk_options options = { .write = false };
	struct disk_search search;
	struct disk *disk;
	struct stat st;
	int code;

	disk_search_of_place(&disks->place, &search);
	code = disk_access_open(&search, path, DISK_VHDX, IMAGE_ACTION(ACTION_FORK), options,
				&disk);
	if (!code)
		code = disk_access_close(disk, 0);
	if (!code && (stat(path, &st) || chmod(path, st.st_mode & ~(mode_t)0222)))
		code = complain(EXIT_UNUSABLE, strerror(errno), path, "see who owns it");
	return code;
}

int fork_disks_freeze(const struct fork_disks *disks)
{
	int code = 0;

	for (unsigned n = 0; n < disks->count && !code; n++)
		if (!disks->disk[n].choice.read_only)
			code = freeze_one(disks, disks->disk[n].choice.path);
	return code;
}

/* ---- a child's ---- */

static int make_child_disk(const struct fork_disks *disks, const struct fork_disk *disk,
			   const char *child, char ret[PLAN_PATH_BYTES])
{
	struct disk_search search;
	/* what still arrives is not read for its digests; of both the names are as they will be */
	struct disk_create what = { .format = DISK_VHDX,
				    .parent = disk->choice.path,
				    .parent_format = DISK_VHDX,
				    .opened_parent = disk->opened,
				    .no_digests = disk->opened,
				    .resolved = disk->opened };
	struct disk_error why = { .kind = REFUSAL_NONE };
	int error = -EEXIST;

	disk_search_of_place(&disks->place, &search);
	what.parents = search.parents;
	for (unsigned n = 1; n < NAMES_MAX && error == -EEXIST; n++) {
		error = layer_name(disks, disk, child, n, ret);
		if (error)
			return complain(EXIT_UNUSABLE, strerror(-error), disk->choice.path,
					"name a shorter folder with --disks");
		error = disk_create(ret, &what, &why);
	}
	return error ? disk_access_refused(error, &why) : 0;
}

int fork_disks_of_child(const struct fork_disks *disks, const char *child, struct disk_plan *ret)
{
	int code = 0;

	if (disks->count)
		ret->place = disks->place;
	for (ret->count = 0; ret->count < disks->count && !code; ret->count += !code) {
		const struct fork_disk *disk = &disks->disk[ret->count];
		struct disk_choice *choice = &ret->disk[ret->count];

		*choice = disk->choice;
		if (disk->choice.read_only)
			continue;
		code = make_child_disk(disks, disk, child, choice->path);
		add_folder_of(&ret->place, choice->path);
	}
	if (code)
		fork_disks_remove_child(ret);
	return code;
}

void fork_disks_remove_child(struct disk_plan *plan)
{
	for (; plan->count; plan->count--)
		if (!plan->disk[plan->count - 1].read_only)
			unlink(plan->disk[plan->count - 1].path);
}
