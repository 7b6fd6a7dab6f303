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

static uint64_t gfn_of(const struct balloon *b, uint64_t frame)
{
	uint64_t low = b->host->memory->low_bytes / GUEST_PAGE_BYTES;

	return frame < low ? frame : (1ull << 20) + (frame - low);
}

/* The frame of a gfn, when `count` pages from there on are RAM without a gap; else UINT64_MAX. */
static uint64_t frame_of(const struct balloon *b, uint64_t gfn, uint64_t count)
{
	const uint64_t low = b->host->memory->low_bytes / GUEST_PAGE_BYTES;
	const uint64_t high = 1ull << 20;

	if (gfn < low)
		return count <= low - gfn ? gfn : UINT64_MAX;
	if (gfn < high || gfn - high > b->pages - low || count > b->pages - low - (gfn - high))
		return UINT64_MAX;
	return low + (gfn - high);
}

static bool is_inflated(const struct balloon *b, uint64_t frame)
{
	return b->map[speculation_bound(frame, b->pages) / 64] >> (frame % 64) & 1;
}

static void inflate_frame(struct balloon *b, uint64_t frame)
{
	assert(frame < b->pages && !is_inflated(b, frame));
	b->map[speculation_bound(frame, b->pages) / 64] |= 1ull << (frame % 64);
	b->inflated++;
}

static void deflate_frame(struct balloon *b, uint64_t frame)
{
	assert(frame < b->pages && is_inflated(b, frame) && b->inflated);
	b->map[speculation_bound(frame, b->pages) / 64] &= ~(1ull << (frame % 64));
	b->inflated--;
}

static uint64_t frames_in_map(const struct balloon *b)
{
	uint64_t count = 0;

	for (size_t n = 0; n < b->map_bytes / sizeof(b->map[0]); n++)
		count += (unsigned)__builtin_popcountll(b->map[n]);
	return count;
}

void check_balloon(const struct balloon *b)
{
	assert(frames_in_map(b) == b->inflated && b->inflated <= b->pages);
	assert(b->pages % 64 == 0 || !(b->map[b->pages / 64] >> (b->pages % 64)));
}

/* ---- what the guest says ---- */

static void balloon_send(struct balloon *b, const void *message, size_t bytes)
{
	bus_channel_send(b->channel, PACKET_INBAND, 0, message, bytes);
}

static void answer_u64(struct balloon *b, uint16_t type, uint32_t transaction, uint64_t value)
{
	const struct {
		struct head head;
		uint64_t value;
	} m = { { type, sizeof(m), transaction }, value };

	balloon_send(b, &m, sizeof(m));
}

static void take_version(struct balloon *b, const struct head *h, const uint8_t *data, size_t bytes)
{
	uint32_t version = 0;
	bool known = false;

	if (bytes >= sizeof(version))
		memcpy(&version, data, sizeof(version));
	for (size_t n = 0; n < sizeof(versions) / sizeof(versions[0]); n++)
		known |= versions[n] == version;
	answer_u64(b, DM_VERSION_RESPONSE, h->transaction, known);
}

static void take_capabilities(struct balloon *b, const struct head *h, const uint8_t *data,
			      size_t bytes)
{
	uint64_t capabilities = 0;

	if (bytes >= sizeof(capabilities))
		memcpy(&capabilities, data, sizeof(capabilities));
	b->ready = capabilities & CAPABILITY_BALLOON;
	answer_u64(b, DM_CAPABILITIES_RESPONSE, h->transaction, b->ready);
}

static void take_status(struct balloon *b, const uint8_t *packet, size_t bytes)
{
	struct status s;

	if (bytes < sizeof(s))
		return;
	memcpy(&s, packet, sizeof(s));
	b->available = s.available < b->pages ? s.available : b->pages;
	b->committed = s.committed;
	b->known = true;
}

static int inflate_range(struct balloon *b, uint64_t range)
{
	uint64_t gfn = range & ((1ull << 40) - 1);
	uint64_t count = range >> 40;
	uint64_t frame = frame_of(b, gfn, count);

	if (frame == UINT64_MAX)
		return -EBADMSG;
	for (uint64_t n = 0; n < count; n++) {
		if (is_inflated(b, frame + n))
			return -EBADMSG;
		inflate_frame(b, frame + n);
	}
	CHECK(check_balloon(b));
	if (count)
		b->host->discard(b->host->context, gfn * GUEST_PAGE_BYTES,
				 count * GUEST_PAGE_BYTES);
	return 0;
}

