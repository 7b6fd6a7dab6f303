/*
 * What a hub and a server say to the proxy of a served disk, in any order: answers to slots, which
 * may be none of its, words beside the queue, and messages; while its guest asks for more.
 */
#include "../bus/fake_guest.h"

#include "abi/share_disk.h"
#include "device/share/disk_proxy.h"
#include "device/share/lender.h"
#include "fuzz.h"
#include "port.h"

enum { RELID = FAKE_CHANNELS + 1, RING_BYTES = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES };
enum { STEP_BYTES = 8, MESSAGE_BYTES = 64 };
enum step { STEP_PEER, STEP_HUB, STEP_REPLY, STEP_MESSAGE, STEP_GUEST, STEP_ANSWER, STEPS };

struct bench {
	struct fake fake;
	struct share_memory *memory;
	struct port_window window;
	struct slot_client client;
	struct lender *lender;
	struct disk_proxy *proxy;
	uint32_t written, replies;
};

static void changed(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	(void)bytes;
}

static void put(struct bench *bench, const struct vstor_packet *request, uint32_t data_bytes)
{
	uint8_t *ring = bench->fake.memory.ram + FAKE_RINGS_GPA + (RELID - 1) * FAKE_STRIDE;
	uint8_t packet[512];
	const uint32_t bytes =
		fake_packet(packet, ++bench->fake.now, request, 0x90, 0, data_bytes);

	for (uint32_t n = 0; n < bytes; n++)
		(ring + GUEST_PAGE_BYTES)[(bench->written + n) % RING_BYTES] = packet[n];
	bench->written = (bench->written + bytes) % RING_BYTES;
	memcpy(ring + RING_WRITE_INDEX, &bench->written, sizeof(bench->written));
	bus_event(bench->fake.bus, VMBUS_CONNECTION_CHANNEL + RELID, 0);
	bus_run(bench->fake.bus);
}

static void transfer(struct bench *bench, uint8_t operation, uint8_t sector)
{
	struct vstor_packet packet = {
		.operation = VSTOR_EXECUTE,
		.body.srb = { .cdb_bytes = 10, .direction = SRB_DIRECTION_READ,
			      .data_bytes = 512 },
	};

	packet.body.srb.cdb_or_sense[0] = operation;
	packet.body.srb.cdb_or_sense[5] = sector;
	packet.body.srb.cdb_or_sense[8] = 1;
	put(bench, &packet, 512);
}

static void make(struct bench *bench)
{
	*bench = (struct bench){ .written = 0 };
	fake_create(&bench->fake, 1000000000);
	bench->memory = port_memory(&bench->client);
	bench->memory->class = SHARE_CLASS_DISK;
	bench->lender = lender_create(&bench->fake.memory, changed, NULL);
	if (!port_window_make(&bench->window, -1))
		abort();
	bench->proxy = disk_proxy_create(bench->fake.bus, 0, bench->memory, &bench->window,
					 &bench->client, &bench->client, bench->lender);
	bench->window.is_shared = true; /* its own, and no joiner takes it away */
	fake_contact(&bench->fake);
	fake_open(&bench->fake, RELID);
	put(bench, &(struct vstor_packet){ .operation = VSTOR_BEGIN }, 0);
	put(bench, &(struct vstor_packet){ .operation = VSTOR_QUERY_VERSION,
					   .body.version.version = VSTOR_6_2 }, 0);
	put(bench, &(struct vstor_packet){ .operation = VSTOR_END }, 0);
}

static void destroy(struct bench *bench)
{
	fake_destroy(&bench->fake);
	disk_proxy_destroy(bench->proxy);
	lender_destroy(bench->lender);
	munmap(bench->window.memory, sizeof(*bench->window.memory));
	munmap(bench->memory, sizeof(*bench->memory));
	close(bench->client.doorbell_fd);
	close(bench->client.answer_fd);
}

static void reply(struct bench *bench, uint32_t slot, int32_t result)
{
	struct slot_replies *replies = &bench->memory->queue.replies;

	replies->entry[replies->written % SLOTS_MAX] =
		(struct slot_reply){ .slot = slot, .result = result };
	replies->written++;
}

