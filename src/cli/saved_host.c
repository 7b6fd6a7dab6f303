/* See saved_host.h. */
#include "saved_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arrival_permits.h"
#include "cli.h"
#include "landing.h"
#include "process/block_server.h"
#include "process/disk_access.h"
#include "process/extents.h"
#include "vm/saved_file.h"

enum { NS_PER_S = 1000000000 };

/* ---- what a disk is known by ---- */

static int open_disk(const struct disk_place *place, const struct disk_choice *choice,
		     struct disk **ret)
{
	const struct disk_options options = { .write = false };
	struct disk_search search;

	disk_search_of_place(place, &search);
	return disk_access_open(&search, choice->path, choice->format, IMAGE_ACTION(ACTION_READ),
				options, ret);
}

static int add_file(void *files, uint64_t bytes, uint64_t mtime_ns)
{
	json_t *file = json_pack("{s:I, s:I, s:I}", "bytes", (json_int_t)bytes, "seconds",
				 (json_int_t)(mtime_ns / NS_PER_S), "nanoseconds",
				 (json_int_t)(mtime_ns % NS_PER_S));

	return json_array_append_new(files, file) ? -ENOMEM : 0;
}

/* Of one of the chain; NULL: no memory. */
static json_t *identify_alone(const struct disk *disk, const struct guid *data_id)
{
	char text[GUID_TEXT_BYTES];
	json_t *files = json_array();
	json_t *identity = NULL;

	if (!guid_is_zero(*data_id)) {
		guid_print(*data_id, text);
		identity = json_pack("{s:s, s:I}", "data", text, "bytes",
				     (json_int_t)disk_size_bytes(disk));
	} else if (!disk_each_file(disk, add_file, files)) {
		identity = json_incref(json_array_get(files, 0));
		json_array_remove(files, 0);
		if (json_array_size(files))
			json_object_set(identity, "further", files);
	}
	json_decref(files);
	return identity;
}

/* A parent's data identifier is in its child, which is compared when it is opened. */
static json_t *identity_of(struct disk *disk)
{
	struct disk_info info;
	json_t *beneath = json_array();
	json_t *identity;

	disk_info(disk, &info);
	identity = identify_alone(disk, &info.data_id);
	for (disk = disk_parent(disk); disk; disk = disk_parent(disk)) {
		disk_info(disk, &info);
		if (guid_is_zero(info.data_id))
			json_array_append_new(beneath, identify_alone(disk, &info.data_id));
	}
	if (json_array_size(beneath))
		json_object_set(identity, "beneath", beneath);
	json_decref(beneath);
	return identity;
}

/* NULL with *ret_code where it cannot be found out. */
static json_t *identify(const struct disk_place *place, const struct disk_choice *choice,
			int *ret_code)
{
	struct disk *disk;
	json_t *identity;

	*ret_code = open_disk(place, choice, &disk);
	if (*ret_code)
		return NULL;
	identity = identity_of(disk);
	*ret_code = disk_access_close(disk, 0);
	if (!identity && !*ret_code)
		*ret_code = complain(EXIT_FAULT, strerror(ENOMEM), choice->path,
				     "see umbra doctor");
	return identity;
}

/* ---- written ---- */

static json_t *describe_disk(const struct fork_disks *disks, const struct fork_disk *disk,
			     int *ret_code)
{
	const struct disk_choice *choice = &disk->choice;
	json_t *identity = NULL;
	json_t *about;

	if (!choice->path[0] && !choice->is_dvd)
		return json_null();
	if (!choice->path[0])
		return json_pack("{s:s, s:b, s:b, s:b}", "format",
				 disk_format_name(choice->format), "read-only", true, "direct",
				 false, "dvd", true);
	identity = identify(&disks->place, choice, ret_code);
	if (!identity)
		return NULL;
	about = json_pack("{s:s, s:s, s:s, s:b, s:b, s:o}", "file", choice->path, "stem",
			  disk->stem, "format", disk_format_name(choice->format), "read-only",
			  choice->read_only, "direct", choice->direct, "identity", identity);
	if (choice->is_dvd)
		json_object_set_new(about, "dvd", json_true());
	fork_disks_describe_id(guid_is_zero(choice->id) ? block_place_id(choice->path) : choice->id,
			       about);
	return about;
}

