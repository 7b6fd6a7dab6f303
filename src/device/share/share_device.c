/* See share_device.h: the channel's life, messages, and the port. */
#include "share_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/share_disk.h"
#include "abi/vmbus_layout.h"
#include "lib/archive.h"
#include "lib/check.h"

_Static_assert((int)SHARE_MESSAGE_BYTES == (int)SHARE_PACKET_MAX_BYTES, "a packet is a message");
_Static_assert(sizeof(struct share_data) + SHARE_DATA_MAX_BYTES <= SHARE_MESSAGE_BYTES,
	       "a message holds data");

void check_share(const struct share *share)
{
	unsigned waiting = 0;
	unsigned send_free = 0;

	for (unsigned n = 0; n < SHARE_SLOTS; n++) {
		assert(share->slot[n] < SLOT_STATES);
		assert(n < SHARE_RECEIVE_SLOTS || share->slot[n] != SLOT_WAITS);
		waiting += share->slot[n] == SLOT_WAITS;
		send_free += n >= SHARE_RECEIVE_SLOTS && share->slot[n] == SLOT_FREE;
	}
	assert(waiting == share->waiting && send_free == share->send_free);
	assert(share->owed_count <= OWED);
	check_lends(&share->lends);
}

/* ---- to the guest ---- */

/* False: no room. */
static bool tell_guest(struct share *share, uint16_t type, uint64_t transaction,
		       const void *message, size_t bytes)
{
	return bus_channel_send(share->channel, type, transaction, message, bytes) != -EAGAIN;
}

static struct owed *new_owed(struct share *share)
{
	struct owed *owed = &share->owed[(share->owed_first + share->owed_count) % OWED];

	assert(share->owed_count < OWED);
	share->owed_count++;
	*owed = (struct owed){ .transaction = 0 };
	return owed;
}

static void owe(struct share *share, uint64_t transaction, uint32_t kind, uint32_t status)
{
	struct owed *owed = new_owed(share);

	owed->completes = true;
	owed->transaction = transaction;
	owed->answer.head = (struct share_head){ .kind = kind, .status = status };
}

/* The completion of a packet that may want none. */
static void complete(struct share *share, const struct bus_packet *packet, uint32_t kind,
		     uint32_t status)
{
	share->counters.refused += status != SHARE_DONE;
	if (packet->flags & PACKET_WANTS_COMPLETION)
		owe(share, packet->transaction, kind, status);
}

static bool deliver_owed(struct share *share)
{
	while (share->owed_count) {
		const struct owed *owed = &share->owed[share->owed_first];

		if (!tell_guest(share, owed->completes ? PACKET_COMPLETION : PACKET_INBAND,
				owed->transaction, &owed->answer, sizeof(owed->answer)))
			return false;
		share->owed_first = (share->owed_first + 1) % OWED;
		share->owed_count--;
	}
	return true;
}

/* 0: nobody is there. */
static uint32_t word_of_peer(const struct share *share)
{
	return share->peer_is_there ? share->peer_word : 0;
}

/* One that has gone and come again since is both. */
static bool deliver_peer(struct share *share)
{
	while (share->version && share->told_word != word_of_peer(share)) {
		const uint32_t next = share->told_word ? 0 : word_of_peer(share);
		const struct share_peer message = { .head.kind = SHARE_PEER,
						    .is_there = next != 0 };

		if (!tell_guest(share, PACKET_INBAND, 0, &message, sizeof(message)))
			return false;
		share->told_word = next;
	}
	return true;
}

/* Nobody waits to hear that it was delivered, as long as there are slots for the next ones. */
static bool hears_later(const struct share *share, unsigned slot)
{
	return share->packet[slot].kind != SHARE_PACKET_ASK &&
	       !share->sent[slot].wants_completion && share->send_free > SHARE_SEND_SLOTS / 2;
}

