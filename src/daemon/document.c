/* The OpenAPI 3.1 document of the table (api.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

enum { REFERENCE_BYTES = 96 };

static const char name_pattern[] = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

static json_t *words_of(const char *const *words)
{
	json_t *list = json_array();

	for (; *words; words++)
		json_array_append_new(list, json_string(*words));
	return list;
}

static json_t *number_schema(const struct api_member *member)
{
	json_t *schema = json_pack("{s:s, s:I}", "type", "integer", "minimum",
				   (json_int_t)member->least);

	if (member->most)
		json_object_set_new(schema, "maximum", json_integer((json_int_t)member->most));
	return schema;
}

static json_t *text_schema(const struct api_member *member)
{
	json_t *schema = json_pack("{s:s, s:i}", "type", "string", "maxLength", API_TEXT_BYTES);

	if (member->type == API_NAME)
		json_object_set_new(schema, "pattern", json_string(name_pattern));
	if (member->type == API_PATH || member->type == API_PATHS)
		json_object_set_new(schema, "pattern", json_string("^/"));
	if (member->words)
		json_object_set_new(schema, "enum", words_of(member->words));
	return schema;
}

static json_t *member_schema(const struct api_member *member)
{
	switch (member->type) {
	case API_NUMBER: return number_schema(member);
	case API_FLAG: return json_pack("{s:s}", "type", "boolean");
	case API_TEXTS:
	case API_PATHS:
		return json_pack("{s:s, s:o, s:i}", "type", "array", "items", text_schema(member),
				 "maxItems", API_LIST_ITEMS);
	default: return text_schema(member);
	}
}

/* ---- one operation ---- */

static json_t *parameter_of(const struct api_member *member)
{
	return json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", member->name, "in",
			 member->place == API_IN_PATH ? "path" : "query", "required",
			 member->is_needed, "description", member->about, "schema",
			 member_schema(member));
}

static json_t *parameters_of(const struct api_operation *operation)
{
	json_t *list = json_array();

	for (const struct api_member *member = operation->members; member && member->name; member++)
		if (member->place != API_IN_BODY)
			json_array_append_new(list, parameter_of(member));
	if (strcmp(operation->method, "GET") && !operation->is_secret)
		json_array_append_new(
			list, json_pack("{s:s}", "$ref", "#/components/parameters/IdempotencyKey"));
	return list;
}

/* NULL: it has none. */
static json_t *body_of(const struct api_operation *operation)
{
	json_t *properties = json_object();
	json_t *required = json_array();
	json_t *schema;

	for (const struct api_member *member = operation->members; member && member->name;
	     member++) {
		json_t *one;

		if (member->place != API_IN_BODY)
			continue;
		one = member_schema(member);
		json_object_set_new(one, "description", json_string(member->about));
		json_object_set_new(properties, member->name, one);
		if (member->is_needed)
			json_array_append_new(required, json_string(member->name));
	}
	if (!json_object_size(properties)) {
		json_decref(properties);
		json_decref(required);
		return NULL;
	}
	schema = json_pack("{s:s, s:o, s:o, s:b}", "type", "object", "properties", properties,
			   "required", required, "additionalProperties", 0);
	return json_pack("{s:b, s:{s:{s:o}}}", "required", json_array_size(required) != 0,
			 "content", "application/json", "schema", schema);
}

static json_t *answer_of(const char *about, const char *type, const char *schema)
{
	char reference[REFERENCE_BYTES];

	snprintf(reference, sizeof(reference), "#/components/schemas/%s", schema);
	return json_pack("{s:s, s:{s:{s:{s:s}}}}", "description", about, "content", type, "schema",
			 "$ref", reference);
}

static const char *type_of(const struct api_operation *operation)
{
	switch (operation->kind) {
	case API_EVENTS: return "text/event-stream";
	case API_PLAIN: return "text/plain";
	default: return "application/json";
	}
}

static json_t *answers_of(const struct api_operation *operation)
{
	unsigned status = operation->status ? operation->status : 200;
	json_t *answers = json_object();
	char text[sizeof("100")];

	snprintf(text, sizeof(text), "%u", operation->kind == API_SOCKET ? 101 : status % 1000);
	if (operation->kind == API_SOCKET)
		json_object_set_new(answers, text,
				    json_pack("{s:s}", "description",
					      "A WebSocket: umbra-api(7) has its messages"));
	else
		json_object_set_new(answers, text,
				    answer_of("Done", type_of(operation),
					      operation->answer ? operation->answer : "Empty"));
	if (operation->answer && !strcmp(operation->answer, "Created"))
		json_object_set_new(answers, "202",
				    answer_of("Started", "application/json", "Operation"));
	json_object_set_new(answers, "default",
			    answer_of("Not done", "application/json", "Failure"));
	return answers;
}

static json_t *operation_json(const struct api_operation *operation)
{
	json_t *object = json_pack("{s:s, s:s, s:[s], s:o, s:o}", "operationId", operation->id,
				   "summary", operation->about, "tags", operation->group,
				   "parameters", parameters_of(operation), "responses",
				   answers_of(operation));
	json_t *body = body_of(operation);

	if (body)
		json_object_set_new(object, "requestBody", body);
	return object;
}

/* ---- the whole ---- */

static json_t *paths(void)
{
	json_t *all = json_object();

	for (const struct api_operation *row = api_operations; row->method; row++) {
		json_t *path = json_object_get(all, row->path);
		char method[8] = "";

		if (!path) {
			path = json_object();
			json_object_set_new(all, row->path, path);
		}
		for (size_t n = 0; row->method[n] && n < sizeof(method) - 1; n++)
			method[n] = (char)(row->method[n] | 0x20);
		json_object_set_new(path, method, operation_json(row));
	}
	return all;
}

static json_t *schemas(void)
{
	json_t *all = json_object();

	for (const struct api_schema *schema = api_schemas; schema->name; schema++)
		json_object_set_new(all, schema->name, json_loads(schema->text, 0, NULL));
	return all;
}

static json_t *key_parameter(void)
{
	return json_pack("{s:s, s:s, s:b, s:s, s:{s:s, s:s}}", "name", "Idempotency-Key", "in",
			 "header", "required", 0, "description",
			 "The same key and request again is done once, and answered alike",
			 "schema", "type", "string", "pattern", "^[!-~]{1,128}$");
}

json_t *api_document(const char *version)
{
	return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:o, s:{s:o}}}", "openapi", "3.1.0",
			 "info", "title", "Umbra", "version", version, "description",
			 "Machines, disks and images of one user (umbrad(8), umbra-api(7))",
			 "paths", paths(), "components", "schemas", schemas(), "parameters",
			 "IdempotencyKey", key_parameter());
}
