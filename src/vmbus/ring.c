/*
 * The two rings of a channel, in the guest's memory.
 *
 *   control page   u32 write index, u32 read index, u32 interrupt mask, u32 pending bytes, ... at
 *                  64 features
 *   data pages     packets { head, ranges, payload, padding to 8, footer u64 }, which wrap at the
 *                  end
 *
 *  1. The host's own index (bus_ring.index) is the host's alone: what stands in its word of the
 *     control page is written, never read.
 *  2. The guest's index is read when all packets up to the last one that it said have been taken,
 *     and is less than the size and a multiple of 8, or the channel is broken.
 *  3. A ring is never filled to its last byte: equal indices say that it is empty.
 *  4. The room of packets that were taken is given back by the quarter of a ring, and when there is
 *     none any more or the service wants none: until then [kept, index) is the host's.
 */
#include "vmbus_internal.h"

#include <assert.h>

#include "lib/check.h"

static bool is_index(const struct bus_ring *ring, uint32_t index)
{
	return index < ring->bytes && index % RING_ALIGNMENT == 0;
}

/* Both are places in the ring: a division for each packet is what this is without. */
static uint32_t distance(const struct bus_ring *ring, uint32_t from, uint32_t to)
{
	return to >= from ? to - from : to + ring->bytes - from;
}

/*
 * What is read of a packet before it is known how long it is: all of a short one, in one piece.
 * What is behind its end is not looked at.
 */
enum { FIRST_BYTES = 128 };

void check_ring(const struct bus_ring *ring)
{
	assert(ring->gfn && ring->bytes && ring->bytes % PAGE_BYTES == 0);
	assert(is_index(ring, ring->index));
}

void check_ring_of_guest(const struct bus_ring *ring)
{
	check_ring(ring);
	assert(is_index(ring, ring->written) && is_index(ring, ring->kept));
	assert(distance(ring, ring->kept, ring->index) <=
	       distance(ring, ring->kept, ring->written));
}

static uint32_t smaller(uint32_t one, uint32_t other) { return one < other ? one : other; }

/* A page number that the guest made up may wrap: then there is no memory either. */
static bool is_page(uint64_t gfn) { return gfn < UINT64_MAX / PAGE_BYTES; }

static uint64_t data_gfn(const struct bus_ring *ring, uint32_t at)
{
	return ring->gfn[1 + speculation_bound(at, ring->bytes) / PAGE_BYTES];
}
static uint64_t data_gpa(const struct bus_ring *ring, uint32_t at)
{
	return data_gfn(ring, at) * PAGE_BYTES + at % PAGE_BYTES;
}

/* How much of `left` lies in one piece from `at` on. */
static uint32_t piece_bytes(const struct bus_ring *ring, uint32_t at, uint32_t left)
{
	return smaller(left, smaller(PAGE_BYTES - at % PAGE_BYTES, ring->bytes - at));
}

static uint32_t forward(const struct bus_ring *ring, uint32_t at, uint32_t bytes)
{
	assert(bytes <= ring->bytes);
	return bytes < ring->bytes - at ? at + bytes : at + bytes - ring->bytes;
}

static int ring_read(const struct bus_channel *channel, uint32_t at, void *to, uint32_t bytes)
{
	const struct guest_memory *memory = channel->bus->host->memory;
	const struct bus_ring *ring = &channel->in;
	uint32_t count;

	for (uint32_t done = 0; done < bytes; done += count) {
		count = piece_bytes(ring, at, bytes - done);
		if (!is_page(data_gfn(ring, at)) ||
		    guest_memory_read(memory, data_gpa(ring, at), (uint8_t *)to + done, count))
			return -EBADMSG;
		at = forward(ring, at, count);
	}
	return 0;
}

static int write_guest(const struct bus_channel *channel, uint64_t gpa, const void *from,
		       uint32_t bytes)
{
	const struct bus_host *host = channel->bus->host;

	if (guest_memory_write(host->memory, gpa, from, bytes))
		return -EFAULT;
	host->memory_written(host->context, gpa, bytes);
	return 0;
}

static int ring_write(const struct bus_channel *channel, uint32_t at, const void *from,
		      uint32_t bytes)
{
	const struct bus_ring *ring = &channel->out;
	uint32_t count;

	for (uint32_t done = 0; done < bytes; done += count) {
		count = piece_bytes(ring, at, bytes - done);
		if (!is_page(data_gfn(ring, at)) ||
		    write_guest(channel, data_gpa(ring, at), (const uint8_t *)from + done, count))
			return -EBADMSG;
		at = forward(ring, at, count);
	}
	return 0;
}

/* ---- words of the control page ---- */

