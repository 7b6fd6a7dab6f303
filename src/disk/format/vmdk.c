/*
 * VMDK files for reading: one sparse file (hosted), stream-optimised ones, and text descriptors
 * with flat or sparse extents beside them. (VMware Virtual Disk Format 5.0.)
 *
 *   descriptor, as text, in the file or a file of its own: extents in order, each a file that lies
 *   in the descriptor's directory sparse extent: header, directory of tables, tables of grains; 0:
 *   nothing, 1: zeros; grains may be compressed (zlib)
 *
 * Extents lie in the directory of the descriptor: by their plain name, ./NAME, or an absolute name
 * there. A delta's parent is found by the name that it gives (parentFileNameHint), and is the one
 * whose content identifier (CID) the delta names. Extents of the kinds SESPARSE and VMFSSPARSE:
 * sesparse.h, cowd.h. Left out: writing (vmdk_write.c).
 */
#include <ctype.h>
#include <endian.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmdk.h"
#include "disk/search.h"
#include "cowd.h"
#include "inflate.h"
#include "sesparse.h"

enum { EXTENTS_MAX = 65536, DESCRIPTOR_BYTES = 1 << 20, GRAIN_MAX = 2048, GRAIN_ZERO = 1 };
#define GRAINS_MAX (64ull << 20) /* of all extents: what their tables need of memory */
#define MAX_BYTES (64ull << 40)

struct extent {
	uint64_t start, bytes, offset; /* on the disk, and where it begins in its file */
	struct disk_file file;
	bool own_file, zero, sparse, compressed, zero_grains;
	struct inflater *inflater; /* of compressed ones */
	uint64_t grain_bytes, file_bytes;
	char *path; /* of own_file */
	/* of sparse ones: where each table is (a sector; 0: none), and the tables, each a sector
	 * for each of its grains */
	uint32_t *directory, **table;
	uint64_t grains, tables, directory_at;
	/* of ESX's sparse kinds; NULL: of another one */
	struct sesparse *sesparse;
	struct cowd *cowd;
};

struct vmdk {
	struct extent *extent;
	unsigned count;
	uint64_t grains;
	uint32_t content_id, parent_content_id;
	char *parent_name; /* NULL: it has none */
	uint64_t descriptor_at, parent_at; /* in the file; parent_at: of parentCID */
};

enum kind { SILENT, ZERO, DATA, COMPRESSED };
struct run {
	enum kind kind;
	int error; /* not 0: what is there cannot be known, or is not there */
	const struct extent *extent;
	uint64_t bytes, at, in_grain, grain_start;
};

static struct vmdk *vmdk_of(const struct disk *disk) { return disk->format; }

/* The file that it lies in. */
static const char *path_of(const struct disk *disk, const struct extent *extent)
{
	return extent->path ? extent->path : disk->path;
}

/* ---- reading ---- */

static bool is_of_esx(const struct extent *extent) { return extent->sesparse || extent->cowd; }

/* A grain's sector; 0: the file has nothing of it. */
static uint32_t grain_sector(const struct extent *extent, uint64_t grain)
{
	const uint32_t *table = extent->table[grain / VMDK_ENTRIES];

	return table ? le32toh(table[grain % VMDK_ENTRIES]) : 0;
}

/* Where in the file that sector is said; its table is there. */
static uint64_t grain_entry_at(const struct extent *extent, uint64_t grain)
{
	return (uint64_t)extent->directory[grain / VMDK_ENTRIES] * VMDK_SECTOR_BYTES +
	       grain % VMDK_ENTRIES * sizeof(uint32_t);
}

static void esx_run(const struct disk *disk, struct run *run, uint64_t in, uint64_t bytes,
		    struct disk_error *why)
{
	static const enum kind kinds[] = {
		[SPARSE_SILENT] = SILENT, [SPARSE_ZERO] = ZERO, [SPARSE_DATA] = DATA
	};
	struct sparse_run found;

	if (run->extent->cowd)
		run->error =
			cowd_find(run->extent->cowd, &run->extent->file, in, bytes, &found, why);
	else
		run->error = sesparse_find(run->extent->sesparse, &run->extent->file, in, bytes,
					   &found, why);
	run->kind = kinds[found.kind];
	if (run->kind == SILENT && !disk->is_child)
		run->kind = ZERO;
	run->bytes = found.bytes;
	run->at = found.at;
}

static struct run run_find(const struct disk *disk, uint64_t offset, uint64_t bytes,
			   struct disk_error *why)
{
	const struct vmdk *vmdk = vmdk_of(disk);
	struct run run = { .kind = DATA };
	unsigned first = 0;
	unsigned behind = vmdk->count;
	uint64_t in, grain;

