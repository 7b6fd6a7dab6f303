/*
 * Forks that a machine's guest has asked for: one at a time, by whoever may have the machine forked
 * for it (verb "forks", cli/fork_door.h).
 *
 *   machine: wants it   ->  WISHED ------ "fork" with "asked" -----> BEGUN ---- "forked" ---> NONE
 *   machine: no longer  ->    |  answered: -ECANCELED    (too late: what comes of it is answered)
 *   who may is gone     ->    +- answered: -EIO  <-----------------------+
 *
 *   - Each wish is answered once. One that was not wanted any more before it had begun does not
 *     begin: a fork of another number is refused.
 *   - Without somebody who may, it is answered at once, with -EPERM.
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
	if (is_wanted && !wish->door) {
		*ret = answer(control, -EPERM, 0);
	} else if (is_wanted) {
		wish->state = GUEST_FORK_WISHED;
		tell_door(control, "wanted", ++wish->number);
	} else if (wish->state == GUEST_FORK_WISHED) {
		tell_door(control, "unwanted", wish->number);
		*ret = answer(control, -ECANCELED, 0);
	}
	return true;
}

int control_take_door(struct control *control, struct control_peer *peer,
		      const struct control_request *request)
{
	if (control->guest_fork.door)
		return -EBUSY;
	control->guest_fork.door = peer;
	memcpy(control->guest_fork.id, request->id, sizeof(control->guest_fork.id));
	return 0;
}

bool control_drop_door(struct control *control, const struct control_peer *peer)
{
	struct control_guest_fork *wish = &control->guest_fork;

	if (wish->door != peer)
		return false;
	wish->door = NULL;
	if (wish->state == GUEST_FORK_NONE)
		return false;
	answer(control, -EIO, 0);
	return true;
}

int control_begin_wish(struct control *control, uint64_t number)
{
	struct control_guest_fork *wish = &control->guest_fork;

	if (wish->state != GUEST_FORK_WISHED || wish->number != number)
		return -ECANCELED;
	wish->state = GUEST_FORK_BEGUN;
	return 0;
}

enum control_wish control_end_wish(struct control *control, struct control_peer *peer,
				   const struct control_request *request)
{
	struct control_guest_fork *wish = &control->guest_fork;
	const uint64_t number = control_number(request, "number");
	const uint64_t error = control_number(request, "errno");
	const uint64_t child = control_number(request, "child");
	int refused = 0;

	if (wish->door != peer || error > CONTROL_ERRNO_MAX || child > UINT32_MAX)
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
