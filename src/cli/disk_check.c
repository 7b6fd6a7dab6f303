/*
 * umbra disk check, repair-link, replay, freeze: whether a file, and the chain below it, are what
 * they should be.
 */
#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "disk_cli.h"
#include "lib/plain_text.h"

/* What was found: a line each for people, or an object each (file, says, and what `more` has). */
struct findings { bool as_json; json_t *all; };

static void finding(struct findings *findings, const char *file, json_t *more, const char *format,
		    ...) __attribute__((format(printf, 4, 5)));

/* `more` may be NULL, and is released. */
static void finding(struct findings *findings, const char *file, json_t *more, const char *format,
		    ...)
{
	char text[1024];
	va_list list;

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	plain_text(text); /* it may have a path that a file told us */
	if (findings->as_json) {
		json_t *json = json_pack("{s:s%, s:s%}", "file", file, strlen(file), "says", text,
					 strlen(text));

		json_object_update(json, more);
		json_array_append_new(findings->all, json);
	} else {
		print_safely(file);
		printf(": %s\n", text);
	}
	json_decref(more);
}

enum { CHECK_TRIES = 50 };

struct fault_place { struct findings *findings; const char *path; };

/* A file that is refused, or a fault that was found in one: all parts of it. */
static void note_refusal(struct findings *findings, const char *path, const char *fault,
			 const struct disk_error *why)
{
	json_t *more = json_pack("{s:s, s:o}", "fault", fault, "refusal", disk_refusal_json(why));
	const char *rest = why->text;

	if (!strcmp(why->path, path)) /* the line begins with it */
		rest += strlen(path) + 2;
	finding(findings, path, more, "%s", rest);
}

static void format_fault(void *context, const struct disk_error *fault)
{
	const struct fault_place *place = context;

	note_refusal(place->findings, place->path, "format", fault);
}

/* Content that is not what digests say, of one file or of a child's parent. */
struct changes {
	struct findings *findings;
	struct disk *child;
	const char *path;
	unsigned count, affecting;
};

/* Whether the child shows what its parent has there. */
static bool reads_parent(struct disk *child, uint64_t offset, uint64_t bytes)
{
	uint64_t end =
		offset + bytes < disk_size_bytes(child) ? offset + bytes : disk_size_bytes(child);
	struct disk_range range;

	for (; offset < end; offset += range.bytes)
		if (disk_range(child, offset, end - offset, &range) ||
		    range.kind == DISK_RANGE_ABSENT)
			return true;
	return false;
}

static int note_change(void *context, uint64_t offset, uint64_t bytes)
{
	struct changes *changes = context;
	bool reads = changes->child && reads_parent(changes->child, offset, bytes);
	json_t *where =
		json_pack("{s:s, s:I, s:I}", "fault", changes->child ? "parent-content" : "content",
			  "offset", (json_int_t)offset, "bytes", (json_int_t)bytes);

	changes->count++;
	changes->affecting += reads;
	if (changes->child) {
		json_object_set_new(where, "affects-child", json_boolean(reads));
		finding(changes->findings, changes->path, where,
			"%lu bytes at %lu are not what %s was made on, which %s them", bytes,
			offset, disk_path(changes->child), reads ? "reads" : "covers");
	} else {
		finding(changes->findings, changes->path, where,
			"%lu bytes at %lu are not what was written by a program that keeps the "
			"rules",
			bytes, offset);
	}
	return 0;
}

/*
 * Digests that are missing or of older data are made anew, where that was asked for and the file
 * can be written.
 */
static void bring_up_to_date(struct findings *findings, const struct arguments *arguments,
			     const char *path, enum disk_format format)
{
	const struct disk_options options = {
		.direct = arguments->direct,
		.write = !disk_is_written_once(format), /* then beside the file */
	};
	struct disk_error error;
	struct disk *disk;

	if (disk_cli_open_unasked(arguments, path, format, options, &disk, &error)) {
		finding(findings, path, NULL, "its digests cannot be made: %s", error.text);
		return;
	}
	if (!disk_digest(disk))
		finding(findings, path, NULL, "digests brought up to date");
	disk_close(disk);
}

