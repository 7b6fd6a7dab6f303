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

#include "abi/qcow2.h"
#include "disk/search.h"
#include "inflate.h"

enum { CACHED = 16, SUBCLUSTERS = 32 };
#define MAX_BYTES (64ull << 40)

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

static struct qcow2 *qcow2_of(const struct disk *disk) { return disk->format; }

/* ---- where data is ---- */

static int has_bytes(const struct qcow2 *qcow2, uint64_t offset, uint64_t bytes)
{
	return offset > qcow2->file_bytes || bytes > qcow2->file_bytes - offset ? -ENODATA : 0;
}

/* Held: lock. NULL: it cannot be read, or with -ENODATA is not all there. */
static const uint64_t *table_at(struct disk *disk, uint64_t offset, int *ret_error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	struct cached *oldest = &qcow2->cache[0];

	for (unsigned n = 0; n < CACHED; n++) {
		if (qcow2->cache[n].entries && qcow2->cache[n].offset == offset) {
			qcow2->cache[n].used = ++qcow2->ticks;
			return qcow2->cache[n].entries;
		}
		if (qcow2->cache[n].used < oldest->used)
			oldest = &qcow2->cache[n];
	}
	if (!oldest->entries)
		oldest->entries = malloc(qcow2->cluster_bytes);
	oldest->offset = UINT64_MAX;
	*ret_error = oldest->entries ? has_bytes(qcow2, offset, qcow2->cluster_bytes) : -ENOMEM;
	if (!*ret_error)
		*ret_error = file_read(&disk->file, offset, oldest->entries, qcow2->cluster_bytes);
	if (*ret_error)
		return NULL;
	oldest->offset = offset;
	oldest->used = ++qcow2->ticks;
	return oldest->entries;
}

static void find_subclusters(const struct qcow2 *qcow2, uint64_t in_cluster, uint64_t bitmap,
			     struct run *ret)
{
	uint32_t bytes = qcow2->cluster_bytes / SUBCLUSTERS;
	uint32_t n = (uint32_t)(in_cluster / bytes);
	uint64_t state = (bitmap >> n & 1) | (bitmap >> (n + 32) & 1) << 1;

	while (n < SUBCLUSTERS && ((bitmap >> n & 1) | (bitmap >> (n + 32) & 1) << 1) == state)
		n++;
	ret->bytes = (uint64_t)n * bytes - in_cluster;
	ret->kind = state & 1 ? DATA : SILENT;
	if (state & 2)
		ret->kind = ZERO;
}

/* What an entry of a table of clusters says of the bytes from `in` on in its cluster. */
static int entry_take(const struct qcow2 *qcow2, uint64_t entry, uint64_t bitmap, uint64_t in,
		      struct run *ret)
{
	const uint64_t at = entry & QCOW2_OFFSET_BITS;
	const unsigned bits = 62 - (qcow2->cluster_bits - 8); /* of a compressed cluster's place */

	if (entry & QCOW2_COMPRESSED) {
		const uint64_t sectors = ((entry & (QCOW2_COMPRESSED - 1)) >> bits) + 1;

		ret->kind = COMPRESSED;
		ret->at = entry & ((1ull << bits) - 1);
		ret->packed_bytes = (uint32_t)(sectors * QCOW2_SECTOR_BYTES -
					       (ret->at & (QCOW2_SECTOR_BYTES - 1)));
		return 0;
	}
	ret->at = at + in;
	ret->kind = at ? DATA : SILENT;
	if (qcow2->entry_words == 1 && entry & 1)
		ret->kind = ZERO;
	if (qcow2->entry_words == 2)
		find_subclusters(qcow2, in, bitmap, ret);
	return at & (qcow2->cluster_bytes - 1) || (ret->kind == DATA && !at) ? -EBADMSG : 0;
}

/* What begins at an offset: within one cluster, or as far as a table that is not there would reach.
 * */
