/* See disk_files.h. */
#include "disk_files.h"

#include <assert.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_access.h"

static void add(struct disk_files *files, const char *path, enum lockdown_access access)
{
	int fd = path[0] ? open(path, O_PATH | O_CLOEXEC) : -1;

	assert(files->count < DISK_FILES);
	if (fd >= 0)
		files->file[files->count++] = (struct lockdown_file){ .fd = fd, .access = access };
}

static void add_folder_of(struct disk_files *files, const char *path)
{
	char *copy = strdup(path);

	if (copy)
		add(files, dirname(copy), LOCKDOWN_READ_BENEATH);
	free(copy);
}

/* A descriptor of VMDK names files beside it. That a rule is passed over is written into it. */
static void add_disk(struct disk_files *files, const struct disk_plan *plan,
		     const struct disk_choice *disk)
{
	bool is_written = !disk->read_only || plan->place.override[0];
	char *side;

	if (!disk->path[0])
		return;
	add(files, disk->path, is_written ? LOCKDOWN_WRITE : LOCKDOWN_READ);
	if (asprintf(&side, "%s.umbra", disk->path) >= 0) {
		add(files, side, LOCKDOWN_READ);
		free(side);
	}
	if (!plan->place.parent_count || disk->format == DISK_VMDK)
		add_folder_of(files, disk->path);
}

void disk_files_open(const struct disk_plan *plan, struct disk_files *ret)
{
	const struct disk_place *place = &plan->place;

	ret->count = 0;
	for (uint32_t n = 0; n < plan->count; n++)
		add_disk(ret, plan, &plan->disk[n]);
	for (uint32_t n = 0; n < place->parent_count; n++)
		add(ret, place->parent[n], LOCKDOWN_READ_BENEATH);
	add(ret, place->user_policy, LOCKDOWN_READ);
	add(ret, disk_system_policy, LOCKDOWN_READ);
}

void disk_files_close(struct disk_files *files)
{
	while (files->count)
		close(files->file[--files->count].fd);
}
