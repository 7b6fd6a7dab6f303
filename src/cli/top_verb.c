/*
 * umbra top: what machines use of the host, again and again, or once: processor time of all of a
 * machine's processes that can be known (its machine process and its broker), memory that is
 * theirs alone, and what its engine has counted meanwhile. Figures are of the time between two
 * looks, so the first ones come after a moment.
 */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "option.h"
#include "reader.h"
#include "control/names.h"
#include "control/process_time.h"
#include "talk.h"
#include "tree.h"

enum { EVERY_MS = 1000, EVERY_MOST_S = 3600, MS_PER_S = 1000, NS_PER_MS = 1000000 };
enum { PERCENT = 100, MIB_SHIFT = 20 };

static const char top_help[] =
	"usage: umbra top [--once] [--json] [--every SECONDS]\n"
	"Shows what each machine with a name uses: processor time, 100 % being one of the host's\n"
	"processors, memory of the host that is its alone, and the translations of addresses that\n"
	"its processors made in a second. Every second, or SECONDS; --once: one time.\n";

/* ---- what is measured ---- */

/* Of all processors' lines that begin with "mmu: ", what stands behind " NAME " or at the begin. */
static uint64_t fills_of(const char *counters)
{
	static const char name[] = "fills ";
	uint64_t sum = 0;

	for (const char *at = counters ? strstr(counters, name) : NULL; at; at = strstr(at, name)) {
		at += strlen(name);
		sum += strtoull(at, NULL, 10);
	}
	return sum;
}

static json_t *look(const char *name)
{
	int error;
	FILE *peer = talk_to(name, &error);
	json_t *machine = peer ? talk_describe(peer) : NULL;
	json_t *answer = machine && talk_ask(peer, "registers") ? talk_hear(peer) : NULL;
	const char *counters = json_string_value(json_object_get(answer, "counters"));
	json_t *row = NULL;

	if (machine) {
		const json_t *process = json_object_get(machine, "process");
		const json_t *broker = json_object_get(machine, "pid");
		uint64_t ticks = process_ticks(json_integer_value(process)) +
				 process_ticks(json_integer_value(broker));

		row = json_copy(machine);
		json_object_set_new(row, "ticks", json_integer((json_int_t)ticks));
		json_object_set_new(row, "fills", json_integer((json_int_t)fills_of(counters)));
	}
	json_decref(machine);
	json_decref(answer);
	if (peer)
		fclose(peer);
	return row;
}

static void found(void *context, const char *name)
{
	json_t *row = look(name);

	if (row)
		json_array_append_new(context, row);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * MS_PER_S + (uint64_t)(now.tv_nsec / NS_PER_MS);
}

/* NULL: what names there are cannot be known. */
static json_t *look_at_all(void)
{
	json_t *all = json_array();

	if (name_list(found, all)) {
		json_decref(all);
		return NULL;
	}
	tree_measure(all);
	return all;
}

/* ---- between two looks ---- */

static const json_t *same_machine(const json_t *rows, const json_t *row)
{
	const json_t *other;
	size_t n;

	json_array_foreach(rows, n, other)
		if (json_equal(json_object_get(other, "name"), json_object_get(row, "name")) &&
		    json_equal(json_object_get(other, "pid"), json_object_get(row, "pid")))
			return other;
	return NULL;
}

static json_int_t grown(const json_t *before, const json_t *now, const char *key)
{
	json_int_t from = json_integer_value(json_object_get(before, key));
	json_int_t to = json_integer_value(json_object_get(now, key));

	return to > from ? to - from : 0;
}

static json_t *figures_of(const json_t *before, const json_t *now, uint64_t milliseconds)
{
	const double seconds = (double)(milliseconds ?: 1) / MS_PER_S;
	const double ticks = (double)grown(before, now, "ticks");
	const double percent = ticks / (double)sysconf(_SC_CLK_TCK) / seconds * PERCENT;
	const bool is_paused = json_is_true(json_object_get(now, "suspended"));
	static const char *const kept[] = { "name", "cpus", "memory", "unique", "shared" };
	json_t *figures = json_object();

	for (size_t n = 0; n < sizeof(kept) / sizeof(kept[0]); n++)
		if (json_object_get(now, kept[n]))
			json_object_set(figures, kept[n], json_object_get(now, kept[n]));
	json_object_set_new(figures, "processor-percent", json_real(percent));
	json_object_set_new(figures, "fills-per-second",
			    json_real((double)grown(before, now, "fills") / seconds));
	json_object_set_new(figures, "state", json_string(is_paused ? "paused" : "running"));
	return figures;
}

