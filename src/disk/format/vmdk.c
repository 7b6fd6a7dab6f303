/*
 * VMDK files for reading: one sparse file (hosted), stream-optimised ones, and text descriptors
 * with flat or sparse extents beside them. (VMware Virtual Disk Format 5.0.)
 *
 *   descriptor, as text, in the file or a file of its own: extents in order, each a file that lies
 *   in the descriptor's directory sparse extent: header, directory of tables, tables of grains; 0:
 *   nothing, 1: zeros; grains may be compressed (zlib)
 *
 * Extents lie in the directory of the descriptor: by their plain name, ./NAME, or an absolute name
 * there. Left out: writing, deltas (files with a parent), ESX's own sparse formats.
 */
#include <ctype.h>
#include <endian.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk_internal.h"
#include "inflate.h"

enum {
	SECTOR = 512,
	EXTENTS_MAX = 65536,
	DESCRIPTOR_BYTES = 1 << 20,
	ENTRIES = 512,
	GRAIN_MAX = 2048,
	GRAIN_ZERO = 1,
	NO_PARENT_BYTES = 8
};
#define GRAINS_MAX (64ull << 20) /* of all extents: what their tables need of memory */
#define MAGIC 0x564d444bu /* KDMV */
enum { FLAG_ZERO_GRAIN = 1 << 2, FLAG_COMPRESSED = 1 << 16 };
#define MAX_BYTES (64ull << 40)

struct head {
	uint32_t magic, version, flags;
	uint64_t capacity, grain, descriptor, descriptor_sectors;
	uint32_t entries;
	uint64_t second_directory, directory, overhead;
	uint8_t unclean, end_of_line[4];
	uint16_t compression;
} __attribute__((packed));

struct extent {
	uint64_t start, bytes, offset; /* on the disk, and where it begins in its file */
	struct disk_file file;
	bool own_file, zero, sparse, compressed, zero_grains;
	uint64_t grain_bytes, file_bytes;
	uint32_t *table;  /* a sector for each grain, all tables behind each other; NULL: flat */
	uint64_t grains;
};

struct vmdk { struct extent *extent; unsigned count; uint64_t grains; };

enum kind { ZERO, DATA, COMPRESSED };
struct run {
	enum kind kind;
	const struct extent *extent;
	uint64_t bytes, at, in_grain, grain_start;
};

static struct vmdk *vmdk_of(const struct disk *d) { return d->format; }

static int unsound(const struct disk *d, struct disk_error *error, const char *what)
{
	return disk_fail(error, -EBADMSG, d->path, "%s", what);
}

/* ---- reading ---- */

static struct run run_find(const struct disk *d, uint64_t offset, uint64_t bytes)
{
	const struct vmdk *v = vmdk_of(d);
	struct run r = { .kind = DATA };
	unsigned first = 0;
	unsigned behind = v->count;
	uint64_t in, grain;

	while (behind - first > 1) { /* the last one that begins at or before the offset */
		unsigned middle = first + (behind - first) / 2;

		if (v->extent[middle].start <= offset)
			first = middle;
		else
			behind = middle;
	}
	r.extent = &v->extent[first];
	in = offset - r.extent->start;
	r.bytes = r.extent->bytes - in;
	r.at = r.extent->offset + in;
	if (r.extent->zero)
		r.kind = ZERO;
	if (r.extent->sparse) {
		grain = in / r.extent->grain_bytes;
		r.in_grain = in % r.extent->grain_bytes;
		r.grain_start = in - r.in_grain;
		if (r.bytes > r.extent->grain_bytes - r.in_grain)
			r.bytes = r.extent->grain_bytes - r.in_grain;
		r.at = (uint64_t)r.extent->table[grain] * SECTOR;
		r.kind = r.extent->compressed ? COMPRESSED : DATA;
		if (!r.at || (r.extent->table[grain] == GRAIN_ZERO && r.extent->zero_grains))
			r.kind = ZERO;
		if (r.kind == DATA)
			r.at += r.in_grain;
	}
	if (r.bytes > bytes)
		r.bytes = bytes;
	return r;
}

