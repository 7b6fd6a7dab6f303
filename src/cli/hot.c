/*
 * See hot.h. The machine is asked again and again where its processors are, and it is counted in
 * which function of the guest's kernel each was; what is not of the kernel is one row, and so is
 * what no symbol is known of. A processor that sleeps is not counted.
 *
 * A processor says where it is at its next poll, at the head of a loop or a call: a function
 * without either is counted for whoever called it. The machine may say anything: rows are limited.
 */
#include "hot.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "register_text.h"
#include "symbols.h"
#include "talk.h"

enum { SECONDS_MOST = 3600, PAUSE_MS = 4, ROWS_MOST = 4096, ROWS_SHOWN = 30, NAME_BYTES = 128 };
enum { PRIVILEGE_MASK = 3, NS_PER_MS = 1000000, MS_PER_S = 1000 };

struct row { char name[NAME_BYTES]; uint64_t count; };

struct hot {
	struct symbols *symbols;
	struct row *rows;
	size_t count;
	uint64_t looks, asleep;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * MS_PER_S + (uint64_t)(now.tv_nsec / NS_PER_MS);
}

static void count_name(struct hot *hot, const char *name)
{
	size_t n = 0;

	while (n < hot->count && strcmp(hot->rows[n].name, name))
		n++;
	if (n == ROWS_MOST)
		return;
	if (n == hot->count)
		snprintf(hot->rows[hot->count++].name, NAME_BYTES, "%s", name);
	hot->rows[n].count++;
}

static void count_processor(struct hot *hot, const json_t *processor)
{
	const char *state = json_string_value(json_object_get(processor, "state"));
	const char *segment = json_string_value(json_object_get(processor, "cs"));
	char name[NAME_BYTES];

	hot->looks++;
	if (state && strcmp(state, "runs"))
		hot->asleep++;
	else if (segment && (strtoull(segment, NULL, 16) & PRIVILEGE_MASK) == PRIVILEGE_MASK)
		count_name(hot, "[user]");
	else if (registers_function(processor, hot->symbols, name, sizeof(name)))
		count_name(hot, name);
	else
		count_name(hot, "[unknown]");
}

/* False: the machine does not answer any more. */
static bool look(struct hot *hot, FILE *peer)
{
	json_t *answer = talk_ask(peer, "registers") ? talk_hear(peer) : NULL;
	json_t *processors = json_object_get(answer, "processors");
	json_t *processor;
	bool goes_on;
	size_t n;

	json_array_foreach(processors, n, processor)
		count_processor(hot, processor);
	goes_on = json_is_array(processors);
	json_decref(answer);
	return goes_on;
}

/* At least once, for this long. */
static void look_for(struct hot *hot, FILE *peer, uint64_t milliseconds)
{
	const struct timespec pause = { 0, PAUSE_MS * NS_PER_MS };
	const uint64_t end = now_ms() + milliseconds;

	while (look(hot, peer) && now_ms() < end)
		nanosleep(&pause, NULL);
}

/* ---- what is shown ---- */

static int compare_rows(const void *a, const void *b)
{
	const struct row *left = a;
	const struct row *right = b;

	if (left->count != right->count)
		return left->count < right->count ? 1 : -1;
	return strcmp(left->name, right->name);
}

static void print_json(const struct hot *hot)
{
	json_t *rows = json_array();
	json_t *whole = json_pack("{s:I, s:I, s:o}", "looks", (json_int_t)hot->looks, "asleep",
				  (json_int_t)hot->asleep, "functions", rows);

	for (size_t n = 0; n < hot->count; n++)
		json_array_append_new(rows, json_pack("{s:s, s:I}", "name", hot->rows[n].name,
						      "count", (json_int_t)hot->rows[n].count));
	json_dumpf(whole, stdout, JSON_INDENT(2));
	puts("");
	json_decref(whole);
}

static void print_rows(const struct hot *hot)
{
	const uint64_t awake = hot->looks - hot->asleep;

	printf("%lu looks at processors, %lu of them asleep\n", hot->looks, hot->asleep);
	for (size_t n = 0; n < hot->count && n < ROWS_SHOWN; n++)
		printf("%6.1f %%  %s\n", 100.0 * (double)hot->rows[n].count / (double)awake,
		       hot->rows[n].name);
}

static int show(struct hot *hot, const struct hot_wanted *wanted, uint64_t milliseconds)
{
	int error;
	FILE *peer = talk_to(wanted->name, &error);

	if (!peer)
		return talk_failed(wanted->name, error);
	look_for(hot, peer, milliseconds);
	fclose(peer);
	if (!hot->looks)
		return talk_refused(wanted->name);
	qsort(hot->rows, hot->count, sizeof(*hot->rows), compare_rows);
	if (wanted->json)
		print_json(hot);
	else
		print_rows(hot);
	return 0;
}

/* False: it is no time. */
static bool parse_seconds(const char *text, uint64_t *ret_milliseconds)
{
	char *end;
	double seconds = text ? strtod(text, &end) : 1;

	*ret_milliseconds = 0;
	if (text && (end == text || *end || !(seconds > 0 && seconds <= SECONDS_MOST)))
		return false;
	*ret_milliseconds = (uint64_t)(seconds * MS_PER_S);
	return true;
}

int hot_show(const struct hot_wanted *wanted)
{
	struct hot hot = { .rows = calloc(ROWS_MOST, sizeof(struct row)) };
	uint64_t milliseconds;
	int error;
	int code;

	if (!parse_seconds(wanted->seconds, &milliseconds)) {
		free(hot.rows);
		return complain(EXIT_USAGE, "no time", wanted->seconds, "say for example --hot=5");
	}
	error = wanted->symbols ? symbols_read(wanted->symbols, &hot.symbols) : 0;
	if (!hot.rows)
		error = -ENOMEM;
	if (error)
		code = complain(EXIT_UNUSABLE, strerror(-error), wanted->symbols,
				"name a System.map, or what /proc/kallsyms of the guest says");
	else
		code = show(&hot, wanted, milliseconds);
	symbols_free(hot.symbols);
	free(hot.rows);
	return code;
}
