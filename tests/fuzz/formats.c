/*
 * Files of other formats than VHDX: made by their own programs or from their specification, changed
 * by the input, then opened, looked at, read and, where that is possible, written. The first byte
 * chooses the kind (`kinds`, from 0 on), the second what is done. What guards a structure is made
 * anew when it was changed (VHD's sums, the side file's), so that what it guards is reached.
 */
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "abi/vhd.h"
#include "disk/format/cowd.h"
#include "disk/format/sesparse.h"
#include "lib/crc32c.h"
#include "flat_file.h"
#include "fuzz.h"
#include "refusal.h"

struct change {
	uint32_t offset;
	uint8_t bytes, value[11];
};

/* The command makes the file d of the raw disk s. */
#define CONVERT "qemu-img convert -f raw s d -O "
enum special { NOTHING, CHILD, BACKING, TEXT, SESPARSE, SIDE, COWD };
enum { PLACES = 12 };
struct kind {
	const char *name;
	enum disk_format format;
	enum special special;
	const char *command; /* NULL: made here */
	uint32_t place[PLACES]; /* where its structures are; 1: its end */
};
#define QEMU(of_format, of_name, of_options, ...)                                               \
	{                                                                                       \
		.name = of_name, .format = of_format, .command = CONVERT of_options, .place = { \
			__VA_ARGS__                                                             \
		}                                                                               \
	}
#define MADE(of_format, of_name, how, ...)                                                     \
	{                                                                                      \
		.name = of_name, .format = of_format, .special = how, .place = { __VA_ARGS__ } \
	}
#define VHD_PLACES 0, 16, 48, 512, 528, 552, 1088, 1536, 1
#define QCOW2_PLACES 0, 16, 32, 48, 64, 100, 0x10000, 0x20000, 0x30000, 0x40000, 0x50000
static const struct kind kinds[] = {
	QEMU(DISK_VHD, "vhd-dynamic", "vpc -o subformat=dynamic", VHD_PLACES),
	QEMU(DISK_VHD, "vhd-fixed", "vpc -o subformat=fixed", VHD_PLACES),
	MADE(DISK_VHD, "vhd-child", CHILD, VHD_PLACES),
	QEMU(DISK_QCOW2, "qcow2", "qcow2", QCOW2_PLACES),
	QEMU(DISK_QCOW2, "qcow2-zlib", "qcow2 -c", QCOW2_PLACES),
	QEMU(DISK_QCOW2, "qcow2-subclusters", "qcow2 -o extended_l2=on", QCOW2_PLACES),
	QEMU(DISK_QCOW2, "qcow2-zstd", "qcow2 -c -o compression_type=zstd", QCOW2_PLACES),
	MADE(DISK_QCOW2, "qcow2-backing", BACKING, QCOW2_PLACES),
	QEMU(DISK_VMDK, "vmdk-sparse", "vmdk -o subformat=monolithicSparse", 0, 12, 32, 48, 64, 76,
	     512, 560, 0x2a00, 0x2c00, 0x5400, 0x5600),
	QEMU(DISK_VMDK, "vmdk-stream", "vmdk -o subformat=streamOptimized", 0, 12, 32, 48, 64, 76,
	     512, 0x10000, 0x10200, 1, 1, 1),
	MADE(DISK_VMDK, "vmdk-descriptor", TEXT, 0),
	MADE(DISK_VMDK, "sesparse", SESPARSE, 0, 16, 32, 80, 128, 144, 192, 512, 1024, 1536, 1600,
	     1664),
	MADE(DISK_RAW, "side-file", SIDE, 0, 0, 8, 16, 24, 32, 60, 90),
	MADE(DISK_VMDK, "cowd", COWD, 0, 4, 12, 16, 20, 24, 2048, 2052, 2056, 2560, 2592, 18944),
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), MAX = 4 << 20 };
enum { FLAG_WRITE = 1, FLAG_PARENTS = 2, FLAG_UNSEALED = 4 };
enum { FAR_MASK = 0xfff, NEAR_MASK = 0x1f };
static struct flat_file *good[KINDS];
static char directory[] = "/tmp/umbra-fuzz-XXXXXX";

/* ---- what is changed ---- */

static void shell(const char *command)
{
	char text[700];

	snprintf(text, sizeof(text), "cd %s && %s", directory, command);
	if (system(text))
		abort();
}

