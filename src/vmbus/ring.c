/*
 * The two rings of a channel, in the guest's memory.
 *
 *   control page   u32 write index, u32 read index, u32 interrupt mask, u32 pending bytes, ... at 64 features
 *   data pages     packets { head, ranges, payload, padding to 8, footer u64 }, which wrap at the end
 *
 *  1. The host's own index (bus_ring.index) is the host's alone: what stands in its word of the control page is written, never read.
 *  2. The guest's index is read once for each packet, and is less than the size and a multiple of 8, or the channel is broken.
 *  3. A ring is never filled to its last byte: equal indices say that it is empty.
 */
#include "vmbus_internal.h"

static uint64_t place(const struct bus_ring *r, uint32_t at) { return r->gfn[1 + at / PAGE_BYTES] * PAGE_BYTES + at % PAGE_BYTES; }

/* A page number that the guest made up may wrap: then there is no memory either. */
static bool is_page(uint64_t gfn) { return gfn < UINT64_MAX / PAGE_BYTES; }

static uint32_t piece(const struct bus_ring *r, uint32_t at, uint32_t left)
{
	uint32_t to_page = PAGE_BYTES - at % PAGE_BYTES, to_end = r->bytes - at, n = left < to_page ? left : to_page;

	return n < to_end ? n : to_end;
}

static uint32_t forward(const struct bus_ring *r, uint32_t at, uint32_t bytes) { return (uint32_t)(((uint64_t)at + bytes) % r->bytes); }

static int copy_out(const struct bus_channel *c, uint32_t at, void *to, uint32_t bytes)
{
	const struct bus_ring *r = &c->in;

	for (uint32_t done = 0, n; done < bytes; done += n, at = forward(r, at, n)) {
		n = piece(r, at, bytes - done);
		if (!is_page(r->gfn[1 + at / PAGE_BYTES]) || guest_memory_read(c->bus->host->memory, place(r, at), (uint8_t *)to + done, n))
			return -EBADMSG;
	}
	return 0;
}

static int write_memory(const struct bus_channel *c, uint64_t gpa, const void *from, uint32_t bytes)
{
	const struct bus_host *host = c->bus->host;

	if (guest_memory_write(host->memory, gpa, from, bytes))
		return -EFAULT;
	host->memory_written(host->context, gpa, bytes);
	return 0;
}

static int copy_in(const struct bus_channel *c, uint32_t at, const void *from, uint32_t bytes)
{
	const struct bus_ring *r = &c->out;

	for (uint32_t done = 0, n; done < bytes; done += n, at = forward(r, at, n)) {
		n = piece(r, at, bytes - done);
		if (!is_page(r->gfn[1 + at / PAGE_BYTES]) || write_memory(c, place(r, at), (const uint8_t *)from + done, n))
			return -EBADMSG;
	}
	return 0;
}

static int load(const struct bus_channel *c, const struct bus_ring *r, uint32_t word, uint32_t *ret)
{
	return !is_page(*r->gfn) || guest_memory_load(c->bus->host->memory, *r->gfn * PAGE_BYTES + word, ret) ? -EBADMSG : 0;
}

static int store(const struct bus_channel *c, const struct bus_ring *r, uint32_t word, uint32_t value)
{
	const struct bus_host *host = c->bus->host;

	if (!is_page(*r->gfn) || guest_memory_store(host->memory, *r->gfn * PAGE_BYTES + word, value))
		return -EBADMSG;
	host->memory_written(host->context, *r->gfn * PAGE_BYTES + word, sizeof(value));
	return 0;
}

/* The guest's index of a ring. */
static int load_index(const struct bus_channel *c, const struct bus_ring *r, uint32_t word, uint32_t *ret)
{
	int error = load(c, r, word, ret);

	return error ? error : *ret >= r->bytes || *ret % 8 ? -EBADMSG : 0;
}

int bus_ring_set_mask(struct bus_channel *c, uint32_t mask)
{
	int error = store(c, &c->in, RING_INTERRUPT_MASK, mask);

	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the guest looks at the mask after it has stored its index */
	return error;
}

/* ---- from the guest ---- */

int bus_ring_has_packet(struct bus_channel *c)
{
	uint32_t written;
	int error = load_index(c, &c->in, RING_WRITE_INDEX, &written);

	return error ? error : written != c->in.index;
}

/* The ranges of a GPA-direct packet, between its head and its payload. */
static int take_ranges(const uint8_t *packet, uint32_t bytes, struct bus_packet *ret)
{
	struct { uint32_t reserved, count; } head;
	uint32_t at = sizeof(struct vmbus_packet) + sizeof(head);

	if (bytes < at)
		return -EBADMSG;
	memcpy(&head, packet + sizeof(struct vmbus_packet), sizeof(head));
	if (head.count > BUS_RANGES)
		return -EBADMSG;
	for (; ret->ranges < head.count; ret->ranges++) {
		struct bus_range *range = &ret->range[ret->ranges];
		uint64_t pages;

		if (bytes - at < 8)
			return -EBADMSG;
		memcpy(&range->bytes, packet + at, 4);
		memcpy(&range->offset, packet + at + 4, 4);
		pages = bus_range_pages(range);
		if (range->offset >= PAGE_BYTES || pages > (bytes - at - 8) / 8)
			return -EBADMSG;
		range->gfn = (const uint64_t *)(const void *)(packet + at + 8);
		at += 8 + 8 * (uint32_t)pages;
	}
	return 0;
}

