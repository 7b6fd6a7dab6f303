/*
 * Gives clusters of a qcow2 file back, in place: for disk_shrink() alone. (QEMU's
 * docs/interop/qcow2.)
 *
 *  - The file was found sound before its first byte is written: no cluster is named more often than
 *    it is counted, so that one that is given back is nobody else's.
 *  - An entry that names a cluster no more is durable before the cluster is counted less, and that
 *    before its place is freed. Cut off in between, clusters are counted more often than they are
 *    named, which harms nobody: what is opened for this again gives those back, too.
 *  - `freed` lists what is not yet counted less.
 *
 * Left out, and refused: snapshots, bitmaps and what else a file may have that names clusters;
 * files that were not closed. For one thread.
 */
#include <endian.h>
#include <stdlib.h>

#include "qcow2_internal.h"

enum { ENTRIES_AT_ONCE = 4096, FREED_MAX = 1 << 16, UNKNOWN = -1 };
enum { FEATURE_DIRTY = 1, ORDER_MAX = 6, ORDER_OF_2 = 4 };
#define L1_BYTES_MAX (32ull << 20) /* QEMU's limits */
#define COUNTS_TABLE_BYTES_MAX (8ull << 20)
#define CLUSTERS_MAX (1ull << 27)

struct freed { uint64_t cluster; uint32_t times; };

struct qcow2_shrinker {
	uint64_t clusters; /* of the file */
	uint16_t *named;   /* how often; until the first is given back */
	uint64_t *counts;  /* where blocks of counts are; big-endian */
	uint64_t counts_blocks;
	uint8_t *block; /* one of them */
	int64_t block_is;
	bool block_changed, has_backing;
	unsigned order;
	struct freed *freed;
	size_t freed_used;
	/* what is not sound, and where the file says so; REFUSAL_NONE: nothing */
	enum disk_refusal why;
	const char *why_text;
	uint64_t why_at;
};

static int unsound(struct qcow2_shrinker *shrinker, enum disk_refusal why, uint64_t at,
		   const char *text)
{
	shrinker->why = why;
	shrinker->why_text = text;
	shrinker->why_at = at;
	return -EBADMSG;
}

/* ---- counts ---- */

/* Of one cluster, in a block: 2^order bits. */
static uint64_t count_get(const uint8_t *block, uint64_t n, unsigned order)
{
	uint64_t value = 0;

	if (order < 3)
		return block[n >> (3 - order)] >> ((n << order) & 7) & ((1u << (1 << order)) - 1);
	for (unsigned k = 0; k < 1u << (order - 3); k++)
		value = value << 8 | block[(n << (order - 3)) + k];
	return value;
}

static void count_set(uint8_t *block, uint64_t n, unsigned order, uint64_t value)
{
	unsigned shift = (n << order) & 7;
	unsigned mask = order < 3 ? ((1u << (1 << order)) - 1) << shift : 0;
	uint8_t *at = block + (n >> (3 - (order < 3 ? order : 3)));

	if (order < 3) {
		*at = (uint8_t)((*at & ~mask) | value << shift);
		return;
	}
	for (unsigned k = 1u << (order - 3); k--; value >>= 8)
		block[(n << (order - 3)) + k] = (uint8_t)value;
}

static uint64_t counts_each(const struct qcow2 *qcow2)
{
	return (uint64_t)qcow2->cluster_bytes * 8 >> qcow2->shrinker->order;
}

static int counts_write(struct disk *disk)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	struct qcow2_shrinker *shrinker = qcow2->shrinker;
	int error = 0;

	if (shrinker->block_changed)
		error = file_write(&disk->file, be64toh(shrinker->counts[shrinker->block_is]),
				   shrinker->block, qcow2->cluster_bytes);
	shrinker->block_changed = shrinker->block_changed && error;
	return error;
}

/* The block with a cluster's count; NULL with *ret_error 0: it is not counted. */
static uint8_t *counts_of(struct disk *disk, uint64_t cluster, int *ret_error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	struct qcow2_shrinker *shrinker = qcow2->shrinker;
	uint64_t block = cluster / counts_each(qcow2);

	*ret_error = 0;
	if (block >= shrinker->counts_blocks || !shrinker->counts[block])
		return NULL;
	if (shrinker->block_is == (int64_t)block)
		return shrinker->block;
	*ret_error = counts_write(disk);
	shrinker->block_is = UNKNOWN;
	if (!*ret_error)
		*ret_error = file_read(&disk->file, be64toh(shrinker->counts[block]),
				       shrinker->block, qcow2->cluster_bytes);
	if (*ret_error)
		return NULL;
	shrinker->block_is = (int64_t)block;
	return shrinker->block;
}

