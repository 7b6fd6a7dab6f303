/* See operations.h. */
#include "operations.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failure.h"
#include "lib/check.h"

static int operation_keep(const struct operation *operation)
{
	char *text = json_dumps(operation->object, JSON_COMPACT);
	int error = text ? store_put(operation->operations->store, "operation", operation->id, text)
			 : -ENOMEM;

	free(text);
	return error;
}

static void operation_free(struct operation *operation)
{
	json_decref(operation->object);
	free(operation);
}

static const char *state_of(const struct operation *operation)
{
	return json_string_value(json_object_get(operation->object, "state")) ?: "failed";
}

static bool is_running(const struct operation *operation)
{
	return !strcmp(state_of(operation), "running");
}

/* The oldest that has ended; false: none has. */
static bool drop_oldest(struct operations *operations)
{
	struct operation **oldest = NULL;

	for (struct operation **at = &operations->first; *at; at = &(*at)->next)
		if (!is_running(*at))
			oldest = at;
	if (oldest) {
		struct operation *operation = *oldest;

		*oldest = operation->next;
		operations->count--;
		store_drop(operations->store, "operation", operation->id);
		operation_free(operation);
	}
	return oldest;
}

static void drop_old(struct operations *operations)
{
	while (operations->count >= OPERATIONS_KEPT && drop_oldest(operations))
		;
}

static unsigned count_running(const struct operations *operations)
{
	unsigned count = 0;

	for (const struct operation *operation = operations->first; operation;
	     operation = operation->next)
		count += is_running(operation);
	return count;
}

void check_operations(const struct operations *operations)
{
	unsigned count = 0;

	for (const struct operation *operation = operations->first; operation;
	     operation = operation->next) {
		count++;
		assert(count <= operations->count && operation->operations == operations);
		assert(is_running(operation) || (!operation->job && !operation->awaits_end));
	}
	assert(count == operations->count);
	assert(count_running(operations) <= OPERATIONS_RUNNING);
}

static void tell(const struct operation *operation)
{
	json_t *shown = json_copy(operation->object);

	json_object_del(shown, "result"); /* who wants it asks for it: the journal is for news */
	events_tell(operation->operations->events, "operation", operation->id,
		    json_pack("{s:o}", "operation", shown));
}

/* result or error: released; NULL: none. */
static void operation_end(struct operation *operation, const char *state, json_t *result,
			  json_t *error)
{
	json_object_set_new(operation->object, "state", json_string(state));
	json_object_set_new(operation->object, "ended", json_integer(events_wall_ms()));
	if (result)
		json_object_set_new(operation->object, "result", result);
	if (error)
		json_object_set_new(operation->object, "error", error);
	operation->job = NULL;
	operation->awaits_end = false;
	operation_keep(operation);
	tell(operation);
}

/* ---- processes ---- */

static void job_progress(void *context, unsigned long long done, unsigned long long all)
{
	struct operation *operation = context;

	json_object_set_new(operation->object, "done", json_integer((json_int_t)done));
	json_object_set_new(operation->object, "all", json_integer((json_int_t)all));
	tell(operation);
}

/* Of a command that is done. */
static void end_done(struct operation *operation, const struct job_result *result)
{
	bool is_kept = result->output_bytes <= OPERATION_RESULT_BYTES;

	if (!is_kept)
		json_object_set_new(operation->object, "cut", json_true());
	operation_end(operation, "done", is_kept ? json_loads(result->output, 0, NULL) : NULL,
		      NULL);
}

static void job_ended(void *context, const struct job_result *result)
{
	struct operation *operation = context;

	if (operation->is_cancelled && result->code)
		operation_end(operation, "cancelled", NULL, NULL);
	else if (result->code)
		operation_end(operation, "failed", NULL, failure_of_job(result));
	else
		end_done(operation, result);
}

static int start_job(struct operation *operation, const struct operation_plan *plan)
{
	const struct job_plan job = { .program = plan->program,
				      .arguments = plan->arguments,
				      .leaves_others = plan->leaves_others,
				      .progress = job_progress,
				      .ended = job_ended,
				      .context = operation };

	return job_start(operation->operations->loop, &job, &operation->job);
}

