/*
 * A proxy of a served disk as bytes and back, with its controller: what is pending goes on, by its
 * numbers, with the bytes that are to be written.
 *
 * The controller's requests and the proxy's are of one moment: each slot that is with a server
 * there is pending here. Where that cannot go on (nobody will be at the port, or bytes were lost
 * with a window) what is pending fails.
 */
#include "disk_proxy_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/archive.h"
#include "lib/check.h"

static void disk_archive(struct archive *archive, struct disk_proxy *proxy)
{
	struct share_disk_welcome *disk = &proxy->disk;

	archive_bool(archive, &proxy->is_known);
	if (!proxy->is_known || archive->error)
		return;
	archive_u32(archive, &disk->version);
	archive_u32(archive, &disk->flags);
	archive_u64(archive, &disk->size_bytes);
	archive_u32(archive, &disk->sector_bytes);
	archive_u32(archive, &disk->physical_bytes);
	archive_bytes(archive, disk->id, sizeof(disk->id));
	archive_check(archive, disk->version >= SHARE_DISK_1_1 && disk->version <= SHARE_DISK_1_3 &&
				       disk_proxy_is_disk(disk));
}

static bool is_sound(const struct disk_proxy *proxy, const struct pending *pending)
{
	const struct slot_request *request = &pending->request;
	const bool moves = request->kind == BLOCK_READ || request->kind == BLOCK_WRITE;

	for (unsigned n = 0; n < request->slot; n++)
		if (proxy->pending[n].is_there && proxy->pending[n].number == pending->number)
			return false;
	return pending->number > (disk_proxy_is_long(request) ? SLOTS : 0) &&
	       pending->number <= proxy->last_number && request->kind <= BLOCK_FLUSH &&
	       (!moves || request->bytes <= (SLOTS - request->slot) * (uint64_t)SLOT_BYTES) &&
	       request->offset <= proxy->disk.size_bytes &&
	       request->bytes <= proxy->disk.size_bytes - request->offset;
}

/* As the controller has submitted it, and the proxy taken. */
static void take_again(struct disk_proxy *proxy, const struct slot_request *request)
{
	struct slot_request taken;
	int got;

	slot_submit(&proxy->disk_client, request);
	got = slot_take(&proxy->disk_server, &taken);
	assert(got > 0 && taken.slot == request->slot);
}

static void pending_archive(struct archive *archive, struct disk_proxy *proxy, unsigned slot)
{
	struct pending pending = proxy->pending[slot];
	const size_t at = slot * (size_t)SLOT_BYTES;

	archive_bool(archive, &pending.is_there);
	if (!pending.is_there || archive->error)
		return;
	pending.request.slot = (uint16_t)slot;
	pending.sent = pending.done = 0;
	pending.result = 0;
	archive_u64(archive, &pending.number);
	archive_u16(archive, &pending.request.kind);
	archive_u64(archive, &pending.request.offset);
	archive_u64(archive, &pending.request.bytes);
	if (!archive_check(archive, is_sound(proxy, &pending)))
		return;
	if (pending.request.kind == BLOCK_WRITE)
		archive_bytes(archive, archive->loading ? proxy->written + at : proxy->stood + at,
			      pending.request.bytes);
	if (!archive->loading || archive->error)
		return;
	proxy->pending[slot] = pending;
	take_again(proxy, &pending.request);
}

/* Those behind its own, in the controller. */
static void claim_slots(struct archive *archive, struct disk_proxy *proxy, unsigned slot)
{
	const struct pending *pending = &proxy->pending[slot];

	if (pending->is_there && disk_proxy_is_long(&pending->request))
		archive_check(archive, storage_served_claim(proxy->storage, slot,
							    pending->request.bytes));
}

static uint32_t slots_pending(const struct disk_proxy *proxy)
{
	uint32_t slots = 0;

	for (unsigned n = 0; n < SLOTS; n++)
		slots |= (uint32_t)proxy->pending[n].is_there << n;
	return slots;
}

/* In a process that is another one now its window is not there: what is written is what stood. */
void disk_proxy_archive(struct archive *archive, struct disk_proxy *proxy)
{
	uint64_t last_old = proxy->is_old ? proxy->last_old : proxy->last_number;

	disk_archive(archive, proxy);
	archive_u64(archive, &proxy->session);
	archive_u64(archive, &proxy->last_number);
	archive_u64(archive, &last_old);
	archive_bool(archive, &proxy->stood_lost);
	/* numbers that are given from here on do not come round */
	archive_check(archive, last_old <= proxy->last_number && proxy->last_number <= INT64_MAX);
	if (archive->loading && !archive->error) {
		const struct block_disk disk = disk_proxy_block_disk(proxy);

		proxy->last_old = last_old;
		if (proxy->is_known)
			storage_know(proxy->storage, &disk);
	}
	for (unsigned n = 0; n < SLOTS && !archive->error; n++)
		pending_archive(archive, proxy, n);
	archive_check(archive, proxy->is_known || !slots_pending(proxy));
	storage_served_archive(archive, proxy->storage);
	archive_check(archive,
		      slots_pending(proxy) == storage_slots_under_way(proxy->storage));
	for (unsigned n = 0; n < SLOTS && archive->loading && !archive->error; n++)
		claim_slots(archive, proxy, n);
}

void disk_proxy_restored(struct disk_proxy *proxy)
{
	if (!proxy->memory->side)
		disk_proxy_leave(proxy);
	else if (proxy->stood_lost)
		disk_proxy_fail_pending(proxy);
	proxy->next_session = proxy->epoch;
	proxy->is_old = disk_proxy_has_old(proxy);
	if (!proxy->is_old)
		proxy->session = proxy->next_session;
	CHECK(check_disk_proxy(proxy));
}
