/*
 * Stream-optimised VMDK files, as OVF has them: written in one pass, without going back, so that
 * they can go into a pipe; reading is vmdk.c's. (VMware Virtual Disk Format 5.0.)
 *
 *   head (its directory: at the end)   descriptor
 *   per 32 MiB of the disk: packed grains, then their table, where there are any
 *   directory   footer: the head with the directory's place   end
 *
 * The sectors of a file are counted in 32 bits.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmdk.h"
#include "disk/disk_internal.h"
#include "pack.h"

enum { GRAIN_SECTORS = 128, DESCRIPTOR_SECTOR = 1, DESCRIPTOR_SECTORS = 20, OVERHEAD = 128 };
enum { GRAIN_BYTES = GRAIN_SECTORS * VMDK_SECTOR_BYTES, GRAIN_ROOM = GRAIN_BYTES + 2048 };
enum { TABLE_BYTES = VMDK_ENTRIES * 4, CYLINDERS_MAX = 16383, HEADS = 255, TRACK = 63 };
#define DIRECTORY_AT_END UINT64_MAX
#define GRAINS_MAX (64ull << 20) /* as it is read */

struct writer {
	const struct disk_conversion *of;
	uint64_t at; /* where the next byte goes */
	uint32_t *directory, table[VMDK_ENTRIES];
	uint64_t tables, number; /* number: of `table` */
	bool table_has_entries;
};

static int put(struct writer *writer, const void *from, size_t bytes)
{
	int error = file_write(writer->of->file, writer->at, from, bytes);

	writer->at += bytes;
	return error;
}

/* To the next sector. */
static int pad(struct writer *writer)
{
	static const uint8_t zeros[VMDK_SECTOR_BYTES];
	size_t in = writer->at % VMDK_SECTOR_BYTES;

	return in ? put(writer, zeros, VMDK_SECTOR_BYTES - in) : 0;
}

static int put_mark(struct writer *writer, enum vmdk_mark_kind kind, uint64_t sectors)
{
	struct {
		struct vmdk_mark mark;
		uint32_t kind;
		uint8_t rest[496];
	} __attribute__((packed))
	sector = { .mark.sector = htole64(sectors), .kind = htole32(kind) };

	_Static_assert(sizeof(sector) == VMDK_SECTOR_BYTES, "a sector");
	return put(writer, &sector, sizeof(sector));
}

/* Where the next sector is; -EFBIG: too far. */
static int sector_here(const struct writer *writer, uint32_t *ret)
{
	uint64_t sector = writer->at / VMDK_SECTOR_BYTES;

	*ret = htole32((uint32_t)sector);
	return sector > UINT32_MAX ? -EFBIG : 0;
}

static int table_end(struct writer *writer)
{
	int error;

	if (!writer->table_has_entries)
		return 0;
	error = put_mark(writer, VMDK_MARK_TABLE, TABLE_BYTES / VMDK_SECTOR_BYTES);
	if (!error)
		error = sector_here(writer, &writer->directory[writer->number]);
	if (!error)
		error = put(writer, writer->table, TABLE_BYTES);
	memset(writer->table, 0, TABLE_BYTES);
	writer->table_has_entries = false;
	return error;
}

static int write_grain(void *context, const struct pack_unit *unit)
{
	struct writer *writer = context;
	const struct vmdk_mark mark = { .sector = htole64(unit->offset / VMDK_SECTOR_BYTES),
					.bytes = htole32(unit->data_bytes) };
	uint64_t grain = unit->offset / GRAIN_BYTES;
	int error = 0;

	if (unit->kind == PACK_SAME)
		return 0;
	assert(unit->kind == PACK_PACKED && grain / VMDK_ENTRIES >= writer->number);
	if (grain / VMDK_ENTRIES != writer->number)
		error = table_end(writer);
	writer->number = grain / VMDK_ENTRIES;
	if (!error)
		error = sector_here(writer, &writer->table[grain % VMDK_ENTRIES]);
	writer->table_has_entries = true;
	if (!error)
		error = put(writer, &mark, sizeof(mark));
	if (!error)
		error = put(writer, unit->data, unit->data_bytes);
	return error ? error : pad(writer);
}

/* ---- what the file begins and ends with ---- */