	while (behind - first > 1) { /* the last one that begins at or before the offset */
		unsigned middle = first + (behind - first) / 2;

		if (vmdk->extent[middle].start <= offset)
			first = middle;
		else
			behind = middle;
	}
	run.extent = &vmdk->extent[first];
	in = offset - run.extent->start;
	run.bytes = run.extent->bytes - in;
	run.at = run.extent->offset + in;
	if (run.extent->zero)
		run.kind = ZERO;
	if (run.extent->sparse) {
		grain = in / run.extent->grain_bytes;
		run.in_grain = in % run.extent->grain_bytes;
		run.grain_start = in - run.in_grain;
		if (run.bytes > run.extent->grain_bytes - run.in_grain)
			run.bytes = run.extent->grain_bytes - run.in_grain;
		run.at = (uint64_t)grain_sector(run.extent, grain) * VMDK_SECTOR_BYTES;
		run.kind = run.extent->compressed ? COMPRESSED : DATA;
		if (!run.at)
			run.kind = disk->is_child ? SILENT : ZERO;
		else if (run.at == GRAIN_ZERO * VMDK_SECTOR_BYTES && run.extent->zero_grains)
			run.kind = ZERO;
		if (run.kind == DATA)
			run.at += run.in_grain;
	}
	if (run.bytes > bytes)
		run.bytes = bytes;
	if (is_of_esx(run.extent))
		esx_run(disk, &run, in, run.bytes, why);
	return run;
}

static int refuse_grain_cut(const struct disk *disk, const struct run *run, struct disk_error *why)
{
	return disk_refuse(why, REFUSAL_VMDK_GRAIN_CUT, path_of(disk, run->extent),
			   grain_entry_at(run->extent, run->grain_start / run->extent->grain_bytes),
			   "a grain at offset %lu of a file of %lu bytes: cut off",
			   run->at - (run->kind == DATA ? run->in_grain : 0),
			   run->extent->file_bytes);
}

/* How many packed bytes a grain has, behind its mark. */
static int read_mark(const struct disk *disk, const struct run *run, uint32_t *ret_bytes,
		     struct disk_error *why)
{
	const struct extent *extent = run->extent;
	const char *path = path_of(disk, extent);
	const uint64_t at = run->at + offsetof(struct vmdk_mark, bytes);
	struct vmdk_mark mark;
	int error;

	if (run->at + sizeof(mark) > extent->file_bytes)
		return refuse_grain_cut(disk, run, why);
	error = file_read(&extent->file, run->at, &mark, sizeof(mark));
	if (error)
		return disk_refuse_host(why, error, path, "reading a grain's mark");
	*ret_bytes = le32toh(mark.bytes);
	if (!*ret_bytes || *ret_bytes > 2 * extent->grain_bytes + VMDK_SECTOR_BYTES)
		return disk_refuse(why, REFUSAL_VMDK_MARKER, path, at,
				   "%u bytes, of grains of %lu: not sound", *ret_bytes,
				   extent->grain_bytes);
	if (run->at + sizeof(mark) + *ret_bytes > extent->file_bytes)
		return disk_refuse(why, REFUSAL_VMDK_MARKER_CUT, path, at,
				   "%u bytes at offset %lu of a file of %lu bytes: cut off",
				   *ret_bytes, run->at + sizeof(mark), extent->file_bytes);
	return 0;
}

/* A grain's number, its packed length, the packed bytes. */
static int read_compressed(const struct disk *disk, const struct run *run,
			   const struct disk_buffer *buffer)
{
	const struct extent *extent = run->extent;
	uint64_t whole;
	uint32_t bytes;
	int error = read_mark(disk, run, &bytes, NULL);

	if (error)
		return error;
	whole = run->extent->bytes - run->grain_start < extent->grain_bytes
			? run->extent->bytes - run->grain_start
			: extent->grain_bytes;
	/* the last one may be shorter */
	return inflater_read(extent->inflater, &extent->file,
			     &(struct packed_unit){ .at = run->at + sizeof(struct vmdk_mark),
						    .packed_bytes = bytes,
						    .bytes = (uint32_t)whole },
			     buffer, (uint32_t)run->in_grain, run->bytes);
}

static struct disk_range range_of(const struct run *run)
{
	static const enum disk_range_kind kinds[] = {
		[SILENT] = DISK_RANGE_ABSENT,
		[ZERO] = DISK_RANGE_ZERO,
		[DATA] = DISK_RANGE_PRESENT,
		[COMPRESSED] = DISK_RANGE_PRESENT,
	};

	return (struct disk_range){ .kind = kinds[run->kind], .bytes = run->bytes };
}

static int vmdk_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes, struct disk_range *ret)
{
	const struct run run = run_find(disk, offset, bytes, NULL);

	if (run.error)
		return run.error;
	*ret = range_of(&run);
	if (run.kind == DATA && run.at + run.bytes > run.extent->file_bytes)
		return -ENODATA;
	if (run.kind == DATA)
		return buffer_read(buffer, &run.extent->file, run.at, run.bytes);
	return run.kind == COMPRESSED ? read_compressed(disk, &run, buffer) : 0;
}