static int count_of(struct disk *disk, uint64_t cluster, uint64_t *ret)
{
	const struct qcow2 *qcow2 = qcow2_of(disk);
	int error;
	const uint8_t *block = counts_of(disk, cluster, &error);

	*ret = block ? count_get(block, cluster % counts_each(qcow2), qcow2->shrinker->order) : 0;
	return error;
}

static int count_less(struct disk *disk, const struct freed *freed)
{
	const struct qcow2 *qcow2 = qcow2_of(disk);
	struct qcow2_shrinker *shrinker = qcow2->shrinker;
	uint64_t in = freed->cluster % counts_each(qcow2);
	int error;
	uint8_t *block = counts_of(disk, freed->cluster, &error);
	uint64_t is = block ? count_get(block, in, shrinker->order) : 0;

	if (error || is < freed->times)
		return error ? error : -EBADMSG;
	count_set(block, in, shrinker->order, is - freed->times);
	shrinker->block_changed = true;
	return 0;
}

/* ---- whether it is sound ---- */

/* `by`: where in the file it is named. */
static int name_range(struct qcow2 *qcow2, uint64_t at, uint64_t bytes, uint64_t by)
{
	struct qcow2_shrinker *shrinker = qcow2->shrinker;
	uint64_t last = (at + bytes - 1) >> qcow2->cluster_bits;

	if (at > INT64_MAX || last >= shrinker->clusters)
		return unsound(shrinker, REFUSAL_QCOW2_SHRINK_TABLES, by,
			       "what is not in the file is named");
	for (uint64_t n = at >> qcow2->cluster_bits; n <= last; n++)
		if (shrinker->named[n]++ == UINT16_MAX)
			return unsound(shrinker, REFUSAL_QCOW2_SHRINK_TABLES, by,
				       "a cluster is named too often");
	return 0;
}

static int name_cluster(struct qcow2 *qcow2, uint64_t at, uint64_t by)
{
	return at & (qcow2->cluster_bytes - 1)
		       ? unsound(qcow2->shrinker, REFUSAL_QCOW2_SHRINK_TABLES, by,
				 "what is no cluster is named")
		       : name_range(qcow2, at, qcow2->cluster_bytes, by);
}

static int name_entry(struct qcow2 *qcow2, uint64_t entry, uint64_t by)
{
	if (entry & QCOW2_COMPRESSED)
		return name_range(qcow2, qcow2_packed_at(qcow2, entry),
				  qcow2_packed_bytes(qcow2, entry), by);
	return entry & QCOW2_OFFSET_BITS ? name_cluster(qcow2, entry & QCOW2_OFFSET_BITS, by) : 0;
}

static int name_table(struct disk *disk, uint64_t at, uint64_t by)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	int error = name_cluster(qcow2, at, by);
	const uint64_t *table = error ? NULL : qcow2_table_at(disk, at, &error);

	if (error == -ENODATA)
		error = unsound(qcow2->shrinker, REFUSAL_QCOW2_SHRINK_TABLES, by,
				"a table is named that ends behind the file");
	for (uint64_t n = 0; table && n < qcow2->l2_entries && !error; n++)
		error = name_entry(qcow2, be64toh(table[n * qcow2->entry_words]),
				   at + n * qcow2->entry_words * sizeof(*table));
	return error;
}

/* Also entries beyond the disk's size name clusters. */
static int name_l1(struct disk *disk, const struct qcow2_head *head)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint64_t at = be64toh(head->l1_offset);
	uint64_t bytes = (uint64_t)be32toh(head->l1_entries) * 8;
	uint64_t entry[ENTRIES_AT_ONCE / 8];
	int error = bytes > L1_BYTES_MAX || at & (qcow2->cluster_bytes - 1)
			    ? unsound(qcow2->shrinker, REFUSAL_QCOW2_SHRINK_L1,
				      offsetof(struct qcow2_head, l1_entries),
				      "its first table is not possible")
			    : name_range(qcow2, at, bytes, offsetof(struct qcow2_head, l1_entries));

	for (uint64_t done = 0, part; done < bytes && !error; done += part) {
		part = bytes - done < sizeof(entry) ? bytes - done : sizeof(entry);
		error = file_read(&disk->file, at + done, entry, part);
		for (uint64_t n = 0; n < part / 8 && !error; n++)
			if (be64toh(entry[n]) & QCOW2_OFFSET_BITS)
				error = name_table(disk, be64toh(entry[n]) & QCOW2_OFFSET_BITS,
						   at + done + n * sizeof(*entry));
	}
	return error;
}

