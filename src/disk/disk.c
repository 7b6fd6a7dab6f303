/*
 * What a disk is: opening and closing, its identity, what is beside its data. Requests: chain.h.
 *
 * A parent is found by its child's locator (search.h), must lie where the options allow, is opened
 * for reading and stays open: what was verified is what is read.
 */
#include "digest.h"
#include "search.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int disk_fail(struct disk_error *error, int code, const char *path, const char *format, ...)
{
	va_list arguments;
	int used = snprintf(error->text, sizeof(error->text), "%s: ", path);

	va_start(arguments, format);
	if (used >= 0 && (size_t)used < sizeof(error->text))
		vsnprintf(error->text + used, sizeof(error->text) - (size_t)used, format,
			  arguments);
	va_end(arguments);
	for (char *c = error->text; *c;
	     c++) /* paths and more come out of files: nothing of them steers a terminal */
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return code;
}

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

struct guid disk_data_id(const struct disk *d)
{
	return d->data_id ? *d->data_id : (struct guid){ 0 };
}

/* What is written down about changes, and what is known of the parent. */
static int begin_digests(struct disk *d, const struct disk_options *o, struct disk_error *error)
{
	int result = 0;

	if (d->parent && !o->accept_changed)
		result = link_load(d, &d->link);
	if (result)
		return disk_fail(error, result, d->path,
				 "what it knows of its parent's content cannot be read");
	if (!d->write)
		return 0;
	d->opened_id = disk_data_id(d);
	d->touched_bytes = digest_block_bytes(d);
	d->touched_blocks = (d->size_bytes + d->touched_bytes - 1) / d->touched_bytes;
	d->touched_from = UINT64_MAX;
	d->touched = calloc(1, d->touched_blocks / 8 + 1);
	if (o->just_made)
		digest_continue(d);
	if (guid_is_zero(d->opened_id)) {
		struct digest_table *t = NULL;

		d->opened_current = !digest_load(d, &t);
		if (d->opened_current)
			digest_free(t);
	}
	return d->touched ? 0 : disk_fail(error, -ENOMEM, d->path, "no memory");
}

static void disk_free(struct disk *d)
{
	chain_detach(d);
	link_free(d->link);
	file_close(&d->file);
	free(d->touched);
	free(d->path);
	free(d);
}

static int (*const open_format[DISK_FORMATS])(struct disk *d, const struct disk_options *o,
					      struct disk_error *error) = {
	[DISK_RAW] = raw_open,     [DISK_VHDX] = vhdx_open, [DISK_VHD] = vhd_open,
	[DISK_QCOW2] = qcow2_open, [DISK_VMDK] = vmdk_open,
};

/* The format's own, and what it looks for meanwhile. */
static int open_within(struct disk *d, const struct disk_options *options, struct disk_error *error)
{
	int result = search_enter(options->search, d->path, error);

	if (result)
		return result;
	result = open_format[options->format](d, options, error);
	search_leave(options->search);
	return result;
}

int disk_open_file(struct disk_file file, const char *path, const struct disk_options *o,
		   struct disk **ret, struct disk_error *error)
{
	struct disk *d = calloc(1, sizeof(*d));
	struct disk_options options = *o;
	int result = -ENOMEM;

	options.without_parents |= o->items_only;
	if (d)
		d->path = strdup(path);
	if (!d || !d->path) {
		file_close(&file);
		free(d);
		return disk_fail(error, -ENOMEM, path, "no memory");
	}
	d->file = file;
	d->write = o->write;
	d->format_id = o->format;
	d->items_only = o->items_only;
	d->side_keeper = o->side_keeper;
	if (!o->search)
		result = search_begin(o, &options.search);
	else
		result = 0;
	if (result)
		disk_fail(error, result, path, "no memory");
	else
		result = open_within(d, &options, error);
	if (!o->search && options.search)
		search_end(options.search);
	if (result) {
		disk_free(d);
		return result;
	}
	result = chain_attach(d);
	if (result)
		disk_fail(error, result, d->path, "no memory for its chain");
	if (!result && d->write && !o->thaw)
		result = disk_check_frozen(d, error);
	if (!result)
		result = begin_digests(d, o, error);
	if (result) {
		d->write = false; /* nothing was written, and nothing is */
		if (o->parent)
			d->parent = NULL; /* still the caller's */
		disk_close(d);
		return result;
	}
	*ret = d;
	return 0;
}

int disk_open(const char *path, const struct disk_options *o, struct disk **ret,
	      struct disk_error *error)
{
	struct disk_file file;
	enum disk_format looks;
	int result;

