/*
 * NTFS: $Bitmap, against the runs of every record of $MFT that is in use. Refused: a volume that
 * says that it is dirty, a $LogFile that was not closed, and one that Windows sleeps on
 * (hiberfil.sys). (Source: the structures as ntfs-3g's documentation and Microsoft's describe
 * them.)
 *
 *   boot sector -> $MFT (record 0 says where its own data is) -> records: attributes, resident or
 *   in runs of clusters
 *
 * Attribute lists are not needed: a record that continues another one is a record, too.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "space_map.h"

enum {
	BOOT_BYTES = 512,
	RECORD_MIN_BYTES = 512,
	RECORD_MAX_BYTES = 65536,
	RUNS_MAX = 1 << 20,
	PIECE_BYTES = 65536,
	PAGE_BYTES = 4096,
	MFT = 0,
	LOG_FILE = 2,
	VOLUME = 3,
	ROOT = 5,
	BITMAP = 6
};
enum { ATTRIBUTE_NAME = 0x30, ATTRIBUTE_VOLUME = 0x70, ATTRIBUTE_DATA = 0x80, ATTRIBUTES_END = -1 };
/* of the volume: dirty, an upgrade, a change under way, chkdsk was at it */
#define VOLUME_NOT_CLEAN 0x8015u

struct run { uint64_t cluster, count; };
/* cluster of a hole: HOLE */
#define HOLE UINT64_MAX

/* Data in runs, as far as they are known: those of one that continues in other records come in
 * order. */
struct stream { struct run *run; unsigned count; uint64_t clusters, bytes; };

struct ntfs {
	const struct scan_volume *volume;
	struct space_map *map;
	uint32_t sector_bytes, cluster_bytes, record_bytes;
	uint64_t clusters;
	struct stream mft;
	uint8_t *record;
};

/* Within the record; value: of a resident one. */
struct attribute {
	uint32_t type, at, bytes, value_at, value_bytes;
	bool resident, named;
};

static uint16_t read_16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}
static uint32_t read_32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}
static uint64_t read_64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

static int unsound(struct ntfs *ntfs, const char *what)
{
	return space_refuse(ntfs->map, -EBADMSG, "%s is not sound", what);
}

/* ---- runs ---- */

static int read_signed(const uint8_t *at, unsigned bytes, int64_t *ret)
{
	uint64_t value = 0;

	if (bytes > 8)
		return -EBADMSG;
	for (unsigned n = 0; n < bytes; n++)
		value |= (uint64_t)at[n] << 8 * n;
	if (bytes && bytes < 8 && at[bytes - 1] & 0x80)
		value |= UINT64_MAX << 8 * bytes;
	*ret = (int64_t)value;
	return 0;
}

/* The next run of an attribute; 1: there was one, 0: the end. *at moves on, *cluster is where the
 * last one was. */
static int take_run(const struct ntfs *ntfs, uint32_t *at, uint32_t end, uint64_t *cluster,
		    struct run *ret)
{
	const uint8_t *from = ntfs->record + *at;
	unsigned count_bytes, place_bytes;
	int64_t count, step;

	if (*at >= end)
		return -EBADMSG;
	if (!*from)
		return 0;
	count_bytes = *from & 15;
	place_bytes = *from >> 4;
	if (1 + count_bytes + place_bytes > end - *at ||
	    read_signed(from + 1, count_bytes, &count) ||
	    read_signed(from + 1 + count_bytes, place_bytes, &step) || count <= 0 ||
	    (uint64_t)count > ntfs->clusters)
		return -EBADMSG;
	*at += 1 + count_bytes + place_bytes;
	*ret = (struct run){ .cluster = HOLE, .count = (uint64_t)count };
	if (!place_bytes)
		return 1;
	*cluster += (uint64_t)step;
	if (*cluster >= ntfs->clusters || ret->count > ntfs->clusters - *cluster)
		return -EBADMSG;
	ret->cluster = *cluster;
	return 1;
}

