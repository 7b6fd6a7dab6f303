/* The invariants of a job and of the events, each broken: check_job() and check_events() see it. */
#include <stdlib.h>

#include "../lib/caught.h"
#include "daemon/events.h"
#include "daemon/job_internal.h"

static struct job *job_in(void *job) { return job; }
static void check_job_of(void *job) { check_job(job); }
static void more_than_there_is_room(void *job) { job_in(job)->output_used = 64; }
static void more_than_is_kept(void *job)
{
	job_in(job)->output_room = 2 * JOB_OUTPUT_BYTES;
	job_in(job)->output_used = JOB_OUTPUT_BYTES + 1;
}
static void output_without_end(void *job) { job_in(job)->output[5] = 'x'; }
static void output_nowhere(void *job) { job_in(job)->output = NULL; }
static void errors_without_end(void *job) { job_in(job)->errors[0] = 'x'; }
static void too_many_errors(void *job) { job_in(job)->errors_used = JOB_ERROR_BYTES + 1; }
static void more_input_than_there_is(void *job) { job_in(job)->input_at = 2; }
static void file_of_one_that_leaves_none(void *job) { job_in(job)->error_file = 2; }

static const struct spoiling of_job[] = {
	{ "more output than there is room", more_than_there_is_room },
	{ "more output than is kept", more_than_is_kept },
	{ "output without an end", output_without_end },
	{ "output that is nowhere", output_nowhere },
	{ "errors without an end", errors_without_end },
	{ "more errors than are kept", too_many_errors },
	{ "more input than there is", more_input_than_there_is },
	{ "a file of one that leaves none behind", file_of_one_that_leaves_none },
};

static struct events *events_in(void *events) { return events; }
static void check_events_of(void *events) { check_events(events); }
static void waiting_nowhere(void *events) { events_in(events)->waiting = NULL; }
static void waiting_is_no_list(void *events) { events_in(events)->waiting = json_object(); }
static void too_many_wait(void *events)
{
	for (unsigned n = 0; n <= EVENTS_WAITING; n++)
		json_array_append_new(events_in(events)->waiting, json_string("{}"));
}
static void waits_without_text(void *events)
{
	json_array_append_new(events_in(events)->waiting, json_integer(1));
}

static const struct spoiling of_events[] = {
	{ "a list that is nowhere", waiting_nowhere },
	{ "what is no list", waiting_is_no_list },
	{ "more events than may wait", too_many_wait },
	{ "an event without a text", waits_without_text },
};

int main(void)
{
	struct job job = { .input_size = 1, .output_used = 5, .output_room = 64,
			   .error_file = -1 };
	struct events events = { .waiting = json_array() };
	unsigned missed;

	job.output = calloc(1, job.output_room);
	missed = CAUGHT_MISSED("job", check_job_of, &job, of_job) +
		 CAUGHT_MISSED("events", check_events_of, &events, of_events);
	json_decref(events.waiting);
	free(job.output);
	return missed != 0;
}
