/*
 * A file is removed while nobody has it open: as who writes it would, this process has it alone
 * meanwhile, so that whoever comes then is refused, and does not go on in a file without a name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk_internal.h"
#include "disk/file.h"

/* Whether the name is still that file's. */
static bool is_at(const struct stat *file, const char *path)
{
	struct stat now;

	return !lstat(path, &now) && now.st_dev == file->st_dev && now.st_ino == file->st_ino;
}

static int remove_beside(const char *path)
{
	char *side;
	int error;

	if (asprintf(&side, "%s.umbra", path) < 0)
		return -ENOMEM;
	error = unlink(side) && errno != ENOENT ? -errno : 0;
	free(side);
	return error;
}

bool disk_is_used(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool is_used;

	if (fd < 0)
		return false;
	is_used = disk_file_is_used(fd);
	close(fd);
	return is_used;
}

int disk_remove(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct disk_file file;
	struct stat st;
	int error;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		close(fd);
		return -errno;
	}
	error = disk_file_given(fd, true, &file);
	if (error)
		return error;
	if (!is_at(&st, path))
		error = -ENOENT;
	if (!error && unlink(path))
		error = -errno;
	if (!error)
		error = remove_beside(path);
	file.ops->close(file.context);
	return error;
}
