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

int disk_make_clean(struct disk *d)
{
	int error = disk_flush(d);

	if (!error)
		error = digest_close(d);
	if (!error)
		error = vhdx_end(vhdx_of(d));
	if (error)
		return error;
	d->write = false;
	if (vhdx_of(d)->end_offset < vhdx_of(d)->file_bytes)
		file_truncate(&d->file, vhdx_of(d)->end_offset);
	return file_lock(&d->file, FILE_SHARED);
}

/* The identifier that the child is to name must not change any more: it changes now, if it has not
 * since opening. */
static int snapshot_begin(struct disk *d)
{
	struct vhdx *v = vhdx_of(d);
	int error;

	pthread_mutex_lock(&v->flush_lock);
	error = vhdx_begin(v, true);
	pthread_mutex_unlock(&v->flush_lock);
	return error;
}

static int snapshot_create(struct disk *d, const char *path, struct disk_file *ret,
			   struct disk_error *error)
{
	const struct disk_create what = { .format = DISK_VHDX, .in_use = true };
	int result = disk_file_create(path, true, ret);

	if (result)
		return disk_fail(error, result, path, "%s", strerror(-result));
	result = vhdx_create(ret, path, &what, d, error);
	if (result) {
		file_close(ret);
		remove(path);
	}
	return result;
}

int disk_snapshot(struct disk *d, const char *path, struct disk **ret, struct disk_error *error)
{
	struct disk_file file;
	int result;

	if (!d->write || d->driver != &vhdx_driver)
		return disk_fail(error, -ENOTSUP, d->path,
				 "only a VHDX file can be made a parent while it is in use");
	result = snapshot_begin(d);
	if (result)
		return disk_fail(error, result, d->path, "%s", strerror(-result));
	result = snapshot_create(d, path, &file, error);
	if (result)
		return result;
	result = disk_open_file(
		file, path,
		&(struct disk_options){
			.format = DISK_VHDX, .write = true, .parent = d, .just_made = true },
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