static int vmdk_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	const struct run run = run_find(disk, offset, bytes, NULL);

	if (!run.error)
		*ret = range_of(&run);
	return run.error;
}

static int vmdk_explain(struct disk *disk, uint64_t offset, struct disk_error *why)
{
	const struct run run = run_find(disk, offset, VMDK_SECTOR_BYTES, why);
	uint32_t bytes;
	int error = run.error;

	if (error)
		return error;
	if (run.kind == DATA && run.extent->sparse && run.at + run.bytes > run.extent->file_bytes)
		return refuse_grain_cut(disk, &run, why);
	if (run.kind != COMPRESSED)
		return 0;
	error = read_mark(disk, &run, &bytes, why);
	return error ? error
		     : disk_refuse(why, REFUSAL_VMDK_PACKED, path_of(disk, run.extent),
				   run.at + sizeof(struct vmdk_mark),
				   "%u bytes that do not unpack to a grain: not sound", bytes);
}

/* The packed length of one that is compressed is looked at when it is read. */
static bool grain_is_there(const struct extent *extent, uint64_t grain)
{
	uint64_t at = (uint64_t)grain_sector(extent, grain) * VMDK_SECTOR_BYTES;
	uint64_t left = extent->bytes - grain * extent->grain_bytes;

	if (!at || (at == GRAIN_ZERO * VMDK_SECTOR_BYTES && extent->zero_grains))
		return true;
	if (extent->compressed)
		return at < extent->file_bytes;
	return at + (left < extent->grain_bytes ? left : extent->grain_bytes) <= extent->file_bytes;
}

static int check_esx(struct disk *disk, const struct extent *extent, struct disk_error *fault)
{
	struct run run = { .bytes = 0 };

	for (uint64_t at = 0; at < extent->bytes && !run.error; at += run.bytes)
		run = run_find(disk, extent->start + at, extent->bytes - at, fault);
	return run.error;
}

static int check_grains(const struct disk *disk, const struct extent *extent,
			struct disk_error *fault)
{
	struct run run = { .kind = DATA, .extent = extent };

	for (uint64_t grain = 0; grain < extent->grains; grain++) {
		if (grain_is_there(extent, grain))
			continue;
		run.grain_start = grain * extent->grain_bytes;
		run.at = (uint64_t)grain_sector(extent, grain) * VMDK_SECTOR_BYTES;
		return refuse_grain_cut(disk, &run, fault);
	}
	return 0;
}

static int vmdk_check(struct disk *disk, disk_fault_report *report, void *context)
{
	const struct vmdk *vmdk = vmdk_of(disk);
	struct disk_error fault;

	for (unsigned n = 0; n < vmdk->count; n++) {
		const struct extent *extent = &vmdk->extent[n];

		if (is_of_esx(extent) ? check_esx(disk, extent, &fault)
				      : check_grains(disk, extent, &fault)) {
			report(context, &fault);
			return 1;
		}
	}
	return 0;
}

static void vmdk_info(const struct disk *disk, struct disk_info *ret)
{
	*ret = (struct disk_info){ .format = DISK_VMDK,
				   .size_bytes = disk->size_bytes,
				   .logical_sector_bytes = VMDK_SECTOR_BYTES,
				   .physical_sector_bytes = VMDK_SECTOR_BYTES,
				   .has_parent = disk->is_child,
				   .is_linked = disk->parent };
}

static void extent_release(struct extent *extent)
{
	for (uint64_t n = 0; extent->table && n < extent->tables; n++)
		free(extent->table[n]);
	free(extent->table);
	free(extent->directory);
	sesparse_close(extent->sesparse);
	cowd_close(extent->cowd);
	inflater_destroy(extent->inflater);
	free(extent->path);
	if (extent->own_file)
		file_close(&extent->file);
}

static void vmdk_release(struct vmdk *vmdk)
{
	for (unsigned n = 0; n < vmdk->count; n++)
		extent_release(&vmdk->extent[n]);
	free(vmdk->extent);
	free(vmdk->parent_name);
	free(vmdk);
}

static int vmdk_close(struct disk *disk)
{
	vmdk_release(vmdk_of(disk));
	return 0;
}

static int vmdk_further_files(const struct disk *disk,
			      int (*report)(void *context, const struct file_stamp *stamp),
			      void *context)
{
	const struct vmdk *vmdk = vmdk_of(disk);
	struct file_stamp stamp;
	int result = 0;

	for (unsigned n = 0; n < vmdk->count && !result; n++) {
		if (!vmdk->extent[n].own_file)
			continue;
		file_stamp_take(&vmdk->extent[n].file, &stamp);
		result = report(context, &stamp);
	}
	return result;
}

