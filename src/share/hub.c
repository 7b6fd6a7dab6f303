/* See hub.h: lines, ports and joints. One thread, one poll. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hub_internal.h"
#include "hub_line.h"
#include "lib/check.h"

enum { LONELY_MS = 5000 };
/* so many times ports are served before lines are looked at again */
enum { SERVES = 64 };

int64_t hub_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct port *new_port(struct hub *hub, int line)
{
	for (unsigned n = 0; n < HUB_PORTS; n++) {
		struct port *port = &hub->port[n];

		if (port->line != HUB_NOBODY)
			continue;
		*port = (struct port){ .line = line, .bell = HUB_NOBODY, .answer = HUB_NOBODY,
				       .end = HUB_NOBODY };
		hub->ports++;
		if (n == hub->top)
			hub->top++;
		return port;
	}
	return NULL;
}

/* ---- joints ---- */

static bool fit_together(const struct port *port, const struct port *other)
{
	return port->memory && other->memory && !other->peer &&
	       port->join.side != other->join.side &&
	       !strcmp(port->join.instance, other->join.instance) &&
	       !strcmp(port->join.class, other->join.class);
}

/* What was on its way is lost: both ends hear of it, also when they are joined again at once. */
static void count_parting(const struct port *port)
{
	__atomic_fetch_add(&port->memory->partings, 1, __ATOMIC_RELAXED);
}

static void part(struct port *port)
{
	if (!port->peer)
		return;
	window_take(port->window);
	count_parting(port);
	count_parting(port->peer);
	port->asked_ms = port->peer->asked_ms = 0;
	port->peer->peer = NULL;
	port->peer = NULL;
}

static void find_peer(struct hub *hub, struct port *port)
{
	const int64_t now = hub_now_ms();

	if (port->peer || !port->memory || !hub_may_be_joined(hub, port, now))
		return;
	for (unsigned n = 0; n < hub->top; n++) {
		struct port *other = &hub->port[n];

		if (!fit_together(port, other) || !hub_may_be_joined(hub, other, now))
			continue;
		port->peer = other;
		other->peer = port;
		port->was_joined = other->was_joined = true;
		hub->joints++;
		return;
	}
}

static void join_all(struct hub *hub)
{
	const int64_t now = hub_now_ms();

	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].peer && !hub_may_be_joined(hub, &hub->port[n], now))
			part(&hub->port[n]);
	for (unsigned n = 0; n < hub->top; n++)
		find_peer(hub, &hub->port[n]);
}

static void close_if(int fd)
{
	if (fd != HUB_NOBODY)
		close(fd);
}

static void port_leave(struct hub *hub, struct port *port)
{
	window_leave(port);
	part(port);
	if (port->memory)
		munmap(port->memory, sizeof(*port->memory));
	close_if(port->bell);
	close_if(port->answer);
	close_if(port->end);
	close(port->line);
	*port = (struct port){ .line = HUB_NOBODY, .bell = HUB_NOBODY, .answer = HUB_NOBODY,
			       .end = HUB_NOBODY };
	hub->ports--;
	while (hub->top && hub->port[hub->top - 1].line == HUB_NOBODY)
		hub->top--;
	hub->lonely_ms = hub_now_ms();
	join_all(hub);
}

/* ---- lines ---- */

static bool has_end(const char *text, size_t room) { return memchr(text, 0, room); }

static bool join_is_sound(const struct wire_join *join)
{
	return (join->side == SHARE_SERVES || join->side == SHARE_BINDS) &&
	       has_end(join->machine, sizeof(join->machine)) &&
	       has_end(join->instance, sizeof(join->instance)) &&
	       has_end(join->class, sizeof(join->class));
}

static struct share_memory *map_port(int fd, uint64_t *ret_inode)
{
	struct share_memory *memory;
	struct stat st;

