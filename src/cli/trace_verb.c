/*
 * umbra trace: what a machine's processors leave translated code for, and what its bus says, each
 * as a line of JSON, or all together as what chrome://tracing and Perfetto read. The machine says
 * numbers only (ipc/trace_ring.h): all text is made here. It is as little believed as its guest: a
 * record of no kind ends it.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "option.h"
#include "ipc/trace_ring.h"
#include "reader.h"
#include "talk.h"

static const char trace_help[] =
	"usage: umbra trace NAME [--seconds N] [--kinds WHAT,...] [--chrome]\n"
	"Writes what the processors of the machine NAME leave translated code for, a line of JSON\n"
	"each, for N seconds (10). WHAT (exits,hypercalls,bus):\n"
	"  exits       cpuid, msr-read, msr-write, port-read, port-write, mmio-read, mmio-write,\n"
	"              priority-read, priority-write, halt, kick; or any of these by its name\n"
	"  hypercalls  with control word and result\n"
	"  bus         messages: bus-in, bus-out\n"
	"  interrupts  that were delivered\n"
	"--chrome: one JSON object, which chrome://tracing and Perfetto show.\n";

enum { SECONDS = 10, SECONDS_MOST = 3600, MS_PER_S = 1000, PIECE_BYTES = 8192 };
enum { ERRNO_MAX = 4095, NS_PER_US = 1000, HEXADECIMAL_BYTES = 19 };

struct trace_view {
	const char *name, *kinds;
	uint64_t milliseconds, records, dropped;
	bool chrome;
};

/* ---- a record as text ---- */

static json_t *hexadecimal(uint64_t value)
{
	char text[HEXADECIMAL_BYTES];

	snprintf(text, sizeof(text), "0x%lx", value);
	return json_string(text);
}

static void set_words(json_t *object, const struct trace_name *name,
		      const struct trace_record *record)
{
	for (unsigned n = 0; n < 2; n++)
		if (name->word[n])
			json_object_set_new(object, name->word[n], hexadecimal(record->word[n]));
}

static json_t *line_of(const struct trace_name *name, const struct trace_record *record)
{
	json_t *line = json_pack("{s:I, s:s}", "ns", (json_int_t)(record->ns & INT64_MAX), "kind",
				 name->kind);

	if (record->processor != TRACE_NO_PROCESSOR)
		json_object_set_new(line, "processor", json_integer(record->processor));
	set_words(line, name, record);
	json_object_set_new(line, "took-ns", json_integer(record->took_ns));
	return line;
}

/* A thread for each processor; what is of none is of one with a number that no processor has. */
static json_t *event_of(const struct trace_name *name, const struct trace_record *record)
{
	json_t *arguments = json_object();

	set_words(arguments, name, record);
	return json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i, s:o}", "name", name->kind, "cat",
			 name->group, "ph", "X", "ts", (double)record->ns / NS_PER_US, "dur",
			 (double)record->took_ns / NS_PER_US, "pid", 1, "tid", record->processor,
			 "args", arguments);
}

static void print_record(struct trace_view *view, const struct trace_name *name,
			 const struct trace_record *record)
{
	json_t *line = view->chrome ? event_of(name, record) : line_of(name, record);

	if (view->chrome && view->records)
		puts(",");
	json_dumpf(line, stdout, JSON_COMPACT);
	if (!view->chrome)
		puts("");
	view->records++;
	json_decref(line);
}

/* ---- what is heard ---- */

static int hear_records(FILE *peer, json_int_t bytes, struct trace_view *view)
{
	struct trace_record record[PIECE_BYTES / sizeof(struct trace_record)];
	size_t count;

	if (bytes <= 0 || bytes > PIECE_BYTES || (size_t)bytes % sizeof(record[0]))
		return -EPROTO;
	count = (size_t)bytes / sizeof(record[0]);
	if (fread(record, sizeof(record[0]), count, peer) != count)
		return -ECONNRESET;
	for (size_t n = 0; n < count; n++) {
		const struct trace_name *name = trace_kind(record[n].kind);

		if (!name)
			return -EPROTO;
		print_record(view, name, &record[n]);
	}
	return fflush(stdout) ? -errno : 1;
}

