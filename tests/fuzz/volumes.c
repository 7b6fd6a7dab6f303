/*
 * What lies on disks: XFS, btrfs, ext4, NTFS and LVM, made by mkfs.* (LVM: by hand), then changed.
 * Where a structure with a checksum was changed, that is made again, so that what it guards is
 * reached. They are scanned, and asked for what is free, in this process: what the sandbox would
 * contain must not crash, hang or grow either. The first byte chooses the kind, the second what is
 * done.
 */
#include <errno.h>
#include <stdio.h>
#include <sodium.h>
#include <unistd.h>
#include <zlib.h>

#include "image/scan/lvm.h"
#include "image/scan/scan_internal.h"
#include "image/space/space_map.h"
#include "lib/crc32c.h"
#include "flat_file.h"
#include "fuzz.h"

enum kind { XFS, BTRFS, EXT, NTFS, LVM, KINDS };
enum { FLAG_UNSEALED = 1, FLAG_DIGESTS = 2, FLAG_SPACE = 4 };
enum { SECTOR = 512, BLOCK = 4096, STRUCTURES = 4096, SUPER_AT = 65536 };
enum { LVM_AREA = 4096, LVM_AREA_BYTES = (1 << 20) - LVM_AREA, LVM_TEXT = 1024 };

/* place: of a structure in `places`, where the change is. */
struct change { uint16_t place, in; uint8_t bytes, value[11]; };
/* sum_at: of its checksum, below `bytes`; equal: it has none */
struct structure { uint32_t at, bytes, sum_at; };
struct image {
	struct flat_file *file;
	struct structure structure[STRUCTURES];
	unsigned structures;
};

static struct image images[KINDS];

/* ---- images ---- */

static void shell(const char *directory, const char *what)
{
	char command[2000];

	snprintf(command, sizeof(command), "cd %s && %s", directory, what);
	if (system(command)) {
		fprintf(stderr, "failed: %s\n", command);
		abort();
	}
}

static struct flat_file *load(const char *directory)
{
	char path[100];
	struct flat_file *file = flat_new(NULL, 0);
	FILE *from;

	snprintf(path, sizeof(path), "%s/fs", directory);
	from = fopen(path, "r");
	if (!from)
		abort();
	for (uint64_t at = 0;; at += FLAT_PAGE) {
		uint8_t page[FLAT_PAGE];
		size_t bytes = fread(page, 1, sizeof(page), from);

		if (!bytes)
			break;
		file->bytes = at + bytes;
		for (size_t n = 0; n < bytes; n++)
			if (page[n]) {
				flat_put(file, at, page, bytes);
				break;
			}
	}
	fclose(from);
	flat_keep(file);
	return file;
}

static struct flat_file *make(enum kind kind)
{
	static const char *const makers[] = {
		[XFS] = "truncate -s 48M fs && TEST_DIR=x TEST_DEV=x "
			"QA_CHECK_FS=x /sbin/mkfs.xfs -q -f -K -d agcount=1 -p proto fs",
		[BTRFS] = "truncate -s 32M fs && "
			  "/sbin/mkfs.btrfs -q -f --mixed -m single -d single --rootdir r fs "
			  ">/dev/null 2>&1",
		[EXT] = "truncate -s 3M fs && "
			"/sbin/mke2fs -q -t ext4 -O ^metadata_csum -N 256 -b 1024 -d r fs",
		[NTFS] = "truncate -s 4M fs && /sbin/mkntfs -q -F -Q fs "
			 ">/dev/null 2>&1",
	};
	static const char *const tree =
		"mkdir -p r/etc r/var/lib/dpkg r/boot r/a/b && echo ID=x >r/etc/os && "
		"ln -s ../etc/./os r/etc/os-release && echo k >r/boot/vmlinuz-1 && "
		"printf 'Package: a\\nStatus: install ok installed\\nVersion: 1\\n' "
		">r/var/lib/dpkg/status && seq 2000 >r/a/large && "
		"{ printf 'x\\n1 1\\nd--755 0 0\\n"
		"etc d--755 0 0\\nos ---644 0 0 r/etc/os\\nos-release l--777 0 0 "
		"../etc/./os\\n$\\nvar d--755 0 0\\nlib d--755 0 0\\ndpkg d--755 0 0\\n"
		"status ---644 0 0 r/var/lib/dpkg/status\\n$\\n$\\n$\\nboot d--755 0 0\\n"
		"vmlinuz-1 ---644 0 0 r/etc/os\\n$\\n"
		"a d--755 0 0\\n'; for n in $(seq 100); do mkdir r/a/b/a-long-name-$n; "
		"echo a-long-name-$n d--755 0 0; echo '$'; done; "
		"printf 'large ---644 0 0 r/a/large\\n$\\n$\\n'; } >proto";
	char directory[] = "/tmp/umbra-fuzz-XXXXXX";
	char clean[100];
	struct flat_file *file;

