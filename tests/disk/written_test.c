/*
 * Power cuts while a qcow2 or VMDK file is written: after every act, with what was written since
 * the last flush in any part on the disk. What is there is refused, or is all of the disk.
 *
 * qcow2 says so by itself: its head comes behind a flush. Of a stream-optimised VMDK any beginning
 * is refused; that all of it is there before it has its name is what the caller's flush is for.
 *
 * usage: written_test [STATES]
 */
#include <stdio.h>

#include "memory_file.h"

enum { BYTES = 5 * (1 << 20) + 512, PARTS = 24 };
static uint64_t state = 18;
static uint64_t states, faults, whole;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static struct disk *open_memory(struct memory_file *file, enum disk_format format)
{
	const struct disk_options options = { .format = format };
	struct disk_error error;
	struct disk *disk;

	return disk_open_file(memory_disk_file(file), "/memory", &options, &disk, &error) ? NULL
											  : disk;
}

/* Some of it packs, some does not, some is nothing. */
static struct memory_file *make_source(void)
{
	struct memory_file *file = memory_new();
	static uint8_t data[100000];

	memory_cut(file, BYTES);
	for (unsigned n = 0; n < PARTS; n++) {
		uint64_t at = rnd() % (BYTES - sizeof(data));

		for (size_t k = 0; k < sizeof(data); k++)
			data[k] = n & 1 ? (uint8_t)(rnd() >> 32) : (uint8_t)(n + k / 999);
		memory_put(file, at, data, sizeof(data));
	}
	return file;
}

static bool reads_the_same(struct disk *one, struct disk *other)
{
	static uint8_t is[BYTES], was[BYTES];

	return disk_size_bytes(one) == BYTES && !disk_read(one, 0, is, BYTES) &&
	       !disk_read(other, 0, was, BYTES) && !memcmp(is, was, BYTES);
}

static void look(struct memory_file *file, enum disk_format format, struct disk *source, size_t act)
{
	struct disk *disk = open_memory(file, format);

	states++;
	if (!disk)
		return;
	whole++;
	if (!reads_the_same(disk, source)) {
		fprintf(stderr,
			"written_test: %s, cut off at act %zu: opens, and is something else\n",
			disk_format_name(format), act);
		faults++;
	}
	disk_close(disk);
}

static size_t last_flush(const struct memory_file *file, size_t act)
{
	while (act && file->acts[act - 1].kind != MEMORY_FLUSH)
		act--;
	return act;
}

/* Up to the last flush all of it, then some acts, in any order, the last one torn. */
static void cut_at(const struct memory_file *file, enum disk_format format, struct disk *source,
		   size_t act, bool reordered)
{
	size_t sure = reordered ? last_flush(file, act) : act;
	struct memory_file *after = memory_new();
	const struct memory_act *last = &file->acts[act];

	for (size_t n = 0; n < act; n++)
		if (n < sure || rnd() & 1)
			memory_do(after, &file->acts[n], 0, file->acts[n].bytes);
	if (last->kind == MEMORY_WRITE && last->bytes > 1)
		memory_do(after, last, 0, rnd() % last->bytes);
	look(after, format, source, act);
	memory_free(after);
}

static void try_format(enum disk_format format, enum disk_packing packing, struct memory_file *from,
		       uint64_t want)
{
	struct memory_file *file = memory_new();
	struct disk *source = open_memory(from, DISK_RAW);
	struct disk_file below = memory_disk_file(file);
	const struct disk_create what = { .format = format, .packing = packing };
	const struct disk_conversion conversion = {
		.from = source, .file = &below, .path = "/memory", .what = &what
	};
	struct disk_error error = { .kind = REFUSAL_NONE };
	uint64_t before = whole;

	file->recording = true;
	if (format == DISK_QCOW2 ? qcow2_write_file(&conversion, &error)
				 : vmdk_write_file(&conversion, &error))
		abort();
	for (uint64_t n = 0; n < want; n++)
		cut_at(file, format, source, n % file->count, format == DISK_QCOW2);
	if (whole - before > want / 2) {
		fprintf(stderr, "written_test: most states are whole: nothing was cut off\n");
		faults++;
	}
	before = whole;
	look(file, format, source, file->count);
	faults += whole == before;
	disk_close(source);
	memory_free(file);
}

int main(int argc, char **argv)
{
	uint64_t want = argc > 1 ? strtoul(argv[1], NULL, 0) : 400;
	struct memory_file *from = make_source();

	try_format(DISK_QCOW2, DISK_UNPACKED, from, want);
	try_format(DISK_QCOW2, DISK_PACKED_ZLIB, from, want);
	try_format(DISK_QCOW2, DISK_PACKED_ZSTD, from, want);
	try_format(DISK_VMDK, DISK_UNPACKED, from, want);
	memory_free(from);
	printf("written_test: %lu states, %lu of them whole, %lu faults\n", states, whole, faults);
	return faults != 0;
}
