/* See storage.h. */
#include "storage.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "abi/vstor.h"
#include "lib/archive.h"
#include "lib/check.h"
#include "lib/speculation.h"
#include "scsi.h"

#define STORAGE_TYPE \
	GUID(0xba6163d9, 0x04a1, 0x4d29, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f)
#define STORAGE_INSTANCE \
	GUID(0x1d9a5c3e, 0x7b24, 0x4f0a, 0x9e, 0x63, 0x75, 0x6d, 0x62, 0x72, 0x61, 0x01)

/*
 * Free: nobody's. Waits: for room in the guest's ring. Orphan: its channel was closed while it was
 * under way.
 */
enum request_state {
	REQUEST_FREE, REQUEST_UNDER_WAY, REQUEST_WAITS, REQUEST_ORPHAN, REQUEST_STATES
};

/* the last byte of the instances of served disks' controllers */
enum { SERVED_FIRST = 0x10 };
enum { GFNS = BLOCK_SLOT_BYTES / GUEST_PAGE_BYTES + 1 };

struct request {
	enum request_state state;
	uint64_t transaction;
	unsigned disk;
	struct vstor_packet packet; /* becomes the answer */
	struct scsi_command command;
	struct bus_range range;
	uint64_t gfn[GFNS];
	uint64_t unmap[SCSI_UNMAP_RANGES][2];
	int unmaps, unmapped;
	bool flush_follows; /* it was written, and has to be durable */
};

struct storage {
	struct bus_service service;
	struct bus_channel *channel;
	struct block_memory *memory;
	struct slot_client *client;
	struct scsi_disk disk[BLOCK_DISKS];
	unsigned disks;
	uint32_t version; /* 0: not agreed upon */
	bool begun, submitted, paused;
	/*
	 * Nobody knows its disk yet; whoever serves it is away. What is asked of it then waits, its
	 * data in the guest's memory, and nothing more is taken.
	 */
	bool awaited, away;
	struct request *held;
	pthread_cond_t drained; /* nothing is under way; with the channel's lock */
	unsigned free, waiting; /* of the requests */
	uint64_t commands, bytes_read, bytes_written, flushes, refused, failed;
	struct request request[BLOCK_SLOTS];
};

static uint8_t *data_of(struct storage *storage, const struct request *request)
{
	return storage->memory->data[request - storage->request];
}

/* ---- answers ---- */

void check_storage(const struct storage *storage)
{
	unsigned in_state[REQUEST_STATES] = { 0 };

	for (unsigned n = 0; n < BLOCK_SLOTS; n++) {
		assert(storage->request[n].state < REQUEST_STATES);
		in_state[storage->request[n].state]++;
	}
	assert(storage->free + BLOCK_SLOTS - storage->client->slots == in_state[REQUEST_FREE] &&
	       storage->waiting == in_state[REQUEST_WAITS]);
	assert(!storage->begun || storage->version);
}

/* The disk process has none of them. */
static bool is_drained(const struct storage *storage)
{
	for (unsigned n = 0; n < BLOCK_SLOTS; n++)
		if (storage->request[n].state == REQUEST_UNDER_WAY ||
		    storage->request[n].state == REQUEST_ORPHAN)
			return false;
	return true;
}

static void request_release(struct storage *storage, struct request *request)
{
	assert(request->state != REQUEST_FREE);
	storage->waiting -= request->state == REQUEST_WAITS;
	request->state = REQUEST_FREE;
	storage->free++;
}

static void deliver(struct storage *storage, struct request *request)
{
	int error = bus_channel_send(storage->channel, PACKET_COMPLETION, request->transaction,
				     &request->packet, sizeof(request->packet));

	if (error != -EAGAIN) {
		request_release(storage, request);
	} else if (request->state != REQUEST_WAITS) {
		request->state = REQUEST_WAITS;
		storage->waiting++;
	}
}

static void answer(struct storage *storage, struct request *request, uint32_t status)
{
	request->packet.operation = VSTOR_COMPLETE;
	request->packet.status = status;
	deliver(storage, request);
}

