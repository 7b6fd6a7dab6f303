/*
 * What the broker does when something becomes of a fork, or of disks that get layers: the states
 * are broker_fork.h's, what is heard goes to them, and their news to who asked.
 */
#include "broker_internal.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void fork_news(struct broker *b, enum fork_news news);

/* Nobody else can kill it any more: it is ended when nobody takes it. */
static void give_child(struct broker *b)
{
	int pidfd = (int)syscall(SYS_pidfd_open, b->fork.child, 0);

	if (pidfd >= 0 &&
	    control_forked(&b->control, b->fork.made - 1, b->fork.child, pidfd)) {
		close(pidfd);
		fork_news(b, fork_next(&b->fork));
		return;
	}
	close(pidfd);
	/* its sockets were the asker's, who is gone, and its forker ends it */
	fork_news(b, fork_not_taken(&b->fork));
}

static void fork_news(struct broker *b, enum fork_news news)
{
	enum control_wish then;

	if (news == FORK_CHILD)
		give_child(b);
	if (news == FORK_COPIES && b->control.after_fork == WISH_RESUME)
		broker_say(b, SAY_GO_ON);
	if (news != FORK_DONE || b->control.save == SAVE_LAYERS)
		return;
	then = control_fork_ended(&b->control, b->fork.error, b->fork.made, !b->fork.unsettled);
	if (then != WISH_NOTHING)
		broker_grant(b, then);
	if (b->control.fork_end_is_due)
		broker_grant(b, WISH_FORK_ENDED);
	b->control.fork_end_is_due = false;
}

/* It stands still already, and is not forked: what it has written until now stays beneath. */
void broker_begin_layers_of_save(struct broker *b)
{
	fork_begin(&b->fork, NULL, 0);
	fork_news(b, fork_stands(&b->fork, 0));
}

/* A save is over once what is beneath is for good: only then its disks are what the file says. */
void broker_save_turn(struct broker *b)
{
	const bool is_settling = b->fork.unsettled;

	if (b->control.save != SAVE_LAYERS || b->fork.state != FORK_HELD ||
	    (is_settling && !b->fork.settling_is_left))
		return;
	broker_grant(b, control_save_layered(&b->control, b->fork.settle_error
								  ? b->fork.settle_error
								  : b->fork.error));
	if (is_settling)
		control_leave_settling(&b->control, b->fork.settle_error);
	fork_end(&b->fork);
}

bool broker_take_fork_ready(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	int32_t told;

	if (bytes != sizeof(told) ||
	    (b->fork.state != FORK_STANDING && b->fork.state != FORK_LEFT))
		return false;
	memcpy(&told, data, sizeof(told));
	if (told > 0 || told < -CONTROL_ERRNO_MAX)
		return false;
	fork_news(b, fork_stands(&b->fork, told));
	return true;
}

bool broker_take_want_fork(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	enum control_wish wish;
	uint32_t wanted;

	if (bytes != sizeof(wanted))
		return false;
	memcpy(&wanted, data, sizeof(wanted));
	/* another one comes after the answer to the last; that it is not wanted may cross that */
	if (wanted > 1 || (wanted && b->unsaid & 1u << SAY_FORK_ENDED) ||
	    !control_guest_forks(&b->control, wanted, &wish))
		return false;
	broker_grant(b, wish);
	return true;
}

/*
 * A machine that is not this process's child is ended by its forker when this process is gone:
 * without one it would not be, and only who spoils his own memory loses it.
 */
static void fork_heard(struct broker *b)
{
	fork_news(b, fork_hear(&b->fork));
	if (b->adopted && !b->fork.has_forker)
		broker_kill(b, BROKER_RUBBISH);
}

/* Who was being made is there, or is none: what nobody has waited for meanwhile. */
static void take_ends_after(struct broker *b, bool was_making)
{
	if (was_making && !fork_is_making(&b->fork))
		broker_take_ends(b);
}

void broker_fork_turn(struct broker *b, bool socket, bool pipe)
{
	const bool was_making = fork_is_making(&b->fork);

	if (socket)
		fork_heard(b);
	if (pipe && fork_pipe(&b->fork) >= 0)
		fork_news(b, fork_ready(&b->fork));
	take_ends_after(b, was_making);
}

void broker_fork_look_at_time(struct broker *b, uint64_t now_ms)
{
	const bool was_making = fork_is_making(&b->fork);

	fork_news(b, fork_look_at_time(&b->fork, now_ms));
	take_ends_after(b, was_making);
	broker_save_turn(b);
}

void broker_layers_heard(struct broker *b)
{
	const bool was_making = fork_is_making(&b->fork);
	struct layer_answer answer;

	fork_news(b, fork_hear_layers(&b->fork, &answer));
	take_ends_after(b, was_making);
	if (answer.news == LAYER_CHANGED && disk_work_heard(&b->disks, &answer))
		broker_say(b, SAY_ASK);
}
