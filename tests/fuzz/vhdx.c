/*
 * VHDX files: the input changes a good file, which is then opened, looked at, read, and now and
 * then written, resized and closed. Headers, region tables and log entries get their checksums
 * again, so that what they guard is reached. Nothing may crash, hang or grow without bound; what
 * opens, checks and reads. The first byte chooses the kind (`enum kind`), the second what is done.
 */
#include "disk/format/vhdx_internal.h"
#include "lib/crc32c.h"
#include "flat_file.h"
#include "fuzz.h"
#include "refusal.h"

struct change {
	uint32_t offset;
	uint8_t bytes, value[11];
};

/* LOGGED: as the power went away, with a log */
enum kind { DYNAMIC, FIXED, CHILD, LOGGED, KINDS };
enum { FLAG_WRITE = 1, FLAG_UNSEALED = 2, FLAG_FAILS = 4 };
enum { SIZE_BYTES = 8 << 20, BLOCK_BYTES = 1 << 20, LOG_AT = 1 << 20, REGION_BYTES = 65536 };

static struct flat_file *good[KINDS];

/* The checksum at 4 of [offset, offset + bytes), where something of it was changed. */
static void seal(struct flat_file *file, uint64_t offset, size_t bytes)
{
	uint32_t sum = 0;
	bool changed = false;

	for (uint64_t page = offset / FLAT_PAGE; page <= (offset + bytes - 1) / FLAT_PAGE; page++)
		changed |= file->dirty[page];
	if (!changed)
		return;
	flat_put(file, offset + 4, &sum, 4);
	sum = crc32c(0, file->now + offset, bytes);
	flat_put(file, offset + 4, &sum, 4);
}

static void seal_log(struct flat_file *file)
{
	struct vhdx_log_head head;

	for (uint64_t at = LOG_AT; at < 2 * LOG_AT; at += FLAT_PAGE) {
		memcpy(&head, file->now + at, sizeof(head));
		if (head.signature == VHDX_LOGE && head.bytes && head.bytes % FLAT_PAGE == 0 &&
		    head.bytes <= 2 * LOG_AT - at)
			seal(file, at, head.bytes);
	}
}

static void seal_all(struct flat_file *file)
{
	for (int n = 0; n < 2; n++) {
		seal(file, VHDX_HEADER_OFFSET(n), VHDX_SECTOR_BYTES);
		seal(file, VHDX_REGION_OFFSET(n), REGION_BYTES);
	}
	seal_log(file);
}

static struct flat_file *make(enum kind kind)
{
	struct flat_file *made = flat_new(NULL, 0);
	struct disk_file file = flat_disk_file(made);
	const struct disk_create what = { .format = DISK_VHDX,
					  .size_bytes = SIZE_BYTES,
					  .block_bytes = BLOCK_BYTES,
					  .fixed = kind == FIXED,
					  .resolved = true };
	struct disk_options options = { .format = DISK_VHDX, .write = true };
	uint8_t sector[VHDX_SECTOR_BYTES];
	struct disk_error error;
	struct disk *disk;
	struct disk *parent = NULL;

	if (kind == CHILD) {
		struct disk_options read = { .format = DISK_VHDX };

		if (disk_open_file(flat_disk_file(good[DYNAMIC]), "/nowhere/parent.vhdx", &read,
				   &parent, &error))
			abort();
	}
	memset(sector, 7, sizeof(sector));
	if (vhdx_create(&file, "/nowhere/fuzz.vhdx", &what, parent, &error))
		abort();
	options.parent = parent;
	if (disk_open_file(file, "/nowhere/fuzz.vhdx", &options, &disk, &error))
		abort();
	disk_write(disk, 1 << 20, sector, sizeof(sector));
	disk_write(disk, 5 << 20, sector, sizeof(sector));
	disk_flush(disk);
	if (kind == LOGGED) {
		struct flat_file *cut = flat_new(made->now, made->bytes);

		disk_close(disk);
		return cut;
	}
	disk_close(disk);
	flat_keep(made);
	return made;
}

static void make_all(void)
{
	for (enum kind kind = DYNAMIC; kind < KINDS; kind++)
		good[kind] = make(kind);
}

static void check_fault(void *context, const struct disk_error *fault)
{
	const struct disk *disk = context;

	check_refusal(fault, (uint64_t)file_size(&disk->file));
}
static int no_change(void *context, uint64_t offset, uint64_t bytes)
{
	(void)context;
	(void)offset;
	(void)bytes;
	return 0;
}

