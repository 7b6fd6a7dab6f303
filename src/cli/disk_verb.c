/* umbra disk: the verbs on disk files. Sizes as 512M; formats are said, never guessed: vhdx unless
 * something else is said. */
#include "disk/disk.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "disk_cli.h"
#include "fork_snapshot.h"

/* ---- verbs ---- */

int disk_cli_may_fork(const struct arguments *arguments, const char *parent, const char *format)
{
	struct disk *disk;
	int code = disk_cli_open(arguments, parent, format, ACTION_FORK, &disk);

	return code ? code : disk_access_close(disk, 0);
}

/* Whether it opens as it was made, with these places of parents; and its history's first line. */
static int make_file(const struct arguments *arguments, const char *path,
		     const struct disk_create *what)
{
	struct disk_error why;
	const char *unfinished;
	struct disk *disk;
	int code = making_begin(path, &unfinished);
	int error;

	if (code)
		return code;
	error = disk_create(unfinished, what, &why);
	if (!error && what->parent) {
		error = disk_cli_open_unasked(arguments, unfinished, what->format,
					      (struct disk_options){ 0 }, &disk, &why);
		if (!error)
			disk_close(disk);
	}
	if (error)
		code = making_refused(path, error, &why);
	if (!code && what->format == DISK_VHDX) {
		json_t *from = what->parent ? json_pack("{s:s%}", "from", what->parent,
							strlen(what->parent))
					    : NULL;

		error = disk_cli_note_closed(arguments, unfinished, what->format, "created", from);
		code = error ? disk_access_failed(path, error) : 0;
	}
	return making_end(path, code);
}

/* What a parent is when nothing is said: of a VHD child it can only be VHD. */
static const char *parent_format_of(const struct arguments *arguments)
{
	if (arguments->parent_format)
		return arguments->parent_format;
	return arguments->format && !strcmp(arguments->format, "vhd") ? "vhd" : NULL;
}

int verb_disk_create(struct arguments *arguments)
{
	struct disk_create what = { .size_bytes = arguments->size,
				    .block_bytes = (uint32_t)arguments->block,
				    .logical_sector_bytes = (uint32_t)arguments->sector,
				    .fixed = arguments->fixed,
				    .parent = arguments->parent };
	int error = disk_parse_format(arguments->format, &what.format);

	if (!error)
		error = disk_parse_format(parent_format_of(arguments), &what.parent_format);
	if (error)
		return error;
	if (arguments->has_size == (arguments->parent != NULL))
		return complain(EXIT_USAGE, "either a size or a parent", arguments->file,
				"say --size S or --parent FILE");
	if (arguments->block > UINT32_MAX || arguments->sector > UINT32_MAX)
		return complain(EXIT_USAGE, "a block or sector size that no format has",
				arguments->file, "see umbra disk --help");
	error = what.parent ? disk_cli_may_fork(arguments, what.parent, parent_format_of(arguments))
			    : 0;
	return error ? error : make_file(arguments, arguments->file, &what);
}

static json_t *id_json(struct guid id)
{
	char text[GUID_TEXT_BYTES];

	guid_print(id, text);
	return json_string(text);
}

static const char *disk_type_name(const struct disk_info *info)
{
	if (info->has_parent)
		return "differencing";
	return info->fixed ? "fixed" : "dynamic";
}