static int name_counts(struct disk *disk, const struct qcow2_head *head)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	struct qcow2_shrinker *shrinker = qcow2->shrinker;
	uint64_t at = be64toh(head->refcounts);
	uint64_t bytes = (uint64_t)be32toh(head->refcount_clusters) << qcow2->cluster_bits;
	int error = !bytes || bytes > COUNTS_TABLE_BYTES_MAX || at & (qcow2->cluster_bytes - 1)
			    ? unsound(shrinker, REFUSAL_QCOW2_SHRINK_COUNTS,
				      offsetof(struct qcow2_head, refcounts),
				      "its table of counts is not possible")
			    : name_range(qcow2, at, bytes, offsetof(struct qcow2_head, refcounts));

	shrinker->counts = error ? NULL : malloc(bytes);
	shrinker->counts_blocks = bytes / 8;
	if (!error)
		error = shrinker->counts ? file_read(&disk->file, at, shrinker->counts, bytes)
					 : -ENOMEM;
	for (uint64_t n = 0; n < shrinker->counts_blocks && !error; n++)
		if (shrinker->counts[n])
			error = name_cluster(qcow2, be64toh(shrinker->counts[n]),
					     at + n * sizeof(*shrinker->counts));
	return error;
}

static int free_later(struct disk *disk, uint64_t cluster, uint32_t times)
{
	struct qcow2_shrinker *shrinker = qcow2_of(disk)->shrinker;

	if (shrinker->freed_used && shrinker->freed[shrinker->freed_used - 1].cluster == cluster) {
		shrinker->freed[shrinker->freed_used - 1].times += times;
		return 0;
	}
	if (shrinker->freed_used == FREED_MAX) {
		int error = qcow2_shrink_flush(disk);

		if (error)
			return error;
	}
	shrinker->freed[shrinker->freed_used++] = (struct freed){ cluster, times };
	return 0;
}

static int compare_counts(struct disk *disk)
{
	struct qcow2_shrinker *shrinker = qcow2_of(disk)->shrinker;
	uint64_t count;
	int error = 0;

	for (uint64_t n = 0; n < shrinker->clusters && !error; n++) {
		error = count_of(disk, n, &count);
		if (!error && count < shrinker->named[n])
			error = unsound(shrinker, REFUSAL_QCOW2_SHRINK_TABLES,
					n << qcow2_of(disk)->cluster_bits,
					"the cluster here is named more often than it is counted");
	}
	return error;
}

/* What an earlier one that was cut off has left; once, before anything changes. */
static int free_left_over(struct disk *disk)
{
	struct qcow2_shrinker *shrinker = qcow2_of(disk)->shrinker;
	uint64_t count;
	int error = 0;

	for (uint64_t n = 0; shrinker->named && n < shrinker->clusters && !error; n++) {
		error = count_of(disk, n, &count);
		if (!error && count > shrinker->named[n] && count <= UINT16_MAX)
			error = free_later(disk, n, (uint32_t)(count - shrinker->named[n]));
	}
	free(shrinker->named);
	shrinker->named = NULL;
	return error;
}

static int look_at(struct disk *disk, const struct qcow2_head *head)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	int error = name_range(qcow2, 0, qcow2->cluster_bytes, 0);

	if (!error)
		error = name_l1(disk, head);
	if (!error)
		error = name_counts(disk, head);
	return error ? error : compare_counts(disk);
}

/* ---- beginning, end ---- */

