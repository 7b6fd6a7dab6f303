/* See arrival.h. */
#include "arrival.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arrival_grains.h"
#include "arrival_refusal.h"
#include "cli.h"
#include "control/names.h"
#include "landing.h"
#include "lib/pass_fds.h"
#include "lib/plain_text.h"
#include "process/pager_connection.h"
#include "saved_host.h"
#include "spare.h"
#include "vm/saved_blocks.h"
#include "wire/parcel.h"

enum { PATH_BYTES = 4096, NAME_BYTES = 64, OLD_S = 3600, OUTPUT_BYTES = 4096 };
enum { BACKLOG = 4, PAGES_FD = 200, DISK_NEWS_BLOCKS = 64 };
enum { GRAINS = PARCEL_PIECE_BYTES / PARCEL_GRAIN_BYTES }; /* of a block */
_Static_assert((int)PARCEL_GRAIN_BYTES == (int)SAVED_GRAIN_BYTES &&
		       (int)PARCEL_PIECE_BYTES == (int)SAVED_BLOCK_BYTES,
	       "as its pager counts them");
static const char prefix[] = "umbra-parcel-";

enum stage { ARRIVES, BEGINS, RUNS };

struct arrival {
	const struct arrival_place *place;
	struct wire_line line;
	bool is_connected;
	struct parcel_head head;
	struct parcel_space space;
	uint64_t machine_blocks;
	struct landing landing; /* line -1: nobody reads disks that arrive */
	bool has_landing;
	uint64_t disk_blocks; /* of them that have come */
	bool reader_waits; /* something has come that was wanted of them */
	pid_t keeper; /* who makes them durable, and its descriptor; -1 */
	int keeper_fd;
	uint64_t told_disk_blocks; /* to the pager: so many were still to come */
	struct parcel_answer answer;
	enum stage stage;
	int folder, file, listener;
	char name[NAME_BYTES], line_name[NAME_BYTES]; /* in the folder */
	struct saved_blocks has, asked;
	struct arrival_grains grains; /* of the machine */
	int pager;       /* its line; -1 */
	bool pager_asks; /* it has said that it is there */
	bool pager_waits; /* and that it misses something */
	bool is_handed, was_handed; /* the pager has this connection, or had it */
	int rest; /* what came by way of the pager, and was not heard yet; -1 */
	pid_t child;     /* who starts the machine, and what tells of his end */
	int child_fd;
	int word; /* to him: it may begin; from him: it runs. -1: all is said */
	int pages; /* the pager's line, until the machine begins */
	FILE *output;
	struct spare spare; /* who is there for it */
	uint64_t lost_s; /* since when there is no connection, or only its end is waited for */
	uint64_t said_s, heard_s; /* when something last was, over this one */
	bool is_heard; /* the sender knows that it runs, and is whole */
	bool is_over;
};

static uint64_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* ---- the connection ---- */

static void lose_connection(struct arrival *arrival)
{
	if (!arrival->is_connected)
		return;
	wire_line_close(&arrival->line);
	arrival->is_connected = arrival->is_handed = arrival->was_handed = false;
	arrival->lost_s = now_s();
}

static void send_or_lose(struct arrival *arrival, const void *from, size_t bytes)
{
	if (arrival->is_connected && !wire_line_send(&arrival->line, from, bytes))
		lose_connection(arrival);
	arrival->said_s = now_s();
}

static void say_word(struct arrival *arrival, const struct parcel_word *word)
{
	uint8_t bytes[PARCEL_WORD_BYTES];

	parcel_put_word(word, bytes);
	send_or_lose(arrival, bytes, sizeof(bytes));
}

static void say(struct arrival *arrival, uint32_t kind, uint64_t block)
{
	const struct parcel_word word = { .kind = kind, .block = block };

	say_word(arrival, &word);
}

static void put_answer(struct arrival *arrival)
{
	uint8_t bytes[PARCEL_ANSWER_BYTES];

	arrival->answer.have = arrival->has.count;
	parcel_put_answer(&arrival->answer, bytes);
	send_or_lose(arrival, bytes, sizeof(bytes));
}

/* With the word that says so, at once: by way of the pager nothing comes between. */
static void say_answer(struct arrival *arrival)
{
	const struct parcel_word word = { .kind = PARCEL_ANSWERS };
	uint8_t bytes[PARCEL_WORD_BYTES + PARCEL_ANSWER_BYTES];

	arrival->answer.have = arrival->has.count;
	parcel_put_word(&word, bytes);
	parcel_put_answer(&arrival->answer, bytes + PARCEL_WORD_BYTES);
	send_or_lose(arrival, bytes, sizeof(bytes));
}

