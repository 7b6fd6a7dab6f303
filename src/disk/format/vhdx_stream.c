/*
 * A child takes in what it reads from its parents, block by block, and then stands alone. While
 * others use it.
 *
 * Order at the end: every block is the child's own or nobody's; the bitmaps go (no block is partial
 * any more, so that none is needed); then flag and locator go together. At each of these points the
 * file is sound and reads the same.
 */
#include <stdlib.h>
#include <string.h>

#include "disk/digest.h"
#include "vhdx_internal.h"

/* With `io` alone: the disk's content, through the chain. */
static int read_through(struct vhdx *v, uint64_t offset, uint8_t *to, uint64_t bytes)
{
	const struct iovec iov = { .iov_base = to, .iov_len = bytes };
	const struct disk_buffer buffer = buffer_of(&iov, 1);
	struct disk_range range = { .bytes = 0 };
	int error = 0;

	for (uint64_t done = 0; done < bytes && !error; done += range.bytes) {
		const struct disk_buffer rest = buffer_after(&buffer, done);

		error = vhdx_read_unlocked(v, offset + done, &rest, bytes - done, &range);
		if (!error)
			error = chain_fall_through(v->disk, offset + done, &rest, &range);
	}
	return error;
}

/* With `io` alone: what this file has not, read through it, and written to where the block lies
 * now. */
static int fill_block(struct vhdx *v, uint64_t block, uint8_t *buffer)
{
	uint64_t index = vhdx_entry(v, block);
	uint64_t at = block * v->block_bytes;
	uint64_t place;
	uint32_t bytes =
		(uint32_t)(v->disk->size_bytes - at < v->block_bytes ? v->disk->size_bytes - at
								     : v->block_bytes);
	bool was_partial = vhdx_state(v->bat[index]) == BAT_PARTIAL;
	int error = read_through(v, at, buffer, bytes);

	if (error)
		return error;
	memset(buffer + bytes, 0, v->block_bytes - bytes);
	place = vhdx_offset(v->bat[index]);
	pthread_mutex_lock(&v->map);
	if (!was_partial)
		error = vhdx_allocate(v, v->block_bytes, &place);
	pthread_mutex_unlock(&v->map);
	if (!error)
		error = file_write(&v->disk->file, place, buffer, v->block_bytes);
	pthread_mutex_lock(&v->map);
	vhdx_note_payload(v); /* a flush syncs it before the table says so */
	if (!error)
		vhdx_set_entry(v, index, place | BAT_PRESENT);
	pthread_mutex_unlock(&v->map);
	return error;
}

static int take_in(struct vhdx *v, uint64_t block, uint8_t *buffer)
{
	unsigned state;
	bool needed;
	int error = 0;

	pthread_rwlock_wrlock(&v->io);
	state = vhdx_state(v->bat[vhdx_entry(v, block)]);
	needed = state == BAT_PARTIAL;
	if (state == BAT_NOT_PRESENT)
		error = chain_anybody_has(v->disk, block * v->block_bytes, &needed);
	if (!error && needed)
		error = fill_block(v, block, buffer);
	pthread_rwlock_unlock(&v->io);
	if (!error)
		digest_touch(v->disk, block * v->block_bytes, 1);
	return error;
}

static int drop_bitmaps(struct vhdx *v)
{
	pthread_mutex_lock(&v->map);
	for (uint64_t chunk = 0; chunk < v->chunks; chunk++) {
		uint64_t index = vhdx_bitmap_entry(v, chunk);

		if (v->bat[index] != BAT_NOT_PRESENT)
			vhdx_set_entry(v, index, BAT_NOT_PRESENT);
		free(v->bitmap[chunk].bits);
		v->bitmap[chunk] = (struct vhdx_bitmap){ 0 };
	}
	pthread_mutex_unlock(&v->map);
	return vhdx_commit(v);
}

static int stand_alone(struct vhdx *v)
{
	const uint32_t parameters[2] = { v->block_bytes, 0 };
	const struct vhdx_value values[] = {
		{ .id = VHDX_ITEM_PARAMETERS,
		  .flags = VHDX_ITEM_REQUIRED,
		  .value = parameters,
		  .bytes = sizeof(parameters) },
		{ .id = VHDX_ITEM_LOCATOR, .remove = true },
		{ .id = DIGEST_ITEM_LINK, .flags = VHDX_ITEM_USER, .remove = true },
		{ .id = DIGEST_ITEM_PARENT, .flags = VHDX_ITEM_USER, .remove = true },
	};

	return vhdx_write_values(v, values, sizeof(values) / sizeof(values[0]));
}

int disk_stream(struct disk *d, const struct disk_job *job)
{
	struct vhdx *v = vhdx_of(d);
	struct disk *parent = d->parent;
	uint8_t *buffer;
	int error = 0;

	if (!d->write)
		return -EROFS;
	if (d->driver != &vhdx_driver || !parent)
		return -EINVAL;
	pthread_mutex_lock(&v->flush_lock);
	error = vhdx_begin(v, true);
	pthread_mutex_unlock(&v->flush_lock);
	buffer = malloc(v->block_bytes);
	if (!error && !buffer)
		error = -ENOMEM;
	for (uint64_t block = 0; block < v->blocks && !error; block++) {
		error = job_step(job, block, v->blocks);
		if (!error)
			error = take_in(v, block, buffer);
	}
	free(buffer);
	if (!error)
		error = vhdx_commit(v);
	if (error)
		return error;
	job_alone(job, true);
	error = vhdx_commit(v);
	if (!error)
		error = drop_bitmaps(v);
	if (!error)
		error = stand_alone(v);
	if (!error) {
		v->has_parent = d->is_child = false;
		v->entries = v->blocks + (v->blocks - 1) / v->chunk_ratio;
		d->parent = NULL;
		chain_detach(d);
		link_free(d->link);
		d->link = NULL;
		digest_touch_from(d, 0); /* zeros count differently now */
	}
	job_alone(job, false);
	return error ? error : disk_close(parent);
}
