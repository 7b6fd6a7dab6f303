/*
 * Policies and history, for the verbs that open disks. The user's policy is $XDG_CONFIG_HOME/umbra/policy.json (~/.config when that is
 * not set), the system's /etc/umbra/policy.json.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_cli.h"

static const char system_policy[] = "/etc/umbra/policy.json";

int cli_user_file(const char *variable, const char *otherwise, const char *name, char *to, size_t bytes)
{
	const char *base = getenv(variable), *home = getenv("HOME");
	int used = base && *base == '/' ? snprintf(to, bytes, "%s/umbra/%s", base, name) : snprintf(to, bytes, "%s/%s/umbra/%s", home ? home : "", otherwise, name);

	return used < 0 || (size_t)used >= bytes ? -ENAMETOOLONG : 0;
}

struct image_policies disk_cli_policies(char *user, size_t bytes)
{
	int error = cli_user_file("XDG_CONFIG_HOME", ".config", "policy.json", user, bytes);

	return (struct image_policies){ .user = error ? NULL : user, .system = system_policy };
}

static int admit(struct disk *d, enum image_action action, const char *override, bool *ret_overridden, struct image_refusal *r)
{
	char user[4096];
	const struct image_policies files = disk_cli_policies(user, sizeof(user));

	return image_admit(d, action, &files, override, ret_overridden, r);
}

int disk_cli_forbidden(const char *path, const struct image_refusal *r)
{
	fprintf(stderr, "umbra: %s: %s (rule %s of %s); %s\n", path, r->text, r->rule, r->who,
		r->overridable ? "say --override REASON, which is recorded" : "ask who set it");
	return EXIT_POLICY;
}

int disk_cli_allows(struct disk *d, enum image_action action, struct disk_error *why)
{
	struct image_refusal r;
	bool overridden;
	int error = admit(d, action, NULL, &overridden, &r);

	if (error)
		snprintf(why->text, sizeof(why->text), "%.100s: %.200s (%s, says %.100s)", disk_path(d), r.text, r.rule, r.who);
	return error;
}

int disk_cli_admit(const struct arguments *a, struct disk *d, enum image_action action, bool *ret_overridden)
{
	struct image_refusal r;
	int error = admit(d, action, a->override, ret_overridden, &r);

	return error ? disk_cli_forbidden(disk_path(d), &r) : 0;
}

/* Formats without a place for it get no side file for the history alone. */
static bool has_place(struct disk *d)
{
	json_t *about = NULL;
	bool has = disk_format_of(d) == DISK_VHDX;

	if (!has && !image_load_about(d, &about))
		has = json_object_size(about) > 1;
	json_decref(about);
	return has;
}

void disk_cli_note(struct disk *d, const char *event, json_t *more)
{
	int error = 0;

	if (has_place(d))
		error = image_add_history(d, "umbra disk", event, more);
	else
		json_decref(more);
	if (error)
		complain(0, "its history was not written", disk_path(d), strerror(-error));
}

int disk_cli_note_closed(const struct arguments *a, const char *path, enum disk_format format, const char *event, json_t *more)
{
	struct disk_options o = disk_cli_options(a, format);
	struct disk_error e;
	struct disk *d;
	int error;

	o.write = true;
	error = disk_open(path, &o, &d, &e);
	if (error) {
		json_decref(more);
		return error;
	}
	error = has_place(d) ? image_add_history(d, "umbra disk", event, more) : (json_decref(more), 0);
	return disk_close(d) ?: error;
}

static const char *text_of(const json_t *entry, const char *key)
{
	const char *text = json_string_value(json_object_get(entry, key));

	return text ? text : "?";
}

void disk_cli_last_change(const char *path, const struct disk_options *options, char *text, size_t bytes)
{
	struct disk_options o = *options;
	struct disk_error e;
	struct disk *d;
	json_t *history = NULL;
	const json_t *last;

	o.write = false;
	o.accept_changed = true;
	*text = 0;
	if (disk_open(path, &o, &d, &e))
		return;
	for (struct disk *at = d; at && disk_parent(at); at = disk_parent(at)) {
		struct disk_info i;

		disk_info(at, &i);
		if (i.is_linked || image_load_history(disk_parent(at), &history))
			continue;
		last = json_array_get(history, json_array_size(history) - 1);
		if (last)
			snprintf(text, bytes, "; its history ends with %s by %s on %s at %s", text_of(last, "event"), text_of(last, "by"),
				text_of(last, "host"), text_of(last, "time"));
		json_decref(history);
		break;
	}
	for (char *c = text; *c; c++)
		*c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
	disk_close(d);
}
