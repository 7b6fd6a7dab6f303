/*
 * A disk into a new file of a format whose files are written once, from their beginning to their
 * end: what comes in between is no disk. The parent of a new child is open while it is written, and
 * what it held is noted beside the child.
 */
#include <string.h>
#include <unistd.h>

#include "disk/digest.h"
#include "disk/disk_internal.h"

static int (*const write_format[DISK_FORMATS])(const struct disk_conversion *conversion,
					       struct disk_error *error) = {
	[DISK_QCOW2] = qcow2_write_file,
	[DISK_VMDK] = vmdk_write_file,
};

bool disk_is_written_once(enum disk_format format) { return write_format[format]; }

static int open_parent(const struct disk_create *what, struct disk **ret, struct disk_error *error)
{
	const struct disk_options options = { .format = what->parent_format,
					      .parents = what->parents };

	*ret = NULL;
	if (!what->parent)
		return 0;
	if (what->format != DISK_QCOW2)
		return disk_refuse(error, REFUSAL_NO_PARENT_FORMAT, what->parent, DISK_NOWHERE,
				   "a %s file is written without a parent",
				   disk_format_name(what->format));
	return disk_open(what->parent, &options, ret, error);
}

/* What the parent held, so that a change of it is seen. */
static int note_parent(const char *path, const struct disk_create *what, struct disk_error *error)
{
	const struct disk_options options = { .format = what->format, .parents = what->parents };
	struct disk *child;
	int result = disk_open(path, &options, &child, error);

	if (result)
		return result;
	result = link_make(child, LINK_KEPT_OR_COMPUTED);
	if (result)
		disk_refuse_host(error, result, path, "noting what its parent holds");
	disk_close(child);
	return result;
}

static int write_file(struct disk_conversion *conversion, struct disk_error *error)
{
	struct disk_file file;
	int result = disk_file_create(conversion->path, true, &file);

	if (result)
		return disk_refuse_as(error, REFUSAL_OPEN, result, conversion->path, DISK_NOWHERE,
				      "%s", strerror(-result));
	file.no_sync = conversion->what->no_sync;
	conversion->file = &file;
	result = write_format[conversion->what->format](conversion, error);
	if (result && !error->text[0])
		disk_refuse_host(error, result, conversion->path, "writing it");
	file_close(&file);
	if (result)
		unlink(conversion->path);
	return result;
}

int disk_convert(struct disk *from, const char *path, const struct disk_create *what,
		 const struct disk_job *job, struct disk_error *error)
{
	struct disk_conversion conversion = {
		.from = from, .path = path, .what = what, .job = job
	};
	int result;

	assert(disk_is_written_once(what->format));
	*error = (struct disk_error){ .kind = REFUSAL_NONE };
	result = open_parent(what, &conversion.parent, error);
	if (!result)
		result = write_file(&conversion, error);
	if (!result && conversion.parent)
		result = note_parent(path, what, error);
	if (conversion.parent)
		disk_close(conversion.parent);
	return result;
}

int disk_convert_stream(struct disk *from, int fd, const struct disk_create *what,
			const struct disk_job *job, struct disk_error *error)
{
	struct disk_file file;
	struct disk_conversion conversion = {
		.from = from, .file = &file, .path = what->name, .what = what, .job = job
	};
	int result = disk_file_stream(fd, &file);

	*error = (struct disk_error){ .kind = REFUSAL_NONE };
	if (!result && what->format == DISK_RAW)
		result = raw_write_stream(&conversion, error);
	else if (!result && what->format == DISK_VMDK && !what->parent)
		result = vmdk_write_file(&conversion, error);
	else if (!result)
		result = disk_refuse(error, REFUSAL_PIPE_FORMAT, what->name, DISK_NOWHERE,
				     "%s into a pipe", disk_format_name(what->format));
	if (result && !error->text[0])
		disk_refuse_host(error, result, what->name, "writing it");
	file_close(&file);
	return result;
}
