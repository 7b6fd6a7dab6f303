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
static int copy_range(struct commit *commit, uint64_t at, uint64_t end)
{
	int error = 0;

	while (at < end && !error) {
		struct disk_range range;

		error = disk_range(commit->child, at, end - at < COPY_BYTES ? end - at : COPY_BYTES,
				   &range);
		if (error)
			break;
		if (range.kind == DISK_RANGE_ZERO)
			error = disk_zero(commit->parent, at, range.bytes);
		else if (range.kind == DISK_RANGE_PRESENT)
			error = disk_read(commit->child, at, commit->buffer, range.bytes);
		if (!error && range.kind == DISK_RANGE_PRESENT)
			error = disk_write(commit->parent, at, commit->buffer, range.bytes);
		at += range.bytes;
	}
	return error;
}

/* Every block that is marked; who writes marks it again afterwards. */
static int copy_marked(struct commit *commit, bool told)
{
	struct disk *disk = commit->child;
	int error = 0;

	assert(disk->copied && commit->parent == disk->parent);
	for (uint64_t n = 0; n < disk->touched_blocks && !error; n++) {
		uint8_t bit = (uint8_t)(1 << (n & 7));
		uint64_t at = n * disk->touched_bytes;
		uint64_t end = at + disk->touched_bytes;

		if (!(__atomic_fetch_and(&disk->copied[n / 8], (uint8_t)~bit, __ATOMIC_SEQ_CST) &
		      bit))
			continue;
		error = told ? job_step(commit->job, n, disk->touched_blocks) : 0;
		if (!error)
			error = copy_range(commit, at,
					   end < disk->size_bytes ? end : disk->size_bytes);
	}
	return error;
}

static int child_empty(struct vhdx *vhdx)
{
	int error = vhdx_begin(vhdx, true);

	pthread_rwlock_wrlock(&vhdx->io);
	pthread_mutex_lock(&vhdx->map);
	for (uint64_t block = 0; block < vhdx->blocks && !error; block++) {
		uint64_t index = vhdx_entry(vhdx, block);

		if (vhdx_holds(vhdx->bat[index]))
			error = vhdx_free(vhdx, vhdx_offset(vhdx->bat[index]));
		if (vhdx_state(vhdx->bat[index]) == BAT_PARTIAL) {
			uint8_t *bits;

			error = vhdx_bits(vhdx, block / vhdx->chunk_ratio, true, &bits);
			if (!error)
				vhdx_set_bits(vhdx, block, 0,
					      vhdx->block_bytes / vhdx->sector_bytes, false);
		}
		if (!error && vhdx->bat[index] != BAT_NOT_PRESENT)
			vhdx_set_entry(vhdx, index, BAT_NOT_PRESENT);
	}
	pthread_mutex_unlock(&vhdx->map);
	pthread_rwlock_unlock(&vhdx->io);
	return error ? error : vhdx_commit(vhdx);
}

/* The same file once more, for writing; its own parents may lie where they lay: they were open
 * already, and allowed. */
static int reopen_parent(struct disk *disk, struct disk_error *error)
{
	struct disk_options options = { .format = DISK_VHDX,
					.write = true,
					.parents = (const char *const[]){ "/", NULL } };
	struct disk *old = disk->parent;
	struct disk *parent;
	int result;

	file_lock(&old->file, FILE_UNLOCKED);
	result = disk_open(old->path, &options, &parent, error);
	if (!result && !guid_equal(*parent->data_id, *old->data_id)) {
		disk_close(parent);
		result = disk_refuse(error, REFUSAL_COMMIT_CHANGED, disk->path, DISK_NOWHERE,
				     "its parent has changed");
	}
	if (result) {
		file_lock(&old->file, FILE_SHARED);
		return result;
	}
	link_free(disk->link);
	disk->link = NULL;
	disk->parent = parent;
	disk_close(old);
	return chain_attach(disk)
		       ? disk_refuse_host(error, -ENOMEM, disk->path, "opening its chain")
		       : 0;
}

