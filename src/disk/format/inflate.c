/*
 * See inflate.h: zlib and zstd, bounded by the room that there is. libdeflate, where it was there
 * when this was built, takes what is whole; what it refuses is zlib's, which also takes a stream
 * that has more than there is room for.
 *
 * `lock` guards the list of contexts that nobody uses: at most KEPT, of whose memory each has two
 * units and a library's context.
 */
#include "inflate.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#if DISK_LIBDEFLATE
#include <libdeflate.h>
#endif

enum { KEPT = 16 };

struct context {
	struct context *next;
	uint8_t *packed, *unit;
	size_t packed_room;
	ZSTD_DCtx *zstd; /* NULL until it is needed */
#if DISK_LIBDEFLATE
	struct libdeflate_decompressor *deflate;
#endif
};

struct inflater {
	enum compression compression;
	uint32_t unit_bytes;
	pthread_mutex_t lock;
	struct context *kept;
	unsigned count;
};

/* ---- contexts ---- */

static void context_free(struct context *context)
{
	ZSTD_freeDCtx(context->zstd);
#if DISK_LIBDEFLATE
	libdeflate_free_decompressor(context->deflate);
#endif
	free(context->packed);
	free(context->unit);
	free(context);
}

static struct context *context_take(struct inflater *inflater)
{
	struct context *context;

	pthread_mutex_lock(&inflater->lock);
	context = inflater->kept;
	if (context) {
		inflater->kept = context->next;
		inflater->count--;
	}
	pthread_mutex_unlock(&inflater->lock);
	return context ? context : calloc(1, sizeof(*context));
}

static void context_give(struct inflater *inflater, struct context *context)
{
	bool keep;

	pthread_mutex_lock(&inflater->lock);
	keep = inflater->count < KEPT;
	if (keep) {
		context->next = inflater->kept;
		inflater->kept = context;
		inflater->count++;
	}
	pthread_mutex_unlock(&inflater->lock);
	if (!keep)
		context_free(context);
}

struct inflater *inflater_create(enum compression compression, uint32_t unit_bytes)
{
	struct inflater *inflater = calloc(1, sizeof(*inflater));

	assert(unit_bytes);
	if (!inflater)
		return NULL;
	inflater->compression = compression;
	inflater->unit_bytes = unit_bytes;
	pthread_mutex_init(&inflater->lock, NULL);
	return inflater;
}

void inflater_destroy(struct inflater *inflater)
{
	if (!inflater)
		return;
	while (inflater->kept) {
		struct context *next = inflater->kept->next;

		context_free(inflater->kept);
		inflater->kept = next;
	}
	pthread_mutex_destroy(&inflater->lock);
	free(inflater);
}

/* ---- unpacking ---- */

static int by_zlib(int window_bits, const uint8_t *packed, size_t packed_bytes, uint8_t *to,
		   size_t bytes)
{
	z_stream stream = { .next_in = (Bytef *)(uintptr_t)packed,
			    .avail_in = (uInt)packed_bytes,
			    .next_out = to,
			    .avail_out = (uInt)bytes };
	int status;

	if (inflateInit2(&stream, window_bits) != Z_OK)
		return -ENOMEM;
	/* the room may end before the data does; a sum that is wrong is found behind all of it */
	status = inflate(&stream, Z_FINISH);
	inflateEnd(&stream);
	return stream.avail_out || status == Z_DATA_ERROR ? -EBADMSG : 0;
}

#if DISK_LIBDEFLATE
static bool by_libdeflate(struct context *context, enum compression compression,
			  size_t packed_bytes, uint8_t *to, size_t bytes)
{
	enum libdeflate_result result = LIBDEFLATE_BAD_DATA;
	size_t taken;
	size_t given = 0;

	if (!context->deflate)
		context->deflate = libdeflate_alloc_decompressor();
	if (context->deflate && compression == COMPRESSION_DEFLATE)
		result = libdeflate_deflate_decompress_ex(context->deflate, context->packed,
							  packed_bytes, to, bytes, &taken, &given);
	else if (context->deflate)
		result = libdeflate_zlib_decompress_ex(context->deflate, context->packed,
						       packed_bytes, to, bytes, &taken, &given);
	return result == LIBDEFLATE_SUCCESS && given == bytes;
}
#endif

/* What has more than there is room for, too. */
static int by_zstd_stream(struct context *context, size_t packed_bytes, uint8_t *to, size_t bytes)
{
	ZSTD_inBuffer in = { context->packed, packed_bytes, 0 };
	ZSTD_outBuffer out = { to, bytes, 0 };
	size_t before;
	size_t left = 1;

	ZSTD_DCtx_reset(context->zstd, ZSTD_reset_session_only);
	do {
		before = in.pos + out.pos;
		left = ZSTD_decompressStream(context->zstd, &out, &in);
	} while (!ZSTD_isError(left) && left && out.pos < bytes && in.pos + out.pos > before);
	return ZSTD_isError(left) || out.pos < bytes ? -EBADMSG : 0;
}

/* A frame that is whole goes straight to its place, without the window that a stream has. */
static int by_zstd(struct context *context, size_t packed_bytes, uint8_t *to, size_t bytes)
{
	size_t frame = ZSTD_findFrameCompressedSize(context->packed, packed_bytes);

	if (!context->zstd)
		context->zstd = ZSTD_createDCtx();
	if (!context->zstd)
		return -ENOMEM;
	if (!ZSTD_isError(frame) &&
	    ZSTD_decompressDCtx(context->zstd, to, bytes, context->packed, frame) == bytes)
		return 0;
	return by_zstd_stream(context, packed_bytes, to, bytes);
}

static int unpack(struct context *context, enum compression compression, size_t packed_bytes,
		  uint8_t *to, size_t bytes)
{
	if (compression == COMPRESSION_ZSTD)
		return by_zstd(context, packed_bytes, to, bytes);
#if DISK_LIBDEFLATE
	if (by_libdeflate(context, compression, packed_bytes, to, bytes))
		return 0;
#endif
	return by_zlib(compression == COMPRESSION_DEFLATE ? -12 : 15, context->packed, packed_bytes,
		       to, bytes);
}

static int make_room(struct context *context, size_t packed_bytes)
{
	if (packed_bytes <= context->packed_room)
		return 0;
	free(context->packed);
	context->packed = malloc(packed_bytes);
	context->packed_room = context->packed ? packed_bytes : 0;
	return context->packed ? 0 : -ENOMEM;
}

int inflater_read(struct inflater *inflater, const struct disk_file *file,
		  const struct packed_unit *unit, const struct disk_buffer *buffer, uint32_t from,
		  uint64_t bytes)
{
	struct context *context = context_take(inflater);
	bool is_whole = !from && bytes == unit->bytes;
	uint8_t *to = is_whole ? buffer_together(buffer, bytes) : NULL;
	bool direct = to;
	int error = context ? make_room(context, unit->packed_bytes) : -ENOMEM;

	assert(unit->bytes && unit->bytes <= inflater->unit_bytes && from < unit->bytes &&
	       bytes <= unit->bytes - from);
	if (!error && !direct && !context->unit)
		context->unit = malloc(inflater->unit_bytes);
	if (!error && !direct)
		to = context->unit;
	if (!error && !to)
		error = -ENOMEM;
	if (!error)
		error = file_read(file, unit->at, context->packed, unit->packed_bytes);
	if (!error)
		error = unpack(context, inflater->compression, unit->packed_bytes, to, unit->bytes);
	if (!error && !direct)
		buffer_fill(buffer, to + from, bytes);
	if (context)
		context_give(inflater, context);
	return error;
}
