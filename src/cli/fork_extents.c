/* See fork_extents.h. */
#include "fork_extents.h"

#include <errno.h>
#include <string.h>

#include "cli.h"
#include "process/disk_access.h"

static enum parcel_format format_on_wire(enum disk_format format)
{
	switch (format) {
	case DISK_VHDX: return PARCEL_VHDX;
	case DISK_RAW: return PARCEL_RAW;
	case DISK_VHD: return PARCEL_VHD;
	default: return PARCEL_OTHER;
	}
}

static int refused(const char *path, int error)
{
	return complain(EXIT_UNUSABLE, error == -E2BIG ? "its disks lie in more than 64 files"
						       : strerror(-error),
			path, "see umbra disk info --chain");
}

/* One that is empty is not sent, and nobody misses it. */
static int add_file(struct fork_extents *extents, const struct disk *disk, unsigned number,
		    unsigned level, bool is_kept)
{
	struct parcel_space *space = &extents->space;
	struct disk_file *file = &extents->file[extents->open];
	int error = space->files < PARCEL_FILES ? 0 : -E2BIG;
	int64_t bytes;

	if (!error)
		error = disk_file_open(disk_path(disk), false, false, file);
	if (error)
		return refused(disk_path(disk), error);
	extents->open++;
	bytes = file_size(file);
	if (bytes <= 0)
		return refused(disk_path(disk), bytes ? (int)bytes : -ENODATA);
	space->file[space->files++] = (struct parcel_file){
		.bytes = (uint64_t)bytes,
		.format = is_kept ? PARCEL_KEPT : format_on_wire(disk_format_of(disk)),
		.disk = (uint16_t)number,
		.level = (uint16_t)level,
	};
	return 0;
}

/* The lowest action that is refused by a policy is not an error here: the other side says it. */
static bool is_kept(const struct disk_search *search, const struct disk_choice *choice)
{
	struct disk_error why;
	struct disk_search asks = *search;
	struct disk *disk;

	asks.refused = &why;
	if (disk_access_open(&asks, choice->path, choice->format, IMAGE_ACTION(ACTION_EXPORT),
			     (struct disk_options){ .write = false }, &disk))
		return true;
	disk_close(disk);
	return false;
}

static int add_chain(struct fork_extents *extents, const struct disk_search *search,
		     const struct disk_choice *choice, unsigned number)
{
	const struct disk_options options = { .write = false };
	const bool kept = is_kept(search, choice);
	unsigned level = 0;
	struct disk *disk;
	int code = disk_access_open(search, choice->path, choice->format,
				    IMAGE_ACTION(ACTION_READ), options, &disk);

	if (code)
		return code;
	for (struct disk *at = disk; at && !code; at = disk_parent(at))
		code = add_file(extents, at, number, level++, kept);
	return disk_access_close(disk, code);
}

int fork_extents_open(struct fork_extents *extents, const struct fork_disks *disks,
		      uint64_t machine_bytes)
{
	struct disk_search search;
	int code = 0;

	*extents = (struct fork_extents){ .space.machine_bytes = machine_bytes };
	disk_search_of_place(&disks->place, &search);
	for (unsigned n = 0; n < disks->count && !code; n++)
		if (disks->disk[n].choice.path[0])
			code = add_chain(extents, &search, &disks->disk[n].choice, n);
	if (!code && parcel_lay_out(&extents->space))
		code = complain(EXIT_UNUSABLE, "more than can be sent", "its disks",
				"they are of no more than 16 TiB together");
	if (code)
		fork_extents_close(extents);
	return code;
}

int fork_extents_read(const struct fork_extents *extents, uint64_t block,
		      uint8_t to[PARCEL_PIECE_BYTES])
{
	const struct parcel_file *file = parcel_file_of(&extents->space, block);
	const size_t number = (size_t)(file - extents->space.file);

	int error;

	if (file->format == PARCEL_KEPT)
		return -EPERM;
	error = file_read(&extents->file[number],
			  (block - file->first) * (uint64_t)PARCEL_PIECE_BYTES, to,
			  PARCEL_PIECE_BYTES);
	/* behind the end of one that was cut off there are zeros, which it did not have */
	if (!error && file_size(&extents->file[number]) < (int64_t)file->bytes)
		error = -ENODATA;
	return error;
}

void fork_extents_close(struct fork_extents *extents)
{
	while (extents->open)
		file_close(&extents->file[--extents->open]);
}
