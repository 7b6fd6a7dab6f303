/*
 * See mcp_tools.h. Each tool is a row: its arguments, in the order in which they become words of
 * one of this program's own verbs, which is executed. Files are read and written through one that
 * is thrown away. What a model says is checked as what a user says is: words that begin with a dash
 * stand behind "--", and what the verb refuses it says.
 */
#include "mcp_tools.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/names.h"
#include "mcp_run.h"

/* WORDS: two lists, one of them with an option each, and the rest. */
enum { WORDS = 1024, LIST_ITEMS = 256, SECONDS = 120, SECONDS_MOST = 3600, FORKS_MOST = 64 };
enum { FILE_BYTES = 1 << 20, PATH_BYTES = 64, TRACE_SECONDS_MOST = 60 };
enum { TEXT_BYTES = 1 << 20, PICTURE_BYTES = 16 << 20 };

enum type { TYPE_NONE, TYPE_MACHINE, TYPE_TEXT, TYPE_WORDS, TYPE_PATH, TYPE_NUMBER, TYPE_FLAG };

struct argument {
	const char *name, *about;
	enum type type;
	const char *option; /* of the verb; "": an operand; NULL: not passed on */
	bool is_needed;
	unsigned most; /* of numbers, the least is 1 */
};

enum kind { KIND_VERB, KIND_PICTURE, KIND_READ, KIND_WRITE };

enum { ARGUMENTS = 6, VERB_WORDS = 3 };

struct tool {
	const char *name, *about;
	enum kind kind;
	const char *verb[VERB_WORDS];
	const char *last; /* behind all operands; NULL: nothing */
	struct argument arguments[ARGUMENTS]; /* ended by one without a name, where there is room */
};

#define MACHINE \
	{ .name = "machine", .type = TYPE_MACHINE, .option = "", .is_needed = true, \
	  .about = "The machine's name" }

static const struct tool tools[] = {
	{ .name = "list_machines",
	  .about = "All machines of this user that run, as JSON",
	  .verb = { "ps", "--json" } },
	{ .name = "machine_info",
	  .about = "What a machine is and where its processors are, as JSON",
	  .verb = { "info", "--json" },
	  .arguments = { MACHINE } },
	{ .name = "screenshot",
	  .about = "What is on a machine's screen, as a PNG; it was run with --display",
	  .kind = KIND_PICTURE,
	  .verb = { "screenshot" },
	  .last = "-",
	  .arguments = { MACHINE } },
	{ .name = "trace",
	  .about = "Why a machine's processors leave translated code, what its guest asks of the"
		   " hypervisor and what its bus says meanwhile: a line of JSON each",
	  .verb = { "trace" },
	  .arguments = { MACHINE,
			 { .name = "seconds",
			   .type = TYPE_NUMBER,
			   .option = "--seconds",
			   .most = TRACE_SECONDS_MOST,
			   .is_needed = true,
			   .about = "For how long; it is answered when they are over" },
			 { .name = "kinds",
			   .type = TYPE_TEXT,
			   .option = "--kinds",
			   .about = "Of exits, hypercalls, bus, interrupts, with commas between"
				    " them; exits,hypercalls,bus unless it is said" } } },
	{ .name = "exec",
	  .about = "Runs a program in a machine, by umbra-agent there; no shell is involved",
	  .verb = { "exec", "-T" },
	  .arguments = { MACHINE,
			 { .name = "command",
			   .type = TYPE_WORDS,
			   .option = "",
			   .is_needed = true,
			   .about = "The program and its arguments, one each" },
			 { .name = "env",
			   .type = TYPE_WORDS,
			   .option = "--env",
			   .about = "NAME=VALUE each" },
			 { .name = "input", .type = TYPE_TEXT, .about = "What it reads" },
			 { .name = "timeout_seconds",
			   .type = TYPE_NUMBER,
			   .most = SECONDS_MOST,
			   .about = "After which it is ended; 120 unless it is said" } } },
	{ .name = "read_file",
	  .about = "A text file of a machine, of at most 1 MiB",
	  .kind = KIND_READ,
	  .arguments = { MACHINE,
			 { .name = "path",
			   .type = TYPE_PATH,
			   .is_needed = true,
			   .about = "In the machine" } } },
	{ .name = "write_file",
	  .about = "Writes a text file in a machine",
	  .kind = KIND_WRITE,
	  .arguments = { MACHINE,
			 { .name = "path",
			   .type = TYPE_PATH,
			   .is_needed = true,
			   .about = "In the machine" },
			 { .name = "text",
			   .type = TYPE_TEXT,
			   .is_needed = true,
			   .about = "All that it shall hold" } } },
	{ .name = "fork",
	  .about = "Makes machines of one that runs, all of this moment: each goes on by itself",
	  .verb = { "fork", "--json" },
	  .arguments = { MACHINE,
			 { .name = "name",
			   .type = TYPE_MACHINE,
			   .option = "--name",
			   .about = "Of the new one; of several it is what names begin with" },
			 { .name = "count",
			   .type = TYPE_NUMBER,
			   .option = "-n",
			   .most = FORKS_MOST,
			   .about = "How many" } } },
	{ .name = "snapshot",
	  .about = "Writes the whole machine to a new file of the host; it runs on",
	  .verb = { "save" },
	  .arguments = { MACHINE,
			 { .name = "file",
			   .type = TYPE_PATH,
			   .option = "",
			   .is_needed = true,
			   .about = "On the host" } } },
	{ .name = "restore",
	  .about = "A new machine that goes on from a snapshot",
	  .verb = { "run", "--detach" },
	  .arguments = { { .name = "name",
			   .type = TYPE_MACHINE,
			   .option = "--name",
			   .is_needed = true,
			   .about = "What it is called" },
			 { .name = "file",
			   .type = TYPE_PATH,
			   .option = "--restore",
			   .is_needed = true,
			   .about = "On the host" } } },
	{ .name = "pause",
	  .about = "Has a machine stand still",
	  .verb = { "pause" },
	  .arguments = { MACHINE } },
	{ .name = "resume",
	  .about = "Lets a machine go on that stands still",
	  .verb = { "resume" },
	  .arguments = { MACHINE } },
	{ .name = "stop",
	  .about = "Asks a machine's guest to power off; half a minute later it is ended",
	  .verb = { "stop" },
	  .arguments = { MACHINE } },
};
enum { TOOLS = sizeof(tools) / sizeof(tools[0]) };

