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
static bool is_known(struct catalog *c, const char *path, const struct stat *st)
{
	sqlite3_stmt *s = catalog_statement(c, S_IMAGE_BY_PATH);
	bool known;

	sqlite3_bind_text(s, 1, path, -1, SQLITE_STATIC);
	known = sqlite3_step(s) == SQLITE_ROW &&
		sqlite3_column_int64(s, 1) == (int64_t)st->st_size &&
		sqlite3_column_int64(s, 2) == (int64_t)newest(path, st);
	sqlite3_reset(s);
	return known;
}

/* The row of the image at this path, or of the one that was elsewhere and is not there any more. */
static int64_t row_for(struct catalog *c, const char *path, const char *identity, bool *ret_moved)
{
	sqlite3_stmt *s = catalog_statement(c, S_IMAGE_BY_PATH);
	int64_t image;

	*ret_moved = false;
	sqlite3_bind_text(s, 1, path, -1, SQLITE_STATIC);
	image = catalog_number(c, s);
	if (image)
		return image;
	s = catalog_statement(c, S_IMAGE_BY_IDENTITY);
	sqlite3_bind_text(s, 1, identity, -1, SQLITE_STATIC);
	while (!image && sqlite3_step(s) == SQLITE_ROW) {
		const char *was = (const char *)sqlite3_column_text(s, 1);

		if (was && access(was, F_OK) && errno == ENOENT)
			image = sqlite3_column_int64(s, 0);
	}
	sqlite3_reset(s);
	*ret_moved = image != 0;
	return image;
}

/* A disk's own identifier; of a format without one the file's number. A child is not its parent,
 * though it has the same disk's. */
static void identity_of(const struct disk *d, const struct stat *st, char text[128])
{
	struct disk_info i;
	char disk[GUID_TEXT_BYTES], parent[GUID_TEXT_BYTES];

	disk_info(d, &i);
	guid_print(i.disk_id, disk);
	guid_print(i.parent_data_id, parent);
	if (guid_is_zero(i.disk_id))
		snprintf(text, 128, "file %lu:%lu", (unsigned long)st->st_dev,
			 (unsigned long)st->st_ino);
	else
		snprintf(text, 128, "%s %s", disk, i.has_parent ? parent : "");
}

static int take_in(struct walk *w, const char *path, struct disk *d, const struct stat *st)
{
	struct catalog_entry e = { .path = path,
				   .file_bytes = (uint64_t)st->st_size,
				   .mtime_ns = newest(path, st) };
	json_t *about;
	json_t *content = NULL;
	json_t *files = NULL;
	struct disk_info i;
	char identity[128];
	bool moved;
	int64_t image;
	int error = image_load_about(d, &about);

	if (error)
		return error;
	disk_info(d, &i);
	identity_of(d, st, identity);
	image_load_content(d, &content); /* what is not there, or not sound, cannot be searched */
	image_load_files(d, &files);
	e.identity = identity;
	e.data_id = i.data_id;
	e.about = about;
	e.content = content;
	e.files = files;
	image = row_for(w->catalog, path, identity, &moved);
	error = image < 0 ? (int)image : catalog_put_row(w->catalog, image, &e);
	if (!image)
		w->result->added += !error;
	else if (moved)
		w->result->moved += !error;
	else
		w->result->changed += !error;
	json_decref(about);
	json_decref(content);
	json_decref(files);
	return error;
}

/* An error of the catalog; an image that cannot be read is only counted. */
static int index_file(struct walk *w, const char *path, enum disk_format format)
{
	struct disk_error why;
	struct disk *d;
	struct stat st;
	int error;

	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return 0;
	w->result->seen++;
	if (is_known(w->catalog, path, &st))
		return 0;
	if (disk_open(path, &(struct disk_options){ .format = format, .items_only = true }, &d,
		      &why)) {
		w->result->unreadable++;
		return 0;
	}
	error = take_in(w, path, d, &st);
	disk_close(d);
	if (error == -EBADMSG || error == -ENOTSUP) {
		w->result->unreadable++;
		error = 0;
	}
	return error;
}