/* Of each machine that was there both times. */
static json_t *all_figures(const json_t *before, const json_t *now, uint64_t milliseconds)
{
	json_t *all = json_array();
	const json_t *row;
	size_t n;

	json_array_foreach(now, n, row) {
		const json_t *other = same_machine(before, row);

		if (other)
			json_array_append_new(all, figures_of(other, row, milliseconds));
	}
	return all;
}

static void print_figures(const json_t *all)
{
	const json_t *row;
	size_t n;

	printf("%-20s %-8s %5s %7s %10s %10s %12s\n", "NAME", "STATE", "CPUS", "CPU %",
	       "OWN MiB", "OF MiB", "FILLS/s");
	json_array_foreach(all, n, row)
		printf("%-20s %-8s %5lld %7.1f %10lld %10lld %12.0f\n",
		       json_string_value(json_object_get(row, "name")),
		       json_string_value(json_object_get(row, "state")),
		       json_integer_value(json_object_get(row, "cpus")),
		       json_real_value(json_object_get(row, "processor-percent")),
		       json_integer_value(json_object_get(row, "unique")) >> MIB_SHIFT,
		       json_integer_value(json_object_get(row, "memory")) >> MIB_SHIFT,
		       json_real_value(json_object_get(row, "fills-per-second")));
}

struct top { bool json, once; uint64_t every_ms; };

static void print(const json_t *figures, const struct top *top)
{
	if (top->json) {
		json_dumpf(figures, stdout, JSON_COMPACT);
		puts("");
	} else {
		if (!top->once && isatty(STDOUT_FILENO))
			printf(TERMINAL_HOME_AND_CLEAR);
		print_figures(figures);
	}
	fflush(stdout);
}

/* ---- the verb ---- */

static int show(const struct top *top)
{
	json_t *before = look_at_all();
	uint64_t begun_ms = now_ms();
	bool goes_on = before;
	int code = 0;

	while (goes_on && !(code = reader_wait((int)top->every_ms))) {
		uint64_t looked_ms;
		json_t *figures;
		json_t *now;

		now = look_at_all();
		looked_ms = now_ms();
		figures = all_figures(before, now, looked_ms - begun_ms);
		print(figures, top);
		json_decref(figures);
		json_decref(before);
		before = now;
		begun_ms = looked_ms;
		goes_on = now && !top->once;
	}
	if (before) {
		json_decref(before);
		return code;
	}
	return complain(EXIT_UNUSABLE, strerror(errno), "the folder of the machines' names",
			"have XDG_RUNTIME_DIR name a folder of yours alone");
}

static int parse_every(const char *text, uint64_t *ret_ms)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0.01 && seconds <= EVERY_MOST_S))
		return complain(EXIT_USAGE, "no time", text, "say for example --every 5");
	*ret_ms = (uint64_t)(seconds * MS_PER_S);
	return 0;
}

int verb_top(int argc, char **argv)
{
	static const struct option longs[] = { { "json", 0, 0, 'j' }, { "once", 0, 0, 'o' },
					       { "every", 1, 0, 'e' }, { "help", 0, 0, 'h' },
					       { 0 } };
	struct top top = { .every_ms = EVERY_MS };
	int code = 0;
	int option;

	while (!code && (option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 'j': top.json = true; break;
		case 'o': top.once = true; break;
		case 'e': code = parse_every(optarg, &top.every_ms); break;
		case 'h': fputs(top_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (!code && optind < argc)
		code = complain(EXIT_USAGE, "wrong number of arguments", argv[0],
				"see umbra top --help");
	return code ? code : show(&top);
}
