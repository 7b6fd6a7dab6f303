/* umbra image: what an image says about itself, and the catalog of a shelf of them. */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_cli.h"
#include "image_cli.h"

static const char help[] =
	"usage: umbra image scan FILE [--digests | --packages-only]\n"
	"       umbra image get FILE [KEY]    umbra image set FILE KEY=VALUE... | --from JSON    umbra image tag FILE [TAG | -TAG]...\n"
	"       umbra image packages FILE [PATTERN]    umbra image files FILE [PATTERN]    umbra image export FILE --to spdx|cyclonedx\n"
	"       umbra image history FILE    umbra image policy FILE [read|write|fork|export|attach]\n"
	"       umbra image key NEW    umbra image sign FILE --key KEY    umbra image verify FILE [--key KEY.pub | --key HEX]\n"
	"       umbra image keep FILE NAME [--from DATA]    umbra image fetch FILE NAME > DATA    umbra image drop FILE NAME\n"
	"       umbra image index DIRECTORY... [--catalog C]    umbra image search QUERY [--explain] [--limit N] [--catalog C]\n"
	"All take --format raw, vhd, qcow2 or vmdk (vhdx when nothing is said); other formats keep what they say in FILE.umbra. All that\n"
	"print take --json.\n"
	"KEY is title, compatible, expires, rights, patches, network, tags, configuration, saved-states, extensions or policy, and names\n"
	"below it with dots; VALUE is JSON or text, nothing removes. A QUERY is for example\n"
	"       os:debian pkg:\"openssl<3.0.15\" file:/etc/nginx/* tag:web not:expired\n"
	"Policies: the image's own (umbra image set FILE policy.no-export=true), ~/.config/umbra/policy.json, /etc/umbra/policy.json; see\n"
	"docs/image.md. Ends 0; 1 nothing found, or not as signed; 64 usage; 65 unusable file; 78 a policy.\n";

enum { VALUES = 256, KEPT_BYTES = 31 << 20 };

struct image_arguments {
	struct arguments disk;
	const char *values[VALUES], *key, *catalog, *limit;
	unsigned count;
	bool digests, packages_only, explain;
};

