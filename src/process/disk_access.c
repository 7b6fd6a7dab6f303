/* See disk_access.h. */
#include "disk_access.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/plain_text.h"
#include "report.h"

const char disk_system_policy[] = "/etc/umbra/policy.json";

/* ---- where ---- */

void disk_search_of_place(const struct disk_place *place, struct disk_search *ret)
{
	assert(place->parent_count <= PLAN_PARENTS);
	memset(ret, 0, sizeof(*ret));
	for (uint32_t n = 0; n < place->parent_count; n++)
		ret->parents[n] = place->parent[n];
	ret->override = place->override[0] ? place->override : NULL;
	memcpy(ret->user_policy, place->user_policy, sizeof(ret->user_policy));
	memcpy(ret->catalog, place->catalog, sizeof(ret->catalog));
	ret->user_name = place->user_name[0] ? place->user_name : NULL;
}

struct image_policies disk_search_policies(const struct disk_search *search)
{
	return (struct image_policies){ .user = search->user_policy[0] ? search->user_policy : NULL,
					.system = disk_system_policy,
					.user_name = search->user_name };
}

static int open_catalog(const struct disk_search *search, struct catalog **ret)
{
	if (!search->catalog[0] || access(search->catalog, R_OK))
		return -ENOENT;
	return catalog_open(search->catalog, ret);
}

void disk_search_open_catalog(struct disk_search *search)
{
	if (open_catalog(search, &search->open_catalog))
		search->open_catalog = NULL;
}

/* The user's catalog knows where images were seen. */
static int find_in_catalog(void *context, struct guid data_id, char **ret)
{
	const struct disk_search *search = context;
	struct catalog *catalog = search->open_catalog;
	int error;

	if (!catalog && open_catalog(search, &catalog))
		return -ENOENT;
	error = catalog_find_data(catalog, data_id, ret);
	if (!search->open_catalog)
		catalog_close(catalog);
	return error;
}

struct disk_options disk_search_options(const struct disk_search *search, enum disk_format format)
{
	return (struct disk_options){
		.format = format,
		.parents = search->parents[0] ? search->parents : NULL,
		.find = find_in_catalog,
		.find_context = (void *)(uintptr_t)search,
	};
}

/* ---- errors ---- */

static int exit_code(int error)
{
	if (error == -EPERM)
		return EXIT_POLICY;
	return error == -EINVAL ? EXIT_USAGE : EXIT_UNUSABLE;
}

int disk_access_refused(int error, const struct disk_error *failure)
{
	plain_line(stderr, "umbra: %s", failure->text);
	return exit_code(error);
}

int disk_access_failed(const char *path, int error)
{
	struct disk_error failure;

	disk_refuse_as(&failure, error == -ENOMEM ? REFUSAL_MEMORY : REFUSAL_HOST, error, path,
		       DISK_NOWHERE, "%s", disk_strerror(error));
	disk_access_refused(error, &failure);
	return EXIT_UNUSABLE;
}

static void forbid(struct disk_error *failure, const char *path,
		   const struct image_refusal *refusal)
{
	disk_refuse(failure, refusal->overridable ? REFUSAL_POLICY : REFUSAL_POLICY_FIRM, path,
		    DISK_NOWHERE, "%.200s (rule %.40s of %.80s)", refusal->text, refusal->rule,
		    refusal->who);
}

int disk_access_forbidden(const char *path, const struct image_refusal *refusal)
{
	struct disk_error failure;

	forbid(&failure, path, refusal);
	return disk_access_refused(-EPERM, &failure);
}

json_t *disk_refusal_json(const struct disk_error *failure)
{
	struct disk_refusal_parts parts;

	disk_error_parts(failure, &parts);
	return json_pack("{s:s, s:s%, s:o, s:s, s:s%, s:s, s:s}", "kind", parts.kind, "file",
			 parts.path, strlen(parts.path), "offset",
			 parts.offset == DISK_NOWHERE ? json_null()
						      : json_integer((json_int_t)parts.offset),
			 "structure", parts.structure, "found", parts.found, strlen(parts.found),
			 "expected", parts.expected, "remedy", parts.remedy);
}

