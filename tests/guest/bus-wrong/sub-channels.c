/* What acts on sub-channels share. Wrong: none at all is asked for. */
#include "../bus-wrong.h"

enum { SUB_GPADL = 6, SHORT_TICKS = 60000000 };

struct channel sub;

static uint64_t status_of(struct channel *on, struct vstor_packet *packet)
{
	struct vmbus_packet head;

	channel_put(on, PACKET_INBAND, packet, sizeof(*packet), NULL, 0);
	for (uint64_t until = rdtsc() + SHORT_TICKS;
	     *ring_word(on->receive, RING_WRITE_INDEX) == on->read;)
		if (rdtsc() > until)
			return BROKEN;
	return channel_get(on, &head, packet, sizeof(*packet)) ? packet->status : BROKEN;
}

uint64_t subs_ask(uint16_t count)
{
	struct vstor_packet packet = { .operation = VSTOR_CREATE_SUB_CHANNELS, .flags = 1,
				       .body.sub_channels = count };

	return status_of(&ch, &packet);
}

bool sub_offered(struct vmbus_offer *ret)
{
	const struct vmbus_offer *offer = bus_expect(VMBUS_OFFER);

	if (offer)
		*ret = *offer;
	return offer && offer->sub_channel == 1;
}

void sub_open(void)
{
	struct vmbus_offer offer;

	static uint8_t *pages;

	if (!pages)
		pages = new_pages(2 * CHANNEL_PAGES);
	if (subs_ask(1) || !sub_offered(&offer) || channel_open_in(&sub, &offer, SUB_GPADL, pages))
		check("a sub-channel to begin with", false);
}

uint64_t sub_operation(uint32_t operation)
{
	struct vstor_packet packet = { .operation = operation, .flags = 1 };

	return status_of(&sub, &packet);
}

void first_reopen(uint32_t gpadl)
{
	const struct vmbus_relid close = { { VMBUS_CLOSE, 0 }, ch.relid };
	const struct vmbus_offer offer = { .relid = ch.relid, .connection = ch.connection };
	struct vstor_packet begin = { .operation = VSTOR_BEGIN, .flags = 1 };
	struct vstor_packet version = { .operation = VSTOR_QUERY_VERSION, .flags = 1,
					.body.version.version = VSTOR_6_2 };
	struct vstor_packet end = { .operation = VSTOR_END, .flags = 1 };

	bus_post_on(VMBUS_CONNECTION, &close, sizeof(close));
	if (!bus_expect(VMBUS_RESCIND) || channel_open(&ch, &offer, gpadl) ||
	    status_of(&ch, &begin) || status_of(&ch, &version) || status_of(&ch, &end))
		check("the first channel again", false);
}

WRONG_ACT("no further channel is asked for", VSTOR_INVALID_STATE) { return subs_ask(0); }
