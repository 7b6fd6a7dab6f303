/*
 * One run of the command: a process of its own, whose output and errors are taken. What parses
 * files that others made, what makes descriptors for a machine, and what takes long runs so, not in
 * the daemon: its own memory is reached by nothing of theirs.
 *
 *  1. `ended` is called once, after which the job is no more.
 *  2. It has ended when its process has: one that goes on behind it may hold the pipes. What such a
 *     one says later goes to a file that nobody reads (leaves_others), or it would be ended by it.
 *  3. Of output JOB_OUTPUT_BYTES are kept, of errors the last JOB_ERROR_BYTES; the rest is read and
 *     thrown away, so that nobody waits for us.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "loop.h"

enum { JOB_OUTPUT_BYTES = 8 << 20, JOB_ERROR_BYTES = 8192 };

struct job;

struct job_result {
	int code; /* its exit code; 128 and the number of the signal that ended it */
	const char *output, *errors; /* with a zero byte after them */
	size_t output_bytes;
	bool is_cut; /* there was more output */
};

struct job_plan {
	const char *program;
	char *const *arguments; /* ended by NULL */
	const char *input; /* NULL: none */
	size_t input_bytes;
	bool leaves_others; /* processes that it starts outlive it */
	void (*progress)(void *context, unsigned long long done, unsigned long long all);
	void (*ended)(void *context, const struct job_result *result);
	void *context;
};

/* 0 or -errno. */
int job_start(struct loop *loop, const struct job_plan *plan, struct job **ret);
/* It is asked to end (SIGTERM), and ended still says how it did. */
void job_cancel(struct job *job);
/* It goes on by itself, and nobody hears of it. */
void job_leave(struct job *job);
