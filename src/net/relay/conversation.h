/*
 * How far a program of the host's and the guest's agent have come (abi/agent_layout.h), by the
 * heads of their frames alone: whether a connection is there for another question.
 *
 * 1. It is over when the first frame was an EXEC that is whole, as everything behind it is, and the
 *    last of the agent's was an EXITED that says `again`, and is whole.
 * 2. What is left of a frame belongs to a head that is whole, and is no more than that says.
 * 3. Who lies about it loses his own connection's next user, and nothing of others: the user is the
 *    same, and so is the guest.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/agent_layout.h"

/* One direction: a head that comes in pieces, then so many bytes. */
struct frame_follower {
	union { struct agent_frame head; uint8_t byte[sizeof(struct agent_frame)]; };
	uint32_t head_bytes, left_bytes;
};

struct conversation {
	struct frame_follower asks, answers;
	uint32_t asked; /* the kind of the first frame */
	struct agent_exited exited;
	bool is_answered;
};

/* Bytes that were sent by the host, and by the guest, in their order. */
void conversation_asks(struct conversation *conversation, const uint8_t *data, size_t bytes);
void conversation_answers(struct conversation *conversation, const uint8_t *data, size_t bytes);
bool conversation_is_over(const struct conversation *conversation);
void check_conversation(const struct conversation *conversation);
