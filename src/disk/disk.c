/*
 * What a disk is: opening and closing, its identity, what is beside its data. Requests: chain.h.
 *
 * A parent is found by its child's locator (search.h), must lie where the options allow, is opened
 * for reading and stays open: what was verified is what is read.
 */
#include "digest.h"
#include "file_overlay.h"
#include "search.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BESIDE_TRIES = 100 };

static const char *const format_names[DISK_FORMATS] = { [DISK_VHDX] = "vhdx",
							[DISK_RAW] = "raw",
							[DISK_VHD] = "vhd",
							[DISK_QCOW2] = "qcow2",
							[DISK_VMDK] = "vmdk" };

const char *disk_strerror(int error)
{
	assert(error < 0);
	switch (error) {
	case -ENODATA: return "the file ends before the data that its tables name: it was cut off";
	case -ESTALE: return "a parent's content is not what the child was made on";
	case -EBADMSG: return "its tables are not sound";
	default: return strerror(-error);
	}
}

const char *disk_format_name(enum disk_format format) { return format_names[format]; }

bool disk_format_parse(const char *name, enum disk_format *ret)
{
	for (int n = 0; n < DISK_FORMATS; n++)
		if (!strcmp(name, format_names[n])) {
			*ret = (enum disk_format)n;
			return true;
		}
	return false;
}

/* ---- opening ---- */

struct guid disk_data_id(const struct disk *disk)
{
	return disk->data_id ? *disk->data_id : (struct guid){ 0 };
}

/* What is written down about changes, and what is known of the parent. */
static int begin_digests(struct disk *disk, const struct disk_options *options,
			 struct disk_error *error)
{
	int result = 0;

	if (disk->parent && !options->accept_changed)
		result = link_load(disk, &disk->link);
	if (result)
		return disk_refuse_as(error, REFUSAL_KNOWN_PARENT, result, disk->path, DISK_NOWHERE,
				      "it cannot be read: %s", disk_strerror(result));
	if (!disk->write)
		return 0;
	disk->opened_id = disk_data_id(disk);
	disk->touched_bytes = digest_block_bytes(disk);
	disk->touched_blocks = (disk->size_bytes + disk->touched_bytes - 1) / disk->touched_bytes;
	disk->touched_from = UINT64_MAX;
	disk->touched = calloc(1, disk->touched_blocks / 8 + 1);
	if (options->just_made)
		digest_continue(disk);
	if (guid_is_zero(disk->opened_id)) {
		struct digest_table *table = NULL;

		disk->opened_current = !digest_load(disk, &table);
		if (disk->opened_current)
			digest_free(table);
	}
	return disk->touched ? 0 : disk_refuse_host(error, -ENOMEM, disk->path, "opening it");
}

static void disk_free(struct disk *disk)
{
	chain_detach(disk);
	link_free(disk->link);
	file_close(&disk->file);
	free(disk->touched);
	free(disk->path);
	free(disk);
}

static int (*const open_format[DISK_FORMATS])(struct disk *disk, const struct disk_options *options,
					      struct disk_error *error) = {
	[DISK_RAW] = raw_open,     [DISK_VHDX] = vhdx_open, [DISK_VHD] = vhd_open,
	[DISK_QCOW2] = qcow2_open, [DISK_VMDK] = vmdk_open,
};

/* The format's own, and what it looks for meanwhile. */
static int open_within(struct disk *disk, const struct disk_options *options,
		       struct disk_error *error)
{
	int result = search_enter(options->search, disk->path, error);

	if (result)
		return result;
	result = open_format[options->format](disk, options, error);
	search_leave(options->search);
	return result;
}

int disk_open_file(struct disk_file file, const char *path, const struct disk_options *given,
		   struct disk **ret, struct disk_error *error)
{
	struct disk *disk = calloc(1, sizeof(*disk));
	struct disk_options options = *given;
	int result = -ENOMEM;

