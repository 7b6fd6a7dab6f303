/*
 * A child's data into its parent, while others use the child.
 *
 * The parent's data identifier changes by it, and the child must still fit, whenever the power
 * fails: before the first byte is written the child's locator names the identifier that the parent
 * is going to have as a second one (parent_linkage2, of which a reader accepts either). So until
 * the end the child opens, reads the same, and the commit can be done again. At the end what is
 * said about the virtual disk is the child's, the child is emptied, which only then is right, and
 * its locator names the new identifier alone.
 *
 * What is written meanwhile goes to the child as ever; the blocks it was written to are copied once
 * more, the last ones while nobody writes.
 */
#include <stdlib.h>
#include <string.h>

#include "disk/digest.h"
#include "disk/format/vhdx_internal.h"

#define COPY_BYTES (1u << 20)
enum { PASSES = 8 };

struct commit { struct disk *child, *parent; const struct disk_job *job; uint8_t *buffer; };

/* What the child has of a range, not what its parents have. */
static int copy_range(struct commit *c, uint64_t at, uint64_t end)
{
	int error = 0;

	while (at < end && !error) {
		struct disk_range range;

		error = disk_range(c->child, at, end - at < COPY_BYTES ? end - at : COPY_BYTES,
				   &range);
		if (error)
			break;
		if (range.kind == DISK_RANGE_ZERO)
			error = disk_zero(c->parent, at, range.bytes);
		else if (range.kind == DISK_RANGE_PRESENT)
			error = disk_read(c->child, at, c->buffer, range.bytes);
		if (!error && range.kind == DISK_RANGE_PRESENT)
			error = disk_write(c->parent, at, c->buffer, range.bytes);
		at += range.bytes;
	}
	return error;
}

/* Every block that is marked; who writes marks it again afterwards. */
static int copy_marked(struct commit *c, bool told)
{
	struct disk *d = c->child;
	int error = 0;

	assert(d->copied && c->parent == d->parent);
	for (uint64_t n = 0; n < d->touched_blocks && !error; n++) {
		uint8_t bit = (uint8_t)(1 << (n & 7));
		uint64_t at = n * d->touched_bytes;
		uint64_t end = at + d->touched_bytes;

		if (!(__atomic_fetch_and(&d->copied[n / 8], (uint8_t)~bit, __ATOMIC_SEQ_CST) & bit))
			continue;
		error = told ? job_step(c->job, n, d->touched_blocks) : 0;
		if (!error)
			error = copy_range(c, at, end < d->size_bytes ? end : d->size_bytes);
	}
	return error;
}

static int child_empty(struct vhdx *v)
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

/* The same file once more, for writing; its own parents may lie where they lay: they were open
 * already, and allowed. */
static int reopen_parent(struct disk *d, struct disk_error *error)
{
	struct disk_options o = { .format = DISK_VHDX,
				  .write = true,
				  .parents = (const char *const[]){ "/", NULL } };
	struct disk *old = d->parent;
	struct disk *p;
	int result;

	file_lock(&old->file, FILE_UNLOCKED);
	result = disk_open(old->path, &o, &p, error);
	if (!result && !guid_equal(*p->data_id, *old->data_id)) {
		disk_close(p);
		result = disk_fail(error, -ESTALE, d->path, "its parent has changed");
	}
	if (result) {
		file_lock(&old->file, FILE_SHARED);
		return result;
	}
	link_free(d->link);
	d->link = NULL;
	d->parent = p;
	disk_close(old);
	return chain_attach(d) ? disk_fail(error, -ENOMEM, d->path, "no memory") : 0;
}

static int name_both(struct vhdx *child, const char *path, struct guid after)
{
	int error = vhdx_set_link(child, path, DISK_VHDX, child->parent_id, after);

	if (!error)
		child->parent_id2 = after;
	return error;
}

static int copy_down(struct commit *c)
{
	struct disk *d = c->child;
	struct disk *p = c->parent;
	int error = p->size_bytes < d->size_bytes ? disk_resize(p, d->size_bytes) : 0;

	for (int pass = 0; pass < PASSES && !error; pass++)
		error = copy_marked(c, !pass);
	return error ? error : disk_flush(p);
}

/* Nobody else uses the disk. */
static int commit_finish(struct commit *c, struct guid after)
{
	struct disk *d = c->child;
	struct disk *p = c->parent;
	struct vhdx *child = vhdx_of(d);
	int error = copy_marked(c, false);

	pthread_mutex_lock(&vhdx_of(p)->flush_lock);
	if (!error)
		error = vhdx_begin(vhdx_of(p), true); /* also when there was nothing to copy */
	pthread_mutex_unlock(&vhdx_of(p)->flush_lock);
	if (!error)
		error = disk_flush(p);
	if (!error)
		error = vhdx_copy_disk_items(child, vhdx_of(p));
	if (!error)
		error = child_empty(child);
	if (!error)
		error = vhdx_set_link(child, p->path, DISK_VHDX, after, (struct guid){ 0 });
	if (error)
		return error;
	child->parent_id = after;
	child->parent_id2 = (struct guid){ 0 };
	digest_touch_from(d, 0);
	return chain_attach(d); /* the parent now has what it had not */
}

static int commit_run(struct commit *c, struct guid after)
{
	struct disk *d = c->child;
	uint8_t *copied;
	int error = link_drop(d);

	if (!error)
		error = name_both(vhdx_of(d), c->parent->path, after);
	vhdx_of(c->parent)->next_data_id = after;
	c->buffer = malloc(COPY_BYTES);
	copied = malloc(d->touched_blocks / 8 + 1);
	if (!error && (!c->buffer || !copied))
		error = -ENOMEM;
	if (!error) {
		memset(copied, 0xff, d->touched_blocks / 8 + 1);
		__atomic_store_n(&d->copied, copied, __ATOMIC_RELEASE);
		error = copy_down(c);
	}
	job_alone(c->job, true);
	if (!error)
		error = commit_finish(c, after);
	d->copied = NULL;
	job_alone(c->job, false);
	free(copied);
	free(c->buffer);
	return error;
}

int disk_commit(struct disk *d, const struct disk_job *job, struct disk_error *error)
{
	struct commit c = { .child = d, .job = job };
	struct guid after;
	int result, clean;

	if (!d->write || d->driver != &vhdx_driver || !d->parent)
		return disk_fail(error, -EINVAL, d->path, "is no child that can be written");
	if (d->parent->format_id != DISK_VHDX)
		return disk_fail(error, -ENOTSUP, d->path,
				 "its parent is no VHDX file: convert it instead");
	after = guid_is_zero(vhdx_of(d)->parent_id2) ? guid_new() : vhdx_of(d)->parent_id2;
	if (d->size_bytes > d->touched_blocks * d->touched_bytes)
		return disk_fail(error, -EBUSY, d->path,
				 "has grown since it was opened: open it again");
	job_alone(job, true);
	result = reopen_parent(d, error);
	job_alone(job, false);
	if (result)
		return result;
	c.parent = d->parent;
	result = commit_run(&c, after);
	clean = disk_make_clean(c.parent);
	result = result ? result : clean;
	if (!result) {
		result = link_make(d, LINK_KEPT);
		result = digest_is_missing(result) ? 0 : result; /* a parent without digests */
	}
	return result ? disk_fail(error, result, d->path, "%s", strerror(-result)) : 0;
}
