/* See group.h. */
#include "group.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { TEXT_BYTES = GROUP_TEXT_BYTES, NAME_BYTES = 64 };

static const char prefix[] = "umbra-";

/* The content of a small file; "": it cannot be read. */
static void read_text(int directory, const char *name, char text[TEXT_BYTES])
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, TEXT_BYTES - 1);

	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = 0;
}

static int write_text(int directory, const char *name, const char *text)
{
	int fd = openat(directory, name, O_WRONLY | O_CLOEXEC);
	ssize_t written = fd < 0 ? -1 : write(fd, text, strlen(text));
	int error = written < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return error;
}

static bool has_word(int directory, const char *name, const char *word)
{
	char text[TEXT_BYTES];
	char *rest = text;

	read_text(directory, name, text);
	for (char *at; (at = strsep(&rest, " \n"));)
		if (!strcmp(at, word))
			return true;
	return false;
}

int group_place_find(struct group_place *ret)
{
	static const char *const mounts[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };

	read_text(AT_FDCWD, "/proc/self/cgroup", ret->membership);
	for (size_t n = 0; n < sizeof(mounts) / sizeof(mounts[0]); n++) {
		char path[NAME_BYTES];

		ret->mount = mounts[n];
		snprintf(path, sizeof(path), "%s/cgroup.controllers", mounts[n]);
		if (!access(path, F_OK))
			return 0;
	}
	return -ENOENT;
}

/* "0::PATH" is the line of version 2. */
static int open_own(const struct group_place *place, bool *ret_is_top)
{
	const char *line = place->membership;
	char path[2 * TEXT_BYTES];
	int fd;

	while (line && strncmp(line, "0::/", 4)) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	if (!line)
		return -ENOENT;
	line += 3;
	*ret_is_top = line[1] == '\n' || !line[1];
	snprintf(path, sizeof(path), "%s%.*s", place->mount, (int)strcspn(line, "\n"), line);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Root may write every group: his is what systemd says it is, or all that a container shows. */
static bool is_delegated(int own, bool is_top)
{
	char word[2] = "";

	if (faccessat(own, "cgroup.procs", W_OK, 0) || faccessat(own, ".", W_OK, 0))
		return false;
	if (geteuid() || is_top)
		return true;
	return (fgetxattr(own, "user.delegate", word, 1) == 1 ||
		fgetxattr(own, "trusted.delegate", word, 1) == 1) &&
	       word[0] == '1';
}

static int check_own(int own, bool is_top)
{
	if (!has_word(own, "cgroup.controllers", "memory"))
		return -ENOENT;
	return is_delegated(own, is_top) ? 0 : -EACCES;
}

/* Who has made one, by its name, may be about to let somebody in. */
static bool is_left(const char *name)
{
	const char *number = strrchr(name, '-');
	const pid_t maker = number ? atoi(number + 1) : 0;

	return maker <= 0 || (kill(maker, 0) && errno == ESRCH);
}

/* Those that were left behind; one with a process in it stays. */
static void sweep(int own)
{
	DIR *list = fdopendir(openat(own, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	const struct dirent *entry;

	while (list && (entry = readdir(list)))
		if (!strncmp(entry->d_name, prefix, sizeof(prefix) - 1) && is_left(entry->d_name))
			unlinkat(own, entry->d_name, AT_REMOVEDIR);
	if (list)
		closedir(list);
}

static int make_inner(int own, const char *kind, char name[NAME_BYTES])
{
	int fd;

	snprintf(name, NAME_BYTES, "%s%s-%d", prefix, kind, (int)getpid());
	if (mkdirat(own, name, 0755) && errno != EEXIST)
		return -errno;
	fd = openat(own, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* This process leaves the group to those within it; comes back when somebody else stays. */
static int step_aside(int own)
{
	char name[NAME_BYTES];
	int inner = make_inner(own, "self", name);
	int error = inner < 0 ? inner : write_text(inner, "cgroup.procs", "0");

	if (!error)
		error = write_text(own, "cgroup.subtree_control", "+memory");
	if (error)
		write_text(own, "cgroup.procs", "0");
	if (inner >= 0)
		close(inner);
	if (error)
		unlinkat(own, name, AT_REMOVEDIR);
	return error;
}

static int give_on_memory(int own)
{
	int error;

	if (has_word(own, "cgroup.subtree_control", "memory"))
		return 0;
	error = write_text(own, "cgroup.subtree_control", "+memory");
	return error == -EBUSY ? step_aside(own) : error;
}

/* A kernel without swap, or that does not count it, has no such file. */
static int limit_swap(int inner, const char *limit)
{
	int error = write_text(inner, "memory.swap.max", limit);

	return error == -ENOENT ? 0 : error;
}

static int make_limited(int own, uint64_t most_bytes)
{
	char name[NAME_BYTES];
	char limit[NAME_BYTES];
	int members = -1;
	int inner = make_inner(own, "machine", name);
	int error = inner < 0 ? inner : 0;

	snprintf(limit, sizeof(limit), "%lu", (unsigned long)most_bytes);
	if (!error)
		error = write_text(inner, "memory.max", limit);
	if (!error)
		error = limit_swap(inner, limit);
	if (!error)
		members = openat(inner, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	if (!error && members < 0)
		error = -errno;
	if (inner >= 0)
		close(inner);
	return error ? error : members;
}

int group_make(const struct group_place *place, uint64_t most_bytes)
{
	bool is_top = false;
	int own = open_own(place, &is_top);
	int result;

	if (own < 0)
		return own;
	result = check_own(own, is_top);
	if (!result) {
		sweep(own);
		result = give_on_memory(own);
	}
	if (!result)
		result = make_limited(own, most_bytes);
	close(own);
	return result;
}

int group_take_in(int members, int pid)
{
	char text[NAME_BYTES];
	const int bytes = snprintf(text, sizeof(text), "%d", pid);

	return write(members, text, (size_t)bytes) == bytes ? 0 : -errno;
}

/* Whether this process, or the group of processes that it leads, is alone in it. */
static bool is_alone(int own)
{
	char text[TEXT_BYTES];
	char *rest = text;

	read_text(own, "cgroup.procs", text);
	for (char *line; (line = strsep(&rest, "\n"));)
		if (*line && atoi(line) != getpid())
			return false;
	return true;
}

int group_look(const struct group_place *place)
{
	bool is_top = false;
	int own = open_own(place, &is_top);
	int error;

	if (own < 0)
		return own;
	error = check_own(own, is_top);
	if (!error && !has_word(own, "cgroup.subtree_control", "memory") && !is_alone(own))
		error = -EBUSY;
	close(own);
	return error;
}