/* The outcome of a command; data_bytes: how much was transferred. */
static void complete(struct storage *storage, struct request *request, uint8_t srb_status,
		     uint32_t data_bytes)
{
	struct vstor_srb *srb = &request->packet.body.srb;

	srb->srb_status = srb_status;
	srb->scsi_status = SCSI_GOOD;
	srb->data_bytes = data_bytes;
	answer(storage, request, 0);
}

static void complete_with_sense(struct storage *storage, struct request *request,
				struct scsi_sense sense)
{
	struct vstor_srb *srb = &request->packet.body.srb;
	uint8_t bytes[SCSI_SENSE_BYTES];

	/* what it asks for is not there, which tells its driver so; or the disk did not do it */
	if (sense.key == SCSI_ILLEGAL_REQUEST)
		storage->refused++;
	else
		storage->failed++;
	scsi_sense_bytes(sense, bytes);
	memset(srb->cdb_or_sense, 0, sizeof(srb->cdb_or_sense));
	memcpy(srb->cdb_or_sense, bytes, sizeof(bytes));
	srb->sense_bytes = sizeof(bytes);
	srb->srb_status = SRB_ERROR | SRB_SENSE_VALID;
	srb->scsi_status = SCSI_CHECK_CONDITION;
	srb->data_bytes = 0;
	answer(storage, request, 0);
}

/* ---- requests to the disk ---- */

static void submit(struct storage *storage, const struct request *io, enum block_kind kind,
		   uint64_t offset, uint64_t bytes)
{
	const struct slot_request request = { .slot = (uint16_t)(io - storage->request),
					      .target = (uint16_t)io->disk,
					      .kind = (uint16_t)kind,
					      .offset = offset,
					      .bytes = bytes };

	slot_submit(storage->client, &request);
	storage->submitted = true;
}

static void kick(struct storage *storage)
{
	if (storage->submitted)
		slot_kick(storage->client);
	storage->submitted = false;
}

/*
 * What the guest's range holds, into the slot: false: it has less, or is no memory, and the command
 * is answered.
 */
static bool fetch(struct storage *storage, struct request *request, uint64_t bytes)
{
	if (bytes > request->range.bytes) {
		complete(storage, request, SRB_DATA_OVERRUN, 0);
		return false;
	}
	if (!bus_range_read(storage->channel, &request->range, 0, data_of(storage, request),
			    (uint32_t)bytes))
		return true;
	complete(storage, request, SRB_INVALID_REQUEST, 0);
	return false;
}

/* What is in `from` into the guest's range, as far as that goes. */
static void give(struct storage *storage, struct request *request, const void *from, uint64_t bytes)
{
	uint32_t count = bytes < request->range.bytes ? (uint32_t)bytes : request->range.bytes;

	if (bus_range_write(storage->channel, &request->range, 0, from, count))
		complete(storage, request, SRB_INVALID_REQUEST, 0);
	else
		complete(storage, request, SRB_SUCCESS, count);
}

static void next_unmap(struct storage *storage, struct request *request)
{
	const uint64_t *range = request->unmap[request->unmapped++];

	submit(storage, request, BLOCK_ZERO, range[0], range[1]);
}

static void start_unmap(struct storage *storage, struct request *request)
{
	struct scsi_sense sense;

	if (!fetch(storage, request, request->command.bytes))
		return;
	request->unmaps = scsi_unmap_list(&storage->disk[request->disk], data_of(storage, request),
					  request->command.bytes, request->unmap, &sense);
	request->unmapped = 0;
	if (request->unmaps < 0)
		complete_with_sense(storage, request, sense);
	else if (!request->unmaps)
		complete(storage, request, SRB_SUCCESS, 0);
	else
		next_unmap(storage, request);
}

