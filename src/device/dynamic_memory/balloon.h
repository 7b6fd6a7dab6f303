/*
 * Dynamic memory: the guest's driver (hv_balloon) says how its memory is, inflates its balloon or
 * deflates it as it is asked to, and takes regions that are added to what it started with. Pages in
 * the balloon are given back to the host.
 *
 *   guest: version, capabilities, status every second      host: balloon (give up N pages) ->
 *                                                          ranges; unballoon (ranges) -> done;
 *                                                          hot add (a region) -> pages taken
 *
 * Lock: the channel's. Messages: versions 2.0, 1.0 and 0.3. Which pages the guest has: pages.h.
 *
 *  1. One request at a time: the next is made when the guest has answered the last with something,
 *     else at a tick. An answer to what was not asked breaks the channel.
 *  2. A page is in the balloon once: a range that is not the guest's RAM, or of which a page is in
 *     it already, breaks the channel. Only pages in the balloon are deflated, and what is in it
 *     comes back before anything is added.
 *  3. What the guest says of itself decides nothing but how much it is asked for; what it has is
 *     known here. Of a region it has what it has acknowledged.
 *  4. A guest that uses pages in its balloon gets zeros, and memory of the host's again: it
 *     never has more than --memory.
 *  5. A page is discarded between the guest's message that gives it up and the next message to the
 *     guest, so before it can be the guest's again.
 *
 * Left out: hot remove, which no driver known to us does.
 */
#pragma once

#include "vmbus/vmbus.h"

struct balloon;
struct archive;

/* The unit: a struct balloon. */
extern const struct unit_ops balloon_unit;

struct balloon_host {
	/*
	 * These pages of RAM read as zero from now on, and cost the host nothing until they are
	 * written.
	 */
	void (*discard)(void *context, uint64_t gpa, uint64_t bytes);
	/*
	 * What balloon_status() says is another; with the channel's lock, so that it asks later.
	 */
	void (*changed)(void *context);
	/* So many bytes of RAM are there from now on: more than before, for everybody at once. */
	void (*populate)(void *context, uint64_t bytes);
	void *context;
	const struct guest_memory *memory;
	uint64_t least_bytes; /* of the automatic target */
	uint64_t region_bytes; /* what is added at once */
	unsigned buffer_percent; /* of what the guest needs, what it has beside */
};

/* Pages, and requests, since it was made. */
struct balloon_counters {
	uint64_t reports; /* statuses that came */
	uint64_t inflated, deflated, added;
	uint64_t refused; /* regions that the guest did not take */
	uint64_t unused; /* regions that it took, and nobody put on line */
};

struct balloon_status {
	bool is_there; /* a driver listens */
	bool is_known; /* and has said how the guest is */
	bool automatic, is_advised;
	bool can_grow; /* takes regions */
	bool is_silent; /* has not answered a request for a minute */
	uint64_t held_bytes; /* with what is in the balloon */
	uint64_t assigned_bytes, target_bytes;
	uint64_t available_bytes, committed_bytes; /* as the guest says */
	struct balloon_counters counters;
};

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct balloon *balloon_create(struct bus *bus, const struct balloon_host *host);
void balloon_destroy(struct balloon *balloon);
/*
 * How much the guest shall have; 0: what its status asks for, between least_bytes and all. It is
 * asked for at once.
 */
void balloon_set_target(struct balloon *balloon, uint64_t bytes);
/*
 * How much it shall have as long as it is automatic, between least_bytes and all, by whoever knows
 * of others that need memory, too; 0: nobody does. At once, and not part of a saved machine.
 */
void balloon_advise(struct balloon *balloon, uint64_t bytes);
/* Each second: what is to be asked for next. */
void balloon_tick(struct balloon *balloon);
void balloon_status(struct balloon *balloon, struct balloon_status *ret);
/*
 * As bytes and back, before anything runs or while it stands still: which pages are inflated, and
 * what the guest has said. -ENOTSUP: of a machine with another amount of memory.
 */
void balloon_archive(struct archive *archive, struct balloon *balloon);
/* With the channel's lock, or while nothing runs. */
void check_balloon(const struct balloon *balloon);
