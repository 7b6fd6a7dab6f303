/*
 * What is said when a machine goes to another place: a saved machine (vm/saved_file.h) in pieces,
 * over a connection that keeps them secret and whole (wire_main.c).
 *
 *   sender                              receiver
 *   head: id, bytes, name         -->
 *                                 <--   answer: how much of this id is there already
 *   piece: at, bytes, checksum    -->   each begins where the last one ended
 *   ...
 *   piece of no bytes: checksum   -->   of all of it
 *                                 <--   answer: 0, it runs; or why not
 *
 *  1. A connection may end at any moment: the next one of the same id goes on where that was.
 *  2. Both sides are hostile to each other: lengths, order and checksums are checked before they
 *     are used, and nothing is believed that is larger than what was said at first.
 *  3. Nothing runs before all of it is there, and is what its checksum says.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
	PARCEL_ID_BYTES = 16,
	PARCEL_NAME_BYTES = 65, /* with the NUL */
	PARCEL_TEXT_BYTES = 240,
	PARCEL_PIECE_BYTES = 256 << 10,
	PARCEL_HEAD_BYTES = 112,
	PARCEL_PIECE_HEAD_BYTES = 16,
	PARCEL_ANSWER_BYTES = 256,
};

struct parcel_head {
	uint8_t id[PARCEL_ID_BYTES];
	uint64_t bytes;
	char name[PARCEL_NAME_BYTES]; /* of the machine that it becomes */
};

struct parcel_piece { uint64_t at; uint32_t bytes, crc; };

/* error: 0 or -errno; have: bytes that are there; text: one printable line, or "". */
struct parcel_answer { int32_t error; uint64_t have; char text[PARCEL_TEXT_BYTES]; };

/* CRC-32C of bytes that follow those of `crc`; 0: none do. */
uint32_t parcel_checksum(uint32_t crc, const void *data, size_t bytes);
void parcel_put_head(const struct parcel_head *head, uint8_t to[PARCEL_HEAD_BYTES]);
/* 0; -EBADMSG; -ENOTSUP: of another version. */
int parcel_take_head(const uint8_t from[PARCEL_HEAD_BYTES], struct parcel_head *ret);
void parcel_put_piece(const struct parcel_piece *piece, uint8_t to[PARCEL_PIECE_HEAD_BYTES]);
/* The next one, of a parcel of which `have` of `bytes` are there. 0 or -EBADMSG. */
int parcel_take_piece(const uint8_t from[PARCEL_PIECE_HEAD_BYTES], uint64_t have, uint64_t bytes,
		      struct parcel_piece *ret);
void parcel_put_answer(const struct parcel_answer *answer, uint8_t to[PARCEL_ANSWER_BYTES]);
/* About a parcel of so many bytes. 0 or -EBADMSG; what is not printable is '.'. */
int parcel_take_answer(const uint8_t from[PARCEL_ANSWER_BYTES], uint64_t bytes,
		       struct parcel_answer *ret);
