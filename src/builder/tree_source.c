/* See tree_source.h. */
#include "tree_source.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "volume_writer.h"

enum { READ_BYTES = 1 << 16 };

struct source {
	struct archive *archive;
	struct volume_writer *writer;
	size_t prefix_bytes; /* of a folder's own path, which entries begin with */
	struct archive_entry_linkresolver *links; /* NULL: an archive knows them itself */
	char *what;
};

static void say(const struct source *source, const char *what)
{
	snprintf(source->what, SOURCE_WHAT_BYTES, "%s", what ? what : "cannot be read");
}

static int failed(const struct source *source)
{
	int error = archive_errno(source->archive);

	say(source, archive_error_string(source->archive));
	return error > 0 ? -error : -EIO;
}

static long read_data(void *context, void *to, size_t bytes)
{
	struct source *source = context;
	la_ssize_t got = archive_read_data(source->archive, to, bytes);

	return got < 0 ? failed(source) : (long)got;
}

/* What programs set, and what they may do; the rest is of the file system that it comes from. */
static bool is_kept(const char *name)
{
	static const char user[] = "user.";

	return name && (!strncmp(name, user, sizeof(user) - 1) ||
			!strcmp(name, "security.capability"));
}

static int add_attributes(struct source *source, const char *path, struct archive_entry *entry)
{
	const char *name;
	const void *value;
	size_t bytes;
	int error = 0;

	archive_entry_xattr_reset(entry);
	while (!error && !archive_entry_xattr_next(entry, &name, &value, &bytes))
		if (is_kept(name))
			error = volume_add_attribute(source->writer, path, name, value, bytes);
	return error;
}

static int add_entry(struct source *source, const char *path, struct archive_entry *entry)
{
	const char *other = archive_entry_hardlink(entry);
	const struct stat *st = archive_entry_stat(entry);

	if (other)
		return volume_add_name(source->writer, path, other + (source->links ?
						       source->prefix_bytes : 0));
	switch (archive_entry_filetype(entry)) {
	case AE_IFDIR: return volume_add_folder(source->writer, path, st);
	case AE_IFLNK:
		return volume_add_link(source->writer, path, st, archive_entry_symlink(entry));
	case AE_IFREG: return volume_add_file(source->writer, path, st, read_data, source);
	case AE_IFBLK: case AE_IFCHR: return volume_add_device(source->writer, path, st);
	default: return 0;
	}
}

static int take_entry(struct source *source, struct archive_entry *entry)
{
	const char *whole = archive_entry_pathname(entry);
	const char *path = whole;
	int error;

	if (!whole || strlen(whole) < source->prefix_bytes) {
		say(source, "a name that cannot be read");
		return -EINVAL;
	}
	path += source->prefix_bytes;
	error = add_entry(source, path, entry);
	if (!error && !archive_entry_hardlink(entry))
		error = add_attributes(source, path, entry);
	if (error && !*source->what)
		say(source, whole);
	return error;
}

/* Of a folder: the second name of a file is found by its number, and names the first. */
static int take_disk_entry(struct source *source, struct archive_entry *entry)
{
	struct archive_entry *same = entry;
	struct archive_entry *later = NULL;

	if (archive_entry_filetype(entry) == AE_IFDIR)
		archive_read_disk_descend(source->archive);
	archive_entry_linkify(source->links, &same, &later);
	return take_entry(source, same ? same : entry);
}

static int take_all(struct source *source)
{
	struct archive_entry *entry = archive_entry_new();
	int error = entry ? 0 : -ENOMEM;
	int got = ARCHIVE_OK;

	while (!error) {
		got = archive_read_next_header2(source->archive, entry);
		if (got < ARCHIVE_WARN || got == ARCHIVE_EOF)
			break;
		error = source->links ? take_disk_entry(source, entry) : take_entry(source, entry);
	}
	if (!error && got != ARCHIVE_EOF)
		error = failed(source);
	archive_entry_free(entry);
	return error;
}

static int open_folder(struct source *source, const char *from)
{
	char top[PATH_MAX];
	size_t bytes = strlen(from);

	while (bytes > 1 && from[bytes - 1] == '/')
		bytes--;
	if ((size_t)snprintf(top, sizeof(top), "%.*s", (int)bytes, from) >= sizeof(top))
		return -ENAMETOOLONG;
	source->archive = archive_read_disk_new();
	source->links = archive_entry_linkresolver_new();
	source->prefix_bytes = bytes;
	if (!source->archive || !source->links)
		return -ENOMEM;
	archive_entry_linkresolver_set_strategy(source->links, ARCHIVE_FORMAT_TAR_USTAR);
	archive_read_disk_set_symlink_physical(source->archive);
	archive_read_disk_set_behavior(source->archive, ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS);
	return archive_read_disk_open(source->archive, top) == ARCHIVE_OK ? 0 : failed(source);
}

static int open_archive(struct source *source, const char *from)
{
	source->archive = archive_read_new();
	if (!source->archive)
		return -ENOMEM;
	archive_read_support_filter_all(source->archive);
	archive_read_support_format_tar(source->archive);
	return archive_read_open_filename(source->archive, from, READ_BYTES) == ARCHIVE_OK
		       ? 0
		       : failed(source);
}

int tree_source_fill(const char *from, struct volume_writer *writer,
		     char ret_what[SOURCE_WHAT_BYTES])
{
	struct source source = { .writer = writer, .what = ret_what };
	struct stat st;
	int error;

	*ret_what = 0;
	if (stat(from, &st)) {
		error = -errno;
		say(&source, from);
		return error;
	}
	error = S_ISDIR(st.st_mode) ? open_folder(&source, from) : open_archive(&source, from);
	if (!error)
		error = take_all(&source);
	if (source.archive)
		archive_read_free(source.archive);
	if (source.links)
		archive_entry_linkresolver_free(source.links);
	return error;
}
