/*
 * Giving space back: blocks that hold only zeros go, then the last ones move into the gaps, and the
 * file ends where they end.
 *
 * A block's copy is made and synced, then the table names it (one commit for a batch), and only
 * then may its old place be used or cut off: the power may fail at any moment.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/check.h"
#include "vhdx_internal.h"

enum { BATCH = 64, COPY_BYTES = 1 << 20, PIECE_BYTES = 64 << 10 };

/* Whether a block that the file has whole holds nothing. */
static int block_is_zero(struct vhdx *vhdx, uint64_t block, uint8_t *buffer, bool *ret)
{
	uint64_t offset = vhdx_offset(vhdx->bat[vhdx_entry(vhdx, block)]);
	uint32_t sectors = vhdx->block_bytes / vhdx->sector_bytes;
	uint32_t run;
	int error = vhdx_run(vhdx, block, 0, sectors, ret, &run);

	*ret = *ret && run == sectors;
	for (uint32_t at = 0; *ret && at < vhdx->block_bytes && !error; at += COPY_BYTES) {
		error = file_read(&vhdx->disk->file, offset + at, buffer, COPY_BYTES);
		*ret = !error && is_zero(buffer, COPY_BYTES);
	}
	return error;
}

static int drop_zeros(struct vhdx *vhdx, const struct disk_job *job)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	for (uint64_t block = 0; block < vhdx->blocks && !error && !vhdx->fixed; block++) {
		uint64_t offset = block * vhdx->block_bytes;
		uint64_t bytes = vhdx->disk->size_bytes - offset < vhdx->block_bytes
					 ? vhdx->disk->size_bytes - offset
					 : vhdx->block_bytes;
		bool zero;

		error = job_step(job, block, 2 * vhdx->blocks);
		if (!error)
			error = block_is_zero(vhdx, block, buffer, &zero);
		if (!error && zero)
			error = disk_zero(vhdx->disk, offset, bytes);
	}
	free(buffer);
	return error;
}

/* ---- gaps ---- */

struct space_map { uint8_t *used; uint64_t mib; };

static void space_use(struct space_map *map, uint64_t offset, uint64_t bytes)
{
	for (uint64_t n = offset / VHDX_MIB;
	     n < (offset + bytes + VHDX_MIB - 1) / VHDX_MIB && n < map->mib; n++)
		map->used[n] = 1;
}

static int map_space(struct vhdx *vhdx, struct space_map *map)
{
	map->mib = (vhdx->file_bytes + VHDX_MIB - 1) / VHDX_MIB;
	map->used = calloc(1, map->mib + 1);
	if (!map->used)
		return -ENOMEM;
	space_use(map, 0, VHDX_MIB);
	space_use(map, vhdx->header.log_offset, vhdx->header.log_bytes);
	space_use(map, vhdx->metadata_offset, vhdx->metadata_bytes);
	space_use(map, vhdx->bat_offset, vhdx->bat_bytes);
	for (size_t n = 0; n < vhdx->other_count; n++)
		space_use(map, vhdx->others[n].offset, vhdx->others[n].bytes);
	for (uint64_t n = 0; n < vhdx->entries; n++)
		if (vhdx_holds(vhdx->bat[n]))
			space_use(map, vhdx_offset(vhdx->bat[n]),
				  n % (vhdx->chunk_ratio + 1) == vhdx->chunk_ratio
					  ? VHDX_MIB
					  : vhdx->block_bytes);
	return 0;
}

/* The first gap of this size below `limit`; 0: none. */
static uint64_t space_find_gap(const struct space_map *map, uint64_t bytes, uint64_t limit,
			       uint64_t *from)
{
	uint64_t need = bytes / VHDX_MIB;
	uint64_t run = 0;

	for (uint64_t n = *from; n < map->mib && n * VHDX_MIB < limit; n++) {
		run = map->used[n] ? 0 : run + 1;
		if (run == need && (n + 1 - need) * VHDX_MIB + bytes <= limit) {
			*from = n + 1 - need;
			return *from * VHDX_MIB;
		}
	}
	return 0;
}

/* What is zero stays a hole: a block that was freed in part takes no more of the host than before.
 */
static int put_pieces(struct vhdx *vhdx, uint64_t to, const uint8_t *buffer)
{
	int error = 0;

	for (uint32_t at = 0, end; at < COPY_BYTES && !error; at = end) {
		bool zero = is_zero(buffer + at, PIECE_BYTES);

		end = at + PIECE_BYTES;
		while (end < COPY_BYTES && is_zero(buffer + end, PIECE_BYTES) == zero)
			end += PIECE_BYTES;
		error = zero ? file_discard(&vhdx->disk->file, to + at, end - at)
			     : file_write(&vhdx->disk->file, to + at, buffer + at, end - at);
	}
	return error;
}

