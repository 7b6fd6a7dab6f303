/*
 * Changes that nobody announced, and none: `seal_test MUTATIONS CYCLES [SEED]`.
 *
 * A mutation changes bytes of a parent behind everybody's back (one bit, a sector, zeros over a
 * range, a sector moved), and must be seen three ways: by comparing the link, by the parent's own
 * digests, and by a child that reads there. A cycle opens, reads, annotates, writes the same file
 * again by the rules, and nothing may be reported. Parents: VHDX, raw. Digests are the same on
 * every processor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/disk.h"
#include "disk/hash_wide.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { DISK_BYTES = 8 << 20, BLOCK_BYTES = 1 << 20 };
enum { PART_BYTES = 4096 };
#define TEST_ITEM GUID(0x11111111, 0x2222, 0x3333, 0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55)

static uint64_t state;
static uint8_t content[DISK_BYTES], seen[DISK_BYTES];
static unsigned faults;

static uint64_t random_below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static void must(bool good, const char *what)
{
	if (!good) {
		faults++;
		printf("seal_test: %s\n", what);
	}
}

static int count(void *context, uint64_t offset, uint64_t bytes)
{
	(void)offset;
	(void)bytes;
	++*(unsigned *)context;
	return 0;
}

static struct disk *open_or_die(const char *path, enum disk_format format, bool write)
{
	struct disk_error error;
	struct disk *disk;

	if (disk_open(path, &(struct disk_options){ .format = format, .write = write }, &disk,
		      &error)) {
		printf("seal_test: %s\n", error.text);
		exit(1);
	}
	return disk;
}

static void make(const char *path, enum disk_format format, const char *child)
{
	struct disk_error error;
	struct disk *disk;

	remove(path);
	remove(child);
	if (disk_create(path,
			&(struct disk_create){ .format = format,
					       .size_bytes = DISK_BYTES,
					       .block_bytes = BLOCK_BYTES },
			&error))
		printf("seal_test: %s\n", error.text);
	for (size_t n = 0; n < DISK_BYTES; n++)
		content[n] = (uint8_t)random_below(256);
	memset(content + 3 * BLOCK_BYTES, 0, BLOCK_BYTES);
	disk = open_or_die(path, format, true);
	must(!disk_write(disk, 0, content, 3 * BLOCK_BYTES) &&
		     !disk_write(disk, 4 * BLOCK_BYTES, content + 4 * BLOCK_BYTES, 4 * BLOCK_BYTES),
	     "writing");
	must(!disk_close(disk), "closing");
	if (disk_create(child,
			&(struct disk_create){
				.format = DISK_VHDX, .parent = path, .parent_format = format },
			&error))
		printf("seal_test: %s\n", error.text);
}

/*
 * Where in the file the content's byte `at` lies: it is random, so that a sector is found by
 * looking for it.
 */
static off_t place_of(int fd, size_t at)
{
	static uint8_t sector[512];
	off_t end = lseek(fd, 0, SEEK_END);

	for (off_t n = 0; n < end; n += BLOCK_BYTES) /* blocks lie on whole MiB */
		if (pread(fd, sector, 512, n + (off_t)(at % BLOCK_BYTES & ~511ul)) == 512 &&
		    !memcmp(sector, content + (at & ~511ul), 512))
			return n + (off_t)(at % BLOCK_BYTES);
	return -1;
}

static void mutate(const char *path, const char *child, enum disk_format format)
{
	uint8_t bytes[PART_BYTES], before[PART_BYTES];
	size_t at = random_below(DISK_BYTES - sizeof(bytes));
	size_t n = 1;
	struct disk *disk;
	unsigned found = 0;
	off_t place;
	int fd = open(path, O_RDWR);
	int error;

	if (at / BLOCK_BYTES == 3 || (at + sizeof(bytes)) / BLOCK_BYTES != at / BLOCK_BYTES)
		at = 5 * BLOCK_BYTES + at % (BLOCK_BYTES - sizeof(bytes));
	place = place_of(fd, at);
	must(place >= 0 && pread(fd, before, sizeof(before), place) == sizeof(before),
	     "finding the place");
	memcpy(bytes, before, sizeof(bytes));
	switch (random_below(4)) {
	case 0: bytes[0] ^= (uint8_t)(1 << random_below(8)); break;
	case 1: memset(bytes, 0, n = sizeof(bytes)); break;
	case 2: memcpy(bytes, before + 512, n = 512); break;
	default:
		for (n = 0; n < 64; n++)
			bytes[n] ^= (uint8_t)(1 + random_below(255));
	}
	must(pwrite(fd, bytes, n, place) == (ssize_t)n, "changing");
	disk = open_or_die(child, DISK_VHDX, false);
	must(!disk_verify_link(disk, count, &found) && found == 1,
	     "a changed parent was not seen by its child");
	error = disk_read(disk, at & ~511ul, seen, 512);
	must(error == -ESTALE, "a changed block was read through the child");
	error = disk_read(disk, 3 * BLOCK_BYTES, seen, 512);
	must(at / (2 * BLOCK_BYTES) == 1 || !error, "a block that is the same was not read");
	disk_close(disk);
	if (format == DISK_VHDX) {
		disk = open_or_die(path, format, false);
		must(!disk_verify(disk, count, &found) && found == 2,
		     "a change was not seen in the file itself");
		disk_close(disk);
	}
	must(pwrite(fd, before, n, place) == (ssize_t)n, "changing back");
	close(fd);
}