static void clean_up(void)
{
	char text[64];

	snprintf(text, sizeof(text), "rm -r %s", directory);
	if (system(text))
		return;
}

static const char *path_of(const char *name)
{
	static char text[100];

	snprintf(text, sizeof(text), "%s/%s", directory, name);
	return text;
}

static struct flat_file *load(const char *name)
{
	static uint8_t all[MAX];
	FILE *from = fopen(path_of(name), "r");
	size_t bytes = from ? fread(all, 1, sizeof(all), from) : 0;

	if (!bytes)
		abort();
	fclose(from);
	return flat_new(all, bytes);
}

static void make_child(void)
{
	char parent[100];
	struct disk_create what = { .format = DISK_VHD, .size_bytes = 3 << 20 };
	struct disk_error error;

	snprintf(parent, sizeof(parent), "%s", path_of("p"));
	unlink(path_of("d"));
	if (disk_create(parent, &what, &error))
		abort();
	what = (struct disk_create){ .format = DISK_VHD,
				     .parent = parent,
				     .parent_format = DISK_VHD };
	if (disk_create(path_of("d"), &what, &error))
		abort();
}

/* Its extents lie beside it. */
static struct flat_file *make_descriptor(void)
{
	static const char text[] =
		"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
		"createType=\"custom\"\n"
		"RW 8 FLAT \"flat\" 0\nRW 8 ZERO\nRW 6144 SPARSE \"sparse\"\n"
		"RDONLY 4 VMFS \"flat\"\nRW 16 SESPARSE \"sesparse\"\n"
		"ddb.adapterType = \"ide\"\n";

	shell("head -c 4k s >flat && "
	      "qemu-img convert -f raw s sparse -O vmdk -o subformat=monolithicSparse");
	return flat_new(text, sizeof(text) - 1);
}

/* 40 MiB: three tables, of which the first has grains. (corpus.py says which.) */
static struct flat_file *make_sesparse(void)
{
	static uint64_t word[(1 << 20) / 8];
	enum {
		TABLES_AT = 17 * 64,
		ENTRIES = 4096,
		GRAINS_AT = TABLES_AT + 2 * ENTRIES,
		GRAIN_BYTES = FLAT_PAGE
	}; /* in words */
	struct flat_file *file;
	int fd;

	word[0] = 0xcafebabe;
	word[1] = 0x200000001;
	word[2] = (40 << 20) / 512;
	word[3] = 8;
	word[4] = 64;
	word[10] = 1;
	word[11] = 1;
	word[16] = 16;
	word[17] = 1;
	word[18] = 17;
	word[19] = 128;
	word[24] = GRAINS_AT / 64;
	word[25] = 64;
	word[64] = 0xcafecafe;
	word[66] = 1;
	word[16 * 64] = 1ull << 60;
	word[16 * 64 + 2] = 1ull << 60 | 1;
	for (uint64_t n = 0; n < 4; n++)
		word[TABLES_AT + n] = 3ull << 60 | n << 48;
	word[TABLES_AT + 5] = 1ull << 60;
	word[TABLES_AT + 6] = 2ull << 60;
	word[TABLES_AT + ENTRIES + 9] = 3ull << 60 | 4ull << 48;
	memset(word + GRAINS_AT, 0x77, 5 * GRAIN_BYTES);
	file = flat_new(word, GRAINS_AT * 8 + 5 * GRAIN_BYTES);
	fd = open(path_of("sesparse"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, word, file->bytes) != (ssize_t)file->bytes)
		abort();
	close(fd);
	return file;
}

/* 8 MiB in grains of a sector: tables for the first and the last of four, and some grains. */
static struct flat_file *make_cowd(void)
{
	enum { TABLES_AT = 2560 / 4, ENTRIES = 4096, SECTOR_WORDS = 512 / 4 };
	static uint32_t word[TABLES_AT + 2 * ENTRIES + 8 * SECTOR_WORDS];
	const uint32_t grains = (TABLES_AT + 2 * ENTRIES) / SECTOR_WORDS;

	word[0] = COWD_MAGIC;
	word[1] = 1;
	word[2] = 3;
	word[3] = (8 << 20) / 512;
	word[4] = 1;
	word[5] = 4;
	word[6] = 4;
	word[512] = TABLES_AT / SECTOR_WORDS;
	word[515] = (TABLES_AT + ENTRIES) / SECTOR_WORDS;
	for (uint32_t n = 0; n < 4; n++)
		word[TABLES_AT + 2 * n * n] = grains + n;
	for (uint32_t n = 0; n < 4; n++)
		word[TABLES_AT + ENTRIES + n] = grains + 4 + n;
	memset(word + TABLES_AT + 2 * ENTRIES, 0x77, 8 * 512);
	return flat_new(word, sizeof(word));
}

