/*
 * The pager process's main: brings the memory of a machine that was saved while that runs already
 * (vm/demand.h). It has the file, and the kernel's descriptor of the pages that are missed.
 *
 * owner: of each frame of RAM, 1 + the number of the entry that has it (vm/saved_pages.h); 0: it is
 * there, or is zeros. What is missed comes first, with its whole entry; while nobody waits, the
 * rest, many entries at once: from the second pass of the save on, where what was used last lies.
 * Once that is there it rests for a while, since the machine has the most to do then; after that
 * comes what lies behind what was missed.
 *
 *  1. It has given up its rights before it reads a byte of the file or of the machine process.
 *  2. What an entry holds is compared with its checksum before any of it is put into memory. A page
 *     that cannot be had ends this process with a code, and so the machine: it is never zeros.
 *  3. A page is put where nothing is, never over what the machine has. What the machine gives back
 *     meanwhile is zeros from then on.
 *  4. A file that is still being filled, from another place, has a line by which is said what there
 *     is of it, and wanted (vm/saved_blocks.h). What is missed is asked for; the rest comes by
 *     itself, and is brought as it comes. When the line ends before, so does this process.
 *     While that is by a connection which this process has been given (pager_connection.h), what is
 *     missed is asked for there, and put into memory as it comes, before it is in the file.
 *  5. When all is there nothing is registered any more, and the process ends in order; of a machine
 *     whose disks arrive by the same line, when those are, so that it is not forked before.
 *
 * It is one thread, and holds no lock.
 */
#include <assert.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/early.h"
#include "ipc/lockdown.h"
#include "lib/missed_pages.h"
#include "lib/pass_fds.h"
#include "mains.h"
#include "pager_connection.h"
#include "pager_left.h"
#include "plan.h"
#include "report.h"
#include "vm/demand.h"
#include "vm/saved_blocks.h"
#include "vm/saved_pages.h"

enum {
	EVENTS_MOST = 64,       /* read at once */
	WAITING_MOST = 1024,    /* frames that are waited for */
	LARGE_FRAMES = 512,     /* what the host maps at once, where it may */
	EMPTY_RANGES_MOST = 1024,
	ZEROS_AT_ONCE = 16,
	AHEAD_ENTRIES = 16, /* at once while nobody waits, after a while in which nobody did */
	AHEAD_PACKED = 1, /* of those that have to be unpacked: who misses one waits for that */
	ASKED_MOST = 16, /* entries that were asked for by the connection, and have not come */
	REST_MS = 30,    /* nobody has waited for so long: what is left is brought */
	RESTS_MOST = 32, /* or so many have, of a guest that looks at much of its memory */
};
#define MEMORY_MOST_BYTES (1ull << 44)

/* An entry that was asked for by the connection. Of one in two blocks a part of each comes. */
enum { LOWER_PART = 1, UPPER_PART = 2, BOTH_PARTS = 3 };
struct asked {
	uint32_t number;
	unsigned parts; /* that are in `section` */
	uint8_t section[PARCEL_PIECE_BYTES];
};

struct pager {
	const char *source; /* the file, for messages */
	struct saved_pages pages;
	int faults; /* the kernel's */
	struct demand_hello machine;
	uint64_t frames, left; /* of RAM; those of them that have an owner */
	struct pager_left *told; /* NULL: nobody hears of it */
	uint32_t *owner;
	bool *is_used; /* of as many frames as the host maps at once: whether one has an owner */
	uint32_t cursor; /* the entry that comes next while nobody waits */
	uint32_t ahead;  /* so many then: who misses a page soon misses another one */
	bool has_begun;  /* what the machine needs soon is there: then what is missed leads on */
	unsigned rests;  /* how often it may: while a machine begins the processors are its own */
	uint64_t waiting[WAITING_MOST];
	unsigned waiters;
	int line; /* of a file that is being filled; -1: all of it is there */
	struct saved_blocks here; /* grains */
	uint64_t disk_blocks; /* of disks, that are still to come */
	struct pager_connection connection;
	struct asked asked[ASKED_MOST];
	unsigned asks;
};

/* ---- ends ---- */

