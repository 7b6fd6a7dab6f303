/* See disk_option.h. */
#include "disk_option.h"

#include <stdio.h>
#include <string.h>

#include "disk_cli.h"

static int take_word(struct disk_choice *choice, const char *word)
{
	static const char format[] = "format=";

	if (!strcmp(word, "readonly")) {
		choice->read_only = true;
		return 0;
	}
	if (!strcmp(word, "dvd")) {
		choice->is_dvd = choice->read_only = true;
		return 0;
	}
	if (!strcmp(word, "direct")) {
		choice->direct = true;
		return 0;
	}
	if (!strncmp(word, format, strlen(format)))
		return disk_parse_format(word + strlen(format), &choice->format);
	return complain(EXIT_USAGE, "not an option of --disk", word,
			"say format=FORMAT, readonly, direct or dvd after the file's name");
}

int disk_option_add(struct disk_plan *plan, const char *text)
{
	struct disk_choice *choice = &plan->disk[plan->count];
	const bool says_format = strstr(text, ",format=");
	char *rest = choice->path;
	int code;

	if (plan->count == BLOCK_DISKS)
		return complain(EXIT_USAGE, "more than 16 disks", text, "leave some out");
	memset(choice, 0, sizeof(*choice));
	if (plan_set_text(choice->path, sizeof(choice->path), text))
		return complain(EXIT_USAGE, "too long a path", text, "name a shorter one");
	code = disk_parse_format(NULL, &choice->format);
	strsep(&rest, ",");
	for (char *word; !code && (word = strsep(&rest, ","));)
		code = take_word(choice, word);
	if (choice->is_dvd && !says_format)
		choice->format = DISK_RAW;
	if (!code && !*choice->path && !choice->is_dvd)
		return complain(EXIT_USAGE, "no file given", "--disk", "say --disk FILE");
	plan->count += !code;
	return code;
}

int disk_option_add_disc(struct disk_plan *plan, const char *path)
{
	char text[PLAN_PATH_BYTES + 8];

	snprintf(text, sizeof(text), "%s,dvd", path);
	return disk_option_add(plan, text);
}

int disk_option_add_first(struct disk_plan *plan, const char *text)
{
	struct disk_choice last;
	int code = disk_option_add(plan, text);

	if (code)
		return code;
	last = plan->disk[plan->count - 1];
	memmove(plan->disk + 1, plan->disk, (plan->count - 1) * sizeof(plan->disk[0]));
	plan->disk[0] = last;
	return 0;
}

void disk_option_take_places(struct disk_place *place)
{
	if (cli_user_file("XDG_CONFIG_HOME", ".config", "policy.json", place->user_policy,
			  sizeof(place->user_policy)))
		place->user_policy[0] = 0;
	if (cli_user_file("XDG_DATA_HOME", ".local/share", "catalog.db", place->catalog,
			  sizeof(place->catalog)))
		place->catalog[0] = 0;
	image_user_name(place->user_name);
}

int disk_option_add_parents(struct disk_plan *plan, const char *path)
{
	struct disk_place *place = &plan->place;

	if (place->parent_count == PLAN_PARENTS)
		return complain(EXIT_USAGE, "too many places for parents", path, "name at most 16");
	if (plan_set_text(place->parent[place->parent_count], sizeof(place->parent[0]), path))
		return complain(EXIT_USAGE, "too long a path", path, "name a shorter one");
	place->parent_count++;
	return 0;
}

int disk_option_set_override(struct disk_plan *plan, const char *reason)
{
	if (plan_set_text(plan->place.override, sizeof(plan->place.override), reason))
		return complain(EXIT_USAGE, "too long a reason", "--override",
				"say it in fewer than 1024 bytes");
	return 0;
}
