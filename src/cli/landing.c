/* See landing.h. */
#include "landing.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/spawn.h"
#include "vm/saved_blocks.h"

enum { NUMBERS_MOST = 10000, OLD_S = 60, KEPT_FD = 512 };
static const char prefix[] = ".umbra-parcel-";
static const char names_file[] = "names";
static const char taken_file[] = "taken"; /* every name that is taken leads to it */
static const char whole_file[] = "whole"; /* on its way to its name */

static const struct { const char *suffix; enum disk_format format;
} formats[PARCEL_FORMATS] = {
	[PARCEL_VHDX] = { "vhdx", DISK_VHDX },
	[PARCEL_RAW] = { "raw", DISK_RAW },
	[PARCEL_VHD] = { "vhd", DISK_VHD },
};

/* ---- what can land ---- */

/* Of others the child would not say by its identifier which it is, once it is there. */
static int check_format(const struct parcel_file *file)
{
	if (file->format == PARCEL_KEPT)
		return -EPERM;
	return !formats[file->format].suffix || (file->level && file->format != PARCEL_VHDX)
		       ? -EOPNOTSUPP
		       : 0;
}

static int check_files(const struct landing *landing)
{
	struct statvfs room;
	uint64_t bytes = 0;
	int error = fstatvfs(landing->root_fd, &room) ? -errno : 0;

	for (uint32_t n = 0; n < landing->space->files && !error; n++) {
		bytes += landing->space->file[n].bytes;
		error = check_format(&landing->space->file[n]);
	}
	if (!error && bytes / room.f_frsize >= room.f_bavail)
		error = -ENOSPC;
	return error;
}

/* ---- names ---- */

/*
 * Empty, so that it is nobody's disk, and nobody else's name. It is noted before it is there, for
 * who removes what is left of this (landing_remove_old()).
 */
static int take_name(struct landing *landing, const char *machine, uint32_t number, int noted)
{
	const struct parcel_file *file = &landing->space->file[number];
	char level[16] = "";
	int error = -EEXIST;

	if (file->level)
		snprintf(level, sizeof(level), ".%u", file->level);
	for (unsigned n = 1; n < NUMBERS_MOST && error == -EEXIST; n++) {
		char *name = landing->name[number];
		char again[16] = "";

		if (n > 1)
			snprintf(again, sizeof(again), "-%u", n);
		snprintf(name, sizeof(landing->name[number]), "%.64s.%u%s%s.%s", machine,
			 file->disk, level, again, formats[file->format].suffix);
		if (dprintf(noted, "%s\n", name) < 0 ||
		    linkat(landing->folder_fd, taken_file, landing->root_fd, name, 0))
			error = -errno;
		else
			error = 0;
	}
	return error;
}

static int make_file(const struct landing *landing, const char *name)
{
	const int fd = openat(landing->folder_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
			      0600);

	return fd < 0 ? -errno : fd;
}

static int make_numbered(struct landing *landing, const char *machine, int noted)
{
	int error = 0;

	for (uint32_t n = 0; n < landing->space->files && !error; n++) {
		char number[16];

		snprintf(number, sizeof(number), "%u", n);
		landing->file[n] = make_file(landing, number);
		if (landing->file[n] < 0)
			error = landing->file[n];
		else if (ftruncate(landing->file[n], (off_t)landing->space->file[n].bytes))
			error = -errno;
		else
			error = take_name(landing, machine, n, noted);
		landing->named += !error;
	}
	return error;
}

static int make_files(struct landing *landing, const char *machine)
{
	const int noted = make_file(landing, names_file);
	const int taken = make_file(landing, taken_file);
	int error = noted < 0 ? noted : taken;

	if (error >= 0)
		error = make_numbered(landing, machine, noted);
	if (noted >= 0)
		close(noted);
	if (taken >= 0)
		close(taken);
	return error;
}

/* ---- what is removed ---- */

/* What was taken with that folder is removed, and nothing else of that name. */
static void give_name_back(int root, int folder, const char *name)
{
	struct stat st;
	struct stat taken;

	if (!fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) &&
	    !fstatat(folder, taken_file, &taken, AT_SYMLINK_NOFOLLOW) &&
	    st.st_ino == taken.st_ino && st.st_dev == taken.st_dev)
		unlinkat(root, name, 0);
}