static void set_answer(struct arrival *arrival, int error, const char *text)
{
	arrival->answer.error = error;
	snprintf(arrival->answer.text, sizeof(arrival->answer.text), "%s", text);
}

/* Of the machine, or why there is none. */
static void answer(struct arrival *arrival, int error, const char *text)
{
	set_answer(arrival, error, text);
	say_answer(arrival);
	arrival->is_over |= error != 0;
}

/* What lies: before the machine begins it is refused, and from then on left. */
static void leave_liar(struct arrival *arrival)
{
	if (arrival->stage == ARRIVES)
		answer(arrival, -EBADMSG, "what came is not what was announced");
	lose_connection(arrival);
}

static uint64_t disk_blocks_left(const struct arrival *arrival)
{
	return arrival->has_landing ? arrival->landing.blocks - arrival->disk_blocks : 0;
}

/* The pager has had all that it needs, or its machine has ended; and disks are whole. */
static bool is_served(const struct arrival *arrival)
{
	return arrival->stage == RUNS && arrival->pager < 0 &&
	       (!arrival->has_landing || arrival->landing.is_whole);
}

/*
 * Once the sender has heard that it runs, and says so: who has not would go on, too, and a
 * connection that takes what is said may be lost already.
 */
static void end_if_served(struct arrival *arrival)
{
	if (!is_served(arrival))
		return;
	arrival->lost_s = now_s(); /* for so long one that stays silent is waited for as well */
	say(arrival, PARCEL_WHOLE, 0);
	arrival->is_over |= arrival->is_heard;
}

/* Whoever says nothing is lost, also where his host's kernel still answers. */
static void keep_alive(struct arrival *arrival)
{
	const uint64_t now = now_s();

	if (!arrival->is_connected)
		return;
	if (now - arrival->heard_s >= PARCEL_SILENCE_S)
		lose_connection(arrival);
	else if (now - arrival->said_s >= PARCEL_LIVES_S)
		say(arrival, PARCEL_STAYS, 0);
}

/* ---- its file ---- */

static bool runs_here(const char *name)
{
	int fd = name_connect(name);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void name_files(struct arrival *arrival)
{
	int used = snprintf(arrival->name, sizeof(arrival->name), "%s", prefix);

	for (unsigned n = 0; n < PARCEL_ID_BYTES; n++)
		used += snprintf(arrival->name + used, sizeof(arrival->name) - (size_t)used, "%02x",
				 arrival->head.id[n]);
	snprintf(arrival->line_name, sizeof(arrival->line_name), "%.*s.line",
		 (int)sizeof(arrival->name) - 6, arrival->name);
}

/* However long the folder's name is. */
static struct sockaddr_un line_address(const struct arrival *arrival)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
		 arrival->folder, arrival->line_name);
	return address;
}

