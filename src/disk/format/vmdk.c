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
 * whose content identifier (CID) the delta names. Extents of the kind SESPARSE: sesparse.h. Left
 * out: writing (vmdk_write.c), ESX's older sparse kind.
 */
#include <ctype.h>
#include <endian.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmdk.h"
#include "disk/search.h"
#include "inflate.h"
#include "sesparse.h"

enum { EXTENTS_MAX = 65536, DESCRIPTOR_BYTES = 1 << 20, GRAIN_MAX = 2048, GRAIN_ZERO = 1 };
#define GRAINS_MAX (64ull << 20) /* of all extents: what their tables need of memory */
#define MAX_BYTES (64ull << 40)

struct extent {
	uint64_t start, bytes, offset; /* on the disk, and where it begins in its file */
	struct disk_file file;
	bool own_file, zero, sparse, compressed, zero_grains;
	uint64_t grain_bytes, file_bytes;
	uint32_t *table;  /* a sector for each grain, all tables behind each other; NULL: flat */
	uint64_t grains;
	struct sesparse *sesparse; /* NULL: of another kind */
};

struct vmdk {
	struct extent *extent;
	unsigned count;
	uint64_t grains;
	uint32_t content_id, parent_content_id;
	char *parent_name; /* NULL: it has none */
};

enum kind { SILENT, ZERO, DATA, COMPRESSED };
struct run {
	enum kind kind;
	int error; /* not 0: what is there cannot be known, or is not there */
	const struct extent *extent;
	uint64_t bytes, at, in_grain, grain_start;
};

static struct vmdk *vmdk_of(const struct disk *disk) { return disk->format; }

static int unsound(const struct disk *disk, struct disk_error *error, const char *what)
{
	return disk_fail(error, -EBADMSG, disk->path, "%s", what);
}

/* ---- reading ---- */

static void sesparse_run(const struct disk *disk, struct run *run, uint64_t in, uint64_t bytes)
{
	static const enum kind kinds[] = {
		[SESPARSE_SILENT] = SILENT, [SESPARSE_ZERO] = ZERO, [SESPARSE_DATA] = DATA
	};
	struct sesparse_run found;

	run->error = sesparse_find(run->extent->sesparse, &run->extent->file, in, bytes, &found);
	run->kind = kinds[found.kind];
	if (run->kind == SILENT && !disk->is_child)
		run->kind = ZERO;
	run->bytes = found.bytes;
	run->at = found.at;
}

static struct run run_find(const struct disk *disk, uint64_t offset, uint64_t bytes)
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
		run.at = (uint64_t)run.extent->table[grain] * VMDK_SECTOR_BYTES;
		run.kind = run.extent->compressed ? COMPRESSED : DATA;
		if (!run.at)
			run.kind = disk->is_child ? SILENT : ZERO;
		else if (run.extent->table[grain] == GRAIN_ZERO && run.extent->zero_grains)
			run.kind = ZERO;
		if (run.kind == DATA)
			run.at += run.in_grain;
	}
	if (run.bytes > bytes)
		run.bytes = bytes;
	if (run.extent->sesparse)
		sesparse_run(disk, &run, in, run.bytes);
	return run;
}

/* A grain's number, its packed length, the packed bytes. */
static int read_compressed(const struct run *run, const struct disk_buffer *buffer)
{
	const struct extent *extent = run->extent;
	struct vmdk_mark mark;
	uint64_t whole;
	uint8_t *packed, *grain;
	uint32_t bytes;
	int error = run->at + sizeof(mark) > extent->file_bytes
			    ? -ENODATA
			    : file_read(&extent->file, run->at, &mark, sizeof(mark));

	bytes = le32toh(mark.bytes);
	if (error || !bytes || bytes > 2 * extent->grain_bytes + VMDK_SECTOR_BYTES)
		return error ? error : -EBADMSG;
	if (run->at + sizeof(mark) + bytes > extent->file_bytes)
		return -ENODATA;
	whole = run->extent->bytes - run->grain_start < extent->grain_bytes
			? run->extent->bytes - run->grain_start
			: extent->grain_bytes;
	packed = malloc(bytes);
	grain = malloc(extent->grain_bytes);
	error = packed && grain ? file_read(&extent->file, run->at + sizeof(mark), packed, bytes)
				: -ENOMEM;
	if (!error)
		/* the last one may be shorter */
		error = inflate_bytes(COMPRESSION_ZLIB, packed, bytes, grain, whole);
	if (!error)
		buffer_fill(buffer, grain + run->in_grain, run->bytes);
	free(packed);
	free(grain);
	return error;
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
	const struct run run = run_find(disk, offset, bytes);

	if (run.error)
		return run.error;
	*ret = range_of(&run);
	if (run.kind == DATA && run.at + run.bytes > run.extent->file_bytes)
		return -ENODATA;
	if (run.kind == DATA)
		return buffer_read(buffer, &run.extent->file, run.at, run.bytes);
	return run.kind == COMPRESSED ? read_compressed(&run, buffer) : 0;
}

