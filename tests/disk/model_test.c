/*
 * Random operations on a chain of VHDX files against an array in memory: writes, zeroes, reads,
 * flushes, closing and opening again, children, commits, larger disks, ranges. usage: model_test
 * [OPERATIONS [SEED]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/disk_internal.h"

enum { MAX_BYTES = 24 << 20, DEPTH = 6 };
enum { UNIT_BYTES = 4096, MORE_UNITS = 4096 };

static uint8_t model[DEPTH + 1][MAX_BYTES], buffer[MAX_BYTES];
static uint64_t size, state;
static unsigned depth;
static struct disk *disk;
static unsigned long errors;

static uint64_t rnd(void)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}

static enum disk_format format;

static const char *name(unsigned n)
{
	static char path[64];

	snprintf(path, sizeof(path), "build/model-%d-%u.vhdx", getpid(), n);
	return path;
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "model_test: %s: %d\n", what, error);
	errors++;
}

static void open_top(void)
{
	struct disk_error reason = { .kind = REFUSAL_NONE };
	int error =
		disk_open(name(depth), &(struct disk_options){ .format = format, .write = true },
			  &disk, &reason);

	if (error) {
		fprintf(stderr, "model_test: %s\n", reason.text);
		exit(1);
	}
}

static void close_top(void)
{
	int error = disk_close(disk);

	if (error)
		fail("close", error);
}

static void choose(uint64_t *offset, uint64_t *bytes, uint32_t sector)
{
	uint64_t at = rnd() % (size / sector);
	uint64_t n = rnd() % 4 ? rnd() % 64 + 1 : rnd() % (6 << 20) / sector + 1;

	if (rnd() % 5 == 0)
		at = at * sector / (1 << 20) * ((1 << 20) / sector);
	if (n > size / sector - at)
		n = size / sector - at;
	*offset = at * sector;
	*bytes = n * sector;
}

static void write_some(uint64_t offset, uint64_t bytes)
{
	struct iovec iov[3] = { { buffer, bytes / 3 },
				{ buffer + bytes / 3, bytes / 2 - bytes / 3 },
				{ buffer + bytes / 2, bytes - bytes / 2 } };
	int error;

	for (uint64_t n = 0; n < bytes; n += 8) {
		uint64_t value = rnd();

		memcpy(buffer + n, &value, 8);
	}
	memcpy(model[depth] + offset, buffer, bytes);
	error = disk_writev(disk, offset, iov, 3);
	if (error)
		fail("write", error);
}

static void compare(uint64_t offset, uint64_t bytes)
{
	int error = disk_read(disk, offset, buffer, bytes);

	if (error)
		fail("read", error);
	else if (memcmp(buffer, model[depth] + offset, bytes))
		fail("contents differ", (int)(offset >> 9));
}

/* A range that is said to be zero is; one that is the parent's is as there. */
static void ranges(void)
{
	struct disk_range range = { .bytes = 0 };

	for (uint64_t at = 0; at < size; at += range.bytes) {
		int error = disk_range(disk, at, size - at, &range);

		if (error || !range.bytes) {
			fail("range", error);
			return;
		}
		for (uint64_t k = at; range.kind == DISK_RANGE_ZERO && k < at + range.bytes; k++)
			if (model[depth][k]) {
				fail("zero range", (int)(k >> 9));
				return;
			}
		if (range.kind == DISK_RANGE_ABSENT &&
		    (!depth || memcmp(model[depth] + at, model[depth - 1] + at, range.bytes)))
			fail("parent's range", (int)(at >> 9));
	}
}

static void make_child(void)
{
	char parent[64];
	struct disk_create what = { .format = format, .parent_format = format };
	struct disk_error error;

	close_top();
	snprintf(parent, sizeof(parent), "%s", name(depth));
	what.parent = parent;
	memcpy(model[depth + 1], model[depth], MAX_BYTES);
	depth++;
	if (disk_create(name(depth), &what, &error))
		fprintf(stderr, "model_test: %s\n", error.text), errors++;
	open_top();
}

static void commit(void)
{
	struct disk_error reason = { .kind = REFUSAL_NONE };
	int error = disk_commit(disk, NULL, &reason);

	if (error)
		fprintf(stderr, "model_test: commit: %s (%d)\n", reason.text, error), errors++;
	memcpy(model[depth - 1], model[depth], MAX_BYTES);
	close_top();
	if (rnd() % 2)
		unlink(name(depth--));
	open_top();
	compare(0, size);
}

static void grow(void)
{
	uint64_t larger = size + (rnd() % MORE_UNITS + 1) * UNIT_BYTES;
	int error = larger <= MAX_BYTES && !depth ? disk_resize(disk, larger) : 0;

	if (error)
		fail("resize", error);
	else if (larger <= MAX_BYTES && !depth)
		size = larger;
}

static void one(void)
{
	uint64_t offset, bytes;
	int error = 0;

	choose(&offset, &bytes, disk_sector_bytes(disk));
	switch (rnd() % 24) {
	case 0: error = disk_flush(disk); break;
	case 1:
		close_top();
		open_top();
		compare(0, size);
		break;
	case 2: case 3: case 4: case 5:
		memset(model[depth] + offset, 0, bytes);
		error = disk_zero(disk, offset, bytes);
		break;
	case 6: ranges(); break;
	case 7:
		if (depth < DEPTH && rnd() % 3 == 0)
			make_child();
		break;
	case 8:
		if (depth && rnd() % 4 == 0 && format == DISK_VHDX)
			commit();
		break;
	case 9:
		if (rnd() % 8 == 0 && format == DISK_VHDX)
			grow();
		break;
	case 10: case 11: case 12: case 13: compare(offset, bytes); break;
	default: write_some(offset, bytes);
	}
	if (error)
		fail("operation", error);
}

static void chain(unsigned long operations, uint32_t block, uint32_t sector, bool fixed)
{
	struct disk_create what = { .format = format,
				    .block_bytes = block,
				    .logical_sector_bytes = sector,
				    .fixed = fixed };
	struct disk_error error;

	memset(model, 0, sizeof(model));
	depth = 0;
	what.size_bytes = size = (rnd() % 2048 + 1024) * UNIT_BYTES;
	if (disk_create(name(0), &what, &error)) {
		fprintf(stderr, "model_test: %s\n", error.text);
		errors++;
	}
	open_top();
	for (unsigned long n = 0; n < operations && !errors; n++)
		one();
	compare(0, size);
	close_top();
	for (unsigned n = 0; n <= depth; n++) {
		char side[80];

		snprintf(side, sizeof(side), "%s.umbra", name(n));
		unlink(side);
		unlink(name(n));
	}
}

int main(int argc, char **argv)
{
	unsigned long operations = argc > 1 ? strtoul(argv[1], NULL, 0) : 5000;
	unsigned long done = 0;

	state = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + 1;
	for (unsigned n = 0; done < operations && !errors; n++, done += 500) {
		format = n % 3 == 2 ? DISK_VHD : DISK_VHDX;
		chain(500, 1u << (20 + rnd() % 3),
		      rnd() % 3 || format == DISK_VHD ? 512 : UNIT_BYTES, n % 5 == 4);
	}
	printf("model_test: %lu operations, %lu errors\n", done, errors);
	return errors ? 1 : 0;
}
