/* See storage.h. */
#include "storage_internal.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "abi/vstor.h"
#include "lib/check.h"
#include "lib/speculation.h"

#define STORAGE_TYPE \
	GUID(0xba6163d9, 0x04a1, 0x4d29, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f)
#define STORAGE_INSTANCE \
	GUID(0x1d9a5c3e, 0x7b24, 0x4f0a, 0x9e, 0x63, 0x75, 0x6d, 0x62, 0x72, 0x61, 0x01)

/* the last byte of the instances of served disks' controllers */
enum { SERVED_FIRST = 0x10, BULK_BYTES = 64 << 10 };
/* the guest hears at once of all that is there, but does not wait for copies of more than that */
enum { TOLD_BYTES = 1 << 20 };
enum { DISC_SECTOR_BYTES = 2048 };

static uint8_t *data_of(struct storage *storage, const struct request *request)
{
	return (uint8_t *)storage->memory->data +
	       (size_t)(request - storage->request) * storage->slot_bytes;
}

static uint8_t *written_of(struct storage *storage, const struct request *request)
{
	return storage->written + (size_t)(request - storage->request) * storage->slot_bytes;
}

/* ---- answers ---- */

void check_storage(const struct storage *storage)
{
	unsigned in_state[REQUEST_STATES] = { 0 };
	unsigned bulk = 0;

	for (unsigned n = 0; n < BLOCK_SLOTS; n++) {
		assert(storage->request[n].state < REQUEST_STATES);
		in_state[storage->request[n].state]++;
		bulk += storage->request[n].is_bulk;
	}
	assert(storage->bulk == bulk);
	assert(storage->free + BLOCK_SLOTS - storage->client->slots == in_state[REQUEST_FREE] &&
	       storage->waiting == in_state[REQUEST_WAITS]);
	assert(!storage->begun || storage->version);
	assert(storage->leaving <= NOBODY);
	for (unsigned n = 0; n < BLOCK_DISKS; n++)
		assert(!(storage->luns >> n & 1) || storage->disk[n].sector_bytes);
}

static bool is_under_way(const struct request *request)
{
	return request->state == REQUEST_UNDER_WAY || request->state == REQUEST_ORPHAN;
}

bool storage_is_drained(const struct storage *storage)
{
	for (unsigned n = 0; n < BLOCK_SLOTS; n++)
		if (is_under_way(&storage->request[n]))
			return false;
	return true;
}

