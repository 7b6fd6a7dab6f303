/*
 * What one side of a joint has lent to the other: runs of pages of its half of the window, or of
 * the part that the other only reads, each with a number, an owner's list of frames and a count of
 * accesses that are under way.
 *
 *   free -> asked (the hub decides) -> lent -> ending (no access begins; at zero the pages go back)
 *
 *  1. Runs of a half, or of that part, do not overlap, and lie in it.
 *  2. A count is raised by whoever lent the pages, when it points the other side to them, and
 *     lowered when that says that it has done with them; never below zero, never above
 *     LEND_MOST_ACCESSES.
 *  3. A number is not used again before all others were: what comes late names nothing.
 *
 * Locks are the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/share_port.h"
#include "lender.h"

enum { LENDS = 32, LEND_MOST_ACCESSES = 1 << 20 };
enum lend_state { LEND_FREE, LEND_ASKED, LEND_LENT, LEND_ENDING, LEND_STATES };

struct lend {
	enum lend_state state;
	bool once; /* ends when its accesses have */
	bool is_read_only;
	uint32_t id, first, pages, accesses;
	uint64_t transaction; /* of who asked for it, and then for its end */
	bool wants_completion;
};

/* Where runs are lent from. */
struct lend_half {
	uint8_t (*page)[SLOT_PAGE_BYTES];
	uint64_t gfn[SHARE_WINDOW_PAGES];
	uint64_t taken[SHARE_WINDOW_PAGES / 64];
};

/* half[1]: what the other side only reads. */
struct lend_table {
	struct lender *lender;
	uint32_t last_id;
	struct lend lend[LENDS];
	struct lend_half half[2];
};

/* Numbers for a run of so many pages, asked; NULL: no room. */
struct lend *lend_ask(struct lend_table *table, uint32_t pages, bool is_read_only);
/* The frames of its pages. */
uint64_t *lend_frames(struct lend_table *table, const struct lend *lend);
/* NULL: none of this number is lent or asked. */
struct lend *lend_find(struct lend_table *table, uint32_t id);
/* All of its pages, whose frames lend_frames() has, or none: then it is free. 0 or -errno. */
int lend_begin(struct lend_table *table, struct lend *lend);
/* An access more; false: too many, or none may begin. */
bool lend_use(struct lend *lend);
/* One less; true: that was the last, and the pages are to go back. */
bool lend_release(struct lend *lend);
/* At once: the pages are this machine's alone when it returns. Asked: only forgotten. */
void lend_end(struct lend_table *table, struct lend *lend);
/* In what was forked, where nothing is lent (lender_forked()). */
void lend_forget(struct lend_table *table, struct lend *lend);
void check_lends(const struct lend_table *table);
