/*
 * See sesparse.h. The format is not published: this is what is known of it, and what differs from
 * that is refused. Little-endian; everything is counted in sectors but for grains, of 4 KiB.
 *
 *   head   volatile head   journal   directory: a table each 16 MiB   tables
 *   grains
 *
 * Of a table no more is read than is asked for, and nothing kept: the directory alone is in
 * memory, as long as the disk's size says, after the file was seen to have it.
 * Left out: a journal that has to be replayed.
 */
#include "sesparse.h"

#include <endian.h>
#include <stdlib.h>

enum {
	SECTOR_BYTES = 512,
	GRAIN_SECTORS = 8,
	GRAIN_BYTES = GRAIN_SECTORS * SECTOR_BYTES,
	TABLE_SECTORS = 64,
	TABLE_GRAINS = TABLE_SECTORS * SECTOR_BYTES / 8,
	ENTRIES_AT_ONCE = 64,
	NUMBER_LOW = (1 << 12) - 1 /* of an entry, above the rest of the number */
};
#define MAGIC 0xcafebabeull
#define VOLATILE_MAGIC 0xcafecafeull
#define VERSION 0x0000000200000001ull
#define MAX_SECTORS ((64ull << 40) / SECTOR_BYTES)

struct place {
	uint64_t offset, sectors;
};
struct head {
	uint64_t magic, version, capacity, grain, table, flags, reserved[4];
	struct place volatile_head, journal_head, journal, directory, tables, free_bitmap, back_map,
		grains;
	uint8_t padding[304];
};
_Static_assert(sizeof(struct head) == SECTOR_BYTES, "a sector");
struct volatile_head {
	uint64_t magic, free_table, next_transaction, replay_journal;
};

/* Of an entry the highest four bits: what it is of; of a table they are 1, and the low 32 bits its
 * number. */
enum { ENTRY_NOTHING, ENTRY_UNMAPPED, ENTRY_ZERO, ENTRY_GRAIN };

struct sesparse {
	uint64_t bytes, file_bytes, tables_at, tables, grains_at;
	uint64_t *directory; /* a table each */
};

static int wrong(const char **ret_what, int error, const char *what)
{
	*ret_what = what;
	return error;
}

static int check_head(const struct head *head, const char **ret_what)
{
	if (le64toh(head->magic) != MAGIC)
		return wrong(ret_what, -EBADMSG,
			     "a SESparse extent that does not begin as one (magic cafebabe)");
	if (le64toh(head->version) != VERSION || le64toh(head->grain) != GRAIN_SECTORS ||
	    le64toh(head->table) != TABLE_SECTORS || head->flags)
		return wrong(ret_what, -ENOTSUP,
			     "a SESparse extent of another version (known: 2.1, grains of 8 "
			     "sectors, tables of 64, no flags)");
	if (!head->capacity || le64toh(head->capacity) > MAX_SECTORS)
		return wrong(ret_what, -EBADMSG,
			     "a SESparse extent whose size (offset 16) is not possible");
	return 0;
}

static int check_volatile(const struct disk_file *file, const struct head *head,
			  const char **ret_what)
{
	uint64_t at = le64toh(head->volatile_head.offset);
	struct volatile_head now;
	int error =
		at > MAX_SECTORS ? -EBADMSG : file_read(file, at * SECTOR_BYTES, &now, sizeof(now));

	if (error || le64toh(now.magic) != VOLATILE_MAGIC)
		return wrong(ret_what, error ? error : -EBADMSG,
			     "a SESparse extent without its second head (magic cafecafe)");
	if (now.replay_journal)
		return wrong(
			ret_what, -ENOTSUP,
			"a SESparse extent that was not closed: ESX has to replay its journal");
	return 0;
}

static int read_directory(struct sesparse *sesparse, const struct disk_file *file,
			  const struct head *head, const char **ret_what)
{
	uint64_t covers = (uint64_t)TABLE_GRAINS * GRAIN_BYTES;
	uint64_t entries = (sesparse->bytes + covers - 1) / covers;
	uint64_t at = le64toh(head->directory.offset);
	int error;

	if (at > sesparse->file_bytes / SECTOR_BYTES ||
	    entries * 8 > sesparse->file_bytes - at * SECTOR_BYTES ||
	    le64toh(head->directory.sectors) < (entries * 8 + SECTOR_BYTES - 1) / SECTOR_BYTES)
		return wrong(ret_what, -ENODATA,
			     "a SESparse extent whose directory (offset 128) is not in the file");
	sesparse->directory = malloc(entries * 8);
	error = sesparse->directory
			? file_read(file, at * SECTOR_BYTES, sesparse->directory, entries * 8)
			: -ENOMEM;
	return error ? wrong(ret_what, error, "the directory of a SESparse extent cannot be read")
		     : 0;
}

