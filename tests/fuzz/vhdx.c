/*
 * VHDX files: the input changes a good file (headers and region tables get their checksums again,
 * so that what they guard is reached), which is then opened, read, written, resized and closed.
 * Nothing may crash, hang or grow without bound; what opens, checks and reads.
 */
#include "../disk/memory_file.h"
#include "disk/format/vhdx_internal.h"
#include "lib/crc32c.h"
#include "fuzz.h"

struct change { uint32_t offset; uint8_t bytes, value[11]; };

static struct memory_file *good[3];

static void seal(struct memory_file *file, uint64_t offset, size_t bytes)
{
	uint8_t *block = malloc(bytes);
	uint32_t sum = 0;

	memory_readv(file, offset, &(struct iovec){ block, bytes }, 1);
	memcpy(block + 4, &sum, 4);
	sum = crc32c(0, block, bytes);
	memory_put(file, offset + 4, (const uint8_t *)&sum, 4);
	free(block);
}

static struct memory_file *make(unsigned kind)
{
	struct memory_file *medium = memory_new();
	struct disk_file file = memory_disk_file(medium);
	const struct disk_create what = { .format = DISK_VHDX,
					  .size_bytes = 8 << 20,
					  .block_bytes = 1 << 20,
					  .fixed = kind == 1 };
	uint8_t sector[VHDX_SECTOR_BYTES];
	struct disk_error error;
	struct disk *disk;

	memset(sector, 7, sizeof(sector));
	if (vhdx_create(&file, "fuzz.vhdx", &what, NULL, &error) ||
	    disk_open_file(file, "fuzz.vhdx",
			   &(struct disk_options){ .format = DISK_VHDX, .write = true }, &disk,
			   &error))
		abort();
	disk_write(disk, 1 << 20, sector, sizeof(sector));
	disk_write(disk, 5 << 20, sector, sizeof(sector));
	disk_flush(disk);
	if (kind == 2) { /* as the power went away: with a log */
		struct memory_file *cut = memory_copy(medium);

		disk_close(disk);
		memory_free(medium);
		return cut;
	}
	disk_close(disk);
	return medium;
}

static void nothing(void *context, const char *line)
{
	(void)context;
	(void)line;
}
static int no_change(void *context, uint64_t offset, uint64_t bytes)
{
	(void)context;
	(void)offset;
	(void)bytes;
	return 0;
}

static void use(struct disk *disk)
{
	static uint8_t buffer[1 << 16];
	struct disk_info info;
	struct disk_range range = { .bytes = 0 };
	uint64_t size = disk_size_bytes(disk);

	disk_info(disk, &info);
	disk_check(disk, nothing, NULL);
	if (size < 1 << 28)
		disk_verify(disk, no_change, NULL);
	for (uint64_t at = 0, tries = 0; at < size && tries < 64; at += range.bytes, tries++)
		if (disk_range(disk, at, size - at, &range))
			break;
	disk_read(disk, 0, buffer, size < sizeof(buffer) ? size : sizeof(buffer));
	disk_read(disk, size > sizeof(buffer) ? size - sizeof(buffer) : 0, buffer,
		  size < sizeof(buffer) ? size : sizeof(buffer));
	disk_write(disk, 0, buffer,
		   disk_sector_bytes(disk) < size ? disk_sector_bytes(disk) : size);
	disk_zero(disk, 0, size < 3 << 20 ? size : 3 << 20);
	disk_flush(disk);
	disk_write(disk, size / 2 / VHDX_SECTOR_BYTES * VHDX_SECTOR_BYTES, buffer,
		   size / 2 / VHDX_SECTOR_BYTES * VHDX_SECTOR_BYTES + VHDX_SECTOR_BYTES <= size
			   ? VHDX_SECTOR_BYTES
			   : 0);
	disk_resize(disk, size + VHDX_SECTOR_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct memory_file *file;
	struct disk_error error;
	struct disk *disk;
	unsigned kind = bytes ? data[0] % 3 : 0;

	for (unsigned n = 0; n < 3 && !good[2]; n++)
		good[n] = make(n);
	file = memory_copy(good[kind]);
	for (size_t at = 1; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		struct change change;

		memcpy(&change, data + at, sizeof(change));
		change.bytes %= sizeof(change.value) + 1;
		memory_put(file, change.offset % (16 << 20), change.value, change.bytes);
	}
	if (bytes && data[0] & 64) {
		seal(file, VHDX_HEADER_OFFSET(0), VHDX_SECTOR_BYTES);
		seal(file, VHDX_HEADER_OFFSET(1), VHDX_SECTOR_BYTES);
		seal(file, VHDX_REGION_OFFSET(0), 65536);
		seal(file, VHDX_REGION_OFFSET(1), 65536);
	}
	if (bytes && data[0] & 32) {
		file->fail_after = data[0] & 31;
		file->fail_always = true;
	}
	if (!disk_open_file(memory_disk_file(file), "fuzz.vhdx",
			    &(struct disk_options){ .format = DISK_VHDX,
						    .write = !(bytes && data[0] & 128) },
			    &disk, &error)) {
		use(disk);
		disk_close(disk);
	}
	memory_free(file);
	return 0;
}

/* Where the structures are, and values that their fields may take. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const uint32_t places[] = { 0x10000,  0x20000,  0x30000,  0x40000,  0x100000,
					   0x200000, 0x210000, 0x300000, 0x300000, 0x200020 };
	static uint64_t random = 88172645463325252ull;
	size_t used = 1;

	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	data[0] = (uint8_t)(random >> 3 | 64);
	for (unsigned k = 0; k < n % 6 + 1; k++, used += sizeof(struct change)) {
		struct change change = { 0 };

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		change.offset = places[random % 10] +
				(uint32_t)(random >> 20 &
					   (random >> 60 & 1 ? (VHDX_SECTOR_BYTES - 1) : 0x7f));
		change.bytes = (uint8_t)(random >> 40 & 7) + 1;
		for (unsigned i = 0; i < 8; i++)
			change.value[i] =
				(uint8_t)(random >> (5 * i) & (random >> 61 & 1 ? 0xff : 7));
		memcpy(data + used, &change, sizeof(change));
	}
	return used;
}
