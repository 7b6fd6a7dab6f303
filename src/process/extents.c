/* See extents.h. */
#include "extents.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "disk/disk_internal.h"
#include "disk/file_arriving.h"
#include "report.h"
#include "vm/saved_blocks.h"

int extents_open(struct extents *extents, const struct arriving_plan *plan, int line, int memory)
{
	void *bits = mmap(NULL, saved_blocks_room(plan->blocks), PROT_READ, MAP_SHARED, memory, 0);

	if (bits == MAP_FAILED)
		return -errno;
	*extents = (struct extents){ .plan = plan,
				     .bits = bits,
				     .line = line,
				     .lock = PTHREAD_MUTEX_INITIALIZER,
				     .news = PTHREAD_COND_INITIALIZER };
	return 0;
}

bool extents_has(const struct arriving_plan *plan, unsigned disk)
{
	for (uint32_t n = 0; n < plan->count; n++)
		if (plan->file[n].disk == disk)
			return true;
	return false;
}

/* ---- waiting ---- */

static _Noreturn void give_up(const struct extents *extents)
{
	_exit(complain(EXIT_UNUSABLE, "the connection to where its disks come from was lost",
		       extents->plan->folder, "see umbra listen --wait, umbra fork --wait"));
}

static bool has_come(const struct extents *extents, uint64_t block)
{
	return __atomic_load_n(&extents->bits[block / 8], __ATOMIC_ACQUIRE) >> block % 8 & 1;
}

/* The first that has not; `end`: all have. */
static uint64_t first_missing(const struct extents *extents, uint64_t block, uint64_t end)
{
	while (block < end && has_come(extents, block))
		block++;
	return block;
}

static void ask_for(const struct extents *extents, uint64_t block, uint64_t end)
{
	while ((block = first_missing(extents, block, end)) < end) {
		struct saved_blocks_word word = { .block = block };

		while (block < end && word.count < SAVED_BLOCKS_WANTED &&
		       !has_come(extents, block)) {
			word.count++;
			block++;
		}
		if (write(extents->line, &word, sizeof(word)) != sizeof(word))
			give_up(extents);
	}
}

/* With the lock, which is free meanwhile. */
static void wait_for_news(struct extents *extents)
{
	struct saved_blocks_word word;

	if (extents->is_heard) {
		pthread_cond_wait(&extents->news, &extents->lock);
		return;
	}
	extents->is_heard = true;
	pthread_mutex_unlock(&extents->lock);
	if (read(extents->line, &word, sizeof(word)) != sizeof(word))
		give_up(extents);
	pthread_mutex_lock(&extents->lock);
	extents->is_heard = false;
	pthread_cond_broadcast(&extents->news);
}

/* Behind the end of a file there is nothing to wait for. */
static int wait_for(void *context, uint64_t first, uint64_t offset, uint64_t bytes)
{
	struct extents *extents = context;
	const uint64_t begin = first + offset / SAVED_BLOCK_BYTES;
	uint64_t end = first + (offset + bytes - 1) / SAVED_BLOCK_BYTES + 1;

	end = end < extents->plan->blocks ? end : extents->plan->blocks;
	if (first_missing(extents, begin, end) >= end)
		return 0;
	pthread_mutex_lock(&extents->lock);
	ask_for(extents, begin, end);
	while (first_missing(extents, begin, end) < end)
		wait_for_news(extents);
	pthread_mutex_unlock(&extents->lock);
	return 0;
}

/* ---- opening ---- */

static int open_one(struct extents *extents, uint32_t number, const char *name,
		    struct disk *beneath, struct disk **ret, struct disk_error *why)
{
	const struct arriving_file *file = &extents->plan->file[number];
	const struct file_arrivals arrivals = { .wait = wait_for, .context = extents,
						.first = file->first };
	const struct disk_options options = { .format = file->format, .parent = beneath };
	char path[PLAN_PATH_BYTES];
	struct disk_file opened;
	int error;
	int fd;

	snprintf(path, sizeof(path), "%.4000s/%u", extents->plan->folder, number);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	error = fd < 0 ? -errno : disk_file_given(fd, false, &opened);
	if (!error)
		error = disk_file_arriving(opened, &arrivals, &opened);
	if (error)
		return disk_refuse_host(why, error, path, "opening what arrives");
	error = disk_open_file(opened, name ? name : path, &options, ret, why);
	if (!error && (*ret)->parent != beneath) {
		/* of a format that knows of no parent, or not of this one */
		disk_close(*ret);
		error = disk_refuse(why, REFUSAL_PARENT_NOWHERE, path, DISK_NOWHERE,
				    "does not name the file that came with it");
	}
	return error;
}

int extents_open_chain(struct extents *extents, unsigned disk, char *const *names,
		       struct disk **ret, struct disk_error *why)
{
	const struct arriving_plan *plan = extents->plan;
	struct disk *opened = NULL;
	int error = 0;

	for (uint32_t n = plan->count; n-- && !error;) {
		struct disk *above = NULL;

		if (plan->file[n].disk != disk)
			continue;
		error = open_one(extents, n, names ? names[n] : NULL, opened, &above, why);
		if (error && opened)
			disk_close(opened);
		opened = error ? NULL : above;
	}
	assert(error || opened);
	*ret = opened;
	return error;
}
