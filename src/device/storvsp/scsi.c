/*
 * See scsi.h. One table from operation codes to what decodes them; mode pages and vital product
 * data are built here.
 */
#include "scsi.h"

#include <string.h>

#define SENSE_UNKNOWN_COMMAND ((struct scsi_sense){ 5, 0x20, 0 })
#define SENSE_OUT_OF_RANGE ((struct scsi_sense){ 5, 0x21, 0 })
#define SENSE_WRITE_PROTECTED ((struct scsi_sense){ 7, 0x27, 0 })

enum {
	MODE_CACHING = 8, MODE_ALL = 0x3f, MODE_WRITE_PROTECTED = 0x80,
	MODE_FORCE_UNIT_ACCESS = 0x10, CACHE_IS_WRITTEN_BACK = 4
};
/* "Msft" is what drivers of this channel look for before they clear ranges by WRITE SAME. */
static const char vendor[] = "Msft    Virtual Disk    1.0 ";

struct request {
	const struct scsi_disk *disk;
	uint64_t luns;
	const uint8_t *cdb;
	struct scsi_command *command;
};

static uint64_t big_endian(const uint8_t *from, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | *from++;
	return v;
}

static void put_big_endian(uint8_t *to, unsigned bytes, uint64_t v)
{
	while (bytes--) {
		to[bytes] = (uint8_t)v;
		v >>= 8;
	}
}

static void fail(const struct request *r, struct scsi_sense sense)
{
	r->command->act = SCSI_FINISHED;
	r->command->sense = sense;
}

/* At most what the initiator has room for. */
static void reply(const struct request *r, size_t bytes, uint64_t room)
{
	r->command->act = SCSI_REPLY;
	r->command->reply_bytes = bytes < room ? bytes : (size_t)room;
}

/* ---- reading and writing ---- */

static bool is_on_disk(const struct scsi_disk *d, uint64_t sector, uint64_t count)
{
	return sector <= d->sectors && count <= d->sectors - sector;
}