	if (!open_format[o->format])
		return disk_fail(error, -ENOTSUP, path, "%s cannot be opened",
				 disk_format_name(o->format));
	result = o->write && (o->without_parents || o->items_only)
			 ? -EINVAL
			 : disk_file_open(path, o->write, o->direct, &file);
	if (result == -EBUSY)
		return disk_fail(error, result, path, "in use by somebody else");
	if (result == -EROFS) /* of the host: the file is not frozen */
		return disk_fail(error, -EACCES, path, "%s", strerror(EROFS));
	if (result)
		return disk_fail(error, result, path, "%s", strerror(-result));
	result = disk_open_file(file, path, o, ret, error);
	if (result == -EBADMSG && disk_looks_like(path, &looks) && looks != o->format)
		return disk_fail(error, -EMEDIUMTYPE, path, "not a %s file, but it looks like %s",
				 disk_format_name(o->format), disk_format_name(looks));
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

int disk_close(struct disk *d)
{
	int error = d->write ? disk_flush(d) : 0;
	int closed;

	if (d->write && !error)
		digest_close(d); /* without it the digests are of older data, and say so */
	closed = d->driver->close(d);
	if (d->parent)
		disk_close(d->parent);
	disk_free(d);
	return error ? error : closed;
}

static int create_raw(struct disk_file *f, const char *path, const struct disk_create *what,
		      struct disk *parent, struct disk_error *error)
{
	int result = parent ? -EINVAL : file_truncate(f, what->size_bytes);

	if (!result)
		result = file_flush(f);
	if (!result)
		return 0;
	return disk_fail(error, result, path, "%s",
			 parent ? "a raw file has no parent" : strerror(-result));
}

static int (*const create_format[DISK_FORMATS])(struct disk_file *f, const char *path,
						const struct disk_create *what, struct disk *parent,
						struct disk_error *error) = {
	[DISK_VHDX] = vhdx_create,
	[DISK_RAW] = create_raw,
	[DISK_VHD] = vhd_create,
};

int disk_create(const char *path, const struct disk_create *what, struct disk_error *error)
{
	struct disk *parent = NULL;
	struct disk_file file;
	int result = 0;

	if (!create_format[what->format])
		return disk_fail(error, -ENOTSUP, path, "%s cannot be made",
				 disk_format_name(what->format));
	if (what->parent)
		result = disk_open(what->parent,
				   &(struct disk_options){ .format = what->parent_format }, &parent,
				   error);
	if (result)
		return result;
	result = disk_file_create(path, false, &file);
	if (result) {
		disk_fail(error, result, path, "%s", strerror(-result));
	} else {
		result = create_format[what->format](&file, path, what, parent, error);
		file_close(&file);
		if (result)
			remove(path);
	}
	if (parent)
		disk_close(parent);
	return result;
}

/* ---- what it is ---- */

int disk_check(struct disk *d, void (*report)(void *, const char *), void *context)
{
	return d->items_only ? 0 : d->driver->check(d, report, context);
}

void disk_info(const struct disk *d, struct disk_info *ret)
{
	int fd =
		d->file.ops->descriptor ? d->file.ops->descriptor(d->file.context, 0, NULL, 0) : -1;
	struct stat st;

	d->driver->info(d, ret);
	ret->file_bytes = (uint64_t)file_size(&d->file);
	ret->allocated_bytes = fd < 0 || fstat(fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

/* ---- beside the data ---- */

int disk_read_item(struct disk *d, struct guid id, uint8_t **ret, size_t *ret_bytes)
{
	return d->driver->read_item ? d->driver->read_item(d, id, ret, ret_bytes)
				    : side_read(d->side_keeper, d->path, id, ret, ret_bytes);
}

int disk_write_item(struct disk *d, struct guid id, enum disk_item_subject subject,
		    const void *value, size_t bytes)
{
	int error;

	if (d->driver->write_item) {
		error = disk_may_write(d);
		return error ? error : d->driver->write_item(d, id, subject, value, bytes);
	}
	error = file_failed(&d->file);
	if (!error) {
		bool unsynced;

		error = side_write(d->side_keeper, d->path, id, value, bytes, &unsynced);
		if (unsynced)
			file_fail(&d->file, error);
	}
	return error;
}

int disk_verify(struct disk *d, disk_range_report *report, void *context)
{
	struct digest_table *t = NULL;
	int error = digest_load(d, &t);

	for (uint64_t n = 0; !error && n < t->blocks; n++) {
		uint64_t at = n * t->head.block_bytes;
		struct digest now;

		error = digest_block(d, t, n, &now);
		if (!error && memcmp(&now, &t->of[n], sizeof(now)))
			error = report(context, at,
				       d->size_bytes - at < t->head.block_bytes
					       ? d->size_bytes - at
					       : t->head.block_bytes);
	}
	digest_free(t);
	return error;
}

int disk_verify_link(struct disk *child, disk_range_report *report, void *context)
{
	return child->parent ? link_compare(child, child->parent, report, context) : -ENOENT;
}

int disk_digest(struct disk *d) { return digest_refresh(d); }

int disk_content_root(struct disk *d, uint8_t ret[16])
{
	struct digest_table *t;
	uint8_t *bytes;
	size_t count;
	int error = digest_compute(d, DIGEST_BLAKE2B, &t);

	if (error)
		return error;
	error = digest_encode(t, &bytes, &count);
	if (!error) {
		memcpy(ret, &t->head.root, 16);
		free(bytes);
	}
	digest_free(t);
	return error;
}

uint64_t disk_size_bytes(const struct disk *d) { return d->size_bytes; }
enum disk_format disk_format_of(const struct disk *d) { return d->format_id; }
uint32_t disk_sector_bytes(const struct disk *d) { return d->sector_bytes; }
const char *disk_path(const struct disk *d) { return d->path; }
struct disk *disk_parent(const struct disk *d) { return d->parent; }
