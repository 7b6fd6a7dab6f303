/* See pager_connection.h. */
#include "pager_connection.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/check.h"
#include "lib/write_all.h"

#define LIVES_TICKS (1ull << 32) /* a second or two; he is patient for 20 */

static uint32_t head_bytes(void) { return PARCEL_PIECE_HEAD_BYTES; }

void check_pager_connection(const struct pager_connection *connection)
{
	const struct parcel_piece *piece = &connection->piece;
	uint8_t head[PARCEL_PIECE_HEAD_BYTES];
	struct parcel_piece again;

	if (connection->got < head_bytes())
		return;
	assert(connection->got <= head_bytes() + piece->bytes);
	assert(piece->bytes <= PARCEL_PIECE_BYTES);
	parcel_put_piece(piece, head);
	assert(!parcel_take_piece(head, connection->bytes, &again));
}

bool pager_connection_take(struct pager_connection *connection, const struct pager_hand *hand,
			   const int fds[PAGER_HAND_FDS], uint64_t grains)
{
	pager_connection_lose(connection);
	connection->sealed = wire_sealed_make(&hand->keys);
	connection->far = fds[0];
	connection->near = fds[1];
	connection->bytes = hand->word.count;
	connection->got = 0;
	if (connection->sealed &&
	    saved_grains_make(&connection->parts, grains * SAVED_GRAIN_BYTES))
		return true;
	pager_connection_lose(connection);
	return false;
}

void pager_connection_lose(struct pager_connection *connection)
{
	if (connection->far >= 0)
		close(connection->far);
	if (connection->near >= 0)
		close(connection->near);
	free(connection->sealed);
	free(connection->parts.bits);
	connection->sealed = NULL;
	connection->parts.bits = NULL;
	connection->drops = false;
	connection->far = connection->near = -1;
}

/* ---- what is said ---- */

static bool seal(struct pager_connection *connection, const void *from, size_t bytes)
{
	const size_t sealed = wire_sealed_seal(connection->sealed, from, bytes);

	return sealed && !write_all(connection->far, connection->sealed->out, sealed);
}

bool pager_connection_want(struct pager_connection *connection, uint64_t grain, uint32_t count)
{
	const struct parcel_word word = { .kind = PARCEL_WANT_PART, .grains = count,
					  .block = grain };
	uint8_t bytes[PARCEL_WORD_BYTES];

	parcel_put_word(&word, bytes);
	return seal(connection, bytes, sizeof(bytes));
}

/*
 * He says a word at a time, and with one that something follows that as well. Where he has said
 * more than one record's, one may be parted; what is asked for in between then is no word, and the
 * other side loses the connection, which is made anew.
 */
bool pager_connection_say(struct pager_connection *connection, bool *ret_end)
{
	uint8_t said[RECORD_DATA_BYTES];
	const ssize_t got = read(connection->near, said, sizeof(said));

	*ret_end = !got;
	return !got || (got > 0 && seal(connection, said, (size_t)got));
}

/* ---- what comes ---- */

bool pager_connection_read(struct pager_connection *connection)
{
	return wire_sealed_read(connection->sealed, connection->far);
}

static uint32_t missing_bytes(const struct pager_connection *connection)
{
	const uint32_t head = head_bytes();

	return connection->got < head ? head - connection->got
				      : head + connection->piece.bytes - connection->got;
}

bool pager_connection_hear(struct pager_connection *connection, bool *ret_is_whole)
{
	uint32_t missing = missing_bytes(connection);

	while (missing) {
		const ssize_t got = wire_sealed_take(connection->sealed,
						     connection->room + connection->got, missing);

		if (got <= 0) {
			*ret_is_whole = false;
			return !got;
		}
		connection->got += (uint32_t)got;
		if (connection->got == head_bytes() &&
		    parcel_take_piece(connection->room, connection->bytes, &connection->piece))
			return false;
		CHECK(check_pager_connection(connection));
		missing = missing_bytes(connection);
	}
	*ret_is_whole = true;
	return true;
}

/* False: a block is made up of parts, and its sender takes it for one that is there. */
static bool note_part(struct pager_connection *connection)
{
	const struct parcel_piece *piece = &connection->piece;
	const uint64_t end = connection->parts.blocks * SAVED_GRAIN_BYTES;

	if (!pager_connection_has_part(connection) || piece->at >= end ||
	    piece->bytes > end - piece->at)
		return true;
	return !saved_grains_part(&connection->parts, piece->at, piece->bytes) ||
	       !connection->drops;
}

bool pager_connection_pass(struct pager_connection *connection)
{
	const uint32_t bytes = connection->got;
	const bool is_good = note_part(connection);

	connection->got = 0;
	connection->passed_ticks = __builtin_ia32_rdtsc();
	return is_good && !write_all(connection->near, connection->room, bytes);
}

bool pager_connection_drop(struct pager_connection *connection)
{
	const struct parcel_piece lives = { .at = PARCEL_LIVES };

	connection->drops = true;
	if (!note_part(connection))
		return false;
	connection->got = 0;
	if (__builtin_ia32_rdtsc() - connection->passed_ticks < LIVES_TICKS)
		return true;
	parcel_put_piece(&lives, connection->room);
	connection->got = head_bytes();
	return pager_connection_pass(connection);
}

bool pager_connection_has_part(const struct pager_connection *connection)
{
	const struct parcel_piece *piece = &connection->piece;

	return piece->at < connection->bytes && parcel_is_part(piece, connection->bytes);
}

const uint8_t *pager_connection_find(const struct pager_connection *connection, uint64_t at,
				     uint64_t bytes)
{
	const struct parcel_piece *piece = &connection->piece;

	assert(connection->got == head_bytes() + piece->bytes);
	if (at < piece->at || at - piece->at > piece->bytes ||
	    bytes > piece->bytes - (at - piece->at))
		return NULL;
	return connection->room + head_bytes() + (at - piece->at);
}
