/*
 * The partition bus and its services: the input is a program of acts of a guest that posts,
 * signals, writes its rings and its memory; the disk process is played here, and every request that
 * reaches it has to be one that it may be sent.
 */
#include "../bus/fake_guest.h"
#include "fuzz.h"

struct act { uint8_t kind, flags; uint16_t count; uint32_t a; uint64_t b; };
struct play {
	struct fake f;
	uint32_t served, answered, written[FAKE_CHANNELS];
	uint64_t busy, transaction;
};

static void message(struct play *p, const struct act *a, const uint8_t *rest, size_t bytes)
{
	static const uint32_t kinds[] = { VMBUS_REQUEST_OFFERS, VMBUS_OPEN,
					  VMBUS_CLOSE,          VMBUS_GPADL_HEADER,
					  VMBUS_GPADL_BODY,     VMBUS_GPADL_TEARDOWN,
					  VMBUS_RELID_RELEASED, VMBUS_INITIATE_CONTACT,
					  VMBUS_UNLOAD,         VMBUS_MODIFY_CHANNEL };
	uint32_t payload[60] = { kinds[a->a % (sizeof(kinds) / sizeof(kinds[0]))] };
	size_t length = a->count % 241;

	memcpy(payload + 2, rest, bytes < sizeof(payload) - 8 ? bytes : sizeof(payload) - 8);
	if (a->flags & 1) { /* a relid or GPADL that may be there */
		payload[2] &= 3;
		payload[3] &= 3;
		payload[4] &= 7;
	}
	/* a list that may be one: page numbers are the input's */
	if (payload[0] == VMBUS_GPADL_HEADER && a->flags & 2) {
		payload[2] = 1;
		payload[3] = a->flags >> 4;
		payload[4] = (8 + 8 * (a->count % 20)) | 1 << 16;
		payload[5] = (a->count % 20) * GUEST_PAGE_BYTES;
		payload[6] = 0;
		length = 240;
	}
	if (payload[0] == VMBUS_OPEN && a->flags & 2) {
		payload[2] = 1;
		payload[4] = a->flags >> 4;
		payload[5] = a->count & 1;
		payload[6] = a->count >> 1 & 15;
		length = 148;
	}
	if (payload[0] == VMBUS_INITIATE_CONTACT && a->flags & 2) {
		payload[2] = VMBUS_5_3 - (a->count & 3);
		payload[3] = 0;
		payload[4] = VMBUS_SINT;
		length = 40;
	}
	bus_message(p->f.bus, a->flags & 8 ? (uint32_t)a->b : VMBUS_CONNECTION,
		    a->flags & 4 ? a->count : VMBUS_MESSAGE_TYPE, (uint8_t *)payload, length);
}

static uint32_t *word(struct play *p, uint64_t gpa)
{
	return (uint32_t *)(void *)(p->f.memory.ram + gpa);
}

/* Into a channel's ring as a driver would, whatever is mapped there now. */
static void put(struct play *p, unsigned channel, const uint8_t *packet, uint32_t bytes)
{
	const uint32_t ring_bytes = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES;
	const uint32_t ring = FAKE_RINGS_GPA + channel * FAKE_STRIDE;

	for (uint32_t n = 0; n < bytes; n++)
		p->f.memory.ram[ring + GUEST_PAGE_BYTES + (p->written[channel] + n) % ring_bytes] =
			packet[n];
	p->written[channel] = (p->written[channel] + bytes) % ring_bytes;
	*word(p, ring + RING_WRITE_INDEX) = p->written[channel];
}

/* An in-band packet of a channel of the utilities' or the memory's. */
static void put_inband(struct play *p, unsigned channel, const void *payload, uint32_t bytes)
{
	uint8_t packet[2200] = { 0 };
	const struct vmbus_packet head = { .type = PACKET_INBAND,
					   .data_units = 2,
					   .units = (uint16_t)(2 + (bytes + 7) / 8) };

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + 16, payload, bytes);
	put(p, channel, packet, 8u * head.units + 8);
	bus_event(p->f.bus, VMBUS_CONNECTION_CHANNEL + 1 + channel, 0);
	bus_run(p->f.bus);
}

