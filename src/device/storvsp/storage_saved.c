/*
 * A controller as bytes and back. Version 1 is from before there were drives, and what is told
 * once; 2 from before there were sub-channels.
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
