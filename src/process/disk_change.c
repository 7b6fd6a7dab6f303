/* See disk_change.h. */
#include "disk_change.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block_server.h"
#include "disk/queue.h"
#include "disk_access.h"
#include "disk_change_internal.h"
#include "keeper.h"
#include "lib/check.h"

static unsigned count_sides(const struct given_side *side)
{
	unsigned count = 0;

	for (; side; side = side->next) {
		assert(side->keeper.context == side);
		count++;
	}
	return count;
}

static unsigned count_files(const struct disk *disk)
{
	unsigned count = 0;

	for (; disk; disk = disk->parent)
		count++;
	return count;
}

void check_disk_changes(const struct disk_changes *changes)
{
	assert(changes->count <= BLOCK_DISKS);
	for (unsigned n = 0; n < BLOCK_DISKS; n++) {
		const struct disk *disk = n < changes->count ? changes->disks[n] : NULL;

		assert(count_sides(changes->sides[n]) <= count_files(disk));
		assert(n >= changes->count || disk || !changes->writes[n]);
	}
	assert(count_sides(changes->sides_below) == count_files(changes->below));
}

/* ---- what lies beside a file ---- */

static int side_load_given(void *context, uint8_t **ret, size_t *ret_bytes)
{
	const struct given_side *side = context;
	struct stat st;
	ssize_t got;

	if (side->file < 0)
		return -ENOENT;
	if (fstat(side->file, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > KEEPER_BYTES)
		return -EFBIG;
	*ret_bytes = (size_t)st.st_size;
	*ret = malloc(*ret_bytes + 1);
	if (!*ret)
		return -ENOMEM;
	got = preadv(side->file, &(struct iovec){ *ret, *ret_bytes }, 1, 0);
	if (got == (ssize_t)*ret_bytes)
		return 0;
	free(*ret);
	return -EIO;
}

static int side_store_given(void *context, const uint8_t *bytes, size_t count, bool *ret_unsynced)
{
	(void)context;
	(void)bytes;
	(void)count;
	*ret_unsynced = false;
	return -EROFS;
}

static struct given_side *side_make(int file)
{
	struct given_side *side = calloc(1, sizeof(*side));

	if (!side)
		return NULL;
	side->file = file;
	side->keeper = (struct disk_side_keeper){ .load = side_load_given,
						  .store = side_store_given,
						  .context = side };
	return side;
}

static void sides_free(struct given_side **sides)
{
	while (*sides) {
		struct given_side *side = *sides;

		*sides = side->next;
		if (side->file >= 0)
			close(side->file);
		free(side);
	}
}

/* ---- a chain ---- */

static void drop_chain(struct disk_changes *changes)
{
	if (changes->below)
		disk_close(changes->below);
	changes->below = NULL;
	sides_free(&changes->sides_below);
}

/* As identify() of disk_main.c, of the file that is open. */
static void identify_given(const struct stat *st, struct block_disk *disk)
{
	static const uint8_t none[sizeof(disk->id)];

	if (!memcmp(disk->id, none, sizeof(none))) {
		memcpy(disk->id, &st->st_ino, 8);
		memcpy(disk->id + 8, &st->st_dev, 8);
	}
}

/* The descriptors are taken over in any case. */
static int open_given(struct disk_changes *changes, const struct layer_ask *ask, int fd,
		      int side_fd, struct disk **ret)
{
	struct given_side *side = side_make(side_fd);
	struct disk_options options = { .format = (enum disk_format)ask->format,
					.write = ask->flags & LAYER_FILE_WRITE,
					.parent = changes->below };
	struct disk_error why;
	struct disk_file file;
	int error;

	if (!side) {
		close(fd);
		if (side_fd >= 0)
			close(side_fd);
		return -ENOMEM;
	}
	side->next = changes->sides_below;
	changes->sides_below = side;
	options.side_keeper = &side->keeper;
	error = disk_file_given(fd, options.write, &file);
	return error ? error : disk_open_file(file, ask->path, &options, ret, &why);
}

static int put_into_place(struct disk_changes *changes, const struct layer_ask *ask,
			  const struct stat *st, struct block_disk *ret)
{
	const bool writes = ask->flags & LAYER_FILE_WRITE;
	struct disk *disk = changes->below;

	if (ask->disk >= changes->count || changes->disks[ask->disk])
		return -EEXIST;
	if (writes)
		disk_access_note(disk, "attached", NULL);
	block_describe(disk, writes, ret);
	identify_given(st, ret);
	ret->is_dvd = ask->flags & LAYER_FILE_DVD;
	disk_queue_move(changes->queues[ask->disk], disk);
	changes->disks[ask->disk] = disk;
	changes->writes[ask->disk] = writes;
	changes->sides[ask->disk] = changes->sides_below;
	changes->below = NULL;
	changes->sides_below = NULL;
	return 0;
}

int disk_changes_file(struct disk_changes *changes, const struct layer_ask *ask, int fd, int side,
		      struct block_disk *ret)
{
	struct disk *disk = NULL;
	struct stat st;
	int error = fstat(fd, &st) ? -errno : 0;

	if (ask->flags & LAYER_FILE_FIRST)
		drop_chain(changes);
	else if (!changes->below)
		error = -EBADMSG; /* what came of it before was not opened */
	/* how long a device is would need a further call; VMDK names files that did not come */
	if (!error && (!S_ISREG(st.st_mode) || ask->format >= DISK_FORMATS ||
		       ask->format == DISK_VMDK))
		error = -EOPNOTSUPP;
	if (error) {
		close(fd);
		if (side >= 0)
			close(side);
	} else {
		error = open_given(changes, ask, fd, side, &disk);
	}
	if (!error && disk->parent != changes->below) {
		disk_close(disk); /* of a format that knows of no parent, or not of this one */
		error = -EINVAL;
	}
	if (!error)
		changes->below = disk;
	if (!error && ask->flags & LAYER_FILE_LAST)
		error = put_into_place(changes, ask, &st, ret);
	if (error)
		drop_chain(changes);
	CHECK(check_disk_changes(changes));
	return error;
}

/* ---- what is there ---- */

static bool has_disk(const struct disk_changes *changes, uint32_t disk)
{
	return disk < changes->count && changes->disks[disk];
}

int disk_changes_detach(struct disk_changes *changes, uint32_t number)
{
	struct disk *disk;
	int error;

	if (!has_disk(changes, number))
		return -ENODEV;
	disk = changes->disks[number];
	disk_queue_drain(changes->queues[number]);
	disk_queue_move(changes->queues[number], NULL);
	changes->disks[number] = NULL;
	if (changes->writes[number])
		disk_access_note(disk, "detached", NULL);
	changes->writes[number] = false;
	error = disk_close(disk);
	sides_free(&changes->sides[number]);
	CHECK(check_disk_changes(changes));
	return error;
}

int disk_changes_resize(struct disk_changes *changes, const struct layer_ask *ask,
			struct block_disk *ret)
{
	struct disk *disk;
	int error;

	if (!has_disk(changes, ask->disk))
		return -ENODEV;
	disk = changes->disks[ask->disk];
	if (!changes->writes[ask->disk])
		return -EROFS;
	if (ask->size_bytes < disk_size_bytes(disk))
		return -EINVAL; /* a guest's file system would not know */
	disk_queue_drain(changes->queues[ask->disk]);
	error = disk_resize(disk, ask->size_bytes);
	if (!error)
		error = disk_flush(disk);
	if (!error)
		block_describe(disk, true, ret);
	return error;
}

/* ---- its life ---- */

struct disk_changes *disk_changes_begin(struct disk **disks, struct disk_queue **queues,
					bool *writes, unsigned count)
{
	struct disk_changes *changes = calloc(1, sizeof(*changes));

	assert(count <= BLOCK_DISKS);
	if (!changes)
		return NULL;
	changes->disks = disks;
	changes->queues = queues;
	changes->writes = writes;
	changes->count = count;
	return changes;
}

void disk_changes_end(struct disk_changes *changes) { drop_chain(changes); }
