/* See thread.h. */
#include "thread.h"

static void locks_make(struct thread *thread)
{
	pthread_mutex_init(&thread->lock, NULL);
	pthread_cond_init(&thread->change, NULL);
}

static void *thread_body(void *context)
{
	struct thread *thread = context;

	fork_place_take(&thread->place);
	thread->run(thread->context);
	pthread_mutex_lock(&thread->lock);
	thread->ended = true;
	pthread_cond_signal(&thread->change);
	pthread_mutex_unlock(&thread->lock);
	return NULL;
}

int thread_start(struct thread *thread, void (*run)(void *context), void *context)
{
	int error;

	*thread = (struct thread){ .run = run, .context = context };
	locks_make(thread);
	error = fork_place_enlist(&thread->place);
	if (!error)
		error = -pthread_create(&thread->id, NULL, thread_body, thread);
	return error;
}

void thread_revive(struct thread *thread)
{
	thread->revived = true;
	locks_make(thread);
	fork_place_revive(&thread->place);
}

void thread_leave_processor(const struct thread *thread)
{
	if (thread->revived)
		forker_leave_processor();
}

static void wait_for_end(struct thread *thread)
{
	pthread_mutex_lock(&thread->lock);
	while (!thread->ended)
		pthread_cond_wait(&thread->change, &thread->lock);
	pthread_mutex_unlock(&thread->lock);
}

void thread_join(struct thread *thread)
{
	if (thread->revived)
		wait_for_end(thread);
	else
		pthread_join(thread->id, NULL);
	fork_place_delist(&thread->place); /* not before: it may be forked meanwhile */
}
