/*
 * The partition bus and its services: the input is a program of acts of a guest that posts,
 * signals, writes its rings and its memory; the disk process is played here, and every request that
 * reaches it has to be one that it may be sent.
 */
#include "../bus/fake_guest.h"
#include "fuzz.h"

struct act { uint8_t kind, flags; uint16_t count; uint32_t a; uint64_t b; };
struct play {
	struct fake fake;
	uint32_t served, answered, written[FAKE_RINGS];
	uint64_t busy, transaction;
};

static void message(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
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
	bus_message(play->fake.bus, a->flags & 8 ? (uint32_t)a->b : VMBUS_CONNECTION,
		    a->flags & 4 ? a->count : VMBUS_MESSAGE_TYPE, (uint8_t *)payload, length);
}

static uint32_t *word(struct play *play, uint64_t gpa)
{
	return (uint32_t *)(void *)(play->fake.memory.ram + gpa);
}

/* Into a channel's ring as a driver would, whatever is mapped there now. */
static void put(struct play *play, unsigned channel, const uint8_t *packet, uint32_t bytes)
{
	const uint32_t ring_bytes = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES;
	const uint32_t ring = FAKE_RINGS_GPA + channel * FAKE_STRIDE;

	for (uint32_t n = 0; n < bytes; n++)
		play->fake.memory
			.ram[ring + GUEST_PAGE_BYTES + (play->written[channel] + n) % ring_bytes] =
			packet[n];
	play->written[channel] = (play->written[channel] + bytes) % ring_bytes;
	*word(play, ring + RING_WRITE_INDEX) = play->written[channel];
}

/* An in-band packet of a channel of the utilities' or the memory's. */
static void put_inband(struct play *play, unsigned channel, const void *payload, uint32_t bytes)
{
	uint8_t packet[2200] = { 0 };
	const struct vmbus_packet head = { .type = PACKET_INBAND,
					   .data_units = 2,
					   .units = (uint16_t)(2 + (bytes + 7) / 8) };

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + 16, payload, bytes);
	put(play, channel, packet, 8u * head.units + 8);
	bus_event(play->fake.bus, VMBUS_CONNECTION_CHANNEL + 1 + channel, 0);
	bus_run(play->fake.bus);
}

