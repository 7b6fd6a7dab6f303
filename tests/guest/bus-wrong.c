/*
 * Every wrong act of tests/guest/bus-wrong on a freshly opened storage channel, each in a file of
 * its own: its outcome, and that a channel works afterwards.
 */
#include "bus-wrong.h"

extern const struct wrong_act *const __start_acts[], *const __stop_acts[];

struct channel ch;
struct vmbus_offer offered;
uint8_t *scratch;

static void copy(void *to, const void *from, uint32_t bytes)
{
	for (uint32_t n = 0; n < bytes; n++)
		((uint8_t *)to)[n] = ((const uint8_t *)from)[n];
}

static bool answers(void)
{
	static const uint8_t ready[16];
	struct vstor_packet packet = {
		.operation = VSTOR_EXECUTE,
		.flags = 1,
		.body.srb = { .bytes = 0x34, .cdb_bytes = 6, .direction = SRB_DIRECTION_NONE }
	};
	struct vmbus_packet head;

	copy(packet.body.srb.cdb_or_sense, ready, 16);
	channel_put(&ch, PACKET_INBAND, &packet, sizeof(packet), NULL, 0);
	for (uint64_t until = rdtsc() + 60000000;
	     *ring_word(ch.receive, RING_WRITE_INDEX) == ch.read;)
		if (rdtsc() > until)
			return false;
	return channel_get(&ch, &head, &packet, sizeof(packet)) &&
	       packet.body.srb.srb_status == SRB_SUCCESS && head.transaction == ch.transaction;
}

uint64_t after(void) { return answers() ? ANSWERED : BROKEN; }

uint64_t after_message(const void *payload, uint32_t bytes)
{
	bus_post_on(VMBUS_CONNECTION, payload, bytes);
	return bus_is_quiet() ? QUIET : ANSWERED;
}

uint64_t answer_outcome(const void *answer, bool good)
{
	if (!answer)
		return QUIET;
	return good ? MADE : REFUSED;
}

uint64_t gpadl_outcome(const struct vmbus_gpadl_header *header, uint32_t gfns)
{
	struct {
		struct vmbus_gpadl_header header;
		uint64_t gfn[20];
	} __attribute__((packed)) message = { .header = *header };
	const struct vmbus_gpadl_created *created;

	for (uint32_t n = 0; n < gfns; n++)
		message.gfn[n] = gpa(scratch) / PAGE_BYTES + n;
	bus_post_on(VMBUS_CONNECTION, &message, sizeof(message.header) + 8 * gfns);
	created = bus_expect(VMBUS_GPADL_CREATED);
	return answer_outcome(created, created && !created->status);
}

uint64_t open_outcome(uint32_t relid, uint32_t gpadl, uint32_t vp_index, uint32_t host_ring_page)
{
	const struct vmbus_open request = { .head.kind = VMBUS_OPEN,
					    .relid = relid,
					    .open_id = 3,
					    .gpadl = gpadl,
					    .vp_index = vp_index,
					    .host_ring_page = host_ring_page };
	const struct vmbus_open_result *result;

	bus_post_on(VMBUS_CONNECTION, &request, sizeof(request));
	result = bus_expect(VMBUS_OPEN_RESULT);
	return answer_outcome(result, result && !result->status);
}

void closed_with_gpadl(uint32_t pages)
{
	channel_close(&ch);
	if (bus_gpadl(5, ch.relid, scratch, pages))
		check("a GPADL to open with", false);
}

uint64_t packet_outcome(uint16_t type, uint16_t data_units, uint16_t units, uint32_t written_bytes)
{
	static _Alignas(8) uint8_t packet[8192];
	const struct vmbus_packet head = { .type = type,
					   .data_units = data_units,
					   .units = units,
					   .flags = PACKET_WANTS_COMPLETION,
					   .transaction = 5 };

	copy(packet, &head, sizeof(head));
	channel_put_raw(&ch, packet, written_bytes);
	return after();
}

