/* See machine_control_internal.h. What stands still for a save is machine_control.c's. */
#include "machine_control_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- what a connection has brought ---- */

void control_drop_kits(struct control_peer *peer)
{
	while (peer->kit_fds)
		close(peer->room->kits[--peer->kit_fds]);
	peer->has_lost = false;
}

bool control_has_lost(struct control_peer *peer)
{
	if (!peer->has_lost)
		return false;
	control_drop_kits(peer);
	return true;
}

/* Those whose files the disk process has are closed already. */
void control_close_layers(struct control *control)
{
	while (control->layers)
		if (control->layer[--control->layers].file >= 0)
			close(control->layer[control->layers].file);
	control->layers_of = NULL;
}

void control_drop_layers(struct control *control, const struct control_peer *peer)
{
	if (control->layers_of != peer)
		return;
	if (control->save == SAVE_LAYERS)
		control->layers_of = NULL; /* its disks go on in them all the same */
	else
		control_close_layers(control);
}

/* What the machine was not told yet it is not told any more. */
void control_drop_fork(struct control *control, const struct control_peer *peer)
{
	if (control->forker != peer)
		return;
	control->forker = NULL;
	if (!control->fork_waits)
		return;
	control->fork_waits = control->forks = false;
	control_wish_is_over(control, false);
}

/* ---- a machine that stands still ---- */

void control_end_suspension(struct control *control)
{
	control->suspended = false;
	control->holder = NULL;
	control->forks = control->unsettled;
	control_tell_watchers(control);
}

/* Who holds it is gone. When it does not stand still yet, it goes on as it was. */
bool control_drop_holder(struct control *control, const struct control_peer *peer)
{
	if (control->holder != peer)
		return false;
	control->holder = NULL;
	control->after_fork = WISH_RESUME;
	if (!control->suspended)
		return false;
	control_end_suspension(control);
	return true;
}

/* ---- forks ---- */

static bool parse_parent(const char *word, enum control_wish *ret)
{
	if (!word || !strcmp(word, "keep"))
		*ret = WISH_RESUME;
	else if (!strcmp(word, "suspend") || !strcmp(word, "hold"))
		*ret = WISH_NOTHING;
	else if (!strcmp(word, "end"))
		*ret = WISH_KILL;
	else
		return false;
	return true;
}

/* The file has come last. */
int control_take_layer(struct control *control, struct control_peer *peer,
		       const struct control_request *request)
{
	const char *path = control_text(request, "file");
	struct control_layer *layer = &control->layer[control->layers];
	size_t bytes = strlen(path) + 1;

	if (control->forks || control->save == SAVE_LAYERS ||
	    (control->layers_of && control->layers_of != peer))
		return -EBUSY;
	if (!peer->kit_fds || control->layers == CONTROL_LAYERS || bytes > sizeof(layer->path) ||
	    control_number(request, "disk") >= CONTROL_LAYERS)
		return -EINVAL;
	layer->disk = (uint32_t)control_number(request, "disk");
	layer->file = peer->room->kits[--peer->kit_fds];
	memcpy(layer->path, path, bytes);
	control->layers_of = peer;
	control->layers++;
	return 0;
}

void control_layer_is_on(struct control *control, unsigned n)
{
	const struct control_layer *layer = &control->layer[n];
	json_t *disk = json_array_get(json_object_get(control->description, "disks"), layer->disk);

	if (!json_is_object(disk))
		return;
	json_object_set_new(disk, "file", json_string(layer->path));
}

/* Who asks knows that a child has them as well. */
static bool may_copy_secrets(const struct control *control, const struct control_request *request)
{
	const char *word = control_text(request, "secrets");

	return !json_is_true(json_object_get(control->description, "secrets")) ||
	       (word && !strcmp(word, "copied"));
}

