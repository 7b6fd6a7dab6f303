/*
 * The I/O APIC (82093AA): 24 lines, each with an entry that says which interrupt it is. Called
 * under the machine's lock.
 *
 *  1. `lines` has the lines that are asserted; the polarity of an entry does not matter.
 *  2. An entry of a level has `remote IRR` set from its delivery until the end of the interrupt;
 *     meanwhile it is not delivered again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct archive;

enum { IOAPIC_LINES = 24 };

struct ioapic {
	uint32_t select, id; /* id: bits 27:24 */
	uint32_t lines;
	uint64_t entry[IOAPIC_LINES];
	/* An interrupt as the low half of an entry and its destination say. */
	void (*raise)(void *context, uint32_t low, uint32_t destination);
	void *context;
};

/* Every entry masked. */
void ioapic_init(struct ioapic *ioapic,
		 void (*raise)(void *context, uint32_t low, uint32_t destination), void *context);
/* offset: in the page of the registers. */
uint32_t ioapic_read(const struct ioapic *ioapic, uint32_t offset);
void ioapic_write(struct ioapic *ioapic, uint32_t offset, uint32_t value);
bool ioapic_line(const struct ioapic *ioapic, unsigned line);
void ioapic_set_line(struct ioapic *ioapic, unsigned line, bool asserted);
/* The invariants above. Under the machine's lock. */
void check_ioapic(const struct ioapic *ioapic);
/* A local APIC has ended an interrupt that a level had requested. */
void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector);
/* As bytes and back (lib/archive.h); the lines are their devices' to say. */
void ioapic_archive(struct archive *archive, struct ioapic *ioapic);