uint64_t ranges_outcome(const void *ranges, uint32_t bytes)
{
	static _Alignas(8) uint8_t packet[1024];
	const struct vstor_packet request = {
		.operation = VSTOR_EXECUTE,
		.flags = 1,
		.body.srb = { .bytes = 0x34, .cdb_bytes = 6, .direction = SRB_DIRECTION_NONE }
	};
	const struct vmbus_packet head = { .type = PACKET_GPA_DIRECT,
					   .data_units = (uint16_t)((16 + bytes) / 8),
					   .units = (uint16_t)((16 + bytes + sizeof(request)) / 8),
					   .flags = PACKET_WANTS_COMPLETION,
					   .transaction = 5 };

	copy(packet, &head, sizeof(head));
	copy(packet + 16, ranges, bytes);
	copy(packet + 16 + bytes, &request, sizeof(request));
	channel_put_raw(&ch, packet, 8u * head.units + 8);
	return after();
}

uint64_t read_into(const uint64_t *gfns, uint32_t count, uint32_t offset, uint32_t bytes)
{
	static _Alignas(8) uint8_t packet[1024];
	struct vstor_packet request = { .operation = VSTOR_EXECUTE,
					.flags = 1,
					.body.srb = { .bytes = 0x34,
						      .cdb_bytes = 16,
						      .direction = SRB_DIRECTION_READ,
						      .data_bytes = bytes } };
	const uint16_t data = (uint16_t)(4 + count);
	const struct vmbus_packet head = { .type = PACKET_GPA_DIRECT,
					   .data_units = data,
					   .units = (uint16_t)(data + sizeof(request) / 8),
					   .flags = PACKET_WANTS_COMPLETION,
					   .transaction = ++ch.transaction };
	const uint32_t range[4] = { 0, 1, bytes, offset };
	struct vmbus_packet back;

	request.body.srb.cdb_or_sense[0] = 0x88;
	request.body.srb.cdb_or_sense[13] = (uint8_t)(bytes / 512);
	copy(packet, &head, sizeof(head));
	copy(packet + 16, range, sizeof(range));
	copy(packet + 32, gfns, 8 * count);
	copy(packet + 8 * data, &request, sizeof(request));
	channel_put_raw(&ch, packet, 8u * head.units + 8);
	return channel_get(&ch, &back, &request, sizeof(request)) ? request.body.srb.srb_status
								  : BROKEN;
}

/*
 * head { u16 type, u16 bytes, u32 transaction }, then words; the answer to a version is one word
 * with bit 0.
 */
static bool version_is_answered(void)
{
	uint64_t message[2] = { 1 | 16 << 16 | 7ull << 32, 0x20000 };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, message, sizeof(message), NULL, 0);
	for (uint64_t until = rdtsc() + 100000000;
	     *ring_word(ch.receive, RING_WRITE_INDEX) == ch.read;)
		if (rdtsc() > until)
			return false;
	return channel_get(&ch, &head, message, sizeof(message)) && (message[0] & 0xffff) == 2 &&
	       message[0] >> 32 == 7 && message[1] == 1;
}

uint64_t memory_outcome(uint16_t type, const uint64_t *words, uint32_t count)
{
	uint64_t message[40] = { type | (uint64_t)(8 + 8 * count) << 16 };

	if (!bus_contact(VMBUS_5_3) || bus_offers(OFFER_MEMORY, &offered) != BUS_OFFERS ||
	    channel_open(&ch, &offered, 77) || !version_is_answered())
		return REFUSED;
	copy(message + 1, words, 8 * count);
	channel_put(&ch, PACKET_INBAND, message, 8 + 8 * count, NULL, 0);
	return version_is_answered() ? ANSWERED : BROKEN;
}

/* ---- components of integration ---- */

/* The pipe's words, then a head (src/device/ic/ic_frame.c). */
struct component_head {
	uint32_t pipe_flags, pipe_bytes;
	uint16_t framework[2], type, message[2], bytes;
	uint32_t status;
	uint8_t transaction, flags;
	uint16_t reserved;
} __attribute__((packed));
enum { COMPONENT_BYTES = 8192, COMPONENT_ANSWERS = 5, COMPONENT_ASKS = 3 };
/* For one that says nothing; and for one that is to speak, however busy the host is. */
enum { COMPONENT_SHORT_WAIT = 60000000 };
#define COMPONENT_LONG_WAIT 100000000000ull

static _Alignas(8) uint8_t heard[COMPONENT_BYTES], said[COMPONENT_BYTES];
static uint64_t wanted; /* of the act that runs: for what is to come it waits long */

static bool component_hear(uint64_t wait)
{
	struct vmbus_packet head;

	for (uint64_t until = rdtsc() + wait;
	     *ring_word(ch.receive, RING_WRITE_INDEX) == ch.read;)
		if (rdtsc() > until)
			return false;
	return channel_get(&ch, &head, heard, sizeof(heard));
}

