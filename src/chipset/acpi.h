/* The ACPI tables of the machine, written into guest memory before it starts. */
#pragma once

#include <stdint.h>

enum {
	ACPI_AREA_GPA = 0xe0000, ACPI_AREA_BYTES = 0x10000, PM_BASE = 0x400,
	PM_GPE = PM_BASE + 0xc, PM_GPE_BYTES = 4, PM_RESET_PORT = PM_BASE + 0x33, SCI_GSI = 9,
	IOAPIC_GPA = 0xfec00000,
	GENERATION_GPA = 0xf0000 /* a page that no guest uses for anything else */
};

/* What is only there where a part of the Hyper-V interface is. */
enum { ACPI_VMBUS = 1, ACPI_INFORMATION_PAGE = 2, ACPI_DISPLAY = 4 };

/* area: ACPI_AREA_BYTES of guest memory at ACPI_AREA_GPA. The RSDP is at its start. */
void acpi_write_tables(uint8_t *area, unsigned cpus, unsigned parts);
