/*
 * umbra-share-file [-n NUMBER] send FILE
 * umbra-share-file [-n NUMBER] receive FILE
 *
 * Programs of two Linux guests between which a file goes through lent pages (docs/sharing.md,
 * Pages): who sends reads it into memory that it has lent, in two halves that stay lent, and says
 * with each piece that an access begins; who receives writes it to a file from the window, where
 * those pages are, and says that the access has ended. No byte is copied in between, and none
 * passes the ring. An example to write others by.
 *
 *   send                                receive
 *   lends half 0 and half 1        -->  SHARE_LENT: where they are
 *   PIECE in half N (an access)    -->  writes it
 *                                  <--  its release, and TAKEN
 *   LAST: how much there was       -->
 *                                  <--  TAKEN
 *   ends both: nobody has them, and goes;  then who receives goes, too
 *
 * That the other end has gone is told before packets of it that still wait: so nobody goes before
 * what he has said last is answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "abi/vmbus_layout.h"
#include "uio_channel.h"

enum { HALVES = 2, HALF_PAGES = 128, PAGE_BYTES = 4096, HALF_BYTES = HALF_PAGES * PAGE_BYTES };
enum { FOREVER = -1, LENT_MOST = 64 };
enum message_kind { PIECE = 1, TAKEN, LAST };

struct message { uint32_t kind, half; uint64_t bytes; };

/* What the other end has lent, by its number. */
struct lent { uint32_t id, first, pages, flags; };

static struct uio_channel channel;
/* The last packet, and behind it zeros: of a short one the rest of any message is zeros. */
static _Alignas(8) uint8_t got[SHARE_MESSAGE_BYTES + sizeof(struct share_lent)];

static void fail(const char *what, int error)
{
	fprintf(stderr, "umbra-share-file: %s: %s\n", what, strerror(-error));
	exit(1);
}

static void usage(void)
{
	fputs("umbra-share-file [-n NUMBER] send|receive FILE\n", stderr);
	exit(64);
}

/* The next packet, in `got`; of the other end's coming and going only the channel is told. */
static uint32_t next(struct umbra_packet *ret)
{
	const int bytes = uio_channel_receive(&channel, ret, got, SHARE_MESSAGE_BYTES, FOREVER);

	if (bytes < (int)sizeof(struct share_head))
		fail("the channel", bytes < 0 ? bytes : -EPROTO);
	memset(got + bytes, 0, sizeof(struct share_lent));
	return ((const struct share_head *)(const void *)got)->kind;
}

static void wait_for_peer(bool is_there)
{
	struct umbra_packet packet;

	while (channel.peer_is_there != is_there)
		next(&packet);
}

static void say(const struct message *message, uint32_t lend)
{
	const int error = uio_channel_send(&channel, message, sizeof(*message), lend);

	if (error)
		fail("the channel", error);
}

static bool take_message(struct message *ret)
{
	const struct share_data *data = (const struct share_data *)(const void *)got;

	if (data->head.kind != SHARE_DATA || data->bytes < sizeof(*ret))
		return false;
	memcpy(ret, data + 1, sizeof(*ret));
	return true;
}

/* ---- who sends ---- */

/* The completion of this transaction. */
static struct share_lent complete(uint64_t transaction)
{
	struct umbra_packet packet;

	do
		next(&packet);
	while (packet.type != PACKET_COMPLETION || packet.transaction != transaction);
	return *(const struct share_lent *)(const void *)got;
}

static uint32_t lend(const uint8_t *memory)
{
	const uint64_t transaction = uio_channel_transaction(&channel);
	uint64_t gfn[HALF_PAGES];
	struct share_lent answer;
	/* who receives writes nothing there */
	const uint32_t flags = channel.read_only ? SHARE_READ_ONLY : 0;
	int error = uio_channel_pages(memory, HALF_PAGES, gfn);

	if (!error && umbra_share_lend(&channel.channel, transaction, gfn, HALF_PAGES, flags))
		error = -EPROTO;
	if (error)
		fail("pages", error);
	answer = complete(transaction);
	if (answer.head.status)
		fail("lending pages, which a rule must allow", -EPERM);
	return answer.id;
}

static void end(uint32_t id)
{
	const uint64_t transaction = uio_channel_transaction(&channel);

	if (umbra_share_end(&channel.channel, transaction, id, 0) ||
	    complete(transaction).head.status)
		fail("the end of what was lent", -EPROTO);
}

/* Until the other end has taken one more. */
static void wait_until_taken(void)
{
	struct message message = { 0 };
	struct umbra_packet packet;

	do {
		next(&packet);
		if (!channel.peer_is_there)
			fail("the other end has gone", -EPIPE);
	} while (!take_message(&message) || message.kind != TAKEN);
}

