/* See arrival_permits.h. */
#include "arrival_permits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "control/names.h"
#include "lib/path.h"

/* ---- as it was told ---- */

int arrival_permit_switch(struct arrival_permits *permits, const char *name)
{
	char path[PLAN_SOCKET_BYTES];
	int error = name_switch_path(name, path, sizeof(path));

	if (error)
		return complain(EXIT_USAGE, strerror(-error), name,
				"say --switch NAME, of letters, digits, '.', '_' and '-'");
	if (permits->switches == PERMITTED_SWITCHES)
		return complain(EXIT_USAGE, "too many switches", name, "name at most 16");
	permits->switch_name[permits->switches++] = name;
	return 0;
}

int arrival_permit_folder(struct arrival_permits *permits, const char *folder)
{
	char *path = permits->folders < PLAN_PARENTS ? realpath(folder, NULL) : NULL;

	if (permits->folders == PLAN_PARENTS)
		return complain(EXIT_USAGE, "too many places for disks", folder,
				"name at most 16");
	if (!path)
		return complain(EXIT_USAGE, strerror(errno), folder, "name a folder of disks");
	permits->folder[permits->folders++] = path;
	return 0;
}

/* ---- what is asked for ---- */

static bool has_switch(const struct arrival_permits *permits, const char *name)
{
	for (unsigned n = 0; n < permits->switches; n++)
		if (!strcmp(permits->switch_name[n], name))
			return true;
	return false;
}

int arrival_check_cards(const struct arrival_permits *permits, const struct net_options *cards)
{
	for (unsigned n = 0; n < cards->cards; n++) {
		const struct net_choice *card = &cards->card[n];

		if (card->kind != NET_USER &&
		    (card->kind != NET_SWITCH || !has_switch(permits, card->name)))
			return complain(EXIT_UNUSABLE, "it is on a network that is not permitted",
					card->name, "umbra listen --switch NAME permits a switch");
	}
	return 0;
}

static bool has_folder_of(const struct arrival_permits *permits, const char *path)
{
	for (unsigned n = 0; n < permits->folders; n++)
		if (path_is_below(path, permits->folder[n]))
			return true;
	return false;
}

/* A path that leads nowhere is refused like one that leads elsewhere. */
static int limit_disk(const struct arrival_permits *permits, struct disk_choice *choice)
{
	char *path = realpath(choice->path, NULL);
	const bool is_permitted = path && has_folder_of(permits, path) &&
				  !plan_set_text(choice->path, sizeof(choice->path), path);

	free(path);
	return is_permitted ? 0
			    : complain(EXIT_UNUSABLE, "a disk is not where one is permitted",
				       choice->path,
				       "umbra listen --parents FOLDER permits those in a folder");
}

int arrival_limit_disks(const struct arrival_permits *permits, struct fork_disks *disks)
{
	int code = 0;

	for (unsigned n = 0; n < disks->count && !code; n++)
		if (disks->disk[n].choice.path[0])
			code = limit_disk(permits, &disks->disk[n].choice);
	disks->place.parent_count = 0;
	for (unsigned n = 0; n < permits->folders && !code; n++)
		if (plan_set_text(disks->place.parent[disks->place.parent_count++],
				  PLAN_PATH_BYTES, permits->folder[n]))
			code = complain(EXIT_USAGE, "too long a path", permits->folder[n],
					"name a shorter one");
	return code;
}
