/*
 * The n-th access to the file fails (an I/O error, a full disk; once, or from then on), and the
 * n-th allocation fails: for every n that a workload has. Whatever the calls then return, the file
 * opens once the fault is gone, and
 *
 *   every sector has what it had at the last flush that succeeded, or something that was written to
 *   it later (a flush that fails loses what was written since the last one that did not); if
 *   anything differs from before the workload, the data identifier differs, too (of a VHDX file:
 *   the other has none).
 *
 * usage: fault_test [STEP]; every STEP-th n alone.
 */
#include <stdio.h>
#include <unistd.h>

#include "faults.h"
#define memory_allocate(bytes) __real_calloc(1, bytes)
#include "disk/format/vhdx_internal.h"
#include "memory_file.h"

enum { DISK_BYTES = 4 << 20, SECTORS = DISK_BYTES / 512, WORK = 24, KINDS = 6 };

/* ---- the workload ---- */

static uint64_t state, runs, faults;
/*
 * Sectors are filled with a value; a bit for each of WORK + 2. Now: what may be read; may: what a
 * file that was not closed may have.
 */
static uint64_t now[SECTORS], may[SECTORS];
static uint8_t before[SECTORS];
static char parent_path[2][64], child_path[64];
static const struct { enum disk_format format; bool fixed, child;
} kinds[KINDS] = {
	{ DISK_VHDX, false, false }, { DISK_VHDX, true, false }, { DISK_VHDX, false, true },
	{ DISK_VHD, false, false },  { DISK_VHD, false, true },  { DISK_RAW, false, false },
};
enum { ITEM_BYTES = 4096 };
enum { PARENT_VALUE = WORK + 1 };

static uint64_t rnd(void)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}

static void flushed(void) { memcpy(may, now, sizeof(may)); }

/* One that failed may have been done to some of its sectors. */
static void written(uint64_t first, uint64_t count, uint8_t value, bool done)
{
	for (uint64_t sector = first; sector < first + count; sector++) {
		may[sector] |= 1ull << value;
		now[sector] = done ? 1ull << value : now[sector] | 1ull << value;
	}
}

static void one_act(struct disk *disk, unsigned n)
{
	static uint8_t buffer[DISK_BYTES];
	static const struct guid item =
		GUID(0x11111111, 0x2222, 0x3333, 0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x66, 0);
	uint64_t first = rnd() % SECTORS;
	uint64_t count = rnd() % 4 ? rnd() % 8 + 1 : rnd() % 4000 + 1;
	uint8_t value = (uint8_t)(n + 1);
	bool done;

	if (rnd() % 3 == 0) {
		first = first / 2048 * 2048;
		count = rnd() % 2 ? 2048 : count;
	}
	if (first + count > SECTORS)
		count = SECTORS - first;
	switch (rnd() % 7) {
	case 0:
	case 1:
		if (!disk_flush(disk))
			flushed();
		return;
	case 2:
		done = !disk_zero(disk, first * 512, count * 512);
		written(first, count, 0, done);
		return;
	case 3:
		if (disk->driver->write_item)
			disk_write_item(disk, item, DISK_ITEM_OF_FILE, buffer, ITEM_BYTES + n);
		return;
	case 4: disk_read(disk, first * 512, buffer, count * 512); return;
	default:
		memset(buffer, value, count * 512);
		done = !disk_write(disk, first * 512, buffer, count * 512);
		written(first, count, value, done);
	}
}

static int open_file(struct memory_file *file, unsigned kind, struct disk **ret,
		     struct disk_error *error)
{
	return disk_open_file(memory_disk_file(file), child_path,
			      &(struct disk_options){ .format = kinds[kind].format, .write = true },
			      ret, error);
}

static int make(struct memory_file *medium, unsigned kind)
{
	struct disk_file file = memory_disk_file(medium);
	const struct disk_create what = { .format = kinds[kind].format,
					  .size_bytes = DISK_BYTES,
					  .block_bytes = 1 << 20,
					  .fixed = kinds[kind].fixed };
	struct disk_error reason;
	struct disk *parent = NULL;
	int error;

	if (what.format == DISK_RAW)
		return file_truncate(&file, DISK_BYTES);
	error = kinds[kind].child ? disk_open(parent_path[what.format == DISK_VHD],
					      &(struct disk_options){ .format = what.format },
					      &parent, &reason)
				  : 0;

	if (!error)
		error = what.format == DISK_VHD
				? vhd_create(&file, child_path, &what, parent, &reason)
				: vhdx_create(&file, child_path, &what, parent, &reason);
	if (parent)
		disk_close(parent);
	return error;
}

static void work(struct memory_file *file, unsigned kind)
{
	struct disk_error error;
	struct disk *disk;

	state = 88172645463325252ull + kind;
	if (open_file(file, kind, &disk, &error))
		return;
	for (unsigned n = 0; n < WORK; n++)
		one_act(disk, n);
	if (!disk_close(disk))
		flushed();
}

static struct guid identifier(const struct memory_file *good, unsigned kind)
{
	struct memory_file *file = memory_copy(good);
	struct disk_info info = { 0 };
	struct disk_error error;
	struct disk *disk;

	if (!open_file(file, kind, &disk, &error)) {
		disk_info(disk, &info);
		disk_close(disk);
	}
	memory_free(file);
	return info.data_id;
}