static void remove_files(int root, const char *folder, int folder_fd)
{
	char number[16];

	for (unsigned n = 0; n < PARCEL_FILES; n++) {
		snprintf(number, sizeof(number), "%u", n);
		unlinkat(folder_fd, number, 0);
	}
	unlinkat(folder_fd, names_file, 0);
	unlinkat(folder_fd, taken_file, 0);
	unlinkat(folder_fd, whole_file, 0);
	unlinkat(root, folder, AT_REMOVEDIR);
}

static void give_names_back(int root, int folder)
{
	int fd = openat(folder, names_file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	char name[LANDING_NAME_BYTES];

	while (file && fgets(name, sizeof(name), file)) {
		name[strcspn(name, "\n")] = 0;
		if (!strchr(name, '/'))
			give_name_back(root, folder, name);
	}
	if (file)
		fclose(file);
}

/* Of that age, in seconds, and of nobody who fills it. */
static void remove_left(int root, const char *name, time_t age_s)
{
	int folder = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (folder < 0)
		return;
	if (!fstat(folder, &st) && st.st_uid == geteuid() && time(NULL) - st.st_mtime >= age_s &&
	    !flock(folder, LOCK_EX | LOCK_NB)) {
		give_names_back(root, folder);
		remove_files(root, name, folder);
	}
	close(folder);
}

/* ---- its begin ---- */

/* Nobody who has the descriptor can map it to be written: only this mapping is. */
static int make_bits(struct landing *landing)
{
	const size_t bytes = saved_blocks_room(landing->blocks);
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
	void *bits;

	landing->memory = memfd_create("umbra-extents", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (landing->memory < 0 || ftruncate(landing->memory, (off_t)bytes))
		return -errno;
	bits = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, landing->memory, 0);
	if (bits == MAP_FAILED || fcntl(landing->memory, F_ADD_SEALS, seals))
		return -errno;
	landing->bits = bits;
	return 0;
}

static int make_line(struct landing *landing)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	landing->line = pair[0];
	landing->there = pair[1];
	return 0;
}

