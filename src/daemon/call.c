/* See api.h: one call, from its checked arguments to its answer. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "daemon.h"
#include "failure.h"

void call_hold(struct api_call *call) { call->references++; }

void call_release(struct api_call *call)
{
	if (--call->references)
		return;
	json_decref(call->arguments);
	json_decref(call->answer);
	free(call->text);
	free(call->key);
	free(call);
}

void call_answer(struct api_call *call, unsigned status, json_t *answer)
{
	assert(!call->status);
	call->status = status;
	call->answer = answer ? answer : json_object();
	if (call->is_under_way)
		call->daemon->under_way--;
	call->is_under_way = false;
	if (call->key) /* also when nobody waits for it: he will ask again */
		replay_keep(&call->daemon->replay, call);
	if (!call->is_gone && call->answered)
		call->answered(call->context);
}

void call_fail(struct api_call *call, unsigned status, int code, const char *reason,
	       const char *remedy)
{
	call_answer(call, status ? status : failure_status(code),
		    failure_json(code, reason, remedy));
}

void call_fail_errno(struct api_call *call, int error, const char *what)
{
	unsigned status = error == -EBUSY ? 503 : 500;
	json_t *failure = failure_json(FAILURE_UNUSABLE, strerror(-error), what);

	if (error == -ENOSPC)
		status = 507;

	call_answer(call, status, failure);
}

const char *call_text(const struct api_call *call, const char *member)
{
	return json_string_value(json_object_get(call->arguments, member));
}

int64_t call_number(const struct api_call *call, const char *member, int64_t otherwise)
{
	const json_t *value = json_object_get(call->arguments, member);

	return value ? json_integer_value(value) : otherwise;
}

bool call_flag(const struct api_call *call, const char *member)
{
	return json_is_true(json_object_get(call->arguments, member));
}

/* ---- commands ---- */

static void command_ended(void *context, const struct job_result *result)
{
	struct api_call *call = context;
	json_t *answer = json_loads(result->output, JSON_DECODE_ANY, NULL);
	bool unsound = result->code && result->code == call->operation->found_code &&
		       !json_object_get(answer, "refusal");

	if (result->is_cut) {
		call_fail(call, 0, FAILURE_UNUSABLE, "too long an answer", "ask for less");
	} else if (result->code <= 1 && call->operation->answer && !answer) {
		call_fail(call, 0, FAILURE_FAULT, "the command's answer is no JSON",
			  "ask the command itself");
	} else if (result->code > 1 && !(unsound && answer)) {
		json_t *failure = failure_of_job(result);
		json_int_t code = json_integer_value(json_object_get(failure, "code"));

		call_answer(call, failure_status((int)code), failure);
	} else {
		call_answer(call, call->operation->status ?: 200, json_incref(answer));
	}
	json_decref(answer);
	call_release(call);
}

void call_job(struct api_call *call, char *const *words, const char *input,
	      void (*ended)(void *context, const struct job_result *result))
{
	const struct job_plan plan = { .program = call->daemon->program,
				       .arguments = words,
				       .input = input,
				       .input_bytes = input ? strlen(input) : 0,
				       .leaves_others = call->operation->leaves_others,
				       .ended = ended,
				       .context = call };
	int error = words ? job_start(&call->daemon->loop, &plan, NULL) : -ENOMEM;

	if (error)
		call_fail_errno(call, error, "the command cannot be started: see umbra doctor");
	else
		call_hold(call);
}

static void run_command(struct api_call *call)
{
	char **words = api_words(call->daemon->program, call->operation, call->arguments);

	call_job(call, words, NULL, command_ended);
	api_free_words(words);
}

struct operation *call_begin(struct api_call *call, char *const *words)
{
	const struct operation_plan plan = { .kind = call->operation->id,
					     .machine = call_text(call, "machine"),
					     .program = call->daemon->program,
					     .arguments = words,
					     .leaves_others = call->operation->leaves_others };
	struct operation *operation;
	int error = operation_begin(&call->daemon->operations, &plan, &operation);

	if (error == -EAGAIN)
		call_fail(call, 429, FAILURE_UNUSABLE, "too many operations run",
			  "wait until one has ended");
	else if (error)
		call_fail_errno(call, error, "it was not begun");
	else if (words)
		call_answer(call, 202, json_incref(operation->object));
	return error ? NULL : operation;
}

static void begin_command(struct api_call *call)
{
	char **words = api_words(call->daemon->program, call->operation, call->arguments);

	if (words)
		call_begin(call, words);
	else
		call_fail_errno(call, -ENOMEM, "it was not begun");
	api_free_words(words);
}

void call_run(struct api_call *call)
{
	if (call->daemon->under_way == DAEMON_CALLS) {
		call_fail(call, 429, FAILURE_UNUSABLE, "too many requests are under way",
			  "ask again later");
		return;
	}
	call->daemon->under_way++;
	call->is_under_way = true;
	switch (call->operation->kind) {
	case API_COMMAND: run_command(call); break;
	case API_BEGINS: begin_command(call); break;
	default: call->operation->run(call);
	}
}
