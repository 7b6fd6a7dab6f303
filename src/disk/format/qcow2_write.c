/*
 * qcow2 files (version 3) written once, in the order of the disk; reading is qcow2.c's. (QEMU's
 * docs/interop/qcow2.)
 *
 *   head, written last   L1   clusters and L2 tables as they come   refcount table and blocks
 *
 * 1. The head is written after everything else is durable: an unfinished file is no qcow2 file.
 * 2. `end` is a multiple of the cluster; nothing is at it or behind it.
 * 3. Packed clusters lie behind each other, in clusters of the file that each count how many of
 *    them they have a part of; packed_at, when it is not 0, is in the last cluster of such.
 *
 * With a parent, what it has the same is left out: the file names it as its backing file.
 */
#include <endian.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "abi/qcow2.h"
#include "disk/disk_internal.h"
#include "pack.h"
#include "lib/check.h"

enum { CLUSTER_BITS = 16, REFCOUNT_ORDER = 4, COUNTS_FIRST = 1 << 15 };
enum { L1_BYTES_MAX = 32 << 20, REFCOUNT_TABLE_BYTES_MAX = 8 << 20 }; /* QEMU's limits */

struct writer {
	const struct disk_conversion *of;
	uint32_t cluster_bits, cluster_bytes;
	uint64_t l1_entries, l2_entries;
	uint64_t *l1, *l2; /* l2: of `range`, one entry of L1 */
	uint64_t range;
	bool range_has_entries;
	uint64_t end, packed_at;
	uint16_t *counts; /* of each cluster of the file; big-endian */
	uint64_t counts_room;
};

static void check_writer(const struct writer *writer)
{
	assert(!(writer->end & (writer->cluster_bytes - 1)));
	assert(writer->packed_at <= writer->end);
	assert(writer->end >> writer->cluster_bits <= writer->counts_room);
}

/* ---- places in the file ---- */

