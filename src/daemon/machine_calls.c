/* What is asked about machines, and of them (api.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "control/names.h"
#include "counters.h"
#include "daemon.h"
#include "failure.h"

enum { ANSWER_MS = 20000, LINE_BYTES = 128 };

static void fail_unknown(struct api_call *call)
{
	call_fail(call, 404, FAILURE_UNUSABLE, "no machine of that name is known",
		  "GET /v1/machines lists those that are");
}

static void fail_not_running(struct api_call *call)
{
	call_fail(call, 409, FAILURE_UNUSABLE, "it does not run", "start it first");
}

const struct known_machine *call_running_machine(struct api_call *call)
{
	const struct known_machine *machine =
		machines_find(&call->daemon->machines, call_text(call, "machine"));

	if (machine && known_machine_runs(machine))
		return machine;
	if (machine)
		fail_not_running(call);
	else
		fail_unknown(call);
	return NULL;
}

/* ---- reading ---- */

void call_machines(struct api_call *call)
{
	size_t bytes;
	FILE *all = open_memstream(&call->text, &bytes);
	const char *before = "[";

	if (!all) {
		call_fail_errno(call, -ENOMEM, "ask again");
		return;
	}
	for (struct known_machine *machine = call->daemon->machines.first; machine;
	     machine = machine->next) {
		const char *text = known_machine_text(machine);

		fprintf(all, "%s%s", before, text ? text : "null");
		before = ",";
	}
	fputs(*before == '[' ? "[]" : "]", all);
	fclose(all);
	call_answer(call, 200, NULL);
}

void call_machine(struct api_call *call)
{
	const struct known_machine *machine =
		machines_find(&call->daemon->machines, call_text(call, "machine"));

	if (machine)
		call_answer(call, 200, known_machine_json(machine));
	else
		fail_unknown(call);
}

/* ---- descriptions, starts ---- */

/* What create takes is what start runs. */
static const struct api_operation *create_operation(void)
{
	for (const struct api_operation *row = api_operations; row->method; row++)
		if (row->run == call_specify)
			return row;
	return NULL;
}

static void start(struct api_call *call, const json_t *specification)
{
	char **words = api_words(call->daemon->program, create_operation(), specification);

	if (words)
		call_begin(call, words);
	else
		call_fail_errno(call, -ENOMEM, "it was not started");
	api_free_words(words);
}

static bool has_kernel(const struct api_call *call)
{
	return call_text(call, "kernel") || call_text(call, "image") || call_text(call, "restore");
}

void call_specify(struct api_call *call)
{
	struct machines *machines = &call->daemon->machines;
	const char *name = call_text(call, "name");
	json_t *specification = json_copy(call->arguments);
	bool starts = call_flag(call, "start");
	int error;

	json_object_del(specification, "start");
	if (machines_find(machines, name)) {
		call_fail(call, 409, FAILURE_UNUSABLE, "a machine of that name is known",
			  "take another name, or forget that one");
	} else if (!has_kernel(call)) {
		call_fail(call, 400, FAILURE_USAGE, "nothing to run",
			  "say kernel, image or restore");
	} else if ((error = machines_specify(machines, name, specification))) {
		call_fail_errno(call, error, "it was not kept: look at the store");
	} else if (starts) {
		json_object_set(call->arguments, "machine",
				json_object_get(specification, "name"));
		start(call, specification);
	} else {
		call_answer(call, 201, known_machine_json(machines_find(machines, name)));
	}
	json_decref(specification);
}

void call_start(struct api_call *call)
{
	const struct known_machine *machine =
		machines_find(&call->daemon->machines, call_text(call, "machine"));

	if (!machine)
		fail_unknown(call);
	else if (known_machine_runs(machine))
		call_fail(call, 409, FAILURE_UNUSABLE, "it runs already", "stop it first");
	else
		start(call, machine->specification);
}

void call_forget(struct api_call *call)
{
	struct machines *machines = &call->daemon->machines;
	const char *name = call_text(call, "machine");
	const struct known_machine *machine = machines_find(machines, name);
	int error;

	if (!machine) {
		fail_unknown(call);
	} else if (known_machine_runs(machine)) {
		call_fail(call, 409, FAILURE_UNUSABLE, "it runs", "stop it first");
	} else {
		error = machines_drop_specification(machines, name);
		if (error)
			call_fail_errno(call, error, "it was not forgotten");
		else
			call_answer(call, 200, NULL);
	}
}

/* ---- asking it ---- */

static void ask_it(struct api_call *call, const char *line,
		   void (*answered)(void *context, json_t *answer))
{
	const struct ask ask = { .loop = &call->daemon->loop,
				 .machine = call_text(call, "machine"),
				 .line = line,
				 .deadline_ms = ANSWER_MS,
				 .answered = answered,
				 .context = call };
	int error;

	if (!call_running_machine(call))
		return;
	error = ask_machine(&ask);
	if (error == -ENOENT)
		fail_not_running(call);
	else if (error)
		call_fail(call, 504, FAILURE_UNUSABLE, "it does not take a question",
			  "ask again later");
	else
		call_hold(call);
}