static int load_word(const struct bus_channel *channel, const struct bus_ring *ring, uint32_t word,
		     uint32_t *ret)
{
	uint64_t gfn = *ring->gfn;

	if (!is_page(gfn) ||
	    guest_memory_load(channel->bus->host->memory, gfn * PAGE_BYTES + word, ret))
		return -EBADMSG;
	return 0;
}

static int store_word(const struct bus_channel *channel, const struct bus_ring *ring, uint32_t word,
		      uint32_t value)
{
	const struct bus_host *host = channel->bus->host;
	uint64_t gfn = *ring->gfn;

	if (!is_page(gfn) || guest_memory_store(host->memory, gfn * PAGE_BYTES + word, value))
		return -EBADMSG;
	host->memory_written(host->context, gfn * PAGE_BYTES + word, sizeof(value));
	return 0;
}

/* The guest's index of a ring. */
static int load_index(const struct bus_channel *channel, const struct bus_ring *ring, uint32_t word,
		      uint32_t *ret)
{
	int error = load_word(channel, ring, word, ret);

	if (error)
		return error;
	return is_index(ring, *ret) ? 0 : -EBADMSG;
}

int bus_ring_set_mask(struct bus_channel *channel, uint32_t mask)
{
	int error = store_word(channel, &channel->in, RING_INTERRUPT_MASK, mask);

	/* the guest looks at the mask after it has stored its index */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return error;
}

/* ---- from the guest ---- */

int bus_ring_has_packet(struct bus_channel *channel)
{
	struct bus_ring *ring = &channel->in;
	uint32_t written;
	int error = load_index(channel, ring, RING_WRITE_INDEX, &written);

	if (error)
		return error;
	ring->written = written;
	return written != ring->index;
}

int bus_ring_is_drained(const struct bus_channel *channel)
{
	uint32_t written, read;
	int error = load_index(channel, &channel->in, RING_WRITE_INDEX, &written);

	if (!error)
		error = load_index(channel, &channel->out, RING_READ_INDEX, &read);
	if (error)
		return error;
	return written == channel->in.index && read == channel->out.index;
}

/* One range at `at` of a packet whose payload begins at `end`; *ret_bytes of it were it. */
static int take_range(const uint8_t *packet, uint32_t at, uint32_t end, struct bus_range *ret,
		      uint32_t *ret_bytes)
{
	struct { uint32_t bytes, offset; } head;
	uint64_t pages;

	if (end - at < sizeof(head))
		return -EBADMSG;
	memcpy(&head, packet + at, sizeof(head));
	*ret = (struct bus_range){
		.bytes = head.bytes, .offset = head.offset,
		.gfn = (const uint64_t *)(const void *)(packet + at + sizeof(head)),
	};
	pages = bus_range_pages(ret);
	if (head.offset >= PAGE_BYTES || pages > (end - at - sizeof(head)) / sizeof(uint64_t))
		return -EBADMSG;
	*ret_bytes = (uint32_t)(sizeof(head) + pages * sizeof(uint64_t));
	return 0;
}

/* The ranges of a GPA-direct packet, between its head and its payload. */
static int take_ranges(const uint8_t *packet, uint32_t end, struct bus_packet *ret)
{
	struct { uint32_t reserved, count; } head;
	uint32_t at = sizeof(struct vmbus_packet) + sizeof(head);

	if (end < at)
		return -EBADMSG;
	memcpy(&head, packet + sizeof(struct vmbus_packet), sizeof(head));
	if (head.count > BUS_RANGES)
		return -EBADMSG;
	for (; ret->ranges < head.count; ret->ranges++) {
		uint32_t bytes;

		if (take_range(packet, at, end, &ret->range[ret->ranges], &bytes))
			return -EBADMSG;
		at += bytes;
	}
	return 0;
}

/* Whether a packet's head can be believed, where so many bytes are in the ring. */
static bool is_head(const struct vmbus_packet *head, uint32_t there)
{
	uint32_t bytes = head->units * RING_ALIGNMENT;
	uint32_t data_at = head->data_units * RING_ALIGNMENT;

	if (data_at < sizeof(*head) || data_at > bytes)
		return false;
	return bytes <= BUS_PACKET_BYTES && bytes + PACKET_FOOTER_BYTES <= there;
}