static void submit(struct share *share, unsigned slot, enum share_request_kind kind)
{
	const struct slot_request request = {
		.slot = (uint16_t)slot, .kind = (uint16_t)kind,
		.target = kind == SHARE_SEND && hears_later(share, slot) ? SHARE_HEARS_LATER
									 : SHARE_HEARS_AT_ONCE
	};

	share->slot[slot] = SLOT_HUBS;
	slot_submit(share->client, &request);
	share->submitted = true;
}

/* The oldest of what waits gives its slot back. */
static void next_waiting(struct share *share)
{
	const unsigned slot = share->wait[share->waiting_first];

	share->waiting_first = (share->waiting_first + 1) % SHARE_RECEIVE_SLOTS;
	share->waiting--;
	submit(share, slot, SHARE_RECEIVE);
}

/* Of the other end's pages. False: no room. */
static bool deliver_notice(struct share *share, const struct share_packet *packet)
{
	const struct share_lent message = {
		.head.kind = packet->kind == SHARE_PACKET_LENT ? SHARE_LENT : SHARE_ENDED,
		.id = packet->id,
		.first = packet->first,
		.pages = packet->pages,
		.flags = packet->flags & SHARE_PACKET_READ_ONLY ? SHARE_READ_ONLY : 0,
	};

	if (message.flags && share->version < SHARE_1_2)
		return true; /* it does not know where that is */

	return tell_guest(share, PACKET_INBAND, 0, &message, sizeof(message));
}

/* What another process says of pages lies in its half of the window. */
static bool notice_is_sound(const struct share_packet *packet)
{
	return packet->kind != SHARE_PACKET_LENT ||
	       (packet->pages && packet->pages <= SHARE_WINDOW_PAGES &&
		packet->first <= SHARE_WINDOW_PAGES - packet->pages);
}

static void deliver_packets(struct share *share)
{
	while (share->waiting) {
		const unsigned slot = share->wait[share->waiting_first];
		const struct share_packet *packet = &share->packet[slot];
		_Alignas(8) uint8_t copy[SHARE_MESSAGE_BYTES];
		const struct share_data head = { .head.kind = SHARE_DATA, .bytes = packet->bytes,
						 .lend = packet->id };

		if (!share->version)
			return;
		if (packet->kind != SHARE_PACKET_DATA) {
			if (!deliver_notice(share, packet))
				return;
			next_waiting(share);
			continue;
		}
		memcpy(copy, &head, sizeof(head));
		memcpy(copy + sizeof(head), share->memory->data[slot] + sizeof(*packet),
		       packet->bytes);
		if (!tell_guest(share, PACKET_INBAND, 0, copy, sizeof(head) + packet->bytes))
			return;
		share->counters.received++;
		share->counters.received_bytes += packet->bytes;
		next_waiting(share);
	}
}

static void deliver(struct share *share)
{
	if (share->paused || !share->is_open)
		return;
	if (deliver_owed(share) && deliver_peer(share))
		deliver_packets(share);
}

/* ---- from the guest ---- */

/* A guest that leaves no room for the first answer understands nothing. */
static int take_version(struct share *share, const struct bus_packet *packet)
{
	struct share_version_answer answer = {
		.head = { .kind = SHARE_VERSION, .status = SHARE_NO_VERSION },
		.side = share->side,
		.peer_is_there = share->peer_is_there,
		.window_pages = SHARE_WINDOW_PAGES,
		.window_gpa = share->window_gpa,
		.read_only_gpa = share->read_only_gpa,
	};
	struct share_version asked;
	size_t bytes;

	memcpy(&asked, packet->payload, sizeof(asked));
	share->version = 0;
	if (asked.least <= SHARE_1_2 && asked.most >= SHARE_1_0) {
		share->version = asked.most < SHARE_1_2 ? asked.most : SHARE_1_2;
		answer.head.status = SHARE_DONE;
		answer.version = share->version;
		share->told_word = word_of_peer(share);
	}
	bytes = share->version < SHARE_1_2 ? SHARE_VERSION_ANSWER_1_1_BYTES : sizeof(answer);
	return tell_guest(share, PACKET_COMPLETION, packet->transaction, &answer, bytes)
		       ? 0
		       : -EBADMSG;
}