static unsigned check_content(struct findings *findings, struct disk *disk, bool *ret_stale)
{
	struct changes changes = { .findings = findings, .path = disk_path(disk) };
	int error = disk_verify(disk, note_change, &changes);

	/* one that is not sound is a fault: --rebuild makes it anew */
	*ret_stale = error == -ENOENT || error == -ESTALE;
	if (error && !*ret_stale) {
		finding(findings, disk_path(disk), json_pack("{s:s}", "fault", "content"),
			"its content cannot be verified: %s", strerror(-error));
		return 1;
	}
	return changes.count;
}

static unsigned check_link(struct findings *findings, struct disk *child)
{
	struct disk *parent = disk_parent(child);
	struct changes changes = { .findings = findings,
				   .child = child,
				   .path = disk_path(parent) };
	struct disk_info info;
	int error;

	disk_info(child, &info);
	if (!info.is_linked)
		finding(findings, disk_path(parent), json_pack("{s:s}", "fault", "identifier"),
			"its data identifier is not the one that %s was made on", disk_path(child));
	error = disk_verify_link(child, note_change, &changes);
	if (error == -ENOENT)
		finding(findings, disk_path(child), NULL,
			"what %s held when it was made is not known", disk_path(parent));
	else if (error)
		finding(findings, disk_path(child), json_pack("{s:s}", "fault", "parent-content"),
			"its parent's content cannot be verified: %s", strerror(-error));
	if (!error && !info.is_linked && !changes.count)
		finding(findings, disk_path(parent), NULL,
			"holds what %s was made on: umbra disk repair-link accepts it",
			disk_path(child));
	else if (!error && changes.count)
		finding(findings, disk_path(child),
			json_pack("{s:b, s:i}", "affected", changes.affecting != 0,
				  "changed-extents", (int)changes.count),
			"%s by %u changed extents of its parent",
			changes.affecting ? "is affected" : "is not affected", changes.count);
	return changes.count + !info.is_linked + (error && error != -ENOENT);
}

static unsigned check_one(struct findings *findings, const struct arguments *arguments,
			  struct disk *disk, bool *ret_stale)
{
	struct fault_place place = { findings, disk_path(disk) };
	unsigned faults = (unsigned)disk_check(disk, format_fault, &place);

	*ret_stale = false;
	if (!arguments->quick)
		faults += check_content(findings, disk, ret_stale);
	if (arguments->chain && disk_parent(disk))
		faults += check_link(findings, disk);
	return faults;
}

/* The content is right as it is: its digests are made anew. */
static int rebuild(const struct arguments *arguments)
{
	struct disk *disk;
	enum disk_format format;
	int code = disk_parse_format(arguments->format, &format);
	int error;

	if (!code)
		code = disk_cli_open_with(
			arguments, arguments->file, arguments->format, IMAGE_ACTION(ACTION_WRITE),
			(struct disk_options){ .write = !disk_is_written_once(format) }, &disk);
	if (code)
		return code;
	error = disk_digest(disk);
	return disk_access_close(disk, error ? disk_access_failed(arguments->file, error) : 0);
}

struct stale { char *path; enum disk_format format; };

static unsigned chain_links(struct disk *disk)
{
	unsigned links = 0;

	for (; disk; disk = disk_parent(disk))
		links++;
	return links;
}

/* Each file, then what was out of date. Closes the disk. */
static int check_chain(struct findings *findings, const struct arguments *arguments,
		       struct disk *disk)
{
	struct stale *stale = calloc(chain_links(disk), sizeof(*stale));
	unsigned faults = 0;
	unsigned found = 0;
	struct disk_info info;
	int code;

