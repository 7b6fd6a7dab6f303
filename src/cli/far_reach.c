/*
 * umbra far reach: a port of the hub whose disk is behind TCP (share/far.h), for a machine here.
 *
 *   proxy --- hub --- port, window --- [this process] --- umbra-wire --- TCP --- umbra far serve
 *
 * One thread does all of it but connecting, which may take its time.
 *
 *   - The channel is open while there is a connection. One that is lost closes it, the next one
 *     opens it again: so the proxy asks anew what was not answered, by the same numbers.
 *   - It is a server as abi/share_disk.h has it: of the window it looks at what it was given
 *     before a hello, and leaves what it was asked of another. It reads and writes it by calls, so
 *     that one without bytes is only short.
 *   - Hub, machine and far side are hostile: what they say is checked. A far side that is not
 *     understood is left, and connected to anew.
 *   - What it has to send has a place: all requests of a round, with their data. What has none is
 *     left.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "abi/share.h"
#include "cli.h"
#include "control/names.h"
#include "far_dial.h"
#include "far_port.h"
#include "ipc/share_port.h"
#include "ipc/spawn.h"
#include "share/far.h"
#include "share/hub_line.h"
#include "share_option.h"

enum {
	FRAME_MAX_BYTES = FAR_HEAD_BYTES + sizeof(union far_message) + FAR_DATA_MAX_BYTES,
	OUT_BYTES = 2 * SHARE_DISK_REQUESTS * FRAME_MAX_BYTES,
	ASKED = 2 * SHARE_DISK_REQUESTS,
	SOCKET_BYTES = 108,
	PAGE_BYTES = SLOT_PAGE_BYTES
};
static const char default_port[] = "4641";

/* Asked of the far side; number 0: none. */
struct asked { uint64_t number, bytes; uint32_t act, first; };

struct reach {
	const struct far_choice *choice;
	struct place place;
	char hub[SOCKET_BYTES], machine[WIRE_MACHINE_BYTES];

	/* the far side */
	struct wire_line far;
	bool is_connected;
	int connected[2]; /* a pipe: connections that the other thread has made */
	struct far_dial dial;
	uint8_t *in, *out;
	size_t in_bytes, out_bytes;

	/* the hub; line -1: none */
	int line, memory_fd, bell, answer;
	struct share_memory *memory;
	struct slot_client client;
	uint64_t epoch, number_sent;
	uint32_t openings;
	unsigned send_free;
	uint8_t send_stack[SHARE_SEND_SLOTS];
	bool is_hubs[SHARE_SLOTS];

	/* the window's parts; -1: none */
	int window[SHARE_PARTS];
	uint32_t window_number, window_of_round, round;
	uint32_t version; /* of the round, as the far side has said; 0: not yet */
	struct asked asked[ASKED];
};

/* ---- to the hub ---- */

