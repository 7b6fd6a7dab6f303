/* The two sides of umbra far. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "wire_line.h"

struct far_choice {
	/* serve: the disk, its format, and where; reach, and packets: MACHINE/NAME, and where */
	const char *what, *format, *place;
	const char *record; /* of packets: where they are kept; NULL: beside the hub's socket */
	bool read_only, packets;
	struct wire_secret secret;
};

/* Until a signal ends it; the exit code. packets: a channel's, in place of a disk. */
int far_serve(const struct far_choice *choice);
int far_reach(const struct far_choice *choice);
int far_packets(const struct far_choice *choice, bool reaches);
