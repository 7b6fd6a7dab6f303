/* See inflate.h: zlib and zstd, bounded by the room that there is. */
#include "inflate.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

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
	return by_zlib(compression == COMPRESSION_DEFLATE ? -12 : 15, packed, packed_bytes, to,
		       bytes);
}