static const struct disk_driver driver = {
	.read = vmdk_read,
	.range = vmdk_range,
	.explain = vmdk_explain,
	.check = vmdk_check,
	.info = vmdk_info,
	.further_files = vmdk_further_files,
	.close = vmdk_close,
};

/* ---- opening ---- */

static bool has_bytes(const struct extent *extent, uint64_t at, uint64_t bytes)
{
	return at <= extent->file_bytes && bytes <= extent->file_bytes - at;
}

static int read_one_table(const struct disk *disk, struct extent *extent, uint64_t n,
			  struct disk_error *error)
{
	const uint64_t at = (uint64_t)extent->directory[n] * VMDK_SECTOR_BYTES;
	const uint64_t bytes = VMDK_ENTRIES * sizeof(**extent->table);
	int result;

	if (!has_bytes(extent, at, bytes))
		return disk_refuse(error, REFUSAL_VMDK_TABLE, path_of(disk, extent),
				   extent->directory_at + n * sizeof(*extent->directory),
				   "a grain table at offset %lu of a file of %lu bytes", at,
				   extent->file_bytes);
	extent->table[n] = malloc(bytes);
	result = extent->table[n] ? file_read(&extent->file, at, extent->table[n], bytes) : -ENOMEM;
	return result ? disk_refuse_host(error, result, path_of(disk, extent),
					 "reading its grain tables")
		      : 0;
}

/* Only tables that are there need memory, and more of them than the file has room for cannot be. */
static int read_tables(const struct disk *disk, struct extent *extent, uint64_t grains,
		       struct disk_error *error)
{
	uint64_t room = extent->file_bytes / (VMDK_ENTRIES * sizeof(**extent->table));
	int result = 0;

	extent->grains = grains;
	extent->tables = (grains + VMDK_ENTRIES - 1) / VMDK_ENTRIES;
	extent->directory = calloc(extent->tables, sizeof(*extent->directory));
	extent->table = calloc(extent->tables, sizeof(*extent->table));
	if (!extent->directory || !extent->table)
		result = -ENOMEM;
	if (!result)
		result = file_read(&extent->file, extent->directory_at, extent->directory,
				   extent->tables * sizeof(*extent->directory));
	if (result)
		return disk_refuse_host(error, result, path_of(disk, extent),
					"reading its grain directory");
	for (uint64_t n = 0; n < extent->tables && !result; n++) {
		extent->directory[n] = le32toh(extent->directory[n]);
		if (!extent->directory[n])
			continue;
		if (!room--)
			return disk_refuse(
				error, REFUSAL_VMDK_TABLE, path_of(disk, extent),
				extent->directory_at + n * sizeof(*extent->directory),
				"more grain tables than a file of %lu bytes has room for",
				extent->file_bytes);
		result = read_one_table(disk, extent, n, error);
	}
	return result;
}

/* The head that counts, and where it is: of a file that was written in one pass, once more at the
 * end. */
static int read_head(const struct disk *disk, struct extent *extent, struct vmdk_head *head,
		     uint64_t *ret_at, struct disk_error *error)
{
	int64_t bytes = file_size(&extent->file);
	const char *path = path_of(disk, extent);
	uint64_t descriptor, sectors;

	*ret_at = 0;
	if (bytes < VMDK_SECTOR_BYTES || file_read(&extent->file, 0, head, sizeof(*head)) ||
	    le32toh(head->magic) != VMDK_MAGIC)
		return disk_refuse(error, REFUSAL_VMDK_MAGIC, path, 0,
				   "another start, of a file of %ld bytes", bytes);
	extent->file_bytes = (uint64_t)bytes;
	if (head->directory != UINT64_MAX)
		return 0;
	descriptor = head->descriptor;
	sectors = head->descriptor_sectors;
	if (extent->file_bytes >= 4 * VMDK_SECTOR_BYTES)
		*ret_at = extent->file_bytes / VMDK_SECTOR_BYTES * VMDK_SECTOR_BYTES -
			  2 * VMDK_SECTOR_BYTES;
	if (!*ret_at || file_read(&extent->file, *ret_at, head, sizeof(*head)) ||
	    le32toh(head->magic) != VMDK_MAGIC)
		return disk_refuse(error, REFUSAL_VMDK_FOOTER, path, *ret_at,
				   "no footer (KDMV): it was cut off");
	head->descriptor = descriptor;
	head->descriptor_sectors = sectors;
	return 0;
}

