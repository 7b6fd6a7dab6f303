/* umbra disk: the verbs on disk files. Sizes as 512M; formats are said, never guessed: vhdx unless
 * something else is said. */
#include "disk/disk.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "disk_cli.h"

static const char help[] =
	"usage: umbra disk create FILE --size S [--format F] [--block-size B] "
	"[--sector-size 512|4096] [--fixed]\n"
	"       umbra disk create FILE --parent PARENT [--parent-format F] [--block-size B]\n"
	"       umbra disk info|map FILE [--json] [--chain]    "
	"umbra disk check FILE [--chain] [--quick | --digests | --rebuild] [--json]\n"
	"       umbra disk read FILE --offset N --length N > DATA        "
	"umbra disk write FILE --offset N [--from DATA]\n"
	"       umbra disk convert SOURCE TARGET [--from F] [--to F] [--block-size B] [--fixed]\n"
	"       umbra disk compare FILE OTHER [--format F] [--other-format F] [--json]\n"
	"       umbra disk resize FILE --size S    umbra disk snapshot FILE CHILD    "
	"umbra disk commit CHILD\n"
	"       umbra disk stream CHILD    "
	"umbra disk rebase CHILD --parent NEW [--parent-format F]    umbra disk compact FILE\n"
	"       umbra disk export-changes FILE TARGET --since ANCESTOR\n"
	"       umbra disk serve FILE --socket PATH [--read-only]    "
	"then: umbra disk snapshot CHILD|commit|stream|resize --size S --socket PATH\n"
	"       umbra disk repair-link CHILD --reason TEXT    "
	"umbra disk freeze FILE [--reason TEXT | --undo]\n"
	"F is raw, vhdx (when nothing is said), vhd, qcow2 or vmdk; the last two can only be read. "
	"check compares the content with the file's\n"
	"digests (--quick: does not), with --chain also with what each parent held when its child "
	"was made, and writes nothing; --digests\n"
	"makes digests that are missing, --rebuild takes the content as right.\n"
	"A parent is looked for where its child says, and must lie under the child's directory or "
	"a --parents PLACE (may be repeated).\n"
	"--direct goes past the host's cache, for what is aligned to 4096 bytes. "
	"A SIZE is a number with K, M, G or T after it. Ends 0; 64\n"
	"usage; 65 unusable file, or a parent that has changed; "
	"78 a parent that is not allowed, or a policy (umbra image --help; --override\n"
	"REASON where it allows that); compare: 1 when the contents differ.\n";

/* ---- arguments ---- */

static int bad_size(const char *text)
{
	return complain(EXIT_USAGE, "not a size", text, "say for example 4G");
}

