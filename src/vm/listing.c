/*
 * What the engine has translated at an address of the guest's (umbra debug block), in the form that
 * who asks reads (ipc/code_listing.h). The address is looked up in the guest's page tables, by the
 * root that was named; where that does not have it, or none was, what was made for that address
 * first is listed.
 *
 *    - A walk reads four entries and no more. What the guest says there leads only to a guest
 *      physical address, of which the engine lists what it has.
 */
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "ipc/code_listing.h"
#include "memory/memory.h"

enum {
	LEVELS = 4,
	LEVEL_BITS = 9,
	PAGE_BITS = 12,
	ENTRY_BYTES = 8,
	ENTRY_PRESENT = 1,
	ENTRY_LARGE = 0x80,
	LARGE_LEVELS = 3 /* below the highest */
};
#define ADDRESS_MASK 0x000ffffffffff000ull

_Static_assert((int)LISTING_GUEST_BYTES == (int)ENGINE_LISTED_GUEST_BYTES &&
		       (int)LISTING_HOST_BYTES == (int)ENGINE_LISTED_HOST_BYTES &&
		       (int)LISTING_MAPS == (int)ENGINE_LISTED_MAPS &&
		       sizeof(struct listing_map) ==
			       sizeof(((struct engine_listed *)NULL)->map[0]),
	       "as it is told");

static bool walk(const struct guest_memory *memory, uint64_t root, uint64_t gva, uint64_t *ret_gpa)
{
	uint64_t entry = root;

	for (unsigned level = LEVELS; level--;) {
		const unsigned shift = PAGE_BITS + LEVEL_BITS * level;
		const uint64_t index = gva >> shift & ((1u << LEVEL_BITS) - 1);
		const uint64_t offset_mask = (1ull << shift) - 1;

		guest_memory_begin();
		if (guest_memory_read(memory, (entry & ADDRESS_MASK) + index * ENTRY_BYTES, &entry,
				      sizeof(entry)) ||
		    !(entry & ENTRY_PRESENT))
			return false;
		if (!level || (level < LARGE_LEVELS && entry & ENTRY_LARGE)) {
			*ret_gpa = (entry & ADDRESS_MASK & ~offset_mask) | (gva & offset_mask);
			return true;
		}
	}
	return false;
}

/* Of a machine whose memory is still coming a walk would wait. */
static uint64_t find_place(const struct machine *machine, const struct listing_wanted *wanted)
{
	uint64_t gpa;

	return wanted->has_root && demand_seems_whole(machine) &&
			       walk(&machine->memory, wanted->root, wanted->gva, &gpa)
		       ? gpa
		       : ENGINE_LISTED_ANYWHERE;
}

static size_t put(uint8_t *to, size_t at, const void *data, size_t bytes)
{
	memcpy(to + at, data, bytes);
	return at + bytes;
}

/* Of LISTING_BYTES there is room. */
static size_t write_listing(const struct engine_listed *listed, uint8_t *to)
{
	const struct listing_head head = {
		.gva = listed->gva,
		.gpa = listed->gpa,
		.code_bits = listed->code_bits,
		.insns = listed->insns,
		.links = listed->links,
		.guest_bytes = listed->guest_bytes,
		.host_bytes = listed->host_bytes,
		.hot_begin = listed->hot_begin,
		.hot_end = listed->hot_end,
		.maps = listed->maps,
		.is_user = listed->is_user,
		.is_part = listed->is_part,
	};
	size_t at = put(to, 0, &head, sizeof(head));

	at = put(to, at, listed->map, listed->maps * sizeof(listed->map[0]));
	at = put(to, at, listed->guest, listed->guest_bytes);
	at = put(to, at, listed->host, listed->host_bytes);
	assert(at <= LISTING_BYTES);
	return at;
}

int machine_list(struct machine *machine, const struct listing_wanted *wanted,
		 void (*said)(void *context, const void *data, size_t bytes), void *context)
{
	/* on the stack: the process has no right to more memory by now */
	struct engine_listed listed;
	uint8_t text[LISTING_BYTES];
	const uint64_t gpa = find_place(machine, wanted);
	unsigned n = 0;

	while (n < LISTINGS_MOST && engine_list(machine->engine, gpa, wanted->gva, n, &listed)) {
		said(context, text, write_listing(&listed, text));
		n++;
	}
	return n ? 0 : -ENXIO;
}
