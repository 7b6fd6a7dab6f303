/* See vmbus.h. */
#include "vmbus.h"

static uint8_t *simp, *siefp;
static uint64_t *post_page;

static void copy(void *to, const void *from, uint32_t bytes)
{
	for (uint32_t n = 0; n < bytes; n++)
		((uint8_t *)to)[n] = ((const uint8_t *)from)[n];
}

void *new_pages(unsigned count)
{
	uint8_t *first = new_page();

	for (unsigned n = 1; n < count; n++)
		if (new_page() != first + PAGE_BYTES * (size_t)n) {
			check("pages follow each other", false);
			finish();
		}
	return first;
}

void bus_prepare(void)
{
	simp = new_page();
	post_page = new_page();
	wrmsr(MSR_SIMP, gpa(simp) | 1);
	siefp = new_page();
	wrmsr(MSR_SIEFP, gpa(siefp) | 1);
	wrmsr(MSR_SINT0 + VMBUS_SINT, BUS_VECTOR);
	wrmsr(MSR_SCONTROL, 1);
}

bool bus_take_event(uint32_t relid)
{
	uint32_t *flags = (uint32_t *)(void *)(siefp + 256 * VMBUS_SINT);
	uint32_t bit = 1u << (relid & 31);

	return __atomic_fetch_and(&flags[relid / 32], ~bit, __ATOMIC_SEQ_CST) & bit;
}

uint64_t bus_post_on(uint32_t connection, const void *payload, uint32_t bytes)
{
	uint32_t head[4] = { connection, 0, VMBUS_MESSAGE_TYPE, bytes };

	copy(post_page, head, sizeof(head));
	copy(post_page + 2, payload, bytes);
	return umbra_call(&hv, 0x5c, gpa(post_page), 0) & 0xffff;
}

static void take_message(struct message *ret)
{
	volatile struct message *slot =
		(volatile struct message *)(void *)(simp + 256 * VMBUS_SINT);

	copy(ret, (const void *)(uintptr_t)slot, sizeof(*ret));
	slot->type = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (slot->flags & 1)
		wrmsr(MSR_EOM, 0);
}

static bool wait_for_message(uint64_t ticks)
{
	volatile uint32_t *type = (volatile uint32_t *)(void *)(simp + 256 * VMBUS_SINT);

	for (uint64_t until = rdtsc() + ticks; !*type;)
		if (rdtsc() > until)
			return false;
	return true;
}

const struct message *bus_receive(void)
{
	static struct message message;

	if (!wait_for_message(3000000000ull))
		return NULL;
	take_message(&message);
	return &message;
}

bool bus_is_quiet(void) { return !wait_for_message(20000000); }

const void *bus_expect(uint32_t kind)
{
	const struct message *message = bus_receive();
	uint32_t got;

	if (!message)
		return NULL;
	copy(&got, message->payload, sizeof(got));
	return got == kind && message->type == VMBUS_MESSAGE_TYPE ? message->payload : NULL;
}

bool bus_contact(uint32_t version)
{
	const struct vmbus_contact contact = { .head.kind = VMBUS_INITIATE_CONTACT,
					       .version = version,
					       .interrupt_page =
						       version >= VMBUS_5_0 ? VMBUS_SINT : 0 };
	const struct vmbus_version_response *response;

	if (bus_post_on(version >= VMBUS_5_0 ? VMBUS_CONNECTION : VMBUS_CONNECTION_OLD, &contact,
			sizeof(contact)))
		return false;
	response = bus_expect(VMBUS_VERSION_RESPONSE);
	return response && response->supported && response->state == 0 &&
	       (version < VMBUS_5_0 || response->connection == VMBUS_CONNECTION);
}

unsigned bus_offers(uint32_t type, struct vmbus_offer *ret)
{
	const struct vmbus_head ask = { .kind = VMBUS_REQUEST_OFFERS };
	unsigned count = 0;

	bus_post_on(VMBUS_CONNECTION, &ask, sizeof(ask));
	for (const struct message *message; (message = bus_receive());) {
		const struct vmbus_offer *offer = (const void *)message->payload;
		uint32_t kind;

		copy(&kind, message->payload, sizeof(kind));
		if (kind != VMBUS_OFFER)
			break;
		count += offer->type.byte[0] != (OFFER_VIDEO & 255);
		if (offer->type.byte[0] == (type & 255))
			copy(ret, message->payload, sizeof(*ret));
	}
	return count;
}

