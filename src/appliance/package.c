/* See package.h. */
#include "package.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/late.h"
#include "lib/write_all.h"

#define CALLS(call)                                                                                \
	call(archive_read_new) call(archive_read_free) call(archive_read_support_format_tar) call( \
		archive_read_open_fd) call(archive_read_next_header) call(archive_read_data)       \
		call(archive_entry_pathname) call(archive_entry_filetype) call(                    \
			archive_entry_size) call(archive_error_string) call(archive_write_new)     \
			call(archive_write_free) call(archive_write_close) call(                   \
				archive_write_set_format_pax_restricted)                           \
				call(archive_write_open_fd) call(archive_write_header) call(       \
					archive_write_data) call(archive_entry_new)                \
					call(archive_entry_free) call(archive_entry_set_pathname)  \
						call(archive_entry_set_size) call(                 \
							archive_entry_set_filetype)                \
							call(archive_entry_set_perm) call(         \
								archive_write_set_bytes_per_block) \
								call(archive_read_header_position)
CALLS(LATE_CALL)

enum { PIECE_BYTES = 1 << 18, TAR_BLOCK = 512, MODE = 0644 };

static bool load(struct ovf_error *error)
{
	static const struct late_call calls[] = { CALLS(LATE_ROW) };
	static const struct late_library library = {
		.file = "libarchive.so.13",
		.call = calls,
		.calls = sizeof(calls) / sizeof(calls[0]),
	};

	*error = (struct ovf_error){ .text = "libarchive is not there" };
	return late_load(&library);
}

static int wrong(struct ovf_error *error, int code, enum ovf_part part, const char *name,
		 const char *what)
{
	error->part = part;
	if (name)
		snprintf(error->text, sizeof(error->text), "%.200s: %s", name, what);
	else
		snprintf(error->text, sizeof(error->text), "%s", what);
	return code;
}

static int put(struct package_place *place, const uint8_t *from, size_t bytes)
{
	if (place->text && bytes > place->room - place->bytes)
		return -EFBIG;
	if (place->text)
		memcpy(place->text + place->bytes, from, bytes);
	return place->fd >= 0 ? write_all(place->fd, from, bytes) : 0;
}

/* One file's content, as long as its head says. */
static int take(struct archive *archive, const char *name, uint64_t bytes,
		struct package_place *place, uint8_t *buffer, struct ovf_error *error)
{
	struct sums sums;
	int result = 0;

	sums_begin(&sums);
	while (!result && place->bytes < bytes) {
		la_ssize_t got = archive_read_data(archive, buffer, PIECE_BYTES);

		if (got <= 0)
			return wrong(error, -EBADMSG, OVF_ARCHIVE_CONTENT, name,
				     "the archive ends within it");
		result = put(place, buffer, (size_t)got);
		sums_add(&sums, buffer, (size_t)got);
		place->bytes += (uint64_t)got;
	}
	sums_end(&sums, place->sha1, place->sha256);
	if (result == -EFBIG)
		return wrong(error, result, OVF_ARCHIVE_FILE, name,
			     "is a text that is larger than there is room for");
	return result ? wrong(error, result, OVF_NOTHING, name, strerror(-result)) : 0;
}

struct walk {
	struct archive *archive;
	int fd;
	uint64_t limit_bytes;
	char (*seen)[OVF_NAME_BYTES];
	unsigned count;
	uint8_t *buffer;
	struct ovf_error *error;
};

static int check_entry(struct walk *walk, struct archive_entry *entry, const char *name)
{
	if (!name || !ovf_is_plain(name))
		return wrong(walk->error, -EPERM, OVF_ARCHIVE_FILE, NULL,
			     "has a file whose name is not a plain one");
	if (archive_entry_filetype(entry) != S_IFREG)
		return wrong(walk->error, -ENOTSUP, OVF_ARCHIVE_FILE, name, "is not a plain file");
	if (archive_entry_size(entry) < 0 ||
	    (uint64_t)archive_entry_size(entry) > walk->limit_bytes)
		return wrong(walk->error, -EBADMSG, OVF_ARCHIVE_FILE, name,
			     "is said to be larger than the archive that it is in");
	for (unsigned n = 0; n < walk->count; n++)
		if (!strcmp(walk->seen[n], name))
			return wrong(walk->error, -EBADMSG, OVF_ARCHIVE_FILE, name,
				     "is there twice");
	if (walk->count == PACKAGE_FILES_MAX)
		return wrong(walk->error, -EBADMSG, OVF_ARCHIVE_FILE, name, "is one file too many");
	strcpy(walk->seen[walk->count++], name);
	return 0;
}

/* Where the header is that was read last; a damaged archive says nothing that is behind its end. */
static void note_place(struct walk *walk)
{
	la_int64_t at = archive_read_header_position(walk->archive);

	if (at >= 0 && (uint64_t)at <= walk->limit_bytes)
		walk->error->offset = (uint64_t)at;
}

