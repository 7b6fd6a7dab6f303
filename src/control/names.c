/* See names.h. */
#include "names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = sizeof(((struct sockaddr_un *)NULL)->sun_path), BACKLOG = 64 };
enum { LOG_KEPT_S = 24 * 60 * 60, EMPTY_LOG_KEPT_S = 60 };

bool name_is_valid(const char *name)
{
	static const char first[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t bytes = strlen(name);

	return bytes && bytes <= NAME_MAX_BYTES && strchr(first, name[0]) &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
		       bytes;
}

/* Made if it is not there. Open; -errno. */
static int open_own_folder(const char *path)
{
	struct stat st;
	int fd;

	/* EPERM: of who may no longer make one (cli/balance_join.c), but find it */
	if (mkdir(path, 0700) && errno != EEXIST && errno != EPERM)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || st.st_uid != getuid() || st.st_mode & 077) {
		close(fd);
		return -EPERM; /* somebody else made it */
	}
	return fd;
}

/* The folder, open; -errno. */
static int open_folder(char path[PATH_BYTES])
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int n;

	if (runtime && *runtime == '/')
		n = snprintf(path, PATH_BYTES, "%s/umbra", runtime);
	else
		n = snprintf(path, PATH_BYTES, "/tmp/umbra-%u", (unsigned)getuid());
	if (n < 0 || n >= PATH_BYTES - NAME_MAX_BYTES - 2)
		return -ENAMETOOLONG;
	return open_own_folder(path);
}

/* No name of a machine begins so. */
static int hidden_path(const char *kind, const char *name, char *path, size_t bytes)
{
	char folder_path[PATH_BYTES];
	int folder = name_is_valid(name) ? open_folder(folder_path) : -EINVAL;

	if (folder < 0)
		return folder;
	close(folder);
	return (size_t)snprintf(path, bytes, "%s/.%s-%s", folder_path, kind, name) < bytes
		       ? 0
		       : -ENAMETOOLONG;
}

static int address_of(const char *name, struct sockaddr_un *ret)
{
	char folder[PATH_BYTES];
	int fd = open_folder(folder);

	if (fd < 0)
		return fd;
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/%s", folder, name) <
	    (int)sizeof(ret->sun_path))
		return fd;
	close(fd);
	return -ENAMETOOLONG;
}

static int try_connect(const struct sockaddr_un *at, int flags)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	int error;

	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)at, sizeof(*at)))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

/* Of a machine that is gone. The folder stays as long as others listen there. */
static void remove_names(const char *name, const char *path)
{
	char place[PATH_BYTES];

	unlink(path);
	if (!name_socket_path(name, place, sizeof(place)))
		unlink(place);
	if (!hidden_path("sockets", name, place, sizeof(place)))
		rmdir(place);
	if (!name_seed_path(name, place, sizeof(place)))
		unlink(place);
	if (!name_wanted_path(name, place, sizeof(place)))
		unlink(place);
}

static int connect_to(const char *name, int flags)
{
	struct sockaddr_un at;
	int folder = name_is_valid(name) ? address_of(name, &at) : -ENOENT;
	int fd;

	if (folder < 0)
		return folder;
	fd = try_connect(&at, flags);
	if (fd == -ECONNREFUSED &&
	    !flock(folder, LOCK_EX)) { /* unless it is just beginning to listen */
		fd = try_connect(&at, flags);
		if (fd == -ECONNREFUSED)
			remove_names(name, at.sun_path);
	}
	close(folder);
	return fd == -ECONNREFUSED ? -ENOENT : fd;
}

int name_connect(const char *name) { return connect_to(name, 0); }
int name_connect_now(const char *name) { return connect_to(name, SOCK_NONBLOCK); }

/* What is no socket refuses a connection as well: it is somebody's file. */
static int remove_dead_socket(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	return unlink(path) ? -errno : 0;
}

/* With the folder locked: two that begin at once do not take each other's socket for a dead one. */
static int listen_locked(const struct sockaddr_un *at)
{
	int other = try_connect(at, 0);
	int fd, error;

	if (other >= 0) {
		close(other);
		return -EADDRINUSE;
	}
	error = other == -ECONNREFUSED ? remove_dead_socket(at->sun_path) : 0;
	if (error)
		return error;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!bind(fd, (const struct sockaddr *)at, sizeof(*at)) && !listen(fd, BACKLOG))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

int name_listen(const char *name)
{
	struct sockaddr_un at;
	int folder = name_is_valid(name) ? address_of(name, &at) : -EINVAL;
	int fd;

	if (folder < 0)
		return folder;
	fd = flock(folder, LOCK_EX) ? -errno : listen_locked(&at);
	close(folder);
	return fd;
}

int name_switch_path(const char *name, char *path, size_t bytes)
{
	return hidden_path("switch", name, path, bytes);
}

int name_socket_path(const char *name, char *path, size_t bytes)
{
	static const char file[] = "/s"; /* short: a port's number follows it */
	int error = hidden_path("sockets", name, path, bytes);

	if (error || strlen(path) + sizeof(file) > bytes)
		return error ? error : -ENAMETOOLONG;
	memcpy(path + strlen(path), file, sizeof(file));
	return 0;
}

