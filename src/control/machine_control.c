/* See machine_control.h. */
#include "machine_control.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ask_data.h"

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
	{ .name = "freeze", .number = WISH_FREEZE },
	{ .name = "thaw", .number = WISH_THAW },
	{ .name = "fork",
	  .number = WISH_FORK,
	  .member = { { "parent", CONTROL_TEXT, false }, { "secrets", CONTROL_TEXT, false } } },
	{ .name = "type", .number = WISH_TYPE, .member = { { "codes", CONTROL_TEXT, true } } },
	{ .name = "screenshot", .number = WISH_SHOW },
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

/* Its buffers are not touched: most peers never come, and a child of a fork shall be small. */
static void peer_begin(struct control_peer *peer, int fd)
{
	peer->fd = fd;
	peer->line_used = peer->out_at = peer->out_used = 0;
	peer->wants_registers = peer->watches = peer->is_behind = peer->is_narrow = false;
	peer->kit_fds = 0;
}

void control_init(struct control *control, int listener, const char *description)
{
	control_protocol_init();
	memset(control, 0, offsetof(struct control, peer));
	control->listener = listener;
	control->occupied_fd[0] = -1;
	control->kit_fds = KIT_FDS;
	control->description = json_loads(description, 0, NULL);
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		peer_begin(&control->peer[n], -1);
}

static bool has_output(const struct control_peer *peer) { return peer->out_at < peer->out_used; }
static bool has_line(const struct control_peer *peer)
{
	return peer->fd >= 0 && !has_output(peer) && memchr(peer->line, '\n', peer->line_used);
}

static bool peer_is_full(const struct control_peer *peer)
{
	return peer && sizeof(peer->out) - peer->out_used <
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
					      .events = has_output(&control->peer[n]) ? POLLOUT
										      : POLLIN };
	}
	fds[0] = (struct pollfd){ .fd = room ? control->listener : -1, .events = POLLIN };
}

static void drop_kits(struct control_peer *peer)
{
	while (peer->kit_fds)
		close(peer->kits[--peer->kit_fds]);
}

/* Those whose files the disk process has are closed already. */
static void close_layers(struct control *control)
{
	while (control->layers)
		if (control->layer[--control->layers].file >= 0)
			close(control->layer[control->layers].file);
	control->layers_of = NULL;
}

static void drop_layers(struct control *control, const struct control_peer *peer)
{
	if (control->layers_of == peer && control->save != SAVE_LAYERS)
		close_layers(control);
}

/* What the machine was not told yet it is not told any more. */
static void drop_fork(struct control *control, const struct control_peer *peer)
{
	if (control->forker != peer)
		return;
	control->forker = NULL;
	if (control->fork_waits)
		control->fork_waits = control->forks = false;
}

/* A thaw that is asked for already is enough. */
static void drop_freeze(struct control *control, const struct control_peer *peer)
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

/* One that holds the machine lets it go. A save that runs is ended by control_save_ended(). */
static enum control_wish hang_up(struct control *control, struct control_peer *peer)
{
	bool held = control->saver == peer && control->save == SAVE_HELD;

	close(peer->fd);
	peer->fd = -1;
	drop_kits(peer);
	drop_layers(control, peer);
	if (control->saver == peer)
		control->saver = NULL;
	drop_fork(control, peer);
	drop_trace(control, peer);
	peer->watches = peer->is_behind = false;
	if (control->ask.peer == peer)
		control->ask.peer = NULL;
	if (control->copier == peer)
		control->copier = NULL;
	drop_freeze(control, peer);
	if (control->adviser == peer) {
		control->adviser = NULL;
		control->advice_bytes = 0;
		return WISH_ADVICE;
	}
	if (!held)
		return WISH_NOTHING;
	control->save = SAVE_NONE;
	return WISH_RESUME;
}

static void add(struct control_peer *peer, const void *data, size_t bytes)
{
	if (bytes > sizeof(peer->out) - peer->out_used)
		return;
	memcpy(peer->out + peer->out_used, data, bytes);
	peer->out_used += bytes;
}

/* Released. */
static void add_line(struct control_peer *peer, char *line)
{
	if (line)
		add(peer, line, strlen(line));
	free(line);
}

static const char *guest_word(const struct record_state *state)
{
	if (state->flags & STATE_ANSWERS)
		return "answers";
	return state->flags & STATE_SILENT ? "silent" : "unknown";
}

