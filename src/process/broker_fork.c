/* See broker_fork.h. */
#include "broker_fork.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

void fork_init(struct fork *f, struct control *control, bool has_forker, bool has_disks)
{
	*f = (struct fork){ .control = control,
			    .has_forker = has_forker,
			    .has_disks = has_disks };
}

static void kit_close(int kit[KIT_MOST_FDS])
{
	for (unsigned n = 0; n < KIT_MOST_FDS; n++)
		if (kit[n] >= 0)
			close(kit[n]);
	memset(kit, -1, KIT_MOST_FDS * sizeof(*kit));
}

void fork_begin(struct fork *f, const int *kits, unsigned count)
{
	assert(f->state == FORK_IDLE && count && count <= FORK_CHILDREN);
	memset(f->kit, -1, sizeof(f->kit));
	for (unsigned n = 0; n < count; n++)
		memcpy(f->kit[n], kits + n * f->control->kit_fds,
		       f->control->kit_fds * sizeof(*kits));
	f->wanted = count;
	f->made = 0;
	f->child = 0;
	f->asked = f->answered = f->unsettled = 0;
	f->layer_error = f->settle_error = 0;
	f->state = FORK_STANDING;
}

/* Nothing more is forked; the machine stands, until it is told to go on. */
static enum fork_news fork_done(struct fork *f, int error)
{
	for (unsigned n = f->made; n < f->wanted; n++)
		kit_close(f->kit[n]);
	f->wanted = f->made;
	f->state = FORK_HELD;
	f->error = error ? error : f->settle_error;
	return FORK_DONE;
}

enum fork_news fork_not_taken(struct fork *f)
{
	assert(f->made);
	f->made--; /* its kit is closed */
	return fork_done(f, -EPIPE);
}

/* Its devices', of which a machine closes those that it has not. */
static void give_devices(const int kit[KIT_MOST_FDS], int fd[GRANTS])
{
	fd[GRANT_SLOTS] = kit[KIT_SLOTS];
	fd[GRANT_DOORBELL] = kit[KIT_DOORBELL];
	fd[GRANT_ANSWER] = kit[KIT_ANSWER];
	fd[GRANT_CONNECTIONS] = kit[KIT_CONNECTIONS];
	fd[GRANT_CONNECTION_BELL] = kit[KIT_CONNECTION_BELL];
	for (unsigned n = 0; n < NET_CARDS; n++) {
		const int *card = kit + KIT_FDS + n * KIT_CARD_FDS;

		fd[GRANT_CARDS + n] = card[KIT_CARD];
		fd[GRANT_CARD_BELLS + n] = card[KIT_CARD_BELL];
		fd[GRANT_CARD_ANSWERS + n] = card[KIT_CARD_ANSWER];
	}
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
	give_devices(kit, fd);
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

/* ---- layers ---- */

static void layers_ask(struct fork *f)
{
	struct control *c = f->control;

	f->state = FORK_LAYERING;
	for (unsigned n = 0; n < c->layers; n++) {
		struct control_layer *layer = &c->layer[n];
		int error = f->has_disks && !f->layer_error
				    ? layer_ask(layer->disk, layer->path, layer->file)
				    : -ENODEV;

		close(layer->file);
		layer->file = -1;
		if (error && !f->layer_error)
			f->layer_error = error;
		f->asked += !error;
	}
}

/* All that were asked for are on, or not: then there is no child, and a disk has one file more. */
static enum fork_news layers_answered(struct fork *f)
{
	if (f->answered < f->asked)
		return FORK_NOTHING_NEW;
	return f->layer_error ? fork_done(f, f->layer_error) : fork_next(f);
}

static enum fork_news layer_is_on(struct fork *f, int error)
{
	if (f->state != FORK_LAYERING || f->answered == f->asked)
		return FORK_NOTHING_NEW;
	if (error) {
		f->layer_error = error;
	} else {
		control_layer_is_on(f->control, f->answered);
		f->unsettled++;
	}
	f->answered++;
	return layers_answered(f);
}

static void layer_is_settled(struct fork *f, int error)
{
	if (!f->unsettled)
		return;
	f->unsettled--;
	if (error)
		f->settle_error = error;
	if (!f->unsettled)
		control_settled(f->control, f->settle_error);
}

enum fork_news fork_hear_layers(struct fork *f)
{
	struct layer_answer answer;
	int got = layer_hear(&answer);

	if (!got)
		return FORK_NOTHING_NEW;
	if (got > 0 && answer.news == LAYER_ON)
		return layer_is_on(f, answer.error);
	if (got > 0) {
		layer_is_settled(f, answer.error);
		return FORK_NOTHING_NEW;
	}
	/* its end ends the machine, too */
	f->has_disks = false;
	if (f->unsettled) {
		f->unsettled = 1;
		layer_is_settled(f, got);
	}
	return f->state == FORK_LAYERING ? fork_done(f, got) : FORK_NOTHING_NEW;
}

void fork_hear_settled(struct fork *f)
{
	struct layer_answer answer;

	while (f->unsettled && layer_hear(&answer) > 0)
		if (answer.news == LAYER_SETTLED)
			layer_is_settled(f, answer.error);
}

enum fork_news fork_stands(struct fork *f, int error)
{
	assert(f->state == FORK_STANDING);
	if (error)
		return fork_done(f, error);
	layers_ask(f);
	return layers_answered(f);
}

int fork_socket(const struct fork *f)
{
	return f->has_forker ? grant_fd(GRANT_FORK_KIT) : -1;
}

int fork_layers_socket(const struct fork *f)
{
	return f->has_disks ? grant_fd(GRANT_LAYERS) : -1;
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
