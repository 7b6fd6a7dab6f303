/*
 * See fork_away.h. The machine is saved into a file here, and goes on; that file is sent
 * (wire/parcel.h). A connection that is lost is made again, and goes on where the last one ended.
 *
 *  1. What is sent is the file, whose disks are frozen: how often a connection is lost changes
 *     nothing of the machine that arrives.
 *  2. The file is removed when it is over, however that ends.
 */
#include "fork_away.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "place.h"
#include "save_machine.h"
#include "wire/parcel.h"
#include "wire_line.h"

enum { PATH_BYTES = 4096, HOST_BYTES = 256, PAUSE_MS = 200, PERCENT = 100 };

struct sending {
	const struct fork_away *away;
	char path[PATH_BYTES];
	uint8_t key[WIRE_KEY_BYTES];
	char host[HOST_BYTES];
	const char *port;
	int file;
	struct parcel_head head;
	uint32_t crc; /* of all of it */
	struct parcel_answer answer;
	uint64_t sent_ns, shown_percent;
	bool has_moved; /* something went over the last connection */
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

/* ---- pieces ---- */

static void show_progress(struct sending *sending, uint64_t have)
{
	const uint64_t percent = have * PERCENT / sending->head.bytes;

	if (percent == sending->shown_percent || !isatty(STDERR_FILENO))
		return;
	sending->shown_percent = percent;
	fprintf(stderr, "\r%lu %% of %lu MiB%s", percent, sending->head.bytes >> 20,
		percent == PERCENT ? "\n" : "");
}

/* No more than the limit since the last piece. */
static void keep_to_limit(struct sending *sending, uint32_t bytes)
{
	const uint64_t limit = sending->away->bytes_per_s;
	const uint64_t now = now_ns();
	const uint64_t needed = limit ? bytes * 1000000000ull / limit : 0;

	if (sending->sent_ns + needed > now)
		pause_ns(sending->sent_ns + needed - now);
	sending->sent_ns = now_ns();
}

static bool receive_answer(struct sending *sending, const struct wire_line *line)
{
	uint8_t bytes[PARCEL_ANSWER_BYTES];

	return wire_line_receive(line, bytes, sizeof(bytes)) &&
	       !parcel_take_answer(bytes, sending->head.bytes, &sending->answer);
}

static bool send_piece(const struct wire_line *line, const struct parcel_piece *piece,
		       const uint8_t *data)
{
	uint8_t head[PARCEL_PIECE_HEAD_BYTES];

	parcel_put_piece(piece, head);
	return wire_line_send(line, head, sizeof(head)) &&
	       wire_line_send(line, data, piece->bytes);
}

/* 0; -ECONNRESET; or what the file says. */
static int send_pieces(struct sending *sending, const struct wire_line *line)
{
	static uint8_t data[PARCEL_PIECE_BYTES];
	struct parcel_piece piece = { .at = sending->answer.have };
	ssize_t got;

	do {
		got = pread(sending->file, data, sizeof(data), (off_t)piece.at);
		if (got < 0)
			return -errno;
		piece.bytes = (uint32_t)got;
		piece.crc = got ? parcel_checksum(0, data, (size_t)got) : sending->crc;
		if (!send_piece(line, &piece, data))
			return -ECONNRESET;
		sending->has_moved |= got > 0;
		piece.at += piece.bytes;
		keep_to_limit(sending, piece.bytes);
		show_progress(sending, piece.at);
	} while (got);
	return 0;
}

/* 0: it is over, as sending->answer says; -ECONNRESET: it can go on; -errno: it cannot. */
static int send_on(struct sending *sending, const struct wire_line *line)
{
	uint8_t head[PARCEL_HEAD_BYTES];
	int error;

	parcel_put_head(&sending->head, head);
	if (!wire_line_send(line, head, sizeof(head)) || !receive_answer(sending, line))
		return -ECONNRESET;
	if (sending->answer.error)
		return sending->answer.error == -EBUSY ? -ECONNRESET : 0;
	error = send_pieces(sending, line);
	if (error == -ECONNRESET && receive_answer(sending, line) && sending->answer.error)
		return 0; /* it has left because of what it says */
	if (error)
		return error;
	return receive_answer(sending, line) ? 0 : -ECONNRESET;
}

static int try_once(struct sending *sending)
{
	struct wire_line line;
	int fd = place_connect(sending->host, sending->port);
	int error = fd < 0 ? fd : wire_line_open(fd, false, sending->key, &line);

	if (error)
		return error;
	error = send_on(sending, &line);
	wire_line_close(&line);
	return error;
}

static bool can_come_again(int error)
{
	return error == -ECONNRESET || error == -ECONNREFUSED || error == -ETIMEDOUT ||
	       error == -EHOSTUNREACH || error == -ENETUNREACH;
}

static int try_until_done(struct sending *sending)
{
	const uint64_t wait_ns = sending->away->wait_s * 1000000000ull;
	uint64_t lost_ns = now_ns();
	int error;

	for (;;) {
		sending->has_moved = false;
		error = try_once(sending);
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

static int sum_up(struct sending *sending)
{
	static uint8_t data[PARCEL_PIECE_BYTES];
	struct stat st;
	ssize_t got;

	sending->file = open(sending->path, O_RDONLY | O_CLOEXEC);
	if (sending->file < 0 || fstat(sending->file, &st))
		return -errno;
	sending->head.bytes = (uint64_t)st.st_size;
	for (off_t at = 0; (got = pread(sending->file, data, sizeof(data), at)) > 0; at += got)
		sending->crc = parcel_checksum(sending->crc, data, (size_t)got);
	return got < 0 ? -errno : 0;
}

static int say_failure(const struct sending *sending, int error)
{
	const char *to = sending->away->to;

	switch (error) {
	case -EACCES:
		return complain(EXIT_UNUSABLE, "it has another key", to,
				"give both sides the same, with --key");
	case -ENOENT:
		return complain(EXIT_UNUSABLE, "not beside this program", "umbra-wire",
				"build it, or install all of Umbra");
	case -ECONNRESET:
		return complain(EXIT_UNUSABLE, "the connection was lost, and did not come back", to,
				"say --wait SECONDS for longer; the machine goes on here");
	default:
		return complain(EXIT_UNUSABLE, strerror(-error), to,
				"see that umbra listen runs there");
	}
}

static int deliver(void *context)
{
	struct sending *sending = context;
	int error = sum_up(sending);

	if (!error)
		error = try_until_done(sending);
	if (sending->file >= 0)
		close(sending->file);
	if (error)
		return say_failure(sending, error);
	if (!sending->answer.error)
		return 0;
	return complain(EXIT_UNUSABLE,
			sending->answer.text[0] ? sending->answer.text
						: strerror(-sending->answer.error),
			sending->away->to, "it says so; the machine goes on here");
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

int fork_away(const struct fork_away *away, const char *name, const char *child, const char *folder,
	      bool end)
{
	struct sending sending = { .away = away, .file = -1, .shown_percent = UINT64_MAX };
	const char *place = getenv("TMPDIR") ?: "/var/tmp";
	const struct save_request request = { .name = name, .file = sending.path, .folder = folder,
					      .stop = end, .deliver = deliver,
					      .context = &sending };
	int code = parse_place(&sending);

	if (!code)
		code = away->key ? wire_key_read(away->key, sending.key)
				 : complain(EXIT_USAGE, "no key", "--to", "say --key FILE");
	if (code)
		return code;
	snprintf(sending.path, sizeof(sending.path), "%s/umbra-away-%d-%s", place, (int)getpid(),
		 child);
	snprintf(sending.head.name, sizeof(sending.head.name), "%s", child);
	if (getrandom(sending.head.id, sizeof(sending.head.id), 0) != sizeof(sending.head.id))
		return complain(EXIT_FAULT, strerror(errno), name, "see umbra doctor");
	code = save_machine(&request);
	unlink(sending.path);
	return code;
}
