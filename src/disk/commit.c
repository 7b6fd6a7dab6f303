/*
 * A child's data into its parent.
 *
 * The parent's data identifier changes by it, and the child must still fit, whenever the power fails: before the first byte is
 * written the child's locator names the identifier that the parent is going to have as a second one (parent_linkage2, of which a
 * reader accepts either). So until the end the child opens, reads the same, and the commit can be done again. At the end the child is
 * emptied, which only then is right, and its locator names the new identifier alone.
 */
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "vhdx_internal.h"

#define COPY_BYTES (1u << 20)

/* What the child has, not what its parents have. */
static int copy_all(struct disk *child, struct disk *parent)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	for (uint64_t at = 0, n; at < child->size_bytes && !error; at += n) {
		enum disk_range_kind kind;

		n = child->size_bytes - at < COPY_BYTES ? child->size_bytes - at : COPY_BYTES;
		error = disk_range(child, at, n, &kind, &n);
		if (!error && kind == DISK_RANGE_ZERO)
			error = disk_zero(parent, at, n);
		if (!error && kind == DISK_RANGE_DATA)
			error = disk_read(child, at, buffer, n);
		if (!error && kind == DISK_RANGE_DATA)
			error = disk_write(parent, at, buffer, n);
	}
	free(buffer);
	return error ? error : disk_flush(parent);
}

static int empty(struct vhdx *v)
{
	int error = vhdx_begin(v, true);

	pthread_rwlock_wrlock(&v->io);
	pthread_mutex_lock(&v->map);
	for (uint64_t block = 0; block < v->blocks && !error; block++) {
		uint64_t index = vhdx_entry(v, block);

		if (vhdx_holds(v->bat[index]))
			error = vhdx_free(v, vhdx_offset(v->bat[index]));
		if (vhdx_state(v->bat[index]) == BAT_PARTIAL) {
			uint8_t *bits;

			error = vhdx_bits(v, block / v->chunk_ratio, true, &bits);
			if (!error)
				vhdx_set_bits(v, block, 0, v->block_bytes / v->sector_bytes, false);
		}
		if (!error && v->bat[index] != BAT_NOT_PRESENT)
			vhdx_set_entry(v, index, BAT_NOT_PRESENT);
	}
	pthread_mutex_unlock(&v->map);
	pthread_rwlock_unlock(&v->io);
	return error ? error : vhdx_commit(v);
}

static void forget_parent(struct disk *child)
{
	struct vhdx *v = vhdx_of(child);

	link_free(child->link);
	child->link = NULL;
	disk_close(child->parent);
	child->parent = NULL;
	v->ancestors = 0; /* only what the child has itself is read from here on */
	free(v->ancestor);
	v->ancestor = NULL;
}

/* The parent once more; its own parents may lie where they lay: they were open already, and allowed. */
static int open_parent(const char *path, bool write, struct disk **ret, struct disk_error *error)
{
	return disk_open(path, &(struct disk_options){ .format = DISK_VHDX, .write = write, .parents = (const char *const[]){ "/", NULL } }, ret, error);
}

/* The child names the parent as it is now, and knows what it holds. */
static int join(struct disk *d, const char *path, struct guid id, struct disk_error *error)
{
	struct vhdx *v = vhdx_of(d);
	int result = vhdx_set_link(v, path, DISK_VHDX, id, (struct guid){ 0 });

	if (result)
		return result;
	v->parent_id = id;
	v->parent_id2 = (struct guid){ 0 };
	result = open_parent(path, false, &d->parent, error);
	if (!result)
		result = vhdx_list_ancestors(v);
	if (!result)
		result = link_make(d, LINK_KEPT);
	return result == -ENOENT || result == -ESTALE ? 0 : result; /* a parent without digests */
}

static int copy_down(struct disk *d, struct disk *p, struct guid before, struct guid after, struct disk_error *error)
{
	struct vhdx *child = vhdx_of(d), *parent = vhdx_of(p);
	int result;

	/* again after an interruption: the parent may have either */
	if (!guid_equal(parent->header.data_write, before) && !guid_equal(parent->header.data_write, child->parent_id2))
		return disk_fail(error, -ESTALE, d->path, "its parent has changed");
	result = link_drop(d);
	if (!result)
		result = vhdx_set_link(child, p->path, DISK_VHDX, before, after);
	parent->next_data_id = after;
	if (!result && p->size_bytes < d->size_bytes)
		result = disk_resize(p, d->size_bytes);
	if (!result)
		result = copy_all(d, p);
	if (!result)
		result = vhdx_begin(parent, true); /* also when there was nothing to copy */
	if (!result)
		result = empty(child);
	return result;
}

int disk_commit(struct disk *d, struct disk_error *error)
{
	struct vhdx *child = vhdx_of(d);
	struct disk *p = NULL;
	struct guid after;
	char *path;
	int result;

	if (!d->write || d->driver != &vhdx_driver || !d->parent)
		return disk_fail(error, -EINVAL, d->path, "is no child that can be written");
	if (d->parent->format_id != DISK_VHDX)
		return disk_fail(error, -ENOTSUP, d->path, "its parent is no VHDX file: convert it instead");
	path = strdup(d->parent->path);
	if (!path)
		return disk_fail(error, -ENOMEM, d->path, "no memory");
	disk_flush(d);
	forget_parent(d);
	digest_touch_from(d, 0);
	after = guid_is_zero(child->parent_id2) ? guid_new() : child->parent_id2;
	result = open_parent(path, true, &p, error);
	if (!result) {
		result = copy_down(d, p, child->parent_id, after, error);
		disk_close(p);
		if (!result)
			result = join(d, path, after, error);
	}
	free(path);
	if (result && !error->text[0])
		disk_fail(error, result, d->path, "%s", strerror(-result));
	return result;
}
