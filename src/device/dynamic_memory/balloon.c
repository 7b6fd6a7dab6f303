/* See balloon.h. Numbers of pages are of 4096 bytes. */
#include "balloon.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "lib/archive.h"
#include "pages.h"

enum {
	DM_VERSION_REQUEST = 1,
	DM_VERSION_RESPONSE,
	DM_CAPABILITIES,
	DM_CAPABILITIES_RESPONSE,
	DM_STATUS,
	DM_BALLOON,
	DM_BALLOON_RESPONSE,
	DM_UNBALLOON,
	DM_UNBALLOON_RESPONSE,
	DM_HOT_ADD,
	DM_HOT_ADD_RESPONSE
};
enum {
	RANGES = 480,
	RANGE_PAGES_MAX = (1 << 24) - 1,
	/*
	 * Linux names the first page of a request when it has allocated the last: 16 MiB, for a
	 * host that is short now, then twice as many each time, up to 1 GiB.
	 */
	REQUEST_PAGES_LEAST = 1 << 12,
	REQUEST_PAGES_MAX = 1 << 18,
	RANGE_START_BITS = 40,
	PAGES_PER_MIB = 256,
	RESERVE_MIB = 32,
	SLACK_SHARE = 32
};
enum {
	CAPABILITY_BALLOON = 1,
	CAPABILITY_ADD = 2,
	ALIGNMENT_SHIFT = 2,
	ALIGNMENT_MASK = 15,
	ALIGNMENT_LOG2_MIB = 7 /* of a region */
};
/* Linux's driver waits 5 s for somebody who puts a region on line. */
enum { LATE_TICKS = 4, PAUSE_TICKS = 10, SILENT_TICKS = 60 };
static const uint32_t versions[] = { 0x20000, 0x10000, 0x3 };

struct head {
	uint16_t type, bytes;
	uint32_t transaction;
};
struct status {
	struct head head;
	uint64_t available, committed, page_file, free;
	uint32_t page_writes, io;
};
struct unballoon {
	struct head head;
	uint32_t more, ranges;
	uint64_t range[RANGES];
};

enum request { NOTHING_ASKED, ASKED_TO_INFLATE, ASKED_TO_DEFLATE, ASKED_TO_ADD, REQUESTS };

struct balloon {
	struct bus_service service;
	struct bus_channel *channel;
	const struct balloon_host *host;
	struct pages pages;
	bool ready, known, automatic;
	bool takes_regions; /* the driver adds memory, and has not shown that nobody uses it */
	uint8_t asked; /* enum request: what is not answered */
	uint32_t transaction;
	uint32_t waited, pause; /* ticks: for the answer; until the next region is offered */
	uint64_t target, advice; /* advice: 0: there is none */
	uint64_t step; /* pages of the next request to inflate; the least of the first one */
	uint64_t available, committed;
	uint64_t available_before; /* when a region was offered */
	bool is_late; /* it took long, and nobody knows yet whether it is used */
	struct balloon_counters counters;
};

void check_balloon(const struct balloon *balloon)
{
	check_pages(&balloon->pages);
	assert(balloon->asked < REQUESTS && balloon->target <= balloon->pages.frames);
}

/* ---- what the guest says ---- */

static void balloon_send(struct balloon *balloon, const void *message, size_t bytes)
{
	bus_channel_send(balloon->channel, PACKET_INBAND, 0, message, bytes);
}

static void answer_u64(struct balloon *balloon, uint16_t type, uint32_t transaction, uint64_t value)
{
	const struct {
		struct head head;
		uint64_t value;
	} message = { { type, sizeof(message), transaction }, value };

	balloon_send(balloon, &message, sizeof(message));
}

static void take_version(struct balloon *balloon, const struct head *head, const uint8_t *data,
			 size_t bytes)
{
	uint32_t version = 0;
	bool known = false;

	if (bytes >= sizeof(version))
		memcpy(&version, data, sizeof(version));
	for (size_t n = 0; n < sizeof(versions) / sizeof(versions[0]); n++)
		known |= versions[n] == version;
	answer_u64(balloon, DM_VERSION_RESPONSE, head->transaction, known);
}

