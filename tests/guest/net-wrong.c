/*
 * Every wrong act of tests/guest/net-wrong on a network card that was freshly set up, each in a
 * file of its own: its outcome, and that the card works afterwards.
 */
#include "net-wrong.h"

enum {
	OFFER_NETWORK = 0xf8615163, OFFERS = BUS_OFFERS + 1, RING_GPADL = 77, CONTROL_ID = 9,
	FRAME_BYTES = 60, DEFAULT_DATA_AT = 36, INFO_AT = 36, RECEIVE_SECTION = 68 << 10
};
/* For a broken channel, which says nothing; and for one that works, however busy the host is. */
enum { SHORT_WAIT = 30000000 };
#define LONG_WAIT 100000000000ull

extern const struct wrong_act *const __start_acts[], *const __stop_acts[];

struct channel net;
static struct vmbus_offer offered;
static uint8_t *send_buffer, *receive_buffer;
static uint64_t patience;

static void copy(void *to, const void *from, uint32_t bytes)
{
	for (uint32_t n = 0; n < bytes; n++)
		((uint8_t *)to)[n] = ((const uint8_t *)from)[n];
}

static void clear(void *to, uint32_t bytes)
{
	for (uint32_t n = 0; n < bytes; n++)
		((uint8_t *)to)[n] = 0;
}

/* ---- packets ---- */

/* The next packet, within our patience. */
static bool hear(struct vmbus_packet *head, struct nvsp_message *message)
{
	for (uint64_t until = rdtsc() + patience;
	     *ring_word(net.receive, RING_WRITE_INDEX) == net.read;)
		if (rdtsc() > until)
			return false;
	return channel_get(&net, head, message, sizeof(*message));
}

static uint64_t status_of(const struct nvsp_message *message)
{
	return message->kind == NVSP_INIT_COMPLETE ? message->init_complete.status
						   : message->word[0];
}

uint64_t nvsp_packet(uint16_t type, const struct nvsp_message *message, uint32_t bytes)
{
	struct vmbus_packet head;
	struct nvsp_message answer;

	channel_put(&net, type, message, bytes, NULL, 0);
	while (hear(&head, &answer))
		if (head.type == PACKET_COMPLETION && head.transaction == net.transaction)
			return status_of(&answer);
	return CHANNEL_BROKEN;
}

uint64_t nvsp_outcome(const struct nvsp_message *message)
{
	return nvsp_packet(PACKET_INBAND, message, sizeof(*message));
}

uint64_t nvsp_words(uint32_t kind, uint32_t first, uint32_t second)
{
	const struct nvsp_message message = { .kind = kind, .word = { first, second } };

	return nvsp_outcome(&message);
}

uint64_t net_init(uint32_t least, uint32_t most)
{
	return nvsp_words(NVSP_INIT, least, most);
}

/* ---- RNDIS ---- */

static uint64_t section_outcome(uint32_t channel, const void *bytes, uint32_t count)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = channel, .section = 0, .section_bytes = count },
	};

	copy(send_buffer, bytes, count < SECTION_OF_SENDING ? count : SECTION_OF_SENDING);
	return nvsp_outcome(&message);
}

uint64_t data_outcome(const void *message, uint32_t bytes)
{
	return section_outcome(NVSP_CHANNEL_DATA, message, bytes);
}

/* In whichever section of the buffer the host has put it; NULL: in none. */
static const uint32_t *find_answer(void)
{
	for (uint32_t at = 0; at + RECEIVE_SECTION <= BUFFER_PAGES * PAGE_BYTES;
	     at += RECEIVE_SECTION) {
		const uint32_t *words = (const uint32_t *)(const void *)(receive_buffer + at);

		if (words[0] & (uint32_t)RNDIS_ANSWER)
			return words;
	}
	return NULL;
}

void completion_of(uint64_t transaction)
{
	const struct vmbus_packet packet = { .type = PACKET_COMPLETION,
					     .data_units = 2,
					     .units = 2 + NVSP_MESSAGE_6_1_BYTES / 8,
					     .transaction = transaction };
	const struct nvsp_message done = { .kind = NVSP_RNDIS_COMPLETE,
					   .rndis_complete.status = NVSP_SUCCESS };
	uint8_t bytes[sizeof(packet) + sizeof(done) + 8];

	clear(bytes, sizeof(bytes));
	copy(bytes, &packet, sizeof(packet));
	copy(bytes + sizeof(packet), &done, sizeof(done));
	channel_put_raw(&net, bytes, sizeof(bytes));
}

/* Of RESET the status is where the others have their number. */
static uint64_t answer_status(const uint32_t *answer)
{
	return answer[0] == ((uint32_t)RNDIS_ANSWER | RNDIS_RESET) ? answer[2] : answer[3];
}

uint64_t control_outcome(const void *bytes, uint32_t count)
{
	struct vmbus_packet head;
	struct nvsp_message message;
	const uint32_t *answer = NULL;

	for (uint32_t at = 0; at + RECEIVE_SECTION <= BUFFER_PAGES * PAGE_BYTES;
	     at += RECEIVE_SECTION)
		clear(receive_buffer + at, sizeof(struct rndis_initialize_answer));
	if (section_outcome(NVSP_CHANNEL_CONTROL, bytes, count) == CHANNEL_BROKEN)
		return CHANNEL_BROKEN;
	while (!answer && hear(&head, &message)) {
		answer = find_answer();
		completion_of(head.transaction);
	}
	return answer ? answer_status(answer) : CHANNEL_BROKEN;
}