static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option longs[] = {
		{ "size", 1, 0, 's' },
		{ "block-size", 1, 0, 'b' },
		{ "sector-size", 1, 0, 'S' },
		{ "parent", 1, 0, 'p' },
		{ "parents", 1, 0, 'P' },
		{ "from", 1, 0, 'f' },
		{ "to", 1, 0, 't' },
		{ "format", 1, 0, 'F' },
		{ "other-format", 1, 0, 'O' },
		{ "offset", 1, 0, 'o' },
		{ "length", 1, 0, 'l' },
		{ "fixed", 0, 0, 'x' },
		{ "json", 0, 0, 'j' },
		{ "chain", 0, 0, 'c' },
		{ "quick", 0, 0, 'q' },
		{ "undo", 0, 0, 'u' },
		{ "rebuild", 0, 0, 'B' },
		{ "digests", 0, 0, 'd' },
		{ "reason", 1, 0, 'r' },
		{ "parent-format", 1, 0, 'G' },
		{ "since", 1, 0, 'i' },
		{ "socket", 1, 0, 'k' },
		{ "read-only", 0, 0, 'R' },
		{ "override", 1, 0, 'V' },
		{ "direct", 0, 0, 'D' },
		{ "help", 0, 0, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		bool good = true;

		switch (c) {
		case 's': good = a->has_size = parse_size(optarg, &a->size); break;
		case 'b': good = parse_size(optarg, &a->block); break;
		case 'S': good = parse_size(optarg, &a->sector); break;
		case 'o': good = a->has_offset = parse_size(optarg, &a->offset); break;
		case 'l': good = a->has_length = parse_size(optarg, &a->length); break;
		case 'p': a->parent = optarg; break;
		case 'P':
			if (a->place_count == PLACES)
				return complain(EXIT_USAGE, "more places than 16", optarg,
						"name a directory above them");
			a->places[a->place_count++] = optarg;
			break;
		case 'f': a->from = optarg; break;
		case 't': a->to = optarg; break;
		case 'F': a->format = optarg; break;
		case 'O': a->other_format = optarg; break;
		case 'x': a->fixed = true; break;
		case 'j': a->json = true; break;
		case 'c': a->chain = true; break;
		case 'q': a->quick = true; break;
		case 'u': a->undo = true; break;
		case 'B': a->rebuild = true; break;
		case 'd': a->digests = true; break;
		case 'r': a->reason = optarg; break;
		case 'i': a->since = optarg; break;
		case 'k': a->socket = optarg; break;
		case 'R': a->read_only = true; break;
		case 'V': a->override = optarg; break;
		case 'D': a->direct = true; break;
		case 'G': a->parent_format = optarg; break;
		case 'h': fputs(help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
		if (!good)
			return bad_size(optarg);
	}
	if (optind < argc)
		a->file = argv[optind++];
	if (optind < argc)
		a->other = argv[optind++];
	if (optind < argc)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind],
				"see umbra disk --help");
	return a->file || a->socket
		       ? 0
		       : complain(EXIT_USAGE, "no file given", "disk", "see umbra disk --help");
}

/* ---- verbs ---- */

int disk_cli_may_fork(const struct arguments *a, const char *parent, const char *format)
{
	struct disk *d;
	int code = disk_cli_open(a, parent, format, ACTION_FORK, &d);

	return code ? code : disk_access_close(d, 0);
}

/* Whether it opens as it was made, with these places of parents; and its history's first line. */
static int make_file(const struct arguments *a, const char *path, const struct disk_create *what)
{
	struct disk_search search;
	struct disk_options options;
	struct disk_error why;
	const char *unfinished;
	struct disk *disk;
	int code = making_begin(path, &unfinished);
	int error;

	if (code)
		return code;
	error = disk_create(unfinished, what, &why);
	if (!error && what->parent) {
		disk_cli_search(a, &search);
		options = disk_search_options(&search, what->format);
		error = disk_open(unfinished, &options, &disk, &why);
		if (!error)
			disk_close(disk);
	}
	if (error)
		code = making_refused(path, error, &why);
	if (!code && what->format == DISK_VHDX) {
		json_t *from = what->parent ? json_pack("{s:s%}", "from", what->parent,
							strlen(what->parent))
					    : NULL;

		error = disk_cli_note_closed(a, unfinished, what->format, "created", from);
		code = error ? disk_access_failed(path, error) : 0;
	}
	return making_end(path, code);
}

/* What a parent is when nothing is said: of a VHD child it can only be VHD. */
static const char *parent_format_of(const struct arguments *a)
{
	if (a->parent_format)
		return a->parent_format;
	return a->format && !strcmp(a->format, "vhd") ? "vhd" : NULL;
}

static int verb_create(struct arguments *a)
{
	struct disk_create what = { .size_bytes = a->size,
				    .block_bytes = (uint32_t)a->block,
				    .logical_sector_bytes = (uint32_t)a->sector,
				    .fixed = a->fixed,
				    .parent = a->parent };
	int error = disk_parse_format(a->format, &what.format);

	if (!error)
		error = disk_parse_format(parent_format_of(a), &what.parent_format);
	if (error)
		return error;
	if (a->has_size == (a->parent != NULL))
		return complain(EXIT_USAGE, "either a size or a parent", a->file,
				"say --size S or --parent FILE");
	if (a->block > UINT32_MAX || a->sector > UINT32_MAX)
		return complain(EXIT_USAGE, "a block or sector size that no format has", a->file,
				"see umbra disk --help");
	error = what.parent ? disk_cli_may_fork(a, what.parent, parent_format_of(a)) : 0;
	return error ? error : make_file(a, a->file, &what);
}