static json_t *info_json(const struct disk *disk)
{
	struct disk_info info;
	json_t *json;

	disk_info(disk, &info);
	json = json_pack("{s:s%, s:s, s:I, s:I, s:I, s:i, s:i}", "file", disk_path(disk),
			 strlen(disk_path(disk)), "format", disk_format_name(info.format), "size",
			 (json_int_t)info.size_bytes, "file-size", (json_int_t)info.file_bytes,
			 "allocated", (json_int_t)info.allocated_bytes, "logical-sector-size",
			 (int)info.logical_sector_bytes, "physical-sector-size",
			 (int)info.physical_sector_bytes);
	if (json && info.in_use)
		json_object_set_new(json, "in-use", json_string("yes: as it was last flushed"));
	if (json && info.has_log)
		json_object_set_new(json, "log", json_string("not replayed in the file"));
	if (!json || (info.format != DISK_VHDX && info.format != DISK_VHD))
		return json;
	json_object_set_new(json, "type", json_string(disk_type_name(&info)));
	json_object_set_new(json, "block-size", json_integer(info.block_bytes));
	json_object_set_new(json, "blocks", json_integer((json_int_t)info.blocks));
	json_object_set_new(json, "blocks-present", json_integer((json_int_t)info.blocks_present));
	json_object_set_new(json, "file-id", id_json(info.file_id));
	json_object_set_new(json, "data-id", id_json(info.data_id));
	json_object_set_new(json, "disk-id", id_json(info.disk_id));
	if (info.has_parent)
		json_object_set_new(json, "parent-data-id", id_json(info.parent_data_id));
	return json;
}

/* A value may be a path that a file told us. */
static void print_line(const char *key, const char *value)
{
	printf("%-22s ", key);
	print_safely(value);
	putchar('\n');
}

/* The same keys for people, one a line. */
static void print_plain(const json_t *json)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)json, key, value)
	{
		if (json_is_integer(value))
			printf("%-22s %lld\n", key, (long long)json_integer_value(value));
		else
			print_line(key, json_string_value(value));
	}
}

static int verb_info(struct arguments *arguments)
{
	struct disk *disk;
	int code = disk_cli_open_with(arguments, arguments->file, arguments->format,
				      IMAGE_ACTION(ACTION_INSPECT),
				      (struct disk_options){ .beside_writer = true }, &disk);
	json_t *all;

	if (code)
		return code;
	all = json_array();
	for (const struct disk *at = disk; at; at = arguments->chain ? disk_parent(at) : NULL)
		json_array_append_new(all, info_json(at));
	if (arguments->json)
		print_json(json_incref(arguments->chain ? all : json_array_get(all, 0)));
	else
		for (size_t n = 0; n < json_array_size(all); n++) {
			printf("%s", n ? "\n" : "");
			print_plain(json_array_get(all, n));
		}
	json_decref(all);
	return disk_access_close(disk, 0);
}

static int verb_map(struct arguments *arguments)
{
	static const char *const kinds[] = { "parent", "zero", "data" };
	struct disk *disk;
	int code =
		disk_cli_open(arguments, arguments->file, arguments->format, ACTION_INSPECT, &disk);
	int error = 0;
	json_t *all = json_array();
	struct disk_range range = { .bytes = 0 };

	for (uint64_t at = 0; !code && !error && at < disk_size_bytes(disk); at += range.bytes) {
		error = disk_range(disk, at, disk_size_bytes(disk) - at, &range);
		if (!error && arguments->json)
			json_array_append_new(
				all, json_pack("{s:I, s:I, s:s}", "start", (json_int_t)at, "length",
					       (json_int_t)range.bytes, "kind", kinds[range.kind]));
		else if (!error)
			printf("%16lu %16lu %s\n", at, range.bytes, kinds[range.kind]);
	}
	if (!code && arguments->json)
		print_json(json_incref(all));
	json_decref(all);
	if (code)
		return code;
	return disk_access_close(disk, error ? disk_access_failed(arguments->file, error) : 0);
}

static int whole_sectors(const struct disk *disk, uint64_t bytes, const char *path)
{
	if (!(bytes & (disk_sector_bytes(disk) - 1)))
		return 0;
	return complain(EXIT_USAGE, "an offset, length or size that is no whole number of sectors",
			path,
			disk_sector_bytes(disk) == 512 ? "say a multiple of 512"
						       : "say a multiple of 4096");
}

/* As much as can be read from an offset on; of what cannot the first sector in *ret_error. */
static size_t read_some(struct disk *disk, uint64_t at, uint8_t *buffer, size_t bytes,
			int *ret_error)
{
	uint32_t sector = disk_sector_bytes(disk);

	*ret_error = disk_read(disk, at, buffer, bytes);
	while (*ret_error && bytes > sector) {
		bytes = (bytes / sector + 1) / 2 * sector;
		*ret_error = disk_read(disk, at, buffer, bytes);
	}
	return bytes;
}