/* To who wants to know it, on the way that he has chosen. */
static int refuse_open(const struct disk_search *search, int error,
		       const struct disk_error *failure)
{
	if (search->refused) {
		*search->refused = *failure;
		return exit_code(error);
	}
	if (search->as_json) {
		json_t *json = json_pack("{s:o}", "refusal", disk_refusal_json(failure));

		json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		puts("");
		json_decref(json);
	}
	return disk_access_refused(error, failure);
}

/* ---- history ---- */

/* Formats without a place for it get no side file for the history alone. */
bool disk_has_history(struct disk *disk)
{
	json_t *about = NULL;
	bool has = disk_format_of(disk) == DISK_VHDX;

	if (!has && !image_load_about(disk, &about))
		has = json_object_size(about) > 1;
	json_decref(about);
	return has;
}

void disk_access_note(struct disk *disk, const char *event, json_t *more)
{
	int error = 0;

	if (disk_has_history(disk))
		error = image_add_history(disk, "umbra disk", event, more);
	else
		json_decref(more);
	if (error)
		complain(0, "its history was not written", disk_path(disk), strerror(-error));
}

static const char *text_of(const json_t *entry, const char *key)
{
	const char *text = json_string_value(json_object_get(entry, key));

	return text ? text : "?";
}

/*
 * When the parent that is not what its child was made on was last changed, and by what; "" when
 * that is not known.
 */
static void describe_last_change(const char *path, const struct disk_options *options, char *text,
				 size_t bytes)
{
	struct disk_options given = *options;
	struct disk_error error;
	struct disk *disk;
	json_t *history = NULL;
	const json_t *last;

	given.write = false;
	given.accept_changed = true;
	*text = 0;
	if (disk_open(path, &given, &disk, &error))
		return;
	for (struct disk *at = disk; at && disk_parent(at); at = disk_parent(at)) {
		struct disk_info info;

		disk_info(at, &info);
		if (info.is_linked || image_load_history(disk_parent(at), &history))
			continue;
		last = json_array_get(history, json_array_size(history) - 1);
		if (last)
			snprintf(text, bytes, "; its history ends with %s by %s on %s at %s",
				 text_of(last, "event"), text_of(last, "by"), text_of(last, "host"),
				 text_of(last, "time"));
		json_decref(history);
		break;
	}
	plain_text(text);
	disk_close(disk);
}

/* ---- open, close ---- */

int disk_access_open(const struct disk_search *search, const char *path, enum disk_format format,
		     unsigned actions, struct disk_options more, struct disk **ret)
{
	struct disk_options options = disk_search_options(search, format);
	const struct image_opener opener = { disk_search_policies(search), search->override,
					     "umbra disk" };
	struct image_refusal refusal;
	struct disk_error why;
	int error;

	options.write = more.write;
	options.accept_changed = more.accept_changed;
	options.thaw = more.thaw;
	options.to_shrink = more.to_shrink;
	options.without_parents = more.without_parents;
	options.direct = more.direct;
	options.no_sync = more.no_sync;
	options.beside_writer = more.beside_writer;
	options.side_keeper = more.side_keeper;
	options.parent = more.parent;
	error = image_open(path, &options, actions, &opener, ret, &refusal, &why);
	if (error && refusal.rule[0]) {
		forbid(&why, path, &refusal);
		return refuse_open(search, -EPERM, &why);
	}
	if (error == -ESTALE) {
		char text[200];

		describe_last_change(path, &options, text, sizeof(text));
		disk_error_add(&why, text);
	}
	return error ? refuse_open(search, error, &why) : 0;
}

int disk_access_admit(const struct disk_search *search, struct disk *disk, const char *path,
		      unsigned actions)
{
	const struct image_policies policies = disk_search_policies(search);
	struct image_refusal refusal;
	struct disk_error why;
	bool overridden;
	int error = 0;

	for (int action = ACTION_READ; action <= ACTION_INSPECT && !error; action++)
		if (actions & IMAGE_ACTION(action))
			error = image_admit(disk, (enum image_action)action, &policies, NULL,
					    &overridden, &refusal);
	if (!error)
		return 0;
	disk_close(disk);
	forbid(&why, path, &refusal);
	return refuse_open(search, -EPERM, &why);
}

int disk_access_close(struct disk *disk, int code)
{
	char path[256];
	int error;

	snprintf(path, sizeof(path), "%s", disk_path(disk));
	error = disk_close(disk);
	if (code || !error)
		return code;
	return disk_access_failed(path, error);
}
