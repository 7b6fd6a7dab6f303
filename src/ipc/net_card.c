/* See net_card.h. */
#include "net_card.h"

#include <assert.h>

#include "lib/checksum.h"

bool net_frame_is_sound(const struct net_frame *frame)
{
	if (frame->bytes < NET_HEAD_BYTES || frame->bytes > NET_FRAME_BYTES)
		return false;
	if (frame->flags & NET_LARGE &&
	    (!(frame->flags & NET_TCP) || !frame->mss || frame->checksum_at < NET_HEAD_BYTES ||
	     (uint32_t)frame->checksum_at + NET_TCP_HEAD_BYTES > frame->bytes))
		return false;
	if (!(frame->flags & NET_CHECKSUM_MISSING))
		return true;
	return (uint32_t)frame->checksum_at + frame->checksum_offset + 2 <= frame->bytes;
}

void net_frame_complete_checksum(const struct net_frame *frame, uint8_t *data)
{
	uint8_t *at = data + frame->checksum_at + frame->checksum_offset;
	uint16_t sum;

	assert(frame->flags & NET_CHECKSUM_MISSING && net_frame_is_sound(frame));
	sum = (uint16_t)~checksum_fold(
		checksum_add(data + frame->checksum_at, frame->bytes - frame->checksum_at, 0));
	if (!sum && frame->flags & NET_UDP)
		sum = 0xffff; /* of UDP 0 says that there is none */
	at[0] = (uint8_t)(sum >> 8);
	at[1] = (uint8_t)sum;
}
