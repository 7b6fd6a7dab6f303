/*
 * A guest of fake_guest.h that has used its bus for a while: every channel is open and agreed upon,
 * completions and messages wait for room, a GPADL is incomplete, pages are given up, a beat is not
 * answered; and its parts as saved machines have them.
 */
#pragma once

#include "fake_guest.h"

#include "lib/archive.h"

enum live_part {
	PART_BUS,
	PART_STORAGE,
	PART_BALLOON,
	PART_UTILITY,
	LIVE_PARTS = PART_UTILITY + UTILITY_KINDS
};
enum {
	LIVE_RING_BYTES = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES,
	LIVE_STORAGE = 1,
	LIVE_BALLOON = 2,
	LIVE_UTILITY = 3
};
enum { LIVE_COMPLETIONS = 140 /* more than fit into the guest's ring */, LIVE_UTILITY_VERSION = 3 };

struct live { struct fake fake; uint32_t written[FAKE_RINGS]; };

static uint32_t *live_word(struct live *live, uint32_t relid, bool to_guest, uint32_t word)
{
	uint64_t gpa = FAKE_RINGS_GPA + fake_rings(relid) * FAKE_STRIDE +
		       (to_guest ? FAKE_RING_PAGES * GUEST_PAGE_BYTES : 0) + word;

	return (uint32_t *)(void *)(live->fake.memory.ram + gpa);
}

static void live_put(struct live *live, uint32_t relid, const uint8_t *packet, uint32_t bytes)
{
	uint8_t *data = live->fake.memory.ram + FAKE_RINGS_GPA + fake_rings(relid) * FAKE_STRIDE +
			GUEST_PAGE_BYTES;
	uint32_t *written = &live->written[fake_rings(relid)];

	for (uint32_t n = 0; n < bytes; n++)
		data[(*written + n) % LIVE_RING_BYTES] = packet[n];
	*written = (*written + bytes) % LIVE_RING_BYTES;
	*live_word(live, relid, false, RING_WRITE_INDEX) = *written;
	bus_event(live->fake.bus, VMBUS_CONNECTION_CHANNEL + relid, 0);
	bus_run(live->fake.bus);
}

static void live_put_inband(struct live *live, uint32_t relid, const void *payload, uint32_t bytes)
{
	uint8_t packet[2 * GUEST_PAGE_BYTES] = { 0 };
	const struct vmbus_packet head = { .type = PACKET_INBAND,
					   .data_units = 2,
					   .units = (uint16_t)(2 + (bytes + 7) / 8) };

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + sizeof(head), payload, bytes);
	live_put(live, relid, packet, 8u * head.units + PACKET_FOOTER_BYTES);
}

static void live_storage_on(struct live *live, uint32_t relid, const struct vstor_packet *request)
{
	uint8_t packet[512];

	live_put(live, relid, packet,
		 fake_packet(packet, ++live->fake.now, request, 0, 0, 0));
}

static void live_storage(struct live *live, const struct vstor_packet *request)
{
	live_storage_on(live, LIVE_STORAGE, request);
}

/* A sub-channel, in use. */
static void live_open_sub(struct live *live)
{
	live_storage(live, &(struct vstor_packet){ .operation = VSTOR_CREATE_SUB_CHANNELS,
						   .body.sub_channels = 1 });
	fake_open(&live->fake, FAKE_SUB);
	live_storage_on(live, FAKE_SUB, &(struct vstor_packet){ .operation = VSTOR_RESET_BUS });
}

static void live_agree_on_storage(struct live *live)
{
	live_storage(live, &(struct vstor_packet){ .operation = VSTOR_BEGIN });
	live_storage(live, &(struct vstor_packet){ .operation = VSTOR_QUERY_VERSION,
						   .body.version.version = VSTOR_6_2 });
	live_storage(live, &(struct vstor_packet){ .operation = VSTOR_END });
}

static void live_agree_on_memory(struct live *live)
{
	const struct {
		uint16_t type, bytes;
		uint32_t transaction;
		uint64_t word[6];
	} messages[] = {
		{ 1, 16, 1, { 0x20000 } },
		{ 3, 16, 2, { 1 } },
		{ 5, 48, 3, { 100, 50, 0, 50 } },
	};
	const struct {
		uint16_t type, bytes;
		uint32_t transaction, reserved, count;
		uint64_t range;
	} pages = { .type = 7,
		    .bytes = 24,
		    .transaction = 4,
		    .count = 1 << 1,
		    .range = 0xa0 | 16ull << 40 };

	for (size_t n = 0; n < sizeof(messages) / sizeof(messages[0]); n++)
		live_put_inband(live, LIVE_BALLOON, &messages[n], sizeof(messages[n]));
	balloon_set_target(live->fake.balloon, FAKE_RAM_BYTES - 16 * GUEST_PAGE_BYTES);
	balloon_tick(live->fake.balloon);
	live_put_inband(live, LIVE_BALLOON, &pages, sizeof(pages));
}

/*
 * The answer to what was offered, as tests/fuzz/bus.c has it: head of 28 bytes, one framework, one
 * message version.
 */
