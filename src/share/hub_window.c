/*
 * The memory windows of joints (ipc/port_window.h): who has one, from when, and until when.
 *
 *   asked   a guest that may lend wants to: its joiner is asked for a new window
 *   given   both joiners have it for their machines
 *   common  both machines have it
 *   kept    of a port that has joined this hub with one from the hub before: until its peer comes
 *   taken   both joiners were told, or could be; until both machines have said that it is gone
 *   ended   a joiner is asked to leave no byte of it, until that is so
 *
 *   - A window is common only while the rules let one of its two ports lend to the other, be it
 *     only what is read, and both be joined; it is asked for only then.
 *   - It has all its parts at each port, or where one of the joiners knows of none the first.
 *   - A port that joins with one that is taken, or has ended, is told at once that it has none.
 *   - No port has it that was not joined with the other when it was given; who has not said within
 *     HUB_PATIENCE_MS that it has another one keeps nothing but a mapping of no bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub_internal.h"
#include "hub_line.h"

static void set_state(struct window *window, enum window_state state, int64_t within_ms)
{
	window->state = state;
	window->until_ms = hub_now_ms() + within_ms;
}

static bool is_over(const struct window *window) { return hub_now_ms() > window->until_ms; }

static struct window *new_window(struct hub *hub)
{
	for (unsigned n = 0; n < HUB_WINDOWS; n++) {
		if (hub->window[n].state != WINDOW_NONE)
			continue;
		if (n >= hub->windows_top)
			hub->windows_top = n + 1;
		return &hub->window[n];
	}
	return NULL;
}

static void enter(struct window *window, struct port *port)
{
	window->port[window->port[0] != NULL] = port;
	port->window = window;
}

static void detach(struct window *window)
{
	for (unsigned n = 0; n < 2; n++) {
		if (window->port[n])
			window->port[n]->window = NULL;
		window->port[n] = NULL;
	}
}

void window_clear(struct window *window)
{
	*window = (struct window){ .state = WINDOW_NONE };
	for (unsigned n = 0; n < SHARE_PARTS; n++)
		window->fd[n] = HUB_NOBODY;
}

static void window_free(struct window *window)
{
	detach(window);
	for (unsigned n = 0; n < SHARE_PARTS; n++)
		if (window->fd[n] != HUB_NOBODY)
			close(window->fd[n]);
	window_clear(window);
}

/* Its joiner; one that does not read is left. */
static void tell(struct port *port, enum wire_kind kind, uint32_t number, const int *fds,
		 unsigned count)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = kind,
					      .number = number };

	if (line_send(port->line, &message, fds, count))
		port->is_deaf = true;
}

static void tell_both(struct window *window, unsigned parts)
{
	for (unsigned n = 0; n < 2; n++)
		if (window->port[n]) {
			window->port[n]->window_number++;
			tell(window->port[n], WIRE_WINDOW, window->port[n]->window_number,
			     window->fd, parts);
		}
}

/* As both joiners know it. */
static unsigned parts_of(const struct window *window)
{
	for (unsigned n = 0; n < 2; n++)
		if (window->port[n]->version < WIRE_VERSION_PARTS)
			return 1;
	return SHARE_PARTS;
}

/*
 * Once both have mapped it, and before anything is lent there: whoever comes by another descriptor
 * of it maps nothing that can be written. A host's kernel before 5.1 does without.
 */
static void seal(const struct window *window)
{
	for (unsigned n = SHARE_PART_SERVES; n < window->parts; n++)
		if (fcntl(window->fd[n], F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL))
			errno = 0;
}

static bool have_accepted(const struct window *window)
{
	for (unsigned n = 0; n < 2; n++) {
		const struct port *port = window->port[n];

		if (port && __atomic_load_n(&port->memory->window_accepted, __ATOMIC_ACQUIRE) !=
				    port->window_number)
			return false;
	}
	return true;
}

/* ---- a joint's ---- */

int window_ask(struct hub *hub, struct port *from, bool read_only)
{
	const int64_t now = hub_now_ms();

	if (!hub_may_lend(hub, from, read_only)) {
		from->asked_ms = 0;
		return -EPERM;
	}
	if (!from->asked_ms)
		from->asked_ms = now;
	if (!from->window && !from->peer->window && now - from->asked_ms <= HUB_PATIENCE_MS) {
		struct window *window = new_window(hub);

		if (window) {
			enter(window, from);
			enter(window, from->peer);
			window->parts = parts_of(window);
			set_state(window, WINDOW_ASKED, HUB_PATIENCE_MS);
			tell(from, WIRE_WANT, window->parts, NULL, 0);
		}
	}
	if (from->window && from->window->state == WINDOW_COMMON) {
		from->asked_ms = 0;
		return 0;
	}
	from->wait_until_ms = from->asked_ms + HUB_PATIENCE_MS + 1;
	if (now - from->asked_ms <= HUB_PATIENCE_MS)
		return HUB_NO_ROOM;
	from->asked_ms = 0;
	return -ENOTCONN;
}

static bool is_part(int fd, unsigned part, struct stat *ret)
{
	return fd != HUB_NOBODY && !fstat(fd, ret) &&
	       ret->st_size == (off_t)share_part_bytes(part);
}

/* So many parts of one; the first one's inode tells it from others. */
static bool is_window(const int fds[SHARE_PARTS], unsigned parts, uint64_t *ret_inode)
{
	struct stat st;

	for (unsigned n = parts; n--;)
		if (!is_part(fds[n], n, &st))
			return false;
	*ret_inode = st.st_ino;
	return true;
}

