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
static int read_through(struct vhdx *vhdx, uint64_t offset, uint8_t *to, uint64_t bytes)
{
	const struct iovec iov = { .iov_base = to, .iov_len = bytes };
	const struct disk_buffer buffer = buffer_of(&iov, 1);
	struct disk_range range = { .bytes = 0 };
	int error = 0;

	for (uint64_t done = 0; done < bytes && !error; done += range.bytes) {
		const struct disk_buffer rest = buffer_after(&buffer, done);

		error = vhdx_read_unlocked(vhdx, offset + done, &rest, bytes - done, &range);
		if (!error)
			error = chain_fall_through(vhdx->disk, offset + done, &rest, &range);
	}
	return error;
}

/* With `io` alone: what this file has not, read through it, and written to where the block lies
 * now. */
static int fill_block(struct vhdx *vhdx, uint64_t block, uint8_t *buffer)
{
	uint64_t index = vhdx_entry(vhdx, block);
	uint64_t at = block * vhdx->block_bytes;
	uint64_t place;
	uint32_t bytes = (uint32_t)(vhdx->disk->size_bytes - at < vhdx->block_bytes
					    ? vhdx->disk->size_bytes - at
					    : vhdx->block_bytes);
	bool was_partial = vhdx_state(vhdx->bat[index]) == BAT_PARTIAL;
	int error = read_through(vhdx, at, buffer, bytes);

	if (error)
		return error;
	memset(buffer + bytes, 0, vhdx->block_bytes - bytes);
	place = vhdx_offset(vhdx->bat[index]);
	pthread_mutex_lock(&vhdx->map);
	if (!was_partial)
		error = vhdx_allocate(vhdx, vhdx->block_bytes, &place);
	pthread_mutex_unlock(&vhdx->map);
	if (!error)
		error = file_write(&vhdx->disk->file, place, buffer, vhdx->block_bytes);
	pthread_mutex_lock(&vhdx->map);
	vhdx_note_payload(vhdx); /* a flush syncs it before the table says so */
	if (!error)
		vhdx_set_entry(vhdx, index, place | BAT_PRESENT);
	pthread_mutex_unlock(&vhdx->map);
	return error;
}

static int take_in(struct vhdx *vhdx, uint64_t block, uint8_t *buffer)
{
	unsigned state;
	bool needed;
	int error = 0;

	pthread_rwlock_wrlock(&vhdx->io);
	state = vhdx_state(vhdx->bat[vhdx_entry(vhdx, block)]);
	needed = state == BAT_PARTIAL;
	if (state == BAT_NOT_PRESENT)
		error = chain_anybody_has(vhdx->disk, block * vhdx->block_bytes, &needed);
	if (!error && needed)
		error = fill_block(vhdx, block, buffer);
	pthread_rwlock_unlock(&vhdx->io);
	if (!error)
		digest_touch(vhdx->disk, block * vhdx->block_bytes, 1);
	return error;
}

static int drop_bitmaps(struct vhdx *vhdx)
{
	pthread_mutex_lock(&vhdx->map);
	for (uint64_t chunk = 0; chunk < vhdx->chunks; chunk++) {
		uint64_t index = vhdx_bitmap_entry(vhdx, chunk);

		if (vhdx->bat[index] != BAT_NOT_PRESENT)
			vhdx_set_entry(vhdx, index, BAT_NOT_PRESENT);
		free(vhdx->bitmap[chunk].bits);
		vhdx->bitmap[chunk] = (struct vhdx_bitmap){ 0 };
	}
	pthread_mutex_unlock(&vhdx->map);
	return vhdx_commit(vhdx);
}

static int stand_alone(struct vhdx *vhdx)
{
	const uint32_t parameters[2] = { vhdx->block_bytes, 0 };
	const struct vhdx_value values[] = {
		{ .id = VHDX_ITEM_PARAMETERS,
		  .flags = VHDX_ITEM_REQUIRED,
		  .value = parameters,
		  .bytes = sizeof(parameters) },
		{ .id = VHDX_ITEM_LOCATOR, .remove = true },
		{ .id = DIGEST_ITEM_LINK, .flags = VHDX_ITEM_USER, .remove = true },
		{ .id = DIGEST_ITEM_PARENT, .flags = VHDX_ITEM_USER, .remove = true },
	};

	return vhdx_write_values(vhdx, values, sizeof(values) / sizeof(values[0]));
}

int disk_stream(struct disk *disk, const struct disk_job *job)
{
	struct vhdx *vhdx = vhdx_of(disk);
	struct disk *parent = disk->parent;
	uint8_t *buffer;
	int error = 0;

	if (!disk->write)
		return -EROFS;
	if (disk->driver != &vhdx_driver || !parent)
		return -EINVAL;
	pthread_mutex_lock(&vhdx->flush_lock);
	error = vhdx_begin(vhdx, true);
	pthread_mutex_unlock(&vhdx->flush_lock);
	buffer = malloc(vhdx->block_bytes);
	if (!error && !buffer)
		error = -ENOMEM;
	for (uint64_t block = 0; block < vhdx->blocks && !error; block++) {
		error = job_step(job, block, vhdx->blocks);
		if (!error)
			error = take_in(vhdx, block, buffer);
	}
	free(buffer);
	if (!error)
		error = vhdx_commit(vhdx);
	if (error)
		return error;
	job_alone(job, true);
	error = vhdx_commit(vhdx);
	if (!error)
		error = drop_bitmaps(vhdx);
	if (!error)
		error = stand_alone(vhdx);
	if (!error) {
		vhdx->has_parent = disk->is_child = false;
		vhdx->entries = vhdx->blocks + (vhdx->blocks - 1) / vhdx->chunk_ratio;
		disk->parent = NULL;
		chain_detach(disk);
		link_free(disk->link);
		disk->link = NULL;
		digest_touch_from(disk, 0); /* zeros count differently now */
	}
	job_alone(job, false);
	return error ? error : disk_close(parent);
}