static int make_folder(struct landing *landing, const char *id)
{
	landing->root_fd = open(landing->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (landing->root_fd < 0)
		return -errno;
	snprintf(landing->folder, sizeof(landing->folder), "%s%.64s", prefix, id);
	remove_left(landing->root_fd, landing->folder, 0); /* of who was killed: the id is ours */
	if (mkdirat(landing->root_fd, landing->folder, 0700)) {
		landing->folder[0] = 0;
		return -errno;
	}
	landing->folder_fd = openat(landing->root_fd, landing->folder,
				    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return landing->folder_fd < 0 || flock(landing->folder_fd, LOCK_EX | LOCK_NB) ? -errno : 0;
}

int landing_begin(struct landing *landing, const char *root, const char *machine, const char *id,
		  const struct parcel_space *space)
{
	int error;

	*landing = (struct landing){ .root = root, .space = space, .root_fd = -1, .folder_fd = -1,
				     .memory = -1, .line = -1, .there = -1,
				     .is_whole = !space->files };
	memset(landing->file, -1, sizeof(landing->file));
	if (!space->files)
		return 0;
	landing->first = space->file[0].first;
	landing->blocks = space->bytes / PARCEL_PIECE_BYTES - landing->first;
	error = make_folder(landing, id);
	if (!error)
		error = check_files(landing);
	if (!error)
		error = make_files(landing, machine);
	if (!error)
		error = make_bits(landing);
	return error ? error : make_line(landing);
}

/* ---- what comes ---- */

int landing_write(struct landing *landing, uint64_t block, const uint8_t *data)
{
	const struct parcel_file *file = parcel_file_of(landing->space, block);
	const uint64_t at = (block - file->first) * PARCEL_PIECE_BYTES;
	const uint32_t used = parcel_used_bytes(landing->space, block);
	const uint64_t bit = block - landing->first;
	ssize_t written = used;

	assert(bit < landing->blocks && !(landing->bits[bit / 8] >> bit % 8 & 1));
	if (data)
		written = pwrite(landing->file[file - landing->space->file], data, used,
				 (off_t)at);
	if (written != (ssize_t)used)
		return written < 0 ? -errno : -ENOSPC;
	__atomic_fetch_or(&landing->bits[bit / 8], (uint8_t)(1u << bit % 8), __ATOMIC_RELEASE);
	return 0;
}

/* ---- its end ---- */

/* Who is still to open it finds it where it arrived, too. */
static int give_name(struct landing *landing, uint32_t number)
{
	const int folder = landing->folder_fd;
	char name[16];

	snprintf(name, sizeof(name), "%u", number);
	return fsync(landing->file[number]) || fchmod(landing->file[number], 0400) ||
			       linkat(folder, name, folder, whole_file, 0) ||
			       renameat(folder, whole_file, landing->root_fd, landing->name[number])
		       ? -errno
		       : 0;
}

/* It holds the files alone: of nothing else somebody waits for the end in vain. */
static _Noreturn void make_durable(const struct landing *landing)
{
	int error = prctl(PR_SET_PDEATHSIG, SIGKILL) ? errno : 0;
	int file[PARCEL_FILES];

	for (uint32_t n = 0; n < landing->space->files && !error; n++) {
		file[n] = fcntl(landing->file[n], F_DUPFD, KEPT_FD);
		error = file[n] < 0 ? errno : 0;
	}
	syscall(SYS_close_range, 0, KEPT_FD - 1, 0);
	for (uint32_t n = 0; n < landing->space->files && !error; n++)
		error = fsync(file[n]) ? errno : 0;
	_exit(error);
}

int landing_begin_finish(const struct landing *landing, pid_t *ret)
{
	int pidfd;

	*ret = spawn_fork(&pidfd);
	if (!*ret)
		make_durable(landing);
	return *ret < 0 ? *ret : pidfd;
}

int landing_finish(struct landing *landing, int status)
{
	int error = WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;

	/* the lowest first: a child is never there without what is beneath it */
	for (uint32_t n = landing->space->files; n-- && !error;) {
		error = give_name(landing, n);
		if (!error)
			landing->named = n;
	}
	if (!error && fsync(landing->root_fd))
		error = -errno;
	landing->is_whole = !error;
	return error;
}

void landing_end(struct landing *landing)
{
	if (landing->line >= 0)
		close(landing->line);
	for (uint32_t n = 0; n < landing->named; n++)
		give_name_back(landing->root_fd, landing->folder_fd, landing->name[n]);
	if (landing->folder[0] && landing->folder_fd >= 0)
		remove_files(landing->root_fd, landing->folder, landing->folder_fd);
}

/* ---- for who reads them ---- */

int landing_plan(const struct landing *landing, struct arriving_plan *ret)
{
	char folder[PLAN_PATH_BYTES];
	const int bytes =
		snprintf(folder, sizeof(folder), "%s/%s", landing->root, landing->folder);

	*ret = (struct arriving_plan){ .count = landing->space->files, .blocks = landing->blocks };
	for (uint32_t n = 0; n < ret->count; n++) {
		const struct parcel_file *file = &landing->space->file[n];

		ret->file[n] = (struct arriving_file){ .bytes = file->bytes,
						       .first = file->first - landing->first,
						       .disk = file->disk,
						       .format = formats[file->format].format };
	}
	return bytes < (int)sizeof(folder)
		       ? plan_set_text(ret->folder, sizeof(ret->folder), folder)
		       : -ENAMETOOLONG;
}

bool landing_paths(const struct landing *landing, char *ret[PARCEL_FILES])
{
	for (uint32_t n = 0; n < landing->space->files; n++)
		if (asprintf(&ret[n], "%s/%s", landing->root, landing->name[n]) < 0)
			return false;
	return true;
}

/* ---- of who is gone ---- */

void landing_remove_old(const char *root)
{
	DIR *listing = opendir(root);
	const struct dirent *entry;

	while (listing && (entry = readdir(listing)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)))
			remove_left(dirfd(listing), entry->d_name, OLD_S);
	if (listing)
		closedir(listing);
}