static void transfer(const struct request *r, enum scsi_act act, uint64_t sector, uint64_t count)
{
	struct scsi_command *c = r->command;

	if (!is_on_disk(r->disk, sector, count)) {
		fail(r, SENSE_OUT_OF_RANGE);
		return;
	}
	if (act == SCSI_WRITE && r->disk->read_only) {
		fail(r, SENSE_WRITE_PROTECTED);
		return;
	}
	if (count > r->disk->transfer_bytes / r->disk->sector_bytes) {
		fail(r, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	c->act = count ? act : SCSI_FINISHED;
	c->offset = sector * r->disk->sector_bytes;
	c->bytes = count * r->disk->sector_bytes;
}

static void transfer_6(const struct request *r, enum scsi_act act)
{
	transfer(r, act, big_endian(r->cdb + 1, 3) & 0x1fffff, r->cdb[4] ? r->cdb[4] : 256);
}

/* Protection information (bits 7:5) is not there. */
static void transfer_long(const struct request *r, enum scsi_act act, uint64_t sector,
			  uint64_t count)
{
	if (r->cdb[1] >> 5) {
		fail(r, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	r->command->force_unit_access = r->cdb[1] >> 3 & 1;
	transfer(r, act, sector, count);
}

static void transfer_10(const struct request *r, enum scsi_act act)
{
	transfer_long(r, act, big_endian(r->cdb + 2, 4), big_endian(r->cdb + 7, 2));
}
static void transfer_12(const struct request *r, enum scsi_act act)
{
	transfer_long(r, act, big_endian(r->cdb + 2, 4), big_endian(r->cdb + 6, 4));
}
static void transfer_16(const struct request *r, enum scsi_act act)
{
	transfer_long(r, act, big_endian(r->cdb + 2, 8), big_endian(r->cdb + 10, 4));
}
static void read_6(const struct request *r) { transfer_6(r, SCSI_READ); }
static void read_10(const struct request *r) { transfer_10(r, SCSI_READ); }
static void read_12(const struct request *r) { transfer_12(r, SCSI_READ); }
static void read_16(const struct request *r) { transfer_16(r, SCSI_READ); }
static void write_6(const struct request *r) { transfer_6(r, SCSI_WRITE); }
static void write_10(const struct request *r) { transfer_10(r, SCSI_WRITE); }
static void write_12(const struct request *r) { transfer_12(r, SCSI_WRITE); }
static void write_16(const struct request *r) { transfer_16(r, SCSI_WRITE); }

static void synchronize(const struct request *r) { r->command->act = SCSI_FLUSH; }

static void write_same(const struct request *r, uint64_t sector, uint64_t count)
{
	struct scsi_command *c = r->command;

	if (r->disk->read_only) {
		fail(r, SENSE_WRITE_PROTECTED);
		return;
	}
	if (!is_on_disk(r->disk, sector, count)) {
		fail(r, SENSE_OUT_OF_RANGE);
		return;
	}
	if (r->cdb[1] & ~8 || !count) { /* all but UNMAP */
		fail(r, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	c->act = SCSI_WRITE_SAME;
	c->offset = sector * r->disk->sector_bytes;
	c->bytes = count * r->disk->sector_bytes;
}

static void write_same_10(const struct request *r)
{
	write_same(r, big_endian(r->cdb + 2, 4), big_endian(r->cdb + 7, 2));
}
static void write_same_16(const struct request *r)
{
	write_same(r, big_endian(r->cdb + 2, 8), big_endian(r->cdb + 10, 4));
}

static void unmap(const struct request *r)
{
	struct scsi_command *c = r->command;

	c->bytes = big_endian(r->cdb + 7, 2);
	if (r->disk->read_only)
		fail(r, SENSE_WRITE_PROTECTED);
	else if (r->cdb[1] & 1 || c->bytes > SCSI_UNMAP_BYTES)
		fail(r, SCSI_SENSE_INVALID_FIELD);
	else
		c->act = c->bytes ? SCSI_UNMAP : SCSI_FINISHED;
}

int scsi_unmap_list(const struct scsi_disk *d, const uint8_t *list, size_t bytes,
		    uint64_t ret[SCSI_UNMAP_RANGES][2], struct scsi_sense *ret_sense)
{
	size_t count = bytes < 8 ? 0 : big_endian(list + 2, 2) / 16;

	*ret_sense = SCSI_SENSE_INVALID_LIST;
	if (bytes < 8 || count > (bytes - 8) / 16 || count > SCSI_UNMAP_RANGES)
		return -1;
	for (size_t n = 0; n < count; n++) {
		uint64_t sector = big_endian(list + 8 + 16 * n, 8);
		uint64_t sectors = big_endian(list + 16 + 16 * n, 4);

		*ret_sense = SENSE_OUT_OF_RANGE;
		if (!is_on_disk(d, sector, sectors))
			return -1;
		ret[n][0] = sector * d->sector_bytes;
		ret[n][1] = sectors * d->sector_bytes;
	}
	return (int)count;
}

/* ---- what the disk is ---- */

static void read_capacity_10(const struct request *r)
{
	uint64_t last = r->disk->sectors ? r->disk->sectors - 1 : 0;

	put_big_endian(r->command->reply, 4, last > UINT32_MAX ? UINT32_MAX : last);
	put_big_endian(r->command->reply + 4, 4, r->disk->sector_bytes);
	reply(r, 8, 8);
}

static unsigned sectors_exponent(const struct scsi_disk *d)
{
	unsigned n = 0;

	while (n < 15 && d->sector_bytes << n < d->physical_bytes)
		n++;
	return n;
}

/* SERVICE ACTION IN (16): READ CAPACITY is the only one. */
static void read_capacity_16(const struct request *r)
{
	uint8_t *to = r->command->reply;

	if ((r->cdb[1] & 0x1f) != 0x10) {
		fail(r, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	put_big_endian(to, 8, r->disk->sectors ? r->disk->sectors - 1 : 0);
	put_big_endian(to + 8, 4, r->disk->sector_bytes);
	to[13] = (uint8_t)sectors_exponent(r->disk);
	to[14] = r->disk->read_only ? 0 : 0xc0; /* what is unmapped reads as zero */
	reply(r, 32, big_endian(r->cdb + 10, 4));
}

static void vital_identification(const struct request *r, uint8_t *to)
{
	const uint8_t *id = r->disk->id;

	to[3] = 12;
	to[4] = 1; /* binary */
	to[5] = 3; /* NAA, of the unit */
	to[7] = 8;
	memcpy(to + 8, id, 8);
	to[8] = (uint8_t)(0x30 | (id[0] & 15)); /* locally assigned */
}

static void vital_limits(const struct request *r, uint8_t *to)
{
	const struct scsi_disk *d = r->disk;
	uint32_t sectors = d->transfer_bytes / d->sector_bytes;

	put_big_endian(to + 2, 2, 0x3c);
	put_big_endian(to + 6, 2, 1u << sectors_exponent(d));
	put_big_endian(to + 8, 4, sectors);
	put_big_endian(to + 12, 4, sectors);
	if (!d->read_only) {
		put_big_endian(to + 20, 4, 0xffffffff);
		put_big_endian(to + 24, 4, SCSI_UNMAP_RANGES);
		put_big_endian(to + 28, 4, 1u << sectors_exponent(d));
		put_big_endian(to + 36, 8, 0xffffffff);
	}
}

static void inquire_vital(const struct request *r)
{
	static const uint8_t pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
	uint8_t *to = r->command->reply;

	to[1] = r->cdb[2];
	switch (r->cdb[2]) {
	case 0x00:
		to[3] = sizeof(pages);
		memcpy(to + 4, pages, sizeof(pages));
		break;
	case 0x80:
		to[3] = 32;
		for (unsigned n = 0; n < 32; n++)
			to[4 + n] =
				(uint8_t) "0123456789abcdef"[r->disk->id[n / 2] >> (n & 1 ? 0 : 4) &
							     15];
		break;
	case 0x83: vital_identification(r, to); break;
	case 0xb0: vital_limits(r, to); break;
	case 0xb1:
		to[3] = 0x3c;
		to[5] = 1; /* nothing rotates */
		break;
	case 0xb2:
		to[3] = 4;
		/* UNMAP, WRITE SAME of both lengths; zeros */
		to[5] = r->disk->read_only ? 0 : 0xe4;
		to[6] = r->disk->read_only ? 0 : 2;    /* thin */
		break;
	default: fail(r, SCSI_SENSE_INVALID_FIELD); return;
	}
	reply(r, 4 + (size_t)big_endian(to + 2, 2), big_endian(r->cdb + 3, 2));
}

static void inquire(const struct request *r)
{
	uint8_t *to = r->command->reply;

	if (r->cdb[1] & 1) {
		inquire_vital(r);
		return;
	}
	if (r->cdb[2]) {
		fail(r, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	to[2] = 6; /* SPC-4 */
	to[3] = 2;
	to[4] = 36 - 5;
	to[7] = 2; /* command queues */
	memcpy(to + 8, vendor, sizeof(vendor) - 1);
	reply(r, 36, big_endian(r->cdb + 3, 2));
}

void scsi_inquire_absent(struct scsi_command *ret)
{
	*ret = (struct scsi_command){ .act = SCSI_REPLY,
				      .reply_bytes = 36,
				      .reply = { 0x7f, 0, 6, 2, 36 - 5 } };
}

static void report_luns(const struct request *r)
{
	uint8_t *to = r->command->reply;
	unsigned count = 0;

	for (unsigned n = 0; n < 62; n++) /* what a reply has room for */
		if (r->luns >> n & 1)
			to[8 + 8 * count++ + 1] = (uint8_t)n;
	put_big_endian(to, 4, 8 * count);
	reply(r, 8 + 8 * count, big_endian(r->cdb + 6, 4));
}

/* Caching is the only mode page. Page control 1, what can be changed: nothing. */
static void mode_sense(const struct request *r, unsigned head_bytes, uint64_t room)
{
	unsigned page = r->cdb[2] & 0x3f;
	unsigned at = head_bytes;
	uint8_t *to = r->command->reply;
	uint8_t parameters =
		(uint8_t)((r->disk->read_only ? MODE_WRITE_PROTECTED : 0) | MODE_FORCE_UNIT_ACCESS);

	if ((page != MODE_CACHING && page != MODE_ALL) || r->cdb[2] >> 6 == 3) {
		fail(r, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	to[at] = MODE_CACHING;
	to[at + 1] = 18;
	to[at + 2] = r->cdb[2] >> 6 == 1 ? 0 : CACHE_IS_WRITTEN_BACK;
	at += 20;
	if (head_bytes == 4) {
		to[0] = (uint8_t)(at - 1);
		to[2] = parameters;
	} else {
		put_big_endian(to, 2, at - 2);
		to[3] = parameters;
	}
	reply(r, at, room);
}

static void mode_sense_6(const struct request *r) { mode_sense(r, 4, r->cdb[4]); }
static void mode_sense_10(const struct request *r) { mode_sense(r, 8, big_endian(r->cdb + 7, 2)); }

/* Sense goes with each command: there is never any that waits. */
static void request_sense(const struct request *r)
{
	scsi_sense_bytes((struct scsi_sense){ 0 }, r->command->reply);
	reply(r, SCSI_SENSE_BYTES, r->cdb[4]);
}

static void nothing(const struct request *r) { r->command->act = SCSI_FINISHED; }

static const struct { uint8_t code; void (*decode)(const struct request *r);
} commands[] = {
	{ 0x00, nothing /* TEST UNIT READY */ },
	{ 0x03, request_sense },
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

void scsi_decode(const struct scsi_disk *disk, uint64_t luns, const uint8_t cdb[SCSI_CDB_BYTES],
		 struct scsi_command *ret)
{
	const struct request r = { disk, luns, cdb, ret };

	*ret = (struct scsi_command){ 0 };
	for (size_t n = 0; n < sizeof(commands) / sizeof(commands[0]); n++)
		if (commands[n].code == cdb[0]) {
			commands[n].decode(&r);
			return;
		}
	fail(&r, SENSE_UNKNOWN_COMMAND);
}

void scsi_sense_bytes(struct scsi_sense s, uint8_t ret[SCSI_SENSE_BYTES])
{
	memset(ret, 0, SCSI_SENSE_BYTES);
	ret[0] = 0x70;
	ret[2] = s.key;
	ret[7] = SCSI_SENSE_BYTES - 8;
	ret[12] = s.code;
	ret[13] = s.qualifier;
}
