/* See hvsock.h. */
#include "hvsock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/hvsock_layout.h"
#include "abi/vmbus_layout.h"
#include "lib/check.h"

#define HOST_ENDPOINT GUID(0, 0, 0, 0x9f, 0x21, 0x75, 0x6d, 0x62, 0x72, 0x61, 0x20)

enum { OFFER_SECONDS = 5 };
enum state { FREE, ASKING, OFFERED, OPEN, ENDING, STATES };

struct connection {
	struct hvsock *hvsock;
	struct bus_service service;
	struct bus_channel *channel; /* NULL: none, or the guest has let it go */
	unsigned number;
	enum state state;
	bool has_channel;  /* the guest has not let it go */
	bool is_sending;   /* its second slot is the relay's */
	bool has_message;  /* its first slot has brought `message`, which waits */
	struct connection_message message;
	bool wants_offer, wants_rescind, wants_run, was_refused;
	bool say_opened, say_gone;
	bool guest_finished, said_gone, heard_gone;
	unsigned seconds; /* since it was offered */
};

struct hvsock {
	struct bus *bus;
	struct connection_memory *memory;
	struct slot_client *client;
	struct bus_connector connector;
	pthread_mutex_t lock; /* of what follows, and of submissions */
	uint32_t generation;
	struct connection connection[CONNECTIONS];
	bool has_work, is_cut_off;
	uint64_t endpoint; /* that was named last */
	uint64_t begun, refused, to_guest_bytes, to_host_bytes, relays;
	/* of the thread that collects */
	struct { struct hvsock_pipe head; uint8_t data[CONNECTION_BYTES]; } packet;
};

static bool is_of_host(const struct connection *connection)
{
	return connection->number < CONNECTIONS_OF_HOST;
}

static void check_connections(const struct hvsock *hvsock)
{
	for (unsigned n = 0; n < CONNECTIONS; n++) {
		const struct connection *connection = &hvsock->connection[n];

		assert(connection->state < STATES && connection->number == n);
		assert(connection->state != FREE || !connection->has_channel);
		assert(!connection->channel || connection->has_channel);
		assert(connection->state != ASKING || !is_of_host(connection));
	}
}

void check_hvsock(struct hvsock *hvsock)
{
	pthread_mutex_lock(&hvsock->lock);
	check_connections(hvsock);
	pthread_mutex_unlock(&hvsock->lock);
}

/* ---- with the lock ---- */

static void wake(struct hvsock *hvsock)
{
	hvsock->has_work = true;
	slot_wake(hvsock->client);
}

/* The first slot, empty. */
static void take_next(struct connection *connection)
{
	struct hvsock *hvsock = connection->hvsock;
	const struct slot_request request = { .slot = (uint16_t)connection->number,
					      .kind = CONNECTION_TAKE };

	connection->has_message = false;
	if (hvsock->is_cut_off)
		return;
	slot_submit(hvsock->client, &request);
	slot_kick(hvsock->client);
}

static void send_message(struct connection *connection, enum connection_kind kind, uint32_t port,
			 const void *data, uint32_t bytes)
{
	struct hvsock *hvsock = connection->hvsock;
	const unsigned slot = CONNECTIONS + connection->number;
	const struct slot_request request = { .slot = (uint16_t)slot, .kind = (uint16_t)kind };

	assert(!connection->is_sending && bytes <= CONNECTION_BYTES);
	if (hvsock->is_cut_off)
		return;
	hvsock->memory->slot[slot].message =
		(struct connection_message){ .kind = kind, .port = port, .bytes = bytes };
	memcpy(hvsock->memory->slot[slot].data, data, bytes);
	connection->is_sending = true;
	slot_submit(hvsock->client, &request);
	slot_kick(hvsock->client);
}

/* What is to be said beside data, one after the other. */
static void say(struct connection *connection)
{
	if (connection->is_sending)
		return;
	if (connection->say_opened) {
		connection->say_opened = false;
		send_message(connection, CONNECTION_OPENED, 0, "", 0);
	} else if (connection->say_gone) {
		connection->say_gone = false;
		connection->said_gone = true;
		send_message(connection, CONNECTION_GONE, 0, "", 0);
	}
}

