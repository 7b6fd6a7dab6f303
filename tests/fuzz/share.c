/*
 * A channel to another machine, between a guest and a hub that both lie: the input is a program of
 * steps, each a message of the guest's (pages that it lends, accesses, ends, of any numbers), what
 * the hub answers or brings, words beside the queue, and writing into the window at any time. After
 * each step the channel holds what check_share() says. In the end, when the guest has closed it,
 * nothing is lent, and who writes into the window changes no page of the machine's.
 */
#include "../bus/fake_guest.h"

#include "abi/share.h"
#include "device/share/lender.h"
#include "device/share/share_device.h"
#include "fuzz.h"
#include "port.h"

enum { RELID = FAKE_CHANNELS + 1, RING_BYTES = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES };
enum { RINGS_GPA = FAKE_RINGS_GPA + FAKE_CHANNELS * FAKE_STRIDE };
enum { FIRST_GFN = 0x60, RANGES = 3, PAGES_MOST = 24, STEPS_MOST = 400, DATA_BYTES = 40 };
enum { SCRIBBLED_PAGES = 32, COMPARED_GPA = RINGS_GPA, COMPARED_BYTES = 0x80000 - RINGS_GPA };
enum { SERVES = 1, OLD_VERSION = 2 }; /* of the first byte */
enum { WANTS_COMPLETION = 1, LIES_OF_BYTES = 2, IS_FAR = 4, IS_PART = 8,
       IS_APART = 128 }; /* flags of a step */
enum step_kind {
	STEP_GUEST,
	STEP_LEND,
	STEP_ANSWER,
	STEP_REPLY,
	STEP_PACKET,
	STEP_WORDS,
	STEP_CLOSE,
	STEP_READ,
	STEP_SCRIBBLE,
	STEPS
};

struct step { uint8_t kind, what, flags, count; uint16_t id, gfn; };

struct bench {
	struct fake fake;
	void *heap; /* the memory that the fake came with */
	struct share_memory *memory;
	struct port_window window;
	struct slot_client client;
	struct lender *lender;
	struct share *share;
	uint32_t written, answered;
	uint64_t number;
};

static void must(bool good)
{
	if (!good)
		abort();
}

static void changed(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	(void)bytes;
}

/* ---- the machine ---- */

/* Whole pages that may be lent, and change their mappings. */
static void map_ram(struct bench *bench)
{
	struct guest_memory *memory = &bench->fake.memory;
	const size_t bytes = guest_memory_footprint_bytes(FAKE_MOST_BYTES);
	uint8_t *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	must(ram != MAP_FAILED);
	bench->heap = memory->ram;
	guest_memory_init(memory, ram, FAKE_MOST_BYTES, FAKE_LOW_BYTES);
	guest_memory_populate(memory, FAKE_RAM_BYTES);
}

static void unmap_ram(struct bench *bench)
{
	munmap(bench->fake.memory.ram, guest_memory_footprint_bytes(FAKE_MOST_BYTES));
	bench->fake.memory.ram = bench->heap;
}

/* As if a joiner had brought it. */
static void map_window(void *at, size_t bytes)
{
	must(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
		  0) == at);
}

static void open_again(struct bench *bench)
{
	const struct vmbus_open open = { .head.kind = VMBUS_OPEN, .relid = RELID, .gpadl = RELID,
					 .host_ring_page = FAKE_RING_PAGES };

	fake_message(&bench->fake, &open, sizeof(open));
}

static void close_channel(struct bench *bench)
{
	const struct vmbus_relid message = { .head.kind = VMBUS_CLOSE, .relid = RELID };

	fake_message(&bench->fake, &message, sizeof(message));
	bus_run(bench->fake.bus);
	memset(bench->fake.memory.ram + RINGS_GPA, 0, GUEST_PAGE_BYTES);
	memset(bench->fake.memory.ram + RINGS_GPA + FAKE_STRIDE / 2, 0, GUEST_PAGE_BYTES);
	bench->written = 0;
}

