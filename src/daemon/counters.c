/* See counters.h. The machine process may say anything. */
#include "counters.h"

#include <stdlib.h>
#include <string.h>

#include "ask_all.h"

/* "name count" */
static void add_counter(json_t *counters, char *text)
{
	char *count = strrchr(text, ' ');
	char *end;
	long long number;

	if (!count || count == text)
		return;
	*count++ = 0;
	number = strtoll(count, &end, 10);
	if (*count && !*end && number >= 0)
		json_object_set_new(counters, text + strspn(text, " "), json_integer(number));
}

static void add_line(json_t *groups, char *line)
{
	char *names = strstr(line, ": ");
	json_t *counters;
	json_t *group;
	char *rest;

	if (!names || names == line)
		return;
	*names = 0;
	counters = json_object();
	for (char *at = strtok_r(names + 2, ",", &rest); at; at = strtok_r(NULL, ",", &rest))
		add_counter(counters, at);
	group = json_object_get(groups, line);
	if (!group) {
		group = json_array();
		if (json_object_set_new(groups, line, group)) {
			json_decref(counters);
			return;
		}
	}
	json_array_append_new(group, counters);
}

json_t *counters_json(const char *text)
{
	json_t *groups = json_object();
	char *copy = strdup(text);
	char *rest;

	for (char *line = copy ? strtok_r(copy, "\n", &rest) : NULL; line;
	     line = strtok_r(NULL, "\n", &rest))
		add_line(groups, line);
	free(copy);
	return groups;
}

json_t *counters_of_answer(const json_t *answer)
{
	const char *text = json_string_value(json_object_get(answer, "counters"));

	return counters_json(text ? text : "");
}

void counters_ask_all(struct daemon *daemon,
		      void (*heard)(void *context, const char *machine, json_t *answer),
		      void (*done)(void *context), void *context)
{
	const struct ask_all ask = { .daemon = daemon,
				     .line = COUNTERS_ASKED,
				     .deadline_ms = COUNTERS_MS,
				     .heard = heard,
				     .done = done,
				     .context = context };

	ask_all(&ask);
}
