/*
 * RSDP, XSDT, FADT, FACS, MADT, and the DSDT and SSDTs that iasl makes from *.asl at build time.
 * Fixed-hardware FADT as Hyper-V's generation 2 has it: PM1a, PM timer, GPE0, reset register; no
 * PIC, no PIT, no keyboard controller, no VGA.
 */
#include "acpi.h"

#include <string.h>

#include "display.hex"
#include "dsdt.hex"
#include "generation.hex"
#include "information.hex"
#include "vmbus.hex"

static uint8_t sum(const uint8_t *at, size_t bytes)
{
	uint8_t sum_of_bytes = 0;

	while (bytes--)
		sum_of_bytes = (uint8_t)(sum_of_bytes + *at++);
	return sum_of_bytes;
}

static void put(uint8_t *at, uint64_t value, size_t bytes) { memcpy(at, &value, bytes); }

static void header(uint8_t *table, const char *signature, size_t bytes, uint8_t revision)
{
	memset(table, 0, bytes);
	memcpy(table, signature, 4);
	put(table + 4, bytes, 4);
	table[8] = revision;
	memcpy(table + 10, "UMBRA UMBRAVM ", 14);
	put(table + 24, 1, 4);
	memcpy(table + 28, "UMBR", 4);
	put(table + 32, 1, 4);
}

static void seal(uint8_t *table, size_t bytes)
{
	table[9] = (uint8_t)(table[9] - sum(table, bytes));
}

static void io_address(uint8_t *at, unsigned bits, uint64_t port, unsigned access)
{
	const uint8_t gas[4] = { 1, (uint8_t)bits, 0, (uint8_t)access };

	memcpy(at, gas, 4);
	put(at + 4, port, 8);
}

static void fadt(uint8_t *table, uint64_t dsdt_gpa, uint64_t facs_gpa)
{
	enum {
		BYTES = 276, FLAGS = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 10 | 1 << 15
	};

	header(table, "FACP", BYTES, 6);
	put(table + 36, facs_gpa, 4);
	put(table + 40, dsdt_gpa, 4);
	put(table + 46, SCI_GSI, 2);
	put(table + 56, PM_BASE, 4);
	put(table + 64, PM_BASE + 4, 4);
	put(table + 76, PM_BASE + 8, 4);
	put(table + 80, PM_GPE, 4);
	table[88] = 4;
	table[89] = 2;
	table[91] = 4;
	table[92] = PM_GPE_BYTES;
	put(table + 96, 0xffff, 2);
	put(table + 98, 0xffff, 2);
	table[108] = 0x32;
	put(table + 109, 1 << 2, 2); /* no VGA; no 8042 */
	put(table + 112, FLAGS, 4);
	io_address(table + 116, 8, PM_RESET_PORT, 1);
	table[128] = 1;
	put(table + 132, facs_gpa, 8);
	put(table + 140, dsdt_gpa, 8);
	io_address(table + 148, 32, PM_BASE, 2);
	io_address(table + 172, 16, PM_BASE + 4, 2);
	io_address(table + 208, 32, PM_BASE + 8, 3);
	io_address(table + 220, 8 * PM_GPE_BYTES, PM_GPE, 1);
	seal(table, BYTES);
}

static size_t madt(uint8_t *table, unsigned cpus)
{
	size_t bytes = 44 + 8 * cpus + 12 + 10;
	uint8_t *at = table + 44;

	header(table, "APIC", bytes, 4);
	put(table + 36, 0xfee00000, 4);
	for (unsigned n = 0; n < cpus; n++, at += 8) {
		const uint8_t entry[8] = { 0, 8, (uint8_t)n, (uint8_t)n, 1 };

		memcpy(at, entry, 8);
	}
	at[0] = 1;
	at[1] = 12;
	put(at + 4, IOAPIC_GPA, 4);
	at += 12;
	at[0] = 2; /* the SCI is level, active high */
	at[1] = 10;
	at[3] = 9;
	put(at + 4, 9, 4);
	put(at + 8, 0xd, 2);
	seal(table, bytes);
	return bytes;
}

/* Places a table and lists it. */
static void add(uint8_t *area, const uint8_t *table, size_t bytes, uint64_t offset,
		size_t *xsdt_bytes)
{
	enum { XSDT = 0x40 };

	memcpy(area + offset, table, bytes);
	put(area + XSDT + *xsdt_bytes, ACPI_AREA_GPA + offset, 8);
	*xsdt_bytes += 8;
}

void acpi_write_tables(uint8_t *area, unsigned cpus, unsigned parts)
{
	enum {
		XSDT = 0x40, FADT = 0x100, FACS = 0x240, MADT = 0x300, DSDT = 0x1000,
		VMBUS = 0x2000, INFORMATION = 0x3000, GENERATION = 0x4000,
		DISPLAY = 0x5000
	};
	size_t xsdt_bytes = 36 + 16;

	memset(area, 0, ACPI_AREA_BYTES);
	memcpy(area, "RSD PTR ", 8);
	memcpy(area + 9, "UMBRA ", 6);
	area[15] = 2;
	put(area + 20, 36, 4);
	put(area + 24, ACPI_AREA_GPA + XSDT, 8);
	area[8] = (uint8_t)-sum(area, 20);
	area[32] = (uint8_t)-sum(area, 36);
	header(area + XSDT, "XSDT", 36 + 16 + 32, 1);
	put(area + XSDT + 36, ACPI_AREA_GPA + FADT, 8);
	put(area + XSDT + 44, ACPI_AREA_GPA + MADT, 8);
	if (parts & ACPI_VMBUS)
		add(area, aml_vmbus, sizeof(aml_vmbus), VMBUS, &xsdt_bytes);
	if (parts & ACPI_INFORMATION_PAGE)
		add(area, aml_information, sizeof(aml_information), INFORMATION, &xsdt_bytes);
	add(area, aml_generation, sizeof(aml_generation), GENERATION, &xsdt_bytes);
	if (parts & ACPI_DISPLAY)
		add(area, aml_display, sizeof(aml_display), DISPLAY, &xsdt_bytes);
	put(area + XSDT + 4, xsdt_bytes, 4);
	seal(area + XSDT, xsdt_bytes);
	fadt(area + FADT, ACPI_AREA_GPA + DSDT, ACPI_AREA_GPA + FACS);
	memcpy(area + FACS, "FACS", 4);
	put(area + FACS + 4, 64, 4);
	area[FACS + 32] = 2;
	madt(area + MADT, cpus);
	memcpy(area + DSDT, aml_dsdt, sizeof(aml_dsdt));
}