static struct flat_file *make_side(void)
{
	struct guid id = { .byte = { 1 } };
	bool unsynced;

	for (unsigned n = 0; n < 3; n++, id.byte[0]++)
		if (side_write(NULL, path_of("side"), id, "0123456789", 4 + 3 * n, &unsynced))
			abort();
	return load("side.umbra");
}

static struct flat_file *make_kind(const struct kind *kind)
{
	char command[300];

	switch (kind->special) {
	case TEXT: return make_descriptor();
	case SESPARSE: return make_sesparse();
	case SIDE: return make_side();
	case COWD: return make_cowd();
	case CHILD: make_child(); return load("d");
	case BACKING:
		shell("rm -f d && qemu-img create -q -f qcow2 -b s -F raw d && "
		      "qemu-io -f qcow2 -c 'write -P 5 64k 64k' d >/dev/null");
		return load("d");
	default:
		snprintf(command, sizeof(command), "rm -f d && %s", kind->command);
		shell(command);
		return load("d");
	}
}

static void make(void)
{
	if (!mkdtemp(directory))
		abort();
	atexit(clean_up);
	shell("qemu-img create -q -f raw s 3M && qemu-io -f raw -c 'write -P 7 0 100k' "
	      "-c 'write -P 9 1M 70k' s >/dev/null");
	for (unsigned n = 0; n < KINDS; n++)
		good[n] = make_kind(&kinds[n]);
}

/* ---- what is done with it ---- */

/* One's complement of the sum of the other bytes, at `at` of the structure. */
static void seal(struct flat_file *file, uint64_t offset, size_t bytes, size_t at)
{
	uint32_t sum = 0;

	if (offset + bytes > file->bytes)
		return;
	for (size_t n = 0; n < bytes; n++)
		sum += n < at || n >= at + 4 ? file->now[offset + n] : 0;
	sum = htobe32(~sum);
	flat_put(file, offset + at, &sum, 4);
}

static void seal_vhd(struct flat_file *file)
{
	seal(file, 0, 512, offsetof(struct vhd_footer, checksum));
	seal(file, 512, 1024, offsetof(struct vhd_header, checksum));
	seal(file, file->bytes / 512 * 512 - 512, 512, offsetof(struct vhd_footer, checksum));
}

static const struct flat_file *current; /* what the disk was opened on */

/* Of a descriptor the extents are other files. */
static uint64_t bytes_of(const struct disk_error *error)
{
	return strcmp(error->path, path_of("disk")) ? UINT64_MAX : current->bytes;
}

static void check_fault(void *context, const struct disk_error *fault)
{
	(void)context;
	check_refusal(fault, bytes_of(fault));
}

/* A request that is refused says why. */
static void read_at(struct disk *disk, uint64_t offset, uint8_t *buffer, uint64_t bytes)
{
	struct disk_error why;
	int error = disk_read(disk, offset, buffer, bytes);

	if (!error)
		return;
	while (bytes > 512 && !disk_read(disk, offset, buffer, 512)) {
		offset += 512;
		bytes -= 512;
	}
	disk_explain(disk, offset, error, &why);
	check_refusal(&why, bytes_of(&why));
}

static void use(struct disk *disk, bool write)
{
	static uint8_t buffer[1 << 16];
	struct disk_info info;
	struct disk_range range = { .bytes = 0 };
	uint64_t size = disk_size_bytes(disk);

	disk_info(disk, &info);
	if (size < 1ull << 28)
		disk_check(disk, check_fault, NULL);
	for (uint64_t at = 0, tries = 0; at < size && tries < 64; at += range.bytes, tries++)
		if (disk_range(disk, at, size - at < 1 << 24 ? size - at : 1 << 24, &range))
			break;
	read_at(disk, 0, buffer, size < sizeof(buffer) ? size : sizeof(buffer));
	read_at(disk, size / 1024 * 512, buffer, size < 2 * sizeof(buffer) ? 512 : sizeof(buffer));
	read_at(disk, size - 512, buffer, 512);
	if (write) {
		disk_write(disk, 0, buffer, 512);
		disk_write(disk, size / 1024 * 512, buffer, 512);
		disk_zero(disk, 0, size < 1 << 20 ? size : 1 << 20);
		disk_flush(disk);
	}
}

