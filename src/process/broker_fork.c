/* See broker_fork.h. */
#include "broker_fork.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

void fork_init(struct fork *f, bool has_forker)
{
	*f = (struct fork){ .has_forker = has_forker };
}

static void kit_close(int kit[KIT_FDS])
{
	for (unsigned n = 0; n < KIT_FDS; n++)
		if (kit[n] >= 0)
			close(kit[n]);
	memset(kit, -1, KIT_FDS * sizeof(*kit));
}

void fork_begin(struct fork *f, const int *kits, unsigned count)
{
	assert(f->state == FORK_IDLE && count && count <= FORK_CHILDREN);
	memcpy(f->kit, kits, count * sizeof(f->kit[0]));
	f->wanted = count;
	f->made = 0;
	f->child = 0;
	f->state = FORK_STANDING;
}

/* Nothing more is forked; the machine stands, until it is told to go on. */
static enum fork_news fork_done(struct fork *f, int error)
{
	for (unsigned n = f->made; n < f->wanted; n++)
		kit_close(f->kit[n]);
	f->wanted = f->made;
	f->state = FORK_HELD;
	f->error = error;
	return FORK_DONE;
}

enum fork_news fork_next(struct fork *f)
{
	const int *kit = f->kit[f->made];
	int fd[GRANTS];
	int failed;

	if (f->made == f->wanted)
		return fork_done(f, 0);
	memset(fd, -1, sizeof(fd));
	fd[GRANT_RINGS] = kit[KIT_RINGS];
	fd[GRANT_TO_BROKER] = kit[KIT_TO_BROKER];
	fd[GRANT_TO_MACHINE] = kit[KIT_TO_MACHINE];
	fd[GRANT_SLOTS] = kit[KIT_SLOTS];
	fd[GRANT_DOORBELL] = kit[KIT_DOORBELL];
	fd[GRANT_ANSWER] = kit[KIT_ANSWER];
	fd[GRANT_CODE] = kit[KIT_CODE];
	fd[GRANT_FORK_ASK] = kit[KIT_ASK];
	fd[GRANT_FORK_KIT] = kit[KIT_KIT];
	fd[GRANT_READY] = kit[KIT_READY];
	failed = forker_ask(fd);
	if (failed)
		return fork_done(f, failed);
	f->state = FORK_ASKED;
	return FORK_NOTHING_NEW;
}

enum fork_news fork_stands(struct fork *f, int error)
{
	assert(f->state == FORK_STANDING);
	return error ? fork_done(f, error) : fork_next(f);
}

int fork_socket(const struct fork *f)
{
	return f->has_forker ? grant_fd(GRANT_FORK_KIT) : -1;
}

int fork_pipe(const struct fork *f)
{
	return f->state == FORK_COPYING ? f->kit[f->made][KIT_READY_HERE] : -1;
}

enum fork_news fork_hear(struct fork *f)
{
	pid_t who = forker_hear();

	if (who == -EAGAIN)
		return FORK_NOTHING_NEW;
	if (who < 0) {
		f->has_forker = false;
		return f->state == FORK_ASKED ? fork_done(f, -ECHILD) : FORK_NOTHING_NEW;
	}
	if (!f->forker) {
		f->forker = who;
		return FORK_NOTHING_NEW;
	}
	if (f->state != FORK_ASKED)
		return FORK_NOTHING_NEW;
	if (who == f->forker)
		return fork_done(f, -EAGAIN);
	f->child = who;
	f->state = FORK_COPYING;
	/* what only it holds from now on: its end closes the pipe */
	close(f->kit[f->made][KIT_READY]);
	f->kit[f->made][KIT_READY] = -1;
	return FORK_NOTHING_NEW;
}

enum fork_news fork_ready(struct fork *f)
{
	uint8_t byte;

	assert(f->state == FORK_COPYING);
	if (read(fork_pipe(f), &byte, 1) != 1)
		return fork_done(f, -ECHILD);
	kit_close(f->kit[f->made++]);
	return FORK_CHILD;
}

void fork_end(struct fork *f)
{
	if (f->state != FORK_IDLE)
		fork_done(f, 0);
	f->state = FORK_IDLE;
}
