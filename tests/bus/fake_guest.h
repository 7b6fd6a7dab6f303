/*
 * A guest of 1 MiB, a quarter of it above 4 GiB, and two processors around a bus with a storage
 * channel of two disks, the utilities' and the memory's channels; the test is its processors and
 * its disk process. Rings of channel N: FAKE_RING_PAGES for each direction at FAKE_RINGS_GPA and (N
 * - 1) * FAKE_STRIDE on.
 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lib/test_ram.h"
#include "abi/vmbus_layout.h"
#include "device/dynamic_memory/balloon.h"
#include "device/storvsp/storage.h"
#include "device/ic/utility.h"
#include "abi/vstor.h"

enum {
	FAKE_RAM_BYTES = 1 << 20,
	FAKE_LOW_BYTES = 0xc0000,
	FAKE_REGION_BYTES = 1 << 16,
	FAKE_MOST_BYTES = FAKE_RAM_BYTES + 4 * FAKE_REGION_BYTES,
	FAKE_CPUS = 2,
	FAKE_SECTORS = 4096,
	FAKE_CHANNELS = 5,
	/* its storage's second channel, whose rings are behind those of the others */
	FAKE_SUB = BUS_CHANNELS + BUS_LATE_CHANNELS + 1,
	FAKE_RINGS = FAKE_CHANNELS + 1
};
enum {
	FAKE_RINGS_GPA = 0x10000,
	FAKE_RING_PAGES = 4,
	FAKE_STRIDE = 2 * FAKE_RING_PAGES * GUEST_PAGE_BYTES
};

/* Which rings a channel has. */
static inline uint32_t fake_rings(uint32_t relid)
{
	return relid <= FAKE_CHANNELS ? relid - 1 : FAKE_CHANNELS;
}

struct fake {
	struct bus_host host;
	struct guest_memory memory;
	pthread_mutex_t lock;
	struct bus *bus;
	struct block_memory *disks;
	struct slot_client client;
	struct storage *storage;
	struct utility_clock clock;
	struct utility *utility[UTILITY_KINDS];
	struct balloon_host balloon_host;
	struct balloon *balloon;
	uint64_t now;
	bool full; /* no message can be posted now */
	uint32_t posted, signals, deferred;
	uint32_t last_kind, last_status;
};

static bool fake_post(void *context, uint32_t vp, const void *payload, size_t bytes)
{
	struct fake *fake = context;

	if (vp >= FAKE_CPUS || bytes < 8 || bytes > 240)
		abort();
	if (fake->full)
		return false;
	memcpy(&fake->last_kind, payload, 4);
	if (bytes >= 20)
		memcpy(&fake->last_status, (const uint8_t *)payload + 16, 4);
	__atomic_fetch_add(&fake->posted, 1, __ATOMIC_SEQ_CST);
	return true;
}

static void fake_signal(void *context, uint32_t vp, unsigned flag)
{
	if (vp >= FAKE_CPUS || flag >= 2048)
		abort();
	__atomic_fetch_add(&((struct fake *)context)->signals, 1, __ATOMIC_SEQ_CST);
}

static void fake_written(void *context, uint64_t gpa, size_t bytes)
{
	struct fake *fake = context;

	if (guest_memory_probe(&fake->memory, gpa, bytes, true))
		abort();
}

static void fake_defer(void *context)
{
	struct fake *fake = context;

	__atomic_fetch_add(&fake->deferred, 1, __ATOMIC_SEQ_CST);
	slot_wake(&fake->client);
}

static uint64_t fake_now(void *context)
{
	return __atomic_add_fetch(&((struct fake *)context)->now, 10, __ATOMIC_RELAXED);
}

static void fake_discard(void *context, uint64_t gpa, uint64_t bytes)
{
	struct fake *fake = context;

	const uint8_t *first = guest_ram_hva(&fake->memory, gpa);
	const uint8_t *last = guest_ram_hva(&fake->memory, gpa + bytes - 1);

	if (!first || !last || (uint64_t)(last - first) != bytes - 1 || gpa % GUEST_PAGE_BYTES ||
	    bytes % GUEST_PAGE_BYTES)
		abort();
	memset(guest_ram_hva(&fake->memory, gpa), 0, bytes);
}

static void fake_changed(void *context) { (void)context; }

static void fake_populate(void *context, uint64_t bytes)
{
	struct fake *fake = context;

	if (bytes <= guest_memory_populated_bytes(&fake->memory))
		abort();
	guest_memory_populate(&fake->memory, bytes);
}

