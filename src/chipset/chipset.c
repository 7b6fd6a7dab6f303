/*
 * Ports that nothing answers read as all ones and swallow writes, as on a machine without the
 * device. Left out: RTC alarms, PM events.
 */
#include "chipset.h"

#include <string.h>
#include <time.h>

#include "lib/archive.h"
#include "lib/calendar.h"
#include "acpi.h"

enum { HOUR_S = 3600, DAY_S = 86400 };
enum { UART = 0x3f8, UART_GSI = 4, UART_NOTHING = 1, GPE_GENERATION = 1, FIRST_VERSION = 1 };

void chipset_init(struct chipset *chipset, const struct chipset_host *host)
{
	const bool has_display = chipset->pci_display.is_there;

	memset(chipset, 0, sizeof(*chipset));
	chipset->host = host;
	pci_display_init(&chipset->pci_display, has_display);
	chipset->has_generation = true;
	ioapic_init(&chipset->ioapic, host->raise, host->context);
}

void chipset_set_line(struct chipset *chipset, unsigned gsi, bool asserted)
{
	ioapic_set_line(&chipset->ioapic, gsi, asserted);
}
void chipset_end_of_interrupt(struct chipset *chipset, uint8_t vector)
{
	ioapic_end_of_interrupt(&chipset->ioapic, vector);
}

/* ---- 16550 ---- */

static uint8_t uart_identification(const struct chipset *chipset)
{
	if (chipset->uart.ier & 1 && chipset->uart.in != chipset->uart.out)
		return 4;
	if (chipset->uart.ier & 2 && chipset->uart.thre)
		return 2;
	return 1;
}

static void uart_update(struct chipset *chipset)
{
	chipset_set_line(chipset, UART_GSI, uart_identification(chipset) != UART_NOTHING);
}

/* What comes next is another edge, also where the line was asserted. */
static void uart_another_edge(struct chipset *chipset)
{
	chipset_set_line(chipset, UART_GSI, false);
	uart_update(chipset);
}

bool chipset_input(struct chipset *chipset, uint8_t byte)
{
	if (chipset->uart.in - chipset->uart.out == UART_FIFO_BYTES)
		return false;
	chipset->uart.fifo[chipset->uart.in++ % UART_FIFO_BYTES] = byte;
	uart_update(chipset);
	return true;
}

static uint8_t uart_read(struct chipset *chipset, unsigned reg)
{
	uint8_t value = 0;

	switch (reg) {
	case 0:
		if (chipset->uart.lcr & 0x80)
			return (uint8_t)chipset->uart.divisor;
		if (chipset->uart.in != chipset->uart.out)
			value = chipset->uart.fifo[chipset->uart.out++ % UART_FIFO_BYTES];
		uart_another_edge(chipset); /* where there is more input */
		return value;
	case 1:
		return chipset->uart.lcr & 0x80 ? (uint8_t)(chipset->uart.divisor >> 8)
						: chipset->uart.ier;
	case 2:
		value = uart_identification(chipset);
		if (value == 2)
			chipset->uart.thre = false;
		if (uart_identification(chipset) == UART_NOTHING)
			chipset_set_line(chipset, UART_GSI, false);
		return value | (chipset->uart.fcr & 1 ? 0xc0 : 0);
	case 3: return chipset->uart.lcr;
	case 4: return chipset->uart.mcr;
	case 5: return 0x60 | (chipset->uart.in != chipset->uart.out);
	case 6:
		return chipset->uart.mcr & 0x10 ? (uint8_t)((chipset->uart.mcr & 0xc) << 4 |
							    (chipset->uart.mcr & 2) << 3 |
							    (chipset->uart.mcr & 1) << 5)
						: 0xb0;
	default: return chipset->uart.scr;
	}
}

static void uart_write(struct chipset *chipset, unsigned reg, uint8_t value)
{
	switch (reg) {
	case 0:
		if (chipset->uart.lcr & 0x80) {
			chipset->uart.divisor =
				(uint16_t)((chipset->uart.divisor & 0xff00) | value);
			return;
		}
		if (chipset->uart.mcr & 0x10)
			chipset_input(chipset, value);
		else
			chipset->host->console(chipset->host->context, value);
		chipset->uart.thre = true;
		uart_another_edge(chipset);
		return;
	case 1:
		if (chipset->uart.lcr & 0x80) {
			chipset->uart.divisor =
				(uint16_t)((chipset->uart.divisor & 0xff) | value << 8);
			return;
		}
		if (value & 2 && !(chipset->uart.ier & 2))
			chipset->uart.thre = true;
		chipset->uart.ier = value & 15;
		uart_update(chipset);
		return;
	case 2:
		chipset->uart.fcr = value;
		if (value & 2)
			chipset->uart.out = chipset->uart.in;
		return;
	case 3: chipset->uart.lcr = value; return;
	case 4: chipset->uart.mcr = value & 0x1f; return;
	case 7: chipset->uart.scr = value; return;
	default: return;
	}
}