	if (!mkdtemp(directory))
		abort();
	shell(directory, tree);
	shell(directory, makers[kind]);
	file = load(directory);
	snprintf(clean, sizeof(clean), "rm -r %s", directory);
	shell("/tmp", clean);
	return file;
}

/* ---- LVM ---- */

static uint32_t lvm_sum(const void *data, size_t bytes)
{
	return ~(uint32_t)crc32(~0xf597a6cfu, data, (uInt)bytes);
}

static void lvm_seal(struct flat_file *file)
{
	uint32_t sum = lvm_sum(file->now + LVM_AREA + 512, LVM_TEXT);

	flat_put(file, LVM_AREA + 56, &sum, 4);
	sum = lvm_sum(file->now + LVM_AREA + 4, 508);
	flat_put(file, LVM_AREA, &sum, 4);
	sum = lvm_sum(file->now + 512 + 20, 492);
	flat_put(file, 512 + 16, &sum, 4);
}

static struct flat_file *make_lvm(void)
{
	static const char text[] =
		"vg {\nid = \"x\"\nextent_size = 2048\nphysical_volumes {\npv0 {\n"
		"id = \"abcdef-ghij-klmn-opqr-stuv-wxyz-012345\"\npe_start = 2048\npe_count = 8\n"
		"}\n}\nlogical_volumes {\nroot {\nstatus = [\"READ\", \"VISIBLE\"]\n"
		"segment_count = 2\nsegment1 {\nstart_extent = 0\nextent_count = 2\n"
		"type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 3]\n}\nsegment2 {\n"
		"start_extent = 2\nextent_count = 3\ntype = \"striped\"\nstripe_count = 1\n"
		"stripes = [\"pv0\", 0]\n}\n}\nother {\nstatus = [\"VISIBLE\"]\n"
		"segment_count = 1\nsegment1 {\nstart_extent = 0\nextent_count = 1\n"
		"type = \"snapshot\"\n}\n}\n}\n}\ncontents = \"x\" # y\nversion = 1\n";
	struct flat_file *file = flat_new(NULL, 0);
	const uint64_t places[] = { 9 << 20,        1 << 20, 0, 0, 0, LVM_AREA,
				    LVM_AREA_BYTES, 0,       0 };
	const uint64_t area[] = { LVM_AREA, LVM_AREA_BYTES, 512, LVM_TEXT };
	const uint32_t head = 32;
	const uint32_t version = 1;
	char padded[LVM_TEXT];

	memset(padded, ' ', sizeof(padded));
	memcpy(padded, text, sizeof(text) - 1);
	flat_put(file, 0, NULL, 9 << 20);
	flat_put(file, 512, "LABELONE", 8);
	flat_put(file, 512 + 8, &(uint64_t){ 1 }, 8);
	flat_put(file, 512 + 20, &head, 4);
	flat_put(file, 512 + 24, "LVM2 001abcdefghijklmnopqrstuvwxyz012345", 40);
	flat_put(file, 512 + 64, places, sizeof(places));
	flat_put(file, LVM_AREA + 4, " LVM2 x[5A%r0N*>", 16);
	flat_put(file, LVM_AREA + 20, &version, 4);
	flat_put(file, LVM_AREA + 24, area, sizeof(area));
	flat_put(file, LVM_AREA + 512, padded, sizeof(padded));
	lvm_seal(file);
	flat_keep(file);
	return file;
}

