/*
 * umbra disk import and export: one machine's disks from and to a package that other programs know
 * (OVF; in one file OVA).
 *
 * What comes in goes first into files without a name in the target's folder, and is compared with
 * what the descriptor and the manifest say, all of it; then each disk is converted as `convert`
 * does. What goes out is packed into such files, and then into the archive, which has its name when
 * it is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/package.h"
#include "disk_cli.h"
#include "lib/plain_text.h"

enum { FD_PATH_BYTES = 64, READ_BYTES = 1 << 18 };

struct import {
	const struct arguments *arguments;
	struct ovf ovf;
	struct ovf_manifest manifest;
	char descriptor_name[OVF_NAME_BYTES], manifest_name[OVF_NAME_BYTES];
	char path[PATH_MAX];
	char *descriptor, *manifest_text;
	struct package_place placed[OVF_DISKS_MAX], descriptor_placed, manifest_placed;
	struct ovf_error error;
	struct disk_error why;
	bool has_manifest;
};

/* The file in which a text lies: the archive, or a file beside the descriptor. */
static const char *path_of(struct import *import, const char *name, const struct package_place *at)
{
	const char *last = strrchr(import->arguments->file, '/');
	const int folder = last ? (int)(last + 1 - import->arguments->file) : 0;

	if (at->at)
		return import->arguments->file;
	snprintf(import->path, sizeof(import->path), "%.*s%s", folder, import->arguments->file,
		 name);
	return import->path;
}