static void make(struct bench *bench, uint8_t kind)
{
	*bench = (struct bench){ .written = 0 };
	fake_create(&bench->fake, 1000000000);
	map_ram(bench);
	bench->memory = port_memory(&bench->client);
	bench->memory->side = kind & SERVES ? SHARE_SIDE_SERVES : SHARE_SIDE_BINDS;
	bench->memory->epoch = 77;
	bench->lender = lender_create(&bench->fake.memory, changed, NULL);
	must(port_window_make(&bench->window, -1));
	map_window(bench->window.memory, sizeof(*bench->window.memory));
	map_window(bench->window.own, WINDOW_HALF_BYTES);
	bench->window.is_shared = true;
	bench->window.is_all_shared = !(kind & OLD_VERSION);
	bench->share = share_create(bench->fake.bus, 0,
				    share_port_kind(bench->memory->side, SHARE_CLASS_PACKET),
				    bench->memory, &bench->window, &bench->client, bench->lender);
	fake_contact(&bench->fake);
	fake_open(&bench->fake, RELID);
}

static void destroy(struct bench *bench)
{
	unmap_ram(bench);
	fake_destroy(&bench->fake);
	share_destroy(bench->share);
	lender_destroy(bench->lender);
	for (unsigned n = 0; n < bench->window.places; n++)
		munmap(bench->window.place[n].at, bench->window.place[n].bytes);
	munmap(bench->memory, sizeof(*bench->memory));
	close(bench->client.doorbell_fd);
	close(bench->client.answer_fd);
}

/* ---- the guest ---- */

static uint32_t *word(struct bench *bench, uint64_t gpa)
{
	return (uint32_t *)(void *)(bench->fake.memory.ram + gpa);
}

static void put(struct bench *bench, const uint8_t *packet, uint32_t bytes)
{
	uint8_t *data = bench->fake.memory.ram + RINGS_GPA + GUEST_PAGE_BYTES;

	for (uint32_t n = 0; n < bytes; n++)
		data[(bench->written + n) % RING_BYTES] = packet[n];
	bench->written = (bench->written + bytes) % RING_BYTES;
	*word(bench, RINGS_GPA + RING_WRITE_INDEX) = bench->written;
	bus_event(bench->fake.bus, VMBUS_CONNECTION_CHANNEL + RELID, 0);
	bus_run(bench->fake.bus);
}

static void read_all(struct bench *bench)
{
	const uint32_t ring = RINGS_GPA + FAKE_STRIDE / 2;

	*word(bench, ring + RING_READ_INDEX) = *word(bench, ring + RING_WRITE_INDEX);
	bus_run(bench->fake.bus);
}

/* The number-th, at `to`; its bytes. */
static uint32_t put_range(const struct step *step, unsigned number, uint8_t *to)
{
	const uint64_t far_gfn = 0x100000 + FAKE_LOW_BYTES / GUEST_PAGE_BYTES;
	const uint64_t first = (step->flags & IS_FAR ? far_gfn : 0) + step->gfn +
			       (uint64_t)number * PAGES_MOST;
	const uint32_t apart = step->flags & IS_APART ? 2 : 1;
	const uint32_t pages = 1u + (step->count >> 2 * number) % (PAGES_MOST / RANGES);
	const uint32_t left_out = step->flags & IS_PART ? step->id : 0;
	const uint32_t range[2] = { pages * GUEST_PAGE_BYTES - left_out, 0 };

	memcpy(to, range, sizeof(range));
	for (uint32_t n = 0; n < pages; n++)
		memcpy(to + sizeof(range) + 8 * (size_t)n, &(uint64_t){ first + n * apart }, 8);
	return (uint32_t)sizeof(range) + 8 * pages;
}

/* Ranges, where it has any, and the message. */
static void send_message(struct bench *bench, const struct step *step, const void *message,
			 uint32_t bytes, unsigned ranges)
{
	_Alignas(8) uint8_t packet[2 * DATA_BYTES + 8 * (PAGES_MOST + 16)] = { 0 };
	uint32_t at = 16;

	if (ranges) {
		memcpy(packet + at, &(uint32_t[]){ 0, ranges }, 8);
		at += 8;
	}
	for (unsigned n = 0; n < ranges; n++)
		at += put_range(step, n, packet + at);
	memcpy(packet,
	       &(struct vmbus_packet){ .type = ranges ? PACKET_GPA_DIRECT : PACKET_INBAND,
				       .data_units = (uint16_t)(at / 8),
				       .units = (uint16_t)((at + bytes + 7) / 8),
				       .flags = step->flags & WANTS_COMPLETION,
				       .transaction = ++bench->fake.now },
	       sizeof(struct vmbus_packet));
	memcpy(packet + at, message, bytes);
	put(bench, packet, (at + bytes + 7) / 8 * 8 + PACKET_FOOTER_BYTES);
}

