/*
 * qcow2 files, versions 2 and 3, for reading: what others made is imported or read through.
 * (Specification: QEMU's docs/interop/qcow2.)
 *
 *   header, extensions   table of tables (L1)   tables of clusters (L2)
 *   clusters, some compressed by deflate or zstd
 *
 * A backing file is opened as a parent is: under the allowed places, in the format that the file
 * names; one that names none is refused. Its content is not vouched for: the format has no
 * identifier of data. Left out: writing, encryption, external data files, snapshots.
 *
 * Lock: `lock` guards the cache of L2 tables.
 */
#include <endian.h>
#include <libgen.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "disk/search.h"
#include "inflate.h"

enum { SECTOR = 512, CACHED = 16, NAME_BYTES = 1023, SUBCLUSTERS = 32 };
enum {
	FEATURE_CORRUPT = 2,
	FEATURE_EXTERNAL = 4,
	FEATURE_COMPRESSION = 8,
	FEATURE_SUBCLUSTERS = 16,
	FEATURES = 31
};
#define EXTENSION_FORMAT 0xe2792acau
#define MAX_BYTES (64ull << 40)
#define OFFSET_BITS 0x00fffffffffffe00ull
#define L2_COMPRESSED (1ull << 62)

struct head {
	uint32_t magic, version;
	uint64_t backing_offset;
	uint32_t backing_bytes, cluster_bits;
	uint64_t size_bytes;
	uint32_t crypt, l1_entries;
	uint64_t l1_offset, refcounts;
	uint32_t refcount_clusters, snapshots;
	uint64_t snapshots_offset, incompatible, compatible, autoclear;
	uint32_t refcount_order, head_bytes;
	uint8_t compression;
} __attribute__((packed));

struct cached { uint64_t offset, used; uint64_t *entries; };

struct qcow2 {
	uint32_t cluster_bits, cluster_bytes, entry_words, l1_entries;
	uint64_t l2_entries, *l1, ticks;
	/* when it was opened: what its tables name beyond is missing, not zero */
	uint64_t file_bytes;
	enum compression compression;
	struct cached cache[CACHED];
	pthread_mutex_t lock;
};

enum kind { SILENT, ZERO, DATA, COMPRESSED };
struct run { enum kind kind; uint64_t bytes, at; uint32_t packed_bytes; }; /* at: in the file */

static struct qcow2 *qcow2_of(const struct disk *d) { return d->format; }

/* ---- where data is ---- */

static int has_bytes(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	return offset > q->file_bytes || bytes > q->file_bytes - offset ? -ENODATA : 0;
}

/* Held: lock. NULL: it cannot be read, or with -ENODATA is not all there. */
static const uint64_t *table_at(struct disk *d, uint64_t offset, int *ret_error)
{
	struct qcow2 *q = qcow2_of(d);
	struct cached *oldest = &q->cache[0];

	for (unsigned n = 0; n < CACHED; n++) {
		if (q->cache[n].entries && q->cache[n].offset == offset) {
			q->cache[n].used = ++q->ticks;
			return q->cache[n].entries;
		}
		if (q->cache[n].used < oldest->used)
			oldest = &q->cache[n];
	}
	if (!oldest->entries)
		oldest->entries = malloc(q->cluster_bytes);
	oldest->offset = UINT64_MAX;
	*ret_error = oldest->entries ? has_bytes(q, offset, q->cluster_bytes) : -ENOMEM;
	if (!*ret_error)
		*ret_error = file_read(&d->file, offset, oldest->entries, q->cluster_bytes);
	if (*ret_error)
		return NULL;
	oldest->offset = offset;
	oldest->used = ++q->ticks;
	return oldest->entries;
}

static void find_subclusters(const struct qcow2 *q, uint64_t in_cluster, uint64_t bitmap,
			     struct run *ret)
{
	uint32_t bytes = q->cluster_bytes / SUBCLUSTERS;
	uint32_t n = (uint32_t)(in_cluster / bytes);
	uint64_t state = (bitmap >> n & 1) | (bitmap >> (n + 32) & 1) << 1;

	while (n < SUBCLUSTERS && ((bitmap >> n & 1) | (bitmap >> (n + 32) & 1) << 1) == state)
		n++;
	ret->bytes = (uint64_t)n * bytes - in_cluster;
	ret->kind = state & 1 ? DATA : SILENT;
	if (state & 2)
		ret->kind = ZERO;
}

