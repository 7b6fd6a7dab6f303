/* See archive.h. */
#include "archive.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "numbers are stored as the host has them");

struct archive archive_save_to(void *data, size_t bytes)
{
	return (struct archive){ .data = data, .bytes = bytes };
}

struct archive archive_load_from(const void *data, size_t bytes)
{
	return (struct archive){ .loading = true,
				 .data = (uint8_t *)(uintptr_t)data,
				 .bytes = bytes };
}

void archive_bytes(struct archive *archive, void *value, size_t bytes)
{
	assert(archive->used <= archive->bytes && (value || !bytes));
	if (archive->error)
		return;
	if (bytes > archive->bytes - archive->used) {
		archive->error = archive->loading ? -EBADMSG : -ENOBUFS;
		return;
	}
	if (archive->loading)
		memcpy(value, archive->data + archive->used, bytes);
	else
		memcpy(archive->data + archive->used, value, bytes);
	archive->used += bytes;
}

void archive_u8(struct archive *archive, uint8_t *value) { archive_bytes(archive, value, 1); }
void archive_u16(struct archive *archive, uint16_t *value) { archive_bytes(archive, value, 2); }
void archive_u32(struct archive *archive, uint32_t *value) { archive_bytes(archive, value, 4); }
void archive_u64(struct archive *archive, uint64_t *value) { archive_bytes(archive, value, 8); }
void archive_u32s(struct archive *archive, uint32_t *values, size_t count)
{
	archive_bytes(archive, values, 4 * count);
}
void archive_u64s(struct archive *archive, uint64_t *values, size_t count)
{
	archive_bytes(archive, values, 8 * count);
}

void archive_bool(struct archive *archive, bool *value)
{
	uint8_t byte = archive->loading ? 0 : *value;

	archive_u8(archive, &byte);
	if (archive->loading && archive_check(archive, byte <= 1))
		*value = byte;
}

void archive_fail(struct archive *archive, int error, const char *reason)
{
	assert(error < 0);
	if (!archive->error) {
		archive->error = error;
		archive->reason = reason;
	}
}

bool archive_check(struct archive *archive, bool condition)
{
	if (archive->loading && !condition)
		archive_fail(archive, -EBADMSG, NULL);
	return !archive->error;
}

bool archive_check_end(struct archive *archive)
{
	return archive_check(archive, archive->used == archive->bytes);
}