/* The runs of an attribute to the end of a stream, when they are what follows there. */
static int stream_add(struct ntfs *ntfs, const struct attribute *attribute, struct stream *stream)
{
	const uint8_t *head = ntfs->record + attribute->at;
	uint32_t at = attribute->at + read_16(head + 32);
	uint32_t end = attribute->at + attribute->bytes;
	uint64_t cluster = 0;
	struct run run;
	int got;

	if (read_64(head + 16) != stream->clusters)
		return 0;
	if (!stream->clusters)
		stream->bytes = read_64(head + 48);
	while ((got = take_run(ntfs, &at, end, &cluster, &run)) > 0) {
		struct run *more = stream->count < RUNS_MAX
					   ? realloc(stream->run,
						     (stream->count + 1) * sizeof(*more))
					   : NULL;

		if (!more)
			return -ENOMEM;
		stream->run = more;
		stream->run[stream->count++] = run;
		stream->clusters += run.count;
		if (stream->clusters > ntfs->clusters)
			return -EBADMSG;
	}
	return got;
}

static bool is_whole(const struct ntfs *ntfs, const struct stream *stream)
{
	return stream->bytes <= stream->clusters * ntfs->cluster_bytes;
}

static int stream_read(const struct ntfs *ntfs, const struct stream *stream, uint64_t at, void *to,
		       uint64_t bytes)
{
	uint64_t begin = 0;
	int error = 0;

	for (unsigned n = 0; n < stream->count && bytes && !error; n++) {
		uint64_t length = stream->run[n].count * ntfs->cluster_bytes;

		if (at - begin < length) {
			uint64_t there = length - (at - begin);

			there = there < bytes ? there : bytes;
			if (stream->run[n].cluster == HOLE)
				memset(to, 0, there);
			else
				error = volume_read(ntfs->volume,
						    stream->run[n].cluster * ntfs->cluster_bytes +
							    (at - begin),
						    to, there);
			to = (uint8_t *)to + there;
			at += there;
			bytes -= there;
		}
		begin += length;
	}
	return bytes && !error ? -EBADMSG : error;
}

/* ---- records ---- */

/* The last two bytes of each sector stand elsewhere, and in their place a number. */
static bool mend(uint8_t *record, uint32_t bytes, uint32_t sector_bytes)
{
	uint32_t at = read_16(record + 4);
	uint32_t count = read_16(record + 6);

	if (!count || count - 1 != bytes / sector_bytes || at + 2 * count > sector_bytes - 2)
		return false;
	for (uint32_t n = 1; n < count; n++) {
		uint8_t *end = record + n * sector_bytes - 2;

		if (memcmp(end, record + at, 2))
			return false;
		memcpy(end, record + at + 2 * n, 2);
	}
	return true;
}

/* Into ntfs->record. -ENOENT: none that is in use. */
static int read_record(struct ntfs *ntfs, uint64_t number)
{
	int error = stream_read(ntfs, &ntfs->mft, number * ntfs->record_bytes, ntfs->record,
				ntfs->record_bytes);

	if (error)
		return error;
	if (!memcmp(ntfs->record, "BAAD", 4))
		return -EBADMSG;
	if (memcmp(ntfs->record, "FILE", 4))
		return -ENOENT;
	if (!mend(ntfs->record, ntfs->record_bytes, RECORD_MIN_BYTES))
		return -EBADMSG;
	return read_16(ntfs->record + 22) & 1 ? 0 : -ENOENT;
}