static _Noreturn void give_up(const struct pager *pager, int error)
{
	switch (error) {
	case -EBADMSG:
		_exit(complain(EXIT_UNUSABLE, "its memory is damaged", pager->source,
			       "save the machine again"));
	case -EIO:
		_exit(complain(EXIT_UNUSABLE, "its memory cannot be read to the end",
			       pager->source, "leave the file alone while its machine begins"));
	case -ENOTCONN:
		_exit(complain(EXIT_UNUSABLE,
			       "the connection to where its memory comes from was lost",
			       pager->source, "see umbra listen --wait, umbra fork --wait"));
	case -ENOMEM:
		_exit(complain(EXIT_UNUSABLE, "the host has not enough memory for it",
			       pager->source, "end something, or give the machine less"));
	case -ESRCH: /* the machine has ended */
		_exit(0);
	default:
		_exit(complain(EXIT_UNUSABLE, strerror(-error), pager->source, "see umbra doctor"));
	}
}

static uint64_t hva_of(const struct pager *pager, uint64_t frame)
{
	return pager->machine.hva + frame * SAVED_PAGE_BYTES;
}

/* ---- what the kernel says ---- */

static void disown(struct pager *pager, uint64_t frame)
{
	pager->left -= pager->owner[frame] != 0;
	pager->owner[frame] = 0;
}

static void wake(const struct pager *pager, uint64_t frame, uint64_t frames)
{
	struct uffdio_range range = { .start = hva_of(pager, frame),
				      .len = frames * SAVED_PAGE_BYTES };

	ioctl(pager->faults, UFFDIO_WAKE, &range);
}

/* Who waits for a page that is zeros now comes again: nothing is brought to wake him. */
static void take_removal(struct pager *pager, uint64_t start, uint64_t end)
{
	const uint64_t hva = pager->machine.hva;
	const uint64_t limit = hva_of(pager, pager->frames);
	const uint64_t left = pager->left;

	start = start > hva ? start : hva;
	end = end < limit ? end : limit;
	for (uint64_t page = start; page < end; page += SAVED_PAGE_BYTES)
		disown(pager, (page - hva) / SAVED_PAGE_BYTES);
	if (pager->left < left)
		wake(pager, (start - hva) / SAVED_PAGE_BYTES, (end - start) / SAVED_PAGE_BYTES);
}

static void take_fault(struct pager *pager, uint64_t hva)
{
	const uint64_t frame = (hva - pager->machine.hva) / SAVED_PAGE_BYTES;

	if (hva < pager->machine.hva || frame >= pager->frames)
		return;
	if (pager->waiters < WAITING_MOST)
		pager->waiting[pager->waiters++] = frame;
	else
		wake(pager, frame, 1); /* it comes again */
}

static void take_events(struct pager *pager)
{
	struct uffd_msg events[EVENTS_MOST];
	ssize_t got;

	do {
		got = read(pager->faults, events, sizeof(events));
		for (ssize_t n = 0; n < got / (ssize_t)sizeof(events[0]); n++)
			if (events[n].event == UFFD_EVENT_PAGEFAULT)
				take_fault(pager, events[n].arg.pagefault.address);
			else if (events[n].event == UFFD_EVENT_REMOVE)
				take_removal(pager, events[n].arg.remove.start,
					     events[n].arg.remove.end);
	} while (got == (ssize_t)sizeof(events));
}

/* ---- pages ---- */

/*
 * After the kernel has not done all of it: how many frames are there now. What the machine is
 * about to give back has to be heard first.
 */
static uint64_t done_of(struct pager *pager, uint64_t frame, int64_t done_bytes)
{
	const int error = errno;

	if (done_bytes > 0)
		return (uint64_t)done_bytes / SAVED_PAGE_BYTES;
	switch (error) {
	case EAGAIN: take_events(pager); return 0;
	case ENOENT: /* not registered: it was unmapped, or is the kernel's own again */
	case EEXIST: wake(pager, frame, 1); return 1;
	default: give_up(pager, -error);
	}
}

/* Nothing was done, since not all of them are of one mapping; each for itself is. */
static bool is_divided(int error, uint64_t frames)
{
	return error && errno == ENOENT && frames > 1;
}

/* How many of these frames are done. */
static uint64_t put_pages(struct pager *pager, uint64_t frame, const uint8_t *from, uint64_t frames)
{
	struct uffdio_copy copy = { .dst = hva_of(pager, frame),
				    .src = (uintptr_t)from,
				    .len = frames * SAVED_PAGE_BYTES };
	int error = ioctl(pager->faults, UFFDIO_COPY, &copy);

	if (is_divided(error, frames)) {
		frames = 1;
		copy.len = SAVED_PAGE_BYTES;
		error = ioctl(pager->faults, UFFDIO_COPY, &copy);
	}
	return error ? done_of(pager, frame, copy.copy) : frames;
}