static int read_head(struct sesparse *sesparse, const struct disk_file *file, const char **ret_what)
{
	int64_t bytes = file_size(file);
	struct head head;
	int error = bytes < 0 ? (int)bytes : file_read(file, 0, &head, sizeof(head));

	if (error)
		return wrong(ret_what, error, "a SESparse extent cannot be read");
	error = check_head(&head, ret_what);
	if (!error)
		error = check_volatile(file, &head, ret_what);
	if (error)
		return error;
	if (le64toh(head.tables.offset) > MAX_SECTORS || le64toh(head.grains.offset) > MAX_SECTORS)
		return wrong(ret_what, -EBADMSG,
			     "a SESparse extent whose tables or grains (offsets 144, 192) are not "
			     "in the file");
	sesparse->bytes = le64toh(head.capacity) * SECTOR_BYTES;
	sesparse->file_bytes = (uint64_t)bytes;
	sesparse->tables_at = le64toh(head.tables.offset) * SECTOR_BYTES;
	sesparse->tables = le64toh(head.tables.sectors) / TABLE_SECTORS;
	sesparse->grains_at = le64toh(head.grains.offset) * SECTOR_BYTES;
	return read_directory(sesparse, file, &head, ret_what);
}

int sesparse_open(const struct disk_file *file, struct sesparse **ret, uint64_t *ret_bytes,
		  const char **ret_what)
{
	struct sesparse *sesparse = calloc(1, sizeof(*sesparse));
	int error = sesparse ? read_head(sesparse, file, ret_what)
			     : wrong(ret_what, -ENOMEM, "no memory");

	if (error) {
		sesparse_close(sesparse);
		return error;
	}
	*ret = sesparse;
	*ret_bytes = sesparse->bytes;
	return 0;
}

void sesparse_close(struct sesparse *sesparse)
{
	if (!sesparse)
		return;
	free(sesparse->directory);
	free(sesparse);
}

/* ---- where data is ---- */

static bool has_bytes(const struct sesparse *sesparse, uint64_t at, uint64_t bytes)
{
	return at <= sesparse->file_bytes && bytes <= sesparse->file_bytes - at;
}

/* One grain, by its entry. The number of one that is there has its low 12 bits on top. */
static int grain_find(const struct sesparse *sesparse, uint64_t entry, struct sesparse_run *ret)
{
	uint64_t number = (entry >> 48 & NUMBER_LOW) | (entry & 0xffffffffffffull) << 12;

	*ret = (struct sesparse_run){ .kind = SESPARSE_ZERO, .bytes = GRAIN_BYTES };
	switch (entry >> 60) {
	case ENTRY_NOTHING: ret->kind = SESPARSE_SILENT; return entry ? -EBADMSG : 0;
	case ENTRY_UNMAPPED:
	case ENTRY_ZERO: return 0;
	case ENTRY_GRAIN: break;
	default: return -EBADMSG;
	}
	if (number > MAX_SECTORS / GRAIN_SECTORS)
		return -EBADMSG;
	ret->kind = SESPARSE_DATA;
	ret->at = sesparse->grains_at + number * GRAIN_BYTES;
	return has_bytes(sesparse, ret->at, GRAIN_BYTES) ? 0 : -ENODATA;
}

/* As far as the next grains go on where the first one ends. */
static int grains_find(const struct sesparse *sesparse, const uint64_t *entry, uint64_t count,
		       struct sesparse_run *ret)
{
	struct sesparse_run next;
	int error = grain_find(sesparse, le64toh(entry[0]), ret);

	for (uint64_t n = 1; n < count && !error; n++) {
		if (grain_find(sesparse, le64toh(entry[n]), &next) || next.kind != ret->kind ||
		    (ret->kind == SESPARSE_DATA && next.at != ret->at + ret->bytes))
			break;
		ret->bytes += GRAIN_BYTES;
	}
	return error;
}

static int read_entries(const struct sesparse *sesparse, const struct disk_file *file,
			uint64_t table, uint64_t first, uint64_t *entry, uint64_t count)
{
	uint64_t at = sesparse->tables_at + (table & UINT32_MAX) * TABLE_SECTORS * SECTOR_BYTES +
		      first * 8;

	if (table >> 32 != 0x10000000u || (table & UINT32_MAX) >= sesparse->tables)
		return -EBADMSG;
	return has_bytes(sesparse, at, count * 8) ? file_read(file, at, entry, count * 8)
						  : -ENODATA;
}

int sesparse_find(const struct sesparse *sesparse, const struct disk_file *file, uint64_t offset,
		  uint64_t bytes, struct sesparse_run *ret)
{
	uint64_t in_grain = offset % GRAIN_BYTES;
	uint64_t first = offset / GRAIN_BYTES % TABLE_GRAINS;
	uint64_t table = le64toh(sesparse->directory[offset / GRAIN_BYTES / TABLE_GRAINS]);
	uint64_t count = (in_grain + bytes + GRAIN_BYTES - 1) / GRAIN_BYTES;
	uint64_t entry[ENTRIES_AT_ONCE];
	int error = 0;

	assert(offset < sesparse->bytes && bytes);
	*ret = (struct sesparse_run){ .bytes = (TABLE_GRAINS - first) * GRAIN_BYTES };
	if (table) {
		if (count > TABLE_GRAINS - first)
			count = TABLE_GRAINS - first;
		if (count > ENTRIES_AT_ONCE)
			count = ENTRIES_AT_ONCE;
		error = read_entries(sesparse, file, table, first, entry, count);
		if (!error)
			error = grains_find(sesparse, entry, count, ret);
	}
	ret->at += in_grain;
	ret->bytes -= in_grain;
	if (ret->bytes > bytes)
		ret->bytes = bytes;
	return error;
}