static void end(struct connection *connection)
{
	if (connection->state == FREE || connection->state == ENDING)
		return;
	connection->state = ENDING;
	connection->say_opened = false;
	connection->say_gone = true;
	connection->wants_rescind = true;
	wake(connection->hvsock);
}

static void become_free(struct connection *connection)
{
	const struct connection fresh = { .hvsock = connection->hvsock,
					  .service = connection->service,
					  .number = connection->number };

	*connection = fresh;
	take_next(connection);
}

static void free_if_over(struct connection *connection)
{
	if (connection->state == ENDING && connection->said_gone && connection->heard_gone &&
	    !connection->is_sending && !connection->has_channel)
		become_free(connection);
}

/* ---- from the guest, on any thread ---- */

static void opened(void *context)
{
	struct connection *connection = context;
	struct hvsock *hvsock = connection->hvsock;

	pthread_mutex_lock(&hvsock->lock);
	if (connection->state == OFFERED) {
		connection->state = OPEN;
		connection->say_opened = is_of_host(connection);
		wake(hvsock);
	}
	pthread_mutex_unlock(&hvsock->lock);
}

static void closed(void *context)
{
	struct connection *connection = context;

	pthread_mutex_lock(&connection->hvsock->lock);
	end(connection);
	pthread_mutex_unlock(&connection->hvsock->lock);
}

static void released(void *context)
{
	struct connection *connection = context;

	pthread_mutex_lock(&connection->hvsock->lock);
	connection->channel = NULL;
	connection->has_channel = false;
	end(connection);
	wake(connection->hvsock);
	pthread_mutex_unlock(&connection->hvsock->lock);
}

static bool ready(void *context)
{
	struct connection *connection = context;
	bool is_ready;

	pthread_mutex_lock(&connection->hvsock->lock);
	is_ready = !connection->is_sending && !connection->say_opened;
	pthread_mutex_unlock(&connection->hvsock->lock);
	return is_ready;
}

static int take_data(struct connection *connection, const uint8_t *data, uint32_t bytes)
{
	if (connection->state == ENDING)
		return 0; /* nobody takes it any more */
	if (connection->state != OPEN || connection->guest_finished)
		return -EBADMSG;
	connection->guest_finished = !bytes;
	connection->hvsock->to_host_bytes += bytes;
	send_message(connection, bytes ? CONNECTION_DATA : CONNECTION_FINISHED, 0, data, bytes);
	return 0;
}

static int packet(void *context, const struct bus_packet *packet)
{
	struct connection *connection = context;
	struct hvsock_pipe head;
	int error = -EBADMSG;

	pthread_mutex_lock(&connection->hvsock->lock);
	if (packet->type == PACKET_INBAND && packet->payload_bytes >= sizeof(head)) {
		memcpy(&head, packet->payload, sizeof(head));
		if (head.kind == HVSOCK_PIPE_DATA && head.bytes <= CONNECTION_BYTES &&
		    head.bytes <= packet->payload_bytes - sizeof(head))
			error = take_data(connection, packet->payload + sizeof(head), head.bytes);
	}
	if (error)
		end(connection);
	pthread_mutex_unlock(&connection->hvsock->lock);
	return error;
}

static void room(void *context)
{
	struct connection *connection = context;

	pthread_mutex_lock(&connection->hvsock->lock);
	wake(connection->hvsock);
	pthread_mutex_unlock(&connection->hvsock->lock);
}

/* False: it is no port of AF_VSOCK's. */
static bool parse_port(const struct guid *service, uint32_t *ret)
{
	struct guid whole;

	memcpy(ret, service->byte, sizeof(*ret));
	whole = HVSOCK_SERVICE(*ret);
	return !memcmp(&whole, service, sizeof(whole));
}

static struct connection *find_free(struct hvsock *hvsock)
{
	for (unsigned n = CONNECTIONS_OF_HOST; n < CONNECTIONS; n++)
		if (hvsock->connection[n].state == FREE && !hvsock->connection[n].is_sending)
			return &hvsock->connection[n];
	return NULL;
}