static void take_capabilities(struct balloon *balloon, const struct head *head, const uint8_t *data,
			      size_t bytes)
{
	uint64_t capabilities = 0;

	if (bytes >= sizeof(capabilities))
		memcpy(&capabilities, data, sizeof(capabilities));
	balloon->ready = capabilities & CAPABILITY_BALLOON;
	balloon->takes_regions =
		balloon->ready && capabilities & CAPABILITY_ADD &&
		(capabilities >> ALIGNMENT_SHIFT & ALIGNMENT_MASK) <= ALIGNMENT_LOG2_MIB;
	answer_u64(balloon, DM_CAPABILITIES_RESPONSE, head->transaction, balloon->ready);
}

/*
 * Memory that nobody in the guest puts on line is counted as committed by its driver: more of it
 * would only make it ask for more. It shows in that the driver waited for it (LATE_TICKS), and that
 * nothing more is available.
 */
static void find_unused_region(struct balloon *balloon)
{
	if (!balloon->is_late)
		return;
	balloon->is_late = false;
	if (balloon->available >= balloon->available_before + balloon->pages.region / 2)
		return;
	balloon->takes_regions = false;
	balloon->counters.unused++;
}

static void take_status(struct balloon *balloon, const uint8_t *packet, size_t bytes)
{
	struct status status;

	if (bytes < sizeof(status))
		return;
	memcpy(&status, packet, sizeof(status));
	balloon->available =
		status.available < balloon->pages.held ? status.available : balloon->pages.held;
	balloon->committed = status.committed;
	balloon->known = true;
	balloon->host->changed(balloon->host->context);
	balloon->counters.reports++;
	find_unused_region(balloon);
}

/* Pages that follow each other, and are to be discarded. */
struct run { uint64_t gfn, count; };

static void discard_run(struct balloon *balloon, struct run *run)
{
	if (run->count)
		balloon->host->discard(balloon->host->context, run->gfn * GUEST_PAGE_BYTES,
				       run->count * GUEST_PAGE_BYTES);
	run->count = 0;
}

/* Drivers give up blocks that lie side by side, up or down: one discard for all of them. */
static int inflate_range(struct balloon *balloon, uint64_t range, struct run *run)
{
	const uint64_t gfn = range & ((1ull << RANGE_START_BITS) - 1);
	const uint64_t count = range >> RANGE_START_BITS;
	int error = pages_inflate(&balloon->pages, gfn, count);

	if (error)
		return error;
	balloon->counters.inflated += count;
	if (gfn + count == run->gfn)
		run->gfn = gfn;
	else if (gfn != run->gfn + run->count)
		discard_run(balloon, run);
	if (!run->count)
		run->gfn = gfn;
	run->count += count;
	return 0;
}

static void answered(struct balloon *balloon)
{
	balloon->asked = NOTHING_ASKED;
	balloon->waited = 0;
	balloon->host->changed(balloon->host->context);
}

/* One of several: `more` says that others come. True in *ret_some: there were pages. */
static int take_pages(struct balloon *balloon, const uint8_t *data, size_t bytes, bool *ret_some)
{
	struct {
		uint32_t reserved, more_and_count;
	} head;
	uint64_t before = balloon->pages.inflated;
	struct run run = { .count = 0 };
	int error = 0;

	if (balloon->asked != ASKED_TO_INFLATE || bytes < sizeof(head))
		return -EBADMSG;
	memcpy(&head, data, sizeof(head));
	if ((head.more_and_count >> 1) > (bytes - sizeof(head)) / 8)
		return -EBADMSG;
	for (uint32_t n = 0; n < head.more_and_count >> 1 && !error; n++) {
		uint64_t range;

		memcpy(&range, data + sizeof(head) + 8 * (size_t)n, sizeof(range));
		error = inflate_range(balloon, range, &run);
	}
	discard_run(balloon, &run);
	if (!(head.more_and_count & 1))
		answered(balloon);
	*ret_some = balloon->pages.inflated > before;
	return error;
}

/*
 * The guest says how many of a region's pages it has taken, from the first on. Of one that it has
 * taken in part nothing more is offered: what follows would not be where it could be taken.
 */
