/*
 * An ext4 file system that is being filled: one entry after the other by its path, with owner,
 * permissions, times and attributes, by libext2fs. Nothing is mounted, so that nobody needs a
 * right.
 *
 *   - A path has no `.` or `..` left in it (volume_check_path()), and each folder on the way is one
 *     of this file system's: a link is not followed.
 *   - The last of a name counts: what was there before is replaced, but a folder stays.
 *
 * Left out: sockets and pipes, which those who use them make anew; access lists.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum { VOLUME_UUID_BYTES = 37, VOLUME_NAME_BYTES = 255 };

struct volume_writer;

/* How an entry is: st_mode, st_uid, st_gid, st_mtim, and st_rdev of a device. */
int volume_writer_open(const char *path, struct volume_writer **ret);
/* Durable only when it is 0. */
int volume_writer_close(struct volume_writer *writer);
/* As in root=UUID=. */
void volume_writer_uuid(const struct volume_writer *writer, char ret[VOLUME_UUID_BYTES]);

/*
 * `.` and empty parts are passed over. -EINVAL: `..`; -ENAMETOOLONG. *ret_bytes 0: the top.
 * room: of `ret`.
 */
int volume_check_path(const char *path, char *ret, size_t room, size_t *ret_bytes);

/* Folders that lead there are made where they are missing. Each: 0 or -errno. */
int volume_add_folder(struct volume_writer *writer, const char *path, const struct stat *st);
int volume_add_link(struct volume_writer *writer, const char *path, const struct stat *st,
		    const char *target);
int volume_add_device(struct volume_writer *writer, const char *path, const struct stat *st);
/* Another name of what is at `other`, which is no folder. */
int volume_add_name(struct volume_writer *writer, const char *path, const char *other);
/* What a file holds: up to `bytes` of it; 0: its end; -errno. */
typedef long volume_source(void *context, void *to, size_t bytes);
int volume_add_file(struct volume_writer *writer, const char *path, const struct stat *st,
		    volume_source *source, void *context);
/* The same of a text. */
int volume_add_text(struct volume_writer *writer, const char *path, unsigned mode,
		    const char *text);
/* An extended attribute of what is there. -ENOSPC: the file has no room for it. */
int volume_add_attribute(struct volume_writer *writer, const char *path, const char *name,
			 const void *value, size_t bytes);
bool volume_has(struct volume_writer *writer, const char *path);
/* A short text file that is there, to be freed; NULL: there is none. */
char *volume_read_text(struct volume_writer *writer, const char *path);
