/* See port_window.h. */
#include "port_window.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGE_BYTES = SLOT_PAGE_BYTES };
enum { DATA = PROT_READ | PROT_WRITE, OWN = MAP_PRIVATE | MAP_ANONYMOUS };

/* ---- places ---- */

static int protection_of(const struct window_place *place)
{
	return place->part == WINDOW_OTHERS ? PROT_READ : DATA;
}

static bool map_own(const struct window_place *place)
{
	return mmap(place->at, place->bytes, protection_of(place), OWN | MAP_FIXED, -1, 0) !=
	       MAP_FAILED;
}

static bool map_received(const struct window_place *place)
{
	return mmap(place->at, place->bytes, protection_of(place), MAP_SHARED | MAP_FIXED,
		    WINDOW_RECEIVED_FD, (off_t)place->offset) != MAP_FAILED &&
	       !madvise(place->at, place->bytes, MADV_DONTFORK);
}

/* Place `part` is where all of that part is. */
static bool make_place(struct port_window *window, enum window_part part, size_t bytes)
{
	void *at = mmap(NULL, bytes, DATA, OWN, -1, 0);

	window->place[window->places++] =
		(struct window_place){ .at = at, .bytes = bytes, .part = part };
	return at != MAP_FAILED;
}

bool port_window_make(struct port_window *window, int line)
{
	*window = (struct port_window){ .line = line };
	if (!make_place(window, WINDOW_BOTH, sizeof(struct share_window)) ||
	    !make_place(window, WINDOW_OWN, WINDOW_HALF_BYTES))
		return false;
	window->memory = (void *)window->place[WINDOW_BOTH].at;
	window->own = (void *)window->place[WINDOW_OWN].at;
	return true;
}

bool port_window_show(struct port_window *window, enum window_part part, unsigned half,
		      uint8_t *at, size_t bytes, bool is_kept)
{
	struct window_place *place = &window->place[window->places];

	assert(!window->is_shared && window->places < WINDOW_PLACES);
	assert(half < 2 && bytes <= WINDOW_HALF_BYTES && (part == WINDOW_BOTH || !half));
	assert(!is_kept || part != WINDOW_OTHERS);
	*place = (struct window_place){ .at = at, .offset = half * (size_t)WINDOW_HALF_BYTES,
					.bytes = bytes, .part = part, .is_kept = is_kept };
	window->places++;
	return map_own(place);
}

/* ---- exchanging it ---- */

bool port_window_is_wanted(const struct port_window *window, const struct share_memory *memory)
{
	return __atomic_load_n(&memory->window_wanted, __ATOMIC_ACQUIRE) != window->number;
}

/* 1: a window has come; 0: none, which is the word; -EAGAIN: nothing has. */
static int receive(int line, struct window_word *ret)
{
	union { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int))]; } control = {
		.bytes = { 0 }
	};
	struct iovec part = { .iov_base = ret, .iov_len = sizeof(*ret) };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
			       .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(line, &head, MSG_DONTWAIT) != sizeof(*ret))
		return -EAGAIN;
	if (!CMSG_FIRSTHDR(&head))
		return 0;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&head)), sizeof(fd));
	assert(fd == WINDOW_RECEIVED_FD);
	return 1;
}

/*
 * Of a part the first place first, where what others keep waits meanwhile: it is as large, and has
 * nothing of its own now. The host may have no room for what it had: then half of it would be
 * another's.
 */
static void map_part(struct port_window *window, enum window_part part,
		     bool (*map)(const struct window_place *place))
{
	bool done = true;

	if (part != WINDOW_OTHERS)
		done = map(&window->place[part]);
	for (unsigned n = WINDOW_OTHERS; n < window->places && done; n++) {
		const struct window_place *place = &window->place[n];
		uint8_t *meanwhile = window->place[part].at + place->offset;

		if (place->part != part)
			continue;
		if (place->is_kept)
			memcpy(meanwhile, place->at, place->bytes);
		done = map(place);
		if (place->is_kept && done && map == map_own)
			memcpy(place->at, meanwhile, place->bytes);
	}
	if (!done)
		abort();
}

static void map_all_own(struct port_window *window)
{
	for (unsigned part = 0; part < WINDOW_PARTS; part++)
		map_part(window, (enum window_part)part, map_own);
}

