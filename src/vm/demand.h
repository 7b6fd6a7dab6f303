/*
 * Memory of a saved machine that comes while it runs: a page is there once somebody has touched it,
 * or once its turn has come. Who brings it is the pager, another process, which has the file
 * (process/pager_main.c); the kernel tells it of each page that is missed (userfaultfd).
 *
 *   machine process                                    pager
 *   RAM is registered, before lock-down
 *   struct demand_hello, the descriptor        -->
 *                                              <--     DEMAND_SERVES; or nothing is registered any
 *   reads all but RAM, runs                            more, and the line ends: then the machine
 *                                                      reads all of the file itself
 *   a page is missed ................................> is brought
 *                                              <--     DEMAND_WHOLE: all of it is there
 *
 *   - The machine process keeps the descriptor, and has no call for it: while it lives a pager that
 *     has died leaves pages missing, so that who touches one waits, and is never given zeros. The
 *     broker then ends the machine.
 *   - The kernel itself does not touch RAM in a machine process's name: faults of programs alone
 *     are asked for, which every user may.
 *   - Memory that the machine gives back while it is not all there is told to the pager, too: it is
 *     zeros from then on.
 *   - A machine is saved or forked when all of it is there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct machine;

struct demand_hello { uint64_t hva, bytes; /* of RAM; 0: nothing comes on demand */ };

enum { DEMAND_SERVES = 'S', DEMAND_WHOLE = 'W' };

enum { DEMAND_FIRST_MOST = 1024 };
struct demand_run { uint32_t frame, pages; };

struct demand {
	bool is_asked, is_on, is_whole;
	int pages_fd; /* the kernel's; kept, and no call for it */
	struct demand_run first[DEMAND_FIRST_MOST]; /* what the machine is said to need soon */
	unsigned first_count;
};

/* With options.pager_fd, before lock-down, on untouched RAM. Failing, it is off. */
void demand_begin(struct machine *machine);
/* Once, before anything of RAM is touched: whether somebody brings it. */
bool demand_is_served(struct machine *machine);
/* From any thread, at any time: whether who touches any of it does not wait. */
bool demand_seems_whole(const struct machine *machine);
/* Until all of it is there: 0; -EIO: nobody brings it any more. From one thread at a time. */
int demand_wait_whole(struct machine *machine);
/* One run more of what the machine needs soon, in the order in which it comes; or too many are. */
void demand_note_first(struct demand *demand, uint32_t frame, uint32_t pages);
/*
 * While it runs: touches them, so that its processors find them mapped. It waits for those that
 * have not come; on the thread that waits for the machine's end.
 */
void demand_touch_first(const struct machine *machine);
/* On the same thread, behind that: once all of it is there the host may map large pages again. */
void demand_size_pages(const struct machine *machine);
