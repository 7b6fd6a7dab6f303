/*
 * villain-device: acts against device models: every register with hostile values and widths, string
 * I/O at page borders, memory mapped registers with every instruction that touches memory, and
 * memory that is none. README.md.
 */
#include "villain.h"

enum { WORD_BYTES = 2, LONG_BYTES = 4, PORTS = 0x10000, STRING_COUNT = 8 };
enum { UART = 0x3f8, UART_INTERRUPTS = 1, UART_FIFO = 2, UART_LINE = 3, UART_MODEM = 4 };
enum { LINE_8N1 = 3, MODEM_READY = 3, PIC_MASK = 0x21, PIC_MASK_2 = 0xa1 };
/* Where Umbra and Hyper-V have it. Bit 5 of a byte may put the machine to sleep: it stays clear. */
enum { PM_BASE = 0x400, PM_LAST = 0x43f, PM_RESET = 0x433, PM_NO_SLEEP = ~0x20202020 };
enum { KEYBOARD = 0x64, FAST_RESET = 0x92, RESET_CONTROL = 0xcf9, DEBUG_EXIT = 0xf4 };

struct port_range { const char *name; uint16_t first; uint16_t last; };
static const struct port_range ranges[] = {
	{ "DMA controller", 0x00, 0x0f },
	{ "PIC", 0x20, 0x21 },
	{ "second PIC", 0xa0, 0xa1 },
	{ "PIT counter 0", 0x40, 0x40 },
	{ "PIT counter 1", 0x41, 0x41 },
	{ "PIT counter 2", 0x42, 0x42 },
	{ "PIT control", 0x43, 0x43 },
	{ "port 61", 0x61, 0x61 },
	{ "keyboard data", 0x60, 0x60 },
	{ "RTC index", 0x70, 0x70 },
	{ "RTC data", 0x71, 0x71 },
	{ "second RTC bank", 0x72, 0x73 },
	{ "DMA pages", 0x80, 0x8b },
	{ "second DMA controller", 0xc0, 0xdf },
	{ "x87 error", 0xe8, 0xef },
	{ "IDE 1", 0x170, 0x177 },
	{ "IDE 0", 0x1f0, 0x1f7 },
	{ "PM block", PM_BASE, PM_LAST },
	{ "game port", 0x201, 0x201 },
	{ "COM2", 0x2f8, 0x2ff },
	{ "VGA", 0x3b0, 0x3df },
	{ "floppy", 0x3f0, 0x3f5 },
	{ "UART data", 0x3f8, 0x3f8 },
	{ "UART interrupts", 0x3f9, 0x3f9 },
	{ "UART FIFO", 0x3fa, 0x3fa },
	{ "UART line", 0x3fb, 0x3fb },
	{ "UART modem", 0x3fc, 0x3fc },
	{ "UART status", 0x3fd, 0x3fd },
	{ "UART modem status", 0x3fe, 0x3fe },
	{ "UART scratch", 0x3ff, 0x3ff },
	{ "interrupt levels", 0x4d0, 0x4d1 },
	{ "firmware configuration", 0x510, 0x51b },
	{ "PCI address", 0xcf8, 0xcf8 },
	{ "PCI data", 0xcfc, 0xcff },
	{ "VM backdoor", 0x5658, 0x5658 },
	{ "the last", 0xfff0, 0xffff },
};

static uint32_t in(uint16_t port, unsigned bytes)
{
	uint32_t value = 0;

	switch (bytes) {
	case 1: __asm__ volatile("inb %1, %b0" : "+a"(value) : "d"(port)); break;
	case WORD_BYTES: __asm__ volatile("inw %1, %w0" : "+a"(value) : "d"(port)); break;
	default: __asm__ volatile("inl %1, %0" : "+a"(value) : "d"(port));
	}
	return value;
}

static void out(uint16_t port, unsigned bytes, uint32_t value)
{
	switch (bytes) {
	case 1: __asm__ volatile("outb %b0, %1" : : "a"(value), "d"(port)); break;
	case WORD_BYTES: __asm__ volatile("outw %w0, %1" : : "a"(value), "d"(port)); break;
	default: __asm__ volatile("outl %0, %1" : : "a"(value), "d"(port));
	}
}

static bool covers(uint32_t port, unsigned bytes, uint16_t wanted)
{
	return port <= wanted && wanted < port + bytes;
}

/* What ends the machine as it should is no act: reset ports, and the debug exit. */
static bool may_write(uint32_t port, unsigned bytes)
{
	static const uint16_t ends[] = { KEYBOARD, FAST_RESET, RESET_CONTROL, PM_RESET,
					 DEBUG_EXIT };

	for (unsigned n = 0; n < sizeof(ends) / sizeof(ends[0]); n++)
		if (covers(port, bytes, ends[n]))
			return false;
	return true;
}

static void console_open(void)
{
	outb(UART + UART_LINE, LINE_8N1);
	outb(UART + UART_INTERRUPTS, 0);
	outb(UART + UART_FIFO, 0);
	outb(UART + UART_MODEM, MODEM_READY);
	outb(PIC_MASK, 0xff);
	outb(PIC_MASK_2, 0xff);
}

