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
	const char *path;
	uint64_t bytes, file_bytes, directory_at, tables_at, tables, grains_at;
	uint64_t *directory; /* a table each */
};

static int check_head(const struct sesparse *sesparse, const struct head *head,
		      struct disk_error *error)
{
	if (le64toh(head->magic) != MAGIC || sesparse->file_bytes < sizeof(*head))
		return disk_refuse(error, REFUSAL_SESPARSE_MAGIC, sesparse->path, 0,
				   "%#lx, in a SESparse extent of %lu bytes", le64toh(head->magic),
				   sesparse->file_bytes);
	if (le64toh(head->version) != VERSION || le64toh(head->grain) != GRAIN_SECTORS ||
	    le64toh(head->table) != TABLE_SECTORS || head->flags)
		return disk_refuse(error, REFUSAL_SESPARSE_VERSION, sesparse->path,
				   offsetof(struct head, version),
				   "version %#lx, grains of %lu sectors, tables of %lu, flags %#lx",
				   le64toh(head->version), le64toh(head->grain),
				   le64toh(head->table), le64toh(head->flags));
	if (!head->capacity || le64toh(head->capacity) > MAX_SECTORS)
		return disk_refuse(error, REFUSAL_SESPARSE_SIZE, sesparse->path,
				   offsetof(struct head, capacity), "a size of %lu sectors",
				   le64toh(head->capacity));
	return 0;
}

static bool has_bytes(const struct sesparse *sesparse, uint64_t at, uint64_t bytes)
{
	return at <= sesparse->file_bytes && bytes <= sesparse->file_bytes - at;
}

static int check_volatile(const struct sesparse *sesparse, const struct disk_file *file,
			  const struct head *head, struct disk_error *error)
{
	uint64_t sector = le64toh(head->volatile_head.offset);
	uint64_t at = sector > MAX_SECTORS ? UINT64_MAX : sector * SECTOR_BYTES;
	struct volatile_head now = { .magic = 0 };
	int result = 0;

	if (has_bytes(sesparse, at, sizeof(now)))
		result = file_read(file, at, &now, sizeof(now));
	if (result)
		return disk_refuse_host(error, result, sesparse->path,
					"reading its volatile header");
	if (le64toh(now.magic) != VOLATILE_MAGIC)
		return disk_refuse(error, REFUSAL_SESPARSE_VOLATILE, sesparse->path,
				   offsetof(struct head, volatile_head),
				   "%#lx in sector %lu of a file of %lu bytes", le64toh(now.magic),
				   sector, sesparse->file_bytes);
	if (now.replay_journal)
		return disk_refuse(error, REFUSAL_SESPARSE_JOURNAL, sesparse->path,
				   at + offsetof(struct volatile_head, replay_journal),
				   "%lu: ESX has to replay its journal",
				   le64toh(now.replay_journal));
	return 0;
}

static int read_directory(struct sesparse *sesparse, const struct disk_file *file,
			  const struct head *head, struct disk_error *error)
{
	uint64_t covers = (uint64_t)TABLE_GRAINS * GRAIN_BYTES;
	uint64_t entries = (sesparse->bytes + covers - 1) / covers;
	uint64_t at = le64toh(head->directory.offset);
	int result;

	if (at > sesparse->file_bytes / SECTOR_BYTES ||
	    entries * 8 > sesparse->file_bytes - at * SECTOR_BYTES ||
	    le64toh(head->directory.sectors) < (entries * 8 + SECTOR_BYTES - 1) / SECTOR_BYTES)
		return disk_refuse(error, REFUSAL_SESPARSE_DIRECTORY, sesparse->path,
				   offsetof(struct head, directory),
				   "%lu sectors at sector %lu, for %lu tables, in a file of %lu "
				   "bytes",
				   le64toh(head->directory.sectors), at, entries,
				   sesparse->file_bytes);
	sesparse->directory_at = at * SECTOR_BYTES;
	sesparse->directory = malloc(entries * 8);
	result = sesparse->directory
			 ? file_read(file, at * SECTOR_BYTES, sesparse->directory, entries * 8)
			 : -ENOMEM;
	return result ? disk_refuse_host(error, result, sesparse->path, "reading its directory")
		      : 0;
}

static int read_head(struct sesparse *sesparse, const struct disk_file *file,
		     struct disk_error *error)
{
	int64_t bytes = file_size(file);
	struct head head;
	int result = bytes < 0 ? (int)bytes : file_read(file, 0, &head, sizeof(head));

	if (result)
		return disk_refuse_host(error, result, sesparse->path, "reading its header");
	sesparse->file_bytes = (uint64_t)bytes;
	result = check_head(sesparse, &head, error);
	if (!result)
		result = check_volatile(sesparse, file, &head, error);
	if (result)
		return result;
	if (le64toh(head.tables.offset) > MAX_SECTORS || le64toh(head.grains.offset) > MAX_SECTORS)
		return disk_refuse(error, REFUSAL_SESPARSE_PLACES, sesparse->path,
				   offsetof(struct head, tables),
				   "tables at sector %lu, grains at sector %lu",
				   le64toh(head.tables.offset), le64toh(head.grains.offset));
	sesparse->bytes = le64toh(head.capacity) * SECTOR_BYTES;
	sesparse->tables_at = le64toh(head.tables.offset) * SECTOR_BYTES;
	sesparse->tables = le64toh(head.tables.sectors) / TABLE_SECTORS;
	sesparse->grains_at = le64toh(head.grains.offset) * SECTOR_BYTES;
	return read_directory(sesparse, file, &head, error);
}