/* What begins at an offset: within one cluster, or as far as a table that is not there would reach.
 * */
static int run_find(struct disk *d, uint64_t offset, uint64_t bytes, struct run *ret)
{
	struct qcow2 *q = qcow2_of(d);
	uint64_t cluster = offset >> q->cluster_bits;
	uint64_t in = offset & (q->cluster_bytes - 1);
	uint64_t l2 = be64toh(q->l1[cluster / q->l2_entries]) & OFFSET_BITS;
	uint64_t entry;
	uint64_t bitmap = 0;
	const uint64_t *table;
	int error = -EIO;

	*ret = (struct run){ .kind = SILENT, .bytes = q->cluster_bytes - in };
	if (l2 & (q->cluster_bytes - 1))
		return -EBADMSG;
	if (!l2) /* a table that is not there says nothing about all that it would cover */
		ret->bytes += (q->l2_entries - 1 - cluster % q->l2_entries) << q->cluster_bits;
	if (l2) {
		pthread_mutex_lock(&q->lock);
		table = table_at(d, l2, &error);
		entry = table ? be64toh(table[cluster % q->l2_entries * q->entry_words]) : 0;
		bitmap = table && q->entry_words == 2
				 ? be64toh(table[cluster % q->l2_entries * 2 + 1])
				 : 0;
		pthread_mutex_unlock(&q->lock);
		if (!table)
			return error;
		if (entry & L2_COMPRESSED) {
			unsigned bits = 62 - (q->cluster_bits - 8);

			ret->kind = COMPRESSED;
			ret->at = entry & ((1ull << bits) - 1);
			ret->packed_bytes =
				(uint32_t)((((entry & (L2_COMPRESSED - 1)) >> bits) + 1) * SECTOR -
					   (ret->at & (SECTOR - 1)));
		} else {
			ret->at = (entry & OFFSET_BITS) + in;
			ret->kind = entry & OFFSET_BITS ? DATA : SILENT;
			if (q->entry_words == 1 && entry & 1)
				ret->kind = ZERO;
			if (q->entry_words == 2)
				find_subclusters(q, in, bitmap, ret);
			if ((entry & OFFSET_BITS & (q->cluster_bytes - 1)) ||
			    (ret->kind == DATA && !(entry & OFFSET_BITS)))
				return -EBADMSG;
		}
	}
	if (ret->bytes > bytes)
		ret->bytes = bytes;
	if (ret->kind == COMPRESSED && ret->at < q->file_bytes &&
	    ret->packed_bytes > q->file_bytes - ret->at)
		/* counted in sectors: the last one may be cut */
		ret->packed_bytes = (uint32_t)(q->file_bytes - ret->at);
	if (ret->kind == COMPRESSED)
		return has_bytes(q, ret->at, 1);
	return ret->kind == DATA ? has_bytes(q, ret->at, ret->bytes) : 0;
}

/* ---- reading ---- */

/* A whole cluster, as it is unpacked. */
static int read_compressed(struct disk *d, const struct run *r, uint64_t in_cluster,
			   const struct disk_buffer *buffer)
{
	struct qcow2 *q = qcow2_of(d);
	uint8_t *packed = malloc(r->packed_bytes);
	uint8_t *cluster = malloc(q->cluster_bytes);
	int error =
		packed && cluster ? file_read(&d->file, r->at, packed, r->packed_bytes) : -ENOMEM;

	if (!error)
		error = inflate_bytes(q->compression, packed, r->packed_bytes, cluster,
				      q->cluster_bytes);
	if (!error)
		buffer_fill(buffer, cluster + in_cluster, r->bytes);
	free(packed);
	free(cluster);
	return error;
}

static struct disk_range range_of(const struct disk *d, const struct run *r)
{
	struct disk_range range = { .kind = DISK_RANGE_PRESENT, .bytes = r->bytes };

	if (r->kind == ZERO || (r->kind == SILENT && !d->is_child))
		range.kind = DISK_RANGE_ZERO;
	else if (r->kind == SILENT)
		range.kind = DISK_RANGE_ABSENT;
	return range;
}

static int qcow2_read(struct disk *d, uint64_t offset, const struct disk_buffer *buffer,
		      uint64_t bytes, struct disk_range *ret)
{
	struct run r;
	int error = run_find(d, offset, bytes, &r);

	if (error)
		return error;
	*ret = range_of(d, &r);
	if (r.kind == DATA)
		return buffer_read(buffer, &d->file, r.at, r.bytes);
	if (r.kind == COMPRESSED)
		return read_compressed(d, &r, offset & (qcow2_of(d)->cluster_bytes - 1), buffer);
	return 0;
}