static ssize_t fill(int fd, uint8_t *half)
{
	ssize_t bytes = 0;
	ssize_t some = 1;

	while (some > 0 && bytes < HALF_BYTES) {
		some = read(fd, half + bytes, (size_t)(HALF_BYTES - bytes));
		bytes += some > 0 ? some : 0;
	}
	return bytes;
}

static uint64_t send_file(int fd)
{
	uint8_t *memory = uio_channel_memory(&channel, HALVES * HALF_BYTES);
	uint32_t id[HALVES];
	uint64_t sent = 0;
	uint64_t pieces = 0;
	uint64_t taken = 0;
	ssize_t bytes;

	if (!memory)
		fail("memory", -ENOMEM);
	for (unsigned half = 0; half < HALVES; half++)
		id[half] = lend(memory + half * (size_t)HALF_BYTES);
	while ((bytes = fill(fd, memory + pieces % HALVES * HALF_BYTES)) > 0) {
		say(&(struct message){ PIECE, (uint32_t)(pieces % HALVES), (uint64_t)bytes },
		    id[pieces % HALVES]);
		sent += (uint64_t)bytes;
		for (pieces++; pieces - taken >= HALVES; taken++)
			wait_until_taken();
	}
	for (; taken < pieces; taken++)
		wait_until_taken();
	say(&(struct message){ LAST, 0, sent }, 0);
	wait_until_taken();
	for (unsigned half = 0; half < HALVES; half++)
		end(id[half]);
	return sent;
}

/* ---- who receives ---- */

static void keep_lent(struct lent lent[LENT_MOST])
{
	const struct share_lent *said = (const struct share_lent *)(const void *)got;

	for (unsigned n = 0; n < LENT_MOST; n++)
		if (!lent[n].pages) {
			lent[n] = (struct lent){ said->id, said->first, said->pages, said->flags };
			return;
		}
}

static const struct lent *find_lent(const struct lent lent[LENT_MOST], uint32_t id)
{
	for (unsigned n = 0; n < LENT_MOST; n++)
		if (lent[n].pages && lent[n].id == id)
			return &lent[n];
	fail("a piece in pages that nobody has lent", -EPROTO);
	return NULL;
}

static void take_piece(int fd, const struct lent *lent, const struct message *message)
{
	const uint8_t *window =
		lent->flags & SHARE_READ_ONLY ? channel.read_only : channel.window;
	const uint8_t *from = window + (size_t)lent->first * PAGE_BYTES;

	if (message->bytes > (uint64_t)lent->pages * PAGE_BYTES)
		fail("a piece that is longer than its pages", -EPROTO);
	for (uint64_t done = 0; done < message->bytes;) {
		const ssize_t put = write(fd, from + done, message->bytes - done);

		if (put <= 0)
			fail("the file", -errno);
		done += (uint64_t)put;
	}
	if (umbra_share_release(&channel.channel, 0, lent->id))
		fail("the channel", -EPROTO);
	say(&(struct message){ TAKEN, message->half, message->bytes }, 0);
}

static uint64_t receive_file(int fd)
{
	static struct lent lent[LENT_MOST];
	uint64_t received = 0;

	for (;;) {
		struct umbra_packet packet;
		struct message message;
		const uint32_t kind = next(&packet);

		if (packet.type == PACKET_COMPLETION)
			continue;
		if (kind == SHARE_LENT)
			keep_lent(lent);
		if (!channel.peer_is_there)
			fail("the other end has gone", -EPIPE);
		if (!take_message(&message))
			continue;
		if (message.kind == LAST) {
			if (message.bytes != received)
				fail("less has come than was sent", -EPROTO);
			say(&(struct message){ TAKEN, 0, 0 }, 0);
			wait_for_peer(false);
			return received;
		}
		take_piece(fd, find_lent(lent,
					 ((const struct share_data *)(const void *)got)->lend),
			   &message);
		received += message.bytes;
	}
}

int main(int argc, char **argv)
{
	struct timespec from, to;
	unsigned number = 0;
	uint64_t bytes;
	bool sends;
	int fd, error;

	if (argc > 2 && !strcmp(argv[1], "-n")) {
		number = (unsigned)strtoul(argv[2], NULL, 0);
		argv += 2;
		argc -= 2;
	}
	if (argc != 3 || (strcmp(argv[1], "send") && strcmp(argv[1], "receive")))
		usage();
	sends = !strcmp(argv[1], "send");
	fd = open(argv[2], (sends ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC) | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(argv[2], -errno);
	error = uio_channel_open(&channel, SHARE_PACKET_TYPE, number);
	if (error)
		fail("no channel of the class `packet`", error);
	wait_for_peer(true);
	clock_gettime(CLOCK_MONOTONIC, &from);
	bytes = sends ? send_file(fd) : receive_file(fd);
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("umbra-share-file: %lu bytes in %.3f s\n", bytes,
	       (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
	uio_channel_close(&channel);
	return 0;
}
