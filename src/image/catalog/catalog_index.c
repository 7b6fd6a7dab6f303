/*
 * Bringing a catalog up to date with a directory: what is new, has changed, moved or gone. A file
 * that is as its row says (length, time, identity) is not opened.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog_internal.h"

enum { DEPTH = 32, AHEAD = 16 };

struct walk { struct catalog *catalog; struct catalog_result *result; };

/* The format that a name promises. */
static bool format_of(const char *name, enum disk_format *ret)
{
	const char *suffix = strrchr(name, '.');

	if (!suffix)
		return false;
	if (!strcmp(suffix, ".img")) {
		*ret = DISK_RAW;
		return true;
	}
	return disk_format_parse(suffix + 1, ret);
}

static uint64_t mtime_ns(const struct stat *st)
{
	return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

/* What a side file says changes, too, when what an image says is changed. */
static uint64_t newest(const char *path, const struct stat *st)
{
	uint64_t image = mtime_ns(st);
	uint64_t side = 0;
	struct stat other;
	char *name;

	if (asprintf(&name, "%s.umbra", path) >= 0) {
		side = !stat(name, &other) ? mtime_ns(&other) : 0;
		free(name);
	}
	return image > side ? image : side;
}

/* A file that is where it was and not changed since. */
static bool is_known(struct catalog *catalog, const char *path, const struct stat *st)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_IMAGE_BY_PATH);
	bool known;

	sqlite3_bind_text(statement, 1, path, -1, SQLITE_STATIC);
	known = sqlite3_step(statement) == SQLITE_ROW &&
		sqlite3_column_int64(statement, 1) == (int64_t)st->st_size &&
		sqlite3_column_int64(statement, 2) == (int64_t)newest(path, st);
	sqlite3_reset(statement);
	return known;
}

/* The row of the image at this path, or of the one that was elsewhere and is not there any more. */
static int64_t row_for(struct catalog *catalog, const char *path, const char *identity,
		       bool *ret_moved)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_IMAGE_BY_PATH);
	int64_t image;

	*ret_moved = false;
	sqlite3_bind_text(statement, 1, path, -1, SQLITE_STATIC);
	image = catalog_number(catalog, statement);
	if (image)
		return image;
	statement = catalog_statement(catalog, S_IMAGE_BY_IDENTITY);
	sqlite3_bind_text(statement, 1, identity, -1, SQLITE_STATIC);
	while (!image && sqlite3_step(statement) == SQLITE_ROW) {
		const char *was = (const char *)sqlite3_column_text(statement, 1);

		if (was && access(was, F_OK) && errno == ENOENT)
			image = sqlite3_column_int64(statement, 0);
	}
	sqlite3_reset(statement);
	*ret_moved = image != 0;
	return image;
}

/* A disk's own identifier; of a format without one the file's number. A child is not its parent,
 * though it has the same disk's. */
static void identity_of(const struct disk *ancestor, const struct stat *st, char text[128])
{
	struct disk_info info;
	char disk[GUID_TEXT_BYTES], parent[GUID_TEXT_BYTES];

	disk_info(ancestor, &info);
	guid_print(info.disk_id, disk);
	guid_print(info.parent_data_id, parent);
	if (guid_is_zero(info.disk_id))
		snprintf(text, 128, "file %lu:%lu", (unsigned long)st->st_dev,
			 (unsigned long)st->st_ino);
	else
		snprintf(text, 128, "%s %s", disk, info.has_parent ? parent : "");
}

static int take_in(struct walk *walk, const char *path, struct disk *disk, const struct stat *st)
{
	struct catalog_entry entry = { .path = path,
				       .file_bytes = (uint64_t)st->st_size,
				       .mtime_ns = newest(path, st) };
	json_t *about;
	json_t *content = NULL;
	json_t *files = NULL;
	struct disk_info info;
	char identity[128];
	bool moved;
	int64_t image;
	int error = image_load_about(disk, &about);

	if (error)
		return error;
	disk_info(disk, &info);
	identity_of(disk, st, identity);
	image_load_content(disk,
			   &content); /* what is not there, or not sound, cannot be searched */
	image_load_files(disk, &files);
	entry.identity = identity;
	entry.data_id = info.data_id;
	entry.about = about;
	entry.content = content;
	entry.files = files;
	image = row_for(walk->catalog, path, identity, &moved);
	error = image < 0 ? (int)image : catalog_put_row(walk->catalog, image, &entry);
	if (!image)
		walk->result->added += !error;
	else if (moved)
		walk->result->moved += !error;
	else
		walk->result->changed += !error;
	json_decref(about);
	json_decref(content);
	json_decref(files);
	return error;
}

