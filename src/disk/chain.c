/* See chain.h: requests on a disk, and how they fall through the files of its chain. */
#include "chain.h"

#include <stdlib.h>

#include "digest.h"
#include "lib/check.h"

enum { GRANULE_MIN_BYTES = 1 << 20, GRANULES_MAX = 1 << 26 };

/* ---- the drivers' border ---- */

static void assert_request(const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	assert(!disk->items_only);
	assert(bytes && !((offset | bytes) & (disk->sector_bytes - 1)));
	assert(offset < disk->size_bytes && bytes <= disk->size_bytes - offset);
}

static void assert_answer(const struct disk *disk, uint64_t bytes, const struct disk_range *range,
			  int error)
{
	assert(error <= 0);
	if (error)
		return;
	assert(range->bytes && range->bytes <= bytes && !(range->bytes & (disk->sector_bytes - 1)));
	assert(range->kind != DISK_RANGE_ABSENT || disk->is_child);
}

static int own_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		    uint64_t bytes, struct disk_range *ret)
{
	int error;

	assert_request(disk, offset, bytes);
	assert(bytes <= buffer->end - buffer->from);
	error = disk->driver->read(disk, offset, buffer, bytes, ret);
	assert_answer(disk, bytes, ret, error);
	return error;
}

static int own_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	int error;

	assert_request(disk, offset, bytes);
	error = disk->driver->range(disk, offset, bytes, ret);
	assert_answer(disk, bytes, ret, error);
	return error;
}

/* How far a change may go at once: to the end of a block. */
static uint64_t bytes_in_block(const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	uint64_t room = disk->block_bytes ? disk->block_bytes - offset % disk->block_bytes : bytes;

	return room < bytes ? room : bytes;
}

static int own_write(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes)
{
	int error;

	assert_request(disk, offset, bytes);
	assert(disk->write && bytes <= buffer->end - buffer->from);
	assert(bytes == bytes_in_block(disk, offset, bytes));
	error = disk->driver->write(disk, offset, buffer, bytes);
	assert(error <= 0);
	return error;
}

static int own_zero(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	int error;

	assert_request(disk, offset, bytes);
	assert(disk->write && bytes == bytes_in_block(disk, offset, bytes));
	error = disk->driver->zero(disk, offset, bytes);
	assert(error <= 0);
	return error;
}

/* ---- the ancestors ---- */

uint64_t chain_bytes_within(const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	if (offset >= disk->size_bytes)
		return 0;
	return disk->size_bytes - offset < bytes ? disk->size_bytes - offset : bytes;
}

void check_chain(const struct disk *disk)
{
	const struct disk *ancestor = disk->parent;

	assert(!disk->parent || disk->is_child);
	for (unsigned n = 0; n < disk->chain.ancestors; n++, ancestor = ancestor->parent)
		assert(ancestor && ancestor == disk->chain.ancestor[n]);
	assert(!ancestor);
	for (uint64_t n = 0; n < disk->chain.granules; n++)
		assert(disk->chain.silent[n] <= disk->chain.ancestors + 1);
}

void chain_detach(struct disk *disk)
{
	free(disk->chain.ancestor);
	free(disk->chain.silent);
	disk->chain = (struct chain){ .ancestors = 0 };
}

int chain_attach(struct disk *disk)
{
	struct chain chain = { .granule_bytes = GRANULE_MIN_BYTES };

	chain_detach(disk);
	for (const struct disk *ancestor = disk->parent; ancestor; ancestor = ancestor->parent)
		chain.ancestors++;
	if (!chain.ancestors)
		return 0;
	if (disk->block_bytes > chain.granule_bytes)
		chain.granule_bytes = disk->block_bytes;
	while (disk->parent->size_bytes / chain.granule_bytes >= GRANULES_MAX)
		chain.granule_bytes *= 2;
	chain.granules = (disk->parent->size_bytes + chain.granule_bytes - 1) / chain.granule_bytes;
	chain.ancestor = calloc(chain.ancestors, sizeof(struct disk *));
	chain.silent = calloc(chain.granules, sizeof(*chain.silent));
	if (!chain.ancestor || !chain.silent) {
		free(chain.ancestor);
		free(chain.silent);
		return -ENOMEM;
	}
	chain.ancestors = 0;
	for (struct disk *ancestor = disk->parent; ancestor; ancestor = ancestor->parent)
		chain.ancestor[chain.ancestors++] = ancestor;
	disk->chain = chain;
	CHECK(check_chain(disk));
	return 0;
}