static int run_find(struct disk *disk, uint64_t offset, uint64_t bytes, struct run *ret)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint64_t cluster = offset >> qcow2->cluster_bits;
	uint64_t in = offset & (qcow2->cluster_bytes - 1);
	uint64_t l2 = be64toh(qcow2->l1[cluster / qcow2->l2_entries]) & QCOW2_OFFSET_BITS;
	uint64_t entry;
	uint64_t bitmap = 0;
	const uint64_t *table;
	int error = -EIO;

	*ret = (struct run){ .kind = SILENT, .bytes = qcow2->cluster_bytes - in };
	if (l2 & (qcow2->cluster_bytes - 1))
		return -EBADMSG;
	if (!l2) /* a table that is not there says nothing about all that it would cover */
		ret->bytes += (qcow2->l2_entries - 1 - cluster % qcow2->l2_entries)
			      << qcow2->cluster_bits;
	if (l2) {
		pthread_mutex_lock(&qcow2->lock);
		table = table_at(disk, l2, &error);
		entry = table ? be64toh(table[cluster % qcow2->l2_entries * qcow2->entry_words])
			      : 0;
		bitmap = table && qcow2->entry_words == 2
				 ? be64toh(table[cluster % qcow2->l2_entries * 2 + 1])
				 : 0;
		pthread_mutex_unlock(&qcow2->lock);
		if (!table)
			return error;
		if (entry_take(qcow2, entry, bitmap, in, ret))
			return -EBADMSG;
	}
	if (ret->bytes > bytes)
		ret->bytes = bytes;
	if (ret->kind == COMPRESSED && ret->at < qcow2->file_bytes &&
	    ret->packed_bytes > qcow2->file_bytes - ret->at)
		/* counted in sectors: the last one may be cut */
		ret->packed_bytes = (uint32_t)(qcow2->file_bytes - ret->at);
	if (ret->kind == COMPRESSED)
		return has_bytes(qcow2, ret->at, 1);
	return ret->kind == DATA ? has_bytes(qcow2, ret->at, ret->bytes) : 0;
}

/* ---- reading ---- */

/* A whole cluster, as it is unpacked. */
static int read_compressed(struct disk *disk, const struct run *run, uint64_t in_cluster,
			   const struct disk_buffer *buffer)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint8_t *packed = malloc(run->packed_bytes);
	uint8_t *cluster = malloc(qcow2->cluster_bytes);
	int error = packed && cluster ? file_read(&disk->file, run->at, packed, run->packed_bytes)
				      : -ENOMEM;

	if (!error)
		error = inflate_bytes(qcow2->compression, packed, run->packed_bytes, cluster,
				      qcow2->cluster_bytes);
	if (!error)
		buffer_fill(buffer, cluster + in_cluster, run->bytes);
	free(packed);
	free(cluster);
	return error;
}

static struct disk_range range_of(const struct disk *disk, const struct run *run)
{
	struct disk_range range = { .kind = DISK_RANGE_PRESENT, .bytes = run->bytes };

	if (run->kind == ZERO || (run->kind == SILENT && !disk->is_child))
		range.kind = DISK_RANGE_ZERO;
	else if (run->kind == SILENT)
		range.kind = DISK_RANGE_ABSENT;
	return range;
}

static int qcow2_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		      uint64_t bytes, struct disk_range *ret)
{
	struct run run;
	int error = run_find(disk, offset, bytes, &run);

	if (error)
		return error;
	*ret = range_of(disk, &run);
	if (run.kind == DATA)
		return buffer_read(buffer, &disk->file, run.at, run.bytes);
	if (run.kind == COMPRESSED)
		return read_compressed(disk, &run, offset & (qcow2_of(disk)->cluster_bytes - 1),
				       buffer);
	return 0;
}

static int qcow2_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct run run;
	int error = run_find(disk, offset, bytes, &run);

	if (!error)
		*ret = range_of(disk, &run);
	return error;
}

static int qcow2_check(struct disk *disk, void (*report)(void *, const char *), void *context)
{
	struct run run;
	char line[160];

	for (uint64_t at = 0; at < disk->size_bytes; at += run.bytes) {
		int error = run_find(disk, at, disk->size_bytes - at, &run);

		if (!error)
			continue;
		snprintf(line, sizeof(line), "at offset %lu: %s", at, disk_strerror(error));
		report(context, line);
		return 1;
	}
	return 0;
}

