/*
 * The device for foreign suites (--test-device): its latch, its memory, and what it asks of the
 * synthetic interrupt controller: SINTs, and connections for messages and events. Its lines are in
 * ioapic.c.
 */
#include "hv.h"

enum { LATCH = 0xe0, LATCH_AGAIN = 0xe8, PORT = 0x3000 };
enum { SINT = 3, VECTOR = 0x59, CONNECTION = 0x55 };
enum { SINT_ASSERT = 3, MESSAGE_OPEN, MESSAGE_CLOSE, EVENT_OPEN, EVENT_CLOSE };
enum { POST = 0x5c, SIGNAL = 0x5d, FLAGS_BYTES = 256, MESSAGE_TYPE = 7 };
#define MEMORY 0xff000000ull
enum { MEMORY_BYTES = 1 << 16 };

static volatile uint64_t *messages, *events;

static void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "d"(port));
}
static uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "d"(port));
	return value;
}

static void command(unsigned what, unsigned sint)
{
	outl(PORT, (uint32_t)CONNECTION << 24 | what << 16 | sint);
}

static void latch(void)
{
	outl(LATCH, 0x44332211);
	check_equal("the latch", inl(LATCH), 0x44332211);
	check_equal("a byte of it", inb(LATCH + 2), 0x33);
	check_equal("at its other ports", inl(LATCH_AGAIN), 0x44332211);
	outb(LATCH_AGAIN + 1, 0xee);
	check_equal("which write the same", inl(LATCH), 0x4433ee11);
}

static void device_memory(void)
{
	volatile uint8_t *bytes = (volatile uint8_t *)MEMORY;
	volatile uint64_t *last = (volatile uint64_t *)(MEMORY + MEMORY_BYTES - sizeof(*last));

	for (uint64_t at = MEMORY; at < MEMORY + MEMORY_BYTES; at += PAGE_BYTES)
		map_page(at, at, PAGE_P | PAGE_W);
	*(volatile uint32_t *)bytes = 0x12345678;
	check_equal("memory that is a device", *(volatile uint32_t *)bytes, 0x12345678);
	check_equal("a byte of it", bytes[1], 0x56);
	bytes[2] = 0xff;
	check_equal("is written alone", *(volatile uint32_t *)bytes, 0x12ff5678);
	*last = 0x1122334455667788;
	check_equal("and up to its end", *last, 0x1122334455667788);
	__asm__ volatile("lock addl $2, %0" : "+m"(*(volatile uint32_t *)bytes));
	check_equal("also by a locked instruction", *(volatile uint32_t *)bytes, 0x12ff567a);
}

static void open_window(void)
{
	sti();
	__asm__ volatile("nop");
	cli();
}

static bool comes(void)
{
	taken[VECTOR] = 0;
	for (unsigned n = 0; n < 100000 && !taken[VECTOR]; n++)
		open_window();
	return taken[VECTOR];
}

static uint64_t post(void)
{
	uint64_t *in = input_page();

	in[0] = CONNECTION;
	in[1] = (uint64_t)sizeof(uint64_t) << 32 | MESSAGE_TYPE;
	in[2] = 0x7e57;
	return umbra_call(&hv, POST, gpa(in), 0) & 0xffff;
}

static void interrupts(void)
{
	command(SINT_ASSERT, SINT);
	check("a SINT is asserted", comes());
	check_equal("without a message", messages[FLAGS_BYTES / 8 * SINT], 0);
}

static void connections(void)
{
	uint64_t signal = CONNECTION;

	check_equal("a message to nobody", post(), UMBRA_BAD_CONNECTION);
	command(MESSAGE_OPEN, SINT);
	check_equal("one to a connection", post(), 0);
	check("comes", comes());
	check_equal("its type", (uint32_t)messages[FLAGS_BYTES / 8 * SINT], MESSAGE_TYPE);
	check_equal("its payload", messages[FLAGS_BYTES / 8 * SINT + 2], 0x7e57);
	messages[FLAGS_BYTES / 8 * SINT] = 0;
	wrmsr(MSR_EOM, 0);
	command(MESSAGE_CLOSE, SINT);
	check_equal("none when it is closed", post(), UMBRA_BAD_CONNECTION);
	check_equal("an event to nobody", umbra_call(&hv, umbra_fast(SIGNAL), signal, 0) & 0xffff,
		    UMBRA_BAD_CONNECTION);
	command(EVENT_OPEN, SINT);
	check_equal("one to a connection", umbra_call(&hv, umbra_fast(SIGNAL), signal, 0) & 0xffff,
		    0);
	check("comes", comes());
	check_equal("as the flag of its number",
		    events[FLAGS_BYTES / 8 * SINT + CONNECTION / 64] >> CONNECTION % 64 & 1, 1);
	command(EVENT_CLOSE, SINT);
	check_equal("none when it is closed",
		    umbra_call(&hv, umbra_fast(SIGNAL), signal, 0) & 0xffff, UMBRA_BAD_CONNECTION);
}

void test_main(void)
{
	latch();
	device_memory();
	hv_open();
	count_interrupts();
	messages = new_page();
	events = new_page();
	wrmsr(MSR_SIMP, gpa(messages) | 1);
	wrmsr(MSR_SIEFP, gpa(events) | 1);
	wrmsr(MSR_SCONTROL, 1);
	wrmsr(MSR_SINT0 + SINT, VECTOR);
	interrupts();
	connections();
}