/* False: it has not done it, and the call has failed. */
static bool was_done(struct api_call *call, const json_t *answer)
{
	const char *reason = json_string_value(json_object_get(answer, "reason"));
	json_int_t code = json_integer_value(json_object_get(answer, "code"));

	if (json_is_true(json_object_get(answer, "ok")))
		return true;
	if (!answer)
		call_fail(call, 504, FAILURE_UNUSABLE, "it did not answer, or ended meanwhile",
			  "look whether it runs");
	else
		call_fail(call, 0, code ? (int)code : FAILURE_FAULT,
			  reason ? reason : "it said no", "look at what it is doing");
	return false;
}

static void heard_done(void *context, json_t *answer)
{
	struct api_call *call = context;

	if (was_done(call, answer))
		call_answer(call, 200, NULL);
	call_release(call);
}

static void heard_registers(void *context, json_t *answer)
{
	struct api_call *call = context;

	if (was_done(call, answer))
		call_answer(call, 200,
			    json_pack("{s:O, s:o}", "processors",
				      json_object_get(answer, "processors"), "counters",
				      counters_of_answer(answer)));
	call_release(call);
}

void call_registers(struct api_call *call)
{
	ask_it(call, COUNTERS_ASKED, heard_registers);
}

/* pause and resume: the last word of the path is the control protocol's verb. */
static void verb_line(const struct api_call *call, char line[LINE_BYTES])
{
	snprintf(line, LINE_BYTES, "{\"id\":1,\"do\":\"%s\"}\n",
		 strrchr(call->operation->path, '/') + 1);
}

void call_stand(struct api_call *call)
{
	char line[LINE_BYTES];

	verb_line(call, line);
	ask_it(call, line, heard_done);
}

void call_set_memory(struct api_call *call)
{
	char line[LINE_BYTES];

	snprintf(line, sizeof(line), "{\"id\":1,\"do\":\"memory\",\"bytes\":%ld}\n",
		 call_number(call, "bytes", 0));
	ask_it(call, line, heard_done);
}

/* ---- ends ---- */

/* Who has asked a machine to end; the operation may be forgotten before it answers. */
struct end { struct operations *operations; char id[OPERATION_ID_BYTES]; char *machine; };

static struct end *end_new(struct operations *operations, const struct operation *operation)
{
	struct end *end = calloc(1, sizeof(*end));

	if (!end)
		return NULL;
	end->operations = operations;
	snprintf(end->id, sizeof(end->id), "%s", operation->id);
	end->machine = strdup(json_string_value(json_object_get(operation->object, "machine")));
	if (end->machine)
		return end;
	free(end);
	return NULL;
}

static void end_free(struct end *end)
{
	free(end->machine);
	free(end);
}

/* Of no answer of one that is gone nothing is said: that it has ended is heard elsewhere. */
static json_t *failure_to_end(const struct end *end, const json_t *answer)
{
	const char *reason = json_string_value(json_object_get(answer, "reason"));
	json_int_t code = json_integer_value(json_object_get(answer, "code"));
	int fd;

	if (json_is_true(json_object_get(answer, "ok")))
		return NULL;
	if (answer)
		return failure_json(code ? (int)code : FAILURE_FAULT, reason ?: "it said no",
				    "look at what it is doing");
	fd = name_connect_now(end->machine);
	if (fd < 0)
		return NULL;
	close(fd);
	return failure_json(FAILURE_UNUSABLE, "it did not answer", "look whether it runs");
}

/* It is done when the machine is gone; what it answers can only be that it will not go. */
static void heard_end(void *context, json_t *answer)
{
	struct end *end = context;
	struct operation *operation = operation_find(end->operations, end->id);
	json_t *failure = operation ? failure_to_end(end, answer) : NULL;

	if (failure)
		operation_fail(operation, failure);
	end_free(end);
}

static int ask_to_end(struct api_call *call, const struct operation *operation)
{
	struct end *end = end_new(&call->daemon->operations, operation);
	char line[LINE_BYTES];
	struct ask ask = { .loop = &call->daemon->loop,
			   .line = line,
			   .deadline_ms = ANSWER_MS,
			   .answered = heard_end,
			   .context = end };
	int error;

	if (!end)
		return -ENOMEM;
	ask.machine = end->machine;
	verb_line(call, line);
	error = ask_machine(&ask);
	if (error)
		end_free(end);
	return error;
}

/* It is kept before the machine is asked: one that cannot be is not asked for. */
void call_end(struct api_call *call)
{
	struct operation *operation;

	if (!call_running_machine(call))
		return;
	operation = call_begin(call, NULL);
	if (!operation)
		return;
	if (!ask_to_end(call, operation)) {
		call_answer(call, 202, json_incref(operation->object));
		return;
	}
	operation_fail(operation, failure_json(FAILURE_UNUSABLE, "it does not take a question",
					       "ask again later"));
	call_fail(call, 504, FAILURE_UNUSABLE, "it does not take a question", "ask again later");
}