/* 0 or -errno: -EBUSY: somebody fills it. */
static int open_file(struct arrival *arrival)
{
	struct stat st;

	arrival->file = openat(arrival->folder, arrival->name,
			       O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (arrival->file < 0)
		return -errno;
	if (flock(arrival->file, LOCK_EX | LOCK_NB))
		return -EBUSY;
	if (fstat(arrival->file, &st) || st.st_uid != geteuid() || !S_ISREG(st.st_mode))
		return -EPERM;
	return st.st_nlink ? 0 : -EBUSY; /* of one who has just ended */
}

/* Nothing is there yet; further connections come to the listener. */
static int begin_file(struct arrival *arrival)
{
	const struct sockaddr_un address = line_address(arrival);
	int error = 0;
	mode_t mask;

	if (arrival->head.runs)
		return -ESRCH;
	if (ftruncate(arrival->file, 0) ||
	    ftruncate(arrival->file, (off_t)arrival->head.bytes))
		return -errno;
	unlinkat(arrival->folder, arrival->line_name, 0);
	mask = umask(S_IXUSR | S_IRWXG | S_IRWXO);
	arrival->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (arrival->listener < 0 ||
	    bind(arrival->listener, (const struct sockaddr *)&address, sizeof(address)) ||
	    listen(arrival->listener, BACKLOG))
		error = -errno;
	umask(mask);
	return error;
}

/* This connection, to who fills the file. */
static bool pass_connection(const struct arrival *arrival)
{
	const struct sockaddr_un address = line_address(arrival);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const bool is_passed = fd >= 0 &&
			       !connect(fd, (const struct sockaddr *)&address, sizeof(address)) &&
			       wire_line_pass(&arrival->line, fd);

	if (fd >= 0)
		close(fd);
	return is_passed;
}

/* The answer to a head, and which blocks there are. */
static void greet(struct arrival *arrival)
{
	arrival->heard_s = now_s();
	arrival_grains_forget_parts(&arrival->grains);
	set_answer(arrival, 0, "");
	put_answer(arrival);
	send_or_lose(arrival, arrival->has.bits, saved_blocks_bytes(&arrival->has));
	if (arrival->stage == RUNS)
		answer(arrival, 0, "");
	for (uint64_t block = 0; arrival->is_connected && block < arrival->has.blocks; block++)
		if (saved_blocks_has(&arrival->asked, block) &&
		    !saved_blocks_has(&arrival->has, block))
			say(arrival, PARCEL_WANT, block); /* by a connection that was lost */
	end_if_served(arrival);
}

static void take_connection(struct arrival *arrival)
{
	const int fd = accept4(arrival->listener, NULL, NULL, SOCK_CLOEXEC);
	struct wire_line line;

	if (fd >= 0 && wire_line_take(fd, &line)) {
		lose_connection(arrival);
		arrival->line = line;
		arrival->is_connected = true;
		greet(arrival);
	}
	if (fd >= 0)
		close(fd);
}

/* ---- it goes on ---- */

/* What the arrival holds open is nobody's business who it starts, and ends with the arrival. */
static int run_machine(struct arrival *arrival, int pages)
{
	const struct saved_arrival how = {
		.landing = arrival->has_landing ? &arrival->landing : NULL,
		.permits = arrival->place->permits
	};
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", arrival->place->folder, arrival->name);
	dup2(fileno(arrival->output), STDERR_FILENO);
	dup2(fileno(arrival->output), STDOUT_FILENO);
	dup2(pages, PAGES_FD);
	close(pages);
	close(arrival->pages);
	if (arrival->has_landing)
		close(arrival->landing.line);
	return spare_restore(&arrival->spare, path, arrival->head.name, PAGES_FD, &how,
			     arrival->place->ports);
}

/* Nobody waits for its end, of which it would otherwise be heard that the machine runs. */
static _Noreturn void start_when_told(struct arrival *arrival, int pages, int word)
{
	uint8_t byte;
	int code = EXIT_FAULT;

	close(arrival->word);
	if (read(word, &byte, 1) == 1)
		code = run_machine(arrival, pages);
	if (!code && write(word, &byte, 1) != 1)
		code = EXIT_FAULT;
	_exit(code);
}

/* Who starts the machine is there before he can: what it begins with is on its way. */
static int begin_starter(struct arrival *arrival)
{
	int pages[2];
	int words[2];

	arrival->output = tmpfile();
	if (!arrival->output || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pages))
		return -errno;
	arrival->pages = pages[0];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, words)) {
		close(pages[1]);
		return -errno;
	}
	arrival->word = words[0];
	arrival->child = fork();
	if (!arrival->child)
		start_when_told(arrival, pages[1], words[1]);
	early_end(&arrival->spare.broker);
	close(pages[1]);
	close(words[1]);
	if (arrival->has_landing)
		close(arrival->landing.there);
	if (arrival->child > 0)
		arrival->child_fd = (int)syscall(SYS_pidfd_open, arrival->child, 0);
	return arrival->child_fd < 0 ? -EAGAIN : 0;
}

static void begin_machine(struct arrival *arrival)
{
	if (arrival->stage != ARRIVES)
		return;
	arrival->pager = arrival->pages;
	arrival->stage = BEGINS;
	if (send(arrival->word, "", 1, MSG_NOSIGNAL) != 1)
		answer(arrival, -EAGAIN, "");
}

static void say_end_of_begin(struct arrival *arrival, const char *text)
{
	close(arrival->place->begun);
	printf("%s %s\n", arrival->head.name, text);
	fflush(stdout);
}