/* What a driver of the memory's says, or nearly that. */
static void say_memory(struct play *p, const struct act *a, const uint8_t *rest, size_t bytes)
{
	static const uint16_t types[] = { 1, 3, 5, 7, 7, 11, 9, 11 };
	struct {
		uint16_t type, bytes;
		uint32_t transaction;
		uint64_t word[32];
	} m = { .type = a->flags & 128 ? a->count : types[a->a % 8] };

	memcpy(m.word, rest, bytes < sizeof(m.word) ? bytes : sizeof(m.word));
	if (m.type == 1 && a->flags & 1)
		m.word[0] = a->flags & 2 ? 0x20000 : 3;
	if (m.type == 3 && a->flags & 1)
		m.word[0] |= 1;
	if (m.type == 3 && a->flags & 4)
		m.word[0] = 3 | 7 << 2;
	if (m.type == 11 && a->flags & 1)
		m.word[0] = (a->count % 20) | (uint64_t)(a->flags & 2) << 31;
	if (m.type == 5 && a->flags & 1) {
		m.word[0] = a->count;
		m.word[1] = a->a & 511;
	}
	if (m.type == 7 && a->flags & 1) {
		m.word[0] = (uint64_t)((a->flags >> 2 & 15) << 1 | (a->flags >> 6 & 1)) << 32;
		for (unsigned n = 1; n < 16; n++)
			m.word[n] = (n * 16 + (m.word[n] & (a->flags & 2 ? 255 : 7)) +
				     (n < 12 ? 0 : (1 << 20) - 192)) |
				    (m.word[n] >> 8 & 7) << 40;
	}
	put_inband(p, 1, &m, a->flags & 64 ? 8 + a->count % 250u : (uint32_t)sizeof(m));
}

static void say_utility(struct play *p, const struct act *a, const uint8_t *rest, size_t bytes)
{
	uint8_t m[128] = { 0 };
	const uint16_t versions[10] = { 1, 1, 0, 0, 3, 0, a->flags & 4 ? 3 : 4, 0, 0, 0 };

	memcpy(m, rest, bytes < sizeof(m) ? bytes : sizeof(m));
	if (a->flags & 1) {
		m[12] = (uint8_t)(a->count & 7);
		m[13] = 0;
		m[25] = 7;
	}
	if (a->flags & 2) { /* an answer to what was offered */
		m[12] = 0;
		memcpy(m + 28, versions, sizeof(versions));
	}
	put_inband(p, 2 + a->a % 3, m, a->flags & 64 ? a->count % 128u : (uint32_t)sizeof(m));
}

static void command(struct play *p, const struct act *a, const uint8_t *rest, size_t bytes)
{
	static const uint8_t codes[] = {
		0x00, 0x08, 0x0a, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x35, 0x41,
		0x42, 0x5a, 0x88, 0x8a, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa
	};
	const uint8_t list[512] = { 0,
				    14,
				    0,
				    (uint8_t)(a->b & 16),
				    [14] = (uint8_t)(a->a & 17),
				    [19] = (uint8_t)a->count };
	struct vstor_packet v = {
		.operation = VSTOR_EXECUTE,
		.flags = 1,
		.body.srb = { .bytes = 0x34, .cdb_bytes = 16, .data_bytes = a->count }
	};
	uint8_t packet[1024];
	uint32_t range_bytes;

	memcpy(v.body.srb.cdb_or_sense, rest, bytes < 16 ? bytes : 16);
	if (!(a->flags & 1))
		v.body.srb.cdb_or_sense[0] = codes[a->a % sizeof(codes)];
	if (a->flags & 2) { /* a place on the disk, and a length that fits */
		memset(v.body.srb.cdb_or_sense + 2, 0, 6);
		memset(v.body.srb.cdb_or_sense + 10, 0, 3);
		v.body.srb.cdb_or_sense[1] &= 31;
		v.body.srb.cdb_or_sense[8] &= 31;
		v.body.srb.cdb_or_sense[9] = 0;
		v.body.srb.cdb_or_sense[13] &= 15;
		/* what UNMAP may take, or WRITE SAME zeros */
		guest_memory_write(&p->f.memory, (a->b % 300) * GUEST_PAGE_BYTES, list,
				   sizeof(list));
	}
	v.body.srb.lun = a->flags & 128 ? 0 : a->flags >> 3 & 3;
	if (a->flags & 4)
		v.operation = a->a % 15;
	range_bytes = a->flags & 2 ? 16384 + a->count % 16384u : a->count % (40u << 10);
	if (a->flags & 64)
		range_bytes = 0;
	put(p, 0, packet,
	    fake_packet(packet, ++p->transaction, &v, a->b % 300,
			a->flags & 32 ? a->a & (GUEST_PAGE_BYTES - 1) : 0, range_bytes));
}

