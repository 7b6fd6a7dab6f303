/* See machine_control.h. */
#include "machine_control_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ask_data.h"
#include "lib/check.h"
#include "machine_description.h"

static const struct control_verb verbs[] = {
	{ .name = "info", .number = WISH_NOTHING },
	{ .name = "stop", .number = WISH_STOP },
	{ .name = "kill", .number = WISH_KILL },
	{ .name = "save", .number = WISH_SAVE },
	{ .name = "pause", .number = WISH_PAUSE },
	{ .name = "resume", .number = WISH_RESUME },
	{ .name = "registers", .number = WISH_LOOK },
	{ .name = "memory",
	  .number = WISH_MEMORY,
	  .member = { { "bytes", CONTROL_NUMBER, true } } },
	{ .name = "watch", .number = WISH_WATCH },
	{ .name = "narrow", .number = WISH_NARROW },
	{ .name = "advise",
	  .number = WISH_ADVICE,
	  .member = { { "bytes", CONTROL_NUMBER, true } } },
	{ .name = "kit", .number = WISH_KIT },
	{ .name = "layer",
	  .number = WISH_LAYER,
	  .member = { { "disk", CONTROL_NUMBER, true }, { "file", CONTROL_TEXT, true } } },
	{ .name = "chain",
	  .number = WISH_CHAIN,
	  .member = { { "file", CONTROL_TEXT, true },
		      { "format", CONTROL_TEXT, true },
		      { "side", CONTROL_NUMBER, false } } },
	{ .name = "attach",
	  .number = WISH_ATTACH,
	  .member = { { "readonly", CONTROL_NUMBER, false }, { "dvd", CONTROL_NUMBER, false } } },
	{ .name = "detach",
	  .number = WISH_DETACH,
	  .member = { { "disk", CONTROL_NUMBER, true } } },
	{ .name = "grow",
	  .number = WISH_RESIZE,
	  .member = { { "disk", CONTROL_NUMBER, true }, { "size", CONTROL_NUMBER, true } } },
	{ .name = "freeze", .number = WISH_FREEZE },
	{ .name = "thaw", .number = WISH_THAW },
	{ .name = "fork",
	  .number = WISH_FORK,
	  .member = { { "parent", CONTROL_TEXT, false },
		      { "secrets", CONTROL_TEXT, false },
		      { "asked", CONTROL_NUMBER, false },
		      { "number", CONTROL_NUMBER, false } } },
	{ .name = "forks", .number = WISH_FORKS },
	{ .name = "forked",
	  .number = WISH_FORKED,
	  .member = { { "number", CONTROL_NUMBER, true },
		      { "errno", CONTROL_NUMBER, false },
		      { "child", CONTROL_NUMBER, false } } },
	{ .name = "type", .number = WISH_TYPE, .member = { { "codes", CONTROL_TEXT, true } } },
	{ .name = "screenshot", .number = WISH_SHOW },
	{ .name = "block",
	  .number = WISH_LIST,
	  .member = { { "at", CONTROL_TEXT, true }, { "root", CONTROL_TEXT, false } } },
	{ .name = "trace",
	  .number = WISH_TRACE,
	  .member = { { "kinds", CONTROL_TEXT, true }, { "milliseconds", CONTROL_NUMBER, true } } },
	{ .name = "copy",
	  .number = WISH_COPY,
	  .member = { { "folder", CONTROL_TEXT, true },
		      { "name", CONTROL_TEXT, true },
		      { "bytes", CONTROL_NUMBER, true },
		      { "replaces", CONTROL_NUMBER, false } } },
	{ .name = "piece",
	  .number = WISH_COPY_PIECE,
	  .member = { { "data", CONTROL_TEXT, true } } },
	{ .name = "finish",
	  .number = WISH_COPY_END,
	  .member = { { "incomplete", CONTROL_NUMBER, false } } },
	{ 0 },
};

static void peer_begin(struct control_peer *peer, int fd)
{
	peer->fd = fd;
	peer->line_used = peer->out_at = peer->out_used = 0;
	peer->wants_registers = peer->watches = peer->is_behind = peer->is_narrow = false;
	peer->kit_fds = 0;
	peer->has_lost = false;
}

