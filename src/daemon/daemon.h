/* What there is of the daemon, and the handlers of the table. */
#pragma once

#include "api.h"
#include "events.h"
#include "job.h"
#include "loop.h"
#include "machines.h"
#include "operations.h"
#include "replay.h"
#include "sessions.h"
#include "store/store.h"

enum { DAEMON_CALLS = 256 };

struct page_port;

struct daemon {
	struct loop loop;
	struct store *store;
	struct events events;
	struct machines machines;
	struct operations operations;
	struct replay replay;
	struct sessions sessions; /* of the page's port */
	struct page_port *page;
	const char *program; /* the command, to be executed */
	unsigned under_way; /* calls that wait for a command or a machine: DAEMON_CALLS at most */
	uint64_t calls, failures; /* answered, and of them those that were refused */
};

/*
 * 202 with a new operation of the call's. words: NULL: it is done when its machine has ended, and
 * the call is not answered yet. NULL: the call has failed.
 */
struct operation *call_begin(struct api_call *call, char *const *words);

/*
 * Runs the command for the call, which it holds until `ended`, with the call as its context, has
 * answered and released it. words: NULL: no memory; released by the caller. input: NULL: none.
 * What cannot be started has the call failed (call.c).
 */
void call_job(struct api_call *call, char *const *words, const char *input,
	      void (*ended)(void *context, const struct job_result *result));

/* machine_calls.c */
/* The machine of the call, that runs; NULL: there is none, and the call has failed. */
const struct known_machine *call_running_machine(struct api_call *call);
void call_machines(struct api_call *call);
void call_machine(struct api_call *call);
void call_specify(struct api_call *call);
void call_forget(struct api_call *call);
void call_start(struct api_call *call);
void call_end(struct api_call *call);
void call_stand(struct api_call *call);
void call_registers(struct api_call *call);
void call_set_memory(struct api_call *call);
/* page_port.c */
void call_page(struct api_call *call);
void call_session(struct api_call *call);
/* usage.c */
void call_usage(struct api_call *call);
/* metrics.c */
void call_metrics(struct api_call *call);
/* program_call.c */
void call_program(struct api_call *call);
/* screenshot_call.c */
void call_screenshot(struct api_call *call);
/* daemon_calls.c */
void call_version(struct api_call *call);
void call_document(struct api_call *call);
void call_operations(struct api_call *call);
void call_operation(struct api_call *call);
void call_cancel(struct api_call *call);
