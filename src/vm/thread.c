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
	*thread = (struct thread){ .run = run, .context = context };
	locks_make(thread);
	return -pthread_create(&thread->id, NULL, thread_body, thread);
}

int thread_revive(struct thread *thread)
{
	thread->revived = true;
	locks_make(thread);
	return fork_place_revive(&thread->place);
}

void thread_join(struct thread *thread)
{
	if (!thread->revived) {
		pthread_join(thread->id, NULL);
		return;
	}
	pthread_mutex_lock(&thread->lock);
	while (!thread->ended)
		pthread_cond_wait(&thread->change, &thread->lock);
	pthread_mutex_unlock(&thread->lock);
}
