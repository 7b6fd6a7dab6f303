/*
 * See fork_away.h. What is sent (wire/parcel.h) is read from a process that was forked from the
 * machine, and does not change. A connection that is lost is made again, and goes on where the last
 * one ended.
 *
 *   - The process that is read is of one moment, at which the disks were frozen: how often a
 *     connection is lost changes nothing of the machine that arrives.
 *   - First goes what the machine begins with: all but memory. Then what it asks for, and in
 *     between, within the limit, the rest. Once it runs there it is there for good: a parent that
 *     is to end ends then.
 */
#include "fork_away.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "fork_extents.h"
#include "fork_source.h"
#include "fork_wanted.h"
#include "lib/brief_wait.h"
#include "place.h"
#include "vm/saved_blocks.h"
#include "wire/parcel.h"
#include "wire_line.h"

enum { HOST_BYTES = 256, PAUSE_MS = 200, PERCENT = 100, LIVES_MS = PARCEL_LIVES_S * 1000 };
#define NS_PER_S 1000000000ull
/* How many blocks may be under way; after one was wanted; and so many behind that one follow it. */
enum { DUES_FIRST = 1024 }; /* of those that were asked for the last time: before it begins there */
enum { PARTED_BLOCKS = 8, PARTS_OF_BLOCK = 2, IN_A_ROW = 4, ASKING_NS = 500000 };
enum { MOST_BLOCKS = 16, FEW_BLOCKS = 2, AHEAD_BLOCKS = 3, WANTED_NS = 100000000 };
enum { NOTES_MOST = 64 };
enum { FRONT_MOST_BLOCKS = 256 }; /* that are read before there is a connection */
/* While it begins there nothing comes that it does not ask for; so long, since it may need all. */
enum { BEGINS_NS = 200000000 };