static void deliver(struct storage *storage, struct request *request)
{
	struct bus_channel *to = bus_channel_sub(storage->channel, request->queue);
	int error = -ENOTCONN;

	if (to)
		error = bus_channel_send(to, PACKET_COMPLETION, request->transaction,
					 &request->packet, sizeof(request->packet));

	if (error != -EAGAIN) {
		storage_slots_release(storage, request);
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
	else if (sense.key != SCSI_NOT_READY && sense.key != SCSI_UNIT_ATTENTION)
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

/* ---- discs, and what is told once ---- */

static void act_on_drive(struct storage *storage, struct request *request)
{
	struct scsi_disk *disk = &storage->disk[request->disk];
	const enum scsi_act act = request->command.act;

	if (act == SCSI_LOCK || act == SCSI_UNLOCK)
		disk->is_locked = act == SCSI_LOCK;
	else
		disk->is_open = act == SCSI_OPEN_TRAY;
	if (act == SCSI_CLOSE_TRAY && disk->sectors)
		storage->attention[request->disk] |= ATTENTION_MEDIUM;
	complete(storage, request, SRB_SUCCESS, 0);
}

/* INQUIRY and REPORT LUNS are answered whatever has happened (SAM-5 5.14). */
static bool pays_attention(uint8_t code)
{
	return code != SCSI_INQUIRY && code != SCSI_REPORT_LUNS;
}

static struct scsi_sense take_attention(struct storage *storage, unsigned disk)
{
	uint8_t *attention = &storage->attention[disk];
	const bool is_medium = *attention & ATTENTION_MEDIUM;

	*attention &= (uint8_t)~(is_medium ? ATTENTION_MEDIUM : ATTENTION_CAPACITY);
	return is_medium ? SCSI_SENSE_MEDIUM_CHANGED : SCSI_SENSE_CAPACITY_CHANGED;
}

/* ---- requests to the disk ---- */

static void count_bulk(struct storage *storage, struct request *request, uint64_t bytes)
{
	const bool is_bulk = bytes >= BULK_BYTES;

	__atomic_store_n(&storage->bulk, storage->bulk + is_bulk - request->is_bulk,
			 __ATOMIC_RELAXED);
	request->is_bulk = is_bulk;
}

bool storage_has_bulk(const struct storage *storage)
{
	return __atomic_load_n(&storage->bulk, __ATOMIC_RELAXED) > 1;
}

static void submit(struct storage *storage, struct request *io, enum block_kind kind,
		   uint64_t offset, uint64_t bytes)
{
	const struct slot_request request = { .slot = (uint16_t)(io - storage->request),
					      .target = (uint16_t)io->disk,
					      .kind = (uint16_t)kind,
					      .offset = offset,
					      .bytes = bytes };

	count_bulk(storage, io, kind <= BLOCK_WRITE ? bytes : 0);
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
	if (!bus_range_read(storage->channel, &request->range, 0, written_of(storage, request),
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
	request->unmaps =
		scsi_unmap_list(&storage->disk[request->disk], written_of(storage, request),
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
	const uint8_t *sector = written_of(storage, request);

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
	case SCSI_REPLY:
		if (command->takes_event)
			storage->disk[request->disk].event = SCSI_NO_EVENT;
		give(storage, request, command->reply, command->reply_bytes);
		break;
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
	default: act_on_drive(storage, request); return;
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

/*
 * Drivers look at what INQUIRY and REPORT LUNS say, and not at their status. A target whose unit 0
 * is gone still says which others it has.
 */
static void execute_absent(struct storage *storage, struct request *request)
{
	const struct vstor_srb *srb = &request->packet.body.srb;

	switch (srb->cdb_or_sense[0]) {
	case SCSI_INQUIRY: scsi_inquire_absent(&request->command); break;
	case SCSI_REPORT_LUNS:
		scsi_report_luns(srb->path || srb->target ? 0 : storage->luns, SCSI_REPLY_BYTES,
				 &request->command);
		break;
	default: complete(storage, request, SRB_INVALID_LUN, 0); return;
	}
	give(storage, request, request->command.reply, request->command.reply_bytes);
}

/* Where its data have room: else it waits for that. */
static void place(struct storage *storage, struct request *request)
{
	const struct scsi_command *command = &request->command;
	const bool moves = command->act == SCSI_READ || command->act == SCSI_WRITE;
	const unsigned slots = moves ? storage_slots_for(storage, command->bytes) : 1;
	struct request *placed =
		slots > 1 ? storage_slots_spread(storage, request, slots) : request;

	if (placed)
		execute(storage, placed);
	else
		storage->held = request;
}

static void execute_srb(struct storage *storage, struct request *request)
{
	struct vstor_srb *srb = &request->packet.body.srb;
	uint8_t cdb[SCSI_CDB_BYTES] = { 0 };

	if (!storage->version || !storage->begun) {
		answer(storage, request, VSTOR_INVALID_STATE);
		return;
	}
	if (srb->path || srb->target || srb->lun >= BLOCK_DISKS ||
	    !(storage->luns >> srb->lun & 1)) {
		execute_absent(storage, request);
		return;
	}
	if (srb->cdb_bytes > SCSI_CDB_BYTES) {
		complete(storage, request, SRB_INVALID_REQUEST, 0);
		return;
	}
	request->disk = (uint32_t)speculation_bound(srb->lun, BLOCK_DISKS);
	memcpy(cdb, srb->cdb_or_sense, srb->cdb_bytes);
	if (storage->attention[request->disk] && pays_attention(cdb[0])) {
		complete_with_sense(storage, request, take_attention(storage, request->disk));
		return;
	}
	scsi_decode(&storage->disk[request->disk], storage->luns, cdb, &request->command);
	place(storage, request);
}

bool storage_is_version(uint32_t version)
{
	return version == VSTOR_5_1 || version == VSTOR_6_0 || version == VSTOR_6_2;
}

static void query_version(struct storage *storage, struct request *request)
{
	uint16_t version = request->packet.body.version.version;

	if (!storage_is_version(version)) {
		answer(storage, request, VSTOR_REVISION_MISMATCH);
		return;
	}
	storage->version = version;
	answer(storage, request, 0);
}

static void query_properties(struct storage *storage, struct request *request)
{
	const uint16_t subs = (uint16_t)(storage->queues - 1);

	request->packet.body.properties = (struct vstor_properties){
		.sub_channels = subs,
		.flags = subs ? VSTOR_SEVERAL_CHANNELS : 0,
		.transfer_bytes = storage->most_bytes,
	};
	answer(storage, request, storage->version ? 0 : VSTOR_INVALID_STATE);
}

static void create_subs(struct storage *storage, struct request *request)
{
	const unsigned count = request->packet.body.sub_channels;
	uint32_t status = VSTOR_INVALID_STATE;

	if (storage->begun && count && count < storage->queues &&
	    bus_want_subs(storage->channel, count) == count)
		status = 0;
	answer(storage, request, status);
}

/*
 * The guest's driver looks which units there are when it hears this, and asks those that it has.
 * One that has not begun looks anyway.
 */
static void tell_guest(struct storage *storage)
{
	const struct vstor_packet packet = { .operation = VSTOR_ENUMERATE_BUS };

	if (!storage->begun || !storage->must_tell)
		storage->must_tell = false;
	else
		storage->must_tell = bus_channel_send(storage->channel, PACKET_INBAND, 0, &packet,
						      sizeof(packet)) == -EAGAIN;
}

static void dispatch(struct storage *storage, struct request *request)
{
	if (request->queue && request->packet.operation != VSTOR_EXECUTE) {
		answer(storage, request, VSTOR_INVALID_STATE);
		return;
	}
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
	case VSTOR_CREATE_SUB_CHANNELS: create_subs(storage, request); break;
	case VSTOR_EXECUTE:
		storage->commands++;
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
	const struct storage *storage = ((const struct storage_queue *)context)->storage;

	return storage->free > 0 && !storage->paused && !storage->held;
}

static int packet(void *context, const struct bus_packet *received)
{
	const struct storage_queue *queue = context;
	struct storage *storage = queue->storage;
	struct request *request;

	if ((received->type != PACKET_INBAND && received->type != PACKET_GPA_DIRECT) ||
	    received->payload_bytes < sizeof(request->packet))
		return -EBADMSG;
	if (received->ranges > 1 ||
	    (received->ranges && bus_range_pages(&received->range[0]) > GFNS))
		return -EBADMSG;
	request = request_take(storage);
	memset(request, 0, offsetof(struct request, gfn));
	request->state = REQUEST_UNDER_WAY;
	request->transaction = received->transaction;
	request->queue = queue->number;
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

static void opened(void *context)
{
	const struct storage_queue *queue = context;
	struct storage *storage = queue->storage;

	if (queue->number)
		return;
	storage->version = 0;
	storage->begun = false;
}

static void closed(void *context)
{
	const struct storage_queue *queue = context;
	struct storage *storage = queue->storage;

	if (storage->held && storage->held->queue == queue->number) {
		storage_slots_release(storage, storage->held);
		storage->held = NULL;
	}
	for (unsigned n = 0; n < BLOCK_SLOTS; n++) {
		struct request *request = &storage->request[n];

		if (request->queue != queue->number)
			continue;
		if (request->state == REQUEST_UNDER_WAY)
			request->state = REQUEST_ORPHAN;
		else if (request->state == REQUEST_WAITS)
			storage_slots_release(storage, request);
	}
	go_on(storage);
}

static void room(void *context)
{
	const struct storage_queue *queue = context;
	struct storage *storage = queue->storage;

	for (unsigned n = 0; n < BLOCK_SLOTS && storage->waiting; n++)
		if (storage->request[n].state == REQUEST_WAITS &&
		    storage->request[n].queue == queue->number)
			deliver(storage, &storage->request[n]);
	go_on(storage);
	tell_guest(storage);
}

/* ---- disks that come and go ---- */

static bool is_busy(const struct storage *storage, unsigned disk)
{
	for (unsigned n = 0; n < BLOCK_SLOTS; n++)
		if (storage->request[n].disk == disk && is_under_way(&storage->request[n]))
			return true;
	return false;
}

/* Nothing of it is under way any more: whoever wanted it away has it. */
static void let_go(struct storage *storage)
{
	if (storage->leaving == NOBODY || is_busy(storage, storage->leaving))
		return;
	storage->leaving = NOBODY;
	storage->released(storage->context);
}

/* ---- the thread that collects ---- */

int storage_collect(struct storage *storage)
{
	struct slot_reply reply;
	uint64_t copied_bytes = 0;
	bool some = false;
	int got;

	bus_channel_lock(storage->channel);
	bus_channel_hold_signals(storage->channel);
	while ((got = slot_collect(storage->client, &reply)) > 0) {
		struct request *request =
			&storage->request[speculation_bound(reply.slot, BLOCK_SLOTS)];

		some = true;
		copied_bytes += request->is_bulk ? request->command.bytes : 0;
		count_bulk(storage, request, 0);
		guest_memory_begin();
		if (request->state == REQUEST_UNDER_WAY)
			disk_replied(storage, request, reply.result);
		else if (request->state == REQUEST_ORPHAN)
			storage_slots_release(storage, request);
		else
			got = -EBADMSG;
		if (got < 0)
			break;
		if (copied_bytes >= TOLD_BYTES) {
			bus_channel_tell(storage->channel);
			copied_bytes = 0;
		}
	}
	kick(storage);
	go_on(storage);
	let_go(storage);
	CHECK(check_storage(storage));
	pthread_cond_broadcast(&storage->drained);
	bus_channel_unlock(storage->channel);
	if (some)
		/* slots are free: what waits in the guest's ring can be taken */
		bus_channel_run(storage->channel);
	return got;
}

/* ---- life ---- */

static void describe(const struct storage *storage, const struct block_disk *from,
		     struct scsi_disk *to)
{
	const uint32_t sector_bytes = from->is_dvd ? DISC_SECTOR_BYTES : from->sector_bytes;

	*to = (struct scsi_disk){ .sectors = from->size_bytes / sector_bytes,
				  .sector_bytes = sector_bytes,
				  .physical_bytes = from->physical_bytes,
				  .transfer_bytes = storage->most_bytes,
				  .read_only = from->read_only || from->is_dvd,
				  .is_optical = from->is_dvd };
	memcpy(to->id, from->id, sizeof(to->id));
}

static void take_disks(struct storage *storage)
{
	for (unsigned n = 0; n < storage->disks; n++) {
		const struct block_disk *disk = &storage->memory->disk[n];

		if (!disk->sector_bytes)
			continue;
		describe(storage, disk, &storage->disk[n]);
		storage->luns |= 1u << n;
	}
}

static void queue_make(struct storage *storage, unsigned number, struct guid instance)
{
	struct storage_queue *queue = &storage->queue[number];

	*queue = (struct storage_queue){ .storage = storage, .number = number };
	storage->service[number] = (struct bus_service){ .type = STORAGE_TYPE,
							 .instance = instance,
							 .opened = opened,
							 .closed = closed,
							 .ready = ready,
							 .packet = packet,
							 .room = room,
							 .context = queue };
}

static struct storage *create(struct bus *bus, struct guid instance, struct block_memory *memory,
			      struct slot_client *client, uint32_t slot_bytes, uint32_t most_bytes)
{
	struct storage *storage = calloc(1, sizeof(*storage));

	if (!storage)
		return NULL;
	pthread_cond_init(&storage->drained, NULL);
	assert(client->slots && client->slots <= BLOCK_SLOTS);
	assert(slot_bytes % GUEST_PAGE_BYTES == 0 && most_bytes <= BLOCK_SLOT_BYTES &&
	       most_bytes <= client->slots * (uint64_t)slot_bytes);
	storage->memory = memory;
	storage->written = (uint8_t *)memory->data;
	storage->slot_bytes = slot_bytes;
	storage->most_bytes = most_bytes;
	storage->client = client;
	storage->free = client->slots;
	storage->disks = memory->disks;
	storage->leaving = NOBODY;
	take_disks(storage);
	for (unsigned n = 0; n < STORAGE_QUEUES; n++)
		queue_make(storage, n, instance);
	storage->channel = bus_offer(bus, &storage->service[0]);
	if (!storage->channel) {
		free(storage);
		return NULL;
	}
	storage->queues = 1 + bus_allow_subs(storage->channel, &storage->service[1], BUS_SUBS);
	return storage;
}

struct storage *storage_create(struct bus *bus, struct block_memory *memory,
			       struct slot_client *client)
{
	return create(bus, (struct guid)STORAGE_INSTANCE, memory, client, BLOCK_SLOT_BYTES,
		      BLOCK_SLOT_BYTES);
}

struct storage *storage_create_served(struct bus *bus, unsigned number,
				      struct block_memory *memory, uint8_t *written,
				      struct slot_client *client, uint32_t slot_bytes,
				      uint32_t most_bytes)
{
	struct guid instance = STORAGE_INSTANCE;
	struct storage *storage;

	instance.byte[sizeof(instance.byte) - 1] = (uint8_t)(SERVED_FIRST + number);
	storage = create(bus, instance, memory, client, slot_bytes, most_bytes);
	if (!storage)
		return NULL;
	storage->written = written;
	storage->awaited = true;
	return storage;
}

/* With the lock. */
static void changed(struct storage *storage)
{
	storage->must_tell = true;
	tell_guest(storage);
	CHECK(check_storage(storage));
}

void storage_arrive(struct storage *storage, const struct block_disk *disk)
{
	bus_channel_lock(storage->channel);
	assert(!storage->luns);
	describe(storage, disk, &storage->disk[0]);
	storage->disks = 1;
	storage->luns = 1;
	if (!storage->awaited)
		changed(storage);
	storage->awaited = false;
	go_on(storage);
	CHECK(check_storage(storage));
	bus_channel_unlock(storage->channel);
	bus_channel_run(storage->channel);
}

void storage_know(struct storage *storage, const struct block_disk *disk)
{
	describe(storage, disk, &storage->disk[0]);
	storage->disks = 1;
	storage->away = true;
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

void storage_on_release(struct storage *storage, void (*released)(void *context), void *context)
{
	storage->released = released;
	storage->context = context;
}

/* What a drive keeps when the disc in it is another one, or none. */
static void change_disc(struct storage *storage, unsigned number, const struct scsi_disk *disc)
{
	struct scsi_disk *drive = &storage->disk[number];
	const bool has_disc = disc->sectors;

	drive->sectors = disc->sectors;
	drive->is_open = drive->is_locked = false;
	drive->event = has_disc ? SCSI_EVENT_NEW : SCSI_EVENT_GONE;
	if (has_disc)
		storage->attention[number] |= ATTENTION_MEDIUM;
}

static int attach(struct storage *storage, unsigned number, const struct scsi_disk *disk)
{
	const struct scsi_disk *before = &storage->disk[number];
	const bool is_there = storage->luns >> number & 1;

	if (storage->leaving == number)
		return -EBUSY;
	if (is_there && (!disk->is_optical || !before->is_optical || before->sectors))
		return -EEXIST;
	if (is_there) {
		change_disc(storage, number, disk);
	} else {
		storage->disk[number] = *disk;
		storage->attention[number] = 0;
	}
	storage->luns |= 1u << number;
	if (number >= storage->disks)
		storage->disks = number + 1;
	storage->attached++;
	changed(storage);
	return 0;
}

int storage_attach(struct storage *storage, unsigned number, const struct block_disk *disk)
{
	struct scsi_disk described;
	int error = -EINVAL;

	if (number >= BLOCK_DISKS || !disk->sector_bytes)
		return error;
	describe(storage, disk, &described);
	bus_channel_lock(storage->channel);
	if (!storage->awaited)
		error = attach(storage, number, &described);
	bus_channel_unlock(storage->channel);
	return error;
}

void storage_lose(struct storage *storage)
{
	bus_channel_lock(storage->channel);
	storage->awaited = storage->away = false;
	storage->luns = 0;
	changed(storage);
	go_on(storage);
	bus_channel_unlock(storage->channel);
	bus_channel_run(storage->channel);
}

/* A disc that the guest has locked stays: it is asked to let go. */
static int take_disc(struct storage *storage, unsigned number)
{
	struct scsi_disk *drive = &storage->disk[number];

	if (drive->is_locked) {
		drive->event = SCSI_EVENT_EJECT;
		return -EBUSY;
	}
	change_disc(storage, number, &(struct scsi_disk){ .sectors = 0 });
	return 0;
}

static int detach(struct storage *storage, unsigned number)
{
	int error = 0;

	if (!(storage->luns >> number & 1))
		return -ENODEV;
	if (storage->leaving != NOBODY)
		return -EBUSY;
	if (storage->disk[number].is_optical && storage->disk[number].sectors)
		error = take_disc(storage, number);
	else
		storage->luns &= ~(1u << number);
	if (error)
		return error;
	storage->leaving = number;
	storage->detached++;
	changed(storage);
	let_go(storage);
	return 0;
}

int storage_detach(struct storage *storage, unsigned number)
{
	int error;

	if (number >= BLOCK_DISKS)
		return -EINVAL;
	bus_channel_lock(storage->channel);
	error = detach(storage, number);
	bus_channel_unlock(storage->channel);
	return error;
}

int storage_resize(struct storage *storage, unsigned number, uint64_t size_bytes)
{
	int error = -ENODEV;

	if (number >= BLOCK_DISKS)
		return -EINVAL;
	bus_channel_lock(storage->channel);
	if (storage->luns >> number & 1) {
		struct scsi_disk *disk = &storage->disk[number];

		disk->sectors = size_bytes / disk->sector_bytes;
		storage->attention[number] |= ATTENTION_CAPACITY;
		changed(storage);
		error = 0;
	}
	bus_channel_unlock(storage->channel);
	return error;
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
		"failed %lu, attached %lu, detached %lu\n",
		storage->commands, storage->bytes_read, storage->bytes_written, storage->flushes,
		storage->refused, storage->failed, storage->attached, storage->detached);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

/* ---- pauses and saved state ---- */

void storage_pause(struct storage *storage)
{
	bus_channel_lock(storage->channel);
	storage->paused = true;
	while (!storage_is_drained(storage))
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

void storage_forked(struct storage *storage) { pthread_cond_init(&storage->drained, NULL); }

/* ---- the unit ---- */

static void unit_pause(void *self) { storage_pause(self); }
static void unit_resume(void *self) { storage_resume(self); }
static void unit_forked(void *self) { storage_forked(self); }
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
