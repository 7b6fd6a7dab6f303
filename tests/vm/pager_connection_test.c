/*
 * The connection by which a page comes: what is wanted leaves sealed, what comes is passed on piece
 * by piece, a part that was taken is not, but that somebody lives is; who sends what may not come
 * is left, and so is one whose block was made up of parts that were dropped. Its invariants,
 * broken, are seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/caught.h"
#include "process/pager_connection.h"

enum { BLOCKS = 4, TOTAL = BLOCKS * PARCEL_PIECE_BYTES, MOST = 80 << 10 };
enum { GRAINS = TOTAL / PARCEL_GRAIN_BYTES, QUARTER = PARCEL_PIECE_BYTES / 4 };

static const struct pager_hand hand = {
	.word = { .block = SAVED_BLOCKS_OF_CONNECTION, .count = TOTAL },
	.keys = { .from.number = 5, .to.number = 7 },
};

/* Both others: who sends, and who fills the file. */
static struct pager_connection connection;
static struct wire_sealed *sender;
static int far, near;
static uint8_t data[MOST];
static uint8_t got[MOST];
static unsigned wrong;

static void expect(const char *what, bool is_so)
{
	if (!is_so)
		printf("%s\n", what);
	wrong += !is_so;
}

static void begin(void)
{
	const struct wire_keys keys = { .from = hand.keys.to, .to = hand.keys.from };
	int first[2];
	int second[2];

	pager_connection_lose(&connection);
	close(far);
	close(near);
	free(sender);
	sender = wire_sealed_make(&keys);
	if (!sender || socketpair(AF_UNIX, SOCK_STREAM, 0, first) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, second) ||
	    !pager_connection_take(&connection, &hand, (int[]){ first[1], second[1] }, GRAINS))
		exit(1);
	far = first[0];
	near = second[0];
}

static void send_piece(uint64_t at, uint32_t bytes)
{
	const struct parcel_piece piece = { .at = at, .bytes = bytes };

	parcel_put_piece(&piece, data);
	if (!wire_sealed_send(sender, far, data, PARCEL_PIECE_HEAD_BYTES + bytes))
		exit(1);
}

/* Until it is whole, or the connection is lost. */
static bool hear(void)
{
	bool is_whole = false;

	while (pager_connection_hear(&connection, &is_whole)) {
		if (is_whole)
			return true;
		if (!pager_connection_read(&connection))
			return false;
	}
	return false;
}

static size_t passed(void)
{
	const ssize_t bytes = recv(near, got, sizeof(got), MSG_DONTWAIT);

	return bytes > 0 ? (size_t)bytes : 0;
}

static void of_what_is_said(void)
{
	struct parcel_word word;
	bool ends = true;

	begin();
	expect("it wants", pager_connection_want(&connection, 3, 4) &&
				   wire_sealed_receive(sender, far, got, PARCEL_WORD_BYTES) &&
				   !parcel_take_word(got, TOTAL, &word) && word.block == 3 &&
				   word.grains == 4 && word.kind == PARCEL_WANT_PART);
	expect("he says", wire_send(near, data, 100) &&
				  pager_connection_say(&connection, &ends) && !ends &&
				  wire_sealed_receive(sender, far, got, 100) &&
				  !memcmp(data, got, 100));
	shutdown(near, SHUT_WR);
	expect("he ends", pager_connection_say(&connection, &ends) && ends);
}

static void of_what_comes(void)
{
	begin();
	send_piece(PARCEL_PIECE_BYTES, PARCEL_PIECE_BYTES);
	expect("a block comes", hear());
	expect("no byte before it", !pager_connection_find(&connection, PARCEL_PIECE_BYTES - 1, 2));
	expect("none behind it", !pager_connection_find(&connection, TOTAL / 2 - 1, 2));
	expect("nor all there are",
	       !pager_connection_find(&connection, PARCEL_PIECE_BYTES, UINT64_MAX));
	expect("what lies in it", pager_connection_find(&connection, PARCEL_PIECE_BYTES + 7, 9) ==
					  connection.room + PARCEL_PIECE_HEAD_BYTES + 7);
	expect("it is passed on", pager_connection_pass(&connection) &&
					  passed() == PARCEL_PIECE_HEAD_BYTES + PARCEL_PIECE_BYTES);
	send_piece(PARCEL_HEARD, 0);
	expect("a mark, too", hear() && !pager_connection_has_part(&connection) &&
				      pager_connection_pass(&connection) &&
				      passed() == PARCEL_PIECE_HEAD_BYTES);
	send_piece(TOTAL, 16);
	expect("nothing behind the end", !hear());
	begin();
	send_piece(PARCEL_PIECE_BYTES / 2, PARCEL_PIECE_BYTES);
	expect("nothing of two blocks", !hear());
}

static bool drops(uint64_t at)
{
	send_piece(at, QUARTER);
	return hear() && pager_connection_has_part(&connection) &&
	       pager_connection_drop(&connection);
}

static void of_parts(void)
{
	struct parcel_piece lives;

	begin();
	connection.passed_ticks = __builtin_ia32_rdtsc();
	expect("three quarters are dropped", drops(0) && drops(QUARTER) && drops(3 * QUARTER));
	expect("and a quarter of another", drops(PARCEL_PIECE_BYTES) && !passed());
	connection.passed_ticks = 0;
	expect("he hears that somebody lives",
	       drops(PARCEL_PIECE_BYTES) && passed() == PARCEL_PIECE_HEAD_BYTES &&
		       !parcel_take_piece(got, TOTAL, &lives) && lives.at == PARCEL_LIVES);
	expect("no block is dropped", !drops(2 * QUARTER));
	begin();
	send_piece(0, QUARTER);
	expect("a part is passed on", hear() && pager_connection_pass(&connection));
	expect("and more are dropped", drops(QUARTER) && drops(2 * QUARTER));
	send_piece(3 * QUARTER, QUARTER);
	expect("but not a block, of both", hear() && !pager_connection_pass(&connection));
}

/* ---- the invariants ---- */

static void check_of(void *of) { check_pager_connection(of); }
static void more_than_it_says(void *of) { ((struct pager_connection *)of)->got++; }
static void none_that_may_come(void *of) { ((struct pager_connection *)of)->piece.at = TOTAL; }
static void longer_than_a_block(void *of)
{
	((struct pager_connection *)of)->piece.bytes = PARCEL_PIECE_BYTES + 1;
}

static const struct spoiling spoilings[] = {
	{ "more than its head says", more_than_it_says },
	{ "a head that may not come", none_that_may_come },
	{ "a piece that is longer than a block", longer_than_a_block },
};

int main(void)
{
	connection.far = connection.near = far = near = -1;
	for (size_t n = 0; n < MOST; n++)
		data[n] = (uint8_t)(n * 3 + n / 256);
	of_what_is_said();
	of_what_comes();
	of_parts();
	begin();
	send_piece(0, PARCEL_PIECE_BYTES);
	expect("it comes", hear());
	wrong += CAUGHT_MISSED("the connection", check_of, &connection, spoilings);
	return wrong != 0;
}
