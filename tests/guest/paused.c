/*
 * A guest whose user has it stand for a while (paused.py), which it cannot notice: at each key it
 * says what its clocks show, and sets its timers; at the next one, how long they took. Other
 * processors look meanwhile that no time stamp counter is behind another.
 */
#include "hv.h"

enum { APIC_LVT_TIMER = 0x832, APIC_COUNT = 0x838, APIC_DIVIDE = 0x83e, DIVIDE_BY_1 = 0xb };
enum { APIC_VECTOR = 0x51, SYNTHETIC_VECTOR = 0x52, TIMER_ON = 1, TIMER_DIRECT = 1 << 12 };
enum { PM_TIMER = 0x408, KEYS = 0x3f8, END = 'q' };
enum { TIMER_TICKS = 300000000, TIMER_100NS = 15000000 }; /* both: 1.5 s */

static volatile uint64_t *reference;
static volatile uint64_t latest_tsc;
static volatile unsigned behind, looks;
static volatile uint64_t apic_fired, synthetic_fired; /* when */
static uint64_t set_at;

static bool on_interrupt(struct frame *frame)
{
	const uint64_t now = rdmsr(MSR_TIME);

	if (frame->vector != APIC_VECTOR && frame->vector != SYNTHETIC_VECTOR)
		return false;
	if (frame->vector == APIC_VECTOR)
		apic_fired = now;
	else
		synthetic_fired = now;
	wrmsr(0x80b, 0);
	return true;
}

/* Who has seen a moment never sees an earlier one. */
static void look_at_tsc(void)
{
	uint64_t seen = __atomic_load_n(&latest_tsc, __ATOMIC_SEQ_CST);
	uint64_t now;

	__asm__ volatile("lfence" : : : "memory");
	now = rdtsc();
	if (now < seen)
		__atomic_add_fetch(&behind, 1, __ATOMIC_SEQ_CST);
	while (now > seen && !__atomic_compare_exchange_n(&latest_tsc, &seen, now, false,
							  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	looks++;
}

void test_other(unsigned me)
{
	(void)me;
	for (;;)
		look_at_tsc();
}

static uint32_t pm_timer(void)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "d"((uint16_t)PM_TIMER));
	return value;
}

static uint64_t page_time(void)
{
	return (uint64_t)((unsigned __int128)rdtsc() * reference[1] >> 64) + reference[2];
}

static void say(const char *name, uint64_t value)
{
	print(name);
	print_number(value);
}

static void say_clocks(void)
{
	const uint64_t time = rdmsr(MSR_TIME), page = page_time(), tsc = rdtsc(), pm = pm_timer();

	say("\nCLOCKS time ", time);
	say(" page ", page);
	say(" tsc ", tsc);
	say(" pm ", pm);
	print("\n");
}

static void set_timers(void)
{
	apic_fired = synthetic_fired = 0;
	set_at = rdmsr(MSR_TIME);
	wrmsr(APIC_COUNT, TIMER_TICKS);
	wrmsr(MSR_TIMER0 + 1, set_at + TIMER_100NS);
	wrmsr(MSR_TIMER0, TIMER_ON | TIMER_DIRECT | SYNTHETIC_VECTOR << 4);
}

static void wait_for_timers(void)
{
	while (!apic_fired || !synthetic_fired)
		look_at_tsc();
	check("the APIC's timer is not early", apic_fired - set_at >= TIMER_100NS);
	check("nor is a synthetic one", synthetic_fired - set_at >= TIMER_100NS);
}

void test_main(void)
{
	volatile uint64_t *page = new_page();
	uint8_t key = 0;

	hv_open();
	on_trap = on_interrupt;
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	wrmsr(APIC_DIVIDE, DIVIDE_BY_1);
	wrmsr(APIC_LVT_TIMER, APIC_VECTOR);
	wrmsr(MSR_REFERENCE, gpa(page) | 1);
	reference = page;
	start_processors();
	sti();
	print("\nREADY\n");
	for (;;) {
		while (!has_input())
			look_at_tsc();
		key = inb(KEYS);
		say_clocks();
		if (set_at)
			wait_for_timers();
		if (key == END)
			break;
		set_timers();
		print("\nSET\n");
	}
	check("no time stamp counter is behind another", !behind);
	check("which was looked at", looks > 1000);
	finish();
}