/* What was given back reads as zero. */
static void use_shrink(struct disk *disk)
{
	const struct disk_extent extent = { .offset = 0, .bytes = 1 << 20 };
	static uint8_t buffer[1 << 16];
	uint64_t freed;

	if (disk_size_bytes(disk) < extent.bytes || disk_shrink(disk, &extent, 1, NULL, &freed))
		return;
	if (!disk->is_child && freed >= sizeof(buffer) &&
	    !disk_read(disk, 0, buffer, sizeof(buffer)) && !is_zero(buffer, sizeof(buffer)))
		abort();
}

static void use_disk(const struct kind *kind, struct flat_file *file, uint8_t flags)
{
	bool shrink = flags & FLAG_WRITE && kind->format == DISK_QCOW2;
	bool write = shrink || (flags & FLAG_WRITE && kind->format == DISK_VHD);
	const struct disk_options options = {
		.format = kind->format,
		.write = write,
		.to_shrink = shrink,
		.without_parents = !write && !(flags & FLAG_PARENTS),
	};
	struct disk_error error;
	struct disk *disk;

	current = file;
	if (disk_open_file(flat_disk_file(file), path_of("disk"), &options, &disk, &error)) {
		check_refusal(&error, bytes_of(&error));
		return;
	}
	use(disk, write && !shrink);
	if (shrink)
		use_shrink(disk);
	disk_close(disk);
}

static void use_sesparse(struct flat_file *file)
{
	const struct disk_file below = flat_disk_file(file);
	struct sesparse *sesparse;
	struct disk_error why;
	uint64_t bytes;
	struct sparse_run run = { .bytes = 0 };

	if (sesparse_open(&below, "extent", &sesparse, &bytes, &why)) {
		check_refusal(&why, file->bytes);
		return;
	}
	for (uint64_t at = 0, tries = 0; at < bytes && tries < 64; at += run.bytes, tries++)
		if (sesparse_find(sesparse, &below, at, bytes - at, &run, &why)) {
			check_refusal(&why, file->bytes);
			run.bytes = bytes - at < FLAT_PAGE ? bytes - at : FLAT_PAGE;
		} else if (!run.bytes || run.bytes > bytes - at ||
			   (run.kind == SPARSE_DATA && run.at + run.bytes > file->bytes))
			abort();
	sesparse_close(sesparse);
}

static void use_cowd(struct flat_file *file)
{
	const struct disk_file below = flat_disk_file(file);
	struct cowd *cowd;
	struct disk_error why;
	uint64_t bytes;
	struct sparse_run run = { .bytes = 0 };

	if (cowd_open(&below, "extent", &cowd, &bytes, &why)) {
		check_refusal(&why, file->bytes);
		return;
	}
	for (uint64_t at = 0, tries = 0; at < bytes && tries < 64; at += run.bytes, tries++)
		if (cowd_find(cowd, &below, at, bytes - at, &run, &why)) {
			check_refusal(&why, file->bytes);
			run.bytes = bytes - at < FLAT_PAGE ? bytes - at : FLAT_PAGE;
		} else if (!run.bytes || run.bytes > bytes - at ||
			   (run.kind == SPARSE_DATA && run.at + run.bytes > file->bytes))
			abort();
	cowd_close(cowd);
}

static int side_take(void *context, uint8_t **ret, size_t *ret_bytes)
{
	const struct flat_file *file = context;

	*ret = malloc(file->bytes + 1);
	memcpy(*ret, file->now, file->bytes);
	*ret_bytes = file->bytes;
	return 0;
}

static int side_give(void *context, const uint8_t *bytes, size_t count, bool *ret_unsynced)
{
	(void)context;
	(void)bytes;
	(void)count;
	*ret_unsynced = false;
	return 0;
}

static void use_side(struct flat_file *file, uint8_t flags)
{
	const struct disk_side_keeper keeper = { side_take, side_give, file };
	struct guid id = { .byte = { 2 } };
	uint32_t sum;
	uint8_t *value;
	size_t bytes;
	bool unsynced;

	if (file->bytes >= 16 && !(flags & FLAG_UNSEALED)) {
		sum = crc32c(0, file->now + 16, file->bytes - 16);
		flat_put(file, 12, &sum, 4);
	}
	if (!side_read(&keeper, "nowhere", id, &value, &bytes))
		free(value);
	side_write(&keeper, "nowhere", id, flags & FLAG_WRITE ? "a value" : NULL, 7, &unsynced);
}

