/*
 * Packets over connections that are lost at any frame (share/far_stream.h), against what was sent:
 * each comes once, and in order, as long as both sides live; and what lies about numbers is
 * refused. Prints TAP.
 */
#include <stdio.h>
#include <string.h>

#include "far_check.h"
#include "share/far_stream.h"

enum { STEPS = 400000, KEPT = 64, WAY = 300, CUTS = 500, BYTES = 3056 };

/* One side: what it has put and is not acknowledged is sent - acked of them. */
struct side {
	struct far_stream stream;
	uint64_t said; /* on this connection, up to which number */
	uint64_t came;
	struct far_frame way[WAY]; /* to this side */
	unsigned on_way;
	bool is_greeted;
};

static struct side sides[2];
static unsigned cuts, again;

static void put_frame(struct side *to, const struct far_frame *frame)
{
	if (to->on_way < WAY)
		to->way[to->on_way++] = *frame;
}

static void cut(void)
{
	cuts++;
	for (unsigned n = 0; n < 2; n++) {
		sides[n].on_way = 0;
		sides[n].is_greeted = false;
	}
	for (unsigned n = 0; n < 2; n++) {
		const struct far_frame hello = far_frame_make(&sides[n].stream, FAR_HELLO, 0);

		put_frame(&sides[!n], &hello);
	}
}

/* What is kept and was not said on this connection. */
static void say(struct side *side, struct side *to)
{
	while (side->is_greeted && side->said < side->stream.sent && to->on_way < WAY) {
		struct far_frame data = far_frame_make(&side->stream, FAR_DATA, 1);

		data.number = ++side->said;
		put_frame(to, &data);
	}
}

static bool take_frame(struct side *side, struct side *from, const struct far_frame *frame)
{
	bool is_new = false;
	int got;

	if (far_frame_check(frame, BYTES) || (frame->kind != FAR_HELLO && !side->is_greeted))
		return false;
	if (frame->kind == FAR_HELLO) {
		if (far_stream_greet(&side->stream, frame, &is_new))
			return false;
		if (frame->known == side->stream.session)
			far_stream_acked(&side->stream, frame->number,
					 side->stream.sent - side->stream.acked);
		again += side->said > side->stream.acked;
		side->said = side->stream.acked;
		side->is_greeted = true;
		return true;
	}
	if (frame->kind == FAR_ACK)
		return far_stream_acked(&side->stream, frame->number,
					side->said - side->stream.acked) >= 0;
	got = far_stream_take(&side->stream, frame);
	if (got == 1 && ++side->came != frame->number)
		return false;
	if (random_below(3)) {
		const struct far_frame ack = far_frame_make(&side->stream, FAR_ACK, 0);

		put_frame(from, &ack);
	}
	return got >= 0;
}

static bool step(void)
{
	struct side *side = &sides[random_below(2)];
	struct side *other = side == sides ? sides + 1 : sides;
	struct far_frame frame;

	if (!random_below(STEPS / CUTS))
		cut();
	if (side->stream.sent - side->stream.acked < KEPT && !random_below(3))
		far_stream_put(&side->stream);
	say(side, other);
	if (!side->on_way)
		return true;
	frame = side->way[0];
	memmove(side->way, side->way + 1, --side->on_way * sizeof(frame));
	return take_frame(side, other, &frame);
}

static void sequences(void)
{
	bool good = true;

	sides[0].stream.session = 11;
	sides[1].stream.session = 12;
	cut();
	for (unsigned n = 0; n < STEPS && good; n++)
		good = step();
	check("each comes once, and in order, both ways", good);
	cut();
	for (unsigned n = 0; n < STEPS && good; n++)
		good = step();
	check("to the last", good && sides[0].came + KEPT > sides[1].stream.sent &&
				     sides[1].came + KEPT > sides[0].stream.sent);
	check("over some cuts", cuts > CUTS / 2 && sides[0].came > STEPS / 100);
	check("some were said again", again > 0);
}

static void lies(void)
{
	struct far_stream stream = { .session = 1, .other = 2, .sent = 9, .acked = 4, .had = 7 };
	struct far_frame frame = far_frame_make(&stream, FAR_DATA, 5);
	bool is_new;

	frame.session = 2;
	frame.number = 9;
	check("a packet is left out", far_stream_take(&stream, &frame) < 0);
	frame.number = 7;
	check("one that was had", far_stream_take(&stream, &frame) == 0 && stream.had == 7);
	frame.number = 0;
	check("one without a number", far_stream_take(&stream, &frame) < 0);
	frame.number = 8;
	frame.session = 3;
	check("one of another life", far_stream_take(&stream, &frame) < 0);
	check("what was not sent is not had", far_stream_acked(&stream, 10, 5) < 0);
	check("nor what was not said here, and nothing is changed by that",
	      far_stream_acked(&stream, 7, 2) < 0 && stream.acked == 4);
	check("nor less than before", far_stream_acked(&stream, 3, 5) == 0 && stream.acked == 4);
	frame = (struct far_frame){ .session = 2, .known = 1, .number = 10 };
	check("nor with a hello", far_stream_greet(&stream, &frame, &is_new) < 0);
	frame.number = 3;
	check("nor is less than was acknowledged", far_stream_greet(&stream, &frame, &is_new) < 0);
	frame.number = 5;
	frame.base = 8;
	check("nothing is left out with it", far_stream_greet(&stream, &frame, &is_new) < 0);
	frame = (struct far_frame){ .session = 5, .base = 40 };
	check("another life begins where it is",
	      !far_stream_greet(&stream, &frame, &is_new) && is_new && stream.had == 40);
	frame = far_frame_make(&stream, FAR_STATE, 1);
	check("what follows a word", far_frame_check(&frame, BYTES) < 0);
	frame = far_frame_make(&stream, FAR_DATA, BYTES + 1);
	check("a packet that is too long", far_frame_check(&frame, BYTES) < 0);
}

int main(void)
{
	sequences();
	lies();
	printf("1..%u\n", checks);
	return bad != 0;
}
