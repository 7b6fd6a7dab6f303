/*
 * Overlay pages: contents, protection, hiding and moving over RAM, execution from them, as page
 * tables, and outside of RAM.
 */
#include "hv.h"

static volatile uint64_t *a, *b;

static void hypercall_page(void)
{
	struct umbra umbra;

	umbra_find(&umbra);
	a[0] = 0x1111;
	b[0] = 0x2222;
	check("enabled", umbra_enable(&umbra, OS_ID, gpa(a), (void *)(uintptr_t)a));
	check("RAM is hidden", a[0] != 0x1111);
	check_equal("a call works there", umbra_call(&umbra, umbra_fast(0xbfff), 0, 0),
		    UMBRA_BAD_CALL);
	check_equal("it cannot be written", outcome_of_store(a), TRAP(13));
	wrmsr(MSR_HYPERCALL, gpa(b) | 1);
	check_equal("moved: RAM comes back", a[0], 0x1111);
	check("and is hidden elsewhere", b[0] != 0x2222);
	umbra.page = (uint8_t *)(uintptr_t)b;
	check_equal("a call works at the new place", umbra_call(&umbra, umbra_fast(0xbfff), 0, 0),
		    UMBRA_BAD_CALL);
	check_equal("the old place can be written", outcome_of_store(a), 0);
	wrmsr(MSR_OS_ID, 0);
	check_equal("without an identity the page goes", b[0], 0x2222);
	check_equal("and the register says so", rdmsr(MSR_HYPERCALL) & 1, 0);
}

static void no_call(void *context) { umbra_call(context, umbra_fast(0xbfff), 0, 0); }

static void contents_kept(void)
{
	wrmsr(MSR_SIMP, 0);
	a[5] = 55;
	b[5] = 66;
	wrmsr(MSR_ASSIST, gpa(a) | 1);
	check_equal("a VP assist page begins as zero", a[5], 0);
	a[5] = 77;
	wrmsr(MSR_ASSIST, gpa(b) | 1);
	check_equal("moved, it keeps its contents", b[5], 77);
	check_equal("and RAM its own", a[5], 55);
	wrmsr(MSR_ASSIST, 0);
	check_equal("off: RAM again", b[5], 66);
	wrmsr(MSR_ASSIST, gpa(a) | 1);
	check_equal("on again: kept", a[5], 77);
	wrmsr(MSR_SIMP, gpa(a) | 1);
	wrmsr(MSR_ASSIST, 0);
	check("two at one place: the other is seen when the first goes", a[5] == 0);
	wrmsr(MSR_SIMP, 0);
	check_equal("then RAM", a[5], 55);
}

static void beyond_ram(void)
{
	volatile uint64_t *hole = (volatile uint64_t *)0xf0000000;

	check_equal("nothing is there", hole[0], ~0ull);
	wrmsr(MSR_ASSIST, 0xf0000001);
	check_equal("an overlay where no RAM is", hole[5], 77);
	hole[6] = 88;
	wrmsr(MSR_ASSIST, gpa(b) | 1);
	check_equal("takes its contents along", b[6], 88);
	check_equal("and leaves nothing", hole[0], ~0ull);
	wrmsr(MSR_ASSIST, 0xfffffffff000 | 1);
	check_equal("outside of the address space: kept in the register", rdmsr(MSR_ASSIST),
		    0xfffffffff001);
	check_equal("and nowhere in memory", b[5], 66);
	wrmsr(MSR_ASSIST, 0);
}

/* Code that is translated, then hidden, then shown again. */
static void code(void)
{
	static const uint8_t one[] = { 0xb8, 1, 0, 0, 0, 0xc3 }, two[] = { 0xb8, 2, 0, 0, 0, 0xc3 };
	int (*function)(void) = (int (*)(void))(uintptr_t)a;
	bool good = true;

	wrmsr(MSR_ASSIST, gpa(b) | 1);
	for (unsigned n = 0; n < sizeof(one); n++)
		((volatile uint8_t *)a)[n] = one[n], ((volatile uint8_t *)b)[n] = two[n];
	wrmsr(MSR_ASSIST, 0);
	for (int n = 0; n < 100; n++) {
		good &= function() == 1;
		wrmsr(MSR_ASSIST, gpa(a) | 1);
		good &= function() == 2;
		wrmsr(MSR_ASSIST, 0);
	}
	check("code follows the overlay", good);
}

/* A page table in RAM that an overlay hides: the walk sees the overlay. */
static void tables(void)
{
	uint64_t *entry = map_page(0x4000000000, gpa(b), PAGE_P | PAGE_W),
		 *table = (uint64_t *)(gpa(entry) & ~(uint64_t)PAGE_OFFSET);
	volatile uint64_t *mapped = (volatile uint64_t *)0x4000000000;
	unsigned n = (unsigned)(entry - table);

	b[7] = 700;
	a[7] = 800;
	check_equal("mapped", mapped[7], 700);
	wrmsr(MSR_SIEFP, gpa(table) | 1);
	table[n] = gpa(a) | PAGE_P | PAGE_W; /* into the overlay */
	invlpg(gpa(mapped));
	check_equal("the table in the overlay", mapped[7], 800);
	wrmsr(MSR_SIEFP, 0);
	invlpg(gpa(mapped));
	check_equal("the table in RAM", mapped[7], 700);
	check_equal("it was not changed", table[n] & ~(uint64_t)PAGE_OFFSET, gpa(b));
}

void test_main(void)
{
	struct umbra umbra;

	a = new_page();
	b = new_page();
	hypercall_page();
	umbra_find(&umbra);
	umbra_enable(&umbra, OS_ID, gpa(a), (void *)(uintptr_t)a);
	wrmsr(MSR_HYPERCALL, 0);
	((volatile uint8_t *)a)[0] = 0x0f, ((volatile uint8_t *)a)[1] = 0x01,
			   ((volatile uint8_t *)a)[2] = 0xc1;
	check_equal("the instruction without a page", try_code(no_call, &umbra) == 6 ? TRAP(6) : 0,
		    TRAP(6));
	contents_kept();
	beyond_ram();
	code();
	tables();
}