uint64_t request_outcome(uint32_t kind, const struct rndis_request *fields, const void *data,
			 uint32_t bytes)
{
	struct { struct rndis_request request; uint8_t data[512]; } message = {
		.request = *fields
	};

	message.request.head.kind = kind;
	message.request.id = CONTROL_ID;
	if (!message.request.head.bytes)
		message.request.head.bytes = (uint32_t)sizeof(message.request) + bytes;
	copy(message.data, data, bytes);
	return control_outcome(&message, (uint32_t)sizeof(message.request) + bytes);
}

uint64_t frame_outcome(const struct frame_fields *fields)
{
	const uint32_t info_bytes = fields->info.bytes ? 16 : 0;
	struct {
		struct rndis_packet head;
		struct rndis_info info;
		uint32_t value;
		uint8_t data[FRAME_BYTES];
	} message = { .info = fields->info, .value = fields->value };
	const uint32_t data_at = DEFAULT_DATA_AT + 16;

	message.head = (struct rndis_packet){
		.head = { .kind = RNDIS_PACKET, .bytes = fields->bytes },
		.data_offset = fields->data_offset ? fields->data_offset : data_at,
		.data_bytes = fields->data_bytes ? fields->data_bytes : FRAME_BYTES,
		.info_offset = fields->info_offset ? fields->info_offset : INFO_AT,
		.info_bytes = fields->info_bytes ? fields->info_bytes : info_bytes,
	};
	if (!fields->bytes)
		message.head.head.bytes = sizeof(message);
	return data_outcome(&message, sizeof(message));
}

uint64_t scale_outcome(const struct scale_fields *fields)
{
	struct {
		struct ndis_scale_parameters head;
		uint32_t table[2];
		uint8_t key[40];
	} wish = { .head = { .object = { .type = 0x89, .revision = 2, .bytes = sizeof(wish.head) },
			     .hash = 1 | NDIS_HASH_IPV4,
			     .table_bytes = sizeof(wish.table),
			     .table_offset = sizeof(wish.head),
			     .key_bytes = sizeof(wish.key),
			     .key_offset = sizeof(wish.head) + sizeof(wish.table) },
		   .table = { 0, fields->queue } };
	const struct rndis_request request = {
		.oid = OID_SCALE_PARAMETERS,
		.bytes = sizeof(wish),
		.offset = sizeof(struct rndis_request) - sizeof(struct rndis_head),
	};

	wish.head.table_bytes = fields->table_bytes ? fields->table_bytes : wish.head.table_bytes;
	wish.head.table_offset =
		fields->table_offset ? fields->table_offset : wish.head.table_offset;
	wish.head.key_bytes = fields->key_bytes ? fields->key_bytes : wish.head.key_bytes;
	wish.head.key_offset = fields->key_offset ? fields->key_offset : wish.head.key_offset;
	return request_outcome(RNDIS_SET, &request, &wish, sizeof(wish));
}

uint64_t range_outcome(const struct nvsp_message *message, uint64_t gpa, uint32_t bytes)
{
	struct vmbus_packet head;
	struct nvsp_message answer;

	channel_put(&net, PACKET_GPA_DIRECT, message, sizeof(*message),
		    (const void *)(uintptr_t)gpa, bytes);
	return hear(&head, &answer) ? status_of(&answer) : CHANNEL_BROKEN;
}

void net_halt(void)
{
	const struct { struct rndis_head head; uint32_t id; } halt = {
		.head = { .kind = RNDIS_HALT, .bytes = sizeof(halt) },
	};

	section_outcome(NVSP_CHANNEL_CONTROL, &halt, sizeof(halt));
}

/* ---- each time anew ---- */

static void must(const char *what, bool good)
{
	if (good)
		return;
	check(what, false);
	finish();
}

void net_reopen(void)
{
	must("contact", bus_contact(VMBUS_5_3));
	must("the offers", bus_offers(OFFER_NETWORK, &offered) == OFFERS);
	must("a channel", !channel_open(&net, &offered, RING_GPADL));
	must("a buffer to send", !bus_gpadl(SEND_GPADL, offered.relid, send_buffer, BUFFER_PAGES));
	must("and to receive",
	     !bus_gpadl(RECEIVE_GPADL, offered.relid, receive_buffer, BUFFER_PAGES));
}

static void net_open(void)
{
	const struct rndis_initialize begin = {
		.head = { .kind = RNDIS_INITIALIZE, .bytes = sizeof(begin) },
		.id = CONTROL_ID,
		.major = 1,
		.transfer_bytes = 0x4000,
	};

	patience = LONG_WAIT;
	net_reopen();
	must("a version", net_init(NVSP_6_1, NVSP_6_1) == NVSP_SUCCESS);
	must("its buffer to receive",
	     nvsp_words(NVSP_RECEIVE_BUFFER, RECEIVE_GPADL, NVSP_RECEIVE_BUFFER_ID) ==
		     NVSP_SUCCESS);
	must("its buffer to send", nvsp_words(NVSP_SEND_BUFFER, SEND_GPADL, 0) == NVSP_SUCCESS);
	must("its first word", control_outcome(&begin, sizeof(begin)) == RNDIS_SUCCESS);
}

static bool answers(void)
{
	const struct rndis_request request = { .oid = OID_PACKET_FILTER };

	return request_outcome(RNDIS_QUERY, &request, NULL, 0) == RNDIS_SUCCESS;
}

void test_main(void)
{
	hv_open();
	bus_prepare();
	send_buffer = new_pages(BUFFER_PAGES);
	receive_buffer = new_pages(BUFFER_PAGES);
	for (const struct wrong_act *const *at = __start_acts; at < __stop_acts; at++) {
		net_open();
		patience = (*at)->want == CHANNEL_BROKEN ? SHORT_WAIT : LONG_WAIT;
		check_act((*at)->name, (*at)->run(), (*at)->want);
		while (!bus_is_quiet())
			bus_receive();
	}
	net_open();
	check("the card is well", answers());
}
