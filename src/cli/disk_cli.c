/* Opening, closing and refusing disks for the verbs; progress on a terminal. */
#include "disk_cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int disk_parse_format(const char *text, enum disk_format *ret)
{
	if (disk_format_parse(text ? text : "vhdx", ret))
		return 0;
	return complain(EXIT_USAGE, "not a format", text, "say vhdx, vhd, raw, qcow2 or vmdk");
}

/* ---- errors ---- */

static const char *remedy(int error)
{
	switch (error) {
	case -ESTALE: return "see what differs with umbra disk check --chain; open it with the parent it was made on, or accept this one with repair-link";
	case -EPERM: return "allow the parent's place with --parents";
	case -EROFS: return "thaw it with umbra disk freeze --undo, or use another file";
	case -EBUSY: return "try again when it is free";
	case -EUCLEAN: return "open it for writing once";
	case -ENOENT: return "name a file that is there, or the place of its parent with --parents";
	case -EEXIST: return "name a new file";
	case -EIO: return "look at the host's storage; what was not flushed before is lost";
	case -EBADMSG: return "restore it from a copy";
	default: return "see umbra disk --help";
	}
}

int disk_refuse(int error, const struct disk_error *e)
{
	int code = error == -EPERM ? EXIT_POLICY : error == -EINVAL ? EXIT_USAGE : EXIT_UNUSABLE;

	fprintf(stderr, "umbra: %s; %s\n", e->text, remedy(error));
	return code;
}

int disk_io_failed(const char *path, int error)
{
	const char *what = error == -ESTALE ? "a parent's content is not what the child was made on" : strerror(-error);

	return complain(EXIT_UNUSABLE, what, path, remedy(error));
}

/* The user's catalog knows where images were seen. */
static int find_in_catalog(void *context, struct guid data_id, char **ret)
{
	char path[4096];
	struct catalog *c;
	int error = cli_user_file("XDG_DATA_HOME", ".local/share", "catalog.db", path, sizeof(path));

	(void)context;
	if (error || access(path, R_OK) || catalog_open(path, &c))
		return -ENOENT;
	error = catalog_find_data(c, data_id, ret);
	catalog_close(c);
	return error;
}

struct disk_options disk_cli_options(const struct arguments *a, enum disk_format format)
{
	return (struct disk_options){ .format = format, .parents = a->place_count ? a->places : NULL, .find = find_in_catalog, .direct = a->direct };
}

int disk_cli_open_with(const struct arguments *a, const char *path, const char *format, unsigned actions, struct disk_options more, struct disk **ret)
{
	struct disk_options o;
	struct image_refusal r;
	struct disk_error e;
	enum disk_format is;
	char user[4096];
	int error = disk_parse_format(format, &is);

	if (error)
		return error;
	o = disk_cli_options(a, is);
	o.write = more.write;
	o.accept_changed = more.accept_changed;
	o.thaw = more.thaw;
	o.direct |= more.direct;
	error = image_open(path, &o, actions, &(struct image_opener){ disk_cli_policies(user, sizeof(user)), a->override, "umbra disk" }, ret, &r, &e);
	if (error && r.rule[0])
		return disk_cli_forbidden(path, &r);
	if (error == -ESTALE)
		disk_cli_last_change(path, &o, e.text + strlen(e.text), sizeof(e.text) - strlen(e.text));
	return error ? disk_refuse(error, &e) : 0;
}

int disk_cli_open(const struct arguments *a, const char *path, const char *format, enum image_action action, struct disk **ret)
{
	const struct disk_options o = { .write = action == ACTION_WRITE || action == ACTION_ANNOTATE };

	return disk_cli_open_with(a, path, format, IMAGE_ACTION(action), o, ret);
}

int disk_cli_close(struct disk *d, int code)
{
	char path[256];
	int error;

	snprintf(path, sizeof(path), "%s", disk_path(d));
	error = disk_close(d);
	return code ? code : error ? disk_io_failed(path, error) : 0;
}

/* ---- output ---- */

void print_json(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	puts("");
	json_decref(j);
}

void print_safely(const char *text)
{
	for (; *text; text++)
		putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

/* ---- progress on a terminal ---- */

static double seconds_since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

void progress_begin(struct progress *p, uint64_t all)
{
	*p = (struct progress){ .all = all, .on = isatty(STDERR_FILENO) };
	clock_gettime(CLOCK_MONOTONIC, &p->begin);
}

void progress_show(struct progress *p, uint64_t done)
{
	double seconds = seconds_since(&p->begin), rate = seconds > 0 ? (double)done / seconds : 0;

	if (!p->on || !p->all || (done < p->all && done - p->shown < p->all / 200 + 1))
		return;
	p->shown = done;
	fprintf(stderr, "\r%5.1f %%  ", 100.0 * (double)done / (double)p->all);
	if (!p->plain)
		fprintf(stderr, "%6.0f MiB/s  ", rate / 1048576);
	fprintf(stderr, "%4.0f s left ", rate > 0 ? (double)(p->all - done) / rate : 0);
	if (done == p->all)
		progress_end(p);
}

void progress_end(struct progress *p)
{
	if (p->on && p->shown)
		fputc('\n', stderr);
	p->shown = 0;
}
