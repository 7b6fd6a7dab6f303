/* See machines.h. */
#include "machines.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/names.h"
#include "lib/check.h"

enum { LINE_BYTES = 1 << 16, FOLDER_BYTES = 256, NEWS_BYTES = 1 << 14, LOOK_AGAIN_MS = 1000 };

struct machine_watch {
	struct machines *machines;
	struct known_machine *machine;
	struct loop_source source;
	size_t used;
	char text[LINE_BYTES];
};

static const char watch_line[] = "{\"id\":1,\"do\":\"watch\"}\n";

struct known_machine *machines_find(const struct machines *machines, const char *name)
{
	for (struct known_machine *machine = machines->first; machine; machine = machine->next)
		if (!strcmp(machine->name, name))
			return machine;
	return NULL;
}

static struct known_machine *find_or_make(struct machines *machines, const char *name)
{
	struct known_machine **at = &machines->first;
	struct known_machine *machine;

	while (*at && strcmp((*at)->name, name) < 0)
		at = &(*at)->next;
	if (*at && !strcmp((*at)->name, name))
		return *at;
	machine = calloc(1, sizeof(*machine));
	if (machine)
		machine->name = strdup(name);
	if (!machine || !machine->name) {
		free(machine);
		return NULL;
	}
	machine->next = *at;
	*at = machine;
	return machine;
}

void check_machines(const struct machines *machines)
{
	const struct known_machine *before = NULL;

	for (const struct known_machine *machine = machines->first; machine;
	     machine = machine->next) {
		assert(machine->name && (!before || strcmp(before->name, machine->name) < 0));
		assert(machine->watch || machine->specification);
		assert(!machine->description || machine->watch);
		assert(!machine->specification || json_is_object(machine->specification));
		before = machine;
	}
}

static void machine_free(struct known_machine *machine)
{
	json_decref(machine->specification);
	json_decref(machine->description);
	free(machine->text);
	free((char *)(uintptr_t)machine->name);
	free(machine);
}

static void forget_if_nothing(struct machines *machines, struct known_machine *machine)
{
	struct known_machine **at = &machines->first;

	if (machine->specification || machine->watch)
		return;
	while (*at != machine)
		at = &(*at)->next;
	*at = machine->next;
	machine_free(machine);
}

bool known_machine_runs(const struct known_machine *machine) { return machine->watch; }

json_t *known_machine_json(const struct known_machine *machine)
{
	json_t *object = machine->description ? json_copy(machine->description) : json_object();
	const char *state = "stopped";

	if (machine->description)
		state = json_is_true(json_object_get(machine->description, "suspended"))
				? "paused"
				: "running";
	else if (machine->watch)
		state = "starting";
	json_object_set_new(object, "name", json_string(machine->name));
	json_object_set_new(object, "state", json_string(state));
	if (machine->specification)
		json_object_set(object, "specification", machine->specification);
	return object;
}

const char *known_machine_text(struct known_machine *machine)
{
	json_t *object;

	if (machine->text)
		return machine->text;
	object = known_machine_json(machine);
	machine->text = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	return machine->text;
}

static void has_changed(struct known_machine *machine)
{
	free(machine->text);
	machine->text = NULL;
}

static void tell_gone(const struct machines *machines, const char *name)
{
	if (machines->ended)
		machines->ended(machines->context, name);
}

/* ---- what it says ---- */

static bool same(const json_t *one, const json_t *other, const char *key)
{
	const json_t *left = json_object_get(one, key);
	const json_t *right = json_object_get(other, key);

	return left == right || (left && right && json_equal(left, right));
}

static bool is_same_run(const json_t *one, const json_t *other)
{
	return one && other && same(one, other, "pid") && same(one, other, "started");
}

static void note_running(struct machines *machines, const char *name, const json_t *description)
{
	json_t *run = json_pack("{s:O?, s:O?}", "pid", json_object_get(description, "pid"),
				"started", json_object_get(description, "started"));
	char *text = run ? json_dumps(run, JSON_COMPACT) : NULL;

	if (text)
		store_put(machines->store, "running", name, text);
	free(text);
	json_decref(run);
}

/* One that ran before this daemon did is not new. */
static void tell_start(struct machines *machines, const struct known_machine *machine)
{
	const json_t *before = json_object_get(machines->before, machine->name);

	if (!is_same_run(before, machine->description)) {
		if (before)
			events_tell(machines->events, "ended", machine->name, NULL);
		events_tell(machines->events, "started", machine->name,
			    json_pack("{s:O}", "machine", machine->description));
		note_running(machines, machine->name, machine->description);
	}
	json_object_del(machines->before, machine->name);
	tell_gone(machines, machine->name); /* the one before, whose socket this one has */
}

