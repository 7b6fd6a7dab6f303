/*
 * What wrong acts on a network card share: a channel that was opened for this one, up to where a
 * driver may send frames, and how the act came out.
 */
#pragma once

#include "abi/nvsp.h"
#include "abi/rndis.h"
#include "vmbus.h"

extern struct channel net;
enum { SEND_GPADL = 78, RECEIVE_GPADL = 79, BUFFER_PAGES = 128, SECTION_OF_SENDING = 6144 };

/* The channel is broken; else what the act's answer says (NVSP's or RNDIS's status). */
enum { CHANNEL_BROKEN = 0xb0 };
#define NVSP_REFUSED ((uint64_t)NVSP_FAILURE)

/* As it was opened, with nothing said yet; and with a version agreed upon. */
void net_reopen(void);
uint64_t net_init(uint32_t least, uint32_t most);
/* A message of `bytes` in a packet of this type, and the status in its completion. */
uint64_t nvsp_packet(uint16_t type, const struct nvsp_message *message, uint32_t bytes);
uint64_t nvsp_outcome(const struct nvsp_message *message);
/* The same of a message with one or two words behind its kind. */
uint64_t nvsp_words(uint32_t kind, uint32_t first, uint32_t second);
/* RNDIS messages in section 0: of data the completion's status, of control the answer's. */
uint64_t data_outcome(const void *message, uint32_t bytes);
uint64_t control_outcome(const void *message, uint32_t bytes);
/* The same of a QUERY or SET with these fields, and `data` behind its head. */
uint64_t request_outcome(uint32_t kind, const struct rndis_request *fields, const void *data,
			 uint32_t bytes);
/* A frame of 60 bytes with a head like this; what is zero in it is as it should be. */
struct frame_fields {
	uint32_t bytes, data_offset, data_bytes, info_offset, info_bytes;
	struct rndis_info info;
	uint32_t value;
};
uint64_t frame_outcome(const struct frame_fields *fields);
/*
 * Receive side scaling set to a table of two entries and a key; what is not zero here is otherwise.
 */
struct scale_fields {
	uint32_t queue, table_offset, key_offset;
	uint16_t table_bytes, key_bytes;
};
uint64_t scale_outcome(const struct scale_fields *fields);
/* With a range of the guest's memory instead of a section. */
uint64_t range_outcome(const struct nvsp_message *message, uint64_t gpa, uint32_t bytes);
/* Gives a packet back that may never have come. */
void completion_of(uint64_t transaction);
/* HALT, which nobody answers. */
void net_halt(void);
