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
	pthread_cond_t drained; /* nothing is under way; with the channel's lock */
	unsigned free, waiting; /* of the requests */
	uint64_t commands, bytes_read, bytes_written, flushes, failed;
	struct request request[BLOCK_SLOTS];
};

static uint8_t *data_of(struct storage *s, const struct request *r)
{
	return s->memory->data[r - s->request];
}

/* ---- answers ---- */

void check_storage(const struct storage *s)
{
	unsigned in_state[REQUEST_STATES] = { 0 };

	for (unsigned n = 0; n < BLOCK_SLOTS; n++) {
		assert(s->request[n].state < REQUEST_STATES);
		in_state[s->request[n].state]++;
	}
	assert(s->free == in_state[REQUEST_FREE] && s->waiting == in_state[REQUEST_WAITS]);
	assert(!s->begun || s->version);
}

/* The disk process has none of them. */
static bool is_drained(const struct storage *s)
{
	for (unsigned n = 0; n < BLOCK_SLOTS; n++)
		if (s->request[n].state == REQUEST_UNDER_WAY ||
		    s->request[n].state == REQUEST_ORPHAN)
			return false;
	return true;
}

static void request_release(struct storage *s, struct request *r)
{
	assert(r->state != REQUEST_FREE);
	s->waiting -= r->state == REQUEST_WAITS;
	r->state = REQUEST_FREE;
	s->free++;
}

static void deliver(struct storage *s, struct request *r)
{
	int error = bus_channel_send(s->channel, PACKET_COMPLETION, r->transaction, &r->packet,
				     sizeof(r->packet));

	if (error != -EAGAIN) {
		request_release(s, r);
	} else if (r->state != REQUEST_WAITS) {
		r->state = REQUEST_WAITS;
		s->waiting++;
	}
}

static void answer(struct storage *s, struct request *r, uint32_t status)
{
	r->packet.operation = VSTOR_COMPLETE;
	r->packet.status = status;
	deliver(s, r);
}

/* The outcome of a command; data_bytes: how much was transferred. */
static void complete(struct storage *s, struct request *r, uint8_t srb_status, uint32_t data_bytes)
{
	struct vstor_srb *srb = &r->packet.body.srb;

	srb->srb_status = srb_status;
	srb->scsi_status = SCSI_GOOD;
	srb->data_bytes = data_bytes;
	answer(s, r, 0);
}

static void complete_with_sense(struct storage *s, struct request *r, struct scsi_sense sense)
{
	struct vstor_srb *srb = &r->packet.body.srb;
	uint8_t bytes[SCSI_SENSE_BYTES];

	s->failed++;
	scsi_sense_bytes(sense, bytes);
	memset(srb->cdb_or_sense, 0, sizeof(srb->cdb_or_sense));
	memcpy(srb->cdb_or_sense, bytes, sizeof(bytes));
	srb->sense_bytes = sizeof(bytes);
	srb->srb_status = SRB_ERROR | SRB_SENSE_VALID;
	srb->scsi_status = SCSI_CHECK_CONDITION;
	srb->data_bytes = 0;
	answer(s, r, 0);
}

/* ---- requests to the disk ---- */

static void submit(struct storage *s, const struct request *r, enum block_kind kind,
		   uint64_t offset, uint64_t bytes)
{
	const struct slot_request b = { .slot = (uint16_t)(r - s->request),
					.target = (uint16_t)r->disk,
					.kind = (uint16_t)kind,
					.offset = offset,
					.bytes = bytes };

	slot_submit(s->client, &b);
	s->submitted = true;
}

static void kick(struct storage *s)
{
	if (s->submitted)
		slot_kick(s->client);
	s->submitted = false;
}

/*
 * What the guest's range holds, into the slot: false: it has less, or is no memory, and the command
 * is answered.
 */
static bool fetch(struct storage *s, struct request *r, uint64_t bytes)
{
	if (bytes > r->range.bytes) {
		complete(s, r, SRB_DATA_OVERRUN, 0);
		return false;
	}
	if (!bus_range_read(s->channel, &r->range, 0, data_of(s, r), (uint32_t)bytes))
		return true;
	complete(s, r, SRB_INVALID_REQUEST, 0);
	return false;
}

/* What is in `from` into the guest's range, as far as that goes. */
static void give(struct storage *s, struct request *r, const void *from, uint64_t bytes)
{
	uint32_t count = bytes < r->range.bytes ? (uint32_t)bytes : r->range.bytes;

	if (bus_range_write(s->channel, &r->range, 0, from, count))
		complete(s, r, SRB_INVALID_REQUEST, 0);
	else
		complete(s, r, SRB_SUCCESS, count);
}

static void next_unmap(struct storage *s, struct request *r)
{
	const uint64_t *range = r->unmap[r->unmapped++];

	submit(s, r, BLOCK_ZERO, range[0], range[1]);
}