static int failed_at(struct disk *disk, uint64_t offset, int error)
{
	struct disk_error why;

	return disk_access_refused(disk_explain(disk, offset, error, &why), &why);
}

static int copy_out(struct disk *disk, const struct arguments *arguments, uint8_t *buffer)
{
	for (uint64_t done = 0; done < arguments->length;) {
		size_t n = arguments->length - done < COPY_BYTES ? arguments->length - done
								 : COPY_BYTES;
		int error;

		n = read_some(disk, arguments->offset + done, buffer, n, &error);
		if (error)
			return failed_at(disk, arguments->offset + done, error);
		if (fwrite(buffer, 1, n, stdout) != n)
			return complain(EXIT_UNUSABLE, strerror(errno), "standard output",
					"make room");
		done += n;
	}
	return fflush(stdout)
		       ? complain(EXIT_UNUSABLE, strerror(errno), "standard output", "make room")
		       : 0;
}

static int verb_read(struct arguments *arguments)
{
	struct disk *disk;
	int code =
		disk_cli_open(arguments, arguments->file, arguments->format, ACTION_EXPORT, &disk);
	uint8_t *buffer = malloc(COPY_BYTES);

	if (code) {
		free(buffer);
		return code;
	}
	code = whole_sectors(disk, arguments->offset | arguments->length, arguments->file);
	if (!code && !arguments->has_length)
		arguments->length = arguments->offset < disk_size_bytes(disk)
					    ? disk_size_bytes(disk) - arguments->offset
					    : 0;
	code = disk_access_close(disk, code ? code : copy_out(disk, arguments, buffer));
	free(buffer);
	return code;
}

static int copy_in(struct disk *disk, const struct arguments *arguments, FILE *from,
		   uint8_t *buffer)
{
	uint64_t at = arguments->offset;
	size_t n;

	while ((n = fread(buffer, 1, COPY_BYTES, from))) {
		size_t whole = (n + disk_sector_bytes(disk) - 1) / disk_sector_bytes(disk) *
			       disk_sector_bytes(disk);
		int error = 0;

		if (whole != n) /* the rest of the last sector stays as it is */
			error = disk_read(disk, at + whole - disk_sector_bytes(disk),
					  buffer + COPY_BYTES, disk_sector_bytes(disk));
		if (whole != n && !error)
			memcpy(buffer + n, buffer + COPY_BYTES + n % disk_sector_bytes(disk),
			       whole - n);
		if (!error)
			error = disk_write(disk, at, buffer, whole);
		if (error)
			return disk_access_failed(arguments->file, error);
		at += n;
	}
	if (!ferror(from))
		return 0;
	return complain(EXIT_UNUSABLE, strerror(errno),
			arguments->from ? arguments->from : "standard input",
			"name a file that can be read");
}

static int verb_write(struct arguments *arguments)
{
	FILE *from = arguments->from ? fopen(arguments->from, "rb") : stdin;
	uint8_t *buffer = malloc(COPY_BYTES + SECTOR_MAX_BYTES);
	struct disk *disk;
	int code;

	if (!from) {
		free(buffer);
		return complain(EXIT_UNUSABLE, strerror(errno), arguments->from,
				"name a file that can be read");
	}
	code = disk_cli_open(arguments, arguments->file, arguments->format, ACTION_WRITE, &disk);
	if (!code) {
		code = whole_sectors(disk, arguments->offset, arguments->file);
		code = disk_access_close(disk,
					 code ? code : copy_in(disk, arguments, from, buffer));
	}
	if (arguments->from)
		fclose(from);
	free(buffer);
	return code;
}

static int step(void *context, uint64_t done, uint64_t all)
{
	(void)all;
	progress_show(context, done);
	return 0;
}

static int copy_disk(struct disk *from, struct disk *to, struct disk_error *why)
{
	struct progress progress;
	int error;

	progress_begin(&progress, disk_size_bytes(from));
	error = disk_copy(from, to, &(struct disk_job){ .step = step, .context = &progress }, why);
	progress_end(&progress);
	return error;
}

