/*
 * See deflate.h. qcow2's deflate is zlib's, with a window of 4 KiB: QEMU unpacks it with no larger
 * one. Whole zlib streams are libdeflate's, where it was there when this was built.
 */
#include "deflate.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#if DISK_LIBDEFLATE
#include <libdeflate.h>
#endif

enum { WINDOW_DEFLATE = -12, WINDOW_ZLIB = 15, MEMORY_LEVEL = 9, LEVEL = 6 };

struct packer {
	enum compression compression;
	z_stream stream;
	bool has_stream;
	ZSTD_CCtx *zstd;
#if DISK_LIBDEFLATE
	struct libdeflate_compressor *deflate;
#endif
};

static int create_stream(struct packer *packer)
{
	int window = packer->compression == COMPRESSION_DEFLATE ? WINDOW_DEFLATE : WINDOW_ZLIB;

	packer->has_stream = deflateInit2(&packer->stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
					  window, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK;
	return packer->has_stream ? 0 : -ENOMEM;
}

static int create_own(struct packer *packer)
{
	if (packer->compression == COMPRESSION_ZSTD) {
		packer->zstd = ZSTD_createCCtx();
		return packer->zstd ? 0 : -ENOMEM;
	}
#if DISK_LIBDEFLATE
	if (packer->compression == COMPRESSION_ZLIB) {
		packer->deflate = libdeflate_alloc_compressor(LEVEL);
		return packer->deflate ? 0 : -ENOMEM;
	}
#endif
	return create_stream(packer);
}

int packer_create(enum compression compression, struct packer **ret)
{
	struct packer *packer = calloc(1, sizeof(*packer));
	int error;

	if (!packer)
		return -ENOMEM;
	packer->compression = compression;
	error = create_own(packer);
	if (error)
		free(packer);
	else
		*ret = packer;
	return error;
}

static size_t pack_stream(struct packer *packer, const uint8_t *from, size_t bytes, uint8_t *to,
			  size_t room)
{
	z_stream *stream = &packer->stream;

	deflateReset(stream);
	stream->next_in = (Bytef *)(uintptr_t)from;
	stream->avail_in = (uInt)bytes;
	stream->next_out = to;
	stream->avail_out = (uInt)room;
	return deflate(stream, Z_FINISH) == Z_STREAM_END ? room - stream->avail_out : 0;
}

size_t packer_pack(struct packer *packer, const uint8_t *from, size_t bytes, uint8_t *to,
		   size_t room)
{
	size_t packed;

	if (packer->has_stream)
		return pack_stream(packer, from, bytes, to, room);
#if DISK_LIBDEFLATE
	if (packer->deflate)
		return libdeflate_zlib_compress(packer->deflate, from, bytes, to, room);
#endif
	packed = ZSTD_compressCCtx(packer->zstd, to, room, from, bytes, ZSTD_CLEVEL_DEFAULT);
	return ZSTD_isError(packed) ? 0 : packed;
}

void packer_destroy(struct packer *packer)
{
	if (!packer)
		return;
	if (packer->has_stream)
		deflateEnd(&packer->stream);
	ZSTD_freeCCtx(packer->zstd);
#if DISK_LIBDEFLATE
	libdeflate_free_compressor(packer->deflate);
#endif
	free(packer);
}
