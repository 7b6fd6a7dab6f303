/*
 * The disk process's main: gives up what opening disks does not need, opens those of a machine as
 * policies allow, gives up the rest, serves them, and closes them when the machine is gone. What is
 * in the files is hostile from their first byte on.
 */
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "block_server.h"
#include "disk/queue.h"
#include "disk_access.h"
#include "disk_files.h"
#include "extents.h"
#include "ipc/lockdown.h"
#include "keeper.h"
#include "mains.h"
#include "reaper.h"
#include "report.h"

struct process {
	const struct disk_plan *plan;
	struct disk_search search;
	struct block_memory *memory;
	struct disk *disk[BLOCK_DISKS];
	struct disk_ring *ring[BLOCK_DISKS];
	bool writes[BLOCK_DISKS];
	struct extents extents; /* of those that arrive, if any do */
	unsigned places; /* of those that it begins with, and that may come */
	struct keeper_client keeper[BLOCK_DISKS];
	pthread_mutex_t keeper_lock;
};

/* A format without an identifier of its own: as the guest knows it, or by its place. */
static void identify(const struct disk_choice *choice, struct block_disk *disk)
{
	static const uint8_t none[sizeof(disk->id)];
	const struct guid id = guid_is_zero(choice->id) ? block_place_id(choice->path) : choice->id;

	if (!memcmp(disk->id, none, sizeof(none)))
		memcpy(disk->id, id.byte, sizeof(disk->id));
}

/* A number without a disk, or a drive without a disc. */
static void describe_nothing(const struct disk_choice *choice, struct block_disk *ret)
{
	*ret = (struct block_disk){ .size_bytes = 0 };
	if (choice->is_dvd)
		*ret = block_empty_drive();
}

/* As image_open() does of a file that is there. */
static int open_arriving(struct process *process, unsigned n, unsigned actions,
			 struct disk_options options, struct disk **ret)
{
	const struct disk_choice *choice = &process->plan->disk[n];
	struct disk_error why;
	struct disk *beneath;
	int error = extents_open_chain(&process->extents, n, NULL, &beneath, &why);

	if (error)
		return disk_access_refused(error, &why);
	if (choice->read_only) {
		*ret = beneath;
		return disk_access_admit(&process->search, beneath, choice->path, actions);
	}
	options.parent = beneath;
	return disk_access_open(&process->search, choice->path, choice->format, actions, options,
				ret);
}

static int open_one(struct process *process, unsigned n)
{
	const struct disk_choice *choice = &process->plan->disk[n];
	struct block_disk *described = &process->memory->disk[n];
	const unsigned actions = IMAGE_ACTION(choice->read_only ? ACTION_READ : ACTION_WRITE) |
				 IMAGE_ACTION(ACTION_ATTACH);
	const struct disk_options options = {
		.write = !choice->read_only,
		.direct = choice->direct,
		.side_keeper = process->keeper[n].memory ? &process->keeper[n].side : NULL
	};
	struct disk **disk = &process->disk[n];
	char *path;
	int code;

	describe_nothing(choice, described);
	if (!choice->path[0])
		return 0;
	/* a layer will name it, when no path can be looked up any more */
	path = realpath(choice->path, NULL);
	if (extents_has(&process->plan->arriving, n))
		code = open_arriving(process, n, actions, options, disk);
	else
		code = disk_access_open(&process->search, path ? path : choice->path,
					choice->format, actions, options, disk);
	free(path);
	assert(n < BLOCK_DISKS && (code || *disk));
	if (code)
		return code;
	process->writes[n] = !choice->read_only;
	if (!choice->read_only)
		disk_access_note(*disk, "attached", NULL);
	block_describe(*disk, !choice->read_only, described);
	described->is_dvd = choice->is_dvd;
	identify(choice, described);
	return 0;
}

static int open_all(struct process *process)
{
	int code = 0;

	for (unsigned n = 0; n < process->plan->count && !code; n++)
		code = open_one(process, n);
	process->memory->disks = process->plan->count;
	return code;
}

/* The last that is written to them; the first code that is not 0. */
static int close_all(struct process *process, int code)
{
	for (unsigned n = 0; n < process->places; n++) {
		if (!process->disk[n])
			continue;
		if (process->writes[n])
			disk_access_note(process->disk[n], "detached", NULL);
		code = disk_access_close(process->disk[n], code);
	}
	return code;
}