/* What the head says, which is at `at` in the file. */
static int check_head(const struct disk *disk, struct extent *extent, const struct vmdk_head *head,
		      uint64_t at, struct disk_error *error)
{
	const char *path = path_of(disk, extent);
	const uint64_t capacity = le64toh(head->capacity);
	const uint64_t grain = le64toh(head->grain);

	if (le32toh(head->version) < 1 || le32toh(head->version) > 3)
		return disk_refuse(error, REFUSAL_VMDK_VERSION, path,
				   at + offsetof(struct vmdk_head, version), "version %u",
				   le32toh(head->version));
	if (le32toh(head->entries) != VMDK_ENTRIES)
		return disk_refuse(error, REFUSAL_VMDK_TABLES, path,
				   at + offsetof(struct vmdk_head, entries), "tables of %u entries",
				   le32toh(head->entries));
	if (extent->compressed && le16toh(head->compression) != 1)
		return disk_refuse(error, REFUSAL_VMDK_COMPRESSION, path,
				   at + offsetof(struct vmdk_head, compression), "compression %u",
				   le16toh(head->compression));
	if (!capacity || capacity > MAX_BYTES / VMDK_SECTOR_BYTES)
		return disk_refuse(error, REFUSAL_VMDK_CAPACITY, path,
				   at + offsetof(struct vmdk_head, capacity),
				   "a size of %lu sectors", capacity);
	if (!grain || grain > GRAIN_MAX || grain & (grain - 1))
		return disk_refuse(error, REFUSAL_VMDK_GRAIN_SIZE, path,
				   at + offsetof(struct vmdk_head, grain), "grains of %lu sectors",
				   grain);
	extent->bytes = capacity * VMDK_SECTOR_BYTES;
	extent->grain_bytes = grain * VMDK_SECTOR_BYTES;
	return 0;
}

static int check_directory(struct disk *disk, struct extent *extent, const struct vmdk_head *head,
			   uint64_t head_at, uint64_t grains, struct disk_error *error)
{
	const uint64_t sector = le64toh(head->directory);
	const uint64_t bytes = (grains + VMDK_ENTRIES - 1) / VMDK_ENTRIES * sizeof(uint32_t);

	vmdk_of(disk)->grains += grains;
	if (vmdk_of(disk)->grains > GRAINS_MAX)
		return disk_refuse(error, REFUSAL_VMDK_GRAINS, path_of(disk, extent),
				   head_at + offsetof(struct vmdk_head, capacity), "%lu grains",
				   vmdk_of(disk)->grains);
	if (sector > extent->file_bytes / VMDK_SECTOR_BYTES ||
	    !has_bytes(extent, sector * VMDK_SECTOR_BYTES, bytes))
		return disk_refuse(error, REFUSAL_VMDK_DIRECTORY, path_of(disk, extent),
				   head_at + offsetof(struct vmdk_head, directory),
				   "a grain directory of %lu bytes at sector %lu of a file of %lu "
				   "bytes",
				   bytes, sector, extent->file_bytes);
	extent->directory_at = sector * VMDK_SECTOR_BYTES;
	return 0;
}

/* Fills what the file says; the disk's size comes from capacity. */
static int open_sparse(struct disk *disk, struct extent *extent, struct vmdk_head *head,
		       struct disk_error *error)
{
	uint64_t head_at, grains;
	int result = read_head(disk, extent, head, &head_at, error);

	if (result)
		return result;
	extent->sparse = true;
	extent->compressed = le32toh(head->flags) & VMDK_COMPRESSED;
	extent->zero_grains = le32toh(head->flags) & VMDK_ZERO_GRAINS;
	result = check_head(disk, extent, head, head_at, error);
	if (result)
		return result;
	if (extent->compressed)
		extent->inflater =
			inflater_create(COMPRESSION_ZLIB, (uint32_t)extent->grain_bytes);
	if (extent->compressed && !extent->inflater)
		return disk_refuse_host(error, -ENOMEM, path_of(disk, extent), "opening it");
	grains = (extent->bytes + extent->grain_bytes - 1) / extent->grain_bytes;
	result = check_directory(disk, extent, head, head_at, grains, error);
	return result ? result : read_tables(disk, extent, grains, error);
}

/* The plain name of a file in this directory; NULL: it is none. */
static const char *name_beside(const char *directory, const char *name)
{
	const char *last = strrchr(name, '/');

	if (last) {
		size_t length = (size_t)(last - name);
		char *place = strndup(name, length ? length : 1);
		char *resolved = NULL;
		char *here = realpath(directory, NULL);
		bool same;

		if (place && *name == '/')
			resolved = realpath(place, NULL);
		else if (place && !strcmp(place, "."))
			resolved = realpath(directory, NULL);
		same = resolved && here && !strcmp(resolved, here);
		free(place);
		free(resolved);
		free(here);
		if (!same)
			return NULL;
		name = last + 1;
	}
	return !*name || strchr(name, '\\') || name[0] == '.' ? NULL : name;
}

