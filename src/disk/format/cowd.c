/*
 * See cowd.h. (VMware Virtual Disk Format 5.0, "ESX Server Sparse Extents".) Little-endian;
 * everything begins at a sector, and is counted in sectors.
 *
 *   head   directory: a table each 4096 grains   tables and grains, as they were needed
 *
 * A grain is any number of sectors. Of a table no more is read than is asked for, and nothing kept:
 * the directory alone is in memory, as long as the extent's size says, after the file was seen to
 * have it. Not looked at: the flag of ESX that it was not closed, which is of the free sector that
 * it notes, and the parent's name: the descriptor has it.
 */
#include "cowd.h"

#include <endian.h>
#include <stdlib.h>

enum {
	SECTOR_BYTES = 512,
	VERSION = 1,
	TABLE_GRAINS = 4096,
	GRAIN_SECTORS_MAX = 1 << 16,
	ENTRIES_AT_ONCE = 128,
	HEAD_SECTORS = 4
};

/* What is read of the head: names and numbers of generations follow. */
struct head {
	uint32_t magic, version, flags, sectors, grain, directory, entries, free_sector;
};

struct cowd {
	const char *path;
	uint64_t bytes, file_bytes, grain_bytes, directory_at;
	uint32_t *directory; /* a table each */
};

static uint64_t tables_of(const struct head *head)
{
	uint64_t covers = (uint64_t)le32toh(head->grain) * TABLE_GRAINS;

	return (le32toh(head->sectors) + covers - 1) / covers;
}

static int check_head(const struct cowd *cowd, const struct head *head, struct disk_error *error)
{
	uint32_t grain = le32toh(head->grain);

	if (le32toh(head->magic) != COWD_MAGIC || cowd->file_bytes < sizeof(*head))
		return disk_refuse(error, REFUSAL_COWD_MAGIC, cowd->path, 0,
				   "%#x, in a VMFSSPARSE extent of %lu bytes", le32toh(head->magic),
				   cowd->file_bytes);
	if (le32toh(head->version) != VERSION)
		return disk_refuse(error, REFUSAL_COWD_VERSION, cowd->path,
				   offsetof(struct head, version), "version %u",
				   le32toh(head->version));
	if (!head->sectors)
		return disk_refuse(error, REFUSAL_COWD_SIZE, cowd->path,
				   offsetof(struct head, sectors), "a size of 0 sectors");
	if (!grain || grain > GRAIN_SECTORS_MAX)
		return disk_refuse(error, REFUSAL_COWD_GRAIN, cowd->path,
				   offsetof(struct head, grain), "grains of %u sectors", grain);
	if (le32toh(head->entries) < tables_of(head))
		return disk_refuse(error, REFUSAL_COWD_ENTRIES, cowd->path,
				   offsetof(struct head, entries),
				   "a directory of %u tables, where its size needs %lu",
				   le32toh(head->entries), tables_of(head));
	return 0;
}

static int read_directory(struct cowd *cowd, const struct disk_file *file, const struct head *head,
			  struct disk_error *error)
{
	uint64_t at = (uint64_t)le32toh(head->directory) * SECTOR_BYTES;
	uint64_t bytes = tables_of(head) * sizeof(*cowd->directory);
	int result;

	if (at < HEAD_SECTORS * SECTOR_BYTES || at > cowd->file_bytes ||
	    bytes > cowd->file_bytes - at)
		return disk_refuse(error, REFUSAL_COWD_DIRECTORY, cowd->path,
				   offsetof(struct head, directory),
				   "a directory of %lu bytes at offset %lu of a file of %lu bytes",
				   bytes, at, cowd->file_bytes);
	cowd->directory_at = at;
	cowd->directory = malloc(bytes);
	result = cowd->directory ? file_read(file, at, cowd->directory, bytes) : -ENOMEM;
	return result ? disk_refuse_host(error, result, cowd->path, "reading its directory") : 0;
}

static int read_head(struct cowd *cowd, const struct disk_file *file, struct disk_error *error)
{
	int64_t bytes = file_size(file);
	struct head head;
	int result = bytes < 0 ? (int)bytes : file_read(file, 0, &head, sizeof(head));

	if (result)
		return disk_refuse_host(error, result, cowd->path, "reading its header");
	cowd->file_bytes = (uint64_t)bytes;
	result = check_head(cowd, &head, error);
	if (result)
		return result;
	cowd->bytes = (uint64_t)le32toh(head.sectors) * SECTOR_BYTES;
	cowd->grain_bytes = (uint64_t)le32toh(head.grain) * SECTOR_BYTES;
	return read_directory(cowd, file, &head, error);
}

