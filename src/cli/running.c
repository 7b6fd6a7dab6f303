/*
 * umbra ps, info, stop, kill, pause, resume, memory: what is asked of a machine that runs, on its
 * control socket (src/control/protocol.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "memory_all.h"
#include "control/names.h"
#include "hot.h"
#include "machine_row.h"
#include "machine_text.h"
#include "option.h"
#include "lib/plain_text.h"
#include "tree.h"
#include "register_text.h"
#include "talk.h"

static const char running_help[] =
	"usage: umbra ps [--tree] [--json]\n"
	"       umbra info [--json] [--symbols FILE] [--mmu|--code|--hot[=SECONDS]] NAME\n"
	"       umbra stop NAME\n"
	"       umbra kill NAME\n"
	"       umbra pause NAME\n"
	"       umbra resume NAME\n"
	"       umbra memory NAME [--set SIZE|auto] [--json]\n"
	"       umbra memory [--json|--live|--history|--svg FILE|--reserve SIZE|auto]\n"
	"About machines that were given a name with umbra run --name NAME.\n"
	"info says what it is and where its processors are, in a Linux kernel also in which\n"
	"function; elsewhere with --symbols, a System.map or what /proc/kallsyms of the\n"
	"guest says. With --hot: in which functions they were most often, of as many looks as fit\n"
	"into SECONDS (1).\n"
	"ps says of each machine whether it is running, paused, starting, or silent: it does not\n"
	"answer.\n"
	"stop asks the guest to power off where it has the drivers for that, and ends the machine\n"
	"half a minute later; stopped twice, at once.\n"
	"ps --tree shows who was forked from whom, the memory of each that is its own, and\n"
	"how much is still to come of one that runs already (run --restore, fork --to).\n"
	"pause has it stand still, resume lets it go on; also after umbra fork "
	"--suspend-parent.\n"
	"memory says what the guest has and needs, or sets what it shall have, of a machine "
	"with a bus.\n"
	"Without a name it is about all machines whose memory is adjusted: what each has, needs\n"
	"and occupies, and why it was moved last; --live goes on showing it, --svg draws the last\n"
	"five minutes, --history says them as JSON, --reserve says how much of the host's memory\n"
	"guests never get.\n";

struct arguments {
	bool json, tree, mmu, code, live, history, hot;
	const char *name, *set, *symbols, *svg, *reserve, *hot_seconds;
};

/* ---- ps, info ---- */

static void print_row(const json_t *json)
{
	const char *name = json_string_value(json_object_get(json, "name"));
	const char *state = json_string_value(json_object_get(json, "state"));
	long long pid = json_integer_value(json_object_get(json, "pid"));
	long long cpus = json_integer_value(json_object_get(json, "cpus"));
	long long mebibytes = json_integer_value(json_object_get(json, "memory")) >> 20;

	printf("%-20s %-8s %8lld %5lld %7lld MiB  ", name, state, pid, cpus, mebibytes);
	plain_put(stdout, json_string_value(json_object_get(json, "from")));
	putchar('\n');
}

static void found(void *context, const char *name)
{
	json_t *json = machine_row(name);

	if (json)
		json_array_append_new(context, json);
}

static int verb_ps(const struct arguments *a)
{
	json_t *all = json_array();
	json_t *json;
	int error = name_list(found, all);
	size_t n;

	if (error) {
		json_decref(all);
		return complain(EXIT_UNUSABLE, strerror(-error),
				"the folder of the machines' names",
				"have XDG_RUNTIME_DIR name a folder of yours alone");
	}
	if (a->tree)
		tree_measure(all);
	if (a->json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		puts("");
	} else if (a->tree) {
		tree_print(all);
	} else {
		printf("%-20s %-8s %8s %5s %11s  %s\n", "NAME", "STATE", "PID", "CPUS", "MEMORY",
		       "FROM");
		json_array_foreach(all, n, json) print_row(json);
	}
	json_decref(all);
	return 0;
}