/* One message's worth of page numbers at a time, as many messages as it takes. */
uint32_t bus_gpadl(uint32_t id, uint32_t relid, const void *first, uint32_t pages)
{
	struct { struct vmbus_gpadl_header header; uint64_t gfn[26];
	} __attribute__((packed)) head = { .header = { .head = { VMBUS_GPADL_HEADER, 0 },
						  .relid = relid,
						  .gpadl = id,
						  .range_bytes = (uint16_t)(8 + 8 * pages),
						  .ranges = 1,
						  .bytes = pages * PAGE_BYTES } };
	const struct vmbus_gpadl_created *created;
	uint32_t sent = 0;
	uint32_t number = 0;

	for (; sent < pages && sent < 26; sent++)
		head.gfn[sent] = gpa(first) / PAGE_BYTES + sent;
	bus_post_on(VMBUS_CONNECTION, &head, sizeof(head.header) + 8 * sent);
	while (sent < pages) {
		struct {
			struct vmbus_gpadl_body header;
			uint64_t gfn[28];
		} body = { .header = { { VMBUS_GPADL_BODY, 0 }, number++, id } };
		uint32_t n = 0;

		for (; n < 28 && sent < pages; n++)
			body.gfn[n] = gpa(first) / PAGE_BYTES + sent++;
		bus_post_on(VMBUS_CONNECTION, &body, sizeof(body.header) + 8 * n);
	}
	created = bus_expect(VMBUS_GPADL_CREATED);
	return created && created->gpadl == id && created->relid == relid ? created->status : ~0u;
}

void bus_teardown(uint32_t id, uint32_t relid)
{
	const struct vmbus_gpadl_teardown teardown = { { VMBUS_GPADL_TEARDOWN, 0 }, relid, id };
	const struct vmbus_gpadl_torn_down *torn_down;

	bus_post_on(VMBUS_CONNECTION, &teardown, sizeof(teardown));
	torn_down = bus_expect(VMBUS_GPADL_TORN_DOWN);
	if (!torn_down || torn_down->gpadl != id)
		check("a GPADL is torn down", false);
}

uint32_t channel_open_in(struct channel *channel, const struct vmbus_offer *offer, uint32_t gpadl,
			 uint8_t *pages)
{
	struct vmbus_open request = { .head.kind = VMBUS_OPEN,
				      .relid = offer->relid,
				      .open_id = 7,
				      .gpadl = gpadl,
				      .host_ring_page = CHANNEL_PAGES };
	const struct vmbus_open_result *result;

	for (uint32_t n = 0; n < 2 * CHANNEL_PAGES * PAGE_BYTES; n++)
		pages[n] = 0;
	*channel = (struct channel){ .relid = offer->relid,
				     .connection = offer->connection,
				     .gpadl = gpadl,
				     .send = pages,
				     .receive = pages + CHANNEL_PAGES * PAGE_BYTES,
				     .ring_bytes = (CHANNEL_PAGES - 1) * PAGE_BYTES };
	*ring_word(channel->send, RING_FEATURES) = *ring_word(channel->receive, RING_FEATURES) =
		RING_FEATURE_PENDING;
	if (bus_gpadl(gpadl, offer->relid, pages, 2 * CHANNEL_PAGES))
		return ~0u;
	bus_post_on(VMBUS_CONNECTION, &request, sizeof(request));
	result = bus_expect(VMBUS_OPEN_RESULT);
	return result && result->relid == offer->relid && result->open_id == 7 ? result->status
									       : ~0u;
}

uint32_t channel_open(struct channel *channel, const struct vmbus_offer *offer, uint32_t gpadl)
{
	static uint8_t *pages;

	if (!pages)
		pages = new_pages(2 * CHANNEL_PAGES);
	return channel_open_in(channel, offer, gpadl, pages);
}

void channel_close(struct channel *channel)
{
	const struct vmbus_relid message = { { VMBUS_CLOSE, 0 }, channel->relid };

	bus_post_on(VMBUS_CONNECTION, &message, sizeof(message));
	bus_teardown(channel->gpadl, channel->relid);
}

uint64_t channel_signal(const struct channel *channel)
{
	return umbra_call(&hv, umbra_fast(0x5d), channel->connection, 0) & 0xffff;
}

void channel_put_raw(struct channel *channel, const void *packet, uint32_t bytes)
{
	const uint8_t *from = packet;

	for (uint64_t until = rdtsc() + 3000000000ull;
	     (*ring_word(channel->send, RING_READ_INDEX) + channel->ring_bytes - channel->written -
	      1) % channel->ring_bytes <
	     bytes;)
		if (rdtsc() > until)
			break; /* a test of what comes then */
	for (uint32_t n = 0; n < bytes; n++)
		channel->send[PAGE_BYTES + (channel->written + n) % channel->ring_bytes] = from[n];
	channel->written = (channel->written + bytes) % channel->ring_bytes;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	*ring_word(channel->send, RING_WRITE_INDEX) = channel->written;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!*ring_word(channel->send, RING_INTERRUPT_MASK))
		channel_signal(channel);
}

