/*
 * How long a peer waits for what only the machine or its disks can answer (machine_control.h,
 * control_look_at_time()). Both may be lost: whoever has waited for CONTROL_ANSWER_MS without a
 * word hears -ETIMEDOUT, and is to that question as one that is gone. The answer may come yet, so
 * that the next who asks the same waits for it, or is refused meanwhile, as ever.
 *
 *   - Who takes nothing of what he was said is waited for, and not the machine.
 *   - A save waits for memory that is still to come, for which there are limits elsewhere
 *     (cli/arrival.h).
 *   - Forks have theirs in the broker (process/broker_fork.h).
 */
#include <errno.h>

#include "machine_control_internal.h"

static bool has_lookers(const struct control *control)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (control->peer[n].fd >= 0 && control->peer[n].wants_registers)
			return true;
	return false;
}

static bool saver_waits(const struct control *control)
{
	const bool is_to_come = control->remote_bytes && *control->remote_bytes;

	return control->save == SAVE_RUNS && control->saver &&
	       !control_has_output(control->saver) && !is_to_come;
}

static bool is_awaited(const struct control *control, enum control_answer answer)
{
	switch (answer) {
	case ANSWER_ASK:
		return control->ask.runs && control->ask.peer &&
		       !control_has_output(control->ask.peer);
	case ANSWER_FREEZE: return control->freezes && control->freezer;
	case ANSWER_LOOK: return has_lookers(control);
	default: return saver_waits(control);
	}
}

static void fail(struct control_peer *peer, const char *id)
{
	control_say(peer, control_failure(id, -ETIMEDOUT, NULL));
}

static void leave_ask(struct control *control)
{
	struct control_ask *ask = &control->ask;

	fail(ask->peer, ask->id);
	if (control->copier == ask->peer)
		control->copier = NULL;
	ask->peer = NULL;
}

static void leave_freeze(struct control *control)
{
	fail(control->freezer, control->freeze_id);
	control_drop_freeze(control, control->freezer);
}

static void leave_save(struct control *control)
{
	fail(control->saver, control->saver->save_id);
	control->saver = NULL;
}

static void leave(struct control *control, enum control_answer answer)
{
	switch (answer) {
	case ANSWER_ASK: leave_ask(control); break;
	case ANSWER_FREEZE: leave_freeze(control); break;
	case ANSWER_LOOK: control_refuse_lookers(control, -ETIMEDOUT, NULL); break;
	default: leave_save(control); break;
	}
}

uint64_t control_look_at_time(struct control *control, uint64_t now_ms)
{
	uint64_t due_ms = 0;

	for (unsigned n = 0; n < CONTROL_ANSWERS; n++) {
		struct control_wait *wait = &control->wait[n];

		if (wait->until_ms && !wait->has_news && now_ms >= wait->until_ms &&
		    is_awaited(control, n))
			leave(control, n);
		if (!is_awaited(control, n))
			wait->until_ms = 0;
		else if (!wait->until_ms || wait->has_news)
			wait->until_ms = now_ms + control->answer_ms;
		wait->has_news = false;
		if (wait->until_ms && (!due_ms || wait->until_ms < due_ms))
			due_ms = wait->until_ms;
	}
	return due_ms;
}
