/* See archive.h. */
#include "archive.h"

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

void archive_bytes(struct archive *a, void *value, size_t bytes)
{
	if (a->error)
		return;
	if (bytes > a->bytes - a->used) {
		a->error = a->loading ? -EBADMSG : -ENOBUFS;
		return;
	}
	if (a->loading)
		memcpy(value, a->data + a->used, bytes);
	else
		memcpy(a->data + a->used, value, bytes);
	a->used += bytes;
}

void archive_u8(struct archive *a, uint8_t *value) { archive_bytes(a, value, 1); }
void archive_u16(struct archive *a, uint16_t *value) { archive_bytes(a, value, 2); }
void archive_u32(struct archive *a, uint32_t *value) { archive_bytes(a, value, 4); }
void archive_u64(struct archive *a, uint64_t *value) { archive_bytes(a, value, 8); }
void archive_u32s(struct archive *a, uint32_t *values, size_t count)
{
	archive_bytes(a, values, 4 * count);
}
void archive_u64s(struct archive *a, uint64_t *values, size_t count)
{
	archive_bytes(a, values, 8 * count);
}

void archive_bool(struct archive *a, bool *value)
{
	uint8_t byte = a->loading ? 0 : *value;

	archive_u8(a, &byte);
	if (a->loading && archive_check(a, byte <= 1))
		*value = byte;
}

void archive_fail(struct archive *a, int error, const char *reason)
{
	if (!a->error) {
		a->error = error;
		a->reason = reason;
	}
}

bool archive_check(struct archive *a, bool condition)
{
	if (a->loading && !condition)
		archive_fail(a, -EBADMSG, NULL);
	return !a->error;
}

bool archive_check_end(struct archive *a) { return archive_check(a, a->used == a->bytes); }