int saved_host_text(const struct fork_disks *disks, const json_t *info, char **ret)
{
	static const char *const kept[] = { "cards", "sockets", "parents", "secrets", "memory-min",
					    "memory-buffer", "memory-weight" };
	json_t *host = json_object();
	json_t *all = json_array();
	int code = 0;

	*ret = NULL;
	for (unsigned n = 0; n < disks->count && !code; n++)
		json_array_append_new(all, describe_disk(disks, &disks->disk[n], &code));
	json_object_set_new(host, "disks", all);
	for (size_t n = 0; n < sizeof(kept) / sizeof(kept[0]); n++)
		json_object_set(host, kept[n], json_object_get(info, kept[n]));
	if (!code)
		*ret = json_dumps(host, JSON_COMPACT);
	json_decref(host);
	if (!code && (!*ret || strlen(*ret) > SAVED_HOST_BYTES))
		code = complain(EXIT_UNUSABLE, "too much to be said of its disks", "save",
				"see umbra info");
	return code;
}

/* ---- read ---- */

static int check_disk(const struct fork_disks *disks, unsigned n, const json_t *about)
{
	const struct disk_choice *choice = &disks->disk[n].choice;
	json_t *saved = json_object_get(about, "identity");
	json_t *now;
	bool same;
	int code;

	if (!choice->path[0])
		return 0;
	now = identify(&disks->place, choice, &code);
	if (code)
		return code;
	same = json_equal(saved, now);
	json_decref(now);
	return same ? 0
		    : complain(EXIT_UNUSABLE, "it is not what it was when the machine was saved",
			       choice->path, "put back the file that it was");
}

static int take_disks(const json_t *host, const char *file, const char *name,
		      const struct arrival_permits *permits, struct plan *plan)
{
	struct fork_disks *disks = calloc(1, sizeof(*disks));
	int code = disks ? fork_disks_learn(disks, file, host)
			 : complain(EXIT_FAULT, strerror(ENOMEM), file, "see umbra doctor");

	if (!code && permits)
		code = arrival_limit_disks(permits, disks);
	for (unsigned n = 0; !code && n < disks->count; n++)
		code = check_disk(disks, n, json_array_get(json_object_get(host, "disks"), n));
	if (!code)
		code = fork_disks_of_child(disks, name ? name : "restored", &plan->disks);
	free(disks);
	return code;
}

/* ---- disks that land ---- */

/* The first of each disk's: what the machine has, or is made on. */
static void find_first(const struct landing *landing, char *const paths[PARCEL_FILES],
		       char *ret[BLOCK_DISKS])
{
	for (uint32_t n = 0; n < landing->space->files; n++)
		if (!landing->space->file[n].level)
			ret[landing->space->file[n].disk] = paths[n];
}

/* What has the identifier that its sender has said. What is known by its time is not, here. */
static int open_landing(struct extents *extents, unsigned number, char *const *paths,
			const json_t *about, struct fork_disk *disk)
{
	struct disk_error why;
	json_t *now;
	bool same;
	int error = extents_open_chain(extents, number, paths, &disk->opened, &why);

	if (error)
		return disk_access_refused(error, &why);
	if (disk->choice.format != disk_format_of(disk->opened))
		return complain(EXIT_UNUSABLE, "it is of another format than was said",
				disk->choice.path, "send the machine again");
	now = identity_of(disk->opened);
	same = disk->choice.format != DISK_VHDX ||
	       json_equal(json_object_get(about, "identity"), now);
	json_decref(now);
	return same ? 0
		    : complain(EXIT_UNUSABLE, "what arrives is not the disk that was announced",
			       disk->choice.path, "send the machine again");
}

