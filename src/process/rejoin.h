/*
 * Large pages again, where a fork has split them: the host's kernel maps a large page that a fork
 * has made common in small ones as soon as one of the two writes to it, and never puts it together
 * again by itself in any useful time. A machine with small pages executes more slowly, and the next
 * fork of it copies 512 entries for each that it copied one for.
 *
 *   begin() -> rest -> pass over the machine's RAM, a part at a time -> longer rest -> ... -> none
 *                        a span of large pages that are its own: to be told -> told() -> done()
 *
 *  1. Each large page is told once after a fork at most.
 *  2. A span that is to be told is within RAM, of whole large pages, REJOIN_SPAN_MOST at most.
 *
 *   - What is common with another machine stays so: it would be copied. So the broker looks, in
 *     /proc/PID/pagemap, which it has opened before it gave up its rights: a page that is there and
 *     mapped once is the machine's own. Whether it is in a large page already that file does not
 *     say; the machine finds out (vm/ticker.c).
 *   - Where RAM lies the machine says: one that lies has the broker look at something else of its
 *     own, and gets nothing by it.
 *   - One span at a time: the machine says when it is done. One that never does has small pages.
 *   - After PASSES it is left, whatever is still common. What is not there at all nobody waits for.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/record_ring.h"
#include "lib/touch.h"

enum { REJOIN_SPAN_MOST = 8 /* large pages */ };

struct rejoin {
	int pagemap; /* of its machine; -1: there is none */
	struct record_ram ram; /* as the machine says; 0 bytes: unknown */
	uint64_t due_ms; /* when to look again; 0: never */
	unsigned pass;
	uint64_t at; /* the next large page of this pass */
	bool leaves_some; /* in this pass: some are common */
	uint8_t *told; /* a bit for each large page */
	struct record_span span; /* to be told, or told and not done; 0 bytes: none */
	bool is_told;
};

void rejoin_init(struct rejoin *rejoin, int pagemap);
/* Where its RAM lies; nothing: it does not say. False: nothing that a machine says. */
bool rejoin_set_ram(struct rejoin *rejoin, const void *data, uint32_t bytes);
/* It was forked, and goes on. Without memory, or knowledge, nothing is looked for. */
void rejoin_begin(struct rejoin *rejoin, uint64_t now_ms);
/* When to look again; 0: never, or not before a span is done. */
uint64_t rejoin_due_ms(const struct rejoin *rejoin);
/* In each turn: a part of what is due. True: rejoin->span is to be told, until rejoin_told(). */
bool rejoin_turn(struct rejoin *rejoin, uint64_t now_ms);
void rejoin_told(struct rejoin *rejoin);
/* A span is, as the machine says: of one that was told before another fork nothing becomes. */
bool rejoin_done(struct rejoin *rejoin, const void *data, uint32_t bytes);
void rejoin_end(struct rejoin *rejoin);
/* Invariant 2. */
void check_rejoin(const struct rejoin *rejoin);
