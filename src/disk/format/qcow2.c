/*
 * qcow2 files, versions 2 and 3, for reading: what others made is imported or read through.
 * (Specification: QEMU's docs/interop/qcow2.)
 *
 *   header, extensions   table of tables (L1)   tables of clusters (L2)
 *   clusters, some compressed by deflate or zstd
 *
 * A backing file is opened as a parent is: under the allowed places, in the format that the file
 * names; one that names none is refused. Its content is not vouched for: the format has no
 * identifier of data. Left out: writing (qcow2_write.c; clusters are given back by qcow2_shrink.c),
 * encryption, external data files, snapshots.
 *
 * Lock: `lock` guards the cache of L2 tables.
 */
#include <endian.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "disk/search.h"
#include "inflate.h"
#include "qcow2_internal.h"

enum { SUBCLUSTERS = 32, HEAD_MIN_BYTES = 72 };
#define MAX_BYTES (64ull << 40)

enum kind { SILENT, ZERO, DATA, COMPRESSED };
struct run { enum kind kind; uint64_t bytes, at; uint32_t packed_bytes; }; /* at: in the file */

/* ---- where data is ---- */

static bool has_bytes(const struct qcow2 *qcow2, uint64_t offset, uint64_t bytes)
{
	return offset <= qcow2->file_bytes && bytes <= qcow2->file_bytes - offset;
}

uint64_t *qcow2_table_at(struct disk *disk, uint64_t offset, int *ret_error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	struct qcow2_cached *oldest = &qcow2->cache[0];

	for (unsigned n = 0; n < QCOW2_CACHED; n++) {
		if (qcow2->cache[n].entries && qcow2->cache[n].offset == offset) {
			qcow2->cache[n].used = ++qcow2->ticks;
			return qcow2->cache[n].entries;
		}
		if (qcow2->cache[n].used < oldest->used)
			oldest = &qcow2->cache[n];
	}
	*ret_error = -ENODATA;
	if (!has_bytes(qcow2, offset, qcow2->cluster_bytes))
		return NULL;
	if (!oldest->entries)
		oldest->entries = malloc(qcow2->cluster_bytes);
	oldest->offset = UINT64_MAX;
	*ret_error = oldest->entries ? 0 : -ENOMEM;
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

	if (entry & QCOW2_COMPRESSED) {
		ret->kind = COMPRESSED;
		ret->at = qcow2_packed_at(qcow2, entry);
		ret->packed_bytes = qcow2_packed_bytes(qcow2, entry);
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

/* The table of clusters that an entry of the first one names, or why not. */
static int l1_refuse(const struct disk *disk, int error, uint64_t index, uint64_t l2,
		     struct disk_error *why)
{
	const struct qcow2 *qcow2 = qcow2_of(disk);
	const uint64_t at = qcow2->l1_at + index * 8;

	if (error == -EBADMSG)
		return disk_refuse(why, REFUSAL_QCOW2_L1_ENTRY, disk->path, at,
				   "entry %lu names offset %lu, which is within a cluster of %u "
				   "bytes: not sound",
				   index, l2, qcow2->cluster_bytes);
	if (error == -ENODATA)
		return disk_refuse(why, REFUSAL_QCOW2_L1_ENTRY_CUT, disk->path, at,
				   "entry %lu names a table at offset %lu of a file of %lu bytes: "
				   "cut off",
				   index, l2, qcow2->file_bytes);
	return disk_refuse_host(why, error, disk->path, "reading an L2 table");
}

/* Whether the file has what an entry of a table of clusters at `at` names. */
static int run_check(const struct disk *disk, const struct run *run, uint64_t at,
		     struct disk_error *why)
{
	const struct qcow2 *qcow2 = qcow2_of(disk);
	const uint64_t bytes = run->kind == COMPRESSED ? 1 : run->bytes;

	if ((run->kind != DATA && run->kind != COMPRESSED) || has_bytes(qcow2, run->at, bytes))
		return 0;
	return disk_refuse(why, REFUSAL_QCOW2_L2_ENTRY_CUT, disk->path, at,
			   "it names %lu bytes at offset %lu of a file of %lu bytes: cut off",
			   bytes, run->at, qcow2->file_bytes);
}

/* What begins at an offset: within one cluster, or as far as a table that is not there would reach.
 * */
static int run_find(struct disk *disk, uint64_t offset, uint64_t bytes, struct run *ret,
		    struct disk_error *why)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint64_t cluster = offset >> qcow2->cluster_bits;
	uint64_t in = offset & (qcow2->cluster_bytes - 1);
	uint64_t l2 = be64toh(qcow2->l1[cluster / qcow2->l2_entries]) & QCOW2_OFFSET_BITS;
	uint64_t entry_at =
		l2 + cluster % qcow2->l2_entries * qcow2->entry_words * sizeof(*qcow2->l1);
	uint64_t entry;
	uint64_t bitmap = 0;
	const uint64_t *table;
	int error = -EIO;

	*ret = (struct run){ .kind = SILENT, .bytes = qcow2->cluster_bytes - in };
	if (l2 & (qcow2->cluster_bytes - 1))
		return l1_refuse(disk, -EBADMSG, cluster / qcow2->l2_entries, l2, why);
	if (!l2) /* a table that is not there says nothing about all that it would cover */
		ret->bytes += (qcow2->l2_entries - 1 - cluster % qcow2->l2_entries)
			      << qcow2->cluster_bits;
	if (l2) {
		pthread_mutex_lock(&qcow2->lock);
		table = qcow2_table_at(disk, l2, &error);
		entry = table ? be64toh(table[cluster % qcow2->l2_entries * qcow2->entry_words])
			      : 0;
		bitmap = table && qcow2->entry_words == 2
				 ? be64toh(table[cluster % qcow2->l2_entries * 2 + 1])
				 : 0;
		pthread_mutex_unlock(&qcow2->lock);
		if (!table)
			return l1_refuse(disk, error, cluster / qcow2->l2_entries, l2, why);
		if (entry_take(qcow2, entry, bitmap, in, ret))
			return disk_refuse(why, REFUSAL_QCOW2_L2_ENTRY, disk->path, entry_at,
					   "it is %#lx, which names no cluster of %u bytes: not "
					   "sound",
					   entry, qcow2->cluster_bytes);
	}
	if (ret->bytes > bytes)
		ret->bytes = bytes;
	if (ret->kind == COMPRESSED && ret->at < qcow2->file_bytes &&
	    ret->packed_bytes > qcow2->file_bytes - ret->at)
		/* counted in sectors: the last one may be cut */
		ret->packed_bytes = (uint32_t)(qcow2->file_bytes - ret->at);
	return run_check(disk, ret, entry_at, why);
}

/* ---- reading ---- */

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
	const struct qcow2 *qcow2 = qcow2_of(disk);
	struct run run;
	int error = run_find(disk, offset, bytes, &run, NULL);

	if (error)
		return error;
	*ret = range_of(disk, &run);
	if (run.kind == DATA)
		return buffer_read(buffer, &disk->file, run.at, run.bytes);
	if (run.kind == COMPRESSED)
		return inflater_read(qcow2->inflater, &disk->file,
				     &(struct packed_unit){ .at = run.at,
							    .packed_bytes = run.packed_bytes,
							    .bytes = qcow2->cluster_bytes },
				     buffer, (uint32_t)(offset & (qcow2->cluster_bytes - 1)),
				     run.bytes);
	return 0;
}

