/*
 * Guest physical address descriptor lists: pages that the guest names once and both sides use by a number. One range of whole
 * pages each; the numbers are copied as they come, and are not looked at: every use of a page is checked where it happens.
 *
 * Memory: mapped for each, because the process may not grow its heap on every thread once it is locked down; GPADLS of them with
 * GPADL_PAGES_MAX pages together.
 */
#include "vmbus_internal.h"

#include <sys/mman.h>

static size_t list_bytes(const struct gpadl *g) { return (size_t)g->pages * sizeof(*g->gfn); }

static void drop(struct bus *b, struct gpadl *g)
{
	munmap(g->gfn, list_bytes(g));
	b->gpadl_pages -= g->pages;
	*g = (struct gpadl){ 0 };
}

void gpadl_drop_all(struct bus *b)
{
	for (unsigned n = 0; n < GPADLS; n++)
		if (b->gpadl[n].used)
			drop(b, &b->gpadl[n]);
}

static struct gpadl *find(struct bus *b, uint32_t id)
{
	for (unsigned n = 0; n < GPADLS; n++)
		if (b->gpadl[n].used && b->gpadl[n].id == id)
			return &b->gpadl[n];
	return NULL;
}

const struct gpadl *gpadl_find(struct bus *b, uint32_t id, uint32_t relid)
{
	const struct gpadl *g = find(b, id);

	return g && g->complete && g->relid == relid ? g : NULL;
}

static void created(struct bus *b, uint32_t relid, uint32_t id, uint32_t status)
{
	const struct vmbus_gpadl_created m = { .head.kind = VMBUS_GPADL_CREATED, .relid = relid, .gpadl = id, .status = status };

	bus_post(b, &m, sizeof(m));
}

/* Takes numbers until there are enough; more than that are not looked at. */
static void take(struct bus *b, struct gpadl *g, const uint8_t *from, size_t bytes)
{
	uint32_t count = (uint32_t)(bytes / sizeof(*g->gfn)), wanted = g->pages - g->have;

	count = count < wanted ? count : wanted;
	memcpy(g->gfn + g->have, from, count * sizeof(*g->gfn));
	g->have += count;
	g->complete = g->have == g->pages;
	if (g->complete)
		created(b, g->relid, g->id, 0);
}

static struct gpadl *make(struct bus *b, const struct vmbus_gpadl_header *h)
{
	uint64_t pages = ((uint64_t)h->offset + h->bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	struct gpadl *g = NULL;

	if (h->ranges != 1 || h->offset || !h->bytes || h->bytes % PAGE_BYTES || pages > GPADL_PAGES_MAX - b->gpadl_pages)
		return NULL;
	/* a list longer than the field can say is as long as its range; drivers let the field wrap */
	if (h->range_bytes != (uint16_t)(8 + 8 * pages) || !bus_find_channel(b, h->relid) || find(b, h->gpadl))
		return NULL;
	for (unsigned n = 0; n < GPADLS && !g; n++)
		g = b->gpadl[n].used ? NULL : &b->gpadl[n];
	if (!g)
		return NULL;
	*g = (struct gpadl){ .used = true, .id = h->gpadl, .relid = h->relid, .pages = (uint32_t)pages };
	g->gfn = mmap(NULL, list_bytes(g), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	g->used = g->gfn != MAP_FAILED;
	b->gpadl_pages += g->used ? g->pages : 0;
	return g->used ? g : NULL;
}

bool gpadl_header(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_gpadl_header h;
	struct gpadl *g;

	if (bytes < sizeof(h))
		return false;
	memcpy(&h, payload, sizeof(h));
	g = make(b, &h);
	if (!g) {
		created(b, h.relid, h.gpadl, STATUS_UNSUCCESSFUL);
		return false;
	}
	take(b, g, payload + sizeof(h), bytes - sizeof(h));
	return true;
}

bool gpadl_body(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_gpadl_body m;
	struct gpadl *g;

	if (bytes < sizeof(m))
		return false;
	memcpy(&m, payload, sizeof(m));
	g = find(b, m.gpadl);
	if (!g || g->complete)
		return false;
	take(b, g, payload + sizeof(m), bytes - sizeof(m));
	return true;
}

bool gpadl_teardown(struct bus *b, const uint8_t *payload, size_t bytes)
{
	struct vmbus_gpadl_torn_down r = { .head.kind = VMBUS_GPADL_TORN_DOWN };
	struct vmbus_gpadl_teardown m;
	struct bus_channel *c;
	struct gpadl *g;

	if (bytes < sizeof(m))
		return false;
	memcpy(&m, payload, sizeof(m));
	g = find(b, m.gpadl);
	if (!g)
		return false;
	c = bus_find_channel(b, g->relid);
	if (c->open && c->gpadl == g->id)
		channel_close(c); /* drivers close before; memory that is taken away is not used in any case */
	drop(b, g);
	r.gpadl = m.gpadl;
	bus_post(b, &r, sizeof(r));
	return true;
}