/* What an ancestor says about a whole range: the one thing that it is, or that it has to be asked
 * for each part. */
static enum disk_range_kind kind_of_whole(struct disk *ancestor, uint64_t offset, uint64_t bytes)
{
	struct disk_range range;

	if (chain_bytes_within(ancestor, offset, bytes) < bytes ||
	    disk_range(ancestor, offset, bytes, &range))
		return DISK_RANGE_PRESENT; /* a read goes there, and says what is wrong */
	return range.bytes < bytes ? DISK_RANGE_PRESENT : range.kind;
}

/*
 * The nearest ancestor that says something about a granule; `ancestors`: none but zeros. Links
 * whose content has to be verified are, on the way there.
 */
static int find_speaker(struct disk *disk, uint64_t granule, unsigned *ret)
{
	struct chain *chain = &disk->chain;
	uint64_t offset = granule * chain->granule_bytes;
	uint64_t bytes = chain_bytes_within(disk, offset, chain->granule_bytes);
	struct disk *child = disk;
	unsigned at = 0;

	for (; at < chain->ancestors; child = chain->ancestor[at++]) {
		enum disk_range_kind kind;
		int error = child->link
				    ? link_verify(child->link, chain->ancestor[at], offset, bytes)
				    : 0;

		if (error)
			return error;
		kind = kind_of_whole(chain->ancestor[at], offset, bytes);
		if (kind == DISK_RANGE_PRESENT)
			break;
		if (kind == DISK_RANGE_ZERO) {
			at = chain->ancestors;
			break;
		}
	}
	*ret = at;
	return 0;
}

/* The same, remembered. *ret NULL: nobody. */
static int speaker_at(struct disk *disk, uint64_t offset, struct disk **ret)
{
	struct chain *chain = &disk->chain;
	uint64_t granule = chain->granules ? offset / chain->granule_bytes : 0;
	unsigned known;
	int error;

	*ret = NULL;
	if (granule >= chain->granules)
		return 0;
	known = __atomic_load_n(&chain->silent[granule], __ATOMIC_RELAXED);
	if (!known) {
		error = find_speaker(disk, granule, &known);
		if (error)
			return error;
		known++;
		__atomic_store_n(&chain->silent[granule], (uint16_t)known, __ATOMIC_RELAXED);
	}
	*ret = known <= chain->ancestors ? chain->ancestor[known - 1] : NULL;
	return 0;
}

int chain_anybody_has(struct disk *disk, uint64_t offset, bool *ret)
{
	struct disk *speaker;
	int error = speaker_at(disk, offset, &speaker);

	*ret = speaker != NULL;
	return error;
}

/* ---- reading ---- */

static int read_ancestors(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
			  uint64_t bytes)
{
	int error = 0;

	for (uint64_t done = 0, part; done < bytes && !error; done += part) {
		struct disk_buffer rest = buffer_after(buffer, done);
		uint64_t at = offset + done;
		uint64_t there = 0;
		struct disk *speaker;

		part = bytes - done;
		if (disk->chain.granules &&
		    part > disk->chain.granule_bytes - at % disk->chain.granule_bytes)
			part = disk->chain.granule_bytes - at % disk->chain.granule_bytes;
		error = speaker_at(disk, at, &speaker);
		if (!error && speaker)
			there = chain_bytes_within(speaker, at, part);
		if (there)
			error = chain_read(speaker, at, &rest, there);
		rest = buffer_after(&rest, there);
		if (!error)
			buffer_zero(&rest, part - there);
	}
	return error;
}