/* A grain's number, its packed length, the packed bytes. */
static int read_compressed(const struct run *r, const struct disk_buffer *buffer)
{
	const struct extent *e = r->extent;
	struct { uint64_t sector; uint32_t bytes; } __attribute__((packed)) mark;
	uint64_t whole;
	uint8_t *packed, *grain;
	uint32_t bytes;
	int error = r->at + sizeof(mark) > e->file_bytes
			    ? -ENODATA
			    : file_read(&e->file, r->at, &mark, sizeof(mark));

	bytes = le32toh(mark.bytes);
	if (error || !bytes || bytes > 2 * e->grain_bytes + SECTOR)
		return error ? error : -EBADMSG;
	if (r->at + sizeof(mark) + bytes > e->file_bytes)
		return -ENODATA;
	whole = r->extent->bytes - r->grain_start < e->grain_bytes
			? r->extent->bytes - r->grain_start
			: e->grain_bytes;
	packed = malloc(bytes);
	grain = malloc(e->grain_bytes);
	error = packed && grain ? file_read(&e->file, r->at + sizeof(mark), packed, bytes)
				: -ENOMEM;
	if (!error)
		/* the last one may be shorter */
		error = inflate_bytes(COMPRESSION_ZLIB, packed, bytes, grain, whole);
	if (!error)
		buffer_fill(buffer, grain + r->in_grain, r->bytes);
	free(packed);
	free(grain);
	return error;
}

static struct disk_range range_of(const struct run *r)
{
	return (struct disk_range){ .kind = r->kind == ZERO ? DISK_RANGE_ZERO : DISK_RANGE_PRESENT,
				    .bytes = r->bytes };
}

static int vmdk_read(struct disk *d, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes, struct disk_range *ret)
{
	const struct run r = run_find(d, offset, bytes);

	*ret = range_of(&r);
	if (r.kind == DATA && r.at + r.bytes > r.extent->file_bytes)
		return -ENODATA;
	if (r.kind == DATA)
		return buffer_read(buffer, &r.extent->file, r.at, r.bytes);
	return r.kind == COMPRESSED ? read_compressed(&r, buffer) : 0;
}

static int vmdk_range(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	const struct run r = run_find(d, offset, bytes);

	*ret = range_of(&r);
	return 0;
}

/* The packed length of one that is compressed is looked at when it is read. */
static bool grain_is_there(const struct extent *e, uint64_t grain)
{
	uint64_t at = (uint64_t)e->table[grain] * SECTOR;
	uint64_t left = e->bytes - grain * e->grain_bytes;

	if (!at || (e->table[grain] == GRAIN_ZERO && e->zero_grains))
		return true;
	if (e->compressed)
		return at < e->file_bytes;
	return at + (left < e->grain_bytes ? left : e->grain_bytes) <= e->file_bytes;
}

static int vmdk_check(struct disk *d, void (*report)(void *, const char *), void *context)
{
	const struct vmdk *v = vmdk_of(d);
	char line[160];

	for (unsigned n = 0; n < v->count; n++)
		for (uint64_t grain = 0; grain < v->extent[n].grains; grain++)
			if (!grain_is_there(&v->extent[n], grain)) {
				snprintf(line, sizeof(line), "at offset %lu: %s",
					 v->extent[n].start + grain * v->extent[n].grain_bytes,
					 disk_strerror(-ENODATA));
				report(context, line);
				return 1;
			}
	return 0;
}

static void vmdk_info(const struct disk *d, struct disk_info *ret)
{
	*ret = (struct disk_info){ .format = DISK_VMDK,
				   .size_bytes = d->size_bytes,
				   .logical_sector_bytes = SECTOR,
				   .physical_sector_bytes = SECTOR };
}