static const struct argument *argument_at(const struct tool *tool, size_t n)
{
	return n < ARGUMENTS && tool->arguments[n].name ? &tool->arguments[n] : NULL;
}

/* ---- what is said of them ---- */

static json_t *schema_of(const struct argument *argument)
{
	static const char *const types[] = { [TYPE_MACHINE] = "string", [TYPE_TEXT] = "string",
					     [TYPE_WORDS] = "array",    [TYPE_PATH] = "string",
					     [TYPE_NUMBER] = "integer", [TYPE_FLAG] = "boolean" };
	json_t *schema = json_pack("{s:s, s:s}", "type", types[argument->type], "description",
				   argument->about);

	if (argument->type == TYPE_WORDS)
		json_object_set_new(schema, "items", json_pack("{s:s}", "type", "string"));
	if (argument->type == TYPE_NUMBER) {
		json_object_set_new(schema, "minimum", json_integer(1));
		json_object_set_new(schema, "maximum", json_integer(argument->most));
	}
	if (argument->type == TYPE_PATH)
		json_object_set_new(schema, "pattern", json_string("^/"));
	return schema;
}

static json_t *describe(const struct tool *tool)
{
	json_t *properties = json_object();
	json_t *needed = json_array();
	const struct argument *argument;

	for (size_t n = 0; (argument = argument_at(tool, n)); n++) {
		json_object_set_new(properties, argument->name, schema_of(argument));
		if (argument->is_needed)
			json_array_append_new(needed, json_string(argument->name));
	}
	return json_pack("{s:s, s:s, s:{s:s, s:o, s:o, s:b}}", "name", tool->name, "description",
			 tool->about, "inputSchema", "type", "object", "properties", properties,
			 "required", needed, "additionalProperties", 0);
}

json_t *mcp_tools_list(void)
{
	json_t *all = json_array();

	for (size_t n = 0; n < TOOLS; n++)
		json_array_append_new(all, describe(&tools[n]));
	return all;
}

/* ---- what they are given ---- */

static bool is_text(const json_t *value)
{
	const char *text = json_string_value(value);

	return text && strlen(text) == json_string_length(value);
}

static bool is_words(const json_t *value)
{
	const json_t *item;
	size_t n;

	json_array_foreach(value, n, item)
		if (!is_text(item))
			return false;
	return json_is_array(value) && json_array_size(value) <= LIST_ITEMS;
}

static bool is_fit(const struct argument *argument, const json_t *value)
{
	switch (argument->type) {
	case TYPE_MACHINE: return is_text(value) && name_is_valid(json_string_value(value));
	case TYPE_TEXT: return json_is_string(value);
	case TYPE_WORDS: return is_words(value) && (!argument->is_needed || json_array_size(value));
	case TYPE_PATH: return is_text(value) && *json_string_value(value) == '/';
	case TYPE_NUMBER:
		return json_is_integer(value) && json_integer_value(value) >= 1 &&
		       json_integer_value(value) <= argument->most;
	default: return json_is_boolean(value);
	}
}