/* ---- structures and their checksums ---- */

static void add(struct image *image, uint64_t at, uint32_t bytes, uint32_t sum_at)
{
	if (image->structures < STRUCTURES && at + bytes <= image->file->bytes)
		image->structure[image->structures++] =
			(struct structure){ (uint32_t)at, bytes, sum_at };
}

/* By what an XFS begins a sector with. */
static void add_xfs(struct image *image, uint64_t at)
{
	static const struct {
		char magic[5];
		uint16_t bytes, sum_at;
	} kinds[] = { { "XFSB", 512, 224 }, { "XAGF", 512, 216 }, { "XAGI", 512, 312 },
		      { "XAFL", 512, 32 },  { "AB3B", BLOCK, 52 }, { "AB3C", BLOCK, 52 },
		      { "IAB3", BLOCK, 52 }, { "FIB3", BLOCK, 52 }, { "RMB3", BLOCK, 52 },
		      { "R3FC", BLOCK, 52 }, { "XDB3", BLOCK, 4 },  { "XDD3", BLOCK, 4 },
		      { "XSLM", BLOCK, 12 }, { "BMA3", BLOCK, 64 } };

	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
		if (!memcmp(image->file->now + at, kinds[n].magic, 4))
			add(image, at, kinds[n].bytes, kinds[n].sum_at);
	if (!memcmp(image->file->now + at, "IN", 2) && image->file->now[at + 3])
		add(image, at, 512, 100);
}

static void find_structures(struct image *image, enum kind kind)
{
	const struct flat_file *file = image->file;
	const uint8_t *super = file->now + SUPER_AT;

	for (uint64_t at = 0; at < file->bytes; at += SECTOR) {
		static const uint8_t zeros[SECTOR];

		if (!memcmp(file->now + at, zeros, sizeof(zeros)))
			continue;
		if (kind == XFS)
			add_xfs(image, at);
		else if (kind != BTRFS)
			add(image, at, SECTOR, SECTOR);
		else if (at % BLOCK == 0 && !memcmp(file->now + at + 32, super + 32, 16))
			add(image, at, BLOCK, 0);
	}
	if (!image->structures)
		abort();
}

/* btrfs: its sum is in front, of what is behind 32 bytes. */
static void seal(struct flat_file *file, const struct structure *structure, enum kind kind)
{
	uint8_t *at = file->now + structure->at;
	uint32_t sum = 0;

	if (structure->sum_at == structure->bytes)
		return;
	if (kind == BTRFS) {
		sum = crc32c(0, at + 32, structure->bytes - 32);
		flat_put(file, structure->at, &sum, 4);
		return;
	}
	flat_put(file, structure->at + structure->sum_at, &sum, 4);
	sum = crc32c(0, at, structure->bytes);
	flat_put(file, structure->at + structure->sum_at, &sum, 4);
}

static void change_image(struct image *image, enum kind kind, const uint8_t *data, size_t bytes,
			 bool sealed)
{
	for (size_t at = 0; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		const struct structure *structure;
		struct change change;
		uint32_t in, count;

		memcpy(&change, data + at, sizeof(change));
		structure = &image->structure[change.place % image->structures];
		in = change.in % structure->bytes;
		count = change.bytes % (sizeof(change.value) + 1);
		count = count < structure->bytes - in ? count : structure->bytes - in;
		flat_put(image->file, structure->at + in, change.value, count);
		if (sealed)
			seal(image->file, structure, kind);
	}
	if (sealed && kind == LVM)
		lvm_seal(image->file);
}

/* ---- what is done ---- */

static void find_space(const struct scan_volume *volume, enum kind kind, bool good)
{
	int (*const functions[])(const struct scan_volume *, struct space_map *) = {
		[XFS] = space_xfs, [EXT] = space_ext, [NTFS] = space_ntfs, [LVM] = NULL
	};
	struct space_map map = { 0 };
	int error;

	if (!functions[kind])
		return;
	error = functions[kind](volume, &map);
	if ((good && error) || (!error && map.free_blocks > map.blocks))
		abort();
	space_end(&map);
}