static void take_description(struct machines *machines, struct known_machine *machine,
			     json_t *description)
{
	json_t *old = machine->description;

	machine->description = json_incref(description);
	has_changed(machine);
	if (!old)
		tell_start(machines, machine);
	else if (!same(old, description, "suspended") || !same(old, description, "guest") ||
		 !same(old, description, "memory-mode"))
		events_tell(machines->events, "changed", machine->name,
			    json_pack("{s:o}", "machine", known_machine_json(machine)));
	json_decref(old);
}

static void take_line(struct machine_watch *watch, size_t bytes)
{
	json_t *said = json_loadb(watch->text, bytes, JSON_REJECT_DUPLICATES, NULL);
	json_t *description = json_object_get(said, "machine");

	if (json_is_object(description))
		take_description(watch->machines, watch->machine, description);
	json_decref(said);
}

static void take_lines(struct machine_watch *watch)
{
	const char *end;

	while ((end = memchr(watch->text, '\n', watch->used))) {
		size_t bytes = (size_t)(end - watch->text);

		take_line(watch, bytes);
		watch->used -= bytes + 1;
		memmove(watch->text, end + 1, watch->used);
	}
}

/* ---- its begin and its end ---- */

static void look_at(struct machines *machines, const char *name);

static void watch_close(struct machine_watch *watch)
{
	loop_remove(watch->machines->loop, &watch->source);
	close(watch->source.fd);
	watch->machine->watch = NULL;
	has_changed(watch->machine);
	free(watch);
}

static void machine_gone(struct machine_watch *watch)
{
	struct machines *machines = watch->machines;
	struct known_machine *machine = watch->machine;
	char name[NAME_MAX_BYTES + 1] = "";
	/* one that listened still, but not any more when it was asked, ran before, too */
	bool ran = machine->description || json_object_get(machines->before, machine->name);

	memcpy(name, machine->name, strnlen(machine->name, NAME_MAX_BYTES));
	watch_close(watch);
	json_decref(machine->description);
	machine->description = NULL;
	has_changed(machine);
	if (ran) {
		json_object_del(machines->before, name);
		store_drop(machines->store, "running", name);
		events_tell(machines->events, "ended", name, NULL);
	} else { /* it was seen as one that starts */
		events_tell(machines->events, "changed", name,
			    json_pack("{s:o}", "machine", known_machine_json(machine)));
	}
	look_at(machines, name); /* the next of this name may have come, or it still listens */
	machine = machines_find(machines, name);
	if (!machine || !machine->watch)
		tell_gone(machines, name);
}

static void watch_ready(void *context, uint32_t events)
{
	struct machine_watch *watch = context;
	const struct machines *machines = watch->machines;
	/* descriptors that come along are not taken */
	ssize_t got = recv(watch->source.fd, watch->text + watch->used,
			   sizeof(watch->text) - watch->used, 0);

	(void)events;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got > 0) {
		watch->used += (size_t)got;
		take_lines(watch);
	}
	if (got <= 0 || watch->used == sizeof(watch->text))
		machine_gone(watch);
	CHECK(check_machines(machines));
}

static int watch_open(struct machines *machines, struct known_machine *machine, int fd)
{
	struct machine_watch *watch = malloc(sizeof(*watch));
	ssize_t bytes = (ssize_t)strlen(watch_line);

	if (!watch)
		return -ENOMEM;
	watch->machines = machines;
	watch->machine = machine;
	watch->used = 0;
	watch->source = (struct loop_source){ fd, watch_ready, watch };
	if (send(fd, watch_line, (size_t)bytes, MSG_NOSIGNAL) != bytes ||
	    loop_add(machines->loop, &watch->source, EPOLLIN)) {
		free(watch);
		return -ECONNRESET;
	}
	machine->watch = watch;
	has_changed(machine);
	return 0;
}

static void look_at(struct machines *machines, const char *name)
{
	struct known_machine *machine = find_or_make(machines, name);
	int fd;

	if (!machine || machine->watch)
		return;
	fd = name_connect_now(name);
	if (fd >= 0 && watch_open(machines, machine, fd))
		close(fd);
	if (fd < 0 && fd != -ENOENT)
		loop_set(machines->loop, &machines->look_again, LOOK_AGAIN_MS);
	forget_if_nothing(machines, machine);
}

