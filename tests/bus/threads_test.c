/*
 * The bus, the storage service and the disk process's side together, each on its threads as in a
 * machine, for ThreadSanitizer too: one processor reads and writes and compares with what it knows,
 * and now and then closes the channel with requests under way; another one signals and moves the
 * channel's interrupts all the time; a third looks for replies, as one that halts does. usage:
 * bus_threads_test [ROUNDS [SEED]]
 */
#include <stdio.h>

#include "disk/queue.h"
#include "process/block_server.h"
#include "fake_guest.h"

enum {
	AREAS = 24,
	LOOKS = 64,
	AREA_SECTORS = 16,
	AREA_BYTES = AREA_SECTORS * 512,
	DATA_GPA = 0x40000,
	RING_DATA_BYTES = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES
};

static struct fake fake;
static uint32_t seed = 1;
static uint32_t written, taken;
static uint64_t transaction;
static bool stop;
static pthread_mutex_t collecting = PTHREAD_MUTEX_INITIALIZER; /* replies */
static uint8_t want[AREAS]; /* what each area of the disk is filled with */

static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	return seed ^= seed << 5;
}

static uint32_t *word(uint32_t ring_page, uint32_t at)
{
	return (uint32_t *)(void *)(fake.memory.ram + FAKE_RINGS_GPA +
				    ring_page * GUEST_PAGE_BYTES + at);
}
static void fail(const char *what)
{
	printf("FAIL %s\n", what);
	exit(1);
}

static void put(const struct vstor_packet *request, uint64_t gpa, uint32_t bytes)
{
	uint8_t packet[512];
	uint32_t length = fake_packet(packet, ++transaction, request, gpa / GUEST_PAGE_BYTES,
				      (uint32_t)(gpa % GUEST_PAGE_BYTES), bytes);

	for (uint32_t n = 0; n < length; n++)
		fake.memory
			.ram[FAKE_RINGS_GPA + GUEST_PAGE_BYTES + (written + n) % RING_DATA_BYTES] =
			packet[n];
	written = (written + length) % RING_DATA_BYTES;
	__atomic_store_n(word(0, RING_WRITE_INDEX), written, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(word(0, RING_INTERRUPT_MASK), __ATOMIC_SEQ_CST))
		bus_event(fake.bus, VMBUS_CONNECTION_CHANNEL + 1, 0);
}

static uint64_t get(struct vstor_packet *ret)
{
	uint8_t packet[80];
	struct vmbus_packet head;

	for (uint64_t spins = 0;
	     __atomic_load_n(word(FAKE_RING_PAGES, RING_WRITE_INDEX), __ATOMIC_ACQUIRE) == taken;
	     spins++) {
		if (spins > 20000000)
			fail("no answer");
		if (spins % 64 == 63)
			usleep(100);
	}
	for (uint32_t n = 0; n < sizeof(packet); n++)
		packet[n] =
			fake.memory.ram[FAKE_RINGS_GPA + (FAKE_RING_PAGES + 1) * GUEST_PAGE_BYTES +
					(taken + n) % RING_DATA_BYTES];
	memcpy(&head, packet, sizeof(head));
	memcpy(ret, packet + 16, sizeof(*ret));
	taken = (taken + 8u * head.units + 8) % RING_DATA_BYTES;
	__atomic_store_n(word(FAKE_RING_PAGES, RING_READ_INDEX), taken, __ATOMIC_RELEASE);
	return head.transaction;
}

static void talk(uint32_t operation, uint16_t version)
{
	struct vstor_packet packet = { .operation = operation, .body.version.version = version };

	put(&packet, 0, 0);
	if (get(&packet) != transaction || packet.status)
		fail("the first words");
}

static void open_channel(void)
{
	for (unsigned n = 0; n < 8; n++) {
		__atomic_store_n(word(0, 4 * n), 0, __ATOMIC_RELAXED);
		__atomic_store_n(word(FAKE_RING_PAGES, 4 * n), 0, __ATOMIC_RELAXED);
	}
	written = taken = 0;
	fake_contact(&fake);
	fake_open(&fake, 1);
	talk(VSTOR_BEGIN, 0);
	talk(VSTOR_QUERY_VERSION, VSTOR_6_2);
	talk(VSTOR_END, 0);
}

static void put_transfer(unsigned area, bool write)
{
	struct vstor_packet packet = { .operation = VSTOR_EXECUTE,
				       .flags = 1,
				       .body.srb = { .bytes = 0x34,
						     .cdb_bytes = 16,
						     .data_bytes = AREA_BYTES,
						     .direction = write ? SRB_DIRECTION_WRITE
									: SRB_DIRECTION_READ } };

	packet.body.srb.cdb_or_sense[0] = write ? 0x8a : 0x88;
	packet.body.srb.cdb_or_sense[1] = write && area % 8 == 0 ? 8 : 0;
	packet.body.srb.cdb_or_sense[8] = (uint8_t)(area * AREA_SECTORS >> 8);
	packet.body.srb.cdb_or_sense[9] = (uint8_t)(area * AREA_SECTORS);
	packet.body.srb.cdb_or_sense[13] = AREA_SECTORS;
	put(&packet, DATA_GPA + area * (AREA_BYTES + 24), AREA_BYTES);
}

static uint8_t *data_of(unsigned area)
{
	return fake.memory.ram + DATA_GPA + area * (AREA_BYTES + 24);
}

