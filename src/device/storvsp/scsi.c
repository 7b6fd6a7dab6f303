/*
 * See scsi.h. One table from operation codes to what decodes them, of drives that read discs with
 * another one before it (optical.c); mode pages and vital product data are built here.
 */
#include "scsi_internal.h"

#include <string.h>

#define SENSE_UNKNOWN_COMMAND ((struct scsi_sense){ SCSI_ILLEGAL_REQUEST, 0x20, 0 })
#define SENSE_OUT_OF_RANGE ((struct scsi_sense){ SCSI_ILLEGAL_REQUEST, 0x21, 0 })
#define SENSE_WRITE_PROTECTED ((struct scsi_sense){ 7, 0x27, 0 })

enum {
	MODE_CACHING = 8, MODE_ALL = 0x3f, MODE_ALL_SUBPAGES = 0xff, MODE_WRITE_PROTECTED = 0x80,
	MODE_FORCE_UNIT_ACCESS = 0x10, CACHE_IS_WRITTEN_BACK = 4
};
/* "Msft" is what drivers of this channel look for before they clear ranges by WRITE SAME. */
static const char vendor[] = "Msft    Virtual Disk    1.0 ";
static const char vendor_of_drive[] = "Msft    Virtual DVD-ROM 1.0 ";
enum { TYPE_OPTICAL = 5, IS_REMOVABLE = 0x80 };

uint64_t scsi_big_endian(const uint8_t *from, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *from++;
	return value;
}

void scsi_put_big_endian(uint8_t *to, unsigned bytes, uint64_t value)
{
	while (bytes--) {
		to[bytes] = (uint8_t)value;
		value >>= 8;
	}
}

void scsi_fail(const struct scsi_request *request, struct scsi_sense sense)
{
	request->command->act = SCSI_FINISHED;
	request->command->sense = sense;
}

/* At most what the initiator has room for. */
void scsi_reply(const struct scsi_request *request, size_t bytes, uint64_t room)
{
	request->command->act = SCSI_REPLY;
	request->command->reply_bytes = bytes < room ? bytes : (size_t)room;
}

/* ---- reading and writing ---- */

static bool is_on_disk(const struct scsi_disk *disk, uint64_t sector, uint64_t count)
{
	return sector <= disk->sectors && count <= disk->sectors - sector;
}

static void transfer(const struct scsi_request *request, enum scsi_act act, uint64_t sector,
		     uint64_t count)
{
	struct scsi_command *command = request->command;

	if (!is_on_disk(request->disk, sector, count)) {
		scsi_fail(request, SENSE_OUT_OF_RANGE);
		return;
	}
	if (act == SCSI_WRITE && request->disk->read_only) {
		scsi_fail(request, SENSE_WRITE_PROTECTED);
		return;
	}
	if (count > request->disk->transfer_bytes / request->disk->sector_bytes) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	command->act = count ? act : SCSI_FINISHED;
	command->offset = sector * request->disk->sector_bytes;
	command->bytes = count * request->disk->sector_bytes;
}

void scsi_read_sectors(const struct scsi_request *request, uint64_t sector, uint64_t count)
{
	transfer(request, SCSI_READ, sector, count);
}

static void transfer_6(const struct scsi_request *request, enum scsi_act act)
{
	transfer(request, act, scsi_big_endian(request->cdb + 1, 3) & 0x1fffff,
		 request->cdb[4] ? request->cdb[4] : 256);
}

/* Protection information (bits 7:5) is not there. */
static void transfer_long(const struct scsi_request *request, enum scsi_act act, uint64_t sector,
			  uint64_t count)
{
	if (request->cdb[1] >> 5) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	request->command->force_unit_access = request->cdb[1] >> 3 & 1;
	transfer(request, act, sector, count);
}

static void transfer_10(const struct scsi_request *request, enum scsi_act act)
{
	transfer_long(request, act, scsi_big_endian(request->cdb + 2, 4),
		      scsi_big_endian(request->cdb + 7, 2));
}
static void transfer_12(const struct scsi_request *request, enum scsi_act act)
{
	transfer_long(request, act, scsi_big_endian(request->cdb + 2, 4),
		      scsi_big_endian(request->cdb + 6, 4));
}
static void transfer_16(const struct scsi_request *request, enum scsi_act act)
{
	transfer_long(request, act, scsi_big_endian(request->cdb + 2, 8),
		      scsi_big_endian(request->cdb + 10, 4));
}
static void read_6(const struct scsi_request *request) { transfer_6(request, SCSI_READ); }
static void read_10(const struct scsi_request *request) { transfer_10(request, SCSI_READ); }
static void read_12(const struct scsi_request *request) { transfer_12(request, SCSI_READ); }
static void read_16(const struct scsi_request *request) { transfer_16(request, SCSI_READ); }
static void write_6(const struct scsi_request *request) { transfer_6(request, SCSI_WRITE); }
static void write_10(const struct scsi_request *request) { transfer_10(request, SCSI_WRITE); }
static void write_12(const struct scsi_request *request) { transfer_12(request, SCSI_WRITE); }
static void write_16(const struct scsi_request *request) { transfer_16(request, SCSI_WRITE); }