static void live_agree_on_utility(struct live *live, unsigned kind)
{
	uint8_t answer[64] = { [25] = 7 };
	const uint16_t versions[10] = {
		1,
		1,
		0,
		0,
		3,
		0,
		kind == UTILITY_TIME ? LIVE_UTILITY_VERSION + 1 : LIVE_UTILITY_VERSION,
		0
	};

	memcpy(answer + 28, versions, sizeof(versions));
	live_put_inband(live, LIVE_UTILITY + kind, answer, sizeof(answer));
	utility_tick(live->fake.utility[kind]);
}

/* A connection to a program of the host's: what stands behind it is no part of what is saved. */
static void live_nothing(void *context) { (void)context; }
static int live_take_nothing(void *context, const struct bus_packet *packet)
{
	(void)context;
	(void)packet;
	return 0;
}

static void live_offer_late(struct live *live)
{
	static const struct bus_service service = { .opened = live_nothing,
						    .closed = live_nothing,
						    .packet = live_take_nothing,
						    .released = live_nothing };

	bus_offer_late(live->fake.bus, &service);
}

/* `n` says how far it got. */
static __attribute__((unused)) void live_create(struct live *live, unsigned n)
{
	struct {
		struct vmbus_gpadl_header header;
		uint64_t gfn[3];
	} __attribute__((packed)) incomplete = {
		.header = { .head = { VMBUS_GPADL_HEADER, 0 },
			    .relid = 1,
			    .gpadl = 77,
			    .range_bytes = 8 + 8 * 5,
			    .ranges = 1,
			    .bytes = 5 * GUEST_PAGE_BYTES },
		.gfn = { 1, 2, 3 },
	};

	*live = (struct live){ .written = { 0 } };
	fake_create(&live->fake, 1000000000);
	if (n == 0)
		return;
	fake_contact(&live->fake);
	for (uint32_t relid = 1; relid <= 1 + n % FAKE_CHANNELS; relid++)
		fake_open(&live->fake, relid);
	fake_message(&live->fake, &incomplete, sizeof(incomplete));
	for (unsigned k = 0; k < n % 4; k++)
		live_offer_late(live);
	live_agree_on_storage(live);
	if (n % 5 >= 1)
		live_agree_on_memory(live);
	for (unsigned kind = 0; kind < UTILITY_KINDS && n % 5 >= 2 + kind; kind++)
		live_agree_on_utility(live, kind);
	if (n & 4)
		live_open_sub(live);
	for (unsigned k = 0; k < LIVE_COMPLETIONS && n & 1; k++)
		live_storage(live,
			     &(struct vstor_packet){ .operation = VSTOR_RESET_BUS, .flags = k });
	live->fake.full = n & 2;
	if (n & 2)
		fake_open(&live->fake, 1); /* which is refused, and its answers wait */
}

static __attribute__((unused)) void live_destroy(struct live *live) { fake_destroy(&live->fake); }

static inline void live_archive(struct live *live, enum live_part part, struct archive *archive)
{
	switch (part) {
	case PART_BUS: bus_archive(archive, live->fake.bus); break;
	case PART_STORAGE: storage_archive(archive, live->fake.storage); break;
	case PART_BALLOON: balloon_archive(archive, live->fake.balloon); break;
	default: utility_archive(archive, live->fake.utility[part - PART_UTILITY]); break;
	}
}

/* The bytes of a part; aborts where they do not fit. */
static inline size_t live_save(struct live *live, enum live_part part, uint8_t *to, size_t bytes)
{
	struct archive archive = archive_save_to(to, bytes);

	live_archive(live, part, &archive);
	if (archive.error)
		abort();
	return archive.used;
}

/* Into a part that is new. 0 or -errno. */
static inline int live_load(struct live *live, enum live_part part, const uint8_t *from,
			    size_t bytes)
{
	struct archive archive = archive_load_from(from, bytes);

	live_archive(live, part, &archive);
	archive_check_end(&archive);
	if (!archive.error && part == PART_BUS)
		check_bus(live->fake.bus);
	return archive.error;
}

/* As a machine goes on with it: everything that a guest or the clock can cause. */
static inline void live_use(struct live *live)
{
	struct balloon_status status;

	bus_restored(live->fake.bus);
	bus_go_on(live->fake.bus);
	live->fake.full = false;
	pthread_mutex_lock(&live->fake.lock);
	bus_messages_taken(live->fake.bus);
	pthread_mutex_unlock(&live->fake.lock);
	for (uint32_t relid = 1; relid <= FAKE_CHANNELS; relid++)
		bus_event(live->fake.bus, VMBUS_CONNECTION_CHANNEL + relid, 0);
	bus_event(live->fake.bus, VMBUS_CONNECTION_CHANNEL + FAKE_SUB, 0);
	bus_run(live->fake.bus);
	balloon_tick(live->fake.balloon);
	balloon_status(live->fake.balloon, &status);
	for (unsigned kind = 0; kind < UTILITY_KINDS; kind++)
		utility_tick(live->fake.utility[kind]);
	fake_contact(&live->fake); /* which closes every channel */
	check_bus(live->fake.bus);
	check_storage(live->fake.storage);
	check_balloon(live->fake.balloon);
}