/* A line of counters, "name count, name count": an object. */
static json_t *counters_of_line(char *line)
{
	json_t *counters = json_object();
	char *rest;

	for (char *at = strtok_r(line, ",", &rest); at; at = strtok_r(NULL, ",", &rest)) {
		char *count = strrchr(at, ' ');

		if (!count)
			continue;
		*count = 0;
		json_object_set_new(counters, at + strspn(at, " "),
				    json_integer(strtoll(count + 1, NULL, 10)));
	}
	return counters;
}

/* Each line of counters that begins so; NULL: there was no answer. */
static json_t *find_counters(const json_t *answer, const char *begin)
{
	const char *told = json_string_value(json_object_get(answer, "counters"));
	char *text = told ? strdup(told) : NULL;
	json_t *found = text ? json_array() : NULL;
	char *rest;

	for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line;
	     line = strtok_r(NULL, "\n", &rest))
		if (!strncmp(line, begin, strlen(begin)))
			json_array_append_new(found, counters_of_line(line + strlen(begin)));
	free(text);
	return found;
}

/* NULL: the machine does not answer. */
static json_t *ask_counters(const char *name, const char *begin)
{
	int error;
	FILE *peer = talk_to(name, &error);
	json_t *answer = peer && talk_ask(peer, "registers") ? talk_hear(peer) : NULL;
	json_t *found = find_counters(answer, begin);

	json_decref(answer);
	if (peer)
		fclose(peer);
	return found;
}

/* Its processors' registers and exits beside the rest; without them where it does not answer. */
static json_t *describe_with_registers(const char *name)
{
	int error;
	FILE *peer = talk_to(name, &error);
	json_t *machine = peer ? talk_describe(peer) : NULL;
	json_t *answer = machine && talk_ask(peer, "registers") ? talk_hear(peer) : NULL;
	json_t *processors = json_object_get(answer, "processors");
	json_t *exits = find_counters(answer, "exits: ");

	if (machine)
		json_object_set_new(machine, "state", json_string(machine_row_state(machine)));
	if (json_is_array(processors))
		json_object_set(machine, "processors", processors);
	if (json_array_size(exits))
		json_object_set(machine, "exits", json_array_get(exits, 0));
	json_decref(exits);
	json_decref(answer);
	if (peer)
		fclose(peer);
	return machine;
}

static void print_counters(const char *what, const json_t *lines, bool as_json)
{
	json_t *counters;
	json_t *value;
	const char *key;
	size_t n;

	if (as_json) {
		json_dumpf(lines, stdout, JSON_INDENT(2));
		puts("");
		return;
	}
	json_array_foreach(lines, n, counters) {
		printf("%s %zu\n", what, n);
		json_object_foreach(counters, key, value)
			printf("  %-26s %lld\n", key, json_integer_value(value));
	}
}

static int info_mmu(const struct arguments *a)
{
	json_t *processors = ask_counters(a->name, "mmu: ");

	if (!processors)
		return talk_refused(a->name);
	print_counters("processor", processors, a->json);
	json_decref(processors);
	return 0;
}

/* Of the code cache, which all processors share, then of each processor's jumps. */
static int info_code(const struct arguments *a)
{
	json_t *cache = ask_counters(a->name, "code: ");
	json_t *jumps = cache ? ask_counters(a->name, "jumps: ") : NULL;

	if (!jumps) {
		json_decref(cache);
		return talk_refused(a->name);
	}
	if (a->json)
		json_array_extend(cache, jumps);
	print_counters("code cache", cache, a->json);
	if (!a->json)
		print_counters("processor", jumps, false);
	json_decref(cache);
	json_decref(jumps);
	return 0;
}

static int info_hot(const struct arguments *a)
{
	const struct hot_wanted wanted = {
		.name = a->name, .symbols = a->symbols, .seconds = a->hot_seconds, .json = a->json
	};

	return hot_show(&wanted);
}