static struct vmdk_head head_of(const struct writer *writer, uint64_t directory)
{
	return (struct vmdk_head){
		.magic = htole32(VMDK_MAGIC),
		.version = htole32(3),
		.flags = htole32(VMDK_NEWLINES | VMDK_COMPRESSED | VMDK_MARKED),
		.capacity = htole64(writer->of->from->size_bytes / VMDK_SECTOR_BYTES),
		.grain = htole64(GRAIN_SECTORS),
		.descriptor = htole64(DESCRIPTOR_SECTOR),
		.descriptor_sectors = htole64(DESCRIPTOR_SECTORS),
		.entries = htole32(VMDK_ENTRIES),
		.directory = htole64(directory),
		.overhead = htole64(OVERHEAD),
		.end_of_line = "\n \r\n",
		.compression = htole16(1),
	};
}

/* Of the file, as a descriptor may have it. */
static const char *name_of(const struct disk_conversion *conversion)
{
	const char *path = conversion->what->name ? conversion->what->name : conversion->path;
	const char *last = strrchr(path, '/');
	const char *name = last ? last + 1 : path;

	for (const char *character = name; *character; character++)
		if ((unsigned char)*character < 0x20 || *character == '"')
			return "disk.vmdk";
	return name;
}

static int write_begin(struct writer *writer)
{
	const struct vmdk_head head = head_of(writer, DIRECTORY_AT_END);
	uint64_t sectors = writer->of->from->size_bytes / VMDK_SECTOR_BYTES;
	uint64_t cylinders = sectors / (HEADS * TRACK);
	char text[(OVERHEAD - DESCRIPTOR_SECTOR) * VMDK_SECTOR_BYTES] = "";
	const char *name = name_of(writer->of);
	struct guid random = guid_new();
	uint32_t content_id;
	int error = put(writer, &head, sizeof(head));

	memcpy(&content_id, &random, sizeof(content_id));
	snprintf(
		text, DESCRIPTOR_SECTORS * VMDK_SECTOR_BYTES,
		"# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\n"
		"createType=\"streamOptimized\"\n\n# Extent description\n"
		"RW %lu SPARSE \"%.255s\"\n\n# The Disk Data Base\n#DDB\n\n"
		"ddb.virtualHWVersion = \"4\"\n"
		"ddb.geometry.cylinders = \"%lu\"\nddb.geometry.heads = \"%d\"\n"
		"ddb.geometry.sectors = \"%d\"\nddb.adapterType = \"lsilogic\"\n",
		content_id & 0x7fffffff, VMDK_NO_PARENT, sectors, name,
		cylinders < CYLINDERS_MAX ? cylinders : (uint64_t)CYLINDERS_MAX, HEADS, TRACK);
	return error ? error : put(writer, text, sizeof(text));
}

static int write_end(struct writer *writer)
{
	uint64_t bytes = writer->tables * 4;
	uint64_t sectors = (bytes + VMDK_SECTOR_BYTES - 1) / VMDK_SECTOR_BYTES;
	struct vmdk_head footer;
	uint64_t directory;
	int error = table_end(writer);

	if (!error)
		error = put_mark(writer, VMDK_MARK_DIRECTORY, sectors);
	directory = writer->at / VMDK_SECTOR_BYTES;
	if (!error)
		error = put(writer, writer->directory, bytes);
	if (!error)
		error = pad(writer);
	if (!error)
		error = put_mark(writer, VMDK_MARK_FOOTER, 1);
	footer = head_of(writer, directory);
	if (!error)
		error = put(writer, &footer, sizeof(footer));
	return error ? error : put_mark(writer, VMDK_MARK_END, 0);
}

int vmdk_write_file(const struct disk_conversion *conversion, struct disk_error *error)
{
	static const struct pack_options options = { .unit_bytes = GRAIN_BYTES,
						     .packs = true,
						     .compression = COMPRESSION_ZLIB,
						     .packed_limit_bytes = GRAIN_ROOM };
	uint64_t grains = (conversion->from->size_bytes + GRAIN_BYTES - 1) / GRAIN_BYTES;
	struct writer writer = { .of = conversion,
				 .tables = (grains + VMDK_ENTRIES - 1) / VMDK_ENTRIES };
	int result;

	if (grains > GRAINS_MAX)
		return disk_refuse(error, REFUSAL_MAKE_SIZE, conversion->path, DISK_NOWHERE,
				   "%lu bytes in a stream-optimised VMDK",
				   conversion->from->size_bytes);
	writer.directory = calloc(writer.tables, 4);
	result = writer.directory ? write_begin(&writer) : -ENOMEM;
	if (!result)
		result = pack_each(conversion, &options, write_grain, &writer, error);
	if (!result)
		result = write_end(&writer);
	free(writer.directory);
	return result ? result : file_flush(conversion->file);
}
