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

enum { BATCH = 64, COPY_BYTES = 1 << 20 };

/* Whether a block that the file has whole holds nothing. */
static int block_is_zero(struct vhdx *v, uint64_t block, uint8_t *buffer, bool *ret)
{
	uint64_t offset = vhdx_offset(v->bat[vhdx_entry(v, block)]);
	uint32_t sectors = v->block_bytes / v->sector_bytes;
	uint32_t run;
	int error = vhdx_run(v, block, 0, sectors, ret, &run);

	*ret = *ret && run == sectors;
	for (uint32_t at = 0; *ret && at < v->block_bytes && !error; at += COPY_BYTES) {
		error = file_read(&v->disk->file, offset + at, buffer, COPY_BYTES);
		*ret = !error && is_zero(buffer, COPY_BYTES);
	}
	return error;
}

static int drop_zeros(struct vhdx *v, const struct disk_job *job)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	for (uint64_t block = 0; block < v->blocks && !error && !v->fixed; block++) {
		uint64_t offset = block * v->block_bytes;
		uint64_t bytes = v->disk->size_bytes - offset < v->block_bytes
					 ? v->disk->size_bytes - offset
					 : v->block_bytes;
		bool zero;

		error = job_step(job, block, 2 * v->blocks);
		if (!error)
			error = block_is_zero(v, block, buffer, &zero);
		if (!error && zero)
			error = disk_zero(v->disk, offset, bytes);
	}
	free(buffer);
	return error;
}

/* ---- gaps ---- */

struct space_map { uint8_t *used; uint64_t mib; };

static void space_use(struct space_map *m, uint64_t offset, uint64_t bytes)
{
	for (uint64_t n = offset / VHDX_MIB;
	     n < (offset + bytes + VHDX_MIB - 1) / VHDX_MIB && n < m->mib; n++)
		m->used[n] = 1;
}

static int map_space(struct vhdx *v, struct space_map *m)
{
	m->mib = (v->file_bytes + VHDX_MIB - 1) / VHDX_MIB;
	m->used = calloc(1, m->mib + 1);
	if (!m->used)
		return -ENOMEM;
	space_use(m, 0, VHDX_MIB);
	space_use(m, v->header.log_offset, v->header.log_bytes);
	space_use(m, v->metadata_offset, v->metadata_bytes);
	space_use(m, v->bat_offset, v->bat_bytes);
	for (size_t n = 0; n < v->other_count; n++)
		space_use(m, v->others[n].offset, v->others[n].bytes);
	for (uint64_t n = 0; n < v->entries; n++)
		if (vhdx_holds(v->bat[n]))
			space_use(m, vhdx_offset(v->bat[n]),
				  n % (v->chunk_ratio + 1) == v->chunk_ratio ? VHDX_MIB
									     : v->block_bytes);
	return 0;
}

/* The first gap of this size below `limit`; 0: none. */
static uint64_t space_find_gap(const struct space_map *m, uint64_t bytes, uint64_t limit,
			       uint64_t *from)
{
	uint64_t need = bytes / VHDX_MIB;
	uint64_t run = 0;

	for (uint64_t n = *from; n < m->mib && n * VHDX_MIB < limit; n++) {
		run = m->used[n] ? 0 : run + 1;
		if (run == need && (n + 1 - need) * VHDX_MIB + bytes <= limit) {
			*from = n + 1 - need;
			return *from * VHDX_MIB;
		}
	}
	return 0;
}

static int copy_place(struct vhdx *v, uint64_t from, uint64_t to, uint64_t bytes)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < bytes && !error; at += COPY_BYTES) {
		error = file_read(&v->disk->file, from + at, buffer, COPY_BYTES);
		if (!error)
			error = file_write(&v->disk->file, to + at, buffer, COPY_BYTES);
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

static struct place *list_places(struct vhdx *v, size_t *ret_count)
{
	struct place *all = malloc((v->entries + 1) * sizeof(*all));

	*ret_count = 0;
	for (uint64_t n = 0; all && n < v->entries; n++)
		if (vhdx_holds(v->bat[n]))
			all[(*ret_count)++] = (struct place){ vhdx_offset(v->bat[n]), n };
	if (all)
		qsort(all, *ret_count, sizeof(*all), by_offset_down);
	return all;
}

/* Moves blocks from the end, the last first, until no gap before them is large enough. */
static int move_blocks(struct vhdx *v, const struct disk_job *job)
{
	struct space_map m = { 0 };
	size_t count;
	size_t batch = 0;
	struct place *all = list_places(v, &count);
	uint64_t from[2] = { 1, 1 }; /* where to look on, for bitmaps and blocks */
	int error = all ? map_space(v, &m) : -ENOMEM;

	for (size_t n = 0; n < count && !error; n++) {
		bool bitmap = all[n].index % (v->chunk_ratio + 1) == v->chunk_ratio;
		uint64_t bytes = bitmap ? VHDX_MIB : v->block_bytes;
		uint64_t to = space_find_gap(&m, bytes, all[n].offset, &from[!bitmap]);

		error = job_step(job, count + n, 2 * count);
		if (error || !to)
			continue;
		error = copy_place(v, all[n].offset, to, bytes);
		if (error)
			break;
		space_use(&m, to, bytes);
		pthread_mutex_lock(&v->map);
		vhdx_set_entry(v, all[n].index, to | vhdx_state(v->bat[all[n].index]));
		vhdx_note_payload(v);
		pthread_mutex_unlock(&v->map);
		if (++batch % BATCH == 0)
			error = vhdx_commit(v);
	}
	free(all);
	free(m.used);
	return error ? error : vhdx_commit(v);
}

static void space_find_end(struct vhdx *v)
{
	struct space_map m = { 0 };

	if (map_space(v, &m))
		return;
	while (m.mib && !m.used[m.mib - 1])
		m.mib--;
	v->end_offset = m.mib * VHDX_MIB;
	CHECK(check_vhdx(v));
	free(m.used);
}

/*
 * Blocks move into what is free: from now on nobody may be given a place of the lists, also where
 * the compaction is given up. What stays free is found by the next one.
 */
static void space_forget_free(struct vhdx *v)
{
	pthread_mutex_lock(&v->map);
	v->freed.count = v->reusable.count = 0;
	pthread_mutex_unlock(&v->map);
}

/* Not while others use the disk. What is behind the end is cut off at close. */
int disk_compact(struct disk *d, const struct disk_job *job)
{
	struct vhdx *v = vhdx_of(d);
	int error;

	if (!d->write)
		return -EROFS;
	if (d->driver != &vhdx_driver)
		return -ENOTSUP;
	error = drop_zeros(v, job);
	if (!error)
		error = vhdx_commit(v);
	pthread_mutex_lock(&v->flush_lock);
	if (!error)
		error = vhdx_begin(v, false);
	pthread_mutex_unlock(&v->flush_lock);
	space_forget_free(v);
	if (!error)
		error = move_blocks(v, job);
	if (!error)
		error = vhdx_sync(v);
	if (!error)
		space_find_end(v);
	return error;
}
