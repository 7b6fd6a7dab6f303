/*
 * The network protocol of the bus: NVSP messages, which are the payload of packets, and the buffers
 * that they agree upon. What they carry is RNDIS (rndis.h). All little-endian.
 */
#pragma once

#include <stdint.h>

enum nvsp_version {
	NVSP_1 = 2,
	NVSP_2 = 0x30002,
	NVSP_4 = 0x40000,
	NVSP_5 = 0x50000,
	NVSP_6 = 0x60000,
	NVSP_6_1 = 0x60001
};

enum nvsp_kind {
	NVSP_INIT = 1,
	NVSP_INIT_COMPLETE,
	NVSP_NDIS_VERSION = 100,
	NVSP_RECEIVE_BUFFER,
	NVSP_RECEIVE_BUFFER_COMPLETE,
	NVSP_REVOKE_RECEIVE_BUFFER,
	NVSP_SEND_BUFFER,
	NVSP_SEND_BUFFER_COMPLETE,
	NVSP_REVOKE_SEND_BUFFER,
	NVSP_RNDIS,
	NVSP_RNDIS_COMPLETE,
	NVSP_NDIS_CONFIG = 125,
	NVSP_VF_ASSOCIATION = 128,
	NVSP_SWITCH_DATA_PATH = 129,
	NVSP_SUBCHANNELS = 133,
	NVSP_INDIRECTION_TABLE = 134,
};

enum nvsp_status { NVSP_SUCCESS = 1, NVSP_FAILURE = 2, NVSP_INVALID_RNDIS = 5 };
enum { NVSP_NO_SECTION = 0xffffffff, NVSP_CHANNEL_DATA = 0, NVSP_CHANNEL_CONTROL = 1 };
enum { NVSP_SUBCHANNELS_ALLOCATE = 1 };
enum { NVSP_RECEIVE_BUFFER_ID = 0xcafe };
/* Of capabilities. */
enum { NVSP_CAPABLE_VLAN = 1 << 3, NVSP_CAPABLE_RSC = 1 << 7 };

struct nvsp_section {
	uint32_t offset, bytes, count, end;
};

/* Until 6.0 the first NVSP_MESSAGE_BYTES of it, since 6.1 all. */
struct nvsp_message {
	uint32_t kind;
	union {
		struct {
			uint32_t least, most;
		} init;
		struct {
			uint32_t version, mdl_chain, status;
		} init_complete;
		struct {
			uint32_t major, minor;
		} ndis_version;
		struct {
			uint32_t mtu, reserved, capabilities, capabilities_high;
		} ndis_config;
		struct {
			uint32_t gpadl;
			uint16_t id;
		} buffer;
		struct {
			uint16_t id;
		} revoke;
		struct {
			uint32_t status, sections;
			struct nvsp_section section;
		} receive_complete;
		struct {
			uint32_t status, section_bytes;
		} send_complete;
		struct {
			uint32_t channel, section, section_bytes;
		} rndis;
		struct {
			uint32_t status;
		} rndis_complete;
		struct {
			uint32_t path;
		} data_path;
		struct {
			uint32_t operation, count;
		} subchannels;
		struct {
			uint32_t status, count;
		} subchannels_complete;
		struct {
			uint32_t count, offset;
		} indirection;
		uint32_t word[9];
	};
};
enum { NVSP_MESSAGE_BYTES = 28, NVSP_MESSAGE_6_1_BYTES = 40, NVSP_INDIRECTIONS = 16 };
_Static_assert(sizeof(struct nvsp_message) == NVSP_MESSAGE_6_1_BYTES, "a message");
