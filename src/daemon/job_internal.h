/* Inside a job: what is kept of what its process says, and where it is in its input. */
#pragma once

#include "job.h"

enum { OUTPUT, ERRORS, PIPES };

struct pipe_end { struct job *job; struct loop_source source; };

struct job {
	struct loop *loop;
	struct job_plan plan;
	pid_t pid;
	struct loop_source process;
	struct pipe_end end[PIPES];
	struct loop_source input;
	char *input_bytes; /* what is left of it begins at input_at */
	size_t input_at, input_size;
	char *output;
	size_t output_used, output_room;
	char errors[JOB_ERROR_BYTES + 1];
	size_t errors_used;
	bool is_cut, has_exited;
	int code;
	int error_file; /* of one that leaves others; else -1 */
};

/* Invariant 3, and that what is kept ends with a zero byte. */
void check_job(const struct job *job);