static void raw_packet(struct play *p, const struct act *a, const uint8_t *rest, size_t bytes)
{
	uint8_t packet[4500] = { 0 };
	const struct vmbus_packet head = { .type = (uint16_t)a->a,
					   .data_units = (uint16_t)(a->b & 1023),
					   .units = (uint16_t)(a->b >> 16 & 1023),
					   .flags = 1,
					   .transaction = a->b };
	uint32_t length;

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + 16, rest, bytes < 4000 ? bytes : 4000);
	length = a->flags & 1 ? 8u * head.units + 8u : a->count % 4400u & ~7u;
	put(p, a->flags >> 1 & 3, packet, length < sizeof(packet) ? length : 4496);
}

/* The disk process: what comes has to be right, whatever the guest did. */
static void serve(struct play *p, const struct act *a)
{
	struct block_memory *m = p->f.disks;
	struct slot_queue *q = &m->queue;

	for (unsigned n = 0; n < (a->flags & 31u) && p->served != q->requests.written; n++) {
		struct slot_request r = q->requests.entry[p->served++ % SLOTS_MAX];

		if (r.slot >= BLOCK_SLOTS || p->busy >> r.slot & 1 || r.target >= 2 ||
		    r.kind >= BLOCK_KINDS ||
		    (r.kind <= BLOCK_WRITE && r.bytes > BLOCK_SLOT_BYTES) ||
		    r.offset > FAKE_SECTORS * 512 || r.bytes > FAKE_SECTORS * 512 - r.offset ||
		    (r.target == 1 && r.kind != BLOCK_READ && r.kind != BLOCK_FLUSH))
			abort();
		p->busy |= 1ull << r.slot;
		if (r.kind == BLOCK_READ)
			memset(m->data[r.slot], (int)a->a, r.bytes);
		q->replies.entry[p->answered++ % SLOTS_MAX] =
			(struct slot_reply){ r.slot, a->flags & 64    ? -EIO
						      : a->flags & 128 ? -ENOSPC
								       : 0 };
		q->replies.written = p->answered;
		p->busy &= ~(1ull << r.slot);
	}
	if (storage_collect(p->f.storage) < 0)
		abort();
}

static void open_all(struct play *p, bool contact)
{
	if (contact)
		fake_contact(&p->f);
	for (uint32_t n = 0; n < FAKE_CHANNELS; n++) {
		p->written[n] = 0;
		memset(p->f.memory.ram + FAKE_RINGS_GPA + n * FAKE_STRIDE, 0, GUEST_PAGE_BYTES);
		memset(p->f.memory.ram + FAKE_RINGS_GPA + n * FAKE_STRIDE +
			       FAKE_RING_PAGES * GUEST_PAGE_BYTES,
		       0, GUEST_PAGE_BYTES);
		fake_open(&p->f, n + 1);
	}
}

static void check_memory(struct play *p)
{
	struct balloon_status s;

	balloon_status(p->f.balloon, &s);
	if (s.held_bytes > guest_memory_populated_bytes(&p->f.memory) ||
	    s.assigned_bytes > s.held_bytes || s.target_bytes > FAKE_MOST_BYTES)
		abort();
}

static void act(struct play *p, const struct act *a, const uint8_t *rest, size_t bytes)
{
	struct fake *f = &p->f;

	switch (a->kind % 15) {
	case 0: case 1: message(p, a, rest, bytes); break;
	case 2:
		bus_event(f->bus,
			  a->flags & 1 ? (uint32_t)a->b
				       : VMBUS_CONNECTION_CHANNEL + 1u + (a->flags >> 2 & 7),
			  a->flags & 2 ? a->count : 0);
		break;
	case 3:
		guest_memory_write(&f->memory, a->b % FAKE_RAM_BYTES, rest,
				   bytes < 256 ? bytes : 256);
		break;
	case 4: /* a word of a control page */
		*word(p, FAKE_RINGS_GPA + (a->flags & 1 ? FAKE_RING_PAGES * GUEST_PAGE_BYTES : 0) +
				 (a->count & 12)) = a->flags & 2 ? a->a & 0x2ff8 : a->a;
		break;
	case 5: raw_packet(p, a, rest, bytes); break;
	case 6: open_all(p, a->flags & 1); break;
	case 7: serve(p, a); break;
	case 8:
		f->full = a->flags & 1;
		pthread_mutex_lock(&f->lock);
		bus_messages_taken(f->bus);
		pthread_mutex_unlock(&f->lock);
		bus_run(f->bus);
		break;
	case 9: say_memory(p, a, rest, bytes); break;
	case 10: say_utility(p, a, rest, bytes); break;
	case 11:
		if (a->flags & 1)
			balloon_set_target(f->balloon, a->flags & 2   ? 0
						       : a->flags & 8 ? UINT64_MAX
								      : (uint64_t)a->count << 8);
		if (a->flags & 4)
			utility_shut_down(f->utility[UTILITY_SHUTDOWN]);
		for (unsigned n = 0; n < UTILITY_KINDS; n++) {
			utility_tick(f->utility[n]);
			utility_health(f->utility[n]);
		}
		balloon_tick(f->balloon);
		check_memory(p);
		break;
	default: command(p, a, rest, bytes); break;
	}
}

