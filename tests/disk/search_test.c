/*
 * A long chain whose base is gone, is something else, or is one of its own children: it is refused
 * after each file was opened a few times, whatever is tried. Counted are the calls that open files
 * (the linker sends them here).
 *
 * usage: search_test [bench]: bench prints how long it takes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "disk/disk_internal.h"

enum { LINKS = 200, SIZE_BYTES = 4 << 20, BLOCK_BYTES = 1 << 20, FILES_OPENED_MAX = 3 * LINKS };

static unsigned opened, faults;
static char directory[] = "/dev/shm/umbra-search-XXXXXX";

int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode)
{
	opened++;
	return __real_open64(path, flags, mode);
}

static const char *path_of(unsigned link)
{
	static char text[2][80];
	static unsigned turn;

	turn = !turn;
	snprintf(text[turn], sizeof(text[turn]), "%s/%u.vhdx", directory, link);
	return text[turn];
}

static void give_up(const struct disk_error *error)
{
	fprintf(stderr, "search_test: %s\n", error->text);
	exit(1);
}

/* On a parent that is open alone: making a chain takes as long as it has links. */
static void make(unsigned link)
{
	struct disk_create what = { .format = DISK_VHDX,
				    .size_bytes = SIZE_BYTES,
				    .block_bytes = BLOCK_BYTES,
				    .no_digests = true,
				    .resolved = true };
	struct disk_options alone = { .format = DISK_VHDX, .without_parents = true };
	struct disk *parent = NULL;
	struct disk_error error;
	struct disk_file file;
	int result = 0;

	if (link && disk_open(path_of(link - 1), &alone, &parent, &error))
		give_up(&error);
	if (disk_file_create(path_of(link), true, &file))
		abort();
	file.no_sync = true;
	what.parent = link ? path_of(link - 1) : NULL;
	result = vhdx_create(&file, path_of(link), &what, parent, &error);
	file_close(&file);
	if (parent)
		disk_close(parent);
	if (result)
		give_up(&error);
}

static double now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void refused(const char *what, int want, bool bench)
{
	const struct disk_options options = { .format = DISK_VHDX };
	double wall = now(CLOCK_MONOTONIC);
	double processor = now(CLOCK_PROCESS_CPUTIME_ID);
	struct disk_error error = { .kind = REFUSAL_NONE };
	struct disk *disk;
	int result;

	opened = 0;
	result = disk_open(path_of(LINKS - 1), &options, &disk, &error);
	wall = now(CLOCK_MONOTONIC) - wall;
	processor = now(CLOCK_PROCESS_CPUTIME_ID) - processor;
	if (!result)
		disk_close(disk);
	if (bench)
		printf("%-28s %6.1f ms, %6.1f ms of the processor, %u files opened\n", what, wall,
		       processor, opened);
	if (result == want && opened <= FILES_OPENED_MAX)
		return;
	fprintf(stderr, "search_test: %s: %d, not %d, after %u files were opened: %s\n", what,
		result, want, opened, error.text);
	faults++;
}

int main(int argc, char **argv)
{
	bool bench = argc > 1 && !strcmp(argv[1], "bench");
	char command[100];

	if (!mkdtemp(directory))
		return 1;
	for (unsigned link = 0; link < LINKS; link++)
		make(link);
	refused("a chain of 200", 0, bench);
	unlink(path_of(0));
	refused("its base is gone", -ENOENT, bench);
	make(0);
	refused("its base is another disk", -ESTALE, bench);
	unlink(path_of(0));
	if (link(path_of(LINKS / 2), path_of(0)))
		return 1;
	refused("a loop of 100", -ELOOP, bench);
	unlink(path_of(0));
	if (link(path_of(LINKS - 1), path_of(0)))
		return 1;
	refused("a loop of 200", -ELOOP, bench);
	unlink(path_of(LINKS / 2));
	refused("its middle is gone", -ENOENT, bench);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	if (system(command))
		return 1;
	printf("search_test: %u faults\n", faults);
	return faults != 0;
}
