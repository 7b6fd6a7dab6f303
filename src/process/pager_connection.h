/*
 * The connection on which a machine's memory comes from another place (wire/parcel.h), while the
 * pager has it: who fills the file (cli/arrival.c) gives it away once the machine runs, so that a
 * page that is missed is asked for, and comes, without anybody in between. All else goes through
 * here: what he says, and all that comes, a piece at a time, by a socket between the two.
 *
 *     who sends ======= the pager ------- who fills the file
 *
 * It is given, and comes back when all of the memory is there, on the pager's line
 * (vm/saved_blocks.h), in these steps:
 *
 *   filler                            pager
 *   hand, connection, socket   -->
 *                              <--    a word: it has all that it needs, and takes nothing more
 *   end of what he says        -->    by the socket, until here all of it is said
 *                              <--    keys: of the records that follow; end of what came
 *
 *  1. A piece of which less than all has come is no longer than its head says, and its head is one
 *     that may come.
 *   - Parts that were taken here alone never make up a block, with what else has come in parts:
 *     it is still to come, whole. Who sends takes one that is made up for sent: then the
 *     connection counts as lost, and the next one brings it.
 *   - What comes is hostile. It is put into memory where it is what the index says of it, and
 *     nothing else is believed: who fills the file gets all other pieces, and judges them.
 *   - Who is slow to take a piece holds up this side's memory, and no other's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vm/saved_blocks.h"
#include "wire/parcel.h"
#include "wire/sealed.h"

enum { PAGER_HAND_FDS = 2 }; /* the connection; the socket */

/* word.block: SAVED_BLOCKS_OF_CONNECTION; word.count: bytes of all that is sent. */
struct pager_hand { struct saved_blocks_word word; struct wire_keys keys; };

struct pager_connection {
	int far, near; /* -1: it has none */
	struct wire_sealed *sealed;
	uint64_t bytes; /* of all that is sent */
	struct saved_blocks parts; /* grains that came in parts */
	bool drops; /* some of them were taken here */
	uint64_t passed_ticks; /* when something was passed on the last time */
	uint32_t got;   /* of the piece that comes */
	struct parcel_piece piece; /* once its head has come */
	uint8_t room[PARCEL_PIECE_HEAD_BYTES + PARCEL_PIECE_BYTES];
};

/* In place of one that it had, of a file with so many grains. False: no memory; both are closed. */
bool pager_connection_take(struct pager_connection *connection, const struct pager_hand *hand,
			   const int fds[PAGER_HAND_FDS], uint64_t grains);
/* It is lost: the other two hear so. */
void pager_connection_lose(struct pager_connection *connection);
static inline bool pager_connection_is_there(const struct pager_connection *connection)
{
	return connection->far >= 0;
}
/* These are false where it is lost. Grains of one block: */
bool pager_connection_want(struct pager_connection *connection, uint64_t grain, uint32_t count);
/* What is said by who fills the file, which a poll has seen; *ret_end: he says no more. */
bool pager_connection_say(struct pager_connection *connection, bool *ret_end);
/* What has come, which a poll has seen. */
bool pager_connection_read(struct pager_connection *connection);
/* Whether a piece is whole; it is the next one until it was passed on. */
bool pager_connection_hear(struct pager_connection *connection, bool *ret_is_whole);
/* Whether it is part of a block. */
bool pager_connection_has_part(const struct pager_connection *connection);
bool pager_connection_pass(struct pager_connection *connection);
/* In place of that: all of it was taken here. Who fills the file only hears that somebody lives. */
bool pager_connection_drop(struct pager_connection *connection);
/* Of a piece that is whole: what lies at this place of what is sent; NULL: not all of it does. */
const uint8_t *pager_connection_find(const struct pager_connection *connection, uint64_t at,
				     uint64_t bytes);
/* Invariant 1. */
void check_pager_connection(const struct pager_connection *connection);
