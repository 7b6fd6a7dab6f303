/* Operations between files of a chain: another parent, and the changes since an ancestor as a file
 * of their own. */
#include <stdlib.h>
#include <string.h>

#include "disk/digest.h"
#include "disk/format/vhdx_internal.h"

#define COPY_BYTES (1u << 20)

/* ---- rebase ---- */

/* What lies behind the end of a parent is zero to its child. */
static int read_padded(struct disk *disk, uint64_t at, uint8_t *to, uint64_t bytes)
{
	uint64_t there = chain_bytes_within(disk, at, bytes);

	memset(to + there, 0, bytes - there);
	return there ? disk_read(disk, at, to, there) : 0;
}

/* The child keeps, of its own, what the new parent has otherwise. */
static int keep_differences(struct disk *child, struct disk *parent, const struct disk_job *job)
{
	enum { PIECE_BYTES = 4096 };
	uint8_t *buffer = malloc(2 * (size_t)COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	for (uint64_t at = 0, n = 0; at < child->size_bytes && !error; at += n) {
		struct disk_range range;

		error = job_step(job, at, child->size_bytes);
		if (!error)
			error = disk_range(child, at, child->size_bytes - at, &range);
		if (error)
			break;
		n = range.bytes;
		if (range.kind != DISK_RANGE_ABSENT)
			continue;
		n = n < COPY_BYTES ? n : COPY_BYTES;
		error = disk_read(child, at, buffer, n);
		if (!error)
			error = read_padded(parent, at, buffer + COPY_BYTES, n);
		for (uint64_t piece = 0, size; piece < n && !error; piece += size) {
			size = n - piece < PIECE_BYTES ? n - piece : PIECE_BYTES;
			if (memcmp(buffer + piece, buffer + COPY_BYTES + piece, size))
				error = disk_write(child, at + piece, buffer + piece, size);
		}
	}
	free(buffer);
	return error ? error : disk_flush(child);
}

int disk_rebase(struct disk *disk, const char *path, enum disk_format format,
		const struct disk_job *job, struct disk_error *error)
{
	struct disk_options options = { .format = format,
					.parents = (const char *const[]){ "/", NULL } };
	struct disk *parent;
	struct disk *old = disk->parent;
	int result;

	if (disk->driver != &vhdx_driver || !disk->write || !old)
		return disk_refuse(error, REFUSAL_NO_CHILD, disk->path, DISK_NOWHERE,
				   "is no child that can be written");
	result = disk_open(path, &options, &parent, error);
	if (result)
		return result;
	for (const struct disk *at = parent; at && !result; at = at->parent)
		if (at->data_id && guid_equal(*at->data_id, *disk->data_id))
			result = disk_refuse(error, REFUSAL_REBASE_LOOP, path, DISK_NOWHERE,
					     "is made on %s itself", disk->path);
	if (!result &&
	    (parent->sector_bytes != disk->sector_bytes || parent->size_bytes > disk->size_bytes))
		result = disk_refuse(error, REFUSAL_REBASE_SHAPE, path, DISK_NOWHERE,
				     "has other sectors or is larger than %s", disk->path);
	if (!result) {
		result = keep_differences(disk, parent, job);
		if (!result)
			result = vhdx_repair_link(disk, parent);
		if (!result) {
			disk->parent = parent;
			parent = old;
			link_free(disk->link); /* of the old one */
			disk->link = NULL;
			result = chain_attach(disk);
		}
		if (result)
			disk_refuse_host(error, result, disk->path, "giving it another parent");
	}
	disk_close(parent);
	return result;
}

/* ---- export ---- */

/* What the chain above `ancestor` says about a range; absent: nothing. */
static int range_above(struct disk *disk, const struct disk *ancestor, uint64_t at, uint64_t bytes,
		       struct disk_range *ret)
{
	*ret = (struct disk_range){ .kind = DISK_RANGE_ABSENT, .bytes = bytes };
	for (; disk != ancestor && ret->kind == DISK_RANGE_ABSENT; disk = disk->parent) {
		uint64_t left = disk->size_bytes - at;
		int error;

		if (at >= disk->size_bytes)
			continue;
		error = disk_range(disk, at, left < ret->bytes ? left : ret->bytes, ret);
		if (error)
			return error;
	}
	return 0;
}

static int copy_changes(struct disk *disk, const struct disk *ancestor, struct disk *to,
			const struct disk_job *job)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < disk->size_bytes && !error;) {
		uint64_t bytes =
			disk->size_bytes - at < COPY_BYTES ? disk->size_bytes - at : COPY_BYTES;
		struct disk_range range;

		error = job_step(job, at, disk->size_bytes);
		if (!error)
			error = range_above(disk, ancestor, at, bytes, &range);
		if (error)
			break;
		if (range.kind == DISK_RANGE_ZERO)
			error = disk_zero(to, at, range.bytes);
		else if (range.kind == DISK_RANGE_PRESENT)
			error = disk_read(disk, at, buffer, range.bytes);
		if (!error && range.kind == DISK_RANGE_PRESENT)
			error = disk_write(to, at, buffer, range.bytes);
		at += range.bytes;
	}
	free(buffer);
	return error;
}

int disk_export_changes(struct disk *disk, const char *since, const char *path,
			const struct disk_job *job, struct disk_error *error)
{
	struct disk_create what = { .format = DISK_VHDX, .parent_format = DISK_VHDX };
	struct disk_options options = { .format = DISK_VHDX,
					.write = true,
					.parents = (const char *const[]){ "/", NULL } };
	struct disk *ancestor = disk->parent;
	struct disk *to;
	char *wanted = realpath(since, NULL);
	int result;

	for (; wanted && ancestor; ancestor = ancestor->parent) {
		char *is = realpath(ancestor->path, NULL);
		bool same = is && !strcmp(is, wanted);

		free(is);
		if (same)
			break;
	}
	free(wanted);
	if (!ancestor)
		return disk_refuse(error, REFUSAL_NO_ANCESTOR, since, DISK_NOWHERE,
				   "is no parent of %s", disk->path);
	what.parent = ancestor->path;
	what.parent_format = ancestor->format_id;
	result = disk_create(path, &what, error);
	if (!result)
		result = disk_open(path, &options, &to, error);
	if (result)
		return result;
	if (disk->size_bytes > to->size_bytes)
		result = disk_resize(to, disk->size_bytes);
	if (!result)
		result = copy_changes(disk, ancestor, to, job);
	if (result)
		disk_refuse_host(error, result, path, "writing the changes");
	if (disk_close(to) && !result)
		result = disk_refuse_host(error, -EIO, path, "closing it");
	if (result)
		remove(path);
	return result;
}
