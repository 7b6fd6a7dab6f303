/*
 * Pages of a machine's RAM that others see: what stands at the page's place in this process becomes
 * a page of a window, which the other machine's process has mapped, and back.
 *
 *   lend   the page moves away, with its mapping; its bytes are copied into the window's page,
 *          which takes its place
 *   end    the window's page's bytes are copied into the page that moved away, which takes its
 *          place again; the window's page is filled with zeros
 *
 * The guest physical and the host's address of the page stay what they are: nothing that the engine
 * or a device knows of it changes, but for what was translated from it (memory_written).
 *
 *  1. A page is lent once: of a machine's ports one has it.
 *  2. When lender_end() has returned, no other process has the page: what is left to it is a page
 *     of the window, with zeros, that is nobody's.
 *  3. What processors of this machine write into a page while it changes places may be lost, and
 *     what they read may be zeros (between the two steps of `lend`; of no other page's bytes): who
 *     lends a page leaves it alone until that is answered.
 *  4. A page that has come back is a part of the mapping that it was of: however many different
 *     pages were lent, only those that are cost mappings, of which a process may have so many. What
 *     `end` needs it has, no memory and no mapping more, unless something else has filled that
 *     limit meanwhile: then the process ends rather than leave the page with the peer.
 *  5. Pages that lie behind one another, and are lent together, change places together: by one step
 *     each way, however many they are.
 *
 *  6. What is forked has of a page that was lent its bytes of lender_stand(), in its own place: the
 *     window's page is not inherited (ipc/port_window.h).
 *
 * Lock: its own, under a channel's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guest_memory;
struct lender;

/* memory_written: of the machine, once a page is another one. NULL: no memory. */
struct lender *lender_create(const struct guest_memory *memory,
			     void (*memory_written)(void *context, uint64_t gpa, size_t bytes),
			     void *context);
/* Whether one of these pages is lent. Any thread. */
bool lender_holds_pages(struct lender *lender, uint64_t gfn, uint64_t pages);
/* Where this machine's guest sees what the other end of its number-th port lends; lends to read. */
uint64_t lender_window_gpa(unsigned number);
uint64_t lender_read_only_gpa(const struct lender *lender, unsigned number);
/* Other memory lies here, which is no RAM, than before. */
void lender_tell_change(struct lender *lender, uint64_t gpa, size_t bytes);
/* The machine stands still, and may be forked: what is lent is had in memory of its own, too. */
void lender_stand(struct lender *lender);
/* Of frames of RAM as they lie in this process, a bit each: those that are lent are set. */
void lender_mark(struct lender *lender, uint64_t *frames);
/* In what was forked: nothing is lent. */
void lender_forked(struct lender *lender);
void lender_destroy(struct lender *lender);
/*
 * The pages of these frames, into as many pages of a window, all or none. 0; -EFAULT: one is not
 * RAM; -EBUSY: one is lent; -ENOSPC: too many are; -errno of the host's: then nothing has changed.
 */
int lender_lend(struct lender *lender, const uint64_t *gfn, uint32_t pages, uint8_t *window);
/*
 * Those that one lender_lend() has lent, from the pages of the window where they are. 0, or -errno:
 * some stay lent.
 */
int lender_end(struct lender *lender, const uint64_t *gfn, uint32_t pages, uint8_t *window);