/* The first words of the storage's and the memory's protocols. */
static void begin(struct play *p)
{
	struct vstor_packet words[] = { { .operation = VSTOR_BEGIN },
					{ .operation = VSTOR_QUERY_VERSION,
					  .body.version.version = VSTOR_6_2 },
					{ .operation = VSTOR_QUERY_PROPERTIES },
					{ .operation = VSTOR_END } };
	const struct {
		uint16_t type, bytes;
		uint32_t transaction;
		uint64_t word[3];
	} able = { 3, sizeof(able), 1, { 1 } };
	uint8_t packet[128];

	open_all(p, true);
	put_inband(p, 1, &able, sizeof(able));
	for (unsigned n = 0; n < 4; n++)
		put(p, 0, packet, fake_packet(packet, ++p->transaction, &words[n], 0, 0, 0));
	bus_event(p->f.bus, VMBUS_CONNECTION_CHANNEL + 1, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct play p = { 0 };
	char text[1024];

	fake_create(&p.f, bytes & 1 ? 1000 : 100000000);
	begin(&p);
	for (; bytes >= sizeof(struct act);
	     data += sizeof(struct act), bytes -= sizeof(struct act)) {
		struct act a;

		memcpy(&a, data, sizeof(a));
		act(&p, &a, data + sizeof(a), bytes - sizeof(a));
	}
	bus_statistics(p.f.bus, text, sizeof(text));
	storage_statistics(p.f.storage, text, sizeof(text));
	fake_destroy(&p.f);
	return 0;
}

/* Memory is asked for, given up in several messages, and given back. */
static size_t memory_seed(unsigned n, uint8_t *data)
{
	const struct act acts[] = {
		{ .kind = 11, .flags = 1, .count = (uint16_t)(n << 6) },
		{ .kind = 9, .flags = 1 | 64 | 3 << 2, .count = 242, .a = 3 },
		{ .kind = 9, .flags = (uint8_t)(1 | (n & 15) << 2), .a = 3, .b = n * 0x10101 },
		{ .kind = 11, .flags = 1 | 8 },
		{ .kind = 9, .flags = 1, .a = 6 },
		{ .kind = 9, .flags = 1, .count = 100, .a = 2 },
		{ .kind = 11, .flags = 1 | 2 },
	};

	for (unsigned k = 0; k < 4; k++)
		memcpy(data + k * sizeof(acts), acts, sizeof(acts));
	return 4 * sizeof(acts);
}

/* Programs that mostly make sense, of all acts. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const uint8_t kinds[] = { 12, 13, 14, 12, 9, 9, 10, 11, 2, 2,
					 7,  7,  7,  0,  1, 3, 4,  5,  6, 8 };
	uint64_t x = n * 0x9e3779b97f4a7c15 + 1;
	size_t at = 0;

	if (n % 8 == 0)
		return memory_seed(n, data);
	for (unsigned k = 0; k < 40; k++, at += sizeof(struct act)) {
		struct act a;

		x = x * 6364136223846793005 + 1442695040888963407;
		a = (struct act){ .kind = kinds[(x >> 33) % (k < 30 ? 13 : sizeof(kinds))],
				  .flags = (uint8_t)(x >> 40),
				  .count = (uint16_t)(x >> 48),
				  .a = (uint32_t)(x >> 20),
				  .b = x >> 13 };
		if (a.kind >= 12)
			a.flags &= k % 8 ? 0xda : 0xff;
		if (a.kind == 2)
			a.flags = 0;
		memcpy(data + at, &a, sizeof(a));
	}
	return at;
}
