/* See machine_control.h. */
#include "machine_control.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct control_verb verbs[] = {
	{ .name = "info", .number = WISH_NOTHING },
	{ .name = "stop", .number = WISH_STOP },
	{ .name = "kill", .number = WISH_KILL },
	{ .name = "save", .number = WISH_SAVE },
	{ .name = "resume", .number = WISH_RESUME },
	{ .name = "registers", .number = WISH_LOOK },
	{ .name = "memory",
	  .number = WISH_MEMORY,
	  .member = { { "bytes", CONTROL_NUMBER, true } } },
	{ .name = "watch", .number = WISH_WATCH },
	{ .name = "advise",
	  .number = WISH_ADVICE,
	  .member = { { "bytes", CONTROL_NUMBER, true } } },
	{ .name = "kit", .number = WISH_KIT },
	{ .name = "layer",
	  .number = WISH_LAYER,
	  .member = { { "disk", CONTROL_NUMBER, true }, { "file", CONTROL_TEXT, true } } },
	{ .name = "fork",
	  .number = WISH_FORK,
	  .member = { { "parent", CONTROL_TEXT, false } } },
	{ 0 },
};

void control_init(struct control *c, int listener, const char *description)
{
	control_protocol_init();
	memset(c, 0, sizeof(*c));
	c->listener = listener;
	c->occupied_fd[0] = -1;
	c->kit_fds = KIT_FDS;
	c->description = json_loads(description, 0, NULL);
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		c->peer[n].fd = -1;
}

static bool has_output(const struct control_peer *p) { return p->out_at < p->out_used; }
static bool has_line(const struct control_peer *p)
{
	return p->fd >= 0 && !has_output(p) && memchr(p->line, '\n', p->line_used);
}

bool control_is_full(const struct control *c)
{
	return c->saver && sizeof(c->saver->out) - c->saver->out_used <
				   RING_RECORD_MAX_BYTES + CONTROL_HEAD_BYTES;
}

bool control_has_line(const struct control *c)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (has_line(&c->peer[n]))
			return true;
	return false;
}

static struct control_peer *free_peer(struct control *c)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (c->peer[n].fd < 0)
			return &c->peer[n];
	return NULL;
}

void control_events(const struct control *c, struct pollfd fds[CONTROL_FDS])
{
	bool room = false;

	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		room |= c->peer[n].fd < 0;
		fds[1 + n] =
			(struct pollfd){ .fd = c->peer[n].fd,
					 .events = has_output(&c->peer[n]) ? POLLOUT : POLLIN };
	}
	fds[0] = (struct pollfd){ .fd = room ? c->listener : -1, .events = POLLIN };
}

static void drop_kits(struct control_peer *p)
{
	while (p->kit_fds)
		close(p->kits[--p->kit_fds]);
}

/* Those whose files the disk process has are closed already. */
static void close_layers(struct control *c)
{
	while (c->layers)
		if (c->layer[--c->layers].file >= 0)
			close(c->layer[c->layers].file);
	c->layers_of = NULL;
}

static void drop_layers(struct control *c, const struct control_peer *p)
{
	if (c->layers_of == p)
		close_layers(c);
}

/* What the machine was not told yet it is not told any more. */
static void drop_fork(struct control *c, const struct control_peer *p)
{
	if (c->forker != p)
		return;
	c->forker = NULL;
	if (c->fork_waits)
		c->fork_waits = c->forks = false;
}

/* One that holds the machine lets it go. A save that runs is ended by control_save_ended(). */
static enum control_wish hang_up(struct control *c, struct control_peer *p)
{
	bool held = c->saver == p && c->save == SAVE_HELD;

	close(p->fd);
	p->fd = -1;
	drop_kits(p);
	drop_layers(c, p);
	if (c->saver == p)
		c->saver = NULL;
	drop_fork(c, p);
	p->watches = p->is_behind = false;
	if (c->adviser == p) {
		c->adviser = NULL;
		c->advice_bytes = 0;
		return WISH_ADVICE;
	}
	if (!held)
		return WISH_NOTHING;
	c->save = SAVE_NONE;
	return WISH_RESUME;
}

static void add(struct control_peer *p, const void *data, size_t bytes)
{
	if (bytes > sizeof(p->out) - p->out_used)
		return;
	memcpy(p->out + p->out_used, data, bytes);
	p->out_used += bytes;
}

