/* What served.c keeps of a machine that was forked to be read. */
#pragma once

#include "machine_internal.h"
#include "saver.h"

struct served {
	struct saver saver;
	uint8_t *front;
	uint64_t front_bytes, front_room;
	struct saved_entry made; /* whose head this is; pages 0: none's */
	struct saver_page_head head;
};

/* Invariants 3 and 4 of served.c. */
void check_served(const struct served *served);
