/*
 * A unit with a thread that ticks the others every second, looks after processors that do not get
 * on, and tells what has changed of the guest's state: then, or as soon as somebody says that it
 * has. In between it does what may take a moment and changes nothing of the machine: small pages of
 * RAM become large ones (machine_rejoin()).
 */
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/touch.h"

enum { TICK_S = 1 };

/* Of RAM; 0 bytes: none. begin: as it was told. */
struct span { uint64_t begin, at, bytes; };

struct ticker {
	struct machine *machine;
	pthread_mutex_t lock; /* of the next; held while others are ticked */
	bool paused;
	pthread_mutex_t wake; /* of the next three; taken under any lock */
	bool stopped, looks; /* looks: at the state, before the next tick */
	struct span span; /* to become large pages, one in each turn */
	pthread_cond_t changed;
	struct machine_state told;
};

static void ticker_pause(void *self)
{
	struct ticker *ticker = self;

	pthread_mutex_lock(&ticker->lock);
	ticker->paused = true;
	pthread_mutex_unlock(&ticker->lock);
}

static void ticker_resume(void *self)
{
	struct ticker *ticker = self;

	pthread_mutex_lock(&ticker->lock);
	ticker->paused = false;
	pthread_mutex_unlock(&ticker->lock);
}

static void ticker_stop(void *self)
{
	struct ticker *ticker = self;

	pthread_mutex_lock(&ticker->wake);
	ticker->stopped = true;
	pthread_cond_signal(&ticker->changed);
	pthread_mutex_unlock(&ticker->wake);
}

void ticker_look(struct machine *machine)
{
	struct ticker *ticker = machine->ticker;

	pthread_mutex_lock(&ticker->wake);
	ticker->looks = true;
	pthread_cond_signal(&ticker->changed);
	pthread_mutex_unlock(&ticker->wake);
}

void machine_rejoin(struct machine *machine, uint64_t at, uint64_t bytes)
{
	struct ticker *ticker = machine->ticker;

	if (at > machine->memory.ram_bytes || bytes > machine->memory.ram_bytes - at)
		return;
	pthread_mutex_lock(&ticker->wake);
	ticker->span = (struct span){ .begin = at, .at = at, .bytes = bytes };
	ticker->looks = true;
	pthread_cond_signal(&ticker->changed);
	pthread_mutex_unlock(&ticker->wake);
}

void ticker_drop_span(struct machine *machine)
{
	pthread_mutex_lock(&machine->ticker->wake);
	machine->ticker->span.bytes = 0;
	pthread_mutex_unlock(&machine->ticker->wake);
}

/* A large page of it. Then there is another turn at once. */
static bool take_page(struct ticker *ticker, struct span *ret)
{
	struct span *span = &ticker->span;
	bool is_some;

	pthread_mutex_lock(&ticker->wake);
	is_some = span->bytes;
	*ret = *span;
	ret->bytes = span->bytes < TOUCH_LARGE_BYTES ? span->bytes : TOUCH_LARGE_BYTES;
	span->at += ret->bytes;
	span->bytes -= ret->bytes;
	ticker->looks |= is_some;
	pthread_mutex_unlock(&ticker->wake);
	return is_some;
}

static void tell_rejoined(struct ticker *ticker, const struct span *last)
{
	const struct machine_options *options = &ticker->machine->options;
	bool is_done;

	pthread_mutex_lock(&ticker->wake);
	is_done = !ticker->span.bytes;
	pthread_mutex_unlock(&ticker->wake);
	if (is_done && options->rejoined)
		options->rejoined(options->context, last->begin);
}

/*
 * A host that has no large page now, or does not know how, leaves them as they are. Not
 * touch_large(), which writes to the first small one.
 */
static void rejoin_page(struct ticker *ticker)
{
	enum { TRIES = 4 }; /* where the kernel is at the page itself, it cannot */
	struct span page;
	int error = EAGAIN;

	if (!take_page(ticker, &page))
		return;
	for (unsigned n = 0; n < TRIES && error == EAGAIN; n++) {
		uint8_t *at = ticker->machine->memory.ram + page.at;

		error = madvise(at, page.bytes, MADV_COLLAPSE) ? errno : 0;
	}
	tell_rejoined(ticker, &page);
}