	options.without_parents |= given->items_only;
	if (disk)
		disk->path = strdup(path);
	if (!disk || !disk->path) {
		file_close(&file);
		free(disk);
		return disk_refuse_host(error, -ENOMEM, path, "opening it");
	}
	disk->file = file;
	disk->write = given->write;
	disk->only_shrinks = given->to_shrink;
	disk->format_id = given->format;
	disk->items_only = given->items_only;
	disk->in_use = given->beside_writer;
	if (disk->in_use)
		file_stamp_take(&file, &disk->opened);
	disk->side_keeper = given->side_keeper;
	if (!given->search)
		result = search_begin(&options.search);
	else
		result = 0;
	if (result)
		disk_refuse_host(error, result, path, "opening it");
	else
		result = open_within(disk, &options, error);
	if (!given->search && options.search)
		search_end(options.search);
	if (result) {
		disk_free(disk);
		return result;
	}
	result = chain_attach(disk);
	if (result)
		disk_refuse_host(error, result, disk->path, "opening its chain");
	if (!result && disk->write && !given->thaw)
		result = disk_check_frozen(disk, error);
	if (!result)
		result = begin_digests(disk, given, error);
	if (result) {
		disk->write = false; /* nothing was written, and nothing is */
		if (given->parent)
			disk->parent = NULL; /* still the caller's */
		disk_close(disk);
		return result;
	}
	*ret = disk;
	return 0;
}

/* Of one that somebody writes: a fault in it counts only when it was not changed meanwhile. */
static int open_beside(struct disk_file file, const char *path, const struct disk_options *options,
		       struct disk **ret, struct disk_error *error)
{
	struct file_stamp before, after;
	int result, again;

	file_stamp_take(&file, &before);
	result = disk_open_file(file, path, options, ret, error);
	if (result != -EBADMSG && result != -ENODATA)
		return result;
	again = disk_file_open_beside(path, &file);
	if (again)
		return result;
	file_stamp_take(&file, &after);
	file_close(&file);
	return before.file_bytes == after.file_bytes && before.mtime_ns == after.mtime_ns
		       ? result
		       : -EAGAIN;
}

static int open_once(const char *path, const struct disk_options *options, struct disk **ret,
		     struct disk_error *error)
{
	struct disk_options given = *options;
	struct disk_file file;
	int result;

	assert(open_format[options->format]);
	const bool only_looks = options->beside_writer || options->unlocked;

	if (options->write && (options->without_parents || options->items_only || only_looks))
		result = -EINVAL;
	else if (options->unlocked)
		result = -EBUSY;
	else
		result = disk_file_open(path, options->write, options->direct, &file);
	given.beside_writer = result == -EBUSY && only_looks;
	if (given.beside_writer)
		result = disk_file_open_beside(path, &file);
	if (result == -EBUSY)
		return disk_refuse(error, REFUSAL_IN_USE, path, DISK_NOWHERE,
				   "in use by somebody else");
	if (result == -EROFS) /* of the host: the file is not frozen */
		return disk_refuse_as(error, REFUSAL_OPEN, -EACCES, path, DISK_NOWHERE, "%s",
				      strerror(EROFS));
	if (result)
		return disk_refuse_as(error, REFUSAL_OPEN, result, path, DISK_NOWHERE, "%s",
				      strerror(-result));
	file.no_sync = options->no_sync;
	if (given.beside_writer)
		return open_beside(file, path, &given, ret, error);
	return disk_open_file(file, path, &given, ret, error);
}

int disk_open(const char *path, const struct disk_options *options, struct disk **ret,
	      struct disk_error *error)
{
	enum disk_format looks;
	int result = open_once(path, options, ret, error);

	for (int n = 0; n < BESIDE_TRIES && result == -EAGAIN; n++) { /* it was being changed */
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
		result = open_once(path, options, ret, error);
	}
	if ((result == -EBADMSG || result == -EMEDIUMTYPE) && disk_looks_like(path, &looks) &&
	    looks != options->format)
		return disk_refuse(error, REFUSAL_FORMAT, path, DISK_NOWHERE,
				   "not a %s file, but it looks like %s",
				   disk_format_name(options->format), disk_format_name(looks));
	return result;
}