bool window_bring(struct port *port, const int fds[SHARE_PARTS])
{
	struct window *window = port->window;

	if (!window || window->state != WINDOW_ASKED ||
	    !is_window(fds, window->parts, &window->inode))
		return false;
	memcpy(window->fd, fds, sizeof(window->fd));
	tell_both(window, window->parts);
	set_state(window, WINDOW_GIVEN, HUB_PATIENCE_MS);
	return true;
}

static struct window *find_window(struct hub *hub, uint64_t inode)
{
	for (unsigned n = 0; n < HUB_WINDOWS; n++) {
		struct window *window = &hub->window[n];

		if (window->state != WINDOW_NONE && window->state != WINDOW_ASKED &&
		    window->inode == inode)
			return window;
	}
	return NULL;
}

/* Copies of all its descriptors, or of none. */
static bool keep_parts(struct window *window, const int fds[SHARE_PARTS], unsigned parts)
{
	for (unsigned n = 0; n < parts; n++) {
		window->fd[n] = dup(fds[n]);
		if (window->fd[n] >= 0)
			continue;
		window_free(window);
		return false;
	}
	window->parts = parts;
	return true;
}

bool window_join(struct hub *hub, struct port *port, const int fds[SHARE_PARTS])
{
	const unsigned parts = fds[1] == HUB_NOBODY ? 1 : SHARE_PARTS;
	struct window *window;
	uint64_t inode;

	if (fds[0] == HUB_NOBODY)
		return true;
	port->has_lost = !is_window(fds, parts, &inode); /* it has ended */
	window = port->has_lost ? NULL : find_window(hub, inode);
	/* one that its peer has brought it may keep; what is another's, or will end, it may not */
	port->has_lost |= window && (window->state != WINDOW_KEPT || window->port[1]);
	if (port->has_lost)
		return true;
	if (!window) {
		window = new_window(hub);
		if (!window)
			return false;
		if (!keep_parts(window, fds, parts))
			return false;
		window->inode = inode;
		set_state(window, WINDOW_KEPT, HUB_PATIENCE_MS);
	}
	enter(window, port);
	return true;
}

void window_joined(struct port *port)
{
	if (!port->has_lost)
		return;
	port->has_lost = false;
	port->window_number++;
	tell(port, WIRE_WINDOW, port->window_number, NULL, 0);
}

void window_take(struct window *window)
{
	if (!window || window->state == WINDOW_TAKEN)
		return;
	if (window->state == WINDOW_ASKED) {
		window_free(window);
		return;
	}
	tell_both(window, 0);
	set_state(window, WINDOW_TAKEN, HUB_PATIENCE_MS);
}

void window_leave(struct port *port)
{
	struct window *window = port->window;

	if (!window)
		return;
	window->port[window->port[1] == port] = NULL;
	port->window = NULL;
	/* whether its machine has it still, nobody says, unless that is gone */
	window->was_left |= !hold_has_ended(port);
	window_take(window);
}

/* ---- their time ---- */

/* Who may lend may lend to be read, too (rules.h). */
static bool may_stay(struct hub *hub, struct window *window)
{
	return hub_may_lend(hub, window->port[0], true) || hub_may_lend(hub, window->port[1], true);
}

static bool is_pair(const struct window *window)
{
	return window->port[0] && window->port[1] && window->port[0]->peer == window->port[1];
}

static void look_at_kept(struct hub *hub, struct window *window)
{
	bool may = !is_over(window);

	for (unsigned n = 0; n < 2; n++) {
		struct port *port = window->port[n];

		if (port)
			may &= hub_may_be_joined(hub, port, hub_now_ms()) &&
			       (!port->peer || !window->port[1] || is_pair(window));
	}
	if (!may)
		window_take(window);
	else if (is_pair(window))
		set_state(window, WINDOW_COMMON, 0);
}

/* Nobody's any more: asked again each second, until it has no bytes. */
static void look_at_ended(struct hub *hub, struct window *window)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_END };
	unsigned ended = 0;
	struct stat st;

	for (unsigned n = 0; n < window->parts; n++)
		ended += !is_part(window->fd[n], n, &st);
	if (ended == window->parts) {
		window_free(window);
		return;
	}
	if (!is_over(window))
		return;
	set_state(window, WINDOW_ENDED, HUB_LOOK_MS);
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].memory)
			line_send(hub->port[n].line, &message, window->fd,
				  hub->port[n].version < WIRE_VERSION_PARTS ? 1 : window->parts);
}

static void end(struct hub *hub, struct window *window)
{
	detach(window);
	set_state(window, WINDOW_ENDED, -1);
	look_at_ended(hub, window);
}

static void look(struct hub *hub, struct window *window)
{
	switch (window->state) {
	case WINDOW_ASKED:
		if (is_over(window))
			window_take(window);
		break;
	case WINDOW_GIVEN:
		if (is_over(window)) {
			window_take(window);
		} else if (have_accepted(window)) {
			seal(window);
			set_state(window, WINDOW_COMMON, 0);
		}
		break;
	case WINDOW_COMMON:
		if (!may_stay(hub, window))
			window_take(window);
		break;
	case WINDOW_KEPT: look_at_kept(hub, window); break;
	case WINDOW_TAKEN:
		if (is_over(window) || (!window->was_left && have_accepted(window)))
			end(hub, window);
		break;
	case WINDOW_ENDED: look_at_ended(hub, window); break;
	default: break;
	}
}

void windows_look(struct hub *hub)
{
	for (unsigned n = 0; n < hub->windows_top; n++)
		look(hub, &hub->window[n]);
	while (hub->windows_top && hub->window[hub->windows_top - 1].state == WINDOW_NONE)
		hub->windows_top--;
}