static int take_region(struct balloon *balloon, const uint8_t *data, size_t bytes, bool *ret_some)
{
	struct {
		uint32_t pages, result;
	} region;

	if (balloon->asked != ASKED_TO_ADD || bytes < sizeof(region))
		return -EBADMSG;
	memcpy(&region, data, sizeof(region));
	if (region.pages > balloon->pages.region)
		return -EBADMSG;
	if (!region.result)
		region.pages = 0;
	balloon->is_late = region.pages && balloon->waited >= LATE_TICKS;
	answered(balloon);
	pages_added(&balloon->pages, region.pages);
	balloon->counters.added += region.pages;
	if (!region.pages) {
		balloon->counters.refused++;
		balloon->pause = PAUSE_TICKS;
	}
	*ret_some = region.pages && !balloon->is_late;
	return 0;
}

static int take_deflated(struct balloon *balloon, bool *ret_some)
{
	if (balloon->asked != ASKED_TO_DEFLATE)
		return -EBADMSG;
	answered(balloon);
	*ret_some = true;
	return 0;
}

static void go_on(struct balloon *balloon);

static int packet(void *context, const struct bus_packet *received)
{
	struct balloon *balloon = context;
	struct head head;
	bool some = false;
	int error = 0;

	if (received->type != PACKET_INBAND || received->payload_bytes < sizeof(head))
		return -EBADMSG;
	memcpy(&head, received->payload, sizeof(head));
	switch (head.type) {
	case DM_VERSION_REQUEST:
		take_version(balloon, &head, received->payload + sizeof(head),
			     received->payload_bytes - sizeof(head));
		return 0;
	case DM_CAPABILITIES:
		take_capabilities(balloon, &head, received->payload + sizeof(head),
				  received->payload_bytes - sizeof(head));
		return 0;
	case DM_STATUS: take_status(balloon, received->payload, received->payload_bytes); return 0;
	case DM_BALLOON_RESPONSE:
		error = take_pages(balloon, received->payload + sizeof(head),
				   received->payload_bytes - sizeof(head), &some);
		break;
	case DM_UNBALLOON_RESPONSE: error = take_deflated(balloon, &some); break;
	case DM_HOT_ADD_RESPONSE:
		error = take_region(balloon, received->payload + sizeof(head),
				    received->payload_bytes - sizeof(head), &some);
		break;
	default: return 0; /* of versions to come */
	}
	if (!error && some) /* not for nothing: who gives nothing is asked at the next tick */
		go_on(balloon);
	return error;
}

/* ---- what it is asked for ---- */

static void ask(struct balloon *balloon, enum request request, const void *message, size_t bytes)
{
	balloon->asked = request;
	balloon->waited = 0;
	balloon_send(balloon, message, bytes);
}

static void ask_to_inflate(struct balloon *balloon, uint64_t pages)
{
	const uint64_t step =
		balloon->step < REQUEST_PAGES_LEAST ? REQUEST_PAGES_LEAST : balloon->step;
	const struct {
		struct head head;
		uint32_t pages, reserved;
	} message = { { DM_BALLOON, sizeof(message), ++balloon->transaction },
		      (uint32_t)(pages < step ? pages : step),
		      0 };

	balloon->step = step < REQUEST_PAGES_MAX ? 2 * step : step;
	ask(balloon, ASKED_TO_INFLATE, &message, sizeof(message));
}

static void ask_to_deflate(struct balloon *balloon, uint64_t pages)
{
	struct unballoon unballoon = { .head = { DM_UNBALLOON, 0, ++balloon->transaction } };

	for (; pages && balloon->pages.inflated && unballoon.ranges < RANGES; unballoon.ranges++) {
		uint64_t most = pages < RANGE_PAGES_MAX ? pages : RANGE_PAGES_MAX;
		uint64_t gfn;
		uint64_t count = pages_deflate(&balloon->pages, most, &gfn);

		unballoon.range[unballoon.ranges] = gfn | count << RANGE_START_BITS;
		pages -= count;
		balloon->counters.deflated += count;
	}
	unballoon.head.bytes = (uint16_t)(offsetof(struct unballoon, range) +
					  unballoon.ranges * sizeof(unballoon.range[0]));
	ask(balloon, ASKED_TO_DEFLATE, &unballoon, unballoon.head.bytes);
}

/* Also of a region that was offered before, and not taken. */
static void populate_to(struct balloon *balloon, uint64_t pages)
{
	if (pages * GUEST_PAGE_BYTES > guest_memory_populated_bytes(balloon->host->memory))
		balloon->host->populate(balloon->host->context, pages * GUEST_PAGE_BYTES);
}

