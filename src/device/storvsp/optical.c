/*
 * Drives that read discs (MMC-6): what they know beside the commands of every unit. The disc has
 * one session with one track of data, which is the file.
 *
 *   no disc --host--> disc <--guest: START STOP--> tray open          what may be changed while the
 *                                                                     guest has it locked: nothing
 *
 * What a command changes of the tray and the lock is an act, which the caller does (storage.c).
 */
#include <string.h>

#include "scsi_internal.h"

enum {
	MODE_CAPABILITIES = 0x2a, MODE_ALL = 0x3f, MODE_BYTES = 22,
	/* of the page: reads DVD-ROM, CD-RW and CD-R; a tray, which can be locked and opened */
	READS_DISCS = 0x0b, HAS_TRAY = 0x29,
	TOC_FORMAT_TRACKS = 0, TOC_FORMAT_SESSIONS = 1, TOC_DATA_TRACK = 0x14, TOC_LEAD_OUT = 0xaa,
	FRAMES_PER_SECOND = 75, SECONDS_PER_MINUTE = 60, FRAMES_BEFORE = 150,
	PROFILE_CD_ROM = 0x08, PROFILE_DVD_ROM = 0x10,
	/* a disc with more is no CD */
	CD_SECTORS_MOST = 450000,
	EVENT_MEDIUM_CLASS = 4, NO_EVENT_CLASS = 0x80,
	STATUS_TRAY_OPEN = 1, STATUS_HAS_DISC = 2
};
#define SENSE_LOCKED ((struct scsi_sense){ SCSI_ILLEGAL_REQUEST, 0x53, 2 })

static bool needs_disc(const struct scsi_request *request)
{
	if (scsi_has_medium(request->disk))
		return true;
	scsi_fail(request, scsi_not_ready(request->disk));
	return false;
}

/* ---- the tray ---- */

/* START STOP UNIT: bit 1 moves the tray, bit 0 says where to. */
static void start_stop(const struct scsi_request *request)
{
	const unsigned what = request->cdb[4] & 3;

	if (what == 2 && request->disk->is_locked)
		scsi_fail(request, SENSE_LOCKED);
	else if (what == 2)
		request->command->act = SCSI_OPEN_TRAY;
	else if (what == 3)
		request->command->act = SCSI_CLOSE_TRAY;
	else
		request->command->act = SCSI_FINISHED;
}

static void prevent_removal(const struct scsi_request *request)
{
	request->command->act = request->cdb[4] & 1 ? SCSI_LOCK : SCSI_UNLOCK;
}

/* GET EVENT STATUS NOTIFICATION, asked again and again: only of the medium there is any. */
static void get_event(const struct scsi_request *request)
{
	const struct scsi_disk *disk = request->disk;
	uint8_t *to = request->command->reply;

	if (!(request->cdb[1] & 1)) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	to[3] = 1 << EVENT_MEDIUM_CLASS;
	if (!(request->cdb[4] & 1 << EVENT_MEDIUM_CLASS)) {
		to[1] = 2;
		to[2] = NO_EVENT_CLASS;
		scsi_reply(request, 4, scsi_big_endian(request->cdb + 7, 2));
		return;
	}
	to[1] = 6;
	to[2] = EVENT_MEDIUM_CLASS;
	to[4] = (uint8_t)disk->event;
	to[5] = (uint8_t)((disk->is_open ? STATUS_TRAY_OPEN : 0) |
			  (scsi_has_medium(disk) ? STATUS_HAS_DISC : 0));
	request->command->takes_event = true;
	scsi_reply(request, 8, scsi_big_endian(request->cdb + 7, 2));
}

/* ---- what is on the disc ---- */

static void put_address(const struct scsi_request *request, uint8_t *to, uint64_t sector)
{
	const uint64_t frames = sector + FRAMES_BEFORE;

	if (!(request->cdb[1] & 2)) {
		scsi_put_big_endian(to, 4, sector);
		return;
	}
	to[1] = (uint8_t)(frames / FRAMES_PER_SECOND / SECONDS_PER_MINUTE);
	to[2] = (uint8_t)(frames / FRAMES_PER_SECOND % SECONDS_PER_MINUTE);
	to[3] = (uint8_t)(frames % FRAMES_PER_SECOND);
}

static uint8_t *put_track(const struct scsi_request *request, uint8_t *to, uint8_t track,
			  uint64_t sector)
{
	to[1] = TOC_DATA_TRACK;
	to[2] = track;
	put_address(request, to + 4, sector);
	return to + 8;
}

static void read_toc(const struct scsi_request *request)
{
	/* drivers of SCSI-2 say it in the last byte */
	const unsigned format = request->cdb[2] & 15 ? request->cdb[2] & 15u
						     : (unsigned)request->cdb[9] >> 6;
	uint8_t *to = request->command->reply;
	uint8_t *end = to + 4;

	if (!needs_disc(request))
		return;
	if (format > TOC_FORMAT_SESSIONS ||
	    (format == TOC_FORMAT_TRACKS && request->cdb[6] > 1 &&
	     request->cdb[6] != TOC_LEAD_OUT)) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	to[2] = to[3] = 1;
	if (format == TOC_FORMAT_SESSIONS || request->cdb[6] <= 1)
		end = put_track(request, end, 1, 0);
	if (format == TOC_FORMAT_TRACKS)
		end = put_track(request, end, TOC_LEAD_OUT, request->disk->sectors);
	scsi_put_big_endian(to, 2, (uint64_t)(end - to - 2));
	scsi_reply(request, (size_t)(end - to), scsi_big_endian(request->cdb + 7, 2));
}

