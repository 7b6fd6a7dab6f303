/* See protocol.h. */
#include "protocol.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_TEXT_BYTES = 64 };

static const struct { int code; const char *name;
} codes[] = {
	{ 64, "usage" }, { 65, "unusable" },      { 69, "no-engine" },
	{ 70, "fault" }, { 75, "guest-crashed" }, { 78, "policy" },
};

void control_protocol_init(void) { json_object_seed(0); }

int control_code(int error)
{
	assert(error < 0);
	switch (error) {
	case -EINVAL: return 64;
	case -EPERM: return 78;
	case -ENOMEM: return 70;
	default: return 65;
	}
}

const char *control_code_name(int code)
{
	for (size_t n = 0; n < sizeof(codes) / sizeof(codes[0]); n++)
		if (codes[n].code == code)
			return codes[n].name;
	return "fault";
}

/* ---- asked ---- */

/* False: it has one that cannot be given back. */
static bool take_id(struct control_request *request)
{
	json_t *id = json_object_get(request->object, "id");
	size_t bytes;

	if (!id || json_is_null(id))
		return true;
	if (!json_is_integer(id) && (!json_is_string(id) || json_string_length(id) > ID_TEXT_BYTES))
		return false;
	bytes = json_dumpb(id, request->id, sizeof(request->id) - 1, JSON_ENCODE_ANY);
	if (bytes >= sizeof(request->id)) {
		memcpy(request->id, "null", sizeof("null"));
		return false;
	}
	request->id[bytes] = 0;
	return true;
}

static const struct control_verb *find_verb(const struct control_verb *verbs, const char *name)
{
	for (; name && verbs->name; verbs++)
		if (!strcmp(verbs->name, name))
			return verbs;
	return NULL;
}

static const struct control_member *find_member(const struct control_verb *verb, const char *name)
{
	for (size_t n = 0; n < CONTROL_MEMBERS && verb->member[n].name; n++)
		if (!strcmp(verb->member[n].name, name))
			return &verb->member[n];
	return NULL;
}

static bool has_type(const json_t *value, enum control_type type)
{
	if (type == CONTROL_TEXT)
		return json_is_string(value) &&
		       strlen(json_string_value(value)) == json_string_length(value);
	return json_is_integer(value) && json_integer_value(value) >= 0;
}

/* NULL, or what is wrong with its members. */
static const char *check_members(const struct control_request *request)
{
	const char *name;
	json_t *value;

	json_object_foreach(request->object, name, value)
	{
		const struct control_member *member = find_member(request->verb, name);

		if (!strcmp(name, "id") || !strcmp(name, "do"))
			continue;
		if (!member)
			return "a member that the verb does not have";
		if (!has_type(value, member->type))
			return "a member of another type";
	}
	for (size_t n = 0; n < CONTROL_MEMBERS && request->verb->member[n].name; n++)
		if (request->verb->member[n].is_needed &&
		    !json_object_get(request->object, request->verb->member[n].name))
			return "a member is missing";
	return NULL;
}

static const char *understand(struct control_request *request, const struct control_verb *verbs)
{
	if (!json_is_object(request->object))
		return "not a JSON object";
	if (!take_id(request))
		return "an id is a number or a text of at most 64 bytes";
	request->verb = find_verb(verbs, json_string_value(json_object_get(request->object, "do")));
	return request->verb ? check_members(request) : "no such verb";
}

int control_parse(const char *line, size_t bytes, const struct control_verb *verbs,
		  struct control_request *request, const char **ret_reason)
{
	json_error_t where;

	assert(bytes <= CONTROL_REQUEST_BYTES);
	memset(request, 0, sizeof(*request));
	memcpy(request->id, "null", sizeof("null"));
	request->object = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &where);
	*ret_reason = understand(request, verbs);
	if (!*ret_reason)
		return 0;
	control_request_free(request);
	return -EINVAL;
}

void control_request_free(struct control_request *request)
{
	json_decref(request->object);
	request->object = NULL;
	request->verb = NULL;
}

const char *control_text(const struct control_request *request, const char *member)
{
	assert(find_member(request->verb, member) &&
	       find_member(request->verb, member)->type == CONTROL_TEXT);
	return json_string_value(json_object_get(request->object, member));
}

uint64_t control_number(const struct control_request *request, const char *member)
{
	assert(find_member(request->verb, member) &&
	       find_member(request->verb, member)->type == CONTROL_NUMBER);
	return (uint64_t)json_integer_value(json_object_get(request->object, member));
}

/* ---- answered ---- */

/* The id first, then the others; released. */
static char *line_of(const char *id, json_t *members)
{
	char *text = members ? json_dumps(members, JSON_COMPACT) : NULL;
	char *line = NULL;

	if (text && asprintf(&line, "{\"id\":%s,%s\n", id, text + 1) < 0)
		line = NULL;
	free(text);
	json_decref(members);
	return line;
}

char *control_success(const char *id, json_t *more)
{
	json_t *members = json_pack("{s:b}", "ok", 1);

	if (members && more)
		json_object_update_missing(members, more);
	json_decref(more);
	return line_of(id, members);
}

char *control_failure(const char *id, int error, const char *reason)
{
	int code = control_code(error);
	json_t *text = json_string(reason ? reason : strerror(-error));

	if (!text) /* a path need not be UTF-8 */
		text = json_string(strerror(-error));
	return line_of(id, json_pack("{s:b, s:i, s:s, s:i, s:o}", "ok", 0, "code", code, "error",
				     control_code_name(code), "errno", -error, "reason", text));
}

char *control_progress(const char *id, uint64_t done, uint64_t all)
{
	return line_of(id,
		       json_pack("{s:I, s:I}", "done", (json_int_t)done, "all", (json_int_t)all));
}