struct sending {
	struct fork_away *away;
	struct fork_source *source;
	const struct fork_extents *extents;
	uint64_t machine_blocks, bytes; /* of the machine; of all that is sent */
	struct wire_secret secret;
	char host[HOST_BYTES];
	const char *port;
	struct parcel_head head;
	struct parcel_answer answer;
	struct wire_line line;
	bool is_begun_line; /* umbra-wire has begun, and was not heard yet */
	bool is_connected, is_greeted;
	struct saved_blocks sent; /* what is there, or on its way */
	uint64_t front_from; /* what the machine begins with: block 0, and from this one on */
	uint8_t *front; /* these, block 0 first; NULL: not read yet */
	uint64_t rest, rest_disks; /* none behind, none before these is still to be sent */
	uint64_t next, ahead; /* the one that was wanted; how many more to send behind it */
	/* of which a part was sent: the last ones, whole and before others */
	uint64_t parted[PARTED_BLOCKS];
	unsigned parts;
	struct saved_blocks grains; /* that went over this connection in parts */
	uint8_t *parts_of; /* each block of the machine: so many, up to PARTS_OF_BLOCK */
	uint64_t behind; /* the part that was wanted last */
	unsigned in_a_row; /* so many, each behind the one before */
	unsigned unheard;     /* blocks of which nothing was heard yet */
	uint64_t wanted_ns;   /* when one was wanted */
	bool is_begun, runs, is_whole;
	uint64_t began_ns, begun_ns, runs_ns; /* this; it was told to begin; it was heard to run */
	uint64_t blocks_before; /* that were sent by then */
	uint64_t unwanted; /* blocks of disks that are there already: as if they had been sent */
	bool knows_unwanted;
	uint64_t due_ns, shown_percent;
	/* Which machine it is, and what it says of itself; NULL: that was learned */
	const char *machine;
	const json_t *info;
	/* What was asked for the last time, and now; and the blocks that go ahead for that */
	struct fork_wanted before, now;
	bool knows_wanted;
	struct parcel_piece noted[NOTES_MOST]; /* that were wanted, and are not noted yet */
	unsigned notes;
	struct brief_wait wait; /* for a word */
	struct saved_blocks is_due;
	uint64_t *due, dues, next_due;
	struct saved_blocks is_wanted; /* blocks of which something was */
	uint64_t part_bytes, part_bytes_before; /* sent before their blocks; by the time it ran */
	bool has_moved; /* something went over the last connection */
	uint64_t said_ns, heard_ns; /* when something last was, over this one */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void pause_ns(uint64_t nanoseconds)
{
	const struct timespec pause = { .tv_sec = (time_t)(nanoseconds / 1000000000),
					.tv_nsec = (long)(nanoseconds % 1000000000) };

	nanosleep(&pause, NULL);
}

/* ---- the connection ---- */

/* -EACCES: the other side has not believed this one's certificate; or `error`. */
static int disconnect(struct sending *sending, int error)
{
	if (sending->is_begun_line)
		kill(sending->line.process, SIGKILL); /* it may wait for the other side's key */
	if ((sending->is_connected || sending->is_begun_line) &&
	    wire_line_close(&sending->line) == -EACCES)
		error = -EACCES;
	sending->is_connected = sending->is_greeted = sending->is_begun_line = false;
	return error;
}

/* ---- pieces ---- */

static void show_progress(struct sending *sending)
{
	const uint64_t percent = sending->sent.count * PERCENT / sending->sent.blocks;

	if (percent == sending->shown_percent || !isatty(STDERR_FILENO))
		return;
	sending->shown_percent = percent;
	fprintf(stderr, "\r%lu %% of %lu MiB%s%s", percent, sending->bytes >> 20,
		sending->runs ? ", it runs there" : "", percent == PERCENT ? "\n" : "");
}

/* When the next one may go by itself. */
static void keep_to_limit(struct sending *sending, uint32_t bytes)
{
	const uint64_t limit = sending->away->bytes_per_s;
	const uint64_t now = now_ns();

	if (!limit)
		return;
	if (sending->due_ns < now)
		sending->due_ns = now;
	sending->due_ns += bytes * 1000000000ull / limit;
}

static bool is_due(const struct sending *sending, uint64_t block)
{
	return sending->dues && block < sending->machine_blocks &&
	       saved_blocks_has(&sending->is_due, block);
}

/* Of what the machine begins with: where it lies; NULL: it was not read yet, or is none of it. */
static uint8_t *front_of(const struct sending *sending, uint64_t block)
{
	const bool is_front = !block || (block >= sending->front_from &&
					 block < sending->machine_blocks);
	const uint64_t n = block ? block - sending->front_from + 1 : 0;

	return sending->front && is_front ? sending->front + n * PARCEL_PIECE_BYTES : NULL;
}

/* 0; -ENODATA: what was forked here cannot be read any more; -EIO: a disk cannot. */
static int read_block(const struct sending *sending, uint64_t block,
		      uint8_t data[PARCEL_PIECE_BYTES])
{
	const uint32_t used = parcel_used_bytes(&sending->extents->space, block);
	const uint8_t *front = front_of(sending, block);

	if (block >= sending->machine_blocks)
		return fork_extents_read(sending->extents, block, data) ? -EIO : 0;
	if (front) {
		memcpy(data, front, PARCEL_PIECE_BYTES);
		return 0;
	}
	memset(data + used, 0, PARCEL_PIECE_BYTES - used);
	return fork_source_read(sending->source, block * PARCEL_PIECE_BYTES, data, used)
		       ? -ENODATA
		       : 0;
}

/* As a piece is sent. */
struct piece_room { uint8_t head[PARCEL_PIECE_HEAD_BYTES], data[PARCEL_PIECE_BYTES]; };

/* Of disks one of zeros goes without them. */
static bool is_hole(const struct sending *sending, uint64_t block, const uint8_t *data)
{
	return block >= sending->machine_blocks && !data[0] &&
	       !memcmp(data, data + 1, PARCEL_PIECE_BYTES - 1);
}

/* Head and data as one: who hands them on wakes up once. 0 or -ECONNRESET. */
static int send_piece(struct sending *sending, struct parcel_piece *piece, struct piece_room *room)
{
	piece->crc = parcel_checksum(0, room->data, piece->bytes);
	parcel_put_piece(piece, room->head);
	sending->said_ns = now_ns();
	return wire_line_send(&sending->line, room, sizeof(room->head) + piece->bytes)
		       ? 0
		       : -ECONNRESET;
}

/* 0; -ECONNRESET; as above. */
static int send_block(struct sending *sending, uint64_t block)
{
	static struct piece_room room;
	struct parcel_piece piece = { .at = block * PARCEL_PIECE_BYTES,
				      .bytes = parcel_block_bytes(sending->bytes, block) };
	int error = read_block(sending, block, room.data);

	if (!error && is_hole(sending, block, room.data))
		piece.bytes = 0;
	if (!error)
		error = send_piece(sending, &piece, &room);
	if (error)
		return error;
	saved_blocks_set(&sending->sent, block);
	sending->unheard++;
	if (!is_due(sending, block))
		keep_to_limit(sending, piece.bytes);
	show_progress(sending);
	return 0;
}

static int send_mark(struct sending *sending, uint64_t mark)
{
	const struct parcel_piece piece = { .at = mark };
	uint8_t head[PARCEL_PIECE_HEAD_BYTES];

	parcel_put_piece(&piece, head);
	sending->said_ns = now_ns();
	return wire_line_send(&sending->line, head, sizeof(head)) ? 0 : -ECONNRESET;
}

static void learn_wanted(struct sending *sending);

static int send_begin(struct sending *sending)
{
	int error;

	sending->is_begun = true;
	sending->begun_ns = now_ns();
	error = send_mark(sending, PARCEL_BEGIN);
	learn_wanted(sending); /* while it begins there nothing else is to be done */
	return error;
}

static bool is_unsent(const struct sending *sending, uint64_t block)
{
	return block < sending->sent.blocks && !saved_blocks_has(&sending->sent, block);
}

/* Of what was asked for the last time. */
static bool find_due(struct sending *sending, uint64_t *ret)
{
	while (sending->next_due < sending->dues) {
		*ret = sending->due[sending->next_due];
		if (is_unsent(sending, *ret))
			return true;
		sending->next_due++;
	}
	return false;
}

/* The last one first. */
static bool find_parted(struct sending *sending, uint64_t *ret)
{
	const unsigned first = sending->parts > PARTED_BLOCKS ? sending->parts - PARTED_BLOCKS : 0;

	for (unsigned n = sending->parts; n > first; n--) {
		*ret = sending->parted[(n - 1) % PARTED_BLOCKS];
		if (is_unsent(sending, *ret))
			return true;
	}
	sending->parts = 0;
	return false;
}

static bool is_beginning(const struct sending *sending)
{
	return !sending->runs && now_ns() - sending->begun_ns < BEGINS_NS;
}

/* Memory from its end on, then disks from their beginning. */
static bool find_rest(struct sending *sending, uint64_t *ret)
{
	for (; sending->rest; sending->rest--) {
		*ret = sending->rest - 1;
		if (is_unsent(sending, *ret))
			return true;
	}
	for (; sending->rest_disks < sending->sent.blocks; sending->rest_disks++) {
		*ret = sending->rest_disks;
		if (is_unsent(sending, *ret))
			return true;
	}
	return false;
}

/*
 * What nobody asked for: first what the machine begins with, with what was asked for the last time,
 * then what lies behind the last that was wanted, then the rest.
 */
static bool find_next(struct sending *sending, uint64_t *ret)
{
	*ret = 0;
	if (is_unsent(sending, 0))
		return true;
	for (*ret = sending->front_from; !sending->is_begun && *ret < sending->machine_blocks;
	     ++*ret)
		if (is_unsent(sending, *ret))
			return true;
	if ((sending->is_begun || sending->next_due < DUES_FIRST) && find_due(sending, ret))
		return true;
	if (!sending->is_begun)
		return false;
	if (find_parted(sending, ret))
		return true;
	while (sending->ahead) {
		sending->ahead--;
		*ret = ++sending->next;
		if (is_unsent(sending, *ret))
			return true;
	}
	return !is_beginning(sending) && find_rest(sending, ret);
}

static bool is_in_a_row(const struct sending *sending)
{
	return sending->in_a_row >= IN_A_ROW;
}

/* Who has just asked soon asks again, and is not to find the way full of what he did not want. */
static bool is_asking(const struct sending *sending, uint64_t now)
{
	return now - sending->wanted_ns < ASKING_NS && !is_in_a_row(sending);
}

/* While somebody waits there, what nobody asked for is not to stand before what he asks for. */
static bool may_send(const struct sending *sending, uint64_t now)
{
	const bool is_wanted = now - sending->wanted_ns < WANTED_NS;

	return sending->unheard < (is_wanted ? FEW_BLOCKS : MOST_BLOCKS) &&
	       !is_asking(sending, now) &&
	       (!sending->is_begun || sending->next_due < sending->dues || sending->parts ||
		sending->due_ns <= now);
}

/* 1: something was sent; 0: there is nothing to send just now. */
static int send_next(struct sending *sending)
{
	uint64_t block;
	int error;

	if (sending->sent.count < sending->sent.blocks && !may_send(sending, now_ns()))
		return 0;
	if (find_next(sending, &block))
		error = send_block(sending, block);
	else if (!sending->is_begun)
		error = send_begin(sending);
	else
		return 0;
	return error ? error : 1;
}

/* ---- what is heard ---- */

static bool receive_answer(struct sending *sending)
{
	uint8_t bytes[PARCEL_ANSWER_BYTES];

	return wire_line_receive(&sending->line, bytes, sizeof(bytes)) &&
	       !parcel_take_answer(bytes, sending->bytes, &sending->answer);
}

static void note_want(struct sending *sending, uint64_t at, uint64_t bytes)
{
	saved_blocks_set(&sending->is_wanted, at / PARCEL_PIECE_BYTES);
	if (sending->knows_wanted && at < sending->head.bytes)
		fork_wanted_add(&sending->now, at, bytes);
}

/* In the order in which they were wanted: so they go ahead the next time. */
static void note_wants(struct sending *sending)
{
	for (unsigned n = 0; n < sending->notes; n++)
		note_want(sending, sending->noted[n].at, sending->noted[n].bytes);
	sending->notes = 0;
}

/* Once nothing else is to be done: who waits for what was just sent may need this processor. */
static void note_later(struct sending *sending, uint64_t at, uint32_t bytes)
{
	if (sending->notes == NOTES_MOST)
		note_wants(sending);
	sending->noted[sending->notes++] = (struct parcel_piece){ .at = at, .bytes = bytes };
}

/* What was sent already comes by itself. */
static int take_want(struct sending *sending, uint64_t block)
{
	note_want(sending, block * PARCEL_PIECE_BYTES,
		  parcel_used_bytes(&sending->extents->space, block));
	if (!is_unsent(sending, block))
		return 0;
	sending->wanted_ns = now_ns();
	sending->next = block;
	sending->ahead = AHEAD_BLOCKS;
	return send_block(sending, block);
}

/* A block all of whose grains went over this connection is there, as its receiver knows. */
static void note_part(struct sending *sending, uint64_t at, uint32_t bytes)
{
	const uint64_t block = at / PARCEL_PIECE_BYTES;

	if (saved_grains_part(&sending->grains, at, bytes))
		saved_blocks_set(&sending->sent, block);
}

/* Of the machine. The block itself follows with those behind it. */
static int send_part(struct sending *sending, uint64_t at, uint32_t bytes)
{
	static struct piece_room room;
	struct parcel_piece piece = { .at = at, .bytes = bytes };
	const uint64_t left = sending->head.bytes - at;
	const uint32_t used = bytes < left ? bytes : (uint32_t)left;

	memset(room.data + used, 0, bytes - used);
	if (fork_source_read(sending->source, at, room.data, used))
		return -ENODATA;
	sending->part_bytes += bytes;
	note_part(sending, at, bytes);
	return send_piece(sending, &piece, &room);
}

/*
 * Who wants part after part is better off with whole blocks, and those behind them; so is who has
 * had some parts of one.
 */
static void note_row(struct sending *sending, const struct parcel_word *word)
{
	const bool follows = word->block == sending->behind || word->block + 1 == sending->behind;

	sending->in_a_row = follows ? sending->in_a_row + 1 : 0;
	sending->behind = word->block + word->grains;
}

static int take_want_part(struct sending *sending, const struct parcel_word *word)
{
	const uint64_t at = word->block * PARCEL_GRAIN_BYTES;
	const uint64_t block = at / PARCEL_PIECE_BYTES;
	const uint32_t left = parcel_block_bytes(sending->bytes, block) -
			      (uint32_t)(at % PARCEL_PIECE_BYTES);
	const uint32_t bytes = word->grains * PARCEL_GRAIN_BYTES < left
				       ? word->grains * PARCEL_GRAIN_BYTES
				       : left;
	int error = 0;

	note_row(sending, word);
	if (block >= sending->machine_blocks || is_in_a_row(sending) ||
	    sending->parts_of[block] == PARTS_OF_BLOCK ||
	    bytes == parcel_block_bytes(sending->bytes, block))
		return take_want(sending, block);
	sending->parts_of[block]++;
	if (is_unsent(sending, block)) {
		sending->next = block;
		sending->ahead = AHEAD_BLOCKS;
		sending->parted[sending->parts++ % PARTED_BLOCKS] = block;
		error = send_part(sending, at, bytes);
		sending->wanted_ns = now_ns();
	}
	note_later(sending, at, bytes);
	return error;
}

static void note_run(struct sending *sending)
{
	sending->runs_ns = now_ns();
	sending->blocks_before = sending->sent.count - sending->unwanted;
	sending->part_bytes_before = sending->part_bytes;
}

/* 0, or -ECONNRESET. */
static int hear_word(struct sending *sending)
{
	uint8_t bytes[PARCEL_WORD_BYTES];
	struct parcel_word word;

	if (!wire_line_receive(&sending->line, bytes, sizeof(bytes)) ||
	    parcel_take_word(bytes, sending->bytes, &word))
		return -ECONNRESET;
	sending->heard_ns = now_ns();
	switch (word.kind) {
	case PARCEL_GOT:
		sending->unheard -= sending->unheard != 0;
		sending->has_moved = true;
		return 0;
	case PARCEL_WANT: return take_want(sending, word.block);
	case PARCEL_WANT_PART: return take_want_part(sending, &word);
	case PARCEL_WHOLE: sending->is_whole = sending->runs; return 0;
	case PARCEL_STAYS: return 0;
	default:
		if (!receive_answer(sending))
			return -ECONNRESET;
		if (!sending->runs && !sending->answer.error)
			note_run(sending);
		sending->runs |= !sending->answer.error;
		return 0;
	}
}

static int wait_ms(const struct sending *sending)
{
	const uint64_t now = now_ns();
	uint64_t ms = LIVES_MS;

	if (is_asking(sending, now))
		ms = 1;
	else if (sending->is_begun && is_beginning(sending))
		ms = (sending->begun_ns + BEGINS_NS - now) / 1000000 + 1;
	else if (sending->sent.count < sending->sent.blocks && sending->due_ns > now &&
		 sending->next_due >= sending->dues && !sending->parts &&
		 sending->unheard < FEW_BLOCKS)
		ms = (sending->due_ns - now) / 1000000 + 1;
	return (int)(ms < LIVES_MS ? ms : LIVES_MS);
}

/* Whether there is one. */
static int look_for_word(const struct sending *sending, int ms)
{
	struct pollfd line = { .fd = sending->line.socket, .events = POLLIN };

	return wire_line_holds(&sending->line) ? 1 : poll(&line, 1, ms);
}

/* The same. Of who has just asked the next word is not slept for. */
static int wait_for_word(struct sending *sending)
{
	int heard = look_for_word(sending, 0);
	bool looks = !heard && is_asking(sending, now_ns());
	bool is_over = false; /* nobody asks any more */

	if (!heard)
		note_wants(sending);
	while (looks && !heard && brief_wait_looks(&sending->wait)) {
		heard = look_for_word(sending, 0);
		looks = is_asking(sending, now_ns());
		is_over = !looks;
	}
	if (!heard && !is_over) /* else something may be sent now */
		heard = look_for_word(sending, wait_ms(sending));
	if (heard)
		brief_wait_found(&sending->wait);
	else
		brief_wait_forget(&sending->wait);
	return heard;
}

/* While nothing else is said. -ECONNRESET: the other side has been silent for too long. */
static int keep_alive(struct sending *sending)
{
	const uint64_t now = now_ns();

	if (now - sending->heard_ns >= PARCEL_SILENCE_S * NS_PER_S)
		return -ECONNRESET;
	return now - sending->said_ns < LIVES_MS * 1000000ull ? 0
							      : send_mark(sending, PARCEL_LIVES);
}

/* Until it runs there, or all of it is. 0, as sending->answer says; -errno. */
static int talk(struct sending *sending, bool to_end)
{
	int sent = 1;

	sending->heard_ns = now_ns(); /* who did not listen heard nothing */
	while (!sending->answer.error && (to_end ? !sending->is_whole : !sending->runs)) {
		const int heard = sent ? look_for_word(sending, 0) : wait_for_word(sending);
		const int error = heard > 0 ? hear_word(sending) : keep_alive(sending);

		if (error)
			return error;
		sent = heard ? 1 : send_next(sending); /* what was heard may have made room */
		if (sent < 0)
			return sent;
	}
	if (to_end && sending->is_whole)
		send_mark(sending, PARCEL_HEARD); /* where that is lost, it waits for a while */
	return 0;
}

static bool send_head(struct sending *sending)
{
	const struct parcel_space *space = &sending->extents->space;
	uint8_t head[PARCEL_HEAD_BYTES];
	uint8_t files[PARCEL_FILES][PARCEL_FILE_BYTES];

	sending->head.runs = sending->runs;
	sending->head.files = space->files;
	parcel_put_head(&sending->head, head);
	for (uint32_t n = 0; n < space->files; n++)
		parcel_put_file(&space->file[n], files[n]);
	return wire_line_send(&sending->line, head, sizeof(head)) &&
	       wire_line_send(&sending->line, files, space->files * sizeof(files[0]));
}

/* What is there is believed: a lie is one about a machine there. */
static int greet(struct sending *sending)
{
	if (!send_head(sending) || !receive_answer(sending))
		return -ECONNRESET;
	if (sending->answer.error == -EBUSY) {
		sending->answer.error = 0;
		return -ECONNRESET;
	}
	if (sending->answer.error)
		return 0;
	if (!wire_line_receive(&sending->line, sending->sent.bits,
			       saved_blocks_bytes(&sending->sent)))
		return -ECONNRESET;
	saved_blocks_recount(&sending->sent);
	if (!sending->knows_unwanted)
		sending->unwanted = sending->sent.count;
	sending->knows_unwanted = true;
	sending->rest = sending->rest_disks = sending->machine_blocks;
	sending->unheard = 0;
	saved_blocks_clear(&sending->grains);
	sending->is_greeted = true;
	sending->is_begun = sending->runs;
	return 0;
}

void fork_away_load(struct fork_away *away)
{
	if (wire_line_begin_early(&away->early))
		away->early.socket = -1; /* it is said when it is needed */
}

void fork_away_unload(struct fork_away *away)
{
	if (away->early.socket < 0)
		return;
	kill(away->early.process, SIGKILL);
	wire_line_close(&away->early);
	away->early.socket = -1;
}

/* The first time umbra-wire has begun already. */
static int give_line(struct sending *sending, int fd)
{
	struct fork_away *away = sending->away;

	if (away->early.socket < 0)
		return wire_line_begin(fd, false, &sending->secret, &sending->line);
	sending->line = away->early;
	if (!wire_line_give(&sending->line, fd, &sending->secret)) {
		away->early.socket = -1;
		return 0;
	}
	fork_away_unload(away);
	return -ECONNRESET;
}

static int begin_line(struct sending *sending)
{
	const int fd = place_connect(sending->host, sending->port);
	int error;

	if (fd >= 0)
		wire_line_tune(fd);
	error = fd < 0 ? fd : give_line(sending, fd);
	sending->is_begun_line = !error;
	return error;
}

static int connect_there(struct sending *sending)
{
	int error = sending->is_begun_line ? 0 : begin_line(sending);

	if (!error)
		error = wire_line_finish(&sending->line);
	sending->is_begun_line = false;
	sending->is_connected = !error;
	if (!error)
		wire_line_be_patient(&sending->line);
	return error;
}

static int try_once(struct sending *sending, bool to_end)
{
	int error = sending->is_connected ? 0 : connect_there(sending);

	if (!error && !sending->is_greeted)
		error = greet(sending);
	if (!error)
		error = talk(sending, to_end);
	return error || sending->answer.error || to_end ? disconnect(sending, error) : error;
}

static bool can_come_again(int error)
{
	return error == -ECONNRESET || error == -ECONNREFUSED || error == -ETIMEDOUT ||
	       error == -EHOSTUNREACH || error == -ENETUNREACH;
}

static int try_until_done(struct sending *sending, bool to_end)
{
	const uint64_t wait_ns = sending->away->wait_s * NS_PER_S;
	uint64_t lost_ns = now_ns();
	int error;

	for (;;) {
		sending->has_moved = false;
		error = try_once(sending, to_end);
		if (!can_come_again(error))
			return error;
		if (sending->has_moved)
			lost_ns = now_ns();
		if (now_ns() - lost_ns >= wait_ns)
			return error;
		pause_ns(PAUSE_MS * 1000000ull);
	}
}

/* ---- the whole ---- */

static int say_failure(const struct sending *sending, int error)
{
	const char *to = sending->away->to;

	switch (error) {
	case -EACCES:
		return sending->away->key
			       ? complain(EXIT_UNUSABLE, "it has another key", to,
					  "give both sides the same, with --key")
			       : complain(EXIT_UNUSABLE, "one side does not believe the other", to,
					  "see --ca, and whom its certificate names");
	case -ENOENT:
		return complain(EXIT_UNUSABLE, "not beside this program", "umbra-wire",
				"build it, or install all of Umbra");
	case -ECONNRESET:
		return complain(EXIT_UNUSABLE, "the connection was lost, and did not come back", to,
				sending->runs ? "say --wait SECONDS for longer; it ends there"
					      : "say --wait SECONDS for longer; the machine "
						"goes on here");
	case -ENODATA:
		return complain(EXIT_UNUSABLE, "what was forked of it here has ended", to,
				sending->runs ? "it ends there" : "the machine goes on here");
	case -EIO:
		return complain(EXIT_UNUSABLE, "a file of its disks cannot be read", to,
				sending->runs ? "it ends there" : "the machine goes on here");
	default:
		return complain(EXIT_UNUSABLE, strerror(-error), to,
				"see that umbra listen runs there");
	}
}

static int say_end(const struct sending *sending, int error)
{
	if (error)
		return say_failure(sending, error);
	if (!sending->answer.error)
		return 0;
	return complain(EXIT_UNUSABLE,
			sending->answer.text[0] ? sending->answer.text
						: strerror(-sending->answer.error),
			sending->away->to,
			sending->runs ? "it had begun there"
				      : "it says so; the machine goes on here");
}

static int parse_place(struct sending *sending)
{
	const char *to = sending->away->to;
	const char *colon = strrchr(to, ':');
	const size_t bytes = colon ? (size_t)(colon - to) : 0;

	if (!bytes || !colon[1] || bytes >= sizeof(sending->host))
		return complain(EXIT_USAGE, "not HOST:PORT", to, "say --to 127.0.0.1:4640");
	memcpy(sending->host, to, bytes);
	sending->port = colon + 1;
	return 0;
}

struct sending *fork_away_begin(struct fork_away *away, const char *child, int *ret_code)
{
	struct sending *sending = calloc(1, sizeof(*sending));