/* What follows the attribute in *attribute (all zero: the first one). 1, 0: the end, -EBADMSG. */
static int next_attribute(const struct ntfs *ntfs, struct attribute *attribute)
{
	uint32_t at = attribute->bytes ? attribute->at + attribute->bytes
				       : read_16(ntfs->record + 20);
	const uint8_t *head = ntfs->record + at;

	if (at > ntfs->record_bytes - 4)
		return -EBADMSG;
	*attribute = (struct attribute){ .type = read_32(head), .at = at };
	if (attribute->type == (uint32_t)ATTRIBUTES_END)
		return 0;
	if (at > ntfs->record_bytes - 24)
		return -EBADMSG;
	attribute->bytes = read_32(head + 4);
	attribute->resident = !head[8];
	attribute->named = head[9];
	if (attribute->bytes < 24 || attribute->bytes & 7 ||
	    attribute->bytes > ntfs->record_bytes - at)
		return -EBADMSG;
	if (!attribute->resident)
		return attribute->bytes >= 64 && read_16(head + 32) < attribute->bytes ? 1
										       : -EBADMSG;
	attribute->value_bytes = read_32(head + 16);
	attribute->value_at = at + read_16(head + 20);
	return read_16(head + 20) <= attribute->bytes &&
			       attribute->value_bytes <= attribute->bytes - read_16(head + 20)
		       ? 1
		       : -EBADMSG;
}

static bool is_data(const struct attribute *attribute)
{
	return attribute->type == ATTRIBUTE_DATA && !attribute->named;
}

/* The data of the record that was read, as far as it is there. */
static int read_stream(struct ntfs *ntfs, struct stream *ret)
{
	struct attribute attribute = { 0 };
	int got = 0;
	int error = 0;

	while (!error && (got = next_attribute(ntfs, &attribute)) > 0)
		if (is_data(&attribute) && !attribute.resident)
			error = stream_add(ntfs, &attribute, ret);
	return error ? error : got;
}

static int read_whole_stream(struct ntfs *ntfs, uint64_t number, struct stream *ret)
{
	int error = read_record(ntfs, number);

	if (!error)
		error = read_stream(ntfs, ret);
	return error || ret->count == 0 || is_whole(ntfs, ret) ? error : -ENOTSUP;
}

/* ---- $MFT ---- */

static int open_boot(struct ntfs *ntfs, uint64_t *ret_mft)
{
	uint8_t boot[BOOT_BYTES];
	uint32_t per_cluster;
	int error = volume_read(ntfs->volume, 0, boot, sizeof(boot));
	int8_t size;

	if (error)
		return space_refuse(ntfs->map, error, "its boot sector cannot be read");
	size = (int8_t)boot[64];
	ntfs->sector_bytes = read_16(boot + 11);
	per_cluster = boot[13] > 0x80 ? 1u << ((256 - boot[13]) & 31) : boot[13];
	if (memcmp(boot + 3, "NTFS    ", 8) || ntfs->sector_bytes < 512 ||
	    ntfs->sector_bytes > PAGE_BYTES || ntfs->sector_bytes & (ntfs->sector_bytes - 1) ||
	    !per_cluster || per_cluster > (2u << 20) / ntfs->sector_bytes ||
	    per_cluster & (per_cluster - 1) || size < -16)
		return unsound(ntfs, "its boot sector");
	ntfs->cluster_bytes = per_cluster * ntfs->sector_bytes;
	ntfs->clusters = read_64(boot + 40) / per_cluster;
	ntfs->record_bytes = size < 0 ? 1u << -size : (uint32_t)size * ntfs->cluster_bytes;
	*ret_mft = read_64(boot + 48);
	if (ntfs->record_bytes < RECORD_MIN_BYTES || ntfs->record_bytes > RECORD_MAX_BYTES ||
	    ntfs->record_bytes & (ntfs->record_bytes - 1) || *ret_mft >= ntfs->clusters)
		return unsound(ntfs, "its boot sector");
	return space_begin(ntfs->map, ntfs->clusters, ntfs->cluster_bytes);
}

/* $MFT's first record says where it goes on; where it has more runs than there is room for, records
 * that are already known do. */