static uint64_t put_zeros(struct pager *pager, uint64_t frame, uint64_t frames)
{
	struct uffdio_zeropage zeros = { .range = { .start = hva_of(pager, frame),
						    .len = frames * SAVED_PAGE_BYTES } };
	int error = ioctl(pager->faults, UFFDIO_ZEROPAGE, &zeros);

	if (is_divided(error, frames)) {
		frames = 1;
		zeros.range.len = SAVED_PAGE_BYTES;
		error = ioctl(pager->faults, UFFDIO_ZEROPAGE, &zeros);
	}
	return error ? done_of(pager, frame, zeros.zeropage) : frames;
}

/* How many frames from this one on are this entry's; of no more than `most`. */
static uint64_t run_of(const struct pager *pager, uint64_t frame, uint32_t owner, uint64_t most)
{
	uint64_t run = 0;

	while (run < most && frame + run < pager->frames && pager->owner[frame + run] == owner)
		run++;
	return run;
}

/* What is still this entry's; the machine may take frames away from it meanwhile. */
static void put_entry(struct pager *pager, uint32_t number, const uint8_t *from)
{
	const struct saved_entry *entry = &pager->pages.entry[number];
	const uint64_t end = (uint64_t)entry->first + entry->pages;

	for (uint64_t frame = entry->first; frame < end && frame < pager->frames;) {
		const uint64_t run = run_of(pager, frame, number + 1, end - frame);
		uint64_t done;

		if (!run) {
			frame++;
			continue;
		}
		done = put_pages(pager, frame, from + (frame - entry->first) * SAVED_PAGE_BYTES,
				 run);
		for (; done; done--)
			disown(pager, frame++);
	}
}

/* Of these entries as many as can be read at once, until somebody waits. How many that were. */
static uint32_t bring_entries(struct pager *pager, uint32_t number, uint32_t most)
{
	const uint32_t count = saved_pages_run(&pager->pages, number, most);
	const uint8_t *from = NULL;
	const int error = saved_pages_read(&pager->pages, number, count, &from);
	uint32_t done = 0;

	if (error)
		give_up(pager, error);
	do {
		put_entry(pager, number + done, from);
		from += (size_t)pager->pages.entry[number + done].pages * SAVED_PAGE_BYTES;
		if (++done < count)
			take_events(pager);
	} while (done < count && !pager->waiters);
	return done;
}

/* ---- of a file that is being filled ---- */

static uint64_t last_grain(const struct saved_entry *entry)
{
	return (entry->at + saved_entry_bytes(entry) - 1) / SAVED_GRAIN_BYTES;
}

static bool is_here(const struct pager *pager, uint32_t number)
{
	const struct saved_entry *entry = &pager->pages.entry[number];

	for (uint64_t grain = entry->at / SAVED_GRAIN_BYTES;
	     pager->line >= 0 && grain <= last_grain(entry); grain++)
		if (!saved_blocks_has(&pager->here, grain))
			return false;
	return true;
}

/* Its line's other end takes it, or is gone; none: to say that this one hears. */
static void want(const struct pager *pager, uint64_t grain, uint64_t count)
{
	const struct saved_blocks_word word = { .block = grain, .count = count };

	if (write(pager->line, &word, sizeof(word)) != sizeof(word))
		give_up(pager, -ENOTCONN);
}

static void want_entry(const struct pager *pager, const struct saved_entry *entry)
{
	const uint64_t end = last_grain(entry) + 1;

	for (uint64_t grain = entry->at / SAVED_GRAIN_BYTES; grain < end;) {
		const uint64_t left = end - grain;
		const uint64_t count = left < SAVED_BLOCKS_WANTED ? left : SAVED_BLOCKS_WANTED;

		want(pager, grain, count);
		grain += count;
	}
}

/* ---- by the connection ---- */

static void lose_connection(struct pager *pager)
{
	pager_connection_lose(&pager->connection);
	for (; pager->asks; pager->asks--)
		want_entry(pager, &pager->pages.entry[pager->asked[pager->asks - 1].number]);
}

static bool is_asked(const struct pager *pager, uint32_t number)
{
	for (unsigned n = 0; n < pager->asks; n++)
		if (pager->asked[n].number == number)
			return true;
	return false;
}