/* There is a free slot. packet: the guest's, which is completed by it; NULL: none is. */
static void send_packet(struct share *share, const struct share_packet *head, const uint8_t *data,
			const struct bus_packet *packet)
{
	const unsigned slot = share->send_stack[--share->send_free];
	uint8_t *to = share->memory->data[slot];

	share->packet[slot] = *head;
	share->packet[slot].epoch = share->epoch;
	share->packet[slot].number = ++share->number_sent;
	share->sent[slot] = (struct sent){ .wants_completion = false };
	if (packet)
		share->sent[slot] =
			(struct sent){ .transaction = packet->transaction,
				       .wants_completion = packet->flags &
							   PACKET_WANTS_COMPLETION };
	memcpy(to, &share->packet[slot], sizeof(struct share_packet));
	if (head->bytes)
		memcpy(to + sizeof(struct share_packet), data, head->bytes);
	share->order[(share->order_first + share->ordered++) % SHARE_SEND_SLOTS] = (uint8_t)slot;
	submit(share, slot, SHARE_SEND);
	share->counters.sent++;
	share->counters.sent_bytes += head->bytes;
}

static int take_data(struct share *share, const struct bus_packet *packet)
{
	struct share_packet head;
	struct share_data data;
	struct lend *lend;

	memcpy(&data, packet->payload, sizeof(data));
	if (data.bytes > SHARE_DATA_MAX_BYTES ||
	    data.bytes > packet->payload_bytes - sizeof(data))
		return -EBADMSG;
	head = (struct share_packet){ .bytes = data.bytes, .id = data.lend };
	if (!share->peer_is_there) {
		complete(share, packet, SHARE_DATA, SHARE_NO_PEER);
		return 0;
	}
	lend = data.lend ? lend_find(&share->lends, data.lend) : NULL;
	if (data.lend && (!lend || !lend_use(lend))) {
		complete(share, packet, SHARE_DATA, SHARE_NO_LEND);
		return 0;
	}
	send_packet(share, &head, packet->payload + sizeof(data), packet);
	return 0;
}

/* ---- pages ---- */

/* Whole pages of the packet's ranges. Their number; 0: they are not, or are too many. */
static uint32_t count_pages(const struct bus_packet *packet)
{
	uint64_t pages = 0;

	for (unsigned n = 0; n < packet->ranges; n++) {
		const struct bus_range *range = &packet->range[n];

		if (range->offset || range->bytes % GUEST_PAGE_BYTES)
			return 0;
		pages += bus_range_pages(range);
	}
	return pages <= SHARE_WINDOW_PAGES ? (uint32_t)pages : 0;
}

static uint32_t packet_flags(const struct lend *lend)
{
	return lend->is_read_only ? SHARE_PACKET_READ_ONLY : 0;
}

/* Room for them, before anybody is asked whether they may be lent. */
static int take_lend(struct share *share, const struct bus_packet *packet,
		     const struct share_lend *asked)
{
	const uint32_t pages = share->peer_is_there ? count_pages(packet) : 0;
	const bool is_read_only = asked->flags & SHARE_READ_ONLY && share->version >= SHARE_1_2;
	struct lend *lend = lend_ask(&share->lends, pages, is_read_only);
	uint32_t at = 0;

	if (!lend) {
		complete(share, packet, SHARE_LEND,
			 share->peer_is_there ? SHARE_NO_PAGES : SHARE_NO_PEER);
		return 0;
	}
	for (unsigned n = 0; n < packet->ranges; n++)
		for (uint64_t page = 0; page < bus_range_pages(&packet->range[n]); page++)
			lend_frames(&share->lends, lend)[at++] = packet->range[n].gfn[page];
	lend->once = asked->flags & SHARE_ONCE;
	send_packet(share,
		    &(struct share_packet){ .kind = SHARE_PACKET_ASK, .id = lend->id,
					    .first = lend->first, .pages = pages,
					    .flags = packet_flags(lend) },
		    NULL, packet);
	return 0;
}

