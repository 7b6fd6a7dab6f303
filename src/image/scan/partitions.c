/* Partition tables (GPT, UEFI 2.10 section 5; MBR with its chain of logical partitions) and what
 * volumes begin with. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/guid.h"
#include "scan_internal.h"

enum { PARTITIONS = 128, ENTRY_BYTES = 128, ENTRY_MAX_BYTES = 4096, LOGICAL = 64 };

struct gpt_head {
	char magic[8];
	uint32_t revision, bytes, checksum, zero;
	uint64_t here, other, first, last;
	struct guid id;
	uint64_t entries;
	uint32_t count, entry_bytes, entries_checksum;
} __attribute__((packed));
struct gpt_entry {
	struct guid type, id;
	uint64_t first, last, flags;
	uint16_t name[36];
} __attribute__((packed));
struct mbr_entry {
	uint8_t active, from[3], type, to[3];
	uint32_t first, count;
} __attribute__((packed));

/* Of a part that lies together. */
static int read_together(const struct scan_volume *volume, uint64_t at, void *to, size_t bytes)
{
	uint64_t sector = disk_sector_bytes(volume->disk);
	uint64_t from, end;
	uint64_t size = disk_size_bytes(volume->disk);
	uint8_t *buffer;
	int error;

	assert((to || !bytes) && sector && !(sector & (sector - 1)));
	if (at > volume->bytes || bytes > volume->bytes - at) {
		uint64_t there = at < volume->bytes ? volume->bytes - at : 0;

		memset((uint8_t *)to + there, 0, bytes - there);
		bytes = there;
	}
	if (!bytes || volume->offset + at >= size)
		return 0;
	from = (volume->offset + at) / sector * sector;
	end = (volume->offset + at + bytes + sector - 1) / sector * sector;
	if (from == volume->offset + at && !(bytes % sector) && end <= size)
		return disk_read(volume->disk, from, to, bytes);
	end = end < size ? end : size / sector * sector;
	buffer = calloc(1, end - from + 1);
	error = buffer ? disk_read(volume->disk, from, buffer, end - from) : -ENOMEM;
	if (!error)
		memcpy(to, buffer + (volume->offset + at - from),
		       bytes < end - (volume->offset + at) ? bytes : end - (volume->offset + at));
	free(buffer);
	return error;
}

int volume_read(const struct scan_volume *volume, uint64_t at, void *to, size_t bytes)
{
	uint64_t begin = 0;
	int error = 0;

	if (!volume->segment)
		return read_together(volume, at, to, bytes);
	for (unsigned n = 0; n < volume->segments && bytes && !error; n++) {
		const struct scan_segment *segment = &volume->segment[n];
		const struct scan_volume part = { .disk = volume->disk,
						  .offset = segment->at,
						  .bytes = segment->bytes };
		uint64_t there = segment->bytes - (at - begin);

		if (at - begin < segment->bytes) {
			there = there < bytes ? there : bytes;
			error = read_together(&part, at - begin, to, there);
			at += there;
			to = (uint8_t *)to + there;
			bytes -= there;
		}
		begin += segment->bytes;
	}
	memset(to, 0, bytes);
	return error;
}

static void add(json_t *all, uint64_t start, uint64_t bytes, uint64_t size, const char *type,
		const char *name)
{
	if (bytes && start < size && bytes <= size - start && json_array_size(all) < PARTITIONS)
		json_array_append_new(all, json_pack("{s:I, s:I, s:s, s:s*}", "start",
						     (json_int_t)start, "bytes", (json_int_t)bytes,
						     "type", type, "name", name));
}

/* Printable ASCII of a UTF-16 name: enough to recognise it. */
static void plain_name(const struct gpt_entry *entry, char to[37])
{
	uint16_t from[36];
	unsigned n = 0;

	memcpy(from, entry->name, sizeof(from));

	for (; n < 36 && le16toh(from[n]); n++)
		to[n] = le16toh(from[n]) >= 0x20 && le16toh(from[n]) < 0x7f ? (char)le16toh(from[n])
									    : '?';
	to[n] = 0;
}

static bool read_gpt(const struct scan_volume *volume, json_t *all)
{
	uint64_t sector = disk_sector_bytes(volume->disk);
	uint64_t at;
	struct gpt_head head;

	if (volume_read(volume, sector, &head, sizeof(head)) || memcmp(head.magic, "EFI PART", 8) ||
	    head.count > 1024 || head.entry_bytes < ENTRY_BYTES ||
	    head.entry_bytes > ENTRY_MAX_BYTES || head.entries > volume->bytes / sector)
		return false;
	at = head.entries * sector;
	for (uint32_t n = 0; n < head.count; n++, at += head.entry_bytes) {
		char type[GUID_TEXT_BYTES], name[37];
		struct gpt_entry entry;

		if (volume_read(volume, at, &entry, sizeof(entry)))
			break;
		if (guid_is_zero(entry.type) || entry.first > entry.last ||
		    entry.last > volume->bytes / sector)
			continue;
		guid_print(entry.type, type);
		plain_name(&entry, name);
		add(all, entry.first * sector, (entry.last - entry.first + 1) * sector,
		    volume->bytes, type, name);
	}
	return true;
}

