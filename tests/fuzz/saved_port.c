/*
 * Ports of saved machines: the first byte says which, a channel of packets or a served disk's
 * proxy, and whether somebody is at its port. What loads goes on as a machine's does, with a hub
 * and whoever serves; and is saved again, which has to load, and to be the same bytes then.
 */
#include "../bus/fake_guest.h"

#include "abi/share.h"
#include "abi/share_disk.h"
#include "device/share/disk_proxy.h"
#include "device/share/lender.h"
#include "device/share/share_device.h"
#include "fuzz.h"
#include "lib/archive.h"
#include "port.h"

enum { RELID = FAKE_CHANNELS + 1, RING_BYTES = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES };
enum { KIND_DISK = 1, KIND_OFFLINE = 2, SECTOR = 512, DISK_BYTES = 1 << 20, DATA_GFN = 0x90 };

struct bench {
	struct fake fake;
	struct share_memory *memory;
	struct port_window window;
	struct slot_client client;
	struct lender *lender;
	struct disk_proxy *proxy; /* NULL: a channel */
	struct share *share;
	uint32_t written, replies;
	uint64_t number;
};

static void changed(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	(void)bytes;
}

/* ---- the guest ---- */

static void put_packet(struct bench *bench, const uint8_t *packet, uint32_t bytes)
{
	uint8_t *ring = bench->fake.memory.ram + FAKE_RINGS_GPA + (RELID - 1) * FAKE_STRIDE;

	for (uint32_t n = 0; n < bytes; n++)
		(ring + GUEST_PAGE_BYTES)[(bench->written + n) % RING_BYTES] = packet[n];
	bench->written = (bench->written + bytes) % RING_BYTES;
	memcpy(ring + RING_WRITE_INDEX, &bench->written, sizeof(bench->written));
	bus_event(bench->fake.bus, VMBUS_CONNECTION_CHANNEL + RELID, 0);
	bus_run(bench->fake.bus);
}

static void put(struct bench *bench, const struct vstor_packet *request, uint32_t data_bytes)
{
	uint8_t packet[512];

	put_packet(bench, packet,
		   fake_packet(packet, ++bench->fake.now, request, DATA_GFN, 0, data_bytes));
}

static void put_message(struct bench *bench, const void *message, uint32_t bytes)
{
	uint8_t packet[256] = { 0 };
	const struct vmbus_packet head = { .type = PACKET_INBAND,
					   .data_units = 2,
					   .units = (uint16_t)(2 + (bytes + 7) / 8),
					   .flags = PACKET_WANTS_COMPLETION,
					   .transaction = ++bench->fake.now };

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + sizeof(head), message, bytes);
	put_packet(bench, packet, 8u * head.units + PACKET_FOOTER_BYTES);
}

static void transfer(struct bench *bench, uint8_t operation, uint8_t sector)
{
	struct vstor_packet packet = {
		.operation = VSTOR_EXECUTE,
		.body.srb = { .cdb_bytes = 10, .direction = SRB_DIRECTION_READ,
			      .data_bytes = SECTOR },
	};

	packet.body.srb.cdb_or_sense[0] = operation;
	packet.body.srb.cdb_or_sense[1] = operation == 0x2a ? 8 : 0; /* and a flush behind it */
	packet.body.srb.cdb_or_sense[5] = sector;
	packet.body.srb.cdb_or_sense[8] = 1;
	put(bench, &packet, SECTOR);
}

/* ---- the machine ---- */

static void collect(struct bench *bench)
{
	if (bench->proxy)
		disk_proxy_collect(bench->proxy);
	else
		share_collect(bench->share);
}