enum control_wish control_begin_fork(struct control *control, struct control_peer *peer,
				     const struct control_request *request)
{
	const char *word;
	int error = 0;

	if (!control->can_fork)
		error = -EOPNOTSUPP;
	else if (control_has_lost(peer))
		error = -EMFILE;
	else if (peer->kit_fds && !may_copy_secrets(control, request))
		error = -EPERM;
	else if (control->save || control->forks || control->freezes || control->ask.runs ||
		 (control->layers_of && control->layers_of != peer))
		error = -EBUSY; /* an answer that is to come is not the child's to give */
	else if (!parse_parent(control_text(request, "parent"), &control->after_fork) ||
		 (!peer->kit_fds && !control->layers) || peer->kit_fds % control->kit_fds)
		error = -EINVAL;
	if (!error && control_number(request, "asked"))
		error = control_begin_wish(control, control_number(request, "asked"),
					   control_number(request, "number"));
	if (error) {
		control_drop_kits(peer);
		control_drop_layers(control, peer);
		control_say(peer, control_failure(request->id, error, NULL));
		return WISH_NOTHING;
	}
	word = control_text(request, "parent");
	control->holder = word && !strcmp(word, "hold") ? peer : NULL;
	control->forks = control->fork_waits = true;
	control->forker = peer;
	memcpy(peer->save_id, request->id, sizeof(peer->save_id));
	return WISH_FORK;
}

/* A fork without children that leaves the machine standing. */
enum control_wish control_begin_pause(struct control *control, struct control_peer *peer,
				      const struct control_request *request)
{
	int error = 0;

	if (!control->can_stand)
		error = -EOPNOTSUPP;
	else if (control->save || control->forks || control->ask.runs || peer->kit_fds ||
		 control->layers_of)
		error = -EBUSY;
	if (error) {
		control_say(peer, control_failure(request->id, error, NULL));
		return WISH_NOTHING;
	}
	control->after_fork = WISH_NOTHING;
	control->forks = control->fork_waits = true;
	control->forker = peer;
	memcpy(peer->save_id, request->id, sizeof(peer->save_id));
	return WISH_FORK;
}

unsigned control_take_kits(struct control *control, int kits[FORK_CHILDREN * KIT_MOST_FDS])
{
	struct control_peer *peer = control->forker;
	unsigned count;

	assert(control->fork_waits && peer);
	count = peer->kit_fds / control->kit_fds;
	control->fork_waits = false;
	memcpy(kits, peer->room->kits, peer->kit_fds * sizeof(*kits));
	peer->kit_fds = 0;
	return count;
}

bool control_forked(struct control *control, unsigned child, int pid, int pidfd)
{
	char line[CONTROL_HEAD_BYTES + 64];
	int bytes;

	if (!control->forker || control_has_output(control->forker))
		return false;
	bytes = snprintf(line, sizeof(line), "{\"id\":%s,\"child\":%u,\"pid\":%d}\n",
			 control->forker->save_id, child, pid);
	return control_send_with(control->forker, line, (size_t)bytes, &pidfd, 1);
}

static void answer_fork(struct control *control, int error)
{
	control->forks = control->suspended;
	if (!control->forker)
		return;
	control_say(control->forker, error ? control_failure(control->forker->save_id, error, NULL)
				  : control_success(control->forker->save_id,
						    json_pack("{s:i}", "children",
							      (int)control->fork_children)));
	control->forker = NULL;
}

enum control_wish control_fork_ended(struct control *control, int error, unsigned children,
				     bool is_settled)
{
	enum control_wish then = error && !children ? WISH_RESUME : control->after_fork;

	control->suspended = then == WISH_NOTHING;
	control->is_left = false;
	if (control->suspended)
		control_tell_watchers(control);
	control->fork_error = error;
	control->fork_children = children;
	control->unsettled = !is_settled;
	control_close_layers(control);
	control_wish_is_over(control, children != 0);
	if (is_settled)
		answer_fork(control, error);
	return then;
}

void control_fork_is_left(struct control *control, int error, bool layers_are_asked)
{
	const bool is_save = control->save == SAVE_LAYERS;
	struct control_peer *peer = is_save ? control->saver : control->forker;

	control->saver = is_save ? NULL : control->saver;
	control->forker = control->holder = NULL;
	control->after_fork = WISH_RESUME;
	control->is_left = true;
	control_refuse_lookers(control, -EBUSY, NULL);
	if (!layers_are_asked)
		control_close_layers(control);
	if (peer)
		control_say(peer, control_failure(peer->save_id, error, NULL));
}

void control_leave_settling(struct control *control, int error)
{
	struct control_peer *peer = control->forker;

	control->unsettled = control->forks = true;
	control->forker = NULL;
	if (peer)
		control_say(peer, control_failure(peer->save_id, error, NULL));
}

void control_settled(struct control *control, int error)
{
	if (!control->unsettled)
		return;
	control->unsettled = false;
	answer_fork(control, control->fork_error ? control->fork_error : error);
}
