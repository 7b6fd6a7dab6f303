/*
 * Connections between programs (device/hvsock): the input is a program of acts of a guest that asks
 * for connections, opens, uses, closes and lets go what it is offered, and of a relay that answers
 * as it likes, or is another one. The relay is played here: whatever reaches it has to be what it
 * may be sent, each slot once at a time.
 */
#include "../bus/fake_guest.h"
#include "abi/hvsock_layout.h"
#include "device/hvsock/hvsock.h"
#include "fuzz.h"

/* Of the late channels so many have rings of their own; others share them. */
enum { RINGS = 8, RING_BYTES = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES, SEED_ACTS = 60 };
enum { CLOCK_100NS = 1000, ENDPOINTS = 100000 };
enum act_kind { ASK, OPEN, CLOSE, LET_GO, TEAR_DOWN, SAY, WORD, READ, SERVE, REPLY, RENEW, MESSAGE,
		ACTS };

struct act { uint8_t kind, which; uint16_t count; uint32_t a; uint64_t b; };
struct play {
	struct fake fake;
	struct connection_memory *memory;
	struct slot_client client;
	struct hvsock *hvsock;
	uint32_t served, answered, written[RINGS];
	uint64_t endpoint; /* the last that was offered for the host */
	/* how often the relay has each slot: once at most; less than never, where it lies */
	int has[CONNECTION_SLOTS];
};

static void must(bool good)
{
	if (!good)
		abort();
}

static void settle(struct play *play)
{
	hvsock_collect(play->hvsock);
	bus_run(play->fake.bus);
	check_hvsock(play->hvsock);
	check_bus(play->fake.bus);
}

/* The machine's: it hardly goes on. */
static uint64_t slow_now(void *context)
{
	(void)context;
	return CLOCK_100NS;
}

/* Each endpoint of the host's is another, and by that clock. */
static bool post(void *context, uint32_t vp, const void *payload, size_t bytes)
{
	struct play *play = context;
	struct vmbus_offer offer;
	uint64_t endpoint;

	if (!fake_post(&play->fake, vp, payload, bytes))
		return false;
	if (bytes < sizeof(offer))
		return true;
	memcpy(&offer, payload, sizeof(offer));
	if (offer.head.kind != VMBUS_OFFER || !(offer.flags & VMBUS_OFFER_SOCKET) ||
	    !offer.user_data[VMBUS_USER_FROM_HOST])
		return true;
	memcpy(&endpoint, offer.instance.byte, sizeof(endpoint));
	must(endpoint > play->endpoint && endpoint < CLOCK_100NS + ENDPOINTS);
	play->endpoint = endpoint;
	return true;
}

/* ---- the guest ---- */

static uint32_t relid_of(const struct act *a)
{
	return BUS_CHANNELS + 1u + a->which % BUS_LATE_CHANNELS;
}

static uint64_t ring_gpa(uint32_t relid)
{
	return FAKE_RINGS_GPA +
	       (FAKE_RINGS + (relid - BUS_CHANNELS - 1) % RINGS) * (uint64_t)FAKE_STRIDE;
}

static uint32_t *word(struct play *play, uint64_t gpa)
{
	return (uint32_t *)(void *)(play->fake.memory.ram + gpa);
}

static void ask(struct play *play, const struct act *a)
{
	struct vmbus_tl_connect request = { .head.kind = VMBUS_TL_CONNECT,
					    .service = HVSOCK_SERVICE(a->a) };

	memcpy(request.endpoint.byte, &a->b, sizeof(a->b));
	if (a->count & 1)
		request.service.byte[a->count >> 1 & 15] ^= 1;
	fake_message(&play->fake, &request, sizeof(request));
}

