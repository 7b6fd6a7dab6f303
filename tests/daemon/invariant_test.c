/*
 * The invariants of a job, the events, keys of requests, the machines that are known, a question to
 * one of them, the page's sessions, operations and timers, each broken: check_*() sees it.
 */
#include <stdlib.h>
#include <string.h>

#include "../lib/caught.h"
#include "daemon/ask_internal.h"
#include "daemon/events.h"
#include "daemon/job_internal.h"
#include "daemon/loop.h"
#include "daemon/machines.h"
#include "daemon/operations.h"
#include "daemon/replay.h"
#include "daemon/sessions.h"

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
		json_array_append_new(events_in(events)->waiting,
				      json_pack("[s, s]", "id", "{}"));
}
static void waits_without_text(void *events)
{
	json_array_append_new(events_in(events)->waiting, json_pack("[s]", "id"));
}
static void waits_without_id(void *events)
{
	json_array_append_new(events_in(events)->waiting, json_pack("[i, s]", 1, "{}"));
}

static const struct spoiling of_events[] = {
	{ "a list that is nowhere", waiting_nowhere },
	{ "what is no list", waiting_is_no_list },
	{ "more events than may wait", too_many_wait },
	{ "an event without a text", waits_without_text },
	{ "an event without an id", waits_without_id },
};

static json_t *under_way(void *replay) { return ((struct replay *)replay)->under_way; }
static void check_replay_of(void *replay) { check_replay(replay); }
static void keys_in_a_list(void *replay) { ((struct replay *)replay)->under_way = json_array(); }
static void kept_nowhere(void *replay) { ((struct replay *)replay)->store = NULL; }
static void key_of_nothing(void *replay)
{
	json_object_set_new(under_way(replay), "k", json_null());
}
static void key_of_half(void *replay)
{
	json_object_set_new(under_way(replay), "k", json_string("12"));
}
static void key_with_a_blank(void *replay)
{
	json_object_set(under_way(replay), "a b", json_object_get(under_way(replay), "k"));
}
static void key_without_a_letter(void *replay)
{
	json_object_set(under_way(replay), "", json_object_get(under_way(replay), "k"));
}

static const struct spoiling of_replay[] = {
	{ "keys in a list", keys_in_a_list },
	{ "keys that are kept nowhere", kept_nowhere },
	{ "a key that stands for nothing", key_of_nothing },
	{ "a key for half a digest", key_of_half },
	{ "a key with a blank", key_with_a_blank },
	{ "a key without a letter", key_without_a_letter },
};

static struct known_machine *first_in(void *machines)
{
	return ((struct machines *)machines)->first;
}
static void check_machines_of(void *machines) { check_machines(machines); }
static void machine_without_a_name(void *machines) { first_in(machines)->name = NULL; }
static void names_the_wrong_way(void *machines) { first_in(machines)->name = "z"; }
static void name_twice(void *machines)
{
	first_in(machines)->name = first_in(machines)->next->name;
}
static void nothing_of_it(void *machines) { first_in(machines)->specification = NULL; }
static void described_and_gone(void *machines) { first_in(machines)->description = json_object(); }
static void specified_by_a_word(void *machines)
{
	first_in(machines)->specification = json_string("x");
}

static const struct spoiling of_machines[] = {
	{ "a machine without a name", machine_without_a_name },
	{ "names that are not in order", names_the_wrong_way },
	{ "a name twice", name_twice },
	{ "one of which nothing is known", nothing_of_it },
	{ "one that is described and does not run", described_and_gone },
	{ "one that is specified by a word", specified_by_a_word },
};

