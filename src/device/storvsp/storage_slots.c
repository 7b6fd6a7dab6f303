/*
 * The slots of a command whose data are more than one slot's: its own, and as many behind it, whose
 * requests are parts of it until it is answered. The lock is storage.h's.
 */
#include "storage_internal.h"

#include <assert.h>

unsigned storage_slots_for(const struct storage *storage, uint64_t bytes)
{
	return bytes <= storage->slot_bytes
		       ? 1
		       : (unsigned)((bytes + storage->slot_bytes - 1) / storage->slot_bytes);
}

/* Whether so many from one on are nobody's, or this request's. */
static bool are_free(const struct storage *storage, const struct request *request, unsigned first,
		     unsigned slots)
{
	if (first + slots > storage->client->slots)
		return false;
	for (unsigned n = first; n < first + slots; n++)
		if (&storage->request[n] != request && storage->request[n].state != REQUEST_FREE)
			return false;
	return true;
}

static void claim(struct storage *storage, struct request *request, unsigned slots)
{
	request->parts = slots - 1;
	for (unsigned n = 1; n < slots; n++)
		request[n].state = REQUEST_PART;
	storage->free -= request->parts;
}

bool storage_served_claim(struct storage *storage, unsigned slot, uint64_t bytes)
{
	struct request *request = &storage->request[slot];

	if (bytes > storage->most_bytes ||
	    !are_free(storage, request, slot, storage_slots_for(storage, bytes)))
		return false;
	claim(storage, request, storage_slots_for(storage, bytes));
	return true;
}

struct request *storage_slots_spread(struct storage *storage, struct request *request,
				     unsigned slots)
{
	struct request *to;
	unsigned first = 0;

	while (first < storage->client->slots && !are_free(storage, request, first, slots))
		first++;
	if (first == storage->client->slots)
		return NULL;
	to = &storage->request[first];
	if (to != request) {
		*to = *request;
		to->range.gfn = to->gfn;
		request->state = REQUEST_FREE;
	}
	claim(storage, to, slots);
	return to;
}

void storage_slots_release(struct storage *storage, struct request *request)
{
	assert(request->state != REQUEST_FREE && request->state != REQUEST_PART);
	storage->waiting -= request->state == REQUEST_WAITS;
	for (unsigned n = 0; n <= request->parts; n++)
		request[n].state = REQUEST_FREE;
	storage->free += 1 + request->parts;
	request->parts = 0;
}
