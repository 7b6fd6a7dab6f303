/* See tree.h. */
#include "tree.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 256, INDENT = 2, NAME_COLUMNS = 32, DEPTH_MOST = 64 };

struct memory { bool known; long long unique_bytes, shared_bytes; };

static void take_line(struct memory *memory, const char *line)
{
	long long kibibytes;

	if (sscanf(line, "Private_%*[^:]: %lld", &kibibytes) == 1)
		memory->unique_bytes += kibibytes << 10;
	if (sscanf(line, "Shared_%*[^:]: %lld", &kibibytes) == 1)
		memory->shared_bytes += kibibytes << 10;
}

static void measure_process(struct memory *memory, long long pid)
{
	char text[LINE_BYTES];
	FILE *file;

	snprintf(text, sizeof(text), "/proc/%lld/smaps_rollup", pid);
	file = fopen(text, "r");
	if (!file)
		return;
	memory->known = true;
	while (fgets(text, sizeof(text), file))
		take_line(memory, text);
	fclose(file);
}

void tree_measure(json_t *machines)
{
	json_t *machine;
	size_t n;

	json_array_foreach(machines, n, machine) {
		struct memory memory = { .known = false };

		measure_process(&memory, json_integer_value(json_object_get(machine, "process")));
		if (!memory.known)
			continue;
		measure_process(&memory, json_integer_value(json_object_get(machine, "pid")));
		json_object_set_new(machine, "unique", json_integer(memory.unique_bytes));
		json_object_set_new(machine, "shared", json_integer(memory.shared_bytes));
	}
}

static const char *text_of(const json_t *machine, const char *key)
{
	const char *text = json_string_value(json_object_get(machine, key));

	return text ? text : "";
}

static void print_bytes(const json_t *machine, const char *key)
{
	const json_t *bytes = json_object_get(machine, key);

	if (bytes)
		printf(" %8.1f MiB", (double)json_integer_value(bytes) / (1 << 20));
	else
		printf(" %12s", "-");
}

/* Of few machines: no column. */
static void print_disks(const json_t *machine)
{
	const json_int_t bytes = json_integer_value(json_object_get(machine, "remote-disks"));

	if (bytes)
		printf("%.1f MiB of disks to come", (double)bytes / (1 << 20));
	puts("");
}

static void print_machine(const json_t *machine, int depth)
{
	const char *state = text_of(machine, "state");

	printf("%*s%-*s %8lld", depth * INDENT, "", NAME_COLUMNS - depth * INDENT,
	       text_of(machine, "name"),
	       (long long)json_integer_value(json_object_get(machine, "pid")));
	print_bytes(machine, "unique");
	print_bytes(machine, "shared");
	print_bytes(machine, "remote");
	printf("  %s", strcmp(state, "running") ? state : "");
	print_disks(machine);
}

/* `shown`: names come again, so that what is said of parents may go round in a circle. */
static void print_below(const json_t *machines, const json_t *machine, bool *shown, int depth)
{
	const json_t *other;
	size_t n;

	print_machine(machine, depth);
	json_array_foreach(machines, n, other) {
		if (shown[n] || depth == DEPTH_MOST ||
		    strcmp(text_of(other, "parent"), text_of(machine, "name")))
			continue;
		shown[n] = true;
		print_below(machines, other, shown, depth + 1);
	}
}

static bool has_parent(const json_t *machines, const json_t *machine)
{
	const json_t *other;
	size_t n;

	json_array_foreach(machines, n, other)
		if (!strcmp(text_of(other, "name"), text_of(machine, "parent")))
			return true;
	return false;
}

void tree_print(const json_t *machines)
{
	bool *shown = calloc(json_array_size(machines) + 1, sizeof(*shown));
	const json_t *machine;
	size_t n;

	if (!shown)
		return;
	printf("%-*s %8s %12s %12s %12s\n", NAME_COLUMNS, "NAME", "PID", "UNIQUE", "SHARED",
	       "REMOTE");
	for (int circles = 0; circles < 2; circles++)
		json_array_foreach(machines, n, machine) {
			if (shown[n] || (!circles && has_parent(machines, machine)))
				continue;
			shown[n] = true;
			print_below(machines, machine, shown, 0);
		}
	free(shown);
}