static void make(struct bench *bench, uint8_t kind)
{
	const bool is_disk = kind & KIND_DISK;

	*bench = (struct bench){ .written = 0 };
	fake_create(&bench->fake, 1000000000);
	bench->memory = port_memory(&bench->client);
	bench->memory->side = kind & KIND_OFFLINE ? 0 : SHARE_SIDE_BINDS;
	bench->memory->epoch = 77;
	bench->lender = lender_create(&bench->fake.memory, changed, NULL);
	if (!port_window_make(&bench->window, -1))
		abort();
	if (is_disk)
		bench->proxy = disk_proxy_create(bench->fake.bus, 0, bench->memory, &bench->window,
						 &bench->client, &bench->client, bench->lender);
	else
		bench->share = share_create(bench->fake.bus, 0,
					    share_port_kind(SHARE_SIDE_BINDS, SHARE_CLASS_PACKET),
					    bench->memory, &bench->window, &bench->client,
					    bench->lender);
	bench->window.is_shared = true; /* its own, and no joiner takes it away */
	fake_contact(&bench->fake);
	fake_open(&bench->fake, RELID);
}

static void destroy(struct bench *bench)
{
	fake_destroy(&bench->fake);
	if (bench->proxy)
		disk_proxy_destroy(bench->proxy);
	if (bench->share)
		share_destroy(bench->share);
	lender_destroy(bench->lender);
	for (unsigned n = 0; n < WINDOW_OTHERS; n++)
		munmap(bench->window.place[n].at, bench->window.place[n].bytes);
	munmap(bench->memory, sizeof(*bench->memory));
	close(bench->client.doorbell_fd);
	close(bench->client.answer_fd);
}

static void archive(struct bench *bench, struct archive *archive)
{
	if (!archive->loading && bench->proxy)
		disk_proxy_stand(bench->proxy);
	if (bench->proxy)
		disk_proxy_archive(archive, bench->proxy);
	else
		share_archive(archive, bench->share);
}

/* ---- the hub, and whoever serves ---- */

static void reply(struct bench *bench, uint32_t slot, int32_t result)
{
	struct slot_replies *replies = &bench->memory->queue.replies;

	replies->entry[replies->written % SLOTS_MAX] =
		(struct slot_reply){ .slot = slot, .result = result };
	replies->written++;
}

/* All that it has asked of the hub was done: the last SHARE_SEND_SLOTS of them, twice is none. */
static void answer_all(struct bench *bench)
{
	for (uint32_t n = 0; n < bench->client.submitted && n < SLOTS_MAX; n++) {
		const struct slot_request *request = &bench->memory->queue.requests.entry[n];

		if (request->slot >= SHARE_RECEIVE_SLOTS && bench->replies <= n) {
			reply(bench, request->slot, 0);
			bench->replies = n + 1;
		}
	}
	collect(bench);
}

static void say(struct bench *bench, const void *message, size_t bytes)
{
	const uint32_t slot = (uint32_t)bench->number % SHARE_RECEIVE_SLOTS;
	const struct share_packet packet = { .epoch = 1, .number = ++bench->number,
					     .bytes = (uint32_t)bytes };

	memcpy(bench->memory->data[slot], &packet, sizeof(packet));
	memcpy(bench->memory->data[slot] + sizeof(packet), message, bytes);
	reply(bench, slot, (int32_t)(sizeof(packet) + bytes));
	collect(bench);
}

static void come(struct bench *bench)
{
	bench->memory->generation = 1;
	collect(bench);
	bench->memory->peer_is_there = 5;
	collect(bench);
	answer_all(bench);
}

static void welcome(struct bench *bench, uint32_t round)
{
	const struct share_disk_welcome said = { .kind = SHARE_DISK_WELCOME,
						 .version = SHARE_DISK_1_1, .round = round,
						 .size_bytes = DISK_BYTES, .sector_bytes = SECTOR,
						 .physical_bytes = SECTOR };

	say(bench, &said, sizeof(said));
	answer_all(bench);
}

static void done(struct bench *bench, uint64_t number)
{
	const struct share_disk_done said = { .kind = SHARE_DISK_DONE, .number = number };

	say(bench, &said, sizeof(said));
	answer_all(bench);
}