/* Only zeros can be written so: for other patterns drivers write. */
static void start_write_same(struct storage *storage, struct request *request)
{
	const uint32_t bytes = storage->disk[request->disk].sector_bytes;
	const uint8_t *sector = data_of(storage, request);

	if (!fetch(storage, request, bytes))
		return;
	if (sector[0] || memcmp(sector, sector + 1, bytes - 1))
		complete_with_sense(storage, request, SCSI_SENSE_INVALID_FIELD);
	else
		submit(storage, request, BLOCK_ZERO, request->command.offset,
		       request->command.bytes);
}

static void execute(struct storage *storage, struct request *request)
{
	const struct scsi_command *command = &request->command;

	switch (command->act) {
	case SCSI_FINISHED:
		if (command->sense.key)
			complete_with_sense(storage, request, command->sense);
		else
			complete(storage, request, SRB_SUCCESS, 0);
		break;
	case SCSI_REPLY: give(storage, request, command->reply, command->reply_bytes); break;
	case SCSI_READ:
		submit(storage, request, BLOCK_READ, command->offset, command->bytes);
		break;
	case SCSI_WRITE:
		if (fetch(storage, request, command->bytes))
			submit(storage, request, BLOCK_WRITE, command->offset, command->bytes);
		break;
	case SCSI_FLUSH: submit(storage, request, BLOCK_FLUSH, 0, 0); break;
	case SCSI_UNMAP: start_unmap(storage, request); break;
	case SCSI_WRITE_SAME: start_write_same(storage, request); break;
	}
	request->flush_follows = command->act == SCSI_WRITE && command->force_unit_access;
}

static void failed(struct storage *storage, struct request *request, int error)
{
	if (request->command.act == SCSI_READ)
		complete_with_sense(storage, request, SCSI_SENSE_READ_ERROR);
	else if (error == -ENOSPC)
		complete_with_sense(storage, request, SCSI_SENSE_NO_SPACE);
	else
		complete_with_sense(storage, request, SCSI_SENSE_WRITE_ERROR);
}

static void disk_replied(struct storage *storage, struct request *request, int error)
{
	if (error) {
		failed(storage, request, error);
		return;
	}
	switch (request->command.act) {
	case SCSI_READ:
		storage->bytes_read += request->command.bytes;
		give(storage, request, data_of(storage, request), request->command.bytes);
		return;
	case SCSI_WRITE:
		if (request->flush_follows) {
			request->flush_follows = false;
			submit(storage, request, BLOCK_FLUSH, 0, 0);
			return;
		}
		storage->bytes_written += request->command.bytes;
		complete(storage, request, SRB_SUCCESS, (uint32_t)request->command.bytes);
		return;
	case SCSI_UNMAP:
		if (request->unmapped < request->unmaps)
			next_unmap(storage, request);
		else
			complete(storage, request, SRB_SUCCESS, (uint32_t)request->command.bytes);
		return;
	case SCSI_FLUSH: storage->flushes++; break;
	default: break;
	}
	complete(storage, request, SRB_SUCCESS, 0);
}

/* ---- packets ---- */

/* Drivers look at what INQUIRY and REPORT LUNS say, and not at their status. */
static void execute_absent(struct storage *storage, struct request *request)
{
	switch (request->packet.body.srb.cdb_or_sense[0]) {
	case SCSI_INQUIRY: scsi_inquire_absent(&request->command); break;
	case SCSI_REPORT_LUNS:
		request->command = (struct scsi_command){ .act = SCSI_REPLY, .reply_bytes = 8 };
		break;
	default: complete(storage, request, SRB_INVALID_LUN, 0); return;
	}
	give(storage, request, request->command.reply, request->command.reply_bytes);
}

static void execute_srb(struct storage *storage, struct request *request)
{
	struct vstor_srb *srb = &request->packet.body.srb;
	uint8_t cdb[SCSI_CDB_BYTES] = { 0 };

	if (!storage->version || !storage->begun) {
		answer(storage, request, VSTOR_INVALID_STATE);
		return;
	}
	storage->commands++;
	if (srb->path || srb->target || srb->lun >= storage->disks) {
		execute_absent(storage, request);
		return;
	}
	if (srb->cdb_bytes > SCSI_CDB_BYTES) {
		complete(storage, request, SRB_INVALID_REQUEST, 0);
		return;
	}
	request->disk = (uint32_t)speculation_bound(srb->lun, storage->disks);
	memcpy(cdb, srb->cdb_or_sense, srb->cdb_bytes);
	scsi_decode(&storage->disk[request->disk], (1ull << storage->disks) - 1, cdb,
		    &request->command);
	execute(storage, request);
}

