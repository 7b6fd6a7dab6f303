/*
 * Who reaches the far side of umbra far: a thread that makes connections, one for each that is
 * asked for, and tries again for as long as it takes.
 */
#pragma once

#include "far_verb.h"
#include "place.h"

enum { FAR_FIRST_DELAY_MS = 100 };

struct far_dial {
	const struct far_choice *choice;
	const struct place *place;
	int connected; /* a pipe: a struct wire_line goes into it for each */
	int wanted[2]; /* a pipe: a byte asks for the next */
};

/* All of it but `wanted` is set, and stays. 0 or -errno. */
int far_dial_begin(struct far_dial *dial);
/* Another connection is wanted. */
void far_dial_again(const struct far_dial *dial);
void far_pause_ms(int timeout_ms);
/* How long to wait after a wait of so long that was in vain. */
int far_longer_ms(int delay_ms);