static int open_mft(struct ntfs *ntfs, uint64_t first)
{
	struct stream begin = { .run = &(struct run){ .cluster = first, .count = 16 },
				.count = 1,
				.clusters = 16 };
	struct stream whole = { 0 };
	int error;

	if (begin.run->count > ntfs->clusters - first)
		begin.run->count = ntfs->clusters - first;
	if (begin.run->count * ntfs->cluster_bytes < ntfs->record_bytes)
		begin.run->count = ntfs->record_bytes / ntfs->cluster_bytes;
	ntfs->mft = begin;
	error = read_record(ntfs, MFT);
	ntfs->mft = (struct stream){ 0 };
	if (!error)
		error = read_stream(ntfs, &whole);
	ntfs->mft = whole;
	for (uint64_t n = 1; !error && !is_whole(ntfs, &ntfs->mft); n++) {
		if ((n + 1) * ntfs->record_bytes > ntfs->mft.clusters * ntfs->cluster_bytes)
			error = -EBADMSG;
		else
			error = read_record(ntfs, n);
		if (!error && (read_64(ntfs->record + 32) & ((1ull << 48) - 1)) == MFT)
			error = read_64(ntfs->record + 32) ? read_stream(ntfs, &ntfs->mft) : 0;
		error = error == -ENOENT ? 0 : error;
	}
	if (!error && !ntfs->mft.count)
		error = -EBADMSG;
	return error ? unsound(ntfs, "its $MFT") : 0;
}

/* ---- whether it was left as it should be ---- */

static int check_dirty(struct ntfs *ntfs)
{
	struct attribute attribute = { 0 };
	int got = read_record(ntfs, VOLUME);

	if (!got)
		while ((got = next_attribute(ntfs, &attribute)) > 0)
			if (attribute.type == ATTRIBUTE_VOLUME && attribute.resident &&
			    attribute.value_bytes >= 12)
				break;
	if (got <= 0)
		return unsound(ntfs, "$Volume");
	return read_16(ntfs->record + attribute.value_at + 10) & VOLUME_NOT_CLEAN
		       ? space_refuse(ntfs->map, -EBUSY, "says that it is dirty: chkdsk has to run")
		       : 0;
}

/* One of $LogFile's two first pages: closed, or never used. */
static bool is_closed(const uint8_t *page, uint64_t *ret_sequence)
{
	uint32_t at = read_16(page + 24);
	bool empty = true;

	*ret_sequence = 0;
	for (unsigned n = 0; n < PAGE_BYTES && empty; n++)
		empty = page[n] == 0xff;
	if (empty)
		return true;
	if ((memcmp(page, "RSTR", 4) && memcmp(page, "CHKD", 4)) || at > 512)
		return false;
	*ret_sequence = read_64(page + at);
	return read_16(page + at + 12) == 0xffff || read_16(page + at + 14) & 2;
}

static int check_log(struct ntfs *ntfs)
{
	uint8_t page[2][PAGE_BYTES];
	struct stream log = { 0 };
	uint64_t sequence[2];
	bool closed[2];
	int error = read_whole_stream(ntfs, LOG_FILE, &log);

	for (unsigned n = 0; n < 2 && !error; n++)
		error = stream_read(ntfs, &log, (uint64_t)n * PAGE_BYTES, page[n], PAGE_BYTES);
	free(log.run);
	if (error)
		return unsound(ntfs, "$LogFile");
	for (unsigned n = 0; n < 2; n++)
		closed[n] = is_closed(page[n], &sequence[n]);
	return closed[sequence[1] > sequence[0]] && (closed[0] || closed[1])
		       ? 0
		       : space_refuse(ntfs->map, -EBUSY,
				      "was not unmounted: its $LogFile has to be replayed");
}

static bool is_hibernation(const struct ntfs *ntfs, const struct attribute *attribute)
{
	static const char wanted[] = "hiberfil.sys";
	const uint8_t *value = ntfs->record + attribute->value_at;
	unsigned length = sizeof(wanted) - 1;

	if (attribute->type != ATTRIBUTE_NAME || !attribute->resident ||
	    attribute->value_bytes < 66 + 2 * length || value[64] != length ||
	    (read_64(value) & ((1ull << 48) - 1)) != ROOT)
		return false;
	for (unsigned n = 0; n < length; n++)
		if ((read_16(value + 66 + 2 * n) | 0x20) != (wanted[n] | 0x20))
			return false;
	return true;
}