/* Complete, finalized, one session of one track. */
static void read_disc_information(const struct scsi_request *request)
{
	uint8_t *to = request->command->reply;

	if (!needs_disc(request))
		return;
	if (request->cdb[1] & 7) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	to[1] = 32;
	to[2] = 0x0e;
	to[3] = to[4] = to[5] = to[6] = 1;
	memset(to + 16, 0xff, 8);
	scsi_reply(request, 34, scsi_big_endian(request->cdb + 7, 2));
}

/* ---- what the drive is ---- */

static uint16_t profile_of(const struct scsi_disk *disk)
{
	if (!scsi_has_medium(disk))
		return 0;
	return disk->sectors > CD_SECTORS_MOST ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

/* A feature with what it says, from ->end on, where it is asked for. */
struct features { const struct scsi_request *request; uint8_t *end; };

static void put_feature(struct features *features, uint16_t code, bool is_current,
			const uint8_t *data, uint8_t bytes)
{
	const unsigned kind = features->request->cdb[1] & 3;
	const uint64_t from = scsi_big_endian(features->request->cdb + 2, 2);
	uint8_t *to = features->end;

	if (code < from || (kind == 1 && !is_current) || (kind == 2 && code != from))
		return;
	scsi_put_big_endian(to, 2, code);
	to[2] = (uint8_t)(2 | is_current); /* always there */
	to[3] = bytes;
	memcpy(to + 4, data, bytes);
	features->end += 4 + bytes;
}

/* GET CONFIGURATION: kinds 0 all, 1 those of the disc, 2 one. */
static void get_configuration(const struct scsi_request *request)
{
	const uint16_t profile = profile_of(request->disk);
	const uint8_t profiles[] = { 0, PROFILE_DVD_ROM, profile == PROFILE_DVD_ROM, 0,
				     0, PROFILE_CD_ROM,  profile == PROFILE_CD_ROM,  0 };
	static const uint8_t core[] = { 0, 0, 0, 1, 1, 0, 0, 0 };
	static const uint8_t removable[] = { HAS_TRAY, 0, 0, 0 };
	static const uint8_t readable[] = { 0, 0, 8, 0, 0, 1, 0, 0 };
	static const uint8_t none[4] = { 0 };
	uint8_t *to = request->command->reply;
	struct features features = { .request = request, .end = to + 8 };

	if ((request->cdb[1] & 3) == 3) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	put_feature(&features, 0x00, true, profiles, sizeof(profiles));
	put_feature(&features, 0x01, true, core, sizeof(core));
	put_feature(&features, 0x03, true, removable, sizeof(removable));
	put_feature(&features, 0x10, profile != 0, readable, sizeof(readable));
	put_feature(&features, 0x1e, profile == PROFILE_CD_ROM, none, sizeof(none));
	put_feature(&features, 0x1f, profile == PROFILE_DVD_ROM, none, sizeof(none));
	scsi_put_big_endian(to, 4, (uint64_t)(features.end - to - 4));
	scsi_put_big_endian(to + 6, 2, profile);
	scsi_reply(request, (size_t)(features.end - to), scsi_big_endian(request->cdb + 7, 2));
}

static void mode_sense(const struct scsi_request *request, unsigned head_bytes, uint64_t room)
{
	const unsigned page = request->cdb[2] & 0x3f;
	uint8_t *to = request->command->reply;

	if ((page != MODE_CAPABILITIES && page != MODE_ALL) || request->cdb[2] >> 6 == 3) {
		scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
		return;
	}
	if (head_bytes == 4)
		to[0] = (uint8_t)(head_bytes + MODE_BYTES - 1);
	else
		scsi_put_big_endian(to, 2, head_bytes + MODE_BYTES - 2);
	to += head_bytes;
	to[0] = MODE_CAPABILITIES;
	to[1] = MODE_BYTES - 2;
	if (request->cdb[2] >> 6 != 1) { /* of what can be changed there is nothing */
		to[2] = READS_DISCS;
		to[6] = HAS_TRAY | (request->disk->is_locked ? 2 : 0);
	}
	scsi_reply(request, head_bytes + MODE_BYTES, room);
}

static void mode_sense_6(const struct scsi_request *request)
{
	mode_sense(request, 4, request->cdb[4]);
}
static void mode_sense_10(const struct scsi_request *request)
{
	mode_sense(request, 8, scsi_big_endian(request->cdb + 7, 2));
}

/* ---- reading ---- */

static void test_ready(const struct scsi_request *request)
{
	if (needs_disc(request))
		request->command->act = SCSI_FINISHED;
}

static void read_capacity(const struct scsi_request *request)
{
	uint8_t *to = request->command->reply;

	if (!needs_disc(request))
		return;
	scsi_put_big_endian(to, 4, request->disk->sectors - 1);
	scsi_put_big_endian(to + 4, 4, request->disk->sector_bytes);
	scsi_reply(request, 8, 8);
}

static void read_10(const struct scsi_request *request)
{
	if (needs_disc(request))
		scsi_read_sectors(request, scsi_big_endian(request->cdb + 2, 4),
				  scsi_big_endian(request->cdb + 7, 2));
}

static void read_12(const struct scsi_request *request)
{
	if (needs_disc(request))
		scsi_read_sectors(request, scsi_big_endian(request->cdb + 2, 4),
				  scsi_big_endian(request->cdb + 6, 4));
}

const struct scsi_operation optical_operations[] = {
	{ 0x00, test_ready },
	{ 0x1a, mode_sense_6 },
	{ 0x1b, start_stop },
	{ 0x1e, prevent_removal },
	{ 0x25, read_capacity },
	{ 0x28, read_10 },
	{ 0x43, read_toc },
	{ 0x46, get_configuration },
	{ 0x4a, get_event },
	{ 0x51, read_disc_information },
	{ 0x5a, mode_sense_10 },
	{ 0xa8, read_12 },
	{ 0 },
};
