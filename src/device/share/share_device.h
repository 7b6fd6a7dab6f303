/*
 * A channel to another machine, on a machine's bus: messages of abi/share.h on the guest's side, a
 * port (ipc/share_port.h) on the other, behind which is the hub, and behind that the other machine.
 *
 *   guest sends:    SHARE_DATA -> slot -> hub -> slot of the other port
 *   guest receives: hub -> slot -> packet in its ring
 *
 * Lock: the channel's.
 *
 *  1. A slot is the hub's, or a packet for the guest waits in it, or it is free: `slot`.
 *  2. No packet leaves the guest's ring unless there is a slot for it and room for its completion
 *     (`owed`, as many as there are slots that send).
 *  3. What the guest has to be told and finds no room in its ring waits, in order: completions,
 *     then whether the other end is there, then packets.
 *  4. Of the other side's numbers only those that are greater than `had` are delivered, as long as
 *     its epoch stays (ipc/share_port.h).
 *  5. A hub that breaks the protocol is cut off until there is another; the other machine's bytes
 *     are data, and are only copied. What it says to have lent lies in its half of the window.
 *
 *  6. What this side has lent (lend_table.h) ends when the other end goes, this one closes, or the
 *     window is exchanged: the pages are then this machine's alone. Nothing is lent before the hub
 *     has been asked, and unless the window is shared.
 *
 *  7. In what was forked or restored what was under way completes as SHARE_NO_PEER (the other
 *     machine has it from this one), and what was lent is its own. The guest of what was restored
 *     at its port is told that the other end has gone; else the channel is taken away and offered
 *     again.
 */
#pragma once

#include "ipc/port_window.h"
#include "ipc/share_port.h"
#include "vmbus/vmbus.h"

struct archive;
struct lender;
struct share;

/* The unit: a struct share. */
extern const struct unit_ops share_unit;

/*
 * The number-th port's channel, on a bus that does not run yet; the hub is at the client's queue,
 * which is memory's. kind: share_port_kind(). NULL: no memory, or no channel.
 */
struct share *share_create(struct bus *bus, unsigned number, uint8_t kind,
			   struct share_memory *memory, struct port_window *window,
			   struct slot_client *client, struct lender *lender);
void share_destroy(struct share *share);
/* Whatever has come from the hub, and its comings and goings; on the thread that collects. */
void share_collect(struct share *share);
/*
 * Of that only what packets and their answers bring, on any thread that nobody else collects
 * beside; what else there is stays for share_collect(), of whose thread it is.
 */
void share_take(struct share *share);
void share_pause(struct share *share);
void share_resume(struct share *share);
/* Its memory is another one, and empty; while there is one thread. */
void share_forked(struct share *share);
/* As bytes, once it stands, and back, before anything runs; and when it may. */
void share_archive(struct archive *archive, struct share *share);
void share_go_on(struct share *share);
/* Invariants 1 and 2. With the channel's lock, or while nothing runs. */
void check_share(const struct share *share);
/* Counters as text; the length without the NUL. */
size_t share_statistics(const struct share *share, char *text, size_t bytes);