int chain_fall_through(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		       const struct disk_range *range)
{
	switch (range->kind) {
	case DISK_RANGE_PRESENT: return 0;
	case DISK_RANGE_ZERO: buffer_zero(buffer, range->bytes); return 0;
	case DISK_RANGE_ABSENT: return read_ancestors(disk, offset, buffer, range->bytes);
	}
	assert(false);
	return -EINVAL;
}

int chain_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer, uint64_t bytes)
{
	struct disk_range range = { .bytes = 0 };

	for (uint64_t done = 0; done < bytes; done += range.bytes) {
		const struct disk_buffer rest = buffer_after(buffer, done);
		int error = own_read(disk, offset + done, &rest, bytes - done, &range);

		if (!error)
			error = chain_fall_through(disk, offset + done, &rest, &range);
		if (error)
			return error;
	}
	return 0;
}

/* ---- requests ---- */

int disk_check_request(const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	if ((offset | bytes) & (disk->sector_bytes - 1) || disk->items_only)
		return -EINVAL;
	return offset > disk->size_bytes || bytes > disk->size_bytes - offset ? -ENOSPC : 0;
}

int disk_may_write(const struct disk *disk)
{
	return disk->write && (!disk->only_shrinks || disk->driver->zero)
		       ? file_failed(&disk->file)
		       : -EROFS;
}

int disk_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, int count)
{
	const struct disk_buffer buffer = buffer_of(iov, count);
	int error = disk_check_request(disk, offset, buffer.end);

	return error || !buffer.end ? error : chain_read(disk, offset, &buffer, buffer.end);
}

int disk_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, int count)
{
	const struct disk_buffer buffer = buffer_of(iov, count);
	int error = disk_may_write(disk);

	if (!error)
		error = disk_check_request(disk, offset, buffer.end);
	if (error || !buffer.end)
		return error;
	digest_touch(disk, offset, buffer.end);
	for (uint64_t done = 0, part; done < buffer.end && !error; done += part) {
		const struct disk_buffer rest = buffer_after(&buffer, done);

		part = bytes_in_block(disk, offset + done, buffer.end - done);
		error = own_write(disk, offset + done, &rest, part);
	}
	digest_written(disk, offset, buffer.end);
	return error;
}

int disk_zero(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	int error = disk_may_write(disk);

	if (!error)
		error = disk_check_request(disk, offset, bytes);
	if (error || !bytes)
		return error;
	digest_touch(disk, offset, bytes);
	for (uint64_t done = 0, part; done < bytes && !error; done += part) {
		part = bytes_in_block(disk, offset + done, bytes - done);
		error = own_zero(disk, offset + done, part);
	}
	digest_written(disk, offset, bytes);
	return error;
}

/* A parent that was the disk until a moment ago may still have something to flush. */
int disk_flush(struct disk *disk)
{
	int error = disk->parent && disk->parent->write ? disk_flush(disk->parent) : 0;

	if (error || !disk->write)
		return error;
	error = file_failed(&disk->file);
	if (!error)
		error = disk->driver->flush(disk);
	assert(error <= 0);
	return error;
}

int disk_resize(struct disk *disk, uint64_t size_bytes)
{
	int error = disk_may_write(disk);

	if (!error && (!size_bytes || size_bytes & (disk->sector_bytes - 1)))
		error = -EINVAL;
	if (error)
		return error;
	digest_touch_from(disk, size_bytes < disk->size_bytes ? size_bytes : disk->size_bytes);
	return disk->driver->resize(disk, size_bytes);
}

int disk_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	int error = bytes ? disk_check_request(disk, offset, bytes) : -EINVAL;
	struct disk_range next;

	if (!error)
		error = own_range(disk, offset, bytes, ret);
	if (error)
		return error;
	while (ret->bytes < bytes) {
		error = own_range(disk, offset + ret->bytes, bytes - ret->bytes, &next);
		if (error) /* what was found is right; the next who asks gets the error */
			return 0;
		if (next.kind != ret->kind)
			break;
		ret->bytes += next.bytes;
	}
	return 0;
}
