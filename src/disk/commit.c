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

#include "vhdx_internal.h"

#define COPY_BYTES (1u << 20)

static int set_link(struct vhdx *child, const char *parent_path, struct guid id, struct guid id2)
{
	uint8_t *value;
	uint32_t bytes;
	int error = vhdx_make_locator(child->disk->path, parent_path, id, id2, &value, &bytes);

	if (!error)
		error = vhdx_write_item(child, VHDX_ITEM_LOCATOR, VHDX_ITEM_REQUIRED, value, bytes);
	free(value);
	return error;
}

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

/* The parent once more, this time for writing; its own parents may lie where they lay. */
static int open_for_writing(struct disk *child, struct disk **ret, struct disk_error *error)
{
	struct disk_options o = { .format = DISK_VHDX, .write = true };
	struct disk *old = child->parent;
	char *path = strdup(old->path);
	const char *places[2] = { "/", NULL }; /* they are open already, and were allowed */
	int result;

	if (!path)
		return -ENOMEM;
	o.parents = places;
	child->parent = NULL;
	vhdx_of(child)->ancestors = 0; /* only what the child has itself is read from here on */
	disk_close(old);
	result = disk_open(path, &o, ret, error);
	free(path);
	return result;
}

int disk_commit(struct disk *d, struct disk_error *error)
{
	struct vhdx *child = vhdx_of(d), *parent;
	struct disk *p = NULL;
	struct guid before, after;
	int result;

	if (!d->write || d->driver != &vhdx_driver || !d->parent)
		return disk_fail(error, -EINVAL, d->path, "is no child that can be written");
	vhdx_commit(child);
	before = child->parent_id;
	result = open_for_writing(d, &p, error);
	if (result)
		return result;
	parent = vhdx_of(p);
	/* again after an interruption: the parent may have either */
	if (!guid_equal(parent->header.data_write, before) && !guid_equal(parent->header.data_write, child->parent_id2))
		result = disk_fail(error, -ESTALE, d->path, "its parent has changed");
	after = guid_is_zero(child->parent_id2) ? guid_new() : child->parent_id2;
	if (!result)
		result = set_link(child, p->path, before, after);
	parent->next_data_id = after;
	if (!result && p->size_bytes < d->size_bytes)
		result = disk_resize(p, d->size_bytes);
	if (!result)
		result = copy_all(d, p);
	if (!result)
		result = vhdx_begin(parent, true); /* also when there was nothing to copy */
	if (!result)
		result = empty(child);
	if (!result)
		result = set_link(child, p->path, after, (struct guid){ 0 });
	if (!result) {
		child->parent_id = after;
		child->parent_id2 = (struct guid){ 0 };
	} else if (!error->text[0]) {
		disk_fail(error, result, d->path, "%s", strerror(-result));
	}
	disk_close(p);
	return result;
}