static json_t *id_json(struct guid id)
{
	char text[GUID_TEXT_BYTES];

	guid_print(id, text);
	return json_string(text);
}

static const char *disk_type_name(const struct disk_info *i)
{
	if (i->has_parent)
		return "differencing";
	return i->fixed ? "fixed" : "dynamic";
}

static json_t *info_json(const struct disk *d)
{
	struct disk_info i;
	json_t *j;

	disk_info(d, &i);
	j = json_pack("{s:s%, s:s, s:I, s:I, s:I, s:i, s:i}", "file", disk_path(d),
		      strlen(disk_path(d)), "format", disk_format_name(i.format), "size",
		      (json_int_t)i.size_bytes, "file-size", (json_int_t)i.file_bytes, "allocated",
		      (json_int_t)i.allocated_bytes, "logical-sector-size",
		      (int)i.logical_sector_bytes, "physical-sector-size",
		      (int)i.physical_sector_bytes);
	if (!j || (i.format != DISK_VHDX && i.format != DISK_VHD))
		return j;
	json_object_set_new(j, "type", json_string(disk_type_name(&i)));
	json_object_set_new(j, "block-size", json_integer(i.block_bytes));
	json_object_set_new(j, "blocks", json_integer((json_int_t)i.blocks));
	json_object_set_new(j, "blocks-present", json_integer((json_int_t)i.blocks_present));
	json_object_set_new(j, "file-id", id_json(i.file_id));
	json_object_set_new(j, "data-id", id_json(i.data_id));
	json_object_set_new(j, "disk-id", id_json(i.disk_id));
	if (i.has_parent)
		json_object_set_new(j, "parent-data-id", id_json(i.parent_data_id));
	return j;
}

/* A value may be a path that a file told us. */
static void print_line(const char *key, const char *value)
{
	printf("%-22s ", key);
	print_safely(value);
	putchar('\n');
}

/* The same keys for people, one a line. */
static void print_plain(const json_t *j)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)j, key, value)
	{
		if (json_is_integer(value))
			printf("%-22s %lld\n", key, (long long)json_integer_value(value));
		else
			print_line(key, json_string_value(value));
	}
}

static int verb_info(struct arguments *a)
{
	struct disk *d;
	int code = disk_cli_open(a, a->file, a->format, ACTION_INSPECT, &d);
	json_t *all;

	if (code)
		return code;
	all = json_array();
	for (const struct disk *at = d; at; at = a->chain ? disk_parent(at) : NULL)
		json_array_append_new(all, info_json(at));
	if (a->json)
		print_json(json_incref(a->chain ? all : json_array_get(all, 0)));
	else
		for (size_t n = 0; n < json_array_size(all); n++) {
			printf("%s", n ? "\n" : "");
			print_plain(json_array_get(all, n));
		}
	json_decref(all);
	return disk_access_close(d, 0);
}

static int verb_map(struct arguments *a)
{
	static const char *const kinds[] = { "parent", "zero", "data" };
	struct disk *d;
	int code = disk_cli_open(a, a->file, a->format, ACTION_INSPECT, &d);
	int error = 0;
	json_t *all = json_array();
	struct disk_range range = { .bytes = 0 };

	for (uint64_t at = 0; !code && !error && at < disk_size_bytes(d); at += range.bytes) {
		error = disk_range(d, at, disk_size_bytes(d) - at, &range);
		if (!error && a->json)
			json_array_append_new(
				all, json_pack("{s:I, s:I, s:s}", "start", (json_int_t)at, "length",
					       (json_int_t)range.bytes, "kind", kinds[range.kind]));
		else if (!error)
			printf("%16lu %16lu %s\n", at, range.bytes, kinds[range.kind]);
	}
	if (!code && a->json)
		print_json(json_incref(all));
	json_decref(all);
	if (code)
		return code;
	return disk_access_close(d, error ? disk_access_failed(a->file, error) : 0);
}