/* The first part has come, and the others behind it. False: not all; then it is none. */
static bool take_parts(struct port_window *window, struct window_word word)
{
	const struct window_word first = word;
	bool has_part = !word.part && word.parts && word.parts <= WINDOW_PARTS;

	if (!has_part)
		close(WINDOW_RECEIVED_FD);
	for (unsigned n = 0; has_part;) {
		map_part(window, (enum window_part)n, map_received);
		close(WINDOW_RECEIVED_FD);
		if (++n == first.parts)
			return true;
		has_part = receive(window->line, &word) > 0;
		if (has_part && (word.number != first.number || word.part != n)) {
			close(WINDOW_RECEIVED_FD);
			has_part = false;
		}
	}
	map_all_own(window);
	return false;
}

static void set_word(const struct port_window *window, uint64_t number)
{
	if (window->word)
		__atomic_store_n(window->word, number, __ATOMIC_SEQ_CST);
}

bool port_window_exchange(struct port_window *window, const struct share_memory *memory)
{
	const uint32_t wanted = __atomic_load_n(&memory->window_wanted, __ATOMIC_ACQUIRE);
	struct window_word word;
	bool is_all;
	int got;

	/* one that has been taken away again already is passed over */
	while ((got = receive(window->line, &word)) >= 0 && word.number != wanted)
		if (got)
			close(WINDOW_RECEIVED_FD);
	if (got < 0)
		return false;
	set_word(window, 0);
	is_all = got && word.parts == WINDOW_PARTS;
	if (window->is_shared && !is_all)
		map_all_own(window);
	window->is_shared = got && take_parts(window, word);
	window->is_all_shared = window->is_shared && is_all;
	if (got && !window->is_shared)
		return false;
	window->number = wanted;
	set_word(window, got ? wanted : 0);
	return true;
}

void port_window_forked(struct port_window *window)
{
	for (unsigned n = 0; n < window->places; n++)
		if (!map_own(&window->place[n]))
			abort();
	set_word(window, 0);
	window->is_shared = window->is_all_shared = window->is_lost = false;
	window->number = 0;
}

bool port_window_take_lost(struct port_window *window)
{
	return __atomic_exchange_n(&window->is_lost, false, __ATOMIC_ACQ_REL);
}

void port_window_accept(const struct port_window *window, struct share_memory *memory)
{
	__atomic_store_n(&memory->window_accepted, window->number, __ATOMIC_RELEASE);
}

/* ---- what has been taken away before it was exchanged ---- */

/* A handler has nothing else to look at. */
static struct {
	struct port_window *window;
	unsigned count;
	uint8_t *ram;
	size_t ram_bytes;
	struct sigaction otherwise;
} guarded;

static const struct window_place *find_place(const uint8_t *at, struct port_window **ret_window)
{
	for (unsigned n = 0; n < guarded.count; n++)
		for (unsigned k = 0; k < guarded.window[n].places; k++) {
			const struct window_place *place = &guarded.window[n].place[k];

			*ret_window = &guarded.window[n];
			if ((size_t)(at - place->at) < place->bytes)
				return place;
		}
	return NULL;
}

static bool lose(const struct port_window *window, const struct window_place *place)
{
	set_word(window, 0);
	return map_own(place);
}

/* False: it is not one of these, or the host has no room. */
static bool replace_lost(const uint8_t *at)
{
	struct port_window *window;
	const struct window_place *place = find_place(at, &window);
	const size_t offset = (size_t)(at - guarded.ram);
	const struct window_place lent = { .at = guarded.ram + offset / PAGE_BYTES * PAGE_BYTES,
					   .bytes = PAGE_BYTES };

	if (!place)
		return offset < guarded.ram_bytes && map_own(&lent);
	if (!lose(window, place))
		return false;
	if (place->is_kept)
		__atomic_store_n(&window->is_lost, true, __ATOMIC_RELEASE);
	return true;
}

static void on_lost_page(int number, siginfo_t *info, void *context)
{
	if (info->si_code != BUS_ADRERR || !replace_lost(info->si_addr))
		guarded.otherwise.sa_sigaction(number, info, context);
}

void port_windows_guard(struct port_window *windows, unsigned count, uint8_t *ram, size_t ram_bytes)
{
	struct sigaction action;

	if (!count || sigaction(SIGBUS, NULL, &action) || !(action.sa_flags & SA_SIGINFO))
		return;
	guarded.window = windows;
	guarded.count = count;
	guarded.ram = ram;
	guarded.ram_bytes = ram_bytes;
	guarded.otherwise = action;
	action.sa_sigaction = on_lost_page;
	sigaction(SIGBUS, &action, NULL);
}
