/*
 * A thread of a machine, that can be brought back in a process that was forked (ipc/forker.h): the
 * same thread, with its stack and its locals, that begins once more.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "ipc/forker.h"

struct thread {
	pthread_t id;
	void (*run)(void *context);
	void *context;
	struct fork_place place;
	bool revived; /* it is not the one that was created: nobody can join it */
	bool ended;   /* under the lock */
	pthread_mutex_t lock;
	pthread_cond_t change;
};

/* 0 or -errno. One at a time: the list of who is brought back has no lock. */
int thread_start(struct thread *thread, void (*run)(void *context), void *context);
/* In what was forked, where every other thread waits to go on. */
void thread_revive(struct thread *thread);
/* On the thread itself, when it has much to do: forker_leave_processor(), where it was revived. */
void thread_leave_processor(const struct thread *thread);
/* Until it has returned from run(). By who has started it. */
void thread_join(struct thread *thread);