/* Into a file that is there, and empty. */
static int convert_into(const struct arguments *arguments, struct disk *from, const char *path)
{
	struct disk_error why;
	struct disk *to;
	/* past the cache: it is written once, and has to reach the host's disk anyway */
	int code = disk_cli_open_with(arguments, path, arguments->to, IMAGE_ACTION(ACTION_WRITE),
				      (struct disk_options){ .write = true,
							     .direct = !arguments->no_sync,
							     .no_sync = arguments->no_sync },
				      &to);
	int error;

	if (code)
		return code;
	error = copy_disk(from, to, &why);
	if (error)
		code = making_refused(arguments->other, error, &why);
	if (!code) {
		error = image_carry(from, to);
		code = error ? disk_access_failed(arguments->other, error) : 0;
	}
	if (!code)
		disk_access_note(
			to, "converted",
			json_pack("{s:s%}", "from", arguments->file, strlen(arguments->file)));
	return disk_access_close(to, code);
}

static int convert_anew(const struct arguments *arguments, struct disk *from, const char *path,
			const struct disk_create *what)
{
	struct disk_error why;
	int error = disk_create(path, what, &why);

	return error ? making_refused(arguments->other, error, &why)
		     : convert_into(arguments, from, path);
}

/* What is said of the disk goes with it. */
static int carry_along(const struct arguments *arguments, struct disk *from, const char *path)
{
	struct disk *to;
	int code = disk_cli_open_with(arguments, path, arguments->to, IMAGE_ACTION(ACTION_INSPECT),
				      (struct disk_options){ .write = false }, &to);
	int error;

	if (code)
		return code;
	error = image_carry(from, to);
	if (error)
		code = disk_access_failed(arguments->other, error);
	else
		disk_access_note(
			to, "converted",
			json_pack("{s:s%}", "from", arguments->file, strlen(arguments->file)));
	return disk_access_close(to, code);
}

/* Of a format whose files are written once. */
static int convert_once(const struct arguments *arguments, struct disk *from, const char *path,
			const struct disk_create *given)
{
	struct disk_create what = *given;
	struct disk_search search;
	struct disk_error why;
	struct progress progress;
	int error;

	disk_cli_search(arguments, &search);
	what.parents = search.parents[0] ? search.parents : NULL;
	what.name = arguments->other;
	progress_begin(&progress, disk_size_bytes(from));
	error = disk_convert(from, path, &what,
			     &(struct disk_job){ .step = step, .context = &progress }, &why);
	progress_end(&progress);
	return error ? making_refused(arguments->other, error, &why)
		     : carry_along(arguments, from, path);
}

static int choose_packing(const struct arguments *arguments, struct disk_create *what)
{
	static const char *const names[] = { [DISK_PACKED_ZLIB] = "zlib",
					     [DISK_PACKED_ZSTD] = "zstd" };

	if (!arguments->compress)
		return 0;
	if (what->format != DISK_QCOW2)
		return complain(EXIT_USAGE, "only qcow2 is compressed when that is asked for",
				"--compress", "say --to qcow2; a vmdk always is, by zlib");
	for (size_t n = DISK_PACKED_ZLIB; n < sizeof(names) / sizeof(names[0]); n++)
		if (!strcmp(arguments->compress, names[n])) {
			what->packing = (enum disk_packing)n;
			return 0;
		}
	return complain(EXIT_USAGE, "not a compression", arguments->compress, "say zlib or zstd");
}

/* A new child of a disk that is there: what both have the same is not written. */
static int choose_parent(const struct arguments *arguments, struct disk_create *what)
{
	int code;

	if (!arguments->parent)
		return 0;
	if (what->format != DISK_QCOW2)
		return complain(EXIT_USAGE, "only a qcow2 file is written with a parent",
				arguments->parent,
				"say --to qcow2, or make a child with umbra disk create");
	what->parent = arguments->parent;
	code = disk_parse_format(arguments->parent_format, &what->parent_format);
	return code ? code
		    : disk_cli_may_fork(arguments, arguments->parent, arguments->parent_format);
}