	for (struct disk *at = disk; at && stale; at = arguments->chain ? disk_parent(at) : NULL) {
		bool is_stale;

		faults += check_one(findings, arguments, at, &is_stale);
		if (is_stale)
			stale[found++] =
				(struct stale){ strdup(disk_path(at)), disk_format_of(at) };
	}
	disk_info(disk, &info);
	if (!faults)
		finding(findings, arguments->file, NULL, "no fault%s%s",
			disk_parent(disk) ? ", and its parents are what it was made on" : "",
			info.in_use ? "; in use: as last flushed, without its content" : "");
	code = disk_access_close(disk, faults || !stale ? EXIT_UNUSABLE : 0);
	for (unsigned n = 0; n < found; n++) {
		if (!faults && stale[n].path && arguments->digests)
			bring_up_to_date(findings, arguments, stale[n].path, stale[n].format);
		else if (!faults && stale[n].path)
			finding(findings, stale[n].path, NULL,
				"has no digests of its data as it is: check --digests makes them");
		free(stale[n].path);
	}
	free(stale);
	return code;
}

static int open_to_check(const struct arguments *arguments, struct disk **ret)
{
	return disk_cli_open_with(arguments, arguments->file, arguments->format,
				  IMAGE_ACTION(ACTION_INSPECT),
				  (struct disk_options){ .accept_changed = arguments->chain,
							 .beside_writer = !arguments->rebuild },
				  ret);
}

static int check_and_say(const struct arguments *arguments, struct disk *disk)
{
	struct findings findings = { .as_json = arguments->json, .all = json_array() };
	int code = check_chain(&findings, arguments, disk);

	if (arguments->json)
		print_json(json_pack("{s:b, s:O}", "sound", !code, "findings", findings.all));
	json_decref(findings.all);
	return code;
}

static unsigned count_faults(struct disk *disk)
{
	struct findings findings = { .as_json = true, .all = json_array() };
	struct fault_place place = { &findings, disk_path(disk) };
	unsigned faults = (unsigned)disk_check(disk, format_fault, &place);

	json_decref(findings.all);
	return faults;
}

/* A disk that somebody writes: a fault counts when nothing was changed while it was found. */
static int settle_in_use(const struct arguments *arguments, struct disk **disk)
{
	int code = 0;

	for (int n = 0; n < CHECK_TRIES && !code; n++) {
		if (!count_faults(*disk) || !disk_has_moved(*disk))
			return 0;
		code = disk_access_close(*disk, 0);
		if (!code)
			code = open_to_check(arguments, disk);
	}
	if (code)
		return code;
	return disk_access_close(*disk,
				 complain(EXIT_UNUSABLE, "is being changed all the time",
					  arguments->file, "check it when less is written"));
}

/* ---- a folder ---- */

enum { FOLDER_DEPTH = 32 };
/* A file that a VMDK descriptor names, by what the host says of it. */
struct piece { uint64_t bytes, mtime_ns; };
struct folder {
	struct arguments arguments;
	struct findings findings;
	unsigned files, faults;
	struct piece *piece;
	size_t pieces;
};