static void forget_asked(struct pager *pager, uint32_t number)
{
	for (unsigned n = 0; n < pager->asks; n++)
		if (pager->asked[n].number == number) {
			if (n != --pager->asks) /* with as much as has come of it */
				pager->asked[n] = pager->asked[pager->asks];
			return;
		}
}

/* Grains of one block at a time. */
static bool ask_for_parts(struct pager *pager, const struct saved_entry *entry)
{
	const uint64_t end = last_grain(entry) + 1;
	const uint64_t of_block = SAVED_BLOCK_BYTES / SAVED_GRAIN_BYTES;
	bool is_good = true;

	for (uint64_t grain = entry->at / SAVED_GRAIN_BYTES; grain < end && is_good;) {
		const uint64_t next = (grain / of_block + 1) * of_block;
		const uint64_t count = (next < end ? next : end) - grain;

		is_good = pager_connection_want(&pager->connection, grain, (uint32_t)count);
		grain += count;
	}
	return is_good;
}

/* Whether the other end's block is in the file already: then only the file ever has all of it. */
static bool has_one_end(const struct pager *pager, const struct saved_entry *entry)
{
	return saved_blocks_has(&pager->here, entry->at / SAVED_GRAIN_BYTES) ||
	       saved_blocks_has(&pager->here, last_grain(entry));
}

/* False: it has to be asked for otherwise. */
static bool ask(struct pager *pager, uint32_t number)
{
	const struct saved_entry *entry = &pager->pages.entry[number];

	if (!pager_connection_is_there(&pager->connection) ||
	    saved_entry_bytes(entry) > SAVED_BLOCK_BYTES || has_one_end(pager, entry))
		return false;
	if (is_asked(pager, number))
		return true;
	if (pager->asks == ASKED_MOST)
		return false;
	pager->asked[pager->asks].parts = 0;
	pager->asked[pager->asks++].number = number;
	if (!ask_for_parts(pager, entry))
		lose_connection(pager);
	return true;
}

static bool has_frames(const struct pager *pager, uint32_t number)
{
	const struct saved_entry *entry = &pager->pages.entry[number];

	for (uint64_t frame = entry->first;
	     frame < (uint64_t)entry->first + entry->pages && frame < pager->frames; frame++)
		if (pager->owner[frame] == number + 1)
			return true;
	return false;
}

static void bring(struct pager *pager, uint64_t frame)
{
	const uint32_t owner = pager->owner[frame];

	if (!owner) {
		while (!put_zeros(pager, frame, run_of(pager, frame, 0, ZEROS_AT_ONCE)))
			;
		return;
	}
	if (!is_here(pager, owner - 1)) {
		if (!ask(pager, owner - 1))
			want_entry(pager, &pager->pages.entry[owner - 1]);
		return; /* who waits is woken when it is brought */
	}
	bring_entries(pager, owner - 1, 1);
	if (pager->has_begun)
		pager->cursor = owner % pager->pages.entries;
}

/* How many entries from this one on have frames still; of no more than `most`. */
static uint32_t left_from(const struct pager *pager, uint32_t number, uint32_t most)
{
	uint32_t count = 0;

	while (count < most && number + count < pager->pages.entries &&
	       has_frames(pager, number + count))
		count++;
	return count;
}

static uint32_t most_ahead(const struct pager *pager)
{
	return pager->pages.unpacker ? AHEAD_PACKED : AHEAD_ENTRIES;
}

static void bring_next(struct pager *pager)
{
	const uint32_t left = left_from(pager, pager->cursor, pager->ahead);
	const uint32_t done = left ? bring_entries(pager, pager->cursor, left) : 1;
	const uint32_t most = most_ahead(pager);

	pager->cursor = (pager->cursor + done) % pager->pages.entries;
	pager->has_begun |= !pager->cursor;
	pager->ahead = 2 * pager->ahead < most ? 2 * pager->ahead : most;
}