int bus_ring_take(struct bus_channel *c, struct bus_packet *ret)
{
	struct bus_ring *r = &c->in;
	struct vmbus_packet head;
	uint32_t written, there, bytes, before;
	int error = load_index(c, r, RING_WRITE_INDEX, &written);

	if (error || written == r->index)
		return error;
	there = (uint32_t)(((uint64_t)written + r->bytes - r->index) % r->bytes);
	if (there < sizeof(head) || copy_out(c, r->index, &head, sizeof(head)))
		return -EBADMSG;
	bytes = head.units * 8u;
	before = head.data_units * 8u;
	if (before < sizeof(head) || before > bytes || bytes > BUS_PACKET_BYTES || bytes + PACKET_FOOTER_BYTES > there)
		return -EBADMSG;
	memcpy(c->packet, &head, sizeof(head)); /* the head that was checked, and what is behind it */
	if (copy_out(c, forward(r, r->index, sizeof(head)), c->packet + sizeof(head), bytes - (uint32_t)sizeof(head)))
		return -EBADMSG;
	*ret = (struct bus_packet){ .type = head.type, .flags = head.flags, .transaction = head.transaction, .payload = c->packet + before,
				    .payload_bytes = bytes - before };
	if (head.type == PACKET_GPA_DIRECT && take_ranges(c->packet, before, ret))
		return -EBADMSG;
	r->index = forward(r, r->index, bytes + PACKET_FOOTER_BYTES);
	return 1;
}

static uint32_t free_bytes(const struct bus_ring *r, uint32_t written, uint32_t read)
{
	return (uint32_t)(((uint64_t)read + r->bytes - written - 1) % r->bytes) + 1;
}

/* The guest may wait for room: it is told when there is as much as it has said, and was not before. */
int bus_ring_taken(struct bus_channel *c)
{
	struct bus_ring *r = &c->in;
	uint32_t pending, written;
	int error = store(c, r, RING_READ_INDEX, r->index);

	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* and it stores what it waits for before it looks at the index again */
	if (!error)
		error = load(c, r, RING_PENDING_BYTES, &pending);
	if (error || !pending)
		return error;
	guest_memory_begin();
	error = load_index(c, r, RING_WRITE_INDEX, &written);
	if (!error && free_bytes(r, written, r->index) > pending)
		channel_signal(c);
	return error;
}

/* ---- to the guest ---- */

/* Whether `bytes` find room; where not, the guest is asked to say when they do. */
static int check_room(struct bus_channel *c, uint32_t bytes, uint32_t *ret_read)
{
	struct bus_ring *r = &c->out;
	int error = load_index(c, r, RING_READ_INDEX, ret_read);

	if (error || bytes < free_bytes(r, r->index, *ret_read))
		return error;
	error = store(c, r, RING_PENDING_BYTES, bytes);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	guest_memory_begin();
	if (!error)
		error = load_index(c, r, RING_READ_INDEX, ret_read);
	return error ? error : bytes < free_bytes(r, r->index, *ret_read) ? 0 : -EAGAIN;
}

int bus_ring_put(struct bus_channel *c, uint16_t type, uint64_t transaction, const void *payload, size_t bytes)
{
	struct bus_ring *r = &c->out;
	const uint32_t padded = ((uint32_t)bytes + 7) & ~7u, whole = (uint32_t)sizeof(struct vmbus_packet) + padded;
	const struct vmbus_packet head = { type, sizeof(head) / 8, (uint16_t)(whole / 8), 0, transaction };
	const uint64_t footer = (uint64_t)r->index << 32;
	uint32_t before = r->index, read, mask;
	int error;

	guest_memory_begin(); /* one of several answers, perhaps: the guest's index is another one then */
	error = check_room(c, whole + PACKET_FOOTER_BYTES, &read);
	if (error)
		return error;
	if (copy_in(c, r->index, &head, sizeof(head)) || copy_in(c, forward(r, r->index, sizeof(head)), payload, (uint32_t)bytes) ||
	    copy_in(c, forward(r, r->index, whole), &footer, sizeof(footer)))
		return -EBADMSG;
	r->index = forward(r, r->index, whole + PACKET_FOOTER_BYTES);
	if (store(c, r, RING_WRITE_INDEX, r->index))
		return -EBADMSG;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the guest lifts its mask, then looks at the index */
	guest_memory_begin();
	if (load(c, r, RING_INTERRUPT_MASK, &mask) || load_index(c, r, RING_READ_INDEX, &read))
		return -EBADMSG;
	if (!mask && read == before)
		channel_signal(c);
	return 0;
}

/* ---- what packets point to ---- */

static int copy_range(struct bus_channel *c, const struct bus_range *range, uint32_t at, uint8_t *to, const uint8_t *from, uint32_t bytes)
{
	for (uint32_t done = 0, n; done < bytes; done += n) {
		uint64_t where = (uint64_t)range->offset + at + done, gfn = range->gfn[where / PAGE_BYTES], gpa = gfn * PAGE_BYTES + where % PAGE_BYTES;

		n = PAGE_BYTES - (uint32_t)(where % PAGE_BYTES);
		n = n < bytes - done ? n : bytes - done;
		if (!is_page(gfn) || (to ? guest_memory_read(c->bus->host->memory, gpa, to + done, n) : write_memory(c, gpa, from + done, n)))
			return -EFAULT;
	}
	return 0;
}

int bus_range_read(struct bus_channel *c, const struct bus_range *r, uint32_t at, void *to, uint32_t bytes) { return copy_range(c, r, at, to, NULL, bytes); }
int bus_range_write(struct bus_channel *c, const struct bus_range *r, uint32_t at, const void *from, uint32_t bytes) { return copy_range(c, r, at, NULL, from, bytes); }