/* Why it does not run, as umbra run says it. */
static void hear_failure(struct arrival *arrival)
{
	char said[OUTPUT_BYTES];
	int status = -1;
	size_t got;
	int code;

	while (waitpid(arrival->child, &status, 0) < 0 && errno == EINTR)
		;
	rewind(arrival->output);
	got = fread(said, 1, sizeof(said) - 1, arrival->output);
	said[got] = 0;
	said[strcspn(said, "\n")] = 0;
	plain_text(said);
	close(arrival->child_fd);
	arrival->child_fd = -1;
	code = WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_FAULT;
	answer(arrival, -EBADMSG, arrival_refusal(said, code));
	fprintf(stderr, "%s\n", said);
	say_end_of_begin(arrival, "was refused");
}

/* Its sender first: one that has not heard of it would send it anew. */
static void hear_starter(struct arrival *arrival)
{
	uint8_t byte;
	const bool runs = recv(arrival->word, &byte, 1, 0) == 1;

	close(arrival->word);
	arrival->word = -1;
	arrival->stage = RUNS;
	if (runs) {
		answer(arrival, 0, "");
		say_end_of_begin(arrival, "has arrived");
	} else {
		hear_failure(arrival);
	}
	fclose(arrival->output);
	end_if_served(arrival);
}

/* He has said all that there is to say. */
static void forget_starter(struct arrival *arrival)
{
	while (waitpid(arrival->child, NULL, 0) < 0 && errno == EINTR)
		;
	close(arrival->child_fd);
	arrival->child_fd = -1;
}

/* ---- what comes ---- */

/* It is not said to be whole before disks are durable and have their names. */
static void say_if_whole(struct arrival *arrival)
{
	if (arrival->has.count == arrival->has.blocks && !arrival->is_over &&
	    (!arrival->has_landing || arrival->landing.is_whole))
		say(arrival, PARCEL_WHOLE, 0);
	end_if_served(arrival);
}

static void take_finish(struct arrival *arrival, int error)
{
	if (error) {
		answer(arrival, error, "the files of its disks could not be kept");
		arrival->is_over = true;
	}
	say_if_whole(arrival);
}

static void begin_finish(struct arrival *arrival)
{
	arrival->keeper_fd = landing_begin_finish(&arrival->landing, &arrival->keeper);
	if (arrival->keeper_fd < 0)
		take_finish(arrival, arrival->keeper_fd);
}

static void hear_keeper(struct arrival *arrival)
{
	int status = -1;

	while (waitpid(arrival->keeper, &status, 0) < 0 && errno == EINTR)
		;
	close(arrival->keeper_fd);
	arrival->keeper_fd = -1;
	take_finish(arrival, landing_finish(&arrival->landing, status));
}

static int write_block(struct arrival *arrival, uint64_t block, const uint8_t *data)
{
	const uint32_t used = parcel_used_bytes(&arrival->space, block);
	ssize_t written = used;

	if (block >= arrival->machine_blocks) {
		arrival->disk_blocks++;
		arrival->reader_waits |= saved_blocks_has(&arrival->asked, block);
		return landing_write(&arrival->landing, block, data);
	}
	if (data)
		written = pwrite(arrival->file, data, used, (off_t)(block * PARCEL_PIECE_BYTES));
	if (written == (ssize_t)used)
		return 0;
	return written < 0 ? -errno : -ENOSPC;
}

/* What was written is there, or the file cannot be filled. data: NULL: zeros. */
static void take_block(struct arrival *arrival, uint64_t block, const uint8_t *data)
{
	const int error = write_block(arrival, block, data);

	if (error) {
		answer(arrival, error, "");
		arrival->is_over = true;
		return;
	}
	saved_blocks_set(&arrival->has, block);
	if (block < arrival->machine_blocks)
		arrival_grains_come(&arrival->grains, block * PARCEL_PIECE_BYTES,
				    parcel_used_bytes(&arrival->space, block));
	say(arrival, PARCEL_GOT, block);
	if (block >= arrival->machine_blocks && !disk_blocks_left(arrival))
		begin_finish(arrival);
	say_if_whole(arrival);
}

