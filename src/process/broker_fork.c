/* See broker_fork.h. */
#include "broker_fork.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "lib/check.h"

void fork_init(struct fork *forking, struct control *control, bool has_forker, bool has_disks)
{
	memset(forking, 0, offsetof(struct fork, kit)); /* not touched before it is needed */
	forking->control = control;
	forking->has_forker = has_forker;
	forking->has_disks = has_disks;
}

void check_fork(const struct fork *forking)
{
	assert(forking->state >= FORK_IDLE && forking->state <= FORK_HELD);
	assert(forking->made <= forking->wanted && forking->wanted <= FORK_CHILDREN);
	if (fork_is_making(forking))
		assert(forking->made < forking->wanted);
	if (forking->state == FORK_COPYING)
		assert(forking->child > 0 && forking->kit[forking->made][KIT_READY] < 0);
	assert(forking->answered <= forking->asked && forking->unsettled <= forking->answered);
}

/* Its time begins when that is looked at. */
static void fork_move(struct fork *forking, enum fork_state state)
{
	forking->state = state;
	forking->until_ms = 0;
}

static void kit_close(int kit[KIT_MOST_FDS])
{
	for (unsigned n = 0; n < KIT_MOST_FDS; n++)
		if (kit[n] >= 0)
			close(kit[n]);
	memset(kit, -1, KIT_MOST_FDS * sizeof(*kit));
}

void fork_begin(struct fork *forking, const int *kits, unsigned count)
{
	assert(forking->state == FORK_IDLE && count <= FORK_CHILDREN);
	memset(forking->kit, -1, sizeof(forking->kit));
	for (unsigned n = 0; n < count; n++)
		memcpy(forking->kit[n], kits + n * forking->control->kit_fds,
		       forking->control->kit_fds * sizeof(*kits));
	forking->wanted = count;
	forking->made = 0;
	forking->child = 0;
	forking->asked = forking->answered = forking->unsettled = 0;
	forking->layer_error = forking->settle_error = forking->failed = 0;
	forking->settle_until_ms = 0;
	forking->settling_is_left = false;
	forking->is_told = false;
	fork_move(forking, FORK_STANDING);
	CHECK(check_fork(forking));
}

static void kits_close(struct fork *forking)
{
	for (unsigned n = forking->made; n < forking->wanted; n++)
		kit_close(forking->kit[n]);
	forking->wanted = forking->made;
}

/* Nothing more is forked; the machine stands, until it is told to go on. */
static enum fork_news fork_done(struct fork *forking, int error)
{
	kits_close(forking);
	fork_move(forking, FORK_HELD);
	forking->error = error ? error : forking->settle_error;
	CHECK(check_fork(forking));
	return FORK_DONE;
}

enum fork_news fork_not_taken(struct fork *forking)
{
	assert(forking->made);
	forking->made--; /* its kit is closed */
	return fork_done(forking, -EPIPE);
}

static bool has_layers(const struct fork *forking)
{
	return forking->answered == forking->asked;
}

/* The machine goes on once its disks do what they were asked for. */
static enum fork_news fork_fails(struct fork *forking, int error)
{
	if (has_layers(forking))
		return fork_done(forking, error);
	kits_close(forking);
	forking->failed = error;
	fork_move(forking, FORK_LAYERING);
	return FORK_NOTHING_NEW;
}

enum fork_news fork_next(struct fork *forking)
{
	const int *kit = forking->kit[forking->made];
	int fd[GRANTS];
	int failed;

	if (forking->made == forking->wanted && !has_layers(forking)) {
		fork_move(forking, FORK_LAYERING);
		return FORK_NOTHING_NEW;
	}
	if (forking->made == forking->wanted)
		return fork_done(forking, forking->layer_error);
	fork_kit_grants(kit, forking->cards, forking->ports, fd);
	failed = forking->has_forker && !forking->forker_is_silent
			 ? forker_ask(grant_fd(GRANT_FORK_ASK), grant_fd(GRANT_FORK_KIT), fd)
			 : -ESRCH;
	if (failed)
		return fork_fails(forking, failed);
	fork_move(forking, FORK_ASKED);
	return FORK_NOTHING_NEW;
}

/* ---- layers ---- */