static const char *wrong_with(const struct tool *tool, const json_t *arguments)
{
	const struct argument *argument;
	size_t known = 0;

	if (arguments && !json_is_object(arguments))
		return "arguments are no object";
	for (size_t n = 0; (argument = argument_at(tool, n)); n++) {
		const json_t *value = json_object_get(arguments, argument->name);

		if (!value && argument->is_needed)
			return argument->name;
		if (value && !is_fit(argument, value))
			return argument->name;
		known += value != NULL;
	}
	return known == json_object_size(arguments) ? NULL : "an argument that it does not take";
}

/* ---- what they do ---- */

struct words { const char *word[WORDS]; size_t count; char number[ARGUMENTS][16]; };

static void add(struct words *words, const char *word)
{
	if (*word && words->count + 1 < WORDS)
		words->word[words->count++] = word;
}

static void add_argument(struct words *words, const struct argument *argument, size_t n,
			 const json_t *value)
{
	const json_t *item;
	size_t at;

	switch (argument->type) {
	case TYPE_WORDS:
		json_array_foreach(value, at, item) {
			add(words, argument->option);
			assert(words->count + 1 < WORDS);
			words->word[words->count++] = json_string_value(item);
		}
		return;
	case TYPE_NUMBER:
		snprintf(words->number[n], sizeof(words->number[n]), "%d",
			 (int)json_integer_value(value));
		add(words, argument->option);
		add(words, words->number[n]);
		return;
	case TYPE_FLAG:
		if (json_is_true(value))
			add(words, argument->option);
		return;
	default:
		add(words, argument->option);
		add(words, json_string_value(value));
	}
}

static void add_all(struct words *words, const struct tool *tool, const json_t *arguments,
		    bool operands)
{
	const struct argument *argument;

	for (size_t n = 0; (argument = argument_at(tool, n)); n++) {
		const json_t *value = json_object_get(arguments, argument->name);

		if (value && argument->option && operands == !*argument->option)
			add_argument(words, argument, n, value);
	}
}

/* Text that JSON can hold: what is not UTF-8 is a question mark. */
static json_t *text_of(char *data, size_t bytes)
{
	json_t *text = json_stringn(data, bytes);

	for (size_t n = 0; !text && n < bytes; n++)
		if ((unsigned char)data[n] >= 0x80)
			data[n] = '?';
	return text ? text : json_stringn(data, bytes);
}

static json_t *answer(json_t *text, bool is_error)
{
	return json_pack("{s:[{s:s, s:o}], s:b}", "content", "type", "text", "text", text,
			 "isError", is_error);
}

static json_t *failed(const char *text) { return answer(json_string(text), true); }

static void add_content(json_t *result, char *data, size_t bytes)
{
	json_array_append_new(json_object_get(result, "content"),
			      json_pack("{s:s, s:o}", "type", "text", "text",
					text_of(data, bytes)));
}

/* Output, then errors if there are any, then what else there is to know. */
static json_t *answer_said(struct mcp_said *said)
{
	json_t *result =
		answer(text_of(said->output, said->output_bytes), said->code || said->is_late);
	char end[64] = "";

	if (said->error_bytes)
		add_content(result, said->errors, said->error_bytes);
	if (said->is_late)
		snprintf(end, sizeof(end), "it was ended: its time is over");
	else if (said->code)
		snprintf(end, sizeof(end), "it ended with %d", said->code);
	if (*end)
		add_content(result, end, strlen(end));
	if (said->is_cut)
		json_array_append_new(json_object_get(result, "content"),
				      json_pack("{s:s, s:s}", "type", "text", "text",
						"there was more"));
	return result;
}

/* NULL: it is none, or not whole. */
static json_t *base64_of(const struct mcp_said *said)
{
	static const char begin[] = "\x89PNG";
	const int variant = sodium_base64_VARIANT_ORIGINAL;
	const size_t bytes = sodium_base64_encoded_len(said->output_bytes, variant);
	char *text = NULL;
	json_t *value;

	if (!said->is_cut && said->output_bytes > strlen(begin) &&
	    !memcmp(said->output, begin, strlen(begin)))
		text = malloc(bytes);
	if (!text)
		return NULL;
	sodium_bin2base64(text, bytes, (const unsigned char *)said->output, said->output_bytes,
			  variant);
	value = json_string(text);
	free(text);
	return value;
}

static json_t *answer_picture(struct mcp_said *said)
{
	json_t *data;

	if (said->code || said->is_late)
		return answer_said(said);
	data = base64_of(said);
	return data ? json_pack("{s:[{s:s, s:o, s:s}], s:b}", "content", "type", "image", "data",
				data, "mimeType", "image/png", "isError", 0)
		    : failed("it is no picture, or a larger one than 16 MiB");
}