	if (fd == HUB_NOBODY || fstat(fd, &st) || st.st_size != sizeof(*memory))
		return NULL;
	*ret_inode = st.st_ino;
	memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

/* Serves the generation that the memory has now. False: the line is of no use. */
static bool port_join(struct hub *hub, struct port *port, const struct wire_join *join,
		      int fds[WIRE_FDS])
{
	struct wire_message answer = { .magic = WIRE_MAGIC, .kind = WIRE_JOINED };
	struct port *held;

	if (port->memory || !join_is_sound(join) || fds[1] == HUB_NOBODY || fds[2] == HUB_NOBODY)
		return false;
	if (join->least > WIRE_VERSION || join->most < WIRE_VERSION_LEAST) {
		line_send(port->line, &answer, NULL, 0);
		return false;
	}
	port->memory = map_port(fds[0], &port->memory_inode);
	port->join = *join;
	port->window_number = join->window_number;
	if (!port->memory || !window_join(hub, port, fds + WIRE_JOIN_FDS))
		return false;
	port->bell = fds[1];
	port->answer = fds[2];
	fds[1] = fds[2] = HUB_NOBODY;
	port->slots = (struct slot_server){ .queue = &port->memory->queue, .slots = SHARE_SLOTS,
					    .doorbell_fd = port->bell, .answer_fd = port->answer };
	port->generation = __atomic_load_n(&port->memory->generation, __ATOMIC_ACQUIRE);
	port->joined_ms = hub_now_ms();
	port->version = answer.version = join->most < WIRE_VERSION ? join->most : WIRE_VERSION;
	port->between_until_ms = port->joined_ms + HUB_PATIENCE_MS;
	held = hold_end(hub, port);
	if (held)
		port_leave(hub, held);
	find_peer(hub, port);
	if (line_send(port->line, &answer, NULL, 0))
		return false;
	window_joined(port);
	return true;
}

static void take_rules(struct hub *hub, int fd)
{
	static char text[RULES_FILE_BYTES + 1];
	ssize_t bytes = fd == HUB_NOBODY ? 0 : pread(fd, text, sizeof(text), 0);

	if (bytes < 0 || bytes > RULES_FILE_BYTES)
		bytes = 0;
	rules_parse(&hub->rules, text, (size_t)bytes);
	hub->rules_read++;
	for (unsigned n = 0; n < hub->top; n++)
		for (unsigned act = 0; act < RULE_ACTS; act++)
			hub->port[n].decision[act].until_ms = 0;
	join_all(hub);
}

/* False: the line is closed. */
static bool take_message(struct hub *hub, struct port *port, const struct wire_message *message,
			 int fds[WIRE_FDS])
{
	switch (message->kind) {
	case WIRE_RULES: take_rules(hub, fds[0]); return true;
	case WIRE_AGENT:
		if (fds[0] != HUB_NOBODY)
			agent_set(hub->agent, fds[0]);
		fds[0] = HUB_NOBODY;
		join_all(hub);
		return true;
	case WIRE_JOIN: return port_join(hub, port, &message->join, fds);
	case WIRE_WINDOW:
		for (unsigned n = 0, parts = window_bring(port, fds) ? port->window->parts : 0;
		     n < parts; n++)
			fds[n] = HUB_NOBODY;
		return true;
	case WIRE_HOLD:
		if (port->memory && port->end == HUB_NOBODY) {
			port->end = fds[0];
			fds[0] = HUB_NOBODY;
		}
		return true;
	case WIRE_SHOW: return hub_show(hub, port->line);
	default: return false;
	}
}

static void take_line(struct hub *hub, struct port *port)
{
	struct wire_message message;
	int fds[WIRE_FDS];
	int got = line_receive(port->line, &message, fds, false);
	bool stays = !got || (got > 0 && take_message(hub, port, &message, fds)) ||
		     (got < 0 && got != -EBADMSG && hold_begin(port));

	for (unsigned n = 0; n < WIRE_FDS; n++)
		close_if(fds[n]);
	if (!stays)
		port_leave(hub, port);
}

void hub_add_line(struct hub *hub, int line)
{
	if (!new_port(hub, line))
		close(line);
}

static void accept_line(struct hub *hub)
{
	int fd = accept4(hub->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		hub_add_line(hub, fd);
}

/* ---- packets ---- */

/*
 * Of a word beside the queue: who does not sleep looks for replies alone before he does, and would
 * not find it (slot_clients_sleep()).
 */
static void wake_device(const struct port *port)
{
	ssize_t written = write(port->answer, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

/* The port's device has taken this hub for its own. */
static bool has_begun(struct port *port)
{
	if (port->begun)
		return true;
	if (__atomic_load_n(&port->memory->accepted, __ATOMIC_ACQUIRE) != port->generation)
		return false;
	port->begun = true;
	port->between_until_ms = 0;
	port->was_joined |= port->peer != NULL;
	if (port->peer) /* what waits for it is looked at at once */
		port->peer->wait_until_ms = hub_now_ms();
	__atomic_store_n(&port->memory->serving, port->generation, __ATOMIC_RELEASE);
	wake_device(port);
	return true;
}

/* What its device asks: empty slots, and packets in their order. How many, or -EBADMSG. */
static int take_requests(struct port *port)
{
	struct slot_request request;
	int count = 0;
	int got;

	while ((got = slot_take(&port->slots, &request)) > 0) {
		const bool sends = request.slot >= SHARE_RECEIVE_SLOTS;

		if (request.kind != (sends ? SHARE_SEND : SHARE_RECEIVE))
			return -EBADMSG;
		if (sends)
			queue_put(&port->waiting, request.slot);
		else
			queue_put(&port->empty, request.slot);
		port->hears_later[request.slot] = request.target == SHARE_HEARS_LATER;
		count++;
	}
	return got ? got : count;
}

static bool is_open(const struct port *port)
{
	return port->begun && __atomic_load_n(&port->memory->is_open, __ATOMIC_ACQUIRE);
}

/*
 * Another number each time that this port's guest opens its channel, also in another life of its
 * machine, and each time that `other` was parted from it, and the same to each hub; 0: it has not.
 */
static uint32_t opening_of(const struct port *port, const struct port *other)
{
	const bool counts = port->begun || hold_waits(port);
	const uint32_t times =
		counts ? __atomic_load_n(&port->memory->is_open, __ATOMIC_ACQUIRE) : 0;
	const uint32_t partings = __atomic_load_n(&other->memory->partings, __ATOMIC_RELAXED);
	const uint64_t epoch = port->memory->epoch;
	const uint32_t number = (uint32_t)(epoch ^ epoch >> 32) + times + partings;

	if (!times)
		return 0;
	return number ? number : 1;
}

static void say_peer(struct port *port)
{
	const uint32_t is_there = is_open(port) && port->peer ? opening_of(port->peer, port) : 0;

	if (hold_waits(port))
		return;
	/* what the hub before this one has said stays true until its peer could have joined, too */
	if (!is_there && !port->was_joined && hub_now_ms() - port->joined_ms < HUB_PATIENCE_MS)
		return;
	if (__atomic_load_n(&port->memory->peer_is_there, __ATOMIC_RELAXED) == is_there)
		return;
	__atomic_store_n(&port->memory->peer_is_there, is_there, __ATOMIC_RELEASE);
	wake_device(port);
}

/*
 * Into an empty slot of the other port's. 0; HUB_NO_ROOM; of pages that may not be lent -EPERM, or
 * -ENOTCONN; -EBADMSG.
 */
static int carry(struct hub *hub, struct port *from, unsigned slot)
{
	const uint8_t *data = from->memory->data[slot];
	struct port *to = from->peer;
	struct share_packet packet;
	uint8_t *into;
	unsigned empty;

	memcpy(&packet, data, sizeof(packet));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (packet.bytes > SHARE_PACKET_MAX_BYTES || packet.kind >= SHARE_PACKET_KINDS)
		return -EBADMSG;
	if (hold_waits(to))
		return HUB_NO_ROOM;
	packet.flags &= SHARE_PACKET_READ_ONLY;
	if (packet.kind == SHARE_PACKET_ASK)
		return window_ask(hub, from, packet.flags);
	if (!to->empty.count || !hub_may_pass(hub, from, packet.bytes, &from->wait_until_ms))
		return HUB_NO_ROOM;
	empty = queue_take(&to->empty);
	into = to->memory->data[empty];
	memcpy(into, &packet, sizeof(packet));
	memcpy(into + sizeof(packet), data + sizeof(packet), packet.bytes);
	slot_answer(&to->slots, empty, (int32_t)(sizeof(packet) + packet.bytes));
	from->packets++;
	from->bytes += packet.bytes;
	return 0;
}

/* Now, or once it is there again; NULL: nobody is. */
static bool takes_packets(const struct port *port)
{
	return port && (is_open(port) || hold_waits(port));
}

/* What waits, as far as it can go. 0 or -EBADMSG. */
static int push(struct hub *hub, struct port *port)
{
	const int64_t now = hub_now_ms();

	while (port->waiting.count) {
		const unsigned slot = queue_first(&port->waiting);
		int error = takes_packets(port->peer) ? carry(hub, port, slot) : -ENOTCONN;

		if (error == HUB_NO_ROOM)
			return 0;
		if (error == -EBADMSG)
			return error;
		if (error == -ENOTCONN && now - port->joined_ms < HUB_PATIENCE_MS) {
			port->wait_until_ms = port->joined_ms + HUB_PATIENCE_MS;
			return 0;
		}
		queue_take(&port->waiting);
		if (!error && port->hears_later[slot])
			slot_answer_later(&port->slots, slot, 0);
		else
			slot_answer(&port->slots, slot, error);
		port->lost += error != 0;
	}
	return 0;
}

/* Whether it has asked for anything. */
static bool serve_port(struct hub *hub, struct port *port)
{
	int count = 0;
	int error = 0;

	/* of the one that is to come it takes nothing: its device begins anew (hub_hold.c) */
	if (port->is_held || !has_begun(port) ||
	    __atomic_load_n(&port->memory->generation, __ATOMIC_ACQUIRE) != port->generation)
		return false;
	count = take_requests(port);
	error = count < 0 ? count : push(hub, port);
	if (error) {
		hub->broken++;
		port_leave(hub, port);
	}
	return count > 0;
}

/* ---- the loop ---- */

/* How long nothing has to be done by itself; -1: for ever. */
static int sleep_ms(const struct hub *hub, int64_t now)
{
	int64_t least = hub->ports ? INT32_MAX : LONELY_MS;

	for (unsigned n = 0; n < hub->top; n++) {
		const struct port *port = &hub->port[n];
		const int64_t left = port->wait_until_ms - now;

		if (port->line == HUB_NOBODY || !port->waiting.count || !port->wait_until_ms)
			continue;
		if (left < least)
			least = left > 0 ? left : 1;
	}
	/* rules have times of day, and agents' answers end */
	if (hub->ports && least > HUB_LOOK_MS)
		least = HUB_LOOK_MS;
	return (int)least;
}

static bool may_sleep(struct hub *hub)
{
	bool may = true;

	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].memory && !hub->port[n].is_held)
			may &= slot_server_may_sleep(&hub->port[n].slots);
	return may;
}

/* Whether one of them has asked for anything. */
static bool serve_ports(struct hub *hub)
{
	bool some = false;

	windows_look(hub);
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].memory)
			some |= serve_port(hub, &hub->port[n]);
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].memory && (hub->port[n].is_deaf || hold_is_over(&hub->port[n])))
			port_leave(hub, &hub->port[n]);
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].memory) {
			say_peer(&hub->port[n]);
			if (!hub->port[n].is_held)
				slot_tell(&hub->port[n].slots);
		}
	return some;
}