/* 0: it is a plain disk. (head->incompatible: of the host's order, since it was looked at.) */
static int refuse_more(const struct qcow2_head *head, const char *path, struct disk_error *error)
{
	bool three = be32toh(head->version) == 3;

	if (head->snapshots)
		return disk_refuse(error, REFUSAL_QCOW2_SNAPSHOTS, path,
				   offsetof(struct qcow2_head, snapshots), "it has %u snapshots",
				   be32toh(head->snapshots));
	if (three && head->incompatible & FEATURE_DIRTY)
		return disk_refuse(error, REFUSAL_QCOW2_DIRTY, path,
				   offsetof(struct qcow2_head, incompatible), "it was not closed");
	if (three && head->autoclear)
		return disk_refuse(error, REFUSAL_QCOW2_AUTOCLEAR, path,
				   offsetof(struct qcow2_head, autoclear),
				   "%#lx: it has bitmaps, or more that is not known here",
				   be64toh(head->autoclear));
	if (three && be32toh(head->refcount_order) > ORDER_MAX)
		return disk_refuse(error, REFUSAL_QCOW2_COUNT_ORDER, path,
				   offsetof(struct qcow2_head, refcount_order),
				   "counts of 2^%u bits", be32toh(head->refcount_order));
	if (!three && head->backing_offset)
		return disk_refuse(error, REFUSAL_QCOW2_NO_ZERO, path,
				   offsetof(struct qcow2_head, version),
				   "version 2, which cannot say that a child's cluster is zero");
	return 0;
}

static int shrinker_make(struct qcow2 *qcow2, const struct qcow2_head *head)
{
	struct qcow2_shrinker *shrinker = calloc(1, sizeof(*shrinker));

	qcow2->shrinker = shrinker;
	if (!shrinker)
		return -ENOMEM;
	shrinker->clusters = (qcow2->file_bytes + qcow2->cluster_bytes - 1) >> qcow2->cluster_bits;
	if (shrinker->clusters > CLUSTERS_MAX)
		return -EFBIG;
	shrinker->order =
		be32toh(head->version) == 3 ? be32toh(head->refcount_order) : ORDER_OF_2;
	shrinker->has_backing = head->backing_offset != 0;
	shrinker->block_is = UNKNOWN;
	shrinker->named = calloc(shrinker->clusters, sizeof(*shrinker->named));
	shrinker->block = malloc(qcow2->cluster_bytes);
	shrinker->freed = malloc(FREED_MAX * sizeof(*shrinker->freed));
	return shrinker->named && shrinker->block && shrinker->freed ? 0 : -ENOMEM;
}

int qcow2_shrink_begin(struct disk *disk, const struct qcow2_head *head, struct disk_error *error)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	int result = refuse_more(head, disk->path, error);

	if (result)
		return result;
	result = shrinker_make(qcow2, head);
	if (result == -EFBIG)
		return disk_refuse(error, REFUSAL_QCOW2_SHRINK_LARGE, disk->path, DISK_NOWHERE,
				   "%lu bytes", qcow2->file_bytes);
	if (!result)
		result = look_at(disk, head);
	if (result && qcow2->shrinker && qcow2->shrinker->why)
		return disk_refuse(error, qcow2->shrinker->why, disk->path, qcow2->shrinker->why_at,
				   "it is not shrunk: %s", qcow2->shrinker->why_text);
	return result ? disk_refuse_host(error, result, disk->path, "reading its tables") : 0;
}

void qcow2_shrink_end(struct qcow2 *qcow2)
{
	struct qcow2_shrinker *shrinker = qcow2->shrinker;

	if (!shrinker)
		return;
	free(shrinker->named);
	free(shrinker->counts);
	free(shrinker->block);
	free(shrinker->freed);
	free(shrinker);
}

/* ---- giving back ---- */

/* One cluster names its data no more, and reads as zero, also where a backing file has data. */
static int clear_entry(struct disk *disk, uint64_t table_at, uint64_t *table, uint64_t n)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint64_t *entry = table + n * qcow2->entry_words;
	bool hides = qcow2->shrinker->has_backing;

	entry[0] = hides && qcow2->entry_words == 1 ? htobe64(QCOW2_ZERO) : 0;
	if (qcow2->entry_words == 2)
		entry[1] = hides ? htobe64(0xffffffffull << 32) : 0;
	return file_write(&disk->file, table_at + n * qcow2->entry_words * 8, entry,
			  qcow2->entry_words * 8);
}

static int free_data(struct disk *disk, uint64_t entry)
{
	const struct qcow2 *qcow2 = qcow2_of(disk);
	bool packed = entry & QCOW2_COMPRESSED;
	uint64_t at = packed ? qcow2_packed_at(qcow2, entry) : entry & QCOW2_OFFSET_BITS;
	uint64_t bytes = packed ? qcow2_packed_bytes(qcow2, entry) : qcow2->cluster_bytes;
	int error = 0;

	for (uint64_t n = at >> qcow2->cluster_bits;
	     n <= (at + bytes - 1) >> qcow2->cluster_bits && !error; n++)
		error = free_later(disk, n, 1);
	return error;
}