static int copy_place(struct vhdx *vhdx, uint64_t from, uint64_t to, uint64_t bytes)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < bytes && !error; at += COPY_BYTES) {
		error = file_read(&vhdx->disk->file, from + at, buffer, COPY_BYTES);
		if (!error)
			error = put_pieces(vhdx, to + at, buffer);
	}
	free(buffer);
	return error;
}

struct place { uint64_t offset, index; };

static int by_offset_down(const void *a, const void *b)
{
	const struct place *one = a;
	const struct place *other = b;

	return one->offset < other->offset ? 1 : -1;
}

static struct place *list_places(struct vhdx *vhdx, size_t *ret_count)
{
	struct place *all = malloc((vhdx->entries + 1) * sizeof(*all));

	*ret_count = 0;
	for (uint64_t n = 0; all && n < vhdx->entries; n++)
		if (vhdx_holds(vhdx->bat[n]))
			all[(*ret_count)++] = (struct place){ vhdx_offset(vhdx->bat[n]), n };
	if (all)
		qsort(all, *ret_count, sizeof(*all), by_offset_down);
	return all;
}

/* Moves blocks from the end, the last first, until no gap before them is large enough. */
static int move_blocks(struct vhdx *vhdx, const struct disk_job *job)
{
	struct space_map map = { 0 };
	size_t count;
	size_t batch = 0;
	struct place *all = list_places(vhdx, &count);
	uint64_t from[2] = { 1, 1 }; /* where to look on, for bitmaps and blocks */
	int error = all ? map_space(vhdx, &map) : -ENOMEM;

	for (size_t n = 0; n < count && !error; n++) {
		bool bitmap = all[n].index % (vhdx->chunk_ratio + 1) == vhdx->chunk_ratio;
		uint64_t bytes = bitmap ? VHDX_MIB : vhdx->block_bytes;
		uint64_t to = space_find_gap(&map, bytes, all[n].offset, &from[!bitmap]);

		error = job_step(job, count + n, 2 * count);
		if (error || !to)
			continue;
		error = copy_place(vhdx, all[n].offset, to, bytes);
		if (error)
			break;
		space_use(&map, to, bytes);
		pthread_mutex_lock(&vhdx->map);
		vhdx_set_entry(vhdx, all[n].index, to | vhdx_state(vhdx->bat[all[n].index]));
		vhdx_note_payload(vhdx);
		pthread_mutex_unlock(&vhdx->map);
		if (++batch % BATCH == 0)
			error = vhdx_commit(vhdx);
	}
	free(all);
	free(map.used);
	return error ? error : vhdx_commit(vhdx);
}

static void space_find_end(struct vhdx *vhdx)
{
	struct space_map map = { 0 };

	if (map_space(vhdx, &map))
		return;
	while (map.mib && !map.used[map.mib - 1])
		map.mib--;
	vhdx->end_offset = map.mib * VHDX_MIB;
	CHECK(check_vhdx(vhdx));
	free(map.used);
}

/*
 * Blocks move into what is free: from now on nobody may be given a place of the lists, also where
 * the compaction is given up. What stays free is found by the next one.
 */
static void space_forget_free(struct vhdx *vhdx)
{
	pthread_mutex_lock(&vhdx->map);
	vhdx->freed.count = vhdx->reusable.count = 0;
	pthread_mutex_unlock(&vhdx->map);
}

/* Not while others use the disk. What is behind the end is cut off at close. */
int disk_compact(struct disk *disk, const struct disk_job *job)
{
	struct vhdx *vhdx = vhdx_of(disk);
	int error;

	if (!disk->write)
		return -EROFS;
	if (disk->driver != &vhdx_driver)
		return -ENOTSUP;
	error = drop_zeros(vhdx, job);
	if (!error)
		error = vhdx_commit(vhdx);
	pthread_mutex_lock(&vhdx->flush_lock);
	if (!error)
		error = vhdx_begin(vhdx, false);
	pthread_mutex_unlock(&vhdx->flush_lock);
	space_forget_free(vhdx);
	if (!error)
		error = move_blocks(vhdx, job);
	if (!error)
		error = vhdx_sync(vhdx);
	if (!error)
		space_find_end(vhdx);
	return error;
}