static void synchronize(const struct scsi_request *request) { request->command->act = SCSI_FLUSH; }

static void write_same(const struct scsi_request *request, uint64_t sector, uint64_t count)
{
	struct scsi_command *command = request->command;

	if (request->disk->read_only) {
		scsi_fail(request, SENSE_WRITE_PROTECTED);
		return;
	}
	if (!is_on_disk(request->disk, sector, count)) {
		scsi_fail(request, SENSE_OUT_OF_RANGE);
		return;
	}
	if (request->cdb[1] & ~8 || !count) { /* all but UNMAP */
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	command->act = SCSI_WRITE_SAME;
	command->offset = sector * request->disk->sector_bytes;
	command->bytes = count * request->disk->sector_bytes;
}

static void write_same_10(const struct scsi_request *request)
{
	write_same(request, scsi_big_endian(request->cdb + 2, 4),
		   scsi_big_endian(request->cdb + 7, 2));
}
static void write_same_16(const struct scsi_request *request)
{
	write_same(request, scsi_big_endian(request->cdb + 2, 8),
		   scsi_big_endian(request->cdb + 10, 4));
}

static void unmap(const struct scsi_request *request)
{
	struct scsi_command *command = request->command;

	command->bytes = scsi_big_endian(request->cdb + 7, 2);
	if (request->disk->read_only)
		scsi_fail(request, SENSE_WRITE_PROTECTED);
	else if (request->cdb[1] & 1 || command->bytes > SCSI_UNMAP_BYTES)
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
	else
		command->act = command->bytes ? SCSI_UNMAP : SCSI_FINISHED;
}

int scsi_unmap_list(const struct scsi_disk *disk, const uint8_t *list, size_t bytes,
		    uint64_t ret[SCSI_UNMAP_RANGES][2], struct scsi_sense *ret_sense)
{
	size_t count = bytes < 8 ? 0 : scsi_big_endian(list + 2, 2) / 16;

	*ret_sense = SCSI_SENSE_INVALID_LIST;
	if (bytes < 8 || count > (bytes - 8) / 16 || count > SCSI_UNMAP_RANGES)
		return -1;
	for (size_t n = 0; n < count; n++) {
		uint64_t sector = scsi_big_endian(list + 8 + 16 * n, 8);
		uint64_t sectors = scsi_big_endian(list + 16 + 16 * n, 4);

		*ret_sense = SENSE_OUT_OF_RANGE;
		if (!is_on_disk(disk, sector, sectors))
			return -1;
		ret[n][0] = sector * disk->sector_bytes;
		ret[n][1] = sectors * disk->sector_bytes;
	}
	return (int)count;
}

/* ---- what the disk is ---- */

static void read_capacity_10(const struct scsi_request *request)
{
	uint64_t last = request->disk->sectors ? request->disk->sectors - 1 : 0;

	scsi_put_big_endian(request->command->reply, 4, last > UINT32_MAX ? UINT32_MAX : last);
	scsi_put_big_endian(request->command->reply + 4, 4, request->disk->sector_bytes);
	scsi_reply(request, 8, 8);
}

static unsigned sectors_exponent(const struct scsi_disk *disk)
{
	unsigned n = 0;

	while (n < 15 && disk->sector_bytes << n < disk->physical_bytes)
		n++;
	return n;
}

/* SERVICE ACTION IN (16): READ CAPACITY is the only one. */
static void read_capacity_16(const struct scsi_request *request)
{
	uint8_t *to = request->command->reply;

	if ((request->cdb[1] & 0x1f) != 0x10) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	scsi_put_big_endian(to, 8, request->disk->sectors ? request->disk->sectors - 1 : 0);
	scsi_put_big_endian(to + 8, 4, request->disk->sector_bytes);
	to[13] = (uint8_t)sectors_exponent(request->disk);
	to[14] = request->disk->read_only ? 0 : 0xc0; /* what is unmapped reads as zero */
	scsi_reply(request, 32, scsi_big_endian(request->cdb + 10, 4));
}

static void vital_identification(const struct scsi_request *request, uint8_t *to)
{
	const uint8_t *id = request->disk->id;

	to[3] = 12;
	to[4] = 1; /* binary */
	to[5] = 3; /* NAA, of the unit */
	to[7] = 8;
	memcpy(to + 8, id, 8);
	to[8] = (uint8_t)(0x30 | (id[0] & 15)); /* locally assigned */
}

static void vital_limits(const struct scsi_request *request, uint8_t *to)
{
	const struct scsi_disk *disk = request->disk;
	uint32_t sectors = disk->transfer_bytes / disk->sector_bytes;

	scsi_put_big_endian(to + 2, 2, 0x3c);
	scsi_put_big_endian(to + 6, 2, 1u << sectors_exponent(disk));
	scsi_put_big_endian(to + 8, 4, sectors);
	scsi_put_big_endian(to + 12, 4, sectors);
	if (!disk->read_only) {
		scsi_put_big_endian(to + 20, 4, 0xffffffff);
		scsi_put_big_endian(to + 24, 4, SCSI_UNMAP_RANGES);
		scsi_put_big_endian(to + 28, 4, 1u << sectors_exponent(disk));
		scsi_put_big_endian(to + 36, 8, 0xffffffff);
	}
}

static void inquire_vital(const struct scsi_request *request)
{
	static const uint8_t pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
	const bool is_optical = request->disk->is_optical;
	uint8_t *to = request->command->reply;

	to[0] = is_optical ? TYPE_OPTICAL : 0;
	to[1] = request->cdb[2];
	if (is_optical && request->cdb[2] > 0x83) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	switch (request->cdb[2]) {
	case 0x00:
		to[3] = is_optical ? 3 : sizeof(pages);
		memcpy(to + 4, pages, to[3]);
		break;
	case 0x80:
		to[3] = 32;
		for (unsigned n = 0; n < 32; n++)
			to[4 + n] = (uint8_t) "0123456789abcdef"[request->disk->id[n / 2] >>
									 (n & 1 ? 0 : 4) &
								 15];
		break;
	case 0x83: vital_identification(request, to); break;
	case 0xb0: vital_limits(request, to); break;
	case 0xb1:
		to[3] = 0x3c;
		to[5] = 1; /* nothing rotates */
		break;
	case 0xb2:
		to[3] = 4;
		/* UNMAP, WRITE SAME of both lengths; zeros */
		to[5] = request->disk->read_only ? 0 : 0xe4;
		to[6] = request->disk->read_only ? 0 : 2; /* thin */
		break;
	default: scsi_fail(request, SCSI_SENSE_INVALID_FIELD); return;
	}
	scsi_reply(request, 4 + (size_t)scsi_big_endian(to + 2, 2),
		   scsi_big_endian(request->cdb + 3, 2));
}

static void inquire(const struct scsi_request *request)
{
	uint8_t *to = request->command->reply;

	if (request->cdb[1] & 1) {
		inquire_vital(request);
		return;
	}
	if (request->cdb[2]) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	if (request->disk->is_optical) {
		to[0] = TYPE_OPTICAL;
		to[1] = IS_REMOVABLE;
	}
	to[2] = 6; /* SPC-4 */
	to[3] = 2;
	to[4] = 36 - 5;
	to[7] = 2; /* command queues */
	memcpy(to + 8, request->disk->is_optical ? vendor_of_drive : vendor, sizeof(vendor) - 1);
	scsi_reply(request, 36, scsi_big_endian(request->cdb + 3, 2));
}

void scsi_inquire_absent(struct scsi_command *ret)
{
	*ret = (struct scsi_command){ .act = SCSI_REPLY,
				      .reply_bytes = 36,
				      .reply = { 0x7f, 0, 6, 2, 36 - 5 } };
}

static void report_luns(const struct scsi_request *request)
{
	scsi_report_luns(request->luns, scsi_big_endian(request->cdb + 6, 4), request->command);
}

/*
 * Caching is the only mode page, and has no subpages; Linux from 6.10 on asks for one of the
 * control page (hints for streams) and takes the refusal. Page control 1, what can be changed:
 * nothing.
 */
static void mode_sense(const struct scsi_request *request, unsigned head_bytes, uint64_t room)
{
	unsigned page = request->cdb[2] & 0x3f;
	bool has_subpage = request->cdb[3] && request->cdb[3] != MODE_ALL_SUBPAGES;
	unsigned at = head_bytes;
	uint8_t *to = request->command->reply;
	uint8_t parameters = (uint8_t)((request->disk->read_only ? MODE_WRITE_PROTECTED : 0) |
				       MODE_FORCE_UNIT_ACCESS);

	if ((page != MODE_CACHING && page != MODE_ALL) || has_subpage ||
	    request->cdb[2] >> 6 == 3) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	to[at] = MODE_CACHING;
	to[at + 1] = 18;
	to[at + 2] = request->cdb[2] >> 6 == 1 ? 0 : CACHE_IS_WRITTEN_BACK;
	at += 20;
	if (head_bytes == 4) {
		to[0] = (uint8_t)(at - 1);
		to[2] = parameters;
	} else {
		scsi_put_big_endian(to, 2, at - 2);
		to[3] = parameters;
	}
	scsi_reply(request, at, room);
}

static void mode_sense_6(const struct scsi_request *request)
{
	mode_sense(request, 4, request->cdb[4]);
}
static void mode_sense_10(const struct scsi_request *request)
{
	mode_sense(request, 8, scsi_big_endian(request->cdb + 7, 2));
}

/* Sense goes with each command: there is never any that waits. */
static void request_sense(const struct scsi_request *request)
{
	scsi_sense_bytes((struct scsi_sense){ 0 }, request->command->reply);
	scsi_reply(request, SCSI_SENSE_BYTES, request->cdb[4]);
}

static void nothing(const struct scsi_request *request) { request->command->act = SCSI_FINISHED; }

static const struct scsi_operation commands[] = {
	{ 0x00, nothing /* TEST UNIT READY */ },
	{ SCSI_REQUEST_SENSE, request_sense },
	{ 0x08, read_6 },
	{ 0x0a, write_6 },
	{ SCSI_INQUIRY, inquire },
	{ 0x1a, mode_sense_6 },
	{ 0x1b, nothing /* START STOP UNIT */ },
	{ 0x1e, nothing /* PREVENT ALLOW MEDIUM REMOVAL */ },
	{ 0x25, read_capacity_10 },
	{ 0x28, read_10 },
	{ 0x2a, write_10 },
	{ 0x35, synchronize },
	{ 0x41, write_same_10 },
	{ 0x42, unmap },
	{ 0x5a, mode_sense_10 },
	{ 0x88, read_16 },
	{ 0x8a, write_16 },
	{ 0x91, synchronize },
	{ 0x93, write_same_16 },
	{ 0x9e, read_capacity_16 },
	{ SCSI_REPORT_LUNS, report_luns },
	{ 0xa8, read_12 },
	{ 0xaa, write_12 },
};

/* What a drive that reads discs does as every unit. */
static bool is_of_every_unit(uint8_t code)
{
	return code == SCSI_REQUEST_SENSE || code == SCSI_INQUIRY || code == SCSI_REPORT_LUNS;
}

static const struct scsi_operation *find_operation(const struct scsi_disk *disk, uint8_t code)
{
	for (size_t n = 0; disk->is_optical && optical_operations[n].decode; n++)
		if (optical_operations[n].code == code)
			return &optical_operations[n];
	if (disk->is_optical && !is_of_every_unit(code))
		return NULL;
	for (size_t n = 0; n < sizeof(commands) / sizeof(commands[0]); n++)
		if (commands[n].code == code)
			return &commands[n];
	return NULL;
}

void scsi_decode(const struct scsi_disk *disk, uint64_t luns, const uint8_t cdb[SCSI_CDB_BYTES],
		 struct scsi_command *ret)
{
	const struct scsi_request request = { disk, luns, cdb, ret };
	const struct scsi_operation *operation = find_operation(disk, cdb[0]);

	*ret = (struct scsi_command){ 0 };
	if (operation)
		operation->decode(&request);
	else
		scsi_fail(&request, SENSE_UNKNOWN_COMMAND);
}

void scsi_report_luns(uint64_t luns, uint64_t room, struct scsi_command *ret)
{
	unsigned count = 0;

	*ret = (struct scsi_command){ .act = SCSI_REPLY };
	for (unsigned n = 0; n < 62; n++) /* what a reply has room for */
		if (luns >> n & 1)
			ret->reply[8 + 8 * count++ + 1] = (uint8_t)n;
	scsi_put_big_endian(ret->reply, 4, 8 * count);
	ret->reply_bytes = 8 + 8 * count < room ? 8 + 8 * count : (size_t)room;
}

void scsi_sense_bytes(struct scsi_sense sense, uint8_t ret[SCSI_SENSE_BYTES])
{
	memset(ret, 0, SCSI_SENSE_BYTES);
	ret[0] = 0x70;
	ret[2] = sense.key;
	ret[7] = SCSI_SENSE_BYTES - 8;
	ret[12] = sense.code;
	ret[13] = sense.qualifier;
}