void control_init(struct control *control, int listener, const char *description)
{
	control_protocol_init();
	memset(control, 0, offsetof(struct control, ask));
	control->ask.runs = false;
	control->ask.peer = control->chain.of = NULL;
	control->chain.count = 0;
	control->counters[0] = 0;
	control->listener = listener;
	control->answer_ms = CONTROL_ANSWER_MS;
	control->occupied_fd[0] = -1;
	control->kit_fds = KIT_FDS;
	control->description = json_loads(description, 0, NULL);
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		control->peer[n].room = &control->room[n];
		peer_begin(&control->peer[n], -1);
	}
}

void check_control(const struct control *control)
{
	const struct control_peer *const waited_for[] = {
		control->freezer, control->adviser, control->saver,    control->forker,
		control->holder,  control->copier,  control->ask.peer, control->layers_of,
		control->guest_fork.door,
	};

	assert(control->layers <= CONTROL_LAYERS);
	for (size_t n = 0; n < sizeof(waited_for) / sizeof(waited_for[0]); n++)
		if (waited_for[n])
			assert(waited_for[n] >= control->peer &&
			       waited_for[n] < control->peer + CONTROL_PEERS &&
			       waited_for[n]->fd >= 0);
}

static bool has_line(const struct control_peer *peer)
{
	return peer->fd >= 0 && !control_has_output(peer) &&
	       memchr(peer->room->line, '\n', peer->line_used);
}

static bool peer_is_full(const struct control_peer *peer)
{
	return peer && sizeof(peer->room->out) - peer->out_used <
			       RING_RECORD_MAX_BYTES + CONTROL_HEAD_BYTES;
}

bool control_is_full(const struct control *control)
{
	return peer_is_full(control->saver) || peer_is_full(control->ask.peer);
}

bool control_has_line(const struct control *control)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (has_line(&control->peer[n]))
			return true;
	return false;
}

static struct control_peer *free_peer(struct control *control)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (control->peer[n].fd < 0)
			return &control->peer[n];
	return NULL;
}

void control_events(const struct control *control, struct pollfd fds[CONTROL_FDS])
{
	bool room = false;

	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		room |= control->peer[n].fd < 0;
		fds[1 + n] = (struct pollfd){ .fd = control->peer[n].fd,
					      .events = control_has_output(&control->peer[n])
								? POLLOUT
								: POLLIN };
	}
	fds[0] = (struct pollfd){ .fd = room ? control->listener : -1, .events = POLLIN };
}

/* A thaw that is asked for already is enough. */
void control_drop_freeze(struct control *control, const struct control_peer *peer)
{
	if (control->freezer != peer)
		return;
	control->freezer = NULL;
	if (!control->is_frozen)
		return;
	control->is_frozen = false;
	control->thaw_is_due = true;
	control->freezes++;
}

static void drop_trace(struct control *control, const struct control_peer *peer)
{
	struct control_trace *trace = &control->trace;

	if (trace->peer != peer)
		return;
	trace->peer = NULL;
	trace->wanted = 0;
	trace->has_changed = true;
}

static void drop_advice(struct control *control, const struct control_peer *peer)
{
	if (control->adviser != peer)
		return;
	control->adviser = NULL;
	control->advice_bytes = 0;
	control->advice_is_dropped = true;
}

/* One that holds the machine lets it go. A save that runs is ended by control_save_ended(). */
static enum control_wish hang_up(struct control *control, struct control_peer *peer)
{
	bool held = control->saver == peer && control->save == SAVE_HELD;
	const bool was_suspended = control_drop_holder(control, peer);

	close(peer->fd);
	peer->fd = -1;
	control_drop_kits(peer);
	control_drop_layers(control, peer);
	if (control->chain.of == peer)
		control_chain_close(control);
	if (control->saver == peer)
		control->saver = NULL;
	control_drop_fork(control, peer);
	drop_trace(control, peer);
	peer->watches = peer->is_behind = false;
	if (control->ask.peer == peer)
		control->ask.peer = NULL;
	if (control->copier == peer)
		control->copier = NULL;
	control_drop_freeze(control, peer);
	if (control_drop_door(control, peer))
		control->fork_end_is_due = true;
	drop_advice(control, peer);
	if (held)
		control->save = SAVE_NONE;
	return held || was_suspended ? WISH_RESUME : WISH_NOTHING;
}

