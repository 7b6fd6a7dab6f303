/*
 * umbra mcp: machines as tools of the Model Context Protocol (revision 2025-06-18), for programs
 * that act by a model: JSON-RPC 2.0 on standard input and output, a message a line.
 *
 *   - One request at a time, in the order in which they come; so there is nothing to cancel.
 *   - A notification is never answered, whatever is wrong with it.
 *   - A line of more than LINE_BYTES is lost, and answered as one that is no JSON.
 *
 * Left out: prompts, resources, progress, and batches, which that revision has not.
 */
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "mcp_tools.h"
#include "option.h"

enum { LINE_BYTES = 4 << 20 };
enum {
	RPC_NO_JSON = -32700,
	RPC_NO_REQUEST = -32600,
	RPC_NO_METHOD = -32601,
	RPC_WRONG_PARAMETERS = -32602
};

static const char mcp_help[] =
	"usage: umbra mcp\n"
	"Offers machines with names as tools of the Model Context Protocol, on standard input and\n"
	"output: list_machines, machine_info, screenshot, trace, exec, read_file, write_file,\n"
	"fork, snapshot, restore, pause, resume, stop. Whoever talks to it may do all that this\n"
	"user may do with machines.\n";

/* Its newest first. */
static const char *const revisions[] = { "2025-06-18", "2025-03-26", "2024-11-05" };

/* ---- answers ---- */

static void send_message(json_t *message)
{
	json_dumpf(message, stdout, JSON_COMPACT);
	puts("");
	fflush(stdout);
	json_decref(message);
}

static void succeed(const json_t *id, json_t *result)
{
	send_message(json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "result", result));
}

/* id: NULL: it could not be read. */
static void refuse(const json_t *id, int code, const char *text)
{
	json_t *known = id ? json_incref((json_t *)(uintptr_t)id) : json_null();

	send_message(json_pack("{s:s, s:o, s:{s:i, s:s}}", "jsonrpc", "2.0", "id", known, "error",
			       "code", code, "message", text));
}

/* ---- methods ---- */

static void initialize(const json_t *id, const json_t *parameters)
{
	const char *wanted = json_string_value(json_object_get(parameters, "protocolVersion"));
	const char *revision = revisions[0];

	for (size_t n = 0; wanted && n < sizeof(revisions) / sizeof(revisions[0]); n++)
		if (!strcmp(wanted, revisions[n]))
			revision = revisions[n];
	succeed(id, json_pack("{s:s, s:{s:{}}, s:{s:s, s:s}}", "protocolVersion", revision,
			      "capabilities", "tools", "serverInfo", "name", "umbra", "version",
			      UMBRA_VERSION));
}

static void ping(const json_t *id, const json_t *parameters)
{
	(void)parameters;
	succeed(id, json_object());
}

static void list_tools(const json_t *id, const json_t *parameters)
{
	(void)parameters;
	succeed(id, json_pack("{s:o}", "tools", mcp_tools_list()));
}

static void call_tool(const json_t *id, const json_t *parameters)
{
	const char *name = json_string_value(json_object_get(parameters, "name"));
	const char *wrong = "no name of a tool";
	json_t *arguments = json_object_get(parameters, "arguments");
	json_t *result = name ? mcp_tools_call(name, arguments, &wrong) : NULL;
	char text[256];

	if (result) {
		succeed(id, result);
		return;
	}
	snprintf(text, sizeof(text), "wrong or missing: %s", wrong);
	refuse(id, RPC_WRONG_PARAMETERS, text);
}

static const struct {
	const char *name;
	void (*run)(const json_t *id, const json_t *parameters);
} methods[] = {
	{ "initialize", initialize },
	{ "ping", ping },
	{ "tools/list", list_tools },
	{ "tools/call", call_tool },
};

static void run_method(const json_t *id, const char *method, const json_t *parameters)
{
	for (size_t n = 0; n < sizeof(methods) / sizeof(methods[0]); n++)
		if (!strcmp(method, methods[n].name)) {
			methods[n].run(id, parameters);
			return;
		}
	refuse(id, RPC_NO_METHOD, "no such method");
}

static bool is_id(const json_t *id) { return json_is_string(id) || json_is_integer(id); }

static void take_message(const json_t *message)
{
	const char *version = json_string_value(json_object_get(message, "jsonrpc"));
	const char *method = json_string_value(json_object_get(message, "method"));
	const json_t *id = json_object_get(message, "id");

	if (!version || strcmp(version, "2.0") || !method || (id && !is_id(id)))
		refuse(is_id(id) ? id : NULL, RPC_NO_REQUEST, "no request of JSON-RPC 2.0");
	else if (id)
		run_method(id, method, json_object_get(message, "params"));
}

static void take_line(const char *line, size_t bytes)
{
	json_t *message = json_loadb(line, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);

	if (message)
		take_message(message);
	else
		refuse(NULL, RPC_NO_JSON, "no JSON");
	json_decref(message);
}

/* ---- lines ---- */

/* The bytes of a line without its end; more than LINE_BYTES: it was longer. -1: there is none. */
static ssize_t read_line(char *line)
{
	size_t bytes = 0;
	int byte;

	while ((byte = getc_unlocked(stdin)) != EOF && byte != '\n')
		if (bytes <= LINE_BYTES)
			line[bytes++] = (char)byte;
	return byte == EOF && !bytes ? -1 : (ssize_t)bytes;
}

static int serve(void)
{
	char *line = malloc(LINE_BYTES + 1);
	ssize_t bytes;

	if (!line)
		return complain(EXIT_FAULT, "no memory", "umbra mcp", "free some");
	signal(SIGPIPE, SIG_IGN);
	while (!ferror(stdout) && (bytes = read_line(line)) >= 0) {
		if (bytes > LINE_BYTES)
			refuse(NULL, RPC_NO_JSON, "more than 4 MiB on a line");
		else if (bytes)
			take_line(line, (size_t)bytes);
	}
	free(line);
	return 0;
}

int verb_mcp(int argc, char **argv)
{
	static const struct option longs[] = { { "help", 0, 0, 'h' }, { 0 } };
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1) {
		if (option != 'h')
			return EXIT_USAGE;
		fputs(mcp_help, stdout);
		return 0;
	}
	if (optind < argc)
		return complain(EXIT_USAGE, "wrong number of arguments", argv[0],
				"see umbra mcp --help");
	return serve();
}
