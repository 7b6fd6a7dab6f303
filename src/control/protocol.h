/*
 * The control protocol: what a running machine and a served disk are asked. One JSON object a line,
 * in both directions, in UTF-8; docs/control.schema.json, umbra-control(7).
 *
 *   asked     {"id":1,"do":"memory","bytes":1073741824}
 *   answered  {"id":1,"ok":true, what the verb says}
 *             {"id":1,"ok":false,"code":65,"error":"unusable","errno":16,"reason":"Device or
 *             resource busy"}
 *   before    {"id":1,"done":5,"all":100}      how far it is
 *             {"id":1,"data":8192}             so many bytes follow the line's end
 *
 *  1. The id is the asker's: a number or a text of at most 64 bytes, given back as it was; null
 *     when it had none.
 *  2. A verb has a row of members: one that is not in it, or has another type, is an error, and so
 *     is a member twice.
 *  3. code and error are a row of the exit codes (umbra(1)), errno is the host's number and reason
 *     a line for a reader.
 *
 * Who asks is the user: sockets lie in folders that are his alone. What he says is checked all the
 * same.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONTROL_REQUEST_BYTES = 16384, CONTROL_ID_BYTES = 144, CONTROL_MEMBERS = 5 };
enum { CONTROL_ERRNO_MAX = 4095 };

enum control_type { CONTROL_TEXT, CONTROL_NUMBER };
struct control_member { const char *name; enum control_type type; bool is_needed; };
/* Numbers are not negative. number: the front's own, to switch over. */
struct control_verb {
	const char *name;
	int number;
	struct control_member member[CONTROL_MEMBERS];
};

struct control_request {
	json_t *object;                /* NULL: it was not understood */
	const struct control_verb *verb;
	char id[CONTROL_ID_BYTES];     /* as JSON */
};

/* Once per process, while it may still open files: what makes tables of JSON hard to collide. */
void control_protocol_init(void);
/*
 * A line without its end. 0; or -EINVAL with *ret_reason, and ret->id is good for the answer.
 * verbs: ended by one without a name.
 */
int control_parse(const char *line, size_t bytes, const struct control_verb *verbs,
		  struct control_request *ret, const char **ret_reason);
void control_request_free(struct control_request *request);
/* Members that the row has; NULL and 0 when they are not there. */
const char *control_text(const struct control_request *request, const char *member);
uint64_t control_number(const struct control_request *request, const char *member);

/*
 * Answers, as lines with their end, to be freed; NULL: no memory. `more` (NULL: nothing) is
 * released.
 */
char *control_success(const char *id, json_t *more);
char *control_failure(const char *id, int error, const char *reason);
char *control_progress(const char *id, uint64_t done, uint64_t all);
/* The exit code for -errno, and its name. */
int control_code(int error);
const char *control_code_name(int code);