static bool is_version(uint32_t version)
{
	return version == VSTOR_5_1 || version == VSTOR_6_0 || version == VSTOR_6_2;
}

static void query_version(struct storage *storage, struct request *request)
{
	uint16_t version = request->packet.body.version.version;

	if (!is_version(version)) {
		answer(storage, request, VSTOR_REVISION_MISMATCH);
		return;
	}
	storage->version = version;
	answer(storage, request, 0);
}

static void query_properties(struct storage *storage, struct request *request)
{
	request->packet.body.properties =
		(struct vstor_properties){ .transfer_bytes = BLOCK_SLOT_BYTES };
	answer(storage, request, storage->version ? 0 : VSTOR_INVALID_STATE);
}

static void dispatch(struct storage *storage, struct request *request)
{
	switch (request->packet.operation) {
	case VSTOR_BEGIN:
		storage->version = 0;
		storage->begun = false;
		answer(storage, request, 0);
		break;
	case VSTOR_QUERY_VERSION: query_version(storage, request); break;
	case VSTOR_QUERY_PROPERTIES: query_properties(storage, request); break;
	case VSTOR_END:
		storage->begun = storage->version != 0;
		answer(storage, request, storage->begun ? 0 : VSTOR_INVALID_STATE);
		break;
	case VSTOR_EXECUTE:
		if (storage->awaited || storage->away)
			storage->held = request;
		else
			execute_srb(storage, request);
		break;
	/* nothing is kept that a reset would have to undo; what is under way ends by itself */
	case VSTOR_RESET_LUN:
	case VSTOR_RESET_ADAPTER:
	case VSTOR_RESET_BUS: answer(storage, request, 0); break;
	default: answer(storage, request, VSTOR_NOT_SUPPORTED); break;
	}
}

static struct request *request_take(struct storage *storage)
{
	struct request *request = storage->request;

	while (request->state != REQUEST_FREE) /* there is one: ready() has said so */
		request++;
	storage->free--;
	return request;
}

static bool ready(void *context)
{
	const struct storage *storage = context;

	return storage->free > 0 && !storage->paused && !storage->held;
}

static int packet(void *context, const struct bus_packet *received)
{
	struct storage *storage = context;
	struct request *request;

	if ((received->type != PACKET_INBAND && received->type != PACKET_GPA_DIRECT) ||
	    received->payload_bytes < sizeof(request->packet))
		return -EBADMSG;
	if (received->ranges > 1 ||
	    (received->ranges && bus_range_pages(&received->range[0]) > GFNS))
		return -EBADMSG;
	request = request_take(storage);
	*request = (struct request){ .state = REQUEST_UNDER_WAY,
				     .transaction = received->transaction };
	memcpy(&request->packet, received->payload, sizeof(request->packet));
	if (received->ranges) {
		request->range = (struct bus_range){ received->range[0].bytes,
						     received->range[0].offset, request->gfn };
		memcpy(request->gfn, received->range[0].gfn,
		       bus_range_pages(&received->range[0]) * sizeof(request->gfn[0]));
	}
	dispatch(storage, request);
	kick(storage);
	return 0;
}

static void opened(void *context)
{
	struct storage *storage = context;

	storage->version = 0;
	storage->begun = false;
}

static void closed(void *context)
{
	struct storage *storage = context;

	if (storage->held)
		request_release(storage, storage->held);
	storage->held = NULL;
	for (unsigned n = 0; n < BLOCK_SLOTS; n++) {
		if (storage->request[n].state == REQUEST_UNDER_WAY)
			storage->request[n].state = REQUEST_ORPHAN;
		else if (storage->request[n].state == REQUEST_WAITS)
			request_release(storage, &storage->request[n]);
	}
}