static void layers_ask(struct fork *forking)
{
	struct control *control = forking->control;

	for (unsigned n = 0; n < control->layers; n++) {
		struct control_layer *layer = &control->layer[n];
		int error = forking->has_disks && !forking->layer_error
				    ? layer_ask(layer->disk, layer->path, layer->file)
				    : -ENODEV;

		close(layer->file);
		layer->file = -1;
		if (error && !forking->layer_error)
			forking->layer_error = error;
		forking->asked += !error;
	}
}

/* Nobody else is forked, and what the machine writes from here on is nobody's but its own. */
static enum fork_news last_one_copies(const struct fork *forking)
{
	const bool is_last = forking->made + 1 == forking->wanted;

	return forking->state == FORK_COPYING && is_last && has_layers(forking) &&
			       !forking->layer_error
		       ? FORK_COPIES
		       : FORK_NOTHING_NEW;
}

/* It needs nothing of its parent any more, which has all its layers on. */
static enum fork_news child_is_there(struct fork *forking)
{
	if (forking->layer_error) /* nobody hears of it: it ends with the asker's sockets */
		return fork_done(forking, forking->layer_error);
	kit_close(forking->kit[forking->made++]);
	return FORK_CHILD;
}

/* All that were asked for are on, or not: then there is no child, and a disk has one file more. */
static enum fork_news layers_answered(struct fork *forking)
{
	if (forking->state == FORK_LAYERING && has_layers(forking))
		return fork_done(forking, forking->failed ? forking->failed
							  : forking->layer_error);
	if (forking->state == FORK_READY && has_layers(forking))
		return child_is_there(forking);
	return last_one_copies(forking);
}

static enum fork_news layer_is_on(struct fork *forking, int error)
{
	if (has_layers(forking))
		return FORK_NOTHING_NEW;
	if (error) {
		forking->layer_error = error;
	} else {
		control_layer_is_on(forking->control, forking->answered);
		forking->unsettled++;
	}
	forking->answered++;
	CHECK(check_fork(forking));
	return layers_answered(forking);
}

static void layer_is_settled(struct fork *forking, int error)
{
	if (!forking->unsettled)
		return;
	forking->unsettled--;
	if (error)
		forking->settle_error = error;
	if (forking->unsettled)
		return;
	forking->settling_is_left = false;
	control_settled(forking->control, forking->settle_error);
}

enum fork_news fork_hear_layers(struct fork *forking, struct layer_answer *ret)
{
	int got = layer_hear(ret);

	if (got <= 0)
		ret->news = LAYER_NEWS;
	if (!got)
		return FORK_NOTHING_NEW;
	if (got > 0 && ret->news == LAYER_ON)
		return layer_is_on(forking, ret->error);
	if (got > 0) {
		if (ret->news == LAYER_SETTLED)
			layer_is_settled(forking, ret->error);
		return FORK_NOTHING_NEW;
	}
	/* its end ends the machine, too */
	forking->has_disks = false;
	if (forking->unsettled) {
		forking->unsettled = 1;
		layer_is_settled(forking, got);
	}
	if (has_layers(forking))
		return FORK_NOTHING_NEW;
	forking->answered = forking->asked;
	forking->layer_error = got;
	return layers_answered(forking);
}

void fork_hear_settled(struct fork *forking)
{
	struct layer_answer answer;

	while (forking->unsettled && layer_hear(&answer) > 0)
		if (answer.news == LAYER_SETTLED)
			layer_is_settled(forking, answer.error);
}

enum fork_news fork_stands(struct fork *forking, int error)
{
	enum fork_news news;

	assert(forking->state == FORK_STANDING || forking->state == FORK_LEFT);
	if (error || forking->state == FORK_LEFT)
		return fork_done(forking, error ? error : -ETIMEDOUT);
	if (!forking->wanted) {
		layers_ask(forking);
		return fork_next(forking);
	}
	/* the forker first: who is asked takes this processor, and the disks have less to do */
	news = fork_next(forking);
	if (forking->state == FORK_ASKED)
		layers_ask(forking);
	return news;
}

bool fork_is_making(const struct fork *forking)
{
	return forking->state == FORK_ASKED || forking->state == FORK_COPYING ||
	       forking->state == FORK_READY;
}

int fork_socket(const struct fork *forking)
{
	return forking->has_forker ? grant_fd(GRANT_FORK_KIT) : -1;
}

int fork_layers_socket(const struct fork *forking)
{
	return forking->has_disks ? grant_fd(GRANT_LAYERS) : -1;
}

int fork_pipe(const struct fork *forking)
{
	return forking->state == FORK_COPYING ? forking->kit[forking->made][KIT_READY_HERE] : -1;
}

