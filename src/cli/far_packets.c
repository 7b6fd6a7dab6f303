/*
 * umbra far serve and reach with --packets: a channel of the class `packet` between machines of two
 * hosts (share/far_stream.h).
 *
 *   guest --- hub --- port [umbra far serve] --- TCP --- [umbra far reach] port --- hub --- guest
 *
 * Each is one end of a channel at its own hub: `serve` binds it there, as a machine `far`, and
 * `reach` serves it here under the other machine's name. One thread does all of it but connecting.
 *
 *   - A packet that has come from the hub stays in its slot until the other side has acknowledged
 *     it: so it waits while there is no connection, and is said again on the next.
 *   - One that comes from the other side is taken as far as there are slots for the hub, which
 *     delivers in order. What its rules say of rates is the hub's, on each host.
 *   - A hub that dies is joined again with the same memory, as a machine's device does
 *     (device/share/share_device.h).
 *   - What it must not forget lies in files (far_kept.h): one that is killed and started again
 *     within HUB_PATIENCE_MS (share/hub_hold.c) joins with the same memory, and neither guest
 *     notices; later both see the other go and come, and what was on its way is there.
 *   - `reach` is open while the guest that serves is there, and `serve` from the first connection
 *     on: before that neither hub could say who is there. A guest that has gone and come is seen to
 *     by the other one, and what was on its way to it is dropped.
 *   - A connection that says what makes no sense is closed, and another one waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "abi/share.h"
#include "cli.h"
#include "control/names.h"
#include "far_dial.h"
#include "far_kept.h"
#include "far_port.h"
#include "ipc/share_port.h"
#include "ipc/spawn.h"
#include "share/far_stream.h"
#include "share/hub_line.h"
#include "share_option.h"

enum {
	FRAME_MAX_BYTES = FAR_FRAME_HEAD_BYTES + SHARE_DATA_MAX_BYTES,
	IN_BYTES = 16 * FRAME_MAX_BYTES,
	OUT_BYTES = 2 * SHARE_RECEIVE_SLOTS * FRAME_MAX_BYTES,
	SOCKET_BYTES = 108,
	HANDSHAKES = 8
};
static const char default_port[] = "4642";
static const char own_name[] = "far";

enum slot_state { SLOT_FREE, SLOT_HUBS, SLOT_HELD };

struct link {
	const struct far_choice *choice;
	struct place place;
	uint32_t side; /* at the hub here */
	char hub[SOCKET_BYTES], machine[WIRE_MACHINE_BYTES];

	/* the other host */
	struct wire_line far;
	bool is_connected, is_greeted;
	int connected[2];    /* a pipe: connections that other threads have made */
	struct far_dial dial; /* of `reach` */
	int listener;         /* of `serve`; and, atomic: */
	unsigned handshakes;
	uint8_t *in, *out;
	size_t in_bytes, out_bytes;
	bool owes_state, owes_ack;

	/* the hub; line -1: none */
	int line, bell, answer, end; /* end: far_port_keep_place() */
	struct far_files files;
	struct far_kept *kept;
	struct share_memory *memory;
	struct slot_client client;
	uint32_t peer_word;
	uint8_t slot[SHARE_SLOTS];
	uint64_t held_said; /* of those that are held, the first ones */
};