static int verb_info(const struct arguments *a)
{
	json_t *json = a->mmu || a->code || a->hot ? NULL : describe_with_registers(a->name);
	int code = 0;

	if (a->mmu)
		return info_mmu(a);
	if (a->code)
		return info_code(a);
	if (a->hot)
		return info_hot(a);
	if (!json)
		return talk_failed(a->name, -ENOENT);
	if (a->json) {
		json_dumpf(json, stdout, JSON_INDENT(2));
		puts("");
	} else {
		machine_text_print(json);
		code = registers_print(json_object_get(json, "processors"), a->symbols);
	}
	json_decref(json);
	return code;
}

/* ---- stop, kill ---- */

/* Until the machine is gone. */
static int end(const struct arguments *a, const char *how)
{
	int error;
	FILE *peer = talk_to(a->name, &error);
	bool heard;

	if (!peer)
		return talk_failed(a->name, error);
	heard = talk_ask(peer, how) && !talk_hear_end(peer);
	if (heard)
		talk_hear_out(peer);
	fclose(peer);
	return heard ? 0 : complain(EXIT_UNUSABLE, "it did not answer", a->name, "see umbra ps");
}

static int verb_pause(const struct arguments *a)
{
	int error;
	FILE *peer = talk_to(a->name, &error);

	if (!peer)
		return talk_failed(a->name, error);
	error = talk_ask(peer, "pause") ? talk_hear_end(peer) : -ECONNRESET;
	fclose(peer);
	if (error == -EBUSY)
		return complain(EXIT_UNUSABLE, "it stands still, or is being saved or forked",
				a->name, "umbra resume lets it go on");
	if (error == -EOPNOTSUPP)
		return complain(EXIT_UNUSABLE, "it cannot be paused", a->name, "see umbra ps");
	return error ? talk_failed(a->name, error) : 0;
}

static int verb_resume(const struct arguments *a)
{
	int error;
	FILE *peer = talk_to(a->name, &error);

	if (!peer)
		return talk_failed(a->name, error);
	error = talk_ask(peer, "resume") ? talk_hear_end(peer) : -ECONNRESET;
	fclose(peer);
	if (error == -EALREADY)
		return complain(EXIT_UNUSABLE, "it does not stand still", a->name,
				"umbra pause has it do so");
	if (error == -EBUSY)
		return complain(EXIT_UNUSABLE, "it is being saved or forked", a->name, "wait");
	return error ? talk_failed(a->name, error) : 0;
}

static int verb_stop(const struct arguments *a) { return end(a, "stop"); }
static int verb_kill(const struct arguments *a) { return end(a, "kill"); }

/* ---- memory ---- */

static int set_memory(const struct arguments *a)
{
	uint64_t bytes = 0;
	int error;
	FILE *peer;

	if (strcmp(a->set, "auto") && (!parse_size(a->set, &bytes) || !bytes))
		return complain(EXIT_USAGE, "not a memory size", a->set,
				"say for example --set 512M, or --set auto");
	peer = talk_to(a->name, &error);
	if (!peer)
		return talk_failed(a->name, error);
	if (bytes > INT64_MAX)
		bytes = INT64_MAX;
	fprintf(peer, "{\"id\":1,\"do\":\"memory\",\"bytes\":%lu}\n", bytes);
	error = fflush(peer) ? -ECONNRESET : talk_hear_end(peer);
	fclose(peer);
	return error ? talk_failed(a->name, error) : 0;
}

static void print_memory(const json_t *memory)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)memory, key, value) {
		if (json_is_string(value))
			machine_text_word(12, key, json_string_value(value));
		else if (json_is_boolean(value))
			printf("%-12s %s\n", key, json_is_true(value) ? "yes" : "no");
		else
			printf("%-12s %lld MiB\n", key, (long long)json_integer_value(value) >> 20);
	}
}

