/*
 * The local APIC's modes, what its registers refuse, the task priority in every form, and NMIs that
 * come together.
 */
#include "hv.h"

enum {
	MSR_BASE = 0x1b,
	X2_TPR = 0x808,
	X2_EOI = 0x80b,
	X2_SVR = 0x80f,
	X2_ICR = 0x830,
	X2_LVT_TIMER = 0x832,
	X2_SELF = 0x83f
};
enum {
	BASE_X2 = 0x400,
	BASE_ON = 0x800,
	SVR_ON = 0x1ff,
	ICR_NMI = 0x400,
	EDX_APIC = 1 << 9,
	GP = 13,
	NMI = 2
};
enum {
	PAGE_ID = 0x20,
	PAGE_TPR = 0x80,
	PAGE_EOI = 0xb0,
	PAGE_SVR = 0xf0,
	PAGE_ICR = 0x300,
	PAGE_ICR_HIGH = 0x310
};
#define PAGE 0xfee00000ull
#define OFF PAGE
#define XAPIC (PAGE | BASE_ON)
#define X2APIC (PAGE | BASE_ON | BASE_X2)

static volatile unsigned got[256];
static volatile bool nested; /* the next NMI's handler sends two more */

static volatile uint32_t *at(uint32_t offset) { return (volatile uint32_t *)(PAGE + offset); }
static bool is_x2(void) { return rdmsr(MSR_BASE) & BASE_X2; }
static uint64_t cr8(void)
{
	uint64_t value;
	__asm__ volatile("mov %%cr8, %0" : "=r"(value));
	return value;
}
static void set_cr8(uint64_t value) { __asm__ volatile("mov %0, %%cr8" : : "r"(value)); }
static void open_window(void) { __asm__ volatile("sti; nop; nop; cli" : : : "memory"); }

static bool on_interrupt(struct frame *frame)
{
	if (frame->vector < 32 && frame->vector != NMI)
		return false;
	got[frame->vector]++;
	if (frame->vector == NMI && nested) {
		nested = false;
		wrmsr(X2_ICR, ICR_NMI);
		wrmsr(X2_ICR, ICR_NMI);
		check_equal("no NMI within the handler of one", got[NMI], 1);
	} else if (frame->vector != NMI && is_x2()) {
		wrmsr(X2_EOI, 0);
	} else if (frame->vector != NMI) {
		*at(PAGE_EOI) = 0;
	}
	return true;
}

static uint32_t cpuid_edx(uint32_t leaf)
{
	uint32_t registers[4];

	cpuid(leaf, registers);
	return registers[3];
}

/* ---- modes ---- */

static void modes(void)
{
	wrmsr(MSR_BASE, XAPIC);
	check_equal("xAPIC: the version in the page", at(0x30)[0] & 0xff, 0x14);
	check_equal("xAPIC: no registers by MSR", outcome_of_rdmsr(X2_TPR), TRAP(GP));
	check("xAPIC: CPUID says that it is there", cpuid_edx(1) & EDX_APIC);
	check_equal("x2APIC without being on", outcome_of_wrmsr(MSR_BASE, PAGE | BASE_X2),
		    TRAP(GP));
	wrmsr(MSR_BASE, OFF);
	check_equal("off: nothing in the page", at(0x30)[0], 0xffffffff);
	*at(PAGE_TPR) = 0x70;
	check_equal("off: nothing takes a write", cr8(), 0);
	check_equal("off: no registers by MSR", outcome_of_rdmsr(X2_TPR), TRAP(GP));
	check("off: CPUID says that there is none",
	      !(cpuid_edx(1) & EDX_APIC) && !(cpuid_edx(0x80000001) & EDX_APIC));
	set_cr8(5);
	check_equal("off: CR8 is there", cr8(), 5);
	set_cr8(0);
	check_equal("from off to x2APIC", outcome_of_wrmsr(MSR_BASE, X2APIC), TRAP(GP));
	wrmsr(MSR_BASE, XAPIC);
	wrmsr(MSR_BASE, X2APIC);
	check_equal("x2APIC: registers by MSR", rdmsr(0x803) & 0xff, 0x14);
	check_equal("x2APIC: nothing in the page", at(0x30)[0], 0xffffffff);
	check_equal("from x2APIC to xAPIC", outcome_of_wrmsr(MSR_BASE, XAPIC), TRAP(GP));
	wrmsr(X2_SVR, SVR_ON);
	wrmsr(MSR_BASE, OFF);
	wrmsr(MSR_BASE, XAPIC);
	check_equal("x2APIC, off, xAPIC: as after a reset", *at(PAGE_SVR), 0xff);
	check_equal("reserved bits of the base", outcome_of_wrmsr(MSR_BASE, XAPIC | 0x200),
		    TRAP(GP));
	check_equal("and beyond the address space", outcome_of_wrmsr(MSR_BASE, XAPIC | 1ull << 50),
		    TRAP(GP));
}

/* ---- identifiers ---- */

/* One to this identifier, in xAPIC mode. */
static unsigned interrupts_to(uint32_t id)
{
	enum { VECTOR = 0x51 };
	unsigned before = got[VECTOR];

	*at(PAGE_ICR_HIGH) = id << 24;
	*at(PAGE_ICR) = 0x4000 | VECTOR;
	open_window();
	return got[VECTOR] - before;
}

