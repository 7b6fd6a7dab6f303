/*
 * A monitor page: who signals by a bit there is served by bus_monitor() and by nothing else, once
 * for each bit; a channel without one, one that is closed, and a page that is none are not looked
 * at. Prints TAP.
 */
#include <stdio.h>

#include "fake_guest.h"

enum { MONITOR_GPA = 0x9000, RELID = FAKE_CHANNELS + 1, PENDING_AT = 8, FIRST_BIT = RELID - 1 };

static unsigned checks, bad, packets;
static struct fake fake;
static uint32_t written;

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

static void nothing(void *context) { (void)context; }
static int take(void *context, const struct bus_packet *packet)
{
	(void)context;
	(void)packet;
	packets++;
	return 0;
}

static struct bus_service service = {
	.type = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), .opened = nothing, .closed = nothing,
	.packet = take, .is_monitored = true,
};

static uint32_t *word_at(uint64_t gpa) { return (uint32_t *)(void *)(fake.memory.ram + gpa); }
static uint32_t *pending(void) { return word_at(MONITOR_GPA + PENDING_AT); }

static void contact(uint64_t monitor_gpa)
{
	const struct vmbus_contact contact = { .head.kind = VMBUS_INITIATE_CONTACT,
					       .version = VMBUS_5_3,
					       .interrupt_page = VMBUS_SINT,
					       .monitor_page = { 0x8000, monitor_gpa } };
	const struct vmbus_head offers = { .kind = VMBUS_REQUEST_OFFERS };

	fake_message(&fake, &contact, sizeof(contact));
	fake_message(&fake, &offers, sizeof(offers));
}

/* One packet more in the ring, of which nobody is told. */
static void put(void)
{
	const uint64_t ring = FAKE_RINGS_GPA + (RELID - 1) * (uint64_t)FAKE_STRIDE;
	const struct vmbus_packet head = { .type = PACKET_INBAND, .data_units = 2, .units = 2 };

	memcpy(fake.memory.ram + ring + GUEST_PAGE_BYTES + written, &head, sizeof(head));
	written += sizeof(head) + PACKET_FOOTER_BYTES;
	*word_at(ring + RING_WRITE_INDEX) = written;
}

static enum bus_monitor look(uint32_t bits)
{
	packets = 0;
	*pending() |= bits;
	return bus_monitor(fake.bus);
}

static void open_anew(uint64_t monitor_gpa)
{
	const uint64_t ring = FAKE_RINGS_GPA + (RELID - 1) * (uint64_t)FAKE_STRIDE;

	memset(fake.memory.ram + ring, 0, FAKE_STRIDE);
	written = 0;
	contact(monitor_gpa);
	fake_open(&fake, RELID);
	bus_run(fake.bus);
}

int main(void)
{
	const struct vmbus_relid end = { { VMBUS_CLOSE, 0 }, RELID };
	struct bus_channel *channel;
	uint32_t before;

	fake_create(&fake, 1ull << 40);
	channel = bus_offer(fake.bus, &service);
	if (!channel)
		return 1;
	contact(MONITOR_GPA);
	check("nothing to watch before it is open", look(1u << FIRST_BIT) == BUS_MONITOR_NONE);
	check("and the bit is left", *pending() == 1u << FIRST_BIT);
	*pending() = 0;
	before = fake.deferred;
	fake_open(&fake, RELID);
	check("who looks is woken when it opens", fake.deferred > before);
	bus_run(fake.bus);
	look(0);
	put();
	check("without its bit it is not served", look(0) == BUS_MONITOR_QUIET && !packets);
	check("nor by another one's", look(1u << (FIRST_BIT + 1)) == BUS_MONITOR_QUIET && !packets);
	put();
	check("by its own it is", look(1u << FIRST_BIT) == BUS_MONITOR_BUSY && packets == 2);
	check("the bits are taken", !*pending());
	check("once", look(0) == BUS_MONITOR_QUIET && !packets);
	bus_channel_lock(channel);
	check("the guest is told", !bus_channel_send(channel, PACKET_INBAND, 0, &end, sizeof(end)));
	bus_channel_unlock(channel);
	check("and may answer", look(0) == BUS_MONITOR_ASKED && look(0) == BUS_MONITOR_QUIET);
	fake_message(&fake, &end, sizeof(end));
	check("a closed one is not watched", look(1u << FIRST_BIT) == BUS_MONITOR_NONE && !packets);
	*pending() = 0;
	open_anew(MONITOR_GPA + 8);
	put();
	check("a page is a page", look(1u << FIRST_BIT) == BUS_MONITOR_NONE && !packets);
	open_anew(1ull << 40);
	put();
	check("where no memory is there is nothing", look(0) == BUS_MONITOR_QUIET && !packets);
	open_anew(0);
	put();
	check("nor without a page", look(0) == BUS_MONITOR_NONE && !packets);
	check_bus(fake.bus);
	fake_destroy(&fake);
	printf("1..%u\n", checks);
	return bad != 0;
}