static int add_piece(void *context, uint64_t bytes, uint64_t mtime_ns)
{
	struct folder *folder = context;
	struct piece *more = reallocarray(folder->piece, folder->pieces + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	folder->piece = more;
	folder->piece[folder->pieces++] = (struct piece){ bytes, mtime_ns };
	return 0;
}

static bool is_piece(const struct folder *folder, const struct stat *st)
{
	for (size_t n = 0; n < folder->pieces; n++)
		if (folder->piece[n].bytes == (uint64_t)st->st_size &&
		    folder->piece[n].mtime_ns == (uint64_t)st->st_mtim.tv_sec * 1000000000 +
							 (uint64_t)st->st_mtim.tv_nsec)
			return true;
	return false;
}

/* A VMDK file that may be a piece of another: data, or a sparse extent, but no descriptor. */
static bool may_be_piece(const char *path, enum disk_format format)
{
	static const char start[] = "# Disk DescriptorFile";
	char head[sizeof(start)] = "";
	FILE *file = format == DISK_VMDK ? fopen(path, "re") : NULL;

	if (!file)
		return false;
	if (!fread(head, 1, sizeof(head) - 1, file))
		head[0] = 0;
	fclose(file);
	return strcmp(head, start) != 0;
}

/* The file and its link to its parent; its parents are files of their own, or elsewhere. */
static void check_in_folder(struct folder *folder, const char *path, enum disk_format format)
{
	unsigned before = folder->faults;
	struct disk_error why;
	struct disk_info info;
	struct disk *disk;
	bool is_stale;

	folder->files++;
	folder->arguments.file = path;
	folder->arguments.format = disk_format_name(format);
	folder->arguments.refused = &why;
	if (open_to_check(&folder->arguments, &disk)) {
		note_refusal(&folder->findings, path, "open", &why);
		folder->faults++;
		return;
	}
	if (format == DISK_VMDK && !may_be_piece(path, format))
		disk_each_file(disk, add_piece, folder);
	disk_info(disk, &info);
	folder->arguments.quick |= info.in_use;
	if (info.in_use && settle_in_use(&folder->arguments, &disk)) {
		finding(&folder->findings, path, json_pack("{s:s}", "fault", "moving"),
			"is being changed all the time");
		folder->faults++;
		return;
	}
	folder->faults += check_one(&folder->findings, &folder->arguments, disk, &is_stale);
	if (folder->faults == before && disk_parent(disk))
		finding(&folder->findings, path, NULL, "no fault, on %s",
			disk_path(disk_parent(disk)));
	else if (folder->faults == before)
		finding(&folder->findings, path, NULL, "no fault");
	disk_close(disk);
}

static int check_folder(struct folder *folder, const char *path, unsigned depth);

static void check_entry(struct folder *folder, const char *path, unsigned depth, bool pieces)
{
	bool quick = folder->arguments.quick;
	enum disk_format format;
	struct stat st;

	if (lstat(path, &st))
		return;
	if (S_ISDIR(st.st_mode) && depth < FOLDER_DEPTH && !pieces)
		folder->faults += check_folder(folder, path, depth + 1) != 0;
	if (!S_ISREG(st.st_mode) || !disk_format_of_name(path, &format) ||
	    may_be_piece(path, format) != pieces)
		return;
	if (pieces && is_piece(folder, &st))
		finding(&folder->findings, path, NULL, "is a piece of a disk beside it");
	else
		check_in_folder(folder, path, format);
	folder->arguments.quick = quick;
}

/* First what may name pieces, then what is one, or a disk by itself. */
static int check_folder(struct folder *folder, const char *path, unsigned depth)
{
	struct dirent **entry;
	int count = scandir(path, &entry, NULL, alphasort);
	char *name;

	if (count < 0)
		return disk_access_failed(path, -errno);
	for (int n = 0; n < 2 * count; n++) {
		const char *last = entry[n % count]->d_name;

		if (last[0] == '.' || asprintf(&name, "%s/%s", path, last) < 0)
			continue;
		check_entry(folder, name, depth, n >= count);
		free(name);
	}
	for (int n = 0; n < count; n++)
		free(entry[n]);
	free(entry);
	return 0;
}

static int check_all(const struct arguments *arguments)
{
	struct folder folder = { .arguments = *arguments,
				 .findings = { .as_json = arguments->json, .all = json_array() } };
	int code = check_folder(&folder, arguments->file, 0);

	if (!code && arguments->json)
		print_json(json_pack("{s:b, s:i, s:i, s:O}", "sound", !folder.faults, "files",
				     (int)folder.files, "faults", (int)folder.faults, "findings",
				     folder.findings.all));
	else if (!code)
		printf("%u files, %u faults\n", folder.files, folder.faults);
	json_decref(folder.findings.all);
	free(folder.piece);
	if (code)
		return code;
	return folder.faults ? EXIT_UNUSABLE : 0;
}

static bool is_folder(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int verb_disk_check(struct arguments *arguments)
{
	struct disk_info info;
	struct disk *disk;
	int code;

	if (arguments->chain && is_folder(arguments->file)) {
		if (!arguments->digests && !arguments->rebuild)
			return check_all(arguments);
		return complain(EXIT_USAGE, "of a folder nothing is written", arguments->file,
				"name the file with --digests or --rebuild");
	}
	code = open_to_check(arguments, &disk);
	if (code)
		return code;
	if (arguments->rebuild) {
		code = disk_access_close(disk, 0);
		return code ? code : rebuild(arguments);
	}
	disk_info(disk, &info);
	if (info.in_use) {
		code = settle_in_use(arguments, &disk);
		arguments->quick = true; /* its digests are made when it is closed */
	}
	return code ? code : check_and_say(arguments, disk);
}

/* ---- repair-link ---- */

int verb_disk_repair_link(struct arguments *arguments)
{
	struct disk_error failure;
	enum disk_format format;
	struct disk *disk;
	int code = disk_parse_format(arguments->format, &format);
	int error;

	if (code)
		return code;
	if (!arguments->reason)
		return complain(EXIT_USAGE, "no reason given", arguments->file,
				"say why the parent is right as it is: --reason TEXT");
	code = disk_cli_open_with(
		arguments, arguments->file, arguments->format, IMAGE_ACTION(ACTION_ANNOTATE),
		(struct disk_options){ .write = !disk_is_written_once(format),
				       .accept_changed = true },
		&disk);
	if (code)
		return code;
	error = disk_repair_link(disk, &failure);
	if (!error)
		disk_access_note(disk, "link repaired",
				 json_pack("{s:s}", "reason", arguments->reason));
	return disk_access_close(disk, error ? disk_access_refused(error, &failure) : 0);
}

/* ---- replay ---- */

int verb_disk_replay(struct arguments *arguments)
{
	struct disk_info info;
	struct disk *disk;
	int code = disk_cli_open(arguments, arguments->file, arguments->format, ACTION_INSPECT,
				 &disk);

	if (code)
		return code;
	disk_info(disk, &info);
	code = disk_access_close(disk, 0);
	if (code || !info.has_log) {
		if (!code)
			printf("%s: has no log to replay\n", arguments->file);
		return code;
	}
	code = disk_cli_open_with(arguments, arguments->file, arguments->format,
				  IMAGE_ACTION(ACTION_WRITE),
				  (struct disk_options){ .write = true }, &disk);
	code = code ? code : disk_access_close(disk, 0);
	if (!code)
		printf("%s: its log is replayed\n", arguments->file);
	return code;
}

/* ---- freeze ---- */

int verb_disk_freeze(struct arguments *arguments)
{
	const char *places[PLACES + 2] = { NULL };
	struct disk_error failure;
	const char *reason = arguments->reason ? arguments->reason : "children are made on it";
	struct disk *disk;
	char *copy;
	int error;
	int code = disk_cli_open_with(
		arguments, arguments->file, arguments->format, IMAGE_ACTION(ACTION_ANNOTATE),
		(struct disk_options){ .write = true, .thaw = arguments->undo }, &disk);

	if (code)
		return code;
	copy = strdup(arguments->file);
	places[0] = copy ? dirname(copy) : ".";
	for (unsigned n = 0; n < arguments->place_count; n++)
		places[n + 1] = arguments->places[n];
	if (!arguments->undo)
		disk_access_note(disk, "frozen", json_pack("{s:s}", "reason", reason));
	error = arguments->undo ? disk_thaw(disk, places, &failure)
				: disk_freeze(disk, reason, &failure);
	if (!error && arguments->undo)
		disk_access_note(disk, "thawed", NULL);
	free(copy);
	return disk_access_close(disk, error ? disk_access_refused(error, &failure) : 0);
}
