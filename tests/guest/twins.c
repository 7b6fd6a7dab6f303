/*
 * A guest that is forked, or saved and restored (twins.py): it sleeps until the event of its
 * generation id wakes it, and as its very first act samples what tells it from its twins. It prints
 * that, checks the event and its clocks, and ends.
 */
#include "hv.h"

enum { GENERATION = 0xf0000, GPE = 0x40c, ENABLE = 2, EVENT = 1, SCI = 9, VECTOR = 0x59 };
enum { REG_ENTRY = 0x10 + 2 * SCI, LEVEL = 1 << 15, REMOTE_IRR = 1 << 14 };
enum { FEATURES = 1, RDRAND = 1u << 30 };
#define IOAPIC 0xfec00000ull

struct sample { uint64_t id[2], random, tsc, time; };
static struct sample before, first;
static volatile bool woken;
static bool has_random;

static bool has_rdrand(void)
{
	uint32_t eax = FEATURES;
	uint32_t ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return ecx & RDRAND;
}

static void take(struct sample *sample)
{
	sample->id[0] = ((volatile uint64_t *)GENERATION)[0];
	sample->id[1] = ((volatile uint64_t *)GENERATION)[1];
	if (has_random)
		__asm__ volatile("1: rdrand %0; jnc 1b" : "=r"(sample->random));
	sample->tsc = rdtsc();
	sample->time = rdmsr(MSR_TIME);
}

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

static bool on_interrupt(struct frame *frame)
{
	if (frame->vector != VECTOR)
		return false;
	take(&first);
	check("the event is pending", inb(GPE) == EVENT);
	check("a level on the SCI", read_reg(REG_ENTRY) & REMOTE_IRR);
	outb(GPE, EVENT);
	check("which is cleared by writing it", !inb(GPE));
	wrmsr(0x80b, 0);
	woken = true;
	return true;
}

static void sleep_until_woken(void)
{
	while (!woken) {
		take(&before);
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	}
}

void test_main(void)
{
	on_trap = on_interrupt;
	has_random = has_rdrand();
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	write_reg(REG_ENTRY + 1, 0);
	write_reg(REG_ENTRY, VECTOR | LEVEL);
	outb(GPE + ENABLE, EVENT);
	take(&before);
	check("it begins with an id", before.id[0] | before.id[1]);
	check("and no event", !inb(GPE));
	print("\nREADY\n");
	sleep_until_woken();
	check("another id", first.id[0] != before.id[0] && first.id[1] != before.id[1]);
	check("which stays", first.id[0] == *(volatile uint64_t *)GENERATION);
	check("other random numbers", !has_random || first.random != before.random);
	check("the time stamp counter is never back", first.tsc >= before.tsc);
	check("nor is the reference time", first.time >= before.time);
	print("\nTWIN ");
	print_number(first.id[0]);
	print(" ");
	print_number(first.id[1]);
	print(" ");
	print_number(first.random);
	print("\n");
	finish();
}