static void scan(struct scan_volume *volume, enum kind kind, bool good)
{
	bool (*const functions[])(struct scan_volume *) = { [XFS] = scan_xfs,
							    [BTRFS] = scan_btrfs,
							    [EXT] = scan_ext };
	void (*const boots[])(struct scan_volume *, struct boot_search *) = {
		[XFS] = scan_xfs_boot, [BTRFS] = scan_btrfs_boot, [EXT] = scan_ext_boot
	};
	struct boot_search boot = { .root_subvolume = 0 };
	bool found = functions[kind](volume);

	boots[kind](volume, &boot);
	if ((good && (!boot.best.kernel || strlen(boot.root_uuid) != 36)) ||
	    (boot.best.initrd && !boot.best.kernel))
		abort();
	free(boot.best.kernel);
	free(boot.best.initrd);
	if (good && (!found || json_array_size(volume->unread) ||
		     json_array_size(json_object_get(volume->content, "packages")) != 1))
		abort();
}

static void read_group(const struct scan_volume *volume, bool good)
{
	struct lvm lvm;
	int error = lvm_read(volume, &lvm);

	if (good && (error || lvm.volumes != 2 || lvm.volume[0].segments != 2))
		abort();
	for (unsigned n = 0; !error && n < lvm.volumes; n++)
		for (unsigned k = 0; k < lvm.volume[n].segments; k++) {
			const struct scan_segment *segment = &lvm.volume[n].segment[k];

			if (segment->at > volume->bytes ||
			    segment->bytes > volume->bytes - segment->at)
				abort();
		}
	lvm_release(&lvm);
}

static void use(struct disk *disk, enum kind kind, uint8_t flags, bool good)
{
	const struct scan_options options = { .files = true, .digests = flags & FLAG_DIGESTS };
	struct scan_volume volume = {
		.disk = disk,
		.options = &options,
		.about = json_object(),
		.content = json_pack("{s:[], s:{}, s:[]}", "packages", "files", "kernels"),
		.unread = json_array(),
		.bytes = disk_size_bytes(disk),
	};

	if (kind == LVM)
		read_group(&volume, good);
	else if (kind == NTFS || (flags & FLAG_SPACE && kind != BTRFS))
		find_space(&volume, kind, good);
	else
		scan(&volume, kind, good);
	json_decref(volume.about);
	json_decref(volume.content);
	json_decref(volume.unread);
}

static void begin(enum kind kind)
{
	if (sodium_init() < 0)
		abort();
	images[kind].file = kind == LVM ? make_lvm() : make(kind);
	find_structures(&images[kind], kind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	enum kind kind = bytes ? data[0] % KINDS : XFS;
	struct image *image = &images[kind];
	struct disk_error error;
	struct disk *disk;

	if (bytes < 2)
		return 0;
	if (!image->file)
		begin(kind);
	change_image(image, kind, data + 2, bytes - 2, !(data[1] & FLAG_UNSEALED));
	if (!disk_open_file(flat_disk_file(image->file), "fuzz",
			    &(struct disk_options){ .format = DISK_RAW }, &disk, &error)) {
		use(disk, kind, data[1], bytes < 2 + sizeof(struct change));
		disk_close(disk);
	}
	flat_back(image->file);
	return 0;
}

/* ---- seeds ---- */

static uint64_t random_state = 88172645463325252ull;

static uint64_t rnd(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* The first ones are of good images. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	size_t used = 2;

	data[0] = (uint8_t)(n % KINDS);
	data[1] = (uint8_t)(rnd() % 8 & (rnd() % 8 ? 6 : 7));
	for (unsigned k = 0; n >= 2 * KINDS && k < rnd() % 3 + 1; k++) {
		struct change change = { .place = (uint16_t)rnd(),
					 .in = (uint16_t)(rnd() % (rnd() % 2 ? 0x100 : BLOCK)),
					 .bytes = (uint8_t)(rnd() % 8 + 1) };

		for (unsigned i = 0; i < sizeof(change.value); i++)
			change.value[i] = (uint8_t)(rnd() & (rnd() % 2 ? 0xff : 7));
		memcpy(data + used, &change, sizeof(change));
		used += sizeof(change);
	}
	return used;
}
