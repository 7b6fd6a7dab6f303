/*
 * The content of a disk into a new one of any format: read ahead by a queue, so that what has to be
 * unpacked is by several threads; taken in order by the caller; written by a queue beside it. What
 * is zero is not written. Digests of the new disk are made on the way, of the bytes that go to it,
 * so that they are not read back for it.
 *
 *   source -> its queue -> chunk, in order: digested -> its parts that are not zero -> the target's
 *   queue -> chunk free
 *
 * Chunks are used round and round: `taken` to `asked` - 1 are being read, or are and wait for their
 * turn; those before are being written, or free.
 */
#include <stdlib.h>
#include <string.h>

#include "disk/digest.h"
#include "disk/queue.h"

enum { CHUNKS = 16, CHUNKS_PLAIN = 4, PIECE_BYTES = 64 << 10, PARTS = 16, ALIGNMENT = 4096 };
#define CHUNK_BYTES (1u << 20)
_Static_assert(PARTS * PIECE_BYTES == CHUNK_BYTES, "every piece may be a part of its own");

struct copy;
struct part { struct disk_request request; struct iovec iov; struct chunk *chunk; };
struct chunk {
	struct copy *copy;
	uint8_t *memory;
	uint64_t offset, bytes; /* of the disk: more than its memory has room for only of zeros */
	bool is_zero, is_read;
	int error; /* of its reading */
	struct disk_request read;
	struct iovec iov;
	unsigned under_way; /* parts that are being written */
	struct part part[PARTS];
};

struct copy {
	struct disk *from, *to;
	struct disk_queue *source, *target;
	struct digest_stream *digests; /* NULL: the target keeps none */
	struct disk_error *why;
	struct chunk chunk[CHUNKS];
	unsigned chunks; /* that are used */
	uint64_t asked, taken; /* chunks */
	uint64_t asked_bytes;
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
	part->iov = (struct iovec){ chunk->memory + from, bytes };
	part->request = (struct disk_request){ .kind = DISK_WRITE,
					       .offset = offset + from,
					       .iov = &part->iov,
					       .count = 1,
					       .done = part_done,
					       .context = part };
	chunk->under_way++;
	disk_queue_submit(chunk->copy->target, &part->request);
}

/* Pieces that are not zero, together where they follow each other. */
static void write_chunk(struct chunk *chunk)
{
	unsigned parts = 0;

	for (size_t at = 0, end; at < chunk->bytes; at = end) {
		size_t piece = chunk->bytes - at < PIECE_BYTES ? chunk->bytes - at : PIECE_BYTES;

		end = at + piece;
		if (is_zero(chunk->memory + at, piece))
			continue;
		while (end < chunk->bytes) {
			piece = chunk->bytes - end < PIECE_BYTES ? chunk->bytes - end : PIECE_BYTES;
			if (is_zero(chunk->memory + end, piece))
				break;
			end += piece;
		}
		part_submit(chunk, parts++, chunk->offset, at, end - at);
	}
	disk_queue_kick(chunk->copy->target);
}

static void read_done(struct disk_request *request, int error)
{
	struct chunk *chunk = request->context;

	chunk->error = error;
	chunk->is_read = true;
}

static void read_submit(struct chunk *chunk)
{
	chunk->iov = (struct iovec){ chunk->memory, chunk->bytes };
	chunk->read = (struct disk_request){ .kind = DISK_READ,
					     .offset = chunk->offset,
					     .iov = &chunk->iov,
					     .count = 1,
					     .done = read_done,
					     .context = chunk };
	disk_queue_submit(chunk->copy->source, &chunk->read);
	disk_queue_kick(chunk->copy->source);
}

/* How far zeros go that need not be read; 0: they do not fill a chunk of `most`. */
static uint64_t zeros_from(struct disk *from, uint64_t offset, uint64_t most, uint64_t left)
{
	struct disk_range range = { .bytes = 0 };
	uint64_t hole = 0;

	/* how far data goes does not matter, and is dear to know */
	if (!disk_range(from, offset, most, &range) && range.kind == DISK_RANGE_ZERO &&
	    range.bytes == most && !disk_range(from, offset, left, &range))
		return range.bytes;
	if (from->driver->hole)
		hole = from->driver->hole(from, offset, left);
	if (hole < left)
		hole -= hole % CHUNK_BYTES;
	return hole;
}

/* The next chunk: zeros as far as they go, or what there is room for. */
static void ask_for(struct copy *copy, struct chunk *chunk)
{
	uint64_t left = copy->from->size_bytes - copy->asked_bytes;
	uint64_t most = left < CHUNK_BYTES ? left : CHUNK_BYTES;
	uint64_t zeros = zeros_from(copy->from, copy->asked_bytes, most, left);

	*chunk = (struct chunk){ .copy = copy,
				 .memory = chunk->memory,
				 .offset = copy->asked_bytes,
				 .bytes = most };
	if (zeros) {
		chunk->bytes = zeros;
		chunk->is_zero = chunk->is_read = true;
	} else {
		read_submit(chunk);
	}
	copy->asked_bytes += chunk->bytes;
	copy->asked++;
}