/* Of what the machine says, what is about its memory. */
static json_t *memory_of(const json_t *machine)
{
	static const char *const keys[] = { "memory",    "memory-mode", "held",   "assigned",
					    "target",    "available",   "committed", "given-back",
					    "growth",    "silent" };
	json_t *memory = json_object();

	for (size_t n = 0; machine && n < sizeof(keys) / sizeof(keys[0]); n++)
		json_object_set(memory, keys[n], json_object_get(machine, keys[n]));
	return memory;
}

static int show_all(const struct arguments *a)
{
	const struct memory_all wanted = {
		.json = a->json,
		.live = a->live,
		.history = a->history,
		.svg = a->svg,
		.reserve = a->reserve
	};

	if (a->set)
		return complain(EXIT_USAGE, "of which machine", "--set", "name one");
	return memory_all(&wanted);
}

static int verb_memory(const struct arguments *a)
{
	json_t *machine = a->name ? machine_row(a->name) : NULL;
	json_t *memory = memory_of(machine);
	int code = 0;

	if (!a->name) {
		code = show_all(a);
	} else if (a->live || a->history || a->svg || a->reserve) {
		code = complain(EXIT_USAGE, "only of all machines", a->name, "leave the name out");
	} else if (!machine) {
		code = talk_failed(a->name, -ENOENT);
	} else if (!json_object_get(memory, "assigned")) {
		code = complain(EXIT_UNUSABLE, "its memory is not adjusted", a->name,
				"run it without --no-bus, and ask again a second later");
	} else if (a->set) {
		code = set_memory(a);
	} else if (a->json) {
		json_dumpf(memory, stdout, JSON_INDENT(2));
		puts("");
	} else {
		print_memory(memory);
	}
	json_decref(machine);
	json_decref(memory);
	return code;
}

/* ---- the verbs ---- */

static const struct {
	const char *name;
	int (*run)(const struct arguments *a);
	int operands, least_operands;
} verbs[] = {
	{ "ps", verb_ps, 0, 0 },     { "info", verb_info, 1, 1 }, { "stop", verb_stop, 1, 1 },
	{ "kill", verb_kill, 1, 1 }, { "memory", verb_memory, 1, 0 },
	{ "pause", verb_pause, 1, 1 },   { "resume", verb_resume, 1, 1 },
};

static int parse(int argc, char **argv, int operands, int least_operands, struct arguments *a)
{
	static const struct option longs[] = { { "json", 0, 0, 'j' },    { "tree", 0, 0, 't' },
					       { "set", 1, 0, 'S' },
					       { "symbols", 1, 0, 'y' }, { "mmu", 0, 0, 'm' },
					       { "live", 0, 0, 'l' },    { "svg", 1, 0, 'v' },
					       { "reserve", 1, 0, 'R' },
					       { "history", 0, 0, 'i' },
					       { "code", 0, 0, 'c' },    { "hot", 2, 0, 'H' },
					       { "help", 0, 0, 'h' },    { 0 } };
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 'j': a->json = true; break;
		case 't': a->tree = true; break;
		case 'S': a->set = optarg; break;
		case 'y': a->symbols = optarg; break;
		case 'm': a->mmu = true; break;
		case 'l': a->live = true; break;
		case 'i': a->history = true; break;
		case 'v': a->svg = optarg; break;
		case 'R': a->reserve = optarg; break;
		case 'c': a->code = true; break;
		case 'H':
			a->hot = true;
			a->hot_seconds = optarg;
			break;
		case 'h': fputs(running_help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	if (argc - optind > operands || argc - optind < least_operands)
		return complain(EXIT_USAGE, "wrong number of arguments", argv[0],
				"see umbra ps --help");
	a->name = optind < argc ? argv[optind] : NULL;
	return 0;
}

int verb_running(int argc, char **argv)
{
	struct arguments a = { 0 };

	for (size_t n = 0; n < sizeof(verbs) / sizeof(verbs[0]); n++)
		if (!strcmp(verbs[n].name, argv[0])) {
			int code = parse(argc, argv, verbs[n].operands, verbs[n].least_operands,
					 &a);

			return code ? code : verbs[n].run(&a);
		}
	return EXIT_USAGE;
}