/* 1: there is more to hear; 0; -errno. */
static int take_line(FILE *peer, const json_t *line, struct trace_view *view)
{
	const json_t *bytes = json_object_get(line, "data");
	const json_int_t number = json_integer_value(json_object_get(line, "errno"));
	const json_int_t dropped = json_integer_value(json_object_get(line, "dropped"));

	if (!line)
		return -ECONNRESET;
	if (bytes)
		return hear_records(peer, json_integer_value(bytes), view);
	if (!json_is_true(json_object_get(line, "ok")))
		return number > 0 && number <= ERRNO_MAX ? -(int)number : -EPROTO;
	view->dropped = dropped > 0 ? (uint64_t)dropped : 0;
	return 0;
}

static bool ask(FILE *peer, const struct trace_view *view)
{
	return fprintf(peer, "{\"id\":1,\"do\":\"trace\",\"kinds\":\"%s\",\"milliseconds\":%lu}\n",
		       view->kinds, view->milliseconds) > 0 &&
	       !fflush(peer);
}

/* Also of a machine that ends meanwhile: what it had said is whole. */
static int hear_all(FILE *peer, struct trace_view *view)
{
	int got = ask(peer, view) ? 1 : -ECONNRESET;

	if (view->chrome)
		puts("{\"traceEvents\":[");
	while (got > 0) {
		json_t *line = talk_hear(peer);

		got = take_line(peer, line, view);
		json_decref(line);
	}
	if (view->chrome)
		printf("],\"displayTimeUnit\":\"ns\",\"otherData\":{\"dropped\":%lu}}\n",
		       view->dropped);
	else if (!got && view->dropped)
		printf("{\"dropped\":%lu}\n", view->dropped);
	return got == -ECONNRESET && view->records ? 0 : got;
}

static int trace(struct trace_view *view)
{
	int error;
	FILE *peer = talk_to(view->name, &error);

	if (!peer)
		return talk_failed(view->name, error);
	error = hear_all(peer, view);
	fclose(peer);
	if (error == -EBUSY)
		return complain(EXIT_UNUSABLE, "somebody else traces it", view->name,
				"try again once that has ended");
	if (error == -EPIPE)
		return READER_GONE;
	return error ? talk_failed(view->name, error) : 0;
}

/* ---- the verb ---- */

static int parse_seconds(const char *text, uint64_t *ret_milliseconds)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0.001 && seconds <= SECONDS_MOST))
		return complain(EXIT_USAGE, "no time", text, "say for example --seconds 5");
	*ret_milliseconds = (uint64_t)(seconds * MS_PER_S);
	return 0;
}

static int parse_kinds(const char *text, struct trace_view *view)
{
	uint32_t wanted;

	if (!trace_parse(text, &wanted))
		return complain(EXIT_USAGE, "no kinds that can be traced", text,
				"see umbra trace --help");
	view->kinds = text;
	return 0;
}

int verb_trace(int argc, char **argv)
{
	static const struct option longs[] = { { "seconds", 1, 0, 's' },
					       { "kinds", 1, 0, 'k' },
					       { "chrome", 0, 0, 'c' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct trace_view view = { .kinds = "exits,hypercalls,bus",
				   .milliseconds = SECONDS * MS_PER_S };
	int code = 0;
	int option;

	while (!code && (option = option_of_verb(argv[0], argc, argv, "h", longs)) != -1)
		switch (option) {
		case 's': code = parse_seconds(optarg, &view.milliseconds); break;
		case 'k': code = parse_kinds(optarg, &view); break;
		case 'c': view.chrome = true; break;
		case 'h': fputs(trace_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (!code && argc - optind != 1)
		code = complain(EXIT_USAGE, "wrong number of arguments", "trace",
				"see umbra trace --help");
	if (code)
		return code;
	view.name = argv[optind];
	return trace(&view);
}
