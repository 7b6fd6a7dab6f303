/*
 * See balloon.h. Numbers of pages are of 4096 bytes; a page's place in the map is its frame: its
 * number in RAM.
 */
#include "balloon.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "lib/archive.h"
#include "lib/check.h"
#include "lib/speculation.h"

enum {
	DM_VERSION_REQUEST = 1, DM_VERSION_RESPONSE, DM_CAPABILITIES, DM_CAPABILITIES_RESPONSE,
	DM_STATUS, DM_BALLOON, DM_BALLOON_RESPONSE, DM_UNBALLOON,
	DM_UNBALLOON_RESPONSE
};
enum {
	RANGES = 480, RANGE_PAGES_MAX = (1 << 24) - 1, REQUEST_PAGES_MAX = 1 << 18 /* 1 GiB */,
	PAGES_PER_MIB = 256, RESERVE_MIB = 32, CAPABILITY_BALLOON = 1
};
static const uint32_t versions[] = { 0x20000, 0x10000, 0x3 };

struct head { uint16_t type, bytes; uint32_t transaction; };
struct status {
	struct head head;
	uint64_t available, committed, page_file, free;
	uint32_t page_writes, io;
};
struct unballoon { struct head head; uint32_t more, ranges; uint64_t range[RANGES]; };

struct balloon {
	struct bus_service service;
	struct bus_channel *channel;
	const struct balloon_host *host;
	bool ready, known, busy, automatic; /* busy: a request is not answered */
	uint32_t transaction;
	uint64_t pages, inflated, target; /* pages: all of RAM */
	uint64_t available, committed;
	uint64_t *map; /* bit frame: in the balloon */
	size_t map_bytes;
	uint64_t search; /* where the next page to give back is looked for */
};

/* ---- frames ---- */

static uint64_t gfn_of(const struct balloon *balloon, uint64_t frame)
{
	uint64_t low = balloon->host->memory->low_bytes / GUEST_PAGE_BYTES;

	return frame < low ? frame : (1ull << 20) + (frame - low);
}

/* The frame of a gfn, when `count` pages from there on are RAM without a gap; else UINT64_MAX. */
static uint64_t frame_of(const struct balloon *balloon, uint64_t gfn, uint64_t count)
{
	const uint64_t low = balloon->host->memory->low_bytes / GUEST_PAGE_BYTES;
	const uint64_t high = 1ull << 20;

	if (gfn < low)
		return count <= low - gfn ? gfn : UINT64_MAX;
	if (gfn < high || gfn - high > balloon->pages - low ||
	    count > balloon->pages - low - (gfn - high))
		return UINT64_MAX;
	return low + (gfn - high);
}

static bool is_inflated(const struct balloon *balloon, uint64_t frame)
{
	return balloon->map[speculation_bound(frame, balloon->pages) / 64] >> (frame % 64) & 1;
}

static void inflate_frame(struct balloon *balloon, uint64_t frame)
{
	assert(frame < balloon->pages && !is_inflated(balloon, frame));
	balloon->map[speculation_bound(frame, balloon->pages) / 64] |= 1ull << (frame % 64);
	balloon->inflated++;
}

static void deflate_frame(struct balloon *balloon, uint64_t frame)
{
	assert(frame < balloon->pages && is_inflated(balloon, frame) && balloon->inflated);
	balloon->map[speculation_bound(frame, balloon->pages) / 64] &= ~(1ull << (frame % 64));
	balloon->inflated--;
}

static uint64_t frames_in_map(const struct balloon *balloon)
{
	uint64_t count = 0;

	for (size_t n = 0; n < balloon->map_bytes / sizeof(balloon->map[0]); n++)
		count += (unsigned)__builtin_popcountll(balloon->map[n]);
	return count;
}

void check_balloon(const struct balloon *balloon)
{
	assert(frames_in_map(balloon) == balloon->inflated && balloon->inflated <= balloon->pages);
	assert(balloon->pages % 64 == 0 ||
	       !(balloon->map[balloon->pages / 64] >> (balloon->pages % 64)));
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
	} m = { { type, sizeof(m), transaction }, value };

	balloon_send(balloon, &m, sizeof(m));
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
	answer_u64(balloon, DM_CAPABILITIES_RESPONSE, head->transaction, balloon->ready);
}

static void take_status(struct balloon *balloon, const uint8_t *packet, size_t bytes)
{
	struct status status;

	if (bytes < sizeof(status))
		return;
	memcpy(&status, packet, sizeof(status));
	balloon->available = status.available < balloon->pages ? status.available : balloon->pages;
	balloon->committed = status.committed;
	balloon->known = true;
}

