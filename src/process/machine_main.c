/*
 * Threads: the processors' (vm/machine.c), one that listens to the broker, and one that saves the machine when asked to. After lock_down() the process holds two event
 * descriptors, with disks two more, and memory, nothing else.
 */
#include "machine_main.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ipc/lockdown.h"

enum { EXIT_FAULT = 70, WORDS_BYTES = 4096 };

struct process {
	struct broker_client *client;
	struct machine *machine;
	pthread_t listener, saver;
	pthread_barrier_t listening; /* a thread's first system calls are not in the list: it must be through them before lock-down */
	pthread_mutex_t saving; /* of the next two */
	pthread_cond_t save_ready;
	bool save_wanted;
	pthread_mutex_t ring; /* the ring to the broker: processors and listener */
	int readable[3], writable[4]; /* the events that it keeps, -1 at the end */
};

static void tell(struct process *p, uint32_t kind, const void *data, size_t bytes)
{
	pthread_mutex_lock(&p->ring);
	while (ring_put(&p->client->to_broker, kind, data, (uint32_t)bytes) == -EAGAIN)
		ring_wait(&p->client->to_broker);
	pthread_mutex_unlock(&p->ring);
}

static void console(void *context, const uint8_t *data, size_t bytes) { tell(context, RECORD_CONSOLE, data, bytes); }

static int put_saved(void *context, const void *data, size_t bytes)
{
	const uint8_t *from = data;

	for (size_t n; bytes; from += n, bytes -= n) {
		n = bytes < RING_RECORD_MAX_BYTES ? bytes : RING_RECORD_MAX_BYTES;
		tell(context, RECORD_SAVED, from, n);
	}
	return 0;
}

static void want_save(struct process *p)
{
	pthread_mutex_lock(&p->saving);
	p->save_wanted = true;
	pthread_cond_signal(&p->save_ready);
	pthread_mutex_unlock(&p->saving);
}

/* The broker asks for one save at a time. */
static void *save_when_wanted(void *context)
{
	struct process *p = context;

	pthread_barrier_wait(&p->listening);
	for (;;) {
		int32_t error;

		pthread_mutex_lock(&p->saving);
		while (!p->save_wanted)
			pthread_cond_wait(&p->save_ready, &p->saving);
		p->save_wanted = false;
		pthread_mutex_unlock(&p->saving);
		error = machine_save(p->machine, put_saved, p);
		tell(p, RECORD_SAVE_ENDED, &error, sizeof(error));
	}
	return NULL;
}

static void set_memory(struct process *p, const uint8_t *data, uint32_t bytes)
{
	uint64_t wanted;

	if (bytes != sizeof(wanted))
		return;
	memcpy(&wanted, data, sizeof(wanted));
	machine_set_memory(p->machine, wanted);
}

static void state(void *context, const struct machine_state *s)
{
	const struct record_state r = {
		.flags = (s->health == MACHINE_HEALTH_GOOD ? STATE_ANSWERS : 0) | (s->health == MACHINE_HEALTH_LOST ? STATE_SILENT : 0) |
			 (s->has_memory_driver ? STATE_MEMORY_DRIVER : 0) | (s->has_memory_status ? STATE_MEMORY_STATUS : 0) | (s->automatic ? STATE_AUTOMATIC : 0),
		.assigned_bytes = s->assigned_bytes, .target_bytes = s->target_bytes, .available_bytes = s->available_bytes, .committed_bytes = s->committed_bytes,
	};

	tell(context, RECORD_STATE, &r, sizeof(r));
}