static void read_ahead(struct copy *copy)
{
	while (copy->asked - copy->taken < copy->chunks &&
	       copy->asked_bytes < copy->from->size_bytes) {
		struct chunk *chunk = &copy->chunk[copy->asked % copy->chunks];

		if (chunk->under_way && copy->asked > copy->taken)
			disk_queue_poll(copy->target);
		if (chunk->under_way && copy->asked > copy->taken)
			return; /* there is something else to do meanwhile */
		while (chunk->under_way)
			disk_queue_wait(copy->target);
		ask_for(copy, chunk);
	}
}

/* Where in a chunk it is that cannot be read. */
static uint64_t find_fault(const struct chunk *chunk)
{
	struct disk *from = chunk->copy->from;
	uint64_t at = 0;

	while (at < chunk->bytes && !disk_read(from, chunk->offset + at, chunk->memory + at,
					       from->sector_bytes))
		at += from->sector_bytes;
	return chunk->offset + at;
}

static int take_next(struct copy *copy)
{
	struct chunk *chunk = &copy->chunk[copy->taken % copy->chunks];

	assert(copy->taken < copy->asked);
	while (!chunk->is_read)
		disk_queue_wait(copy->source);
	copy->taken++;
	if (chunk->error)
		return disk_explain(copy->from, find_fault(chunk), chunk->error, copy->why);
	digest_stream_add(copy->digests, chunk->is_zero ? NULL : chunk->memory, chunk->bytes);
	if (!chunk->is_zero)
		write_chunk(chunk);
	return copy->error;
}

/* What goes into the host's cache is copied there under a lock of its file: by one thread, which
 * does not wait for others. */
static struct disk_queue_options target_options(const struct copy *copy)
{
	bool direct = copy->to->file.direct;

	return (struct disk_queue_options){ .depth = CHUNKS * PARTS,
					    .threads = direct ? 0 : 1,
					    .no_ring = !direct };
}

static int copy_begin(struct copy *copy)
{
	struct disk_queue_options options = target_options(copy);
	uint8_t *memory;
	int error;

	/* what is only read, and not unpacked, is better still in the processor's cache when it is
	 * written */
	copy->chunks = copy->from->driver->map && !copy->to->file.direct ? CHUNKS_PLAIN : CHUNKS;
	memory = aligned_alloc(ALIGNMENT, copy->chunks * (size_t)CHUNK_BYTES);
	error = memory ? 0 : -ENOMEM;
	for (unsigned n = 0; n < copy->chunks; n++)
		copy->chunk[n].memory = memory ? memory + n * (size_t)CHUNK_BYTES : NULL;
	if (!error)
		error = disk_queue_open(copy->to, &options, &copy->target);
	if (!error)
		error = disk_queue_open(copy->from, &(struct disk_queue_options){ .depth = CHUNKS },
					&copy->source);
	return error ? error : digest_stream_begin(copy->to, &copy->digests);
}

static int copy_all(struct copy *copy, const struct disk_job *job)
{
	uint64_t all = copy->from->size_bytes;
	int result = 0;

	for (uint64_t done = 0; done < all && !result;) {
		result = job_step(job, done, all);
		if (result)
			break;
		read_ahead(copy);
		done += copy->chunk[copy->taken % copy->chunks].bytes;
		result = take_next(copy);
	}
	return result;
}

static void copy_end(struct copy *copy)
{
	if (copy->source)
		disk_queue_close(copy->source);
	if (copy->target)
		disk_queue_close(copy->target);
}

int disk_copy(struct disk *from, struct disk *to, const struct disk_job *job,
	      struct disk_error *error)
{
	struct copy copy = { .from = from, .to = to, .why = error };
	int result;

	*error = (struct disk_error){ .kind = REFUSAL_NONE };
	if (!to->write || to->size_bytes < from->size_bytes ||
	    (to->size_bytes > from->size_bytes && to->format_id != DISK_RAW))
		return disk_refuse(error, REFUSAL_COPY_TARGET, to->path, DISK_NOWHERE,
				   "cannot be written, or has another size");
	result = copy_begin(&copy);
	if (!result)
		result = copy_all(&copy, job);
	copy_end(&copy);
	if (!result)
		result = copy.error;
	if (!result)
		result = digest_stream_end(copy.digests, to);
	digest_stream_free(copy.digests);
	free(copy.chunk[0].memory);
	return result && !error->text[0] ? disk_refuse_host(error, result, to->path, "writing it")
					 : result;
}