static int qcow2_range(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct run r;
	int error = run_find(d, offset, bytes, &r);

	if (!error)
		*ret = range_of(d, &r);
	return error;
}

static int qcow2_check(struct disk *d, void (*report)(void *, const char *), void *context)
{
	struct run r;
	char line[160];

	for (uint64_t at = 0; at < d->size_bytes; at += r.bytes) {
		int error = run_find(d, at, d->size_bytes - at, &r);

		if (!error)
			continue;
		snprintf(line, sizeof(line), "at offset %lu: %s", at, disk_strerror(error));
		report(context, line);
		return 1;
	}
	return 0;
}

static void qcow2_info(const struct disk *d, struct disk_info *ret)
{
	*ret = (struct disk_info){ .format = DISK_QCOW2,
				   .size_bytes = d->size_bytes,
				   .logical_sector_bytes = SECTOR,
				   .physical_sector_bytes = PHYSICAL_SECTOR_BYTES,
				   .block_bytes = qcow2_of(d)->cluster_bytes,
				   .has_parent = d->is_child,
				   .is_linked = d->parent };
}

static void qcow2_release(struct qcow2 *q)
{
	for (unsigned n = 0; n < CACHED; n++)
		free(q->cache[n].entries);
	free(q->l1);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static int qcow2_close(struct disk *d)
{
	qcow2_release(qcow2_of(d));
	return 0;
}

static const struct disk_driver driver = {
	.read = qcow2_read,
	.range = qcow2_range,
	.check = qcow2_check,
	.info = qcow2_info,
	.close = qcow2_close,
};

/* ---- opening ---- */

static int check_head(struct disk *d, struct head *h, struct disk_error *error)
{
	struct qcow2 *q = qcow2_of(d);
	uint32_t version = be32toh(h->version);

	if (be32toh(h->magic) != 0x514649fb)
		return disk_fail(error, -EBADMSG, d->path, "not a qcow2 file");
	if (version != 2 && version != 3)
		return disk_fail(error, -ENOTSUP, d->path, "qcow2 version %u", version);
	if (version == 2)
		h->incompatible = h->compression = 0;
	q->cluster_bits = be32toh(h->cluster_bits);
	d->size_bytes = be64toh(h->size_bytes);
	if (q->cluster_bits < 9 || q->cluster_bits > 21 || !d->size_bytes ||
	    d->size_bytes > MAX_BYTES)
		return disk_fail(error, -EBADMSG, d->path,
				 "its cluster size or its size is not possible");
	d->size_bytes = d->size_bytes / SECTOR * SECTOR;
	h->incompatible = be64toh(h->incompatible);
	if (h->incompatible & FEATURE_CORRUPT)
		return disk_fail(error, -EBADMSG, d->path, "is marked as corrupt");
	if (be32toh(h->crypt) || h->incompatible & (FEATURE_EXTERNAL | ~(uint64_t)FEATURES))
		return disk_fail(
			error, -ENOTSUP, d->path,
			"is encrypted, has an external data file, "
			"or needs a feature that is not known here");
	if (h->incompatible & FEATURE_COMPRESSION && h->compression > 1)
		return disk_fail(error, -ENOTSUP, d->path, "compression %u", h->compression);
	q->compression = h->incompatible & FEATURE_COMPRESSION && h->compression == 1
				 ? COMPRESSION_ZSTD
				 : COMPRESSION_DEFLATE;
	q->entry_words = h->incompatible & FEATURE_SUBCLUSTERS ? 2 : 1;
	if (q->entry_words == 2 && q->cluster_bits < 14)
		return disk_fail(error, -EBADMSG, d->path,
				 "its clusters are too small for subclusters");
	q->cluster_bytes = 1u << q->cluster_bits;
	q->l2_entries = q->cluster_bytes / 8 / q->entry_words;
	return 0;
}

static int read_l1(struct disk *d, const struct head *h, uint64_t file_bytes,
		   struct disk_error *error)
{
	struct qcow2 *q = qcow2_of(d);
	uint64_t covers = q->l2_entries << q->cluster_bits;
	uint64_t needed = (d->size_bytes + covers - 1) / covers;
	uint64_t at = be64toh(h->l1_offset);
	int result;

	if (be32toh(h->l1_entries) < needed || at % 8 || at > file_bytes ||
	    needed > (file_bytes - at) / 8)
		return disk_fail(error, -EBADMSG, d->path,
				 "its first table is too short, or not in the file");
	q->l1 = malloc(needed * 8);
	result = q->l1 ? file_read(&d->file, at, q->l1, needed * 8) : -ENOMEM;
	return result ? disk_fail(error, result, d->path, "%s", strerror(-result)) : 0;
}

/* "raw", "qcow2", "vpc", ...; empty where nothing is said. */
static int backing_format(struct disk *d, const struct head *h, char name[32])
{
	uint64_t at = be32toh(h->version) == 2 ? 72 : be32toh(h->head_bytes);
	struct { uint32_t type, bytes; } e;

	name[0] = 0;
	for (unsigned n = 0; n < 64 && at < qcow2_of(d)->cluster_bytes; n++) {
		int error = file_read(&d->file, at, &e, sizeof(e));

		if (error || !e.type)
			return error;
		if (be32toh(e.type) == EXTENSION_FORMAT) {
			if (be32toh(e.bytes) > 31)
				return -EBADMSG;
			memset(name, 0, 32);
			return file_read(&d->file, at + 8, name, be32toh(e.bytes));
		}
		at += 8 + ((uint64_t)be32toh(e.bytes) + 7) / 8 * 8;
	}
	return 0;
}

/* Nothing in the file says which content its backing file had. */
static int qcow2_check_backing(struct disk *child, struct disk *backing, struct disk_error *error)
{
	if (backing->sector_bytes > child->sector_bytes)
		return disk_fail(error, -ENOTSUP, child->path,
				 "its backing file %s has larger sectors", backing->path);
	return 0;
}

static int open_backing(struct disk *d, const struct head *h, const struct disk_options *o,
			struct disk_error *error)
{
	uint32_t bytes = be32toh(h->backing_bytes);
	char name[NAME_BYTES + 1] = "";
	char format_name[32], *child;
	char *path = NULL;
	struct parent_query query = { .check = qcow2_check_backing };
	int result =
		!bytes || bytes > NAME_BYTES
			? -EBADMSG
			: file_read(&d->file, be64toh(h->backing_offset) & INT64_MAX, name, bytes);

	if (!result)
		result = backing_format(d, h, format_name);
	if (result)
		return disk_fail(error, result, d->path,
				 "the name of its backing file cannot be read");
	if (!strcmp(format_name, "vpc"))
		strcpy(format_name, "vhd");
	if (!format_name[0] || !disk_format_parse(format_name, &query.format))
		return disk_fail(error, -ENOTSUP, d->path,
				 "does not say a known format for its backing file");
	if (strlen(name) != bytes || !strncmp(name, "json:", 5))
		return disk_fail(error, -ENOTSUP, d->path, "its backing file is not a plain path");
	child = strdup(d->path);
	if (child && *name == '/')
		path = strdup(name);
	else if (child && asprintf(&path, "%s/%s", dirname(child), name) < 0)
		path = NULL;
	query.path[0] = path;
	result = path ? search_parent(d, &query, o, error)
		      : disk_fail(error, -ENOMEM, d->path, "no memory");
	free(path);
	free(child);
	return result;
}

int qcow2_open(struct disk *d, const struct disk_options *o, struct disk_error *error)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	int64_t bytes = file_size(&d->file);
	struct head h;
	int result = q ? 0 : -ENOMEM;

	if (!result && bytes < 0)
		result = (int)bytes;
	if (!result)
		result = file_read(&d->file, 0, &h, sizeof(h));
	if (result)
		disk_fail(error, result, d->path, "%s", strerror(-result));
	else if (d->write)
		result = disk_fail(error, -ENOTSUP, d->path, "qcow2 can only be read: convert it");
	if (result) {
		free(q);
		return result;
	}
	pthread_mutex_init(&q->lock, NULL);
	d->format = q;
	d->sector_bytes = SECTOR;
	q->file_bytes = (uint64_t)bytes;
	result = check_head(d, &h, error);
	if (!result)
		result = read_l1(d, &h, (uint64_t)bytes, error);
	d->is_child = h.backing_offset != 0;
	d->block_bytes = q->cluster_bytes;
	if (!result && d->is_child && !o->without_parents)
		result = open_backing(d, &h, o, error);
	if (result) {
		qcow2_release(q);
		return result;
	}
	d->driver = &driver;
	return 0;
}
