/* A program in a machine, run to its end, and what it said (api.h, runProgram). */
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
	char **words;

	if (!call_running_machine(call))
		return;
	words = api_words(call->daemon->program, call->operation, call->arguments);
	call_job(call, words, call_text(call, "input"), program_ended);
	api_free_words(words);
}
