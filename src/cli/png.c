/* See png.h. */
#include "png.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { DEPTH_BITS = 8, TRUE_COLOUR = 2, PIXEL_BYTES = 3 };

static int put_chunk(FILE *file, const char name[5], const uint8_t *data, uint32_t bytes)
{
	const uint32_t length = htonl(bytes);
	const uLong named = crc32(0, (const Bytef *)name, 4);
	const uint32_t sum = htonl((uint32_t)(bytes ? crc32(named, data, bytes) : named));

	if (fwrite(&length, sizeof(length), 1, file) != 1 || fwrite(name, 4, 1, file) != 1 ||
	    (bytes && fwrite(data, bytes, 1, file) != 1) ||
	    fwrite(&sum, sizeof(sum), 1, file) != 1)
		return -EIO;
	return 0;
}

/* Each row behind the number of its filter, none. NULL: no memory. */
static uint8_t *rows_of(const uint8_t *pixels, size_t row_bytes, uint32_t height)
{
	uint8_t *rows = calloc(height, 1 + row_bytes);

	for (uint32_t y = 0; y < height && rows; y++)
		memcpy(rows + y * (1 + row_bytes) + 1, pixels + y * row_bytes, row_bytes);
	return rows;
}

static int put_pixels(FILE *file, const uint8_t *pixels, uint32_t width, uint32_t height)
{
	const size_t row_bytes = (size_t)PIXEL_BYTES * width;
	uint8_t *rows = rows_of(pixels, row_bytes, height);
	uLongf bytes = compressBound((1 + row_bytes) * height);
	uint8_t *packed = malloc(bytes);
	int error = -ENOMEM;

	if (rows && packed && compress(packed, &bytes, rows, (1 + row_bytes) * height) == Z_OK)
		error = put_chunk(file, "IDAT", packed, (uint32_t)bytes);
	free(rows);
	free(packed);
	return error;
}

int png_write(FILE *file, const uint8_t *pixels, uint32_t width, uint32_t height)
{
	static const uint8_t magic[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
	const uint32_t sides[2] = { htonl(width), htonl(height) };
	uint8_t head[13] = { [8] = DEPTH_BITS, [9] = TRUE_COLOUR };
	int error = fwrite(magic, sizeof(magic), 1, file) == 1 ? 0 : -EIO;

	memcpy(head, sides, sizeof(sides));
	if (!error)
		error = put_chunk(file, "IHDR", head, sizeof(head));
	if (!error)
		error = put_pixels(file, pixels, width, height);
	return error ? error : put_chunk(file, "IEND", NULL, 0);
}