/* The block follows, whole; but where all of it comes in parts that is it. */
static void take_part(struct arrival *arrival, const struct parcel_piece *piece,
		      const uint8_t *data)
{
	const uint64_t left = arrival->head.bytes - piece->at;
	const size_t used = piece->bytes < left ? piece->bytes : (size_t)left;
	const ssize_t written = pwrite(arrival->file, data, used, (off_t)piece->at);

	if (written != (ssize_t)used) {
		answer(arrival, written < 0 ? -errno : -ENOSPC, "");
		arrival->is_over = true;
		return;
	}
	arrival_grains_come(&arrival->grains, piece->at, used);
	if (arrival_grains_part(&arrival->grains, piece->at, piece->bytes)) {
		saved_blocks_set(&arrival->has, piece->at / PARCEL_PIECE_BYTES);
		say_if_whole(arrival);
	}
}

/*
 * A part is one that was asked for, of the machine, before its block; what the pager has asked for
 * by itself he knows.
 */
static bool is_expected(const struct arrival *arrival, const struct parcel_piece *piece)
{
	const uint64_t block = piece->at / PARCEL_PIECE_BYTES;

	if (saved_blocks_has(&arrival->has, block))
		return false;
	return !parcel_is_part(piece, arrival->space.bytes) ||
	       (piece->at < arrival->head.bytes &&
		(arrival->was_handed || saved_blocks_has(&arrival->asked, block)));
}

/* The pager may still be reading. */
static void hear_end(struct arrival *arrival)
{
	arrival->is_heard = arrival->stage == RUNS &&
			    (is_served(arrival) || arrival->has.count == arrival->has.blocks);
	arrival->is_over |= arrival->is_heard && is_served(arrival);
	if (!arrival->is_heard)
		leave_liar(arrival);
}

static bool receive(const struct arrival *arrival, void *to, size_t bytes)
{
	return arrival->rest >= 0 ? wire_receive(arrival->rest, to, bytes)
				  : wire_line_receive(&arrival->line, to, bytes);
}

static void hear_sender(struct arrival *arrival)
{
	static uint8_t data[PARCEL_PIECE_BYTES];
	uint8_t head[PARCEL_PIECE_HEAD_BYTES];
	struct parcel_piece piece;

	if (!receive(arrival, head, sizeof(head))) {
		lose_connection(arrival);
		return;
	}
	if (parcel_take_piece(head, arrival->space.bytes, &piece)) {
		leave_liar(arrival);
		return;
	}
	arrival->heard_s = now_s();
	if (piece.at == PARCEL_LIVES)
		return;
	if (piece.at == PARCEL_BEGIN) {
		begin_machine(arrival);
		return;
	}
	if (piece.at == PARCEL_HEARD) {
		hear_end(arrival);
		return;
	}
	if (!receive(arrival, data, piece.bytes))
		lose_connection(arrival);
	else if (!is_expected(arrival, &piece) ||
		 parcel_checksum(0, data, piece.bytes) != piece.crc)
		leave_liar(arrival);
	else if (parcel_is_part(&piece, arrival->space.bytes))
		take_part(arrival, &piece, data);
	else
		take_block(arrival, piece.at / PARCEL_PIECE_BYTES, piece.bytes ? data : NULL);
}

/* ---- what is wanted here ---- */

/* Of `blocks` from `first` on. Whether some of that is there already. */
static bool ask_for(struct arrival *arrival, uint64_t first, uint64_t blocks,
		    const struct saved_blocks_word *word)
{
	bool is_there = false;

	for (uint64_t n = 0; n < word->count && n < SAVED_BLOCKS_WANTED; n++) {
		const uint64_t block = first + word->block + n;

		if (word->block + n >= blocks)
			continue;
		if (saved_blocks_has(&arrival->has, block)) {
			is_there = true;
		} else if (!saved_blocks_has(&arrival->asked, block)) {
			saved_blocks_set(&arrival->asked, block);
			say(arrival, PARCEL_WANT, block);
		}
	}
	return is_there;
}

/* ---- the pager ---- */

static void pager_gone(struct arrival *arrival)
{
	close(arrival->pager);
	arrival->pager = -1;
	end_if_served(arrival);
}

/* Of one block. */
static void ask_for_part(struct arrival *arrival, uint64_t first, uint32_t count)
{
	const struct parcel_word word = { .kind = PARCEL_WANT_PART, .grains = count,
					  .block = first };
	const uint64_t block = first / GRAINS;

	if (saved_blocks_has(&arrival->has, block) ||
	    !arrival_grains_ask(&arrival->grains, first, count))
		return;
	saved_blocks_set(&arrival->asked, block);
	say_word(arrival, &word);
}

