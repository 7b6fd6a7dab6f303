/* Local APIC: timer, interprocessor interrupts, priorities, NMI; interrupt windows; HLT. */
#include "guest.h"

static volatile unsigned taken[256];
static volatile uint64_t taken_rip;
static unsigned order[8], ordered;

static bool count(struct frame *frame)
{
	if (frame->vector < 32 && frame->vector != 2)
		return false;
	taken[frame->vector]++;
	taken_rip = frame->rip;
	if (ordered < 8)
		order[ordered++] = (unsigned)frame->vector;
	if (frame->vector != 2)
		wrmsr(0x80b, 0);
	return true;
}

static void sti(void) { __asm__ volatile("sti; nop; nop"); }
static void cli(void) { __asm__ volatile("cli"); }

static void wait_for(unsigned vector, unsigned times)
{
	for (uint64_t end = rdtsc() + 8000000000ull; taken[vector] < times && rdtsc() < end;)
		cpu_relax();
}

static void self_interrupts(void)
{
	uint64_t shadow, behind;

	cli();
	wrmsr(0x83f, 0x50);
	check_equal("not while IF is 0", taken[0x50], 0);
	__asm__ volatile("lea 1f(%%rip), %0; lea 2f(%%rip), %1; sti; 1: nop; 2: nop; cli"
			 : "=r"(shadow), "=r"(behind)
			 :
			 : "memory");
	check_equal("taken with IF 1", taken[0x50], 1);
	check("not in the shadow of STI", taken_rip != shadow);
	check_equal("but right behind it", taken_rip, behind);
	ordered = 0;
	wrmsr(0x83f, 0x51);
	wrmsr(0x83f, 0x91);
	wrmsr(0x83f, 0x71);
	sti();
	cli();
	check("three at once, by priority",
	      ordered == 3 && order[0] == 0x91 && order[1] == 0x71 && order[2] == 0x51);
	wrmsr(0x808, 0x60);
	wrmsr(0x83f, 0x55);
	sti();
	check_equal("TPR holds back", taken[0x55], 0);
	wrmsr(0x808, 0);
	sti();
	check_equal("until it is lowered", taken[0x55], 1);
	cli();
	__asm__ volatile("mov %0, %%cr8" : : "r"(6ull));
	wrmsr(0x83f, 0x56);
	sti();
	check_equal("CR8 holds back", taken[0x56], 0);
	__asm__ volatile("mov %0, %%cr8" : : "r"(0ull));
	sti();
	check_equal("until it is lowered, too", taken[0x56], 1);
	cli();
	wrmsr(0x830, 0x400 | (uint64_t)apic_id() << 32);
	check_equal("NMI with IF 0", taken[2], 1);
}

static void timers(void)
{
	uint64_t start;

	sti();
	wrmsr(0x83e, 0xb);
	wrmsr(0x832, 0x60);
	wrmsr(0x838, 100000);
	wait_for(0x60, 1);
	check_equal("one shot", taken[0x60], 1);
	wrmsr(0x832, 0x20061);
	wrmsr(0x838, 100000);
	wait_for(0x61, 5);
	wrmsr(0x838, 0);
	check("periodic", taken[0x61] >= 5);
	wrmsr(0x832, 0x40062);
	start = rdtsc();
	wrmsr(0x6e0, start + 3000000);
	wait_for(0x62, 1);
	check_equal("TSC deadline", taken[0x62], 1);
	check("not too early", rdtsc() - start >= 3000000);
	check_equal("the deadline reads 0 afterwards", rdmsr(0x6e0), 0);
	wrmsr(0x832, 0x63);
	wrmsr(0x838, 1000000);
	__asm__ volatile("cli");
	__asm__ volatile("sti; hlt; cli" : : : "memory");
	check_equal("HLT sleeps until it", taken[0x63], 1);
}

void test_main(void)
{
	on_trap = count;
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	self_interrupts();
	timers();
}
