/*
 * /metrics: Prometheus text (exposition format 0.0.4) about the daemon and every machine that runs.
 * Machines are asked for their counters all at once; one that does not answer in COUNTERS_MS is
 * there with what it said last of itself, and without them.
 *
 *   - All samples of a metric stand together, after its HELP and TYPE.
 *   - Names and labels that come of a machine's words hold letters, digits and '_' alone.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "daemon.h"
#include "usage.h"

enum { NAME_BYTES = 128, LABEL_BYTES = 192, FAMILIES = 512 };
enum { VALUE_BYTES = 32, MS_PER_S = 1000, KIB_BYTES = 1024 };

/* Of one /metrics. */
struct gather {
	struct api_call *call;
	json_t *families; /* by name: {"type", "help", "samples": [text]} */
};

static json_t *samples_of(struct gather *gather, const char *name, const char *type,
			  const char *about)
{
	json_t *family = json_object_get(gather->families, name);

	if (family || json_object_size(gather->families) >= FAMILIES)
		return json_object_get(family, "samples");
	family = json_pack("{s:s, s:s, s:[]}", "type", type, "help", about, "samples");
	json_object_set_new(gather->families, name, family);
	return json_object_get(family, "samples");
}

static void add_text(struct gather *gather, const char *name, const char *type, const char *about,
		     const char *labels, const char *value)
{
	json_t *samples = samples_of(gather, name, type, about);
	char *text = NULL;

	if (samples && asprintf(&text, "%s%s %s\n", name, labels, value) >= 0)
		json_array_append_new(samples, json_string(text));
	free(text);
}

/* labels: with their braces, or "". */
static void add_sample(struct gather *gather, const char *name, const char *type,
		       const char *about, const char *labels, json_int_t value)
{
	char text[VALUE_BYTES];

	snprintf(text, sizeof(text), "%lld", value);
	add_text(gather, name, type, about, labels, text);
}

static void add_seconds(struct gather *gather, const char *name, const char *about,
			const char *labels, json_int_t ms)
{
	char text[VALUE_BYTES];

	snprintf(text, sizeof(text), "%lld.%03lld", ms / MS_PER_S, ms % MS_PER_S);
	add_text(gather, name, "counter", about, labels, text);
}

/* What a group's lines are one each of. */
static const char *label_of(const char *group)
{
	static const struct { const char *group, *label; } rows[] = {
		{ "disk", "controller" },
		{ "net", "card" },
	};

	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
		if (!strcmp(rows[n].group, group))
			return rows[n].label;
	return "processor";
}

/* umbra_GROUP_NAME */
static void metric_name(char name[NAME_BYTES], const char *group, const char *counter,
			const char *end)
{
	snprintf(name, NAME_BYTES, "umbra_%s_%s%s", group, counter, end);
	for (char *at = name; *at; at++)
		*at = isalnum((unsigned char)*at) ? (char)tolower((unsigned char)*at) : '_';
}

/* ---- the counters of a machine ---- */

static void add_group(struct gather *gather, const char *machine, const char *group,
		      unsigned number, const json_t *counters)
{
	char labels[LABEL_BYTES * 2];
	char name[NAME_BYTES];
	const char *counter;
	json_t *value;

	if (strcmp(group, "exits") != 0)
		snprintf(labels, sizeof(labels), "{machine=\"%s\",%s=\"%u\"}", machine,
			 label_of(group), number);
	else /* of all processors together */
		snprintf(labels, sizeof(labels), "{machine=\"%s\"}", machine);
	json_object_foreach((json_t *)(uintptr_t)counters, counter, value) {
		bool is_size = !strcmp(counter, "KiB");

		metric_name(name, group, is_size ? "bytes" : counter, is_size ? "" : "_total");
		add_sample(gather, name, is_size ? "gauge" : "counter",
			   "What the engine counts (docs/engine.md)", labels,
			   json_integer_value(value) * (is_size ? KIB_BYTES : 1));
	}
}

static void add_counters(struct gather *gather, const char *machine, json_t *groups)
{
	const char *group;
	json_t *list;
	const json_t *counters;
	size_t n;

	json_object_foreach(groups, group, list)
		json_array_foreach(list, n, counters)
			add_group(gather, machine, group, (unsigned)n, counters);
}

/* ---- what is known without asking ---- */