static int whole_sectors(const struct disk *d, uint64_t bytes, const char *path)
{
	if (!(bytes & (disk_sector_bytes(d) - 1)))
		return 0;
	return complain(
		EXIT_USAGE, "an offset, length or size that is no whole number of sectors", path,
		disk_sector_bytes(d) == 512 ? "say a multiple of 512" : "say a multiple of 4096");
}

static int copy_out(struct disk *d, const struct arguments *a, uint8_t *buffer)
{
	for (uint64_t done = 0; done < a->length;) {
		size_t n = a->length - done < COPY_BYTES ? a->length - done : COPY_BYTES;
		int error = disk_read(d, a->offset + done, buffer, n);

		if (error)
			return disk_access_failed(a->file, error);
		if (fwrite(buffer, 1, n, stdout) != n)
			return complain(EXIT_UNUSABLE, strerror(errno), "standard output",
					"make room");
		done += n;
	}
	return fflush(stdout)
		       ? complain(EXIT_UNUSABLE, strerror(errno), "standard output", "make room")
		       : 0;
}

static int verb_read(struct arguments *a)
{
	struct disk *d;
	int code = disk_cli_open(a, a->file, a->format, ACTION_EXPORT, &d);
	uint8_t *buffer = malloc(COPY_BYTES);

	if (code) {
		free(buffer);
		return code;
	}
	code = whole_sectors(d, a->offset | a->length, a->file);
	if (!code && !a->has_length)
		a->length = a->offset < disk_size_bytes(d) ? disk_size_bytes(d) - a->offset : 0;
	code = disk_access_close(d, code ? code : copy_out(d, a, buffer));
	free(buffer);
	return code;
}

static int copy_in(struct disk *d, const struct arguments *a, FILE *from, uint8_t *buffer)
{
	uint64_t at = a->offset;
	size_t n;

	while ((n = fread(buffer, 1, COPY_BYTES, from))) {
		size_t whole = (n + disk_sector_bytes(d) - 1) / disk_sector_bytes(d) *
			       disk_sector_bytes(d);
		int error = 0;

		if (whole != n) /* the rest of the last sector stays as it is */
			error = disk_read(d, at + whole - disk_sector_bytes(d), buffer + COPY_BYTES,
					  disk_sector_bytes(d));
		if (whole != n && !error)
			memcpy(buffer + n, buffer + COPY_BYTES + n % disk_sector_bytes(d),
			       whole - n);
		if (!error)
			error = disk_write(d, at, buffer, whole);
		if (error)
			return disk_access_failed(a->file, error);
		at += n;
	}
	if (!ferror(from))
		return 0;
	return complain(EXIT_UNUSABLE, strerror(errno), a->from ? a->from : "standard input",
			"name a file that can be read");
}

static int verb_write(struct arguments *a)
{
	FILE *from = a->from ? fopen(a->from, "rb") : stdin;
	uint8_t *buffer = malloc(COPY_BYTES + SECTOR_MAX_BYTES);
	struct disk *d;
	int code;

	if (!from) {
		free(buffer);
		return complain(EXIT_UNUSABLE, strerror(errno), a->from,
				"name a file that can be read");
	}
	code = disk_cli_open(a, a->file, a->format, ACTION_WRITE, &d);
	if (!code) {
		code = whole_sectors(d, a->offset, a->file);
		code = disk_access_close(d, code ? code : copy_in(d, a, from, buffer));
	}
	if (a->from)
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
	struct progress p;
	int error;

	progress_begin(&p, disk_size_bytes(from));
	error = disk_copy(from, to, &(struct disk_job){ .step = step, .context = &p }, why);
	progress_end(&p);
	return error;
}