/* What Azure takes: a fixed VHD whose disk is a whole number of MiB of 512-byte sectors. */
static int choose_azure(struct arguments *arguments)
{
	if (arguments->block || (arguments->to && strcmp(arguments->to, "vhd")))
		return complain(EXIT_USAGE, "--azure is a fixed vhd", "convert",
				"leave --to and --block-size out");
	arguments->to = "vhd";
	arguments->fixed = true;
	return 0;
}

static int check_azure(const struct arguments *arguments, const struct disk *from)
{
	enum { LARGEST_GIB = 4095, SMALL_SECTOR_BYTES = 512 };
	uint64_t bytes = disk_size_bytes(from);

	if (bytes & (COPY_BYTES - 1))
		return complain(EXIT_UNUSABLE, "is no whole number of MiB, as Azure asks",
				arguments->file, "make it larger with umbra disk resize");
	if (bytes > (uint64_t)LARGEST_GIB << 30 || disk_sector_bytes(from) != SMALL_SECTOR_BYTES)
		return complain(EXIT_UNUSABLE, "is larger than 4095 GiB, or has larger sectors",
				arguments->file, "Azure takes no such disk");
	return 0;
}

/* What is on a device is lost, so it has to be said. */
static int check_device(const struct arguments *arguments, const struct disk_create *what)
{
	struct stat st;

	if (what->format != DISK_RAW)
		return complain(EXIT_USAGE, "a device holds a disk as it is", arguments->other,
				"say --to raw");
	if (stat(arguments->other, &st))
		return disk_access_failed(arguments->other, -errno);
	return S_ISBLK(st.st_mode) ? 0
				   : complain(EXIT_USAGE, "is no block device", arguments->other,
					      "leave --device out to make a file");
}

/* Where it is cut off, the device begins with what it had, or with zeros, or with the disk. */
static int convert_onto_device(const struct arguments *arguments, struct disk *from)
{
	struct disk_error why;
	struct disk *to;
	int code = disk_cli_open_with(arguments, arguments->other, "raw",
				      IMAGE_ACTION(ACTION_WRITE),
				      (struct disk_options){ .write = true, .direct = true }, &to);
	int error;

	if (code)
		return code;
	if (disk_size_bytes(to) < disk_size_bytes(from))
		return disk_access_close(to, complain(EXIT_UNUSABLE, "is smaller than the disk",
						      arguments->other, "use a larger device"));
	error = disk_zero(to, 0, disk_size_bytes(from));
	if (error)
		return disk_access_close(to, disk_access_failed(arguments->other, error));
	error = copy_disk(from, to, &why);
	return disk_access_close(to, error ? disk_access_refused(error, &why) : 0);
}

int verb_disk_convert(struct arguments *arguments)
{
	struct disk_create what = { .fixed = arguments->fixed,
				    .block_bytes = (uint32_t)arguments->block };
	const char *unfinished;
	struct disk *from;
	int code = arguments->other ? 0
				    : complain(EXIT_USAGE, "no target given", arguments->file,
					       "see umbra disk --help");

	if (!code && arguments->azure)
		code = choose_azure(arguments);
	if (!code)
		code = disk_parse_format(arguments->to, &what.format);
	if (!code)
		code = choose_packing(arguments, &what);
	if (!code)
		code = choose_parent(arguments, &what);
	if (!code && arguments->device)
		code = check_device(arguments, &what);
	if (!code && disk_is_pipe(arguments->file)) {
		code = disk_pipe_in(arguments->other, arguments->piped);
		arguments->file = arguments->piped;
	}
	if (!code)
		code = disk_cli_open(arguments, arguments->file, arguments->from, ACTION_EXPORT,
				     &from);
	if (code)
		return code;
	code = arguments->azure ? check_azure(arguments, from) : 0;
	if (code)
		return disk_access_close(from, code);
	what.fixed = arguments->fixed;
	what.no_sync = arguments->no_sync;
	what.size_bytes = disk_size_bytes(from);
	what.logical_sector_bytes = disk_sector_bytes(from);
	if (disk_is_pipe(arguments->other))
		return disk_access_close(from, disk_pipe_out(from, &what));
	if (arguments->device)
		return disk_access_close(from, convert_onto_device(arguments, from));
	code = making_begin(arguments->other, &unfinished);
	if (code)
		return disk_access_close(from, code);
	code = disk_is_written_once(what.format)
		       ? convert_once(arguments, from, unfinished, &what)
		       : convert_anew(arguments, from, unfinished, &what);
	code = arguments->no_sync ? making_end_unsynced(arguments->other, code)
				  : making_end(arguments->other, code);
	return disk_access_close(from, code);
}

