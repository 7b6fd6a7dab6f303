/*
 * The invariants of the bus, its monitor page, what a component says with its guest, of what a card
 * keeps of its slots and sections, and of the pages of dynamic memory, each broken: check_*() sees
 * it.
 */
#include <stdio.h>

#include "../lib/caught.h"
#include "device/dynamic_memory/pages.h"
#include "device/ic/ic_frame.h"
#include "device/netvsp/network_internal.h"
#include "device/share/lender_internal.h"
#include "live_guest.h"
#include "vmbus/vmbus_internal.h"

/* How far live_create() gets: every channel is open, a GPADL incomplete, messages wait. */
enum { EVERYTHING = 9, REGION_BYTES = 1 << 16 };

/* ---- the bus ---- */

static struct bus *bus_in(void *bus) { return bus; }
static struct bus_channel *first_of(void *bus) { return &bus_in(bus)->channel[0]; }
static void check_bus_of(void *bus) { check_bus(bus); }

static struct gpadl *used_gpadl(void *bus)
{
	struct gpadl *gpadl = bus_in(bus)->gpadl;

	while (!gpadl->used)
		gpadl++;
	return gpadl;
}

static void unknown_version(void *bus) { bus_in(bus)->version = 1; }
static void offered_to_nobody(void *bus) { bus_in(bus)->version = 0; }
static void outbox_too_full(void *bus) { bus_in(bus)->outbox_used = OUTBOX_MESSAGES + 1; }
static void nobody_named(void *bus) { bus_in(bus)->vp_index = FAKE_CPUS; }
static void channel_of_no_state(void *bus) { first_of(bus)->state = CHANNEL_STATES; }
static void channel_of_nobody(void *bus) { first_of(bus)->service = NULL; }
static void another_number(void *bus) { first_of(bus)->relid++; }
static void index_past_the_ring(void *bus) { first_of(bus)->in.index = first_of(bus)->in.bytes; }
static void index_between(void *bus) { first_of(bus)->out.index |= 1; }
static void packets_of_nobody(void *bus) { first_of(bus)->in.written = first_of(bus)->in.bytes; }
static void room_given_back_too_early(void *bus)
{
	struct bus_ring *ring = &first_of(bus)->in;

	ring->kept = RING_ALIGNMENT;
	ring->written = 2 * RING_ALIGNMENT;
}
static void ring_of_no_pages(void *bus) { first_of(bus)->in.gfn = NULL; }
static void rings_over_each_other(void *bus) { first_of(bus)->host_ring_page++; }
static void pages_not_counted(void *bus) { bus_in(bus)->gpadl_pages++; }
static void more_than_named(void *bus) { used_gpadl(bus)->have = used_gpadl(bus)->pages + 1; }
static void complete_too_early(void *bus)
{
	struct gpadl *gpadl = used_gpadl(bus);

	while (gpadl->complete || !gpadl->used)
		gpadl++;
	gpadl->complete = true;
}
static void two_of_one_name(void *bus)
{
	struct gpadl *first = used_gpadl(bus);
	struct gpadl *other = first + 1;

	while (!other->used)
		other++;
	other->id = first->id;
}
static void unsaid_and_not_taken_away(void *bus) { first_of(bus)->rescind_unsaid = true; }
static void open_and_not_there(void *bus) { first_of(bus)->there = false; }

static const struct spoiling of_bus[] = {
	{ "a version that nobody knows", unknown_version },
	{ "offers to who is not connected", offered_to_nobody },
	{ "an outbox with more than its room", outbox_too_full },
	{ "messages for a processor that is none", nobody_named },
	{ "a channel in no state", channel_of_no_state },
	{ "a channel without a service", channel_of_nobody },
	{ "a channel with another's number", another_number },
	{ "an index behind its ring", index_past_the_ring },
	{ "an index between two packets", index_between },
	{ "packets behind the ring's end", packets_of_nobody },
	{ "room that is given back before it is taken", room_given_back_too_early },
	{ "a ring without pages", ring_of_no_pages },
	{ "rings that lie over each other", rings_over_each_other },
	{ "pages that are not counted", pages_not_counted },
	{ "more pages than were named", more_than_named },
	{ "a GPADL that is complete before its time", complete_too_early },
	{ "two GPADLs of one name", two_of_one_name },
	{ "a rescind that waits and was not asked for", unsaid_and_not_taken_away },
	{ "an open channel that is not there", open_and_not_there },
};

/* ---- pages of dynamic memory ---- */

static struct pages *pages_in(void *pages) { return pages; }
static void check_pages_of(void *pages) { check_pages(pages); }

static void inflated_not_counted(void *pages) { pages_in(pages)->inflated++; }
static void more_held_than_there(void *pages) { pages_in(pages)->held = pages_in(pages)->frames; }
static void started_with_more(void *pages) { pages_in(pages)->start = pages_in(pages)->held + 1; }
static void in_nobodys_hands(void *pages)
{
	pages_in(pages)->map[(pages_in(pages)->frames - 1) / 64] |= 1ull << 63;
}

static const struct spoiling of_pages[] = {
	{ "a page in the balloon that is not counted", inflated_not_counted },
	{ "more pages than are populated", more_held_than_there },
	{ "fewer pages than at the start", started_with_more },
	{ "a page in the balloon that the guest never had", in_nobodys_hands },
};

/* ---- a network card ---- */

static struct network *network_in(void *network) { return network; }
static void check_network_of(void *network) { check_network(network); }

