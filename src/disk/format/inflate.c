/*
 * See inflate.h: zlib and zstd, bounded by the room that there is. libdeflate, where it was there
 * when this was built, takes what is whole; what it refuses is zlib's, which also takes a stream
 * that has more than there is room for.
 */
#include "inflate.h"

#include <errno.h>
#include <stdbool.h>
#include <zlib.h>
#include <zstd.h>
#if DISK_LIBDEFLATE
#include <libdeflate.h>
#endif

static int by_zlib(int window_bits, const uint8_t *packed, size_t packed_bytes, uint8_t *to,
		   size_t bytes)
{
	z_stream stream = { .next_in = (Bytef *)(uintptr_t)packed,
			    .avail_in = (uInt)packed_bytes,
			    .next_out = to,
			    .avail_out = (uInt)bytes };

	if (inflateInit2(&stream, window_bits) != Z_OK)
		return -ENOMEM;
	inflate(&stream, Z_FINISH); /* the room may end before the data does */
	inflateEnd(&stream);
	return stream.avail_out ? -EBADMSG : 0;
}

#if DISK_LIBDEFLATE
static bool by_libdeflate(enum compression compression, const uint8_t *packed, size_t packed_bytes,
			  uint8_t *to, size_t bytes)
{
	struct libdeflate_decompressor *unpacker = libdeflate_alloc_decompressor();
	enum libdeflate_result result = LIBDEFLATE_BAD_DATA;
	size_t taken;
	size_t given = 0;

	if (unpacker && compression == COMPRESSION_DEFLATE)
		result = libdeflate_deflate_decompress_ex(unpacker, packed, packed_bytes, to, bytes,
							  &taken, &given);
	else if (unpacker)
		result = libdeflate_zlib_decompress_ex(unpacker, packed, packed_bytes, to, bytes,
						       &taken, &given);
	libdeflate_free_decompressor(unpacker);
	return result == LIBDEFLATE_SUCCESS && given == bytes;
}
#endif

static int by_zstd(const uint8_t *packed, size_t packed_bytes, uint8_t *to, size_t bytes)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	ZSTD_inBuffer in = { packed, packed_bytes, 0 };
	ZSTD_outBuffer out = { to, bytes, 0 };
	size_t before;
	size_t left = 1;

	if (!stream)
		return -ENOMEM;
	do {
		before = in.pos + out.pos;
		left = ZSTD_decompressStream(stream, &out, &in);
	} while (!ZSTD_isError(left) && left && out.pos < bytes && in.pos + out.pos > before);
	ZSTD_freeDStream(stream);
	return ZSTD_isError(left) || out.pos < bytes ? -EBADMSG : 0;
}

int inflate_bytes(enum compression compression, const uint8_t *packed, size_t packed_bytes,
		  uint8_t *to, size_t bytes)
{
	if (compression == COMPRESSION_ZSTD)
		return by_zstd(packed, packed_bytes, to, bytes);
#if DISK_LIBDEFLATE
	if (by_libdeflate(compression, packed, packed_bytes, to, bytes))
		return 0;
#endif
	return by_zlib(compression == COMPRESSION_DEFLATE ? -12 : 15, packed, packed_bytes, to,
		       bytes);
}
