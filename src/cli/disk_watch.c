/*
 * umbra disk watch: tells when a parent is changed behind its children. inotify says which file of
 * a folder was written and closed, or moved there; every disk in the folder that is a child of it
 * is then looked at: whether its parent still holds what it was made on. At the start all are.
 *
 * Folders below are not watched. Ends with SIGINT or SIGTERM.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_cli.h"

enum { EVENTS_BYTES = 64 * (sizeof(struct inotify_event) + NAME_MAX + 1) };

/* changed: NULL: all of them are looked at */
struct watch {
	struct arguments arguments;
	const char *changed;
	unsigned extents;
};

static int count_extent(void *context, uint64_t offset, uint64_t bytes)
{
	struct watch *watch = context;

	(void)offset;
	(void)bytes;
	watch->extents++;
	return 0;
}

static int is_file(void *context, uint64_t bytes, uint64_t mtime_ns)
{
	const struct stat *st = context;
	uint64_t seconds = (uint64_t)st->st_mtim.tv_sec;

	return bytes == (uint64_t)st->st_size &&
	       mtime_ns == seconds * 1000000000 + (uint64_t)st->st_mtim.tv_nsec;
}

/* Whether the parent's data lies in this file, or, of a VMDK descriptor, in this one too. */
static bool is_parent(struct disk *child, const char *path)
{
	struct stat st;

	if (!disk_parent(child) || !path)
		return disk_parent(child);
	return !stat(path, &st) && disk_each_file(disk_parent(child), is_file, &st);
}

/* Names may have come out of files. */
static void tell(struct disk *child, unsigned extents, int error)
{
	print_safely(disk_path(disk_parent(child)));
	if (error)
		printf(": cannot be compared: %s", disk_strerror(error));
	else
		printf(": is not what its child was made on any more, in %u extents", extents);
	fputs(": ", stdout);
	print_safely(disk_path(child));
	putchar('\n');
	fflush(stdout);
}

static void look_at_child(struct watch *watch, struct disk *child)
{
	struct disk_info info;
	int error;

	if (!is_parent(child, watch->changed))
		return;
	watch->extents = 0;
	disk_info(child, &info);
	error = disk_verify_link(child, count_extent, watch);
	if (error && error != -ENOENT)
		tell(child, 0, error);
	else if (watch->extents || !info.is_linked)
		tell(child, watch->extents, 0);
}

static void look_at(struct watch *watch, const char *path, enum disk_format format)
{
	const struct disk_options options = { .accept_changed = true, .beside_writer = true };
	struct disk_error why;
	struct disk *child;

	if (disk_cli_open_unasked(&watch->arguments, path, format, options, &child, &why))
		return; /* no child, or one of which nothing can be said now */
	look_at_child(watch, child);
	disk_close(child);
}

static void look_at_all(struct watch *watch)
{
	DIR *folder = opendir(watch->arguments.file);
	const struct dirent *entry;
	enum disk_format format;
	char *path;

	while (folder && (entry = readdir(folder))) {
		if (!disk_format_of_name(entry->d_name, &format) ||
		    asprintf(&path, "%s/%s", watch->arguments.file, entry->d_name) < 0)
			continue;
		look_at(watch, path, format);
		free(path);
	}
	if (folder)
		closedir(folder);
}

/* The kernel ends names with zeros. */
static void take_event(struct watch *watch, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s", watch->arguments.file, name) < 0)
		return;
	watch->changed = path;
	look_at_all(watch);
	watch->changed = NULL;
	free(path);
}

static int take_events(struct watch *watch, int fd)
{
	char events[EVENTS_BYTES] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t got = read(fd, events, sizeof(events));

	if (got < 0)
		return errno == EINTR ? 0 : -errno;
	for (ssize_t at = 0; at < got;) {
		const struct inotify_event *event = (const struct inotify_event *)(events + at);

		if (event->mask & IN_IGNORED)
			return -ENOENT;
		if (event->mask & IN_Q_OVERFLOW)
			look_at_all(watch);
		if (event->len)
			take_event(watch, event->name);
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	return 0;
}

static int stop_signals(void)
{
	sigset_t stop;

	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	return signalfd(-1, &stop, SFD_CLOEXEC);
}

static int watch_until_stopped(struct watch *watch, int events, int stop)
{
	struct pollfd from[] = { { .fd = events, .events = POLLIN },
				 { .fd = stop, .events = POLLIN },
				 { .fd = STDOUT_FILENO } }; /* whoever reads it is gone */
	int error = 0;

	while (!error && !from[1].revents && !(from[2].revents & (POLLERR | POLLHUP))) {
		if (poll(from, 3, -1) < 0)
			error = errno == EINTR ? 0 : -errno;
		else if (from[0].revents && !from[1].revents)
			error = take_events(watch, events);
	}
	return error;
}

int verb_disk_watch(struct arguments *arguments)
{
	struct watch watch = { .arguments = *arguments };
	int events = inotify_init1(IN_CLOEXEC);
	int stop = stop_signals();
	int error = 0;

	if (events < 0 || stop < 0 ||
	    inotify_add_watch(events, arguments->file, IN_CLOSE_WRITE | IN_MOVED_TO | IN_ONLYDIR) <
		    0)
		error = -errno;
	if (!error) {
		look_at_all(&watch);
		printf("%s: is watched\n", arguments->file);
		fflush(stdout);
		error = watch_until_stopped(&watch, events, stop);
	}
	if (events >= 0)
		close(events);
	if (stop >= 0)
		close(stop);
	return error ? disk_access_failed(arguments->file, error) : 0;
}