/* One of several: `more` says that others come. */
static int take_pages(struct balloon *b, const uint8_t *data, size_t bytes)
{
	struct { uint32_t reserved, more_and_count; } h;
	int error = 0;

	if (!b->busy || bytes < sizeof(h))
		return -EBADMSG;
	memcpy(&h, data, sizeof(h));
	if ((h.more_and_count >> 1) > (bytes - sizeof(h)) / 8)
		return -EBADMSG;
	for (uint32_t n = 0; n < h.more_and_count >> 1 && !error; n++) {
		uint64_t range;

		memcpy(&range, data + sizeof(h) + 8 * (size_t)n, sizeof(range));
		error = inflate_range(b, range);
	}
	b->busy = h.more_and_count & 1;
	return error;
}

static int packet(void *context, const struct bus_packet *p)
{
	struct balloon *b = context;
	struct head h;

	if (p->type != PACKET_INBAND || p->payload_bytes < sizeof(h))
		return -EBADMSG;
	memcpy(&h, p->payload, sizeof(h));
	switch (h.type) {
	case DM_VERSION_REQUEST:
		take_version(b, &h, p->payload + sizeof(h), p->payload_bytes - sizeof(h));
		return 0;
	case DM_CAPABILITIES:
		take_capabilities(b, &h, p->payload + sizeof(h), p->payload_bytes - sizeof(h));
		return 0;
	case DM_STATUS: take_status(b, p->payload, p->payload_bytes); return 0;
	case DM_BALLOON_RESPONSE:
		return take_pages(b, p->payload + sizeof(h), p->payload_bytes - sizeof(h));
	case DM_UNBALLOON_RESPONSE: b->busy = false; return 0;
	default: return 0; /* of versions to come */
	}
}

/* ---- what it is asked for ---- */

static void ask_to_inflate(struct balloon *b, uint64_t pages)
{
	const struct {
		struct head head;
		uint32_t pages, reserved;
	} m = { { DM_BALLOON, sizeof(m), ++b->transaction },
		(uint32_t)(pages < REQUEST_PAGES_MAX ? pages : REQUEST_PAGES_MAX),
		0 };

	b->busy = true;
	balloon_send(b, &m, sizeof(m));
}

/* The next range of pages in the balloon, at most `most`; they are the guest's again. */
static uint64_t deflate_run(struct balloon *b, uint64_t most)
{
	uint64_t first;
	uint64_t count = 0;

	while (!is_inflated(b, b->search % b->pages))
		b->search++;
	first = b->search % b->pages;
	most = most < RANGE_PAGES_MAX ? most : RANGE_PAGES_MAX;
	while (count < most && first + count < b->pages &&
	       gfn_of(b, first + count) - gfn_of(b, first) == count &&
	       is_inflated(b, first + count))
		deflate_frame(b, first + count++);
	CHECK(check_balloon(b));
	return gfn_of(b, first) | count << 40;
}

static void ask_to_deflate(struct balloon *b, uint64_t pages)
{
	struct unballoon m = { .head = { DM_UNBALLOON, 0, ++b->transaction } };

	for (; pages && b->inflated && m.ranges < RANGES; m.ranges++) {
		m.range[m.ranges] = deflate_run(b, pages);
		pages -= m.range[m.ranges] >> 40;
	}
	m.head.bytes =
		(uint16_t)(offsetof(struct unballoon, range) + m.ranges * sizeof(m.range[0]));
	b->busy = true;
	balloon_send(b, &m, m.head.bytes);
}

/*
 * What the guest has promised to its programs and needs for itself, and a fifth of it; the driver
 * counts its balloon into it. Pages, between the least and all.
 */
static uint64_t wanted(const struct balloon *b)
{
	uint64_t least = b->host->least_bytes / GUEST_PAGE_BYTES;
	uint64_t uses = b->committed > b->inflated ? b->committed - b->inflated : 0;
	uint64_t want;

	if (!b->automatic)
		return b->target;
	if (!b->known)
		return b->pages;
	uses = uses < b->pages ? uses : b->pages;
	want = uses + uses / 5 + RESERVE_MIB * PAGES_PER_MIB;
	if (want < least)
		return least;
	return want < b->pages ? want : b->pages;
}