static json_t *run_verb(const struct tool *tool, const json_t *arguments)
{
	const bool is_picture = tool->kind == KIND_PICTURE;
	const json_t *seconds = json_object_get(arguments, "timeout_seconds");
	const json_t *input = json_object_get(arguments, "input");
	struct words words = { .count = 0 };
	struct mcp_said said;
	json_t *result;

	for (size_t n = 0; n < VERB_WORDS && tool->verb[n]; n++)
		add(&words, tool->verb[n]);
	add_all(&words, tool, arguments, false);
	add(&words, "--");
	add_all(&words, tool, arguments, true);
	if (tool->last)
		add(&words, tool->last);
	if (mcp_run(&(struct mcp_run){ .words = words.word,
				       .input = json_string_value(input),
				       .input_bytes = json_string_length(input),
				       .output_most_bytes = is_picture ? PICTURE_BYTES : TEXT_BYTES,
				       .seconds = seconds ? (unsigned)json_integer_value(seconds)
							  : SECONDS },
		    &said))
		return failed("the host has no process or no memory for it");
	result = is_picture ? answer_picture(&said) : answer_said(&said);
	free(said.output);
	return result;
}

/* A file of the host's, to be unlinked and closed. */
static int scratch(char path[PATH_BYTES])
{
	snprintf(path, PATH_BYTES, "/tmp/umbra-mcp-XXXXXX");
	return mkstemp(path);
}

/* NULL, or that it failed. */
static json_t *copy(const char *from, const char *to)
{
	const char *const words[] = { "cp", "--", from, to, NULL };
	struct mcp_said said;
	json_t *result = NULL;

	if (mcp_run(&(struct mcp_run){ .words = words,
				       .output_most_bytes = TEXT_BYTES,
				       .seconds = SECONDS },
		    &said))
		return failed("the host has no process or no memory for it");
	if (said.code)
		result = answer_said(&said);
	free(said.output);
	return result;
}

/* In the machine; to be freed. */
static char *place_of(const json_t *arguments)
{
	char *place = NULL;

	if (asprintf(&place, "%s:%s", json_string_value(json_object_get(arguments, "machine")),
		     json_string_value(json_object_get(arguments, "path"))) < 0)
		return NULL;
	return place;
}

/* As text; one that is none is refused, so that nobody takes half of it for all. */
static json_t *answer_file(const char *path)
{
	char *data = malloc(FILE_BYTES + 1);
	FILE *file = fopen(path, "r");
	size_t bytes = file && data ? fread(data, 1, FILE_BYTES + 1, file) : 0;
	json_t *text = data && bytes <= FILE_BYTES ? json_stringn(data, bytes) : NULL;

	if (file)
		fclose(file);
	free(data);
	return text ? answer(text, false)
		    : failed("it is no text, or larger than 1 MiB: umbra cp copies it");
}

static json_t *read_file(const char *place, const char *path)
{
	json_t *wrong = copy(place, path);

	return wrong ? wrong : answer_file(path);
}

static json_t *write_file(const char *place, const char *path, const json_t *text)
{
	FILE *file = fopen(path, "w");
	size_t bytes = json_string_length(text);
	bool is_written = file && fwrite(json_string_value(text), 1, bytes, file) == bytes;
	json_t *wrong;

	if (file && fclose(file))
		is_written = false;
	wrong = is_written ? copy(path, place) : failed("the host has no room for it");
	return wrong ? wrong : answer(json_string("written"), false);
}

static json_t *move_file(const struct tool *tool, const json_t *arguments)
{
	char path[PATH_BYTES];
	char *place = place_of(arguments);
	int fd = scratch(path);
	json_t *result;

	if (fd < 0 || !place)
		result = failed("the host has no room for it");
	else if (tool->kind == KIND_READ)
		result = read_file(place, path);
	else
		result = write_file(place, path, json_object_get(arguments, "text"));
	if (fd >= 0) {
		unlink(path);
		close(fd);
	}
	free(place);
	return result;
}

json_t *mcp_tools_call(const char *name, const json_t *arguments, const char **ret_wrong)
{
	for (size_t n = 0; n < TOOLS; n++) {
		if (strcmp(tools[n].name, name))
			continue;
		*ret_wrong = wrong_with(&tools[n], arguments);
		if (*ret_wrong)
			return NULL;
		if (tools[n].kind == KIND_READ || tools[n].kind == KIND_WRITE)
			return move_file(&tools[n], arguments);
		return run_verb(&tools[n], arguments);
	}
	*ret_wrong = "no such tool";
	return NULL;
}
