/*
 * A tree of small files, made or compared at either end of what is tested: tree_peer make|check
 * FOLDER FILES. What is in each is known by its number. It says how many files it did in a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FOLDER_FILES = 100, FILE_BYTES = 6000, PATH_BYTES = 256, MODES = 3 };

static const mode_t modes[MODES] = { 0644, 0600, 0755 };

static _Noreturn void give_up(const char *what)
{
	printf("BAD %s: %s\n", what, strerror(errno));
	exit(1);
}

/* So many bytes has the file of this number: few, mostly. */
static size_t fill(unsigned number, uint8_t data[FILE_BYTES])
{
	uint32_t word = number * 2654435761u + 1;
	const size_t bytes = number % 10 ? word % 700 : word % FILE_BYTES;

	for (size_t n = 0; n < bytes; n++) {
		word = word * 1664525u + 1013904223u;
		data[n] = (uint8_t)(word >> 24);
	}
	return bytes;
}

static void name_of(const char *folder, unsigned number, char path[PATH_BYTES])
{
	snprintf(path, PATH_BYTES, "%s/%u/%u", folder, number / FOLDER_FILES, number);
}

static void make(const char *folder, unsigned number)
{
	uint8_t data[FILE_BYTES];
	const size_t bytes = fill(number, data);
	char path[PATH_BYTES];
	int fd;

	if (number % FOLDER_FILES == 0) {
		snprintf(path, sizeof(path), "%s/%u", folder, number / FOLDER_FILES);
		if (mkdir(path, 0755))
			give_up(path);
	}
	name_of(folder, number, path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, modes[number % MODES]);
	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || close(fd))
		give_up(path);
}

static void check(const char *folder, unsigned number)
{
	uint8_t data[FILE_BYTES];
	uint8_t there[FILE_BYTES + 1];
	const size_t bytes = fill(number, data);
	char path[PATH_BYTES];
	struct stat st;
	int fd;

	name_of(folder, number, path);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		give_up(path);
	if (read(fd, there, sizeof(there)) != (ssize_t)bytes || memcmp(data, there, bytes) != 0)
		give_up(path);
	if ((st.st_mode & 0777) != modes[number % MODES] || (size_t)st.st_size != bytes)
		give_up(path);
	close(fd);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	const unsigned files = argc == 4 ? (unsigned)atoi(argv[3]) : 0;
	const double begin = now_s();
	void (*act)(const char *folder, unsigned number) = make;

	if (!files)
		return 64;
	umask(0);
	if (!strcmp(argv[1], "check"))
		act = check;
	else if (mkdir(argv[2], 0755) && errno != EEXIST)
		give_up(argv[2]);
	for (unsigned n = 0; n < files; n++)
		act(argv[2], n);
	printf("%s %u files, %.0f a second\n", argv[1], files, files / (now_s() - begin));
	return 0;
}