enum fork_news fork_hear(struct fork *forking)
{
	pid_t who = forker_hear(grant_fd(GRANT_FORK_KIT));

	if (who == -EAGAIN)
		return FORK_NOTHING_NEW;
	if (who < 0) {
		forking->has_forker = false;
		return forking->state == FORK_ASKED ? fork_fails(forking, -ESRCH)
						    : FORK_NOTHING_NEW;
	}
	if (!forking->forker) {
		forking->forker = who;
		return FORK_NOTHING_NEW;
	}
	if (forking->state != FORK_ASKED)
		return FORK_NOTHING_NEW;
	if (who == forking->forker)
		return fork_fails(forking, -EAGAIN);
	forking->child = who;
	fork_move(forking, FORK_COPYING);
	/* what only it holds from now on: its end closes the pipe */
	close(forking->kit[forking->made][KIT_READY]);
	forking->kit[forking->made][KIT_READY] = -1;
	CHECK(check_fork(forking));
	return last_one_copies(forking);
}

enum fork_news fork_ready(struct fork *forking)
{
	uint8_t byte;

	assert(forking->state == FORK_COPYING);
	if (read(fork_pipe(forking), &byte, 1) != 1)
		return fork_fails(forking, -ECHILD);
	fork_move(forking, FORK_READY);
	return has_layers(forking) ? child_is_there(forking) : FORK_NOTHING_NEW;
}

/* How long this state may last; 0: it is waited for nobody, or they were given up already. */
static unsigned most_ms(const struct fork *forking)
{
	switch (forking->state) {
	case FORK_STANDING:
	case FORK_ASKED:
	case FORK_COPYING: return forking->step_ms;
	case FORK_LAYERING:
	case FORK_READY:
		return forking->is_told ? 0 : FORK_LAYERS_STEPS * forking->step_ms;
	default: return 0;
	}
}

static bool is_memory_to_come(const struct fork *forking)
{
	const _Atomic uint64_t *left = forking->control->remote_bytes;

	return left && *left;
}

/* Whoever asked need not wait for what comes of it, which is nothing. */
static void leave(struct fork *forking, enum fork_state state, int error)
{
	kits_close(forking);
	fork_move(forking, state);
	forking->is_told = true;
	control_fork_is_left(forking->control, error, forking->asked);
}

static enum fork_news time_is_over(struct fork *forking)
{
	switch (forking->state) {
	case FORK_STANDING:
		if (is_memory_to_come(forking))
			forking->until_ms = 0;
		else
			leave(forking, FORK_LEFT, -ETIMEDOUT);
		return FORK_NOTHING_NEW;
	case FORK_ASKED:
		forking->forker_is_silent = true;
		return fork_fails(forking, -ESRCH);
	case FORK_COPYING: return fork_fails(forking, -ETIMEDOUT);
	default:
		if (!forking->failed)
			forking->failed = -ETIME;
		leave(forking, FORK_LAYERING, -ETIME);
		return FORK_NOTHING_NEW;
	}
}

/* Of a save it is broker_save_turn()'s to say so; before a fork is over it has other limits. */
static void leave_settling(struct fork *forking)
{
	forking->settling_is_left = true;
	forking->settle_error = -EINPROGRESS;
	if (forking->control->save != SAVE_LAYERS)
		control_leave_settling(forking->control, forking->settle_error);
}

static void look_at_settling(struct fork *forking, uint64_t now_ms)
{
	const bool is_over = forking->state == FORK_IDLE || forking->state == FORK_HELD;

	if (!forking->unsettled || !is_over || forking->settling_is_left || !forking->step_ms)
		forking->settle_until_ms = 0;
	else if (!forking->settle_until_ms)
		forking->settle_until_ms = now_ms + FORK_SETTLE_STEPS * forking->step_ms;
	else if (now_ms >= forking->settle_until_ms)
		leave_settling(forking);
}

enum fork_news fork_look_at_time(struct fork *forking, uint64_t now_ms)
{
	look_at_settling(forking, now_ms);
	if (!most_ms(forking))
		return FORK_NOTHING_NEW;
	if (!forking->until_ms)
		forking->until_ms = now_ms + most_ms(forking);
	return now_ms < forking->until_ms ? FORK_NOTHING_NEW : time_is_over(forking);
}

void fork_end(struct fork *forking)
{
	if (forking->state != FORK_IDLE)
		fork_done(forking, 0);
	forking->state = FORK_IDLE;
}
