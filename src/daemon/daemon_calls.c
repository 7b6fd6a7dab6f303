/* What is asked about the daemon itself: its version and document, its operations (api.h). */
#include <errno.h>
#include <string.h>

#include "daemon.h"
#include "failure.h"

void call_version(struct api_call *call)
{
	call_answer(call, 200, json_pack("{s:s, s:s}", "version", UMBRA_VERSION, "api", "1"));
}

void call_document(struct api_call *call) { call_answer(call, 200, api_document(UMBRA_VERSION)); }

void call_operations(struct api_call *call)
{
	json_t *all = json_array();

	for (const struct operation *operation = call->daemon->operations.first; operation;
	     operation = operation->next)
		json_array_append(all, operation->object);
	call_answer(call, 200, all);
}

static struct operation *operation_of(struct api_call *call)
{
	struct operation *operation =
		operation_find(&call->daemon->operations, call_text(call, "operation"));

	if (!operation)
		call_fail(call, 404, FAILURE_UNUSABLE, "no such operation",
			  "GET /v1/operations lists those that are kept");
	return operation;
}

void call_operation(struct api_call *call)
{
	const struct operation *operation = operation_of(call);

	if (operation)
		call_answer(call, 200, json_incref(operation->object));
}

void call_cancel(struct api_call *call)
{
	struct operation *operation = operation_of(call);
	int error = operation ? operation_cancel(operation) : 0;

	if (!operation)
		return;
	if (error == -ESRCH)
		call_fail(call, 409, FAILURE_UNUSABLE, "it has ended", "look at its state");
	else if (error)
		call_fail(call, 409, FAILURE_UNUSABLE, "it cannot be cancelled",
			  "wait until it has ended");
	else
		call_answer(call, 202, json_incref(operation->object));
}