/* ---- all of them ---- */

static struct operation *operation_new(struct operations *operations, const char *id,
				       json_t *object)
{
	struct operation *operation = calloc(1, sizeof(*operation));

	if (!operation) {
		json_decref(object);
		return NULL;
	}
	snprintf(operation->id, sizeof(operation->id), "%s", id);
	operation->object = object;
	operation->operations = operations;
	operation->next = operations->first;
	operations->first = operation;
	operations->count++;
	return operation;
}

/* Which the last one made of them. */
static void undo_new(struct operations *operations)
{
	struct operation *operation = operations->first;

	operations->first = operation->next;
	operations->count--;
	store_drop(operations->store, "operation", operation->id);
	operation_free(operation);
}

int operation_begin(struct operations *operations, const struct operation_plan *plan,
		    struct operation **ret)
{
	int64_t now = events_wall_ms();
	char id[OPERATION_ID_BYTES];
	struct operation *operation;
	int error;

	if (count_running(operations) >= OPERATIONS_RUNNING)
		return -EAGAIN;
	drop_old(operations);
	/* by time, so that the store has them in order; unique also over the daemon's end */
	snprintf(id, sizeof(id), "%012llx-%x-%x", (unsigned long long)now, (unsigned)getpid(),
		 operations->serial++);
	operation = operation_new(operations, id,
				  json_pack("{s:s, s:s, s:s, s:s?, s:I}", "id", id, "kind",
					    plan->kind, "state", "running", "machine",
					    plan->machine, "begun", (json_int_t)now));
	if (!operation)
		return -ENOMEM;
	operation->awaits_end = !plan->arguments;
	error = operation_keep(operation);
	if (!error && plan->arguments)
		error = start_job(operation, plan);
	if (error) {
		undo_new(operations);
		return error;
	}
	tell(operation);
	CHECK(check_operations(operations));
	*ret = operation;
	return 0;
}

struct operation *operation_find(const struct operations *operations, const char *id)
{
	for (struct operation *operation = operations->first; operation;
	     operation = operation->next)
		if (!strcmp(operation->id, id))
			return operation;
	return NULL;
}

int operation_cancel(struct operation *operation)
{
	if (!is_running(operation))
		return -ESRCH;
	if (!operation->job)
		return -EOPNOTSUPP;
	operation->is_cancelled = true;
	job_cancel(operation->job);
	return 0;
}

void operation_fail(struct operation *operation, json_t *error)
{
	if (is_running(operation))
		operation_end(operation, "failed", NULL, error);
	else
		json_decref(error);
}

void operations_machine_ended(struct operations *operations, const char *name)
{
	for (struct operation *operation = operations->first; operation;
	     operation = operation->next) {
		const char *machine =
			json_string_value(json_object_get(operation->object, "machine"));

		if (operation->awaits_end && machine && !strcmp(machine, name))
			operation_end(operation, "done", NULL, NULL);
	}
}

static bool take_kept(void *context, const char *key, const char *text)
{
	json_t *object = json_loads(text, 0, NULL);

	if (json_is_object(object))
		operation_new(context, key, object);
	else
		json_decref(object);
	return true;
}

int operations_open(struct operations *operations, struct loop *loop, struct store *store,
		    struct events *events)
{
	int error;

	*operations = (struct operations){ .loop = loop, .store = store, .events = events };
	error = store_each(store, "operation", take_kept, operations);
	for (struct operation *operation = operations->first; operation;
	     operation = operation->next)
		if (is_running(operation))
			operation_end(operation, "failed", NULL,
				      failure_json(FAILURE_FAULT, "the daemon ended meanwhile",
						   "look whether it was done, and begin again"));
	drop_old(operations);
	CHECK(check_operations(operations));
	return error;
}

void operations_close(struct operations *operations)
{
	while (operations->first) {
		struct operation *operation = operations->first;

		operations->first = operation->next;
		if (operation->job)
			job_leave(operation->job);
		operation_free(operation);
	}
}