/* Into a file that is there, and empty. */
static int convert_into(const struct arguments *a, struct disk *from, const char *path)
{
	struct disk_error why;
	struct disk *to;
	/* past the cache: it is written once, and has to reach the host's disk anyway */
	int code = disk_cli_open_with(a, path, a->to, IMAGE_ACTION(ACTION_WRITE),
				      (struct disk_options){ .write = true, .direct = true }, &to);
	int error;

	if (code)
		return code;
	error = copy_disk(from, to, &why);
	if (error)
		code = making_refused(a->other, error, &why);
	if (!code) {
		error = image_carry(from, to);
		code = error ? disk_access_failed(a->other, error) : 0;
	}
	if (!code)
		disk_access_note(to, "converted",
				 json_pack("{s:s%}", "from", a->file, strlen(a->file)));
	return disk_access_close(to, code);
}

static int verb_convert(struct arguments *a)
{
	struct disk_create what = { .fixed = a->fixed, .block_bytes = (uint32_t)a->block };
	const char *unfinished;
	struct disk *from;
	struct disk_error why;
	int code = a->other ? 0
			    : complain(EXIT_USAGE, "no target given", a->file,
				       "see umbra disk --help");
	int error;

	if (!code)
		code = disk_parse_format(a->to, &what.format);
	if (!code)
		code = disk_cli_open(a, a->file, a->from, ACTION_EXPORT, &from);
	if (code)
		return code;
	what.size_bytes = disk_size_bytes(from);
	what.logical_sector_bytes = disk_sector_bytes(from);
	code = making_begin(a->other, &unfinished);
	if (code)
		return disk_access_close(from, code);
	error = disk_create(unfinished, &what, &why);
	code = error ? making_refused(a->other, error, &why) : convert_into(a, from, unfinished);
	code = making_end(a->other, code);
	return disk_access_close(from, code);
}

static int compare(struct disk *one, struct disk *other, uint64_t *ret_at)
{
	uint8_t *buffer = malloc(2 * (size_t)COPY_BYTES);
	uint64_t all = disk_size_bytes(one);
	struct progress p;
	int error = buffer ? 0 : -ENOMEM;
	int differ = 0;

	progress_begin(&p, all);
	for (uint64_t at = 0, n; at < all && !error && !differ; at += n) {
		n = all - at < COPY_BYTES ? all - at : COPY_BYTES;
		error = disk_read(one, at, buffer, n);
		if (!error)
			error = disk_read(other, at, buffer + COPY_BYTES, n);
		differ = !error && memcmp(buffer, buffer + COPY_BYTES, n);
		for (*ret_at = at;
		     differ && buffer[*ret_at - at] == buffer[*ret_at - at + COPY_BYTES];)
			++*ret_at;
		progress_show(&p, at + n);
	}
	free(buffer);
	return error ? error : differ;
}

/* differ_at NULL: the contents are the same. */
static void say_compared(const struct arguments *a, const struct disk *one,
			 const struct disk *other, const uint64_t *differ_at)
{
	uint64_t size = disk_size_bytes(one);
	uint64_t other_size = disk_size_bytes(other);
	json_t *j = json_pack("{s:b, s:I, s:I}", "same", !differ_at, "size", (json_int_t)size,
			      "other-size", (json_int_t)other_size);

	if (differ_at && size == other_size)
		json_object_set_new(j, "differs-from", json_integer((json_int_t)*differ_at));
	if (a->json)
		print_json(json_incref(j));
	else if (size != other_size)
		printf("sizes differ: %lu and %lu\n", size, other_size);
	else if (differ_at)
		printf("contents differ from byte %lu on\n", *differ_at);
	json_decref(j);
}

static int verb_compare(struct arguments *a)
{
	struct disk *one, *other;
	uint64_t at = 0;
	bool same_size;
	int result;
	int code = a->other ? 0
			    : complain(EXIT_USAGE, "no other file given", a->file,
				       "see umbra disk --help");

	if (!code)
		code = disk_cli_open(a, a->file, a->format, ACTION_READ, &one);
	if (code)
		return code;
	code = disk_cli_open(a, a->other, a->other_format ? a->other_format : a->format,
			     ACTION_READ, &other);
	if (code)
		return disk_access_close(one, code);
	same_size = disk_size_bytes(one) == disk_size_bytes(other);
	result = same_size ? compare(one, other, &at) : 1;
	code = result < 0 ? disk_access_failed(a->file, result) : result;
	if (result >= 0)
		say_compared(a, one, other, result ? &at : NULL);
	return disk_access_close(one, disk_access_close(other, code));
}