static bool is_asked(const struct hub *hub)
{
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].memory && !hub->port[n].is_held &&
		    slot_server_has_request(&hub->port[n].slots))
			return true;
	return false;
}

/* As long as they ask at once, or within the moment for which it looks before it sleeps. */
static void serve_while_asked(struct hub *hub)
{
	for (unsigned n = 0; n < SERVES; n++) {
		if (serve_ports(hub))
			brief_wait_found(&hub->brief);
		while (!is_asked(hub))
			if (!hub->looks || !brief_wait_looks(&hub->brief))
				return;
	}
}

/* One joiner after the other is asked for an agent while the rules name one, and none is there. */
static void want_agent(struct hub *hub)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_AGENT };

	if (!hub->rules.agent[0] || agent_is_there(hub->agent))
		return;
	for (unsigned n = 0; n < HUB_PORTS; n++) {
		struct port *port = &hub->port[hub->asked++ % HUB_PORTS];

		if (port->memory && !line_send(port->line, &message, NULL, 0))
			return;
	}
}

static void measure(struct rate *rate, uint64_t count, int64_t took_ms)
{
	rate->per_s = (count - rate->before) * 1000 / (uint64_t)took_ms;
	rate->before = count;
}

static void measure_rates(struct hub *hub, int64_t took_ms)
{
	for (unsigned n = 0; n < hub->top; n++) {
		struct port *port = &hub->port[n];

		if (!port->memory)
			continue;
		measure(&port->packets_rate, port->packets, took_ms);
		measure(&port->bytes_rate, port->bytes, took_ms);
	}
}

