/*
 * The API as a table: each operation's method, path, members and answer. What dispatches a request,
 * what checks its members, what makes the command's arguments of them and what writes the OpenAPI
 * document all read this table and nothing else.
 *
 *  1. An operation's members have names of their own, wherever they stand (path, query, body).
 *  2. A handler sees checked arguments: those that are in the table, with the type that it says,
 *     and all that are needed.
 *  3. Every call is answered exactly once (call_answer(), call_fail()), at once or later.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { API_TEXT_BYTES = 4 << 10, API_LIST_ITEMS = 256 };
enum api_type {
	API_TEXT = 1,
	API_NAME,   /* of a machine */
	API_PATH,   /* absolute */
	API_NUMBER, /* from least to most */
	API_FLAG,
	API_TEXTS,  /* a list of texts */
	API_PATHS
};
enum api_place { API_IN_BODY, API_IN_PATH, API_IN_QUERY };
enum api_kind {
	API_CALL,    /* handled by run() */
	API_COMMAND, /* the command's output is the answer */
	API_BEGINS,  /* the command is an operation of its own: 202 */
	API_EVENTS,  /* server-sent events */
	API_SOCKET,  /* a WebSocket */
	API_PLAIN    /* run() answers a text that is not JSON */
};

struct api_member {
	const char *name;
	enum api_type type;
	enum api_place place;
	bool is_needed;
	/* The command's; "": an operand; NULL: it is not passed on. */
	const char *option;
	uint64_t least, most; /* of numbers */
	const char *const *words; /* the texts that there are; NULL: any */
	const char *about;
};

struct api_call;
struct api_operation {
	const char *method, *path, *id, *group, *about;
	const struct api_member *members; /* ended by one without a name; NULL: none */
	enum api_kind kind;
	const char *answer; /* a schema's name; NULL: an empty object */
	unsigned status; /* of success; 0: 200 */
	void (*run)(struct api_call *call);
	const char *const *command; /* words before the members' */
	int found_code; /* with it the command has answered, too, by what it found; 0: no such */
	bool leaves_others; /* what it starts outlives it */
	bool is_secret; /* what it answers: it is kept for no key */
};

/* Ended by one without a method. */
extern const struct api_operation api_operations[];

struct api_schema { const char *name, *text; };
/* Ended by one without a name. */
extern const struct api_schema api_schemas[];

struct daemon;
struct api_call {
	struct daemon *daemon;
	const struct api_operation *operation;
	json_t *arguments; /* an object */
	/* The answer, and who waits for it. */
	unsigned status;
	json_t *answer;
	char *text; /* of API_PLAIN; of others JSON that stands for the answer */
	void (*answered)(void *context);
	void *context;
	bool is_gone; /* nobody waits for it any more */
	bool is_under_way; /* counted in the daemon's */
	char *key; /* of idempotency: its answer is to be kept; NULL: none */
	unsigned references;
	void *own; /* the handler's */
};

/* NULL: no operation is there; *ret_allowed: methods that are, NULL: none. */
const struct api_operation *api_find(const char *method, const char *path, json_t **ret_arguments,
				     const char **ret_allowed);
const struct api_member *api_member(const struct api_operation *operation, const char *name);
/* A text of a query as what the member is; NULL: it is none. */
json_t *api_from_text(const struct api_member *member, const char *text);
/* NULL, or what is wrong, in `reason`, with these arguments. */
const char *api_check(const struct api_operation *operation, const json_t *arguments, char *reason,
		      size_t bytes);
/*
 * The command's words for these arguments, ended by NULL, each to be freed as the list is:
 * api_free_words(). NULL: no memory.
 */
char **api_words(const char *program, const struct api_operation *operation,
		 const json_t *arguments);
void api_free_words(char **words);
/* The OpenAPI document, a new reference. */
json_t *api_document(const char *version);

/* ---- calls ---- */

/* answer: released; NULL: an empty object. */
void call_answer(struct api_call *call, unsigned status, json_t *answer);
void call_fail(struct api_call *call, unsigned status, int code, const char *reason,
	       const char *remedy);
/* For -errno of the store and of what is begun. */
void call_fail_errno(struct api_call *call, int error, const char *what);
const char *call_text(const struct api_call *call, const char *member);
int64_t call_number(const struct api_call *call, const char *member, int64_t otherwise);
bool call_flag(const struct api_call *call, const char *member);
void call_hold(struct api_call *call);
void call_release(struct api_call *call);
/* Does it: call->operation and its arguments are set. */
void call_run(struct api_call *call);