/* All areas at once, each read or written; then their answers, in whatever order. */
static void round_of_requests(void)
{
	bool writes[AREAS];
	uint64_t first = transaction + 1;

	for (unsigned n = 0; n < AREAS; n++) {
		writes[n] = rnd() & 1;
		want[n] = writes[n] ? (uint8_t)rnd() : want[n];
		memset(data_of(n), writes[n] ? want[n] : 0x55, AREA_BYTES);
		put_transfer(n, writes[n]);
	}
	for (unsigned n = 0; n < AREAS; n++) {
		struct vstor_packet packet;
		uint64_t area = get(&packet) - first;

		if (area >= AREAS || packet.body.srb.srb_status != SRB_SUCCESS ||
		    packet.body.srb.data_bytes != AREA_BYTES)
			fail("an answer");
		for (unsigned k = 0; k < AREA_BYTES; k++)
			if (data_of((unsigned)area)[k] != want[area])
				fail("the data");
	}
}

/* With reads under way: their memory is not touched once the channel is closed. */
static void close_and_open(void)
{
	const struct vmbus_relid close = { { VMBUS_CLOSE, 0 }, 1 };
	const struct vmbus_gpadl_teardown teardown = { { VMBUS_GPADL_TEARDOWN, 0 }, 1, 1 };

	for (unsigned n = 0; n < AREAS; n++)
		put_transfer(n, false);
	fake_message(&fake, &close, sizeof(close));
	fake_message(&fake, &teardown, sizeof(teardown));
	for (unsigned n = 0; n < AREAS; n++)
		memset(data_of(n), 0x66, AREA_BYTES);
	usleep(2000);
	for (unsigned n = 0; n < AREAS; n++)
		for (unsigned k = 0; k < AREA_BYTES; k++)
			if (data_of(n)[k] != 0x66)
				fail("a closed channel's memory was written");
	open_channel();
}

static void collect(void)
{
	if (storage_collect(fake.storage) < 0)
		fail("collecting");
	pthread_mutex_unlock(&collecting);
}

static void *devices(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		pthread_mutex_lock(&collecting);
		collect();
		bus_run(fake.bus);
		slot_clients_sleep(&(struct slot_client *){ &fake.client }, 1, 0);
	}
	return unused;
}

/* In the place of that thread for a moment, again and again (net-port: who misses no reply). */
static void *halted_processor(void *unused)
{
	struct slot_client *const clients[] = { &fake.client };

	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		for (unsigned n = 0; n < LOOKS; n++) {
			slot_clients_watch(clients, 1);
			if (slot_has_reply(&fake.client) && !pthread_mutex_trylock(&collecting))
				collect();
		}
		if (slot_clients_unwatch(clients, 1))
			slot_wake(&fake.client);
		usleep(20);
	}
	return unused;
}

static void *other_processor(void *unused)
{
	struct vmbus_modify modify = { { VMBUS_MODIFY_CHANNEL, 0 }, 1, 0 };

	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		bus_event(fake.bus, VMBUS_CONNECTION_CHANNEL + 1, 0);
		modify.vp_index ^= 1;
		fake_message(&fake, &modify, sizeof(modify));
		pthread_mutex_lock(&fake.lock);
		bus_messages_taken(fake.bus);
		pthread_mutex_unlock(&fake.lock);
		usleep(50);
	}
	return unused;
}

static int ready(void *unused)
{
	(void)unused;
	return 0;
}
static void *disk_process(void *service)
{
	if (block_serve(service, ready, NULL))
		fail("serving");
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 300;
	char path[] = "/tmp/umbra-bus-XXXXXX";
	struct disk *disks[2];
	struct disk_error error;
	pthread_t threads[4];
	int end[2];
	int fd = mkstemp(path);
	struct block_service service;
	const struct disk_queue_options queue = { .depth = BLOCK_SLOTS };
	struct disk_ring *rings[2] = { NULL };

	seed = argc > 2 ? (uint32_t)atoi(argv[2]) : 1;
	if (fd < 0 || ftruncate(fd, FAKE_SECTORS * 512) || pipe(end) ||
	    disk_open(path, &(struct disk_options){ .format = DISK_RAW, .write = true }, &disks[0],
		      &error))
		fail("a disk");
	if (disk_ring_create(&queue, &rings[0]) || disk_ring_create(&queue, &rings[1]))
		fail("a ring");
	disks[1] = disks[0];
	fake_create(&fake, 100000);
	service = (struct block_service){ .layers_fd = -1, .memory = fake.disks,
					  .disks = disks,
					  .rings = rings,
					  .count = 2,
					  .doorbell_fd = fake.client.doorbell_fd,
					  .answer_fd = fake.client.answer_fd,
					  .end_fd = end[0] };
	pthread_create(&threads[0], NULL, disk_process, &service);
	pthread_create(&threads[1], NULL, devices, NULL);
	open_channel();
	pthread_create(&threads[2], NULL, other_processor, NULL);
	pthread_create(&threads[3], NULL, halted_processor, NULL);
	for (unsigned n = 0; n < rounds; n++) {
		round_of_requests();
		if (n % 16 == 15)
			close_and_open();
	}
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	slot_wake(&fake.client);
	pthread_join(threads[1], NULL);
	pthread_join(threads[2], NULL);
	pthread_join(threads[3], NULL);
	close(end[1]);
	pthread_join(threads[0], NULL);
	if (disk_close(disks[0]))
		fail("closing");
	unlink(path);
	fake_destroy(&fake);
	printf("%u rounds of %u requests\n", rounds, AREAS);
	return 0;
}
