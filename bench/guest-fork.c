/*
 * A guest that is forked (bench/fork) and says on its console when a child's first instructions
 * were, "FIRST tsc", by the clock that it has in common with its host and its parent:
 *
 *   -DRUNS   its first processor runs and writes, one page after the other of WRITTEN_MIB (what it
 *            has written before it says READY), and says when its clock has stood still for
 *            GAP_TICKS or more: "GAP tsc ticks"
 *   else     all are halted, and the event of another generation id wakes the first (twins.c),
 *            which it has taken once by itself before it says READY: what it executes then is no
 *            news to it
 *
 * A child is halted once it has said that.
 */
#include "../tests/guest/hv.h"

enum { GENERATION = 0xf0000, GPE = 0x40c, ENABLE = 2, EVENT = 1, SCI = 9, VECTOR = 0x59 };
enum { REG_ENTRY = 0x10 + 2 * SCI, LEVEL = 1 << 15, X2APIC = 0xc00, APIC_BASE = 0x1b };
enum { SPURIOUS = 0x80f, APIC_ON = 0x1ff, END_OF_INTERRUPT = 0x80b, SELF_IPI = 0x83f };
enum { DIGITS = 24, GAP_TICKS = 500000 };
#define IOAPIC 0xfec00000ull
#define FIRST_WRITTEN (64ull << 20)
#ifndef WRITTEN_MIB
#define WRITTEN_MIB 1280ull
#endif

void test_other(unsigned index)
{
	(void)index;
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void say(const char *what, uint64_t value)
{
	char digits[DIGITS];
	char *at = digits + DIGITS - 1;

	*at = 0;
	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	print(what);
	print(at);
}

static uint64_t generation(void) { return *(volatile uint64_t *)GENERATION; }

#ifdef RUNS
static void write_page(uint64_t *at, uint64_t value)
{
	*(volatile uint64_t *)*at = value;
	*at += PAGE_BYTES;
	if (*at >= FIRST_WRITTEN + (WRITTEN_MIB << 20))
		*at = FIRST_WRITTEN;
}

void test_main(void)
{
	const uint64_t id = generation();
	uint64_t at = FIRST_WRITTEN;
	uint64_t last;

	start_processors();
	sti();
	do
		write_page(&at, 1);
	while (at != FIRST_WRITTEN);
	print("READY\n");
	last = rdtsc();
	while (generation() == id) {
		const uint64_t now = rdtsc();

		if (now - last >= GAP_TICKS) {
			say("GAP ", last);
			say(" ", now - last);
			print("\n");
			last = rdtsc();
		} else {
			last = now;
		}
		write_page(&at, now);
	}
	say("FIRST ", rdtsc());
	print("\n");
	test_other(0);
}
#else
static void write_reg(uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)IOAPIC = reg;
	*(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

static volatile bool is_ready;

/* Each child is forked again: it waits for the next. */
static bool on_event(struct frame *frame)
{
	const uint64_t now = rdtsc();

	if (frame->vector != VECTOR)
		return false;
	outb(GPE, EVENT);
	wrmsr(END_OF_INTERRUPT, 0);
	if (is_ready) {
		say("FIRST ", now);
		print("\n");
	}
	return true;
}

void test_main(void)
{
	uint64_t at = FIRST_WRITTEN;

	on_trap = on_event;
	start_processors();
	sti();
	for (; at < FIRST_WRITTEN + (WRITTEN_MIB << 20); at += PAGE_BYTES)
		*(volatile uint64_t *)at = generation();
	wrmsr(APIC_BASE, rdmsr(APIC_BASE) | X2APIC);
	wrmsr(SPURIOUS, APIC_ON);
	write_reg(REG_ENTRY + 1, 0);
	write_reg(REG_ENTRY, VECTOR | LEVEL);
	outb(GPE + ENABLE, EVENT);
	__asm__ volatile("cli");
	wrmsr(SELF_IPI, VECTOR);
	__asm__ volatile("sti; hlt; cli" : : : "memory");
	is_ready = true;
	print("READY\n");
	for (;;)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
}
#endif