static bool has_window(const struct share *share, const struct lend *lend)
{
	return lend->is_read_only ? share->window->is_all_shared : share->window->is_shared;
}

static void owe_lent(struct share *share, const struct sent *sent, const struct lend *lend)
{
	struct owed *owed = new_owed(share);

	owed->completes = true;
	owed->transaction = sent->transaction;
	owed->answer = (struct share_lent){ .head.kind = SHARE_LEND, .id = lend->id,
					    .first = lend->first, .pages = lend->pages,
					    .flags = lend->is_read_only ? SHARE_READ_ONLY : 0 };
}

/* The hub has answered: only now the pages appear at the other end, if they do. */
static void begin_lend(struct share *share, const struct sent *sent, uint32_t id, uint32_t status)
{
	struct lend *lend = lend_find(&share->lends, id);

	if (!lend) { /* the other end has gone meanwhile */
		if (sent->wants_completion && share->is_open)
			owe(share, sent->transaction, SHARE_LEND, SHARE_NO_PEER);
		return;
	}
	if (status != SHARE_DONE || !share->is_open || !share->peer_is_there) {
		lend_end(&share->lends, lend);
	} else if (!has_window(share, lend)) {
		lend_end(&share->lends, lend);
		status = SHARE_NO_PAGES;
	} else if (lend_begin(&share->lends, lend)) {
		status = SHARE_NO_PAGES;
	}
	lend = lend_find(&share->lends, id);
	share->counters.refused += !lend;
	if (lend) {
		share->counters.lent += lend->pages;
		send_packet(share,
			    &(struct share_packet){ .kind = SHARE_PACKET_LENT, .id = id,
						    .first = lend->first, .pages = lend->pages,
						    .flags = packet_flags(lend) },
			    NULL, NULL);
	}
	if (!sent->wants_completion || !share->is_open)
		return;
	if (lend)
		owe_lent(share, sent, lend);
	else
		owe(share, sent->transaction, SHARE_LEND, status ? status : SHARE_NO_PEER);
}

/* The pages are this machine's alone again; who waits for that hears of it. */
static void end_lend(struct share *share, struct lend *lend)
{
	const struct lend ended = *lend;

	lend_end(&share->lends, lend);
	share->counters.ended += ended.pages;
	if (ended.wants_completion && share->is_open)
		owe(share, ended.transaction, SHARE_END, SHARE_DONE);
}

static void end_all(struct share *share)
{
	for (unsigned n = 0; n < LENDS; n++)
		if (share->lends.lend[n].state != LEND_FREE)
			end_lend(share, &share->lends.lend[n]);
}

static int take_end(struct share *share, const struct bus_packet *packet,
		    const struct share_lend *asked)
{
	struct lend *lend = lend_find(&share->lends, asked->id);

	if (!lend || lend->state != LEND_LENT) {
		if (lend && asked->flags & SHARE_NOW && lend->state == LEND_ENDING)
			end_lend(share, lend);
		complete(share, packet, SHARE_END, SHARE_NO_LEND);
		return 0;
	}
	lend->state = LEND_ENDING;
	lend->transaction = packet->transaction;
	lend->wants_completion = packet->flags & PACKET_WANTS_COMPLETION;
	if (asked->flags & SHARE_NOW || !lend->accesses)
		end_lend(share, lend);
	if (share->peer_is_there)
		send_packet(share,
			    &(struct share_packet){ .kind = SHARE_PACKET_ENDED, .id = asked->id },
			    NULL, NULL);
	return 0;
}