static struct question *question_in(void *question) { return question; }
static void check_question_of(void *question) { check_question(question); }
static void nobody_waits(void *question) { question_in(question)->ask.answered = NULL; }
static void without_a_loop(void *question) { question_in(question)->ask.loop = NULL; }
static void closed_already(void *question) { question_in(question)->source.fd = -1; }
static void heard_by_another(void *question) { question_in(question)->source.context = NULL; }
static void without_a_deadline(void *question) { question_in(question)->timer.at_ms = 0; }
static void late_for_another(void *question) { question_in(question)->timer.context = NULL; }
static void answered_already(void *question) { question_in(question)->text[1] = '\n'; }
static void too_long_an_answer(void *question) { question_in(question)->used = ANSWER_BYTES; }

static const struct spoiling of_question[] = {
	{ "a question that nobody waits for", nobody_waits },
	{ "a question without a loop", without_a_loop },
	{ "a question whose connection is closed", closed_already },
	{ "a question whose answer another one hears", heard_by_another },
	{ "a question without a deadline", without_a_deadline },
	{ "a question whose deadline is another's", late_for_another },
	{ "a question that is answered", answered_already },
	{ "too long an answer", too_long_an_answer },
};

static void answered(void *context, json_t *answer)
{
	(void)context;
	(void)answer;
}
static void ready(void *context, uint32_t events)
{
	(void)context;
	(void)events;
}
static void due(void *context) { (void)context; }

static unsigned of_questions(void)
{
	static struct question question;
	struct loop loop = { 0 };

	question = (struct question){
		.ask = { .loop = &loop, .answered = answered },
		.source = { .fd = 0, .ready = ready, .context = &question },
		.timer = { .due = due, .context = &question, .at_ms = 1 },
	};
	question.used = strlen(strcpy(question.text, "{\"id\":1"));
	return CAUGHT_MISSED("question", check_question_of, &question, of_question);
}

static struct sessions *sessions_in(void *sessions) { return sessions; }
static void check_sessions_of(void *sessions) { check_sessions(sessions); }
static void session_twice(void *sessions)
{
	sessions_in(sessions)->session[1] = sessions_in(sessions)->session[0];
}
static void ticket_without_an_end(void *sessions)
{
	sessions_in(sessions)->ticket[0].text[SECRET_TEXT_BYTES - 1] = 'a';
}
static void ticket_of_a_word(void *sessions) { sessions_in(sessions)->ticket[0].text[5] = 'x'; }
static void short_a_session(void *sessions) { sessions_in(sessions)->session[0].text[9] = 0; }
static void used_ticket_kept(void *sessions) { sessions_in(sessions)->ticket[0].until_ms = 0; }

static const struct spoiling of_sessions[] = {
	{ "a session twice", session_twice },
	{ "a ticket without an end", ticket_without_an_end },
	{ "a ticket of other letters", ticket_of_a_word },
	{ "too short a session", short_a_session },
	{ "a ticket that was used and is kept", used_ticket_kept },
};

static unsigned of_page_sessions(void)
{
	struct sessions sessions = { 0 };
	char ticket[SECRET_TEXT_BYTES];
	char session[SECRET_TEXT_BYTES];

	sessions_ticket(&sessions, 1, ticket);
	if (!sessions_enter(&sessions, 1, ticket, session) ||
	    sessions_enter(&sessions, 1, ticket, session)) {
		puts("sessions: a ticket is not good once");
		return 1;
	}
	sessions_ticket(&sessions, 1, ticket);
	return CAUGHT_MISSED("sessions", check_sessions_of, &sessions, of_sessions);
}

static unsigned of_keys(void)
{
	static const char digest[] = "0123456789abcdef0123456789abcdef"
				     "0123456789abcdef0123456789abcdef";
	struct replay replay = { .store = (struct store *)8, .under_way = json_object() };
	unsigned missed;

	json_object_set_new(replay.under_way, "k", json_string(digest));
	missed = CAUGHT_MISSED("keys", check_replay_of, &replay, of_replay);
	json_decref(replay.under_way);
	return missed;
}