/* The memory is exactly as long as it says. */
static void fake_create(struct fake *fake, uint64_t slice_tsc)
{
	uint8_t *ram = test_ram_make(FAKE_MOST_BYTES);

	memset(fake, 0, sizeof(*fake));
	guest_memory_init(&fake->memory, ram, FAKE_MOST_BYTES, FAKE_LOW_BYTES);
	guest_memory_populate(&fake->memory, FAKE_RAM_BYTES);
	pthread_mutex_init(&fake->lock, NULL);
	fake->host = (struct bus_host){
		.post = fake_post, .signal = fake_signal, .memory_written = fake_written,
		.defer = fake_defer, .now_100ns = fake_now, .context = fake,
		.lock = &fake->lock, .memory = &fake->memory,
		.cpus = FAKE_CPUS, .slice_tsc = slice_tsc,
	};
	fake->disks = mmap(NULL, sizeof(struct block_memory), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fake->client = (struct slot_client){ .queue = &fake->disks->queue,
					     .slots = BLOCK_SLOTS,
					     .doorbell_fd = eventfd(0, EFD_NONBLOCK),
					     .answer_fd = eventfd(0, 0) };
	fake->disks->disks = 2;
	for (unsigned n = 0; n < 2; n++)
		fake->disks->disk[n] = (struct block_disk){ .size_bytes = FAKE_SECTORS * 512,
							    .sector_bytes = 512,
							    .physical_bytes = GUEST_PAGE_BYTES,
							    .id = { (uint8_t)n },
							    .read_only = n == 1 };
	fake->bus = bus_create(&fake->host);
	fake->storage = storage_create(fake->bus, fake->disks, &fake->client);
	fake->clock = (struct utility_clock){ fake_now, fake_now, fake };
	fake->balloon_host = (struct balloon_host){
		.discard = fake_discard, .populate = fake_populate, .changed = fake_changed,
		.context = fake,
		.memory = &fake->memory, .least_bytes = 1 << 18, .region_bytes = FAKE_REGION_BYTES,
		.buffer_percent = 20,
	};
	fake->balloon = balloon_create(fake->bus, &fake->balloon_host);
	for (unsigned n = 0; n < UTILITY_KINDS; n++)
		fake->utility[n] = utility_create(fake->bus, (enum utility_kind)n, &fake->clock);
}

static __attribute__((unused)) void fake_destroy(struct fake *fake)
{
	storage_destroy(fake->storage);
	balloon_destroy(fake->balloon);
	for (unsigned n = 0; n < UTILITY_KINDS; n++)
		utility_destroy(fake->utility[n]);
	bus_destroy(fake->bus); /* the last, as that of a machine */
	munmap(fake->disks, sizeof(struct block_memory));
	close(fake->client.doorbell_fd);
	close(fake->client.answer_fd);
	test_ram_free(fake->memory.ram, FAKE_MOST_BYTES);
}

static int fake_message(struct fake *fake, const void *payload, size_t bytes)
{
	return bus_message(fake->bus, VMBUS_CONNECTION, VMBUS_MESSAGE_TYPE, payload, bytes);
}

static __attribute__((unused)) void fake_contact(struct fake *fake)
{
	const struct vmbus_contact contact = { .head.kind = VMBUS_INITIATE_CONTACT,
					       .version = VMBUS_5_3,
					       .interrupt_page = VMBUS_SINT };
	const struct vmbus_head offers = { .kind = VMBUS_REQUEST_OFFERS };

	fake_message(fake, &contact, sizeof(contact));
	fake_message(fake, &offers, sizeof(offers));
}

/* A GPADL over the rings of a channel, of the channel's number; open. */
static __attribute__((unused)) void fake_open(struct fake *fake, uint32_t relid)
{
	const uint64_t first_gfn =
		(FAKE_RINGS_GPA + fake_rings(relid) * FAKE_STRIDE) / GUEST_PAGE_BYTES;
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

	for (unsigned n = 0; n < 2 * FAKE_RING_PAGES; n++)
		gpadl.gfn[n] = first_gfn + n;
	fake_message(fake, &gpadl, sizeof(gpadl));
	fake_message(fake, &open, sizeof(open));
}

/*
 * A packet as a driver lays it out, with its footer, into `to`; its length. pages: of data at the
 * gfns that follow each other.
 */
static inline uint32_t fake_packet(uint8_t *to, uint64_t transaction,
				   const struct vstor_packet *packet, uint64_t first_gfn,
				   uint32_t offset, uint32_t bytes)
{
	const uint32_t pages =
		bytes ? (offset + bytes + (GUEST_PAGE_BYTES - 1)) / GUEST_PAGE_BYTES : 0;
	const uint32_t head_bytes = bytes ? 32 + 8 * pages : 16;
	const uint32_t range[4] = { 0, 1, bytes, offset };
	const struct vmbus_packet head = {
		.type = bytes ? PACKET_GPA_DIRECT : PACKET_INBAND,
		.data_units = (uint16_t)(head_bytes / 8),
		.units = (uint16_t)((head_bytes + sizeof(*packet)) / 8),
		.flags = PACKET_WANTS_COMPLETION,
		.transaction = transaction,
	};

	memcpy(to, &head, sizeof(head));
	if (bytes)
		memcpy(to + 16, range, sizeof(range));
	for (uint32_t n = 0; n < pages; n++)
		memcpy(to + 32 + 8 * (size_t)n, &(uint64_t){ first_gfn + n }, 8);
	memcpy(to + head_bytes, packet, sizeof(*packet));
	memset(to + head_bytes + sizeof(*packet), 0, 8);
	return head_bytes + (uint32_t)sizeof(*packet) + 8;
}
