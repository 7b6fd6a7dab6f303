/*
 * Lines of the control protocol: the parser, and what it says back, which has to be a line of JSON
 * with the id that was given.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/protocol.h"
#include "fuzz.h"

static const struct control_verb verbs[] = {
	{ .name = "info", .number = 0 },
	{ .name = "memory", .number = 1, .member = { { "bytes", CONTROL_NUMBER, true } } },
	{ .name = "snapshot",
	  .number = 2,
	  .member = { { "file", CONTROL_TEXT, true }, { "size", CONTROL_NUMBER, false } } },
	{ 0 },
};

static void check_answer(char *line)
{
	json_t *answer = line ? json_loads(line, JSON_REJECT_DUPLICATES, NULL) : NULL;

	if (!json_is_object(answer) || !json_object_get(answer, "id") ||
	    !json_is_boolean(json_object_get(answer, "ok")) ||
	    strcspn(line, "\n") + 1 != strlen(line))
		abort();
	json_decref(answer);
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct control_request request;
	const char *reason;

	if (bytes > CONTROL_REQUEST_BYTES)
		return 0;
	if (control_parse((const char *)data, bytes, verbs, &request, &reason)) {
		check_answer(control_failure(request.id, -EINVAL, reason));
		return 0;
	}
	if (request.verb->number == 1 && control_number(&request, "bytes") > INT64_MAX)
		abort();
	if (request.verb->number == 2 && !control_text(&request, "file"))
		abort();
	check_answer(control_success(request.id, json_pack("{s:i}", "more", 1)));
	if (request.verb->number == 2) /* a reason that the asker chose */
		check_answer(control_failure(request.id, -EIO, control_text(&request, "file")));
	control_request_free(&request);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const char *const seeds[] = {
		"{\"id\":1,\"do\":\"info\"}",
		"{\"id\":\"a text\",\"do\":\"memory\",\"bytes\":1073741824}",
		"{\"do\":\"snapshot\",\"file\":\"/tmp/x\\u0041\\n\",\"size\":5}",
		"{\"id\":null,\"do\":\"snapshot\",\"file\":\"\xc3\xa4\"}",
		"{\"id\":-9223372036854775808,\"do\":\"info\",\"do\":\"info\"}",
		"[[[[[[[[{}]]]]]]]]",
	};
	const char *seed = seeds[n % (sizeof(seeds) / sizeof(seeds[0]))];

	memcpy(data, seed, strlen(seed));
	return strlen(seed);
}