static void vmdk_release(struct vmdk *v)
{
	for (unsigned n = 0; n < v->count; n++) {
		free(v->extent[n].table);
		if (v->extent[n].own_file)
			file_close(&v->extent[n].file);
	}
	free(v->extent);
	free(v);
}

static int vmdk_close(struct disk *d)
{
	vmdk_release(vmdk_of(d));
	return 0;
}

static const struct disk_driver driver = {
	.read = vmdk_read,
	.range = vmdk_range,
	.check = vmdk_check,
	.info = vmdk_info,
	.close = vmdk_close,
};

/* ---- opening ---- */

/* Of 32-bit entries, all of which the file has to have. */
static int read_table(const struct extent *e, uint64_t at, uint32_t *to, uint64_t entries)
{
	if (at > e->file_bytes || entries * 4 > e->file_bytes - at)
		return -ENODATA;
	return file_read(&e->file, at, to, entries * 4);
}

static int read_tables(struct disk *d, struct extent *e, uint64_t directory_at, uint64_t grains,
		       struct disk_error *error)
{
	uint64_t tables = (grains + ENTRIES - 1) / ENTRIES;
	uint32_t *directory = malloc(tables * 4);
	int result = 0;

	e->grains = grains;
	e->table = calloc(tables * ENTRIES, 4);
	if (!directory || !e->table)
		result = -ENOMEM;
	if (!result)
		result = read_table(e, directory_at, directory, tables);
	for (uint64_t n = 0; n < tables && !result; n++)
		if (le32toh(directory[n]))
			result = read_table(e, (uint64_t)le32toh(directory[n]) * SECTOR,
					    e->table + n * ENTRIES, ENTRIES);
	for (uint64_t n = 0; n < grains && !result; n++)
		e->table[n] = le32toh(e->table[n]);
	free(directory);
	return result ? disk_fail(error, result, d->path, "its tables cannot be read: %s",
				  disk_strerror(result))
		      : 0;
}

