/*
 * Packets of a channel between machines on a connection to another host (docs/sharing.md): what is
 * said there, and what each side remembers, so that none is lost or comes twice when a connection
 * is lost and made again. The connection keeps it secret and whole (src/wire).
 *
 *   HELLO   the first on each connection: this side's life, what it has of the other's, and from
 *           which number on it says again what the other side may not have
 *   STATE   whether this side's guest is there: another word each time that it has come; 0: not
 *   DATA    a packet, by its number; to which coming of the other side's guest
 *   ACK     up to which number packets have been taken
 *
 *   - A packet has the number after the one before it, as long as its side lives. Who gets it takes
 *     the next number and passes over those before; what would leave one out is wrong.
 *   - A packet is kept until it has been acknowledged, and said again after each HELLO.
 *   - Of a side that lives anew nothing of before is known: what it has not acknowledged in its
 *     earlier life it may have had, and its guest sees the other end go and come.
 *   - Both sides are hostile to each other: a frame is checked before it is used.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { FAR_FRAME_HEAD_BYTES = 56, FAR_STREAM_1_0 = 1 };
enum far_frame_kind { FAR_HELLO = 1, FAR_STATE, FAR_DATA, FAR_ACK };

/* known, base: of HELLO. word: of STATE and DATA. */
struct far_frame {
	uint32_t magic, kind, bytes, version;
	uint64_t session, known, number, base, word;
};

struct far_stream {
	uint64_t session, other; /* lives; other 0: none is known */
	uint64_t sent, acked;	 /* the last number that was given; that was acknowledged */
	uint64_t had;		 /* of the other side's */
};

/* bytes: that follow. */
struct far_frame far_frame_make(const struct far_stream *stream, enum far_frame_kind kind,
				uint32_t bytes);
/* 0 or -EBADMSG. */
int far_frame_check(const struct far_frame *frame, uint32_t most_bytes);

/* 0, or -EBADMSG. *ret_is_new: the other side is not the one that was known. */
int far_stream_greet(struct far_stream *stream, const struct far_frame *hello, bool *ret_is_new);
/* The number of a packet more. */
uint64_t far_stream_put(struct far_stream *stream);
/* 1: it is the next; 0: it was had before; -EBADMSG. */
int far_stream_take(struct far_stream *stream, const struct far_frame *data);
/*
 * How many more are acknowledged; -EBADMSG, and nothing is changed: it is more than the other side
 * can have had. said: how many behind those that it has acknowledged it may have.
 */
int64_t far_stream_acked(struct far_stream *stream, uint64_t number, uint64_t said);
