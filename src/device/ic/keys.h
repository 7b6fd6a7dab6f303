/*
 * Keys and values between host and guest (KVP, hv_kvp_daemon): what the host gives is in the
 * guest's pool 0 (/var/lib/hyperv/.kvp_pool_0), and what the guest says of itself (its pools auto
 * and guest: names, versions, addresses) is asked for when its daemon comes, and each minute.
 *
 *   idle -> giving: one SET after the other -> listing auto, then guest: ENUMERATE until one fails
 *        -> idle; what was listed is what the guest says, all of it or as before
 *
 *  1. One question at a time; one that is not answered for more than a minute is given up, and with
 *     it all until the next minute.
 *  2. What a guest says is text of a bounded length, printable, a line each; nothing depends on it.
 *
 * Lock: the channel's. Messages: 4.0, 3.0. Left out: setting addresses, deleting keys.
 */
#pragma once

#include "vmbus/vmbus.h"

enum { KEYS_TEXT_BYTES = 4096 };

struct keys;
struct archive;

struct keys_host {
	/* Another text; with the channel's lock, so that it is asked for later. */
	void (*changed)(void *context);
	void *context;
	/* for the guest, a line KEY=VALUE each; "": nothing */
	const char *given;
};

/* The unit: a struct keys. */
extern const struct unit_ops keys_unit;

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct keys *keys_create(struct bus *bus, const struct keys_host *host);
void keys_destroy(struct keys *keys);
void keys_tick(struct keys *keys);
/* How often it has said something else; 0: nothing yet. */
uint64_t keys_changes(struct keys *keys);
/* What the guest says, a line KEY=VALUE each. */
void keys_read(struct keys *keys, char ret[KEYS_TEXT_BYTES]);
