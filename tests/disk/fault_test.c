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
	for (uint64_t s = first; s < first + count; s++) {
		may[s] |= 1ull << value;
		now[s] = done ? 1ull << value : now[s] | 1ull << value;
	}
}

static void one_act(struct disk *d, unsigned n)
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
		if (!disk_flush(d))
			flushed();
		return;
	case 2:
		done = !disk_zero(d, first * 512, count * 512);
		written(first, count, 0, done);
		return;
	case 3:
		if (d->driver->write_item)
			disk_write_item(d, item, DISK_ITEM_OF_FILE, buffer, ITEM_BYTES + n);
		return;
	case 4: disk_read(d, first * 512, buffer, count * 512); return;
	default:
		memset(buffer, value, count * 512);
		done = !disk_write(d, first * 512, buffer, count * 512);
		written(first, count, value, done);
	}
}

static int open_file(struct memory_file *f, unsigned kind, struct disk **ret, struct disk_error *e)
{
	return disk_open_file(memory_disk_file(f), child_path,
			      &(struct disk_options){ .format = kinds[kind].format, .write = true },
			      ret, e);
}

static int make(struct memory_file *f, unsigned kind)
{
	struct disk_file file = memory_disk_file(f);
	const struct disk_create what = { .format = kinds[kind].format,
					  .size_bytes = DISK_BYTES,
					  .block_bytes = 1 << 20,
					  .fixed = kinds[kind].fixed };
	struct disk_error e;
	struct disk *parent = NULL;
	int error;

	if (what.format == DISK_RAW)
		return file_truncate(&file, DISK_BYTES);
	error = kinds[kind].child
			? disk_open(parent_path[what.format == DISK_VHD],
				    &(struct disk_options){ .format = what.format }, &parent, &e)
			: 0;

	if (!error)
		error = what.format == DISK_VHD ? vhd_create(&file, child_path, &what, parent, &e)
						: vhdx_create(&file, child_path, &what, parent, &e);
	if (parent)
		disk_close(parent);
	return error;
}

static void work(struct memory_file *f, unsigned kind)
{
	struct disk_error e;
	struct disk *d;

	state = 88172645463325252ull + kind;
	if (open_file(f, kind, &d, &e))
		return;
	for (unsigned n = 0; n < WORK; n++)
		one_act(d, n);
	if (!disk_close(d))
		flushed();
}

static struct guid identifier(const struct memory_file *good, unsigned kind)
{
	struct memory_file *f = memory_copy(good);
	struct disk_info info = { 0 };
	struct disk_error e;
	struct disk *d;

	if (!open_file(f, kind, &d, &e)) {
		disk_info(d, &info);
		disk_close(d);
	}
	memory_free(f);
	return info.data_id;
}

static void verify(struct memory_file *f, unsigned kind, struct guid first_id, const char *what,
		   long n)
{
	static uint8_t buffer[DISK_BYTES];
	struct disk_info info;
	struct disk_error e;
	struct disk *d;
	bool bad = false;
	bool changed = false;

	runs++;
	if (open_file(f, kind, &d, &e)) {
		fprintf(stderr, "fault_test: %s %ld of kind %u: does not open: %s\n", what, n, kind,
			e.text);
		faults++;
		return;
	}
	disk_info(d, &info);
	bad = disk_read(d, 0, buffer, DISK_BYTES);
	for (unsigned s = 0; s < SECTORS && !bad; s++) {
		const uint8_t *at = buffer + s * 512;

		bad = memcmp(at, at + 1, 511) || *at > PARENT_VALUE || !(may[s] >> *at & 1);
		if (bad)
			fprintf(stderr,
				"fault_test: %s %ld of kind %u: sector %u has %u, not one of %lx\n",
				what, n, kind, s, *at, may[s]);
		changed |= *at != before[s];
	}
	if (changed && kinds[kind].format == DISK_VHDX && guid_equal(info.data_id, first_id)) {
		fprintf(stderr,
			"fault_test: %s %ld of kind %u: data changed, the identifier did not\n",
			what, n, kind);
		bad = true;
	}
	if (disk_close(d)) {
		fprintf(stderr, "fault_test: %s %ld of kind %u: does not close\n", what, n, kind);
		bad = true;
	}
	faults += bad;
}

static struct memory_file *begin(const struct memory_file *good, unsigned kind)
{
	memset(before, kinds[kind].child ? PARENT_VALUE : 0, sizeof(before));
	for (unsigned s = 0; s < SECTORS; s++)
		now[s] = 1ull << before[s];
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
		struct memory_file *f = begin(good, kind);
		bool over;

		memory_lose(f);
		f->fail_after = n;
		f->fail_reads = how & 1;
		f->fail_always = how & 2;
		f->fail_with = how & 4 ? -ENOSPC : -EIO;
		work(f, kind);
		over = !f->fail_always && f->fail_after >= 0;
		over |= f->fail_always && f->fail_after > 0;
		f->fail_after = -1;
		verify(f, kind, id, how & 2 ? "everything from act" : "act", n);
		memory_free(f);
		if (over)
			break;
	}
}

static void allocation_faults(const struct memory_file *good, unsigned kind, long step)
{
	const struct guid id = identifier(good, kind);

	for (long n = 0;; n += step) {
		struct memory_file *f = begin(good, kind);
		bool over;

		allocations_left = n;
		counting = true;
		work(f, kind);
		counting = false;
		over = allocations_left >= 0;
		allocations_left = -1;
		verify(f, kind, id, "allocation", n);
		memory_free(f);
		if (over)
			break;
	}
}

/* A file that could not be made opens, or does not: but nothing else happens. */
static void making(unsigned kind)
{
	for (long n = 0;; n++) {
		struct memory_file *f = memory_new();
		bool over;

		f->fail_after = n;
		make(f, kind);
		over = f->fail_after >= 0;
		memory_free(f);
		f = memory_new();
		allocations_left = n;
		counting = true;
		make(f, kind);
		counting = false;
		over &= allocations_left >= 0;
		allocations_left = -1;
		memory_free(f);
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
	struct disk_error e;
	struct disk *d;

	snprintf(path, sizeof(*parent_path), "build/fault-%d.%s", getpid(),
		 disk_format_name(format));
	snprintf(child_path, sizeof(child_path), "build/fault-child-%d", getpid());
	memset(buffer, PARENT_VALUE, sizeof(buffer));
	if (disk_create(path, &what, &e) ||
	    disk_open(path, &(struct disk_options){ .format = format, .write = true }, &d, &e) ||
	    disk_write(d, 0, buffer, DISK_BYTES) || disk_close(d)) {
		fprintf(stderr, "fault_test: %s\n", e.text);
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
