/*
 * A controller as bytes and back. Version 1 is from before there were drives, and what is told
 * once; 2 from before there were sub-channels. One whose disk another machine serves keeps its
 * requests, which are under way still: whoever serves is asked them again (device/share).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/archive.h"
#include "storage_internal.h"

static bool is_same_disk(const struct scsi_disk *one, const struct scsi_disk *other)
{
	return one->sectors == other->sectors && one->sector_bytes == other->sector_bytes &&
	       one->physical_bytes == other->physical_bytes &&
	       one->read_only == other->read_only && one->is_optical == other->is_optical &&
	       !memcmp(one->id, other->id, sizeof(one->id));
}

/* Of version 1 there are no drives, and nothing that is told once. */
static void disk_state_archive(struct archive *archive, struct storage *storage, unsigned number,
			       struct scsi_disk *disk)
{
	uint8_t event = (uint8_t)disk->event;

	if (archive->version == 1)
		return;
	archive_bool(archive, &disk->is_optical);
	archive_bool(archive, &disk->is_open);
	archive_bool(archive, &disk->is_locked);
	archive_u8(archive, &event);
	archive_u8(archive, &storage->attention[number]);
	archive_check(archive, event <= SCSI_EVENT_GONE &&
				       storage->attention[number] <=
					       (ATTENTION_MEDIUM | ATTENTION_CAPACITY));
	disk->event = (enum scsi_event)event;
}

/* One that is not there has no sectors' size. */
static void disk_archive(struct archive *archive, struct storage *storage, unsigned number)
{
	struct scsi_disk *own = &storage->disk[number];
	struct scsi_disk disk = { .sectors = 0 };

	if (storage->luns >> number & 1)
		disk = *own;
	archive_u64(archive, &disk.sectors);
	archive_u32(archive, &disk.sector_bytes);
	archive_u32(archive, &disk.physical_bytes);
	archive_bool(archive, &disk.read_only);
	archive_bytes(archive, disk.id, sizeof(disk.id));
	disk_state_archive(archive, storage, number, &disk);
	if (archive->error || !archive->loading)
		return;
	if (!(storage->luns >> number & 1) ? disk.sector_bytes != 0 : !is_same_disk(&disk, own)) {
		archive_fail(archive, -ENOTSUP, "it has other disks");
		return;
	}
	own->is_open = disk.is_open;
	own->is_locked = disk.is_locked;
	own->event = disk.event;
}

/* Which disks there are: a machine that was saved goes on with the same. */
static void disks_archive(struct archive *archive, struct storage *storage)
{
	uint32_t count = storage->disks;

	archive_u32(archive, &count);
	if (!archive->error && count != storage->disks)
		archive_fail(archive, -ENOTSUP, "it has another number of disks");
	for (unsigned n = 0; n < storage->disks && !archive->error; n++)
		disk_archive(archive, storage, n);
	if (archive->version != 1)
		archive_bool(archive, &storage->must_tell);
}

/* Completions that found no room in the guest's ring. */
static void waiting_archive(struct archive *archive, struct storage *storage)
{
	uint32_t count = storage->waiting;
	unsigned slot = 0;

	archive_u32(archive, &count);
	if (!archive_check(archive, count <= BLOCK_SLOTS))
		return;
	for (uint32_t n = 0; n < count && !archive->error; n++, slot++) {
		struct request *request;

		while (!archive->loading && storage->request[slot].state != REQUEST_WAITS)
			slot++;
		request = &storage->request[slot];
		archive_u64(archive, &request->transaction);
		if (archive->version != 1 && archive->version != 2) /* which have one channel */
			archive_u32(archive, &request->queue);
		if (!archive_check(archive, request->queue < storage->queues))
			return;
		archive_bytes(archive, &request->packet, sizeof(request->packet));
		if (!archive->loading || archive->error)
			continue;
		request->state = REQUEST_WAITS;
		storage->waiting++;
		storage->free--;
	}
}

void storage_archive(struct archive *archive, struct storage *storage)
{
	assert(storage_is_drained(storage));
	assert(!archive->loading || storage->free == storage->client->slots);
	disks_archive(archive, storage);
	archive_u32(archive, &storage->version);
	archive_bool(archive, &storage->begun);
	archive_check(archive, !storage->version || storage_is_version(storage->version));
	archive_check(archive, storage->version || !storage->begun);
	waiting_archive(archive, storage);
	if (!archive->error)
		check_storage(storage);
}

/* ---- a disk that another machine serves ---- */

/* What it is told to do is decoded again, of the guest's own words. */
static void command_restore(struct archive *archive, struct storage *storage,
			    struct request *request)
{
	const struct vstor_srb *srb = &request->packet.body.srb;
	uint8_t cdb[SCSI_CDB_BYTES] = { 0 };

