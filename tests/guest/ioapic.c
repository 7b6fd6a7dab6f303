/*
 * The IOAPIC: its registers, edges and levels; and the 8259s beside it. Lines are those of the test
 * device (--test-device): port 0x2000 + line.
 */
#include "hv.h"

enum {
	LINE = 14,
	LINE_PORT = 0x2000 + LINE,
	REG_ID = 0,
	REG_VERSION = 1,
	REG_ARBITRATION = 2,
	REG_ENTRY = 0x10 + 2 * LINE
};
enum { LEVEL = 1 << 15, REMOTE_IRR = 1 << 14, MASKED = 1 << 16, VECTOR = 0x77 };
enum { /* the 8259s: LINE is line 6 of the second one */
	FIRST = 0x20,
	SECOND = 0xa0,
	DATA = 1,
	WORD_1 = 0x11,
	BASE = 0x40,
	PIC_VECTOR = BASE + LINE,
	END = 0x20,
	LINT0 = 0x835,
	EXTERNAL = 0x700
};
#define IOAPIC 0xfec00000ull

static volatile unsigned got;
static volatile unsigned got_vector;
static volatile unsigned lower_at; /* the interrupt whose handler lowers the line */

static void write_reg(uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)IOAPIC = reg;
	*(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

static uint32_t read_reg(uint32_t reg)
{
	*(volatile uint32_t *)IOAPIC = reg;
	return *(volatile uint32_t *)(IOAPIC + 0x10);
}

static void set_line(uint8_t value) { outb(LINE_PORT, value); }
static void open_window(void) { __asm__ volatile("sti; nop; nop; cli" : : : "memory"); }

static bool on_interrupt(struct frame *frame)
{
	if (frame->vector < 32)
		return false;
	got++;
	got_vector = (unsigned)frame->vector;
	if (frame->vector >= BASE && frame->vector < BASE + 16)
		return true;
	if (got == 1 && read_reg(REG_ENTRY) & LEVEL)
		check("a level: remote IRR until the end of the interrupt",
		      read_reg(REG_ENTRY) & REMOTE_IRR);
	if (got == lower_at)
		set_line(0);
	wrmsr(0x80b, 0);
	return true;
}

static void begin(uint32_t entry, unsigned lower)
{
	got = 0;
	lower_at = lower;
	write_reg(REG_ENTRY + 1, 0);
	write_reg(REG_ENTRY, entry);
}

static void registers(void)
{
	write_reg(REG_ID, 0xffffffff);
	check_equal("the identifier has four bits", read_reg(REG_ID), 0x0f000000);
	check_equal("which the arbitration register shows", read_reg(REG_ARBITRATION), 0x0f000000);
	write_reg(REG_ARBITRATION, 0);
	check_equal("and does not take", read_reg(REG_ARBITRATION), 0x0f000000);
	write_reg(REG_ID, 0);
	check_equal("version and entries", read_reg(REG_VERSION), 0x00170011);
	write_reg(REG_ENTRY, MASKED | LEVEL | REMOTE_IRR | 0x33);
	check_equal("remote IRR is not the guest's to set", read_reg(REG_ENTRY),
		    MASKED | LEVEL | 0x33);
}

static void edges(void)
{
	begin(VECTOR, 0);
	set_line(1);
	open_window();
	check_equal("an edge", got, 1);
	open_window();
	check_equal("is one interrupt", got, 1);
	set_line(1);
	open_window();
	check_equal("and no other while it is high", got, 1);
	set_line(0);
	open_window();
	set_line(1);
	open_window();
	check_equal("but with the next edge", got, 2);
	set_line(0);
}

static void levels(void)
{
	begin(LEVEL | VECTOR, 3);
	set_line(1);
	open_window();
	for (int n = 0; n < 5; n++)
		open_window();
	check_equal("a level comes until it is lowered", got, 3);
	check("and then remote IRR is 0", !(read_reg(REG_ENTRY) & REMOTE_IRR));
	begin(MASKED | LEVEL | VECTOR, 1);
	set_line(1);
	open_window();
	check_equal("masked: nothing", got, 0);
	write_reg(REG_ENTRY, LEVEL | VECTOR);
	open_window();
	check_equal("unmasked while it is high: an interrupt", got, 1);
}

static void mask_8259s(uint8_t first, uint8_t second)
{
	outb(FIRST | DATA, first);
	outb(SECOND | DATA, second);
}

static void initialise_8259(uint16_t port, uint8_t vector, uint8_t word_3)
{
	outb(port, WORD_1);
	outb(port | DATA, vector);
	outb(port | DATA, word_3);
	outb(port | DATA, 1);
}

static void edge_of_8259(void)
{
	set_line(1);
	set_line(0);
	open_window();
}

static void pair_of_8259s(void)
{
	begin(MASKED | VECTOR, 0);
	initialise_8259(FIRST, BASE, 4);
	initialise_8259(SECOND, BASE + 8, 2);
	mask_8259s(0xff, 0xff);
	edge_of_8259();
	check_equal("8259: masked", got, 0);
	mask_8259s(0xfb, 0xbf);
	open_window();
	check_equal("8259: an edge waits until it is unmasked", got, 1);
	check_equal("and comes with the vector of its line", got_vector, PIC_VECTOR);
	edge_of_8259();
	check_equal("8259: in service, nothing more", got, 1);
	outb(SECOND, END);
	outb(FIRST, END);
	open_window();
	check_equal("until its end", got, 2);
	outb(SECOND, END);
	outb(FIRST, END);
	wrmsr(LINT0, MASKED | EXTERNAL);
	edge_of_8259();
	check_equal("LINT0 is masked", got, 2);
	wrmsr(LINT0, EXTERNAL);
	open_window();
	check_equal("and is not any more", got, 3);
	mask_8259s(0xff, 0xff);
}

void test_main(void)
{
	on_trap = on_interrupt;
	map_page(IOAPIC, IOAPIC, PAGE_P | PAGE_W);
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	mask_8259s(0xff, 0xff);
	registers();
	edges();
	levels();
	pair_of_8259s();
}
