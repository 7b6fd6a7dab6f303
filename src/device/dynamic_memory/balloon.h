/*
 * Dynamic memory: the guest's driver (hv_balloon) says how its memory is, and inflates its balloon
 * or deflates it as it is asked to. All of the machine's RAM is the guest's from the start; pages
 * in the balloon are given back to the host.
 *
 *   guest: version, capabilities, status every second      host: balloon (give up N pages) ->
 *                                                          ranges; unballoon (ranges) -> done
 *
 * Lock: the channel's. Messages: versions 2.0, 1.0 and 0.3.
 *
 *  1. One request at a time: the next is made when the guest has answered the last, at a tick.
 *  2. A page is in the balloon once: a range that is not RAM, or of which a page is in it already,
 *     breaks the channel. Only pages in the balloon are deflated.
 *  3. What the guest says of itself decides nothing but how much it is asked for; what it has is
 *     known here.
 *  4. A guest that uses pages in its balloon gets zeros, and memory of the host's again: it
 *     never has more than --memory.
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
	void *context;
	const struct guest_memory *memory;
	uint64_t least_bytes; /* of the automatic target */
};

struct balloon_status {
	bool is_there;  /* a driver listens */
	bool is_known;  /* and has said how the guest is */
	bool automatic;
	uint64_t assigned_bytes, target_bytes;
	uint64_t available_bytes, committed_bytes; /* as the guest says */
};

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct balloon *balloon_create(struct bus *bus, const struct balloon_host *host);
void balloon_destroy(struct balloon *balloon);
/*
 * How much the guest shall have; 0: what its status asks for, between least_bytes and all. Takes
 * effect with the next ticks.
 */
void balloon_set_target(struct balloon *balloon, uint64_t bytes);
/* Each second or two: what is to be asked for next. */
void balloon_tick(struct balloon *balloon);
void balloon_status(struct balloon *balloon, struct balloon_status *ret);
/*
 * As bytes and back, before anything runs or while it stands still: which pages are inflated, and
 * what the guest has said. -ENOTSUP: of a machine with another amount of memory.
 */
void balloon_archive(struct archive *archive, struct balloon *balloon);
/*
 * Invariant 2: the map is what is inflated, and has no page that is not RAM. With the channel's
 * lock, or while nothing runs.
 */
void check_balloon(const struct balloon *balloon);