/* What the descriptor says, and is not so. */
static int refuse_descriptor(struct import *import, enum disk_refusal kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static int refuse_descriptor(struct import *import, enum disk_refusal kind, const char *format, ...)
{
	char text[DISK_FOUND_BYTES];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return disk_refuse(&import->why, kind,
			   path_of(import, import->descriptor_name, &import->descriptor_placed),
			   import->descriptor_placed.at, "%s", text);
}

/* What the package's own parsers have found, in what begins at `base` of a file. */
static int refuse_found(struct import *import, int error, const char *path, uint64_t base)
{
	static const enum disk_refusal kinds[] = {
		[OVF_XML] = REFUSAL_OVF_XML,
		[OVF_FILE] = REFUSAL_OVF_FILE,
		[OVF_DISK] = REFUSAL_OVF_DISK,
		[OVF_MACHINE] = REFUSAL_OVF_MACHINE,
		[OVF_MANIFEST_LINE] = REFUSAL_OVF_MANIFEST_LINE,
		[OVF_ARCHIVE] = REFUSAL_OVA_TAR,
		[OVF_ARCHIVE_FILE] = REFUSAL_OVA_FILE,
		[OVF_ARCHIVE_CONTENT] = REFUSAL_OVA_CONTENT,
	};
	const struct ovf_error *found = &import->error;

	if (!found->part)
		return disk_refuse_as(&import->why,
				      error == -ENOMEM ? REFUSAL_MEMORY : REFUSAL_HOST, error,
				      import->arguments->file, DISK_NOWHERE, "%s",
				      found->text[0] ? found->text : strerror(-error));
	return disk_refuse_as(&import->why, kinds[found->part], error, path, base + found->offset,
			      "%s", found->text);
}

static bool ends_with(const char *name, const char *end)
{
	size_t bytes = strlen(name);

	return bytes > strlen(end) && !strcasecmp(name + bytes - strlen(end), end);
}

static int unnamed_in(const char *folder)
{
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

/* ---- a package in one file ---- */

static int begin_descriptor(struct import *import, const char *name, struct package_place *place)
{
	if (!ends_with(name, ".ovf"))
		return disk_refuse(&import->why, REFUSAL_OVA_ORDER, import->arguments->file,
				   place->at, "begins with %.100s, not with a descriptor (.ovf)",
				   name);
	import->descriptor = malloc(OVF_BYTES_MAX);
	place->text = import->descriptor;
	place->room = OVF_BYTES_MAX;
	strcpy(import->descriptor_name, name);
	return import->descriptor ? 0 : -ENOMEM;
}

static int begin_manifest(struct import *import, const char *name, struct package_place *place)
{
	if (import->manifest_text)
		return disk_refuse(&import->why, REFUSAL_OVA_ORDER, import->arguments->file,
				   place->at, "%.100s is a second manifest", name);
	import->manifest_text = malloc(OVF_BYTES_MAX);
	place->text = import->manifest_text;
	place->room = OVF_BYTES_MAX;
	strcpy(import->manifest_name, name);
	return import->manifest_text ? 0 : -ENOMEM;
}

static int on_file(void *context, const char *name, uint64_t bytes, unsigned number,
		   struct package_place *place)
{
	struct import *import = context;
	int fd;

	if (!number)
		return begin_descriptor(import, name, place);
	if (ends_with(name, ".mf"))
		return begin_manifest(import, name, place);
	for (unsigned n = 0; n < import->ovf.disks; n++) {
		const struct ovf_disk *disk = &import->ovf.disk[n];

		if (strcmp(disk->file, name))
			continue;
		if (disk->file_bytes && disk->file_bytes != bytes)
			return refuse_descriptor(import, REFUSAL_OVF_LENGTH,
						 "%.100s has %lu bytes, and is said to have %lu",
						 name, bytes, disk->file_bytes);
		fd = unnamed_in(import->arguments->other);
		place->fd = fd;
		return fd < 0 ? fd : 0;
	}
	return 0;
}

static int read_descriptor(struct import *import, size_t bytes)
{
	int error = ovf_read(import->descriptor, bytes, &import->ovf, &import->error);

	return error ? refuse_found(
			       import, error,
			       path_of(import, import->descriptor_name, &import->descriptor_placed),
			       import->descriptor_placed.at)
		     : 0;
}

static int read_manifest(struct import *import, size_t bytes)
{
	int error =
		ovf_manifest_read(import->manifest_text, bytes, &import->manifest, &import->error);

	import->has_manifest = true;
	return error ? refuse_found(
			       import, error,
			       path_of(import, import->manifest_name, &import->manifest_placed),
			       import->manifest_placed.at)
		     : 0;
}

static int on_done(void *context, const char *name, const struct package_place *place)
{
	struct import *import = context;

	if (place->text == import->descriptor) {
		import->descriptor_placed = *place;
		return read_descriptor(import, place->bytes);
	}
	if (place->text) {
		import->manifest_placed = *place;
		return read_manifest(import, place->bytes);
	}
	for (unsigned n = 0; n < import->ovf.disks; n++)
		if (!strcmp(import->ovf.disk[n].file, name))
			import->placed[n] = *place;
	return 0;
}

/* ---- a package of several files ---- */

static int sum_file(struct package_place *place)
{
	uint8_t *buffer = malloc(READ_BYTES);
	struct sums sums;
	ssize_t got = buffer ? 1 : -1;

	sums_begin(&sums);
	while (got > 0) {
		got = pread(place->fd, buffer, READ_BYTES, (off_t)place->bytes);
		if (got > 0)
			sums_add(&sums, buffer, (size_t)got);
		place->bytes += got > 0 ? (uint64_t)got : 0;
	}
	sums_end(&sums, place->sha1, place->sha256);
	free(buffer);
	return got < 0 ? -EIO : 0;
}

static int open_beside(struct import *import, const char *name)
{
	char *copy = strdup(import->arguments->file);
	int folder = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int fd = folder < 0 ? -1
			    : openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	int error = fd < 0 ? -errno : fd;
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode))) {
		close(fd);
		error = -ENOTSUP;
	}
	if (folder >= 0)
		close(folder);
	free(copy);
	return error;
}

static int read_text(int fd, char **ret, struct package_place *place)
{
	*ret = malloc(OVF_BYTES_MAX);
	place->fd = fd;
	if (!*ret)
		return -ENOMEM;
	if (sum_file(place) || place->bytes > OVF_BYTES_MAX ||
	    pread(fd, *ret, place->bytes, 0) != (ssize_t)place->bytes)
		return -EFBIG;
	return 0;
}