/* Where most writers of VHDX put identifier, headers, region table, metadata table, its values. */
void disk_prefetch(const char *path, enum disk_format format)
{
	enum { PART_BYTES = 4096 };
	static const struct {
		uint64_t at, bytes;
	} parts[] = {
		{ 0, PART_BYTES },         { 64 << 10, PART_BYTES },
		{ 128 << 10, PART_BYTES }, { 192 << 10, PART_BYTES },
		{ 2 << 20, PART_BYTES },   { (2 << 20) + (64 << 10), 16 << 10 }
	};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	for (size_t n = 0;
	     fd >= 0 && n < (format == DISK_VHDX ? sizeof(parts) / sizeof(parts[0]) : 1); n++)
		posix_fadvise(fd, (off_t)parts[n].at, (off_t)parts[n].bytes, POSIX_FADV_WILLNEED);
	if (fd >= 0)
		close(fd);
}

int disk_close(struct disk *disk)
{
	int error = disk->write ? disk_flush(disk) : 0;
	int closed;

	if (disk->write && !error)
		digest_close(disk); /* without it the digests are of older data, and say so */
	closed = disk->driver->close(disk);
	if (disk->parent)
		disk_close(disk->parent);
	disk_free(disk);
	return error ? error : closed;
}

static int create_raw(struct disk_file *file, const char *path, const struct disk_create *what,
		      struct disk *parent, struct disk_error *error)
{
	int result;

	if (parent)
		return disk_refuse(error, REFUSAL_MAKE_CHILD, path, DISK_NOWHERE,
				   "a raw file has no parent");
	result = file_truncate(file, what->size_bytes);
	if (!result)
		result = file_flush(file);
	return result ? disk_refuse_host(error, result, path, "making it") : 0;
}

static int (*const create_format[DISK_FORMATS])(struct disk_file *file, const char *path,
						const struct disk_create *what, struct disk *parent,
						struct disk_error *error) = {
	[DISK_VHDX] = vhdx_create,
	[DISK_RAW] = create_raw,
	[DISK_VHD] = vhd_create,
};

int disk_create(const char *path, const struct disk_create *what, struct disk_error *error)
{
	struct disk *parent = what->opened_parent;
	struct disk_file file;
	int result = 0;

	if (!create_format[what->format])
		return disk_refuse(error, REFUSAL_CANNOT_MAKE, path, DISK_NOWHERE,
				   "%s cannot be made", disk_format_name(what->format));
	if (what->parent && !parent)
		result = disk_open(what->parent,
				   &(struct disk_options){ .format = what->parent_format,
							   .parents = what->parents },
				   &parent, error);
	if (result)
		return result;
	result = disk_file_create(path, what->no_sync, &file);
	if (result) {
		disk_refuse_as(error, REFUSAL_OPEN, result, path, DISK_NOWHERE, "%s",
			       strerror(-result));
	} else {
		file.no_sync = what->no_sync;
		result = create_format[what->format](&file, path, what, parent, error);
		file_close(&file);
		if (result)
			remove(path);
	}
	if (parent && parent != what->opened_parent)
		disk_close(parent);
	return result;
}

/* ---- what it is ---- */

int disk_check(struct disk *disk, disk_fault_report *report, void *context)
{
	return disk->items_only ? 0 : disk->driver->check(disk, report, context);
}

int disk_explain(struct disk *disk, uint64_t offset, int error, struct disk_error *why)
{
	for (struct disk *at = disk; at && offset < at->size_bytes; at = at->parent) {
		struct disk_range range;

		if (at->driver->explain && (error == -EBADMSG || error == -ENODATA) &&
		    at->driver->explain(at, offset, why) == error) {
			char text[64];

			snprintf(text, sizeof(text), " (offset %lu of the disk)", offset);
			disk_error_add(why, text);
			return error;
		}
		if (at->driver->range(at, offset, at->sector_bytes, &range) ||
		    range.kind != DISK_RANGE_ABSENT)
			break;
	}
	return disk_refuse_as(why, REFUSAL_CONTENT, error, disk->path, DISK_NOWHERE,
			      "at offset %lu of the disk: %s", offset, disk_strerror(error));
}