/* A cluster from its beginning on, of which `bytes` are the disk's. */
static int give_back_one(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	uint64_t cluster = offset >> qcow2->cluster_bits;
	uint64_t at = be64toh(qcow2->l1[cluster / qcow2->l2_entries]) & QCOW2_OFFSET_BITS;
	uint64_t n = cluster % qcow2->l2_entries;
	uint64_t *table;
	uint64_t entry = 0;
	int error = 0;

	pthread_mutex_lock(&qcow2->lock);
	table = qcow2_table_at(disk, at, &error);
	if (table)
		entry = be64toh(table[n * qcow2->entry_words]);
	if (entry & (QCOW2_OFFSET_BITS | QCOW2_COMPRESSED))
		error = clear_entry(disk, at, table, n);
	pthread_mutex_unlock(&qcow2->lock);
	if (error || !(entry & (QCOW2_OFFSET_BITS | QCOW2_COMPRESSED)))
		return error;
	*ret_bytes += bytes;
	return free_data(disk, entry);
}

/* What one entry of L1 covers. */
static bool range_has_table(const struct qcow2 *qcow2, uint64_t offset)
{
	uint64_t cluster = offset >> qcow2->cluster_bits;

	return be64toh(qcow2->l1[cluster / qcow2->l2_entries]) & QCOW2_OFFSET_BITS;
}

int qcow2_give_back(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
	const uint64_t cluster = qcow2_of(disk)->cluster_bytes;
	const uint64_t end = offset + bytes;
	int error = free_left_over(disk);

	*ret_bytes = 0;
	for (uint64_t at = (offset + cluster - 1) & -cluster; at < end && !error; at += cluster) {
		uint64_t left = end - at < cluster ? end - at : cluster;

		if (!range_has_table(qcow2_of(disk), at))
			at |= (qcow2_of(disk)->l2_entries * cluster) - cluster;
		else if (left == cluster || end == disk->size_bytes)
			error = give_back_one(disk, at, left, ret_bytes);
	}
	return error;
}

/* Places of clusters that are counted no more, those behind each other at once. */
static int discard_freed(struct disk *disk)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	struct qcow2_shrinker *shrinker = qcow2->shrinker;
	uint64_t begin = 0;
	uint64_t end = 0;
	uint64_t count;
	int error = 0;

	for (size_t n = 0; n <= shrinker->freed_used && !error; n++) {
		uint64_t cluster = n < shrinker->freed_used ? shrinker->freed[n].cluster : 0;
		bool last = n == shrinker->freed_used;

		if (!last) {
			error = count_of(disk, cluster, &count);
			if (error || count)
				continue;
		}
		if (!last && cluster == end) {
			end++;
			continue;
		}
		if (end > begin)
			error = file_discard(&disk->file, begin << qcow2->cluster_bits,
					     (end - begin) << qcow2->cluster_bits);
		begin = cluster;
		end = cluster + 1;
	}
	return error;
}

static int cut_end(struct disk *disk)
{
	struct qcow2 *qcow2 = qcow2_of(disk);
	struct qcow2_shrinker *shrinker = qcow2->shrinker;
	uint64_t clusters = shrinker->clusters;
	uint64_t count = 0;
	int error = 0;

	while (clusters && !error && !count) {
		error = count_of(disk, clusters - 1, &count);
		clusters -= !error && !count;
	}
	if (error || clusters == shrinker->clusters)
		return error;
	error = file_truncate(&disk->file, clusters << qcow2->cluster_bits);
	if (!error) {
		shrinker->clusters = clusters;
		qcow2->file_bytes = clusters << qcow2->cluster_bits;
	}
	return error;
}

/* In the order that is said above. */
int qcow2_shrink_flush(struct disk *disk)
{
	struct qcow2_shrinker *shrinker = qcow2_of(disk)->shrinker;
	int error = file_flush(&disk->file);

	if (error || !shrinker->freed_used)
		return error;
	for (size_t n = 0; n < shrinker->freed_used && !error; n++)
		error = count_less(disk, &shrinker->freed[n]);
	if (!error)
		error = counts_write(disk);
	if (!error)
		error = file_flush(&disk->file);
	if (!error)
		error = discard_freed(disk);
	if (!error)
		error = cut_end(disk);
	shrinker->freed_used = 0;
	return error ? error : file_flush(&disk->file);
}