void balloon_tick(struct balloon *b)
{
	uint64_t assigned, want, slack;

	bus_channel_lock(b->channel);
	assigned = b->pages - b->inflated;
	want = wanted(b);
	slack = b->automatic ? b->pages / 32 : 0; /* no to and fro for little */
	if (b->ready && !b->busy && assigned > want + slack)
		ask_to_inflate(b, assigned - want);
	else if (b->ready && !b->busy && assigned < want)
		ask_to_deflate(b, want - assigned);
	bus_channel_unlock(b->channel);
}

void balloon_set_target(struct balloon *b, uint64_t bytes)
{
	uint64_t pages = bytes / GUEST_PAGE_BYTES;

	bus_channel_lock(b->channel);
	b->automatic = !bytes;
	b->target = pages < b->pages ? pages : b->pages;
	bus_channel_unlock(b->channel);
}

void balloon_status(struct balloon *b, struct balloon_status *ret)
{
	bus_channel_lock(b->channel);
	*ret = (struct balloon_status){ .is_there = b->ready,
					.is_known = b->ready && b->known,
					.automatic = b->automatic,
					.assigned_bytes =
						(b->pages - b->inflated) * GUEST_PAGE_BYTES,
					.target_bytes = wanted(b) * GUEST_PAGE_BYTES,
					.available_bytes = b->available * GUEST_PAGE_BYTES,
					.committed_bytes = b->committed * GUEST_PAGE_BYTES };
	bus_channel_unlock(b->channel);
}

/* ---- life ---- */

/*
 * A driver that comes anew has all of the memory: a guest that was started again, or one that let
 * its pages go.
 */
static void opened(void *context)
{
	struct balloon *b = context;

	b->ready = b->known = b->busy = false;
	b->inflated = 0;
	memset(b->map, 0, b->map_bytes);
}

static void closed(void *context) { ((struct balloon *)context)->ready = false; }

struct balloon *balloon_create(struct bus *bus, const struct balloon_host *host)
{
	struct balloon *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->host = host;
	b->pages = b->target = host->memory->ram_bytes / GUEST_PAGE_BYTES;
	b->automatic = host->least_bytes < host->memory->ram_bytes;
	b->map_bytes = (b->pages + 63) / 64 * 8;
	b->map = calloc(1, b->map_bytes);
	b->service = (struct bus_service){ .type = GUID(0x525074dc, 0x8985, 0x46e2, 0x80, 0x57,
							0xa3, 0x07, 0xdc, 0x18, 0xa5, 0x02),
					   .instance = GUID(0x1d9a5c3e, 0x7b24, 0x4f0a, 0x9e, 0x63,
							    0x75, 0x6d, 0x62, 0x72, 0x61, 0x02),
					   .elsewhere = true,
					   .opened = opened,
					   .closed = closed,
					   .packet = packet,
					   .context = b };
	b->channel = b->map ? bus_offer(bus, &b->service) : NULL;
	if (b->channel)
		return b;
	balloon_destroy(b);
	return NULL;
}

void balloon_destroy(struct balloon *b)
{
	if (b)
		free(b->map);
	free(b);
}

/* ---- saved state ---- */

static void map_archive(struct archive *archive, struct balloon *b)
{
	archive_u64s(archive, b->map, b->map_bytes / sizeof(b->map[0]));
	if (!archive->loading || archive->error)
		return;
	b->inflated = frames_in_map(b);
	archive_check(archive, b->pages % 64 == 0 || !(b->map[b->pages / 64] >> (b->pages % 64)));
}

void balloon_archive(struct archive *archive, struct balloon *b)
{
	uint64_t pages = b->pages;

	archive_u64(archive, &pages);
	if (!archive->error && pages != b->pages)
		archive_fail(archive, -ENOTSUP, "it has another amount of memory");
	archive_bool(archive, &b->ready);
	archive_bool(archive, &b->known);
	archive_bool(archive, &b->busy);
	archive_bool(archive, &b->automatic);
	archive_u64(archive, &b->target);
	archive_u64(archive, &b->available);
	archive_u64(archive, &b->committed);
	archive_u32(archive, &b->transaction);
	archive_check(archive, b->target <= b->pages && b->available <= b->pages);
	map_archive(archive, b);
	if (!archive->error)
		check_balloon(b);
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