static void qcow2_info(const struct disk *disk, struct disk_info *ret)
{
	*ret = (struct disk_info){ .format = DISK_QCOW2,
				   .size_bytes = disk->size_bytes,
				   .logical_sector_bytes = QCOW2_SECTOR_BYTES,
				   .physical_sector_bytes = PHYSICAL_SECTOR_BYTES,
				   .block_bytes = qcow2_of(disk)->cluster_bytes,
				   .has_parent = disk->is_child,
				   .is_linked = disk->parent };
}

static void qcow2_release(struct qcow2 *qcow2)
{
	for (unsigned n = 0; n < CACHED; n++)
		free(qcow2->cache[n].entries);
	free(qcow2->l1);
	pthread_mutex_destroy(&qcow2->lock);
	free(qcow2);
}

static int qcow2_close(struct disk *disk)
{
	qcow2_release(qcow2_of(disk));
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

static int check_head(struct disk *disk, struct qcow2_head *head, struct disk_error *error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint32_t version = be32toh(head->version);

	if (be32toh(head->magic) != QCOW2_MAGIC)
		return disk_fail(error, -EBADMSG, disk->path, "not a qcow2 file");
	if (version != 2 && version != 3)
		return disk_fail(error, -ENOTSUP, disk->path, "qcow2 version %u", version);
	if (version == 2)
		head->incompatible = head->compression = 0;
	qcow2->cluster_bits = be32toh(head->cluster_bits);
	disk->size_bytes = be64toh(head->size_bytes);
	if (qcow2->cluster_bits < 9 || qcow2->cluster_bits > 21 || !disk->size_bytes ||
	    disk->size_bytes > MAX_BYTES)
		return disk_fail(error, -EBADMSG, disk->path,
				 "its cluster size or its size is not possible");
	disk->size_bytes = disk->size_bytes / QCOW2_SECTOR_BYTES * QCOW2_SECTOR_BYTES;
	head->incompatible = be64toh(head->incompatible);
	if (head->incompatible & QCOW2_FEATURE_CORRUPT)
		return disk_fail(error, -EBADMSG, disk->path, "is marked as corrupt");
	if (be32toh(head->crypt) ||
	    head->incompatible & (QCOW2_FEATURE_EXTERNAL | ~(uint64_t)QCOW2_FEATURES))
		return disk_fail(error, -ENOTSUP, disk->path,
				 "is encrypted, has an external data file, "
				 "or needs a feature that is not known here");
	if (head->incompatible & QCOW2_FEATURE_COMPRESSION && head->compression > 1)
		return disk_fail(error, -ENOTSUP, disk->path, "compression %u", head->compression);
	qcow2->compression =
		head->incompatible & QCOW2_FEATURE_COMPRESSION && head->compression == 1
			? COMPRESSION_ZSTD
			: COMPRESSION_DEFLATE;
	qcow2->entry_words = head->incompatible & QCOW2_FEATURE_SUBCLUSTERS ? 2 : 1;
	if (qcow2->entry_words == 2 && qcow2->cluster_bits < 14)
		return disk_fail(error, -EBADMSG, disk->path,
				 "its clusters are too small for subclusters");
	qcow2->cluster_bytes = 1u << qcow2->cluster_bits;
	qcow2->l2_entries = qcow2->cluster_bytes / 8 / qcow2->entry_words;
	return 0;
}

static int read_l1(struct disk *disk, const struct qcow2_head *head, uint64_t file_bytes,
		   struct disk_error *error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint64_t covers = qcow2->l2_entries << qcow2->cluster_bits;
	uint64_t needed = (disk->size_bytes + covers - 1) / covers;
	uint64_t at = be64toh(head->l1_offset);
	int result;

	if (be32toh(head->l1_entries) < needed || at % 8 || at > file_bytes ||
	    needed > (file_bytes - at) / 8)
		return disk_fail(error, -EBADMSG, disk->path,
				 "its first table is too short, or not in the file");
	qcow2->l1 = malloc(needed * 8);
	result = qcow2->l1 ? file_read(&disk->file, at, qcow2->l1, needed * 8) : -ENOMEM;
	return result ? disk_fail(error, result, disk->path, "%s", strerror(-result)) : 0;
}

/* "raw", "qcow2", "vpc", ...; empty where nothing is said. */
static int backing_format(struct disk *disk, const struct qcow2_head *head, char name[32])
{
	uint64_t at = be32toh(head->version) == 2 ? 72 : be32toh(head->head_bytes);
	struct { uint32_t type, bytes; } extension;

	name[0] = 0;
	for (unsigned n = 0; n < 64 && at < qcow2_of(disk)->cluster_bytes; n++) {
		int error = file_read(&disk->file, at, &extension, sizeof(extension));

		if (error || !extension.type)
			return error;
		if (be32toh(extension.type) == QCOW2_EXTENSION_FORMAT) {
			if (be32toh(extension.bytes) > 31)
				return -EBADMSG;
			memset(name, 0, 32);
			return file_read(&disk->file, at + 8, name, be32toh(extension.bytes));
		}
		at += 8 + ((uint64_t)be32toh(extension.bytes) + 7) / 8 * 8;
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

static int open_backing(struct disk *disk, const struct qcow2_head *head,
			const struct disk_options *options, struct disk_error *error)
{
	uint32_t bytes = be32toh(head->backing_bytes);
	char name[QCOW2_NAME_BYTES + 1] = "";
	char format_name[32], *child;
	char *path = NULL;
	struct parent_query query = { .check = qcow2_check_backing };
	int result = !bytes || bytes > QCOW2_NAME_BYTES
			     ? -EBADMSG
			     : file_read(&disk->file, be64toh(head->backing_offset) & INT64_MAX,
					 name, bytes);

	if (!result)
		result = backing_format(disk, head, format_name);
	if (result)
		return disk_fail(error, result, disk->path,
				 "the name of its backing file cannot be read");
	if (!strcmp(format_name, "vpc"))
		strcpy(format_name, "vhd");
	if (!format_name[0] || !disk_format_parse(format_name, &query.format))
		return disk_fail(error, -ENOTSUP, disk->path,
				 "does not say a known format for its backing file");
	if (strlen(name) != bytes || !strncmp(name, "json:", 5))
		return disk_fail(error, -ENOTSUP, disk->path,
				 "its backing file is not a plain path");
	child = strdup(disk->path);
	if (child && *name == '/')
		path = strdup(name);
	else if (child && asprintf(&path, "%s/%s", dirname(child), name) < 0)
		path = NULL;
	query.path[0] = path;
	result = path ? search_parent(disk, &query, options, error)
		      : disk_fail(error, -ENOMEM, disk->path, "no memory");
	free(path);
	free(child);
	return result;
}

int qcow2_open(struct disk *disk, const struct disk_options *options, struct disk_error *error)
{
	struct qcow2 *qcow2 = calloc(1, sizeof(*qcow2));
	int64_t bytes = file_size(&disk->file);
	struct qcow2_head head;
	int result = qcow2 ? 0 : -ENOMEM;

	if (!result && bytes < 0)
		result = (int)bytes;
	if (!result)
		result = file_read(&disk->file, 0, &head, sizeof(head));
	if (result)
		disk_fail(error, result, disk->path, "%s", strerror(-result));
	else if (disk->write)
		result = disk_fail(error, -ENOTSUP, disk->path,
				   "qcow2 can only be read: convert it");
	if (result) {
		free(qcow2);
		return result;
	}
	pthread_mutex_init(&qcow2->lock, NULL);
	disk->format = qcow2;
	disk->sector_bytes = QCOW2_SECTOR_BYTES;
	qcow2->file_bytes = (uint64_t)bytes;
	result = check_head(disk, &head, error);
	if (!result)
		result = read_l1(disk, &head, (uint64_t)bytes, error);
	disk->is_child = head.backing_offset != 0;
	disk->block_bytes = qcow2->cluster_bytes;
	if (!result && disk->is_child && !options->without_parents)
		result = open_backing(disk, &head, options, error);
	if (result) {
		qcow2_release(qcow2);
		return result;
	}
	disk->driver = &driver;
	return 0;
}