int name_make_socket_place(const char *name, char *path, size_t bytes)
{
	char folder[PATH_BYTES];
	int error = hidden_path("sockets", name, folder, sizeof(folder));
	int fd = error ? error : open_own_folder(folder);

	if (fd < 0)
		return fd;
	close(fd);
	error = name_socket_path(name, path, bytes);
	if (!error && unlink(path) && errno != ENOENT)
		error = -errno;
	return error;
}

int name_console_path(const char *name, char *path, size_t bytes)
{
	return hidden_path("console", name, path, bytes);
}

int name_log_path(const char *name, char *path, size_t bytes)
{
	return hidden_path("log", name, path, bytes);
}

int name_seed_path(const char *name, char *path, size_t bytes)
{
	return hidden_path("seed", name, path, bytes);
}

int name_wanted_path(const char *name, char *path, size_t bytes)
{
	return hidden_path("wanted", name, path, bytes);
}

int name_link_socket(const char *name, const char *path)
{
	char place[PATH_BYTES];
	char *whole = realpath(path, NULL);
	int error = whole ? name_make_socket_place(name, place, sizeof(place)) : -errno;

	if (!error)
		error = symlink(whole, place) ? -errno : 0;
	free(whole);
	return error;
}

bool name_is_port_of_another(const char *path)
{
	const char *end = path + strlen(path);
	const char *digits = end;

	while (digits > path && digits[-1] >= '0' && digits[-1] <= '9')
		digits--;
	return digits < end && digits > path && digits[-1] == '_';
}

static int address_at(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path));
	return 0;
}

int name_listen_at(const char *path)
{
	struct sockaddr_un at;
	int error = address_at(path, &at);

	return error ? error : listen_locked(&at);
}

int name_connect_at(const char *path)
{
	struct sockaddr_un at;
	int error = address_at(path, &at);

	return error ? error : try_connect(&at, 0);
}

int name_hub_path(char *path, size_t bytes)
{
	char folder_path[PATH_BYTES];
	int folder = open_folder(folder_path);

	if (folder < 0)
		return folder;
	close(folder);
	return (size_t)snprintf(path, bytes, "%s/.hub", folder_path) < bytes ? 0 : -ENAMETOOLONG;
}

/* The folder, open. */
static int path_in_folder(const char *file, char *path, size_t bytes)
{
	char folder_path[PATH_BYTES];
	int folder = open_folder(folder_path);

	if (folder < 0)
		return folder;
	if ((size_t)snprintf(path, bytes, "%s/%s", folder_path, file) < bytes)
		return folder;
	close(folder);
	return -ENAMETOOLONG;
}

int name_balancer_path(char *path, size_t bytes)
{
	return path_in_folder(".balancer", path, bytes);
}

int name_daemon_path(char *path, size_t bytes)
{
	return path_in_folder(".daemon", path, bytes);
}

int name_folder(char *path, size_t bytes)
{
	int folder = path_in_folder("", path, bytes);

	if (folder < 0)
		return folder;
	close(folder);
	return 0;
}

/*
 * The place of sockets of a machine that is gone, which others have held since: with the folder
 * locked, and a machine listens at its name before it makes the place.
 */
static void remove_place(const char *name, int folder)
{
	static const char kind[] = ".sockets-";
	const size_t skipped = sizeof(kind) - 1;
	char place[PATH_BYTES];

	if (strncmp(name, kind, skipped) != 0 || !faccessat(folder, name + skipped, F_OK, 0))
		return;
	if (!name_socket_path(name + skipped, place, sizeof(place)))
		unlink(place);
	unlinkat(folder, name, AT_REMOVEDIR);
}

/*
 * What a machine that is gone has said why it ended: nothing, or for LOG_KEPT_S. One that is just
 * beginning has made it after its name.
 */
static void remove_log(const char *name, int folder)
{
	static const char kind[] = ".log-";
	const size_t skipped = sizeof(kind) - 1;
	struct stat st;
	time_t age_s;

	if (strncmp(name, kind, skipped) != 0 || !faccessat(folder, name + skipped, F_OK, 0) ||
	    fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW))
		return;
	age_s = time(NULL) - st.st_mtime;
	if (age_s > (st.st_size ? LOG_KEPT_S : EMPTY_LOG_KEPT_S))
		unlinkat(folder, name, 0);
}

int name_list(void (*found)(void *context, const char *name), void *context)
{
	char path[PATH_BYTES];
	struct dirent **entries;
	int folder = open_folder(path);
	int count;

	if (folder < 0)
		return folder;
	count = scandir(path, &entries, NULL, alphasort);
	if (count < 0 || flock(folder, LOCK_EX)) {
		close(folder);
		return -errno;
	}
	for (int n = 0; n < count; n++) {
		remove_place(entries[n]->d_name, folder);
		remove_log(entries[n]->d_name, folder);
	}
	close(folder); /* and not locked any more: who is found is asked */
	for (int n = 0; n < count; n++) {
		if (name_is_valid(entries[n]->d_name))
			found(context, entries[n]->d_name);
		free(entries[n]);
	}
	free(entries);
	return 0;
}