/* Into this slot, as a server says it; its data follow the step. */
static void say(struct bench *bench, const uint8_t *step, const uint8_t *message, size_t bytes)
{
	const uint32_t slot = step[1] % SHARE_RECEIVE_SLOTS;
	struct share_packet packet = { .epoch = 1, .bytes = (uint32_t)bytes, .kind = step[2] % 8 };

	if (step[2] & 0x80)
		packet.bytes = UINT32_MAX - step[3];
	memcpy(bench->memory->data[slot], &packet, sizeof(packet));
	memcpy(bench->memory->data[slot] + sizeof(packet), message, bytes);
	reply(bench, slot, (int32_t)(sizeof(packet) + bytes));
}

static size_t take_step(struct bench *bench, const uint8_t *step, size_t left)
{
	const size_t most = left < MESSAGE_BYTES ? left : MESSAGE_BYTES;
	const size_t bytes = step[6] < most ? step[6] : most;
	uint16_t word;

	memcpy(&word, step + 4, sizeof(word));
	switch (step[0] % STEPS) {
	case STEP_PEER: bench->memory->peer_is_there = step[1]; break;
	case STEP_HUB: bench->memory->generation += step[1] % 3; break;
	case STEP_REPLY: reply(bench, word, (int8_t)step[1]); break;
	case STEP_ANSWER:
		for (uint32_t n = 0; n < step[1] % 8u; n++)
			reply(bench, SHARE_RECEIVE_SLOTS + (step[2] + n) % SHARE_SEND_SLOTS, 0);
		break;
	case STEP_GUEST: transfer(bench, step[1] & 1 ? 0x2a : 0x28, step[2]); break;
	default: say(bench, step, step + STEP_BYTES, bytes); break;
	}
	disk_proxy_collect(bench->proxy);
	return step[0] % STEPS == STEP_MESSAGE ? bytes : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct bench bench;
	size_t at = 0;

	make(&bench);
	bench.memory->generation = 1;
	disk_proxy_collect(bench.proxy);
	while (bytes - at >= STEP_BYTES) {
		at += STEP_BYTES + take_step(&bench, data + at, bytes - at - STEP_BYTES);
		fuzz_message();
	}
	check_disk_proxy(bench.proxy);
	destroy(&bench);
	return 0;
}

static size_t put_step(uint8_t *to, enum step step, uint8_t first, uint8_t second)
{
	memset(to, 0, STEP_BYTES);
	to[0] = (uint8_t)step;
	to[1] = first;
	to[2] = second;
	return STEP_BYTES;
}

static size_t put_message(uint8_t *to, uint8_t slot, const void *message, size_t bytes)
{
	put_step(to, STEP_MESSAGE, slot, SHARE_PACKET_DATA);
	to[6] = (uint8_t)bytes;
	memcpy(to + STEP_BYTES, message, bytes);
	return STEP_BYTES + bytes;
}

/* Slots are given out from the first one on: what is asked first is in the first. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const struct share_disk_welcome welcome = { .kind = SHARE_DISK_WELCOME,
						    .version = SHARE_DISK_1_1, .round = 1,
						    .size_bytes = 1 << 20, .sector_bytes = 512,
						    .physical_bytes = 512 };
	size_t used = put_step(data, STEP_PEER, 1, 0);

	used += put_step(data + used, STEP_ANSWER, 1, 0);
	used += put_message(data + used, 0, &welcome, sizeof(welcome));
	for (unsigned k = 1; k < 2 + n % 4; k++) {
		const struct share_disk_done done = { .kind = SHARE_DISK_DONE, .number = k };

		used += put_step(data + used, STEP_GUEST, (uint8_t)k, (uint8_t)k);
		used += put_message(data + used, (uint8_t)k, &done, sizeof(done));
	}
	if (n & 4)
		used += put_step(data + used, STEP_HUB, 1, 0);
	if (n & 8)
		used += put_step(data + used, STEP_PEER, 0, 0);
	return used;
}