static void look_again(struct hub *hub)
{
	const int64_t now = hub_now_ms();

	if (now - hub->looked_ms < HUB_LOOK_MS)
		return;
	measure_rates(hub, now - hub->looked_ms);
	hub->looked_ms = now;
	want_agent(hub);
	join_all(hub);
}

/* What tells of its joiner's end; of a port that is held, its machine's. */
static int watched_line(const struct port *port)
{
	return port->is_held ? port->end : port->line;
}

static int watched_bell(const struct port *port)
{
	return port->is_held ? HUB_NOBODY : port->bell;
}

bool hub_turn(struct hub *hub)
{
	struct pollfd polls[2 * HUB_PORTS + 1] = { { .fd = hub->listen_fd, .events = POLLIN } };
	int lines[HUB_PORTS];
	unsigned top;

	serve_while_asked(hub);
	for (unsigned n = 0; n < hub->top; n++) {
		lines[n] = hub->port[n].line;
		polls[2 * n + 1] = (struct pollfd){ .fd = watched_line(&hub->port[n]),
						    .events = POLLIN };
		polls[2 * n + 2] = (struct pollfd){ .fd = watched_bell(&hub->port[n]),
						    .events = POLLIN };
	}
	top = hub->top;
	poll(polls, 2 * top + 1, may_sleep(hub) ? sleep_ms(hub, hub_now_ms()) : 0);
	for (unsigned n = 0; n < top; n++) {
		struct port *port = &hub->port[n];

		if (port->line != lines[n] || port->line == HUB_NOBODY)
			continue;
		if (port->memory && !port->is_held)
			slot_server_wakes(&port->slots, polls[2 * n + 2].revents);
		if (polls[2 * n + 1].revents && port->is_held)
			port_leave(hub, port); /* its machine is gone */
		else if (polls[2 * n + 1].revents)
			take_line(hub, port);
	}
	if (polls[0].revents)
		accept_line(hub);
	look_again(hub);
	CHECK(check_hub(hub));
	return hub->ports || hub_now_ms() - hub->lonely_ms < LONELY_MS;
}