static int name_both(struct vhdx *child, const char *path, struct guid after)
{
	int error = vhdx_set_link(child, path, DISK_VHDX, child->parent_id, after);

	if (!error)
		child->parent_id2 = after;
	return error;
}

static int copy_down(struct commit *commit)
{
	struct disk *disk = commit->child;
	struct disk *parent = commit->parent;
	int error =
		parent->size_bytes < disk->size_bytes ? disk_resize(parent, disk->size_bytes) : 0;

	for (int pass = 0; pass < PASSES && !error; pass++)
		error = copy_marked(commit, !pass);
	return error ? error : disk_flush(parent);
}

/* Nobody else uses the disk. */
static int commit_finish(struct commit *commit, struct guid after)
{
	struct disk *disk = commit->child;
	struct disk *parent = commit->parent;
	struct vhdx *child = vhdx_of(disk);
	int error = copy_marked(commit, false);

	pthread_mutex_lock(&vhdx_of(parent)->flush_lock);
	if (!error)
		error = vhdx_begin(vhdx_of(parent), true); /* also when there was nothing to copy */
	pthread_mutex_unlock(&vhdx_of(parent)->flush_lock);
	if (!error)
		error = disk_flush(parent);
	if (!error)
		error = vhdx_copy_disk_items(child, vhdx_of(parent));
	if (!error)
		error = child_empty(child);
	if (!error)
		error = vhdx_set_link(child, parent->path, DISK_VHDX, after, (struct guid){ 0 });
	if (error)
		return error;
	child->parent_id = after;
	child->parent_id2 = (struct guid){ 0 };
	digest_touch_from(disk, 0);
	return chain_attach(disk); /* the parent now has what it had not */
}

static int commit_run(struct commit *commit, struct guid after)
{
	struct disk *disk = commit->child;
	uint8_t *copied;
	int error = link_drop(disk);

	if (!error)
		error = name_both(vhdx_of(disk), commit->parent->path, after);
	vhdx_of(commit->parent)->next_data_id = after;
	commit->buffer = malloc(COPY_BYTES);
	copied = malloc(disk->touched_blocks / 8 + 1);
	if (!error && (!commit->buffer || !copied))
		error = -ENOMEM;
	if (!error) {
		memset(copied, 0xff, disk->touched_blocks / 8 + 1);
		__atomic_store_n(&disk->copied, copied, __ATOMIC_RELEASE);
		error = copy_down(commit);
	}
	job_alone(commit->job, true);
	if (!error)
		error = commit_finish(commit, after);
	disk->copied = NULL;
	job_alone(commit->job, false);
	free(copied);
	free(commit->buffer);
	return error;
}

int disk_commit(struct disk *disk, const struct disk_job *job, struct disk_error *error)
{
	struct commit commit = { .child = disk, .job = job };
	struct guid after;
	int result, clean;

	if (!disk->write || disk->driver != &vhdx_driver || !disk->parent)
		return disk_refuse(error, REFUSAL_NO_CHILD, disk->path, DISK_NOWHERE,
				   "is no child that can be written");
	if (disk->parent->format_id != DISK_VHDX)
		return disk_refuse(error, REFUSAL_COMMIT_FORMAT, disk->path, DISK_NOWHERE,
				   "its parent is a %s file",
				   disk_format_name(disk->parent->format_id));
	after = guid_is_zero(vhdx_of(disk)->parent_id2) ? guid_new() : vhdx_of(disk)->parent_id2;
	if (disk->size_bytes > disk->touched_blocks * disk->touched_bytes)
		return disk_refuse(error, REFUSAL_COMMIT_GROWN, disk->path, DISK_NOWHERE,
				   "has grown since it was opened");
	job_alone(job, true);
	result = reopen_parent(disk, error);
	job_alone(job, false);
	if (result)
		return result;
	commit.parent = disk->parent;
	result = commit_run(&commit, after);
	clean = disk_make_clean(commit.parent);
	result = result ? result : clean;
	if (!result) {
		result = link_make(disk, LINK_KEPT);
		result = digest_is_missing(result) ? 0 : result; /* a parent without digests */
	}
	return result ? disk_refuse_host(error, result, disk->path, "putting it into its parent")
		      : 0;
}
