/*
 * A SCSI controller on a channel of the bus: each disk of the machine is a logical unit of target
 * 0. Data passes through the slots of the slot queue (ipc/block.h). A disk that another machine
 * serves has a controller of its own (device/share/disk_proxy.h).
 *
 *   EXECUTE_SRB -> scsi.c -> answered at once, or a block request in the slot -> its reply -> data
 *   into the guest -> COMPLETE
 *
 * Lock: the channel's.
 *
 *  1. A guest's request has a slot from the moment it is taken out of the ring until its completion
 *     is in the other ring. Where no slot is free nothing is taken: the guest's own ring holds what
 *     waits.
 *  2. A request of a channel that was closed since touches the guest's memory no more; its slot is
 *     free when the reply has come.
 *  3. A disk that goes is first no unit of the guest's any more; it is released once no request of
 *     it is under way.
 *  4. A guest with several processors may have further channels (sub-channels), for commands alone;
 *     a command is answered by the channel by which it has come.
 *  5. A write is answered as the disk has taken it; it is durable after a flush (SYNCHRONIZE CACHE,
 *     or force unit access).
 */
#pragma once

#include "ipc/block.h"
#include "vmbus/vmbus.h"

struct storage;
struct archive;

/* The unit: a struct storage. */
extern const struct unit_ops storage_unit;

/*
 * On a bus that does not run yet; the disks are those of memory, whose queue is the client's. NULL:
 * no memory, or no channel.
 */
struct storage *storage_create(struct bus *bus, struct block_memory *memory,
			       struct slot_client *client);
/*
 * The number-th with a single disk, of which nothing is known yet: what its guest asks of it waits
 * until storage_arrive() has said what it is: once, and once more after each storage_lose(). Its
 * slots follow each other in memory->data, those of what is written in `written`, each of
 * slot_bytes: whole pages. A command of more bytes, at most most_bytes (BLOCK_SLOT_BYTES), has as
 * many of them behind one another as it needs; its request names the first.
 */
struct storage *storage_create_served(struct bus *bus, unsigned number,
				      struct block_memory *memory, uint8_t *written,
				      struct slot_client *client, uint32_t slot_bytes,
				      uint32_t most_bytes);
void storage_arrive(struct storage *storage, const struct block_disk *disk);
/* Of one that is loaded: what it is, while nobody serves it; before storage_served_archive(). */
void storage_know(struct storage *storage, const struct block_disk *disk);
/*
 * Whether somebody serves that disk now. While nobody does, no command is executed and no data
 * leave the guest's memory; what is under way stays so. Its channel's lock may not be held.
 */
void storage_serve(struct storage *storage, bool is_served);
/* That disk is gone, for good, or never comes: what waits for it is answered so. */
void storage_lose(struct storage *storage);
/*
 * Disks that come and go (block.h). Attaching: into a number that nothing has, or a disc into a
 * drive without one. Detaching: of a drive with a disc that, else the unit; released() follows
 * once, on any thread, with the channel's lock, also before this returns. Each tells the guest.
 * 0; -EINVAL; -EEXIST: something is there; -ENODEV: nothing is; -EBUSY: another one is still
 * leaving, or the guest keeps its disc in the drive. The channel's lock may not be held.
 */
void storage_on_release(struct storage *storage, void (*released)(void *context), void *context);
int storage_attach(struct storage *storage, unsigned number, const struct block_disk *disk);
int storage_detach(struct storage *storage, unsigned number);
/* One that is larger now. */
int storage_resize(struct storage *storage, unsigned number, uint64_t size_bytes);
/*
 * Between true and false nothing is written into slots, on no thread. Its channel's lock may not be
 * held.
 */
void storage_hold(struct storage *storage, bool holds);
/* In what was forked, of one that is no unit of its own. */
void storage_forked(struct storage *storage);
void storage_destroy(struct storage *storage);
/*
 * Whatever has been answered, and what could not be taken before; on the thread that collects.
 * -EBADMSG: the disk process has failed.
 */
int storage_collect(struct storage *storage);
/*
 * Whether several large requests are under way: a processor that copied them would have others wait
 * for what it has to do besides. From any thread.
 */
bool storage_has_bulk(const struct storage *storage);
/*
 * No request is taken from now on, and when it returns none is under way: replies are still
 * collected meanwhile, by the thread that does. Until storage_resume().
 */
void storage_pause(struct storage *storage);
void storage_resume(struct storage *storage);
/*
 * As bytes and back, while it is paused or before anything runs: what the guest has agreed upon,
 * and completions that wait for room. -ENOTSUP: the disks are others than they were. The bus is
 * loaded on its own.
 */
void storage_archive(struct archive *archive, struct storage *storage);
/*
 * The same of one whose disk another machine serves: with its requests, which stay under way. In
 * whoever serves them so many slots are; nothing lies in its queue that was not collected.
 */
void storage_served_archive(struct archive *archive, struct storage *storage);
uint32_t storage_slots_under_way(const struct storage *storage);
/*
 * Of one that was loaded so: its request of this slot has so many bytes. False: the slots that it
 * needs are not its.
 */
bool storage_served_claim(struct storage *storage, unsigned slot, uint64_t bytes);
/* Invariant 1. With the channel's lock, or while nothing runs. */
void check_storage(const struct storage *storage);
size_t storage_statistics(const struct storage *storage, char *text, size_t bytes);