static void start_unmap(struct storage *s, struct request *r)
{
	struct scsi_sense sense;

	if (!fetch(s, r, r->command.bytes))
		return;
	r->unmaps = scsi_unmap_list(&s->disk[r->disk], data_of(s, r), r->command.bytes, r->unmap,
				    &sense);
	r->unmapped = 0;
	if (r->unmaps < 0)
		complete_with_sense(s, r, sense);
	else if (!r->unmaps)
		complete(s, r, SRB_SUCCESS, 0);
	else
		next_unmap(s, r);
}

/* Only zeros can be written so: for other patterns drivers write. */
static void start_write_same(struct storage *s, struct request *r)
{
	const uint32_t bytes = s->disk[r->disk].sector_bytes;
	const uint8_t *sector = data_of(s, r);

	if (!fetch(s, r, bytes))
		return;
	if (sector[0] || memcmp(sector, sector + 1, bytes - 1))
		complete_with_sense(s, r, SCSI_SENSE_INVALID_FIELD);
	else
		submit(s, r, BLOCK_ZERO, r->command.offset, r->command.bytes);
}

static void execute(struct storage *s, struct request *r)
{
	const struct scsi_command *c = &r->command;

	switch (c->act) {
	case SCSI_FINISHED:
		if (c->sense.key)
			complete_with_sense(s, r, c->sense);
		else
			complete(s, r, SRB_SUCCESS, 0);
		break;
	case SCSI_REPLY: give(s, r, c->reply, c->reply_bytes); break;
	case SCSI_READ: submit(s, r, BLOCK_READ, c->offset, c->bytes); break;
	case SCSI_WRITE:
		if (fetch(s, r, c->bytes))
			submit(s, r, BLOCK_WRITE, c->offset, c->bytes);
		break;
	case SCSI_FLUSH: submit(s, r, BLOCK_FLUSH, 0, 0); break;
	case SCSI_UNMAP: start_unmap(s, r); break;
	case SCSI_WRITE_SAME: start_write_same(s, r); break;
	}
	r->flush_follows = c->act == SCSI_WRITE && c->force_unit_access;
}

static void failed(struct storage *s, struct request *r, int error)
{
	if (r->command.act == SCSI_READ)
		complete_with_sense(s, r, SCSI_SENSE_READ_ERROR);
	else if (error == -ENOSPC)
		complete_with_sense(s, r, SCSI_SENSE_NO_SPACE);
	else
		complete_with_sense(s, r, SCSI_SENSE_WRITE_ERROR);
}

static void disk_replied(struct storage *s, struct request *r, int error)
{
	if (error) {
		failed(s, r, error);
		return;
	}
	switch (r->command.act) {
	case SCSI_READ:
		s->bytes_read += r->command.bytes;
		give(s, r, data_of(s, r), r->command.bytes);
		return;
	case SCSI_WRITE:
		if (r->flush_follows) {
			r->flush_follows = false;
			submit(s, r, BLOCK_FLUSH, 0, 0);
			return;
		}
		s->bytes_written += r->command.bytes;
		complete(s, r, SRB_SUCCESS, (uint32_t)r->command.bytes);
		return;
	case SCSI_UNMAP:
		if (r->unmapped < r->unmaps)
			next_unmap(s, r);
		else
			complete(s, r, SRB_SUCCESS, (uint32_t)r->command.bytes);
		return;
	case SCSI_FLUSH: s->flushes++; break;
	default: break;
	}
	complete(s, r, SRB_SUCCESS, 0);
}

/* ---- packets ---- */

/* Drivers look at what INQUIRY and REPORT LUNS say, and not at their status. */
static void execute_absent(struct storage *s, struct request *r)
{
	switch (r->packet.body.srb.cdb_or_sense[0]) {
	case SCSI_INQUIRY: scsi_inquire_absent(&r->command); break;
	case SCSI_REPORT_LUNS:
		r->command = (struct scsi_command){ .act = SCSI_REPLY, .reply_bytes = 8 };
		break;
	default: complete(s, r, SRB_INVALID_LUN, 0); return;
	}
	give(s, r, r->command.reply, r->command.reply_bytes);
}

static void execute_srb(struct storage *s, struct request *r)
{
	struct vstor_srb *srb = &r->packet.body.srb;
	uint8_t cdb[SCSI_CDB_BYTES] = { 0 };

	if (!s->version || !s->begun) {
		answer(s, r, VSTOR_INVALID_STATE);
		return;
	}
	s->commands++;
	if (srb->path || srb->target || srb->lun >= s->disks) {
		execute_absent(s, r);
		return;
	}
	if (srb->cdb_bytes > SCSI_CDB_BYTES) {
		complete(s, r, SRB_INVALID_REQUEST, 0);
		return;
	}
	r->disk = (uint32_t)speculation_bound(srb->lun, s->disks);
	memcpy(cdb, srb->cdb_or_sense, srb->cdb_bytes);
	scsi_decode(&s->disk[r->disk], (1ull << s->disks) - 1, cdb, &r->command);
	execute(s, r);
}

