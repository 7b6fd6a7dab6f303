/*
 * umbra disk check, repair-link, freeze: whether a file, and the chain below it, are what they
 * should be.
 */
#include <errno.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_cli.h"

/* What was found: a line each for people, or an object each (file, says, and what `more` has). */
struct findings { bool as_json; json_t *all; };

static void finding(struct findings *f, const char *file, json_t *more, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* `more` may be NULL, and is released. */
static void finding(struct findings *f, const char *file, json_t *more, const char *format, ...)
{
	char text[1024];
	va_list list;

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	for (char *c = text; *c; c++) /* it may have a path that a file told us */
		*c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
	if (f->as_json) {
		json_t *j = json_pack("{s:s%, s:s%}", "file", file, strlen(file), "says", text,
				      strlen(text));

		json_object_update(j, more);
		json_array_append_new(f->all, j);
	} else {
		printf("%s: %s\n", file, text);
	}
	json_decref(more);
}

struct fault_place { struct findings *findings; const char *path; };

static void format_fault(void *context, const char *line)
{
	const struct fault_place *p = context;

	finding(p->findings, p->path, json_pack("{s:s}", "fault", "format"), "%s", line);
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
	struct changes *c = context;
	bool reads = c->child && reads_parent(c->child, offset, bytes);
	json_t *where =
		json_pack("{s:s, s:I, s:I}", "fault", c->child ? "parent-content" : "content",
			  "offset", (json_int_t)offset, "bytes", (json_int_t)bytes);

	c->count++;
	c->affecting += reads;
	if (c->child) {
		json_object_set_new(where, "affects-child", json_boolean(reads));
		finding(c->findings, c->path, where,
			"%lu bytes at %lu are not what %s was made on, which %s them", bytes,
			offset, disk_path(c->child), reads ? "reads" : "covers");
	} else {
		finding(c->findings, c->path, where,
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
static void bring_up_to_date(struct findings *f, const struct arguments *a, const char *path,
			     enum disk_format format)
{
	struct disk_search search;
	struct disk_options o;
	struct disk_error e;
	struct disk *d;

	disk_cli_search(a, &search);
	o = disk_search_options(&search, format);
	o.direct = a->direct;
	o.write = true;
	if (disk_open(path, &o, &d, &e)) {
		finding(f, path, NULL, "its digests cannot be made: %s", e.text);
		return;
	}
	if (!disk_digest(d))
		finding(f, path, NULL, "digests brought up to date");
	disk_close(d);
}

static unsigned check_content(struct findings *f, struct disk *d, bool *ret_stale)
{
	struct changes c = { .findings = f, .path = disk_path(d) };
	int error = disk_verify(d, note_change, &c);

	/* one that is not sound is a fault: --rebuild makes it anew */
	*ret_stale = error == -ENOENT || error == -ESTALE;
	if (error && !*ret_stale) {
		finding(f, disk_path(d), json_pack("{s:s}", "fault", "content"),
			"its content cannot be verified: %s", strerror(-error));
		return 1;
	}
	return c.count;
}

static unsigned check_link(struct findings *f, struct disk *child)
{
	struct disk *parent = disk_parent(child);
	struct changes c = { .findings = f, .child = child, .path = disk_path(parent) };
	struct disk_info i;
	int error;

	disk_info(child, &i);
	if (!i.is_linked)
		finding(f, disk_path(parent), json_pack("{s:s}", "fault", "identifier"),
			"its data identifier is not the one that %s was made on", disk_path(child));
	error = disk_verify_link(child, note_change, &c);
	if (error == -ENOENT)
		finding(f, disk_path(child), NULL, "what %s held when it was made is not known",
			disk_path(parent));
	else if (error)
		finding(f, disk_path(child), json_pack("{s:s}", "fault", "parent-content"),
			"its parent's content cannot be verified: %s", strerror(-error));
	if (!error && !i.is_linked && !c.count)
		finding(f, disk_path(parent), NULL,
			"holds what %s was made on: umbra disk repair-link accepts it",
			disk_path(child));
	else if (!error && c.count)
		finding(f, disk_path(child),
			json_pack("{s:b, s:i}", "affected", c.affecting != 0, "changed-extents",
				  (int)c.count),
			"%s by %u changed extents of its parent",
			c.affecting ? "is affected" : "is not affected", c.count);
	return c.count + !i.is_linked + (error && error != -ENOENT);
}

static unsigned check_one(struct findings *f, const struct arguments *a, struct disk *d,
			  bool *ret_stale)
{
	struct fault_place place = { f, disk_path(d) };
	unsigned faults = (unsigned)disk_check(d, format_fault, &place);

	*ret_stale = false;
	if (!a->quick)
		faults += check_content(f, d, ret_stale);
	if (a->chain && disk_parent(d))
		faults += check_link(f, d);
	return faults;
}

/* The content is right as it is: its digests are made anew. */
static int rebuild(const struct arguments *a)
{
	struct disk *d;
	int code = disk_cli_open(a, a->file, a->format, ACTION_WRITE, &d);
	int error;

	if (code)
		return code;
	error = disk_digest(d);
	return disk_access_close(d, error ? disk_access_failed(a->file, error) : 0);
}

struct stale { char *path; enum disk_format format; };

static unsigned chain_links(struct disk *d)
{
	unsigned links = 0;

	for (; d; d = disk_parent(d))
		links++;
	return links;
}

/* Each file, then what was out of date. Closes the disk. */
static int check_chain(struct findings *f, const struct arguments *a, struct disk *d)
{
	struct stale *stale = calloc(chain_links(d), sizeof(*stale));
	unsigned faults = 0;
	unsigned found = 0;
	int code;

	for (struct disk *at = d; at && stale; at = a->chain ? disk_parent(at) : NULL) {
		bool is_stale;

		faults += check_one(f, a, at, &is_stale);
		if (is_stale)
			stale[found++] =
				(struct stale){ strdup(disk_path(at)), disk_format_of(at) };
	}
	if (!faults)
		finding(f, a->file, NULL, "no fault%s",
			disk_parent(d) ? ", and its parents are what it was made on" : "");
	code = disk_access_close(d, faults || !stale ? EXIT_UNUSABLE : 0);
	for (unsigned n = 0; n < found; n++) {
		if (!faults && stale[n].path && a->digests)
			bring_up_to_date(f, a, stale[n].path, stale[n].format);
		else if (!faults && stale[n].path)
			finding(f, stale[n].path, NULL,
				"has no digests of its data as it is: check --digests makes them");
		free(stale[n].path);
	}
	free(stale);
	return code;
}

int verb_disk_check(struct arguments *a)
{
	struct findings f = { .as_json = a->json };
	struct disk *d;
	int code = disk_cli_open_with(a, a->file, a->format, IMAGE_ACTION(ACTION_INSPECT),
				      (struct disk_options){ .accept_changed = a->chain }, &d);

	if (code)
		return code;
	if (a->rebuild) {
		code = disk_access_close(d, 0);
		return code ? code : rebuild(a);
	}
	f.all = json_array();
	code = check_chain(&f, a, d);
	if (a->json)
		print_json(json_pack("{s:b, s:O}", "sound", !code, "findings", f.all));
	json_decref(f.all);
	return code;
}

/* ---- repair-link ---- */

int verb_disk_repair_link(struct arguments *a)
{
	struct disk_error e;
	struct disk *d;
	int code, error;

	if (!a->reason)
		return complain(EXIT_USAGE, "no reason given", a->file,
				"say why the parent is right as it is: --reason TEXT");
	code = disk_cli_open_with(a, a->file, a->format, IMAGE_ACTION(ACTION_ANNOTATE),
				  (struct disk_options){ .write = true, .accept_changed = true },
				  &d);
	if (code)
		return code;
	error = disk_repair_link(d, &e);
	if (!error)
		disk_access_note(d, "link repaired", json_pack("{s:s}", "reason", a->reason));
	return disk_access_close(d, error ? disk_access_refused(error, &e) : 0);
}

/* ---- freeze ---- */

int verb_disk_freeze(struct arguments *a)
{
	const char *places[PLACES + 2] = { NULL };
	struct disk_error e;
	const char *reason = a->reason ? a->reason : "children are made on it";
	struct disk *d;
	char *copy;
	int error;
	int code = disk_cli_open_with(a, a->file, a->format, IMAGE_ACTION(ACTION_ANNOTATE),
				      (struct disk_options){ .write = true, .thaw = a->undo }, &d);

	if (code)
		return code;
	copy = strdup(a->file);
	places[0] = copy ? dirname(copy) : ".";
	for (unsigned n = 0; n < a->place_count; n++)
		places[n + 1] = a->places[n];
	if (!a->undo)
		disk_access_note(d, "frozen", json_pack("{s:s}", "reason", reason));
	error = a->undo ? disk_thaw(d, places, &e) : disk_freeze(d, reason, &e);
	if (!error && a->undo)
		disk_access_note(d, "thawed", NULL);
	free(copy);
	return disk_access_close(d, error ? disk_access_refused(error, &e) : 0);
}
