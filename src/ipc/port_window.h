/*
 * The window of a port (share_port.h), where it is mapped in the machine process: memory that it
 * shares with one other machine's process while rules let either of the two lend pages, and memory
 * of its own all the rest of the time.
 *
 *   WINDOW_BOTH    place 0: all that both sides may write; this side's half is what it lends from
 *   WINDOW_OWN     place 1: what this side lends, and the other side only reads
 *   WINDOW_OTHERS  what the other side lends so: here it cannot be written
 *   further places of these: what the guest sees of the other side's; slots of a disk
 *
 * The joiner says that the window is to be another one (share_memory.window_wanted), and sends it
 * by a line of its own, a descriptor for each part, or none. It is exchanged in every place at once
 * as far as this process's threads can tell, and then said to be (window_accepted). From a hub or
 * another machine of an earlier version it has only the first part.
 *
 *   - That the other side only reads is so by the kernel: the descriptor of WINDOW_OTHERS was
 *     opened for reading, and what is mapped by it can be made writable by no call.
 *   - A window is one pair's: no other machine ever has it, and none of the two has it again.
 *   - Bytes of places that are kept are the same afterwards; in all others they are zeros.
 *   - After it has been taken away the window has no bytes (process/joiner_main.c): a process that
 *     kept it has nothing. Who still looks then, because it has not come to exchanging it, sees
 *     memory of its own (port_windows_guard()); what stood in its pages that are lent is lost with
 *     the window: they are pages of zeros, and its own, from then on.
 *     The guest's word for the window (abi/share.h) is 0 before any of it changes.
 *   - What is forked does not get a window with the memory (MADV_DONTFORK), nor pages that are
 *     lent.
 *   - What is kept and was taken away with the window is zeros, and port_window_take_lost() says
 *     that some of it was: it may not be used as if it was what stood there.
 *
 * Lock: the caller's, which keeps others from what is kept.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "share_port.h"

/* A descriptor that comes is the lowest number that is free: nothing else is let through. */
enum {
	WINDOW_RECEIVED_FD = 0,
	WINDOW_PLACES = 6,
	WINDOW_HALF_BYTES = SHARE_HALF_BYTES
};
enum window_part { WINDOW_BOTH, WINDOW_OWN, WINDOW_OTHERS, WINDOW_PARTS };

/* What the joiner sends with each descriptor of a window's parts, in order, or without any. */
struct window_word { uint32_t number, part, parts; };

struct window_place {
	uint8_t *at;
	size_t offset, bytes;
	enum window_part part;
	bool is_kept;
};

struct port_window {
	struct share_window *memory; /* place 0's */
	uint8_t (*own)[SLOT_PAGE_BYTES]; /* place 1's */
	uint64_t *word; /* the guest's, a handler's, atomic; NULL: it has none */
	int line;
	uint32_t number;
	bool is_shared, is_lost; /* is_lost: of what is kept; a handler's, atomic */
	bool is_all_shared; /* of each part */
	unsigned places;
	struct window_place place[WINDOW_PLACES];
};

/* Not shared with anybody; the joiner is at the line. False: no memory. */
bool port_window_make(struct port_window *window, int line);
/*
 * One more place where bytes of a part are, over what is mapped there: of half 0 or 1 of
 * WINDOW_BOTH from its start, of another part from that's (half 0). is_kept: they stay when the
 * window is exchanged. False: no memory.
 */
bool port_window_show(struct port_window *window, enum window_part part, unsigned half,
		      uint8_t *at, size_t bytes, bool is_kept);
/* Whether it is to be another one. */
bool port_window_is_wanted(const struct port_window *window, const struct share_memory *memory);
/*
 * Nothing of it is lent. True: it is another one now, which the caller says with
 * port_window_accept() once nothing of the old one is left with it.
 */
bool port_window_exchange(struct port_window *window, const struct share_memory *memory);
/* Whether anything of what is kept has been lost since this was asked last. */
bool port_window_take_lost(struct port_window *window);
/* In a machine that was forked: its own memory, in which nothing is kept; its line is another. */
void port_window_forked(struct port_window *window);
void port_window_accept(const struct port_window *window, struct share_memory *memory);
/*
 * The process's ports', once all places are known and the engine has its handlers.
 * ram: where pages that are lent lie in this process, of which nothing else is a file's.
 */
void port_windows_guard(struct port_window *windows, unsigned count, uint8_t *ram,
			size_t ram_bytes);
