/*
 * Ports that nothing answers read as all ones and swallow writes, as on a machine without the
 * device. Left out: RTC alarms, PM events.
 */
#include "chipset.h"

#include <string.h>
#include <time.h>

#include "lib/archive.h"
#include "acpi.h"

enum { UART = 0x3f8, UART_GSI = 4, UART_NOTHING = 1 };

void chipset_init(struct chipset *c, const struct chipset_host *host)
{
	memset(c, 0, sizeof(*c));
	c->host = host;
	ioapic_init(&c->ioapic, host->raise, host->context);
}

void chipset_set_line(struct chipset *c, unsigned gsi, bool asserted)
{
	ioapic_set_line(&c->ioapic, gsi, asserted);
}
void chipset_end_of_interrupt(struct chipset *c, uint8_t vector)
{
	ioapic_end_of_interrupt(&c->ioapic, vector);
}

/* ---- 16550 ---- */

static uint8_t uart_identification(const struct chipset *c)
{
	if (c->uart.ier & 1 && c->uart.in != c->uart.out)
		return 4;
	if (c->uart.ier & 2 && c->uart.thre)
		return 2;
	return 1;
}

static void uart_update(struct chipset *c)
{
	chipset_set_line(c, UART_GSI, uart_identification(c) != UART_NOTHING);
}

/* What comes next is another edge, also where the line was asserted. */
static void uart_another_edge(struct chipset *c)
{
	chipset_set_line(c, UART_GSI, false);
	uart_update(c);
}

bool chipset_input(struct chipset *c, uint8_t byte)
{
	if (c->uart.in - c->uart.out == UART_FIFO_BYTES)
		return false;
	c->uart.fifo[c->uart.in++ % UART_FIFO_BYTES] = byte;
	uart_update(c);
	return true;
}

static uint8_t uart_read(struct chipset *c, unsigned reg)
{
	uint8_t v = 0;

	switch (reg) {
	case 0:
		if (c->uart.lcr & 0x80)
			return (uint8_t)c->uart.divisor;
		if (c->uart.in != c->uart.out)
			v = c->uart.fifo[c->uart.out++ % UART_FIFO_BYTES];
		uart_another_edge(c); /* where there is more input */
		return v;
	case 1: return c->uart.lcr & 0x80 ? (uint8_t)(c->uart.divisor >> 8) : c->uart.ier;
	case 2:
		v = uart_identification(c);
		if (v == 2)
			c->uart.thre = false;
		if (uart_identification(c) == UART_NOTHING)
			chipset_set_line(c, UART_GSI, false);
		return v | (c->uart.fcr & 1 ? 0xc0 : 0);
	case 3: return c->uart.lcr;
	case 4: return c->uart.mcr;
	case 5: return 0x60 | (c->uart.in != c->uart.out);
	case 6:
		return c->uart.mcr & 0x10
			       ? (uint8_t)((c->uart.mcr & 0xc) << 4 | (c->uart.mcr & 2) << 3 |
					   (c->uart.mcr & 1) << 5)
			       : 0xb0;
	default: return c->uart.scr;
	}
}

static void uart_write(struct chipset *c, unsigned reg, uint8_t v)
{
	switch (reg) {
	case 0:
		if (c->uart.lcr & 0x80) {
			c->uart.divisor = (uint16_t)((c->uart.divisor & 0xff00) | v);
			return;
		}
		if (c->uart.mcr & 0x10)
			chipset_input(c, v);
		else
			c->host->console(c->host->context, v);
		c->uart.thre = true;
		uart_another_edge(c);
		return;
	case 1:
		if (c->uart.lcr & 0x80) {
			c->uart.divisor = (uint16_t)((c->uart.divisor & 0xff) | v << 8);
			return;
		}
		if (v & 2 && !(c->uart.ier & 2))
			c->uart.thre = true;
		c->uart.ier = v & 15;
		uart_update(c);
		return;
	case 2:
		c->uart.fcr = v;
		if (v & 2)
			c->uart.out = c->uart.in;
		return;
	case 3: c->uart.lcr = v; return;
	case 4: c->uart.mcr = v & 0x1f; return;
	case 7: c->uart.scr = v; return;
	default: return;
	}
}

/* ---- CMOS clock ---- */

static uint8_t bcd(int v) { return (uint8_t)(v / 10 << 4 | v % 10); }

