/*
 * Guest physical address descriptor lists (GPADL): pages that the guest names once and both sides
 * use by a number. One range of whole pages each; the numbers are copied as they come, and are not
 * looked at: every use of a page is checked where it happens.
 *
 *  1. The lists together have gpadl_pages pages, at most GPADL_PAGES_MAX, and no two the same
 *     number.
 *  2. A list is complete when as many page numbers have come as it has pages; only then a channel
 *     can be opened on it.
 *  3. A channel has copies of its complete lists, under its own lock: its service uses them without
 *     the bus's. A list goes there first.
 *
 * One is torn down while a packet is in flight: a channel whose ring lies in it is closed first
 * (channel_close()), and the packet that is being taken is finished before that, since both need
 * the channel's lock. A buffer goes from the channel's copies under the same lock, and its service
 * is told (gpadl_gone). What a service has given to another process by then ends there, and its
 * answer touches no memory of the guest's (device/storvsp/storage.c).
 *
 * Memory: mapped for each, because the process may not grow its heap on every thread once it is
 * locked down.
 */
#include "vmbus_internal.h"

#include <assert.h>
#include <sys/mman.h>

#include "lib/check.h"

enum { RANGE_HEAD_BYTES = 8, GFN_BYTES = sizeof(uint64_t) };

static size_t list_bytes(const struct gpadl *gpadl) { return (size_t)gpadl->pages * GFN_BYTES; }

void check_gpadls(const struct bus *bus)
{
	uint32_t pages = 0;

	for (unsigned n = 0; n < GPADLS; n++) {
		const struct gpadl *gpadl = &bus->gpadl[n];

		if (!gpadl->used)
			continue;
		pages += gpadl->pages;
		assert(gpadl->gfn && gpadl->have <= gpadl->pages);
		assert(gpadl->complete == (gpadl->have == gpadl->pages));
		for (unsigned other = 0; other < n; other++)
			assert(!bus->gpadl[other].used || bus->gpadl[other].id != gpadl->id);
	}
	assert(pages == bus->gpadl_pages && pages <= GPADL_PAGES_MAX);
}

/* Its channel's copy; a channel that has CHANNEL_GPADLS has no more. */
void gpadl_completed(struct bus *bus, const struct gpadl *gpadl)
{
	struct bus_channel *channel = bus_find_channel(bus, gpadl->relid);
	unsigned n = 0;

	assert(gpadl->complete);
	bus_channel_lock(channel);
	while (n < CHANNEL_GPADLS && channel->buffer[n].used)
		n++;
	if (n < CHANNEL_GPADLS)
		channel->buffer[n] = *gpadl;
	bus_channel_unlock(channel);
}

static void leave_channel(struct bus *bus, const struct gpadl *gpadl)
{
	struct bus_channel *channel = bus_find_channel(bus, gpadl->relid);

	bus_channel_lock(channel);
	for (unsigned n = 0; n < CHANNEL_GPADLS; n++) {
		if (!channel->buffer[n].used || channel->buffer[n].id != gpadl->id)
			continue;
		if (channel->service && channel->service->gpadl_gone)
			channel->service->gpadl_gone(channel->service->context, gpadl->id);
		channel->buffer[n] = (struct gpadl){ .used = false };
	}
	bus_channel_unlock(channel);
}

const uint64_t *bus_channel_gpadl(struct bus_channel *channel, uint32_t id, uint32_t *ret_pages)
{
	for (unsigned n = 0; n < CHANNEL_GPADLS; n++) {
		if (!channel->buffer[n].used || channel->buffer[n].id != id)
			continue;
		*ret_pages = channel->buffer[n].pages;
		return channel->buffer[n].gfn;
	}
	return NULL;
}

static bool names_any(const struct gpadl *gpadl, uint64_t gfn, uint64_t pages)
{
	for (uint32_t n = 0; n < gpadl->have; n++)
		if (gpadl->gfn[n] - gfn < pages)
			return true;
	return false;
}

bool bus_holds_pages(struct bus *bus, uint64_t gfn, uint64_t pages)
{
	bool holds = false;

	pthread_mutex_lock(&bus->pages_lock);
	for (unsigned n = 0; n < GPADLS && !holds; n++)
		holds = bus->gpadl[n].used && names_any(&bus->gpadl[n], gfn, pages);
	pthread_mutex_unlock(&bus->pages_lock);
	return holds;
}

static void gpadl_drop(struct bus *bus, struct gpadl *gpadl)
{
	assert(gpadl->used && bus->gpadl_pages >= gpadl->pages);
	leave_channel(bus, gpadl);
	pthread_mutex_lock(&bus->pages_lock);
	munmap(gpadl->gfn, list_bytes(gpadl));
	bus->gpadl_pages -= gpadl->pages;
	*gpadl = (struct gpadl){ .used = false };
	pthread_mutex_unlock(&bus->pages_lock);
}

void gpadl_drop_all(struct bus *bus)
{
	for (unsigned n = 0; n < GPADLS; n++)
		if (bus->gpadl[n].used)
			gpadl_drop(bus, &bus->gpadl[n]);
	CHECK(check_gpadls(bus));
}

void gpadl_drop_of_channel(struct bus *bus, uint32_t relid)
{
	for (unsigned n = 0; n < GPADLS; n++)
		if (bus->gpadl[n].used && bus->gpadl[n].relid == relid)
			gpadl_drop(bus, &bus->gpadl[n]);
	CHECK(check_gpadls(bus));
}