static int index_entries(struct walk *w, const char *path, struct dirent **entries, int count,
			 unsigned depth);

/* Links are not followed; names in order. */
static int index_directory(struct walk *w, const char *path, unsigned depth)
{
	struct dirent **entries = NULL;
	int count = depth < DEPTH ? scandir(path, &entries, NULL, alphasort) : 0;
	int error = count > 0 ? index_entries(w, path, entries, count, depth) : 0;

	for (int n = 0; n < count; n++)
		free(entries[n]);
	free(entries);
	return error;
}

/* What comes soon is read from the host's disks while this is looked at. */
static void look_ahead(struct walk *w, const char *path, const char *name)
{
	enum disk_format format;
	struct stat st;
	char *below;

	if (!format_of(name, &format) || asprintf(&below, "%s/%s", path, name) < 0)
		return;
	if (!lstat(below, &st) && S_ISREG(st.st_mode) && !is_known(w->catalog, below, &st))
		disk_prefetch(below, format);
	free(below);
}

static int index_entries(struct walk *w, const char *path, struct dirent **entries, int count,
			 unsigned depth)
{
	int error = 0;

	for (int n = 0; n < count && !error; n++) {
		const char *name = entries[n]->d_name;
		enum disk_format format;
		struct stat st;
		char *below = NULL;

		for (int k = n ? n + AHEAD - 1 : 0; k < n + AHEAD && k < count; k++)
			look_ahead(w, path, entries[k]->d_name);
		if (name[0] == '.')
			continue;
		if (asprintf(&below, "%s/%s", path, name) < 0)
			error = -ENOMEM;
		else if (lstat(below, &st))
			error = 0; /* gone meanwhile */
		else if (S_ISDIR(st.st_mode))
			error = index_directory(w, below, depth + 1);
		else if (S_ISREG(st.st_mode) && format_of(name, &format))
			error = index_file(w, below, format);
		free(below);
	}
	return error;
}

/* Rows of files that are not there any more. */
static int remove_gone(struct walk *w, const char *directory)
{
	sqlite3_stmt *s = catalog_statement(w->catalog, S_IMAGE_BELOW);
	char *from = NULL;
	char *to = NULL;
	json_t *gone = json_array();
	json_t *id;
	size_t n;
	/* '0' follows '/' */
	int error = asprintf(&from, "%s/", directory) < 0 || asprintf(&to, "%s0", directory) < 0
			    ? -ENOMEM
			    : 0;

	sqlite3_bind_text(s, 1, from, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, to, -1, SQLITE_STATIC);
	while (!error && sqlite3_step(s) == SQLITE_ROW) {
		const char *path = (const char *)sqlite3_column_text(s, 1);

		if (path && access(path, F_OK) && errno == ENOENT)
			json_array_append_new(gone, json_integer(sqlite3_column_int64(s, 0)));
	}
	catalog_statement(w->catalog, S_IMAGE_BELOW);
	json_array_foreach(gone, n, id)
	{
		if (!error)
			error = catalog_forget_row(w->catalog, json_integer_value(id));
		s = catalog_statement(w->catalog, S_IMAGE_REMOVE);
		sqlite3_bind_int64(s, 1, json_integer_value(id));
		if (!error)
			error = catalog_done(w->catalog, s);
		w->result->gone += !error;
	}
	json_decref(gone);
	free(from);
	free(to);
	return error;
}

int catalog_index(struct catalog *c, const char *directory, struct catalog_result *ret)
{
	struct walk w = { c, ret };
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
		error = catalog_begin(c);
	if (!error) {
		error = index_directory(&w, path, 0);
		if (!error)
			error = remove_gone(&w, path);
		if (error)
			catalog_execute(c, "ROLLBACK");
		else
			error = catalog_end(c);
	}
	free(path);
	return error;
}