/* ---- CMOS clock ---- */

static uint8_t bcd(int value) { return (uint8_t)(value / 10 << 4 | value % 10); }

static uint8_t rtc_read(const struct chipset *chipset)
{
	const time_t now = time(NULL);
	const struct calendar_day day = calendar_of_days(now / DAY_S);

	switch (chipset->rtc_index) {
	case 0: return bcd((int)(now % 60));
	case 2: return bcd((int)(now / 60 % 60));
	case 4: return bcd((int)(now / HOUR_S % 24));
	case 6: return bcd(day.weekday + 1);
	case 7: return bcd(day.day);
	case 8: return bcd(day.month);
	case 9: return bcd(day.year % 100);
	case 0x0a: return 0x26;
	case 0x0b: return 0x02;
	case 0x0d: return 0x80;
	case 0x32: return bcd(day.year / 100);
	default: return 0;
	}
}

/* ---- general purpose events (ACPI 4.8.4.1) ---- */

static bool sci_is_asserted(const struct chipset *chipset)
{
	return chipset->gpe_status & chipset->gpe_enable;
}

static void gpe_update(struct chipset *chipset)
{
	chipset_set_line(chipset, SCI_GSI, sci_is_asserted(chipset));
}

void chipset_generation_changed(struct chipset *chipset)
{
	chipset->gpe_status |= GPE_GENERATION;
	gpe_update(chipset);
}

static uint64_t gpe_read(const struct chipset *chipset, unsigned at, unsigned bytes)
{
	const uint64_t registers = (uint64_t)chipset->gpe_enable << 16 | chipset->gpe_status;

	return registers >> 8 * at & (bytes == 8 ? ~0ull : (1ull << 8 * bytes) - 1);
}

/* Status bits are cleared by writing them. */
static void gpe_write(struct chipset *chipset, unsigned at, unsigned bytes, uint64_t value)
{
	for (; bytes && at < PM_GPE_BYTES; at++, bytes--, value >>= 8) {
		const uint16_t byte = (uint16_t)((value & 0xff) << 8 * (at & 1));
		const uint16_t others = (uint16_t)(0xff00 >> 8 * (at & 1));

		if (at < PM_GPE_BYTES / 2)
			chipset->gpe_status &= (uint16_t)~byte;
		else
			chipset->gpe_enable = (uint16_t)((chipset->gpe_enable & others) | byte);
	}
	gpe_update(chipset);
}

/* ---- ports ---- */

static uint64_t ticks(const struct chipset *chipset, uint64_t hz)
{
	return (uint64_t)((unsigned __int128)chipset->host->now_100ns(chipset->host->context) * hz /
			  10000000);
}

uint64_t chipset_port_read(struct chipset *chipset, uint16_t port, unsigned bytes)
{
	if (port >= UART && port < UART + 8)
		return uart_read(chipset, port - UART);
	if (port >= PM_GPE && port < PM_GPE + PM_GPE_BYTES)
		return gpe_read(chipset, port - PM_GPE, bytes);
	switch (port) {
	case 0x40:
	case 0x41:
	case 0x42:
	case 0x43:
	case 0x61: return pit_read(&chipset->pit, port, ticks(chipset, 1193182));
	case 0x71: return rtc_read(chipset);
	case PM_BASE: return 0;
	case PM_BASE + 2: return chipset->pm_enable;
	case PM_BASE + 4: return chipset->pm_control | 1;
	case PM_BASE + 8: return (uint32_t)ticks(chipset, 3579545);
	case PCI_ADDRESS_PORT:
	case PCI_DATA_PORT:
	case PCI_DATA_PORT + 1:
	case PCI_DATA_PORT + 2:
	case PCI_DATA_PORT + 3: return pci_display_read(&chipset->pci_display, port, bytes);
	default: return bytes == 8 ? ~0ull : (1ull << 8 * bytes) - 1;
	}
}