/* One line of a descriptor: where it is in the file, and what it says. */
struct line {
	uint64_t at, sectors, offset;
	const char *type, *name;
};

/* The extent's file, beside the descriptor. */
static int open_beside(struct disk *disk, const struct line *line, struct extent *extent,
		       struct disk_error *error)
{
	char *copy = strdup(disk->path);
	char *path = NULL;
	const char *directory, *name;
	int result;

	directory = copy ? dirname(copy) : NULL;
	name = directory ? name_beside(directory, line->name) : NULL;
	if (!name) {
		free(copy);
		return disk_refuse(error, REFUSAL_VMDK_NAME, disk->path, line->at,
				   "%.200s, an extent that is not a file beside it",
				   *line->name ? line->name : "(none)");
	}
	if (asprintf(&path, "%s/%s", directory, name) < 0)
		path = NULL;
	result = path ? disk_file_open(path, false, false, &extent->file) : -ENOMEM;
	extent->own_file = !result;
	extent->path = result ? NULL : path;
	if (!result && disk->in_use)
		disk_stamp_add(&extent->file, &disk->opened);
	if (result)
		disk_refuse_as(error, REFUSAL_VMDK_EXTENT_OPEN, result, disk->path, line->at,
			       "its extent %.100s: %s", name, strerror(-result));
	if (result)
		free(path);
	free(copy);
	return result;
}

/* Of an extent of which `bytes` are there. */
static int check_length(const struct disk *disk, const struct line *line, uint64_t bytes,
			struct disk_error *error)
{
	return bytes >= line->sectors * VMDK_SECTOR_BYTES
		       ? 0
		       : disk_refuse(error, REFUSAL_VMDK_EXTENT_SHORT, disk->path, line->at,
				     "its extent %.100s is shorter than is said of it: %lu bytes, "
				     "not %lu",
				     line->name, bytes, line->sectors * VMDK_SECTOR_BYTES);
}

static int open_of_esx(struct disk *disk, struct extent *extent, const struct line *line,
		       struct disk_error *error)
{
	uint64_t bytes = 0;
	int64_t file_bytes = file_size(&extent->file);
	int result = strcasecmp(line->type, "SESPARSE")
			     ? cowd_open(&extent->file, extent->path, &extent->cowd, &bytes, error)
			     : sesparse_open(&extent->file, extent->path, &extent->sesparse, &bytes,
					     error);

	if (result)
		return result;
	extent->file_bytes = file_bytes < 0 ? 0 : (uint64_t)file_bytes;
	return check_length(disk, line, bytes, error);
}

static int open_flat(struct disk *disk, struct extent *extent, const struct line *line,
		     struct disk_error *error)
{
	int64_t bytes = file_size(&extent->file);

	extent->file_bytes = bytes < 0 ? 0 : (uint64_t)bytes;
	extent->offset = line->offset <= MAX_BYTES / VMDK_SECTOR_BYTES
				 ? line->offset * VMDK_SECTOR_BYTES
				 : MAX_BYTES;
	return check_length(
		disk, line,
		extent->offset < extent->file_bytes ? extent->file_bytes - extent->offset : 0,
		error);
}

/* By its kind; what is in its file is there. */
static int open_extent(struct disk *disk, struct extent *extent, const struct line *line,
		       struct disk_error *error)
{
	struct vmdk_head head;
	int result;

	if (!strcasecmp(line->type, "SESPARSE") || !strcasecmp(line->type, "VMFSSPARSE"))
		return open_of_esx(disk, extent, line, error);
	/* the second: ESX's name for it */
	if (!strcasecmp(line->type, "FLAT") || !strcasecmp(line->type, "VMFS"))
		return open_flat(disk, extent, line, error);
	if (strcasecmp(line->type, "SPARSE"))
		return disk_refuse(error, REFUSAL_VMDK_KIND, disk->path, line->at,
				   "an extent of the kind %.20s", line->type);
	result = open_sparse(disk, extent, &head, error);
	return result ? result : check_length(disk, line, extent->bytes, error);
}

static int add_extent(struct disk *disk, const struct line *line, struct disk_error *error)
{
	struct vmdk *vmdk = vmdk_of(disk);
	struct extent *extent;
	int result = 0;

	if (vmdk->count == EXTENTS_MAX || !line->sectors ||
	    line->sectors > (MAX_BYTES - disk->size_bytes) / VMDK_SECTOR_BYTES)
		return disk_refuse(error, REFUSAL_VMDK_EXTENTS, disk->path, line->at,
				   "extent %u, of %lu sectors", vmdk->count + 1, line->sectors);
	extent = realloc(vmdk->extent, (vmdk->count + 1) * sizeof(*extent));
	if (!extent)
		return disk_refuse_host(error, -ENOMEM, disk->path, "reading its descriptor");
	vmdk->extent = extent;
	extent += vmdk->count;
	*extent = (struct extent){ .start = disk->size_bytes,
				   .zero = !strcasecmp(line->type, "ZERO") };
	if (!extent->zero)
		result = open_beside(disk, line, extent, error);
	vmdk->count += !result;
	if (!result && !extent->zero)
		result = open_extent(disk, extent, line, error);
	extent->bytes = line->sectors * VMDK_SECTOR_BYTES;
	disk->size_bytes += extent->bytes;
	return result;
}