void disk_info(const struct disk *disk, struct disk_info *ret)
{
	const struct disk_file *file = file_overlay_below(&disk->file);
	int fd = file->ops->descriptor ? file->ops->descriptor(file->context, 0, NULL, 0) : -1;
	struct stat st;

	disk->driver->info(disk, ret);
	ret->in_use = disk->in_use;
	ret->file_bytes = (uint64_t)file_size(&disk->file);
	ret->allocated_bytes = fd < 0 || fstat(fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

struct file_reader { disk_file_report *report; void *context; };

static int report_file(void *context, const struct file_stamp *stamp)
{
	const struct file_reader *reader = context;

	return reader->report(reader->context, stamp->file_bytes, stamp->mtime_ns);
}

int disk_each_file(const struct disk *disk, disk_file_report *report, void *context)
{
	struct file_reader reader = { report, context };
	struct file_stamp stamp;
	int result;

	file_stamp_take(&disk->file, &stamp);
	result = report_file(&reader, &stamp);
	if (!result && disk->driver->further_files)
		result = disk->driver->further_files(disk, report_file, &reader);
	return result;
}

bool disk_has_moved(const struct disk *disk)
{
	struct file_stamp now;

	disk_stamp_take(disk, &now);
	return now.file_bytes != disk->opened.file_bytes || now.mtime_ns != disk->opened.mtime_ns ||
	       now.ctime_ns != disk->opened.ctime_ns;
}

/* ---- beside the data ---- */

int disk_read_item(struct disk *disk, struct guid id, uint8_t **ret, size_t *ret_bytes)
{
	return disk->driver->read_item
		       ? disk->driver->read_item(disk, id, ret, ret_bytes)
		       : side_read(disk->side_keeper, disk->path, id, ret, ret_bytes);
}

int disk_write_item(struct disk *disk, struct guid id, enum disk_item_subject subject,
		    const void *value, size_t bytes)
{
	int error;

	if (disk->driver->write_item) {
		error = disk_may_write(disk);
		return error ? error : disk->driver->write_item(disk, id, subject, value, bytes);
	}
	error = file_failed(&disk->file);
	if (!error) {
		bool unsynced;

		error = side_write(disk->side_keeper, disk->path, id, value, bytes, &unsynced);
		if (unsynced)
			file_fail(&disk->file, error);
	}
	return error;
}

int disk_verify(struct disk *disk, disk_range_report *report, void *context)
{
	struct digest_table *table = NULL;
	int error = digest_load(disk, &table);

	for (uint64_t n = 0; !error && n < table->blocks; n++) {
		uint64_t at = n * table->head.block_bytes;
		struct digest now;

		error = digest_block(disk, table, n, &now);
		if (!error && memcmp(&now, &table->of[n], sizeof(now)))
			error = report(context, at,
				       disk->size_bytes - at < table->head.block_bytes
					       ? disk->size_bytes - at
					       : table->head.block_bytes);
	}
	digest_free(table);
	return error;
}

int disk_verify_link(struct disk *child, disk_range_report *report, void *context)
{
	return child->parent ? link_compare(child, child->parent, report, context) : -ENOENT;
}

int disk_digest(struct disk *disk) { return digest_refresh(disk); }

int disk_content_root(struct disk *disk, uint8_t ret[16])
{
	struct digest_table *table;
	uint8_t *bytes;
	size_t count;
	int error = digest_compute(disk, DIGEST_BLAKE2B, &table);

	if (error)
		return error;
	error = digest_encode(table, &bytes, &count);
	if (!error) {
		memcpy(ret, &table->head.root, 16);
		free(bytes);
	}
	digest_free(table);
	return error;
}

uint64_t disk_size_bytes(const struct disk *disk) { return disk->size_bytes; }
enum disk_format disk_format_of(const struct disk *disk) { return disk->format_id; }
uint32_t disk_sector_bytes(const struct disk *disk) { return disk->sector_bytes; }
const char *disk_path(const struct disk *disk) { return disk->path; }
struct disk *disk_parent(const struct disk *disk) { return disk->parent; }