int bus_ring_take(struct bus_channel *channel, struct bus_packet *ret)
{
	struct bus *bus = channel->bus;
	uint8_t *packet = bus->packet[channel - bus->channel];
	struct bus_ring *ring = &channel->in;
	struct vmbus_packet head;
	uint32_t there, first, bytes, data_at;
	int got = ring->index == ring->written ? bus_ring_has_packet(channel) : 1;

	if (got <= 0)
		return got;
	there = distance(ring, ring->index, ring->written);
	first = smaller(there, FIRST_BYTES);
	if (there < sizeof(head) || ring_read(channel, ring->index, packet, first))
		return -EBADMSG;
	memcpy(&head, packet, sizeof(head));
	if (!is_head(&head, there))
		return -EBADMSG;
	bytes = head.units * RING_ALIGNMENT;
	data_at = head.data_units * RING_ALIGNMENT;
	if (bytes > first && ring_read(channel, forward(ring, ring->index, first),
				       packet + first, bytes - first))
		return -EBADMSG;
	/* one by one: to clear the ranges as well costs more than all of the rest */
	ret->type = head.type;
	ret->flags = head.flags;
	ret->transaction = head.transaction;
	ret->payload = packet + data_at;
	ret->payload_bytes = bytes - data_at;
	ret->ranges = 0;
	if (head.type == PACKET_GPA_DIRECT && take_ranges(packet, data_at, ret))
		return -EBADMSG;
	ring->index = forward(ring, ring->index, bytes + PACKET_FOOTER_BYTES);
	CHECK(check_ring_of_guest(ring));
	return 1;
}

bool bus_ring_keeps_much(const struct bus_channel *channel)
{
	const struct bus_ring *ring = &channel->in;

	return distance(ring, ring->kept, ring->index) >= ring->bytes / 4;
}

static uint32_t free_bytes(const struct bus_ring *ring, uint32_t written, uint32_t read)
{
	return read == written ? ring->bytes : distance(ring, written, read);
}

/*
 * The guest may wait for room: it is told when there is as much as it has said, and was not before.
 */
int bus_ring_taken(struct bus_channel *channel)
{
	struct bus_ring *ring = &channel->in;
	uint32_t pending, written;
	int error;

	if (ring->kept == ring->index)
		return 0;
	error = store_word(channel, ring, RING_READ_INDEX, ring->index);
	ring->kept = ring->index;
	/* and it stores what it waits for before it looks at the index again */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!error)
		error = load_word(channel, ring, RING_PENDING_BYTES, &pending);
	if (error || !pending)
		return error;
	guest_memory_begin();
	error = load_index(channel, ring, RING_WRITE_INDEX, &written);
	if (!error && free_bytes(ring, written, ring->index) > pending)
		channel_signal(channel);
	return error;
}

/* ---- to the guest ---- */

/* Whether `bytes` find room; where not, the guest is asked to say when they do. */
static int check_room(struct bus_channel *channel, uint32_t bytes)
{
	struct bus_ring *ring = &channel->out;
	uint32_t read;
	int error = load_index(channel, ring, RING_READ_INDEX, &read);

	if (error || bytes < free_bytes(ring, ring->index, read))
		return error;
	error = store_word(channel, ring, RING_PENDING_BYTES, bytes);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	guest_memory_begin();
	if (!error)
		error = load_index(channel, ring, RING_READ_INDEX, &read);
	if (error)
		return error;
	return bytes < free_bytes(ring, ring->index, read) ? 0 : -EAGAIN;
}

/* Packets from `before` on are there: the guest is interrupted when it may have gone to sleep. */
static int tell_written(struct bus_channel *channel, uint32_t before)
{
	struct bus_ring *ring = &channel->out;
	uint32_t read, mask;

	if (store_word(channel, ring, RING_WRITE_INDEX, ring->index))
		return -EBADMSG;
	/* the guest lifts its mask, then looks at the index */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	guest_memory_begin();
	if (load_word(channel, ring, RING_INTERRUPT_MASK, &mask) ||
	    load_index(channel, ring, RING_READ_INDEX, &read))
		return -EBADMSG;
	if (!mask && read == before)
		channel_signal(channel);
	return 0;
}