static void open_channel(struct play *play, uint32_t relid)
{
	struct {
		struct vmbus_gpadl_header header;
		uint64_t gfn[2 * FAKE_RING_PAGES];
	} __attribute__((packed))
	gpadl = { .header = { .head = { VMBUS_GPADL_HEADER, 0 },
			 .relid = relid,
			 .gpadl = relid,
			 .range_bytes = 8 + 16 * FAKE_RING_PAGES,
			 .ranges = 1,
			 .bytes = 2 * FAKE_RING_PAGES * GUEST_PAGE_BYTES } };
	const struct vmbus_open open = { .head.kind = VMBUS_OPEN,
					 .relid = relid,
					 .gpadl = relid,
					 .host_ring_page = FAKE_RING_PAGES };
	const uint64_t first_gpa = ring_gpa(relid);

	for (unsigned n = 0; n < 2 * FAKE_RING_PAGES; n++)
		gpadl.gfn[n] = first_gpa / GUEST_PAGE_BYTES + n;
	memset(word(play, first_gpa), 0, GUEST_PAGE_BYTES);
	memset(word(play, first_gpa + FAKE_RING_PAGES * GUEST_PAGE_BYTES), 0, GUEST_PAGE_BYTES);
	play->written[(relid - BUS_CHANNELS - 1) % RINGS] = 0;
	fake_message(&play->fake, &gpadl, sizeof(gpadl));
	fake_message(&play->fake, &open, sizeof(open));
}

static void tell_relid(struct play *play, uint32_t kind, uint32_t relid)
{
	const struct vmbus_relid message = { { kind, 0 }, relid };

	fake_message(&play->fake, &message, sizeof(message));
}

static void tear_down(struct play *play, uint32_t relid)
{
	const struct vmbus_gpadl_teardown message = { { VMBUS_GPADL_TEARDOWN, 0 }, relid, relid };

	fake_message(&play->fake, &message, sizeof(message));
}

/* A packet of a pipe's, or nearly that. */
static void say(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
{
	const uint32_t relid = relid_of(a);
	const uint64_t ring = ring_gpa(relid);
	uint32_t *written = &play->written[(relid - BUS_CHANNELS - 1) % RINGS];
	uint8_t packet[GUEST_PAGE_BYTES] = { 0 };
	const uint32_t data_bytes = a->count % 2048u;
	const struct hvsock_pipe pipe = { .kind = a->a & 7 ? HVSOCK_PIPE_DATA : a->a >> 3,
					  .bytes = a->a & 56 ? data_bytes : a->a >> 6 };
	const struct vmbus_packet head = {
		.type = a->a & 0x700 ? PACKET_INBAND : a->b & 15,
		.data_units = 2,
		.units = (uint16_t)(2 + (sizeof(pipe) + data_bytes + 7) / 8),
	};

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + sizeof(head), &pipe, sizeof(pipe));
	memcpy(packet + sizeof(head) + sizeof(pipe), rest, bytes < data_bytes ? bytes : data_bytes);
	for (uint32_t n = 0; n < 8u * head.units + PACKET_FOOTER_BYTES; n++)
		play->fake.memory.ram[ring + GUEST_PAGE_BYTES + (*written + n) % RING_BYTES] =
			packet[n];
	*written = (*written + 8u * head.units + PACKET_FOOTER_BYTES) % RING_BYTES;
	*word(play, ring + RING_WRITE_INDEX) = *written;
	bus_event(play->fake.bus, VMBUS_CONNECTION_CHANNEL + relid, 0);
}

/* It has read all that there is. */
static void read_all(struct play *play, uint32_t relid)
{
	const uint64_t ring = ring_gpa(relid) + FAKE_RING_PAGES * GUEST_PAGE_BYTES;

	*word(play, ring + RING_READ_INDEX) = *word(play, ring + RING_WRITE_INDEX);
	bus_event(play->fake.bus, VMBUS_CONNECTION_CHANNEL + relid, 0);
}

/* ---- the relay ---- */

static void check_request(const struct play *play, const struct slot_request *request)
{
	const struct connection_message *message;

	must(request->slot < CONNECTION_SLOTS && play->has[request->slot] <= 0);
	if (request->slot < CONNECTIONS) {
		must(request->kind == CONNECTION_TAKE);
		return;
	}
	if (play->has[request->slot] < 0)
		return; /* the relay has answered before it looked, and written there */
	message = &play->memory->slot[request->slot].message;
	must(message->kind == request->kind && message->kind > CONNECTION_TAKE &&
	     message->kind < CONNECTION_KINDS && message->bytes <= CONNECTION_BYTES);
	must(message->kind != CONNECTION_DATA || message->bytes);
}