static int qcow2_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct run run;
	int error = run_find(disk, offset, bytes, &run, NULL);

	if (!error)
		*ret = range_of(disk, &run);
	return error;
}

static int qcow2_explain(struct disk *disk, uint64_t offset, struct disk_error *why)
{
	struct run run;
	int error = run_find(disk, offset, QCOW2_SECTOR_BYTES, &run, why);

	if (error || run.kind != COMPRESSED)
		return error;
	return disk_refuse(why, REFUSAL_QCOW2_PACKED, disk->path, run.at,
			   "%u bytes that do not unpack to a cluster: not sound", run.packed_bytes);
}

static int qcow2_check(struct disk *disk, disk_fault_report *report, void *context)
{
	struct disk_error fault;
	struct run run;

	for (uint64_t at = 0; at < disk->size_bytes; at += run.bytes) {
		if (!run_find(disk, at, disk->size_bytes - at, &run, &fault))
			continue;
		report(context, &fault);
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
	for (unsigned n = 0; n < QCOW2_CACHED; n++)
		free(qcow2->cache[n].entries);
	free(qcow2->l1);
	qcow2_shrink_end(qcow2);
	inflater_destroy(qcow2->inflater);
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
	.explain = qcow2_explain,
	.check = qcow2_check,
	.info = qcow2_info,
	.close = qcow2_close,
};

/* What a file that is shrunk is able to do besides. */
static const struct disk_driver shrinking = {
	.read = qcow2_read,
	.range = qcow2_range,
	.explain = qcow2_explain,
	.check = qcow2_check,
	.info = qcow2_info,
	.close = qcow2_close,
	.give_back = qcow2_give_back,
	.flush = qcow2_shrink_flush,
};

/* ---- opening ---- */

static int check_features(struct disk *disk, const struct qcow2_head *head,
			  struct disk_error *error)
{
	const uint64_t at = offsetof(struct qcow2_head, incompatible);

	if (head->incompatible & QCOW2_FEATURE_CORRUPT)
		return disk_refuse(error, REFUSAL_QCOW2_CORRUPT, disk->path, at,
				   "%#lx: it is marked as corrupt", head->incompatible);
	if (be32toh(head->crypt))
		return disk_refuse(error, REFUSAL_QCOW2_CRYPT, disk->path,
				   offsetof(struct qcow2_head, crypt), "%u: it is encrypted",
				   be32toh(head->crypt));
	if (head->incompatible & QCOW2_FEATURE_EXTERNAL)
		return disk_refuse(error, REFUSAL_QCOW2_EXTERNAL, disk->path, at,
				   "%#lx: it has an external data file", head->incompatible);
	if (head->incompatible & ~(uint64_t)QCOW2_FEATURES)
		return disk_refuse(error, REFUSAL_QCOW2_FEATURE, disk->path, at,
				   "%#lx: it needs a feature that is not known here",
				   head->incompatible);
	if (head->incompatible & QCOW2_FEATURE_COMPRESSION && head->compression > 1)
		return disk_refuse(error, REFUSAL_QCOW2_COMPRESSION, disk->path,
				   offsetof(struct qcow2_head, compression), "compression %u",
				   head->compression);
	return 0;
}

static int check_shape(struct disk *disk, struct qcow2_head *head, struct disk_error *error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint32_t version = be32toh(head->version);

	if (be32toh(head->magic) != QCOW2_MAGIC)
		return disk_refuse(error, REFUSAL_QCOW2_MAGIC, disk->path, 0, "%#x",
				   be32toh(head->magic));
	if (qcow2->file_bytes < HEAD_MIN_BYTES)
		return disk_refuse(error, REFUSAL_QCOW2_SHORT, disk->path, DISK_NOWHERE,
				   "%lu bytes", qcow2->file_bytes);
	if (version != 2 && version != 3)
		return disk_refuse(error, REFUSAL_QCOW2_VERSION, disk->path,
				   offsetof(struct qcow2_head, version), "version %u", version);
	if (version == 2)
		head->incompatible = head->compression = 0;
	qcow2->cluster_bits = be32toh(head->cluster_bits);
	disk->size_bytes = be64toh(head->size_bytes);
	if (qcow2->cluster_bits < 9 || qcow2->cluster_bits > 21)
		return disk_refuse(error, REFUSAL_QCOW2_CLUSTER, disk->path,
				   offsetof(struct qcow2_head, cluster_bits),
				   "clusters of 2^%u bytes", qcow2->cluster_bits);
	if (disk->size_bytes < QCOW2_SECTOR_BYTES || disk->size_bytes > MAX_BYTES)
		return disk_refuse(error, REFUSAL_QCOW2_SIZE, disk->path,
				   offsetof(struct qcow2_head, size_bytes), "a size of %lu bytes",
				   disk->size_bytes);
	disk->size_bytes = disk->size_bytes / QCOW2_SECTOR_BYTES * QCOW2_SECTOR_BYTES;
	head->incompatible = be64toh(head->incompatible);
	return 0;
}

static int check_head(struct disk *disk, struct qcow2_head *head, struct disk_error *error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	int result = check_shape(disk, head, error);

	if (!result)
		result = check_features(disk, head, error);
	if (result)
		return result;
	qcow2->entry_words = head->incompatible & QCOW2_FEATURE_SUBCLUSTERS ? 2 : 1;
	if (qcow2->entry_words == 2 && qcow2->cluster_bits < 14)
		return disk_refuse(error, REFUSAL_QCOW2_CLUSTER, disk->path,
				   offsetof(struct qcow2_head, cluster_bits),
				   "clusters of 2^%u bytes with subclusters", qcow2->cluster_bits);
	qcow2->cluster_bytes = 1u << qcow2->cluster_bits;
	qcow2->l2_entries = qcow2->cluster_bytes / 8 / qcow2->entry_words;
	qcow2->inflater = inflater_create(
		head->incompatible & QCOW2_FEATURE_COMPRESSION && head->compression == 1
			? COMPRESSION_ZSTD
			: COMPRESSION_DEFLATE,
		qcow2->cluster_bytes);
	return qcow2->inflater ? 0 : disk_refuse_host(error, -ENOMEM, disk->path, "opening it");
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
		return disk_refuse(
			error, REFUSAL_QCOW2_L1, disk->path,
			offsetof(struct qcow2_head, l1_entries),
			"%u entries at offset %lu, of which %lu are needed, in a file of "
			"%lu bytes",
			be32toh(head->l1_entries), at, needed, file_bytes);
	qcow2->l1_at = at;
	qcow2->l1 = malloc(needed * 8);
	result = qcow2->l1 ? file_read(&disk->file, at, qcow2->l1, needed * 8) : -ENOMEM;
	return result ? disk_refuse_host(error, result, disk->path, "reading its L1 table") : 0;
}

/* "raw", "qcow2", "vpc", ...; empty where nothing that is short enough is said. *ret_at: where. */
static int backing_format(struct disk *disk, const struct qcow2_head *head, char name[32],
			  uint64_t *ret_at)
{
	uint64_t at = be32toh(head->version) == 2 ? HEAD_MIN_BYTES : be32toh(head->head_bytes);
	const uint64_t end = qcow2_of(disk)->file_bytes < qcow2_of(disk)->cluster_bytes
				     ? qcow2_of(disk)->file_bytes
				     : qcow2_of(disk)->cluster_bytes;
	struct { uint32_t type, bytes; } extension;

	memset(name, 0, 32);
	*ret_at = at < end ? at : offsetof(struct qcow2_head, version);
	for (unsigned n = 0; n < 64 && at < end; n++) {
		int error = file_read(&disk->file, at, &extension, sizeof(extension));

		if (error || !extension.type)
			return error;
		*ret_at = at;
		if (be32toh(extension.type) == QCOW2_EXTENSION_FORMAT)
			return be32toh(extension.bytes) > 31 ? 0
							     : file_read(&disk->file, at + 8, name,
									 be32toh(extension.bytes));
		at += 8 + ((uint64_t)be32toh(extension.bytes) + 7) / 8 * 8;
	}
	return 0;
}

/* Nothing in the file says which content its backing file had. */
static int qcow2_check_backing(struct disk *child, struct disk *backing, struct disk_error *error)
{
	if (backing->sector_bytes > child->sector_bytes)
		return disk_refuse(error, REFUSAL_QCOW2_BACKING_SECTORS, child->path, DISK_NOWHERE,
				   "%s has sectors of %u bytes", backing->path,
				   backing->sector_bytes);
	return 0;
}

/* The backing file's name and format, as the file says them. */
static int read_backing(struct disk *disk, const struct qcow2_head *head,
			char name[QCOW2_NAME_BYTES + 1], enum disk_format *ret_format,
			struct disk_error *error)
{
	uint32_t bytes = be32toh(head->backing_bytes);
	uint64_t name_at = be64toh(head->backing_offset);
	uint64_t format_at = 0;
	char format_name[32];
	int result;

	if (!bytes || bytes > QCOW2_NAME_BYTES || !has_bytes(qcow2_of(disk), name_at, bytes))
		return disk_refuse(error, REFUSAL_QCOW2_BACKING_NAME, disk->path,
				   offsetof(struct qcow2_head, backing_offset),
				   "a name of %u bytes at offset %lu of a file of %lu bytes", bytes,
				   name_at, qcow2_of(disk)->file_bytes);
	result = file_read(&disk->file, name_at, name, bytes);
	if (!result)
		result = backing_format(disk, head, format_name, &format_at);
	if (result)
		return disk_refuse_host(error, result, disk->path,
					"reading the name of its backing file");
	if (!strcmp(format_name, "vpc"))
		strcpy(format_name, "vhd");
	if (!disk_format_parse(format_name, ret_format))
		return disk_refuse(error, REFUSAL_QCOW2_BACKING_FORMAT, disk->path, format_at,
				   format_name[0] ? "%s, which is not a known format"
						  : "no format that is known%s",
				   format_name);
	if (strlen(name) != bytes || !strncmp(name, "json:", 5))
		return disk_refuse(error, REFUSAL_QCOW2_BACKING_PATH, disk->path, name_at,
				   "%.100s, which is not a plain path", name);
	return 0;
}

static int open_backing(struct disk *disk, const struct qcow2_head *head,
			const struct disk_options *options, struct disk_error *error)
{
	char name[QCOW2_NAME_BYTES + 1] = "";
	char *child;
	char *path = NULL;
	struct parent_query query = { .check = qcow2_check_backing };
	int result = read_backing(disk, head, name, &query.format, error);

	if (result)
		return result;
	child = strdup(disk->path);
	if (child && *name == '/')
		path = strdup(name);
	else if (child && asprintf(&path, "%s/%s", dirname(child), name) < 0)
		path = NULL;
	query.path[0] = path;
	result = path ? search_parent(disk, &query, options, error)
		      : disk_refuse_host(error, -ENOMEM, disk->path, "opening its parent");
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
		disk_refuse_host(error, result, disk->path, "reading its header");
	else if (disk->write && !options->to_shrink)
		result = disk_refuse(error, REFUSAL_READ_ONLY_FORMAT, disk->path, DISK_NOWHERE,
				     "qcow2 can only be read");
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
	if (!result && disk->write)
		result = qcow2_shrink_begin(disk, &head, error);
	/* the last: nobody closes it for one that is refused */
	if (!result && disk->is_child && !options->without_parents)
		result = open_backing(disk, &head, options, error);
	if (result) {
		qcow2_release(qcow2);
		return result;
	}
	disk->driver = disk->write ? &shrinking : &driver;
	return 0;
}