static void add(struct control_peer *peer, const void *data, size_t bytes)
{
	if (bytes > sizeof(peer->room->out) - peer->out_used)
		return;
	memcpy(peer->room->out + peer->out_used, data, bytes);
	peer->out_used += bytes;
}

/* Released. */
void control_say(struct control_peer *peer, char *line)
{
	if (line)
		add(peer, line, strlen(line));
	free(line);
}

/* ---- who watches ---- */

bool control_send_with(const struct control_peer *peer, const char *line, size_t bytes,
		       const int *fds, unsigned count)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(CONTROL_OCCUPIED_FDS * sizeof(int))];
	} ancillary = { .head = { .cmsg_len = CMSG_LEN(count * sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct iovec vector = { .iov_base = (void *)(uintptr_t)line, .iov_len = bytes };
	const struct msghdr message = { .msg_iov = &vector,
					.msg_iovlen = 1,
					.msg_control = &ancillary,
					.msg_controllen = CMSG_SPACE(count * sizeof(int)) };

	memcpy(CMSG_DATA(&ancillary.head), fds, count * sizeof(int));
	return sendmsg(peer->fd, &message, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static char *watched_line(const struct control *control, const struct control_peer *peer)
{
	return control_success(peer->watch_id,
			       json_pack("{s:o}", "machine", machine_describe(control)));
}

/* The first time with the descriptors. */
static void tell_watched(const struct control *control, struct control_peer *peer)
{
	char *line = watched_line(control, peer);

	if (line && !peer->has_watched && control->occupied_fd[0] >= 0 &&
	    control_send_with(peer, line, strlen(line), control->occupied_fd, CONTROL_OCCUPIED_FDS))
		free(line);
	else
		control_say(peer, line);
	peer->has_watched = true;
}

/* Now, or when what it was sent before has gone out, and there is a machine. */
static void tell_watcher(const struct control *control, struct control_peer *peer)
{
	peer->is_behind = !control->has_begun || control_has_output(peer);
	if (!peer->is_behind)
		tell_watched(control, peer);
}

static enum control_wish begin_watch(const struct control *control, struct control_peer *peer,
				     const struct control_request *request)
{
	memcpy(peer->watch_id, request->id, sizeof(peer->watch_id));
	peer->watches = true;
	peer->has_watched = false;
	tell_watcher(control, peer);
	return WISH_NOTHING;
}

void control_tell_watchers(struct control *control)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (control->peer[n].fd >= 0 && control->peer[n].watches)
			tell_watcher(control, &control->peer[n]);
}

void control_began(struct control *control)
{
	control->has_begun = true;
	control_tell_watchers(control);
}

void control_set_state(struct control *control, const struct record_state *state)
{
	control->state = *state;
	control->has_state = true;
	control_tell_watchers(control);
}

static enum control_wish begin_save(struct control *control, struct control_peer *peer,
				    const struct control_request *request)
{
	if (control->save || control->forks ||
	    (control->ask.runs && control->ask.kind == RECORD_DISK)) {
		control_say(peer, control_failure(request->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
	control->save = SAVE_RUNS;
	control->saver = peer;
	control->wait[ANSWER_SAVE].has_news = true;
	memcpy(peer->save_id, request->id, sizeof(peer->save_id));
	return WISH_SAVE;
}

/* What stands for a save is its asker's alone. */
static int may_resume(const struct control *control, const struct control_peer *peer)
{
	if (control->suspended || (control->save == SAVE_HELD && control->saver == peer))
		return 0;
	return control->save || control->forks ? -EBUSY : -EALREADY;
}

static enum control_wish begin_resume(struct control *control, struct control_peer *peer,
				      const struct control_request *request)
{
	const int error = may_resume(control, peer);

	if (error) {
		control_say(peer, control_failure(request->id, error,
						  error == -EBUSY ? "it is being saved or forked"
								  : "it does not stand still"));
		return WISH_NOTHING;
	}
	if (control->suspended) {
		control_end_suspension(control);
	} else {
		control->save = SAVE_NONE;
		control->saver = NULL;
	}
	control_say(peer, control_success(request->id, NULL));
	return WISH_RESUME;
}

/*
 * What the machine answers stands behind the bytes of a save that nobody takes: whoever asks for
 * registers goes without them, and the answer, when it comes, is for whoever asks later.
 */
void control_refuse_lookers(struct control *control, int error, const char *reason)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *peer = &control->peer[n];

		if (peer->fd >= 0 && peer->wants_registers)
			control_say(peer, control_failure(peer->look_id, error, reason));
		peer->wants_registers = false;
	}
}

/* One question at a time for a peer; those of others are answered by the same. */
static enum control_wish begin_look(struct control *control, struct control_peer *peer,
				    const struct control_request *request)
{
	if (peer->wants_registers || control->is_left) {
		control_say(peer, control_failure(request->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
	control->wait[ANSWER_LOOK].has_news |= !control->looks;
	peer->wants_registers = true;
	memcpy(peer->look_id, request->id, sizeof(peer->look_id));
	if (control->looks)
		return WISH_NOTHING;
	control->looks = 1;
	return WISH_LOOK;
}

/* ---- a guest that stands still ---- */

/*
 * One peer at a time has the guest frozen. One that is gone has asked for a thaw by that, whose
 * answer is for nobody.
 */
static enum control_wish begin_freeze(struct control *control, struct control_peer *peer,
				      const struct control_request *request, enum control_wish wish)
{
	const bool is_mine = control->freezer == peer;

	if (control->freezes || control->forks ||
	    (wish == WISH_FREEZE ? (bool)control->freezer : !is_mine)) {
		control_say(peer, control_failure(request->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
	control->freezer = peer;
	control->freezes = 1;
	control->wait[ANSWER_FREEZE].has_news = true;
	control->is_frozen = wish == WISH_FREEZE;
	memcpy(control->freeze_id, request->id, sizeof(control->freeze_id));
	return wish;
}

bool control_frozen(struct control *control, int error)
{
	struct control_peer *peer = control->freezer;

	if (!control->freezes)
		return false;
	if (error > 0 || error < -CONTROL_ERRNO_MAX) /* the machine says what it likes */
		error = -EIO;
	control->freezes--;
	if (!peer)
		return true;
	control_say(peer, error ? control_failure(control->freeze_id, error, NULL)
			  : control_success(control->freeze_id, NULL));
	if (!error && control->is_frozen)
		return true;
	control->freezer = NULL;
	control->is_frozen = false;
	return true;
}

/* ---- what is asked of the machine, one thing at a time ---- */

/* A file's pieces come from who has begun it. */
static int may_copy(const struct control *control, const struct control_peer *peer,
		    enum control_wish wish)
{
	if (wish == WISH_COPY)
		return control->copier ? -EBUSY : 0;
	if (wish == WISH_COPY_PIECE || wish == WISH_COPY_END)
		return control->copier == peer ? 0 : -EBADF;
	return 0;
}

static enum control_wish begin_ask(struct control *control, struct control_peer *peer,
				   const struct control_request *request, enum control_wish wish)
{
	struct control_ask *ask = &control->ask;
	int bytes = ask->runs || control->forks ? -EBUSY : may_copy(control, peer, wish);

	if (!bytes)
		bytes = ask_data(request, ask);
	if (bytes < 0) {
		control_say(peer, control_failure(request->id, bytes, NULL));
		return WISH_NOTHING;
	}
	control->wait[ANSWER_ASK].has_news = true;
	ask->runs = true;
	ask->peer = peer;
	ask->bytes = (uint32_t)bytes;
	memcpy(ask->id, request->id, sizeof(ask->id));
	if (wish == WISH_COPY)
		control->copier = peer;
	if (wish == WISH_COPY_END)
		control->copier = NULL;
	return WISH_ASK;
}

static void add_data(struct control_peer *peer, const char *id, const uint8_t *data, uint32_t bytes)
{
	char head[CONTROL_HEAD_BYTES];
	int used = snprintf(head, sizeof(head), "{\"id\":%s,\"data\":%u}\n", id, bytes);

	add(peer, head, (size_t)used);
	add(peer, data, bytes);
}

bool control_shown(struct control *control, const uint8_t *data, uint32_t bytes)
{
	const struct control_ask *ask = &control->ask;

	if (!ask->runs || (ask->kind != RECORD_SHOW && ask->kind != RECORD_LIST))
		return false;
	control->wait[ANSWER_ASK].has_news = true;
	if (ask->peer)
		add_data(ask->peer, ask->id, data, bytes);
	return true;
}

/* ---- traces ---- */

static enum control_wish begin_trace(struct control *control, struct control_peer *peer,
				     const struct control_request *request)
{
	struct control_trace *trace = &control->trace;
	const uint64_t milliseconds = control_number(request, "milliseconds");
	uint32_t wanted;
	int error = 0;

	if (trace->peer)
		error = -EBUSY;
	else if (!trace_parse(control_text(request, "kinds"), &wanted) || !milliseconds ||
		 milliseconds > CONTROL_TRACE_MS)
		error = -EINVAL;
	if (error) {
		control_say(peer, control_failure(request->id, error, NULL));
		return WISH_NOTHING;
	}
	*trace = (struct control_trace){
		.peer = peer, .wanted = wanted, .milliseconds = milliseconds, .has_changed = true
	};
	memcpy(trace->id, request->id, sizeof(trace->id));
	return WISH_NOTHING;
}

size_t control_trace_room(const struct control *control)
{
	const struct control_peer *peer = control->trace.peer;

	/* an answer to something else that this peer asks finds room beside it */
	return peer && !control_has_output(peer) ? sizeof(peer->room->out) / 2 : 0;
}

void control_traced(struct control *control, const void *data, uint32_t bytes)
{
	assert(control->trace.peer);
	add_data(control->trace.peer, control->trace.id, data, bytes);
}

void control_trace_end(struct control *control, uint64_t dropped)
{
	struct control_peer *peer = control->trace.peer;

	assert(peer);
	control_say(peer, control_success(control->trace.id,
				       json_pack("{s:o}", "dropped", json_shown(dropped))));
	drop_trace(control, peer);
}

static json_t *picture_of(const struct record_done *done)
{
	return json_pack("{s:I, s:I}", "width", (json_int_t)done->width, "height",
			 (json_int_t)done->height);
}

bool control_asked(struct control *control, const struct record_done *done)
{
	struct control_ask *ask = &control->ask;
	int error = done->error;

	if (!ask->runs || ask->kind == RECORD_DISK)
		return false;
	ask->runs = false;
	if (error > 0 || error < -CONTROL_ERRNO_MAX) /* the machine says what it likes */
		error = -EIO;
	if (error && ask->kind >= RECORD_COPY_BEGIN && ask->kind <= RECORD_COPY_END &&
	    control->copier == ask->peer)
		control->copier = NULL;
	if (!ask->peer)
		return true;
	if (error)
		control_say(ask->peer, control_failure(ask->id, error, NULL));
	else if (ask->kind == RECORD_SHOW)
		control_say(ask->peer, control_success(ask->id, picture_of(done)));
	else
		control_say(ask->peer, control_success(ask->id, NULL));
	ask->peer = NULL;
	return true;
}

bool control_looked(struct control *control, const struct record_registers *registers,
		    unsigned count)
{
	json_t *processors;
	json_t *answer;

	if (!control->looks)
		return false;
	processors = json_array();
	control->looks = 0;
	for (unsigned n = 0; n < count; n++)
		json_array_append_new(processors, registers_describe(&registers[n]));
	answer = json_pack("{s:o, s:s}", "processors", processors, "counters", control->counters);
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *peer = &control->peer[n];

		if (peer->fd >= 0 && peer->wants_registers)
			control_say(peer, control_success(peer->look_id, json_copy(answer)));
		peer->wants_registers = false;
	}
	json_decref(answer);
	return true;
}

static bool may_ask(const struct control_peer *peer, enum control_wish wish)
{
	return !peer->is_narrow || wish == WISH_NOTHING || wish == WISH_WATCH ||
	       wish == WISH_ADVICE || wish == WISH_NARROW;
}

static enum control_wish begin_narrow(struct control *control, struct control_peer *peer,
				      const struct control_request *request)
{
	control_drop_kits(peer);
	control_drop_layers(control, peer);
	if (control->chain.of == peer)
		control_chain_close(control);
	peer->is_narrow = true;
	control_say(peer, control_success(request->id, NULL));
	return WISH_NOTHING;
}

/* 0 or -errno. */
static int take_brought(struct control *control, struct control_peer *peer,
			const struct control_request *request, enum control_wish wish)
{
	if (wish != WISH_FORKS && control_has_lost(peer))
		return -EMFILE;
	switch (wish) {
	case WISH_LAYER: return control_take_layer(control, peer, request);
	case WISH_CHAIN: return control_take_chain(control, peer, request);
	default: return control_take_door(control, peer, request);
	}
}

static enum control_wish take_request(struct control *control, struct control_peer *peer,
				      const struct control_request *request)
{
	enum control_wish wish = (enum control_wish)request->verb->number;
	json_t *answer;

	if (!may_ask(peer, wish)) {
		control_say(peer,
			 control_failure(request->id, -EPERM, "this connection may only advise"));
		return WISH_NOTHING;
	}
	switch (wish) {
	case WISH_NARROW: return begin_narrow(control, peer, request);
	case WISH_SAVE: return begin_save(control, peer, request);
	case WISH_RESUME: return begin_resume(control, peer, request);
	case WISH_LOOK: return begin_look(control, peer, request);
	case WISH_FORK: return control_begin_fork(control, peer, request);
	case WISH_PAUSE: return control_begin_pause(control, peer, request);
	case WISH_FORKED: return control_end_wish(control, peer, request);
	case WISH_WATCH: return begin_watch(control, peer, request);
	case WISH_TRACE: return begin_trace(control, peer, request);
	case WISH_ATTACH: case WISH_DETACH: case WISH_RESIZE:
		return control_begin_change(control, peer, request, wish);
	case WISH_FREEZE: case WISH_THAW: return begin_freeze(control, peer, request, wish);
	case WISH_TYPE: case WISH_SHOW: case WISH_LIST:
	case WISH_COPY: case WISH_COPY_PIECE: case WISH_COPY_END:
		return begin_ask(control, peer, request, wish);
	case WISH_NOTHING:
		answer = json_pack("{s:o}", "machine", machine_describe(control));
		control_say(peer, control_success(request->id, answer));
		return wish;
	case WISH_LAYER: case WISH_CHAIN: case WISH_FORKS: {
		int error = take_brought(control, peer, request, wish);

		control_say(peer, error ? control_failure(request->id, error, NULL)
				  : control_success(request->id, NULL));
		return WISH_NOTHING;
	}
	case WISH_MEMORY: control->memory_bytes = control_number(request, "bytes"); break;
	case WISH_ADVICE:
		control->advice_bytes = control_number(request, "bytes");
		control->adviser = peer;
		break;
	default: break;
	}
	control_say(peer, control_success(request->id, NULL));
	return wish;
}

static enum control_wish take_line(struct control *control, struct control_peer *peer, size_t bytes)
{
	struct control_request request;
	const char *reason;
	enum control_wish wish = WISH_NOTHING;

	if (control_parse(peer->room->line, bytes, verbs, &request, &reason))
		control_say(peer, control_failure(request.id, -EINVAL, reason));
	else
		wish = take_request(control, peer, &request);
	control_request_free(&request);
	return wish;
}

static void lose(struct control_peer *peer, int fd)
{
	close(fd);
	peer->has_lost |= !peer->is_narrow;
}

/* As read(); descriptors that come along are kept for a fork, as many as it can have. */
static ssize_t receive(const struct control *control, struct control_peer *peer)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(FORK_CHILDREN * KIT_MOST_FDS * sizeof(int))];
	} ancillary;
	struct iovec vector = { .iov_base = peer->room->line + peer->line_used,
				.iov_len = sizeof(peer->room->line) - peer->line_used };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };
	ssize_t n = recvmsg(peer->fd, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *head = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
	size_t count = 0;

	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
		count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t k = 0; k < count; k++) {
		int fd;

		memcpy(&fd, CMSG_DATA(head) + k * sizeof(fd), sizeof(fd));
		if (!peer->is_narrow && peer->kit_fds < FORK_CHILDREN * control->kit_fds)
			peer->room->kits[peer->kit_fds++] = fd;
		else
			lose(peer, fd);
	}
	/* this process may have no more of them */
	peer->has_lost |= n > 0 && message.msg_flags & MSG_CTRUNC;
	return n;
}

/* One line at a time: the next is looked at when its answer is out. */
static enum control_wish read_line(struct control *control, struct control_peer *peer)
{
	enum control_wish wish;
	char *end = memchr(peer->room->line, '\n', peer->line_used);

	if (!end) {
		ssize_t n = receive(control, peer);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return WISH_NOTHING;
		if (n <= 0)
			return hang_up(control, peer);
		peer->line_used += (size_t)n;
		end = memchr(peer->room->line, '\n', peer->line_used);
	}
	if (!end)
		return peer->line_used == sizeof(peer->room->line) ? hang_up(control, peer)
							     : WISH_NOTHING;
	wish = take_line(control, peer, (size_t)(end - peer->room->line));
	peer->line_used -= (size_t)(end + 1 - peer->room->line);
	memmove(peer->room->line, end + 1, peer->line_used);
	return wish;
}

static enum control_wish write_out(struct control *control, struct control_peer *peer)
{
	ssize_t n = write(peer->fd, peer->room->out + peer->out_at, peer->out_used - peer->out_at);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? WISH_NOTHING : hang_up(control, peer);
	peer->out_at += (size_t)n;
	if (peer->out_at == peer->out_used)
		peer->out_at = peer->out_used = 0;
	if (peer->is_behind && !control_has_output(peer))
		tell_watcher(control, peer);
	return WISH_NOTHING;
}

static void accept_peer(struct control *control)
{
	struct control_peer *peer = free_peer(control);

	if (!peer)
		return;
	peer_begin(peer, accept4(control->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

void control_turn(struct control *control, const struct pollfd fds[CONTROL_FDS],
		  void (*wish)(void *context, enum control_wish wish), void *context)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *peer = &control->peer[n];

		if (peer->fd >= 0 && (fds[1 + n].revents || has_line(peer)))
			wish(context, control_has_output(peer) ? write_out(control, peer)
						       : read_line(control, peer));
	}
	if (control->fork_end_is_due) {
		control->fork_end_is_due = false;
		wish(context, WISH_FORK_ENDED);
	}
	if (control->advice_is_dropped)
		wish(context, WISH_ADVICE);
	control->advice_is_dropped = false;
	if (control->thaw_is_due)
		wish(context, WISH_THAW);
	control->thaw_is_due = false;
	if (control->trace.has_changed)
		wish(context, WISH_TRACE);
	control->trace.has_changed = false;
	if (control->looks && control_is_full(control))
		control_refuse_lookers(control, -EBUSY, "a save or a fork is under way");
	if (fds[0].revents)
		accept_peer(control);
	CHECK(check_control(control));
}

void control_end(struct control *control)
{
	/* first: whoever hears of the end finds nobody at its place any more */
	if (control->listener >= 0)
		close(control->listener);
	control->listener = -1;
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *peer = &control->peer[n];

		if (peer->fd >= 0 && control_has_output(peer))
			write_out(control, peer);
		if (peer->fd >= 0)
			hang_up(control, peer);
	}
}

bool control_saved(struct control *control, const uint8_t *data, uint32_t bytes)
{
	if (control->save != SAVE_RUNS)
		return false;
	control->wait[ANSWER_SAVE].has_news = true;
	if (control->saver)
		add_data(control->saver, control->saver->save_id, data, bytes);
	return true;
}

/* What the broker does now. */
static enum control_wish end_of_save(struct control *control, int error)
{
	struct control_peer *peer = control->saver;

	control->save = error || !peer ? SAVE_NONE : SAVE_HELD;
	if (!peer)
		return error ? WISH_NOTHING : WISH_RESUME;
	control_say(peer, error ? control_failure(peer->save_id, error, NULL)
			     : control_success(peer->save_id, NULL));
	if (error)
		control->saver = NULL;
	return WISH_NOTHING;
}

bool control_save_ended(struct control *control, int error, enum control_wish *ret)
{
	const bool has_layers = control->layers && control->layers_of == control->saver;

	if (control->save != SAVE_RUNS)
		return false;
	if (error > 0 || error < -CONTROL_ERRNO_MAX) /* the machine says what it likes */
		error = -EIO;
	if (!error && control->saver && has_layers) {
		control->save = SAVE_LAYERS;
		*ret = WISH_LAYER;
		return true;
	}
	*ret = end_of_save(control, error);
	return true;
}

enum control_wish control_save_layered(struct control *control, int error)
{
	assert(control->save == SAVE_LAYERS);
	control->is_left = false;
	control_close_layers(control);
	if (!error)
		return end_of_save(control, 0);
	end_of_save(control, error);
	return WISH_RESUME; /* it stands */
}
