/*
 * What comes by standard input, and goes to standard output: `-` as the source or target of
 * convert.
 *
 * A format is not read from its beginning to its end. Input that is a file is opened as one; other
 * input goes first into a file without a name in the target's directory, with holes for zeros,
 * which is gone however this ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/write_all.h"
#include "disk_cli.h"

enum { HOLE_BYTES = 65536 };

bool disk_is_pipe(const char *path) { return path && !strcmp(path, "-"); }

static int refuse(const char *what, const char *remedy)
{
	return complain(EXIT_UNUSABLE, what, "standard input", remedy);
}

static int unnamed_beside(const char *target)
{
	char *copy = disk_is_pipe(target) ? strdup("/var/tmp/-") : strdup(target);
	int fd = copy ? open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;

	free(copy);
	return fd;
}

static bool is_hole(const uint8_t *at, size_t bytes)
{
	return !at[0] && !memcmp(at, at + 1, bytes - 1);
}

/* Behind what the file has. */
static int put_or_skip(int fd, const uint8_t *from, size_t bytes)
{
	if (!is_hole(from, bytes))
		return write_all(fd, from, bytes);
	return lseek(fd, (off_t)bytes, SEEK_CUR) < 0 ? -errno : 0;
}

/* As much as there is, up to `room`. */
static ssize_t get_some(uint8_t *to, size_t room)
{
	size_t got = 0;

	while (got < room) {
		ssize_t now = read(STDIN_FILENO, to + got, room - got);

		if (now < 0 && errno == EINTR)
			continue;
		if (now < 0)
			return -errno;
		if (!now)
			break;
		got += (size_t)now;
	}
	return (ssize_t)got;
}

static int spool(int fd, const char *target)
{
	uint8_t *buffer = malloc(HOLE_BYTES);
	uint64_t at = 0;
	ssize_t got = buffer ? 1 : -ENOMEM;
	int error = 0;

	while (got > 0 && !error) {
		got = get_some(buffer, HOLE_BYTES);
		if (got > 0)
			error = put_or_skip(fd, buffer, (size_t)got);
		at += got > 0 ? (uint64_t)got : 0;
	}
	free(buffer);
	if (got < 0)
		return refuse(strerror((int)-got), "name a file that can be read");
	if (!error && ftruncate(fd, (off_t)at))
		error = -errno;
	if (error)
		return disk_access_failed(target, error);
	return at ? 0 : refuse("is empty", "see whether what it comes from has failed");
}

int disk_pipe_in(const char *target, char path[PIPE_PATH_BYTES])
{
	struct stat st;
	int code = 0;
	int fd = STDIN_FILENO;

	if (isatty(STDIN_FILENO))
		return refuse("is a terminal", "say umbra disk convert - TARGET < FILE");
	if (fstat(STDIN_FILENO, &st) || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
		fd = unnamed_beside(target);
		if (fd < 0)
			return disk_access_failed(target, -errno);
		code = spool(fd, target);
	}
	snprintf(path, PIPE_PATH_BYTES, "/proc/self/fd/%d", fd);
	return code;
}

int disk_pipe_out(struct disk *from, const struct disk_create *given)
{
	struct disk_create what = *given;
	struct disk_error why;
	int error;

	if (isatty(STDOUT_FILENO))
		return complain(EXIT_USAGE, "is a terminal", "standard output",
				"send it somewhere: umbra disk convert SOURCE - > FILE");
	what.name = "standard output";
	error = disk_convert_stream(from, STDOUT_FILENO, &what, NULL, &why);
	return error ? disk_access_refused(error, &why) : 0;
}
