#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void control_init(struct control *c, int listener, const char *description)
{
	memset(c, 0, sizeof(*c));
	c->listener = listener;
	c->peer = -1;
	c->description = description ? description : "";
}

bool control_has_output(const struct control *c) { return c->out_at < c->out_used; }
bool control_is_full(const struct control *c) { return sizeof(c->out) - c->out_used < RING_RECORD_MAX_BYTES + CONTROL_LINE_BYTES; }

bool control_has_line(const struct control *c) { return c->peer >= 0 && !control_has_output(c) && memchr(c->line, '\n', c->line_used); }

void control_accept(struct control *c)
{
	c->peer = accept4(c->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	c->line_used = c->out_at = c->out_used = 0;
}

/* One that holds the machine lets it go. A save that runs is ended by control_save_ended(). */
static enum control_wish hang_up(struct control *c)
{
	bool held = c->save == SAVE_HELD;

	close(c->peer);
	c->peer = -1;
	c->peer_saves = false;
	c->line_used = c->out_at = c->out_used = 0;
	if (!held)
		return WISH_NOTHING;
	c->save = SAVE_NONE;
	return WISH_RESUME;
}

static void add(struct control *c, const void *data, size_t bytes)
{
	if (c->peer < 0 || bytes > sizeof(c->out) - c->out_used)
		return;
	memcpy(c->out + c->out_used, data, bytes);
	c->out_used += bytes;
}

static void add_text(struct control *c, const char *text) { add(c, text, strlen(text)); }

static void add_error(struct control *c, int error)
{
	char text[32];

	snprintf(text, sizeof(text), "error %d\n", error);
	add_text(c, text);
}

static enum control_wish take_line(struct control *c, const char *line)
{
	enum control_wish wish = WISH_NOTHING;

	if (!strcmp(line, "save")) {
		if (c->save)
			return add_error(c, -EBUSY), WISH_NOTHING;
		c->save = SAVE_RUNS;
		c->peer_saves = true;
		return WISH_SAVE;
	}
	if (!strcmp(line, "stop"))
		wish = WISH_STOP;
	else if (!strcmp(line, "kill"))
		wish = WISH_KILL;
	else if (!strcmp(line, "go") && c->save == SAVE_HELD)
		wish = WISH_RESUME;
	else if (strcmp(line, "info"))
		return add_error(c, -EINVAL), WISH_NOTHING;
	if (wish == WISH_RESUME)
		c->save = SAVE_NONE;
	add_text(c, "ok");
	if (!wish) {
		add_text(c, " ");
		add_text(c, c->description);
	}
	add_text(c, "\n");
	return wish;
}

/* One line at a time: the next is read when its answer is out. */
enum control_wish control_read(struct control *c)
{
	enum control_wish wish;
	char *end = memchr(c->line, '\n', c->line_used);

	if (!end) {
		ssize_t n = read(c->peer, c->line + c->line_used, sizeof(c->line) - c->line_used);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return WISH_NOTHING;
		if (n <= 0)
			return hang_up(c);
		c->line_used += (size_t)n;
		end = memchr(c->line, '\n', c->line_used);
	}
	if (!end)
		return c->line_used == sizeof(c->line) ? hang_up(c) : WISH_NOTHING;
	*end = 0;
	wish = take_line(c, c->line);
	c->line_used -= (size_t)(end + 1 - c->line);
	memmove(c->line, end + 1, c->line_used);
	return wish;
}

enum control_wish control_write(struct control *c)
{
	ssize_t n = write(c->peer, c->out + c->out_at, c->out_used - c->out_at);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? WISH_NOTHING : hang_up(c);
	c->out_at += (size_t)n;
	if (c->out_at == c->out_used)
		c->out_at = c->out_used = 0;
	return WISH_NOTHING;
}

void control_end(struct control *c)
{
	if (c->peer >= 0 && control_has_output(c))
		control_write(c);
	if (c->peer >= 0)
		hang_up(c);
}

bool control_saved(struct control *c, const uint8_t *data, uint32_t bytes)
{
	char head[32];

	if (c->save != SAVE_RUNS)
		return false;
	if (!c->peer_saves)
		return true;
	snprintf(head, sizeof(head), "data %u\n", bytes);
	add_text(c, head);
	add(c, data, bytes);
	return true;
}

bool control_save_ended(struct control *c, int error, enum control_wish *ret)
{
	if (c->save != SAVE_RUNS)
		return false;
	c->save = error || !c->peer_saves ? SAVE_NONE : SAVE_HELD;
	*ret = !error && !c->peer_saves ? WISH_RESUME : WISH_NOTHING;
	if (!c->peer_saves)
		return true;
	if (error)
		add_error(c, error);
	else
		add_text(c, "held\n");
	return true;
}