static void ring(const struct reach *reach)
{
	ssize_t written = write(reach->bell, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

static void submit(struct reach *reach, unsigned slot, enum share_request_kind kind)
{
	reach->is_hubs[slot] = true;
	slot_submit(&reach->client,
		    &(struct slot_request){ .slot = (uint16_t)slot, .kind = (uint16_t)kind });
}

static void say_open(const struct reach *reach)
{
	__atomic_store_n(&reach->memory->is_open, reach->is_connected ? reach->openings : 0,
			 __ATOMIC_RELEASE);
	ring(reach);
}

/* What is under way is asked anew. */
static void open_again(struct reach *reach)
{
	reach->openings++;
	reach->round = 0;
	memset(reach->asked, 0, sizeof(reach->asked));
	say_open(reach);
}

static void send_to_hub(struct reach *reach, const void *message, uint32_t bytes)
{
	struct share_packet packet = { .epoch = reach->epoch, .bytes = bytes };
	unsigned slot;
	uint8_t *to;

	if (!reach->send_free) { /* a hub that takes nothing */
		open_again(reach);
		return;
	}
	slot = reach->send_stack[--reach->send_free];
	to = reach->memory->data[slot];
	packet.number = ++reach->number_sent;
	memcpy(to, &packet, sizeof(packet));
	memcpy(to + sizeof(packet), message, bytes);
	submit(reach, slot, SHARE_SEND);
}

/* ---- to the far side ---- */

static void lose_far(struct reach *reach)
{
	wire_line_close(&reach->far);
	reach->is_connected = false;
	reach->in_bytes = reach->out_bytes = 0;
	memset(reach->asked, 0, sizeof(reach->asked));
	if (reach->line >= 0)
		say_open(reach);
	far_dial_again(&reach->dial);
}

static void send_what_fits(struct reach *reach)
{
	ssize_t sent = send(reach->far.socket, reach->out, reach->out_bytes,
			    MSG_NOSIGNAL | MSG_DONTWAIT);

	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		lose_far(reach);
	} else if (sent > 0) {
		reach->out_bytes -= (size_t)sent;
		memmove(reach->out, reach->out + sent, reach->out_bytes);
	}
}

/* Where its data go; NULL: there is no room, and it is left. */
static uint8_t *put_frame(struct reach *reach, const void *message, uint32_t bytes,
			  uint32_t data_bytes)
{
	uint8_t *at = reach->out + reach->out_bytes;

	if (!reach->is_connected || OUT_BYTES - reach->out_bytes < FRAME_MAX_BYTES)
		return NULL;
	far_put_head(bytes, data_bytes, at);
	memcpy(at + FAR_HEAD_BYTES, message, bytes);
	reach->out_bytes += FAR_HEAD_BYTES + bytes + data_bytes;
	return at + FAR_HEAD_BYTES + bytes;
}

/* ---- requests ---- */

static off_t place_in_window(uint32_t first)
{
	return (off_t)offsetof(struct share_window, page[1]) + (off_t)first * PAGE_BYTES;
}

/* What is to be written: where this side only reads, but of a far side of version 1.1. */
static bool read_written(const struct reach *reach, const struct share_disk_request *request,
			 uint8_t *to)
{
	const bool is_apart = reach->version != SHARE_DISK_1_1;
	const off_t at = is_apart ? (off_t)request->first * PAGE_BYTES
				  : place_in_window(request->first);

	return pread(reach->window[is_apart ? SHARE_PART_BINDS : SHARE_PART_BOTH], to,
		     request->bytes, at) == (ssize_t)request->bytes;
}

static bool is_rounds(const struct reach *reach)
{
	return reach->window[0] >= 0 && reach->window_number == reach->window_of_round;
}

static struct asked *find_asked(struct reach *reach, uint64_t number)
{
	for (unsigned n = 0; n < ASKED; n++)
		if (reach->asked[n].number == number)
			return &reach->asked[n];
	return NULL;
}

static bool is_in_window(const struct share_disk_request *request)
{
	return request->act > SHARE_DISK_WRITE ||
	       (request->first < SHARE_WINDOW_PAGES && request->bytes <= FAR_DATA_MAX_BYTES &&
		request->bytes <= (uint64_t)(SHARE_WINDOW_PAGES - request->first) * PAGE_BYTES);
}

static void take_hello(struct reach *reach, const struct share_disk_hello *hello)
{
	struct share_disk_hello to_far = *hello;

	reach->round = hello->round;
	reach->window_of_round = reach->window_number;
	reach->version = 0;
	memset(reach->asked, 0, sizeof(reach->asked));
	if (to_far.most > FAR_DISK_MOST)
		to_far.most = FAR_DISK_MOST;
	if (!put_frame(reach, &to_far, sizeof(to_far), 0))
		open_again(reach);
}

static void take_request(struct reach *reach, const struct share_disk_request *request)
{
	const uint32_t data_bytes =
		request->act == SHARE_DISK_WRITE ? (uint32_t)request->bytes : 0;
	struct asked *asked = find_asked(reach, 0);
	const size_t out_bytes = reach->out_bytes;
	uint8_t *data;

	if (request->round != reach->round || !request->number || !is_in_window(request) ||
	    !asked || (request->act <= SHARE_DISK_WRITE && !is_rounds(reach)))
		return;
	data = put_frame(reach, request, sizeof(*request), data_bytes);
	if (!data)
		return;
	if (data_bytes && !read_written(reach, request, data)) {
		reach->out_bytes = out_bytes; /* it has no bytes any more */
		return;
	}
	*asked = (struct asked){ .number = request->number, .bytes = request->bytes,
				 .act = request->act, .first = request->first };
}

static void take_packet(struct reach *reach, unsigned slot)
{
	_Alignas(8) uint8_t copy[sizeof(struct share_packet) + sizeof(union far_message)];
	struct share_packet packet;
	union far_message message;

	memcpy(copy, reach->memory->data[slot], sizeof(copy));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	memcpy(&packet, copy, sizeof(packet));
	memcpy(&message, copy + sizeof(packet), sizeof(message));
	submit(reach, slot, SHARE_RECEIVE);
	if (packet.kind != SHARE_PACKET_DATA || packet.bytes < sizeof(message.kind) ||
	    packet.bytes != far_message_bytes(message.kind))
		return;
	if (message.kind == SHARE_DISK_HELLO)
		take_hello(reach, &message.hello);
	else if (message.kind == SHARE_DISK_REQUEST)
		take_request(reach, &message.request);
}

/* ---- answers ---- */

/* False: it lies. */
static bool take_done(struct reach *reach, const struct share_disk_done *done, const uint8_t *data,
		      uint32_t data_bytes)
{
	struct asked *asked = done->number ? find_asked(reach, done->number) : NULL;
	const struct asked was = asked ? *asked : (struct asked){ .number = 0 };
	const bool has_data = was.act == SHARE_DISK_READ && !done->status;

	if (!asked) /* of a round that is over */
		return true;
	if (data_bytes != (has_data ? was.bytes : 0))
		return false;
	*asked = (struct asked){ .number = 0 };
	if (has_data && !is_rounds(reach))
		return true;
	if (has_data && pwrite(reach->window[0], data, data_bytes, place_in_window(was.first)) !=
				(ssize_t)data_bytes)
		return true;
	send_to_hub(reach, done, sizeof(*done));
	return true;
}

static bool take_frame(struct reach *reach, const struct far_head *head, const uint8_t *bytes)
{
	const uint8_t *data = bytes + head->message_bytes;
	union far_message message;

	memcpy(&message, bytes, head->message_bytes);
	if (far_check(head, &message, FAR_ANSWERS))
		return false;
	if (reach->line < 0)
		return true;
	if (message.kind == SHARE_DISK_DONE)
		return take_done(reach, &message.done, data, head->data_bytes);
	if (message.welcome.version > FAR_DISK_MOST)
		return false;
	if (message.welcome.round != reach->round)
		return true;
	reach->version = message.welcome.version;
	send_to_hub(reach, &message.welcome, sizeof(message.welcome));
	return true;
}

/* Of the first frame that is not all there yet; 0: it lies. */
static size_t take_frames(struct reach *reach)
{
	size_t at = 0;

	while (reach->in_bytes - at >= FAR_HEAD_BYTES) {
		struct far_head head;
		size_t bytes;

		if (far_take_head(reach->in + at, &head))
			return 0;
		bytes = FAR_HEAD_BYTES + head.message_bytes + head.data_bytes;
		if (reach->in_bytes - at < bytes)
			break;
		if (!take_frame(reach, &head, reach->in + at + FAR_HEAD_BYTES))
			return 0;
		at += bytes;
	}
	reach->in_bytes -= at;
	memmove(reach->in, reach->in + at, reach->in_bytes);
	return FRAME_MAX_BYTES - reach->in_bytes;
}

static void hear_far(struct reach *reach)
{
	ssize_t got = recv(reach->far.socket, reach->in + reach->in_bytes,
			   FRAME_MAX_BYTES - reach->in_bytes, MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	reach->in_bytes += got > 0 ? (size_t)got : 0;
	if (got <= 0 || !take_frames(reach))
		lose_far(reach);
}

static void take_connection(struct reach *reach)
{
	if (read(reach->connected[0], &reach->far, sizeof(reach->far)) != sizeof(reach->far))
		abort();
	reach->is_connected = true;
	if (reach->line >= 0)
		open_again(reach);
}

/* ---- the hub ---- */

static bool make_port(struct reach *reach)
{
	reach->memory_fd = spawn_share("umbra-port", sizeof(struct share_memory));
	reach->memory = mmap(NULL, sizeof(struct share_memory), PROT_READ | PROT_WRITE, MAP_SHARED,
			     reach->memory_fd, 0);
	if (reach->memory == MAP_FAILED ||
	    getrandom(&reach->epoch, sizeof(reach->epoch), 0) != sizeof(reach->epoch))
		return false;
	reach->memory->side = SHARE_SIDE_SERVES;
	reach->memory->class = SHARE_CLASS_DISK;
	reach->memory->epoch = reach->epoch;
	reach->memory->generation = 1;
	reach->client = (struct slot_client){ .queue = &reach->memory->queue,
					      .slots = SHARE_SLOTS,
					      .doorbell_fd = reach->bell,
					      .answer_fd = reach->answer };
	reach->send_free = 0;
	memset(reach->is_hubs, 0, sizeof(reach->is_hubs));
	for (unsigned n = SHARE_SLOTS; n-- > SHARE_RECEIVE_SLOTS;)
		reach->send_stack[reach->send_free++] = (uint8_t)n;
	return true;
}

static void lose_window(struct reach *reach)
{
	for (unsigned n = 0; n < SHARE_PARTS; n++) {
		if (reach->window[n] >= 0)
			close(reach->window[n]);
		reach->window[n] = -1;
	}
}

static void leave_hub(struct reach *reach)
{
	if (reach->line >= 0)
		close(reach->line);
	if (reach->memory != MAP_FAILED)
		munmap(reach->memory, sizeof(*reach->memory));
	if (reach->memory_fd >= 0)
		close(reach->memory_fd);
	reach->line = reach->memory_fd = -1;
	reach->memory = MAP_FAILED;
	lose_window(reach);
	reach->round = 0;
	memset(reach->asked, 0, sizeof(reach->asked));
}

/* 0; -EPERM: the hub will not have it; -errno. */
static int ask_to_join(const struct reach *reach)
{
	const int fds[] = { reach->memory_fd, reach->bell, reach->answer };
	struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_JOIN };
	int none[WIRE_FDS];
	int error;

	message.join = (struct wire_join){ .least = WIRE_VERSION_LEAST, .most = WIRE_VERSION,
					   .side = SHARE_SERVES, .class = "disk",
					   .window_number = reach->window_number };
	snprintf(message.join.machine, sizeof(message.join.machine), "%s", reach->machine);
	snprintf(message.join.instance, sizeof(message.join.instance), "%s", reach->choice->what);
	error = line_send(reach->line, &message, fds, sizeof(fds) / sizeof(fds[0]));
	if (!error)
		error = line_receive(reach->line, &message, none, true);
	if (error < 0)
		return error;
	return message.kind == WIRE_JOINED && message.version ? 0 : -EPERM;
}

static int join_hub(struct reach *reach)
{
	int error;

	reach->line = far_port_reach_hub(reach->hub);
	if (reach->line < 0)
		return reach->line;
	far_port_bring_rules(reach->line);
	error = make_port(reach) ? ask_to_join(reach) : -ENOMEM;
	if (error) {
		leave_hub(reach);
		return error;
	}
	for (unsigned n = 0; n < SHARE_RECEIVE_SLOTS; n++)
		submit(reach, n, SHARE_RECEIVE);
	__atomic_store_n(&reach->memory->accepted, 1, __ATOMIC_RELEASE);
	open_again(reach);
	return 0;
}

/* fds: which are its own then. */
static void take_window(struct reach *reach, int fds[SHARE_PARTS], uint32_t number)
{
	lose_window(reach);
	for (unsigned n = 0; n < SHARE_PARTS; n++) {
		reach->window[n] = fds[n];
		fds[n] = -1;
	}
	reach->window_number = number;
	__atomic_store_n(&reach->memory->window_accepted, number, __ATOMIC_RELEASE);
	ring(reach);
}

/* False: the hub is gone. */
static bool hear_line(struct reach *reach)
{
	struct wire_message message;
	int fds[WIRE_FDS];
	int got = line_receive(reach->line, &message, fds, false);

	if (got < 0)
		return false;
	if (got && message.kind == WIRE_WINDOW) {
		take_window(reach, fds, message.number);
	} else if (got && message.kind == WIRE_END) {
		for (unsigned n = 0; n < SHARE_PARTS; n++)
			if (fds[n] >= 0 && ftruncate(fds[n], 0))
				errno = 0; /* one that is no window is left alone: it is sealed */
	}
	for (unsigned n = 0; got && n < WIRE_FDS; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	return true;
}

/* False: the hub has failed. */
static bool take_reply(struct reach *reach, const struct slot_reply *reply)
{
	if (!reach->is_hubs[reply->slot])
		return false;
	reach->is_hubs[reply->slot] = false;
	if (reply->slot >= SHARE_RECEIVE_SLOTS)
		reach->send_stack[reach->send_free++] = (uint8_t)reply->slot;
	else if (reply->result > 0)
		take_packet(reach, reply->slot);
	else
		submit(reach, reply->slot, SHARE_RECEIVE);
	return true;
}

/*
 * False: the hub has failed. As many as there are slots are taken: one that answers without end
 * holds up nobody else; what is there yet is looked at in the next turn.
 */
static bool hear_port(struct reach *reach)
{
	struct slot_reply reply;
	uint64_t rung;
	ssize_t written = 0;
	int got = 1;

	if (read(reach->answer, &rung, sizeof(rung)) < 0)
		errno = 0; /* it does not wait */
	__atomic_store_n(&reach->memory->queue.replies.sleeps, 1, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < SHARE_SLOTS && got > 0; n++) {
		got = slot_collect(&reach->client, &reply);
		if (got > 0 && !take_reply(reach, &reply))
			return false;
	}
	if (slot_has_reply(&reach->client))
		written = write(reach->answer, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
	slot_kick(&reach->client);
	return got >= 0;
}

/* ---- all of it ---- */

/* Until the hub is gone. */
static void stay(struct reach *reach)
{
	bool goes_on = true;

	while (goes_on) {
		struct pollfd polls[] = {
			{ .fd = reach->line, .events = POLLIN },
			{ .fd = reach->answer, .events = POLLIN },
			{ .fd = reach->connected[0], .events = POLLIN },
			{ .fd = reach->is_connected ? reach->far.socket : -1, .events = POLLIN },
		};

		if (reach->out_bytes)
			polls[3].events |= POLLOUT;
		if (poll(polls, sizeof(polls) / sizeof(polls[0]), -1) < 0)
			continue;
		if (polls[0].revents)
			goes_on = hear_line(reach);
		if (goes_on && polls[1].revents)
			goes_on = hear_port(reach);
		if (polls[2].revents)
			take_connection(reach);
		else if (polls[3].revents & ~POLLOUT && reach->is_connected)
			hear_far(reach);
		if (reach->out_bytes && reach->is_connected)
			send_what_fits(reach);
		if (goes_on)
			goes_on = hear_port(reach);
	}
}

static int keep_joined(struct reach *reach)
{
	int delay_ms = FAR_FIRST_DELAY_MS;

	for (bool is_first = true;; is_first = false) {
		int error = join_hub(reach);

		if (error && is_first)
			return complain(EXIT_FAULT, strerror(-error), "joining the hub",
					"see umbra doctor");
		if (!error) {
			delay_ms = FAR_FIRST_DELAY_MS;
			stay(reach);
			leave_hub(reach);
		}
		far_pause_ms(delay_ms);
		delay_ms = far_longer_ms(delay_ms);
	}
}

static int take_names(struct reach *reach)
{
	struct share_plan plan = { .count = 0 };
	int code = share_option_bind(&plan, reach->choice->what);
	const char *slash = strchr(reach->choice->what, '/');

	if (code)
		return code;
	snprintf(reach->machine, sizeof(reach->machine), "%.*s",
		 (int)(slash - reach->choice->what), reach->choice->what);
	if (place_parse(reach->choice->place, default_port, &reach->place))
		return complain(EXIT_USAGE, "not HOST:PORT", reach->choice->place,
				"say for example store.example:4641");
	return name_hub_path(reach->hub, sizeof(reach->hub))
		       ? complain(EXIT_USAGE, "no folder for the hub's socket", reach->hub,
				  "set XDG_RUNTIME_DIR to a folder that is yours")
		       : 0;
}

int far_reach(const struct far_choice *choice)
{
	static struct reach reach;
	int code;

	reach = (struct reach){ .choice = choice, .line = -1, .memory_fd = -1,
				.window = { -1, -1, -1 }, .memory = MAP_FAILED };
	code = take_names(&reach);
	if (code)
		return code;
	reach.in = malloc(FRAME_MAX_BYTES);
	reach.out = malloc(OUT_BYTES);
	reach.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	reach.answer = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!reach.in || !reach.out || reach.bell < 0 || reach.answer < 0 ||
	    pipe2(reach.connected, O_CLOEXEC))
		return complain(EXIT_FAULT, strerror(errno), "umbra far reach", "start it again");
	reach.dial = (struct far_dial){ .choice = choice, .place = &reach.place,
					.connected = reach.connected[1] };
	code = far_dial_begin(&reach.dial);
	if (code)
		return complain(EXIT_FAULT, strerror(-code), "umbra far reach", "start it again");
	far_dial_again(&reach.dial);
	return keep_joined(&reach);
}
