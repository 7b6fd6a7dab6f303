/* See control.h. */
#include "machine_control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void control_init(struct control *c, int listener, const char *description)
{
	memset(c, 0, sizeof(*c));
	c->listener = listener;
	c->description = description ? description : "";
	for (unsigned n = 0; n < CONTROL_PEERS; n++)
		c->peer[n].fd = -1;
}

static bool has_output(const struct control_peer *p) { return p->out_at < p->out_used; }
static bool has_line(const struct control_peer *p) { return p->fd >= 0 && !has_output(p) && memchr(p->line, '\n', p->line_used); }

bool control_is_full(const struct control *c)
{
	return c->saver && sizeof(c->saver->out) - c->saver->out_used < RING_RECORD_MAX_BYTES + CONTROL_LINE_BYTES;
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
		fds[1 + n] = (struct pollfd){ .fd = c->peer[n].fd, .events = has_output(&c->peer[n]) ? POLLOUT : POLLIN };
	}
	fds[0] = (struct pollfd){ .fd = room ? c->listener : -1, .events = POLLIN };
}

/* One that holds the machine lets it go. A save that runs is ended by control_save_ended(). */
static enum control_wish hang_up(struct control *c, struct control_peer *p)
{
	bool held = c->saver == p && c->save == SAVE_HELD;

	close(p->fd);
	p->fd = -1;
	if (c->saver == p)
		c->saver = NULL;
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

static void add_text(struct control_peer *p, const char *text) { add(p, text, strlen(text)); }

static void add_error(struct control_peer *p, int error)
{
	char text[32];

	snprintf(text, sizeof(text), "error %d\n", error);
	add_text(p, text);
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
	return s->flags & STATE_AUTOMATIC ? "automatic" : "set";
}

void control_set_state(struct control *c, const struct record_state *s)
{
	int used = snprintf(c->state, sizeof(c->state), "\"guest\":\"%s\",\"memory-mode\":\"%s\",\"assigned\":%lu,\"target\":%lu",
			    guest_word(s), memory_word(s), s->assigned_bytes, s->target_bytes);

	if (s->flags & STATE_MEMORY_STATUS)
		snprintf(c->state + used, sizeof(c->state) - (size_t)used, ",\"available\":%lu,\"committed\":%lu", s->available_bytes,
			 s->committed_bytes);
}

/* The description is a JSON object: the state goes before its last brace. */
static void add_description(struct control *c, struct control_peer *p)
{
	size_t bytes = strlen(c->description);

	add_text(p, " ");
	if (!c->state[0] || !bytes || c->description[bytes - 1] != '}') {
		add_text(p, c->description);
		return;
	}
	add(p, c->description, bytes - 1);
	add_text(p, ",");
	add_text(p, c->state);
	add_text(p, "}");
}

static bool parse_number(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return !errno && end != text && !*end && *text != '-';
}

static enum control_wish take_line(struct control *c, struct control_peer *p, const char *line)
{
	enum control_wish wish = WISH_NOTHING;

	if (!strcmp(line, "save")) {
		if (c->save)
			return add_error(p, -EBUSY), WISH_NOTHING;
		c->save = SAVE_RUNS;
		c->saver = p;
		return WISH_SAVE;
	}
	if (!strncmp(line, "memory ", 7) && parse_number(line + 7, &c->memory_bytes))
		wish = WISH_MEMORY;
	else if (!strcmp(line, "stop"))
		wish = WISH_STOP;
	else if (!strcmp(line, "kill"))
		wish = WISH_KILL;
	else if (!strcmp(line, "go") && c->save == SAVE_HELD && c->saver == p)
		wish = WISH_RESUME;
	else if (strcmp(line, "info"))
		return add_error(p, -EINVAL), WISH_NOTHING;
	if (wish == WISH_RESUME) {
		c->save = SAVE_NONE;
		c->saver = NULL;
	}
	add_text(p, "ok");
	if (!wish)
		add_description(c, p);
	add_text(p, "\n");
	return wish;
}

/* One line at a time: the next is looked at when its answer is out. */
static enum control_wish read_line(struct control *c, struct control_peer *p)
{
	enum control_wish wish;
	char *end = memchr(p->line, '\n', p->line_used);

	if (!end) {
		ssize_t n = read(p->fd, p->line + p->line_used, sizeof(p->line) - p->line_used);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return WISH_NOTHING;
		if (n <= 0)
			return hang_up(c, p);
		p->line_used += (size_t)n;
		end = memchr(p->line, '\n', p->line_used);
	}
	if (!end)
		return p->line_used == sizeof(p->line) ? hang_up(c, p) : WISH_NOTHING;
	*end = 0;
	wish = take_line(c, p, p->line);
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
	return WISH_NOTHING;
}

static void accept_peer(struct control *c)
{
	struct control_peer *p = free_peer(c);

	if (!p)
		return;
	p->fd = accept4(c->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	p->line_used = p->out_at = p->out_used = 0;
}

void control_turn(struct control *c, const struct pollfd fds[CONTROL_FDS], void (*wish)(void *context, enum control_wish wish), void *context)
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
	char head[32];

	if (c->save != SAVE_RUNS)
		return false;
	if (!c->saver)
		return true;
	snprintf(head, sizeof(head), "data %u\n", bytes);
	add_text(c->saver, head);
	add(c->saver, data, bytes);
	return true;
}

bool control_save_ended(struct control *c, int error, enum control_wish *ret)
{
	if (c->save != SAVE_RUNS)
		return false;
	c->save = error || !c->saver ? SAVE_NONE : SAVE_HELD;
	*ret = !error && !c->saver ? WISH_RESUME : WISH_NOTHING;
	if (!c->saver)
		return true;
	if (!error) {
		add_text(c->saver, "held\n");
		return true;
	}
	add_error(c->saver, error);
	c->saver = NULL;
	return true;
}
