/*
 * What went wrong, as the API says it: a row of the exit codes (umbra(1)) with its name, what, and
 * what to do about it; and the HTTP status that belongs to it.
 */
#pragma once

#include <jansson.h>

#include "job.h"

/* The exit codes. */
enum {
	FAILURE_USAGE = 64,
	FAILURE_UNUSABLE = 65,
	FAILURE_NO_ENGINE = 69,
	FAILURE_FAULT = 70,
	FAILURE_GUEST_CRASHED = 75,
	FAILURE_POLICY = 78
};

/* {"code", "error", "reason", "remedy"} */
json_t *failure_json(int code, const char *reason, const char *remedy);
/* Of a command that has ended with other than 0: its code, and its last line of errors; where it
 * has refused a disk and has said why as JSON, also {"refusal"}. */
json_t *failure_of_job(const struct job_result *result);
unsigned failure_status(int code);