static void room(void *context)
{
	struct storage *storage = context;

	for (unsigned n = 0; n < BLOCK_SLOTS && storage->waiting; n++)
		if (storage->request[n].state == REQUEST_WAITS)
			deliver(storage, &storage->request[n]);
}

/* ---- the thread that collects ---- */

int storage_collect(struct storage *storage)
{
	struct slot_reply reply;
	bool some = false;
	int got;

	bus_channel_lock(storage->channel);
	while ((got = slot_collect(storage->client, &reply)) > 0) {
		struct request *request =
			&storage->request[speculation_bound(reply.slot, BLOCK_SLOTS)];

		some = true;
		guest_memory_begin();
		if (request->state == REQUEST_UNDER_WAY)
			disk_replied(storage, request, reply.result);
		else if (request->state == REQUEST_ORPHAN)
			request_release(storage, request);
		else
			got = -EBADMSG;
		if (got < 0)
			break;
	}
	kick(storage);
	CHECK(check_storage(storage));
	pthread_cond_broadcast(&storage->drained);
	bus_channel_unlock(storage->channel);
	if (some)
		/* slots are free: what waits in the guest's ring can be taken */
		bus_channel_run(storage->channel);
	return got;
}

/* ---- life ---- */

static void describe(const struct block_disk *from, struct scsi_disk *to)
{
	*to = (struct scsi_disk){ .sectors = from->size_bytes / from->sector_bytes,
				  .sector_bytes = from->sector_bytes,
				  .physical_bytes = from->physical_bytes,
				  .transfer_bytes = BLOCK_SLOT_BYTES,
				  .read_only = from->read_only };
	memcpy(to->id, from->id, sizeof(to->id));
}

static struct storage *create(struct bus *bus, struct guid instance, struct block_memory *memory,
			      struct slot_client *client)
{
	struct storage *storage = calloc(1, sizeof(*storage));

	if (!storage)
		return NULL;
	pthread_cond_init(&storage->drained, NULL);
	assert(client->slots && client->slots <= BLOCK_SLOTS);
	storage->memory = memory;
	storage->client = client;
	storage->free = client->slots;
	storage->disks = memory->disks;
	for (unsigned n = 0; n < storage->disks; n++)
		describe(&memory->disk[n], &storage->disk[n]);
	storage->service = (struct bus_service){ .type = STORAGE_TYPE,
						 .instance = instance,
						 .opened = opened,
						 .closed = closed,
						 .ready = ready,
						 .packet = packet,
						 .room = room,
						 .context = storage };
	storage->channel = bus_offer(bus, &storage->service);
	if (storage->channel)
		return storage;
	free(storage);
	return NULL;
}

struct storage *storage_create(struct bus *bus, struct block_memory *memory,
			       struct slot_client *client)
{
	return create(bus, (struct guid)STORAGE_INSTANCE, memory, client);
}

struct storage *storage_create_served(struct bus *bus, unsigned number,
				      struct block_memory *memory, struct slot_client *client)
{
	struct guid instance = STORAGE_INSTANCE;
	struct storage *storage;

	instance.byte[sizeof(instance.byte) - 1] = (uint8_t)(SERVED_FIRST + number);
	storage = create(bus, instance, memory, client);
	if (storage)
		storage->awaited = true;
	return storage;
}

/* What was held, if that may go now. */
static void go_on(struct storage *storage)
{
	struct request *held = storage->held;

	if (!held || storage->awaited || storage->away)
		return;
	guest_memory_begin();
	storage->held = NULL;
	execute_srb(storage, held);
	kick(storage);
}

void storage_arrive(struct storage *storage, const struct block_disk *disk)
{
	bus_channel_lock(storage->channel);
	assert(storage->awaited && !storage->disks);
	describe(disk, &storage->disk[0]);
	storage->disks = 1;
	storage->awaited = false;
	go_on(storage);
	CHECK(check_storage(storage));
	bus_channel_unlock(storage->channel);
	bus_channel_run(storage->channel);
}

