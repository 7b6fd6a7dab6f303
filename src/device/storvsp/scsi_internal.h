/* Inside the decoding of commands: what scsi.c and optical.c share. */
#pragma once

#include "scsi.h"

struct scsi_request {
	const struct scsi_disk *disk;
	uint64_t luns;
	const uint8_t *cdb;
	struct scsi_command *command;
};

struct scsi_operation {
	uint8_t code;
	void (*decode)(const struct scsi_request *request);
};

uint64_t scsi_big_endian(const uint8_t *from, unsigned bytes);
void scsi_put_big_endian(uint8_t *to, unsigned bytes, uint64_t value);
void scsi_fail(const struct scsi_request *request, struct scsi_sense sense);
/* At most what the initiator has room for. */
void scsi_reply(const struct scsi_request *request, size_t bytes, uint64_t room);
/* Sectors from one on, where they lie on the disk and are not more than one command may move. */
void scsi_read_sectors(const struct scsi_request *request, uint64_t sector, uint64_t count);

/* Of a drive that reads discs: ended by one without a function. */
extern const struct scsi_operation optical_operations[];