/* Nobody sees the words of the file in another order than they are written in. */
static void commit(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* ---- who is connected to, and who connects: threads of their own ---- */

static bool give_connection(const struct link *link, const struct wire_line *line)
{
	return write(link->connected[1], line, sizeof(*line)) == sizeof(*line);
}

struct handshake { struct link *link; int fd; };

static void *shake_hands(void *context)
{
	struct handshake *hands = context;
	struct link *link = hands->link;
	struct wire_line line;

	if (!wire_line_open(hands->fd, true, &link->choice->secret, &line) &&
	    !give_connection(link, &line))
		wire_line_close(&line);
	__atomic_fetch_sub(&link->handshakes, 1, __ATOMIC_RELAXED);
	free(hands);
	return NULL;
}

/* The descriptor is a thread's, or closed. */
static void accept_one(struct link *link, int fd)
{
	struct handshake *hands = malloc(sizeof(*hands));
	pthread_t thread;

	wire_line_tune(fd);
	if (hands && __atomic_fetch_add(&link->handshakes, 1, __ATOMIC_RELAXED) < HANDSHAKES) {
		*hands = (struct handshake){ .link = link, .fd = fd };
		if (!pthread_create(&thread, NULL, shake_hands, hands)) {
			pthread_detach(thread);
			return;
		}
	}
	if (hands)
		__atomic_fetch_sub(&link->handshakes, 1, __ATOMIC_RELAXED);
	free(hands);
	close(fd);
}

static void *accept_always(void *context)
{
	struct link *link = context;

	for (;;) {
		const int fd = accept4(link->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			accept_one(link, fd);
		else
			far_pause_ms(FAR_FIRST_DELAY_MS); /* no descriptor is left for now */
	}
	return NULL;
}

static bool is_reach(const struct link *link) { return link->side == SHARE_SIDE_SERVES; }

static void want_connection(const struct link *link)
{
	if (is_reach(link))
		far_dial_again(&link->dial);
}

/* ---- to the hub ---- */

static void ring(const struct link *link)
{
	ssize_t written = write(link->bell, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

static void submit(struct link *link, unsigned slot, enum share_request_kind kind)
{
	link->slot[slot] = SLOT_HUBS;
	slot_submit(&link->client,
		    &(struct slot_request){ .slot = (uint16_t)slot, .kind = (uint16_t)kind });
}

/* The hub's packets are only taken for a guest that is there. */
static void submit_empty(struct link *link)
{
	for (unsigned n = 0; n < SHARE_RECEIVE_SLOTS && link->line >= 0; n++)
		if (link->slot[n] == SLOT_FREE && (link->kept->far_word || is_reach(link)))
			submit(link, n, SHARE_RECEIVE);
}

static void say_open(const struct link *link)
{
	const struct far_kept *kept = link->kept;
	const bool is_open = is_reach(link) ? kept->far_word != 0 : kept->stream.other != 0;

	__atomic_store_n(&link->memory->is_open, is_open ? kept->openings : 0, __ATOMIC_RELEASE);
	ring(link);
}

/* NULL: all are with the hub. */
static uint8_t *find_send_slot(const struct link *link, unsigned *ret)
{
	for (unsigned n = SHARE_RECEIVE_SLOTS; n < SHARE_SLOTS; n++)
		if (link->slot[n] == SLOT_FREE) {
			*ret = n;
			return link->memory->data[n];
		}
	return NULL;
}

/* Once its number is there it is this side's. */
static void send_to_hub(struct link *link, unsigned slot, const struct far_frame *frame,
			const uint8_t *data)
{
	struct far_kept *kept = link->kept;
	struct far_given *given = &kept->given[slot];
	const struct share_packet packet = { .epoch = kept->epoch,
					     .number = kept->number_sent + 1,
					     .bytes = frame->bytes };
	uint8_t *to = link->memory->data[slot];

	memcpy(to, &packet, sizeof(packet));
	memcpy(to + sizeof(packet), data, frame->bytes);
	given->session = frame->session;
	given->far_number = frame->number;
	commit(&given->number, packet.number);
	commit(&kept->number_sent, packet.number);
	submit(link, slot, SHARE_SEND);
}

/* ---- to the other host ---- */

static void lose_far(struct link *link)
{
	wire_line_close(&link->far);
	link->is_connected = link->is_greeted = false;
	link->in_bytes = link->out_bytes = 0;
	want_connection(link);
}

static void send_what_fits(struct link *link)
{
	ssize_t sent = send(link->far.socket, link->out, link->out_bytes,
			    MSG_NOSIGNAL | MSG_DONTWAIT);

	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		lose_far(link);
	} else if (sent > 0) {
		link->out_bytes -= (size_t)sent;
		memmove(link->out, link->out + sent, link->out_bytes);
	}
}

static void put_frame(struct link *link, const struct far_frame *frame, const uint8_t *data)
{
	memcpy(link->out + link->out_bytes, frame, FAR_FRAME_HEAD_BYTES);
	link->out_bytes += FAR_FRAME_HEAD_BYTES;
	if (frame->bytes)
		memcpy(link->out + link->out_bytes, data, frame->bytes);
	link->out_bytes += frame->bytes;
}

static bool has_room(const struct link *link)
{
	return OUT_BYTES - link->out_bytes >= FRAME_MAX_BYTES;
}

static void say_hello(struct link *link)
{
	const struct far_frame hello = far_frame_make(&link->kept->stream, FAR_HELLO, 0);

	put_frame(link, &hello, NULL);
}

static void say_word(struct link *link, enum far_frame_kind kind, bool *owes)
{
	struct far_frame frame = far_frame_make(&link->kept->stream, kind, 0);

	if (!*owes || !has_room(link))
		return;
	frame.word = kind == FAR_STATE ? link->peer_word : 0;
	put_frame(link, &frame, NULL);
	*owes = false;
}

/* Number n of those that the other side has not acknowledged, from 0 on. */
static struct far_held *held_at(const struct link *link, uint64_t n)
{
	return &link->kept->held[(link->kept->stream.acked + 1 + n) % SHARE_RECEIVE_SLOTS];
}

/* All that the other side has not had on this connection. */
static void say_all(struct link *link)
{
	if (!link->is_greeted)
		return;
	say_word(link, FAR_STATE, &link->owes_state);
	say_word(link, FAR_ACK, &link->owes_ack);
	while (link->held_said < far_kept_held(link->kept) && has_room(link)) {
		const struct far_held *held = held_at(link, link->held_said++);
		struct far_frame data = far_frame_make(&link->kept->stream, FAR_DATA, held->bytes);

		data.number = link->kept->stream.acked + link->held_said;
		data.word = held->word;
		put_frame(link, &data,
			  link->memory->data[held->slot] + sizeof(struct share_packet));
	}
}

/* ---- from the other host ---- */

static void follow_far_word(struct link *link, uint64_t word)
{
	struct far_kept *kept = link->kept;
	const bool is_another = word && kept->last_word && word != kept->last_word;

	if (is_another)
		kept->openings++;
	if (word)
		commit(&kept->last_word, word);
	commit(&kept->far_word, word);
	say_open(link);
	submit_empty(link);
}

/* Up to this number, of so many that it may have. 0 or -EBADMSG. */
static int take_acked(struct link *link, uint64_t number, uint64_t said)
{
	struct far_stream after = link->kept->stream;
	const int64_t count = far_stream_acked(&after, number, said);

	for (int64_t n = 0; n < count; n++)
		link->slot[held_at(link, (uint64_t)n)->slot] = SLOT_FREE;
	if (count > 0) {
		commit(&link->kept->stream.acked, after.acked);
		link->held_said -= (uint64_t)count < link->held_said ? (uint64_t)count
								     : link->held_said;
	}
	submit_empty(link);
	return count < 0 ? -EBADMSG : 0;
}

/* Who lives anew is nobody's before all of him is written. */
static void greet(struct link *link, const struct far_stream *after, bool is_new)
{
	struct far_kept *kept = link->kept;
	const bool was_known = kept->stream.other;

	if (!is_new)
		return;
	commit(&kept->stream.other, 0);
	kept->stream.had = after->had;
	kept->openings += was_known;
	commit(&kept->last_word, 0);
	commit(&kept->stream.other, after->other);
	follow_far_word(link, 0); /* whoever was there is not any more */
}

static int take_hello(struct link *link, const struct far_frame *hello)
{
	struct far_stream after = link->kept->stream;
	bool is_new;

	if (link->is_greeted || far_stream_greet(&after, hello, &is_new))
		return -EBADMSG;
	if (hello->known == link->kept->stream.session)
		take_acked(link, hello->number, far_kept_held(link->kept));
	link->held_said = 0;
	link->is_greeted = link->owes_state = true;
	greet(link, &after, is_new);
	return 0;
}

/* 1: taken; 0: there is no room for it now; -EBADMSG. */
static int take_data(struct link *link, const struct far_frame *frame, const uint8_t *data)
{
	struct far_stream after = link->kept->stream;
	unsigned slot;
	int got;

	if (!find_send_slot(link, &slot))
		return 0;
	got = far_stream_take(&after, frame);
	if (got < 0)
		return got;
	link->owes_ack = true;
	if (got && link->peer_word && frame->word == link->peer_word)
		send_to_hub(link, slot, frame, data);
	commit(&link->kept->stream.had, after.had);
	return 1;
}

static int take_frame(struct link *link, const struct far_frame *frame, const uint8_t *data)
{
	if (frame->kind == FAR_HELLO)
		return take_hello(link, frame) ? -EBADMSG : 1;
	if (!link->is_greeted || frame->session != link->kept->stream.other)
		return -EBADMSG;
	if (frame->kind == FAR_DATA)
		return take_data(link, frame, data);
	if (frame->kind == FAR_STATE) {
		follow_far_word(link, frame->word);
		return 1;
	}
	return take_acked(link, frame->number, link->held_said) ? -EBADMSG : 1;
}

/* As far as they are there and have room. False: it makes no sense. */
static bool take_frames(struct link *link)
{
	size_t at = 0;
	int got = 1;

	while (got > 0 && link->in_bytes - at >= FAR_FRAME_HEAD_BYTES) {
		struct far_frame frame;

		memcpy(&frame, link->in + at, sizeof(frame));
		if (far_frame_check(&frame, SHARE_DATA_MAX_BYTES))
			return false;
		if (link->in_bytes - at < FAR_FRAME_HEAD_BYTES + frame.bytes)
			break;
		got = take_frame(link, &frame, link->in + at + FAR_FRAME_HEAD_BYTES);
		if (got > 0)
			at += FAR_FRAME_HEAD_BYTES + frame.bytes;
	}
	link->in_bytes -= at;
	memmove(link->in, link->in + at, link->in_bytes);
	return got >= 0;
}

static void hear_far(struct link *link)
{
	ssize_t got = recv(link->far.socket, link->in + link->in_bytes, IN_BYTES - link->in_bytes,
			   MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	link->in_bytes += got > 0 ? (size_t)got : 0;
	if (got <= 0 || !take_frames(link))
		lose_far(link);
}

/* The newest is used: one before it may be lost without anybody having heard. */
static void take_connection(struct link *link)
{
	struct wire_line line;

	if (read(link->connected[0], &line, sizeof(line)) != sizeof(line))
		abort();
	if (link->is_connected)
		wire_line_close(&link->far);
	link->far = line;
	link->is_connected = true;
	link->is_greeted = false;
	link->in_bytes = link->out_bytes = 0;
	say_hello(link);
}

/* ---- from the hub ---- */

/* From the entry of its number on it is this side's. */
static void hold(struct link *link, unsigned slot, const struct share_packet *packet)
{
	struct far_kept *kept = link->kept;
	struct far_stream after = kept->stream;
	const uint64_t number = far_stream_put(&after);

	kept->held[number % SHARE_RECEIVE_SLOTS] = (struct far_held){ .slot = slot,
								      .bytes = packet->bytes,
								      .word = kept->far_word,
								      .epoch = packet->epoch,
								      .number = packet->number };
	commit(&kept->stream.sent, after.sent);
	link->slot[slot] = SLOT_HELD;
}

static void take_packet(struct link *link, unsigned slot)
{
	struct far_kept *kept = link->kept;
	struct share_packet packet;
	bool is_known;

	memcpy(&packet, link->memory->data[slot], sizeof(packet));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (packet.epoch != kept->peer_epoch) {
		commit(&kept->had, 0);
		commit(&kept->peer_epoch, packet.epoch);
	}
	is_known = packet.number <= kept->had;
	if (is_known || packet.kind != SHARE_PACKET_DATA || packet.id ||
	    packet.bytes > SHARE_DATA_MAX_BYTES)
		submit(link, slot, SHARE_RECEIVE);
	else
		hold(link, slot, &packet);
	if (!is_known)
		commit(&kept->had, packet.number);
}

/* False: the hub has failed. */
static bool take_reply(struct link *link, const struct slot_reply *reply)
{
	if (link->slot[reply->slot] != SLOT_HUBS)
		return false;
	if (reply->slot >= SHARE_RECEIVE_SLOTS) {
		commit(&link->kept->given[reply->slot].number, 0);
		link->slot[reply->slot] = SLOT_FREE;
	} else if (reply->result > 0) {
		take_packet(link, reply->slot);
	} else {
		submit(link, reply->slot, SHARE_RECEIVE);
	}
	return true;
}

/*
 * As many as there are slots: one that answers without end holds up nobody else. What is there yet
 * is looked at in the next turn.
 */
static bool take_replies(struct link *link)
{
	struct slot_reply reply;
	ssize_t written = 0;

	for (unsigned n = 0; n < SHARE_SLOTS; n++) {
		const int got = slot_collect(&link->client, &reply);

		if (!got)
			return true;
		if (got < 0 || !take_reply(link, &reply))
			return false;
		__atomic_store_n(&link->kept->collected, link->client.collected, __ATOMIC_RELEASE);
	}
	if (slot_has_reply(&link->client))
		written = write(link->answer, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
	return true;
}

/* The bell before what it tells of: what changes behind these looks rings it once more. */
static bool hear_port(struct link *link)
{
	uint64_t rung;
	uint32_t word;
	bool good;

	if (read(link->answer, &rung, sizeof(rung)) < 0)
		errno = 0; /* it does not wait */
	word = __atomic_load_n(&link->memory->peer_is_there, __ATOMIC_ACQUIRE);
	__atomic_store_n(&link->memory->queue.replies.sleeps, 1, __ATOMIC_SEQ_CST);
	good = take_replies(link);
	link->owes_state |= word != link->peer_word;
	link->peer_word = word;
	return good;
}

/* ---- joining ---- */

/*
 * What the hub had before this process began is still its, but packets that are held: what it has
 * answered since is looked at before it is given anything anew.
 */
static void take_up(struct link *link)
{
	far_kept_recover(link->kept);
	for (unsigned n = 0; n < SHARE_RECEIVE_SLOTS; n++)
		link->slot[n] = far_kept_holds(link->kept, n) ? SLOT_HELD : SLOT_HUBS;
	for (unsigned n = SHARE_RECEIVE_SLOTS; n < SHARE_SLOTS; n++)
		link->slot[n] = link->kept->given[n].number ? SLOT_HUBS : SLOT_FREE;
	link->client.collected = link->kept->collected;
	link->peer_word = __atomic_load_n(&link->memory->peer_is_there, __ATOMIC_ACQUIRE);
}

/* Where nobody says which, in the folder of the hub's socket. */
static int open_files(struct link *link)
{
	char path[SOCKET_BYTES + WIRE_INSTANCE_BYTES + 16];
	const int folder = (int)(strrchr(link->hub, '/') - link->hub);
	bool is_new;
	int error;

	snprintf(path, sizeof(path), "%.*s/.far-%s-%s", folder, link->hub,
		 is_reach(link) ? "reach" : "serve", link->choice->what);
	for (char *at = path + folder + 1; *at; at++)
		if (*at == '/')
			*at = '=';
	error = far_kept_open(link->choice->record ? link->choice->record : path,
			      link->choice->what, link->side, &link->files, &is_new);
	link->kept = link->files.kept;
	link->memory = link->files.memory;
	return error;
}

static int make_port(struct link *link)
{
	const int error = open_files(link);

	if (error)
		return complain(EXIT_UNUSABLE,
				error == -EBUSY ? "it runs already" : strerror(-error),
				link->choice->what, "end the other one, or say --record FILE");
	link->client = (struct slot_client){ .queue = &link->memory->queue, .slots = SHARE_SLOTS,
					     .doorbell_fd = link->bell,
					     .answer_fd = link->answer };
	take_up(link);
	return 0;
}

/* What was there before was taken; what is not answered is asked again, in order. */
static void begin_anew(struct link *link)
{
	uint8_t order[SHARE_SEND_SLOTS];
	const unsigned count = far_kept_order(link->kept, order);

	slot_restart(&link->client);
	__atomic_store_n(&link->kept->collected, 0, __ATOMIC_RELEASE);
	for (unsigned n = 0; n < SHARE_RECEIVE_SLOTS; n++)
		if (link->slot[n] == SLOT_HUBS)
			link->slot[n] = SLOT_FREE;
	submit_empty(link);
	for (unsigned n = 0; n < count; n++)
		submit(link, order[n], SHARE_SEND);
	__atomic_store_n(&link->memory->accepted, link->memory->generation, __ATOMIC_RELEASE);
	say_open(link);
}

/* No window: what a guest lends is of its own host. */
static int ask_to_join(const struct link *link)
{
	const int fds[] = { link->files.memory_fd, link->bell, link->answer };
	struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_JOIN };
	int none[WIRE_FDS];
	int error;

	message.join = (struct wire_join){ .least = WIRE_VERSION_LEAST, .most = WIRE_VERSION,
					   .side = link->side, .class = "packet" };
	snprintf(message.join.machine, sizeof(message.join.machine), "%s", link->machine);
	snprintf(message.join.instance, sizeof(message.join.instance), "%s", link->choice->what);
	error = line_send(link->line, &message, fds, sizeof(fds) / sizeof(fds[0]));
	if (!error)
		error = line_receive(link->line, &message, none, true);
	if (error < 0)
		return error;
	return message.kind == WIRE_JOINED && message.version ? 0 : -EPERM;
}

static void leave_hub(struct link *link)
{
	if (link->line >= 0)
		close(link->line);
	link->line = -1;
}

/* By the hub before, or this one for who was here before: some of it may be taken already. */
static void take_left(struct link *link)
{
	struct slot_reply reply;

	while (slot_collect(&link->client, &reply) > 0) {
		if (link->slot[reply.slot] == SLOT_HUBS)
			take_reply(link, &reply);
		__atomic_store_n(&link->kept->collected, link->client.collected, __ATOMIC_RELEASE);
	}
}

static int join_hub(struct link *link)
{
	int error;

	link->line = far_port_reach_hub(link->hub);
	if (link->line < 0)
		return link->line;
	far_port_bring_rules(link->line);
	__atomic_fetch_add(&link->memory->generation, 1, __ATOMIC_SEQ_CST);
	error = ask_to_join(link);
	if (error) {
		leave_hub(link);
		return error;
	}
	far_port_hold(link->line, link->end);
	take_left(link);
	begin_anew(link);
	return 0;
}

/* False: the hub is gone. */
static bool hear_line(struct link *link)
{
	struct wire_message message;
	int fds[WIRE_FDS];
	int got = line_receive(link->line, &message, fds, false);

	for (unsigned n = 0; got > 0 && n < WIRE_FDS; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	return got >= 0;
}

/* ---- all of it ---- */

static void serve_far(struct link *link, short events)
{
	if (events & ~POLLOUT && link->is_connected)
		hear_far(link);
	/* what found no slot before */
	else if (link->is_connected && link->in_bytes && !take_frames(link))
		lose_far(link);
	say_all(link);
	if (link->out_bytes && link->is_connected)
		send_what_fits(link);
}

/* Until the hub is gone; without one, so many milliseconds. */
static void stay(struct link *link, int timeout_ms)
{
	bool goes_on = true;

	while (goes_on) {
		struct pollfd polls[] = {
			{ .fd = link->line, .events = POLLIN },
			{ .fd = link->answer, .events = POLLIN },
			{ .fd = link->connected[0], .events = POLLIN },
			{ .fd = link->is_connected ? link->far.socket : -1,
			  .events = link->in_bytes < IN_BYTES ? POLLIN : 0 },
		};

		if (link->out_bytes)
			polls[3].events |= POLLOUT;
		if (poll(polls, sizeof(polls) / sizeof(polls[0]), timeout_ms) < 0)
			continue;
		if (polls[0].revents)
			goes_on = hear_line(link);
		if (goes_on && link->line >= 0)
			goes_on = hear_port(link);
		if (polls[2].revents)
			take_connection(link);
		else
			serve_far(link, polls[3].revents);
		say_all(link);
		if (link->line >= 0)
			slot_kick(&link->client);
		goes_on &= link->line >= 0;
	}
}

static int keep_joined(struct link *link)
{
	int delay_ms = FAR_FIRST_DELAY_MS;

	for (bool is_first = true;; is_first = false) {
		int error = join_hub(link);

		if (error && is_first)
			return complain(EXIT_FAULT, strerror(-error), "joining the hub",
					"see umbra doctor");
		if (!error) {
			delay_ms = FAR_FIRST_DELAY_MS;
			stay(link, -1);
			take_replies(link);
			leave_hub(link);
		}
		stay(link, delay_ms);
		delay_ms = far_longer_ms(delay_ms);
	}
}

static int take_names(struct link *link)
{
	struct share_plan plan = { .count = 0 };
	int code = share_option_bind(&plan, link->choice->what);
	const char *slash = strchr(link->choice->what, '/');

	if (code)
		return code;
	if (is_reach(link))
		snprintf(link->machine, sizeof(link->machine), "%.*s",
			 (int)(slash - link->choice->what), link->choice->what);
	else
		snprintf(link->machine, sizeof(link->machine), "%s", own_name);
	if (place_parse(link->choice->place, default_port, &link->place))
		return complain(EXIT_USAGE, "not HOST:PORT", link->choice->place,
				"say for example store.example:4642");
	return name_hub_path(link->hub, sizeof(link->hub))
		       ? complain(EXIT_USAGE, "no folder for the hub's socket", link->hub,
				  "set XDG_RUNTIME_DIR to a folder that is yours")
		       : 0;
}

static int begin_connecting(struct link *link)
{
	int error;

	link->dial = (struct far_dial){ .choice = link->choice, .place = &link->place,
					.connected = link->connected[1] };
	error = far_dial_begin(&link->dial);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "umbra far", "start it again");
	far_dial_again(&link->dial);
	return 0;
}

static int begin_listening(struct link *link)
{
	pthread_t thread;
	int error;

	link->listener = place_listen(&link->place);
	if (link->listener < 0)
		return complain(EXIT_USAGE, strerror(-link->listener), link->choice->place,
				"name a port where nobody listens");
	place_say(link->listener);
	error = pthread_create(&thread, NULL, accept_always, link);
	return error ? complain(EXIT_FAULT, strerror(error), "umbra far", "start it again") : 0;
}

int far_packets(const struct far_choice *choice, bool reaches)
{
	static struct link link;
	int code;

	link = (struct link){ .choice = choice, .line = -1,
			      .side = reaches ? SHARE_SIDE_SERVES : SHARE_SIDE_BINDS };
	code = take_names(&link);
	if (code)
		return code;
	link.in = malloc(IN_BYTES);
	link.out = malloc(OUT_BYTES);
	link.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	link.answer = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!link.in || !link.out || link.bell < 0 || link.answer < 0 ||
	    pipe2(link.connected, O_CLOEXEC))
		return complain(EXIT_FAULT, strerror(errno), "umbra far", "start it again");
	link.end = far_port_keep_place(); /* who keeps it has not the files, and not their lock */
	if (link.end < 0)
		return complain(EXIT_FAULT, strerror(-link.end), "umbra far", "start it again");
	code = make_port(&link);
	if (code)
		return code;
	code = reaches ? begin_connecting(&link) : begin_listening(&link);
	return code ? code : keep_joined(&link);
}