static bool read_mbr_sector(const struct scan_volume *volume, uint64_t at,
			    struct mbr_entry entry[4])
{
	uint8_t sector[512];

	if (volume_read(volume, at, sector, sizeof(sector)) || sector[510] != 0x55 ||
	    sector[511] != 0xaa)
		return false;
	memcpy(entry, sector + 446, 64);
	return true;
}

static bool is_extended(uint8_t type) { return type == 5 || type == 15 || type == 0x85; }

static bool read_mbr(const struct scan_volume *volume, json_t *all)
{
	struct mbr_entry entry[4], logical[4];
	char type[8];

	if (!read_mbr_sector(volume, 0, entry))
		return false;
	for (int n = 0; n < 4; n++) /* a boot sector of a file system has no table there */
		if (entry[n].active & 0x7f)
			return false;
	for (int n = 0; n < 4; n++) {
		uint64_t base = le32toh(entry[n].first) * 512ull;
		uint64_t at = base;

		snprintf(type, sizeof(type), "%02x", entry[n].type);
		if (!entry[n].type)
			continue;
		if (!is_extended(entry[n].type)) {
			add(all, base, le32toh(entry[n].count) * 512ull, volume->bytes, type, NULL);
			continue;
		}
		for (int k = 0;
		     k < LOGICAL && at < volume->bytes && read_mbr_sector(volume, at, logical);
		     k++) {
			snprintf(type, sizeof(type), "%02x", logical[0].type);
			if (logical[0].type)
				add(all, at + le32toh(logical[0].first) * 512ull,
				    le32toh(logical[0].count) * 512ull, volume->bytes, type, NULL);
			if (!is_extended(logical[1].type))
				break;
			at = base + le32toh(logical[1].first) * 512ull;
		}
	}
	return json_array_size(all);
}

json_t *scan_partitions(struct disk *disk)
{
	const struct scan_volume volume = { .disk = disk, .bytes = disk_size_bytes(disk) };
	json_t *all = json_array();

	if (!read_gpt(&volume, all) && !read_mbr(&volume, all))
		add(all, 0, volume.bytes, volume.bytes, "whole", NULL);
	return all;
}

struct magic {
	const char *name;
	uint32_t at;
	uint8_t bytes;
	char value[9];
	uint32_t label_at;
	uint8_t label_bytes;
};

/* A volume of this kind has the text VALUE at AT. */
#define MAGIC(NAME, AT, VALUE, LABEL_AT, LABEL_BYTES)                                        \
	{                                                                                    \
		.name = NAME, .at = AT, .bytes = sizeof(VALUE) - 1, .value = VALUE,          \
		.label_at = LABEL_AT, .label_bytes = LABEL_BYTES                             \
	}

static const struct magic magics[] = {
	MAGIC("ext", 1080, "\x53\xef", 1144, 16),
	MAGIC("xfs", 0, "XFSB", 108, 12),
	MAGIC("btrfs", 65600, "_BHRfS_M", 65835, 63),
	MAGIC("ntfs", 3, "NTFS    ", 0, 0),
	MAGIC("fat", 82, "FAT32", 71, 11),
	MAGIC("fat", 54, "FAT", 43, 11),
	MAGIC("swap", 4086, "SWAPSPAC", 1052, 16),
	MAGIC("lvm2", 512, "LABELONE", 0, 0),
	MAGIC("luks", 0, "LUKS\xba\xbe", 0, 0),
	MAGIC("squashfs", 0, "hsqs", 0, 0),
	MAGIC("iso9660", 32769, "CD001", 32808, 32),
	MAGIC("exfat", 3, "EXFAT", 0, 0),
};
enum { MAGICS = sizeof(magics) / sizeof(magics[0]) };

static bool has_magic(const struct scan_volume *volume, const struct magic *magic)
{
	char found[9] = "";

	return !volume_read(volume, magic->at, found, magic->bytes) &&
	       !memcmp(found, magic->value, magic->bytes);
}

bool scan_is_ambiguous(const struct scan_volume *volume)
{
	const char *first = NULL;

	for (size_t n = 0; n < MAGICS; n++) {
		if (!has_magic(volume, &magics[n]))
			continue;
		if (first && strcmp(first, magics[n].name))
			return true;
		first = magics[n].name;
	}
	return false;
}

const char *scan_recognise(const struct scan_volume *volume, char label[64])
{
	label[0] = 0;
	for (size_t n = 0; n < MAGICS; n++) {
		if (!has_magic(volume, &magics[n]))
			continue;
		if (magics[n].label_bytes &&
		    volume_read(volume, magics[n].label_at, label, magics[n].label_bytes))
			return magics[n].name;
		label[magics[n].label_bytes] = 0;
		for (char *character = label; *character; character++)
			*character = *character < 0x20 || *character == 0x7f ? '?' : *character;
		for (size_t end = strlen(label); end && label[end - 1] == ' ';)
			label[--end] = 0;
		return magics[n].name;
	}
	return NULL;
}