static const char *memory_word(const struct record_state *state)
{
	if (!(state->flags & STATE_MEMORY_DRIVER))
		return "no driver";
	if (!(state->flags & STATE_AUTOMATIC))
		return "set";
	return state->flags & STATE_ADVISED ? "balanced" : "automatic";
}

/* What it says is shown as it says it, also numbers beyond what JSON's readers take. */
static json_t *number(uint64_t value)
{
	return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

/* Why it does not get more than it has. */
static void add_growth(json_t *machine, const struct record_state *state)
{
	const char *word = state->flags & STATE_GROWS ? "can" : "cannot";

	if (state->unused_regions)
		word = "not put on line";
	else if (state->refused_regions)
		word = "refused";
	if (state->flags & STATE_MEMORY_DRIVER)
		json_object_set_new(machine, "growth", json_string(word));
	if (state->flags & STATE_MEMORY_SILENT)
		json_object_set_new(machine, "silent", json_true());
}

/*
 * So many, and so much text, that a line with all of them is never longer than who hears it has
 * room for: the machine process says what it likes.
 */
enum { KEYS_MOST = 64, KEYS_MOST_BYTES = 4096 };

/* Nothing that takes two characters in JSON. */
static json_t *plain_text(const char *text, size_t bytes)
{
	char plain[KEYS_MOST_BYTES];

	for (size_t n = 0; n < bytes; n++)
		plain[n] = text[n] == '"' || text[n] == '\\' ? '\'' : text[n];
	return json_stringn(plain, bytes);
}

static void add_key(json_t *keys, const char *line, size_t bytes)
{
	const char *middle = memchr(line, '=', bytes);
	const size_t key_bytes = middle ? (size_t)(middle - line) : 0;
	json_t *key = plain_text(line, key_bytes);

	if (key_bytes)
		json_object_set_new(keys, json_string_value(key),
				    plain_text(middle + 1, bytes - key_bytes - 1));
	json_decref(key);
}

void control_set_keys(struct control *control, const char *text)
{
	const char *begin = text;

	json_decref(control->keys);
	control->keys = json_object();
	for (unsigned n = 0; n < KEYS_MOST && *text; n++) {
		const size_t bytes = strcspn(text, "\n");

		if ((size_t)(text - begin) + bytes >= KEYS_MOST_BYTES)
			return;
		add_key(control->keys, text, bytes);
		text += bytes;
		text += *text == '\n';
	}
}

/* Who says it may be lost: no more than there is. */
static void add_remote(json_t *machine, const struct control *control)
{
	const json_int_t most = json_integer_value(json_object_get(machine, "memory"));
	const uint64_t left = control->remote_bytes
				      ? atomic_load_explicit(control->remote_bytes,
							     memory_order_relaxed)
				      : 0;

	if (left)
		json_object_set_new(machine, "remote",
				    json_integer(left < (uint64_t)most ? (json_int_t)left : most));
}

static json_t *describe(const struct control *control)
{
	json_t *machine = json_is_object(control->description) ? json_copy(control->description)
							       : json_object();
	const struct record_state *state = &control->state;

	json_object_set_new(machine, "process", json_integer(control->process));
	if (control->suspended)
		json_object_set_new(machine, "suspended", json_true());
	add_remote(machine, control);
	if (control->keys && json_object_size(control->keys))
		json_object_set(machine, "keys", control->keys);
	if (!control->has_state)
		return machine;
	json_object_set_new(machine, "guest", json_string(guest_word(state)));
	json_object_set_new(machine, "memory-mode", json_string(memory_word(state)));
	json_object_set_new(machine, "held", number(state->held_bytes));
	json_object_set_new(machine, "assigned", number(state->assigned_bytes));
	json_object_set_new(machine, "target", number(state->target_bytes));
	json_object_set_new(machine, "given-back", number(state->given_back_bytes));
	add_growth(machine, state);
	json_object_set_new(machine, "reports", number(state->reports));
	if (!(state->flags & STATE_MEMORY_STATUS))
		return machine;
	json_object_set_new(machine, "available", number(state->available_bytes));
	json_object_set_new(machine, "committed", number(state->committed_bytes));
	return machine;
}

/* ---- who watches ---- */

/* A line with descriptors. False: it cannot be sent now, or the peer is gone. */
static bool send_with(const struct control_peer *peer, const char *line, size_t bytes,
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
	return control_success(peer->watch_id, json_pack("{s:o}", "machine", describe(control)));
}

/* The first time with the descriptors. */
static void tell_watched(const struct control *control, struct control_peer *peer)
{
	char *line = watched_line(control, peer);

	if (line && !peer->has_watched && control->occupied_fd[0] >= 0 &&
	    send_with(peer, line, strlen(line), control->occupied_fd, CONTROL_OCCUPIED_FDS))
		free(line);
	else
		add_line(peer, line);
	peer->has_watched = true;
}

/* Now, or when what it was sent before has gone out, and there is a machine. */
static void tell_watcher(const struct control *control, struct control_peer *peer)
{
	peer->is_behind = !control->has_begun || has_output(peer);
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

static void tell_watchers(struct control *control)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (control->peer[n].fd >= 0 && control->peer[n].watches)
			tell_watcher(control, &control->peer[n]);
}

void control_began(struct control *control)
{
	control->has_begun = true;
	tell_watchers(control);
}

void control_set_state(struct control *control, const struct record_state *state)
{
	control->state = *state;
	control->has_state = true;
	tell_watchers(control);
}

static enum control_wish begin_save(struct control *control, struct control_peer *peer,
				    const struct control_request *request)
{
	if (control->save || control->forks) {
		add_line(peer, control_failure(request->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
	control->save = SAVE_RUNS;
	control->saver = peer;
	memcpy(peer->save_id, request->id, sizeof(peer->save_id));
	return WISH_SAVE;
}

static enum control_wish end_save(struct control *control, struct control_peer *peer,
				  const struct control_request *request)
{
	if (control->suspended) {
		control->suspended = false;
		control->forks = control->unsettled;
		add_line(peer, control_success(request->id, NULL));
		tell_watchers(control);
		return WISH_RESUME;
	}
	if (control->save != SAVE_HELD || control->saver != peer) {
		add_line(peer, control_failure(request->id, -EINVAL,
					       "it does not stand still for this connection"));
		return WISH_NOTHING;
	}
	control->save = SAVE_NONE;
	control->saver = NULL;
	add_line(peer, control_success(request->id, NULL));
	return WISH_RESUME;
}

/*
 * What the machine answers stands behind the bytes of a save that nobody takes: whoever asks for
 * registers goes without them, and the answer, when it comes, is for whoever asks later.
 */
static void refuse_lookers(struct control *control)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *peer = &control->peer[n];

		if (peer->fd >= 0 && peer->wants_registers)
			add_line(peer, control_failure(peer->look_id, -EBUSY,
						       "a save is under way"));
		peer->wants_registers = false;
	}
}

/* One question at a time for a peer; those of others are answered by the same. */
static enum control_wish begin_look(struct control *control, struct control_peer *peer,
				    const struct control_request *request)
{
	if (peer->wants_registers) {
		add_line(peer, control_failure(request->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
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
		add_line(peer, control_failure(request->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
	control->freezer = peer;
	control->freezes = 1;
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
	add_line(peer, error ? control_failure(control->freeze_id, error, NULL)
			  : control_success(control->freeze_id, NULL));
	if (!error && control->is_frozen)
		return true;
	control->freezer = NULL;
	control->is_frozen = false;
	return true;
}

/* ---- what is asked of the machine, one thing at a time ---- */

static int ask_data(struct control_ask *ask, const struct control_request *request)
{
	switch ((enum control_wish)request->verb->number) {
	case WISH_TYPE:
		ask->kind = RECORD_TYPE;
		return ask_data_codes(control_text(request, "codes"), ask->data, sizeof(ask->data));
	case WISH_COPY:
		ask->kind = RECORD_COPY_BEGIN;
		return ask_data_file(control_text(request, "folder"), control_text(request, "name"),
				     control_number(request, "bytes"),
				     control_number(request, "replaces"), ask->data,
				     sizeof(ask->data));
	case WISH_COPY_PIECE:
		ask->kind = RECORD_COPY_PIECE;
		return ask_data_base64(control_text(request, "data"), ask->data, sizeof(ask->data));
	case WISH_COPY_END:
		ask->kind = RECORD_COPY_END;
		ask->data[0] = !control_number(request, "incomplete");
		return 1;
	default: ask->kind = RECORD_SHOW; return 0;
	}
}

/* A file's pieces come from who has begun it. */
static int may_copy(const struct control *control, const struct control_peer *peer,
		    enum control_wish wish)
{
	if (wish == WISH_COPY)
		return control->copier ? -EBUSY : 0;
	if (wish == WISH_COPY_PIECE || wish == WISH_COPY_END)
		return control->copier == peer ? 0 : -EINVAL;
	return 0;
}

static enum control_wish begin_ask(struct control *control, struct control_peer *peer,
				   const struct control_request *request, enum control_wish wish)
{
	struct control_ask *ask = &control->ask;
	int bytes = ask->runs || control->forks ? -EBUSY : may_copy(control, peer, wish);

	if (!bytes)
		bytes = ask_data(ask, request);
	if (bytes < 0) {
		add_line(peer, control_failure(request->id, bytes, NULL));
		return WISH_NOTHING;
	}
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

	if (!ask->runs || ask->kind != RECORD_SHOW)
		return false;
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
		add_line(peer, control_failure(request->id, error, NULL));
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
	return peer && !has_output(peer) ? sizeof(peer->out) / 2 : 0;
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
	add_line(peer, control_success(control->trace.id,
				       json_pack("{s:o}", "dropped", number(dropped))));
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

	if (!ask->runs)
		return false;
	ask->runs = false;
	if (error > 0 || error < -CONTROL_ERRNO_MAX) /* the machine says what it likes */
		error = -EIO;
	if (error && ask->kind >= RECORD_COPY_BEGIN && control->copier == ask->peer)
		control->copier = NULL;
	if (!ask->peer)
		return true;
	if (error)
		add_line(ask->peer, control_failure(ask->id, error, NULL));
	else if (ask->kind == RECORD_SHOW)
		add_line(ask->peer, control_success(ask->id, picture_of(done)));
	else
		add_line(ask->peer, control_success(ask->id, NULL));
	ask->peer = NULL;
	return true;
}

/* Beyond what JSON's readers take: as text. */
static void set_hexadecimal(json_t *object, const char *name, uint64_t value)
{
	char text[sizeof("0x0123456789abcdef")];

	snprintf(text, sizeof(text), "%#lx", value);
	json_object_set_new(object, name, json_string(text));
}

/* Letters, digits and what else names of functions have; the machine process may say anything. */
static bool is_symbol(const char *text)
{
	return *text && memchr(text, 0, REGISTERS_SYMBOL_BYTES) &&
	       !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "0123456789_.$+")];
}

static json_t *describe_registers(const struct record_registers *registers)
{
	static const char *const gprs[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					      "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					      "r12", "r13", "r14", "r15" };
	static const char *const states[] = { "runs", "halted", "waits for its start",
					      "asleep" };
	json_t *object = json_object();

	json_object_set_new(
		object, "state",
		json_string(states[registers->state < REGISTERS_STATES ? registers->state : 0]));
	set_hexadecimal(object, "rip", registers->rip);
	set_hexadecimal(object, "rflags", registers->rflags);
	for (unsigned n = 0; n < 16; n++)
		set_hexadecimal(object, gprs[n], registers->gpr[n]);
	set_hexadecimal(object, "cs", registers->cs);
	set_hexadecimal(object, "ss", registers->ss);
	set_hexadecimal(object, "cr0", registers->cr0);
	set_hexadecimal(object, "cr2", registers->cr2);
	set_hexadecimal(object, "cr3", registers->cr3);
	set_hexadecimal(object, "cr4", registers->cr4);
	set_hexadecimal(object, "efer", registers->efer);
	set_hexadecimal(object, "lstar", registers->lstar);
	json_object_set_new(object, "last-exception", json_integer(registers->fault_vector));
	if (is_symbol(registers->symbol))
		json_object_set_new(object, "symbol", json_string(registers->symbol));
	return object;
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
		json_array_append_new(processors, describe_registers(&registers[n]));
	answer = json_pack("{s:o, s:s}", "processors", processors, "counters", control->counters);
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *peer = &control->peer[n];

		if (peer->fd >= 0 && peer->wants_registers)
			add_line(peer, control_success(peer->look_id, json_copy(answer)));
		peer->wants_registers = false;
	}
	json_decref(answer);
	return true;
}

/* ---- forks ---- */

static bool parse_parent(const char *word, enum control_wish *ret)
{
	if (!word || !strcmp(word, "keep"))
		*ret = WISH_RESUME;
	else if (!strcmp(word, "suspend"))
		*ret = WISH_NOTHING;
	else if (!strcmp(word, "end"))
		*ret = WISH_KILL;
	else
		return false;
	return true;
}

/* The file has come last. */
static int take_layer(struct control *control, struct control_peer *peer,
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
	layer->file = peer->kits[--peer->kit_fds];
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

static enum control_wish begin_fork(struct control *control, struct control_peer *peer,
				    const struct control_request *request)
{
	int error = 0;

	if (!control->can_fork)
		error = -EOPNOTSUPP;
	else if (peer->kit_fds && !may_copy_secrets(control, request))
		error = -EPERM;
	else if (control->save || control->forks || control->freezes || control->ask.runs)
		error = -EBUSY; /* an answer that is to come is not the child's to give */
	else if (!parse_parent(control_text(request, "parent"), &control->after_fork) ||
		 (!peer->kit_fds && !control->layers) || peer->kit_fds % control->kit_fds ||
		 peer->kit_fds / control->kit_fds > FORK_CHILDREN ||
		 (control->layers_of && control->layers_of != peer))
		error = -EINVAL;
	if (error) {
		drop_kits(peer);
		drop_layers(control, peer);
		add_line(peer, control_failure(request->id, error, NULL));
		return WISH_NOTHING;
	}
	control->forks = control->fork_waits = true;
	control->forker = peer;
	memcpy(peer->save_id, request->id, sizeof(peer->save_id));
	return WISH_FORK;
}

/* A fork without children that leaves the machine standing. */
static enum control_wish begin_pause(struct control *control, struct control_peer *peer,
				     const struct control_request *request)
{
	int error = 0;

	if (!control->can_stand)
		error = -EOPNOTSUPP;
	else if (control->save || control->forks || control->ask.runs || peer->kit_fds ||
		 control->layers_of)
		error = -EBUSY;
	if (error) {
		add_line(peer, control_failure(request->id, error, NULL));
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
	memcpy(kits, peer->kits, peer->kit_fds * sizeof(*kits));
	peer->kit_fds = 0;
	return count;
}

bool control_forked(struct control *control, unsigned child, int pid, int pidfd)
{
	char line[CONTROL_HEAD_BYTES + 64];
	int bytes;

	if (!control->forker || has_output(control->forker))
		return false;
	bytes = snprintf(line, sizeof(line), "{\"id\":%s,\"child\":%u,\"pid\":%d}\n",
			 control->forker->save_id, child, pid);
	return send_with(control->forker, line, (size_t)bytes, &pidfd, 1);
}

static void answer_fork(struct control *control, int error)
{
	control->forks = control->suspended;
	if (!control->forker)
		return;
	add_line(control->forker, error ? control_failure(control->forker->save_id, error, NULL)
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
	if (control->suspended)
		tell_watchers(control);
	control->fork_error = error;
	control->fork_children = children;
	control->unsettled = !is_settled;
	close_layers(control);
	if (is_settled)
		answer_fork(control, error);
	return then;
}

void control_settled(struct control *control, int error)
{
	if (!control->unsettled)
		return;
	control->unsettled = false;
	answer_fork(control, control->fork_error ? control->fork_error : error);
}

static bool may_ask(const struct control_peer *peer, enum control_wish wish)
{
	return !peer->is_narrow || wish == WISH_NOTHING || wish == WISH_WATCH ||
	       wish == WISH_ADVICE || wish == WISH_NARROW;
}

static enum control_wish begin_narrow(struct control *control, struct control_peer *peer,
				      const struct control_request *request)
{
	drop_kits(peer);
	drop_layers(control, peer);
	peer->is_narrow = true;
	add_line(peer, control_success(request->id, NULL));
	return WISH_NOTHING;
}

static enum control_wish take_request(struct control *control, struct control_peer *peer,
				      const struct control_request *request)
{
	enum control_wish wish = (enum control_wish)request->verb->number;

	if (!may_ask(peer, wish)) {
		add_line(peer,
			 control_failure(request->id, -EPERM, "this connection may only advise"));
		return WISH_NOTHING;
	}
	switch (wish) {
	case WISH_NARROW: return begin_narrow(control, peer, request);
	case WISH_SAVE: return begin_save(control, peer, request);
	case WISH_RESUME: return end_save(control, peer, request);
	case WISH_LOOK: return begin_look(control, peer, request);
	case WISH_FORK: return begin_fork(control, peer, request);
	case WISH_PAUSE: return begin_pause(control, peer, request);
	case WISH_WATCH: return begin_watch(control, peer, request);
	case WISH_TRACE: return begin_trace(control, peer, request);
	case WISH_FREEZE: case WISH_THAW: return begin_freeze(control, peer, request, wish);
	case WISH_TYPE: case WISH_SHOW: case WISH_COPY: case WISH_COPY_PIECE: case WISH_COPY_END:
		return begin_ask(control, peer, request, wish);
	case WISH_NOTHING:
		add_line(peer, control_success(request->id,
					       json_pack("{s:o}", "machine", describe(control))));
		return wish;
	case WISH_LAYER: {
		int error = take_layer(control, peer, request);

		add_line(peer, error ? control_failure(request->id, error, NULL)
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
	add_line(peer, control_success(request->id, NULL));
	return wish;
}

static enum control_wish take_line(struct control *control, struct control_peer *peer, size_t bytes)
{
	struct control_request request;
	const char *reason;
	enum control_wish wish = WISH_NOTHING;

	if (control_parse(peer->line, bytes, verbs, &request, &reason))
		add_line(peer, control_failure(request.id, -EINVAL, reason));
	else
		wish = take_request(control, peer, &request);
	control_request_free(&request);
	return wish;
}

/* As read(); descriptors that come along are kept for a fork, as many as it can have. */
static ssize_t receive(const struct control *control, struct control_peer *peer)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(FORK_CHILDREN * KIT_MOST_FDS * sizeof(int))];
	} ancillary;
	struct iovec vector = { .iov_base = peer->line + peer->line_used,
				.iov_len = sizeof(peer->line) - peer->line_used };
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
			peer->kits[peer->kit_fds++] = fd;
		else
			close(fd);
	}
	return n;
}

/* One line at a time: the next is looked at when its answer is out. */
static enum control_wish read_line(struct control *control, struct control_peer *peer)
{
	enum control_wish wish;
	char *end = memchr(peer->line, '\n', peer->line_used);

	if (!end) {
		ssize_t n = receive(control, peer);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return WISH_NOTHING;
		if (n <= 0)
			return hang_up(control, peer);
		peer->line_used += (size_t)n;
		end = memchr(peer->line, '\n', peer->line_used);
	}
	if (!end)
		return peer->line_used == sizeof(peer->line) ? hang_up(control, peer)
							     : WISH_NOTHING;
	wish = take_line(control, peer, (size_t)(end - peer->line));
	peer->line_used -= (size_t)(end + 1 - peer->line);
	memmove(peer->line, end + 1, peer->line_used);
	return wish;
}

static enum control_wish write_out(struct control *control, struct control_peer *peer)
{
	ssize_t n = write(peer->fd, peer->out + peer->out_at, peer->out_used - peer->out_at);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? WISH_NOTHING : hang_up(control, peer);
	peer->out_at += (size_t)n;
	if (peer->out_at == peer->out_used)
		peer->out_at = peer->out_used = 0;
	if (peer->is_behind && !has_output(peer))
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
			wish(context, has_output(peer) ? write_out(control, peer)
						       : read_line(control, peer));
	}
	if (control->thaw_is_due)
		wish(context, WISH_THAW);
	control->thaw_is_due = false;
	if (control->trace.has_changed)
		wish(context, WISH_TRACE);
	control->trace.has_changed = false;
	if (control->looks && control_is_full(control))
		refuse_lookers(control);
	if (fds[0].revents)
		accept_peer(control);
}

void control_end(struct control *control)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *peer = &control->peer[n];

		if (peer->fd >= 0 && has_output(peer))
			write_out(control, peer);
		if (peer->fd >= 0)
			hang_up(control, peer);
	}
}

bool control_saved(struct control *control, const uint8_t *data, uint32_t bytes)
{
	if (control->save != SAVE_RUNS)
		return false;
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
	add_line(peer, error ? control_failure(peer->save_id, error, NULL)
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
	close_layers(control);
	if (!error)
		return end_of_save(control, 0);
	end_of_save(control, error);
	return WISH_RESUME; /* it stands */
}
