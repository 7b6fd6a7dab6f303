/*
 * Looking into an image. File systems are hostile, and the library that reads them is large: it
 * runs in a process of its own that has the disk's open descriptors and may do nothing but read
 * them, allocate memory, and write its findings into a pipe. It has limits on memory and time; what
 * it says is parsed like anything else that is hostile.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lvm.h"
#include "sandbox.h"
#include "scan_internal.h"
#include "image/sqlite.h"

enum { RESULT_BYTES = 512 << 20, UNREAD_MAX = 32, UNREAD_BYTES = 512 };

/* ---- in the process that reads ---- */

json_t *scan_text(const char *text)
{
	size_t bytes = strlen(text);
	size_t used = 0;
	json_t *json = json_stringn(text, bytes);
	char *copy = json ? NULL : malloc(4 * bytes + 1);

	for (size_t n = 0; copy && n < bytes; n++) {
		if ((signed char)text[n] >= 0)
			copy[used++] = text[n];
		else
			used += (size_t)sprintf(copy + used, "\\x%02x", (uint8_t)text[n]);
	}
	if (copy)
		json = json_stringn(copy, used);
	free(copy);
	return json;
}

void scan_unread(const struct scan_volume *volume, bool damaged, const char *format, ...)
{
	char text[UNREAD_BYTES];
	va_list arguments;

	if (json_array_size(volume->unread) >= UNREAD_MAX)
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	json_array_append_new(volume->unread,
			      json_pack("{s:I, s:o, s:b}", "start", (json_int_t)volume->offset,
					"says", scan_text(text), "damaged", damaged));
}

/* A system may be on it, and is not looked for there. */
static bool may_hold_system(const char *kind)
{
	static const char *const kinds[] = { "luks", "ntfs" };

	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
		if (!strcmp(kinds[n], kind))
			return true;
	return false;
}

static void look_at(const struct scan_volume *volume, json_t *about);

/* Volumes of LVM, into about (what is said of the partition). */
static void look_at_group(const struct scan_volume *volume, json_t *about)
{
	json_t *all = json_array();
	struct lvm lvm = { 0 };
	int error = volume->segment ? -ENOTSUP : lvm_read(volume, &lvm);

	if (error)
		scan_unread(volume, error == -EBADMSG, "lvm2 cannot be looked into (%d)", -error);
	for (unsigned n = 0; n < lvm.volumes && !error; n++) {
		const struct lvm_volume *lv = &lvm.volume[n];
		struct scan_volume inner = *volume;
		json_t *json = json_pack("{s:o, s:I}", "name", scan_text(lv->name), "bytes",
					 (json_int_t)lv->bytes);

		inner.segment = lv->segment;
		inner.segments = lv->segments;
		inner.offset = lv->segments ? lv->segment[0].at : volume->offset;
		inner.bytes = lv->bytes;
		if (lv->refused[0])
			scan_unread(volume, false, "lvm2 volume %s: %s", lv->name, lv->refused);
		else
			look_at(&inner, json);
		json_array_append_new(all, json);
	}
	lvm_release(&lvm);
	json_object_set_new(about, "volumes", all);
}

static bool look_at_files(struct scan_volume *volume, const char *kind)
{
	static const struct {
		const char *kind;
		bool (*scan)(struct scan_volume *volume);
	} readers[] = { { "ext", scan_ext }, { "xfs", scan_xfs }, { "btrfs", scan_btrfs } };

	for (size_t n = 0; n < sizeof(readers) / sizeof(readers[0]); n++) {
		if (strcmp(readers[n].kind, kind))
			continue;
		readers[n].scan(volume);
		return true;
	}
	return false;
}

/* about: of the partition, or the volume in it. */
static void look_at(const struct scan_volume *volume, json_t *about)
{
	struct scan_volume own = *volume;
	char label[64];
	const char *kind = scan_recognise(volume, label);

	if (!kind)
		return;
	json_object_set_new(about, "file-system", json_string(kind));
	if (label[0])
		json_object_set_new(about, "label", json_string(label));
	if (!strcmp(kind, "lvm2"))
		look_at_group(volume, about);
	else if (!look_at_files(&own, kind) && may_hold_system(kind))
		scan_unread(volume, false, "%s is not looked into", kind);
}