static void identifiers(void)
{
	wrmsr(MSR_BASE, XAPIC);
	*at(PAGE_SVR) = SVR_ON;
	*at(PAGE_ID) = 0x05123456;
	check_equal("xAPIC: the identifier can be written", *at(PAGE_ID), 0x05000000);
	check_equal("and is what an interrupt names", interrupts_to(5), 1);
	check_equal("no longer the other one", interrupts_to(0), 0);
	wrmsr(MSR_BASE, X2APIC);
	check_equal("x2APIC: it has its own", rdmsr(0x802), 0);
	wrmsr(MSR_BASE, OFF);
	wrmsr(MSR_BASE, XAPIC);
	check_equal("x2APIC, off, xAPIC: the first one again", *at(PAGE_ID), 0);
	*at(PAGE_SVR) = SVR_ON;
}

/* ---- reserved bits ---- */

static void reserved_bits(void)
{
	static const struct { uint32_t msr; uint64_t value;
	} refused[] = {
		{ X2_TPR, 0x100 },   { X2_TPR, 1ull << 32 },
		{ X2_EOI, 1 },       { X2_SVR, 0x400 },
		{ 0x828, 1 },        { X2_ICR, 1 << 13 },
		{ X2_ICR, 1 << 20 }, { X2_LVT_TIMER, 1 << 20 },
		{ 0x835, 1 << 17 },  { 0x838, 1ull << 32 },
		{ 0x83e, 4 },        { X2_SELF, 0x100 },
		{ 0x802, 0 },        { 0x803, 0 },
		{ 0x80d, 0 },        { 0x80e, 0 },
		{ 0x82f, 0x10000 },  { 0x831, 0 },
		{ 0x839, 0 },
	};
	static const uint32_t unreadable[] = { X2_EOI, 0x80e, 0x82f, 0x831, X2_SELF };
	unsigned accepted = 0;

	wrmsr(MSR_BASE, X2APIC);
	for (unsigned n = 0; n < sizeof(refused) / sizeof(refused[0]); n++)
		accepted += outcome_of_wrmsr(refused[n].msr, refused[n].value) != TRAP(GP);
	check_equal("x2APIC: writes that are refused", accepted, 0);
	accepted = 0;
	for (unsigned n = 0; n < sizeof(unreadable) / sizeof(unreadable[0]); n++)
		accepted += outcome_of_rdmsr(unreadable[n]) != TRAP(GP);
	check_equal("x2APIC: reads that are refused", accepted, 0);
}

/* ---- task priority ---- */

static void task_priority(void)
{
	wrmsr(X2_SVR, SVR_ON);
	wrmsr(X2_TPR, 0x35);
	check_equal("the MSR's upper half is CR8", cr8(), 3);
	wrmsr(X2_SELF, 0x91);
	open_window();
	check_equal("an interrupt above it is taken", got[0x91], 1);
	check_equal("and leaves it as it was", rdmsr(X2_TPR), 0x35);
	wrmsr(X2_TPR, 0x90);
	wrmsr(X2_SELF, 0x92);
	wrmsr(X2_SELF, 0xa0);
	open_window();
	check("raised between two interrupts: only the higher one", got[0xa0] == 1 && !got[0x92]);
	wrmsr(X2_TPR, 0x80);
	open_window();
	check_equal("lowered: the other one", got[0x92], 1);
	set_cr8(0);
	check_equal("CR8 is the MSR's upper half", rdmsr(X2_TPR), 0);
	wrmsr(MSR_BASE, OFF);
	wrmsr(MSR_BASE, XAPIC);
	*at(PAGE_SVR) = SVR_ON;
	*at(PAGE_TPR) = 0x70;
	check_equal("the page's upper half is CR8", cr8(), 7);
	*at(PAGE_ICR_HIGH) = 0;
	*at(PAGE_ICR) = 0x61;
	open_window();
	check_equal("the page's holds back", got[0x61], 0);
	*at(PAGE_TPR) = 0;
	open_window();
	check_equal("until it is lowered", got[0x61], 1);
}

/* ---- off by software ---- */

static void software_off(void)
{
	wrmsr(MSR_BASE, X2APIC);
	wrmsr(X2_SVR, SVR_ON);
	wrmsr(X2_LVT_TIMER, 0x62);
	wrmsr(X2_SVR, 0xff);
	check_equal("off by software: the timer's entry is masked", rdmsr(X2_LVT_TIMER), 0x10062);
	wrmsr(X2_SELF, 0x63);
	wrmsr(X2_SVR, SVR_ON);
	open_window();
	check_equal("what comes meanwhile is lost", got[0x63], 0);
}

/* Two that come while one is handled are one (SDM Vol. 3A 6.7.1). */
static void nmis(void)
{
	nested = true;
	wrmsr(X2_ICR, ICR_NMI);
	check_equal("an NMI, and one of two that came in its handler", got[NMI], 2);
}

void test_main(void)
{
	use_trap_stack(NMI);
	on_trap = on_interrupt;
	map_page(PAGE, PAGE, PAGE_P | PAGE_W);
	modes();
	identifiers();
	reserved_bits();
	task_priority();
	software_off();
	nmis();
}
