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

static int snapshot_create(struct disk *disk, const char *path, struct disk_file *ret,
			   struct disk_error *error)
{
	const struct disk_create what = { .format = DISK_VHDX, .in_use = true };
	int result = disk_file_create(path, true, ret);

	if (result)
		return disk_fail(error, result, path, "%s", strerror(-result));
	result = vhdx_create(ret, path, &what, disk, error);
	if (result) {
		file_close(ret);
		remove(path);
	}
	return result;
}

int disk_snapshot(struct disk *disk, const char *path, struct disk **ret, struct disk_error *error)
{
	struct disk_file file;
	int result;

	if (!disk->write || disk->driver != &vhdx_driver)
		return disk_fail(error, -ENOTSUP, disk->path,
				 "only a VHDX file can be made a parent while it is in use");
	result = snapshot_begin(disk);
	if (result)
		return disk_fail(error, result, disk->path, "%s", strerror(-result));
	result = snapshot_create(disk, path, &file, error);
	if (result)
		return result;
	result = disk_open_file(
		file, path,
		&(struct disk_options){
			.format = DISK_VHDX, .write = true, .parent = disk, .just_made = true },
		ret, error);
	if (result)
		remove(path);
	return result;
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