static void ask_for_grains(struct arrival *arrival, const struct saved_blocks_word *word)
{
	const uint64_t grains = arrival->grains.here.blocks;
	uint64_t left = word->count < SAVED_BLOCKS_WANTED ? word->count : SAVED_BLOCKS_WANTED;
	uint64_t first = word->block;

	while (left && first < grains) {
		const uint64_t of_block = GRAINS - first % GRAINS;
		uint64_t count = left < of_block ? left : of_block;

		count = count < grains - first ? count : grains - first;
		ask_for_part(arrival, first, (uint32_t)count);
		left -= count;
		first += count;
	}
}

/* It misses pages, and has asked for none by itself. */
static bool may_hand(const struct arrival *arrival)
{
	return arrival->pager >= 0 && arrival->pager_waits && arrival->is_connected &&
	       !arrival->is_handed && arrival->stage == RUNS && !is_served(arrival) &&
	       wire_line_can_be_handed(&arrival->line);
}

/* The pager asks by itself from now on, and passes on all that comes. */
static void hand_connection(struct arrival *arrival)
{
	struct pager_hand hand = { .word = { .block = SAVED_BLOCKS_OF_CONNECTION,
					     .count = arrival->space.bytes } };
	int pair[2];
	int fds[PAGER_HAND_FDS];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return;
	hand.keys = wire_line_hand(&arrival->line, pair[0]);
	arrival->is_handed = arrival->was_handed = true;
	fds[0] = arrival->line.connection;
	fds[1] = pair[1];
	if (!pass_fds(arrival->pager, &hand, sizeof(hand), fds, PAGER_HAND_FDS))
		lose_connection(arrival);
	close(pair[1]);
}

/* What it has passed on is heard before what comes now. */
static void hear_rest(struct arrival *arrival)
{
	uint8_t byte;

	while (arrival->is_connected && recv(arrival->rest, &byte, 1, MSG_PEEK) == 1)
		hear_sender(arrival);
	close(arrival->rest);
	arrival->rest = -1;
}

/* It has all that it needs. All that was said here is on its way before it says its keys. */
static void take_connection_back(struct arrival *arrival)
{
	struct pollfd line = { .fd = arrival->pager, .events = POLLIN };
	struct pager_hand hand;

	if (!arrival->is_handed)
		return;
	shutdown(arrival->line.socket, SHUT_WR);
	if (poll(&line, 1, WIRE_PATIENCE_S * 1000) <= 0 ||
	    recv(arrival->pager, &hand, sizeof(hand), MSG_DONTWAIT) != sizeof(hand) ||
	    (arrival->rest = wire_line_hand_back(&arrival->line, &hand.keys)) < 0) {
		lose_connection(arrival);
		return;
	}
	hear_rest(arrival);
	arrival->is_handed = false;
}

static void hear_pager(struct arrival *arrival)
{
	struct saved_blocks_word word;
	const ssize_t got = recv(arrival->pager, &word, sizeof(word), MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got != sizeof(word)) {
		pager_gone(arrival);
		return;
	}
	arrival->pager_asks = true;
	if (word.block == SAVED_BLOCKS_OF_CONNECTION) {
		arrival->pager_waits = false;
		take_connection_back(arrival);
		return;
	}
	arrival->pager_waits |= word.count != 0;
	ask_for_grains(arrival, &word);
}

/* So that it does not end before they have come, and says how much that is. */
static bool has_disk_news(const struct arrival *arrival)
{
	const uint64_t left = disk_blocks_left(arrival);

	return arrival->has_landing && arrival->told_disk_blocks != left &&
	       (!left || arrival->told_disk_blocks - left >= DISK_NEWS_BLOCKS);
}