static int take_release(struct share *share, const struct bus_packet *packet,
			const struct share_lend *asked)
{
	if (!share->peer_is_there)
		complete(share, packet, SHARE_RELEASE, SHARE_NO_PEER);
	else
		send_packet(share,
			    &(struct share_packet){ .kind = SHARE_PACKET_RELEASE,
						    .id = asked->id },
			    NULL, packet);
	return 0;
}

/* The other machine says so, truly or not: the count is this side's. */
static void take_their_release(struct share *share, uint32_t id)
{
	struct lend *lend = lend_find(&share->lends, id);

	if (lend && lend_release(lend))
		end_lend(share, lend);
}

static int take_about_pages(struct share *share, const struct bus_packet *packet, uint32_t kind)
{
	struct share_lend asked;

	memcpy(&asked, packet->payload, sizeof(asked));
	switch (kind) {
	case SHARE_LEND: return take_lend(share, packet, &asked);
	case SHARE_RELEASE: return take_release(share, packet, &asked);
	case SHARE_END: return take_end(share, packet, &asked);
	default: return -EBADMSG;
	}
}

static int dispatch(struct share *share, const struct bus_packet *packet)
{
	struct share_head head;

	if ((packet->type != PACKET_INBAND && packet->type != PACKET_GPA_DIRECT) ||
	    packet->payload_bytes < sizeof(struct share_data))
		return -EBADMSG;
	memcpy(&head, packet->payload, sizeof(head));
	if (head.kind == SHARE_VERSION)
		return take_version(share, packet);
	if (!share->version)
		return -EBADMSG;
	if (head.kind == SHARE_DATA)
		return take_data(share, packet);
	return take_about_pages(share, packet, head.kind);
}