static bool is_version(uint32_t version)
{
	return version == VSTOR_5_1 || version == VSTOR_6_0 || version == VSTOR_6_2;
}

static void query_version(struct storage *s, struct request *r)
{
	uint16_t version = r->packet.body.version.version;

	if (!is_version(version)) {
		answer(s, r, VSTOR_REVISION_MISMATCH);
		return;
	}
	s->version = version;
	answer(s, r, 0);
}

static void query_properties(struct storage *s, struct request *r)
{
	r->packet.body.properties = (struct vstor_properties){ .transfer_bytes = BLOCK_SLOT_BYTES };
	answer(s, r, s->version ? 0 : VSTOR_INVALID_STATE);
}

static void dispatch(struct storage *s, struct request *r)
{
	switch (r->packet.operation) {
	case VSTOR_BEGIN:
		s->version = 0;
		s->begun = false;
		answer(s, r, 0);
		break;
	case VSTOR_QUERY_VERSION: query_version(s, r); break;
	case VSTOR_QUERY_PROPERTIES: query_properties(s, r); break;
	case VSTOR_END:
		s->begun = s->version != 0;
		answer(s, r, s->begun ? 0 : VSTOR_INVALID_STATE);
		break;
	case VSTOR_EXECUTE: execute_srb(s, r); break;
	/* nothing is kept that a reset would have to undo; what is under way ends by itself */
	case VSTOR_RESET_LUN:
	case VSTOR_RESET_ADAPTER:
	case VSTOR_RESET_BUS: answer(s, r, 0); break;
	default: answer(s, r, VSTOR_NOT_SUPPORTED); break;
	}
}

static struct request *request_take(struct storage *s)
{
	struct request *r = s->request;

	while (r->state != REQUEST_FREE) /* there is one: ready() has said so */
		r++;
	s->free--;
	return r;
}

static bool ready(void *context)
{
	const struct storage *s = context;

	return s->free > 0 && !s->paused;
}

static int packet(void *context, const struct bus_packet *p)
{
	struct storage *s = context;
	struct request *r;

	if ((p->type != PACKET_INBAND && p->type != PACKET_GPA_DIRECT) ||
	    p->payload_bytes < sizeof(r->packet))
		return -EBADMSG;
	if (p->ranges > 1 || (p->ranges && bus_range_pages(&p->range[0]) > GFNS))
		return -EBADMSG;
	r = request_take(s);
	*r = (struct request){ .state = REQUEST_UNDER_WAY, .transaction = p->transaction };
	memcpy(&r->packet, p->payload, sizeof(r->packet));
	if (p->ranges) {
		r->range = (struct bus_range){ p->range[0].bytes, p->range[0].offset, r->gfn };
		memcpy(r->gfn, p->range[0].gfn, bus_range_pages(&p->range[0]) * sizeof(r->gfn[0]));
	}
	dispatch(s, r);
	kick(s);
	return 0;
}

static void opened(void *context)
{
	struct storage *s = context;

	s->version = 0;
	s->begun = false;
}

static void closed(void *context)
{
	struct storage *s = context;

	for (unsigned n = 0; n < BLOCK_SLOTS; n++) {
		if (s->request[n].state == REQUEST_UNDER_WAY)
			s->request[n].state = REQUEST_ORPHAN;
		else if (s->request[n].state == REQUEST_WAITS)
			request_release(s, &s->request[n]);
	}
}

static void room(void *context)
{
	struct storage *s = context;

	for (unsigned n = 0; n < BLOCK_SLOTS && s->waiting; n++)
		if (s->request[n].state == REQUEST_WAITS)
			deliver(s, &s->request[n]);
}

/* ---- the thread that collects ---- */