/* An error of the catalog; an image that cannot be read is only counted. */
static int index_file(struct walk *walk, const char *path, enum disk_format format)
{
	struct disk_error why;
	struct disk *disk;
	struct stat st;
	int error;

	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return 0;
	walk->result->seen++;
	if (is_known(walk->catalog, path, &st))
		return 0;
	if (disk_open(path, &(struct disk_options){ .format = format, .items_only = true }, &disk,
		      &why)) {
		walk->result->unreadable++;
		return 0;
	}
	error = take_in(walk, path, disk, &st);
	disk_close(disk);
	if (error == -EBADMSG || error == -ENOTSUP) {
		walk->result->unreadable++;
		error = 0;
	}
	return error;
}

static int index_entries(struct walk *walk, const char *path, struct dirent **entries, int count,
			 unsigned depth);

/* Links are not followed; names in order. */
static int index_directory(struct walk *walk, const char *path, unsigned depth)
{
	struct dirent **entries = NULL;
	int count = depth < DEPTH ? scandir(path, &entries, NULL, alphasort) : 0;
	int error = count > 0 ? index_entries(walk, path, entries, count, depth) : 0;

	for (int n = 0; n < count; n++)
		free(entries[n]);
	free(entries);
	return error;
}

/* What comes soon is read from the host's disks while this is looked at. */
static void look_ahead(struct walk *walk, const char *path, const char *name)
{
	enum disk_format format;
	struct stat st;
	char *below;

	if (!format_of(name, &format) || asprintf(&below, "%s/%s", path, name) < 0)
		return;
	if (!lstat(below, &st) && S_ISREG(st.st_mode) && !is_known(walk->catalog, below, &st))
		disk_prefetch(below, format);
	free(below);
}

static int index_entries(struct walk *walk, const char *path, struct dirent **entries, int count,
			 unsigned depth)
{
	int error = 0;

	for (int n = 0; n < count && !error; n++) {
		const char *name = entries[n]->d_name;
		enum disk_format format;
		struct stat st;
		char *below = NULL;

		for (int k = n ? n + AHEAD - 1 : 0; k < n + AHEAD && k < count; k++)
			look_ahead(walk, path, entries[k]->d_name);
		if (name[0] == '.')
			continue;
		if (asprintf(&below, "%s/%s", path, name) < 0)
			error = -ENOMEM;
		else if (lstat(below, &st))
			error = 0; /* gone meanwhile */
		else if (S_ISDIR(st.st_mode))
			error = index_directory(walk, below, depth + 1);
		else if (S_ISREG(st.st_mode) && format_of(name, &format))
			error = index_file(walk, below, format);
		free(below);
	}
	return error;
}

/* Rows of files that are not there any more. */
static int remove_gone(struct walk *walk, const char *directory)
{
	sqlite3_stmt *statement = catalog_statement(walk->catalog, S_IMAGE_BELOW);
	char *from = NULL;
	char *to = NULL;
	json_t *gone = json_array();
	json_t *id;
	size_t n;
	/* '0' follows '/' */
	int error = asprintf(&from, "%s/", directory) < 0 || asprintf(&to, "%s0", directory) < 0
			    ? -ENOMEM
			    : 0;

	sqlite3_bind_text(statement, 1, from, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, to, -1, SQLITE_STATIC);
	while (!error && sqlite3_step(statement) == SQLITE_ROW) {
		const char *path = (const char *)sqlite3_column_text(statement, 1);

		if (path && access(path, F_OK) && errno == ENOENT)
			json_array_append_new(gone,
					      json_integer(sqlite3_column_int64(statement, 0)));
	}
	catalog_statement(walk->catalog, S_IMAGE_BELOW);
	json_array_foreach(gone, n, id)
	{
		if (!error)
			error = catalog_forget_row(walk->catalog, json_integer_value(id));
		statement = catalog_statement(walk->catalog, S_IMAGE_REMOVE);
		sqlite3_bind_int64(statement, 1, json_integer_value(id));
		if (!error)
			error = catalog_done(walk->catalog, statement);
		walk->result->gone += !error;
	}
	json_decref(gone);
	free(from);
	free(to);
	return error;
}

int catalog_index(struct catalog *catalog, const char *directory, struct catalog_result *ret)
{
	struct walk walk = { catalog, ret };
	char *path = realpath(directory, NULL);
	struct stat st;
	int error = 0;

	if (!path || stat(path, &st))
		error = -errno;
	else if (!S_ISDIR(st.st_mode))
		error = -ENOTDIR;
	*ret = (struct catalog_result){ 0 };
	if (!error && sodium_init() < 0)
		error = -EIO;
	if (!error)
		error = catalog_begin(catalog);
	if (!error) {
		error = index_directory(&walk, path, 0);
		if (!error)
			error = remove_gone(&walk, path);
		if (error)
			catalog_execute(catalog, "ROLLBACK");
		else
			error = catalog_end(catalog);
	}
	free(path);
	return error;
}
