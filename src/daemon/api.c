/* See api.h: finding an operation, checking its members, making the command's words of them. */
#include "api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/names.h"

enum { SEGMENT_BYTES = 256, WORDS = 600 };

/* ---- paths ---- */

/* One segment each: a member in braces takes whatever stands there. */
static bool take_segment(const char *wanted, size_t wanted_bytes, const char *segment,
			 size_t bytes, json_t *arguments)
{
	char name[SEGMENT_BYTES];

	if (wanted_bytes < 3 || wanted[0] != '{')
		return wanted_bytes == bytes && !memcmp(wanted, segment, bytes);
	if (!bytes || wanted_bytes > sizeof(name))
		return false;
	memcpy(name, wanted + 1, wanted_bytes - 2);
	name[wanted_bytes - 2] = 0;
	return !json_object_set_new(arguments, name, json_stringn(segment, bytes));
}

static bool match_path(const char *wanted, const char *path, json_t *arguments)
{
	while (*wanted && *path) {
		size_t wanted_bytes = strcspn(wanted + 1, "/");
		size_t bytes = strcspn(path + 1, "/");

		if (*path != '/' ||
		    !take_segment(wanted + 1, wanted_bytes, path + 1, bytes, arguments))
			return false;
		wanted += 1 + wanted_bytes;
		path += 1 + bytes;
	}
	return !*wanted && !*path;
}

const struct api_operation *api_find(const char *method, const char *path, json_t **ret_arguments,
				     const char **ret_allowed)
{
	json_t *arguments = json_object();

	*ret_allowed = NULL;
	for (const struct api_operation *row = api_operations; row->method; row++) {
		json_object_clear(arguments);
		if (!match_path(row->path, path, arguments))
			continue;
		*ret_allowed = row->method;
		if (strcmp(row->method, method))
			continue;
		*ret_arguments = arguments;
		return row;
	}
	json_decref(arguments);
	return NULL;
}

/* ---- members ---- */

const struct api_member *api_member(const struct api_operation *operation, const char *name)
{
	for (const struct api_member *member = operation->members; member && member->name; member++)
		if (!strcmp(member->name, name))
			return member;
	return NULL;
}

static json_t *number_of(const char *text)
{
	char *end;
	long long number;

	errno = 0;
	number = strtoll(text, &end, 10);
	return *text && strspn(text, "0123456789") == strlen(text) && !errno
		       ? json_integer(number)
		       : NULL;
}

json_t *api_from_text(const struct api_member *member, const char *text)
{
	switch (member->type) {
	case API_NUMBER: return number_of(text);
	case API_FLAG:
		if (!strcmp(text, "true"))
			return json_true();
		return strcmp(text, "false") ? NULL : json_false();
	default: return json_string(text);
	}
}

static bool is_word(const char *const *words, const char *text)
{
	for (; words && *words; words++)
		if (!strcmp(*words, text))
			return true;
	return !words;
}

/* NULL, or what it is not. */
static const char *check_text(const struct api_member *member, const json_t *value)
{
	const char *text = json_string_value(value);
	size_t bytes = json_string_length(value);

	if (!text || strlen(text) != bytes || bytes > API_TEXT_BYTES)
		return "a text of at most 4096 bytes";
	switch (member->type) {
	case API_NAME: return name_is_valid(text) ? NULL : "a machine's name";
	case API_PATH: case API_PATHS: return *text == '/' ? NULL : "an absolute path";
	default: return is_word(member->words, text) ? NULL : "one of its words";
	}
}

static const char *check_list(const struct api_member *member, const json_t *value)
{
	const json_t *item;
	size_t n;

	if (!json_is_array(value) || json_array_size(value) > API_LIST_ITEMS)
		return "a list of at most 256 texts";
	json_array_foreach(value, n, item) {
		const char *wrong = check_text(member, item);

		if (wrong)
			return wrong;
	}
	return NULL;
}

static const char *check_number(const struct api_member *member, const json_t *value)
{
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 0)
		return "a number";
	if ((uint64_t)number < member->least || (member->most && (uint64_t)number > member->most))
		return "within its bounds";
	return NULL;
}

static const char *check_value(const struct api_member *member, const json_t *value)
{
	switch (member->type) {
	case API_NUMBER: return check_number(member, value);
	case API_FLAG: return json_is_boolean(value) ? NULL : "true or false";
	case API_TEXTS: case API_PATHS: return check_list(member, value);
	default: return check_text(member, value);
	}
}

static const char *missing(const struct api_operation *operation, const json_t *arguments)
{
	for (const struct api_member *member = operation->members; member && member->name; member++)
		if (member->is_needed && !json_object_get(arguments, member->name))
			return member->name;
	return NULL;
}

const char *api_check(const struct api_operation *operation, const json_t *arguments, char *reason,
		      size_t bytes)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)arguments, name, value)
	{
		const struct api_member *member = api_member(operation, name);
		const char *wrong = member ? check_value(member, value) : NULL;

		if (member && !wrong)
			continue;
		if (member)
			snprintf(reason, bytes, "%s is not %s", member->name, wrong);
		else
			snprintf(reason, bytes, "a member that %s does not have", operation->id);
		return reason;
	}
	name = missing(operation, arguments);
	if (!name)
		return NULL;
	snprintf(reason, bytes, "%s is missing", name);
	return reason;
}

/* ---- the command's words ---- */

struct words { char **word; size_t count; bool failed; };

static void add_word(struct words *words, const char *text)
{
	char *copy = words->count + 1 < WORDS ? strdup(text) : NULL;

	if (!copy)
		words->failed = true;
	else
		words->word[words->count++] = copy;
}

static void add_value(struct words *words, const struct api_member *member, const json_t *value)
{
	char number[24];
	const json_t *item;
	size_t n;

	switch (member->type) {
	case API_FLAG:
		if (json_is_true(value))
			add_word(words, member->option);
		return;
	case API_TEXTS: case API_PATHS:
		json_array_foreach(value, n, item) {
			if (*member->option)
				add_word(words, member->option);
			add_word(words, json_string_value(item));
		}
		return;
	case API_NUMBER:
		snprintf(number, sizeof(number), "%lld", json_integer_value(value));
		add_word(words, member->option);
		add_word(words, number);
		return;
	default:
		if (*member->option)
			add_word(words, member->option);
		add_word(words, json_string_value(value));
	}
}

static void add_members(struct words *words, const struct api_operation *operation,
			const json_t *arguments, bool operands)
{
	for (const struct api_member *member = operation->members; member && member->name;
	     member++) {
		const json_t *value = json_object_get(arguments, member->name);

		if (value && member->option && operands == !*member->option)
			add_value(words, member, value);
	}
}

char **api_words(const char *program, const struct api_operation *operation,
		 const json_t *arguments)
{
	struct words words = { .word = calloc(WORDS, sizeof(char *)) };

	if (!words.word)
		return NULL;
	add_word(&words, program);
	for (const char *const *word = operation->command; word && *word; word++)
		add_word(&words, *word);
	add_members(&words, operation, arguments, false);
	add_word(&words, "--"); /* what follows is no option, whatever it begins with */
	add_members(&words, operation, arguments, true);
	if (!words.failed)
		return words.word;
	api_free_words(words.word);
	return NULL;
}

void api_free_words(char **words)
{
	for (char **word = words; word && *word; word++)
		free(*word);
	free(words);
}
