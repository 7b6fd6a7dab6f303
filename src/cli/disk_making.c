/*
 * A file that is being made. It has another name until it is whole, .NAME.unfinished-PID in the
 * same directory, and what a power cut or kill -9 leaves is seen to be unfinished; a signal that
 * ends the program removes it. An existing file is never replaced.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_cli.h"

enum { SIDE_BYTES = sizeof(".umbra") };

/* A signal handler has nowhere else to find them. */
static char making_path[PATH_MAX], making_side[PATH_MAX + SIDE_BYTES];

static const int making_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };

static void making_interrupted(int number)
{
	unlink(making_path);
	unlink(making_side);
	signal(number, SIG_DFL);
	raise(number);
}

static void making_catch(void (*handler)(int))
{
	for (size_t n = 0; n < sizeof(making_signals) / sizeof(making_signals[0]); n++) {
		struct sigaction old;

		if (!sigaction(making_signals[n], NULL, &old) && old.sa_handler != SIG_IGN)
			sigaction(making_signals[n], &(struct sigaction){ .sa_handler = handler },
				  NULL);
	}
}

/* DIRECTORY/.NAME.unfinished-PID, where that is no longer than a name may be. */
static int making_name(const char *path)
{
	char *copy = strdup(path);
	char *other = strdup(path);
	const char *directory = copy ? dirname(copy) : NULL;
	const char *name = other ? basename(other) : NULL;
	int error = !directory || !name ? -ENOMEM : 0;
	struct stat st;

	if (!error && stat(directory, &st))
		error = complain(EXIT_UNUSABLE, strerror(errno), directory,
				 "name a directory that is there");
	else if (!error && !S_ISDIR(st.st_mode))
		error = complain(EXIT_UNUSABLE, strerror(ENOTDIR), directory, "name a directory");
	if (!error)
		snprintf(making_path, sizeof(making_path), "%s/.%.*s.unfinished-%d", directory,
			 NAME_MAX - 32, name, getpid());
	if (!error)
		snprintf(making_side, sizeof(making_side), "%s.umbra", making_path);
	free(copy);
	free(other);
	return error == -ENOMEM ? disk_access_failed(path, error) : error;
}

int making_begin(const char *path, const char **ret_path)
{
	struct stat st;
	int code;

	if (!lstat(path, &st))
		return disk_access_failed(path, -EEXIST);
	code = making_name(path);
	if (code)
		return code;
	unlink(making_path); /* of a process that had this number before */
	unlink(making_side);
	making_catch(making_interrupted);
	*ret_path = making_path;
	return 0;
}

static int making_sync(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int error = fd < 0 || fsync(fd) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(copy);
	return error;
}

/* Nothing is replaced, also on file systems that cannot say so themselves. */
static int making_rename(const char *path)
{
	if (!renameat2(AT_FDCWD, making_path, AT_FDCWD, path, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (link(making_path, path))
		return -errno;
	return unlink(making_path) ? -errno : 0;
}

/* Before the file has its name, so that a power cut leaves no file without it. What is there
 * belongs to no file. */
static int making_rename_side(const char *side)
{
	if (!access(making_side, F_OK))
		return rename(making_side, side) ? -errno : 0;
	return unlink(side) && errno != ENOENT ? -errno : 0;
}

static int making_finish(const char *path, int code, bool sync)
{
	char side[PATH_MAX + SIDE_BYTES];
	int error = 0;

	if (!code) {
		snprintf(side, sizeof(side), "%s.umbra", path);
		error = making_rename_side(side);
		if (!error)
			error = making_rename(path);
		if (error)
			unlink(side);
		if (!error && sync)
			error = making_sync(path);
		if (error)
			code = disk_access_failed(path, error);
	}
	making_catch(SIG_DFL);
	if (code) {
		unlink(making_path);
		unlink(making_side);
	}
	return code;
}

int making_end(const char *path, int code) { return making_finish(path, code, true); }
int making_end_unsynced(const char *path, int code) { return making_finish(path, code, false); }

int making_refused(const char *path, int error, const struct disk_error *why)
{
	struct disk_error told = *why;

	if (!strcmp(why->path, making_path))
		disk_error_rename(&told, path);
	return disk_access_refused(error, &told);
}
