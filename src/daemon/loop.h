/*
 * The daemon's one loop: descriptors that are waited for, and times. Everything of the daemon runs
 * on this thread, and nothing that it calls waits.
 *
 *  1. Timers that are set stand in the order in which they are due.
 *
 *   - One event is taken at a time: who is called may remove any source, also one that was ready.
 *   - A source and a timer are their owner's memory, and are removed before it is freed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop_source {
	int fd;
	void (*ready)(void *context, uint32_t events);
	void *context;
};

struct loop_timer {
	void (*due)(void *context);
	void *context;
	uint64_t at_ms; /* of CLOCK_MONOTONIC; 0: it is not set */
	struct loop_timer *next;
};

struct loop { int epoll; struct loop_timer *timers; bool ends; };

uint64_t loop_now_ms(void);
/* 0 or -errno. */
int loop_open(struct loop *loop);
void loop_close(struct loop *loop);
/* events: EPOLLIN, EPOLLOUT. 0 or -errno. */
int loop_add(struct loop *loop, struct loop_source *source, uint32_t events);
void loop_change(struct loop *loop, struct loop_source *source, uint32_t events);
void loop_remove(struct loop *loop, struct loop_source *source);
/* Calls once, in so many milliseconds; set again it is called then alone. */
void loop_set(struct loop *loop, struct loop_timer *timer, uint64_t in_ms);
void loop_unset(struct loop *loop, struct loop_timer *timer);
/* Invariant 1. */
void check_loop(const struct loop *loop);
/* One event, or the timers that are due; waits most_ms at most (negative: as long as it takes). */
void loop_turn(struct loop *loop, int64_t most_ms);
