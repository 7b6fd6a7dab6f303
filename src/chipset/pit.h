/*
 * The 8254's three counters, for guests that measure time by them; port 0x61's bits for the third.
 * Called under the machine's lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct archive;

struct pit_counter {
	uint32_t reload; /* 1 to 65536 */
	uint8_t mode, access; /* access: 1 low byte, 2 high byte, 3 both */
	bool write_high, read_high, latched;
	uint16_t latch;
	uint8_t low;
	uint64_t start_ticks; /* when it was loaded */
};

struct pit { struct pit_counter counter[3]; bool gate; /* of the third */ };

/* ticks: of 1.193182 MHz since any beginning. port: 0x40 to 0x43, or 0x61. */
uint8_t pit_read(struct pit *pit, uint16_t port, uint64_t ticks);
void pit_write(struct pit *pit, uint16_t port, uint8_t value, uint64_t ticks);
/* As bytes and back (lib/archive.h). */
void pit_archive(struct archive *archive, struct pit *pit);