static void look(struct disk *disk)
{
	static uint8_t buffer[1 << 14];
	struct disk_info info;
	struct disk_range range = { .bytes = 0 };
	uint64_t size = disk_size_bytes(disk);

	disk_info(disk, &info);
	if (size < 1ull << 32)
		disk_check(disk, check_fault, disk);
	for (uint64_t at = 0, tries = 0; at < size && tries < 64; at += range.bytes, tries++)
		if (disk_range(disk, at, size - at, &range))
			break;
	disk_read(disk, 0, buffer, size < sizeof(buffer) ? size : sizeof(buffer));
	disk_read(disk, size > sizeof(buffer) ? size - sizeof(buffer) : 0, buffer,
		  size < sizeof(buffer) ? size : sizeof(buffer));
}

static void change_content(struct disk *disk)
{
	static uint8_t buffer[VHDX_SECTOR_BYTES];
	uint64_t size = disk_size_bytes(disk);
	uint64_t middle = size / 2 / VHDX_SECTOR_BYTES * VHDX_SECTOR_BYTES;

	if (size < 1 << 28)
		disk_verify(disk, no_change, NULL);
	disk_write(disk, 0, buffer,
		   disk_sector_bytes(disk) < size ? disk_sector_bytes(disk) : size);
	disk_zero(disk, 0, size < 3 << 20 ? size : 3 << 20);
	disk_flush(disk);
	if (middle + VHDX_SECTOR_BYTES <= size)
		disk_write(disk, middle, buffer, VHDX_SECTOR_BYTES);
	disk_resize(disk, size + VHDX_SECTOR_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	enum kind kind = bytes ? data[0] % KINDS : 0;
	uint8_t flags = bytes > 1 ? data[1] : 0;
	struct disk_options options = { .format = DISK_VHDX,
					.write = flags & FLAG_WRITE && kind != CHILD,
					.without_parents = kind == CHILD };
	struct flat_file *file;
	struct disk_error error;
	struct disk *disk;
	uint64_t bytes_were;

	if (!good[0])
		make_all();
	file = good[kind];
	for (size_t at = 2; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		struct change change;

		memcpy(&change, data + at, sizeof(change));
		if (change.bytes & 128)
			file->bytes = change.offset % file->bytes_before;
		else
			flat_put(file, change.offset % (16 << 20), change.value,
				 change.bytes % (sizeof(change.value) + 1));
	}
	if (!(flags & FLAG_UNSEALED))
		seal_all(file);
	bytes_were = file->bytes; /* what a log makes of it, another one */
	if (flags & FLAG_FAILS)
		file->fail_after = flags >> 3;
	if (!disk_open_file(flat_disk_file(file), "/nowhere/fuzz.vhdx", &options, &disk, &error)) {
		look(disk);
		if (options.write)
			change_content(disk);
		disk_close(disk);
	} else {
		check_refusal(&error, kind == LOGGED ? UINT64_MAX : bytes_were);
	}
	flat_back(file);
	return 0;
}

/* ---- seeds ---- */

static uint64_t rnd(void)
{
	static uint64_t random = 88172645463325252ull;

	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	return random;
}

/* Where the structures are, and values that their fields may take. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	enum { LOG_PLACES = 8, ALL_PLACES = 18 };
	static const uint32_t places[ALL_PLACES] = {
		0x100000, 0x100000, 0x100020, 0x100040, 0x100060, 0x101000,
		0x102000, 0x103000, 0x10000,  0x20000,  0x30000,  0x40000,
		0x200000, 0x210000, 0x300000, 0x300000, 0x200020, 0x200040,
	};
	size_t used = 2;

	data[0] = (uint8_t)(rnd() % KINDS);
	/* most are only looked at: a change costs ten times as much */
	data[1] = rnd() % 64 ? 0 : (uint8_t)rnd();
	for (unsigned k = 0; k < n % 6 + 1; k++, used += sizeof(struct change)) {
		struct change change = { 0 };
		unsigned first = data[0] == LOGGED && rnd() & 1 ? 0 : LOG_PLACES;
		unsigned last = first ? ALL_PLACES : LOG_PLACES;

		change.offset =
			places[first + rnd() % (last - first)] +
			(uint32_t)(rnd() >> 20 & (rnd() & 1 ? (VHDX_SECTOR_BYTES - 1) : 0x7f));
		change.bytes = (uint8_t)(rnd() & 7) + 1;
		if (rnd() % 256 == 0)
			change.bytes = 128;
		for (unsigned i = 0; i < 8; i++)
			change.value[i] = (uint8_t)(rnd() & (rnd() & 1 ? 0xff : 7));
		memcpy(data + used, &change, sizeof(change));
	}
	return used;
}
