/* A program in a machine, run to its end, and what it said (api.h, runProgram). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "failure.h"

/* Guests say anything: what is no UTF-8 is shown as '?'. */
static json_t *text_of(const char *data, size_t bytes)
{
	json_t *text = json_stringn(data, bytes);
	char *copy;

	if (text)
		return text;
	copy = malloc(bytes + 1);
	if (!copy)
		return json_string("");
	for (size_t n = 0; n < bytes; n++)
		copy[n] = (unsigned char)data[n] < 0x80 ? data[n] : '?';
	text = json_stringn(copy, bytes);
	free(copy);
	return text;
}

static bool is_ours(const struct job_result *result)
{
	return result->code == FAILURE_UNUSABLE && !strncmp(result->errors, "umbra: ", 7);
}

static void program_ended(void *context, const struct job_result *result)
{
	struct api_call *call = context;

	if (is_ours(result))
		call_answer(call, 409, failure_of_job(result));
	else
		call_answer(call, 200,
			    json_pack("{s:i, s:o, s:o, s:b}", "code", result->code, "output",
				      text_of(result->output, result->output_bytes), "errors",
				      text_of(result->errors, strlen(result->errors)), "cut",
				      result->is_cut));
	call_release(call);
}

void call_program(struct api_call *call)
{
	const char *input = call_text(call, "input");
	const struct known_machine *machine =
		machines_find(&call->daemon->machines, call_text(call, "machine"));
	char **words = api_words(call->daemon->program, call->operation, call->arguments);
	const struct job_plan plan = { .program = call->daemon->program,
				       .arguments = words,
				       .input = input,
				       .input_bytes = input ? strlen(input) : 0,
				       .ended = program_ended,
				       .context = call };
	int error;

	if (!machine) {
		call_fail(call, 404, FAILURE_UNUSABLE, "no machine of that name is known",
			  "GET /v1/machines lists those that are");
	} else if (!known_machine_runs(machine)) {
		call_fail(call, 409, FAILURE_UNUSABLE, "it does not run", "start it first");
	} else {
		error = words ? job_start(&call->daemon->loop, &plan, NULL) : -ENOMEM;
		if (error)
			call_fail_errno(call, error, "the command cannot be started");
		else
			call_hold(call);
	}
	api_free_words(words);
}