static void slot_of_no_state(void *network) { network_in(network)->slot[0] = SLOT_STATES; }
static void waits_and_is_not_counted(void *network) { network_in(network)->slot[0] = SLOT_WAITS; }
static void sends_from_a_waiting_one(void *network)
{
	network_in(network)->slot[NET_RECEIVE_SLOTS] = SLOT_WAITS;
	network_in(network)->waiting++;
}
static void free_and_not_counted(void *network) { network_in(network)->send_free--; }
static void sections_of_no_buffer(void *network) { network_in(network)->sections = 1; }
static void too_many_answers(void *network) { network_in(network)->answers = ANSWERS + 1; }
static void begun_without_version(void *network) { network_in(network)->initialized = true; }

static const struct spoiling of_network[] = {
	{ "a slot in no state", slot_of_no_state },
	{ "a frame that waits and is not counted", waits_and_is_not_counted },
	{ "a frame that waits in a slot for sending", sends_from_a_waiting_one },
	{ "a free slot that is not counted", free_and_not_counted },
	{ "sections of no buffer", sections_of_no_buffer },
	{ "more answers than there is room for", too_many_answers },
	{ "RNDIS before a version", begun_without_version },
};

static unsigned of_a_card(void)
{
	struct slot_client client = { .slots = NET_SLOTS };
	static struct net_card_memory memory;
	unsigned missed = 1;
	struct network *network;
	struct fake fake;

	fake_create(&fake, 1);
	client.queue = &memory.queue;
	network = network_create(fake.bus, 0, &memory, &client);
	if (network) {
		missed = CAUGHT_MISSED("network card", check_network_of, network, of_network);
		network_destroy(network);
	}
	fake_destroy(&fake);
	return missed;
}

static struct held *held_in(void *lender) { return ((struct lender *)lender)->held; }
static void check_lender_of(void *lender) { check_lender(lender); }
static void lent_from_nowhere(void *lender) { held_in(lender)[0].gfn = NO_FRAME; }
static void lent_and_nowhere(void *lender) { held_in(lender)[0].hva = NULL; }
static void no_page_is_lent(void *lender) { held_in(lender)[0].pages = 0; }
static void more_than_a_window(void *lender)
{
	held_in(lender)[0].pages = GUEST_WINDOW_PAGES + 1;
}
static void lent_between_pages(void *lender) { held_in(lender)[0].hva++; }
static void lent_twice(void *lender) { held_in(lender)[1].gfn--; }

static const struct spoiling of_lender[] = {
	{ "pages that are lent and have no frame", lent_from_nowhere },
	{ "pages that are lent and nowhere", lent_and_nowhere },
	{ "a frame without pages", no_page_is_lent },
	{ "more pages than a window has", more_than_a_window },
	{ "pages that begin between two", lent_between_pages },
	{ "a page that is lent twice", lent_twice },
};

static unsigned of_a_lender(void)
{
	struct lender *lender = lender_create(NULL, NULL, NULL);
	unsigned missed;

	for (unsigned n = 0; n < 2; n++)
		lender->held[n] = (struct held){ .gfn = 8 + 4ull * n, .pages = 4,
						 .hva = (uint8_t *)(8ul * GUEST_PAGE_BYTES) };
	missed = CAUGHT_MISSED("lender", check_lender_of, lender, of_lender);
	for (unsigned n = 0; n < 2; n++)
		lender->held[n].gfn = NO_FRAME;
	lender_destroy(lender);
	return missed;
}

/* ---- the monitor page ---- */

static void check_monitor_of(void *bus) { check_monitor(bus); }
static void page_between_pages(void *bus) { bus_in(bus)->monitor_gpa = GUEST_PAGE_BYTES + 8; }
static void bit_that_no_page_has(void *bus)
{
	static struct bus_service monitored;

	monitored = *first_of(bus)->service;
	monitored.is_monitored = true;
	first_of(bus)->service = &monitored;
	first_of(bus)->relid = FIRST_LATE + 200;
}

static const struct spoiling of_monitor[] = {
	{ "a monitor page between two pages", page_between_pages },
	{ "a channel whose bit no page has", bit_that_no_page_has },
};

/* ---- a component and its guest ---- */

static struct ic_frame *frame_in(void *frame) { return frame; }
static void check_frame_of(void *frame) { check_ic_frame(frame); }
static void asked_too_early(void *frame) { frame_in(frame)->ready = false; }
static void framework_not_offered(void *frame) { frame_in(frame)->framework.major = 9; }
static void message_not_offered(void *frame) { frame_in(frame)->message.minor = 9; }

static const struct spoiling of_frame[] = {
	{ "a question to one who is not ready", asked_too_early },
	{ "a framework that was not offered", framework_not_offered },
	{ "a version that was not offered", message_not_offered },
};

static unsigned of_a_frame(void)
{
	static const struct ic_kind kind = { .versions = { { 5, 0 } }, .count = 1 };
	struct ic_frame frame = { .kind = &kind, .ready = true, .asked = true,
				  .framework = { 3, 0 }, .message = { 5, 0 } };

	return CAUGHT_MISSED("component", check_frame_of, &frame, of_frame);
}

int main(void)
{
	struct pages pages;
	struct live live;
	unsigned missed = 0;

	live_create(&live, EVERYTHING);
	missed += CAUGHT_MISSED("bus", check_bus_of, live.fake.bus, of_bus);
	missed += CAUGHT_MISSED("monitor", check_monitor_of, live.fake.bus, of_monitor);
	missed += of_a_frame();
	missed += pages_make(&pages, &live.fake.memory, REGION_BYTES) != 0;
	missed += CAUGHT_MISSED("pages", check_pages_of, &pages, of_pages);
	pages_free(&pages);
	live_destroy(&live);
	missed += of_a_card();
	missed += of_a_lender();
	return missed != 0;
}
