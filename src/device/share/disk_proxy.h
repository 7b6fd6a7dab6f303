/*
 * The proxy of a disk that another machine serves (abi/share_disk.h): on one side a storage
 * controller of this machine's bus (device/storvsp), whose slots lie in this side's half of the
 * window, and for what is written where the other side only reads; on the other a port
 * (ipc/share_port.h) of the class `disk` that binds.
 *
 *   guest -> storvsp -> slot = pages of the window -> proxy -> SHARE_DISK_REQUEST -> hub -> server
 *
 * The server's guest reads and writes the slots where they are: data is copied once, between them
 * and this guest's pages, and goes through no ring and no hub. What is written it cannot change
 * while it is under way; a server of version 1.1 is given a copy where it can.
 *
 * Lock: its own, taken under the controller's channel, and never the other way round.
 *
 *  1. A request of the guest's is pending from when its slot is taken until it is answered,
 *     whatever becomes of hub and server meanwhile; it is answered once. The guest notices a pause.
 *  2. Nothing is sent before the hub has said that this side's pages may be lent, and the server
 *     what its disk is; the hub is asked again each second. A server whose disk is another than
 *     the first is as good as none. While there is none, no data of the guest's come into the
 *     window (storage_serve()).
 *     The slots are this machine's own memory unless the window is shared.
 *  3. A request has one number as long as it is pending (and, where it is long, others for its
 *     pieces, by which servers before version 1.3 are asked), and its bytes are in its slots,
 *     whatever becomes of the window. An answer counts only in the round in which it was asked
 *     last, which ends when the window is exchanged: what was put into another window is nowhere.
 *     The server answers it again (abi/share_disk.h, invariants 1 and 4). Where the window was
 *     gone before the slots were out of it their bytes are, too: what is pending fails (-EIO).
 *  4. While nobody serves though somebody is there, something is tried again each second: what was
 *     said to the hub or the server may have been lost with either.
 *  5. Hub and server are hostile: what they say is copied, then checked; an answer to what is not
 *     pending does nothing. Of this machine they reach the window, and nothing else.
 *
 *  6. In what was forked, and in what was restored and has no place at the hub, nobody goes on with
 *     what was: what is pending fails (-EIO; the other machine has it from this one), and the disk
 *     is taken out of its controller. Who comes then brings another one.
 *  7. In what was restored at a port what is pending is asked by the numbers that it had, in the
 *     session that it was asked in, and nothing else is, until all of it is answered; then another
 *     session begins. So it is in a machine that stood and goes on: of two that go on from one
 *     moment none is taken for the other, and a number that one has used is never the other's.
 *
 * Left out: pages of the guest's own in the window instead of copies, which cost more
 * (docs/sharing.md).
 */
#pragma once

#include <stdint.h>

#include "ipc/port_window.h"
#include "ipc/share_port.h"
#include "lib/unit.h"
#include "vmbus/vmbus.h"

struct archive;
struct disk_proxy;
struct lender;

/* The units: a struct disk_proxy, with its controller. */
extern const struct unit_ops disk_proxy_unit;

/*
 * The number-th port's, on a bus that does not run yet; before rights are given up. wakes: with
 * slot_wake() whoever collects; lender: is told of other memory in the window. NULL: no memory, or
 * no channel.
 */
struct disk_proxy *disk_proxy_create(struct bus *bus, unsigned number, struct share_memory *memory,
				     struct port_window *window, struct slot_client *client,
				     struct slot_client *wakes, struct lender *lender);
void disk_proxy_destroy(struct disk_proxy *proxy);
/* Whatever has come from the hub, and its comings and goings; on the thread that collects. */
void disk_proxy_collect(struct disk_proxy *proxy);
/*
 * Of that only answers of a server that is known, on any thread that nobody else collects beside;
 * what else there is stays for disk_proxy_collect(), of whose thread it is.
 */
void disk_proxy_take(struct disk_proxy *proxy);
/* The machine stands still: what will be written is had in memory of its own, too. */
void disk_proxy_stand(struct disk_proxy *proxy);
/* Its port's memory is another one, and empty; while there is one thread. */
void disk_proxy_forked(struct disk_proxy *proxy);
/* As bytes, once it stands, and back, before anything runs. */
void disk_proxy_archive(struct archive *archive, struct disk_proxy *proxy);
void disk_proxy_restored(struct disk_proxy *proxy);
/* Invariant 1. With its lock, or while nothing runs. */
void check_disk_proxy(const struct disk_proxy *proxy);
size_t disk_proxy_statistics(const struct disk_proxy *proxy, char *text, size_t bytes);
