/*
 * What all integration components (hv_utils) have in common: how a channel begins, and the head of
 * each message.
 *
 *   opened -> the host offers versions -> the guest takes one -> ready: requests go to the guest,
 *   answers come back
 *
 * A component that asks one question at a time has it here, too: an answer is the answer to the
 * last question, or nothing.
 *
 *  1. Versions that were taken are of those that were offered.
 *  2. Only who is ready is asked; the question's number is `transaction`.
 *
 * Lock: the channel's.
 */
#pragma once

#include "vmbus/vmbus.h"

struct archive;

enum ic_type {
	IC_NEGOTIATE = 0,
	IC_HEARTBEAT = 1,
	IC_KEYS = 2,
	IC_SHUTDOWN = 3,
	IC_TIME = 4,
	IC_BACKUP = 5,
	IC_FILE = 7
};
enum { IC_VERSIONS = 2, IC_PAYLOAD_BYTES = 8000 };

struct ic_version { uint16_t major, minor; };
/* What there is of a kind of component. */
struct ic_kind {
	struct guid type, instance;
	uint16_t message; /* enum ic_type */
	struct ic_version versions[IC_VERSIONS];
	unsigned count;
};

struct ic_frame {
	const struct ic_kind *kind;
	struct bus_channel *channel;
	bool ready, asked;
	struct ic_version framework, message;
	uint8_t transaction;
	unsigned asked_seconds; /* for who counts them */
};

/* An answer of the guest's; data are good as long as the packet. */
struct ic_answer { uint16_t type; uint32_t status; const uint8_t *data; size_t bytes; };

enum ic_event {
	IC_NOTHING,
	IC_READY,    /* from now on it can be asked */
	IC_ANSWERED,
};

/* A channel was opened, or closed. */
void ic_begin(struct ic_frame *frame);
void ic_end(struct ic_frame *frame);
/* At most IC_PAYLOAD_BYTES. 0 or -errno, as bus_channel_send(). */
int ic_send(struct ic_frame *frame, uint16_t type, const void *data, size_t bytes);
/* The same, of a question. */
int ic_ask(struct ic_frame *frame, uint16_t type, const void *data, size_t bytes);
/* The question is given up: its answer will be nothing. */
void ic_give_up(struct ic_frame *frame);
/* -EBADMSG, or enum ic_event. Of who asks no questions each answer counts. */
int ic_take(struct ic_frame *frame, const struct bus_packet *packet, struct ic_answer *ret);
void ic_archive(struct archive *archive, struct ic_frame *frame);
void check_ic_frame(const struct ic_frame *frame);
