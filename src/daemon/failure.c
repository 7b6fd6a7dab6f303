/* See failure.h. */
#include "failure.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "control/protocol.h"
#include "lib/plain_text.h"

json_t *failure_json(int code, const char *reason, const char *remedy)
{
	assert(reason && remedy);
	return json_pack("{s:i, s:s, s:s, s:s}", "code", code, "error", control_code_name(code),
			 "reason", reason, "remedy", remedy);
}

unsigned failure_status(int code)
{
	switch (code) {
	case FAILURE_USAGE: return 400;
	case FAILURE_UNUSABLE: return 409;
	case FAILURE_NO_ENGINE: return 501;
	case FAILURE_GUEST_CRASHED: return 502;
	case FAILURE_POLICY: return 403;
	default: return 500;
	}
}

static char *last_line(char *text)
{
	size_t bytes = strlen(text);
	char *begin;

	while (bytes && text[bytes - 1] == '\n')
		text[--bytes] = 0;
	begin = strrchr(text, '\n');
	return begin ? begin + 1 : text;
}

/* {"refusal"} of a disk: the parts of its line, as the command has printed them beside it. */
static json_t *refusal_of(const struct job_result *result)
{
	json_t *answer = result->output_bytes ? json_loads(result->output, 0, NULL) : NULL;
	json_t *refusal = json_incref(json_object_get(answer, "refusal"));

	json_decref(answer);
	return refusal ? json_pack("{s:o}", "refusal", refusal) : NULL;
}

/* umbra: WHERE: WHAT; REMEDY (process/report.h) */
json_t *failure_of_job(const struct job_result *result)
{
	static const char begin[] = "umbra: ";
	int code = result->code;
	char *text = strdup(result->errors);
	char *reason = text ? last_line(text) : NULL;
	char *remedy = reason ? strrchr(reason, ';') : NULL;
	json_t *failure, *more;

	if (!strcmp(control_code_name(code), "fault"))
		code = FAILURE_FAULT;
	if (!reason || !*reason) {
		free(text);
		return failure_json(code, "the command said nothing", "see umbra doctor");
	}
	if (!strncmp(reason, begin, strlen(begin)))
		reason += strlen(begin);
	if (remedy)
		*remedy++ = 0;
	plain_text(reason); /* which JSON can hold, too */
	if (remedy)
		plain_text(remedy);
	failure = failure_json(code, reason, remedy ? remedy + strspn(remedy, " ") : "");
	more = refusal_of(result);
	if (more)
		json_object_update(failure, more);
	json_decref(more);
	free(text);
	return failure;
}