void chipset_port_write(struct chipset *chipset, uint16_t port, unsigned bytes, uint64_t value)
{
	if (port >= UART && port < UART + 8) {
		uart_write(chipset, port - UART, (uint8_t)value);
		return;
	}
	if (port >= PM_GPE && port < PM_GPE + PM_GPE_BYTES) {
		gpe_write(chipset, port - PM_GPE, bytes, value);
		return;
	}
	switch (port) {
	case 0x40:
	case 0x41:
	case 0x42:
	case 0x43:
	case 0x61: pit_write(&chipset->pit, port, (uint8_t)value, ticks(chipset, 1193182)); return;
	case 0x70: chipset->rtc_index = value & 0x7f; return;
	case PM_BASE + 2: chipset->pm_enable = (uint16_t)value; return;
	case PM_BASE + 4:
		chipset->pm_control = (uint16_t)value & ~0x2000;
		if (value & 0x2000)
			chipset->host->power_off(chipset->host->context);
		return;
	case PCI_ADDRESS_PORT:
	case PCI_DATA_PORT:
	case PCI_DATA_PORT + 1:
	case PCI_DATA_PORT + 2:
	case PCI_DATA_PORT + 3:
		pci_display_write(&chipset->pci_display, port, bytes, value);
		return;
	case PM_RESET_PORT:
	case 0xcf9: chipset->host->reset(chipset->host->context); return;
	default: return;
	}
}

/* ---- IOAPIC ---- */

uint32_t chipset_ioapic_read(struct chipset *chipset, uint32_t offset)
{
	return ioapic_read(&chipset->ioapic, offset);
}
void chipset_ioapic_write(struct chipset *chipset, uint32_t offset, uint32_t value)
{
	ioapic_write(&chipset->ioapic, offset, value);
}

/* ---- saved state ---- */

static void uart_archive(struct archive *archive, struct chipset *chipset)
{
	bool line = ioapic_line(&chipset->ioapic, UART_GSI);
	uint8_t *const registers[] = { &chipset->uart.ier, &chipset->uart.lcr, &chipset->uart.mcr,
				       &chipset->uart.scr, &chipset->uart.fcr };

	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u8(archive, registers[n]);
	archive_u16(archive, &chipset->uart.divisor);
	archive_bool(archive, &chipset->uart.thre);
	archive_bool(archive, &line);
	archive_u32(archive, &chipset->uart.in);
	archive_u32(archive, &chipset->uart.out);
	archive_bytes(archive, chipset->uart.fifo, UART_FIFO_BYTES);
	archive_check(archive, chipset->uart.in - chipset->uart.out <= UART_FIFO_BYTES &&
				       chipset->uart.ier < 16 && chipset->uart.mcr < 32);
	if (archive->loading)
		chipset->ioapic.lines = line ? 1u << UART_GSI : 0;
}

/* Since version 2: one that is older has no tables of it. */
static void gpe_archive(struct archive *archive, struct chipset *chipset)
{
	if (archive->loading && archive->version == FIRST_VERSION) {
		chipset->has_generation = false;
		return;
	}
	archive_u16(archive, &chipset->gpe_status);
	archive_u16(archive, &chipset->gpe_enable);
	archive_bool(archive, &chipset->has_generation);
	if (archive->loading && sci_is_asserted(chipset))
		chipset->ioapic.lines |= 1u << SCI_GSI;
}

void chipset_archive(struct archive *archive, struct chipset *chipset)
{
	uart_archive(archive, chipset);
	ioapic_archive(archive, &chipset->ioapic);
	pit_archive(archive, &chipset->pit);
	archive_u8(archive, &chipset->rtc_index);
	archive_u16(archive, &chipset->pm_enable);
	archive_u16(archive, &chipset->pm_control);
	archive_check(archive, chipset->rtc_index < 0x80);
	gpe_archive(archive, chipset);
	if (chipset->pci_display.is_there)
		pci_display_archive(archive, &chipset->pci_display);
}

/* ---- the unit ---- */

static void unit_reset(void *self)
{
	struct chipset *chipset = self;

	chipset_init(chipset, chipset->host);
}

static void unit_archive(struct archive *archive, void *self) { chipset_archive(archive, self); }

const struct unit_ops chipset_unit = {
	.name = "chipset", .section = UNIT_SECTION('C', 'H', 'I', 'P'), .reset = unit_reset,
	.archive = unit_archive,
};
