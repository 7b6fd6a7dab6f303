/*
 * A keyboard on a channel of the bus (hyperv_keyboard): keys that a user presses on the host, as
 * scan codes of set 1.
 *
 *   opened -> the guest asks for a version -> accepted: keys go to it; those that find no room in
 *   its ring wait
 *
 *  1. At most KEYBOARD_STROKES wait; what would be more is not taken, none of it.
 *  2. A channel that is opened or closed has no keys from before.
 *
 * Lock: the channel's. Version: 1.0. Left out: lights (what the guest says of them is read, and
 * no more).
 */
#pragma once

#include "vmbus/vmbus.h"

enum { KEYBOARD_STROKES = 1024 };

struct keyboard;

/* The unit: a struct keyboard. */
extern const struct unit_ops keyboard_unit;

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct keyboard *keyboard_create(struct bus *bus);
void keyboard_destroy(struct keyboard *keyboard);
/*
 * Scan codes of whole strokes: 0xe0 or 0xe1 may be before one, bit 7 says that the key is let go.
 * 0; -ENOTCONN: nobody in the guest listens; -EAGAIN: too many wait; -EINVAL: a prefix without a
 * code.
 */
int keyboard_type(struct keyboard *keyboard, const uint8_t *codes, size_t bytes);