void channel_put(struct channel *channel, uint16_t type, const void *payload,
		 uint32_t payload_bytes, const void *data, uint32_t bytes)
{
	static _Alignas(8) uint8_t packet[PAGE_BYTES];
	uint32_t pages =
		bytes ? (uint32_t)((gpa(data) & PAGE_OFFSET) + bytes + PAGE_OFFSET) / PAGE_BYTES
		      : 0;
	uint32_t head = 16 + (type == PACKET_GPA_DIRECT ? 16 + 8 * pages : 0);
	const struct vmbus_packet request = { .type = type,
					      .data_units = (uint16_t)(head / 8),
					      .units = (uint16_t)((head + payload_bytes + 7) / 8),
					      .flags = PACKET_WANTS_COMPLETION,
					      .transaction = ++channel->transaction };
	const uint32_t range[4] = { 0, 1, bytes, (uint32_t)(gpa(data) & PAGE_OFFSET) };
	const uint64_t footer = (uint64_t)channel->written << 32;

	copy(packet, &request, sizeof(request));
	if (type == PACKET_GPA_DIRECT)
		copy(packet + 16, range, sizeof(range));
	for (uint32_t n = 0; n < pages && type == PACKET_GPA_DIRECT; n++) {
		uint64_t gfn = gpa(data) / PAGE_BYTES + n;

		copy(packet + 32 + 8 * n, &gfn, 8);
	}
	copy(packet + head, payload, payload_bytes);
	copy(packet + 8 * request.units, &footer, 8);
	channel_put_raw(channel, packet, 8u * request.units + 8);
}

bool channel_get(struct channel *channel, struct vmbus_packet *ret, void *payload, uint32_t room)
{
	uint8_t *to = (uint8_t *)ret;
	uint32_t bytes;

	for (uint64_t until = rdtsc() + 6000000000ull;
	     *ring_word(channel->receive, RING_WRITE_INDEX) == channel->read;)
		if (rdtsc() > until)
			return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (uint32_t n = 0; n < sizeof(*ret); n++)
		to[n] = channel->receive[PAGE_BYTES + (channel->read + n) % channel->ring_bytes];
	bytes = 8u * ret->units - 8u * ret->data_units;
	for (uint32_t n = 0; n < bytes && n < room; n++)
		((uint8_t *)payload)[n] =
			channel->receive[PAGE_BYTES + (channel->read + 8u * ret->data_units + n) %
							      channel->ring_bytes];
	channel->read = (channel->read + 8u * ret->units + 8) % channel->ring_bytes;
	*ring_word(channel->receive, RING_READ_INDEX) = channel->read;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (*ring_word(channel->receive, RING_PENDING_BYTES))
		channel_signal(channel);
	return true;
}

static uint32_t talk(struct channel *channel, struct vstor_packet *packet)
{
	struct vmbus_packet head;

	packet->flags = 1;
	channel_put(channel, PACKET_INBAND, packet, sizeof(*packet), NULL, 0);
	if (!channel_get(channel, &head, packet, sizeof(*packet)) ||
	    head.type != PACKET_COMPLETION || head.transaction != channel->transaction ||
	    packet->operation != VSTOR_COMPLETE)
		return ~0u;
	return packet->status;
}

void storage_open_last(struct channel *channel, unsigned offers)
{
	struct vstor_packet begin = { .operation = VSTOR_BEGIN };
	struct vstor_packet version = { .operation = VSTOR_QUERY_VERSION,
					.body.version.version = VSTOR_6_2 };
	struct vstor_packet properties = { .operation = VSTOR_QUERY_PROPERTIES };
	struct vstor_packet end = { .operation = VSTOR_END };
	struct vmbus_offer offer;

	struct { const char *what; uint64_t wrong;
	} steps[] = {
		{ "contact", !bus_contact(VMBUS_5_3) },
		{ "the offers", bus_offers(OFFER_STORAGE, &offer) != offers },
		{ "a channel", channel_open(channel, &offer, 0xe1e10) },
		{ "its first word", talk(channel, &begin) },
		{ "its version", talk(channel, &version) },
		{ "its properties", talk(channel, &properties) },
		{ "its last", talk(channel, &end) },
	};

	for (unsigned n = 0; n < sizeof(steps) / sizeof(steps[0]); n++)
		if (steps[n].wrong) {
			check_equal(steps[n].what, steps[n].wrong, 0);
			finish();
		}
}

void storage_open(struct channel *channel) { storage_open_last(channel, BUS_OFFERS); }

bool storage_command(struct channel *channel, uint8_t lun, const void *cdb, uint8_t cdb_bytes,
		     uint8_t direction, void *data, uint32_t bytes, struct vstor_srb *ret)
{
	struct vstor_packet packet = { .operation = VSTOR_EXECUTE,
				       .flags = 1,
				       .body.srb = { .bytes = 0x34,
						     .lun = lun,
						     .cdb_bytes = cdb_bytes,
						     .direction = direction,
						     .sense_bytes = 20,
						     .data_bytes = bytes } };
	struct vmbus_packet head;

	copy(packet.body.srb.cdb_or_sense, cdb, cdb_bytes < 16 ? cdb_bytes : 16);
	channel_put(channel, bytes ? PACKET_GPA_DIRECT : PACKET_INBAND, &packet, sizeof(packet),
		    data, bytes);
	if (!channel_get(channel, &head, &packet, sizeof(packet)) ||
	    head.transaction != channel->transaction)
		return false;
	*ret = packet.body.srb;
	return true;
}
