/*
 * Whether check_*() sees a structure that is broken: it is spoilt in a process of its own, which
 * has to end by an assertion; the same without it ends well, so that it is the spoiling that was
 * seen.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

struct spoiling {
	const char *what;
	void (*spoil)(void *object);
};

/* How a process ends that does this: a wait status. spoil NULL: nothing is spoilt. */
static inline int caught_status(void (*check)(void *object), void (*spoil)(void *object),
				void *object)
{
	int status = -1;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (!child) {
		close(STDERR_FILENO);
		if (spoil)
			spoil(object);
		check(object);
		_exit(0);
	}
	if (child > 0)
		waitpid(child, &status, 0);
	return status;
}

/* How many of these are not seen, or 1 where the sound object does not pass; says which. */
static inline unsigned caught_missed(const char *object_is, void (*check)(void *object),
				     void *object, const struct spoiling *spoilings, size_t count)
{
	unsigned missed = 0;

	if (caught_status(check, NULL, object)) {
		printf("%s: a sound one does not pass\n", object_is);
		return 1;
	}
	for (size_t n = 0; n < count; n++) {
		int status = caught_status(check, spoilings[n].spoil, object);

		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
			continue;
		printf("%s: %s is not seen (status %x)\n", object_is, spoilings[n].what,
		       (unsigned)status);
		missed++;
	}
	return missed;
}

#define CAUGHT_MISSED(object_is, check, object, spoilings) \
	caught_missed(object_is, check, object, spoilings, \
		      sizeof(spoilings) / sizeof((spoilings)[0]))