static void guest_connects(void *context, struct guid endpoint, struct guid service)
{
	struct hvsock *hvsock = context;
	struct connection *connection;
	uint32_t port;

	pthread_mutex_lock(&hvsock->lock);
	connection = find_free(hvsock);
	if (connection && !hvsock->is_cut_off && parse_port(&service, &port)) {
		connection->state = ASKING;
		connection->service.type = service;
		connection->service.instance = endpoint;
		send_message(connection, CONNECTION_CONNECT, port, "", 0);
	} else {
		hvsock->refused++; /* its driver waits as long as it wants, as with any host */
	}
	CHECK(check_connections(hvsock));
	pthread_mutex_unlock(&hvsock->lock);
}

/* ---- from the relay, on the thread that collects; with the lock ---- */

/* Nothing more is said to who had the other side, or heard from there. */
static void break_off(struct connection *connection)
{
	end(connection);
	connection->is_sending = connection->has_message = false;
	if (connection->state == FREE)
		return;
	connection->say_opened = connection->say_gone = false;
	connection->wants_offer = connection->was_refused = false;
	connection->said_gone = connection->heard_gone = true;
}

static void cut_off(struct hvsock *hvsock)
{
	hvsock->is_cut_off = true;
	slot_ignore(hvsock->client);
	for (unsigned n = 0; n < CONNECTIONS; n++)
		break_off(&hvsock->connection[n]);
	hvsock->has_work = true;
}