static void add_machine(struct gather *gather, const struct known_machine *machine)
{
	static const struct { const char *key, *name, *about; } rows[] = {
		{ "cpus", "umbra_machine_processors", "Virtual processors" },
		{ "memory", "umbra_machine_memory_bytes", "What it began with" },
		{ "assigned", "umbra_machine_memory_assigned_bytes", "What is not in its balloon" },
		{ "target", "umbra_machine_memory_target_bytes", "What it shall have" },
		{ "available", "umbra_machine_memory_available_bytes", "What the guest has free" },
		{ "committed", "umbra_machine_memory_committed_bytes", "What it has promised" },
		{ "started", "umbra_machine_start_time_seconds", "Since 1970" },
	};
	bool is_paused = json_is_true(json_object_get(machine->description, "suspended"));
	char labels[LABEL_BYTES];

	snprintf(labels, sizeof(labels), "{machine=\"%s\"}", machine->name);
	add_sample(gather, "umbra_machine_running", "gauge", "It runs, and is not paused", labels,
		   machine->description && !is_paused);
	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		const json_t *value = json_object_get(machine->description, rows[n].key);

		if (value)
			add_sample(gather, rows[n].name, "gauge", rows[n].about, labels,
				   json_integer_value(value));
	}
}

/* What the host says of its processes. */
static void add_usage(struct gather *gather, const struct known_machine *machine)
{
	static const struct { const char *key, *name, *about; } rows[] = {
		{ "processor-ms", "umbra_machine_processor_seconds_total",
		  "Time of the host's processors that it has had" },
		{ "waited-ms", "umbra_machine_steal_seconds_total",
		  "Time that it could have run and did not, of all of its threads" },
	};
	char labels[LABEL_BYTES];
	json_t *figures = json_object();
	const json_t *occupied;

	snprintf(labels, sizeof(labels), "{machine=\"%s\"}", machine->name);
	usage_measure(figures, machine->description, false);
	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		const json_t *value = json_object_get(figures, rows[n].key);

		if (value)
			add_seconds(gather, rows[n].name, rows[n].about, labels,
				    json_integer_value(value));
	}
	occupied = json_object_get(figures, "occupied");
	if (occupied)
		add_sample(gather, "umbra_machine_memory_occupied_bytes", "gauge",
			   "What its processes have of the host's memory, shared or not", labels,
			   json_integer_value(occupied));
	json_decref(figures);
}

static void add_daemon(struct gather *gather)
{
	const struct daemon *daemon = gather->call->daemon;
	json_int_t running = 0;

	for (const struct operation *operation = daemon->operations.first; operation;
	     operation = operation->next)
		running += operation->job || operation->awaits_end;
	add_sample(gather, "umbra_daemon_requests_total", "counter", "Requests that were answered",
		   "", (json_int_t)daemon->calls);
	add_sample(gather, "umbra_daemon_refusals_total", "counter", "Of them, with a failure", "",
		   (json_int_t)daemon->failures);
	add_sample(gather, "umbra_daemon_operations", "gauge", "Operations that are under way", "",
		   running);
	add_sample(gather, "umbra_daemon_event_number", "gauge", "The number of the last event", "",
		   (json_int_t)daemon->events.last);
	add_sample(gather, "umbra_daemon_events_lost_total", "counter",
		   "Events that the store did not take", "", (json_int_t)daemon->events.lost);
}

/* ---- the whole ---- */

static char *text_of(json_t *families)
{
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);
	const char *name;
	json_t *family;
	const json_t *sample;
	size_t n;

	if (!out)
		return NULL;
	json_object_foreach(families, name, family) {
		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name,
			json_string_value(json_object_get(family, "help")), name,
			json_string_value(json_object_get(family, "type")));
		json_array_foreach(json_object_get(family, "samples"), n, sample)
			fputs(json_string_value(sample), out);
	}
	fclose(out);
	return text;
}

static void heard(void *context, const char *name, json_t *answer)
{
	struct gather *gather = context;
	json_t *groups = counters_of_answer(answer);

	add_counters(gather, name, groups);
	json_decref(groups);
}

static void done(void *context)
{
	struct gather *gather = context;
	struct api_call *call = gather->call;

	call->text = text_of(gather->families);
	call_answer(call, 200, NULL);
	json_decref(gather->families);
	free(gather);
	call_release(call);
}

void call_metrics(struct api_call *call)
{
	struct gather *gather = calloc(1, sizeof(*gather));

	if (!gather) {
		call_fail_errno(call, -ENOMEM, "ask again");
		return;
	}
	call_hold(call);
	gather->call = call;
	gather->families = json_object();
	add_daemon(gather);
	for (const struct known_machine *machine = call->daemon->machines.first; machine;
	     machine = machine->next) {
		add_machine(gather, machine);
		if (machine->description)
			add_usage(gather, machine);
	}
	counters_ask_all(call->daemon, heard, done, gather);
}