static int inflate_range(struct balloon *balloon, uint64_t range)
{
	uint64_t gfn = range & ((1ull << 40) - 1);
	uint64_t count = range >> 40;
	uint64_t frame = frame_of(balloon, gfn, count);

	if (frame == UINT64_MAX)
		return -EBADMSG;
	for (uint64_t n = 0; n < count; n++) {
		if (is_inflated(balloon, frame + n))
			return -EBADMSG;
		inflate_frame(balloon, frame + n);
	}
	CHECK(check_balloon(balloon));
	if (count)
		balloon->host->discard(balloon->host->context, gfn * GUEST_PAGE_BYTES,
				       count * GUEST_PAGE_BYTES);
	return 0;
}

/* One of several: `more` says that others come. */
static int take_pages(struct balloon *balloon, const uint8_t *data, size_t bytes)
{
	struct { uint32_t reserved, more_and_count; } h;
	int error = 0;

	if (!balloon->busy || bytes < sizeof(h))
		return -EBADMSG;
	memcpy(&h, data, sizeof(h));
	if ((h.more_and_count >> 1) > (bytes - sizeof(h)) / 8)
		return -EBADMSG;
	for (uint32_t n = 0; n < h.more_and_count >> 1 && !error; n++) {
		uint64_t range;

		memcpy(&range, data + sizeof(h) + 8 * (size_t)n, sizeof(range));
		error = inflate_range(balloon, range);
	}
	balloon->busy = h.more_and_count & 1;
	return error;
}

static int packet(void *context, const struct bus_packet *received)
{
	struct balloon *balloon = context;
	struct head head;

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
		return take_pages(balloon, received->payload + sizeof(head),
				  received->payload_bytes - sizeof(head));
	case DM_UNBALLOON_RESPONSE: balloon->busy = false; return 0;
	default: return 0; /* of versions to come */
	}
}

/* ---- what it is asked for ---- */

static void ask_to_inflate(struct balloon *balloon, uint64_t pages)
{
	const struct {
		struct head head;
		uint32_t pages, reserved;
	} m = { { DM_BALLOON, sizeof(m), ++balloon->transaction },
		(uint32_t)(pages < REQUEST_PAGES_MAX ? pages : REQUEST_PAGES_MAX),
		0 };

	balloon->busy = true;
	balloon_send(balloon, &m, sizeof(m));
}

/* The next range of pages in the balloon, at most `most`; they are the guest's again. */
static uint64_t deflate_run(struct balloon *balloon, uint64_t most)
{
	uint64_t first;
	uint64_t count = 0;

	while (!is_inflated(balloon, balloon->search % balloon->pages))
		balloon->search++;
	first = balloon->search % balloon->pages;
	most = most < RANGE_PAGES_MAX ? most : RANGE_PAGES_MAX;
	while (count < most && first + count < balloon->pages &&
	       gfn_of(balloon, first + count) - gfn_of(balloon, first) == count &&
	       is_inflated(balloon, first + count))
		deflate_frame(balloon, first + count++);
	CHECK(check_balloon(balloon));
	return gfn_of(balloon, first) | count << 40;
}

static void ask_to_deflate(struct balloon *balloon, uint64_t pages)
{
	struct unballoon unballoon = { .head = { DM_UNBALLOON, 0, ++balloon->transaction } };

	for (; pages && balloon->inflated && unballoon.ranges < RANGES; unballoon.ranges++) {
		unballoon.range[unballoon.ranges] = deflate_run(balloon, pages);
		pages -= unballoon.range[unballoon.ranges] >> 40;
	}
	unballoon.head.bytes = (uint16_t)(offsetof(struct unballoon, range) +
					  unballoon.ranges * sizeof(unballoon.range[0]));
	balloon->busy = true;
	balloon_send(balloon, &unballoon, unballoon.head.bytes);
}

/*
 * What the guest has promised to its programs and needs for itself, and a fifth of it; the driver
 * counts its balloon into it. Pages, between the least and all.
 */
static uint64_t wanted(const struct balloon *balloon)
{
	uint64_t least = balloon->host->least_bytes / GUEST_PAGE_BYTES;
	uint64_t uses =
		balloon->committed > balloon->inflated ? balloon->committed - balloon->inflated : 0;
	uint64_t want;

	if (!balloon->automatic)
		return balloon->target;
	if (!balloon->known)
		return balloon->pages;
	uses = uses < balloon->pages ? uses : balloon->pages;
	want = uses + uses / 5 + RESERVE_MIB * PAGES_PER_MIB;
	if (want < least)
		return least;
	return want < balloon->pages ? want : balloon->pages;
}

