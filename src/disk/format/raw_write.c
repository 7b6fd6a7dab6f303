/* A disk's content, from its beginning to its end, into what cannot go back. */
#include "disk/disk_internal.h"
#include "pack.h"

enum { UNIT_BYTES = 1 << 20 };

static int write_zeros(struct disk_file *file, uint64_t at, uint64_t bytes)
{
	static const uint8_t zeros[UNIT_BYTES];
	int error = 0;

	for (uint64_t done = 0, part; done < bytes && !error; done += part) {
		part = bytes - done < UNIT_BYTES ? bytes - done : UNIT_BYTES;
		error = file_write(file, at + done, zeros, part);
	}
	return error;
}

static int write_unit(void *file, const struct pack_unit *unit)
{
	return unit->kind == PACK_SAME ? write_zeros(file, unit->offset, unit->bytes)
				       : file_write(file, unit->offset, unit->data, unit->bytes);
}

int raw_write_stream(const struct disk_conversion *conversion, struct disk_error *error)
{
	static const struct pack_options options = { .unit_bytes = UNIT_BYTES };

	return pack_each(conversion, &options, write_unit, conversion->file, error);
}
