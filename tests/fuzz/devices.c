/*
 * Channels beside the disks': a network card with its RNDIS messages, a keyboard, a screen and the
 * copying of files. The input is a program of packets, each with the channel, the kind of packet
 * and what is in it; of one that points into memory the same bytes are there. Whatever they are,
 * the bus stays as it has to be, and a picture is read within its memory.
 */
#include "../bus/fake_guest.h"
#include "abi/nvsp.h"
#include "abi/rndis.h"
#include "device/display/keyboard.h"
#include "device/display/video.h"
#include "device/ic/file_copy.h"
#include "device/netvsp/network.h"
#include "fuzz.h"
#include "ipc/net_card.h"

enum { CARD = FAKE_CHANNELS + 1, KEYBOARD, COPY, VIDEO, CHANNELS = 4 };
enum { BUFFER_GPADL = 40, BUFFER_PAGES = 16, BUFFER_GPA = 0x80000, DATA_GPA = 0xa0000 };
enum { PACKETS_MOST = 64, PAYLOAD_BYTES = 1500, POINTS = 1, TICKS = 2, TYPES = 4 };

/* Of a packet in the input; then its bytes. */
struct act { uint8_t channel, flags; uint16_t bytes; };

struct play {
	struct fake fake;
	struct net_card_memory *memory;
	struct slot_client client;
	struct network *network;
	struct keyboard *keyboard;
	struct file_copy_host host;
	struct file_copy *copy;
	struct video *video;
	uint32_t written[CHANNELS];
	uint64_t transaction;
};

static void must(bool good)
{
	if (!good)
		abort();
}

static void answered(void *context, int error)
{
	(void)context;
	must(error <= 0);
}

static void name_buffer(struct play *play)
{
	struct {
		struct vmbus_gpadl_header header;
		uint64_t gfn[BUFFER_PAGES];
	} __attribute__((packed))
	gpadl = { .header = { .head = { VMBUS_GPADL_HEADER, 0 },
			 .relid = CARD,
			 .gpadl = BUFFER_GPADL,
			 .range_bytes = 8 + 8 * BUFFER_PAGES,
			 .ranges = 1,
			 .bytes = BUFFER_PAGES * GUEST_PAGE_BYTES } };

	for (unsigned n = 0; n < BUFFER_PAGES; n++)
		gpadl.gfn[n] = BUFFER_GPA / GUEST_PAGE_BYTES + n;
	fake_message(&play->fake, &gpadl, sizeof(gpadl));
}

