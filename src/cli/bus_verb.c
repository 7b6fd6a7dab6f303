/* umbra bus: what the hub knows of ports, joints and decisions. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "option.h"
#include "reader.h"
#include "control/names.h"
#include "share/hub_line.h"

enum { REPORT_BYTES = 1 << 20, SOCKET_BYTES = 108, LIVE_MS = 1000 };

static const char bus_help[] =
	"usage: umbra bus [NAME] [--json | --live]\n"
	"Shows the channels between your machines (umbra run --serve, --bind): who is joined to "
	"whom,\n"
	"what has passed, and what the rules have decided and why. NAME: of this machine alone.\n"
	"--live: again each second, until it is stopped.\n"
	"The rules are in ~/.config/umbra/share.rules: umbra-rules(5).\n";

/* What the hub says, or NULL with *ret_error; freed by the caller. */
static char *ask_hub(int line, int *ret_error)
{
	struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_SHOW };
	char *text = calloc(1, REPORT_BYTES);
	size_t used = 0;
	int error = text ? line_send(line, &message, NULL, 0) : -ENOMEM;

	while (!error) {
		int none[WIRE_FDS];
		size_t bytes;

		error = line_receive(line, &message, none, true);
		error = error < 0 ? error : 0;
		bytes = strnlen(message.text, sizeof(message.text));
		if (error || !bytes)
			break;
		if (used + bytes >= REPORT_BYTES)
			error = -EMSGSIZE;
		else
			memcpy(text + used, message.text, bytes);
		used += bytes;
	}
	*ret_error = error;
	if (!error)
		return text;
	free(text);
	return NULL;
}

static const char *word(const json_t *of, const char *key)
{
	const char *text = json_string_value(json_object_get(of, key));

	return text ? text : "";
}

static long number(const json_t *of, const char *key)
{
	return (long)json_integer_value(json_object_get(of, key));
}

static bool is_about(const json_t *of, const char *name)
{
	return !name || !strcmp(word(of, "machine"), name) || !strcmp(word(of, "peer"), name);
}

static void print_ports(const json_t *ports, const char *name)
{
	const json_t *port;
	size_t n;

	json_array_foreach((json_t *)(uintptr_t)ports, n, port) {
		if (!is_about(port, name))
			continue;
		printf("%s %s %s (%s): %s%s%s, %ld packets, %ld bytes sent, %ld and %ld a second, "
		       "%ld wait, %ld held back, %ld lost\n",
		       word(port, "machine"), word(port, "side"), word(port, "instance"),
		       word(port, "class"), word(port, "state"),
		       *word(port, "peer") ? " with " : "", word(port, "peer"),
		       number(port, "packets"), number(port, "bytes"),
		       number(port, "passed_packets_per_s"), number(port, "passed_bytes_per_s"),
		       number(port, "waiting"), number(port, "held"), number(port, "lost"));
	}
}

static void print_decisions(const json_t *decisions, const char *name)
{
	const json_t *decision;
	size_t n;

	json_array_foreach((json_t *)(uintptr_t)decisions, n, decision) {
		const time_t at = number(decision, "at");
		char when[32] = "";
		struct tm local;

		if (!is_about(decision, name))
			continue;
		if (localtime_r(&at, &local))
			strftime(when, sizeof(when), "%F %T", &local);
		printf("%s %s: %s may%s %s %s: %s\n", when,
		       json_is_true(json_object_get(decision, "allowed")) ? "allowed" : "denied",
		       word(decision, "machine"),
		       json_is_true(json_object_get(decision, "allowed")) ? "" : " not",
		       word(decision, "act"), word(decision, "instance"),
		       word(decision, "reason"));
	}
}

static bool is_any_about(const json_t *list, const char *name)
{
	const json_t *about;
	size_t n;

	json_array_foreach((json_t *)(uintptr_t)list, n, about)
		if (is_about(about, name))
			return true;
	return false;
}

/* Only what is about the machine. */
static void keep_only(json_t *list, const char *name)
{
	for (size_t n = json_array_size(list); n-- > 0;)
		if (!is_about(json_array_get(list, n), name))
			json_array_remove(list, n);
}

static int print_report(const char *text, const char *name, bool as_json)
{
	json_t *report = json_loads(text, 0, NULL);
	json_t *ports = json_object_get(report, "ports");
	json_t *decisions = json_object_get(report, "decisions");

	if (!report)
		return complain(EXIT_FAULT, "what it says is no JSON", "the hub",
				"please report it");
	if (as_json) {
		keep_only(ports, name);
		keep_only(decisions, name);
		json_dumpf(report, stdout, JSON_INDENT(1));
		putchar('\n');
	} else {
		if (number(report, "wrong_line"))
			printf("line %ld of the rules is wrong: nothing is allowed\n",
			       number(report, "wrong_line"));
		if (!is_any_about(ports, name) && !is_any_about(decisions, name))
			puts("no channel between machines");
		print_ports(ports, name);
		print_decisions(decisions, name);
	}
	json_decref(report);
	return 0;
}

static int show(const char *name, bool as_json)
{
	char path[SOCKET_BYTES];
	int error = name_hub_path(path, sizeof(path));
	int line = error ? error : line_connect(path);
	char *text;
	int code;

	if (line == -ENOENT || line == -ECONNREFUSED)
		return print_report("{\"ports\": [], \"decisions\": []}", name, as_json);
	if (line < 0)
		return complain(EXIT_FAULT, strerror(-line), "the hub", "see umbra doctor");
	text = ask_hub(line, &error);
	close(line);
	if (!text)
		return complain(EXIT_FAULT, strerror(-error), "the hub", "ask again");
	code = print_report(text, name, as_json);
	free(text);
	return code;
}

static int show_live(const char *name)
{
	int code;

	do {
		if (isatty(STDOUT_FILENO))
			fputs(TERMINAL_HOME_AND_CLEAR, stdout);
		code = show(name, false);
	} while (!code && !(code = reader_wait(LIVE_MS)));
	return code;
}

int verb_bus(int argc, char **argv)
{
	static const struct option longs[] = { { "json", 0, 0, 'j' },
					       { "live", 0, 0, 'l' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	bool as_json = false;
	bool is_live = false;
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1) {
		if (option == 'h') {
			fputs(bus_help, stdout);
			return 0;
		}
		if (option == '?')
			return EXIT_USAGE;
		as_json |= option == 'j';
		is_live |= option == 'l';
	}
	if (as_json && is_live)
		return complain(EXIT_USAGE, "either of the two", "--json and --live",
				"see umbra bus --help");
	if (argc - optind > 1)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind + 1],
				"see umbra bus --help");
	if (is_live)
		return show_live(optind < argc ? argv[optind] : NULL);
	return show(optind < argc ? argv[optind] : NULL, as_json);
}