static int read_folder(struct import *import)
{
	char *copy = strdup(import->arguments->file);
	int fd = copy ? open(import->arguments->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	int error = fd < 0 ? -errno : 0;

	if (copy)
		snprintf(import->descriptor_name, sizeof(import->descriptor_name), "%.255s",
			 basename(copy));
	free(copy);
	if (!error)
		error = read_text(fd, &import->descriptor, &import->descriptor_placed);
	if (error == -EFBIG)
		error = disk_refuse(&import->why, REFUSAL_OVF_XML, import->arguments->file,
				    OVF_BYTES_MAX, "it goes on behind %d bytes", OVF_BYTES_MAX);
	if (!error)
		error = read_descriptor(import, import->descriptor_placed.bytes);
	for (unsigned n = 0; n < import->ovf.disks && !error; n++) {
		struct ovf_disk *disk = &import->ovf.disk[n];

		if (!*disk->file)
			continue;
		import->placed[n].fd = open_beside(import, disk->file);
		error = import->placed[n].fd < 0 ? import->placed[n].fd
						 : sum_file(&import->placed[n]);
		if (error)
			disk_refuse_as(&import->why, REFUSAL_OPEN, error,
				       path_of(import, disk->file, &import->descriptor_placed),
				       DISK_NOWHERE, "%s", strerror(-error));
	}
	snprintf(import->manifest_name, sizeof(import->manifest_name), "%.*s.mf",
		 (int)strlen(import->descriptor_name) - 4, import->descriptor_name);
	fd = error ? -1 : open_beside(import, import->manifest_name);
	if (fd >= 0)
		error = read_text(fd, &import->manifest_text, &import->manifest_placed);
	if (fd >= 0 && !error)
		error = read_manifest(import, import->manifest_placed.bytes);
	return error;
}

/* ---- what has come in ---- */

static int check_sum(struct import *import, const char *name, const struct package_place *place)
{
	const struct ovf_sum *sum = ovf_manifest_of(&import->manifest, name);

	const char *path = path_of(import, import->manifest_name, &import->manifest_placed);

	if (!sum)
		return disk_refuse(&import->why, REFUSAL_OVF_DIGEST, path,
				   import->manifest_placed.at, "no digest of %.100s", name);
	if (!memcmp(sum->digest, sum->is_sha1 ? place->sha1 : place->sha256,
		    sum->is_sha1 ? SHA1_BYTES : SHA256_BYTES))
		return 0;
	return disk_refuse(&import->why, REFUSAL_OVF_DIGEST, path, import->manifest_placed.at,
			   "%.100s is not what its %s says", name,
			   sum->is_sha1 ? "SHA1" : "SHA256");
}

static int check_all(struct import *import)
{
	int error = 0;

	if (import->has_manifest)
		error = check_sum(import, import->descriptor_name, &import->descriptor_placed);
	for (unsigned n = 0; n < import->ovf.disks && !error; n++) {
		const struct ovf_disk *disk = &import->ovf.disk[n];
		const struct package_place *place = &import->placed[n];

		if (!*disk->file)
			continue;
		if (place->fd < 0 || !place->bytes ||
		    (disk->file_bytes && disk->file_bytes != place->bytes))
			return refuse_descriptor(import, REFUSAL_OVF_LENGTH,
						 "%.100s is not there, or is not as long as the "
						 "descriptor says",
						 disk->file);
		if (import->has_manifest)
			error = check_sum(import, disk->file, place);
	}
	return error;
}

static const char *format_of(const char *url)
{
	if (strcasestr(url, "qcow"))
		return "qcow2";
	return !*url || strcasestr(url, "vmdk") ? "vmdk" : NULL;
}

/* Of the same size as is said of it: a disk that is cut off elsewhere would not be noticed. */
static int check_size(struct import *import, unsigned n, const char *path, const char *format)
{
	const struct ovf_disk *of = &import->ovf.disk[n];
	struct disk *disk;
	int code = disk_cli_open(import->arguments, path, format, ACTION_EXPORT, &disk);

	if (code || disk_size_bytes(disk) == of->size_bytes)
		return code ? code : disk_access_close(disk, 0);
	code = refuse_descriptor(import, REFUSAL_OVF_CAPACITY,
				 "%.100s is a disk of %lu bytes, and is said to have %lu", of->file,
				 disk_size_bytes(disk), of->size_bytes);
	disk_access_close(disk, 0);
	return disk_access_refused(code, &import->why);
}

static char *target_of(const struct import *import, unsigned n)
{
	const char *name = import->ovf.disk[n].file;
	const char *suffix = strrchr(name, '.');
	const char *to = import->arguments->to ? import->arguments->to : "vhdx";
	int length = (int)(suffix ? suffix - name : (ptrdiff_t)strlen(name));
	char *path = NULL;
	int made = *name ? asprintf(&path, "%s/%.*s.%s", import->arguments->other, length, name, to)
			 : asprintf(&path, "%s/disk%u.%s", import->arguments->other, n + 1, to);

	return made < 0 ? NULL : path;
}

static int import_disk(struct import *import, unsigned n)
{
	const struct ovf_disk *of = &import->ovf.disk[n];
	struct arguments arguments = *import->arguments;
	const char *format = format_of(of->format);
	char path[FD_PATH_BYTES];
	char *target = target_of(import, n);
	int code = target ? 0 : disk_access_failed(import->arguments->file, -ENOMEM);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", import->placed[n].fd);
	arguments.other = target;
	arguments.from = format;
	arguments.file = path;
	if (!code && !*of->file) {
		arguments.file = target;
		arguments.other = NULL;
		arguments.format = import->arguments->to;
		arguments.size = of->size_bytes;
		arguments.has_size = true;
		code = verb_disk_create(&arguments);
	} else if (!code && !format) {
		code = refuse_descriptor(import, REFUSAL_OVF_FORMAT,
					 "a disk that is neither vmdk nor qcow2: %.200s",
					 of->format);
		code = disk_access_refused(code, &import->why);
	} else if (!code) {
		code = check_size(import, n, path, format);
		if (!code)
			code = verb_disk_convert(&arguments);
	}
	if (!code) {
		print_safely(target);
		putchar('\n');
	}
	free(target);
	return code;
}

static int read_package(struct import *import)
{
	int fd, error;

	if (ends_with(import->arguments->file, ".ovf"))
		return read_folder(import);
	fd = open(import->arguments->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	error = package_read(fd, on_file, on_done, import, &import->error);
	close(fd);
	if (error && !import->why.kind)
		refuse_found(import, error, import->arguments->file, 0);
	return error;
}

static int import_all(struct import *import)
{
	int error = read_package(import);
	int code = 0;

	if (!error)
		error = check_all(import);
	if (error && import->why.kind)
		return disk_access_refused(error, &import->why);
	if (error)
		return disk_access_failed(import->arguments->file, error);
	for (unsigned n = 0; n < import->ovf.disks && !code; n++)
		code = import_disk(import, n);
	return code;
}

int verb_disk_import(struct arguments *arguments)
{
	struct import *import;
	struct stat st;
	int code;

	if (!arguments->other)
		return complain(EXIT_USAGE, "no folder given", arguments->file,
				"say umbra disk import PACKAGE FOLDER");
	if (stat(arguments->other, &st) || !S_ISDIR(st.st_mode))
		return complain(EXIT_UNUSABLE, "not a folder", arguments->other,
				"name one that is there");
	import = calloc(1, sizeof(*import));
	if (!import)
		return disk_access_failed(arguments->file, -ENOMEM);
	import->arguments = arguments;
	for (unsigned n = 0; n < OVF_DISKS_MAX; n++)
		import->placed[n].fd = -1;
	code = import_all(import);
	for (unsigned n = 0; n < OVF_DISKS_MAX; n++)
		if (import->placed[n].fd >= 0)
			close(import->placed[n].fd);
	free(import->descriptor);
	free(import->manifest_text);
	free(import);
	return code;
}

/* ---- export ---- */

struct export
{
	struct ovf ovf;
	struct package_place placed[OVF_DISKS_MAX];
	char *descriptor, *manifest;
	char descriptor_name[OVF_NAME_BYTES], manifest_name[OVF_NAME_BYTES];
};

static void name_all(struct export *export, const char *target)
{
	enum { LONGEST = 200 };
	const char *last = strrchr(target, '/');
	char name[LONGEST + 1];

	snprintf(name, sizeof(name), "%.200s", last ? last + 1 : target);
	if (ends_with(name, ".ova"))
		name[strlen(name) - 4] = 0;
	plain_text(name);
	snprintf(export->ovf.name, OVF_NAME_BYTES, "%s", name);
	snprintf(export->descriptor_name, OVF_NAME_BYTES, "%s.ovf", name);
	snprintf(export->manifest_name, OVF_NAME_BYTES, "%s.mf", name);
	for (unsigned n = 0; n < export->ovf.disks; n++)
		snprintf(export->ovf.disk[n].file, OVF_NAME_BYTES, "%s-disk%u.vmdk", name, n + 1);
}

static int pack_disk(const struct arguments *arguments, struct export *export, unsigned n,
		     const char *path, const char *folder)
{
	struct disk_create what = { .format = DISK_VMDK, .name = export->ovf.disk[n].file };
	struct package_place *place = &export->placed[n];
	struct disk_error why;
	struct disk *disk;
	int code = disk_cli_open(arguments, path, arguments->format, ACTION_EXPORT, &disk);
	int error;

	if (code)
		return code;
	place->fd = unnamed_in(folder);
	if (place->fd < 0)
		return disk_access_close(disk, disk_access_failed(folder, place->fd));
	what.size_bytes = disk_size_bytes(disk);
	export->ovf.disk[n].size_bytes = disk_size_bytes(disk);
	error = disk_convert_stream(disk, place->fd, &what, NULL, &why);
	if (error)
		code = disk_access_refused(error, &why);
	else if (sum_file(place))
		code = disk_access_failed(folder, -EIO);
	export->ovf.disk[n].file_bytes = place->bytes;
	return disk_access_close(disk, code);
}

static void put_sum(FILE *to, const char *name, const uint8_t digest[SHA256_BYTES])
{
	fprintf(to, "SHA256(%s)= ", name);
	for (unsigned n = 0; n < SHA256_BYTES; n++)
		fprintf(to, "%02x", digest[n]);
	fputc('\n', to);
}

static int write_texts(struct export *export)
{
	uint8_t sha1[SHA1_BYTES], sha256[SHA256_BYTES];
	struct sums sums;
	size_t bytes;
	FILE *to;

	export->descriptor = ovf_text(&export->ovf);
	to = export->descriptor ? open_memstream(&export->manifest, &bytes) : NULL;
	if (!to)
		return -ENOMEM;
	sums_begin(&sums);
	sums_add(&sums, export->descriptor, strlen(export->descriptor));
	sums_end(&sums, sha1, sha256);
	put_sum(to, export->descriptor_name, sha256);
	for (unsigned n = 0; n < export->ovf.disks; n++)
		put_sum(to, export->ovf.disk[n].file, export->placed[n].sha256);
	return fclose(to) ? -ENOMEM : 0;
}

static int write_archive(const struct export *export, const char *path, struct ovf_error *why)
{
	struct package_file files[OVF_DISKS_MAX + 2] = {
		{ .name = export->descriptor_name,
		  .text = export->descriptor,
		  .bytes = strlen(export->descriptor) },
		{ .name = export->manifest_name,
		  .text = export->manifest,
		  .bytes = strlen(export->manifest) },
	};
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	int error = fd < 0 ? -errno : 0;

	for (unsigned n = 0; n < export->ovf.disks; n++)
		files[n + 2] = (struct package_file){ .name = export->ovf.disk[n].file,
						      .fd = export->placed[n].fd,
						      .bytes = export->placed[n].bytes };
	if (!error)
		error = package_write(fd, files, export->ovf.disks + 2, why);
	if (!error && fsync(fd))
		error = -errno;
	if (fd >= 0)
		close(fd);
	return error;
}

static int export_all(const struct arguments *arguments, struct export *export, const char *folder)
{
	struct ovf_error why = { .part = OVF_NOTHING };
	const char *unfinished;
	int error;
	int code = pack_disk(arguments, export, 0, arguments->file, folder);

	for (unsigned n = 0; n < arguments->disk_count && !code; n++)
		code = pack_disk(arguments, export, n + 1, arguments->disks[n], folder);
	if (!code)
		code = making_begin(arguments->other, &unfinished);
	if (code)
		return code;
	error = write_texts(export);
	if (!error)
		error = write_archive(export, unfinished, &why);
	if (error && *why.text)
		code = complain(EXIT_UNUSABLE, why.text, arguments->other, "make room");
	else if (error)
		code = disk_access_failed(arguments->other, error);
	return making_end(arguments->other, code);
}

int verb_disk_export(struct arguments *arguments)
{
	struct export *export;
	struct stat st;
	char *copy;
	int code;

	if (!arguments->other)
		return complain(EXIT_USAGE, "no target given", arguments->file,
				"say umbra disk export FILE TARGET.ova");
	if (!lstat(arguments->other, &st))
		return disk_access_failed(arguments->other, -EEXIST);
	copy = strdup(arguments->other);
	export = calloc(1, sizeof(*export));
	if (!copy || !export) {
		free(copy);
		free(export);
		return disk_access_failed(arguments->file, -ENOMEM);
	}
	for (unsigned n = 0; n < OVF_DISKS_MAX; n++)
		export->placed[n].fd = -1;
	export->ovf.disks = arguments->disk_count + 1;
	name_all(export, arguments->other);
	code = export_all(arguments, export, dirname(copy));
	for (unsigned n = 0; n < OVF_DISKS_MAX; n++)
		if (export->placed[n].fd >= 0)
			close(export->placed[n].fd);
	free(export->descriptor);
	free(export->manifest);
	free(export);
	free(copy);
	return code;
}