int bus_ring_put(struct bus_channel *channel, uint16_t type, uint64_t transaction, const void *head,
		 size_t head_bytes, const void *payload, size_t bytes)
{
	struct bus_ring *ring = &channel->out;
	const uint32_t padded =
		((uint32_t)bytes + RING_ALIGNMENT - 1) / RING_ALIGNMENT * RING_ALIGNMENT;
	const uint32_t data_at = (uint32_t)(sizeof(struct vmbus_packet) + head_bytes);
	const uint32_t whole = data_at + padded;
	const struct vmbus_packet packet = {
		.type = type, .data_units = (uint16_t)(data_at / RING_ALIGNMENT),
		.units = (uint16_t)(whole / RING_ALIGNMENT),
		.transaction = transaction,
	};
	const uint64_t footer = (uint64_t)ring->index << 32;
	const uint32_t before = ring->index;
	int error;

	assert(head_bytes % RING_ALIGNMENT == 0);
	/* one of several answers, perhaps: the guest's index is another one then */
	guest_memory_begin();
	error = check_room(channel, whole + PACKET_FOOTER_BYTES);
	if (error)
		return error;
	if (ring_write(channel, before, &packet, sizeof(packet)) ||
	    ring_write(channel, forward(ring, before, sizeof(packet)), head,
		       (uint32_t)head_bytes) ||
	    ring_write(channel, forward(ring, before, data_at), payload, (uint32_t)bytes) ||
	    ring_write(channel, forward(ring, before, whole), &footer, sizeof(footer)))
		return -EBADMSG;
	ring->index = forward(ring, before, whole + PACKET_FOOTER_BYTES);
	CHECK(check_ring(ring));
	return tell_written(channel, before);
}

/* ---- what packets point to ---- */

/*
 * The guest physical address of a byte of a range, and how many bytes follow it in its page.
 * GUEST_NOWHERE: there is none.
 */
static uint64_t range_gpa(const struct bus_range *range, uint64_t at, uint32_t *ret_bytes)
{
	uint64_t offset = range->offset + at;
	uint64_t place = speculation_bound(offset / PAGE_BYTES, bus_range_pages(range));
	uint64_t gfn = range->gfn[place];

	*ret_bytes = PAGE_BYTES - (uint32_t)(offset % PAGE_BYTES);
	return is_page(gfn) ? gfn * PAGE_BYTES + offset % PAGE_BYTES : GUEST_NOWHERE;
}

/* The same of pages that follow each other: with all of `bytes` that lie there. */
static uint64_t range_run(const struct bus_range *range, uint64_t at, uint32_t bytes,
			  uint32_t *ret_bytes)
{
	uint32_t count;
	const uint64_t gpa = range_gpa(range, at, &count);
	uint32_t more = 0;

	for (; gpa != GUEST_NOWHERE && count < bytes; count += more)
		if (range_gpa(range, at + count, &more) != gpa + count)
			break;
	*ret_bytes = smaller(count, bytes);
	return gpa;
}

int bus_range_read(struct bus_channel *channel, const struct bus_range *range, uint32_t at,
		   void *to, uint32_t bytes)
{
	const struct guest_memory *memory = channel->bus->host->memory;
	uint32_t count;

	assert((uint64_t)at + bytes <= range->bytes);
	for (uint32_t done = 0; done < bytes; done += count) {
		uint64_t gpa = range_run(range, (uint64_t)at + done, bytes - done, &count);

		if (gpa == GUEST_NOWHERE ||
		    guest_memory_read(memory, gpa, (uint8_t *)to + done, count))
			return -EFAULT;
	}
	return 0;
}

/* With the channel's lock. */
static void tell_range_written(const struct bus_channel *channel, const struct bus_range *range,
			       uint32_t at, uint32_t bytes)
{
	const struct bus_host *host = channel->bus->host;
	uint32_t count;

	for (uint32_t done = 0; done < bytes; done += count) {
		const uint64_t gpa = range_run(range, (uint64_t)at + done, bytes - done, &count);

		host->memory_written(host->context, gpa, count);
	}
}

/* How many were written: where some of it is no memory, what lies in the pages before. */
static uint32_t write_run(const struct guest_memory *memory, uint64_t gpa, const uint8_t *from,
			  uint32_t bytes)
{
	uint32_t done = 0;
	uint32_t count;

	if (!guest_memory_write(memory, gpa, from, bytes))
		return bytes;
	for (; done < bytes; done += count) {
		count = smaller(PAGE_BYTES - (uint32_t)((gpa + done) % PAGE_BYTES), bytes - done);
		if (guest_memory_write(memory, gpa + done, from + done, count))
			break;
	}
	return done;
}

int bus_range_write(struct bus_channel *channel, const struct bus_range *range, uint32_t at,
		    const void *from, uint32_t bytes)
{
	const struct guest_memory *memory = channel->bus->host->memory;
	uint32_t done = 0;
	uint32_t count;
	uint32_t written;

	assert((uint64_t)at + bytes <= range->bytes);
	for (; done < bytes; done += written) {
		const uint64_t gpa = range_run(range, (uint64_t)at + done, bytes - done, &count);

		if (gpa == GUEST_NOWHERE)
			break;
		written = write_run(memory, gpa, (const uint8_t *)from + done, count);
		if (!written)
			break;
	}
	/* behind all of it: whoever is told waits until what was written can be seen */
	tell_range_written(channel, range, at, done);
	return done < bytes ? -EFAULT : 0;
}