static void ticker_tell(struct ticker *ticker)
{
	const struct machine *machine = ticker->machine;
	struct machine_state now;

	memset(&now, 0, sizeof(now)); /* to be compared, padding and all */
	devices_state(machine->devices, &now);
	if (!memcmp(&now, &ticker->told, sizeof(now)))
		return;
	memcpy(&ticker->told, &now, sizeof(now));
	if (machine->options.state)
		machine->options.state(machine->options.context, &now);
}

enum ticker_event { TICKER_STOPPED, TICKER_LOOKS, TICKER_TICKS };

static bool is_past(const struct timespec *until)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > until->tv_sec ||
	       (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec);
}

static enum ticker_event ticker_wait(struct ticker *ticker, const struct timespec *until)
{
	enum ticker_event event = TICKER_TICKS;
	int error = 0;

	pthread_mutex_lock(&ticker->wake);
	while (!error && !ticker->stopped && !ticker->looks)
		error = pthread_cond_timedwait(&ticker->changed, &ticker->wake, until);
	/* a guest that has something to tell at all times does not stop the ticks */
	if (ticker->looks && !is_past(until))
		event = TICKER_LOOKS;
	if (ticker->stopped)
		event = TICKER_STOPPED;
	ticker->looks = false;
	pthread_mutex_unlock(&ticker->wake);
	return event;
}

/* With the ticker's lock. */
static void ticker_tick(struct ticker *ticker, unsigned seconds)
{
	units_tick(&ticker->machine->units, seconds);
	stuck_tick(ticker->machine, seconds);
	idle_tick(ticker->machine);
}

static void ticker_set_next(struct timespec *ret)
{
	clock_gettime(CLOCK_MONOTONIC, ret);
	ret->tv_sec += TICK_S;
}

static void ticker_run(void *self)
{
	struct ticker *ticker = self;
	enum ticker_event event = TICKER_LOOKS;
	struct timespec next;
	unsigned seconds = 0;
	bool goes;

	ticker_set_next(&next);
	if (!ticker->machine->is_forked)
		event = ticker_wait(ticker, &next);
	for (; event != TICKER_STOPPED; event = ticker_wait(ticker, &next)) {
		pthread_mutex_lock(&ticker->lock);
		goes = !ticker->paused;
		if (event == TICKER_TICKS && goes)
			ticker_tick(ticker, ++seconds);
		if (ticker->machine->devices && goes)
			ticker_tell(ticker);
		pthread_mutex_unlock(&ticker->lock);
		if (goes) /* what is left of a span waits for the next tick */
			rejoin_page(ticker);
		if (event == TICKER_TICKS)
			ticker_set_next(&next);
	}
}

static void locks_make(struct ticker *ticker)
{
	pthread_condattr_t attributes;

	pthread_mutex_init(&ticker->lock, NULL);
	pthread_mutex_init(&ticker->wake, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&ticker->changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

/* Its broker is another one, and was told nothing yet. */
static void ticker_forked(void *self)
{
	struct ticker *ticker = self;

	locks_make(ticker);
	memset(&ticker->told, 0, sizeof(ticker->told));
	ticker->span.bytes = 0; /* it has it in common now */
}

static void ticker_destroy(void *self) { free(self); }

static const struct unit_ops ticker_unit = {
	.name = "ticker", .run = ticker_run, .pause = ticker_pause, .resume = ticker_resume,
	.forked = ticker_forked, .stop = ticker_stop,
	.destroy = ticker_destroy,
};

int machine_make_ticker(struct machine *machine)
{
	struct ticker *ticker;

	assert(!machine->ticker);
	ticker = calloc(1, sizeof(*ticker));
	if (!ticker)
		return -ENOMEM;
	ticker->machine = machine;
	machine->ticker = ticker;
	locks_make(ticker);
	unit_add(&machine->units, &ticker_unit, ticker, 0);
	return 0;
}
