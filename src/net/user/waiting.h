/*
 * Frames for the guest that found no empty slot: a queue, in the order in which they came.
 *
 *  1. They have WAITING_BYTES at most; what comes beyond that is lost, as on a network.
 *  2. `end` is where the next one is linked: behind the last, or `first` when there is none.
 */
#pragma once

#include "ipc/net_card.h"

enum { WAITING_BYTES = 8 << 20 };

struct waiting_frame {
	struct waiting_frame *next;
	struct net_frame frame;
	uint8_t data[];
};

/* It points into itself, and is not copied. */
struct waiting {
	struct waiting_frame *first, **end;
	size_t bytes;
};

void waiting_init(struct waiting *waiting);
/* A copy of it. */
void waiting_add(struct waiting *waiting, const struct net_frame *frame, const void *data);
/* The first, of which there is one, is no more. */
void waiting_drop(struct waiting *waiting);
void check_waiting(const struct waiting *waiting);