static void say(struct bench *bench, const struct step *step)
{
	union {
		struct share_version version;
		struct share_data data;
		struct share_lend lend;
		uint8_t bytes[sizeof(struct share_data) + DATA_BYTES];
	} message = { .bytes = { 0 } };

	message.data.head.kind = step->what % (SHARE_ENDED + 2);
	switch (message.data.head.kind) {
	case SHARE_VERSION:
		message.version.least = SHARE_1_0;
		message.version.most = SHARE_1_0 + step->count % 4;
		break;
	case SHARE_DATA:
		message.data.bytes = step->flags & LIES_OF_BYTES ? ~0u - step->gfn : DATA_BYTES;
		message.data.lend = step->id;
		break;
	default:
		message.lend.id = step->id;
		message.lend.flags = step->count;
		break;
	}
	send_message(bench, step, &message, sizeof(message), 0);
}

static void lend(struct bench *bench, const struct step *step)
{
	const struct share_lend message = { .head.kind = SHARE_LEND, .flags = step->id >> 8 };

	send_message(bench, step, &message, sizeof(message), step->what % (RANGES + 1));
}

/* ---- the hub, and the other machine ---- */

static void reply(struct bench *bench, uint32_t slot, int32_t result)
{
	struct slot_replies *replies = &bench->memory->queue.replies;

	replies->entry[replies->written % SLOTS_MAX] =
		(struct slot_reply){ .slot = slot, .result = result };
	replies->written++;
}

/* Up to so many of what was sent was done, in order, or may not be. */
static void answer(struct bench *bench, const struct step *step)
{
	if (bench->client.submitted < bench->answered)
		bench->answered = 0;
	for (unsigned n = 0; n < step->count && bench->answered < bench->client.submitted;
	     bench->answered++) {
		const struct slot_request *request =
			&bench->memory->queue.requests.entry[bench->answered % SLOTS_MAX];

		if (request->slot < SHARE_RECEIVE_SLOTS)
			continue;
		reply(bench, request->slot, step->what % 8 ? 0 : -EPERM);
		n++;
	}
}

static void bring(struct bench *bench, const struct step *step)
{
	const uint32_t slot = step->count % SHARE_RECEIVE_SLOTS;
	const struct share_packet packet = {
		.epoch = 1 + step->what / 64, .number = ++bench->number,
		.bytes = step->flags & LIES_OF_BYTES ? ~0u - step->gfn : DATA_BYTES,
		.kind = step->what % (SHARE_PACKET_KINDS + 1), .id = step->id,
		.first = step->gfn % 512, .pages = step->flags, .flags = step->flags >> 7
	};

	memcpy(bench->memory->data[slot], &packet, sizeof(packet));
	reply(bench, slot, (int32_t)(sizeof(packet) + DATA_BYTES));
}

static void change_words(struct bench *bench, const struct step *step)
{
	struct share_memory *memory = bench->memory;

	if (step->flags & 1)
		memory->peer_is_there = step->what;
	if (step->flags & 2)
		memory->generation += step->count % 3;
	memory->serving = step->flags & 4 ? step->id : memory->generation;
}

/* Over what is lent first: the rest costs memory in each input. */
static void scribble(struct bench *bench, uint8_t value)
{
	for (unsigned half = 0; half < 2; half++)
		memset(bench->window.memory->page[half], value,
		       SCRIBBLED_PAGES * (size_t)GUEST_PAGE_BYTES);
}

/* ---- the program ---- */