static struct gpadl *gpadl_find(struct bus *bus, uint32_t id)
{
	for (unsigned n = 0; n < GPADLS; n++)
		if (bus->gpadl[n].used && bus->gpadl[n].id == id)
			return &bus->gpadl[n];
	return NULL;
}

const struct gpadl *gpadl_of_channel(struct bus *bus, uint32_t id, uint32_t relid)
{
	const struct gpadl *gpadl = gpadl_find(bus, id);

	return gpadl && gpadl->complete && gpadl->relid == relid ? gpadl : NULL;
}

static void post_created(struct bus *bus, uint32_t relid, uint32_t id, uint32_t status)
{
	const struct vmbus_gpadl_created created = {
		.head.kind = VMBUS_GPADL_CREATED, .relid = relid, .gpadl = id, .status = status,
	};

	bus_post(bus, &created, sizeof(created));
}

/* Takes numbers until there are enough; more than that are not looked at. */
static void gpadl_append(struct bus *bus, struct gpadl *gpadl, const uint8_t *from, size_t bytes)
{
	uint32_t count = (uint32_t)(bytes / GFN_BYTES);
	uint32_t wanted = gpadl->pages - gpadl->have;

	count = count < wanted ? count : wanted;
	pthread_mutex_lock(&bus->pages_lock);
	memcpy(gpadl->gfn + gpadl->have, from, count * GFN_BYTES);
	gpadl->have += count;
	pthread_mutex_unlock(&bus->pages_lock);
	gpadl->complete = gpadl->have == gpadl->pages;
	if (gpadl->complete) {
		gpadl_completed(bus, gpadl);
		post_created(bus, gpadl->relid, gpadl->id, 0);
	}
	CHECK(check_gpadls(bus));
}

struct gpadl *gpadl_make(struct bus *bus, uint32_t id, uint32_t relid, uint64_t pages)
{
	struct gpadl *gpadl = NULL;
	struct gpadl made;

	if (!pages || pages > GPADL_PAGES_MAX - bus->gpadl_pages)
		return NULL;
	if (!bus_find_channel(bus, relid) || gpadl_find(bus, id))
		return NULL;
	for (unsigned n = 0; n < GPADLS && !gpadl; n++)
		gpadl = bus->gpadl[n].used ? NULL : &bus->gpadl[n];
	if (!gpadl)
		return NULL;
	made = (struct gpadl){ .used = true, .id = id, .relid = relid, .pages = (uint32_t)pages };
	made.gfn = mmap(NULL, list_bytes(&made), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (made.gfn == MAP_FAILED)
		return NULL;
	pthread_mutex_lock(&bus->pages_lock);
	*gpadl = made;
	pthread_mutex_unlock(&bus->pages_lock);
	bus->gpadl_pages += gpadl->pages;
	return gpadl;
}

/* One range of whole pages; *ret_pages is their number. */
static bool is_header(const struct vmbus_gpadl_header *header, uint64_t *ret_pages)
{
	*ret_pages = header->bytes / PAGE_BYTES;
	if (header->ranges != 1 || header->offset || !header->bytes || header->bytes % PAGE_BYTES)
		return false;
	/*
	 * a list longer than the field can say is as long as its range; drivers let the field wrap
	 */
	return header->range_bytes == (uint16_t)(RANGE_HEAD_BYTES + GFN_BYTES * *ret_pages);
}

bool gpadl_header(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_gpadl_header header;
	struct gpadl *gpadl = NULL;
	uint64_t pages;

	if (bytes < sizeof(header))
		return false;
	memcpy(&header, payload, sizeof(header));
	if (is_header(&header, &pages))
		gpadl = gpadl_make(bus, header.gpadl, header.relid, pages);
	if (!gpadl) {
		post_created(bus, header.relid, header.gpadl, STATUS_UNSUCCESSFUL);
		return false;
	}
	gpadl_append(bus, gpadl, payload + sizeof(header), bytes - sizeof(header));
	return true;
}

bool gpadl_body(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_gpadl_body body;
	struct gpadl *gpadl;

	if (bytes < sizeof(body))
		return false;
	memcpy(&body, payload, sizeof(body));
	gpadl = gpadl_find(bus, body.gpadl);
	if (!gpadl || gpadl->complete)
		return false;
	gpadl_append(bus, gpadl, payload + sizeof(body), bytes - sizeof(body));
	return true;
}

bool gpadl_teardown(struct bus *bus, const uint8_t *payload, size_t bytes)
{
	struct vmbus_gpadl_torn_down torn_down = { .head.kind = VMBUS_GPADL_TORN_DOWN };
	struct vmbus_gpadl_teardown teardown;
	struct bus_channel *channel;
	struct gpadl *gpadl;

	if (bytes < sizeof(teardown))
		return false;
	memcpy(&teardown, payload, sizeof(teardown));
	gpadl = gpadl_find(bus, teardown.gpadl);
	if (!gpadl)
		return false;
	channel = bus_find_channel(bus, gpadl->relid);
	if (channel->state != CHANNEL_CLOSED && channel->gpadl == gpadl->id)
		/* drivers close before; memory that is taken away is not used in any case */
		channel_close(channel);
	gpadl_drop(bus, gpadl);
	CHECK(check_gpadls(bus));
	torn_down.gpadl = teardown.gpadl;
	bus_post(bus, &torn_down, sizeof(torn_down));
	return true;
}
