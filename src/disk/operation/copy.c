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

static void part_done(struct disk_request *r, int error)
{
	struct part *p = r->context;

	p->chunk->under_way--;
	if (error && !p->chunk->copy->error)
		p->chunk->copy->error = error;
}

static void part_submit(struct chunk *c, unsigned n, uint64_t offset, size_t from, size_t bytes)
{
	struct part *p = &c->part[n];

	p->chunk = c;
	p->iov = (struct iovec){ c->bytes + from, bytes };
	p->request = (struct disk_request){ .kind = DISK_WRITE,
					    .offset = offset + from,
					    .iov = &p->iov,
					    .count = 1,
					    .done = part_done,
					    .context = p };
	c->under_way++;
	disk_queue_submit(c->copy->queue, &p->request);
}

/* Pieces that are not zero, together where they follow each other. */
static void write_chunk(struct chunk *c, uint64_t offset, size_t bytes)
{
	unsigned parts = 0;

	for (size_t at = 0, end; at < bytes; at = end) {
		size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;

		end = at + piece;
		if (is_zero(c->bytes + at, piece))
			continue;
		while (end < bytes &&
		       !is_zero(c->bytes + end,
				bytes - end < PIECE_BYTES ? bytes - end : PIECE_BYTES))
			end += bytes - end < PIECE_BYTES ? bytes - end : PIECE_BYTES;
		part_submit(c, parts++, offset, at, end - at);
	}
	disk_queue_kick(c->copy->queue);
}

static struct chunk *free_chunk(struct copy *c)
{
	for (;;) {
		for (unsigned n = 0; n < CHUNKS; n++)
			if (!c->chunk[n].under_way)
				return &c->chunk[n];
		disk_queue_wait(c->queue);
	}
}

static int copy_range(struct copy *c, uint64_t at, uint64_t *bytes)
{
	struct chunk *chunk;
	struct disk_range range;
	int error = disk_range(c->from, at, *bytes, &range);

	if (error)
		return disk_fail(c->why, error, c->from->path, "at offset %lu: %s", at,
				 disk_strerror(error));
	*bytes = range.bytes;
	if (range.kind == DISK_RANGE_ZERO) {
		digest_stream_add(c->digests, NULL, *bytes);
		return 0;
	}
	*bytes = *bytes < CHUNK_BYTES ? *bytes : CHUNK_BYTES;
	chunk = free_chunk(c);
	error = disk_read(c->from, at, chunk->bytes, *bytes);
	if (error)
		return disk_fail(c->why, error, c->from->path, "at offset %lu: %s", at,
				 disk_strerror(error));
	digest_stream_add(c->digests, chunk->bytes, *bytes);
	write_chunk(chunk, at, *bytes);
	return c->error;
}

static int copy_begin(struct copy *c)
{
	uint8_t *memory = aligned_alloc(ALIGNMENT, CHUNKS * (size_t)CHUNK_BYTES);
	int error = memory ? disk_queue_open(
				     c->to, &(struct disk_queue_options){ .depth = CHUNKS * PARTS },
				     &c->queue)
			   : -ENOMEM;

	if (!error)
		error = digest_stream_begin(c->to, &c->digests);
	for (unsigned n = 0; n < CHUNKS; n++)
		c->chunk[n] =
			(struct chunk){ .copy = c,
					.bytes = memory ? memory + n * (size_t)CHUNK_BYTES : NULL };
	return error;
}

int disk_copy(struct disk *from, struct disk *to, const struct disk_job *job,
	      struct disk_error *error)
{
	struct copy c = { .from = from, .to = to, .why = error };
	int result = 0;

	*error = (struct disk_error){ "" };
	if (!to->write || to->size_bytes != from->size_bytes)
		return disk_fail(error, -EINVAL, to->path,
				 "cannot be written, or has another size");
	result = copy_begin(&c);
	for (uint64_t at = 0, n; at < from->size_bytes && !result; at += n) {
		n = from->size_bytes - at;
		result = job_step(job, at, from->size_bytes);
		if (!result)
			result = copy_range(&c, at, &n);
	}
	if (c.queue)
		disk_queue_close(c.queue);
	if (!result)
		result = c.error;
	if (!result)
		result = digest_stream_end(c.digests, to);
	digest_stream_free(c.digests);
	free(c.chunk[0].bytes);
	return result && !error->text[0]
		       ? disk_fail(error, result, to->path, "%s", disk_strerror(result))
		       : result;
}
