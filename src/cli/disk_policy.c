/*
 * Policies and history, for the verbs that open disks. The user's policy is
 * $XDG_CONFIG_HOME/umbra/policy.json (~/.config when that is not set), the system's
 * /etc/umbra/policy.json.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_cli.h"

int cli_user_file(const char *variable, const char *otherwise, const char *name, char *to,
		  size_t bytes)
{
	const char *base = getenv(variable);
	const char *home = getenv("HOME");
	int used;

	if (base && *base == '/')
		used = snprintf(to, bytes, "%s/umbra/%s", base, name);
	else
		used = snprintf(to, bytes, "%s/%s/umbra/%s", home ? home : "", otherwise, name);
	return used < 0 || (size_t)used >= bytes ? -ENAMETOOLONG : 0;
}

static int policies_admit(struct disk *disk, enum image_action action,
			  const struct disk_search *search, const char *override,
			  bool *ret_overridden, struct image_refusal *refusal)
{
	const struct image_policies files = disk_search_policies(search);

	return image_admit(disk, action, &files, override, ret_overridden, refusal);
}

int disk_cli_allows(struct disk *disk, enum image_action action, struct disk_error *why)
{
	const struct arguments none = { 0 };
	struct disk_search search;
	struct image_refusal refusal;
	bool overridden;
	int error;

	disk_cli_search(&none, &search);
	error = policies_admit(disk, action, &search, NULL, &overridden, &refusal);

	if (error)
		disk_refuse(why, refusal.overridable ? REFUSAL_POLICY : REFUSAL_POLICY_FIRM,
			    disk_path(disk), DISK_NOWHERE, "%.200s (%s, says %.100s)", refusal.text,
			    refusal.rule, refusal.who);
	return error;
}

int disk_cli_admit(const struct arguments *arguments, struct disk *disk, enum image_action action,
		   bool *ret_overridden)
{
	struct disk_search search;
	struct image_refusal refusal;
	int error;

	disk_cli_search(arguments, &search);
	error = policies_admit(disk, action, &search, arguments->override, ret_overridden,
			       &refusal);
	return error ? disk_access_forbidden(disk_path(disk), &refusal) : 0;
}

int disk_cli_note_closed(const struct arguments *arguments, const char *path,
			 enum disk_format format, const char *event, json_t *more)
{
	struct disk_error failure;
	struct disk *disk;
	int error = disk_cli_open_unasked(arguments, path, format,
					  (struct disk_options){ .write = true }, &disk, &failure);

	if (error) {
		json_decref(more);
		return error;
	}
	if (disk_has_history(disk))
		error = image_add_history(disk, "umbra disk", event, more);
	else
		json_decref(more);
	return disk_close(disk) ?: error;
}
