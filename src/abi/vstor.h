/* The protocol of a storage channel (storvsc's vstor packets); all little-endian. */
#pragma once

#include <stdint.h>

enum vstor_operation {
	VSTOR_COMPLETE = 1,
	VSTOR_REMOVE_DEVICE,
	VSTOR_EXECUTE,
	VSTOR_RESET_LUN,
	VSTOR_RESET_ADAPTER,
	VSTOR_RESET_BUS,
	VSTOR_BEGIN,
	VSTOR_END,
	VSTOR_QUERY_VERSION,
	VSTOR_QUERY_PROPERTIES,
	VSTOR_ENUMERATE_BUS,
	VSTOR_FIBRE_DATA,
	VSTOR_CREATE_SUB_CHANNELS
};
enum { VSTOR_5_1 = 0x501, VSTOR_6_0 = 0x600, VSTOR_6_2 = 0x602 };
/* NTSTATUS */
#define VSTOR_UNSUCCESSFUL 0xc0000001u
#define VSTOR_NOT_SUPPORTED 0xc00000bbu
#define VSTOR_REVISION_MISMATCH 0xc0000059u
#define VSTOR_INVALID_STATE 0xc0000184u
/* SRB status */
enum {
	SRB_SUCCESS = 1,
	SRB_ABORTED = 2,
	SRB_ERROR = 4,
	SRB_INVALID_REQUEST = 6,
	SRB_DATA_OVERRUN = 0x12,
	SRB_INVALID_LUN = 0x20,
	SRB_SENSE_VALID = 0x80
};
enum { SRB_DIRECTION_WRITE, SRB_DIRECTION_READ, SRB_DIRECTION_NONE };

struct vstor_srb {
	uint16_t bytes;
	uint8_t srb_status, scsi_status, port, path, target, lun, cdb_bytes, sense_bytes, direction,
		reserved;
	uint32_t data_bytes;
	uint8_t cdb_or_sense[20];
	uint16_t reserved_too;
	uint8_t queue_tag, queue_action;
	uint32_t flags, timeout_s, sort_key;
};
_Static_assert(sizeof(struct vstor_srb) == 52, "an SRB");

/* Flags of properties: there may be sub-channels. */
enum { VSTOR_SEVERAL_CHANNELS = 1 };
struct vstor_properties {
	uint32_t reserved;
	uint16_t sub_channels, reserved_too;
	uint32_t flags, transfer_bytes;
	uint64_t reserved_3;
} __attribute__((packed));
_Static_assert(sizeof(struct vstor_properties) == 24, "properties");

struct vstor_packet {
	uint32_t operation, flags, status;
	union {
		struct vstor_srb srb;
		struct vstor_properties properties;
		struct { uint16_t version, revision; } version;
		uint16_t sub_channels; /* how many, of CREATE_SUB_CHANNELS */
		uint8_t bytes[52];
	} body;
};
_Static_assert(sizeof(struct vstor_packet) == 64, "a packet");
