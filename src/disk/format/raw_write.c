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

static int write_unit(const struct disk_conversion *of, const struct pack_unit *unit)
{
	return unit->kind == PACK_SAME
		       ? write_zeros(of->file, unit->offset, unit->bytes)
		       : file_write(of->file, unit->offset, unit->data, unit->bytes);
}

int raw_write_stream(const struct disk_conversion *conversion, struct disk_error *error)
{
	static const struct pack_options options = { .unit_bytes = UNIT_BYTES };
	struct pack_unit unit;
	struct pack *pack;
	int result = pack_begin(conversion->from, &options, &pack);
	int got = 1;

	if (result)
		return result;
	while (!result && got > 0) {
		got = pack_next(pack, &unit, error);
		if (got > 0)
			result = job_step(conversion->job, unit.offset,
					  conversion->from->size_bytes);
		if (!result && got > 0)
			result = write_unit(conversion, &unit);
	}
	pack_end(pack);
	return got < 0 ? got : result;
}