static void component_must(const char *what, bool good)
{
	if (good)
		return;
	check(what, false);
	finish();
}

uint8_t *const device_answer = heard;

void device_open(uint32_t offer)
{
	component_must("contact", bus_contact(VMBUS_5_3));
	component_must("the offers", bus_offers(offer, &offered) == BUS_OFFERS);
	component_must("a channel", !channel_open(&ch, &offered, 77));
}

uint64_t device_outcome(const void *payload, uint32_t bytes)
{
	channel_put(&ch, PACKET_INBAND, payload, bytes, NULL, 0);
	if (component_hear(wanted == ANSWERED ? COMPONENT_LONG_WAIT : COMPONENT_SHORT_WAIT))
		return ANSWERED;
	return *ring_word(ch.send, RING_READ_INDEX) == ch.written ? QUIET : BROKEN;
}

uint64_t video_outcome(uint32_t kind, const void *body, uint32_t bytes)
{
	const uint32_t head[4] = { 1, 8 + bytes, kind, 8 + bytes };

	copy(said, head, sizeof(head));
	copy(said + sizeof(head), body, bytes);
	return device_outcome(said, (uint32_t)sizeof(head) + bytes);
}

void component_open(uint32_t offer)
{
	device_open(offer);
	component_must("versions", component_hear(COMPONENT_LONG_WAIT));
}

void component_answer(const struct component_answer *answer, const void *data, uint32_t bytes)
{
	struct component_head head;

	copy(&head, heard, sizeof(head));
	head.type = answer->type;
	head.bytes = (uint16_t)bytes;
	head.status = answer->status;
	head.transaction = (uint8_t)(head.transaction + answer->other_number);
	head.flags = answer->is_question ? COMPONENT_ASKS : COMPONENT_ANSWERS;
	copy(said, &head, sizeof(head));
	copy(said + sizeof(head), data, bytes);
	channel_put(&ch, PACKET_INBAND, said, (uint32_t)sizeof(head) + bytes, NULL, 0);
}

void component_agree(void)
{
	static const uint16_t versions[8] = { 1, 1, 0, 0, 3, 0, 4, 0 };

	component_answer(&(struct component_answer){ .type = 0 }, versions, sizeof(versions));
	component_must("a question", component_hear(COMPONENT_LONG_WAIT));
}

/* Of a channel that is broken nothing is taken any more. */
static bool component_takes(void)
{
	const struct component_answer nothing = { .type = 99 };

	component_answer(&nothing, NULL, 0);
	for (uint64_t until = rdtsc() +
			      (wanted == BROKEN ? COMPONENT_SHORT_WAIT : COMPONENT_LONG_WAIT);
	     *ring_word(ch.send, RING_READ_INDEX) != ch.written;)
		if (rdtsc() > until)
			return false;
	return true;
}

uint64_t component_outcome(void)
{
	if (component_hear(COMPONENT_SHORT_WAIT))
		return ANSWERED;
	return component_takes() ? QUIET : BROKEN;
}

uint64_t component_questions(const void *data, uint32_t bytes)
{
	const struct component_answer answer = { .type = 2 };
	uint64_t questions = 1;

	component_agree();
	do {
		component_answer(&answer, data, bytes);
		questions++;
	} while (component_hear(questions <= wanted ? COMPONENT_LONG_WAIT : COMPONENT_SHORT_WAIT) &&
		 questions < 1000);
	return questions - 1;
}

uint64_t command_outcome(const uint8_t *cdb, uint8_t cdb_bytes, uint8_t direction, uint32_t bytes)
{
	struct vstor_srb srb;

	if (!storage_command(&ch, 0, cdb, cdb_bytes, direction, scratch, bytes, &srb))
		return ~0ull;
	return srb.srb_status | (srb.scsi_status ? (uint64_t)srb.cdb_or_sense[2] << 8 : 0);
}

void test_main(void)
{
	hv_open();
	bus_prepare();
	scratch = new_pages(16);
	for (const struct wrong_act *const *at = __start_acts; at < __stop_acts; at++) {
		storage_open(&ch);
		wanted = (*at)->want;
		check_act((*at)->name, (*at)->run(), (*at)->want);
		while (!bus_is_quiet())
			bus_receive();
	}
	storage_open(&ch);
	check("the machine is well", answers());
}