	if (!sending) {
		*ret_code = complain(EXIT_FAULT, strerror(ENOMEM), child, "see umbra doctor");
		return NULL;
	}
	sending->away = away;
	sending->began_ns = now_ns();
	sending->wait.is_far = true;
	sending->shown_percent = UINT64_MAX;
	*ret_code = parse_place(sending);
	if (!*ret_code)
		*ret_code = wire_secret_read(away->key, &away->certificates, sending->host,
					     &sending->secret);
	snprintf(sending->head.name, sizeof(sending->head.name), "%s", child);
	if (!*ret_code &&
	    getrandom(sending->head.id, sizeof(sending->head.id), 0) != sizeof(sending->head.id))
		*ret_code = complain(EXIT_FAULT, strerror(errno), child, "see umbra doctor");
	if (!*ret_code)
		return sending;
	free(sending);
	return NULL;
}

void fork_away_connect(struct sending *sending) { begin_line(sending); }

/* ---- what was asked for ---- */

static void add_due(void *context, const struct saved_entry *entry)
{
	struct sending *sending = context;
	const uint64_t last = (entry->at + saved_entry_bytes(entry) - 1) / PARCEL_PIECE_BYTES;

	for (uint64_t block = entry->at / PARCEL_PIECE_BYTES; block <= last; block++) {
		if (saved_blocks_has(&sending->is_due, block))
			continue;
		saved_blocks_set(&sending->is_due, block);
		sending->due[sending->dues++] = block;
	}
}

/* Once. Without memory, or an index, nothing is known of it. */
static void learn_wanted(struct sending *sending)
{
	const char *machine = sending->machine;

	if (!machine)
		return;
	sending->machine = NULL;
	sending->due = calloc(sending->machine_blocks, sizeof(*sending->due));
	if (!sending->due || !saved_blocks_make(&sending->is_due, sending->head.bytes) ||
	    fork_wanted_open(&sending->before, sending->source))
		return;
	sending->now = sending->before;
	sending->knows_wanted = true;
	fork_wanted_load(&sending->before, machine, sending->info);
	fork_wanted_find(&sending->before, add_due, sending);
}

void fork_away_keep_wanted(struct sending *sending, const char *machine, const json_t *info)
{
	if (!sending->knows_wanted)
		return;
	note_wants(sending);
	fork_wanted_join(&sending->now, &sending->before);
	fork_wanted_keep(&sending->now, machine, info);
}

struct fork_away_counts fork_away_count(const struct sending *sending)
{
	return (struct fork_away_counts){ .bytes = sending->bytes + sending->part_bytes -
					  sending->unwanted * PARCEL_PIECE_BYTES,
					  .wants = sending->is_wanted.count,
					  .ahead = sending->dues,
					  .bytes_before = sending->blocks_before *
								  PARCEL_PIECE_BYTES +
							  sending->part_bytes_before,
					  .until_it_ran_ns = sending->runs_ns - sending->began_ns };
}

/* While there is no connection yet. What is not read now is when it is sent. */
static void read_front(struct sending *sending)
{
	const uint64_t blocks = sending->machine_blocks - sending->front_from + 1;
	uint8_t *front = blocks <= FRONT_MOST_BLOCKS ? malloc(blocks * PARCEL_PIECE_BYTES) : NULL;
	int error = front ? read_block(sending, 0, front) : -ENOMEM;

	for (uint64_t n = 1; n < blocks && !error; n++)
		error = read_block(sending, sending->front_from + n - 1,
				   front + n * PARCEL_PIECE_BYTES);
	if (error)
		free(front);
	else
		sending->front = front;
}

int fork_away_deliver(struct sending *sending, struct fork_source *source,
		      const struct fork_extents *extents, const char *machine, const json_t *info)
{
	sending->source = source;
	sending->extents = extents;
	sending->head.bytes = source->bytes;
	sending->machine_blocks = parcel_blocks(source->bytes);
	sending->bytes = extents->space.bytes;
	sending->front_from = source->parts_at / PARCEL_PIECE_BYTES;
	if (!saved_blocks_make(&sending->sent, sending->bytes) ||
	    !(sending->parts_of = calloc(sending->machine_blocks, 1)) ||
	    !saved_blocks_make(&sending->is_wanted, sending->bytes) ||
	    !saved_grains_make(&sending->grains, parcel_machine_span(&extents->space)))
		return say_failure(sending, -ENOMEM);
	read_front(sending);
	sending->machine = machine;
	sending->info = info;
	if (fork_wanted_is_kept(machine)) /* it goes ahead */
		learn_wanted(sending);
	return say_end(sending, try_until_done(sending, false));
}

int fork_away_send_rest(struct sending *sending)
{
	return say_end(sending, try_until_done(sending, true));
}

void fork_away_end(struct sending *sending)
{
	disconnect(sending, 0);
	if (sending->knows_wanted)
		fork_wanted_close(&sending->before);
	free(sending->front);
	free(sending->due);
	free(sending->parts_of);
	free(sending);
}