static void ring(const struct share *share)
{
	const ssize_t written = write(share->client->doorbell_fd, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

static void kick(struct share *share)
{
	if (share->submitted)
		slot_kick(share->client);
	share->submitted = false;
}

static int packet(void *context, const struct bus_packet *packet)
{
	struct share *share = context;
	int error = dispatch(share, packet);

	share->counters.wrong += error != 0;
	deliver(share);
	kick(share);
	CHECK(check_share(share));
	return error;
}

static bool ready(void *context)
{
	const struct share *share = context;

	return !share->paused && share->send_free && !share->owed_count;
}

static void room(void *context)
{
	struct share *share = context;

	deliver(share);
	kick(share);
}

void share_say_open(struct share *share, bool is_open)
{
	share->is_open = is_open;
	share->openings += is_open;
	__atomic_store_n(&share->memory->is_open, is_open ? share->openings : 0, __ATOMIC_RELEASE);
	ring(share);
}

static void opened(void *context)
{
	struct share *share = context;

	share->version = 0;
	share->owed_count = 0;
	share_say_open(share, true);
}

/* What waits for a guest that has gone is dropped; what it has sent goes its way. */
static void closed(void *context)
{
	struct share *share = context;

	share->version = 0;
	end_all(share);
	share->owed_count = 0;
	for (unsigned n = SHARE_RECEIVE_SLOTS; n < SHARE_SLOTS; n++)
		share->sent[n].wants_completion = false;
	while (share->waiting)
		next_waiting(share);
	share_say_open(share, false);
	kick(share);
}

/* ---- the hub ---- */

static void free_send_slot(struct share *share, unsigned slot)
{
	unsigned at = 0;

	while (share->order[(share->order_first + at) % SHARE_SEND_SLOTS] != slot)
		at++;
	/* a hub answers them in order, or nearly so */
	for (; at; at--)
		share->order[(share->order_first + at) % SHARE_SEND_SLOTS] =
			share->order[(share->order_first + at - 1) % SHARE_SEND_SLOTS];
	share->order_first = (share->order_first + 1) % SHARE_SEND_SLOTS;
	share->ordered--;
	share->slot[slot] = SLOT_FREE;
	share->send_stack[share->send_free++] = (uint8_t)slot;
}

/* By which the guest knows what such a packet completes. */
enum share_kind share_message_of(enum share_packet_kind kind)
{
	switch (kind) {
	case SHARE_PACKET_ASK: return SHARE_LEND;
	case SHARE_PACKET_RELEASE: return SHARE_RELEASE;
	default: return SHARE_DATA;
	}
}

static void take_sent(struct share *share, unsigned slot, int32_t result)
{
	const struct share_packet packet = share->packet[slot];
	const struct sent sent = share->sent[slot];
	uint32_t status = SHARE_DONE;

	if (result)
		status = result == -EPERM ? SHARE_REFUSED : SHARE_NO_PEER;
	free_send_slot(share, slot);
	if (packet.kind == SHARE_PACKET_ASK) {
		begin_lend(share, &sent, packet.id, status);
		return;
	}
	share->counters.refused += result != 0;
	if (sent.wants_completion && share->is_open)
		owe(share, sent.transaction, share_message_of(packet.kind), status);
}

static void take_received(struct share *share, unsigned slot)
{
	struct share_packet *packet = &share->packet[slot];
	bool is_known;

	memcpy(packet, share->memory->data[slot], sizeof(*packet));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (packet->epoch != share->peer_epoch) {
		share->peer_epoch = packet->epoch;
		share->had = 0;
	}
	is_known = packet->number <= share->had;
	share->counters.had += is_known;
	if (!is_known)
		share->had = packet->number;
	if (!is_known && packet->kind == SHARE_PACKET_RELEASE)
		take_their_release(share, packet->id);
	if (is_known || packet->kind == SHARE_PACKET_RELEASE || packet->kind == SHARE_PACKET_ASK ||
	    packet->kind >= SHARE_PACKET_KINDS || packet->bytes > SHARE_DATA_MAX_BYTES ||
	    !notice_is_sound(packet) || !share->is_open) {
		submit(share, slot, SHARE_RECEIVE);
		return;
	}
	share->slot[slot] = SLOT_WAITS;
	share->wait[(share->waiting_first + share->waiting++) % SHARE_RECEIVE_SLOTS] =
		(uint8_t)slot;
}

/* 0 or -EBADMSG. */
static int take_reply(struct share *share, const struct slot_reply *reply)
{
	if (share->slot[reply->slot] != SLOT_HUBS)
		return -EBADMSG;
	if (reply->slot >= SHARE_RECEIVE_SLOTS)
		take_sent(share, reply->slot, reply->result);
	else if (reply->result > 0)
		take_received(share, reply->slot);
	else
		submit(share, reply->slot, SHARE_RECEIVE);
	return 0;
}

/* As many as there are slots: one that answers without end holds up nobody else. */
static void take_replies(struct share *share)
{
	struct slot_reply reply;
	int got;

	for (unsigned n = 0; n < SHARE_SLOTS && !share->cut_off; n++) {
		got = slot_collect(share->client, &reply);
		if (!got)
			return;
		if (got > 0)
			got = take_reply(share, &reply);
		if (got >= 0)
			continue;
		share->cut_off = true;
		slot_ignore(share->client);
		share->counters.hubs_failed++;
	}
}

/* Another hub than before: what the old one has brought was taken; the rest begins anew. */
static void begin_anew(struct share *share, uint32_t generation)
{
	if (share->generation)
		take_replies(share);
	share->generation = generation;
	share->cut_off = false;
	share->counters.hubs++;
	slot_restart(share->client);
	for (unsigned n = 0; n < SHARE_RECEIVE_SLOTS; n++)
		if (share->slot[n] != SLOT_WAITS)
			submit(share, n, SHARE_RECEIVE);
	for (unsigned n = 0; n < share->ordered; n++) {
		const unsigned slot = share->order[(share->order_first + n) % SHARE_SEND_SLOTS];

		submit(share, slot, SHARE_SEND);
		share->counters.again++;
	}
	share->submitted = false;
	__atomic_store_n(&share->memory->accepted, generation, __ATOMIC_RELEASE);
	ring(share);
}

static void follow_peer(struct share *share)
{
	struct share_memory *memory = share->memory;
	const uint32_t word = __atomic_load_n(&memory->peer_is_there, __ATOMIC_ACQUIRE);

	share->serving = __atomic_load_n(&memory->serving, __ATOMIC_ACQUIRE);
	if (word != share->peer_word)
		end_all(share);
	share->peer_word = word;
	/* while a hub is replaced by another, nothing is known to have changed */
	share->peer_is_there = share->peer_word && !share->cut_off;
	if (!share->peer_is_there)
		end_all(share);
}

/*
 * Another window, or none: what was lent in the old one is this machine's alone before, which the
 * other end hears of as of any other end.
 */
static void follow_window(struct share *share)
{
	if (!port_window_is_wanted(share->window, share->memory))
		return;
	for (unsigned n = 0; n < LENDS; n++) {
		const struct lend lend = share->lends.lend[n];

		if (lend.state != LEND_LENT && lend.state != LEND_ENDING)
			continue;
		end_lend(share, &share->lends.lend[n]);
		if (share->peer_is_there && share->send_free)
			send_packet(share,
				    &(struct share_packet){ .kind = SHARE_PACKET_ENDED,
							    .id = lend.id },
				    NULL, NULL);
	}
	if (!port_window_exchange(share->window, share->memory))
		return;
	lender_tell_change(share->lends.lender, share->window_gpa, WINDOW_HALF_BYTES);
	lender_tell_change(share->lends.lender, share->read_only_gpa, WINDOW_HALF_BYTES);
	port_window_accept(share->window, share->memory);
	ring(share);
}

/* Of the window, of the hub's life or the other end's. */
static bool has_changed(const struct share *share)
{
	const struct share_memory *memory = share->memory;

	return port_window_is_wanted(share->window, memory) ||
	       share->generation != __atomic_load_n(&memory->generation, __ATOMIC_ACQUIRE) ||
	       share->serving != __atomic_load_n(&memory->serving, __ATOMIC_ACQUIRE) ||
	       share->peer_word != __atomic_load_n(&memory->peer_is_there, __ATOMIC_ACQUIRE);
}

/* The thread that collects serves other queues, too: most of its turns are not for this one. */
static bool has_news(const struct share *share)
{
	return has_changed(share) ||
	       share->client->collected !=
		       __atomic_load_n(&share->memory->queue.replies.written, __ATOMIC_ACQUIRE);
}

void share_collect(struct share *share)
{
	const uint32_t generation = __atomic_load_n(&share->memory->generation, __ATOMIC_ACQUIRE);

	if (!has_news(share))
		return;
	bus_channel_lock(share->channel);
	bus_channel_hold_signals(share->channel);
	guest_memory_begin();
	if (generation != share->generation)
		begin_anew(share, generation);
	follow_window(share);
	if (generation)
		take_replies(share);
	follow_peer(share);
	deliver(share);
	kick(share);
	CHECK(check_share(share));
	bus_channel_unlock(share->channel);
	bus_channel_run(share->channel);
}

void share_take(struct share *share)
{
	if (has_changed(share) || !share->generation)
		return;
	bus_channel_lock(share->channel);
	bus_channel_hold_signals(share->channel);
	guest_memory_begin();
	take_replies(share);
	deliver(share);
	kick(share);
	CHECK(check_share(share));
	bus_channel_unlock(share->channel);
	bus_channel_run(share->channel);
}

/* ---- life ---- */

void share_reset_slots(struct share *share)
{
	memset(share->slot, SLOT_FREE, sizeof(share->slot));
	share->waiting = share->waiting_first = share->ordered = share->order_first = 0;
	share->send_free = 0;
	for (unsigned n = SHARE_SLOTS; n-- > SHARE_RECEIVE_SLOTS;)
		share->send_stack[share->send_free++] = (uint8_t)n;
}

void share_pause(struct share *share)
{
	bus_channel_lock(share->channel);
	share->paused = true;
	bus_channel_unlock(share->channel);
}

/* What the guest has to hear now that it runs. */
void share_go_on(struct share *share)
{
	bool is_renewed;

	bus_channel_lock(share->channel);
	guest_memory_begin();
	deliver(share);
	kick(share);
	is_renewed = share->is_renewed;
	share->is_renewed = false;
	bus_channel_unlock(share->channel);
	if (is_renewed)
		bus_renew(share->channel);
	bus_channel_run(share->channel);
}

void share_resume(struct share *share)
{
	bus_channel_lock(share->channel);
	share->paused = false;
	bus_channel_unlock(share->channel);
	share_go_on(share);
}

/* ---- as a unit ---- */

static const struct guid packet_type = SHARE_PACKET_TYPE;
static const struct guid disk_type = SHARE_DISK_TYPE;

struct share *share_create(struct bus *bus, unsigned number, uint8_t kind,
			   struct share_memory *memory, struct port_window *window,
			   struct slot_client *client, struct lender *lender)
{
	struct share *share = calloc(1, sizeof(*share));

	assert(number < SHARE_PORTS && client->slots == SHARE_SLOTS);
	if (!share)
		return NULL;
	*share = (struct share){ .memory = memory, .client = client, .number = number,
				 .side = share_port_side(kind), .epoch = memory->epoch };
	share->lends.lender = lender;
	share->window = window;
	share->lends.half[0].page = window->memory->page[share->side != SHARE_SERVES];
	share->lends.half[1].page = window->own;
	share->window_gpa = lender_window_gpa(number);
	share->read_only_gpa = lender_read_only_gpa(lender, number);
	share->service = (struct bus_service){
		.type = share_port_class(kind) == SHARE_CLASS_DISK ? disk_type : packet_type,
		.instance = SHARE_INSTANCE(number), .opened = opened,
		.closed = closed, .ready = ready, .packet = packet, .room = room,
		.is_monitored = true,
		.context = share,
	};
	share_reset_slots(share);
	share->channel = bus_offer(bus, &share->service);
	if (!share->channel) {
		free(share);
		return NULL;
	}
	return share;
}

void share_destroy(struct share *share) { free(share); }

size_t share_statistics(const struct share *share, char *text, size_t bytes)
{
	const struct share_counters *counters = &share->counters;
	int used = snprintf(text, bytes,
			    "share %u: %lu sent (%lu bytes), %lu received (%lu bytes), "
			    "%lu pages lent, %lu ended, %lu refused, %lu wrong, "
			    "%lu sent again, %lu had before, %lu hubs, "
			    "%lu failed\n",
			    share->number, counters->sent, counters->sent_bytes, counters->received,
			    counters->received_bytes, counters->lent, counters->ended,
			    counters->refused, counters->wrong,
			    counters->again, counters->had, counters->hubs, counters->hubs_failed);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

static void unit_pause(void *self) { share_pause(self); }
static void unit_resume(void *self) { share_resume(self); }
static void unit_forked(void *self) { share_forked(self); }
static void unit_archive(struct archive *archive, void *self) { share_archive(archive, self); }
static void unit_destroy(void *self) { share_destroy(self); }
static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	return share_statistics(self, text, bytes);
}

const struct unit_ops share_unit = {
	.name = "share",
	.section = UNIT_SECTION('P', 'O', 'R', 'T'),
	.numbered = true,
	.pause = unit_pause,
	.resume = unit_resume,
	.forked = unit_forked,
	.destroy = unit_destroy,
	.archive = unit_archive,
	.statistics = unit_statistics,
};