/* The last that needs rights is there. */
static int give_up_rights(void *context)
{
	int error = lockdown(ROLE_DISK);

	(void)context;
	if (!error && write(grant_fd(GRANT_READY), "", 1) != 1)
		error = -errno;
	close(grant_fd(GRANT_READY));
	return error;
}

/* What lies beside a disk is the keeper's to read and replace. */
static int use_keeper(struct process *process)
{
	struct keeper_memory *memory;

	if (!keeper_is_needed(process->plan))
		return 0;
	memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED,
		      grant_fd(GRANT_SIDE), 0);
	close(grant_fd(GRANT_SIDE));
	if (memory == MAP_FAILED)
		return -errno;
	for (unsigned n = 0; n < process->plan->count; n++)
		if (keeper_has_side_file(process->plan, n))
			keeper_client_init(&process->keeper[n], memory, &process->keeper_lock, n);
	return 0;
}

/* Who asks for what has not come yet. */
static int use_extents(struct process *process)
{
	const struct arriving_plan *arriving = &process->plan->arriving;

	return arriving->count ? extents_open(&process->extents, arriving, grant_fd(GRANT_EXTENTS),
					      grant_fd(GRANT_EXTENT_BITS))
			       : 0;
}

static int make_rings(struct process *process)
{
	const struct disk_queue_options options = { .depth = BLOCK_SLOTS };
	int error = 0;

	for (unsigned n = 0; n < process->places && !error; n++)
		error = disk_ring_create(&options, &process->ring[n]);
	return error;
}

/* Everything that opening the disks needs and is not hostile; then the first of the rights go. */
static int prepare_to_open(struct process *process, int *ret_root)
{
	struct disk_files files;
	struct tm unused;
	time_t now = 0;
	int error = use_keeper(process);

	if (!error)
		error = use_extents(process);
	if (!error)
		error = make_rings(process);
	if (error)
		return error;
	localtime_r(&now, &unused); /* reads the time zone's file */
	json_object_seed(0);        /* reads the host's random numbers */
	disk_search_open_catalog(&process->search);
	disk_files_open(process->plan, &files);
	error = lockdown_for_opening(ROLE_DISK, files.file, files.count, ret_root);
	disk_files_close(&files);
	return error;
}

static int serve_disks(struct process *process)
{
	const struct block_service service = {
		.memory = process->memory,
		.disks = process->disk,
		.writes = process->writes,
		.rings = process->ring,
		.count = process->places,
		.doorbell_fd = grant_fd(GRANT_DOORBELL),
		.answer_fd = grant_fd(GRANT_ANSWER),
		.end_fd = grant_fd(GRANT_END),
		.layers_fd = grant_fd(GRANT_LAYERS),
	};
	int error = block_serve(&service, give_up_rights, process);

	if (error == -EBADMSG)
		return complain(EXIT_FAULT, "the machine process broke the protocol", "disks",
				"please report it");
	return error ? complain(EXIT_FAULT, strerror(-error), "serving disks", "see umbra doctor")
		     : 0;
}

static int open_and_serve(struct process *process)
{
	int root = -1;
	int error = prepare_to_open(process, &root);
	int code = error ? 0 : open_all(process);

	if (process->search.open_catalog)
		catalog_close(process->search.open_catalog);
	if (!error && !code)
		error = lockdown_after_opening(ROLE_DISK, root);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "disks", "see umbra doctor");
	return code ? code : serve_disks(process);
}

int disk_main(void)
{
	const struct plan *plan = plan_of_process();
	struct process process = { .plan = plan ? &plan->disks : NULL,
				   .keeper_lock = PTHREAD_MUTEX_INITIALIZER };
	int error;
	int code;

	if (!plan)
		return complain(EXIT_USAGE, "it has no plan", "the disk process",
				"use umbra run: it starts the processes of a machine");
	error = reaper_make(grant_fd(GRANT_END), REAPER_MS);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "disks", "see umbra doctor");
	process.places = disk_places(process.plan);
	mallopt(M_ARENA_MAX, 1); /* more of them grow by mprotect(), which it does without */
	process.memory = mmap(NULL, sizeof(*process.memory), PROT_READ | PROT_WRITE, MAP_SHARED,
			      grant_fd(GRANT_SLOTS), 0);
	close(grant_fd(GRANT_SLOTS));
	if (process.memory == MAP_FAILED)
		return complain(EXIT_FAULT, strerror(errno), "disks", "see umbra doctor");
	disk_search_of_place(&process.plan->place, &process.search);
	code = open_and_serve(&process);
	return close_all(&process, code);
}