static const char *value_of(const char *line, const char *key)
{
	size_t length = strlen(key);

	if (strncasecmp(line, key, length))
		return NULL;
	line += length + strspn(line + length, " \t");
	return *line == '=' ? line + 1 + strspn(line + 1, " \t\"") : NULL;
}

/* Whether a line says who this is, or who its parent. */
static bool read_link(struct vmdk *vmdk, const char *line, uint64_t at)
{
	const char *own = value_of(line, "CID");
	const char *parent = value_of(line, "parentCID");
	const char *name = value_of(line, "parentFileNameHint");

	if (own)
		vmdk->content_id = (uint32_t)strtoul(own, NULL, 16);
	if (parent) {
		vmdk->parent_content_id = (uint32_t)strtoul(parent, NULL, 16);
		vmdk->parent_at = at;
	}
	if (name && !vmdk->parent_name)
		vmdk->parent_name = strndup(name, strcspn(name, "\""));
	return own || parent || name;
}

/* The lines that matter; `at`: where it is in the file. */
static int read_line(struct disk *disk, char *line, uint64_t at, bool embedded,
		     struct disk_error *error)
{
	char access[16], type[20];
	char name[256] = "";
	unsigned long long sectors;
	unsigned long long offset = 0;

	while (isspace((unsigned char)*line)) {
		line++;
		at++;
	}
	if (read_link(vmdk_of(disk), line, at))
		return 0;
	if (embedded || (strncasecmp(line, "RW ", 3) && strncasecmp(line, "RDONLY ", 7) &&
			 strncasecmp(line, "NOACCESS ", 9)))
		return 0;
	if (sscanf(line, "%15s %llu %19s \"%255[^\"]\" %llu", access, &sectors, type, name,
		   &offset) < 3)
		return disk_refuse(error, REFUSAL_VMDK_LINE, disk->path, at,
				   "%.100s, which cannot be read", line);
	if (!strcasecmp(access, "NOACCESS") && strcasecmp(type, "ZERO"))
		return disk_refuse(error, REFUSAL_VMDK_ACCESS, disk->path, at,
				   "its extent %.100s may not be read (NOACCESS)", name);
	return add_extent(disk,
			  &(struct line){ .at = at,
					  .sectors = sectors,
					  .offset = offset,
					  .type = type,
					  .name = name },
			  error);
}

static int is_piece(const struct disk *disk, struct disk_error *error)
{
	return disk_refuse(error, REFUSAL_VMDK_PIECE, disk->path, 0, "is one piece of a disk");
}

static int read_descriptor(struct disk *disk, uint64_t at, uint64_t bytes, bool embedded,
			   struct disk_error *error)
{
	char *text, *next, *line;
	int result;

	if (bytes > DESCRIPTOR_BYTES)
		return disk_refuse(error, REFUSAL_VMDK_DESCRIPTOR_LARGE, disk->path, at,
				   "a descriptor of %lu bytes", bytes);
	text = malloc(bytes + 1);
	result = text ? file_read(&disk->file, at, text, bytes) : -ENOMEM;
	if (result) {
		free(text);
		return disk_refuse_host(error, result, disk->path, "reading its descriptor");
	}
	vmdk_of(disk)->descriptor_at = at;
	text[bytes] = 0;
	if (!embedded && strncmp(text, "# Disk DescriptorFile", 21))
		result = disk_refuse(error, REFUSAL_VMDK_BEGINS, disk->path, 0,
				     "neither a sparse VMDK file nor a descriptor");
	else if (embedded && !strstr(text, "CID=")) /* room for one, and nothing in it */
		result = is_piece(disk, error);
	for (next = text; !result && (line = strsep(&next, "\r\n"));)
		result = read_line(disk, line, at + (uint64_t)(line - text), embedded, error);
	free(text);
	return result;
}

static int read_embedded(struct disk *disk, const struct vmdk_head *head, uint64_t file_bytes,
			 struct disk_error *error)
{
	const uint64_t sector = le64toh(head->descriptor);
	const uint64_t sectors = le64toh(head->descriptor_sectors);
	uint64_t at, left;