static void cycle(const char *path, const char *child, enum disk_format format)
{
	struct disk *disk = open_or_die(path, format, true);
	uint64_t note = random_below(1000);
	unsigned found = 0;

	if (random_below(2))
		must(!disk_write_item(disk, TEST_ITEM, DISK_ITEM_OF_FILE, &note, sizeof(note)),
		     "annotating");
	must(!disk_flush(disk) && !disk_close(disk), "closing");
	disk = open_or_die(child, DISK_VHDX, random_below(2));
	must(!disk_verify_link(disk, count, &found) && !found,
	     "a change was reported where none was");
	must(!disk_read(disk, 0, seen, DISK_BYTES) && !memcmp(seen, content, DISK_BYTES),
	     "the child reads something else");
	disk_close(disk);
	if (format == DISK_VHDX) {
		disk = open_or_die(path, format, false);
		must(!disk_verify(disk, count, &found) && !found, "a file's own digests are wrong");
		disk_close(disk);
	}
}

/* A file that is written by the rules has digests that are right. */
static void rewrite(const char *path)
{
	struct disk *disk = open_or_die(path, DISK_VHDX, true);
	unsigned found = 0;
	size_t at = random_below(DISK_BYTES / 512 - 64) * 512;
	size_t bytes = 512 * (1 + random_below(64));

	if (random_below(4))
		must(!disk_write(disk, at, seen, bytes), "writing");
	else
		must(!disk_zero(disk, at, bytes), "zeroing");
	must(!disk_close(disk), "closing");
	disk = open_or_die(path, DISK_VHDX, false);
	must(!disk_verify(disk, count, &found) && !found, "digests were not brought up to date");
	disk_close(disk);
}

/* In pieces of any length. */
static void compare_hashes(unsigned cycles)
{
	XXH3_state_t *one = XXH3_createState();

	for (unsigned n = 0; n < cycles && hash_wide_is_there(); n++) {
		size_t bytes = random_below(n < cycles / 2 ? 2000 : DISK_BYTES / 8);
		XXH128_hash_t want = XXH3_128bits(content + n, bytes);
		XXH128_hash_t got;

		XXH3_128bits_reset(one);
		for (size_t at = 0, piece; at < bytes; at += piece) {
			piece = 1 + random_below(bytes - at);
			hash_wide_add(one, content + n + at, piece);
		}
		got = XXH3_128bits_digest(one);
		must(XXH128_isEqual(want, got), "a digest is another with wide vectors");
	}
	XXH3_freeState(one);
}

int main(int argc, char **argv)
{
	unsigned mutations = argc > 1 ? (unsigned)atoi(argv[1]) : 100;
	unsigned cycles = argc > 2 ? (unsigned)atoi(argv[2]) : 100;
	char directory[] = "/tmp/seal-XXXXXX";

	state = argc > 3 ? strtoull(argv[3], NULL, 10) : 42;
	if (!mkdtemp(directory) || chdir(directory))
		return 1;
	for (int format = DISK_VHDX; format <= DISK_RAW; format++) {
		make("parent", format, "child");
		for (unsigned n = 0; n < mutations; n++)
			mutate("parent", "child", format);
		make("parent", format, "child");
		for (unsigned n = 0; n < cycles; n++)
			cycle("parent", "child", format);
	}
	for (unsigned n = 0; n < cycles; n++)
		rewrite("child");
	compare_hashes(cycles);
	printf("seal_test: %u mutations and %u cycles of two formats, %u faults\n", mutations,
	       cycles, faults);
	remove("parent");
	remove("parent.umbra");
	remove("child");
	return chdir("/") || rmdir(directory) || faults;
}