/* Windows sleeps when its file begins with anything but zeros, or what it leaves when it wakes. */
static int check_hibernation(struct ntfs *ntfs)
{
	struct stream stream = { 0 };
	uint8_t head[4] = { 0 };
	int error = read_stream(ntfs, &stream);

	if (!error && stream.count)
		error = stream_read(ntfs, &stream, 0, head, sizeof(head));
	free(stream.run);
	if (error)
		return unsound(ntfs, "hiberfil.sys");
	if (!memcmp(head, "\0\0\0\0", 4) || !memcmp(head, "wake", 4) || !memcmp(head, "WAKE", 4))
		return 0;
	return space_refuse(ntfs->map, -EBUSY,
			    "Windows sleeps on it (hiberfil.sys): it has to be shut down");
}

/* ---- free and used ---- */

static int read_free(struct ntfs *ntfs)
{
	uint64_t bytes = (ntfs->clusters + 7) / 8;
	uint8_t *piece = malloc(PIECE_BYTES);
	struct stream bitmap = { 0 };
	int error = piece ? read_whole_stream(ntfs, BITMAP, &bitmap) : -ENOMEM;

	if (!error && bitmap.bytes < bytes)
		error = -EBADMSG;
	for (uint64_t at = 0; at < bytes && !error; at += PIECE_BYTES) {
		uint64_t n = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;

		error = stream_read(ntfs, &bitmap, at, piece, n);
		for (uint64_t k = 0; k < n * 8 && at * 8 + k < ntfs->clusters && !error; k++)
			if (!(piece[k / 8] >> (k & 7) & 1))
				error = space_free(ntfs->map, at * 8 + k, 1);
	}
	free(bitmap.run);
	free(piece);
	return error ? unsound(ntfs, "$Bitmap") : 0;
}

static int use_runs(struct ntfs *ntfs, const struct attribute *attribute)
{
	uint32_t at = attribute->at + read_16(ntfs->record + attribute->at + 32);
	uint32_t end = attribute->at + attribute->bytes;
	uint64_t cluster = 0;
	struct run run;
	int error = 0;
	int got = 0;

	while (!error && (got = take_run(ntfs, &at, end, &cluster, &run)) > 0)
		if (run.cluster != HOLE)
			error = space_used(ntfs->map, run.cluster, run.count);
	return error ? error : got;
}

/* $BadClus has the whole volume as holes. */
static int use_record(struct ntfs *ntfs)
{
	struct attribute attribute = { 0 };
	bool hibernation = false;
	int error = 0;
	int got = 0;

	while (!error && (got = next_attribute(ntfs, &attribute)) > 0) {
		hibernation |= is_hibernation(ntfs, &attribute);
		if (!attribute.resident)
			error = use_runs(ntfs, &attribute);
	}
	if (!error && got < 0)
		error = got;
	return !error && hibernation ? check_hibernation(ntfs) : error;
}

static int use_all(struct ntfs *ntfs)
{
	uint64_t records = ntfs->mft.bytes / ntfs->record_bytes;
	int error = 0;

	for (uint64_t n = 0; n < records && !error; n++) {
		error = read_record(ntfs, n);
		if (!error)
			error = use_record(ntfs);
		if (error && error != -ENOENT)
			return space_refuse(ntfs->map, error, "record %lu of $MFT is not sound", n);
		error = 0;
	}
	return 0;
}

int space_ntfs(const struct scan_volume *volume, struct space_map *map)
{
	struct ntfs ntfs = { .volume = volume, .map = map };
	uint64_t first = 0;
	int error = open_boot(&ntfs, &first);

	ntfs.record = malloc(RECORD_MAX_BYTES);
	if (!error && !ntfs.record)
		error = space_refuse(map, -ENOMEM, "no memory");
	if (!error)
		error = open_mft(&ntfs, first);
	if (!error)
		error = check_dirty(&ntfs);
	if (!error)
		error = check_log(&ntfs);
	if (!error)
		error = read_free(&ntfs);
	if (!error)
		error = use_all(&ntfs);
	free(ntfs.mft.run);
	free(ntfs.record);
	return error;
}
