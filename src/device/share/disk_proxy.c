/* See disk_proxy.h. */
#include "disk_proxy_internal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "abi/share.h"
#include "abi/share_disk.h"
#include "device/storvsp/storage.h"
#include "lender.h"
#include "lib/check.h"

void check_disk_proxy(const struct disk_proxy *proxy)
{
	unsigned send_free = 0;

	for (unsigned n = 0; n < SLOTS; n++) {
		assert(proxy->pending[n].is_there == proxy->disk_server.busy[n]);
		assert(!proxy->pending[n].is_there ||
		       proxy->pending[n].number <= proxy->last_number);
	}
	for (unsigned n = SHARE_RECEIVE_SLOTS; n < SHARE_SLOTS; n++)
		send_free += !proxy->is_hubs[n];
	assert(send_free == proxy->send_free);
	assert(proxy->state != SERVING || proxy->is_known);
	assert(!proxy->is_old || proxy->last_old <= proxy->last_number);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* ---- to the hub ---- */

static void submit(struct disk_proxy *proxy, unsigned slot, enum share_request_kind kind,
		   bool hears_later)
{
	const struct slot_request request = {
		.slot = (uint16_t)slot, .kind = (uint16_t)kind,
		.target = hears_later ? SHARE_HEARS_LATER : SHARE_HEARS_AT_ONCE
	};

	proxy->is_hubs[slot] = true;
	slot_submit(proxy->client, &request);
	proxy->submitted = true;
}

/* That it was delivered is of no account, as long as there are slots for the next ones. */
static bool hears_later(const struct disk_proxy *proxy, enum share_packet_kind kind)
{
	return kind == SHARE_PACKET_DATA && proxy->send_free > SHARE_SEND_SLOTS / 2;
}

/* False: no slot is free. */
static bool send_packet(struct disk_proxy *proxy, enum share_packet_kind kind, const void *message,
			uint32_t bytes)
{
	unsigned slot;
	uint8_t *to;

	if (!proxy->send_free)
		return false;
	slot = proxy->send_stack[--proxy->send_free];
	to = proxy->memory->data[slot];
	proxy->sent[slot] = (struct share_packet){ .epoch = proxy->epoch,
						   .number = ++proxy->number_sent,
						   .bytes = bytes,
						   .kind = kind };
	memcpy(to, &proxy->sent[slot], sizeof(struct share_packet));
	if (bytes)
		memcpy(to + sizeof(struct share_packet), message, bytes);
	submit(proxy, slot, SHARE_SEND, hears_later(proxy, kind));
	return true;
}

static void ring(const struct disk_proxy *proxy)
{
	const ssize_t written = write(proxy->client->doorbell_fd, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

/* ---- to the server ---- */

static uint64_t first_number(const struct pending *pending)
{
	return pending->number - (disk_proxy_is_long(&pending->request) ? SLOTS : 0);
}

/* The smallest number that is not answered; the next one where all are. */
static uint64_t oldest_number(const struct disk_proxy *proxy)
{
	uint64_t oldest = proxy->last_number + 1;

	for (unsigned n = 0; n < SLOTS; n++)
		if (proxy->pending[n].is_there && first_number(&proxy->pending[n]) < oldest)
			oldest = first_number(&proxy->pending[n]);
	return oldest;
}

/* As the server that there is is asked for it; 1: as a whole. */
static unsigned pieces_of(const struct disk_proxy *proxy, const struct pending *pending)
{
	if (proxy->disk.version >= SHARE_DISK_1_3 || !disk_proxy_is_long(&pending->request))
		return 1;
	return (unsigned)((pending->request.bytes + SLOT_BYTES - 1) / SLOT_BYTES);
}

static uint64_t number_of(const struct disk_proxy *proxy, const struct pending *pending,
			  unsigned piece)
{
	return pieces_of(proxy, pending) == 1 ? pending->number : first_number(pending) + piece;
}

/* Of a write, for who does not know where it is. */
static void show_written(const struct disk_proxy *proxy, unsigned slot)
{
	const struct slot_request *request = &proxy->pending[slot].request;
	const size_t at = slot * (size_t)SLOT_BYTES;

	if (request->kind == BLOCK_WRITE &&
	    (proxy->disk.version == SHARE_DISK_1_1 || !proxy->window->is_all_shared))
		memcpy((uint8_t *)proxy->block->data + at, proxy->written + at, request->bytes);
}

static void send_piece(struct disk_proxy *proxy, unsigned slot, unsigned piece, uint64_t oldest)
{
	struct pending *pending = &proxy->pending[slot];
	const uint64_t at = piece * (uint64_t)SLOT_BYTES;
	struct share_disk_request message = { .kind = SHARE_DISK_REQUEST,
					      .round = proxy->round,
					      .act = pending->request.kind,
					      .first = (slot + piece) * SLOT_PAGES,
					      .number = number_of(proxy, pending, piece),
					      .oldest = oldest,
					      .offset = pending->request.offset + at,
					      .bytes = pending->request.bytes - at };

	if (piece + 1 < pieces_of(proxy, pending))
		message.bytes = SLOT_BYTES;
	if (send_packet(proxy, SHARE_PACKET_DATA, &message, sizeof(message)))
		pending->sent |= (uint8_t)(1u << piece);
}

static void send_request(struct disk_proxy *proxy, unsigned slot, uint64_t oldest)
{
	const struct pending *pending = &proxy->pending[slot];

	if (!pending->sent)
		show_written(proxy, slot);
	for (unsigned piece = 0; piece < pieces_of(proxy, pending); piece++)
		if (!(pending->sent >> piece & 1))
			send_piece(proxy, slot, piece, oldest);
}

/* Of a hub or server's machine of an earlier version there is no window that is only read. */
static uint32_t most_version(const struct disk_proxy *proxy)
{
	return proxy->window->is_all_shared ? SHARE_DISK_1_3 : SHARE_DISK_1_1;
}

static void greet(struct disk_proxy *proxy)
{
	const struct share_disk_hello message = { .kind = SHARE_DISK_HELLO,
						  .least = SHARE_DISK_1_1,
						  .most = most_version(proxy),
						  .round = proxy->round,
						  .session = proxy->session };

	proxy->again_ms = now_ms() + AGAIN_MS;
	send_packet(proxy, SHARE_PACKET_DATA, &message, sizeof(message));
}

static void begin_round(struct disk_proxy *proxy)
{
	proxy->state = GREETING;
	proxy->round++;
	proxy->counters.rounds++;
	greet(proxy);
}

bool disk_proxy_has_old(const struct disk_proxy *proxy)
{
	for (unsigned n = 0; n < SLOTS; n++)
		if (proxy->pending[n].is_there && proxy->pending[n].number <= proxy->last_old)
			return true;
	return false;
}

/* Invariant 7: what was asked in it is answered. */
static void end_old_session(struct disk_proxy *proxy)
{
	proxy->is_old = false;
	proxy->session = proxy->next_session;
	if (proxy->state >= GREETING)
		begin_round(proxy);
}

static bool may_be_sent(const struct disk_proxy *proxy, const struct pending *pending,
			uint64_t oldest)
{
	return pending->is_there && pending->number - oldest < SHARE_DISK_SPAN &&
	       (!proxy->is_old || pending->number <= proxy->last_old);
}

/* What is pending and was not sent in this round, where its number is not too far ahead. */
static void send_requests(struct disk_proxy *proxy)
{
	const uint64_t oldest = oldest_number(proxy);

	if (proxy->is_old && !disk_proxy_has_old(proxy))
		end_old_session(proxy);
	for (unsigned n = 0; n < SLOTS && proxy->state == SERVING; n++)
		if (may_be_sent(proxy, &proxy->pending[n], oldest))
			send_request(proxy, n, oldest);
}

static bool ask_hub(struct disk_proxy *proxy)
{
	proxy->is_asked = send_packet(proxy, SHARE_PACKET_ASK, NULL, 0);
	return proxy->is_asked;
}

/* A permission that was taken away is one of which nobody tells: the answer begins anew. */
static void ask_whether_still(struct disk_proxy *proxy)
{
	if (proxy->asks_anew && proxy->state == SERVING && !proxy->is_asked)
		ask_hub(proxy);
	proxy->asks_anew = false;
}

/* Begins with whoever is there now: what was not answered is asked again. */
static void begin_with_server(struct disk_proxy *proxy)
{
	for (unsigned n = 0; n < SLOTS; n++) {
		struct pending *pending = &proxy->pending[n];

		proxy->counters.again += pending->is_there && pending->sent;
		pending->sent = pending->done = 0;
		pending->result = 0;
	}
	proxy->state = NOBODY;
	proxy->again_ms = now_ms() + AGAIN_MS;
	if (proxy->peer_is_there)
		proxy->state = ask_hub(proxy) ? ASKING : REFUSED;
}

/* ---- from the controller ---- */

static void take_waiting(struct disk_proxy *proxy)
{
	struct slot_request request;
	int got;

	while ((got = slot_take(&proxy->disk_server, &request)) > 0) {
		proxy->last_number += disk_proxy_is_long(&request) ? SLOTS : 0;
		proxy->pending[request.slot] = (struct pending){ .is_there = true,
								 .number = ++proxy->last_number,
								 .request = request };
		proxy->counters.requests++;
	}
	assert(!got);
}

static void take_requests(struct disk_proxy *proxy)
{
	take_waiting(proxy);
	send_requests(proxy);
}

static void kick(struct disk_proxy *proxy)
{
	if (proxy->submitted)
		slot_kick(proxy->client);
	proxy->submitted = false;
}

/* With the lock of the controller's channel, on any thread. */
static void disk_kicked(void *context)
{
	struct disk_proxy *proxy = context;

	pthread_mutex_lock(&proxy->lock);
	take_requests(proxy);
	kick(proxy);
	CHECK(check_disk_proxy(proxy));
	pthread_mutex_unlock(&proxy->lock);
}

/* ---- from the server ---- */

static bool is_power_of_2(uint32_t value) { return value && !(value & (value - 1)); }

bool disk_proxy_is_disk(const struct share_disk_welcome *said)
{
	return is_power_of_2(said->sector_bytes) && is_power_of_2(said->physical_bytes) &&
	       said->sector_bytes >= SECTOR_LEAST_BYTES && said->sector_bytes <= SLOT_PAGE_BYTES &&
	       said->physical_bytes >= said->sector_bytes &&
	       said->physical_bytes <= SLOT_PAGE_BYTES && said->size_bytes &&
	       said->size_bytes <= INT64_MAX && said->size_bytes % said->sector_bytes == 0;
}

static bool is_same_disk(const struct share_disk_welcome *a, const struct share_disk_welcome *b)
{
	return a->size_bytes == b->size_bytes && a->sector_bytes == b->sector_bytes &&
	       a->physical_bytes == b->physical_bytes && a->flags == b->flags &&
	       !memcmp(a->id, b->id, sizeof(a->id));
}

static void take_welcome(struct disk_proxy *proxy, const uint8_t *bytes)
{
	struct share_disk_welcome said;

	memcpy(&said, bytes, sizeof(said));
	if (proxy->state != GREETING || said.round != proxy->round)
		return;
	if (said.version < SHARE_DISK_1_1 || said.version > most_version(proxy) ||
	    !disk_proxy_is_disk(&said) ||
	    (proxy->is_known && !is_same_disk(&proxy->disk, &said))) {
		proxy->counters.strangers++;
		proxy->state = STRANGER;
		return;
	}
	proxy->arrived |= !proxy->is_known; /* also of the hub before */
	proxy->is_known = true;
	proxy->disk = said;
	proxy->state = SERVING;
}

static int error_of(uint32_t status)
{
	switch (status) {
	case SHARE_DISK_GOOD: return 0;
	case SHARE_DISK_NO_SPACE: return -ENOSPC;
	default: return -EIO;
	}
}

static void answer(struct disk_proxy *proxy, unsigned slot, int result)
{
	proxy->pending[slot].is_there = false;
	proxy->answers = true;
	proxy->counters.answered++;
	slot_answer(&proxy->disk_server, slot, result);
}

/* Its bytes are not what the server has left there: the window is gone. */
static bool is_slot_lost(const struct disk_proxy *proxy, unsigned slot)
{
	/* the look brings the handler, where it has not been */
	(void)*((const volatile uint8_t *)proxy->block->data + (size_t)slot * SLOT_BYTES);
	(void)*((const volatile uint8_t *)proxy->written + (size_t)slot * SLOT_BYTES);
	return __atomic_load_n(&proxy->window->is_lost, __ATOMIC_ACQUIRE);
}

/* Which of those that were asked for has this number; as many as there are: none. */
static unsigned find_piece(const struct disk_proxy *proxy, const struct pending *pending,
			   uint64_t number)
{
	unsigned piece = 0;

	while (piece < pieces_of(proxy, pending) &&
	       (!(pending->sent >> piece & 1) || number_of(proxy, pending, piece) != number))
		piece++;
	return piece;
}

/* Once no piece is with the server any more, whose answers were all of this round. */
static void take_piece(struct disk_proxy *proxy, unsigned slot, unsigned piece, uint32_t status)
{
	struct pending *pending = &proxy->pending[slot];
	const unsigned all = (1u << pieces_of(proxy, pending)) - 1;

	pending->done |= (uint8_t)(1u << piece);
	if (status)
		pending->result = error_of(status);
	if (pending->done == all)
		answer(proxy, slot, is_slot_lost(proxy, slot) ? -EIO : pending->result);
}

static void take_done(struct disk_proxy *proxy, const uint8_t *bytes)
{
	struct share_disk_done said;

	memcpy(&said, bytes, sizeof(said));
	if (proxy->state != SERVING) { /* invariant 3: of a round that is over */
		proxy->counters.late++;
		return;
	}
	for (unsigned n = 0; n < SLOTS; n++) {
		const struct pending *pending = &proxy->pending[n];
		unsigned piece;

		if (!pending->is_there)
			continue;
		piece = find_piece(proxy, pending, said.number);
		if (piece == pieces_of(proxy, pending))
			continue;
		take_piece(proxy, n, piece, said.status);
		return;
	}
}

static void take_message(struct disk_proxy *proxy, const uint8_t *bytes, uint32_t count)
{
	uint32_t kind = 0;

	if (count >= sizeof(kind))
		memcpy(&kind, bytes, sizeof(kind));
	if (kind == SHARE_DISK_WELCOME && count == sizeof(struct share_disk_welcome))
		take_welcome(proxy, bytes);
	else if (kind == SHARE_DISK_DONE && count == sizeof(struct share_disk_done))
		take_done(proxy, bytes);
	else
		proxy->counters.wrong++;
}

/* ---- from the hub ---- */

static void take_received(struct disk_proxy *proxy, unsigned slot)
{
	_Alignas(8) uint8_t copy[sizeof(struct share_packet) + sizeof(struct share_disk_welcome)];
	struct share_packet packet;

	memcpy(copy, proxy->memory->data[slot], sizeof(copy));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	memcpy(&packet, copy, sizeof(packet));
	submit(proxy, slot, SHARE_RECEIVE, false);
	if (packet.kind != SHARE_PACKET_DATA)
		return;
	if (packet.bytes > sizeof(copy) - sizeof(packet))
		proxy->counters.wrong++;
	else
		take_message(proxy, copy + sizeof(packet), packet.bytes);
}

static void take_sent(struct disk_proxy *proxy, unsigned slot, int32_t result)
{
	proxy->is_hubs[slot] = false;
	proxy->send_stack[proxy->send_free++] = (uint8_t)slot;
	if (proxy->sent[slot].kind == SHARE_PACKET_ASK)
		proxy->is_asked = false;
	if (proxy->sent[slot].kind == SHARE_PACKET_ASK && proxy->state == ASKING) {
		if (!result && proxy->window->is_shared) {
			begin_round(proxy);
			return;
		}
		proxy->counters.refused++;
		proxy->state = REFUSED;
		proxy->again_ms = now_ms() + AGAIN_MS;
	} else if (result && proxy->state >= GREETING) {
		begin_with_server(proxy);
	}
}

/* 0 or -EBADMSG. */
static int take_reply(struct disk_proxy *proxy, const struct slot_reply *reply)
{
	if (!proxy->is_hubs[reply->slot])
		return -EBADMSG;
	if (reply->slot >= SHARE_RECEIVE_SLOTS)
		take_sent(proxy, reply->slot, reply->result);
	else if (reply->result > 0)
		take_received(proxy, reply->slot);
	else
		submit(proxy, reply->slot, SHARE_RECEIVE, false);
	return 0;
}

/* As many as there are slots: one that answers without end holds up nobody else. */
static void take_replies(struct disk_proxy *proxy)
{
	struct slot_reply reply;
	int got;

	for (unsigned n = 0; n < SHARE_SLOTS && !proxy->cut_off; n++) {
		got = slot_collect(proxy->client, &reply);
		if (!got)
			return;
		if (got > 0)
			got = take_reply(proxy, &reply);
		if (got >= 0)
			continue;
		proxy->cut_off = true;
		slot_ignore(proxy->client);
		proxy->counters.hubs_failed++;
	}
}

static void reset_slots(struct disk_proxy *proxy)
{
	memset(proxy->is_hubs, 0, sizeof(proxy->is_hubs));
	proxy->send_free = 0;
	for (unsigned n = SHARE_SLOTS; n-- > SHARE_RECEIVE_SLOTS;)
		proxy->send_stack[proxy->send_free++] = (uint8_t)n;
}

/*
 * Another hub than before. What the last one has brought is taken; what it was given is forgotten:
 * numbers of requests, not of packets, say here what is asked again.
 */
static void begin_with_hub(struct disk_proxy *proxy, uint32_t generation)
{
	if (proxy->generation)
		take_replies(proxy);
	proxy->generation = generation;
	proxy->cut_off = false;
	proxy->counters.hubs++;
	slot_restart(proxy->client);
	reset_slots(proxy);
	for (unsigned n = 0; n < SHARE_RECEIVE_SLOTS; n++)
		submit(proxy, n, SHARE_RECEIVE, false);
	begin_with_server(proxy);
	proxy->submitted = false;
	__atomic_store_n(&proxy->memory->is_open, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&proxy->memory->accepted, generation, __ATOMIC_RELEASE);
	ring(proxy);
}

/* Nobody knows whose bytes are gone: what the guest hears is that none of it may be there. */
void disk_proxy_fail_pending(struct disk_proxy *proxy)
{
	take_waiting(proxy);
	for (unsigned n = 0; n < SLOTS; n++)
		if (proxy->pending[n].is_there)
			answer(proxy, n, -EIO);
}

/* No guest's thread writes into the slots meanwhile: its controller's channel is held. */
static void follow_window(struct disk_proxy *proxy)
{
	const uint64_t gpa = lender_window_gpa(proxy->number);
	const uint64_t read_only_gpa = lender_read_only_gpa(proxy->lender, proxy->number);
	bool was_shared;

	if (!port_window_is_wanted(proxy->window, proxy->memory))
		return;
	storage_hold(proxy->storage, true);
	pthread_mutex_lock(&proxy->lock);
	was_shared = proxy->window->is_shared;
	if (port_window_exchange(proxy->window, proxy->memory)) {
		lender_tell_change(proxy->lender, gpa, WINDOW_HALF_BYTES);
		lender_tell_change(proxy->lender, read_only_gpa, WINDOW_HALF_BYTES);
		if (port_window_take_lost(proxy->window))
			disk_proxy_fail_pending(proxy);
		if (was_shared)
			begin_with_server(proxy);
		port_window_accept(proxy->window, proxy->memory);
		ring(proxy);
	}
	pthread_mutex_unlock(&proxy->lock);
	storage_hold(proxy->storage, false);
}

static void follow_peer(struct disk_proxy *proxy)
{
	const struct share_memory *memory = proxy->memory;
	const uint32_t word = __atomic_load_n(&memory->peer_is_there, __ATOMIC_ACQUIRE);
	const bool is_there = word && !proxy->cut_off;

	if (is_there != proxy->peer_is_there || word != proxy->peer_word) {
		proxy->peer_is_there = is_there;
		proxy->peer_word = word;
		begin_with_server(proxy);
	} else if (now_ms() < proxy->again_ms) {
		return;
	} else if (proxy->state == REFUSED) {
		begin_with_server(proxy);
	} else if (proxy->state == GREETING) {
		greet(proxy);
	}
}

struct block_disk disk_proxy_block_disk(const struct disk_proxy *proxy)
{
	const struct share_disk_welcome *disk = &proxy->disk;
	struct block_disk is = { .size_bytes = disk->size_bytes,
				 .sector_bytes = disk->sector_bytes,
				 .physical_bytes = disk->physical_bytes,
				 .read_only = disk->flags & SHARE_DISK_READ_ONLY };

	memcpy(is.id, disk->id, sizeof(is.id));
	return is;
}

static void tell_served(struct disk_proxy *proxy, bool is_served)
{
	if (is_served != proxy->told_served)
		storage_serve(proxy->storage, is_served);
	proxy->told_served = is_served;
}

/* Whether there are answers to collect. */
static bool fail_rest(struct disk_proxy *proxy)
{
	bool answers;

	pthread_mutex_lock(&proxy->lock);
	disk_proxy_fail_pending(proxy);
	answers = proxy->answers;
	proxy->answers = false;
	pthread_mutex_unlock(&proxy->lock);
	return answers;
}

/*
 * What the controller is told, outside of the lock: that nobody serves before it takes more; what
 * was answered of the disk that was before that is gone; and only then which one has come.
 */
static void tell_controller(struct disk_proxy *proxy, bool arrived, bool answers, bool is_served)
{
	const struct block_disk disk = disk_proxy_block_disk(proxy);

	if (!is_served)
		tell_served(proxy, false);
	/* a processor may have asked for more before it was told so */
	if (proxy->is_lost)
		answers |= fail_rest(proxy);
	/* its answers are this process's own, one to each request */
	if (answers && storage_collect(proxy->storage) < 0)
		abort();
	if (proxy->is_lost)
		storage_lose(proxy->storage);
	proxy->is_lost = false;
	if (arrived)
		storage_arrive(proxy->storage, &disk);
	if (is_served)
		tell_served(proxy, true);
}

/* Takes what it has to be told. */
static void take_news(struct disk_proxy *proxy, bool *ret_arrived, bool *ret_answers)
{
	*ret_arrived = proxy->arrived;
	*ret_answers = proxy->answers;
	proxy->arrived = proxy->answers = false;
}

/* With the lock, which it gives back: what follows from what the hub has brought. */
static void go_on(struct disk_proxy *proxy)
{
	bool arrived;
	bool answers;
	bool is_served;

	send_requests(proxy);
	kick(proxy);
	take_news(proxy, &arrived, &answers);
	is_served = proxy->state == SERVING;
	CHECK(check_disk_proxy(proxy));
	pthread_mutex_unlock(&proxy->lock);
	tell_controller(proxy, arrived, answers, is_served);
}

void disk_proxy_collect(struct disk_proxy *proxy)
{
	const uint32_t generation = __atomic_load_n(&proxy->memory->generation, __ATOMIC_ACQUIRE);

	follow_window(proxy);
	pthread_mutex_lock(&proxy->lock);
	if (generation != proxy->generation)
		begin_with_hub(proxy, generation);
	if (generation) {
		take_replies(proxy);
		follow_peer(proxy);
		ask_whether_still(proxy);
	}
	go_on(proxy);
}

/* Of the window, of the hub's life or the server's. */
static bool has_changed(const struct disk_proxy *proxy)
{
	const struct share_memory *memory = proxy->memory;

	return port_window_is_wanted(proxy->window, memory) ||
	       proxy->generation != __atomic_load_n(&memory->generation, __ATOMIC_ACQUIRE) ||
	       proxy->peer_word != __atomic_load_n(&memory->peer_is_there, __ATOMIC_ACQUIRE);
}

void disk_proxy_take(struct disk_proxy *proxy)
{
	if (has_changed(proxy) || !proxy->told_served)
		return;
	pthread_mutex_lock(&proxy->lock);
	take_replies(proxy);
	go_on(proxy);
}

/* ---- life ---- */

/* The controller's slots are pages of this side's half of the window, wherever that is. */
static struct block_memory *make_slots(struct port_window *window, size_t *ret_bytes)
{
	const size_t slots_bytes = SLOTS * (size_t)SLOT_BYTES;
	const size_t bytes = offsetof(struct block_memory, data) + slots_bytes;
	struct block_memory *block =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (block == MAP_FAILED)
		return NULL;
	*ret_bytes = bytes;
	if (port_window_show(window, WINDOW_BOTH, 1, (uint8_t *)block->data, slots_bytes, true))
		return block;
	munmap(block, bytes);
	return NULL;
}

/* As long as the slots, and of no window. */
static uint8_t *make_stood(void)
{
	void *at = mmap(NULL, SLOTS * (size_t)SLOT_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

/* As long as the slots, and kept as they are. */
static uint8_t *make_written(struct port_window *window)
{
	const size_t bytes = SLOTS * (size_t)SLOT_BYTES;
	uint8_t *at = make_stood();

	if (!at)
		return NULL;
	if (port_window_show(window, WINDOW_OWN, 0, at, bytes, true))
		return at;
	munmap(at, bytes);
	return NULL;
}

static bool make_controller(struct disk_proxy *proxy, struct bus *bus)
{
	proxy->block = make_slots(proxy->window, &proxy->block_bytes);
	proxy->written = make_written(proxy->window);
	proxy->stood = make_stood();
	if (!proxy->block || !proxy->written || !proxy->stood)
		return false;
	proxy->disk_client = (struct slot_client){ .queue = &proxy->block->queue, .slots = SLOTS,
						   .kicked = disk_kicked, .context = proxy };
	proxy->disk_server = (struct slot_server){ .queue = &proxy->block->queue, .slots = SLOTS };
	proxy->storage = storage_create_served(bus, proxy->number, proxy->block, proxy->written,
					       &proxy->disk_client, SLOT_BYTES,
					       SHARE_DISK_MAX_BYTES);
	return proxy->storage;
}

struct disk_proxy *disk_proxy_create(struct bus *bus, unsigned number, struct share_memory *memory,
				     struct port_window *window, struct slot_client *client,
				     struct slot_client *wakes, struct lender *lender)
{
	struct disk_proxy *proxy = calloc(1, sizeof(*proxy));

	assert(client->slots == SHARE_SLOTS);
	if (!proxy)
		return NULL;
	*proxy = (struct disk_proxy){ .number = number, .memory = memory, .client = client,
				      .wakes = wakes, .epoch = memory->epoch, .window = window,
				      .lender = lender, .session = memory->epoch };
	pthread_mutex_init(&proxy->lock, NULL);
	reset_slots(proxy);
	if (make_controller(proxy, bus))
		return proxy;
	disk_proxy_destroy(proxy);
	return NULL;
}

void disk_proxy_destroy(struct disk_proxy *proxy)
{
	if (proxy->storage)
		storage_destroy(proxy->storage);
	if (proxy->block)
		munmap(proxy->block, proxy->block_bytes);
	if (proxy->written)
		munmap(proxy->written, SLOTS * (size_t)SLOT_BYTES);
	if (proxy->stood)
		munmap(proxy->stood, SLOTS * (size_t)SLOT_BYTES);
	free(proxy);
}

void disk_proxy_leave(struct disk_proxy *proxy)
{
	disk_proxy_fail_pending(proxy);
	proxy->arrived = proxy->is_known = proxy->is_old = false;
	proxy->state = NOBODY;
	proxy->is_lost = true;
}

void disk_proxy_forked(struct disk_proxy *proxy)
{
	pthread_mutex_init(&proxy->lock, NULL);
	port_window_forked(proxy->window);
	storage_forked(proxy->storage);
	disk_proxy_leave(proxy);
	reset_slots(proxy);
	slot_restart(proxy->client);
	proxy->epoch = proxy->session = proxy->memory->epoch;
	proxy->generation = proxy->peer_word = 0;
	proxy->cut_off = proxy->peer_is_there = proxy->submitted = false;
	proxy->is_asked = proxy->asks_anew = false;
	CHECK(check_disk_proxy(proxy));
}

/* Another one each time, by which nobody else asks. */
static uint64_t session_after(uint64_t session)
{
	return session * 6364136223846793005u + 1442695040888963407u;
}

void disk_proxy_stand(struct disk_proxy *proxy)
{
	bool arrived;
	bool answers;

	take_news(proxy, &arrived, &answers);
	tell_controller(proxy, arrived, answers, proxy->state == SERVING);
	proxy->stood_lost = false;
	for (unsigned n = 0; n < SLOTS; n++) {
		const struct pending *pending = &proxy->pending[n];
		const size_t at = n * (size_t)SLOT_BYTES;

		if (!pending->is_there)
			continue;
		if (!proxy->is_old) {
			proxy->is_old = true;
			proxy->last_old = proxy->last_number;
			proxy->next_session = session_after(proxy->session);
		}
		if (pending->request.kind != BLOCK_WRITE)
			continue;
		memcpy(proxy->stood + at, proxy->written + at, pending->request.bytes);
		proxy->stood_lost |= is_slot_lost(proxy, n);
	}
}

size_t disk_proxy_statistics(const struct disk_proxy *proxy, char *text, size_t bytes)
{
	const struct proxy_counters *counters = &proxy->counters;
	int used = snprintf(text, bytes,
			    "served disk %u: %lu requests, %lu answered, "
			    "%lu asked again, %lu late, %lu rounds, %lu strangers, "
			    "%lu wrong, %lu refused, %lu hubs, "
			    "%lu failed\n",
			    proxy->number, counters->requests, counters->answered, counters->again,
			    counters->late, counters->rounds, counters->strangers, counters->wrong,
			    counters->refused, counters->hubs, counters->hubs_failed);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

static void unit_destroy(void *self) { disk_proxy_destroy(self); }
static void unit_forked(void *self) { disk_proxy_forked(self); }
static void unit_archive(struct archive *archive, void *self) { disk_proxy_archive(archive, self); }
static void unit_restored(void *self) { disk_proxy_restored(self); }
/* A refusal may have been taken back, or a permission, of which nobody tells: invariant 4. */
static void unit_tick(void *self, unsigned seconds)
{
	struct disk_proxy *proxy = self;
	bool asks;

	(void)seconds;
	pthread_mutex_lock(&proxy->lock);
	proxy->asks_anew = proxy->state == SERVING;
	asks = proxy->state >= REFUSED;
	pthread_mutex_unlock(&proxy->lock);
	if (asks)
		slot_wake(proxy->wakes);
}

/* With its controller's. */
static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	const struct disk_proxy *proxy = self;
	const size_t used = disk_proxy_statistics(proxy, text, bytes);

	return used + storage_statistics(proxy->storage, text + used, bytes - used);
}

const struct unit_ops disk_proxy_unit = {
	.name = "disk-proxy",
	.numbered = true,
	.section = UNIT_SECTION('P', 'D', 'S', 'K'),
	.tick = unit_tick,
	.forked = unit_forked,
	.destroy = unit_destroy,
	.archive = unit_archive,
	.restored = unit_restored,
	.statistics = unit_statistics,
};