static int open_landings(struct fork_disks *disks, const struct landing *landing,
			 const struct arriving_plan *plan, char *const *paths, const json_t *host)
{
	const json_t *all = json_object_get(host, "disks");
	static struct extents extents; /* what is opened looks at it when it is closed, too */
	int error = plan->count ? extents_open(&extents, plan, landing->there, landing->memory) : 0;
	int code = error ? complain(EXIT_FAULT, strerror(-error), landing->root, "see umbra doctor")
			 : 0;

	for (unsigned n = 0; n < disks->count && !code; n++)
		if (disks->disk[n].choice.path[0])
			code = open_landing(&extents, n, paths, json_array_get(all, n),
					    &disks->disk[n]);
	return code;
}

/* What is open of them is until this process ends, which it soon does. */
static int land_disks(const json_t *host, const char *file, const char *name,
		      const struct landing *landing, struct plan *plan)
{
	static struct fork_disks disks;
	char *paths[PARCEL_FILES] = { NULL };
	char *first[BLOCK_DISKS] = { NULL };
	int code = landing_plan(landing, &plan->disks.arriving) || !landing_paths(landing, paths)
			   ? complain(EXIT_USAGE, "a folder of too long a name", landing->root,
				      "name a shorter one with --disks")
			   : 0;

	find_first(landing, paths, first);
	if (!code)
		code = fork_disks_land(&disks, file, host, landing->root, first);
	if (!code)
		code = open_landings(&disks, landing, &plan->disks.arriving, paths, host);
	return code ? code : fork_disks_of_child(&disks, name, &plan->disks);
}

/* Whether one of them was open. */
static bool close_loopback(struct net_options *options)
{
	bool was_open = false;

	for (unsigned n = 0; n < options->cards; n++) {
		was_open |= options->card[n].host_loopback;
		options->card[n].host_loopback = false;
	}
	return was_open;
}

static int take_nets(const json_t *host, const char *file, const struct arrival_permits *permits,
		     struct net_options *options, struct plan *plan)
{
	const bool is_given = options->cards;
	struct fork_nets nets = { .options = *options };
	int code = fork_nets_learn(&nets, file, 1, host);

	*options = nets.options;
	plan->nets.count = net_options_count(options);
	if (!code && !is_given && close_loopback(options) && !permits)
		complain(0, "its network led to services of the host, and does not now", file,
			 "say --net user,host-loopback where it is to");
	return code || !permits ? code : arrival_check_cards(permits, options);
}

static void take_memory(const json_t *host, struct machine_plan *machine)
{
	const json_int_t least = json_integer_value(json_object_get(host, "memory-min"));
	const json_int_t buffer = json_integer_value(json_object_get(host, "memory-buffer"));
	const json_int_t weight = json_integer_value(json_object_get(host, "memory-weight"));

	if (least > 0 && (uint64_t)least <= machine->memory_bytes)
		machine->least_memory_bytes = (uint64_t)least;
	if (buffer > 0 && buffer <= UINT32_MAX)
		machine->memory_buffer_percent = (uint32_t)buffer;
	if (weight > 0 && weight <= UINT32_MAX)
		machine->memory_weight = (uint32_t)weight;
}

static int damaged(const char *file, int error)
{
	return complain(EXIT_UNUSABLE,
			error == -ENOTSUP ? "what it says of disks is of a version that this Umbra "
					    "does not know"
					  : "it is damaged, or no saved machine",
			file, "name a file that umbra save has written");
}

int saved_host_take(const char *file, int fd, const char *name, const struct saved_arrival *arrival,
		    struct net_options *options, struct plan *plan)
{
	const struct arrival_permits *permits = arrival ? arrival->permits : NULL;
	const struct landing *landing = arrival ? arrival->landing : NULL;
	char *text;
	int error = saved_file_read_host(fd, &text);
	json_t *host = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
	const bool is_bad = error || (text && !json_is_object(host));
	int code;

	free(text);
	if (is_bad || !host)
		return is_bad ? damaged(file, error) : 0;
	take_memory(host, &plan->machine);
	code = take_nets(host, file, permits, options, plan);
	if (!code && landing)
		code = land_disks(host, file, name, landing, plan);
	else if (!code)
		code = take_disks(host, file, name, permits, plan);
	json_decref(host);
	return code;
}
