/*
 * A snapshot of a disk in use: a child is made of it and opened on top of it, without a sync and
 * without anybody waiting; from then on the child is written. What the parent had not yet flushed,
 * and the child's file and name, the child's next flush flushes; making the parent clean, and
 * noting what it holds, comes afterwards and beside the use of the child.
 *
 * A power cut before that leaves the parent as it was last flushed, and perhaps a child that does
 * not open: nobody was told yet that there is one.
 */
#include <string.h>

#include "disk/digest.h"
#include "disk/format/vhdx_internal.h"

int disk_make_clean(struct disk *disk)
{
	int error = disk_flush(disk);

	if (!error)
		error = digest_close(disk);
	if (!error)
		error = vhdx_end(vhdx_of(disk));
	if (error)
		return error;
	disk->write = false;
	if (vhdx_of(disk)->end_offset < vhdx_of(disk)->file_bytes)
		file_truncate(&disk->file, vhdx_of(disk)->end_offset);
	return file_lock(&disk->file, FILE_SHARED);
}

/* The identifier that the child is to name must not change any more: it changes now, if it has not
 * since opening. */
static int snapshot_begin(struct disk *disk)
{
	struct vhdx *vhdx = vhdx_of(disk);
	int error;

	pthread_mutex_lock(&vhdx->flush_lock);
	error = vhdx_begin(vhdx, true);
	pthread_mutex_unlock(&vhdx->flush_lock);
	return error;
}

/* Into an open, empty file, which is the child's, or closed. */
static int snapshot_make(struct disk *disk, struct disk_file *file, const char *path, bool resolved,
			 struct disk **ret, struct disk_error *error)
{
	const struct disk_create what = { .format = DISK_VHDX,
					  .in_use = true,
					  .resolved = resolved };
	int result = snapshot_begin(disk);

	if (result)
		disk_refuse_host(error, result, disk->path, "flushing it");
	else
		result = vhdx_create(file, path, &what, disk, error);
	if (result) {
		file_close(file);
		return result;
	}
	return disk_open_file(
		*file, path,
		&(struct disk_options){
			.format = DISK_VHDX, .write = true, .parent = disk, .just_made = true },
		ret, error);
}

static int snapshot_check(const struct disk *disk, struct disk_error *error)
{
	return disk->write && disk->driver == &vhdx_driver
		       ? 0
		       : disk_refuse(error, REFUSAL_SNAPSHOT_FORMAT, disk->path, DISK_NOWHERE,
				     "only a VHDX file can be made a parent while it is in use");
}

int disk_snapshot(struct disk *disk, const char *path, struct disk **ret, struct disk_error *error)
{
	struct disk_file file;
	int result = snapshot_check(disk, error);

	if (result)
		return result;
	result = disk_file_create(path, true, &file);
	if (result)
		return disk_refuse_host(error, result, path, "making it");
	result = snapshot_make(disk, &file, path, false, ret, error);
	if (result)
		remove(path);
	return result;
}

int disk_snapshot_into(struct disk *disk, int fd, const char *path, struct disk **ret,
		       struct disk_error *error)
{
	struct disk_file file;
	int result = disk_file_adopt(fd, &file);

	if (result)
		return disk_refuse_host(error, result, path, "making it");
	result = snapshot_check(disk, error);
	if (result) {
		file_close(&file);
		return result;
	}
	return snapshot_make(disk, &file, path, true, ret, error);
}

int disk_settle(struct disk *child)
{
	int error = disk_flush(child);

	if (!error && child->parent && child->parent->write)
		error = disk_make_clean(child->parent);
	if (!error && child->parent)
		error = vhdx_copy_disk_items(vhdx_of(child->parent), vhdx_of(child));
	if (error)
		return error;
	error = link_make(child, LINK_KEPT);
	return digest_is_missing(error) ? 0 : error; /* a parent without digests */
}