/* ---- the folder ---- */

static void found(void *context, const char *name) { look_at(context, name); }

static void look_around(void *context)
{
	struct machines *machines = context;

	name_list(found, machines);
	CHECK(check_machines(machines));
}

static void folder_ready(void *context, uint32_t events)
{
	struct machines *machines = context;
	_Alignas(struct inotify_event) char news[NEWS_BYTES];
	ssize_t got = read(machines->folder.fd, news, sizeof(news));

	(void)events;
	for (ssize_t at = 0; at < got;) {
		const struct inotify_event *event = (const void *)(news + at);

		if (event->mask & IN_Q_OVERFLOW)
			look_around(machines);
		else if (event->len && name_is_valid(event->name))
			look_at(machines, event->name);
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	CHECK(check_machines(machines));
}

static int watch_folder(struct machines *machines)
{
	char path[FOLDER_BYTES];
	int error = name_folder(path, sizeof(path));

	if (error)
		return error;
	machines->folder.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (machines->folder.fd < 0 ||
	    inotify_add_watch(machines->folder.fd, path, IN_CREATE | IN_MOVED_TO) < 0)
		return -errno;
	return loop_add(machines->loop, &machines->folder, EPOLLIN);
}

/* ---- what was kept ---- */

static bool take_specification(void *context, const char *key, const char *text)
{
	struct known_machine *machine = find_or_make(context, key);
	json_t *specification = json_loads(text, 0, NULL);

	if (machine && json_is_object(specification))
		machine->specification = json_incref(specification);
	json_decref(specification);
	return true;
}

static bool take_running(void *context, const char *key, const char *text)
{
	struct machines *machines = context;

	json_object_set_new(machines->before, key, json_loads(text, 0, NULL));
	return true;
}

/* What ran, and has nothing at its place any more. */
static void tell_ends(struct machines *machines)
{
	const char *name;
	json_t *run;
	void *next;

	json_object_foreach_safe(machines->before, next, name, run) {
		const struct known_machine *machine = machines_find(machines, name);

		if (machine && machine->watch)
			continue; /* it says who it is */
		events_tell(machines->events, "ended", name, NULL);
		store_drop(machines->store, "running", name);
		json_object_del(machines->before, name);
	}
}

int machines_open(struct machines *machines, struct loop *loop, struct store *store,
		  struct events *events)
{
	int error;

	*machines = (struct machines){ .loop = loop, .store = store, .events = events };
	machines->folder = (struct loop_source){ -1, folder_ready, machines };
	machines->look_again =
		(struct loop_timer){ .due = look_around, .context = machines };
	machines->before = json_object();
	error = store_each(store, "machine", take_specification, machines);
	if (!error)
		error = store_each(store, "running", take_running, machines);
	if (!error)
		error = watch_folder(machines);
	if (error)
		return error;
	look_around(machines);
	tell_ends(machines);
	return 0;
}

void machines_close(struct machines *machines)
{
	while (machines->first) {
		struct known_machine *machine = machines->first;

		machines->first = machine->next;
		if (machine->watch)
			watch_close(machine->watch);
		machine_free(machine);
	}
	if (machines->folder.fd >= 0)
		close(machines->folder.fd);
	loop_unset(machines->loop, &machines->look_again);
	json_decref(machines->before);
}

int machines_specify(struct machines *machines, const char *name, json_t *specification)
{
	char *text = json_dumps(specification, JSON_COMPACT);
	struct known_machine *machine = find_or_make(machines, name);
	int error = text && machine ? store_put(machines->store, "machine", name, text) : -ENOMEM;

	free(text);
	if (!error) {
		json_decref(machine->specification);
		machine->specification = json_incref(specification);
		has_changed(machine);
		events_tell(machines->events, "described", name, NULL);
	} else if (machine) {
		forget_if_nothing(machines, machine);
	}
	return error;
}

int machines_drop_specification(struct machines *machines, const char *name)
{
	struct known_machine *machine = machines_find(machines, name);
	int error = store_drop(machines->store, "machine", name);

	if (error || !machine)
		return error;
	events_tell(machines->events, "forgotten", name, NULL);
	json_decref(machine->specification);
	machine->specification = NULL;
	has_changed(machine);
	forget_if_nothing(machines, machine);
	return 0;
}