/* Fills what the file says; the disk's size comes from capacity. */
static int open_sparse(struct disk *d, struct extent *e, struct head *h, struct disk_error *error)
{
	int64_t bytes = file_size(&e->file);
	uint64_t grains;

	if (bytes < SECTOR || file_read(&e->file, 0, h, sizeof(*h)) || le32toh(h->magic) != MAGIC)
		return unsound(d, error, "a sparse extent is not one");
	e->file_bytes = (uint64_t)bytes;
	/* written in one pass: the header is once more at the end */
	if (h->directory == UINT64_MAX) {
		uint64_t descriptor = h->descriptor;
		uint64_t sectors = h->descriptor_sectors;

		if (bytes < 4 * SECTOR ||
		    file_read(&e->file, e->file_bytes / SECTOR * SECTOR - 2 * SECTOR, h,
			      sizeof(*h)) ||
		    le32toh(h->magic) != MAGIC)
			return unsound(d, error, "has no footer");
		h->descriptor = descriptor;
		h->descriptor_sectors = sectors;
	}
	e->sparse = true;
	e->compressed = le32toh(h->flags) & FLAG_COMPRESSED;
	e->zero_grains = le32toh(h->flags) & FLAG_ZERO_GRAIN;
	e->bytes = le64toh(h->capacity) > MAX_BYTES / SECTOR ? 0 : le64toh(h->capacity) * SECTOR;
	e->grain_bytes = le64toh(h->grain) > GRAIN_MAX ? 0 : le64toh(h->grain) * SECTOR;
	if (le32toh(h->version) < 1 || le32toh(h->version) > 3 || le32toh(h->entries) != ENTRIES ||
	    (e->compressed && le16toh(h->compression) != 1))
		return disk_fail(error, -ENOTSUP, d->path,
				 "a sparse extent of a kind that is not known here");
	if (!e->bytes || e->grain_bytes < SECTOR || (e->grain_bytes & (e->grain_bytes - 1)))
		return unsound(d, error, "its size, or that of its grains, is not possible");
	grains = (e->bytes + e->grain_bytes - 1) / e->grain_bytes;
	vmdk_of(d)->grains += grains;
	if (vmdk_of(d)->grains > GRAINS_MAX)
		return disk_fail(error, -ENOTSUP, d->path, "has more than %llu grains", GRAINS_MAX);
	if (le64toh(h->directory) > e->file_bytes / SECTOR || grains / ENTRIES * 4 > e->file_bytes)
		return unsound(d, error, "its directory is not in the file");
	return read_tables(d, e, le64toh(h->directory) * SECTOR, grains, error);
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
static int open_beside(struct disk *d, const char *name, struct extent *e, struct disk_error *error)
{
	char *copy = strdup(d->path);
	char *path = NULL;
	const char *directory;
	int result;

	directory = copy ? dirname(copy) : NULL;
	name = directory ? name_beside(directory, name) : NULL;
	if (!name) {
		free(copy);
		return disk_fail(error, -EPERM, d->path, "an extent that is not a file beside it");
	}
	result = asprintf(&path, "%s/%s", directory, name) < 0
			 ? -ENOMEM
			 : disk_file_open(path, false, false, &e->file);
	e->own_file = !result;
	free(path);
	free(copy);
	return result ? disk_fail(error, result, d->path, "its extent %.100s: %s", name,
				  strerror(-result))
		      : 0;
}

static int add_extent(struct disk *d, uint64_t sectors, const char *type, const char *name,
		      uint64_t offset, struct disk_error *error)
{
	struct vmdk *v = vmdk_of(d);
	/* the second: ESX's name for it */
	bool flat = !strcasecmp(type, "FLAT") || !strcasecmp(type, "VMFS");
	struct extent *e;
	struct head h;
	int64_t bytes;
	int result = 0;

	if (v->count == EXTENTS_MAX || !sectors || sectors > (MAX_BYTES - d->size_bytes) / SECTOR)
		return unsound(d, error, "too many extents, or one of an impossible size");
	e = realloc(v->extent, (v->count + 1) * sizeof(*e));
	if (!e)
		return disk_fail(error, -ENOMEM, d->path, "no memory");
	v->extent = e;
	e += v->count;
	*e = (struct extent){ .start = d->size_bytes, .zero = !strcasecmp(type, "ZERO") };
	if (!e->zero)
		result = open_beside(d, name, e, error);
	v->count += !result;
	if (!result && !strcasecmp(type, "SPARSE")) {
		result = open_sparse(d, e, &h, error);
		if (!result && e->bytes < sectors * SECTOR)
			result = unsound(d, error, "an extent is shorter than is said of it");
	} else if (!result && !e->zero) {
		bytes = file_size(&e->file);
		e->file_bytes = bytes < 0 ? 0 : (uint64_t)bytes;
		e->offset = offset <= MAX_BYTES / SECTOR ? offset * SECTOR : 0;
		if (!flat)
			result = disk_fail(error, -ENOTSUP, d->path, "an extent of the kind %.20s",
					   type);
		else if (offset > MAX_BYTES / SECTOR || bytes < 0 || e->offset > (uint64_t)bytes ||
			 sectors * SECTOR > (uint64_t)bytes - e->offset)
			result = unsound(d, error, "an extent is shorter than is said of it");
	}
	e->bytes = sectors * SECTOR;
	d->size_bytes += e->bytes;
	return result;
}

/* The lines that matter. */
static int read_line(struct disk *d, char *line, bool embedded, struct disk_error *error)
{
	char access[16], type[20];
	char name[256] = "";
	unsigned long long sectors;
	unsigned long long offset = 0;

	while (isspace((unsigned char)*line))
		line++;
	if (!strncasecmp(line, "parentCID", 9)) {
		const char *value = strchr(line, '=');

		value = value ? value + 1 + strspn(value + 1, " \t") : "";
		return strncasecmp(value, "ffffffff", NO_PARENT_BYTES)
			       ? disk_fail(error, -ENOTSUP, d->path,
					   "has a parent: only whole disks are read")
			       : 0;
	}
	if (embedded || (strncasecmp(line, "RW ", 3) && strncasecmp(line, "RDONLY ", 7)))
		return 0;
	if (sscanf(line, "%15s %llu %19s \"%255[^\"]\" %llu", access, &sectors, type, name,
		   &offset) < 3)
		return unsound(d, error, "a line of its descriptor cannot be read");
	return add_extent(d, sectors, type, name, offset, error);
}

static int is_piece(const struct disk *d, struct disk_error *error)
{
	return disk_fail(error, -ENOTSUP, d->path,
			 "is one piece of a disk: open the descriptor beside it");
}

static int read_descriptor(struct disk *d, uint64_t at, uint64_t bytes, bool embedded,
			   struct disk_error *error)
{
	char *text = NULL;
	char *next, *line;
	int result = -EBADMSG;

	if (bytes <= DESCRIPTOR_BYTES) {
		text = malloc(bytes + 1);
		result = text ? file_read(&d->file, at, text, bytes) : -ENOMEM;
	}
	if (result) {
		free(text);
		return disk_fail(error, result, d->path, "its descriptor cannot be read");
	}
	text[bytes] = 0;
	if (!embedded && strncmp(text, "# Disk DescriptorFile", 21))
		result = unsound(d, error, "neither a sparse VMDK file nor a descriptor");
	else if (embedded && !strstr(text, "CID=")) /* room for one, and nothing in it */
		result = is_piece(d, error);
	for (next = text; !result && (line = strsep(&next, "\r\n"));)
		result = read_line(d, line, embedded, error);
	free(text);
	return result;
}

static int open_all(struct disk *d, struct disk_error *error)
{
	struct vmdk *v = vmdk_of(d);
	int64_t bytes = file_size(&d->file);
	uint32_t magic = 0;
	struct head h;
	int result;

	if (bytes < 0)
		return disk_fail(error, (int)bytes, d->path, "not a regular file");
	result = file_read(&d->file, 0, &magic, sizeof(magic));
	if (result)
		return disk_fail(error, result, d->path, "%s", disk_strerror(result));
	if (le32toh(magic) != MAGIC)
		return read_descriptor(d, 0, (uint64_t)bytes, false, error);
	v->extent[0].file = d->file;
	v->count = 1;
	result = open_sparse(d, &v->extent[0], &h, error);
	d->size_bytes = v->extent[0].bytes;
	if (!result && (le64toh(h.descriptor) > (uint64_t)bytes / SECTOR ||
			le64toh(h.descriptor_sectors) > DESCRIPTOR_BYTES / SECTOR))
		result = unsound(d, error, "its descriptor is not in the file");
	if (!result && !h.descriptor)
		result = is_piece(d, error);
	if (!result)
		result = read_descriptor(d, le64toh(h.descriptor) * SECTOR,
					 le64toh(h.descriptor_sectors) * SECTOR, true, error);
	return result;
}

int vmdk_open(struct disk *d, const struct disk_options *o, struct disk_error *error)
{
	struct vmdk *v = calloc(1, sizeof(*v));
	int result;

	(void)o;
	if (v)
		v->extent = calloc(1, sizeof(*v->extent));
	if (!v || !v->extent || d->write) {
		result = v && v->extent ? disk_fail(error, -ENOTSUP, d->path,
						    "VMDK can only be read: convert it")
					: disk_fail(error, -ENOMEM, d->path, "no memory");
		free(v ? v->extent : NULL);
		free(v);
		return result;
	}
	d->format = v;
	d->sector_bytes = SECTOR;
	result = open_all(d, error);
	if (!result && !d->size_bytes)
		result = unsound(d, error, "has no extents");
	if (result) {
		vmdk_release(v);
		return result;
	}
	d->driver = &driver;
	return 0;
}
