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
static const char bearer_scheme[] = "Bearer ";
static const char bearer_word[] = "umbra.bearer.";

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

bool front_is_owners(const struct front *front) { return !front->token && !front->sessions; }

/* A browser can give a WebSocket no header but a list of words: there it is hexadecimal. */
static bool take_word(const char *words, char ret[TOKEN_BYTES])
{
	const char *at = words ? strstr(words, bearer_word) : NULL;
	size_t digits;
	size_t bytes;

	if (!at)
		return false;
	at += strlen(bearer_word);
	digits = strspn(at, "0123456789abcdef");
	if (sodium_hex2bin((unsigned char *)ret, TOKEN_BYTES - 1, at, digits, NULL, &bytes, NULL))
		return false;
	ret[bytes] = 0;
	return true;
}

/* The token or the session that it brings. */
static bool take_bearer(const struct request *request, char ret[TOKEN_BYTES])
{
	const char *given = header(request, "Authorization");

	memset(ret, 0, TOKEN_BYTES);
	if (!given)
		return take_word(header(request, "Sec-WebSocket-Protocol"), ret);
	if (strncasecmp(given, bearer_scheme, strlen(bearer_scheme)))
		return false;
	given += strlen(bearer_scheme);
	snprintf(ret, TOKEN_BYTES, "%s", given);
	return strlen(given) < TOKEN_BYTES;
}

/* In a time that does not say how much of it is right. */
static bool has_token(const struct request *request)
{
	char wanted[TOKEN_BYTES] = "";
	char given[TOKEN_BYTES];

	snprintf(wanted, sizeof(wanted), "%s", request->front->token);
	return take_bearer(request, given) && !sodium_memcmp(wanted, given, TOKEN_BYTES);
}

static bool has_session(const struct request *request)
{
	char given[TOKEN_BYTES];

	return take_bearer(request, given) &&
	       sessions_knows(request->front->sessions, loop_now_ms(), given);
}

/* What has to be asked before one can bring anything. */
static bool is_for_everybody(const struct request *request)
{
	return request->file ||
	       (request->front->sessions && !strcmp(request->path, "/v1/session"));
}

static bool is_let_in(const struct request *request)
{
	if (request->front->token)
		return has_token(request);
	return !request->front->sessions || has_session(request);
}

static bool is_own_host(const struct request *request)
{
	const char *host = header(request, "Host");

	return !request->front->sessions || (host && !strcmp(host, request->front->host));
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
	if (front_is_owners(request->front) && !request_is_of_owner(request))
		return refuse(request, 403, FAILURE_POLICY, "the daemon is another user's",
			      "ask as the user whose daemon it is");
	if (!is_own_host(request))
		return refuse(request, 403, FAILURE_POLICY, "another name than the page's",
			      "take the address that umbra page says");
	if (!is_same_site(request))
		return refuse(request, 403, FAILURE_POLICY, "a page of another site asks",
			      "open the page that the daemon serves");
	if (!is_for_everybody(request) && !is_let_in(request))
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

/*
 * One byte more than a key may have is told from it, and an empty one from none. None is taken for
 * what answers a secret: it would lie in the store, and who is let in by nothing could fill that.
 */
static void take_key(struct request *request, struct api_call *call)
{
	const char *key = header(request, "Idempotency-Key");

	if (!key || !strcmp(call->operation->method, "GET"))
		return;
	if (call->operation->is_secret && !call->status)
		call_fail(call, 400, FAILURE_USAGE, "its answer is kept for no key",
			  "ask without Idempotency-Key");
	else if (!call->operation->is_secret)
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
		take_key(request, call);
	} else {
		fail_unknown(call, allowed);
	}
	return call;
}