void storage_serve(struct storage *storage, bool is_served)
{
	bus_channel_lock(storage->channel);
	storage->away = !is_served;
	go_on(storage);
	CHECK(check_storage(storage));
	bus_channel_unlock(storage->channel);
	bus_channel_run(storage->channel);
}

void storage_hold(struct storage *storage, bool holds)
{
	if (holds)
		bus_channel_lock(storage->channel);
	else
		bus_channel_unlock(storage->channel);
}

void storage_destroy(struct storage *storage) { free(storage); }

size_t storage_statistics(const struct storage *storage, char *text, size_t bytes)
{
	int used = snprintf(
		text, bytes,
		"disk: commands %lu, read-bytes %lu, written-bytes %lu, flushes %lu, refused %lu, "
		"failed %lu\n",
		storage->commands, storage->bytes_read, storage->bytes_written, storage->flushes,
		storage->refused, storage->failed);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

/* ---- pauses and saved state ---- */

void storage_pause(struct storage *storage)
{
	bus_channel_lock(storage->channel);
	storage->paused = true;
	while (!is_drained(storage))
		bus_channel_wait(storage->channel, &storage->drained);
	bus_channel_unlock(storage->channel);
}

void storage_resume(struct storage *storage)
{
	bus_channel_lock(storage->channel);
	storage->paused = false;
	bus_channel_unlock(storage->channel);
	bus_channel_run(storage->channel); /* what the guest has asked for meanwhile */
}

/* Which disks there are: a machine that was saved goes on with the same. */
static void disks_archive(struct archive *archive, struct storage *storage)
{
	uint32_t count = storage->disks;

	archive_u32(archive, &count);
	if (!archive->error && count != storage->disks)
		archive_fail(archive, -ENOTSUP, "it has another number of disks");
	for (unsigned n = 0; n < storage->disks && !archive->error; n++) {
		struct scsi_disk disk = storage->disk[n];

		archive_u64(archive, &disk.sectors);
		archive_u32(archive, &disk.sector_bytes);
		archive_u32(archive, &disk.physical_bytes);
		archive_bool(archive, &disk.read_only);
		archive_bytes(archive, disk.id, sizeof(disk.id));
		if (!archive->error && (disk.sectors != storage->disk[n].sectors ||
					disk.sector_bytes != storage->disk[n].sector_bytes ||
					disk.physical_bytes != storage->disk[n].physical_bytes ||
					disk.read_only != storage->disk[n].read_only ||
					memcmp(disk.id, storage->disk[n].id, sizeof(disk.id))))
			archive_fail(archive, -ENOTSUP, "it has other disks");
	}
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
	assert(is_drained(storage));
	assert(!archive->loading || storage->free == storage->client->slots);
	disks_archive(archive, storage);
	archive_u32(archive, &storage->version);
	archive_bool(archive, &storage->begun);
	archive_check(archive, !storage->version || is_version(storage->version));
	archive_check(archive, storage->version || !storage->begun);
	waiting_archive(archive, storage);
	if (!archive->error)
		check_storage(storage);
}

/* ---- the unit ---- */

static void unit_pause(void *self) { storage_pause(self); }
static void unit_resume(void *self) { storage_resume(self); }
static void unit_forked(void *self)
{
	pthread_cond_init(&((struct storage *)self)->drained, NULL);
}
static void unit_archive(struct archive *archive, void *self) { storage_archive(archive, self); }
static void unit_destroy(void *self) { storage_destroy(self); }
static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	return storage_statistics(self, text, bytes);
}

const struct unit_ops storage_unit = {
	.name = "storage", .section = UNIT_SECTION('S', 'T', 'O', 'R'), .pause = unit_pause,
	.resume = unit_resume, .forked = unit_forked,
	.destroy = unit_destroy, .archive = unit_archive, .statistics = unit_statistics,
};