/* As a machine goes on that was restored. */
static void use(struct bench *bench)
{
	if (bench->proxy)
		disk_proxy_restored(bench->proxy);
	else
		share_go_on(bench->share);
	collect(bench);
	if (bench->memory->side)
		come(bench);
	for (uint32_t round = 1; bench->proxy && round < 4; round++) {
		welcome(bench, round);
		for (uint64_t number = 0; number < 8; number++)
			done(bench, number);
		transfer(bench, 0x28, (uint8_t)round);
	}
	bus_run(bench->fake.bus);
	if (bench->proxy)
		check_disk_proxy(bench->proxy);
	else
		check_share(bench->share);
}

/* Into a new machine. Whether it loads; and if it does, what it is when it is saved at once. */
static bool load(struct bench *bench, uint8_t kind, const uint8_t *data, size_t bytes,
		 uint8_t *again, size_t *ret_bytes)
{
	struct archive from = archive_load_from(data, bytes);
	struct archive to = archive_save_to(again, 8 * FUZZ_MAX_BYTES);

	make(bench, kind);
	archive(bench, &from);
	archive_check_end(&from);
	if (from.error)
		return false;
	archive(bench, &to);
	if (to.error)
		abort();
	*ret_bytes = to.used;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static uint8_t first[8 * FUZZ_MAX_BYTES], second[8 * FUZZ_MAX_BYTES];
	static struct bench bench;
	size_t first_bytes = 0;
	size_t second_bytes = 0;
	/* of just that length, so that a read behind it is noticed */
	uint8_t *exact = malloc(bytes);
	bool good;

	if (!bytes) {
		free(exact);
		return 0;
	}
	memcpy(exact, data + 1, bytes - 1);
	fuzz_message();
	good = load(&bench, data[0], exact, bytes - 1, first, &first_bytes);
	if (good)
		use(&bench);
	destroy(&bench);
	free(exact);
	if (!good)
		return 0;
	good = load(&bench, data[0], first, first_bytes, second, &second_bytes);
	destroy(&bench);
	if (!good || first_bytes != second_bytes || memcmp(first, second, first_bytes))
		abort();
	return 0;
}

/* ---- seeds: a machine that has run for a while ---- */

static void live_disk(struct bench *bench, unsigned n)
{
	put(bench, &(struct vstor_packet){ .operation = VSTOR_BEGIN }, 0);
	put(bench, &(struct vstor_packet){ .operation = VSTOR_QUERY_VERSION,
					   .body.version.version = VSTOR_6_2 }, 0);
	put(bench, &(struct vstor_packet){ .operation = VSTOR_END }, 0);
	if (n & 4)
		transfer(bench, 0x28, 3); /* which waits until somebody serves */
	if (n & 8)
		return;
	welcome(bench, 1);
	for (uint8_t k = 0; k < n / 16 % 4; k++)
		transfer(bench, k & 1 ? 0x28 : 0x2a, k);
	if (n & 64)
		done(bench, 1);
	if (n & 128)
		disk_proxy_forked(bench->proxy);
}

static void live_channel(struct bench *bench, unsigned n)
{
	const struct share_version version = { .head.kind = SHARE_VERSION, .least = SHARE_1_0,
					       .most = SHARE_1_2 };
	struct { struct share_data head; uint64_t word; } data = {
		.head = { .head.kind = SHARE_DATA, .bytes = 8 }
	};

	if (n & 4)
		put_message(bench, &version, sizeof(version));
	for (unsigned k = 0; k < n / 8 % 8 && n & 4; k++)
		put_message(bench, &data, sizeof(data));
	if (n & 64)
		answer_all(bench);
	collect(bench);
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static struct bench bench;
	struct archive to = archive_save_to(data + 1, FUZZ_MAX_BYTES - 1);

	make(&bench, (uint8_t)(n & KIND_DISK));
	come(&bench);
	if (bench.proxy)
		live_disk(&bench, n);
	else
		live_channel(&bench, n);
	archive(&bench, &to);
	destroy(&bench);
	data[0] = (uint8_t)(n & (KIND_DISK | KIND_OFFLINE));
	return to.used + 1;
}
