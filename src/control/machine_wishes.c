/*
 * Forks that a machine's guest has asked for: one at a time, by whoever may have the machine forked
 * for it (verb "forks", cli/fork_door.h).
 *
 *   machine: wants it   ->  WISHED -- "fork" with "asked" --> BEGUN ---> OVER -- "forked" --> NONE
 *   machine: no longer  ->    |  answered: -ECANCELED   (too late: what comes of it is answered)
 *   who may is gone     ->    +- answered: -EIO                            +- answered: what it is
 *
 *   - Each wish is answered once. One that was not wanted any more before it had begun does not
 *     begin: a fork of another number is refused.
 *   - What has begun goes on without who may: its guest hears of a child that there is.
 *   - Without somebody who may, it is answered at once, with -EPERM; in a child whose door is on
 *     its way (control.door_comes) it waits for that, until the broker says that it is late.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "machine_control_internal.h"

/* The machine is to be told. */
static enum control_wish answer(struct control *control, int error, uint32_t child)
{
	control->guest_fork.state = GUEST_FORK_NONE;
	control->guest_fork.ended = (struct record_fork_ended){ .error = error, .child = child };
	return WISH_FORK_ENDED;
}

/* Without somebody who says what came of it. */
static void answer_made(struct control *control, bool is_made)
{
	answer(control, is_made ? 0 : -EIO, is_made ? control->guest_fork.child : 0);
}

static void tell_door(struct control *control, const char *what, uint64_t number)
{
	struct control_peer *door = control->guest_fork.door;
	char *line = NULL;

	if (asprintf(&line, "{\"id\":%s,\"%s\":%llu}\n", control->guest_fork.id, what,
		     (unsigned long long)number) > 0)
		control_say(door, line);
}

bool control_guest_forks(struct control *control, bool is_wanted, enum control_wish *ret)
{
	struct control_guest_fork *wish = &control->guest_fork;

	*ret = WISH_NOTHING;
	if (is_wanted && wish->state != GUEST_FORK_NONE)
		return false;
	if (is_wanted && !wish->door && !control->door_comes) {
		*ret = answer(control, -EPERM, 0);
	} else if (is_wanted) {
		wish->state = GUEST_FORK_WISHED;
		wish->number++;
		if (wish->door)
			tell_door(control, "wanted", wish->number);
	} else if (wish->state == GUEST_FORK_WISHED) {
		if (wish->door)
			tell_door(control, "unwanted", wish->number);
		*ret = answer(control, -ECANCELED, 0);
	}
	return true;
}

int control_take_door(struct control *control, struct control_peer *peer,
		      const struct control_request *request)
{
	const bool waits = control->door_comes && control->guest_fork.state == GUEST_FORK_WISHED;

	if (control->guest_fork.door || (control->guest_fork.state != GUEST_FORK_NONE && !waits))
		return -EBUSY;
	control->guest_fork.door = peer;
	control->door_comes = false;
	memcpy(control->guest_fork.id, request->id, sizeof(control->guest_fork.id));
	if (waits)
		tell_door(control, "wanted", control->guest_fork.number);
	return 0;
}

enum control_wish control_door_is_late(struct control *control)
{
	const struct control_guest_fork *wish = &control->guest_fork;

	if (!control->door_comes)
		return WISH_NOTHING;
	control->door_comes = false;
	return wish->state == GUEST_FORK_WISHED ? answer(control, -EPERM, 0) : WISH_NOTHING;
}

bool control_drop_door(struct control *control, const struct control_peer *peer)
{
	struct control_guest_fork *wish = &control->guest_fork;

	if (wish->door != peer)
		return false;
	wish->door = NULL;
	if (wish->state == GUEST_FORK_NONE || wish->state == GUEST_FORK_BEGUN)
		return false;
	answer_made(control, wish->state == GUEST_FORK_OVER && wish->is_made);
	return true;
}

int control_begin_wish(struct control *control, uint64_t number, uint64_t child)
{
	struct control_guest_fork *wish = &control->guest_fork;

	if (wish->state != GUEST_FORK_WISHED || wish->number != number)
		return -ECANCELED;
	if (!child || child > UINT32_MAX) /* 0 is what a child is told */
		return -EINVAL;
	wish->state = GUEST_FORK_BEGUN;
	wish->child = (uint32_t)child;
	return 0;
}

void control_wish_is_over(struct control *control, bool is_made)
{
	struct control_guest_fork *wish = &control->guest_fork;

	if (wish->state != GUEST_FORK_BEGUN)
		return;
	wish->state = GUEST_FORK_OVER;
	wish->is_made = is_made;
	if (wish->door)
		return;
	answer_made(control, is_made);
	control->fork_end_is_due = true;
}

enum control_wish control_end_wish(struct control *control, struct control_peer *peer,
				   const struct control_request *request)
{
	struct control_guest_fork *wish = &control->guest_fork;
	const uint64_t number = control_number(request, "number");
	const uint64_t error = control_number(request, "errno");
	const uint64_t child = control_number(request, "child");
	int refused = 0;

	if (wish->door != peer || error > CONTROL_ERRNO_MAX || child > UINT32_MAX ||
	    !error == !child) /* 0 is what a child is told */
		refused = -EINVAL;
	else if (wish->state == GUEST_FORK_NONE || wish->number != number)
		refused = -ECANCELED;
	if (refused) {
		control_say(peer, control_failure(request->id, refused, NULL));
		return WISH_NOTHING;
	}
	control_say(peer, control_success(request->id, NULL));
	return answer(control, -(int)error, (uint32_t)child);
}