static int reserve_counts(struct writer *writer, uint64_t clusters)
{
	uint64_t room = writer->counts_room ? writer->counts_room : COUNTS_FIRST;
	uint16_t *more;

	while (clusters > room)
		room *= 2;
	if (room == writer->counts_room)
		return 0;
	more = realloc(writer->counts, room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	memset(more + writer->counts_room, 0, (room - writer->counts_room) * sizeof(*more));
	writer->counts = more;
	writer->counts_room = room;
	return 0;
}

static int count_one(struct writer *writer, uint64_t cluster)
{
	int error = reserve_counts(writer, cluster + 1);

	if (!error)
		writer->counts[cluster] = htobe16((uint16_t)(be16toh(writer->counts[cluster]) + 1));
	return error;
}

/* Whole clusters behind everything else. */
static int take_clusters(struct writer *writer, uint64_t clusters, uint64_t *ret_at)
{
	int error = 0;

	*ret_at = writer->end;
	for (uint64_t n = 0; n < clusters && !error; n++) {
		error = count_one(writer, writer->end >> writer->cluster_bits);
		writer->end += writer->cluster_bytes;
	}
	CHECK(if (!error) check_writer(writer));
	return error;
}

/* For a packed cluster: where the one before it ends, or, where it would not lie together there,
 * behind everything else. */
static int take_packed(struct writer *writer, uint32_t bytes, uint64_t *ret_at)
{
	uint64_t in = writer->packed_at & (writer->cluster_bytes - 1);
	uint64_t room = in ? writer->cluster_bytes - in : 0;
	uint64_t begun, ended, first;
	int error = 0;

	if ((bytes > room && writer->packed_at + room != writer->end) ||
	    (in && writer->counts[writer->packed_at >> writer->cluster_bits] == UINT16_MAX))
		writer->packed_at = writer->end;
	*ret_at = writer->packed_at;
	first = writer->packed_at >> writer->cluster_bits;
	begun = writer->end >> writer->cluster_bits;
	writer->packed_at += bytes;
	ended = (writer->packed_at - 1) >> writer->cluster_bits;
	for (uint64_t cluster = first; cluster <= ended && !error; cluster++)
		error = count_one(writer, cluster);
	if (ended >= begun)
		writer->end = (ended + 1) << writer->cluster_bits;
	CHECK(if (!error) check_writer(writer));
	return error;
}

static int write_table(struct writer *writer, uint64_t at, const void *table, uint64_t bytes)
{
	return file_write(writer->of->file, at, table, bytes);
}

/* ---- tables of clusters ---- */

static int range_end(struct writer *writer)
{
	uint64_t at;
	int error;

	if (!writer->range_has_entries)
		return 0;
	error = take_clusters(writer, 1, &at);
	if (!error)
		error = write_table(writer, at, writer->l2, writer->cluster_bytes);
	writer->l1[writer->range] = htobe64(at | QCOW2_COPIED);
	memset(writer->l2, 0, writer->cluster_bytes);
	writer->range_has_entries = false;
	return error;
}

static int set_entry(struct writer *writer, uint64_t offset, uint64_t entry)
{
	uint64_t cluster = offset >> writer->cluster_bits;
	uint64_t range = cluster / writer->l2_entries;
	int error = 0;

	assert(range >= writer->range && range < writer->l1_entries);
	if (range != writer->range)
		error = range_end(writer);
	writer->range = range;
	writer->l2[cluster % writer->l2_entries] = htobe64(entry);
	writer->range_has_entries = true;
	return error;
}

static int write_plain(struct writer *writer, const struct pack_unit *unit)
{
	uint64_t at;
	int error = take_clusters(writer, 1, &at);

	if (!error)
		error = file_write(writer->of->file, at, unit->data, unit->data_bytes);
	return error ? error : set_entry(writer, unit->offset, at | QCOW2_COPIED);
}

static int write_packed(struct writer *writer, const struct pack_unit *unit)
{
	unsigned bits = QCOW2_PACKED_BITS(writer->cluster_bits);
	uint64_t at, further;
	int error = take_packed(writer, unit->data_bytes, &at);

	if (!error)
		error = file_write(writer->of->file, at, unit->data, unit->data_bytes);
	if (!error && at >> bits)
		error = -EFBIG;
	if (error)
		return error;
	further = (at + unit->data_bytes - 1) / QCOW2_SECTOR_BYTES - at / QCOW2_SECTOR_BYTES;
	return set_entry(writer, unit->offset, QCOW2_COMPRESSED | further << bits | at);
}

static int write_unit(void *context, const struct pack_unit *unit)
{
	struct writer *writer = context;

	switch (unit->kind) {
	case PACK_SAME: return 0;
	case PACK_ZERO: return set_entry(writer, unit->offset, QCOW2_ZERO);
	case PACK_PLAIN: return write_plain(writer, unit);
	case PACK_PACKED: return write_packed(writer, unit);
	}
	return -EINVAL;
}

/* ---- what the file ends and begins with ---- */

/* Every cluster is counted, also those of the counts themselves. */
static int write_counts(struct writer *writer, struct qcow2_head *head)
{
	uint64_t each = writer->cluster_bytes / 2;
	uint64_t used = writer->end >> writer->cluster_bits;
	uint64_t blocks = 0;
	uint64_t table_clusters = 0;
	uint64_t *table;
	uint64_t table_at, blocks_at;
	int error;

	for (uint64_t before = UINT64_MAX; before != blocks + table_clusters;) {
		before = blocks + table_clusters;
		blocks = (used + before + each - 1) / each;
		table_clusters = (blocks * 8 + writer->cluster_bytes - 1) / writer->cluster_bytes;
	}
	if (blocks * 8 > REFCOUNT_TABLE_BYTES_MAX)
		return -EFBIG;
	error = take_clusters(writer, table_clusters, &table_at);
	if (!error)
		error = take_clusters(writer, blocks, &blocks_at);
	if (!error)
		error = reserve_counts(writer, blocks * each);
	table = error ? NULL : calloc(table_clusters, writer->cluster_bytes);
	if (!error && !table)
		error = -ENOMEM;
	for (uint64_t n = 0; n < blocks && !error; n++)
		table[n] = htobe64(blocks_at + (n << writer->cluster_bits));
	if (!error)
		error = write_table(writer, table_at, table,
				    table_clusters << writer->cluster_bits);
	if (!error)
		error = write_table(writer, blocks_at, writer->counts,
				    blocks << writer->cluster_bits);
	free(table);
	head->refcounts = htobe64(table_at);
	head->refcount_clusters = htobe32((uint32_t)table_clusters);
	return error;
}

/* As QEMU names formats. */
static const char *format_text(enum disk_format format)
{
	return format == DISK_VHD ? "vpc" : disk_format_name(format);
}

/* From the child's directory, so that both can be moved together. To be freed. */
static char *backing_name(const struct disk_conversion *conversion)
{
	char *copy = strdup(conversion->path);
	char *directory = copy ? realpath(dirname(copy), NULL) : NULL;
	char *parent = realpath(conversion->parent->path, NULL);
	char *name = directory && parent ? parent_relative_path(directory, parent) : NULL;

	free(copy);
	free(directory);
	free(parent);
	return name;
}

/* Behind the head: what the backing file is, the end of extensions, and its name. */
static int put_backing(const struct disk_conversion *conversion, uint8_t *cluster,
		       uint32_t cluster_bytes)
{
	struct qcow2_head *head = (struct qcow2_head *)cluster;
	const char *format = format_text(conversion->parent->format_id);
	struct {
		uint32_t type, bytes;
	} extension = { htobe32(QCOW2_EXTENSION_FORMAT), htobe32((uint32_t)strlen(format)) };
	size_t at = sizeof(*head) + sizeof(extension) + (strlen(format) + 7) / 8 * 8 +
		    sizeof(extension);
	char *name = backing_name(conversion);
	size_t bytes = name ? strlen(name) : 0;

	if (!name || bytes > QCOW2_NAME_BYTES || bytes > cluster_bytes - at) {
		free(name);
		return name ? -ENAMETOOLONG : -ENOMEM;
	}
	memcpy(cluster + sizeof(*head), &extension, sizeof(extension));
	memcpy(cluster + sizeof(*head) + sizeof(extension), format, strlen(format));
	memcpy(cluster + at, name, bytes);
	head->backing_offset = htobe64(at);
	head->backing_bytes = htobe32((uint32_t)bytes);
	free(name);
	return 0;
}

static int write_head(struct writer *writer, struct qcow2_head *head)
{
	uint8_t *cluster = calloc(1, writer->cluster_bytes);
	int error = cluster ? 0 : -ENOMEM;

	if (!error)
		memcpy(cluster, head, sizeof(*head));
	if (!error && writer->of->parent)
		error = put_backing(writer->of, cluster, writer->cluster_bytes);
	if (!error)
		error = file_write(writer->of->file, 0, cluster, writer->cluster_bytes);
	free(cluster);
	return error;
}

static int write_end(struct writer *writer)
{
	struct qcow2_head head = {
		.magic = htobe32(QCOW2_MAGIC),
		.version = htobe32(3),
		.cluster_bits = htobe32(writer->cluster_bits),
		.size_bytes = htobe64(writer->of->from->size_bytes),
		.l1_entries = htobe32((uint32_t)writer->l1_entries),
		.l1_offset = htobe64(writer->cluster_bytes),
		.refcount_order = htobe32(REFCOUNT_ORDER),
		.head_bytes = htobe32(sizeof(head)),
	};
	int error = range_end(writer);

	if (writer->of->what->packing == DISK_PACKED_ZSTD) {
		head.incompatible = htobe64(QCOW2_FEATURE_COMPRESSION);
		head.compression = 1;
	}
	if (!error)
		error = write_table(writer, writer->cluster_bytes, writer->l1,
				    writer->l1_entries * 8);
	if (!error)
		error = write_counts(writer, &head);
	if (!error)
		error = file_truncate(writer->of->file, writer->end);
	if (!error)
		error = file_flush(writer->of->file);
	if (!error)
		error = write_head(writer, &head);
	return error ? error : file_flush(writer->of->file);
}

/* ---- all of it ---- */

static int convert(struct writer *writer, struct disk_error *error)
{
	const struct disk_conversion *of = writer->of;
	const struct pack_options options = {
		.base = of->parent,
		.unit_bytes = writer->cluster_bytes,
		.packs = of->what->packing != DISK_UNPACKED,
		.compression = of->what->packing == DISK_PACKED_ZSTD ? COMPRESSION_ZSTD
								     : COMPRESSION_DEFLATE,
		.packed_limit_bytes = writer->cluster_bytes,
	};
	uint64_t l1_clusters =
		(writer->l1_entries * 8 + writer->cluster_bytes - 1) >> writer->cluster_bits;
	uint64_t at;
	int result = take_clusters(writer, 1 + l1_clusters, &at);

	if (!result)
		result = pack_each(of, &options, write_unit, writer, error);
	return result ? result : write_end(writer);
}

static int choose_cluster(struct writer *writer, struct disk_error *error)
{
	uint32_t bytes = writer->of->what->block_bytes;

	writer->cluster_bits = CLUSTER_BITS;
	if (bytes &&
	    (bytes < PACK_UNIT_MIN_BYTES || bytes > PACK_UNIT_MAX_BYTES || bytes & (bytes - 1)))
		return disk_refuse(error, REFUSAL_MAKE_BLOCK, writer->of->path, DISK_NOWHERE,
				   "qcow2 clusters of %u bytes", bytes);
	if (bytes)
		writer->cluster_bits = (uint32_t)__builtin_ctz(bytes);
	writer->cluster_bytes = 1u << writer->cluster_bits;
	writer->l2_entries = writer->cluster_bytes / 8;
	writer->l1_entries =
		(writer->of->from->size_bytes + (writer->l2_entries << writer->cluster_bits) - 1) /
		(writer->l2_entries << writer->cluster_bits);
	if (writer->l1_entries * 8 > L1_BYTES_MAX)
		return disk_refuse(error, REFUSAL_MAKE_CLUSTERS, writer->of->path, DISK_NOWHERE,
				   "a disk that is too large for clusters of %u bytes",
				   writer->cluster_bytes);
	return 0;
}

int qcow2_write_file(const struct disk_conversion *conversion, struct disk_error *error)
{
	struct writer writer = { .of = conversion };
	int result = choose_cluster(&writer, error);

	if (result)
		return result;
	writer.l1 = calloc(writer.l1_entries, 8);
	writer.l2 = calloc(1, writer.cluster_bytes);
	result = writer.l1 && writer.l2 ? convert(&writer, error) : -ENOMEM;
	free(writer.l1);
	free(writer.l2);
	free(writer.counts);
	return result;
}