static void serve(struct play *play)
{
	const struct slot_requests *requests = &play->memory->queue.requests;

	while (play->served != requests->written) {
		const struct slot_request *request = &requests->entry[play->served++ % SLOTS_MAX];

		check_request(play, request);
		play->has[request->slot]++;
	}
}

/* A slot that is the relay's, or any; what it says is lawful, or what the input says. */
static void reply(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
{
	struct slot_replies *replies = &play->memory->queue.replies;
	unsigned slot = a->which % CONNECTION_SLOTS;
	struct connection_slot *to = &play->memory->slot[slot];

	if (play->has[slot] <= 0 && a->b & 0xff)
		return;
	to->message = (struct connection_message){ .kind = a->a % (CONNECTION_KINDS + 1),
						   .port = (uint32_t)a->b,
						   .bytes = a->count };
	memcpy(to->data, rest, bytes < sizeof(to->data) ? bytes : sizeof(to->data));
	play->has[slot]--;
	replies->entry[play->answered++ % SLOTS_MAX] = (struct slot_reply){
		.slot = slot,
		.result = a->b & 0x100 ? -ECONNREFUSED : 0,
	};
	__atomic_store_n(&replies->written, play->answered, __ATOMIC_RELEASE);
}

/* Another relay: it begins when the machine has seen it. */
static void renew(struct play *play)
{
	const uint32_t generation = play->memory->generation + 1;

	__atomic_store_n(&play->memory->generation, generation, __ATOMIC_RELEASE);
	hvsock_collect(play->hvsock);
	must(play->memory->accepted == generation);
	memset(play->has, 0, sizeof(play->has));
	play->served = play->answered = 0;
}

/* ---- a program ---- */

static void act(struct play *play, const struct act *a, const uint8_t *rest, size_t bytes)
{
	const uint32_t relid = relid_of(a);

	switch (a->kind % ACTS) {
	case ASK: ask(play, a); break;
	case OPEN: open_channel(play, relid); break;
	case CLOSE: tell_relid(play, VMBUS_CLOSE, relid); break;
	case LET_GO: tell_relid(play, VMBUS_RELID_RELEASED, relid); break;
	case TEAR_DOWN: tear_down(play, relid); break;
	case SAY: say(play, a, rest, bytes); break;
	case WORD: *word(play, ring_gpa(relid) + (a->count & 12)) = a->a; break;
	case READ: read_all(play, relid); break;
	case SERVE: serve(play); break;
	case REPLY: reply(play, a, rest, bytes); break;
	case RENEW: renew(play); break;
	default:
		if (a->count & 1)
			fake_contact(&play->fake);
		play->fake.full = a->count & 2;
		break;
	}
	settle(play);
}

static void create(struct play *play)
{
	fake_create(&play->fake, 100000000);
	play->fake.host.post = post;
	play->fake.host.now_100ns = slow_now;
	play->memory = mmap(NULL, sizeof(*play->memory), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(play->memory != MAP_FAILED);
	play->client = (struct slot_client){ .queue = &play->memory->queue,
					     .slots = CONNECTION_SLOTS,
					     .doorbell_fd = eventfd(0, EFD_NONBLOCK),
					     .answer_fd = eventfd(0, EFD_NONBLOCK) };
	play->hvsock = hvsock_create(play->fake.bus, play->memory, &play->client);
	must(play->hvsock != NULL);
	renew(play);
	fake_contact(&play->fake);
}

static void destroy(struct play *play)
{
	hvsock_destroy(play->hvsock);
	fake_destroy(&play->fake);
	munmap(play->memory, sizeof(*play->memory));
	close(play->client.doorbell_fd);
	close(play->client.answer_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct play play;

	play = (struct play){ .served = 0 };
	create(&play);
	for (; bytes >= sizeof(struct act);
	     data += sizeof(struct act), bytes -= sizeof(struct act)) {
		struct act a;

		memcpy(&a, data, sizeof(a));
		act(&play, &a, data + sizeof(a), bytes - sizeof(a));
	}
	destroy(&play);
	return 0;
}

/* ---- seeds ---- */

/* A pipe's packet as it should be, and a reply that is the relay's to give. */
enum { GOOD_PIPE = 0x709, GOOD_REPLY = 0x1000 };

/* One connection of the host's, and one of the guest's, at places that follow each other. */
static const struct act lawful[] = {
	{ .kind = SERVE },
	{ .kind = REPLY, .which = 0, .a = CONNECTION_CONNECT, .b = 5000 },
	{ .kind = OPEN, .which = 0 },
	{ .kind = SERVE },
	{ .kind = REPLY, .which = CONNECTIONS, .b = GOOD_REPLY },
	{ .kind = REPLY, .which = 0, .a = CONNECTION_DATA, .count = 700, .b = GOOD_REPLY },
	{ .kind = SAY, .which = 0, .count = 300, .a = GOOD_PIPE, .b = 1 },
	{ .kind = SERVE },
	{ .kind = READ, .which = 0 },
	{ .kind = REPLY, .which = CONNECTIONS, .b = GOOD_REPLY },
	{ .kind = REPLY, .which = 0, .a = CONNECTION_DATA, .count = 9000, .b = GOOD_REPLY },
	{ .kind = ASK, .a = 6000, .b = 77 },
	{ .kind = SERVE },
	{ .kind = REPLY, .which = CONNECTIONS + CONNECTIONS_OF_HOST, .b = GOOD_REPLY },
	{ .kind = OPEN, .which = 1 },
	{ .kind = SAY, .which = 1, .count = 2000, .a = GOOD_PIPE, .b = 1 },
	{ .kind = SERVE },
	{ .kind = REPLY, .which = CONNECTIONS + CONNECTIONS_OF_HOST, .b = GOOD_REPLY },
	{ .kind = SAY, .which = 1, .count = 0, .a = GOOD_PIPE, .b = 1 },
	{ .kind = REPLY, .which = CONNECTIONS_OF_HOST, .a = CONNECTION_FINISHED, .b = GOOD_REPLY },
	{ .kind = SERVE },
	{ .kind = REPLY, .which = CONNECTIONS + CONNECTIONS_OF_HOST, .b = GOOD_REPLY },
	{ .kind = READ, .which = 0 },
	{ .kind = REPLY, .which = 0, .a = CONNECTION_GONE, .b = GOOD_REPLY },
	{ .kind = CLOSE, .which = 0 },
	{ .kind = SERVE },
	{ .kind = REPLY, .which = CONNECTIONS, .b = GOOD_REPLY },
	{ .kind = LET_GO, .which = 0 },
	{ .kind = CLOSE, .which = 1 },
	{ .kind = TEAR_DOWN, .which = 1 },
	{ .kind = SERVE },
};
enum { LAWFUL_ACTS = sizeof(lawful) / sizeof(lawful[0]) };

static struct act any_act(uint64_t x)
{
	return (struct act){ .kind = (uint8_t)((x >> 33) % ACTS),
			     .which = (uint8_t)(x >> 40 & 127),
			     .count = (uint16_t)(x >> 48),
			     .a = (uint32_t)(x >> 20),
			     .b = x >> 13 };
}

/* The first acts are lawful, or all; of the others one in a few. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const unsigned kept = n % 4 ? n * 7 % LAWFUL_ACTS : LAWFUL_ACTS;
	uint64_t x = n * 0x9e3779b97f4a7c15 + 1;
	size_t at = 0;

	for (unsigned k = 0; k < SEED_ACTS; k++, at += sizeof(struct act)) {
		struct act a = lawful[k % LAWFUL_ACTS];

		x = x * 6364136223846793005 + 1442695040888963407;
		if (k >= kept && (x >> 60) < 6)
			a = any_act(x);
		memcpy(data + at, &a, sizeof(a));
	}
	return at;
}