int sesparse_open(const struct disk_file *file, const char *path, struct sesparse **ret,
		  uint64_t *ret_bytes, struct disk_error *error)
{
	struct sesparse *sesparse = calloc(1, sizeof(*sesparse));
	int result;

	if (!sesparse)
		return disk_refuse_host(error, -ENOMEM, path, "opening it");
	sesparse->path = path;
	result = read_head(sesparse, file, error);
	if (result) {
		sesparse_close(sesparse);
		return result;
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

/* One grain, by its entry. The number of one that is there has its low 12 bits on top. */
static int grain_find(const struct sesparse *sesparse, uint64_t entry, struct sparse_run *ret)
{
	uint64_t number = (entry >> 48 & NUMBER_LOW) | (entry & 0xffffffffffffull) << 12;

	*ret = (struct sparse_run){ .kind = SPARSE_ZERO, .bytes = GRAIN_BYTES };
	switch (entry >> 60) {
	case ENTRY_NOTHING: ret->kind = SPARSE_SILENT; return entry ? -EBADMSG : 0;
	case ENTRY_UNMAPPED:
	case ENTRY_ZERO: return 0;
	case ENTRY_GRAIN: break;
	default: return -EBADMSG;
	}
	if (number > MAX_SECTORS / GRAIN_SECTORS)
		return -EBADMSG;
	ret->kind = SPARSE_DATA;
	ret->at = sesparse->grains_at + number * GRAIN_BYTES;
	return has_bytes(sesparse, ret->at, GRAIN_BYTES) ? 0 : -ENODATA;
}

static int grain_refuse(const struct sesparse *sesparse, int error, uint64_t entry,
			uint64_t entry_at, struct disk_error *why)
{
	if (error == -ENODATA)
		return disk_refuse(why, REFUSAL_SESPARSE_GRAIN_CUT, sesparse->path, entry_at,
				   "%#lx, a grain behind the %lu bytes of the file: cut off", entry,
				   sesparse->file_bytes);
	return disk_refuse(why, REFUSAL_SESPARSE_GRAIN, sesparse->path, entry_at, "%#lx: not sound",
			   entry);
}

/* As far as the next grains go on where the first one ends. entry_at: in the file. */
static int grains_find(const struct sesparse *sesparse, const uint64_t *entry, uint64_t entry_at,
		       uint64_t count, struct sparse_run *ret, struct disk_error *why)
{
	struct sparse_run next;
	int error = grain_find(sesparse, le64toh(entry[0]), ret);

	for (uint64_t n = 1; n < count && !error; n++) {
		if (grain_find(sesparse, le64toh(entry[n]), &next) || next.kind != ret->kind ||
		    (ret->kind == SPARSE_DATA && next.at != ret->at + ret->bytes))
			break;
		ret->bytes += GRAIN_BYTES;
	}
	return error ? grain_refuse(sesparse, error, le64toh(entry[0]), entry_at, why) : 0;
}

/* Table number `index`, of which the directory says `table`; from `at` in the file on. */
static int read_entries(const struct sesparse *sesparse, const struct disk_file *file,
			uint64_t index, uint64_t at, uint64_t *entry, uint64_t count,
			struct disk_error *why)
{
	const uint64_t table = le64toh(sesparse->directory[index]);
	const uint64_t by = sesparse->directory_at + index * sizeof(*sesparse->directory);
	int error;

	if (table >> 32 != 0x10000000u || (table & UINT32_MAX) >= sesparse->tables)
		return disk_refuse(why, REFUSAL_SESPARSE_TABLE, sesparse->path, by,
				   "%#lx, where there are %lu tables: not sound", table,
				   sesparse->tables);
	if (!has_bytes(sesparse, at, count * 8))
		return disk_refuse(why, REFUSAL_SESPARSE_TABLE_CUT, sesparse->path, by,
				   "a table up to offset %lu of a file of %lu bytes: cut off",
				   at + count * 8, sesparse->file_bytes);
	error = file_read(file, at, entry, count * 8);
	return error ? disk_refuse_host(why, error, sesparse->path, "reading a grain table") : 0;
}

int sesparse_find(const struct sesparse *sesparse, const struct disk_file *file, uint64_t offset,
		  uint64_t bytes, struct sparse_run *ret, struct disk_error *why)
{
	uint64_t in_grain = offset % GRAIN_BYTES;
	uint64_t first = offset / GRAIN_BYTES % TABLE_GRAINS;
	uint64_t table = le64toh(sesparse->directory[offset / GRAIN_BYTES / TABLE_GRAINS]);
	uint64_t at = sesparse->tables_at + (table & UINT32_MAX) * TABLE_SECTORS * SECTOR_BYTES +
		      first * 8;
	uint64_t count = (in_grain + bytes + GRAIN_BYTES - 1) / GRAIN_BYTES;
	uint64_t entry[ENTRIES_AT_ONCE];
	int error = 0;

	assert(offset < sesparse->bytes && bytes);
	*ret = (struct sparse_run){ .bytes = (TABLE_GRAINS - first) * GRAIN_BYTES };
	if (table) {
		if (count > TABLE_GRAINS - first)
			count = TABLE_GRAINS - first;
		if (count > ENTRIES_AT_ONCE)
			count = ENTRIES_AT_ONCE;
		error = read_entries(sesparse, file, offset / GRAIN_BYTES / TABLE_GRAINS, at, entry,
				     count, why);
		if (!error)
			error = grains_find(sesparse, entry, at, count, ret, why);
	}
	ret->at += in_grain;
	ret->bytes -= in_grain;
	if (ret->bytes > bytes)
		ret->bytes = bytes;
	return error;
}