/* Its pages are RAM from now on, so that the guest finds memory where it is told to look. */
static void ask_to_add(struct balloon *balloon)
{
	const uint64_t gfn = pages_gfn(&balloon->pages, balloon->pages.held);
	const struct {
		struct head head;
		uint64_t range;
	} message = { { DM_HOT_ADD, sizeof(message), ++balloon->transaction },
		      gfn | balloon->pages.region << RANGE_START_BITS };

	populate_to(balloon, balloon->pages.held + balloon->pages.region);
	balloon->available_before = balloon->available;
	ask(balloon, ASKED_TO_ADD, &message, sizeof(message));
}

static bool can_add(const struct balloon *balloon)
{
	return balloon->takes_regions && !balloon->is_late && !balloon->pause &&
	       pages_can_add(&balloon->pages);
}

/*
 * What the guest has promised to its programs and needs for itself, and a buffer; the driver counts
 * its balloon into it. Pages, between the least and all.
 */
static uint64_t wanted(const struct balloon *balloon)
{
	const uint64_t most = balloon->pages.frames;
	uint64_t least = balloon->host->least_bytes / GUEST_PAGE_BYTES;
	uint64_t uses = balloon->committed > balloon->pages.inflated
				? balloon->committed - balloon->pages.inflated
				: 0;
	uint64_t want;

	if (!balloon->automatic)
		return balloon->target;
	if (!balloon->known)
		return balloon->pages.held;
	uses = uses < most ? uses : most;
	want = uses + uses * balloon->host->buffer_percent / 100 + RESERVE_MIB * PAGES_PER_MIB;
	if (balloon->advice)
		want = balloon->advice;
	if (want < least)
		return least;
	return want < most ? want : most;
}

/* With the channel's lock: the next that is to be asked, when nothing else is. */
static void go_on(struct balloon *balloon)
{
	const uint64_t assigned = pages_assigned(&balloon->pages);
	const uint64_t want = wanted(balloon);
	/* no to and fro for little */
	const uint64_t slack =
		balloon->automatic && !balloon->advice ? balloon->pages.held / SLACK_SHARE : 0;

	if (!balloon->ready || balloon->asked != NOTHING_ASKED)
		return;
	if (assigned > want + slack) {
		ask_to_inflate(balloon, assigned - want);
		return;
	}
	balloon->step = REQUEST_PAGES_LEAST;
	if (assigned < want && balloon->pages.inflated)
		ask_to_deflate(balloon, want - assigned);
	else if (assigned < want && can_add(balloon))
		ask_to_add(balloon);
}

void balloon_tick(struct balloon *balloon)
{
	bus_channel_lock(balloon->channel);
	if (balloon->asked != NOTHING_ASKED && balloon->waited < UINT32_MAX)
		balloon->waited++;
	if (balloon->pause)
		balloon->pause--;
	go_on(balloon);
	bus_channel_unlock(balloon->channel);
}

void balloon_set_target(struct balloon *balloon, uint64_t bytes)
{
	uint64_t pages = bytes / GUEST_PAGE_BYTES;

	bus_channel_lock(balloon->channel);
	balloon->automatic = !bytes;
	balloon->target = pages < balloon->pages.frames ? pages : balloon->pages.frames;
	go_on(balloon);
	bus_channel_unlock(balloon->channel);
}

void balloon_advise(struct balloon *balloon, uint64_t bytes)
{
	bus_channel_lock(balloon->channel);
	balloon->advice = bytes / GUEST_PAGE_BYTES;
	go_on(balloon);
	balloon->host->changed(balloon->host->context);
	bus_channel_unlock(balloon->channel);
}

void balloon_status(struct balloon *balloon, struct balloon_status *ret)
{
	bus_channel_lock(balloon->channel);
	*ret = (struct balloon_status){
		.is_there = balloon->ready,
		.is_known = balloon->ready && balloon->known,
		.automatic = balloon->automatic,
		.is_advised = balloon->advice,
		.can_grow = balloon->takes_regions,
		.is_silent = balloon->waited >= SILENT_TICKS,
		.held_bytes = balloon->pages.held * GUEST_PAGE_BYTES,
		.assigned_bytes = pages_assigned(&balloon->pages) * GUEST_PAGE_BYTES,
		.target_bytes = wanted(balloon) * GUEST_PAGE_BYTES,
		.available_bytes = balloon->available * GUEST_PAGE_BYTES,
		.committed_bytes = balloon->committed * GUEST_PAGE_BYTES,
		.counters = balloon->counters,
	};
	bus_channel_unlock(balloon->channel);
}