/* What a driver of the memory's says, or nearly that. */
static void say_memory(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
{
	static const uint16_t types[] = { 1, 3, 5, 7, 7, 11, 9, 11 };
	struct {
		uint16_t type, bytes;
		uint32_t transaction;
		uint64_t word[32];
	} message = { .type = a->flags & 128 ? a->count : types[a->a % 8] };

	memcpy(message.word, rest, bytes < sizeof(message.word) ? bytes : sizeof(message.word));
	if (message.type == 1 && a->flags & 1)
		message.word[0] = a->flags & 2 ? 0x20000 : 3;
	if (message.type == 3 && a->flags & 1)
		message.word[0] |= 1;
	if (message.type == 3 && a->flags & 4)
		message.word[0] = 3 | 7 << 2;
	if (message.type == 11 && a->flags & 1)
		message.word[0] = (a->count % 20) | (uint64_t)(a->flags & 2) << 31;
	if (message.type == 5 && a->flags & 1) {
		message.word[0] = a->count;
		message.word[1] = a->a & 511;
	}
	if (message.type == 7 && a->flags & 1) {
		message.word[0] = (uint64_t)((a->flags >> 2 & 15) << 1 | (a->flags >> 6 & 1)) << 32;
		for (unsigned n = 1; n < 16; n++)
			message.word[n] = (n * 16 + (message.word[n] & (a->flags & 2 ? 255 : 7)) +
					   (n < 12 ? 0 : (1 << 20) - 192)) |
					  (message.word[n] >> 8 & 7) << 40;
	}
	put_inband(play, 1, &message,
		   a->flags & 64 ? 8 + a->count % 250u : (uint32_t)sizeof(message));
}

static void say_utility(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
{
	uint8_t message[128] = { 0 };
	const uint16_t versions[10] = { 1, 1, 0, 0, 3, 0, a->flags & 4 ? 3 : 4, 0, 0, 0 };

	memcpy(message, rest, bytes < sizeof(message) ? bytes : sizeof(message));
	if (a->flags & 1) {
		message[12] = (uint8_t)(a->count & 7);
		message[13] = 0;
		message[25] = 7;
	}
	if (a->flags & 2) { /* an answer to what was offered */
		message[12] = 0;
		memcpy(message + 28, versions, sizeof(versions));
	}
	put_inband(play, 2 + a->a % 3, message,
		   a->flags & 64 ? a->count % 128u : (uint32_t)sizeof(message));
}

static void command(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
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
	struct vstor_packet request = {
		.operation = VSTOR_EXECUTE,
		.flags = 1,
		.body.srb = { .bytes = 0x34, .cdb_bytes = 16, .data_bytes = a->count }
	};
	uint8_t packet[1024];
	uint32_t range_bytes;

	memcpy(request.body.srb.cdb_or_sense, rest, bytes < 16 ? bytes : 16);
	if (!(a->flags & 1))
		request.body.srb.cdb_or_sense[0] = codes[a->a % sizeof(codes)];
	if (a->flags & 2) { /* a place on the disk, and a length that fits */
		memset(request.body.srb.cdb_or_sense + 2, 0, 6);
		memset(request.body.srb.cdb_or_sense + 10, 0, 3);
		request.body.srb.cdb_or_sense[1] &= 31;
		request.body.srb.cdb_or_sense[8] &= 31;
		request.body.srb.cdb_or_sense[9] = 0;
		request.body.srb.cdb_or_sense[13] &= 15;
		/* what UNMAP may take, or WRITE SAME zeros */
		guest_memory_write(&play->fake.memory, (a->b % 300) * GUEST_PAGE_BYTES, list,
				   sizeof(list));
	}
	request.body.srb.lun = a->flags & 128 ? 0 : a->flags >> 3 & 3;
	if (a->flags & 4)
		request.operation = a->a % 15;
	range_bytes = a->flags & 2 ? 16384 + a->count % 16384u : a->count % (40u << 10);
	if (a->flags & 64)
		range_bytes = 0;
	put(play, 0, packet,
	    fake_packet(packet, ++play->transaction, &request, a->b % 300,
			a->flags & 32 ? a->a & (GUEST_PAGE_BYTES - 1) : 0, range_bytes));
}

static void raw_packet(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
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
	put(play, a->flags >> 1 & 3, packet, length < sizeof(packet) ? length : 4496);
}

static int32_t result_of(const struct act *a)
{
	if (a->flags & 64)
		return -EIO;
	return a->flags & 128 ? -ENOSPC : 0;
}

static uint64_t target_of(const struct act *a)
{
	if (a->flags & 2)
		return 0;
	return a->flags & 8 ? UINT64_MAX : (uint64_t)a->count << 8;
}

/* The disk process: what comes has to be right, whatever the guest did. */
static void serve(struct play *play, const struct act *a)
{
	struct block_memory *memory = play->fake.disks;
	struct slot_queue *queue = &memory->queue;

	for (unsigned n = 0; n < (a->flags & 31u) && play->served != queue->requests.written; n++) {
		struct slot_request request = queue->requests.entry[play->served++ % SLOTS_MAX];

		if (request.slot >= BLOCK_SLOTS || play->busy >> request.slot & 1 ||
		    request.target >= 2 || request.kind >= BLOCK_KINDS ||
		    (request.kind <= BLOCK_WRITE && request.bytes > BLOCK_SLOT_BYTES) ||
		    request.offset > FAKE_SECTORS * 512 ||
		    request.bytes > FAKE_SECTORS * 512 - request.offset ||
		    (request.target == 1 && request.kind != BLOCK_READ &&
		     request.kind != BLOCK_FLUSH))
			abort();
		play->busy |= 1ull << request.slot;
		if (request.kind == BLOCK_READ)
			memset(memory->data[request.slot], (int)a->a, request.bytes);
		queue->replies.entry[play->answered++ % SLOTS_MAX] =
			(struct slot_reply){ request.slot, result_of(a) };
		queue->replies.written = play->answered;
		play->busy &= ~(1ull << request.slot);
	}
	if (storage_collect(play->fake.storage) < 0)
		abort();
}

static void open_all(struct play *play, bool contact)
{
	if (contact)
		fake_contact(&play->fake);
	for (uint32_t n = 0; n < FAKE_CHANNELS; n++) {
		play->written[n] = 0;
		memset(play->fake.memory.ram + FAKE_RINGS_GPA + n * FAKE_STRIDE, 0,
		       GUEST_PAGE_BYTES);
		memset(play->fake.memory.ram + FAKE_RINGS_GPA + n * FAKE_STRIDE +
			       FAKE_RING_PAGES * GUEST_PAGE_BYTES,
		       0, GUEST_PAGE_BYTES);
		fake_open(&play->fake, n + 1);
	}
}

/* A sub-channel of the storage's, in either of its places: asked for, opened, used, or let go. */
static void use_sub(struct play *play, const struct act *a)
{
	const uint32_t relid = FAKE_SUB + (a->flags >> 4 & 1);
	struct vstor_packet words[] = {
		{ .operation = VSTOR_CREATE_SUB_CHANNELS,
		  .body.sub_channels = a->flags & 8 ? a->count : 1 },
		{ .operation = a->flags & 128 ? a->a % 15 : VSTOR_EXECUTE },
	};
	const struct vmbus_relid let_go = { { VMBUS_RELID_RELEASED, 0 }, relid };
	uint8_t packet[128];

	if (a->flags & 1)
		put(play, 0, packet, fake_packet(packet, ++play->transaction, &words[0], 0, 0, 0));
	bus_event(play->fake.bus, VMBUS_CONNECTION_CHANNEL + 1, 0);
	bus_run(play->fake.bus);
	if (a->flags & 2) {
		memset(play->fake.memory.ram + FAKE_RINGS_GPA + FAKE_CHANNELS * FAKE_STRIDE, 0,
		       FAKE_STRIDE);
		play->written[FAKE_CHANNELS] = 0;
		fake_open(&play->fake, relid);
	}
	if (a->flags & 4)
		put(play, FAKE_CHANNELS, packet,
		    fake_packet(packet, ++play->transaction, &words[1], 0, 0, 0));
	bus_event(play->fake.bus, VMBUS_CONNECTION_CHANNEL + relid, 0);
	if (a->flags & 64)
		fake_message(&play->fake, &let_go, sizeof(let_go));
}

static void check_memory(struct play *play)
{
	struct balloon_status status;

	balloon_status(play->fake.balloon, &status);
	if (status.held_bytes > guest_memory_populated_bytes(&play->fake.memory) ||
	    status.assigned_bytes > status.held_bytes || status.target_bytes > FAKE_MOST_BYTES)
		abort();
}

static void act(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
{
	struct fake *fake = &play->fake;

	switch (a->kind % 16) {
	case 0: case 1: message(play, a, rest, bytes); break;
	case 2:
		bus_event(fake->bus,
			  a->flags & 1 ? (uint32_t)a->b
				       : VMBUS_CONNECTION_CHANNEL + 1u + (a->flags >> 2 & 7),
			  a->flags & 2 ? a->count : 0);
		break;
	case 3:
		guest_memory_write(&fake->memory, a->b % FAKE_RAM_BYTES, rest,
				   bytes < 256 ? bytes : 256);
		break;
	case 4: /* a word of a control page */
		*word(play, FAKE_RINGS_GPA +
				    (a->flags & 1 ? FAKE_RING_PAGES * GUEST_PAGE_BYTES : 0) +
				    (a->count & 12)) = a->flags & 2 ? a->a & 0x2ff8 : a->a;
		break;
	case 5: raw_packet(play, a, rest, bytes); break;
	case 6: open_all(play, a->flags & 1); break;
	case 7: serve(play, a); break;
	case 8:
		fake->full = a->flags & 1;
		pthread_mutex_lock(&fake->lock);
		bus_messages_taken(fake->bus);
		pthread_mutex_unlock(&fake->lock);
		bus_run(fake->bus);
		break;
	case 9: say_memory(play, a, rest, bytes); break;
	case 10: say_utility(play, a, rest, bytes); break;
	case 11:
		if (a->flags & 1)
			balloon_set_target(fake->balloon, target_of(a));
		if (a->flags & 4)
			utility_shut_down(fake->utility[UTILITY_SHUTDOWN]);
		for (unsigned n = 0; n < UTILITY_KINDS; n++) {
			utility_tick(fake->utility[n]);
			utility_health(fake->utility[n]);
		}
		balloon_tick(fake->balloon);
		check_memory(play);
		break;
	case 15: use_sub(play, a); break;
	default: command(play, a, rest, bytes); break;
	}
}

/* The first words of the storage's and the memory's protocols. */
static void begin(struct play *play)
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

	open_all(play, true);
	put_inband(play, 1, &able, sizeof(able));
	for (unsigned n = 0; n < 4; n++)
		put(play, 0, packet, fake_packet(packet, ++play->transaction, &words[n], 0, 0, 0));
	bus_event(play->fake.bus, VMBUS_CONNECTION_CHANNEL + 1, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct play play = { 0 };
	char text[1024];

	fake_create(&play.fake, bytes & 1 ? 1000 : 100000000);
	begin(&play);
	for (; bytes >= sizeof(struct act);
	     data += sizeof(struct act), bytes -= sizeof(struct act)) {
		struct act a;

		memcpy(&a, data, sizeof(a));
		act(&play, &a, data + sizeof(a), bytes - sizeof(a));
		fuzz_message();
	}
	bus_statistics(play.fake.bus, text, sizeof(text));
	storage_statistics(play.fake.storage, text, sizeof(text));
	fake_destroy(&play.fake);
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
	static const uint8_t kinds[] = { 12, 13, 14, 12, 9, 9, 10, 11, 15, 2, 2,
					 7,  7,  7,  0,  1, 3, 4,  5,  6, 8 };
	uint64_t x = n * 0x9e3779b97f4a7c15 + 1;
	size_t at = 0;

	if (n % 8 == 0)
		return memory_seed(n, data);
	for (unsigned k = 0; k < 40; k++, at += sizeof(struct act)) {
		struct act a;

		x = x * 6364136223846793005 + 1442695040888963407;
		a = (struct act){ .kind = kinds[(x >> 33) % (k < 30 ? 14 : sizeof(kinds))],
				  .flags = (uint8_t)(x >> 40),
				  .count = (uint16_t)(x >> 48),
				  .a = (uint32_t)(x >> 20),
				  .b = x >> 13 };
		if (a.kind >= 12 && a.kind < 15)
			a.flags &= k % 8 ? 0xda : 0xff;
		if (a.kind == 2)
			a.flags = 0;
		memcpy(data + at, &a, sizeof(a));
	}
	return at;
}
