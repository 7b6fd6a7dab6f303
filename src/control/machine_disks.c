/*
 * What a control socket says of disks that come, go and grow (struct control_chain and struct
 * control_change in machine_control.h): the files that a peer brings, the place of a disk, and what
 * the machine's description says of it afterwards. Who does it is the broker
 * (process/broker_disks.h).
 */
#include "machine_control_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

void control_chain_close(struct control *control)
{
	struct control_chain *chain = &control->chain;

	for (unsigned n = 0; n < chain->count; n++)
		for (unsigned k = 0; k < chain->file[n].fds; k++)
			close(chain->file[n].fd[k]);
	chain->count = 0;
	chain->of = NULL;
}

/* The file, and what lies beside it, have come last. */
int control_take_chain(struct control *control, struct control_peer *peer,
		      const struct control_request *request)
{
	const char *path = control_text(request, "file");
	struct control_chain *chain = &control->chain;
	struct control_file *file = &chain->file[chain->count];
	const char *format = control_text(request, "format");
	const unsigned fds = control_number(request, "side") ? 2 : 1;

	if (chain->of && chain->of != peer)
		return -EBUSY;
	if (peer->kit_fds < fds || chain->count == CONTROL_LAYERS ||
	    strlen(path) >= sizeof(file->path) || strlen(format) >= sizeof(file->format))
		return -EINVAL;
	peer->kit_fds -= fds;
	memcpy(file->fd, peer->room->kits + peer->kit_fds, fds * sizeof(int));
	file->fds = fds;
	strcpy(file->format, format);
	strcpy(file->path, path);
	chain->of = peer;
	chain->count++;
	return 0;
}

static json_t *disks_of(const struct control *control)
{
	return json_object_get(control->description, "disks");
}

static bool is_drive(const json_t *about) { return json_is_true(json_object_get(about, "dvd")); }
static bool has_file(const json_t *about) { return json_object_get(about, "file"); }

/* A disc goes into the first drive without one, all else where nothing is. -ENOSPC. */
static int find_place(const struct control *control, bool is_disc)
{
	const json_t *disks = disks_of(control);
	size_t n;

	for (n = 0; is_disc && n < json_array_size(disks); n++)
		if (is_drive(json_array_get(disks, n)) && !has_file(json_array_get(disks, n)))
			return (int)n;
	for (n = 0; n < json_array_size(disks); n++)
		if (json_is_null(json_array_get(disks, n)))
			return (int)n;
	return n < control->disk_places ? (int)n : -ENOSPC;
}

/* What info says of it. */
static json_t *describe_coming(const struct control_chain *chain,
			       const struct control_change *change)
{
	const struct control_file *file = chain->count ? &chain->file[chain->count - 1] : NULL;
	json_t *about = json_pack("{s:s, s:b, s:b}", "format", file ? file->format : "raw",
				  "read-only", change->read_only, "direct", false);

	if (change->is_dvd)
		json_object_set_new(about, "dvd", json_true());
	if (file) {
		json_object_set_new(about, "file", json_string(file->path));
		json_object_set_new(about, "stem", json_string(file->path));
	}
	return about;
}

static int plan_coming(struct control *control, const struct control_peer *peer,
		       const struct control_request *request)
{
	struct control_change *change = &control->change;
	int number;

	change->is_dvd = control_number(request, "dvd");
	change->read_only = change->is_dvd || control_number(request, "readonly");
	if (control->chain.of && control->chain.of != peer)
		return -EBUSY;
	if (!control->chain.count && !change->is_dvd)
		return -EINVAL;
	number = find_place(control, change->is_dvd && control->chain.count);
	if (number < 0)
		return number;
	change->record.what = DISK_COMES;
	change->record.number = (uint32_t)number;
	change->about = describe_coming(&control->chain, change);
	return 0;
}

/* Of a drive with a disc the drive stays. */
static int plan_going(struct control *control, const struct control_request *request)
{
	struct control_change *change = &control->change;
	const json_t *about = json_array_get(disks_of(control), control_number(request, "disk"));

	if (!json_is_object(about))
		return -ENODEV;
	change->record.what = DISK_GOES;
	change->record.number = (uint32_t)control_number(request, "disk");
	if (!is_drive(about) || !has_file(about))
		return 0;
	change->about = json_copy((json_t *)(uintptr_t)about);
	json_object_del(change->about, "file");
	json_object_del(change->about, "stem");
	return 0;
}

static int plan_growing(struct control *control, const struct control_request *request)
{
	struct control_change *change = &control->change;
	json_t *about = json_array_get(disks_of(control), control_number(request, "disk"));

	if (!has_file(about))
		return -ENODEV;
	change->record.what = DISK_GROWS;
	change->record.number = (uint32_t)control_number(request, "disk");
	change->size_bytes = control_number(request, "size");
	change->about = json_incref(about);
	return 0;
}

static int plan_change(struct control *control, const struct control_peer *peer,
		       const struct control_request *request, enum control_wish wish)
{
	if (!control->disk_places || !disks_of(control))
		return -EOPNOTSUPP;
	if (control->ask.runs || control->forks || control->save || control->freezes)
		return -EBUSY;
	control->change = (struct control_change){ .about = NULL };
	if (wish == WISH_ATTACH)
		return plan_coming(control, peer, request);
	return wish == WISH_DETACH ? plan_going(control, request) : plan_growing(control, request);
}

enum control_wish control_begin_change(struct control *control, struct control_peer *peer,
				      const struct control_request *request,
				      enum control_wish wish)
{
	struct control_ask *ask = &control->ask;
	int error = plan_change(control, peer, request, wish);

	if (error) {
		if (control->chain.of == peer)
			control_chain_close(control);
		control_say(peer, control_failure(request->id, error, NULL));
		return WISH_NOTHING;
	}
	control->wait[ANSWER_ASK].has_news = true;
	ask->runs = true;
	ask->peer = peer;
	ask->kind = RECORD_DISK;
	memcpy(ask->id, request->id, sizeof(ask->id));
	control->chain.of = NULL; /* it goes on also when the peer is gone */
	return WISH_DISK;
}

bool control_disk_has_file(const struct control *control)
{
	const struct control_change *change = &control->change;

	if (change->record.what == DISK_COMES)
		return has_file(change->about);
	return has_file(json_array_get(disks_of(control), change->record.number));
}

static void keep_change(struct control *control)
{
	struct control_change *change = &control->change;
	json_t *about = change->about ? json_incref(change->about) : json_null();

	if (change->record.number < json_array_size(disks_of(control)))
		json_array_set_new(disks_of(control), change->record.number, about);
	else
		json_array_append_new(disks_of(control), about);
}

static json_t *number_of(const struct control_change *change)
{
	return json_pack("{s:i}", "disk", (int)change->record.number);
}

void control_disk_changed(struct control *control, int error)
{
	struct control_ask *ask = &control->ask;

	assert(ask->runs && ask->kind == RECORD_DISK);
	/* a file that could not be closed well is not open any more */
	if (!error || (control->change.record.what == DISK_GOES && control->change.is_gone))
		keep_change(control);
	json_decref(control->change.about);
	control->change.about = NULL;
	control_chain_close(control);
	ask->runs = false;
	if (!ask->peer)
		return;
	if (error)
		control_say(ask->peer, control_failure(ask->id, error, NULL));
	else
		control_say(ask->peer, control_success(ask->id, number_of(&control->change)));
	ask->peer = NULL;
	control_tell_watchers(control);
}