void balloon_tick(struct balloon *balloon)
{
	uint64_t assigned, want, slack;

	bus_channel_lock(balloon->channel);
	assigned = balloon->pages - balloon->inflated;
	want = wanted(balloon);
	slack = balloon->automatic ? balloon->pages / 32 : 0; /* no to and fro for little */
	if (balloon->ready && !balloon->busy && assigned > want + slack)
		ask_to_inflate(balloon, assigned - want);
	else if (balloon->ready && !balloon->busy && assigned < want)
		ask_to_deflate(balloon, want - assigned);
	bus_channel_unlock(balloon->channel);
}

void balloon_set_target(struct balloon *balloon, uint64_t bytes)
{
	uint64_t pages = bytes / GUEST_PAGE_BYTES;

	bus_channel_lock(balloon->channel);
	balloon->automatic = !bytes;
	balloon->target = pages < balloon->pages ? pages : balloon->pages;
	bus_channel_unlock(balloon->channel);
}

void balloon_status(struct balloon *balloon, struct balloon_status *ret)
{
	bus_channel_lock(balloon->channel);
	*ret = (struct balloon_status){ .is_there = balloon->ready,
					.is_known = balloon->ready && balloon->known,
					.automatic = balloon->automatic,
					.assigned_bytes = (balloon->pages - balloon->inflated) *
							  GUEST_PAGE_BYTES,
					.target_bytes = wanted(balloon) * GUEST_PAGE_BYTES,
					.available_bytes = balloon->available * GUEST_PAGE_BYTES,
					.committed_bytes = balloon->committed * GUEST_PAGE_BYTES };
	bus_channel_unlock(balloon->channel);
}

/* ---- life ---- */

/*
 * A driver that comes anew has all of the memory: a guest that was started again, or one that let
 * its pages go.
 */
static void opened(void *context)
{
	struct balloon *balloon = context;

	balloon->ready = balloon->known = balloon->busy = false;
	balloon->inflated = 0;
	memset(balloon->map, 0, balloon->map_bytes);
}

static void closed(void *context) { ((struct balloon *)context)->ready = false; }

struct balloon *balloon_create(struct bus *bus, const struct balloon_host *host)
{
	struct balloon *balloon = calloc(1, sizeof(*balloon));

	if (!balloon)
		return NULL;
	balloon->host = host;
	balloon->pages = balloon->target = host->memory->ram_bytes / GUEST_PAGE_BYTES;
	balloon->automatic = host->least_bytes < host->memory->ram_bytes;
	balloon->map_bytes = (balloon->pages + 63) / 64 * 8;
	balloon->map = calloc(1, balloon->map_bytes);
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
	balloon->channel = balloon->map ? bus_offer(bus, &balloon->service) : NULL;
	if (balloon->channel)
		return balloon;
	balloon_destroy(balloon);
	return NULL;
}

void balloon_destroy(struct balloon *balloon)
{
	if (balloon)
		free(balloon->map);
	free(balloon);
}

/* ---- saved state ---- */

static void map_archive(struct archive *archive, struct balloon *balloon)
{
	archive_u64s(archive, balloon->map, balloon->map_bytes / sizeof(balloon->map[0]));
	if (!archive->loading || archive->error)
		return;
	balloon->inflated = frames_in_map(balloon);
	archive_check(archive, balloon->pages % 64 == 0 || !(balloon->map[balloon->pages / 64] >>
							     (balloon->pages % 64)));
}

void balloon_archive(struct archive *archive, struct balloon *balloon)
{
	uint64_t pages = balloon->pages;

	archive_u64(archive, &pages);
	if (!archive->error && pages != balloon->pages)
		archive_fail(archive, -ENOTSUP, "it has another amount of memory");
	archive_bool(archive, &balloon->ready);
	archive_bool(archive, &balloon->known);
	archive_bool(archive, &balloon->busy);
	archive_bool(archive, &balloon->automatic);
	archive_u64(archive, &balloon->target);
	archive_u64(archive, &balloon->available);
	archive_u64(archive, &balloon->committed);
	archive_u32(archive, &balloon->transaction);
	archive_check(archive,
		      balloon->target <= balloon->pages && balloon->available <= balloon->pages);
	map_archive(archive, balloon);
	if (!archive->error)
		check_balloon(balloon);
}

/* ---- the unit ---- */

static void unit_archive(struct archive *archive, void *self) { balloon_archive(archive, self); }
static void unit_destroy(void *self) { balloon_destroy(self); }

static void unit_tick(void *self, unsigned seconds)
{
	(void)seconds;
	balloon_tick(self);
}

const struct unit_ops balloon_unit = {
	.name = "dynamic memory", .section = UNIT_SECTION('D', 'M', 'E', 'M'),
	.destroy = unit_destroy, .archive = unit_archive,
	.tick = unit_tick,
};