static void begin(struct play *play)
{
	memset(play, 0, sizeof(*play));
	fake_create(&play->fake, 1000000);
	play->memory = mmap(NULL, sizeof(*play->memory), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	play->memory->generation = play->memory->serving = 1;
	play->client = (struct slot_client){ .queue = &play->memory->queue,
					     .slots = NET_SLOTS,
					     .doorbell_fd = eventfd(0, EFD_NONBLOCK),
					     .answer_fd = eventfd(0, EFD_NONBLOCK) };
	play->host = (struct file_copy_host){ .answered = answered, .context = play };
	play->network = network_create(play->fake.bus, 0, play->memory, &play->client);
	play->keyboard = keyboard_create(play->fake.bus);
	play->copy = file_copy_create(play->fake.bus, &play->host);
	play->video = video_create(play->fake.bus, &play->fake.memory);
	must(play->network && play->keyboard && play->copy && play->video);
	fake_contact(&play->fake);
	for (uint32_t relid = CARD; relid < CARD + CHANNELS; relid++)
		fake_open(&play->fake, relid);
	name_buffer(play);
}

static void end(struct play *play)
{
	check_bus(play->fake.bus);
	network_destroy(play->network);
	keyboard_destroy(play->keyboard);
	file_copy_destroy(play->copy);
	video_destroy(play->video);
	fake_destroy(&play->fake); /* the bus last, as that of a machine */
	munmap(play->memory, sizeof(*play->memory));
	close(play->client.doorbell_fd);
	close(play->client.answer_fd);
}

static uint32_t *word(struct play *play, uint64_t gpa)
{
	return (uint32_t *)(void *)(play->fake.memory.ram + gpa);
}

/* Into the ring, as a driver would; what the host has put into the other is taken. */
static void put(struct play *play, unsigned channel, const uint8_t *packet, uint32_t bytes)
{
	const uint32_t ring_bytes = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES;
	const uint32_t ring = FAKE_RINGS_GPA + (CARD - 1 + channel) * FAKE_STRIDE;
	const uint32_t other = ring + FAKE_RING_PAGES * GUEST_PAGE_BYTES;
	uint8_t *data = play->fake.memory.ram + ring + GUEST_PAGE_BYTES;

	for (uint32_t n = 0; n < bytes; n++)
		data[(play->written[channel] + n) % ring_bytes] = packet[n];
	play->written[channel] = (play->written[channel] + bytes) % ring_bytes;
	*word(play, ring + RING_WRITE_INDEX) = play->written[channel];
	*word(play, other + RING_READ_INDEX) = *word(play, other + RING_WRITE_INDEX);
	bus_event(play->fake.bus, VMBUS_CONNECTION_CHANNEL + CARD + channel, 0);
	bus_run(play->fake.bus);
}

/* What follows the first 40 bytes of it is RNDIS where the packet points to it. */
static void send_packet(struct play *play, const struct act *act, const uint8_t *bytes)
{
	_Alignas(8) uint8_t packet[2048] = { 0 };
	const bool points = act->flags & POINTS && act->bytes > 40;
	const uint32_t head_bytes = points ? 40 : 16;
	const uint32_t payload_bytes = points ? 40 : act->bytes;
	const uint32_t range[4] = { 0, 1, act->bytes - 40u, DATA_GPA % GUEST_PAGE_BYTES };
	const struct vmbus_packet head = {
		.type = points ? PACKET_GPA_DIRECT : PACKET_INBAND,
		.data_units = (uint16_t)(head_bytes / 8),
		.units = (uint16_t)((head_bytes + payload_bytes + 7) / 8),
		.flags = act->flags >> 7,
		.transaction = ++play->transaction,
	};

	memcpy(packet, &head, sizeof(head));
	if (points) {
		memcpy(packet + 16, range, sizeof(range));
		memcpy(packet + 32, &(uint64_t){ DATA_GPA / GUEST_PAGE_BYTES }, 8);
		memcpy(play->fake.memory.ram + DATA_GPA, bytes + 40, act->bytes - 40u);
	}
	memcpy(packet + head_bytes, bytes, payload_bytes);
	put(play, act->channel % CHANNELS, packet, 8u * head.units + 8);
}

/* What the host does meanwhile. */
static void host_turn(struct play *play, const struct act *act, const uint8_t *bytes)
{
	static uint8_t pixels[VIDEO_ROW_BYTES];
	struct video_picture picture;

	network_collect(play->network);
	if (act->flags & TICKS)
		file_copy_unit.tick(play->copy, 1);
	if (act->flags & TYPES && act->bytes) {
		keyboard_type(play->keyboard, bytes, act->bytes);
		if (file_copy_begin(play->copy, "/a", "b", act->bytes, true))
			file_copy_piece(play->copy, bytes, act->bytes);
	}
	if (!video_look(play->video, &picture))
		for (uint32_t y = 0; y < picture.height; y += 1 + picture.height / 4)
			video_row(play->video, &picture, y, pixels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct play play;
	struct act act;

	begin(&play);
	for (unsigned n = 0; n < PACKETS_MOST && bytes > sizeof(act); n++) {
		memcpy(&act, data, sizeof(act));
		data += sizeof(act);
		bytes -= sizeof(act);
		act.bytes %= PAYLOAD_BYTES;
		if (act.bytes > bytes)
			act.bytes = (uint16_t)bytes;
		send_packet(&play, &act, data);
		fuzz_message();
		host_turn(&play, &act, data);
		data += act.bytes;
		bytes -= act.bytes;
	}
	end(&play);
	return 0;
}

/* ---- seeds: what drivers say first, in their order ---- */

static size_t add(uint8_t *to, uint8_t channel, uint8_t flags, const void *data, uint16_t bytes)
{
	const struct act act = { .channel = channel, .flags = flags, .bytes = bytes };

	memcpy(to, &act, sizeof(act));
	memcpy(to + sizeof(act), data, bytes);
	return sizeof(act) + bytes;
}

static size_t add_words(uint8_t *to, unsigned relid, uint8_t flags, const uint32_t *words,
			unsigned count)
{
	return add(to, (uint8_t)(relid - CARD), flags, words, (uint16_t)(4 * count));
}

static size_t seed_card(uint8_t *data, unsigned n)
{
	static const uint32_t first[][10] = {
		{ NVSP_INIT, NVSP_6_1, NVSP_6_1 },
		{ NVSP_NDIS_CONFIG, 1514, 0, NVSP_CAPABLE_VLAN | NVSP_CAPABLE_RSC },
		{ NVSP_NDIS_VERSION, 6, 30 },
		{ NVSP_RECEIVE_BUFFER, BUFFER_GPADL, NVSP_RECEIVE_BUFFER_ID },
		{ NVSP_SEND_BUFFER, BUFFER_GPADL },
	};
	uint32_t message[10 + 80] = { NVSP_RNDIS, NVSP_CHANNEL_CONTROL, NVSP_NO_SECTION };
	size_t at = 0;

	for (unsigned k = 0; k < sizeof(first) / sizeof(first[0]); k++)
		at += add_words(data + at, CARD, 128, first[k], 10);
	message[10] = 2; /* initialize */
	message[11] = 24;
	message[12] = 7;
	message[13] = 1;
	message[15] = 0x4000;
	at += add_words(data + at, CARD, 128 | POINTS, message, 16);
	message[10] = 4 + n % 2; /* query, set */
	message[11] = 32;
	message[13] = n % 3 ? 0x01010101 : 0xfc01020c;
	message[14] = 4 * (n % 5);
	message[15] = 20;
	at += add_words(data + at, CARD, 128 | POINTS, message, 18 + n % 20);
	message[1] = NVSP_CHANNEL_DATA;
	message[10] = 1; /* a frame */
	message[11] = 44 + 16 + 60;
	message[12] = 36 + 16;
	message[13] = 60;
	message[17] = 36;
	message[18] = 16;
	message[21] = 16;
	message[22] = 2 * (n % 4);
	message[23] = 12;
	message[24] = n;
	at += add_words(data + at, CARD, 128 | POINTS, message, 10 + 11 + 4 + 15);
	return at;
}

static size_t seed_screen(uint8_t *data)
{
	static const uint32_t version[] = { 1, 12, 1, 12, 5 << 16 | 3 };
	static const uint32_t resolutions[] = { 1, 9, 13, 9, 64 };
	static const uint8_t memory[33] = { 1, [4] = 25, [8] = 3, [12] = 25, [24] = 1, [27] = 8 };
	static const uint8_t situation[43] = { 1, [4] = 35, [8] = 5, [12] = 35, [24] = 1, [25] = 1,
					       [30] = 32, [31] = 64, [35] = 16, [40] = 1 };
	static const uint8_t dirt[34] = { 1, [4] = 26, [8] = 10, [12] = 26, [17] = 1 };
	size_t at = add_words(data, VIDEO, 0, version, 5);

	at += add_words(data + at, VIDEO, 0, resolutions, 5);
	at += add(data + at, VIDEO - CARD, 0, memory, sizeof(memory));
	at += add(data + at, VIDEO - CARD, 0, situation, sizeof(situation));
	return at + add(data + at, VIDEO - CARD, 0, dirt, sizeof(dirt));
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const uint32_t keys[] = { 1, 1 << 16 };
	/* versions, then the answer to a question */
	static const uint16_t taken[] = { 1, 0, 36, 0, 3, 0, 0, 1, 1, 16, 0, 0, 0x0501, 0,
					  1, 1, 0, 0, 3, 0, 1, 1, 0, 0 };
	static const uint16_t answer[] = { 1, 0, 20, 0, 3, 0, 7, 1, 1, 0, 0, 0, 0x0502, 0 };
	size_t at = seed_card(data, n);

	at += add_words(data + at, KEYBOARD, TYPES | 128, keys, 2);
	at += add(data + at, COPY - CARD, 0, taken, sizeof(taken));
	at += add(data + at, KEYBOARD - CARD, TYPES, keys, 8);
	at += add(data + at, COPY - CARD, TICKS, answer, sizeof(answer));
	return at + seed_screen(data + at);
}
