/*
 * Finding the hypervisor in every way, and the synthetic registers: what they read, and where they
 * raise #GP.
 */
#include "hv.h"

static void leaves(void)
{
	uint32_t registers[4];

	cpuid(1, registers);
	check("CPUID.1: a hypervisor is present", registers[2] >> 31);
	cpuid(0x40000000, registers);
	check("the vendor leaf", registers[0] == 0x40000006 && registers[1] == 0x7263694d &&
					 registers[2] == 0x666f736f && registers[3] == 0x76482074);
	cpuid(0x40000001, registers);
	check_equal("the interface is Hv#1", registers[0], 0x31237648);
	cpuid(0x40000003, registers);
	check("hypercalls and VP index are granted", (registers[0] & 0x60) == 0x60);
	check("neither partition ids nor CPU management", !(registers[1] & (1 << 1 | 1 << 12)));
	cpuid(0x40000004, registers);
	check("auto-EOI is not recommended", registers[0] >> 9 & 1);
	cpuid(0x40000005, registers);
	check("the number of processors", registers[0] >= 1 && registers[0] <= 16);
	cpuid(0x40000100, registers);
	check("the leaf of the extension",
	      registers[0] == 0x40000103 && registers[1] == 0x72626d55);
	cpuid(0x40000007, registers);
	check("the leaf after the last is not ours", registers[0] != 0x31237648);
}

static void information_page(void)
{
	struct umbra by_page, by_cpuid;

	check("CPUID finds it", umbra_find(&by_cpuid));
	check("the information page finds it",
	      umbra_find_by_page(&by_page, (void *)UMBRA_INFO_GPA));
	check("both say the same", by_page.newest == by_cpuid.newest &&
					   by_page.oldest == by_cpuid.oldest &&
					   by_page.extension == by_cpuid.extension &&
					   by_page.loop_offset == by_cpuid.loop_offset);
	check_equal("it cannot be written", outcome_of_store((void *)UMBRA_INFO_GPA), TRAP(13));
	check("and it is as before", umbra_find_by_page(&by_page, (void *)UMBRA_INFO_GPA));
}

static void registers(void)
{
	uint64_t t0, t1, r0 = rdmsr(MSR_RUNTIME);
	unsigned unknown = 0;

	check_equal("VP index", rdmsr(MSR_VP_INDEX), 0);
	check_equal("VP index cannot be written", outcome_of_wrmsr(MSR_VP_INDEX, 0), TRAP(13));
	t0 = rdmsr(MSR_TIME);
	for (int n = 0; n < 1000000; n++)
		cpu_relax();
	t1 = rdmsr(MSR_TIME);
	check("the reference time goes on", t1 > t0);
	check("and so does the run time", rdmsr(MSR_RUNTIME) > r0);
	check_equal("the reference time cannot be written", outcome_of_wrmsr(MSR_TIME, 0),
		    TRAP(13));
	check("TSC frequency", rdmsr(MSR_TSC_HZ) > 100000000);
	check_equal("APIC frequency", rdmsr(MSR_APIC_HZ), 200000000);
	check_equal("the guest's id begins as 0", rdmsr(MSR_OS_ID), 0);
	wrmsr(MSR_HYPERCALL, 0x200001);
	check_equal("without it no hypercall page", rdmsr(MSR_HYPERCALL), 0x200000);
	check_equal("SynIC version", rdmsr(MSR_SVERSION), 1);
	check_equal("which cannot be written", outcome_of_wrmsr(MSR_SVERSION, 1), TRAP(13));
	check_equal("SCONTROL begins as 0", rdmsr(MSR_SCONTROL), 0);
	for (unsigned n = 0; n < 16; n++)
		unknown += rdmsr(MSR_SINT0 + n) != 0x10000;
	check_equal("SINTs begin masked", unknown, 0);
	check_equal("a vector below 16", outcome_of_wrmsr(MSR_SINT0, 15), TRAP(13));
	check_equal("unless masked", outcome_of_wrmsr(MSR_SINT0, 0x1000f), 0);
	check_equal("reserved bits of a SINT", outcome_of_wrmsr(MSR_SINT0, 1 << 19 | 0x30),
		    TRAP(13));
	check_equal("crash capabilities", rdmsr(MSR_CRASH_CONTROL), 3ull << 62);
	wrmsr(MSR_CRASH0 + 4, 0x1234);
	check_equal("crash parameters are kept", rdmsr(MSR_CRASH0 + 4), 0x1234);
	wrmsr(MSR_INVARIANT, 1);
	check_equal("the TSC invariant", rdmsr(MSR_INVARIANT), 1);
	unknown = 0;
	for (uint32_t msr = 0x40000000; msr < 0x40000200; msr++)
		if (msr != MSR_IDLE /* it would wait for ever */ && try_rdmsr(msr) == 13)
			unknown++;
	check_equal("registers that cannot be read", unknown, 0x200 - 47);
	check_equal("EOI without its feature", outcome_of_wrmsr(MSR_EOI, 0), TRAP(13));
}

static uint64_t page_time(const volatile uint64_t *page)
{
	return (uint64_t)(((unsigned __int128)rdtsc() * page[1]) >> 64) + page[2];
}

/* Whoever reads first one and then the other reads no earlier time. */
static bool is_one_clock(const volatile uint64_t *page)
{
	for (unsigned n = 0; n < 20000; n++) {
		uint64_t before = page_time(page);
		uint64_t time = rdmsr(MSR_TIME);
		uint64_t after = page_time(page);

		if (before > time || time > after)
			return false;
	}
	return true;
}

/* The page's offset is the register's own: it is the same whenever the page is written. */
static bool is_one_offset(const volatile uint64_t *page)
{
	uint64_t offset = page[2];

	for (unsigned n = 0; n < 200; n++) {
		wrmsr(MSR_REFERENCE, gpa(page) | 1);
		if (page[2] != offset)
			return false;
	}
	return true;
}

static void reference_page(void)
{
	volatile uint64_t *page = new_page();
	uint64_t tsc, expected, now;

	wrmsr(MSR_REFERENCE, gpa(page) | 1);
	check("the page is valid", (uint32_t)page[0]);
	tsc = rdtsc();
	now = rdmsr(MSR_TIME);
	expected = (uint64_t)(((unsigned __int128)tsc * page[1]) >> 64) + page[2];
	check("its time is that of the register", now >= expected && now - expected < 100000);
	check("it never runs behind the register, nor before it", is_one_clock(page));
	check("its offset is that of the register", is_one_offset(page));
	check_equal("it cannot be written", outcome_of_store(page), TRAP(13));
	wrmsr(MSR_REFERENCE, 0);
	check_equal("off: memory as before", page[0], 0);
}

void test_main(void)
{
	leaves();
	information_page();
	registers();
	reference_page();
}