static void write_range(void *argument)
{
	static const uint32_t values[] = { 0, ~0u, 0x55555555, 0xaaaaaaaa, 0x80000000, 1,
					   0x30b6c2d4 };
	const struct port_range *range = argument;
	uint32_t mask = range->first == PM_BASE ? (uint32_t)PM_NO_SLEEP : ~0u;

	for (unsigned bytes = 1; bytes <= LONG_BYTES; bytes *= 2)
		for (uint32_t port = range->first; port <= range->last; port++)
			for (unsigned n = 0; n < sizeof(values) / sizeof(values[0]); n++) {
				if (!may_write(port, bytes))
					continue;
				out((uint16_t)port, bytes, values[n] & mask);
				in((uint16_t)port, bytes);
			}
}

struct sweep { unsigned bytes; };

static void read_all(void *argument)
{
	const struct sweep *sweep = argument;

	for (uint32_t port = 0; port < PORTS; port++)
		in((uint16_t)port, sweep->bytes);
}

static void act_registers(void)
{
	static const char *const names[] = { "of 1 byte", "of 2 bytes", "", "of 4 bytes" };

	for (unsigned n = 0; n < sizeof(ranges) / sizeof(ranges[0]); n++) {
		int64_t vector = try_code(write_range, (void *)(uintptr_t)&ranges[n]);

		console_open();
		if (ranges[n].first == UART)
			print("\n"); /* behind what it has just printed */
		act("hostile values of 1, 2 and 4 bytes to", ranges[n].name, NULL,
		    outcome_of(vector), ALLOW(NOTHING));
	}
	for (unsigned bytes = 1; bytes <= LONG_BYTES; bytes *= 2) {
		struct sweep sweep = { bytes };
		int64_t vector = try_code(read_all, &sweep);

		console_open();
		act("reads of every port", names[bytes - 1], NULL, outcome_of(vector),
		    ALLOW(NOTHING));
	}
}

struct string { uint16_t port; uint64_t at; bool to_memory; bool down; unsigned bytes; };

static void string_run(void *argument)
{
	const struct string *string = argument;
	uint64_t at = string->at;
	uint64_t count = STRING_COUNT;

	if (string->down)
		__asm__ volatile("std");
	if (string->to_memory && string->bytes == 1)
		__asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"(string->port) : "memory");
	else if (string->to_memory)
		__asm__ volatile("rep insl" : "+D"(at), "+c"(count) : "d"(string->port) : "memory");
	else if (string->bytes == 1)
		__asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(string->port)
				 : "memory");
	else
		__asm__ volatile("rep outsl" : "+S"(at), "+c"(count) : "d"(string->port)
				 : "memory");
	__asm__ volatile("cld");
}

/* Into and out of a page that ends before an absent one, begins behind one, or is a device. */
static void act_strings(void)
{
	static const uint16_t ports[] = { 0x40, 0x71, 0x80, 0x3ff, 0xcfc };
	static const char *const names[] = { "PIT", "RTC", "port 80", "UART", "PCI" };
	static const char *const how[] = {
		"INSB into an absent page",
		"INSL into an absent page",
		"OUTSB out of one",
		"OUTSL out of one",
		"INSB down into one",
		"INSL down into one",
		"OUTSB down out of one",
		"OUTSL down out of one",
	};

	map_page(DATA_GVA, (uint64_t)new_page(), PAGE_P | PAGE_W);
	for (unsigned port = 0; port < sizeof(ports) / sizeof(ports[0]); port++)
		for (unsigned n = 0; n < sizeof(how) / sizeof(how[0]); n++) {
			struct string string = {
				.port = ports[port], .to_memory = !(n & 2), .down = n & 4,
				.bytes = n & 1 ? LONG_BYTES : 1,
			};
			int64_t vector;

			string.at = string.down ? DATA_GVA + 2 : DATA_GVA + PAGE_BYTES - 2;
			vector = try_code(string_run, &string);
			console_open();
			act(names[port], NULL, how[n], outcome_of(vector), ALLOW(PF));
		}
}

static void act_in_registers(void)
{
	static const struct place places[] = {
		{ "in the IOAPIC", 0xfec00000, DEVICE },
		{ "into the IOAPIC from below", 0xfebfffff, DEVICE | BORDER },
		{ "out of the IOAPIC's page", 0xfec00fff, DEVICE | BORDER },
		{ "in the local APIC", 0xfee000c0, DEVICE },
		{ "where a HPET may be", 0xfed00000, DEVICE },
		{ "where nothing is", 0xf0000000, DEVICE },
		{ "below 4 GiB", 0xfffff800, DEVICE },
		{ "where a PC has its ROM", 0xf0000, DEVICE },
		{ "where a PC has its screen", 0xa0000, DEVICE },
		{ "across the end of memory", 0xfffffff, DEVICE | BORDER },
		{ "far beyond memory", DATA_GVA + 5 * PAGE_BYTES / 2, DEVICE },
	};

	map_page(DATA_GVA + 2 * PAGE_BYTES, 1ull << 37, PAGE_P | PAGE_W);
	act_in_places(places, sizeof(places) / sizeof(places[0]));
}

void test_main(void)
{
	villain_open();
	act_registers();
	act_strings();
	act_in_registers();
}
