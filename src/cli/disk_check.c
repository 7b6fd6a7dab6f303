/* umbra disk check, repair-link, freeze: whether a file, and the chain below it, are what they should be. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_cli.h"

static void print_fault(void *context, const char *line) { printf("%s: %s\n", (const char *)context, line); }

/* Content that is not what digests say, of one file or of a child's parent. */
struct changes { struct disk *child; const char *path; unsigned count, affecting; };

/* Whether the child shows what its parent has there. */
static bool reads_parent(struct disk *child, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes < disk_size_bytes(child) ? offset + bytes : disk_size_bytes(child);
	enum disk_range_kind kind;

	for (uint64_t n; offset < end; offset += n)
		if (disk_range(child, offset, end - offset, &kind, &n) || kind == DISK_RANGE_PARENT)
			return true;
	return false;
}

static int print_change(void *context, uint64_t offset, uint64_t bytes)
{
	struct changes *c = context;
	bool reads = c->child && reads_parent(c->child, offset, bytes);

	c->count++;
	c->affecting += reads;
	if (c->child)
		printf("%s: %lu bytes at %lu are not what %s was made on, which %s them\n", c->path, bytes, offset, disk_path(c->child),
		       reads ? "reads" : "covers");
	else
		printf("%s: %lu bytes at %lu are not what was written by a program that keeps the rules\n", c->path, bytes, offset);
	return 0;
}

/* Digests that are missing or of older data are made anew, where the file can be written. */
static void bring_up_to_date(const struct arguments *a, const char *path, enum disk_format format)
{
	struct disk_options o = { .format = format, .write = true, .parents = a->place_count ? a->places : NULL };
	struct disk_error e;
	struct disk *d;

	if (disk_open(path, &o, &d, &e))
		return;
	if (!disk_digest(d))
		printf("%s: digests brought up to date\n", path);
	disk_close(d);
}

static unsigned check_content(struct disk *d, bool *ret_stale)
{
	struct changes c = { .path = disk_path(d) };
	int error = disk_verify(d, print_change, &c);

	*ret_stale = error == -ENOENT || error == -ESTALE;
	if (error && !*ret_stale) {
		printf("%s: its content cannot be verified: %s\n", disk_path(d), strerror(-error));
		return 1;
	}
	return c.count;
}

static unsigned check_link(struct disk *child)
{
	struct disk *parent = disk_parent(child);
	struct changes c = { .child = child, .path = disk_path(parent) };
	struct disk_info i;
	int error;

	disk_info(child, &i);
	if (!i.is_linked)
		printf("%s: its data identifier is not the one that %s was made on\n", disk_path(parent), disk_path(child));
	error = disk_verify_link(child, print_change, &c);
	if (error == -ENOENT)
		printf("%s: what %s held when it was made is not known\n", disk_path(child), disk_path(parent));
	else if (error)
		printf("%s: its parent's content cannot be verified: %s\n", disk_path(child), strerror(-error));
	if (!error && !i.is_linked && !c.count)
		printf("%s: holds what %s was made on: umbra disk repair-link accepts it\n", disk_path(parent), disk_path(child));
	else if (!error && c.count)
		printf("%s: %s by %u changed extents of its parent\n", disk_path(child), c.affecting ? "is affected" : "is not affected", c.count);
	return c.count + !i.is_linked + (error && error != -ENOENT);
}

static unsigned check_one(const struct arguments *a, struct disk *d, bool *ret_stale)
{
	unsigned faults = (unsigned)disk_check(d, print_fault, (void *)(uintptr_t)disk_path(d));

	*ret_stale = false;
	if (!a->quick)
		faults += check_content(d, ret_stale);
	if (a->chain && disk_parent(d))
		faults += check_link(d);
	return faults;
}

/* The content is right as it is: its digests are made anew. */
static int rebuild(const struct arguments *a)
{
	struct disk *d;
	int code = disk_cli_open(a, a->file, a->format, ACTION_WRITE, &d), error;

	if (code)
		return code;
	error = disk_digest(d);
	return disk_cli_close(d, error ? disk_io_failed(a->file, error) : 0);
}

int verb_disk_check(struct arguments *a)
{
	struct disk *d;
	int code = disk_cli_open_with(a, a->file, a->format, ACTION_INSPECT, (struct disk_options){ .accept_changed = a->chain }, &d);
	struct stale { char *path; enum disk_format format; } *stale = NULL;
	unsigned faults = 0, links = 0, found = 0;

	if (!code && a->rebuild) {
		code = disk_cli_close(d, 0);
		return code ? code : rebuild(a);
	}

	if (code)
		return code;
	for (const struct disk *at = d; at; at = disk_parent((struct disk *)(uintptr_t)at))
		links++;
	stale = calloc(links, sizeof(*stale));
	for (struct disk *at = d; at && stale; at = a->chain ? disk_parent(at) : NULL) {
		bool is_stale;

		faults += check_one(a, at, &is_stale);
		if (is_stale)
			stale[found++] = (struct stale){ strdup(disk_path(at)), disk_format_of(at) };
	}
	if (!faults)
		printf("%s: no fault%s\n", a->file, disk_parent(d) ? ", and its parents are what it was made on" : "");
	code = disk_cli_close(d, faults ? EXIT_UNUSABLE : 0);
	for (unsigned n = 0; n < found; n++) {
		if (!faults && stale[n].path)
			bring_up_to_date(a, stale[n].path, stale[n].format);
		free(stale[n].path);
	}
	free(stale);
	return code;
}

/* ---- repair-link ---- */

int verb_disk_repair_link(struct arguments *a)
{
	struct disk_error e;
	struct disk *d;
	int code, error;

	if (!a->reason)
		return complain(EXIT_USAGE, "no reason given", a->file, "say why the parent is right as it is: --reason TEXT");
	code = disk_cli_open_with(a, a->file, a->format, ACTION_ANNOTATE, (struct disk_options){ .write = true, .accept_changed = true }, &d);
	if (code)
		return code;
	error = disk_repair_link(d, &e);
	if (!error)
		disk_cli_note(d, "link repaired", json_pack("{s:s}", "reason", a->reason));
	return disk_cli_close(d, error ? disk_refuse(error, &e) : 0);
}

/* ---- freeze ---- */

int verb_disk_freeze(struct arguments *a)
{
	const char *places[PLACES + 2] = { NULL };
	struct disk_error e;
	struct disk *d;
	char *copy;
	int code = disk_cli_open_with(a, a->file, a->format, ACTION_ANNOTATE, (struct disk_options){ .write = true, .thaw = a->undo }, &d), error;

	if (code)
		return code;
	copy = strdup(a->file);
	places[0] = copy ? dirname(copy) : ".";
	for (unsigned n = 0; n < a->place_count; n++)
		places[n + 1] = a->places[n];
	if (!a->undo)
		disk_cli_note(d, "frozen", json_pack("{s:s}", "reason", a->reason ? a->reason : "children are made on it"));
	error = a->undo ? disk_thaw(d, places, &e) : disk_freeze(d, a->reason ? a->reason : "children are made on it", &e);
	if (!error && a->undo)
		disk_cli_note(d, "thawed", NULL);
	free(copy);
	return disk_cli_close(d, error ? disk_refuse(error, &e) : 0);
}