static void verify(struct memory_file *file, unsigned kind, struct guid first_id, const char *what,
		   long n)
{
	static uint8_t buffer[DISK_BYTES];
	struct disk_info info;
	struct disk_error error;
	struct disk *disk;
	bool bad = false;
	bool changed = false;

	runs++;
	if (open_file(file, kind, &disk, &error)) {
		fprintf(stderr, "fault_test: %s %ld of kind %u: does not open: %s\n", what, n, kind,
			error.text);
		faults++;
		return;
	}
	disk_info(disk, &info);
	bad = disk_read(disk, 0, buffer, DISK_BYTES);
	for (unsigned sector = 0; sector < SECTORS && !bad; sector++) {
		const uint8_t *at = buffer + sector * 512;

		bad = memcmp(at, at + 1, 511) || *at > PARENT_VALUE || !(may[sector] >> *at & 1);
		if (bad)
			fprintf(stderr,
				"fault_test: %s %ld of kind %u: sector %u has %u, not one of %lx\n",
				what, n, kind, sector, *at, may[sector]);
		changed |= *at != before[sector];
	}
	if (changed && kinds[kind].format == DISK_VHDX && guid_equal(info.data_id, first_id)) {
		fprintf(stderr,
			"fault_test: %s %ld of kind %u: data changed, the identifier did not\n",
			what, n, kind);
		bad = true;
	}
	if (disk_close(disk)) {
		fprintf(stderr, "fault_test: %s %ld of kind %u: does not close\n", what, n, kind);
		bad = true;
	}
	faults += bad;
}

static struct memory_file *begin(const struct memory_file *good, unsigned kind)
{
	memset(before, kinds[kind].child ? PARENT_VALUE : 0, sizeof(before));
	for (unsigned sector = 0; sector < SECTORS; sector++)
		now[sector] = 1ull << before[sector];
	flushed();
	return memory_copy(good);
}

static void forget(void) /* digests of a VHD's parent */
{
	char side[80];

	snprintf(side, sizeof(side), "%s.umbra", child_path);
	unlink(side);
}

/* How: bit 0: reads, too; bit 1: from then on; bit 2: no space. */
static void io_faults(const struct memory_file *good, unsigned kind, unsigned how, long step)
{
	const struct guid id = identifier(good, kind);

	for (long n = 0;; n += step) {
		struct memory_file *file = begin(good, kind);
		bool over;

		memory_lose(file);
		file->fail_after = n;
		file->fail_reads = how & 1;
		file->fail_always = how & 2;
		file->fail_with = how & 4 ? -ENOSPC : -EIO;
		work(file, kind);
		over = !file->fail_always && file->fail_after >= 0;
		over |= file->fail_always && file->fail_after > 0;
		file->fail_after = -1;
		verify(file, kind, id, how & 2 ? "everything from act" : "act", n);
		memory_free(file);
		if (over)
			break;
	}
}

static void allocation_faults(const struct memory_file *good, unsigned kind, long step)
{
	const struct guid id = identifier(good, kind);

	for (long n = 0;; n += step) {
		struct memory_file *file = begin(good, kind);
		bool over;

		allocations_left = n;
		counting = true;
		work(file, kind);
		counting = false;
		over = allocations_left >= 0;
		allocations_left = -1;
		verify(file, kind, id, "allocation", n);
		memory_free(file);
		if (over)
			break;
	}
}

/* A file that could not be made opens, or does not: but nothing else happens. */
static void making(unsigned kind)
{
	for (long n = 0;; n++) {
		struct memory_file *file = memory_new();
		bool over;

		file->fail_after = n;
		make(file, kind);
		over = file->fail_after >= 0;
		memory_free(file);
		file = memory_new();
		allocations_left = n;
		counting = true;
		make(file, kind);
		counting = false;
		over &= allocations_left >= 0;
		allocations_left = -1;
		memory_free(file);
		runs += 2;
		if (over)
			break;
	}
}

static void make_parent(enum disk_format format)
{
	static uint8_t buffer[DISK_BYTES];
	const struct disk_create what = { .format = format,
					  .size_bytes = DISK_BYTES,
					  .block_bytes = 1 << 20 };
	char *path = parent_path[format == DISK_VHD];
	struct disk_error error;
	struct disk *disk;

	snprintf(path, sizeof(*parent_path), "build/fault-%d.%s", getpid(),
		 disk_format_name(format));
	snprintf(child_path, sizeof(child_path), "build/fault-child-%d", getpid());
	memset(buffer, PARENT_VALUE, sizeof(buffer));
	if (disk_create(path, &what, &error) ||
	    disk_open(path, &(struct disk_options){ .format = format, .write = true }, &disk,
		      &error) ||
	    disk_write(disk, 0, buffer, DISK_BYTES) || disk_close(disk)) {
		fprintf(stderr, "fault_test: %s\n", error.text);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	long step = argc > 1 ? strtol(argv[1], NULL, 0) : 1;
	char side[80];

	make_parent(DISK_VHDX);
	make_parent(DISK_VHD);
	for (unsigned kind = 0; kind < KINDS; kind++) {
		struct memory_file *good = memory_new();

		if (make(good, kind))
			exit(1);
		for (unsigned how = 0; how < 8; how++)
			io_faults(good, kind, how, step);
		allocation_faults(good, kind, step);
		making(kind);
		forget();
		memory_free(good);
	}
	for (int n = 0; n < 2; n++) {
		unlink(parent_path[n]);
		snprintf(side, sizeof(side), "%s.umbra", parent_path[n]);
		unlink(side);
	}
	printf("fault_test: %lu runs with a fault, %lu faults in them\n", runs, faults);
	return faults != 0;
}
