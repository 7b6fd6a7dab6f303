/*
 * Remote IRR of the I/O APIC (82093AA 3.2.4): what the guest of tests/guest/ioapic.c cannot see
 * from one processor, which is what was delivered and when.
 */
#include <stdbool.h>
#include <stdio.h>

#include "chipset/ioapic.h"

enum { LINE = 9, OTHER_LINE = 10, VECTOR = 0x51, OTHER_VECTOR = 0x52 };
enum { LEVEL = 1 << 15, REMOTE_IRR = 1 << 14, MASKED = 1 << 16 };
enum { SELECT = 0, WINDOW = 0x10, REG_ENTRIES = 0x10 };

static unsigned delivered[256];
static unsigned faults;

static void deliver(void *context, uint32_t low, uint32_t destination)
{
	(void)context;
	(void)destination;
	delivered[low & 0xff]++;
}

static void expect(const char *what, uint64_t is, uint64_t wanted)
{
	if (is == wanted)
		return;
	printf("ioapic_test: %s: %#lx instead of %#lx\n", what, is, wanted);
	faults++;
}

static void set_entry(struct ioapic *ioapic, unsigned line, uint32_t low)
{
	ioapic_write(ioapic, SELECT, REG_ENTRIES + 2 * line);
	ioapic_write(ioapic, WINDOW, low);
}

static uint32_t entry_of(struct ioapic *ioapic, unsigned line)
{
	ioapic_write(ioapic, SELECT, REG_ENTRIES + 2 * line);
	return ioapic_read(ioapic, WINDOW);
}

static void under_way(struct ioapic *ioapic)
{
	set_entry(ioapic, LINE, LEVEL | VECTOR);
	ioapic_set_line(ioapic, LINE, true);
	expect("a level is delivered", delivered[VECTOR], 1);
	expect("and under way", entry_of(ioapic, LINE), LEVEL | REMOTE_IRR | VECTOR);
	ioapic_set_line(ioapic, LINE, false);
	ioapic_set_line(ioapic, LINE, true);
	expect("which it stays however often the line rises", delivered[VECTOR], 1);
	set_entry(ioapic, LINE, LEVEL | VECTOR);
	expect("and whatever is written", delivered[VECTOR], 1);
	set_entry(ioapic, LINE, MASKED | LEVEL | VECTOR);
	expect("masked it is under way, too", entry_of(ioapic, LINE),
	       MASKED | LEVEL | REMOTE_IRR | VECTOR);
	set_entry(ioapic, LINE, LEVEL | VECTOR);
	ioapic_end_of_interrupt(ioapic, OTHER_VECTOR);
	expect("the end of another interrupt is not its end", delivered[VECTOR], 1);
	ioapic_end_of_interrupt(ioapic, VECTOR);
	expect("at its end it comes again, since the line is high", delivered[VECTOR], 2);
	ioapic_set_line(ioapic, LINE, false);
	ioapic_end_of_interrupt(ioapic, VECTOR);
	expect("and not when it is low", delivered[VECTOR], 2);
	expect("then nothing is under way", entry_of(ioapic, LINE), LEVEL | VECTOR);
}

static void two_lines_of_one_vector(struct ioapic *ioapic)
{
	set_entry(ioapic, OTHER_LINE, LEVEL | VECTOR);
	delivered[VECTOR] = 0;
	ioapic_set_line(ioapic, LINE, true);
	ioapic_set_line(ioapic, OTHER_LINE, true);
	expect("two lines of one vector", delivered[VECTOR], 2);
	ioapic_set_line(ioapic, LINE, false);
	ioapic_end_of_interrupt(ioapic, VECTOR);
	expect("its end is both's, and one is high", delivered[VECTOR], 3);
	ioapic_set_line(ioapic, OTHER_LINE, false);
	ioapic_end_of_interrupt(ioapic, VECTOR);
}

static void becomes_an_edge(struct ioapic *ioapic)
{
	delivered[VECTOR] = 0;
	ioapic_set_line(ioapic, LINE, true);
	set_entry(ioapic, LINE, MASKED | VECTOR);
	expect("an edge has nothing under way", entry_of(ioapic, LINE), MASKED | VECTOR);
	set_entry(ioapic, LINE, MASKED | LEVEL | VECTOR);
	set_entry(ioapic, LINE, LEVEL | VECTOR);
	expect("so that the level comes again", delivered[VECTOR], 2);
}

int main(void)
{
	struct ioapic ioapic;

	ioapic_init(&ioapic, deliver, NULL);
	under_way(&ioapic);
	two_lines_of_one_vector(&ioapic);
	becomes_an_edge(&ioapic);
	check_ioapic(&ioapic);
	return faults != 0;
}