static int parse(int argc, char **argv, struct image_arguments *a)
{
	static const struct option longs[] = {
		{ "digests", 0, 0, 'd' }, { "packages-only", 0, 0, 'p' }, { "from", 1, 0, 'f' }, { "to", 1, 0, 't' }, { "key", 1, 0, 'k' }, { "catalog", 1, 0, 'c' },
		{ "limit", 1, 0, 'l' }, { "json", 0, 0, 'j' }, { "explain", 0, 0, 'e' }, { "format", 1, 0, 'F' }, { "parents", 1, 0, 'P' }, { "override", 1, 0, 'V' },
		{ "help", 0, 0, 'h' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1 || (optind < argc && a->count < VALUES)) {
		switch (c) {
		case -1: /* words may begin with a dash: tags that go */
			a->values[a->count++] = argv[optind++];
			while (optind < argc && argv[optind][0] == '-' && argv[optind][1] && argv[optind][1] != '-' && a->count < VALUES)
				a->values[a->count++] = argv[optind++];
			break;
		case 'd': a->digests = true; break;
		case 'p': a->packages_only = true; break;
		case 'f': a->disk.from = optarg; break;
		case 't': a->disk.to = optarg; break;
		case 'k': a->key = optarg; break;
		case 'c': a->catalog = optarg; break;
		case 'l': a->limit = optarg; break;
		case 'j': a->disk.json = true; break;
		case 'e': a->explain = true; break;
		case 'F': a->disk.format = optarg; break;
		case 'P':
			if (a->disk.place_count == PLACES)
				return complain(EXIT_USAGE, "more places than 16", optarg, "name a directory above them");
			a->disk.places[a->disk.place_count++] = optarg;
			break;
		case 'V': a->disk.override = optarg; break;
		case 'h': fputs(help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	}
	if (optind < argc)
		return complain(EXIT_USAGE, "too many arguments", argv[optind], "do it in two steps");
	a->disk.file = a->count ? a->values[0] : NULL;
	return a->count ? 0 : complain(EXIT_USAGE, "nothing is named", "image", "see umbra image --help");
}

static int open_image(const struct image_arguments *a, enum image_action action, struct disk **ret)
{
	return disk_cli_open(&a->disk, a->disk.file, a->disk.format, action, ret);
}

static int failed(const char *path, int error)
{
	switch (error) {
	case -EBADMSG: return complain(EXIT_UNUSABLE, "what it says about itself is not sound", path, "restore it from a copy");
	case -ENOTSUP: return complain(EXIT_UNUSABLE, "what it says is of a later version", path, "use a later umbra");
	case -EFBIG: return complain(EXIT_UNUSABLE, "there is no room for that much", path, "see the limits in docs/image.md");
	default: return disk_access_failed(path, error);
	}
}

static int failed_content(const char *path, int error)
{
	return error == -ENOENT ? complain(EXIT_UNUSABLE, "it was never scanned for that", path, "say umbra image scan") : failed(path, error);
}

/* ---- what it says ---- */

static void say_scanned(const struct image_arguments *a, const json_t *about, bool unchanged)
{
	json_t *packages = json_object_get(about, "packages"), *files = json_object_get(about, "files"), *os = image_get(about, "os.name");

	if (a->disk.json) {
		print_json(json_pack("{s:b, s:O?, s:O?, s:O?}", "unchanged", unchanged, "os", os, "packages", packages, "files", files));
		return;
	}
	printf("%s: ", unchanged ? "not changed since the last scan" : "scanned");
	print_safely(os ? json_string_value(os) ?: "?" : "no operating system known");
	printf(", %lld packages, %lld files\n", (long long)json_integer_value(packages), (long long)json_integer_value(files));
}

static int verb_scan(struct image_arguments *a)
{
	const struct scan_options o = { .files = !a->packages_only, .digests = a->digests };
	bool unchanged = false;
	struct disk *d;
	json_t *about;
	int code = open_image(a, ACTION_ANNOTATE, &d), error;

	if (code)
		return code;
	error = image_scan(d, &o, &unchanged);
	if (!error && !unchanged)
		error = image_add_history(d, "umbra image", "scanned", NULL);
	if (!error && !image_load_about(d, &about)) {
		say_scanned(a, about, unchanged);
		json_decref(about);
	}
	return disk_access_close(d, error ? failed(a->disk.file, error) : 0);
}

/* For reading only: the names of kept files are a section of their own. */
static int add_kept(struct disk *d, json_t *about)
{
	json_t *kept;
	int error = image_load_kept(d, &kept);

	if (!error && json_object_size(kept))
		json_object_set(about, "kept", kept);
	json_decref(kept);
	return error;
}

static int verb_get(struct image_arguments *a)
{
	struct disk *d;
	json_t *about;
	const json_t *value = NULL;
	int code = open_image(a, ACTION_INSPECT, &d), error;

	if (code)
		return code;
	error = image_load_about(d, &about);
	if (!error)
		error = add_kept(d, about);
	if (error)
		return disk_access_close(d, failed(a->disk.file, error));
	value = a->count > 1 ? image_get(about, a->values[1]) : about;
	if (json_is_string(value) && !a->disk.json) {
		print_safely(json_string_value(value));
		puts("");
	} else if (value)
		print_json(json_incref((json_t *)(uintptr_t)value));
	code = value ? 0 : 1;
	json_decref(about);
	return disk_access_close(d, code);
}

static int set_one(json_t *about, const char *assignment)
{
	int error = image_set(about, assignment);

	if (!error)
		return 0;
	return complain(EXIT_USAGE, error == -EILSEQ ? "a value that is no text" : "not a KEY=VALUE of an image", assignment, "see umbra image --help for the keys");
}

/* Every section of a JSON file. */
static int set_from(json_t *about, const char *path)
{
	json_error_t where;
	json_t *all = json_load_file(path, JSON_REJECT_DUPLICATES, &where), *value;
	const char *key;
	int code = 0;

	if (!json_is_object(all)) {
		json_decref(all);
		return complain(EXIT_UNUSABLE, all ? "not a JSON object" : where.text, path, "see docs/image.schema.json");
	}
	json_object_foreach(all, key, value)
	{
		char *name = NULL;

		if (asprintf(&name, "%s=1", key) < 0 || image_set(about, name))
			code = complain(EXIT_USAGE, "not a key of an image", key, "see umbra image --help for the keys");
		else
			json_object_set(about, key, value);
		free(name);
	}
	json_decref(all);
	return code;
}

static int change_about(struct image_arguments *a, int (*change)(struct image_arguments *a, json_t *about), const char *event)
{
	struct disk *d;
	char why[160];
	json_t *about = NULL, *changes = json_array();
	int code = open_image(a, ACTION_ANNOTATE, &d), error;

	if (code) {
		json_decref(changes);
		return code;
	}
	error = image_load_about(d, &about);
	code = error ? failed(a->disk.file, error) : change(a, about);
	if (!code && image_check_about(about, why))
		code = complain(EXIT_USAGE, why, a->disk.file, "see docs/image.md and docs/image.schema.json");
	for (unsigned n = 1; n < a->count && n < 20; n++)
		json_array_append_new(changes, json_stringn(a->values[n], strlen(a->values[n]) < 200 ? strlen(a->values[n]) : 200));
	if (!code) {
		error = image_save_about(d, about);
		if (!error)
			error = image_add_history(d, "umbra image", event, json_pack("{s:O}", "what", changes));
		code = error ? failed(a->disk.file, error) : 0;
	}
	json_decref(changes);
	json_decref(about);
	return disk_access_close(d, code);
}

static int set_values(struct image_arguments *a, json_t *about)
{
	int code = a->disk.from ? set_from(about, a->disk.from) : a->count < 2 ? complain(EXIT_USAGE, "nothing to set", a->disk.file, "say KEY=VALUE") : 0;

	for (unsigned n = 1; n < a->count && !code; n++)
		code = set_one(about, a->values[n]);
	return code;
}

static int verb_set(struct image_arguments *a) { return change_about(a, set_values, "set"); }

static size_t find_tag(const json_t *tags, const char *tag)
{
	size_t n = 0;

	while (n < json_array_size(tags) && strcmp(json_string_value(json_array_get(tags, n)) ?: "", tag))
		n++;
	return n;
}

static int set_tags(struct image_arguments *a, json_t *about)
{
	json_t *tags = json_object_get(about, "tags");

	if (!json_is_array(tags)) {
		tags = json_array();
		json_object_set_new(about, "tags", tags);
	}
	for (unsigned n = 1; n < a->count; n++) {
		const char *tag = a->values[n];
		size_t at = find_tag(tags, *tag == '-' ? tag + 1 : tag);

		if (*tag == '-')
			json_array_remove(tags, at);
		else if (at == json_array_size(tags) && json_array_append_new(tags, json_string(tag)))
			return complain(EXIT_USAGE, "a tag that is no text", a->disk.file, "use UTF-8");
	}
	return 0;
}

static int verb_tag(struct image_arguments *a)
{
	if (a->count > 1)
		return change_about(a, set_tags, "tagged");
	a->values[a->count++] = "tags";
	return verb_get(a);
}

static int verb_packages(struct image_arguments *a)
{
	struct disk *d;
	json_t *content, *p, *all = json_array();
	size_t n;
	int code = open_image(a, ACTION_INSPECT, &d), error, found = 0;

	if (code)
		return code;
	error = image_load_content(d, &content);
	if (error)
		return disk_access_close(d, failed_content(a->disk.file, error));
	json_array_foreach(json_object_get(content, "packages"), n, p)
	{
		const char *name = json_string_value(json_object_get(p, "name")), *version = json_string_value(json_object_get(p, "version"));

		if (!name || !version || (a->count > 1 && fnmatch(a->values[1], name, 0)))
			continue;
		found++;
		if (a->disk.json) {
			json_array_append(all, p);
			continue;
		}
		print_safely(name);
		putchar(' ');
		print_safely(version);
		puts("");
	}
	if (a->disk.json)
		print_json(json_incref(all));
	json_decref(all);
	json_decref(content);
	return disk_access_close(d, found ? 0 : 1);
}

static int verb_files(struct image_arguments *a)
{
	struct disk *d;
	json_t *files, *entry, *all = json_array();
	const char *path;
	int code = open_image(a, ACTION_INSPECT, &d), error, found = 0;

	if (code)
		return code;
	error = image_load_files(d, &files);
	if (error)
		return disk_access_close(d, failed_content(a->disk.file, error));
	json_object_foreach(files, path, entry)
	{
		if (a->count > 1 && fnmatch(a->values[1], path, 0))
			continue;
		found++;
		if (a->disk.json) {
			json_array_append_new(all, json_pack("{s:s, s:O?, s:O?, s:O?}", "path", path, "bytes", json_array_get(entry, 0), "time",
				json_array_get(entry, 1), "blake2b", json_array_get(entry, 2)));
			continue;
		}
		printf("%12lld ", (long long)json_integer_value(json_array_get(entry, 0)));
		printf("%.64s%s", json_string_value(json_array_get(entry, 2)) ?: "", json_array_size(entry) > 2 ? " " : "");
		print_safely(path);
		puts("");
	}
	if (a->disk.json)
		print_json(json_incref(all));
	json_decref(all);
	json_decref(files);
	return disk_access_close(d, found ? 0 : 1);
}

static int verb_export(struct image_arguments *a)
{
	bool spdx = a->disk.to && !strcmp(a->disk.to, "spdx");
	struct disk *d;
	json_t *about = NULL, *content = NULL, *out;
	int code = 0, error;

	if (!spdx && (!a->disk.to || strcmp(a->disk.to, "cyclonedx")))
		return complain(EXIT_USAGE, "no format to export to", a->disk.file, "say --to spdx or --to cyclonedx");
	code = open_image(a, ACTION_INSPECT, &d);
	if (code)
		return code;
	error = image_load_about(d, &about);
	if (!error)
		error = image_load_content(d, &content);
	if (!error) {
		out = spdx ? image_to_spdx(about, content, a->disk.file) : image_to_cyclonedx(about, content, a->disk.file);
		print_json(out);
	}
	json_decref(about);
	json_decref(content);
	return disk_access_close(d, error ? failed_content(a->disk.file, error) : 0);
}

/* ---- history, policies, signatures ---- */

static void print_entry(const json_t *entry)
{
	static const char *const keys[] = { "time", "host", "by", "event" };
	const char *key;
	json_t *value;

	for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++) {
		print_safely(json_string_value(json_object_get(entry, keys[n])) ?: "?");
		putchar(n < 3 ? ' ' : ':');
	}
	json_object_foreach((json_t *)(uintptr_t)entry, key, value)
	{
		static const char *const plain[] = { "reason", "from", "what", "end", "size", "read-only" };
		char *text = NULL;

		for (size_t n = 0; n < sizeof(plain) / sizeof(plain[0]) && !text; n++)
			text = strcmp(key, plain[n]) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT);
		if (text)
			printf(" %s %s", key, text);
		free(text);
	}
	puts("");
}

static int verb_history(struct image_arguments *a)
{
	struct disk *d;
	json_t *history, *entry;
	size_t wrong = 0, n;
	int code = open_image(a, ACTION_INSPECT, &d), error;

	if (code)
		return code;
	error = image_load_history(d, &history);
	if (error)
		return disk_access_close(d, failed(a->disk.file, error));
	if (a->disk.json)
		print_json(json_incref(history));
	else
		json_array_foreach(history, n, entry)
			print_entry(entry);
	if (image_verify_history(history, &wrong)) {
		fprintf(stderr, "umbra: %s: entry %zu of its history is not the one that was written; trust none from there on\n", a->disk.file, wrong + 1);
		code = EXIT_UNUSABLE;
	}
	json_decref(history);
	return disk_access_close(d, code);
}

/* Whether an action would be allowed now; without one, which are. */
static int verb_policy(struct image_arguments *a)
{
	static const char *const names[] = { "read", "write", "fork", "export", "attach" };
	struct disk *d;
	int code = open_image(a, ACTION_INSPECT, &d), result = 0;
	bool known = a->count < 2;
	json_t *all = json_object();

	if (code) {
		json_decref(all);
		return code;
	}
	for (int n = ACTION_READ; n <= ACTION_ATTACH; n++) {
		struct disk_error why;
		bool allowed;

		if (a->count > 1 && strcmp(a->values[1], names[n]))
			continue;
		known = true;
		allowed = !disk_cli_allows(d, (enum image_action)n, &why);
		result = allowed ? result : EXIT_POLICY;
		if (a->disk.json)
			json_object_set_new(all, names[n], json_pack("{s:b, s:s*}", "allowed", allowed, "why", allowed ? NULL : why.text));
		else
			printf("%-7s %s%s\n", names[n], allowed ? "yes" : "no: ", allowed ? "" : why.text);
	}
	if (a->disk.json && known)
		print_json(json_incref(all));
	json_decref(all);
	return disk_access_close(d, known ? result : complain(EXIT_USAGE, "not an action", a->values[1], "say read, write, fork, export or attach"));
}

static int verb_key(struct image_arguments *a)
{
	int error = image_make_key(a->disk.file);

	return error ? disk_access_failed(a->disk.file, error) : 0;
}

static int verb_sign(struct image_arguments *a)
{
	struct disk *d;
	int code = a->key ? open_image(a, ACTION_ANNOTATE, &d) : complain(EXIT_USAGE, "no key given", a->disk.file, "say --key KEY, from umbra image key"), error;

	if (code)
		return code;
	error = image_sign(d, a->key);
	return disk_access_close(d, error == -EBADMSG ? complain(EXIT_UNUSABLE, "not a key, or a history that is not sound", a->key, "make one with umbra image key") :
				 error		  ? failed(a->disk.file, error) :
						    0);
}

/* The key that is asked for: of a file, or as it is. */
static void wanted_key(const char *text, char key[65])
{
	FILE *from = fopen(text, "r");

	if (!from || !fgets(key, 65, from))
		snprintf(key, 65, "%s", text);
	if (from)
		fclose(from);
	key[strcspn(key, "\n")] = 0;
}

static int verb_verify(struct image_arguments *a)
{
	char key[65], wanted[65] = "";
	const char *what;
	struct disk *d;
	int code = open_image(a, ACTION_INSPECT, &d), error;

	if (code)
		return code;
	error = image_verify(d, false, key, &what);
	if (a->key)
		wanted_key(a->key, wanted);
	code = !error && (!a->key || !strcmp(key, wanted)) ? 0 : 1;
	if (a->disk.json && (!error || error == -ENOENT || error == -EBADMSG))
		print_json(json_pack("{s:b, s:b, s:s*, s:s*}", "signed", error != -ENOENT, "as-signed", !error, "changed", error == -EBADMSG ? what : NULL, "key",
			key[0] ? key : NULL));
	else if (error == -ENOENT)
		printf("%s: not signed\n", a->disk.file);
	else if (error == -EBADMSG)
		printf("%s: %s is not what was signed\n", a->disk.file, what);
	else if (!error)
		printf("%s: %s %s\n", a->disk.file, code ? "signed with another key:" : "as it was signed with", key);
	return disk_access_close(d, error && error != -ENOENT && error != -EBADMSG ? failed(a->disk.file, error) : code);
}

/* ---- kept files ---- */

static int read_all(const char *path, uint8_t **ret, size_t *ret_bytes)
{
	FILE *from = path ? fopen(path, "rb") : stdin;
	uint8_t *bytes = from ? malloc(KEPT_BYTES + 1) : NULL;
	int error = !from ? -errno : !bytes ? -ENOMEM : 0;

	*ret_bytes = error ? 0 : fread(bytes, 1, KEPT_BYTES + 1, from);
	if (!error && (ferror(from) || *ret_bytes > KEPT_BYTES))
		error = ferror(from) ? -EIO : -EFBIG;
	if (path && from)
		fclose(from);
	*ret = bytes;
	return error;
}

static int verb_keep(struct image_arguments *a)
{
	uint8_t *bytes;
	size_t count;
	struct disk *d;
	int code = a->count == 2 ? 0 : complain(EXIT_USAGE, "no name given", a->disk.file, "say umbra image keep FILE NAME"), error;

	if (code)
		return code;
	error = read_all(a->disk.from, &bytes, &count);
	code = error ? failed(a->disk.from ? a->disk.from : "standard input", error) : open_image(a, ACTION_ANNOTATE, &d);
	if (!code) {
		error = image_keep(d, a->values[1], bytes, count);
		if (!error)
			error = image_add_history(d, "umbra image", "kept", json_pack("{s:s%}", "what", a->values[1], strlen(a->values[1])));
		code = disk_access_close(d, error ? failed(a->values[1], error) : 0);
	}
	free(bytes);
	return code;
}

static int verb_drop(struct image_arguments *a)
{
	struct disk *d;
	int code = a->count == 2 ? open_image(a, ACTION_ANNOTATE, &d) : complain(EXIT_USAGE, "no name given", a->disk.file, "say umbra image drop FILE NAME"), error;

	if (code)
		return code;
	error = image_keep(d, a->values[1], NULL, 0);
	return disk_access_close(d, error ? failed(a->values[1], error) : 0);
}

static int verb_fetch(struct image_arguments *a)
{
	uint8_t *bytes = NULL;
	size_t count = 0;
	struct disk *d;
	int code = a->count == 2 ? open_image(a, ACTION_INSPECT, &d) : complain(EXIT_USAGE, "no name given", a->disk.file, "say umbra image fetch FILE NAME"), error;

	if (code)
		return code;
	error = image_fetch(d, a->values[1], &bytes, &count);
	if (!error && (fwrite(bytes, 1, count, stdout) != count || fflush(stdout)))
		error = -EIO;
	free(bytes);
	if (error == -ENOENT)
		return disk_access_close(d, complain(EXIT_UNUSABLE, "nothing is kept under this name", a->values[1], "see umbra image get FILE kept"));
	return disk_access_close(d, error ? failed(a->disk.file, error) : 0);
}

/* ---- the catalog ---- */

static int verb_index(struct image_arguments *a) { return image_index(a->catalog, a->values, a->count, a->disk.json); }

static int verb_search(struct image_arguments *a)
{
	if (a->count > 1)
		return complain(EXIT_USAGE, "more than one query", a->values[1], "put it in quotes");
	return image_search(a->catalog, a->values[0], a->limit, a->disk.json, a->explain);
}

int verb_image(int argc, char **argv)
{
	static const struct { const char *name; int (*verb)(struct image_arguments *a); } verbs[] = {
		{ "scan", verb_scan }, { "get", verb_get }, { "set", verb_set }, { "tag", verb_tag }, { "packages", verb_packages }, { "files", verb_files },
		{ "export", verb_export }, { "history", verb_history }, { "policy", verb_policy }, { "key", verb_key }, { "sign", verb_sign }, { "verify", verb_verify },
		{ "keep", verb_keep }, { "fetch", verb_fetch }, { "drop", verb_drop }, { "index", verb_index }, { "search", verb_search },
	};
	struct image_arguments a = { 0 };
	int code;

	if (argc >= 2 && !strcmp(argv[1], "--help")) {
		fputs(help, stdout);
		return 0;
	}
	for (size_t n = 0; argc >= 2 && n < sizeof(verbs) / sizeof(verbs[0]); n++)
		if (!strcmp(argv[1], verbs[n].name)) {
			code = parse(argc - 1, argv + 1, &a);
			return code ? code : verbs[n].verb(&a);
		}
	return complain(EXIT_USAGE, "no such verb", argc >= 2 ? argv[1] : "image", "see umbra image --help");
}