/* Behind that header, and behind those that lie in front of it and say more of the same file. */
static uint64_t content_at(const struct walk *walk)
{
	enum { SIZE_AT = 124, SIZE_BYTES = 12, TYPE_AT = 156 };
	uint64_t at = walk->error->offset;
	char head[TAR_BLOCK];

	while (pread(walk->fd, head, sizeof(head), (off_t)at) == sizeof(head)) {
		char size[SIZE_BYTES + 1] = "";

		at += TAR_BLOCK;
		if (!head[TYPE_AT] || !strchr("xgLK", head[TYPE_AT]))
			return at;
		memcpy(size, head + SIZE_AT, SIZE_BYTES);
		at += (strtoull(size, NULL, 8) + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
		if (at > walk->limit_bytes)
			break;
	}
	return walk->error->offset;
}

static int walk_all(struct walk *walk, package_visit *visit, package_done *done, void *context)
{
	struct archive_entry *entry;
	int result = 0;

	while (!result) {
		struct package_place place = { .fd = -1 };
		uint64_t bytes;
		const char *name;
		int got = archive_read_next_header(walk->archive, &entry);

		note_place(walk);
		if (got == ARCHIVE_EOF)
			break;
		if (got != ARCHIVE_OK)
			return wrong(walk->error, -EBADMSG, OVF_ARCHIVE, NULL,
				     "is not a tar archive, or is damaged");
		name = archive_entry_pathname(entry);
		result = check_entry(walk, entry, name);
		if (result)
			break;
		bytes = (uint64_t)archive_entry_size(entry);
		place.at = content_at(walk);
		result = visit(context, name, bytes, walk->count - 1, &place);
		if (result || (!place.text && place.fd < 0))
			continue;
		result = take(walk->archive, name, bytes, &place, walk->buffer, walk->error);
		if (!result)
			result = done(context, name, &place);
	}
	return result;
}

int package_read(int fd, package_visit *visit, package_done *done, void *context,
		 struct ovf_error *error)
{
	struct walk walk = { .error = error, .fd = fd };
	struct stat st;
	int result = fstat(fd, &st) ? -errno : 0;

	if (!result && !load(error))
		return -ENOSYS;
	error->text[0] = 0;
	walk.limit_bytes = (uint64_t)st.st_size;
	walk.archive = archive_read_new();
	walk.seen = calloc(PACKAGE_FILES_MAX, sizeof(*walk.seen));
	walk.buffer = malloc(PIECE_BYTES);
	if (!result && (!walk.archive || !walk.seen || !walk.buffer))
		result = -ENOMEM;
	if (!result && (archive_read_support_format_tar(walk.archive) != ARCHIVE_OK ||
			archive_read_open_fd(walk.archive, fd, PIECE_BYTES) != ARCHIVE_OK))
		result = wrong(error, -EBADMSG, OVF_ARCHIVE, NULL, "is not a tar archive");
	if (!result)
		result = walk_all(&walk, visit, done, context);
	if (walk.archive)
		archive_read_free(walk.archive);
	free(walk.seen);
	free(walk.buffer);
	return result;
}

/* ---- writing ---- */

static int put_content(struct archive *archive, const struct package_file *file, uint8_t *buffer)
{
	uint64_t at = 0;

	if (file->text)
		return archive_write_data(archive, file->text, file->bytes) ==
				       (la_ssize_t)file->bytes
			       ? 0
			       : -EIO;
	while (at < file->bytes) {
		uint64_t left = file->bytes - at;
		ssize_t got =
			pread(file->fd, buffer, left < PIECE_BYTES ? left : PIECE_BYTES, (off_t)at);

		if (got <= 0)
			return got ? -errno : -ENODATA;
		if (archive_write_data(archive, buffer, (size_t)got) != got)
			return -EIO;
		at += (uint64_t)got;
	}
	return 0;
}

static int put_file(struct archive *archive, const struct package_file *file, uint8_t *buffer)
{
	struct archive_entry *entry = archive_entry_new();
	int result = entry ? 0 : -ENOMEM;

	if (result)
		return result;
	archive_entry_set_pathname(entry, file->name);
	archive_entry_set_size(entry, (la_int64_t)file->bytes);
	archive_entry_set_filetype(entry, S_IFREG);
	archive_entry_set_perm(entry, MODE);
	if (archive_write_header(archive, entry) != ARCHIVE_OK)
		result = -EIO;
	archive_entry_free(entry);
	return result ? result : put_content(archive, file, buffer);
}

int package_write(int fd, const struct package_file *files, unsigned count, struct ovf_error *error)
{
	uint8_t *buffer = malloc(PIECE_BYTES);
	struct archive *archive;
	int result = 0;

	if (!load(error)) {
		free(buffer);
		return -ENOSYS;
	}
	archive = archive_write_new();
	if (!archive || !buffer)
		result = -ENOMEM;
	if (!result && (archive_write_set_format_pax_restricted(archive) != ARCHIVE_OK ||
			archive_write_set_bytes_per_block(archive, PIECE_BYTES) != ARCHIVE_OK ||
			archive_write_open_fd(archive, fd) != ARCHIVE_OK))
		result = -EIO;
	for (unsigned n = 0; n < count && !result; n++)
		result = put_file(archive, &files[n], buffer);
	if (!result && archive_write_close(archive) != ARCHIVE_OK)
		result = -EIO;
	if (archive)
		archive_write_free(archive);
	free(buffer);
	return result ? wrong(error, result, OVF_NOTHING, NULL, "cannot be written; is there room?")
		      : 0;
}
