/*
 * Files of other formats: VHD (dynamic, fixed), qcow2 (plain, compressed, subclusters), VMDK
 * (sparse, stream-optimised, descriptors), made by their own programs, changed by the input, then
 * opened, read and, where that is possible, written. VHD footers and headers get their sums again,
 * so that what they guard is reached. The first byte chooses.
 */
#include <endian.h>
#include <stdio.h>
#include <unistd.h>

#include "abi/vhd.h"
#include "../disk/memory_file.h"
#include "fuzz.h"

struct change { uint32_t offset; uint8_t bytes, value[11]; };

/* The command makes the file d of the raw disk s. */
#define CONVERT "qemu-img convert -f raw s d -O "
static const struct { enum disk_format format; const char *command;
} kinds[] = {
	{ DISK_VHD, CONVERT "vpc -o subformat=dynamic" },
	{ DISK_VHD, CONVERT "vpc -o subformat=fixed" },
	{ DISK_QCOW2, CONVERT "qcow2" },
	{ DISK_QCOW2, CONVERT "qcow2 -c" },
	{ DISK_QCOW2, CONVERT "qcow2 -o extended_l2=on" },
	{ DISK_QCOW2, CONVERT "qcow2 -c -o compression_type=zstd" },
	{ DISK_VMDK, CONVERT "vmdk -o subformat=monolithicSparse" },
	{ DISK_VMDK, CONVERT "vmdk -o subformat=streamOptimized" },
	{ DISK_VMDK, CONVERT "vmdk -o subformat=monolithicFlat" },
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), MAX = 4 << 20 };
enum { FAR_MASK = 0xfff, NEAR_MASK = 0x1f };
static struct memory_file *good[KINDS];

static void make(void)
{
	char directory[] = "/tmp/umbra-fuzz-XXXXXX", command[600], path[100];
	static uint8_t all[MAX];

	if (!mkdtemp(directory))
		abort();
	snprintf(
		command, sizeof(command),
		"cd %s && qemu-img create -q -f raw s 3M && qemu-io -f raw -c 'write -P 7 0 "
		"100k' -c 'write -P 9 1M 70k' s >/dev/null",
		directory);
	if (system(command))
		abort();
	for (unsigned n = 0; n < KINDS; n++) {
		FILE *from;
		size_t bytes;

		snprintf(command, sizeof(command),
			 "cd %s && rm -f d && %s", directory, kinds[n].command);
		snprintf(path, sizeof(path), "%s/d", directory);
		from = system(command) ? NULL : fopen(path, "r");
		if (!from)
			abort();
		bytes = fread(all, 1, sizeof(all), from);
		fclose(from);
		good[n] = memory_new();
		memory_put(good[n], 0, all, bytes);
	}
	snprintf(command, sizeof(command), "rm -r %s", directory);
	if (system(command))
		abort();
}

/* One's complement of the sum of the other bytes, at `at` of the structure. */
static void seal(struct memory_file *file, uint64_t offset, size_t bytes, size_t at)
{
	uint8_t block[1024];
	uint32_t sum = 0;

	memory_readv(file, offset, &(struct iovec){ block, bytes }, 1);
	for (size_t n = 0; n < bytes; n++)
		sum += n < at || n >= at + 4 ? block[n] : 0;
	sum = htobe32(~sum);
	memory_put(file, offset + at, (const uint8_t *)&sum, 4);
}

static void nothing(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static void use(struct disk *disk, bool write)
{
	static uint8_t buffer[1 << 16];
	struct disk_info info;
	struct disk_range range = { .bytes = 0 };
	uint64_t size = disk_size_bytes(disk);

	disk_info(disk, &info);
	if (size < 1ull << 32)
		disk_check(disk, nothing, NULL);
	for (uint64_t at = 0, tries = 0; at < size && tries < 64; at += range.bytes, tries++)
		if (disk_range(disk, at, size - at < 1 << 24 ? size - at : 1 << 24, &range))
			break;
	disk_read(disk, 0, buffer, size < sizeof(buffer) ? size : sizeof(buffer));
	disk_read(disk, size / 1024 * 512, buffer,
		  size < 2 * sizeof(buffer) ? 512 : sizeof(buffer));
	disk_read(disk, size - 512, buffer, 512);
	if (write) {
		disk_write(disk, 0, buffer, 512);
		disk_write(disk, size / 1024 * 512, buffer, 512);
		disk_zero(disk, 0, size < 1 << 20 ? size : 1 << 20);
		disk_flush(disk);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	unsigned kind = bytes ? data[0] % KINDS : 0;
	bool write = bytes && data[0] & 128 && kinds[kind].format == DISK_VHD;
	struct memory_file *file;
	struct disk_error error;
	struct disk *disk;

	if (!good[0])
		make();
	file = memory_copy(good[kind]);
	for (size_t at = 1; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		struct change change;

		memcpy(&change, data + at, sizeof(change));
		memory_put(file, change.offset % file->bytes, change.value,
			   change.offset % file->bytes + sizeof(change.value) < file->bytes
				   ? change.bytes % (sizeof(change.value) + 1)
				   : 0);
	}
	if (kinds[kind].format == DISK_VHD) {
		seal(file, 0, 512, offsetof(struct vhd_footer, checksum));
		seal(file, 512, 1024, offsetof(struct vhd_header, checksum));
		seal(file, file->bytes - 512, 512, offsetof(struct vhd_footer, checksum));
	}
	if (!disk_open_file(memory_disk_file(file), "fuzz-nowhere/disk",
			    &(struct disk_options){ .format = kinds[kind].format,
						    .write = write,
						    .without_parents = !write },
			    &disk, &error)) {
		use(disk, write);
		disk_close(disk);
	}
	memory_free(file);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const uint32_t places[] = { 0,       0,       16,      32,      48,     64,
					   72,      104,     512,     520,     544,    1536,
					   0x10000, 0x20000, 0x30000, 0x40000, 0x5000, 10240 };
	static uint64_t random = 88172645463325252ull;
	size_t used = 1;

	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	data[0] = (uint8_t)(random >> 3);
	for (unsigned k = 0; k < n % 5 + 1; k++, used += sizeof(struct change)) {
		struct change change = { 0 };

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		change.offset =
			places[random % 18] +
			(uint32_t)(random >> 20 & (random >> 60 & 1 ? FAR_MASK : NEAR_MASK));
		change.bytes = (uint8_t)(random >> 40 & 7) + 1;
		for (unsigned i = 0; i < 8; i++)
			change.value[i] =
				(uint8_t)(random >> (5 * i) & (random >> 61 & 1 ? 0xff : 7));
		memcpy(data + used, &change, sizeof(change));
	}
	return used;
}
