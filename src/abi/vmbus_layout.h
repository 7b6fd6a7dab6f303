/*
 * What travels on a VMBus: messages of the connection, rings, and packets. Layouts of the guest's
 * drivers; all little-endian.
 */
#pragma once

#include <stdint.h>

#include "guid_layout.h"

/* Versions: major << 16 | minor. */
enum {
	VMBUS_2_4 = 0x20004,
	VMBUS_3_0 = 0x30000,
	VMBUS_4_0 = 0x40000,
	VMBUS_4_1 = 0x40001,
	VMBUS_5_0 = 0x50000,
	VMBUS_5_1,
	VMBUS_5_2,
	VMBUS_5_3
};
/*
 * Message type and SINT of all of it; connections: 1 until 4.1, 4 since 5.0; of a channel this and
 * its relative id.
 */
enum {
	VMBUS_MESSAGE_TYPE = 1,
	VMBUS_SINT = 2,
	VMBUS_CONNECTION_OLD = 1,
	VMBUS_CONNECTION = 4,
	VMBUS_CONNECTION_CHANNEL = 0x2000
};

enum vmbus_kind {
	VMBUS_OFFER = 1,
	VMBUS_RESCIND,
	VMBUS_REQUEST_OFFERS,
	VMBUS_ALL_OFFERS_DELIVERED,
	VMBUS_OPEN,
	VMBUS_OPEN_RESULT,
	VMBUS_CLOSE,
	VMBUS_GPADL_HEADER,
	VMBUS_GPADL_BODY,
	VMBUS_GPADL_CREATED,
	VMBUS_GPADL_TEARDOWN,
	VMBUS_GPADL_TORN_DOWN,
	VMBUS_RELID_RELEASED,
	VMBUS_INITIATE_CONTACT,
	VMBUS_VERSION_RESPONSE,
	VMBUS_UNLOAD,
	VMBUS_UNLOAD_RESPONSE,
	VMBUS_TL_CONNECT = 21,
	VMBUS_MODIFY_CHANNEL,
	VMBUS_TL_CONNECT_RESULT,
	VMBUS_MODIFY_CHANNEL_RESPONSE
};

/* Also the whole of REQUEST_OFFERS, ALL_OFFERS_DELIVERED, UNLOAD and UNLOAD_RESPONSE. */
struct vmbus_head { uint32_t kind, reserved; };

/* Of an offer: it is a connection (hv_sock); in its user data, that the host has begun it. */
enum { VMBUS_OFFER_SOCKET = 0x2000, VMBUS_USER_FROM_HOST = 4 };

struct vmbus_offer {
	struct vmbus_head head;
	struct guid type, instance;
	uint64_t reserved[2];
	uint16_t flags, mmio_mib;
	uint8_t user_data[120];
	uint16_t sub_channel, reserved_too;
	uint32_t relid;
	uint8_t monitor_id, has_monitor;
	uint16_t dedicated_interrupt;
	uint32_t connection;
} __attribute__((packed));
_Static_assert(sizeof(struct vmbus_offer) == 196, "an offer");

struct vmbus_open {
	struct vmbus_head head;
	uint32_t relid, open_id, gpadl, vp_index, host_ring_page;
	uint8_t user_data[120];
};
struct vmbus_open_result { struct vmbus_head head; uint32_t relid, open_id, status; };
struct vmbus_relid { struct vmbus_head head; uint32_t relid; }; /* RESCIND, CLOSE, RELID_RELEASED */
struct vmbus_gpadl_header {
	struct vmbus_head head;
	uint32_t relid, gpadl;
	uint16_t range_bytes, ranges;
	uint32_t bytes, offset; /* then u64 gfn[] */
};
struct vmbus_gpadl_body { struct vmbus_head head; uint32_t number, gpadl; /* then u64 gfn[] */ };
struct vmbus_gpadl_created { struct vmbus_head head; uint32_t relid, gpadl, status; };
struct vmbus_gpadl_teardown { struct vmbus_head head; uint32_t relid, gpadl; };
struct vmbus_gpadl_torn_down { struct vmbus_head head; uint32_t gpadl; };
/* Since 5.0 interrupt_page is { u8 SINT, u8 VTL, u16, u32 features }. */
struct vmbus_contact {
	struct vmbus_head head;
	uint32_t version, vp_index;
	uint64_t interrupt_page, monitor_page[2];
};
struct vmbus_version_response {
	struct vmbus_head head;
	uint8_t supported, state;
	uint16_t reserved;
	uint32_t connection; /* before 5.0: the version */
};
/* The guest asks for a connection (hv_sock): who it is there, and whom of the host it looks for. */
struct vmbus_tl_connect { struct vmbus_head head; struct guid endpoint, service; };
struct vmbus_tl_connect_result {
	struct vmbus_head head;
	struct guid endpoint, service;
	uint32_t status;
};
struct vmbus_modify { struct vmbus_head head; uint32_t relid, vp_index; };
struct vmbus_modify_response { struct vmbus_head head; uint32_t relid, status; };
_Static_assert(sizeof(struct vmbus_open) == 148 && sizeof(struct vmbus_contact) == 40, "messages");

/* A ring is a page with these words, and pages of data. */
enum {
	RING_WRITE_INDEX = 0,
	RING_READ_INDEX = 4,
	RING_INTERRUPT_MASK = 8,
	RING_PENDING_BYTES = 12,
	RING_FEATURES = 64,
	RING_FEATURE_PENDING = 1
};

enum vmbus_packet_type {
	PACKET_INBAND = 6,
	PACKET_TRANSFER_PAGES = 7,
	PACKET_GPA_DIRECT = 9,
	PACKET_COMPLETION = 11
};
enum { PACKET_WANTS_COMPLETION = 1, PACKET_FOOTER_BYTES = 8 };
/* units of 8 bytes, the footer not counted */
struct vmbus_packet { uint16_t type, data_units, units, flags; uint64_t transaction; };
/* Behind the head of PACKET_TRANSFER_PAGES; then u32 bytes, u32 offset of each range. */
struct vmbus_transfer_pages { uint16_t page_set; uint8_t sender_owns, reserved; uint32_t ranges; };
_Static_assert(sizeof(struct vmbus_packet) == 16, "a packet's head");