static int compare(struct disk *one, struct disk *other, uint64_t *ret_at)
{
	uint8_t *buffer = malloc(2 * (size_t)COPY_BYTES);
	uint64_t all = disk_size_bytes(one);
	struct progress progress;
	int error = buffer ? 0 : -ENOMEM;
	int differ = 0;

	progress_begin(&progress, all);
	for (uint64_t at = 0, n; at < all && !error && !differ; at += n) {
		n = all - at < COPY_BYTES ? all - at : COPY_BYTES;
		error = disk_read(one, at, buffer, n);
		if (!error)
			error = disk_read(other, at, buffer + COPY_BYTES, n);
		differ = !error && memcmp(buffer, buffer + COPY_BYTES, n);
		for (*ret_at = at;
		     differ && buffer[*ret_at - at] == buffer[*ret_at - at + COPY_BYTES];)
			++*ret_at;
		progress_show(&progress, at + n);
	}
	free(buffer);
	return error ? error : differ;
}

/* differ_at NULL: the contents are the same. */
static void say_compared(const struct arguments *arguments, const struct disk *one,
			 const struct disk *other, const uint64_t *differ_at)
{
	uint64_t size = disk_size_bytes(one);
	uint64_t other_size = disk_size_bytes(other);
	json_t *json = json_pack("{s:b, s:I, s:I}", "same", !differ_at, "size", (json_int_t)size,
				 "other-size", (json_int_t)other_size);

	if (differ_at && size == other_size)
		json_object_set_new(json, "differs-from", json_integer((json_int_t)*differ_at));
	if (arguments->json)
		print_json(json_incref(json));
	else if (size != other_size)
		printf("sizes differ: %lu and %lu\n", size, other_size);
	else if (differ_at)
		printf("contents differ from byte %lu on\n", *differ_at);
	json_decref(json);
}

static int verb_compare(struct arguments *arguments)
{
	struct disk *one, *other;
	uint64_t at = 0;
	bool same_size;
	int result;
	int code = arguments->other ? 0
				    : complain(EXIT_USAGE, "no other file given", arguments->file,
					       "see umbra disk --help");

	if (!code)
		code = disk_cli_open(arguments, arguments->file, arguments->format, ACTION_READ,
				     &one);
	if (code)
		return code;
	code = disk_cli_open(arguments, arguments->other,
			     arguments->other_format ? arguments->other_format : arguments->format,
			     ACTION_READ, &other);
	if (code)
		return disk_access_close(one, code);
	same_size = disk_size_bytes(one) == disk_size_bytes(other);
	result = same_size ? compare(one, other, &at) : 1;
	code = result < 0 ? disk_access_failed(arguments->file, result) : result;
	if (result >= 0)
		say_compared(arguments, one, other, result ? &at : NULL);
	return disk_access_close(one, disk_access_close(other, code));
}

static int verb_resize(struct arguments *arguments)
{
	struct disk *disk;
	int code = arguments->has_size
			   ? 0
			   : complain(EXIT_USAGE, "no size given", arguments->file, "say --size S");
	int error;

	if (arguments->machine)
		return verb_disk_resize_running(arguments);
	if (!code)
		code = disk_cli_open(arguments, arguments->file, arguments->format, ACTION_WRITE,
				     &disk);
	if (code)
		return code;
	code = whole_sectors(disk, arguments->size, arguments->file);
	if (code)
		return disk_access_close(disk, code);
	error = disk_resize(disk, arguments->size);
	if (error == -EBUSY)
		code = complain(EXIT_UNUSABLE, "holds data beyond that size", arguments->file,
				"name a larger size");
	else if (error)
		code = disk_access_failed(arguments->file, error);
	else
		disk_access_note(disk, "resized",
				 json_pack("{s:I}", "size", (json_int_t)arguments->size));
	return disk_access_close(disk, code);
}

