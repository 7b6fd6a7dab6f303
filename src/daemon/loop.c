/* See loop.h. */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

#include "lib/check.h"

uint64_t loop_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int loop_open(struct loop *loop)
{
	*loop = (struct loop){ .epoll = epoll_create1(EPOLL_CLOEXEC) };
	return loop->epoll < 0 ? -errno : 0;
}

void loop_close(struct loop *loop) { close(loop->epoll); }

static int control(struct loop *loop, int act, struct loop_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	return epoll_ctl(loop->epoll, act, source->fd, &event) ? -errno : 0;
}

int loop_add(struct loop *loop, struct loop_source *source, uint32_t events)
{
	assert(source->fd >= 0 && source->ready);
	return control(loop, EPOLL_CTL_ADD, source, events);
}

void loop_change(struct loop *loop, struct loop_source *source, uint32_t events)
{
	control(loop, EPOLL_CTL_MOD, source, events);
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
	control(loop, EPOLL_CTL_DEL, source, 0);
}

void loop_unset(struct loop *loop, struct loop_timer *timer)
{
	for (struct loop_timer **at = &loop->timers; *at; at = &(*at)->next)
		if (*at == timer) {
			*at = timer->next;
			break;
		}
	timer->at_ms = 0;
}

void check_loop(const struct loop *loop)
{
	for (const struct loop_timer *timer = loop->timers; timer; timer = timer->next) {
		assert(timer->at_ms && timer->due);
		assert(!timer->next || timer->next->at_ms >= timer->at_ms);
	}
}

void loop_set(struct loop *loop, struct loop_timer *timer, uint64_t in_ms)
{
	struct loop_timer **at = &loop->timers;

	assert(timer->due);
	loop_unset(loop, timer);
	timer->at_ms = loop_now_ms() + in_ms;
	while (*at && (*at)->at_ms <= timer->at_ms)
		at = &(*at)->next;
	timer->next = *at;
	*at = timer;
	CHECK(check_loop(loop));
}

static int wait_ms(const struct loop *loop, int64_t most_ms)
{
	int64_t wait = most_ms;

	if (loop->timers) {
		int64_t left = (int64_t)(loop->timers->at_ms - loop_now_ms());

		left = left < 0 ? 0 : left;
		wait = wait < 0 || left < wait ? left : wait;
	}
	return (int)(wait > INT_MAX ? INT_MAX : wait);
}

void loop_turn(struct loop *loop, int64_t most_ms)
{
	struct epoll_event event;

	if (epoll_wait(loop->epoll, &event, 1, wait_ms(loop, most_ms)) == 1) {
		struct loop_source *source = event.data.ptr;

		source->ready(source->context, event.events);
	}
	while (loop->timers && loop->timers->at_ms <= loop_now_ms()) {
		struct loop_timer *timer = loop->timers;

		loop_unset(loop, timer);
		timer->due(timer->context);
	}
}
