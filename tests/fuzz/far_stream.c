/*
 * Frames of packets of another host, as they come on a connection; the first byte says how many
 * were sent by then, and a frame of no kind that there is begins another connection. Whatever
 * comes: what is kept and what was acknowledged are what was sent, and no number comes twice in a
 * life.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "share/far_stream.h"

enum { MOST_BYTES = 3056, SESSION = 11, KEPT = 64 };

struct side {
	struct far_stream stream;
	uint64_t said;
	bool is_greeted;
};

static bool take_hello(struct side *side, const struct far_frame *hello)
{
	struct far_stream *stream = &side->stream;
	const struct far_stream before = *stream;
	bool is_new;

	if (side->is_greeted || far_stream_greet(stream, hello, &is_new))
		return false;
	if (!is_new && stream->had != before.had)
		abort();
	if (hello->known == SESSION &&
	    far_stream_acked(stream, hello->number, stream->sent - stream->acked) < 0)
		abort();
	side->is_greeted = true;
	side->said = (stream->sent - stream->acked) / 2;
	return true;
}

static bool take_ack(struct side *side, uint64_t number)
{
	struct far_stream *stream = &side->stream;
	const uint64_t before = stream->acked;
	const int64_t more = far_stream_acked(stream, number, side->said);

	if (more < 0 ? stream->acked != before : stream->acked != before + (uint64_t)more)
		abort();
	if (more > 0 && (uint64_t)more > side->said)
		abort();
	side->said -= more > 0 ? (uint64_t)more : 0;
	return more >= 0;
}

static bool take_frame(struct side *side, const struct far_frame *frame)
{
	const uint64_t before = side->stream.had;
	int got;

	if (frame->kind == FAR_HELLO)
		return take_hello(side, frame);
	if (!side->is_greeted || frame->session != side->stream.other)
		return false;
	if (frame->kind == FAR_ACK)
		return take_ack(side, frame->number);
	if (frame->kind == FAR_STATE)
		return true;
	got = far_stream_take(&side->stream, frame);
	if (side->stream.had != before + (got == 1) || (got == 1 && frame->number != before + 1))
		abort();
	return got >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct side side = { .stream = { .session = SESSION } };

	for (unsigned n = bytes ? data[0] % KEPT : 0; n; n--)
		far_stream_put(&side.stream);
	for (size_t at = 1; bytes >= at + FAR_FRAME_HEAD_BYTES;) {
		struct far_frame frame;

		memcpy(&frame, data + at, sizeof(frame));
		at += FAR_FRAME_HEAD_BYTES;
		fuzz_message();
		if (far_frame_check(&frame, MOST_BYTES) || !take_frame(&side, &frame)) {
			side.is_greeted = false;
			side.said = 0;
		} else if (frame.kind == FAR_DATA) {
			at += frame.bytes < bytes - at ? frame.bytes : bytes - at;
		}
		if (side.stream.acked > side.stream.sent ||
		    side.said > side.stream.sent - side.stream.acked)
			abort();
	}
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const struct far_stream other = { .session = 12 + n % 2, .other = SESSION,
					  .had = n % 8, .acked = n % 3 };
	struct far_frame frame = far_frame_make(&other, FAR_HELLO, 0);
	size_t used = 1;

	data[0] = (uint8_t)(8 + n % 8);
	for (unsigned k = 0; k < 8; k++) {
		memcpy(data + used, &frame, sizeof(frame));
		used += sizeof(frame);
		if (frame.kind == FAR_DATA) {
			memset(data + used, 7, frame.bytes);
			used += frame.bytes;
		}
		frame = far_frame_make(&other, k % 3 ? FAR_DATA : FAR_STATE, k % 3 ? k : 0);
		frame.number = k % 3 ? other.acked + k - k / 3 : frame.number;
		if (k == 5)
			frame = far_frame_make(&other, FAR_ACK, 0);
	}
	return used;
}
