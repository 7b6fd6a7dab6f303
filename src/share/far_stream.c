/* See far_stream.h. */
#include "far_stream.h"

#include <assert.h>
#include <errno.h>

#define MAGIC 0x66617270u

struct far_frame far_frame_make(const struct far_stream *stream, enum far_frame_kind kind,
				uint32_t bytes)
{
	_Static_assert(sizeof(struct far_frame) == FAR_FRAME_HEAD_BYTES, "a frame's head");
	return (struct far_frame){ .magic = MAGIC,
				   .kind = kind,
				   .bytes = bytes,
				   .version = FAR_STREAM_1_0,
				   .session = stream->session,
				   .known = kind == FAR_HELLO ? stream->other : 0,
				   .number = kind == FAR_DATA ? 0 : stream->had,
				   .base = kind == FAR_HELLO ? stream->acked : 0 };
}

int far_frame_check(const struct far_frame *frame, uint32_t most_bytes)
{
	if (frame->magic != MAGIC || frame->version != FAR_STREAM_1_0 || !frame->session ||
	    frame->kind < FAR_HELLO || frame->kind > FAR_ACK)
		return -EBADMSG;
	if (frame->bytes > (frame->kind == FAR_DATA ? most_bytes : 0))
		return -EBADMSG;
	return frame->kind != FAR_HELLO && (frame->known || frame->base) ? -EBADMSG : 0;
}

int64_t far_stream_acked(struct far_stream *stream, uint64_t number, uint64_t said)
{
	const uint64_t more = number - stream->acked;

	assert(said <= stream->sent - stream->acked);
	if (number < stream->acked)
		return 0; /* it was said before the last */
	if (more > said)
		return -EBADMSG;
	stream->acked = number;
	return (int64_t)more;
}

int far_stream_greet(struct far_stream *stream, const struct far_frame *hello, bool *ret_is_new)
{
	*ret_is_new = hello->session != stream->other;
	if (hello->known == stream->session &&
	    (hello->number < stream->acked || hello->number > stream->sent))
		return -EBADMSG;
	if (*ret_is_new)
		stream->had = hello->base;
	else if (hello->base > stream->had)
		return -EBADMSG;
	stream->other = hello->session;
	return 0;
}

uint64_t far_stream_put(struct far_stream *stream) { return ++stream->sent; }

int far_stream_take(struct far_stream *stream, const struct far_frame *data)
{
	if (data->session != stream->other || !data->number || data->number - 1 > stream->had)
		return -EBADMSG;
	if (data->number <= stream->had)
		return 0;
	stream->had = data->number;
	return 1;
}