/* Another relay than before: it begins with what is free. */
static void begin_anew(struct hvsock *hvsock, uint32_t generation)
{
	ssize_t written;

	cut_off(hvsock);
	hvsock->generation = generation;
	hvsock->is_cut_off = false;
	hvsock->relays++;
	slot_restart(hvsock->client);
	for (unsigned n = 0; n < CONNECTIONS; n++)
		if (hvsock->connection[n].state == FREE)
			take_next(&hvsock->connection[n]);
	__atomic_store_n(&hvsock->memory->accepted, generation, __ATOMIC_RELEASE);
	written = write(hvsock->client->doorbell_fd, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
}

static void look_for_relay(struct hvsock *hvsock)
{
	const uint32_t generation =
		__atomic_load_n(&hvsock->memory->generation, __ATOMIC_ACQUIRE);

	if (generation != hvsock->generation)
		begin_anew(hvsock, generation);
}

/* 0 or -EBADMSG. */
static int take_message(struct connection *connection)
{
	struct hvsock *hvsock = connection->hvsock;

	memcpy(&connection->message, &hvsock->memory->slot[connection->number].message,
	       sizeof(connection->message));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (connection->has_message || connection->heard_gone ||
	    connection->message.kind == CONNECTION_TAKE ||
	    connection->message.kind == CONNECTION_OPENED ||
	    connection->message.kind >= CONNECTION_KINDS)
		return -EBADMSG;
	if (connection->message.bytes > CONNECTION_BYTES ||
	    (connection->message.kind == CONNECTION_DATA) != (connection->message.bytes != 0))
		return -EBADMSG;
	if ((connection->message.kind == CONNECTION_CONNECT) !=
	    (connection->state == FREE && is_of_host(connection)))
		return -EBADMSG;
	connection->has_message = true;
	return 0;
}

static int take_outcome(struct connection *connection, int32_t result)
{
	if (!connection->is_sending)
		return -EBADMSG;
	connection->is_sending = false;
	connection->wants_run = true;
	if (connection->state != ASKING)
		return 0;
	connection->was_refused = result != 0;
	connection->wants_offer = !result;
	return 0;
}

static void take_replies(struct hvsock *hvsock)
{
	struct slot_reply reply;
	int got = 0;

	while (!hvsock->is_cut_off && (got = slot_collect(hvsock->client, &reply)) > 0) {
		struct connection *connection = &hvsock->connection[reply.slot % CONNECTIONS];

		got = reply.slot < CONNECTIONS ? take_message(connection)
					       : take_outcome(connection, reply.result);
		hvsock->has_work = true;
		if (got < 0)
			cut_off(hvsock);
	}
	if (got < 0 && !hvsock->is_cut_off)
		cut_off(hvsock);
}

/* ---- what is left to do, on the thread that collects ---- */

/*
 * Another one each time, also in a machine that goes on from a file or was forked: the guest may
 * not have forgotten those that have ended, and takes a name that comes again for one of them. So
 * it is the time by the machine's own clock, which is never set back; the host's may be another's.
 */
static struct guid host_endpoint(struct hvsock *hvsock)
{
	const uint64_t now_100ns = bus_now_100ns(hvsock->bus);
	struct guid endpoint = HOST_ENDPOINT;

	/* two may come before the clock goes on */
	hvsock->endpoint = now_100ns > hvsock->endpoint ? now_100ns : hvsock->endpoint + 1;
	memcpy(endpoint.byte, &hvsock->endpoint, sizeof(hvsock->endpoint));
	return endpoint;
}

/* What of a message needs no channel; with the lock. */
static void obey(struct connection *connection)
{
	if (!connection->has_message)
		return;
	switch ((enum connection_kind)connection->message.kind) {
	case CONNECTION_CONNECT:
		connection->state = OFFERED;
		connection->service.type = HVSOCK_SERVICE(connection->message.port);
		connection->service.instance = host_endpoint(connection->hvsock);
		connection->wants_offer = true;
		take_next(connection);
		break;
	case CONNECTION_GONE:
		/* its slot is empty again when it is free */
		connection->has_message = false;
		connection->heard_gone = true;
		end(connection);
		break;
	default:
		if (connection->state == ENDING)
			take_next(connection);
	}
}

static void offer(struct connection *connection)
{
	struct hvsock *hvsock = connection->hvsock;
	struct bus_channel *channel;

	pthread_mutex_lock(&hvsock->lock);
	connection->wants_offer = false;
	if (connection->state != ASKING && connection->state != OFFERED) {
		pthread_mutex_unlock(&hvsock->lock);
		return;
	}
	connection->state = OFFERED;
	connection->seconds = 0;
	connection->has_channel = true;
	pthread_mutex_unlock(&hvsock->lock);
	/* the guest may open it, and let it go, before this returns */
	channel = bus_offer_late(hvsock->bus, &connection->service);
	pthread_mutex_lock(&hvsock->lock);
	hvsock->begun += channel != NULL;
	hvsock->refused += !channel;
	if (!channel) {
		connection->has_channel = false;
		end(connection);
	} else if (connection->has_channel) {
		connection->channel = channel;
	}
	pthread_mutex_unlock(&hvsock->lock);
}

/* With the channel's lock. */
static void deliver(struct connection *connection, struct bus_channel *channel)
{
	struct hvsock *hvsock = connection->hvsock;
	const uint32_t bytes = connection->message.bytes;
	int error;

	hvsock->packet.head = (struct hvsock_pipe){ .kind = HVSOCK_PIPE_DATA, .bytes = bytes };
	memcpy(hvsock->packet.data, hvsock->memory->slot[connection->number].data, bytes);
	error = bus_channel_send(channel, PACKET_INBAND, 0, &hvsock->packet,
				 sizeof(hvsock->packet.head) + bytes);
	if (error == -EAGAIN)
		return; /* room() */
	pthread_mutex_lock(&hvsock->lock);
	hvsock->to_guest_bytes += bytes;
	take_next(connection);
	if (error)
		end(connection);
	pthread_mutex_unlock(&hvsock->lock);
}

/* Data that waits for the guest. */
static void deliver_waiting(struct connection *connection)
{
	struct hvsock *hvsock = connection->hvsock;
	struct bus_channel *channel;
	bool is_open;

	pthread_mutex_lock(&hvsock->lock);
	channel = connection->channel;
	pthread_mutex_unlock(&hvsock->lock);
	if (!channel)
		return;
	bus_channel_lock(channel);
	pthread_mutex_lock(&hvsock->lock);
	is_open = connection->has_message && connection->state == OPEN &&
		  connection->channel == channel;
	pthread_mutex_unlock(&hvsock->lock);
	if (is_open)
		deliver(connection, channel);
	bus_channel_unlock(channel);
}

/* With the lock. What the bus is asked for afterwards: a channel to run, one to take away. */
static void go_on(struct connection *connection, struct bus_channel **ret_run,
		  struct bus_channel **ret_rescind)
{
	if (connection->was_refused) {
		connection->hvsock->refused++;
		connection->was_refused = false;
		connection->state = FREE;
	}
	say(connection);
	*ret_run = connection->wants_run ? connection->channel : NULL;
	*ret_rescind = connection->wants_rescind ? connection->channel : NULL;
	connection->wants_run = connection->wants_rescind = false;
	free_if_over(connection);
}

static void advance(struct connection *connection)
{
	struct hvsock *hvsock = connection->hvsock;
	struct bus_channel *run;
	struct bus_channel *rescind;
	bool wants_offer;

	pthread_mutex_lock(&hvsock->lock);
	obey(connection);
	wants_offer = connection->wants_offer;
	pthread_mutex_unlock(&hvsock->lock);
	if (wants_offer)
		offer(connection);
	deliver_waiting(connection);
	pthread_mutex_lock(&hvsock->lock);
	go_on(connection, &run, &rescind);
	pthread_mutex_unlock(&hvsock->lock);
	if (run)
		bus_channel_run(run);
	if (rescind)
		bus_rescind(rescind);
}

void hvsock_collect(struct hvsock *hvsock)
{
	bool has_work;

	pthread_mutex_lock(&hvsock->lock);
	look_for_relay(hvsock);
	take_replies(hvsock);
	has_work = hvsock->has_work;
	hvsock->has_work = false;
	pthread_mutex_unlock(&hvsock->lock);
	if (!has_work)
		return;
	for (unsigned n = 0; n < CONNECTIONS; n++)
		advance(&hvsock->connection[n]);
	CHECK(check_hvsock(hvsock));
}

/* ---- the device ---- */

static void make_service(struct connection *connection)
{
	connection->service = (struct bus_service){ .opened = opened,
						    .closed = closed,
						    .ready = ready,
						    .packet = packet,
						    .room = room,
						    .released = released,
						    .offer_flags = VMBUS_OFFER_SOCKET,
						    .context = connection };
	connection->service.user_data[VMBUS_USER_FROM_HOST] = is_of_host(connection);
}

struct hvsock *hvsock_create(struct bus *bus, struct connection_memory *memory,
			     struct slot_client *client)
{
	struct hvsock *hvsock = calloc(1, sizeof(*hvsock));

	assert(memory && client->slots == CONNECTION_SLOTS);
	if (!hvsock)
		return NULL;
	hvsock->bus = bus;
	hvsock->memory = memory;
	hvsock->client = client;
	hvsock->is_cut_off = true; /* until there is a relay */
	hvsock->connector = (struct bus_connector){ .connect = guest_connects, .context = hvsock };
	pthread_mutex_init(&hvsock->lock, NULL);
	for (unsigned n = 0; n < CONNECTIONS; n++) {
		hvsock->connection[n] = (struct connection){ .hvsock = hvsock, .number = n };
		make_service(&hvsock->connection[n]);
	}
	bus_set_connector(bus, &hvsock->connector);
	return hvsock;
}

void hvsock_destroy(struct hvsock *hvsock) { free(hvsock); }

/* An offer that nobody opens goes; what had no room in the outbox is said again. */
static void tick(struct connection *connection)
{
	if (connection->state == OFFERED && ++connection->seconds > OFFER_SECONDS)
		end(connection);
	connection->wants_rescind |= connection->state == ENDING && connection->channel;
}

static void unit_tick(void *self, unsigned seconds)
{
	struct hvsock *hvsock = self;

	(void)seconds;
	pthread_mutex_lock(&hvsock->lock);
	for (unsigned n = 0; n < CONNECTIONS; n++)
		if (hvsock->connection[n].state != FREE) {
			tick(&hvsock->connection[n]);
			wake(hvsock);
		}
	pthread_mutex_unlock(&hvsock->lock);
}

static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	const struct hvsock *hvsock = self;
	int used = snprintf(text, bytes,
			    "sockets: connections %lu, refused %lu, to-guest-bytes %lu, "
			    "from-guest-bytes %lu, relays %lu, cut-off %d\n",
			    hvsock->begun, hvsock->refused, hvsock->to_guest_bytes,
			    hvsock->to_host_bytes, hvsock->relays,
			    hvsock->is_cut_off);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

/* Connections are those of the machine that was forked alone, and end here. */
static void unit_forked(void *self)
{
	struct hvsock *hvsock = self;

	pthread_mutex_init(&hvsock->lock, NULL);
	cut_off(hvsock);
	hvsock->generation = 0; /* whoever serves it is another */
	wake(hvsock);
}

static void unit_destroy(void *self) { hvsock_destroy(self); }

const struct unit_ops hvsock_unit = {
	.name = "sockets", .forked = unit_forked, .destroy = unit_destroy, .tick = unit_tick,
	.statistics = unit_statistics,
};