struct hub *hub_create(int listen_fd, int pid)
{
	struct hub *hub = calloc(1, sizeof(*hub));

	if (!hub)
		return NULL;
	hub->agent = agent_create();
	if (!hub->agent) {
		free(hub);
		return NULL;
	}
	hub->listen_fd = listen_fd;
	hub->pid = pid;
	hub->lonely_ms = hub_now_ms();
	for (unsigned n = 0; n < HUB_PORTS; n++)
		hub->port[n] = (struct port){ .line = HUB_NOBODY, .bell = HUB_NOBODY,
					      .answer = HUB_NOBODY, .end = HUB_NOBODY };
	for (unsigned n = 0; n < HUB_WINDOWS; n++)
		window_clear(&hub->window[n]);
	return hub;
}

void hub_destroy(struct hub *hub)
{
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].line != HUB_NOBODY)
			port_leave(hub, &hub->port[n]);
	for (unsigned n = 0; n < HUB_WINDOWS; n++)
		for (unsigned k = 0; k < SHARE_PARTS; k++)
			close_if(hub->window[n].fd[k]);
	agent_destroy(hub->agent);
	free(hub);
}

int hub_serve(int listen_fd, int pid)
{
	struct hub *hub = hub_create(listen_fd, pid);

	if (!hub)
		return -ENOMEM;
	hub->looks = hub->brief.is_far = true;
	while (hub_turn(hub))
		;
	hub_destroy(hub);
	return 0;
}
