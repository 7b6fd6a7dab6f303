/*
 * SCSI direct access devices (SBC-3, SPC-4) and drives that read discs (MMC-6): what a command
 * means for a disk of so many sectors. No guest memory and no requests: the caller moves data.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SCSI_CDB_BYTES = 16, SCSI_SENSE_BYTES = 18, SCSI_REPLY_BYTES = 512, SCSI_UNMAP_RANGES = 32,
	SCSI_UNMAP_BYTES = 8 + 16 * SCSI_UNMAP_RANGES
};
enum { SCSI_REQUEST_SENSE = 0x03, SCSI_INQUIRY = 0x12, SCSI_REPORT_LUNS = 0xa0 };
enum { SCSI_GOOD = 0, SCSI_CHECK_CONDITION = 2 };

/* What GET EVENT STATUS NOTIFICATION says of a medium. */
enum scsi_event { SCSI_NO_EVENT, SCSI_EVENT_EJECT, SCSI_EVENT_NEW, SCSI_EVENT_GONE };

struct scsi_disk {
	uint64_t sectors; /* of a drive 0: there is no disc in it */
	uint32_t sector_bytes, physical_bytes;
	uint32_t transfer_bytes; /* at most in one command */
	bool read_only;
	uint8_t id[16];
	/* of a drive that reads discs: its tray is open, or the guest keeps it closed */
	bool is_optical, is_open, is_locked;
	enum scsi_event event; /* not told yet */
};

/*
 * What is to be done. REPLY: `reply` goes to the guest. Ranges in bytes of the disk, checked.
 * WRITE_SAME: a sector of the guest's says what.
 */
enum scsi_act {
	SCSI_FINISHED, SCSI_REPLY, SCSI_READ, SCSI_WRITE, SCSI_FLUSH, SCSI_UNMAP, SCSI_WRITE_SAME,
	SCSI_OPEN_TRAY, SCSI_CLOSE_TRAY, SCSI_LOCK, SCSI_UNLOCK
};

enum { SCSI_NOT_READY = 2, SCSI_ILLEGAL_REQUEST = 5, SCSI_UNIT_ATTENTION = 6 };
struct scsi_sense { uint8_t key, code, qualifier; }; /* key 0: none */

struct scsi_command {
	enum scsi_act act;
	struct scsi_sense sense; /* of FINISHED: check condition where the key is not 0 */
	/* of UNMAP and WRITE_SAME, bytes: what is cleared; of UNMAP: of the guest's list */
	uint64_t offset, bytes;
	bool force_unit_access, unmap;
	bool takes_event; /* of a REPLY: the disk's event is told with it */
	size_t reply_bytes;
	uint8_t reply[SCSI_REPLY_BYTES];
};

static inline bool scsi_has_medium(const struct scsi_disk *disk)
{
	return disk->sectors && !disk->is_open;
}

/* What INQUIRY says of a unit that is not there (SPC-4 6.6.2). */
void scsi_inquire_absent(struct scsi_command *ret);
/* LUNs that are there: bit n. */
void scsi_report_luns(uint64_t luns, uint64_t room, struct scsi_command *ret);
void scsi_decode(const struct scsi_disk *disk, uint64_t luns, const uint8_t cdb[SCSI_CDB_BYTES],
		 struct scsi_command *ret);
/* A list of UNMAP: ranges in bytes; their number, or -1 with *ret_sense. */
int scsi_unmap_list(const struct scsi_disk *disk, const uint8_t *list, size_t bytes,
		    uint64_t ret[SCSI_UNMAP_RANGES][2], struct scsi_sense *ret_sense);
/* Fixed format. */
void scsi_sense_bytes(struct scsi_sense sense, uint8_t ret[SCSI_SENSE_BYTES]);

#define SCSI_SENSE_INVALID_FIELD ((struct scsi_sense){ SCSI_ILLEGAL_REQUEST, 0x24, 0 })
#define SCSI_SENSE_INVALID_LIST ((struct scsi_sense){ SCSI_ILLEGAL_REQUEST, 0x26, 0 })
#define SCSI_SENSE_READ_ERROR ((struct scsi_sense){ 3, 0x11, 0 })
#define SCSI_SENSE_WRITE_ERROR ((struct scsi_sense){ 3, 0x0c, 0 })
#define SCSI_SENSE_NO_SPACE ((struct scsi_sense){ 7, 0x27, 7 })
#define SCSI_SENSE_MEDIUM_CHANGED ((struct scsi_sense){ SCSI_UNIT_ATTENTION, 0x28, 0 })
#define SCSI_SENSE_CAPACITY_CHANGED ((struct scsi_sense){ SCSI_UNIT_ATTENTION, 0x2a, 9 })
/* Of a drive that has no disc, or an open tray. */
static inline struct scsi_sense scsi_not_ready(const struct scsi_disk *disk)
{
	return (struct scsi_sense){ SCSI_NOT_READY, 0x3a, disk->is_open ? 2 : 1 };
}