int storage_collect(struct storage *s)
{
	struct slot_reply reply;
	bool some = false;
	int got;

	bus_channel_lock(s->channel);
	while ((got = slot_collect(s->client, &reply)) > 0) {
		struct request *r = &s->request[speculation_bound(reply.slot, BLOCK_SLOTS)];

		some = true;
		guest_memory_begin();
		if (r->state == REQUEST_UNDER_WAY)
			disk_replied(s, r, reply.result);
		else if (r->state == REQUEST_ORPHAN)
			request_release(s, r);
		else
			got = -EBADMSG;
		if (got < 0)
			break;
	}
	kick(s);
	CHECK(check_storage(s));
	pthread_cond_broadcast(&s->drained);
	bus_channel_unlock(s->channel);
	if (some)
		/* slots are free: what waits in the guest's ring can be taken */
		bus_channel_run(s->channel);
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

struct storage *storage_create(struct bus *bus, struct block_memory *memory,
			       struct slot_client *client)
{
	struct storage *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	pthread_cond_init(&s->drained, NULL);
	assert(client->slots == BLOCK_SLOTS);
	s->memory = memory;
	s->client = client;
	s->free = BLOCK_SLOTS;
	s->disks = memory->disks;
	for (unsigned n = 0; n < s->disks; n++)
		describe(&memory->disk[n], &s->disk[n]);
	s->service = (struct bus_service){ .type = STORAGE_TYPE,
					   .instance = STORAGE_INSTANCE,
					   .opened = opened,
					   .closed = closed,
					   .ready = ready,
					   .packet = packet,
					   .room = room,
					   .context = s };
	s->channel = bus_offer(bus, &s->service);
	if (s->channel)
		return s;
	free(s);
	return NULL;
}

void storage_destroy(struct storage *s) { free(s); }

size_t storage_statistics(const struct storage *s, char *text, size_t bytes)
{
	int used = snprintf(
		text, bytes,
		"storage: %lu commands, %lu bytes read, %lu written, %lu flushes, %lu failed\n",
		s->commands, s->bytes_read, s->bytes_written, s->flushes, s->failed);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

/* ---- pauses and saved state ---- */

void storage_pause(struct storage *s)
{
	bus_channel_lock(s->channel);
	s->paused = true;
	while (!is_drained(s))
		bus_channel_wait(s->channel, &s->drained);
	bus_channel_unlock(s->channel);
}

void storage_resume(struct storage *s)
{
	bus_channel_lock(s->channel);
	s->paused = false;
	bus_channel_unlock(s->channel);
	bus_channel_run(s->channel); /* what the guest has asked for meanwhile */
}

/* Which disks there are: a machine that was saved goes on with the same. */
static void disks_archive(struct archive *archive, struct storage *s)
{
	uint32_t count = s->disks;

	archive_u32(archive, &count);
	if (!archive->error && count != s->disks)
		archive_fail(archive, -ENOTSUP, "it has another number of disks");
	for (unsigned n = 0; n < s->disks && !archive->error; n++) {
		struct scsi_disk disk = s->disk[n];

		archive_u64(archive, &disk.sectors);
		archive_u32(archive, &disk.sector_bytes);
		archive_u32(archive, &disk.physical_bytes);
		archive_bool(archive, &disk.read_only);
		archive_bytes(archive, disk.id, sizeof(disk.id));
		if (!archive->error && (disk.sectors != s->disk[n].sectors ||
					disk.sector_bytes != s->disk[n].sector_bytes ||
					disk.physical_bytes != s->disk[n].physical_bytes ||
					disk.read_only != s->disk[n].read_only ||
					memcmp(disk.id, s->disk[n].id, sizeof(disk.id))))
			archive_fail(archive, -ENOTSUP, "it has other disks");
	}
}

/* Completions that found no room in the guest's ring. */
static void waiting_archive(struct archive *archive, struct storage *s)
{
	uint32_t count = s->waiting;
	unsigned slot = 0;

	archive_u32(archive, &count);
	if (!archive_check(archive, count <= BLOCK_SLOTS))
		return;
	for (uint32_t n = 0; n < count && !archive->error; n++, slot++) {
		struct request *r;

		while (!archive->loading && s->request[slot].state != REQUEST_WAITS)
			slot++;
		r = &s->request[slot];
		archive_u64(archive, &r->transaction);
		archive_bytes(archive, &r->packet, sizeof(r->packet));
		if (!archive->loading || archive->error)
			continue;
		r->state = REQUEST_WAITS;
		s->waiting++;
		s->free--;
	}
}

void storage_archive(struct archive *archive, struct storage *s)
{
	assert(is_drained(s) && (!archive->loading || s->free == BLOCK_SLOTS));
	disks_archive(archive, s);
	archive_u32(archive, &s->version);
	archive_bool(archive, &s->begun);
	archive_check(archive, !s->version || is_version(s->version));
	archive_check(archive, s->version || !s->begun);
	waiting_archive(archive, s);
	if (!archive->error)
		check_storage(s);
}

/* ---- the unit ---- */

static void unit_pause(void *self) { storage_pause(self); }
static void unit_resume(void *self) { storage_resume(self); }
static void unit_archive(struct archive *archive, void *self) { storage_archive(archive, self); }
static void unit_destroy(void *self) { storage_destroy(self); }
static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	return storage_statistics(self, text, bytes);
}

const struct unit_ops storage_unit = {
	.name = "storage", .section = UNIT_SECTION('S', 'T', 'O', 'R'), .pause = unit_pause,
	.resume = unit_resume,
	.destroy = unit_destroy, .archive = unit_archive, .statistics = unit_statistics,
};
