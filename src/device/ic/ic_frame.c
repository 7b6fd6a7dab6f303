/* See ic_frame.h. */
#include "ic_frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "lib/archive.h"
#include "lib/check.h"

enum { FLAG_TRANSACTION = 1, FLAG_REQUEST = 2, FLAG_RESPONSE = 4 };

/* The pipe's words, then the message's head. */
struct head {
	uint32_t pipe_flags, pipe_bytes;
	struct ic_version framework;
	uint16_t type;
	struct ic_version message;
	uint16_t bytes; /* of what follows */
	uint32_t status;
	uint8_t transaction, flags;
	uint16_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct head) == 28, "a head");

struct negotiation {
	uint16_t frameworks, messages;
	uint32_t reserved;
	struct ic_version version[2 * IC_VERSIONS];
};
static const struct ic_version frameworks[IC_VERSIONS] = { { 3, 0 }, { 1, 0 } };

int ic_send(struct ic_frame *frame, uint16_t type, const void *data, size_t bytes)
{
	uint8_t packet[sizeof(struct head) + IC_PAYLOAD_BYTES];
	const struct head head = { .pipe_flags = 1,
				   .pipe_bytes = (uint32_t)(sizeof(head) - 8 + bytes),
				   .framework = frame->framework,
				   .type = type,
				   .message = frame->message,
				   .bytes = (uint16_t)bytes,
				   .transaction = ++frame->transaction,
				   .flags = FLAG_TRANSACTION | FLAG_REQUEST };

	assert(bytes <= IC_PAYLOAD_BYTES);
	memcpy(packet, &head, sizeof(head));
	memcpy(packet + sizeof(head), data, bytes);
	return bus_channel_send(frame->channel, PACKET_INBAND, frame->transaction, packet,
				sizeof(head) + bytes);
}

int ic_ask(struct ic_frame *frame, uint16_t type, const void *data, size_t bytes)
{
	int error = ic_send(frame, type, data, bytes);

	frame->asked = !error;
	frame->asked_seconds = 0;
	CHECK(check_ic_frame(frame));
	return error;
}

void ic_give_up(struct ic_frame *frame)
{
	frame->asked = false;
	frame->transaction++;
}

void ic_begin(struct ic_frame *frame)
{
	struct negotiation negotiation = { .frameworks = IC_VERSIONS,
					   .messages = (uint16_t)frame->kind->count };

	frame->ready = frame->asked = false;
	frame->framework = frameworks[0];
	frame->message = frame->kind->versions[0];
	memcpy(negotiation.version, frameworks, sizeof(frameworks));
	memcpy(negotiation.version + IC_VERSIONS, frame->kind->versions,
	       sizeof(struct ic_version) * frame->kind->count);
	ic_send(frame, IC_NEGOTIATE, &negotiation,
		sizeof(negotiation) -
			sizeof(struct ic_version) * (IC_VERSIONS - frame->kind->count));
}

void ic_end(struct ic_frame *frame) { frame->ready = frame->asked = false; }

static bool is_offered(const struct ic_version *list, unsigned count, struct ic_version version)
{
	for (unsigned n = 0; n < count; n++)
		if (list[n].major == version.major && list[n].minor == version.minor)
			return true;
	return false;
}

void check_ic_frame(const struct ic_frame *frame)
{
	assert(frame->kind->count <= IC_VERSIONS);
	assert(!frame->asked || frame->ready);
	if (!frame->ready)
		return;
	assert(is_offered(frameworks, IC_VERSIONS, frame->framework));
	assert(is_offered(frame->kind->versions, frame->kind->count, frame->message));
}

/*
 * One of each, of those that were offered; another answer says that the guest knows none, and then
 * nobody is there.
 */
static enum ic_event negotiated(struct ic_frame *frame, const uint8_t *data, size_t bytes)
{
	struct {
		uint16_t frameworks, messages;
		uint32_t reserved;
		struct ic_version version[2];
	} n;

	if (bytes < sizeof(n) || frame->ready)
		return IC_NOTHING;
	memcpy(&n, data, sizeof(n));
	if (n.frameworks != 1 || n.messages != 1 ||
	    !is_offered(frameworks, IC_VERSIONS, n.version[0]) ||
	    !is_offered(frame->kind->versions, frame->kind->count, n.version[1]))
		return IC_NOTHING;
	frame->framework = n.version[0];
	frame->message = n.version[1];
	frame->ready = true;
	return IC_READY;
}

int ic_take(struct ic_frame *frame, const struct bus_packet *packet, struct ic_answer *ret)
{
	struct head head;

	if (packet->type != PACKET_INBAND || packet->payload_bytes < sizeof(head))
		return -EBADMSG;
	memcpy(&head, packet->payload, sizeof(head));
	*ret = (struct ic_answer){ .type = head.type,
				   .status = head.status,
				   .data = packet->payload + sizeof(head),
				   .bytes = packet->payload_bytes - sizeof(head) };
	if (!(head.flags & FLAG_RESPONSE))
		return IC_NOTHING;
	if (head.type == IC_NEGOTIATE)
		return (int)negotiated(frame, ret->data, ret->bytes);
	if (!frame->ready || head.type != frame->kind->message)
		return IC_NOTHING;
	if (frame->asked && head.transaction != frame->transaction)
		return IC_NOTHING;
	frame->asked = false;
	CHECK(check_ic_frame(frame));
	return IC_ANSWERED;
}

static void version_archive(struct archive *archive, struct ic_version *version)
{
	archive_u16(archive, &version->major);
	archive_u16(archive, &version->minor);
}

void ic_archive(struct archive *archive, struct ic_frame *frame)
{
	archive_bool(archive, &frame->ready);
	version_archive(archive, &frame->framework);
	version_archive(archive, &frame->message);
	archive_u8(archive, &frame->transaction);
	archive_check(archive, !frame->ready ||
				       is_offered(frameworks, IC_VERSIONS, frame->framework));
	archive_check(archive, !frame->ready || is_offered(frame->kind->versions,
							   frame->kind->count, frame->message));
}