/* Released. */
static void add_line(struct control_peer *p, char *line)
{
	if (line)
		add(p, line, strlen(line));
	free(line);
}

static const char *guest_word(const struct record_state *s)
{
	if (s->flags & STATE_ANSWERS)
		return "answers";
	return s->flags & STATE_SILENT ? "silent" : "unknown";
}

static const char *memory_word(const struct record_state *s)
{
	if (!(s->flags & STATE_MEMORY_DRIVER))
		return "no driver";
	if (!(s->flags & STATE_AUTOMATIC))
		return "set";
	return s->flags & STATE_ADVISED ? "balanced" : "automatic";
}

/* What it says is shown as it says it, also numbers beyond what JSON's readers take. */
static json_t *number(uint64_t value)
{
	return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

/* Why it does not get more than it has. */
static void add_growth(json_t *machine, const struct record_state *s)
{
	const char *word = s->flags & STATE_GROWS ? "can" : "cannot";

	if (s->unused_regions)
		word = "not put on line";
	else if (s->refused_regions)
		word = "refused";
	if (s->flags & STATE_MEMORY_DRIVER)
		json_object_set_new(machine, "growth", json_string(word));
	if (s->flags & STATE_MEMORY_SILENT)
		json_object_set_new(machine, "silent", json_true());
}

static json_t *describe(const struct control *c)
{
	json_t *machine =
		json_is_object(c->description) ? json_copy(c->description) : json_object();
	const struct record_state *s = &c->state;

	json_object_set_new(machine, "process", json_integer(c->process));
	if (c->suspended)
		json_object_set_new(machine, "suspended", json_true());
	if (!c->has_state)
		return machine;
	json_object_set_new(machine, "guest", json_string(guest_word(s)));
	json_object_set_new(machine, "memory-mode", json_string(memory_word(s)));
	json_object_set_new(machine, "held", number(s->held_bytes));
	json_object_set_new(machine, "assigned", number(s->assigned_bytes));
	json_object_set_new(machine, "target", number(s->target_bytes));
	json_object_set_new(machine, "given-back", number(s->given_back_bytes));
	add_growth(machine, s);
	json_object_set_new(machine, "reports", number(s->reports));
	if (!(s->flags & STATE_MEMORY_STATUS))
		return machine;
	json_object_set_new(machine, "available", number(s->available_bytes));
	json_object_set_new(machine, "committed", number(s->committed_bytes));
	return machine;
}

/* ---- who watches ---- */

/* A line with descriptors. False: it cannot be sent now, or the peer is gone. */
static bool send_with(const struct control_peer *p, const char *line, size_t bytes, const int *fds,
		      unsigned count)
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
	return sendmsg(p->fd, &message, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static char *watched_line(const struct control *c, const struct control_peer *p)
{
	return control_success(p->watch_id, json_pack("{s:o}", "machine", describe(c)));
}

/* Now, or when what it was sent before has gone out. */
static void tell_watcher(const struct control *c, struct control_peer *p)
{
	p->is_behind = has_output(p);
	if (!p->is_behind)
		add_line(p, watched_line(c, p));
}

static enum control_wish begin_watch(const struct control *c, struct control_peer *p,
				     const struct control_request *r)
{
	char *line;

	memcpy(p->watch_id, r->id, sizeof(p->watch_id));
	p->watches = true;
	line = watched_line(c, p);
	if (line && c->occupied_fd[0] >= 0 &&
	    send_with(p, line, strlen(line), c->occupied_fd, CONTROL_OCCUPIED_FDS))
		free(line);
	else
		add_line(p, line);
	return WISH_NOTHING;
}

void control_set_state(struct control *c, const struct record_state *s)
{
	c->state = *s;
	c->has_state = true;
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		if (c->peer[n].fd >= 0 && c->peer[n].watches)
			tell_watcher(c, &c->peer[n]);
}

static enum control_wish begin_save(struct control *c, struct control_peer *p,
				    const struct control_request *r)
{
	if (c->save || c->forks) {
		add_line(p, control_failure(r->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
	c->save = SAVE_RUNS;
	c->saver = p;
	memcpy(p->save_id, r->id, sizeof(p->save_id));
	return WISH_SAVE;
}

static enum control_wish end_save(struct control *c, struct control_peer *p,
				  const struct control_request *r)
{
	if (c->suspended) {
		c->suspended = false;
		c->forks = c->unsettled;
		add_line(p, control_success(r->id, NULL));
		return WISH_RESUME;
	}
	if (c->save != SAVE_HELD || c->saver != p) {
		add_line(p, control_failure(r->id, -EINVAL,
					    "it does not stand still for this connection"));
		return WISH_NOTHING;
	}
	c->save = SAVE_NONE;
	c->saver = NULL;
	add_line(p, control_success(r->id, NULL));
	return WISH_RESUME;
}

/* One question at a time for a peer; those of others are answered by the same. */
static enum control_wish begin_look(struct control *c, struct control_peer *p,
				    const struct control_request *r)
{
	if (p->wants_registers) {
		add_line(p, control_failure(r->id, -EBUSY, NULL));
		return WISH_NOTHING;
	}
	p->wants_registers = true;
	memcpy(p->look_id, r->id, sizeof(p->look_id));
	if (c->looks)
		return WISH_NOTHING;
	c->looks = 1;
	return WISH_LOOK;
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

static json_t *describe_registers(const struct record_registers *r)
{
	static const char *const gprs[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					      "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					      "r12", "r13", "r14", "r15" };
	static const char *const states[] = { "runs", "halted", "waits for its start" };
	json_t *object = json_object();

	json_object_set_new(object, "state",
			    json_string(states[r->state < REGISTERS_STATES ? r->state : 0]));
	set_hexadecimal(object, "rip", r->rip);
	set_hexadecimal(object, "rflags", r->rflags);
	for (unsigned n = 0; n < 16; n++)
		set_hexadecimal(object, gprs[n], r->gpr[n]);
	set_hexadecimal(object, "cs", r->cs);
	set_hexadecimal(object, "ss", r->ss);
	set_hexadecimal(object, "cr0", r->cr0);
	set_hexadecimal(object, "cr2", r->cr2);
	set_hexadecimal(object, "cr3", r->cr3);
	set_hexadecimal(object, "cr4", r->cr4);
	set_hexadecimal(object, "efer", r->efer);
	set_hexadecimal(object, "lstar", r->lstar);
	json_object_set_new(object, "last-exception", json_integer(r->fault_vector));
	if (is_symbol(r->symbol))
		json_object_set_new(object, "symbol", json_string(r->symbol));
	return object;
}

bool control_looked(struct control *c, const struct record_registers *registers, unsigned count)
{
	json_t *processors;
	json_t *answer;

	if (!c->looks)
		return false;
	processors = json_array();
	c->looks = 0;
	for (unsigned n = 0; n < count; n++)
		json_array_append_new(processors, describe_registers(&registers[n]));
	answer = json_pack("{s:o, s:s}", "processors", processors, "counters", c->counters);
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *p = &c->peer[n];

		if (p->fd >= 0 && p->wants_registers)
			add_line(p, control_success(p->look_id, json_copy(answer)));
		p->wants_registers = false;
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
static int take_layer(struct control *c, struct control_peer *p, const struct control_request *r)
{
	const char *path = control_text(r, "file");
	struct control_layer *layer = &c->layer[c->layers];
	size_t bytes = strlen(path) + 1;

	if (c->forks || (c->layers_of && c->layers_of != p))
		return -EBUSY;
	if (!p->kit_fds || c->layers == CONTROL_LAYERS || bytes > sizeof(layer->path) ||
	    control_number(r, "disk") >= CONTROL_LAYERS)
		return -EINVAL;
	layer->disk = (uint32_t)control_number(r, "disk");
	layer->file = p->kits[--p->kit_fds];
	memcpy(layer->path, path, bytes);
	c->layers_of = p;
	c->layers++;
	return 0;
}

void control_layer_is_on(struct control *c, unsigned n)
{
	const struct control_layer *layer = &c->layer[n];
	json_t *disk = json_array_get(json_object_get(c->description, "disks"), layer->disk);

	if (!json_is_object(disk))
		return;
	json_object_set_new(disk, "file", json_string(layer->path));
}

static enum control_wish begin_fork(struct control *c, struct control_peer *p,
				    const struct control_request *r)
{
	int error = 0;

	if (!c->can_fork)
		error = -EOPNOTSUPP;
	else if (c->save || c->forks)
		error = -EBUSY;
	else if (!parse_parent(control_text(r, "parent"), &c->after_fork) || !p->kit_fds ||
		 p->kit_fds % c->kit_fds ||
		 p->kit_fds / c->kit_fds > FORK_CHILDREN || (c->layers_of && c->layers_of != p))
		error = -EINVAL;
	if (error) {
		drop_kits(p);
		drop_layers(c, p);
		add_line(p, control_failure(r->id, error, NULL));
		return WISH_NOTHING;
	}
	c->forks = c->fork_waits = true;
	c->forker = p;
	memcpy(p->save_id, r->id, sizeof(p->save_id));
	return WISH_FORK;
}

unsigned control_take_kits(struct control *c, int kits[FORK_CHILDREN * KIT_MOST_FDS])
{
	struct control_peer *p = c->forker;
	unsigned count;

	assert(c->fork_waits && p);
	count = p->kit_fds / c->kit_fds;
	c->fork_waits = false;
	memcpy(kits, p->kits, p->kit_fds * sizeof(*kits));
	p->kit_fds = 0;
	return count;
}

bool control_forked(struct control *c, unsigned child, int pid, int pidfd)
{
	char line[CONTROL_HEAD_BYTES + 64];
	int bytes;

	if (!c->forker || has_output(c->forker))
		return false;
	bytes = snprintf(line, sizeof(line), "{\"id\":%s,\"child\":%u,\"pid\":%d}\n",
			 c->forker->save_id, child, pid);
	return send_with(c->forker, line, (size_t)bytes, &pidfd, 1);
}

static void answer_fork(struct control *c, int error)
{
	c->forks = c->suspended;
	if (!c->forker)
		return;
	add_line(c->forker, error ? control_failure(c->forker->save_id, error, NULL)
				  : control_success(c->forker->save_id,
						    json_pack("{s:i}", "children",
							      (int)c->fork_children)));
	c->forker = NULL;
}

enum control_wish control_fork_ended(struct control *c, int error, unsigned children,
				     bool is_settled)
{
	enum control_wish then = error && !children ? WISH_RESUME : c->after_fork;

	c->suspended = then == WISH_NOTHING;
	c->fork_error = error;
	c->fork_children = children;
	c->unsettled = !is_settled;
	close_layers(c);
	if (is_settled)
		answer_fork(c, error);
	return then;
}

void control_settled(struct control *c, int error)
{
	if (!c->unsettled)
		return;
	c->unsettled = false;
	answer_fork(c, c->fork_error ? c->fork_error : error);
}

static enum control_wish take_request(struct control *c, struct control_peer *p,
				      const struct control_request *r)
{
	enum control_wish wish = (enum control_wish)r->verb->number;

	switch (wish) {
	case WISH_SAVE: return begin_save(c, p, r);
	case WISH_RESUME: return end_save(c, p, r);
	case WISH_LOOK: return begin_look(c, p, r);
	case WISH_FORK: return begin_fork(c, p, r);
	case WISH_WATCH: return begin_watch(c, p, r);
	case WISH_NOTHING:
		add_line(p, control_success(r->id, json_pack("{s:o}", "machine", describe(c))));
		return wish;
	case WISH_LAYER: {
		int error = take_layer(c, p, r);

		add_line(p, error ? control_failure(r->id, error, NULL)
				  : control_success(r->id, NULL));
		return WISH_NOTHING;
	}
	case WISH_MEMORY: c->memory_bytes = control_number(r, "bytes"); break;
	case WISH_ADVICE:
		c->advice_bytes = control_number(r, "bytes");
		c->adviser = p;
		break;
	default: break;
	}
	add_line(p, control_success(r->id, NULL));
	return wish;
}

static enum control_wish take_line(struct control *c, struct control_peer *p, size_t bytes)
{
	struct control_request request;
	const char *reason;
	enum control_wish wish = WISH_NOTHING;

	if (control_parse(p->line, bytes, verbs, &request, &reason))
		add_line(p, control_failure(request.id, -EINVAL, reason));
	else
		wish = take_request(c, p, &request);
	control_request_free(&request);
	return wish;
}

/* As read(); descriptors that come along are kept for a fork, as many as it can have. */
static ssize_t receive(const struct control *c, struct control_peer *p)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(FORK_CHILDREN * KIT_MOST_FDS * sizeof(int))];
	} ancillary;
	struct iovec vector = { .iov_base = p->line + p->line_used,
				.iov_len = sizeof(p->line) - p->line_used };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };
	ssize_t n = recvmsg(p->fd, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *head = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
	size_t count = 0;

	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
		count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t k = 0; k < count; k++) {
		int fd;

		memcpy(&fd, CMSG_DATA(head) + k * sizeof(fd), sizeof(fd));
		if (p->kit_fds < FORK_CHILDREN * c->kit_fds)
			p->kits[p->kit_fds++] = fd;
		else
			close(fd);
	}
	return n;
}

/* One line at a time: the next is looked at when its answer is out. */
static enum control_wish read_line(struct control *c, struct control_peer *p)
{
	enum control_wish wish;
	char *end = memchr(p->line, '\n', p->line_used);

	if (!end) {
		ssize_t n = receive(c, p);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return WISH_NOTHING;
		if (n <= 0)
			return hang_up(c, p);
		p->line_used += (size_t)n;
		end = memchr(p->line, '\n', p->line_used);
	}
	if (!end)
		return p->line_used == sizeof(p->line) ? hang_up(c, p) : WISH_NOTHING;
	wish = take_line(c, p, (size_t)(end - p->line));
	p->line_used -= (size_t)(end + 1 - p->line);
	memmove(p->line, end + 1, p->line_used);
	return wish;
}

static enum control_wish write_out(struct control *c, struct control_peer *p)
{
	ssize_t n = write(p->fd, p->out + p->out_at, p->out_used - p->out_at);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? WISH_NOTHING : hang_up(c, p);
	p->out_at += (size_t)n;
	if (p->out_at == p->out_used)
		p->out_at = p->out_used = 0;
	if (p->is_behind && !has_output(p))
		tell_watcher(c, p);
	return WISH_NOTHING;
}

static void accept_peer(struct control *c)
{
	struct control_peer *p = free_peer(c);

	if (!p)
		return;
	p->fd = accept4(c->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	p->line_used = p->out_at = p->out_used = 0;
	p->wants_registers = p->watches = p->is_behind = false;
	p->kit_fds = 0;
}

void control_turn(struct control *c, const struct pollfd fds[CONTROL_FDS],
		  void (*wish)(void *context, enum control_wish wish), void *context)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *p = &c->peer[n];

		if (p->fd >= 0 && (fds[1 + n].revents || has_line(p)))
			wish(context, has_output(p) ? write_out(c, p) : read_line(c, p));
	}
	if (fds[0].revents)
		accept_peer(c);
}

void control_end(struct control *c)
{
	for (unsigned n = 0; n < CONTROL_PEERS; n++) {
		struct control_peer *p = &c->peer[n];

		if (p->fd >= 0 && has_output(p))
			write_out(c, p);
		if (p->fd >= 0)
			hang_up(c, p);
	}
}

bool control_saved(struct control *c, const uint8_t *data, uint32_t bytes)
{
	char head[CONTROL_HEAD_BYTES];
	int used;

	if (c->save != SAVE_RUNS)
		return false;
	if (!c->saver)
		return true;
	used = snprintf(head, sizeof(head), "{\"id\":%s,\"data\":%u}\n", c->saver->save_id, bytes);
	add(c->saver, head, (size_t)used);
	add(c->saver, data, bytes);
	return true;
}

bool control_save_ended(struct control *c, int error, enum control_wish *ret)
{
	if (c->save != SAVE_RUNS)
		return false;
	if (error > 0 || error < -CONTROL_ERRNO_MAX) /* the machine says what it likes */
		error = -EIO;
	c->save = error || !c->saver ? SAVE_NONE : SAVE_HELD;
	*ret = !error && !c->saver ? WISH_RESUME : WISH_NOTHING;
	if (!c->saver)
		return true;
	if (!error) {
		add_line(c->saver, control_success(c->saver->save_id, NULL));
		return true;
	}
	add_line(c->saver, control_failure(c->saver->save_id, error, NULL));
	c->saver = NULL;
	return true;
}