static json_t *find_out(struct disk *disk, const struct scan_options *options, const json_t *before)
{
	json_t *unread = json_array();
	json_t *about = json_object();
	json_t *content = json_pack("{s:[], s:{}, s:[]}", "packages", "files", "kernels");
	json_t *partitions = scan_partitions(disk);
	json_t *json;
	size_t n;

	json_array_foreach(partitions, n, json)
	{
		const struct scan_volume volume = {
			.disk = disk,
			.offset = (uint64_t)json_integer_value(json_object_get(json, "start")),
			.options = options,
			.about = about,
			.content = content,
			.bytes = (uint64_t)json_integer_value(json_object_get(json, "bytes")),
			.before = before,
			.unread = unread,
		};

		look_at(&volume, json);
	}
	json_object_set_new(about, "partitions", partitions);
	return json_pack("{s:o, s:o, s:o}", "about", about, "content", content, "unread", unread);
}

struct work {
	struct disk *disk;
	const struct scan_options *options;
	const json_t *before;
	json_t *found;
};

static int work(void *context, int pipe)
{
	struct work *job = context;
	json_t *all = find_out(job->disk, job->options, job->before);
	char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;

	return text ? sandbox_write(pipe, text, strlen(text)) : -ENOMEM;
}

/* ---- in the one that asked ---- */

static int take(void *context, int pipe)
{
	return sandbox_take_json(pipe, RESULT_BYTES, &((struct work *)context)->found);
}

static const char *current_id(struct disk *disk, char text[GUID_TEXT_BYTES])
{
	struct disk_info info;

	disk_info(disk, &info);
	guid_print(info.data_id, text);
	return guid_is_zero(info.data_id) ? NULL : text;
}

static void counts(json_t *about, const json_t *content, const json_t *files)
{
	json_object_set_new(
		about, "packages",
		json_integer((json_int_t)json_array_size(json_object_get(content, "packages"))));
	json_object_set_new(about, "files", json_integer((json_int_t)json_object_size(files)));
	json_object_set(about, "kernels", json_object_get(content, "kernels"));
}

static int save(struct disk *disk, json_t *about, json_t *found, json_t *scanned)
{
	json_t *content = json_object_get(found, "content");
	json_t *files = json_incref(json_object_get(content, "files"));
	int error;

	json_object_del(content, "files");
	json_object_del(about, "os");
	json_object_update(about, json_object_get(found, "about"));
	counts(about, content, files);
	if (json_array_size(json_object_get(found, "unread")))
		json_object_set(scanned, "unread", json_object_get(found, "unread"));
	json_object_set_new(about, "scanned", scanned);
	error = image_save_content(disk, content);
	if (!error)
		error = image_save_files(disk, files);
	if (!error)
		error = image_save_about(disk, about);
	json_decref(files);
	return error;
}

/* What scanned.how says. */
static const char *scan_how(const struct scan_options *options)
{
	if (options->digests)
		return "digests";
	return options->files ? "files" : "packages";
}

int image_scan(struct disk *disk, const struct scan_options *options, bool *ret_unchanged)
{
	json_t *about;
	json_t *before = NULL;
	struct work job = { .disk = disk, .options = options };
	char id[GUID_TEXT_BYTES], now[32];
	const char *is = current_id(disk, id);
	const char *was;
	const char *how = scan_how(options);
	int error = image_load_about(disk, &about);

	if (error)
		return error;
	was = json_string_value(image_get(about, "scanned.data-id"));
	*ret_unchanged = was && is && !strcmp(was, is) &&
			 !strcmp(how, json_string_value(image_get(about, "scanned.how")) ?: "");
	if (!*ret_unchanged) {
		if (options->digests)
			/* without them everything is read once more */
			image_load_files(disk, &before);
		job.before = before;
		error = -ELIBACC;
		if (sqlite_load())
			error = sandbox_run(&(struct sandbox){ scan_rpm_begin, work, take, &job });
	}
	image_now(now);
	if (!*ret_unchanged && !error)
		error = save(disk, about, job.found,
			     json_pack("{s:s, s:s, s:s}", "data-id", is ? is : "", "how", how,
				       "time", now));
	json_decref(job.found);
	json_decref(before);
	json_decref(about);
	return error;
}