static void shut_down(struct process *p)
{
	int32_t asked = machine_shut_down(p->machine);

	tell(p, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
}

static void *listen_to_broker(void *context)
{
	struct process *p = context;
	uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t kind, bytes;
	uint64_t count;

	pthread_barrier_wait(&p->listening);
	while (read(p->client->event_in, &count, 8) == 8)
		while (ring_get(&p->client->from_broker, &kind, data, &bytes) > 0)
			if (kind == RECORD_INPUT)
				machine_input(p->machine, data, bytes);
			else if (kind == RECORD_STOP)
				machine_stop(p->machine);
			else if (kind == RECORD_SAVE)
				want_save(p);
			else if (kind == RECORD_RESUME)
				machine_resume(p->machine);
			else if (kind == RECORD_MEMORY)
				set_memory(p, data, bytes);
			else if (kind == RECORD_SHUT_DOWN)
				shut_down(p);
	return NULL;
}

/* Every other descriptor is closed. */
static void keep_events(struct process *p, const struct machine_options *o)
{
	const struct machine_disks *d = o->disks.memory ? &o->disks : NULL;
	const int readable[] = { p->client->event_in, d ? d->answer_fd : -1, -1 };
	const int writable[] = { p->client->event_out, d ? d->doorbell_fd : -1, d ? d->answer_fd : -1, -1 };
	const int kept[] = { readable[0], writable[0], writable[1], writable[2], -1 };

	memcpy(p->readable, readable, sizeof(readable));
	memcpy(p->writable, writable, sizeof(writable));
	lockdown_close_all_but(kept);
}

static int lock_down(void *context)
{
	struct process *p = context;
	int error = lockdown(LOCKDOWN_MACHINE, p->readable, p->writable);

	if (!error)
		tell(p, RECORD_STARTED, NULL, 0);
	return error;
}

static void tell_end(struct process *p, enum machine_end end)
{
	const char *text = machine_crash_text(p->machine);
	uint8_t data[8 + WORDS_BYTES];
	int32_t codes[2] = { end, machine_debug_exit_code(p->machine) };
	size_t bytes = text ? strnlen(text, WORDS_BYTES) : 0;

	memcpy(data, codes, 8);
	memcpy(data + 8, text ? text : "", bytes);
	tell(p, RECORD_ENDED, data, 8 + bytes);
}

static void tell_refusal(struct process *p, int error, const char *reason)
{
	uint8_t data[4 + WORDS_BYTES];
	int32_t code = error;
	size_t bytes = strnlen(reason, WORDS_BYTES);

	memcpy(data, &code, 4);
	memcpy(data + 4, reason, bytes);
	tell(p, RECORD_REFUSED, data, 4 + bytes);
}

int machine_process(struct broker_client *client, struct machine_options *options, bool statistics)
{
	struct process p = { .client = client, .ring = PTHREAD_MUTEX_INITIALIZER, .saving = PTHREAD_MUTEX_INITIALIZER, .save_ready = PTHREAD_COND_INITIALIZER };
	char text[WORDS_BYTES];
	const char *reason = "the host refused to take its rights";
	enum machine_end end;
	struct tm unused;
	time_t now = 0;
	int error = lockdown_before_threads(LOCKDOWN_MACHINE, NULL);

	pthread_barrier_init(&p.listening, NULL, 3);
	gmtime_r(&now, &unused); /* reads the time zone's file: now or never */
	keep_events(&p, options);
	options->console = console;
	options->state = state;
	options->lock_down = lock_down;
	options->context = &p;
	options->last_words = client->memory->last_words;
	options->last_words_bytes = sizeof(client->memory->last_words);
	if (!error)
		p.machine = machine_create(options, &error, &reason);
	if (!p.machine || pthread_create(&p.listener, NULL, listen_to_broker, &p) || pthread_create(&p.saver, NULL, save_when_wanted, &p)) {
		tell_refusal(&p, error, reason);
		return 0;
	}
	if (options->kernel.bytes)
		munmap((void *)(uintptr_t)options->kernel.data, options->kernel.bytes);
	if (options->initrd.bytes)
		munmap((void *)(uintptr_t)options->initrd.data, options->initrd.bytes);
	pthread_barrier_wait(&p.listening);
	end = machine_run(p.machine);
	if (statistics) {
		machine_statistics(p.machine, text, sizeof(text));
		tell(&p, RECORD_STATISTICS, text, strlen(text));
	}
	if (end == MACHINE_REFUSED) {
		reason = machine_refusal(p.machine, &error);
		tell_refusal(&p, error, reason);
	} else {
		tell_end(&p, end);
	}
	return 0;
}