static void act(struct bench *bench, const struct step *step)
{
	switch (step->kind % STEPS) {
	case STEP_GUEST: say(bench, step); break;
	case STEP_LEND: lend(bench, step); break;
	case STEP_ANSWER: answer(bench, step); break;
	case STEP_REPLY: reply(bench, step->id, (int8_t)step->what); break;
	case STEP_PACKET: bring(bench, step); break;
	case STEP_WORDS: change_words(bench, step); break;
	case STEP_CLOSE:
		close_channel(bench);
		open_again(bench);
		break;
	case STEP_READ: read_all(bench); break;
	default: scribble(bench, step->what); break;
	}
	if (step->flags & 64)
		share_take(bench->share);
	else
		share_collect(bench->share);
	check_share(bench->share);
}

/* Whoever has kept the window has nothing of the machine's. */
static void check_end(struct bench *bench)
{
	static uint8_t before[COMPARED_BYTES];
	const uint8_t *ram = bench->fake.memory.ram + COMPARED_GPA;

	close_channel(bench);
	share_collect(bench->share);
	check_share(bench->share);
	must(!lender_holds_pages(bench->lender, 0, 1ull << 32));
	memcpy(before, ram, sizeof(before));
	scribble(bench, 0xa5);
	must(!memcmp(before, ram, sizeof(before)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct bench bench;
	struct step step;

	if (!bytes)
		return 0;
	make(&bench, *data++);
	bytes--;
	bench.memory->generation = bench.memory->serving = 1;
	share_collect(bench.share);
	for (unsigned n = 0; n < STEPS_MOST && bytes >= sizeof(step); n++) {
		memcpy(&step, data, sizeof(step));
		data += sizeof(step);
		bytes -= sizeof(step);
		act(&bench, &step);
		fuzz_message();
	}
	check_end(&bench);
	destroy(&bench);
	return 0;
}

/* ---- seeds: a guest that lends, tells of it, ends it; a hub that does as it should ---- */

static size_t add(uint8_t *to, struct step step)
{
	memcpy(to, &step, sizeof(step));
	return sizeof(step);
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	size_t used = 1;

	data[0] = (uint8_t)(n % 4);
	used += add(data + used, (struct step){ .kind = STEP_WORDS, .what = 5, .flags = 1 });
	used += add(data + used, (struct step){ .kind = STEP_GUEST, .what = SHARE_VERSION,
						.flags = WANTS_COMPLETION, .count = 2 });
	for (uint16_t k = 1; k < 3 + n / 8 % 4; k++) {
		used += add(data + used,
			    (struct step){ .kind = STEP_LEND,
					   .what = (uint8_t)(1 + k % RANGES),
					   .flags = WANTS_COMPLETION,
					   .count = (uint8_t)(3 * k + n),
					   .id = (uint16_t)((n / 2 % 8) << 8),
					   .gfn = (uint16_t)(FIRST_GFN + 4 * k) });
		used += add(data + used, (struct step){ .kind = STEP_ANSWER, .what = 1,
							.count = 4 });
		used += add(data + used, (struct step){ .kind = STEP_GUEST, .what = SHARE_DATA,
							.id = k });
		used += add(data + used, (struct step){ .kind = STEP_SCRIBBLE,
							.what = (uint8_t)k });
		if (n & 4)
			used += add(data + used,
				    (struct step){ .kind = STEP_PACKET,
						   .what = SHARE_PACKET_RELEASE,
						   .count = (uint8_t)(2 * k), .id = k });
		used += add(data + used,
			    (struct step){ .kind = STEP_PACKET, .count = (uint8_t)(2 * k + 1),
					   .what = (uint8_t)(k % 2 ? SHARE_PACKET_LENT
								   : SHARE_PACKET_DATA),
					   .flags = 3, .id = k });
		if (k % 2)
			used += add(data + used,
				    (struct step){ .kind = STEP_GUEST, .what = SHARE_END,
						   .flags = WANTS_COMPLETION, .id = k,
						   .count = (uint8_t)(n / 16 % 2 ? SHARE_NOW
										 : 0) });
		used += add(data + used, (struct step){ .kind = STEP_READ });
	}
	if (n & 32)
		used += add(data + used,
			    (struct step){ .kind = STEP_WORDS, .flags = 2, .count = 1 });
	used += add(data + used, (struct step){ .kind = STEP_CLOSE });
	return used;
}