static unsigned of_known_machines(void)
{
	struct known_machine two = { .name = "two", .specification = json_object() };
	struct known_machine one = { .name = "one", .specification = json_object(), .next = &two };
	struct machines machines = { .first = &one };
	unsigned missed = CAUGHT_MISSED("machines", check_machines_of, &machines, of_machines);

	json_decref(one.specification);
	json_decref(two.specification);
	return missed;
}

/* ---- operations ---- */

static struct operations *operations_in(void *operations) { return operations; }
static void check_operations_of(void *operations) { check_operations(operations); }
static void uncounted(void *operations) { operations_in(operations)->count = 1; }
static void counted_twice(void *operations) { operations_in(operations)->count = 3; }
static void of_another_daemon(void *operations)
{
	operations_in(operations)->first->operations = NULL;
}
static void works_after_its_end(void *operations)
{
	operations_in(operations)->first->next->job = (struct job *)8;
}
static void awaits_after_its_end(void *operations)
{
	operations_in(operations)->first->next->awaits_end = true;
}
static void too_many_run(void *operations)
{
	for (unsigned n = 0; n < OPERATIONS_RUNNING; n++) {
		struct operation *more = calloc(1, sizeof(*more));

		*more = *operations_in(operations)->first;
		more->next = operations_in(operations)->first;
		operations_in(operations)->first = more;
		operations_in(operations)->count++;
	}
}

static const struct spoiling of_operations[] = {
	{ "one that is not counted", uncounted },
	{ "one that is counted and not there", counted_twice },
	{ "one of another daemon", of_another_daemon },
	{ "work for one that has ended", works_after_its_end },
	{ "one that awaits its end after it", awaits_after_its_end },
	{ "more than may run", too_many_run },
};

static unsigned of_what_is_done(void)
{
	struct operations operations = { .count = 2 };
	struct operation done = { .object = json_pack("{s:s}", "state", "done"),
				  .operations = &operations };
	struct operation runs = { .object = json_pack("{s:s}", "state", "running"),
				  .operations = &operations,
				  .awaits_end = true,
				  .next = &done };
	unsigned missed;

	operations.first = &runs;
	missed = CAUGHT_MISSED("operations", check_operations_of, &operations, of_operations);
	json_decref(done.object);
	json_decref(runs.object);
	return missed;
}

/* ---- timers ---- */

static struct loop *loop_in(void *loop) { return loop; }
static void check_loop_of(void *loop) { check_loop(loop); }
static void nothing_is_due(void *context) { (void)context; }
static void timer_without_time(void *loop) { loop_in(loop)->timers->at_ms = 0; }
static void timer_for_nobody(void *loop) { loop_in(loop)->timers->next->due = NULL; }
static void timers_in_no_order(void *loop) { loop_in(loop)->timers->at_ms += 100000; }

static const struct spoiling of_loop[] = {
	{ "a timer without a time", timer_without_time },
	{ "a timer that is nobody's", timer_for_nobody },
	{ "timers out of their order", timers_in_no_order },
};

static unsigned of_timers(void)
{
	struct loop_timer soon = { .due = nothing_is_due };
	struct loop_timer later = { .due = nothing_is_due };
	struct loop loop = { .epoll = -1 };

	loop_set(&loop, &later, 5000);
	loop_set(&loop, &soon, 1000);
	return CAUGHT_MISSED("timers", check_loop_of, &loop, of_loop);
}

int main(void)
{
	struct job job = { .input_size = 1, .output_used = 5, .output_room = 64,
			   .error_file = -1 };
	struct events events = { .waiting = json_array() };
	unsigned missed;

	job.output = calloc(1, job.output_room);
	missed = CAUGHT_MISSED("job", check_job_of, &job, of_job) +
		 CAUGHT_MISSED("events", check_events_of, &events, of_events);
	missed += of_keys();
	missed += of_known_machines();
	missed += of_questions();
	missed += of_page_sessions();
	missed += of_what_is_done();
	missed += of_timers();
	json_decref(events.waiting);
	free(job.output);
	return missed != 0;
}