	if (!archive_check(archive, request->packet.operation == VSTOR_EXECUTE &&
					    srb->cdb_bytes <= SCSI_CDB_BYTES && storage->disks))
		return;
	memcpy(cdb, srb->cdb_or_sense, srb->cdb_bytes);
	scsi_decode(&storage->disk[0], 1, cdb, &request->command);
	archive_check(archive, request->command.act >= SCSI_READ &&
				       request->command.act <= SCSI_WRITE_SAME);
	archive_check(archive, !request->flush_follows ||
				       (request->command.act == SCSI_WRITE &&
					request->command.force_unit_access));
}

static void range_archive(struct archive *archive, struct request *request)
{
	archive_u32(archive, &request->range.bytes);
	archive_u32(archive, &request->range.offset);
	if (!archive_check(archive, request->range.offset < GUEST_PAGE_BYTES &&
					    bus_range_pages(&request->range) <= GFNS))
		return;
	archive_u64s(archive, request->gfn, bus_range_pages(&request->range));
	request->range.gfn = request->gfn;
}

static void unmap_archive(struct archive *archive, const struct storage *storage,
			  struct request *request)
{
	const struct scsi_disk *disk = &storage->disk[0];
	const uint64_t disk_bytes = disk->sectors * disk->sector_bytes;
	uint32_t unmaps = (uint32_t)request->unmaps;
	uint32_t unmapped = (uint32_t)request->unmapped;

	archive_u32(archive, &unmaps);
	archive_u32(archive, &unmapped);
	if (!archive_check(archive, unmaps <= SCSI_UNMAP_RANGES && unmapped <= unmaps))
		return;
	for (uint32_t n = 0; n < unmaps && !archive->error; n++) {
		archive_u64s(archive, request->unmap[n], 2);
		archive_check(archive, request->unmap[n][0] <= disk_bytes &&
					       request->unmap[n][1] <=
						       disk_bytes - request->unmap[n][0]);
	}
	request->unmaps = (int)unmaps;
	request->unmapped = (int)unmapped;
}

/* Of one that is held nothing was begun. */
static void request_archive(struct archive *archive, struct storage *storage,
			    struct request *request, bool is_held)
{
	uint8_t state = request->state == REQUEST_PART ? REQUEST_FREE : (uint8_t)request->state;

	archive_u8(archive, &state);
	if (!archive_check(archive, state < REQUEST_PART &&
					    (!is_held || state == REQUEST_UNDER_WAY)))
		return;
	if (archive->loading && state != REQUEST_FREE) {
		request->state = (enum request_state)state;
		storage->free--;
		storage->waiting += state == REQUEST_WAITS;
	}
	if (state == REQUEST_FREE || state == REQUEST_ORPHAN)
		return;
	archive_u32(archive, &request->queue);
	archive_u64(archive, &request->transaction);
	archive_bytes(archive, &request->packet, sizeof(request->packet));
	archive_check(archive, request->queue < storage->queues);
	if (state == REQUEST_WAITS)
		return;
	range_archive(archive, request);
	if (is_held)
		return;
	archive_bool(archive, &request->flush_follows);
	unmap_archive(archive, storage, request);
	if (archive->loading && !archive->error)
		command_restore(archive, storage, request);
}

static void requests_archive(struct archive *archive, struct storage *storage)
{
	const uint8_t slots = (uint8_t)storage->client->slots;
	uint8_t held = storage->held ? (uint8_t)(storage->held - storage->request) : slots;

	archive_u8(archive, &held);
	if (!archive_check(archive, held <= slots))
		return;
	for (unsigned n = 0; n < slots && !archive->error; n++)
		request_archive(archive, storage, &storage->request[n], n == held);
	if (archive->loading && held < slots && !archive->error)
		storage->held = &storage->request[held];
}

void storage_served_archive(struct archive *archive, struct storage *storage)
{
	bool is_there = storage->luns;

	assert(!archive->loading || storage->free == storage->client->slots);
	archive_bool(archive, &is_there);
	archive_bool(archive, &storage->awaited);
	archive_bool(archive, &storage->must_tell);
	archive_u8(archive, &storage->attention[0]);
	archive_u32(archive, &storage->version);
	archive_bool(archive, &storage->begun);
	archive_check(archive, storage->attention[0] <= (ATTENTION_MEDIUM | ATTENTION_CAPACITY));
	archive_check(archive, !storage->version || storage_is_version(storage->version));
	archive_check(archive, storage->version || !storage->begun);
	archive_check(archive, !is_there || !storage->awaited);
	if (archive->loading && archive_check(archive, is_there == (storage->disks != 0)))
		storage->luns = is_there;
	requests_archive(archive, storage);
	if (!archive->error)
		check_storage(storage);
}

uint32_t storage_slots_under_way(const struct storage *storage)
{
	uint32_t slots = 0;

	for (unsigned n = 0; n < storage->client->slots; n++) {
		const struct request *request = &storage->request[n];
		const bool is_under_way = request->state == REQUEST_UNDER_WAY ||
					  request->state == REQUEST_ORPHAN;

		if (is_under_way && request != storage->held)
			slots |= 1u << n;
	}
	return slots;
}