/* The first entry that ends behind this place. */
static uint32_t first_entry(const struct pager *pager, uint64_t at)
{
	uint32_t low = 0;
	uint32_t high = pager->pages.entries;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		const struct saved_entry *entry = &pager->pages.entry[middle];

		if (entry->at + saved_entry_bytes(entry) <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* What these grains have made whole. */
static void bring_blocks(struct pager *pager, const struct saved_blocks_word *word)
{
	const uint64_t end = (word->block + word->count) * SAVED_GRAIN_BYTES;

	for (uint32_t n = first_entry(pager, word->block * SAVED_GRAIN_BYTES);
	     n < pager->pages.entries && pager->pages.entry[n].at < end; n++)
		if (is_here(pager, n) && has_frames(pager, n)) {
			forget_asked(pager, n);
			bring_entries(pager, n, 1);
		}
}

/* Nothing of the file has come with it. */
static int take_disk_blocks(struct pager *pager, struct saved_blocks_word *ret)
{
	pager->disk_blocks = ret->count;
	if (pager->told)
		atomic_store_explicit(&pager->told->disk_bytes, ret->count * SAVED_BLOCK_BYTES,
				      memory_order_relaxed);
	*ret = (struct saved_blocks_word){ .block = 0 };
	return 1;
}

/* Bytes of a word, or of the hand that has come; as read(). With that all asks before are lost. */
static ssize_t read_line(struct pager *pager, struct saved_blocks_word *ret)
{
	struct pager_hand hand;
	int fds[PAGER_HAND_FDS];
	unsigned count;
	const ssize_t got =
		take_fds(pager->line, &hand, sizeof(hand), fds, PAGER_HAND_FDS, &count);

	*ret = hand.word;
	if (got != sizeof(hand) || hand.word.block != SAVED_BLOCKS_OF_CONNECTION)
		return got;
	if (count == PAGER_HAND_FDS) {
		lose_connection(pager);
		pager_connection_take(&pager->connection, &hand, fds, pager->here.blocks);
	}
	*ret = (struct saved_blocks_word){ .block = 0 };
	return sizeof(*ret);
}

/* 1: *ret has come; 0: nothing; or the line has ended: all of it is there, or never will be. */
static int hear_line(struct pager *pager, struct saved_blocks_word *ret)
{
	struct pollfd line = { .fd = pager->line, .events = POLLIN };

	if (pager->line < 0 || poll(&line, 1, 0) <= 0)
		return 0;
	if (read_line(pager, ret) != sizeof(*ret)) {
		if (pager->here.count < pager->here.blocks || pager->disk_blocks)
			give_up(pager, -ENOTCONN);
		pager->line = -1;
		return 0;
	}
	if (ret->block == SAVED_BLOCKS_OF_DISKS)
		return take_disk_blocks(pager, ret);
	if (ret->block > pager->here.blocks || ret->count > pager->here.blocks - ret->block)
		give_up(pager, -EBADMSG);
	for (uint64_t n = 0; n < ret->count; n++)
		saved_blocks_set(&pager->here, ret->block + n);
	return 1;
}

/*
 * What the piece has of it, which is kept where that is not all. Whether nobody else needs that:
 * the other part may have come already, and lie in the file.
 */
static bool take_parts(const struct pager *pager, struct asked *asked, const uint8_t **ret_section)
{
	const struct saved_entry *entry = &pager->pages.entry[asked->number];
	const uint64_t bytes = saved_entry_bytes(entry);
	const uint64_t border = (entry->at / SAVED_BLOCK_BYTES + 1) * SAVED_BLOCK_BYTES;
	const uint64_t lower = border < entry->at + bytes ? border - entry->at : bytes;
	const uint8_t *below = pager_connection_find(&pager->connection, entry->at, lower);
	const uint8_t *above = lower < bytes ? pager_connection_find(&pager->connection, border,
								     bytes - lower)
					     : NULL;

	if (below && lower < bytes) {
		memcpy(asked->section, below, lower);
		asked->parts |= LOWER_PART;
	}
	if (above) {
		memcpy(asked->section + lower, above, bytes - lower);
		asked->parts |= UPPER_PART;
	}
	if (lower == bytes)
		*ret_section = below;
	else
		*ret_section = asked->parts == BOTH_PARTS ? asked->section : NULL;
	return below && lower == bytes;
}

/*
 * What was asked for and has come with this piece; what is not as it should be its file will say.
 * Whether the piece was taken here.
 */
static bool bring_piece(struct pager *pager)
{
	bool is_taken = false;

	for (unsigned n = 0; n < pager->asks;) {
		const uint32_t number = pager->asked[n].number;
		const uint8_t *section;
		const uint8_t *from;

		is_taken |= take_parts(pager, &pager->asked[n], &section);
		if (!section) {
			n++;
			continue;
		}
		if (saved_pages_of_section(&pager->pages.entry[number], section, &from))
			want_entry(pager, &pager->pages.entry[number]);
		else
			put_entry(pager, number, from);
		forget_asked(pager, number);
	}
	return is_taken;
}

/* Pieces that are whole, until somebody waits. False: the connection is lost. */
static bool take_pieces(struct pager *pager)
{
	bool is_whole;
	bool drops;

	do {
		if (!pager_connection_hear(&pager->connection, &is_whole))
			return false;
		if (!is_whole)
			return true;
		drops = bring_piece(pager) && pager_connection_has_part(&pager->connection);
		if (!(drops ? pager_connection_drop(&pager->connection)
			    : pager_connection_pass(&pager->connection)))
			return false;
		take_events(pager);
	} while (!pager->waiters);
	return true;
}

/* Of a connection: what has come, and what who fills the file says. */
static void serve_connection(struct pager *pager, short far, short near)
{
	struct pager_connection *connection = &pager->connection;
	bool is_good = pager_connection_is_there(connection);
	bool ends = false;

	if (is_good && near)
		is_good = pager_connection_say(connection, &ends) && !ends;
	if (is_good && far && !wire_sealed_holds(connection->sealed))
		is_good = pager_connection_read(connection);
	if (is_good)
		is_good = take_pieces(pager);
	if (!is_good && pager_connection_is_there(connection))
		lose_connection(pager);
}

/* One word's: meanwhile somebody may wait. */
static void take_blocks(struct pager *pager)
{
	struct saved_blocks_word word;

	if (hear_line(pager, &word))
		bring_blocks(pager, &word);
}

/* Without the kernel's help the machine process reads all of the file itself, once it is there. */
static void wait_for_file(struct pager *pager)
{
	struct saved_blocks_word word;

	while (pager->line >= 0 &&
	       (pager->here.count < pager->here.blocks || pager->disk_blocks)) {
		struct pollfd fds[] = { { .fd = pager->line, .events = POLLIN },
					{ .fd = grant_fd(GRANT_END), .events = POLLIN } };

		if (poll(fds, 2, -1) > 0 && fds[1].revents)
			give_up(pager, -ESRCH);
		hear_line(pager, &word);
	}
}

/* ---- what there is ---- */

static bool is_empty(const struct pager *pager, uint64_t frame)
{
	return !pager->is_used[frame / LARGE_FRAMES];
}

static void leave(const struct pager *pager, uint64_t frame, uint64_t frames)
{
	missed_pages_leave(pager->faults, hva_of(pager, frame), frames * SAVED_PAGE_BYTES);
}

/* Where the file has nothing the kernel gives zeros by itself. */
static void leave_empty_ranges(const struct pager *pager)
{
	uint64_t begin = 0;

	for (unsigned ranges = 0; begin + LARGE_FRAMES <= pager->frames;) {
		uint64_t end = begin;

		while (end + LARGE_FRAMES <= pager->frames && is_empty(pager, end))
			end += LARGE_FRAMES;
		if (end > begin && ranges++ < EMPTY_RANGES_MOST)
			leave(pager, begin, end - begin);
		begin = end + LARGE_FRAMES;
	}
}

static void tell_left(const struct pager *pager, uint64_t frames)
{
	if (pager->told)
		atomic_store_explicit(&pager->told->bytes, frames * SAVED_PAGE_BYTES,
				      memory_order_relaxed);
}

/* Of a frame that is there twice each counts: before its owners are known. */
static uint64_t most_left(const struct pager *pager)
{
	uint64_t frames = 0;

	for (uint32_t n = 0; n < pager->pages.entries && frames < pager->frames; n++)
		frames += pager->pages.entry[n].pages;
	return frames < pager->frames ? frames : pager->frames;
}

/* Its entries are of RAM, or of the pages behind it, which the machine process has itself. */
static int check_entries(const struct pager *pager)
{
	const uint64_t limit = pager->frames + SAVED_OTHER_PAGES;

	for (uint32_t n = 0; n < pager->pages.entries; n++) {
		const struct saved_entry *entry = &pager->pages.entry[n];

		if ((uint64_t)entry->first + entry->pages > limit)
			return -EBADMSG;
	}
	return 0;
}

/* Of a frame that two entries have the later counts. */
static int find_owners(struct pager *pager)
{
	pager->owner = calloc(pager->frames, sizeof(*pager->owner));
	pager->is_used = calloc(pager->frames / LARGE_FRAMES + 1, sizeof(*pager->is_used));
	if (!pager->owner || !pager->is_used)
		return -ENOMEM;
	for (uint32_t n = 0; n < pager->pages.entries; n++) {
		const struct saved_entry *entry = &pager->pages.entry[n];
		const uint64_t end = (uint64_t)entry->first + entry->pages;

		for (uint64_t frame = entry->first; frame < end && frame < pager->frames; frame++) {
			pager->left += !pager->owner[frame];
			pager->owner[frame] = n + 1;
			pager->is_used[frame / LARGE_FRAMES] = true;
		}
	}
	return 0;
}

/*
 * The pages of a save come in passes, each from low frames to high ones: what the machine wrote
 * while it was being saved, and so needs soon, lies behind the first of them.
 */
static uint32_t second_pass(const struct saved_pages *pages)
{
	for (uint32_t n = 1; n < pages->entries; n++)
		if (pages->entry[n].first <= pages->entry[n - 1].first)
			return n;
	return 0;
}

/* ---- its life ---- */

/* 0; -ESRCH: the machine is gone, or reads all of the file itself. */
static int hear_machine(struct pager *pager)
{
	struct demand_hello *hello = &pager->machine;
	unsigned count;

	if (take_fds(grant_fd(GRANT_PAGER), hello, sizeof(*hello), &pager->faults, 1, &count) !=
		    sizeof(*hello) ||
	    (hello->bytes && !count))
		return -ESRCH;
	if (!hello->bytes)
		return 0;
	if (hello->bytes > MEMORY_MOST_BYTES || hello->bytes % SAVED_PAGE_BYTES ||
	    hello->hva % SAVED_PAGE_BYTES)
		return -EPROTO;
	pager->frames = hello->bytes / SAVED_PAGE_BYTES;
	return 0;
}

static int say(char word)
{
	return write(grant_fd(GRANT_PAGER), &word, 1) == 1 ? 0 : -ESRCH;
}

static int patience_ms(const struct pager *pager)
{
	if (pager->line >= 0)
		return -1;
	return pager->has_begun && pager->rests ? REST_MS : 0;
}

/* Until somebody waits, or the machine has ended; of a file that is being filled, until it says. */
static void wait_for_faults(struct pager *pager)
{
	struct pollfd fds[] = { { .fd = pager->faults, .events = POLLIN },
				{ .fd = grant_fd(GRANT_END), .events = POLLIN },
				{ .fd = pager->line, .events = POLLIN },
				{ .fd = pager->connection.far, .events = POLLIN },
				{ .fd = pager->connection.near, .events = POLLIN } };
	const bool holds = pager_connection_is_there(&pager->connection) &&
			   wire_sealed_holds(pager->connection.sealed);
	const int patience = holds ? 0 : patience_ms(pager);
	const int got = poll(fds, sizeof(fds) / sizeof(fds[0]), patience);

	if (got > 0 && fds[1].revents)
		give_up(pager, -ESRCH);
	if (patience > 0)
		pager->rests = got ? pager->rests - 1 : 0;
	if (holds || fds[3].revents || fds[4].revents)
		serve_connection(pager, fds[3].revents, fds[4].revents);
}

static void serve(struct pager *pager)
{
	leave_empty_ranges(pager);
	pager->cursor = second_pass(&pager->pages);
	pager->has_begun = !pager->cursor;
	pager->ahead = most_ahead(pager);
	pager->rests = pager->has_begun ? 0 : RESTS_MOST;
	while (pager->left || pager->waiters || pager->disk_blocks) {
		tell_left(pager, pager->left);
		while (pager->waiters) {
			bring(pager, pager->waiting[--pager->waiters]);
			pager->ahead = 1;
		}
		if (pager->left || pager->disk_blocks)
			wait_for_faults(pager);
		take_events(pager);
		if (!pager->waiters && pager->line >= 0)
			take_blocks(pager);
		else if (!pager->waiters && pager->left)
			bring_next(pager);
	}
	tell_left(pager, 0);
	leave(pager, 0, pager->frames);
}

static bool has_part_of_piece(const struct pager *pager)
{
	const struct pager_connection *connection = &pager->connection;

	return pager_connection_is_there(connection) &&
	       (connection->got || !wire_sealed_is_empty(connection->sealed));
}

/* The rest of it, which nobody waits for. */
static void wait_for_piece(struct pager *pager)
{
	const struct pager_connection *connection = &pager->connection;
	const bool holds = wire_sealed_holds(connection->sealed);
	struct pollfd fds[] = { { .fd = grant_fd(GRANT_END), .events = POLLIN },
				{ .fd = connection->far, .events = POLLIN },
				{ .fd = connection->near, .events = POLLIN } };
	const int got = poll(fds, sizeof(fds) / sizeof(fds[0]), holds ? 0 : -1);

	if (got > 0 && fds[0].revents)
		give_up(pager, -ESRCH);
	if (holds || fds[1].revents || fds[2].revents)
		serve_connection(pager, fds[1].revents, fds[2].revents);
}

/*
 * Behind a piece, and once who fills the file has said all that he has to say by it. All of the
 * memory is there: who is gone meanwhile, or hears none of this, is missed by nobody.
 */
static void give_connection_back(struct pager *pager)
{
	struct pager_connection *connection = &pager->connection;
	struct pager_hand hand = { .word = { .block = SAVED_BLOCKS_OF_CONNECTION } };
	bool ends = false;

	pager->asks = 0;
	while (has_part_of_piece(pager))
		wait_for_piece(pager);
	if (!pager_connection_is_there(connection) ||
	    write(pager->line, &hand.word, sizeof(hand.word)) != sizeof(hand.word))
		return;
	while (!ends)
		if (!pager_connection_say(connection, &ends))
			return;
	hand.keys = wire_sealed_keys(connection->sealed);
	if (write(pager->line, &hand, sizeof(hand)) != sizeof(hand))
		pager_connection_lose(connection);
}

static int map_left(struct pager *pager)
{
	void *memory;

	if (!role_was_given(GRANT_SIDE))
		return 0;
	memory = mmap(NULL, PAGER_LEFT_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		      grant_fd(GRANT_SIDE), 0);
	if (memory == MAP_FAILED)
		return -errno;
	pager->told = memory;
	return 0;
}

static int begin(struct pager *pager)
{
	int error = map_left(pager);

	if (!error)
		error = lockdown(ROLE_PAGER);
	if (!error)
		error = hear_machine(pager);
	return error;
}

static int begin_line(struct pager *pager)
{
	uint64_t file_bytes = 0;
	int error;

	if (pager->line < 0)
		return 0;
	error = saved_pages_file_bytes(grant_fd(GRANT_SAVED), &file_bytes);
	if (!error && !saved_grains_make(&pager->here, file_bytes))
		error = -ENOMEM;
	if (!error)
		want(pager, 0, 0);
	return error;
}

/* It reads its file by itself. */
static int decline(struct pager *pager)
{
	wait_for_file(pager);
	if (pager->frames)
		leave(pager, 0, pager->frames);
	return 0;
}

int pager_main(void)
{
	static struct pager pager;
	const int rights_error = lockdown_before_threads(ROLE_PAGER, NULL);
	const int taken_error = early_take();
	const struct plan *plan = taken_error ? NULL : plan_of_process();
	int error;

	if (taken_error == -ESRCH) /* there is no machine */
		return 0;
	if (!plan)
		return complain(EXIT_USAGE, "it has no plan", "the pager",
				"use umbra run: it starts the processes of a machine");
	pager.source = plan->source;
	pager.connection.far = pager.connection.near = -1;
	signal(SIGPIPE, SIG_IGN); /* who is gone is heard of otherwise */
	pager.line = role_was_given(GRANT_PAGES) ? grant_fd(GRANT_PAGES) : -1;
	error = rights_error ? rights_error : begin(&pager);
	if (!error)
		error = begin_line(&pager);
	if (error)
		give_up(&pager, error);
	if (!pager.frames)
		return decline(&pager);
	error = saved_pages_open(grant_fd(GRANT_SAVED), &pager.pages);
	if (!error)
		error = check_entries(&pager);
	/* one without an index, or that is damaged so far, its machine process reads by itself */
	if (error == -ENOENT || error == -EBADMSG || error == -ENOTSUP)
		return decline(&pager);
	if (!error)
		tell_left(&pager, most_left(&pager));
	if (!error)
		error = say(DEMAND_SERVES);
	if (!error)
		error = find_owners(&pager);
	if (error)
		give_up(&pager, error);
	serve(&pager);
	say(DEMAND_WHOLE);
	give_connection_back(&pager);
	return 0;
}