static uint8_t rtc_read(const struct chipset *c)
{
	time_t now = time(NULL);
	struct tm t;

	gmtime_r(&now, &t);
	switch (c->rtc_index) {
	case 0: return bcd(t.tm_sec);
	case 2: return bcd(t.tm_min);
	case 4: return bcd(t.tm_hour);
	case 6: return bcd(t.tm_wday + 1);
	case 7: return bcd(t.tm_mday);
	case 8: return bcd(t.tm_mon + 1);
	case 9: return bcd(t.tm_year % 100);
	case 0x0a: return 0x26;
	case 0x0b: return 0x02;
	case 0x0d: return 0x80;
	case 0x32: return bcd((t.tm_year + 1900) / 100);
	default: return 0;
	}
}

/* ---- ports ---- */

static uint64_t ticks(const struct chipset *c, uint64_t hz)
{
	return (uint64_t)((unsigned __int128)c->host->now_100ns(c->host->context) * hz / 10000000);
}

uint64_t chipset_port_read(struct chipset *c, uint16_t port, unsigned bytes)
{
	if (port >= UART && port < UART + 8)
		return uart_read(c, port - UART);
	switch (port) {
	case 0x40:
	case 0x41:
	case 0x42:
	case 0x43:
	case 0x61: return pit_read(&c->pit, port, ticks(c, 1193182));
	case 0x71: return rtc_read(c);
	case PM_BASE: return 0;
	case PM_BASE + 2: return c->pm_enable;
	case PM_BASE + 4: return c->pm_control | 1;
	case PM_BASE + 8: return (uint32_t)ticks(c, 3579545);
	case PM_BASE + 0xc: return 0;
	default: return bytes == 8 ? ~0ull : (1ull << 8 * bytes) - 1;
	}
}

void chipset_port_write(struct chipset *c, uint16_t port, unsigned bytes, uint64_t v)
{
	(void)bytes;
	if (port >= UART && port < UART + 8) {
		uart_write(c, port - UART, (uint8_t)v);
		return;
	}
	switch (port) {
	case 0x40:
	case 0x41:
	case 0x42:
	case 0x43:
	case 0x61: pit_write(&c->pit, port, (uint8_t)v, ticks(c, 1193182)); return;
	case 0x70: c->rtc_index = v & 0x7f; return;
	case PM_BASE + 2: c->pm_enable = (uint16_t)v; return;
	case PM_BASE + 4:
		c->pm_control = (uint16_t)v & ~0x2000;
		if (v & 0x2000)
			c->host->power_off(c->host->context);
		return;
	case PM_RESET_PORT:
	case 0xcf9: c->host->reset(c->host->context); return;
	default: return;
	}
}

/* ---- IOAPIC ---- */

uint32_t chipset_ioapic_read(struct chipset *c, uint32_t offset)
{
	return ioapic_read(&c->ioapic, offset);
}
void chipset_ioapic_write(struct chipset *c, uint32_t offset, uint32_t value)
{
	ioapic_write(&c->ioapic, offset, value);
}

/* ---- saved state ---- */

static void uart_archive(struct archive *a, struct chipset *c)
{
	bool line = ioapic_line(&c->ioapic, UART_GSI);
	uint8_t *const registers[] = { &c->uart.ier, &c->uart.lcr, &c->uart.mcr, &c->uart.scr,
				       &c->uart.fcr };

	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u8(a, registers[n]);
	archive_u16(a, &c->uart.divisor);
	archive_bool(a, &c->uart.thre);
	archive_bool(a, &line);
	archive_u32(a, &c->uart.in);
	archive_u32(a, &c->uart.out);
	archive_bytes(a, c->uart.fifo, UART_FIFO_BYTES);
	archive_check(a, c->uart.in - c->uart.out <= UART_FIFO_BYTES && c->uart.ier < 16 &&
				 c->uart.mcr < 32);
	if (a->loading)
		c->ioapic.lines = line ? 1u << UART_GSI : 0;
}

void chipset_archive(struct archive *a, struct chipset *c)
{
	uart_archive(a, c);
	ioapic_archive(a, &c->ioapic);
	pit_archive(a, &c->pit);
	archive_u8(a, &c->rtc_index);
	archive_u16(a, &c->pm_enable);
	archive_u16(a, &c->pm_control);
	archive_check(a, c->rtc_index < 0x80);
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