static int verb_snapshot(struct arguments *arguments)
{
	struct disk_create what = { .format = DISK_VHDX, .parent = arguments->file };
	int error = disk_parse_format(arguments->format, &what.parent_format);

	if (error)
		return error;
	if (arguments->machine && arguments->file)
		return complain(EXIT_USAGE, "of a machine all its disks are kept", arguments->file,
				"leave it out");
	if (arguments->machine)
		return fork_snapshot(arguments->machine, NULL);
	if (!arguments->other)
		return complain(EXIT_USAGE, "no child given", arguments->file,
				"say umbra disk snapshot FILE CHILD");
	if (what.parent_format ==
	    DISK_VHD) /* the child is what its parent is, where that has children */
		what.format = DISK_VHD;
	error = disk_cli_may_fork(arguments, arguments->file, arguments->format);
	return error ? error : make_file(arguments, arguments->other, &what);
}

/* --socket: FILE is the new child of a snapshot, and nothing for the others. */
static int ask_server(const struct arguments *arguments, const char *what)
{
	bool known = (!strcmp(what, "commit") || !strcmp(what, "stream")) && !arguments->file;

	if (!strcmp(what, "snapshot"))
		known = arguments->file && !arguments->other;
	else if (!strcmp(what, "resize"))
		known = arguments->has_size && !arguments->file;

	return known ? disk_ask_server(arguments, what, arguments->file)
		     : complain(EXIT_USAGE, "not of a disk that is being served", what,
				"see umbra disk --help");
}

int verb_disk(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*verb)(struct arguments *arguments);
	} verbs[] = {
		{ "create", verb_disk_create },
		{ "info", verb_info },
		{ "check", verb_disk_check },
		{ "map", verb_map },
		{ "read", verb_read },
		{ "write", verb_write },
		{ "convert", verb_disk_convert },
		{ "compare", verb_compare },
		{ "resize", verb_resize },
		{ "snapshot", verb_snapshot },
		{ "commit", verb_disk_commit },
		{ "stream", verb_disk_stream },
		{ "rebase", verb_disk_rebase },
		{ "compact", verb_disk_compact },
		{ "shrink", verb_disk_shrink },
		{ "export-changes", verb_disk_export_changes },
		{ "import", verb_disk_import },
		{ "export", verb_disk_export },
		{ "repair-link", verb_disk_repair_link },
		{ "freeze", verb_disk_freeze },
		{ "replay", verb_disk_replay },
		{ "rescue", verb_disk_rescue },
		{ "watch", verb_disk_watch },
		{ "layers", verb_disk_layers },
		{ "serve", verb_disk_serve },
		{ "attach", verb_disk_attach },
		{ "detach", verb_disk_detach },
	};
	struct arguments arguments = { 0 };
	int code;

	if (argc >= 2 && !strcmp(argv[1], "--help")) {
		fputs(disk_help, stdout);
		return 0;
	}
	for (size_t n = 0; argc >= 2 && n < sizeof(verbs) / sizeof(verbs[0]); n++)
		if (!strcmp(argv[1], verbs[n].name)) {
			code = disk_parse_arguments(argc - 1, argv + 1, &arguments);
			if (!code && arguments.machine && strcmp(argv[1], "snapshot") &&
			    strcmp(argv[1], "resize"))
				code = complain(EXIT_USAGE, "not of a running machine", argv[1],
						"leave --machine out");
			if (!code && arguments.socket && strcmp(argv[1], "serve"))
				return ask_server(&arguments, argv[1]);
			return code ? code : verbs[n].verb(&arguments);
		}
	return complain(EXIT_USAGE, "no such verb", argc >= 2 ? argv[1] : "disk",
			"see umbra disk --help");
}