int cowd_open(const struct disk_file *file, const char *path, struct cowd **ret,
	      uint64_t *ret_bytes, struct disk_error *error)
{
	struct cowd *cowd = calloc(1, sizeof(*cowd));
	int result;

	if (!cowd)
		return disk_refuse_host(error, -ENOMEM, path, "opening it");
	cowd->path = path;
	result = read_head(cowd, file, error);
	if (result) {
		cowd_close(cowd);
		return result;
	}
	*ret = cowd;
	*ret_bytes = cowd->bytes;
	return 0;
}

void cowd_close(struct cowd *cowd)
{
	if (!cowd)
		return;
	free(cowd->directory);
	free(cowd);
}

/* ---- where data is ---- */

static bool has_bytes(const struct cowd *cowd, uint64_t at, uint64_t bytes)
{
	return at <= cowd->file_bytes && bytes <= cowd->file_bytes - at;
}

/* The first grain, and those behind it that go on where it ends. The last one of the extent may be
 * cut. entry_at: in the file. */
static int grains_find(const struct cowd *cowd, const uint32_t *entry, uint64_t entry_at,
		       uint64_t count, uint64_t left, struct sparse_run *ret,
		       struct disk_error *why)
{
	uint64_t at = (uint64_t)le32toh(entry[0]) * SECTOR_BYTES;
	uint64_t n = 1;

	*ret = (struct sparse_run){ .kind = at ? SPARSE_DATA : SPARSE_SILENT, .at = at };
	while (n < count && (uint64_t)le32toh(entry[n]) * SECTOR_BYTES ==
				    (at ? at + n * cowd->grain_bytes : 0))
		n++;
	ret->bytes = n * cowd->grain_bytes < left ? n * cowd->grain_bytes : left;
	if (at && at < HEAD_SECTORS * SECTOR_BYTES)
		return disk_refuse(why, REFUSAL_COWD_GRAIN_ENTRY, cowd->path, entry_at,
				   "sector %u: not sound", le32toh(entry[0]));
	if (!at || has_bytes(cowd, at, ret->bytes))
		return 0;
	/* those that are there first */
	for (n = 0; has_bytes(cowd, at, (n + 1) * cowd->grain_bytes);)
		n++;
	ret->bytes = n * cowd->grain_bytes;
	return n ? 0
		 : disk_refuse(why, REFUSAL_COWD_GRAIN_CUT, cowd->path, entry_at,
			       "a grain at offset %lu of a file of %lu bytes: cut off", at,
			       cowd->file_bytes);
}

/* Of table number `index`, from `at` in the file on. */
static int read_entries(const struct cowd *cowd, const struct disk_file *file, uint64_t index,
			uint64_t at, uint32_t *entry, uint64_t count, struct disk_error *why)
{
	int error;

	if (!has_bytes(cowd, at, count * sizeof(*entry)))
		return disk_refuse(why, REFUSAL_COWD_TABLE_CUT, cowd->path,
				   cowd->directory_at + index * sizeof(*cowd->directory),
				   "a grain table up to offset %lu of a file of %lu bytes: cut off",
				   at + count * sizeof(*entry), cowd->file_bytes);
	error = file_read(file, at, entry, count * sizeof(*entry));
	return error ? disk_refuse_host(why, error, cowd->path, "reading a grain table") : 0;
}

int cowd_find(const struct cowd *cowd, const struct disk_file *file, uint64_t offset,
	      uint64_t bytes, struct sparse_run *ret, struct disk_error *why)
{
	uint64_t in_grain = offset % cowd->grain_bytes;
	uint64_t grain = offset / cowd->grain_bytes;
	uint64_t first = grain % TABLE_GRAINS;
	uint64_t table = le32toh(cowd->directory[grain / TABLE_GRAINS]);
	uint64_t entry_at = table * SECTOR_BYTES + first * sizeof(uint32_t);
	uint64_t count = (in_grain + bytes + cowd->grain_bytes - 1) / cowd->grain_bytes;
	uint32_t entry[ENTRIES_AT_ONCE];
	int error = 0;

	assert(offset < cowd->bytes && bytes && bytes <= cowd->bytes - offset);
	*ret = (struct sparse_run){ .bytes = (TABLE_GRAINS - first) * cowd->grain_bytes };
	if (table) {
		if (count > TABLE_GRAINS - first)
			count = TABLE_GRAINS - first;
		if (count > ENTRIES_AT_ONCE)
			count = ENTRIES_AT_ONCE;
		error = read_entries(cowd, file, grain / TABLE_GRAINS, entry_at, entry, count, why);
		if (!error)
			error = grains_find(cowd, entry, entry_at, count,
					    cowd->bytes - offset + in_grain, ret, why);
		if (error)
			return error;
	}
	ret->at += in_grain;
	ret->bytes -= in_grain;
	if (ret->bytes > bytes)
		ret->bytes = bytes;
	return 0;
}