/* ---- life ---- */

/*
 * A driver that comes anew has all of the memory: a guest that was started again, or one that let
 * its pages go. What was added stays the guest's.
 */
static void opened(void *context)
{
	struct balloon *balloon = context;

	balloon->ready = balloon->known = balloon->takes_regions = balloon->is_late = false;
	answered(balloon);
	balloon->pause = 0;
	pages_deflate_all(&balloon->pages);
}

static void closed(void *context) { ((struct balloon *)context)->ready = false; }

struct balloon *balloon_create(struct bus *bus, const struct balloon_host *host)
{
	struct balloon *balloon = calloc(1, sizeof(*balloon));

	if (!balloon)
		return NULL;
	balloon->host = host;
	balloon->automatic = host->least_bytes < host->memory->ram_bytes;
	balloon->service =
		(struct bus_service){ .type = GUID(0x525074dc, 0x8985, 0x46e2, 0x80, 0x57, 0xa3,
						   0x07, 0xdc, 0x18, 0xa5, 0x02),
				      .instance = GUID(0x1d9a5c3e, 0x7b24, 0x4f0a, 0x9e, 0x63, 0x75,
						       0x6d, 0x62, 0x72, 0x61, 0x02),
				      .elsewhere = true,
				      .opened = opened,
				      .closed = closed,
				      .packet = packet,
				      .context = balloon };
	if (!pages_make(&balloon->pages, host->memory, host->region_bytes))
		balloon->channel = bus_offer(bus, &balloon->service);
	balloon->target = balloon->pages.frames;
	if (balloon->channel)
		return balloon;
	balloon_destroy(balloon);
	return NULL;
}

void balloon_destroy(struct balloon *balloon)
{
	if (balloon)
		pages_free(&balloon->pages);
	free(balloon);
}

/* ---- saved state ---- */

void balloon_archive(struct archive *archive, struct balloon *balloon)
{
	pages_archive(archive, &balloon->pages);
	archive_bool(archive, &balloon->ready);
	archive_bool(archive, &balloon->known);
	archive_bool(archive, &balloon->automatic);
	archive_bool(archive, &balloon->takes_regions);
	archive_bool(archive, &balloon->is_late);
	archive_u8(archive, &balloon->asked);
	archive_u32(archive, &balloon->waited);
	archive_u32(archive, &balloon->pause);
	archive_u64(archive, &balloon->target);
	archive_u64(archive, &balloon->available);
	archive_u64(archive, &balloon->available_before);
	archive_u64(archive, &balloon->committed);
	archive_u32(archive, &balloon->transaction);
	archive_check(archive, balloon->target <= balloon->pages.frames &&
				       balloon->available <= balloon->pages.held &&
				       balloon->available_before <= balloon->pages.held &&
				       balloon->asked < REQUESTS);
	archive_check(archive, balloon->asked != ASKED_TO_ADD || pages_can_add(&balloon->pages));
	if (archive->error)
		return;
	if (archive->loading)
		populate_to(balloon,
			    balloon->pages.held +
				    (balloon->asked == ASKED_TO_ADD ? balloon->pages.region : 0));
	check_balloon(balloon);
}

/* ---- the unit ---- */

static void unit_archive(struct archive *archive, void *self) { balloon_archive(archive, self); }
static void unit_destroy(void *self) { balloon_destroy(self); }

/* Who gave advice knows of the other machine alone. */
static void unit_forked(void *self) { ((struct balloon *)self)->advice = 0; }

static void unit_tick(void *self, unsigned seconds)
{
	(void)seconds;
	balloon_tick(self);
}

const struct unit_ops balloon_unit = {
	.name = "dynamic memory",
	.section = UNIT_SECTION('D', 'M', 'E', 'M'),
	.destroy = unit_destroy,
	.archive = unit_archive,
	.tick = unit_tick, .forked = unit_forked,
};