	if (sector > file_bytes / VMDK_SECTOR_BYTES ||
	    sectors > DESCRIPTOR_BYTES / VMDK_SECTOR_BYTES)
		return disk_refuse(error, REFUSAL_VMDK_DESCRIPTOR_PLACE, disk->path,
				   offsetof(struct vmdk_head, descriptor),
				   "%lu sectors at sector %lu of a file of %lu bytes", sectors,
				   sector, file_bytes);
	at = sector * VMDK_SECTOR_BYTES;
	left = file_bytes - at;
	return read_descriptor(
		disk, at, left < sectors * VMDK_SECTOR_BYTES ? left : sectors * VMDK_SECTOR_BYTES,
		true, error);
}

static int open_all(struct disk *disk, struct disk_error *error)
{
	struct vmdk *vmdk = vmdk_of(disk);
	int64_t bytes = file_size(&disk->file);
	uint32_t magic = 0;
	struct vmdk_head head;
	int result;

	if (bytes < 0)
		return disk_refuse_type(error, (int)bytes, disk->path);
	result = file_read(&disk->file, 0, &magic, sizeof(magic));
	if (result)
		return disk_refuse_host(error, result, disk->path, "reading its start");
	if (le32toh(magic) == COWD_MAGIC) /* who its parent is, the descriptor says */
		return is_piece(disk, error);
	if (le32toh(magic) != VMDK_MAGIC)
		return read_descriptor(disk, 0, (uint64_t)bytes, false, error);
	vmdk->extent[0].file = disk->file;
	vmdk->count = 1;
	result = open_sparse(disk, &vmdk->extent[0], &head, error);
	disk->size_bytes = vmdk->extent[0].bytes;
	if (!result && !head.descriptor)
		result = is_piece(disk, error);
	return result ? result : read_embedded(disk, &head, (uint64_t)bytes, error);
}

static int check_parent(struct disk *child, struct disk *parent, struct disk_error *error)
{
	const struct vmdk *vmdk = vmdk_of(child);

	if (parent->format_id != DISK_VMDK)
		return disk_refuse(error, REFUSAL_VMDK_PARENT_FORMAT, child->path, DISK_NOWHERE,
				   "its parent %s is no VMDK file", parent->path);
	if (parent->size_bytes > child->size_bytes)
		return disk_refuse(error, REFUSAL_VMDK_PARENT_SIZE, child->path, DISK_NOWHERE,
				   "is smaller than its parent %s", parent->path);
	if (vmdk_of(parent)->content_id == vmdk->parent_content_id)
		return 0;
	return disk_refuse(error, REFUSAL_VMDK_PARENT_CID, child->path, vmdk->parent_at,
			   "its parent %s has changed since (CID %08x, not %08x)", parent->path,
			   vmdk_of(parent)->content_id, vmdk->parent_content_id);
}

static int open_parent(struct disk *disk, const struct disk_options *options,
		       struct disk_error *error)
{
	const char *name = vmdk_of(disk)->parent_name;
	struct parent_query query = { .format = DISK_VMDK, .name = name, .check = check_parent };
	int result = -ENOMEM;

	disk->is_child = true;
	if (!name || !*name)
		return disk_refuse(error, REFUSAL_VMDK_NO_PARENT_NAME, disk->path,
				   vmdk_of(disk)->parent_at, "does not name its parent");
	if (options->without_parents)
		return 0;
	query.path[0] = parent_host_path(disk->path, name, *name != '/');
	if (query.path[0])
		result = search_parent(disk, &query, options, error);
	else
		disk_refuse_host(error, result, disk->path, "opening its parent");
	free(query.path[0]);
	return result;
}

int vmdk_open(struct disk *disk, const struct disk_options *options, struct disk_error *error)
{
	struct vmdk *vmdk = calloc(1, sizeof(*vmdk));
	int result;

	if (vmdk)
		vmdk->parent_content_id = VMDK_NO_PARENT;
	if (vmdk)
		vmdk->extent = calloc(1, sizeof(*vmdk->extent));
	if (!vmdk || !vmdk->extent || disk->write) {
		result = vmdk && vmdk->extent
				 ? disk_refuse(error, REFUSAL_READ_ONLY_FORMAT, disk->path,
					       DISK_NOWHERE, "VMDK can only be read")
				 : disk_refuse_host(error, -ENOMEM, disk->path, "opening it");
		free(vmdk ? vmdk->extent : NULL);
		free(vmdk);
		return result;
	}
	disk->format = vmdk;
	disk->sector_bytes = VMDK_SECTOR_BYTES;
	result = open_all(disk, error);
	if (!result && !disk->size_bytes)
		result = disk_refuse(error, REFUSAL_VMDK_NO_EXTENTS, disk->path,
				     vmdk->descriptor_at, "has no extents");
	if (!result && vmdk->parent_content_id != VMDK_NO_PARENT)
		result = open_parent(disk, options, error);
	if (result) {
		vmdk_release(vmdk);
		return result;
	}
	disk->driver = &driver;
	return 0;
}