/* In place, or of a text put between what is there; the last bit cuts the file off there. */
static void apply(struct flat_file *file, const struct kind *kind, const struct change *change)
{
	uint64_t at = file->bytes ? change->offset % file->bytes : 0;
	uint64_t bytes = change->bytes & 15;

	bytes = bytes > sizeof(change->value) ? sizeof(change->value) : bytes;
	if (change->bytes & 128) {
		file->bytes = at;
		return;
	}
	if ((kind->special == TEXT || kind->special == SIDE) && change->bytes & 64) {
		flat_touch(file, at, file->bytes + bytes - at);
		memmove(file->now + at + bytes, file->now + at, file->bytes - at);
		file->bytes += bytes;
	}
	if (at + bytes <= file->bytes)
		flat_put(file, at, change->value, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const struct kind *kind = &kinds[bytes ? data[0] % KINDS : 0];
	uint8_t flags = bytes > 1 ? data[1] : 0;
	struct flat_file *file;

	if (!good[0])
		make();
	file = good[kind - kinds];
	for (size_t at = 2; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		struct change change;

		memcpy(&change, data + at, sizeof(change));
		apply(file, kind, &change);
	}
	if (kind->format == DISK_VHD && file->bytes >= 512 && !(flags & FLAG_UNSEALED))
		seal_vhd(file);
	if (kind->special == SESPARSE)
		use_sesparse(file);
	else if (kind->special == COWD)
		use_cowd(file);
	else if (kind->special == SIDE)
		use_side(file, flags);
	else
		use_disk(kind, file, flags);
	flat_back(file);
	return 0;
}

/* ---- seeds ---- */

static uint64_t random_state = 88172645463325252ull;

static uint64_t rnd(void)
{
	uint64_t random = random_state;

	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	return random_state = random;
}

static void seed_text(struct change *change)
{
	static const char *const words[] = {
		"RW ",       "\nRW 8 ",    " FLAT ",  "\"flat\" 0", "99999999999", "\"../flat\"",
		"RDONLY ",   " SPARSE ",   " ZERO\n", "\"",         "\r\n",        "-1",
		"parentCID", "=00000001",  "CID=",    "\"sparse\"", "4294967296",  "\"./flat\"",
		"SESPARSE ", "\"sesparse", " VMFS ",  "\"/etc/x\"", "%s%n",        "NOACCESS ",
	};
	const char *word = words[rnd() % (sizeof(words) / sizeof(words[0]))];

	change->offset = (uint32_t)(rnd() % 260);
	change->bytes = (uint8_t)(strlen(word) | (rnd() & 64));
	memcpy(change->value, word, strlen(word));
}

static void seed_bytes(const struct kind *kind, struct change *change)
{
	uint32_t place = kind->place[rnd() % PLACES];

	change->offset = (uint32_t)(rnd() >> 20 & (rnd() & 1 ? FAR_MASK : NEAR_MASK));
	if (place == 1) /* from the end of the file on, in its last sectors */
		change->offset = (uint32_t)good[kind - kinds]->bytes - 1 - (change->offset & 2047);
	else
		change->offset += place;
	change->bytes = (uint8_t)(rnd() & 7) + 1;
	if (rnd() % 128 == 0)
		change->bytes = 128;
	for (unsigned i = 0; i < 8; i++)
		change->value[i] = (uint8_t)(rnd() & (rnd() & 1 ? 0xff : 7));
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const struct kind *kind = &kinds[rnd() % KINDS];
	size_t used = 2;

	random_state += (uint64_t)n << 32; /* each SEED has seeds of its own */

	if (!good[0])
		make();
	data[0] = (uint8_t)(kind - kinds);
	data[1] = (uint8_t)(rnd() & rnd() & rnd());
	for (unsigned k = 0; k < n % 5 + 1; k++, used += sizeof(struct change)) {
		struct change change = { 0 };

		if (kind->special == TEXT)
			seed_text(&change);
		else
			seed_bytes(kind, &change);
		memcpy(data + used, &change, sizeof(change));
	}
	return used;
}
