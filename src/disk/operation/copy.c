/*
 * The content of a disk into a new one of any format: read in order by the caller, written by a
 * queue beside it. What is zero is not written. Digests of the new disk are made on the way, of the
 * bytes that go to it, so that they are not read back for it.
 *
 *   source -> chunk, read and digested in order -> its parts that are not zero -> the target's
 *   queue -> chunk free
 */
#include <stdlib.h>
#include <string.h>

#include "disk/digest.h"
#include "disk/queue.h"

enum { CHUNKS = 8, PIECE_BYTES = 64 << 10, PARTS = 16, ALIGNMENT = 4096 };
#define CHUNK_BYTES (1u << 20)
_Static_assert(PARTS * PIECE_BYTES == CHUNK_BYTES, "every piece may be a part of its own");

struct copy;
struct part { struct disk_request request; struct iovec iov; struct chunk *chunk; };
struct chunk { struct copy *copy; uint8_t *bytes; unsigned under_way; struct part part[PARTS]; };

struct copy {
	struct disk *from, *to;
	struct disk_queue *queue;
	struct digest_stream *digests; /* NULL: the target keeps none */
	struct disk_error *why;
	struct chunk chunk[CHUNKS];
	int error;
};

static void part_done(struct disk_request *request, int error)
{
	struct part *part = request->context;

	part->chunk->under_way--;
	if (error && !part->chunk->copy->error)
		part->chunk->copy->error = error;
}

static void part_submit(struct chunk *chunk, unsigned n, uint64_t offset, size_t from, size_t bytes)
{
	struct part *part = &chunk->part[n];

	part->chunk = chunk;
	part->iov = (struct iovec){ chunk->bytes + from, bytes };
	part->request = (struct disk_request){ .kind = DISK_WRITE,
					       .offset = offset + from,
					       .iov = &part->iov,
					       .count = 1,
					       .done = part_done,
					       .context = part };
	chunk->under_way++;
	disk_queue_submit(chunk->copy->queue, &part->request);
}

/* Pieces that are not zero, together where they follow each other. */
static void write_chunk(struct chunk *chunk, uint64_t offset, size_t bytes)
{
	unsigned parts = 0;

	for (size_t at = 0, end; at < bytes; at = end) {
		size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;

		end = at + piece;
		if (is_zero(chunk->bytes + at, piece))
			continue;
		while (end < bytes &&
		       !is_zero(chunk->bytes + end,
				bytes - end < PIECE_BYTES ? bytes - end : PIECE_BYTES))
			end += bytes - end < PIECE_BYTES ? bytes - end : PIECE_BYTES;
		part_submit(chunk, parts++, offset, at, end - at);
	}
	disk_queue_kick(chunk->copy->queue);
}

static struct chunk *free_chunk(struct copy *copy)
{
	for (;;) {
		for (unsigned n = 0; n < CHUNKS; n++)
			if (!copy->chunk[n].under_way)
				return &copy->chunk[n];
		disk_queue_wait(copy->queue);
	}
}

static int copy_range(struct copy *copy, uint64_t at, uint64_t *bytes)
{
	struct chunk *chunk;
	struct disk_range range;
	int error = disk_range(copy->from, at, *bytes, &range);

	if (error)
		return disk_fail(copy->why, error, copy->from->path, "at offset %lu: %s", at,
				 disk_strerror(error));
	*bytes = range.bytes;
	if (range.kind == DISK_RANGE_ZERO) {
		digest_stream_add(copy->digests, NULL, *bytes);
		return 0;
	}
	*bytes = *bytes < CHUNK_BYTES ? *bytes : CHUNK_BYTES;
	chunk = free_chunk(copy);
	error = disk_read(copy->from, at, chunk->bytes, *bytes);
	if (error)
		return disk_fail(copy->why, error, copy->from->path, "at offset %lu: %s", at,
				 disk_strerror(error));
	digest_stream_add(copy->digests, chunk->bytes, *bytes);
	write_chunk(chunk, at, *bytes);
	return copy->error;
}

static int copy_begin(struct copy *copy)
{
	uint8_t *memory = aligned_alloc(ALIGNMENT, CHUNKS * (size_t)CHUNK_BYTES);
	int error =
		memory ? disk_queue_open(copy->to,
					 &(struct disk_queue_options){ .depth = CHUNKS * PARTS },
					 &copy->queue)
		       : -ENOMEM;

	if (!error)
		error = digest_stream_begin(copy->to, &copy->digests);
	for (unsigned n = 0; n < CHUNKS; n++)
		copy->chunk[n] =
			(struct chunk){ .copy = copy,
					.bytes = memory ? memory + n * (size_t)CHUNK_BYTES : NULL };
	return error;
}

int disk_copy(struct disk *from, struct disk *to, const struct disk_job *job,
	      struct disk_error *error)
{
	struct copy copy = { .from = from, .to = to, .why = error };
	int result = 0;

	*error = (struct disk_error){ "" };
	if (!to->write || to->size_bytes != from->size_bytes)
		return disk_fail(error, -EINVAL, to->path,
				 "cannot be written, or has another size");
	result = copy_begin(&copy);
	for (uint64_t at = 0, n; at < from->size_bytes && !result; at += n) {
		n = from->size_bytes - at;
		result = job_step(job, at, from->size_bytes);
		if (!result)
			result = copy_range(&copy, at, &n);
	}
	if (copy.queue)
		disk_queue_close(copy.queue);
	if (!result)
		result = copy.error;
	if (!result)
		result = digest_stream_end(copy.digests, to);
	digest_stream_free(copy.digests);
	free(copy.chunk[0].bytes);
	return result && !error->text[0]
		       ? disk_fail(error, result, to->path, "%s", disk_strerror(result))
		       : result;
}
