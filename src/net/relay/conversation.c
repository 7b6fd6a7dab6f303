/* See conversation.h. */
#include "conversation.h"

#include <assert.h>
#include <string.h>

#include "lib/check.h"

/* So many of the bytes belong to what begins here, or goes on: a head, or what is behind one. */
static size_t follow(struct frame_follower *follower, const uint8_t *data, size_t bytes)
{
	size_t part;

	if (follower->left_bytes) {
		part = bytes < follower->left_bytes ? bytes : follower->left_bytes;
		follower->left_bytes -= (uint32_t)part;
		return part;
	}
	if (follower->head_bytes == sizeof(follower->head))
		follower->head_bytes = 0;
	part = sizeof(follower->head) - follower->head_bytes;
	part = bytes < part ? bytes : part;
	memcpy(follower->byte + follower->head_bytes, data, part);
	follower->head_bytes += (uint32_t)part;
	if (follower->head_bytes == sizeof(follower->head))
		follower->left_bytes = follower->head.bytes;
	return part;
}

static bool has_head(const struct frame_follower *follower)
{
	return follower->head_bytes == sizeof(follower->head);
}

static bool is_whole(const struct frame_follower *follower)
{
	return has_head(follower) && !follower->left_bytes;
}

static void check_follower(const struct frame_follower *follower)
{
	assert(follower->head_bytes <= sizeof(follower->head));
	assert(!follower->left_bytes || has_head(follower));
	assert(!follower->left_bytes || follower->left_bytes <= follower->head.bytes);
}

void check_conversation(const struct conversation *conversation)
{
	const struct frame_follower *answers = &conversation->answers;

	check_follower(&conversation->asks);
	check_follower(answers);
	assert(!conversation->asked || conversation->asks.head_bytes);
	if (!conversation->is_answered)
		return;
	assert(is_whole(answers) && answers->head.kind == AGENT_EXITED);
	assert(conversation->exited.again == 1);
}

void conversation_asks(struct conversation *conversation, const uint8_t *data, size_t bytes)
{
	while (bytes) {
		const size_t part = follow(&conversation->asks, data, bytes);

		assert(part && part <= bytes);
		if (has_head(&conversation->asks) && !conversation->asked)
			conversation->asked = conversation->asks.head.kind;
		data += part;
		bytes -= part;
	}
	CHECK(check_conversation(conversation));
}

/* What of an EXITED is in these bytes, of which `left` more were to come before them. */
static void take_exited(struct conversation *conversation, const uint8_t *data, size_t bytes,
			uint32_t left)
{
	const size_t at = sizeof(conversation->exited) - left;

	memcpy((uint8_t *)&conversation->exited + at, data, bytes);
}

void conversation_answers(struct conversation *conversation, const uint8_t *data, size_t bytes)
{
	const struct frame_follower *answers = &conversation->answers;

	while (bytes) {
		const uint32_t left = answers->left_bytes;
		const size_t part = follow(&conversation->answers, data, bytes);
		const bool is_exited = has_head(answers) && answers->head.kind == AGENT_EXITED &&
				       answers->head.bytes == sizeof(struct agent_exited);

		assert(part && part <= bytes);
		if (is_exited && left)
			take_exited(conversation, data, part, left);
		/* nothing may come behind it */
		conversation->is_answered =
			is_exited && is_whole(answers) && conversation->exited.again == 1;
		data += part;
		bytes -= part;
	}
	CHECK(check_conversation(conversation));
}

bool conversation_is_over(const struct conversation *conversation)
{
	return conversation->asked == AGENT_EXEC && is_whole(&conversation->asks) &&
	       conversation->is_answered;
}