static void tell_of_disks(struct arrival *arrival)
{
	const uint64_t left = disk_blocks_left(arrival);
	const struct saved_blocks_word word = { .block = SAVED_BLOCKS_OF_DISKS, .count = left };

	if (send(arrival->pager, &word, sizeof(word), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(word))
		arrival->told_disk_blocks = left;
}

/* Grains that it has not heard of, as many as follow each other. */
static void tell_pager(struct arrival *arrival)
{
	struct saved_blocks_word word;

	if (has_disk_news(arrival)) {
		tell_of_disks(arrival);
		return;
	}
	word = arrival_grains_news(&arrival->grains);
	if (send(arrival->pager, &word, sizeof(word), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(word))
		arrival_grains_tell(&arrival->grains, &word);
}

static bool has_news(const struct arrival *arrival)
{
	return arrival->pager >= 0 && arrival->pager_asks &&
	       (arrival_grains_have_news(&arrival->grains) || has_disk_news(arrival));
}

/* ---- who reads disks ---- */

static void hear_reader(struct arrival *arrival)
{
	struct landing *landing = &arrival->landing;
	struct saved_blocks_word word;
	const ssize_t got = recv(landing->line, &word, sizeof(word), MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got != sizeof(word)) { /* it has ended, and its machine; the files come all the same */
		close(landing->line);
		landing->line = -1;
		return;
	}
	arrival->reader_waits |=
		ask_for(arrival, landing->first, landing->blocks, &word);
}

/* It looks then whether it was what it waits for: one word stands for all that has come. */
static void wake_reader(struct arrival *arrival)
{
	const struct saved_blocks_word word = { .block = 0 };

	if (send(arrival->landing.line, &word, sizeof(word), MSG_DONTWAIT | MSG_NOSIGNAL) ==
	    sizeof(word))
		arrival->reader_waits = false;
}

/* ---- until it is there ---- */

static int patience_ms(const struct arrival *arrival)
{
	const uint64_t gone = now_s() - arrival->lost_s;
	const bool needs_none = arrival->stage != ARRIVES &&
				arrival->has.count == arrival->has.blocks;

	if (!is_served(arrival) && (arrival->is_connected || needs_none))
		return -1;
	return gone < arrival->place->wait_s ? (int)(arrival->place->wait_s - gone) * 1000 : 0;
}

/* As long, but that who is connected has to say something before, and to hear something. */
static int turn_ms(const struct arrival *arrival)
{
	const int ms = patience_ms(arrival);
	const int most = PARCEL_LIVES_S * 1000;

	return arrival->is_connected && (ms < 0 || ms > most) ? most : ms;
}

static void turn(struct arrival *arrival)
{
	const bool wakes = arrival->has_landing && arrival->reader_waits;
	struct pollfd fds[] = {
		{ .fd = arrival->is_connected ? arrival->line.socket : -1, .events = POLLIN },
		{ .fd = arrival->pager,
		  .events = (short)(POLLIN | (has_news(arrival) ? POLLOUT : 0)) },
		{ .fd = arrival->listener, .events = POLLIN },
		{ .fd = arrival->stage == ARRIVES ? -1 : arrival->word, .events = POLLIN },
		{ .fd = arrival->has_landing ? arrival->landing.line : -1,
		  .events = (short)(POLLIN | (wakes ? POLLOUT : 0)) },
		{ .fd = arrival->keeper_fd, .events = POLLIN },
		{ .fd = arrival->stage == RUNS ? arrival->child_fd : -1, .events = POLLIN },
	};
	const bool holds = arrival->is_connected && wire_line_holds(&arrival->line);
	const int ready = poll(fds, sizeof(fds) / sizeof(fds[0]), holds ? 0 : turn_ms(arrival));

	if (!holds && (!fds[0].revents || ready <= 0))
		keep_alive(arrival);
	if (!holds && ready <= 0) {
		arrival->is_over |= !patience_ms(arrival);
		return;
	}
	if (fds[1].revents & (POLLIN | POLLHUP))
		hear_pager(arrival);
	if (arrival->is_connected && (holds || fds[0].revents))
		hear_sender(arrival);
	if (fds[2].revents)
		take_connection(arrival);
	if (fds[3].revents)
		hear_starter(arrival);
	if (fds[4].revents & (POLLIN | POLLHUP))
		hear_reader(arrival);
	if (fds[5].revents)
		hear_keeper(arrival);
	if (fds[6].revents && arrival->child_fd >= 0)
		forget_starter(arrival);
	if (has_news(arrival))
		tell_pager(arrival);
	if (arrival->reader_waits && arrival->landing.line >= 0)
		wake_reader(arrival);
	if (may_hand(arrival))
		hand_connection(arrival);
}

/* Which files its disks lie in, there. */
static int take_files(struct arrival *arrival)
{
	uint8_t files[PARCEL_FILES * PARCEL_FILE_BYTES];

	if (!wire_line_receive(&arrival->line, files,
			       (size_t)arrival->head.files * PARCEL_FILE_BYTES))
		return -ECONNRESET;
	arrival->machine_blocks = parcel_blocks(arrival->head.bytes);
	return parcel_take_files(&arrival->head, files, &arrival->space);
}

static int begin_landing(struct arrival *arrival)
{
	if (!arrival->place->disks)
		return 0;
	arrival->has_landing = true;
	return landing_begin(&arrival->landing, arrival->place->disks, arrival->head.name,
			     arrival->name + strlen(prefix), &arrival->space);
}

static int take_head(struct arrival *arrival)
{
	uint8_t bytes[PARCEL_HEAD_BYTES];
	int error;

	if (!wire_line_receive(&arrival->line, bytes, sizeof(bytes)))
		return -ECONNRESET;
	error = parcel_take_head(bytes, &arrival->head);
	if (!error && arrival->head.bytes > arrival->place->most_bytes)
		error = -EFBIG;
	if (!error)
		error = take_files(arrival);
	if (error)
		return error;
	name_files(arrival);
	arrival->folder = open(arrival->place->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (arrival->folder < 0)
		return -errno;
	error = open_file(arrival);
	if (error)
		return error;
	if (runs_here(arrival->head.name))
		error = -EADDRINUSE;
	if (!error)
		error = begin_file(arrival);
	return error ? error : begin_landing(arrival);
}

static const char *text_of(int error)
{
	switch (error) {
	case -EADDRINUSE: return "a machine of that name runs there";
	case -ESRCH: return "the machine is not there any more";
	case -ENOSPC: return "there is no room for its disks";
	case -EPERM: return "the policy of one of its disks does not let it be sent";
	case -EOPNOTSUPP:
		return "only disks of VHDX files are sent, and those that are read: convert it";
	default: return "";
	}
}

/* What nobody wants here is as if it had come. */
static bool make_blocks(struct arrival *arrival)
{
	if (!saved_blocks_make(&arrival->has, arrival->space.bytes) ||
	    !saved_blocks_make(&arrival->asked, arrival->space.bytes) ||
	    !arrival_grains_make(&arrival->grains, arrival->head.bytes,
				 parcel_machine_span(&arrival->space)))
		return false;
	for (uint64_t block = arrival->machine_blocks;
	     !arrival->has_landing && block < arrival->has.blocks; block++)
		saved_blocks_set(&arrival->has, block);
	return true;
}

static void fill(struct arrival *arrival)
{
	int error;

	greet(arrival);
	error = begin_starter(arrival);
	if (error)
		answer(arrival, error, "");
	while (!arrival->is_over)
		turn(arrival);
	if (arrival->pager >= 0)
		close(arrival->pager);
}

void arrival_serve(const struct arrival_place *place, struct wire_line *line, struct spare *spare)
{
	static struct arrival arrival;
	int error;

	arrival = (struct arrival){ .place = place, .line = *line, .is_connected = true,
				    .folder = -1, .file = -1, .listener = -1, .pager = -1,
				    .rest = -1,
				    .child_fd = -1, .word = -1, .pages = -1, .keeper_fd = -1,
				    .spare = *spare };
	wire_line_be_patient(line);
	signal(SIGPIPE, SIG_IGN); /* a machine does not end with who reads what is said of it */
	error = take_head(&arrival);
	if (error == -EBUSY && pass_connection(&arrival))
		return; /* it goes on there */
	if (!error && !make_blocks(&arrival))
		error = -ENOMEM;
	if (error && error != -ECONNRESET) {
		set_answer(&arrival, error, text_of(error));
		put_answer(&arrival);
	}
	if (!error)
		fill(&arrival);
	if (arrival.file >= 0 && error != -EBUSY) {
		unlinkat(arrival.folder, arrival.name, 0);
		unlinkat(arrival.folder, arrival.line_name, 0);
	}
	if (arrival.has_landing)
		landing_end(&arrival.landing);
	lose_connection(&arrival);
}

/* ---- of who is gone ---- */

static void remove_if_old(int folder, const char *name)
{
	int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW))
		st.st_uid = (uid_t)-1;
	if (st.st_uid == geteuid() && time(NULL) - st.st_mtime > OLD_S &&
	    (fd < 0 || !flock(fd, LOCK_EX | LOCK_NB)))
		unlinkat(folder, name, 0);
	if (fd >= 0)
		close(fd);
}

void arrival_remove_old(const char *folder)
{
	DIR *listing = opendir(folder);
	const struct dirent *entry;

	while (listing && (entry = readdir(listing)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)))
			remove_if_old(dirfd(listing), entry->d_name);
	if (listing)
		closedir(listing);
}
