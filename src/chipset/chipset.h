/*
 * Port and MMIO devices of the machine: 16550, CMOS clock, 8254, PM block, reset, IOAPIC. Called
 * under the machine's lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/unit.h"
#include "ioapic.h"
#include "pci_display.h"
#include "pit.h"

struct archive;

enum { UART_FIFO_BYTES = 4096 };

struct chipset_host {
	void (*raise)(void *context, uint32_t low, uint32_t destination); /* of an IOAPIC entry */
	void (*console)(void *context, uint8_t byte);
	void (*power_off)(void *context);
	void (*reset)(void *context);
	uint64_t (*now_100ns)(void *context);
	void *context;
};

struct chipset {
	const struct chipset_host *host;
	struct {
		uint8_t ier, lcr, mcr, scr, fcr;
		uint16_t divisor;
		bool thre;
		uint8_t fifo[UART_FIFO_BYTES];
		uint32_t in, out;
	} uart;
	struct ioapic ioapic;
	struct pit pit;
	uint8_t rtc_index;
	uint16_t pm_enable, pm_control;
	uint16_t gpe_status, gpe_enable; /* a level on the SCI while they have a bit in common */
	bool has_generation; /* the guest's tables have the generation id */
	struct pci_display pci_display;
};

/* Of zeros, but for whether there is a display (pci_display.h). */
void chipset_init(struct chipset *chipset, const struct chipset_host *host);
uint64_t chipset_port_read(struct chipset *chipset, uint16_t port, unsigned bytes);
void chipset_port_write(struct chipset *chipset, uint16_t port, unsigned bytes, uint64_t value);
uint32_t chipset_ioapic_read(struct chipset *chipset, uint32_t offset);
void chipset_ioapic_write(struct chipset *chipset, uint32_t offset, uint32_t value);
/* Interrupt line gsi (below 24) of a device outside the chipset. */
void chipset_set_line(struct chipset *chipset, unsigned gsi, bool asserted);
/* A local APIC has ended an interrupt that a level had requested. */
void chipset_end_of_interrupt(struct chipset *chipset, uint8_t vector);
/* The guest is to look at its generation id: general purpose event 0. */
void chipset_generation_changed(struct chipset *chipset);
/* Console input for the guest; false when its FIFO is full. */
bool chipset_input(struct chipset *chipset, uint8_t byte);
/* The unit: a struct chipset. */
extern const struct unit_ops chipset_unit;
/* As bytes and back (lib/archive.h), after chipset_init() where it is loaded. */
void chipset_archive(struct archive *archive, struct chipset *chipset);
