/* Who is heard, and what a request asks: from HTTP to a call of the table (front.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "failure.h"
#include "front_internal.h"

enum { REASON_BYTES = 256, TOKEN_BYTES = 512 };

static struct api_call *call_new(struct request *request)
{
	struct api_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->daemon = request->front->daemon;
	call->references = 1;
	return call;
}

/* One that has failed already. */
static struct api_call *refuse(struct request *request, unsigned status, int code,
			       const char *reason, const char *remedy)
{
	struct api_call *call = call_new(request);

	if (call)
		call_fail(call, status, code, reason, remedy);
	return call;
}

static const char *header(const struct request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

/* ---- who asks ---- */

bool request_is_of_owner(const struct request *request)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	return info && !getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) &&
	       peer.uid == getuid();
}

/* In a time that does not say how much of it is right. */
static bool has_token(const struct request *request)
{
	static const char scheme[] = "Bearer ";
	const char *given = header(request, "Authorization");
	char wanted_bytes[TOKEN_BYTES] = "";
	char given_bytes[TOKEN_BYTES] = "";

	if (!given || strncasecmp(given, scheme, strlen(scheme)))
		return false;
	snprintf(wanted_bytes, sizeof(wanted_bytes), "%s", request->front->token);
	snprintf(given_bytes, sizeof(given_bytes), "%s", given + strlen(scheme));
	return strlen(given) - strlen(scheme) < TOKEN_BYTES &&
	       !sodium_memcmp(wanted_bytes, given_bytes, TOKEN_BYTES);
}

/* A page of ours has our host in its origin; who is no page says none. */
static bool is_same_site(const struct request *request)
{
	const char *origin = header(request, "Origin");
	const char *host = header(request, "Host");
	const char *site = header(request, "Sec-Fetch-Site");
	const char *begin = origin ? strstr(origin, "://") : NULL;

	if (site && strcmp(site, "same-origin") && strcmp(site, "none"))
		return false;
	return !origin || (begin && host && !strcmp(begin + 3, host));
}

struct api_call *request_refusal(struct request *request)
{
	if (!request->front->token && !request_is_of_owner(request))
		return refuse(request, 403, FAILURE_POLICY, "the daemon is another user's",
			      "ask as the user whose daemon it is");
	if (!is_same_site(request))
		return refuse(request, 403, FAILURE_POLICY, "a page of another site asks",
			      "open the page that the daemon serves");
	if (request->front->token && !has_token(request))
		return refuse(request, 401, FAILURE_POLICY, "no token, or another one",
			      "send Authorization: Bearer TOKEN");
	return NULL;
}

struct api_call *request_body_refusal(struct request *request)
{
	if (request->is_one_too_many)
		return refuse(request, 429, FAILURE_UNUSABLE, "too much is being sent",
			      "ask again later");
	if (request->is_too_large)
		return refuse(request, 413, FAILURE_USAGE, "too large a body",
			      "send at most 1 MiB");
	return NULL;
}

/* ---- what it asks ---- */

struct query { const struct api_operation *operation; json_t *arguments; bool is_unsound; };

/*
 * A member of a list may come several times. What is no text of JSON's is null, and refused by its
 * type: left out, it would make another request of it.
 */
static enum MHD_Result take_query(void *context, enum MHD_ValueKind kind, const char *name,
				  const char *text)
{
	struct query *query = context;
	const struct api_member *member = api_member(query->operation, name);
	json_t *value = member && text ? api_from_text(member, text) : json_null();
	json_t *list;

	(void)kind;
	value = value ? value : json_null();
	if (member && (member->type == API_TEXTS || member->type == API_PATHS)) {
		list = json_object_get(query->arguments, name);
		if (!list) {
			list = json_array();
			query->is_unsound |= json_object_set_new(query->arguments, name, list) != 0;
		}
		query->is_unsound |= json_array_append_new(list, value) != 0;
		return MHD_YES;
	}
	if (json_object_get(query->arguments, name)) {
		json_decref(value);
		value = json_null(); /* twice, or of the path: it is refused by its type */
	}
	/* a name that is not UTF-8 cannot be set, and is of no member */
	query->is_unsound |= json_object_set_new(query->arguments, name, value) != 0;
	return MHD_YES;
}

/* NULL, or what is wrong with it. */
static const char *take_body(const struct request *request, const struct api_operation *operation,
			     json_t *arguments)
{
	const char *type = header(request, "Content-Type");
	json_t *body;
	json_t *value;
	const char *name;
	const char *wrong = NULL;

	if (!request->body_used)
		return NULL;
	if (!type || strncasecmp(type, "application/json", strlen("application/json")))
		return "a body that is not application/json";
	body = json_loadb(request->body, request->body_used, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(body))
		wrong = "a body that is not a JSON object";
	json_object_foreach(body, name, value) {
		const struct api_member *member = api_member(operation, name);

		if (member && member->place != API_IN_BODY)
			wrong = "a member of the path or the query in the body";
		if (json_object_set(arguments, name, value))
			wrong = "a body that cannot be kept";
	}
	json_decref(body);
	return wrong;
}

/* One byte more than a key may have is told from it, and an empty one from none. */
static void take_key(struct request *request, const struct api_operation *operation)
{
	const char *key = header(request, "Idempotency-Key");

	if (key && strcmp(operation->method, "GET"))
		snprintf(request->key, sizeof(request->key), "%s", *key ? key : " ");
}

static void take_arguments(struct request *request, struct api_call *call)
{
	struct query query = { .operation = call->operation, .arguments = call->arguments };
	char reason[REASON_BYTES];
	const char *wrong = NULL;

	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, take_query, &query);
	if (query.is_unsound)
		wrong = "a query that is not UTF-8";
	if (!wrong)
		wrong = take_body(request, call->operation, call->arguments);
	if (!wrong)
		wrong = api_check(call->operation, call->arguments, reason, sizeof(reason));
	if (wrong)
		call_fail(call, 400, FAILURE_USAGE, wrong, "see /openapi.json");
}

static void fail_unknown(struct api_call *call, const char *allowed)
{
	if (allowed)
		call_fail(call, 405, FAILURE_USAGE, "the path has no such method",
			  "see /openapi.json");
	else
		call_fail(call, 404, FAILURE_USAGE, "no such path", "see /openapi.json");
}

struct api_call *request_call(struct request *request)
{
	const char *method = strcmp(request->method, "HEAD") ? request->method : "GET";
	struct api_call *call = call_new(request);
	const char *allowed;

	if (!call)
		return NULL;
	call->operation = api_find(method, request->path, &call->arguments, &allowed);
	if (call->operation) {
		take_arguments(request, call);
		take_key(request, call->operation);
	} else {
		fail_unknown(call, allowed);
	}
	return call;
}