static int vmdk_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	const struct run run = run_find(disk, offset, bytes);

	if (!run.error)
		*ret = range_of(&run);
	return run.error;
}

/* The packed length of one that is compressed is looked at when it is read. */
static bool grain_is_there(const struct extent *extent, uint64_t grain)
{
	uint64_t at = (uint64_t)extent->table[grain] * VMDK_SECTOR_BYTES;
	uint64_t left = extent->bytes - grain * extent->grain_bytes;

	if (!at || (extent->table[grain] == GRAIN_ZERO && extent->zero_grains))
		return true;
	if (extent->compressed)
		return at < extent->file_bytes;
	return at + (left < extent->grain_bytes ? left : extent->grain_bytes) <= extent->file_bytes;
}

/* 0, or where it is wrong in *ret_at. */
static int check_sesparse(struct disk *disk, const struct extent *extent, uint64_t *ret_at)
{
	struct run run = { .bytes = 0 };

	for (uint64_t at = 0; at < extent->bytes && !run.error; at += run.bytes) {
		run = run_find(disk, extent->start + at, extent->bytes - at);
		*ret_at = extent->start + at;
	}
	return run.error;
}

static int vmdk_check(struct disk *disk, void (*report)(void *, const char *), void *context)
{
	const struct vmdk *vmdk = vmdk_of(disk);
	char line[160];

	for (unsigned n = 0; n < vmdk->count; n++) {
		uint64_t at = 0;
		int error = vmdk->extent[n].sesparse
				    ? check_sesparse(disk, &vmdk->extent[n], &at)
				    : 0;

		if (error) {
			snprintf(line, sizeof(line), "at offset %lu: %s", at,
				 disk_strerror(error));
			report(context, line);
			return 1;
		}
		for (uint64_t grain = 0; grain < vmdk->extent[n].grains; grain++)
			if (!grain_is_there(&vmdk->extent[n], grain)) {
				snprintf(line, sizeof(line), "at offset %lu: %s",
					 vmdk->extent[n].start +
						 grain * vmdk->extent[n].grain_bytes,
					 disk_strerror(-ENODATA));
				report(context, line);
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

static void vmdk_release(struct vmdk *vmdk)
{
	for (unsigned n = 0; n < vmdk->count; n++) {
		free(vmdk->extent[n].table);
		sesparse_close(vmdk->extent[n].sesparse);
		if (vmdk->extent[n].own_file)
			file_close(&vmdk->extent[n].file);
	}
	free(vmdk->extent);
	free(vmdk->parent_name);
	free(vmdk);
}

static int vmdk_close(struct disk *disk)
{
	vmdk_release(vmdk_of(disk));
	return 0;
}

static int vmdk_further_files(const struct disk *disk, disk_file_report *report, void *context)
{
	const struct vmdk *vmdk = vmdk_of(disk);
	struct file_stamp stamp;
	int result = 0;

	for (unsigned n = 0; n < vmdk->count && !result; n++) {
		if (!vmdk->extent[n].own_file)
			continue;
		file_stamp_take(&vmdk->extent[n].file, &stamp);
		result = report(context, stamp.file_bytes, stamp.mtime_ns);
	}
	return result;
}

static const struct disk_driver driver = {
	.read = vmdk_read,
	.range = vmdk_range,
	.check = vmdk_check,
	.info = vmdk_info,
	.further_files = vmdk_further_files,
	.close = vmdk_close,
};

/* ---- opening ---- */

/* Of 32-bit entries, all of which the file has to have. */
static int read_table(const struct extent *extent, uint64_t at, uint32_t *to, uint64_t entries)
{
	if (at > extent->file_bytes || entries * 4 > extent->file_bytes - at)
		return -ENODATA;
	return file_read(&extent->file, at, to, entries * 4);
}

static int read_tables(struct disk *disk, struct extent *extent, uint64_t directory_at,
		       uint64_t grains, struct disk_error *error)
{
	uint64_t tables = (grains + VMDK_ENTRIES - 1) / VMDK_ENTRIES;
	uint32_t *directory = malloc(tables * 4);
	int result = 0;

	extent->grains = grains;
	extent->table = calloc(tables * VMDK_ENTRIES, 4);
	if (!directory || !extent->table)
		result = -ENOMEM;
	if (!result)
		result = read_table(extent, directory_at, directory, tables);
	for (uint64_t n = 0; n < tables && !result; n++)
		if (le32toh(directory[n]))
			result = read_table(extent,
					    (uint64_t)le32toh(directory[n]) * VMDK_SECTOR_BYTES,
					    extent->table + n * VMDK_ENTRIES, VMDK_ENTRIES);
	for (uint64_t n = 0; n < grains && !result; n++)
		extent->table[n] = le32toh(extent->table[n]);
	free(directory);
	return result ? disk_fail(error, result, disk->path, "its tables cannot be read: %s",
				  disk_strerror(result))
		      : 0;
}

/* Fills what the file says; the disk's size comes from capacity. */
static int open_sparse(struct disk *disk, struct extent *extent, struct vmdk_head *head,
		       struct disk_error *error)
{
	int64_t bytes = file_size(&extent->file);
	uint64_t grains;

	if (bytes < VMDK_SECTOR_BYTES || file_read(&extent->file, 0, head, sizeof(*head)) ||
	    le32toh(head->magic) != VMDK_MAGIC)
		return unsound(disk, error, "a sparse extent is not one");
	extent->file_bytes = (uint64_t)bytes;
	/* written in one pass: the header is once more at the end */
	if (head->directory == UINT64_MAX) {
		uint64_t descriptor = head->descriptor;
		uint64_t sectors = head->descriptor_sectors;

		if (bytes < 4 * VMDK_SECTOR_BYTES ||
		    file_read(&extent->file,
			      extent->file_bytes / VMDK_SECTOR_BYTES * VMDK_SECTOR_BYTES -
				      2 * VMDK_SECTOR_BYTES,
			      head, sizeof(*head)) ||
		    le32toh(head->magic) != VMDK_MAGIC)
			return unsound(disk, error, "has no footer");
		head->descriptor = descriptor;
		head->descriptor_sectors = sectors;
	}
	extent->sparse = true;
	extent->compressed = le32toh(head->flags) & VMDK_COMPRESSED;
	extent->zero_grains = le32toh(head->flags) & VMDK_ZERO_GRAINS;
	extent->bytes = le64toh(head->capacity) > MAX_BYTES / VMDK_SECTOR_BYTES
				? 0
				: le64toh(head->capacity) * VMDK_SECTOR_BYTES;
	extent->grain_bytes =
		le64toh(head->grain) > GRAIN_MAX ? 0 : le64toh(head->grain) * VMDK_SECTOR_BYTES;
	if (le32toh(head->version) < 1 || le32toh(head->version) > 3 ||
	    le32toh(head->entries) != VMDK_ENTRIES ||
	    (extent->compressed && le16toh(head->compression) != 1))
		return disk_fail(error, -ENOTSUP, disk->path,
				 "a sparse extent of a kind that is not known here");
	if (!extent->bytes || extent->grain_bytes < VMDK_SECTOR_BYTES ||
	    (extent->grain_bytes & (extent->grain_bytes - 1)))
		return unsound(disk, error, "its size, or that of its grains, is not possible");
	grains = (extent->bytes + extent->grain_bytes - 1) / extent->grain_bytes;
	vmdk_of(disk)->grains += grains;
	if (vmdk_of(disk)->grains > GRAINS_MAX)
		return disk_fail(error, -ENOTSUP, disk->path, "has more than %llu grains",
				 GRAINS_MAX);
	if (le64toh(head->directory) > extent->file_bytes / VMDK_SECTOR_BYTES ||
	    grains / VMDK_ENTRIES * 4 > extent->file_bytes)
		return unsound(disk, error, "its directory is not in the file");
	return read_tables(disk, extent, le64toh(head->directory) * VMDK_SECTOR_BYTES, grains,
			   error);
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

/* One extent of a descriptor: a file beside it. */
static int open_beside(struct disk *disk, const char *name, struct extent *extent,
		       struct disk_error *error)
{
	char *copy = strdup(disk->path);
	char *path = NULL;
	const char *directory;
	int result;

	directory = copy ? dirname(copy) : NULL;
	name = directory ? name_beside(directory, name) : NULL;
	if (!name) {
		free(copy);
		return disk_fail(error, -EPERM, disk->path,
				 "an extent that is not a file beside it");
	}
	result = asprintf(&path, "%s/%s", directory, name) < 0
			 ? -ENOMEM
			 : disk_file_open(path, false, false, &extent->file);
	extent->own_file = !result;
	free(path);
	free(copy);
	return result ? disk_fail(error, result, disk->path, "its extent %.100s: %s", name,
				  strerror(-result))
		      : 0;
}

static int open_sesparse(struct disk *disk, struct extent *extent, uint64_t sectors,
			 struct disk_error *error)
{
	const char *what = "";
	uint64_t bytes = 0;
	int64_t file_bytes = file_size(&extent->file);
	int result = sesparse_open(&extent->file, &extent->sesparse, &bytes, &what);

	if (result)
		return disk_fail(error, result, disk->path, "%s", what);
	extent->file_bytes = file_bytes < 0 ? 0 : (uint64_t)file_bytes;
	return bytes < sectors * VMDK_SECTOR_BYTES
		       ? unsound(disk, error, "an extent is shorter than is said of it")
		       : 0;
}

static int add_extent(struct disk *disk, uint64_t sectors, const char *type, const char *name,
		      uint64_t offset, struct disk_error *error)
{
	struct vmdk *vmdk = vmdk_of(disk);
	/* the second: ESX's name for it */
	bool flat = !strcasecmp(type, "FLAT") || !strcasecmp(type, "VMFS");
	struct extent *extent;
	struct vmdk_head head;
	int64_t bytes;
	int result = 0;

	if (vmdk->count == EXTENTS_MAX || !sectors ||
	    sectors > (MAX_BYTES - disk->size_bytes) / VMDK_SECTOR_BYTES)
		return unsound(disk, error, "too many extents, or one of an impossible size");
	extent = realloc(vmdk->extent, (vmdk->count + 1) * sizeof(*extent));
	if (!extent)
		return disk_fail(error, -ENOMEM, disk->path, "no memory");
	vmdk->extent = extent;
	extent += vmdk->count;
	*extent = (struct extent){ .start = disk->size_bytes, .zero = !strcasecmp(type, "ZERO") };
	if (!extent->zero)
		result = open_beside(disk, name, extent, error);
	vmdk->count += !result;
	if (!result && !strcasecmp(type, "SESPARSE")) {
		result = open_sesparse(disk, extent, sectors, error);
	} else if (!result && !strcasecmp(type, "SPARSE")) {
		result = open_sparse(disk, extent, &head, error);
		if (!result && extent->bytes < sectors * VMDK_SECTOR_BYTES)
			result = unsound(disk, error, "an extent is shorter than is said of it");
	} else if (!result && !extent->zero) {
		bytes = file_size(&extent->file);
		extent->file_bytes = bytes < 0 ? 0 : (uint64_t)bytes;
		extent->offset =
			offset <= MAX_BYTES / VMDK_SECTOR_BYTES ? offset * VMDK_SECTOR_BYTES : 0;
		if (!flat)
			result = disk_fail(error, -ENOTSUP, disk->path,
					   "an extent of the kind %.20s", type);
		else if (offset > MAX_BYTES / VMDK_SECTOR_BYTES || bytes < 0 ||
			 extent->offset > (uint64_t)bytes ||
			 sectors * VMDK_SECTOR_BYTES > (uint64_t)bytes - extent->offset)
			result = unsound(disk, error, "an extent is shorter than is said of it");
	}
	extent->bytes = sectors * VMDK_SECTOR_BYTES;
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
static bool read_link(struct vmdk *vmdk, const char *line)
{
	const char *own = value_of(line, "CID");
	const char *parent = value_of(line, "parentCID");
	const char *name = value_of(line, "parentFileNameHint");

	if (own)
		vmdk->content_id = (uint32_t)strtoul(own, NULL, 16);
	if (parent)
		vmdk->parent_content_id = (uint32_t)strtoul(parent, NULL, 16);
	if (name && !vmdk->parent_name)
		vmdk->parent_name = strndup(name, strcspn(name, "\""));
	return own || parent || name;
}

/* The lines that matter. */
static int read_line(struct disk *disk, char *line, bool embedded, struct disk_error *error)
{
	char access[16], type[20];
	char name[256] = "";
	unsigned long long sectors;
	unsigned long long offset = 0;

	while (isspace((unsigned char)*line))
		line++;
	if (read_link(vmdk_of(disk), line))
		return 0;
	if (embedded || (strncasecmp(line, "RW ", 3) && strncasecmp(line, "RDONLY ", 7)))
		return 0;
	if (sscanf(line, "%15s %llu %19s \"%255[^\"]\" %llu", access, &sectors, type, name,
		   &offset) < 3)
		return unsound(disk, error, "a line of its descriptor cannot be read");
	return add_extent(disk, sectors, type, name, offset, error);
}

static int is_piece(const struct disk *disk, struct disk_error *error)
{
	return disk_fail(error, -ENOTSUP, disk->path,
			 "is one piece of a disk: open the descriptor beside it");
}

static int read_descriptor(struct disk *disk, uint64_t at, uint64_t bytes, bool embedded,
			   struct disk_error *error)
{
	char *text = NULL;
	char *next, *line;
	int result = -EBADMSG;

	if (bytes <= DESCRIPTOR_BYTES) {
		text = malloc(bytes + 1);
		result = text ? file_read(&disk->file, at, text, bytes) : -ENOMEM;
	}
	if (result) {
		free(text);
		return disk_fail(error, result, disk->path, "its descriptor cannot be read");
	}
	text[bytes] = 0;
	if (!embedded && strncmp(text, "# Disk DescriptorFile", 21))
		result = unsound(disk, error, "neither a sparse VMDK file nor a descriptor");
	else if (embedded && !strstr(text, "CID=")) /* room for one, and nothing in it */
		result = is_piece(disk, error);
	for (next = text; !result && (line = strsep(&next, "\r\n"));)
		result = read_line(disk, line, embedded, error);
	free(text);
	return result;
}

static int open_all(struct disk *disk, struct disk_error *error)
{
	struct vmdk *vmdk = vmdk_of(disk);
	int64_t bytes = file_size(&disk->file);
	uint32_t magic = 0;
	struct vmdk_head head;
	int result;

	if (bytes < 0)
		return disk_fail(error, (int)bytes, disk->path, "no regular file or block device");
	result = file_read(&disk->file, 0, &magic, sizeof(magic));
	if (result)
		return disk_fail(error, result, disk->path, "%s", disk_strerror(result));
	if (le32toh(magic) != VMDK_MAGIC)
		return read_descriptor(disk, 0, (uint64_t)bytes, false, error);
	vmdk->extent[0].file = disk->file;
	vmdk->count = 1;
	result = open_sparse(disk, &vmdk->extent[0], &head, error);
	disk->size_bytes = vmdk->extent[0].bytes;
	if (!result && (le64toh(head.descriptor) > (uint64_t)bytes / VMDK_SECTOR_BYTES ||
			le64toh(head.descriptor_sectors) > DESCRIPTOR_BYTES / VMDK_SECTOR_BYTES))
		result = unsound(disk, error, "its descriptor is not in the file");
	if (!result && !head.descriptor)
		result = is_piece(disk, error);
	if (!result)
		result = read_descriptor(disk, le64toh(head.descriptor) * VMDK_SECTOR_BYTES,
					 le64toh(head.descriptor_sectors) * VMDK_SECTOR_BYTES, true,
					 error);
	return result;
}

static int check_parent(struct disk *child, struct disk *parent, struct disk_error *error)
{
	const struct vmdk *vmdk = vmdk_of(child);

	if (parent->format_id != DISK_VMDK)
		return disk_fail(error, -ESTALE, child->path, "its parent %s is no VMDK file",
				 parent->path);
	if (parent->size_bytes > child->size_bytes)
		return disk_fail(error, -ENOTSUP, child->path, "is smaller than its parent %s",
				 parent->path);
	if (vmdk_of(parent)->content_id == vmdk->parent_content_id)
		return 0;
	return disk_fail(error, -ESTALE, child->path,
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
		return unsound(disk, error, "does not name its parent");
	if (options->without_parents)
		return 0;
	query.path[0] = parent_host_path(disk->path, name, *name != '/');
	if (query.path[0])
		result = search_parent(disk, &query, options, error);
	else
		disk_fail(error, result, disk->path, "no memory");
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
		result = vmdk && vmdk->extent ? disk_fail(error, -ENOTSUP, disk->path,
							  "VMDK can only be read: convert it")
					      : disk_fail(error, -ENOMEM, disk->path, "no memory");
		free(vmdk ? vmdk->extent : NULL);
		free(vmdk);
		return result;
	}
	disk->format = vmdk;
	disk->sector_bytes = VMDK_SECTOR_BYTES;
	result = open_all(disk, error);
	if (!result && !disk->size_bytes)
		result = unsound(disk, error, "has no extents");
	if (!result && vmdk->parent_content_id != VMDK_NO_PARENT)
		result = open_parent(disk, options, error);
	if (result) {
		vmdk_release(vmdk);
		return result;
	}
	disk->driver = &driver;
	return 0;
}