static int verb_resize(struct arguments *a)
{
	struct disk *d;
	int code = a->has_size ? 0 : complain(EXIT_USAGE, "no size given", a->file, "say --size S");
	int error;

	if (!code)
		code = disk_cli_open(a, a->file, a->format, ACTION_WRITE, &d);
	if (code)
		return code;
	code = whole_sectors(d, a->size, a->file);
	if (code)
		return disk_access_close(d, code);
	error = disk_resize(d, a->size);
	if (error == -EBUSY)
		code = complain(EXIT_UNUSABLE, "holds data beyond that size", a->file,
				"name a larger size");
	else if (error)
		code = disk_access_failed(a->file, error);
	else
		disk_access_note(d, "resized", json_pack("{s:I}", "size", (json_int_t)a->size));
	return disk_access_close(d, code);
}

static int verb_snapshot(struct arguments *a)
{
	struct disk_create what = { .format = DISK_VHDX, .parent = a->file };
	int error = disk_parse_format(a->format, &what.parent_format);

	if (error)
		return error;
	if (!a->other)
		return complain(EXIT_USAGE, "no child given", a->file,
				"say umbra disk snapshot FILE CHILD");
	if (what.parent_format ==
	    DISK_VHD) /* the child is what its parent is, where that has children */
		what.format = DISK_VHD;
	error = disk_cli_may_fork(a, a->file, a->format);
	return error ? error : make_file(a, a->other, &what);
}

/* --socket: FILE is the new child of a snapshot, and nothing for the others. */
static int ask_server(const struct arguments *a, const char *what)
{
	bool known = (!strcmp(what, "commit") || !strcmp(what, "stream")) && !a->file;

	if (!strcmp(what, "snapshot"))
		known = a->file && !a->other;
	else if (!strcmp(what, "resize"))
		known = a->has_size && !a->file;

	return known ? disk_ask_server(a, what, a->file)
		     : complain(EXIT_USAGE, "not of a disk that is being served", what,
				"see umbra disk --help");
}

int verb_disk(int argc, char **argv)
{
	static const struct { const char *name; int (*verb)(struct arguments *a);
	} verbs[] = {
		{ "create", verb_create },
		{ "info", verb_info },
		{ "check", verb_disk_check },
		{ "map", verb_map },
		{ "read", verb_read },
		{ "write", verb_write },
		{ "convert", verb_convert },
		{ "compare", verb_compare },
		{ "resize", verb_resize },
		{ "snapshot", verb_snapshot },
		{ "commit", verb_disk_commit },
		{ "stream", verb_disk_stream },
		{ "rebase", verb_disk_rebase },
		{ "compact", verb_disk_compact },
		{ "export-changes", verb_disk_export_changes },
		{ "repair-link", verb_disk_repair_link },
		{ "freeze", verb_disk_freeze },
		{ "serve", verb_disk_serve },
	};
	struct arguments a = { 0 };
	int code;

	if (argc >= 2 && !strcmp(argv[1], "--help")) {
		fputs(help, stdout);
		return 0;
	}
	for (size_t n = 0; argc >= 2 && n < sizeof(verbs) / sizeof(verbs[0]); n++)
		if (!strcmp(argv[1], verbs[n].name)) {
			code = parse(argc - 1, argv + 1, &a);
			if (!code && a.socket && strcmp(argv[1], "serve"))
				return ask_server(&a, argv[1]);
			return code ? code : verbs[n].verb(&a);
		}
	return complain(EXIT_USAGE, "no such verb", argc >= 2 ? argv[1] : "disk",
			"see umbra disk --help");
}
