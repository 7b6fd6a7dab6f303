/*
 * The four conventions, rep calls and their restart, and every call that needs one processor only.
 */
#include "hv.h"

static void conventions(void)
{
	uint64_t *in = input_page(), *out = output_page(), registers[14] = { 0 };

	check_equal("fast, no output", umbra_call(&hv, umbra_fast(UMBRA_CALL_NULL), 0, 0), 0);
	check_equal("memory, no output", umbra_call(&hv, UMBRA_CALL_NULL, gpa(in), 0), 0);
	check_equal("memory, output", umbra_call(&hv, 0x8001, 0, gpa(out)), 0);
	check_equal("its value", out[0], 0x103);
	check_equal("fast, output", umbra_call_xmm(&hv, umbra_fast(0x8001), registers), 0);
	check_equal("in the first register", registers[0], 0x103);
	in[0] = ~0ull;
	in[1] = 0xfffffffe;
	((uint32_t *)in)[4] = 0x90003;  /* VP index */
	((uint32_t *)in)[5] = 0x90002;  /* guest OS id */
	check_equal("rep, memory", umbra_call(&hv, umbra_rep(0x50, 2), gpa(in), gpa(out)),
		    2ull << 32);
	check("its values", out[0] == 0 && out[2] == OS_ID);
	registers[0] = in[0], registers[1] = in[1], registers[2] = in[2];
	check_equal("rep, XMM", umbra_call_xmm(&hv, umbra_fast(0) | umbra_rep(0x50, 2), registers),
		    2ull << 32);
	check("its values, after the input rounded up",
	      registers[4] == 0 && registers[6] == OS_ID && registers[2] == in[2]);
	out[0] = out[2] = 9;
	check_equal("rep from the second element",
		    umbra_call(&hv, umbra_rep(0x50, 2) | 1ull << 48, gpa(in), gpa(out)),
		    2ull << 32);
	check("the first is left alone", out[0] == 9 && out[2] == OS_ID);
	((uint32_t *)in)[5] = 0x12345678;
	in[0] = ~0ull;
	out[0] = 9;
	check_equal("rep that fails in the middle",
		    umbra_call(&hv, umbra_rep(0x50, 2), gpa(in), gpa(out)),
		    1ull << 32 | UMBRA_BAD_PARAMETER);
	check_equal("what was done is there", out[0], 0);
	in[0] = 0, in[1] = 1, in[2] = 1, in[3] = 1, in[4] = 1;
	check_equal("a variable header", umbra_call(&hv, umbra_with_header(0x13, 8), gpa(in), 0),
		    0);
	check_equal("a variable header and elements",
		    umbra_call(&hv, umbra_with_header(umbra_rep(0x14, 3), 8), gpa(in), 0),
		    3ull << 32);
	registers[0] = 0, registers[1] = 0, registers[2] = 0, registers[3] = 1, registers[4] = 1;
	check_equal("a variable header, XMM",
		    umbra_call_xmm(&hv, umbra_with_header(umbra_fast(0x13), 8), registers), 0);
}

static void own_registers(void)
{
	uint64_t *in = input_page(), *out = output_page();
	static const uint32_t names[] = { 0x40000, 0x40002, 0x60002, 0x70001, 0x20004, 0x80001 };
	struct { uint16_t limit; uint64_t base; } __attribute__((packed)) gdtr;

	__asm__ volatile("sgdt %0" : "=m"(gdtr));
	in[0] = ~0ull;
	in[1] = 0xfffffffe;
	for (unsigned n = 0; n < 6; n++)
		((uint32_t *)in)[4 + n] = names[n];
	check_equal("own registers", umbra_call(&hv, umbra_rep(0x50, 6), gpa(in), gpa(out)),
		    6ull << 32);
	check_equal("CR0", out[0], read_cr0());
	check_equal("CR3", out[2], read_cr3());
	check_equal("SS selector", (uint16_t)(out[5] >> 32), 0x10);
	check("GDTR", out[7] == gdtr.base && out[6] >> 48 == gdtr.limit);
	check("RSP", out[8] > 0x100000 && out[8] < 0x10000000);
	check_equal("EFER", out[10], rdmsr(0xc0000080));
}

static uint64_t *list;

/*
 * 400 elements of 64 KiB each take far more than a slice: the call is executed again, and
 * interrupts come in between.
 */
static void restart(void)
{
	uint8_t *memory = (uint8_t *)0x8000000;
	uint64_t status, *in = input_page();

	count_interrupts();
	in[0] = UMBRA_ZERO;
	for (unsigned n = 0; n < 400; n++) {
		in[1 + n] = gpa(memory) + 65536 * (uint64_t)n + 15;
		memory[65536 * n] = memory[65536 * n + 65535] = 1;
	}
	wrmsr(MSR_TIMER0, 1 | 2 | 1 << 12 | 0x40 << 4); /* periodic, direct */
	wrmsr(MSR_TIMER0 + 1, 1000);                    /* 100 us */
	wrmsr(MSR_TIMER0, 1 | 2 | 1 << 12 | 0x40 << 4);
	sti();
	taken[0x40] = 0;
	status = umbra_call(&hv, umbra_rep(UMBRA_CALL_PAGES, 400), gpa(in), gpa(list));
	cli();
	check_equal("a long rep call", status, 400ull << 32);
	check("interrupts came in the middle", taken[0x40] >= 3);
	for (unsigned n = 0; n < 400 && status; n++)
		status = !memory[65536 * n] && !memory[65536 * n + 65535];
	check("all of it was done", status);
	wrmsr(MSR_TIMER0, 0);
}

/*
 * The interrupt handler changes the list under a call's feet: what is read later counts, and is
 * checked.
 */
static bool spoil(struct frame *frame)
{
	if (frame->vector != 0x41)
		return false;
	if (!taken[0x41]++)
		for (unsigned n = 0; n < 400; n++)
			list[1 + n] = 0xf0000000; /* no memory there */
	wrmsr(0x80b, 0);
	return true;
}

/* The call's result, which the interrupt comes into: 150 us after its begin. */
static uint64_t spoiled_call(void)
{
	uint64_t status;

	for (unsigned n = 0; n < 400; n++)
		list[1 + n] = 0x8000000 + 65536 * (uint64_t)n + 15;
	list[0] = UMBRA_CHECKSUM;
	taken[0x41] = 0;
	wrmsr(MSR_TIMER0 + 1, 0);
	wrmsr(MSR_TIMER0, 1 << 3 | 1 << 12 | 0x41 << 4);
	sti();
	wrmsr(MSR_TIMER0 + 1, rdmsr(MSR_TIME) + 1500);
	status = umbra_call(&hv, umbra_rep(UMBRA_CALL_PAGES, 400), gpa(list), gpa(output_page()));
	cli();
	return status;
}

static void change_of_mind(void)
{
	uint64_t status = 0;
	uint64_t done = 0;

	on_trap = spoil;
	/* on a busy host the interrupt may come before the first element, or after the last */
	for (unsigned n = 0; n < 50 && (!done || done == 400); n++) {
		status = spoiled_call();
		done = status >> 32 & REP_MASK;
	}
	check("it was changed in the middle", taken[0x41] == 1);
	check_equal("refused from there on", status & 0xffff, UMBRA_BAD_PARAMETER);
	check("after some were done", done && done < 400);
}

static void hints(void)
{
	uint64_t *in = input_page();
	volatile uint64_t *memory = (volatile uint64_t *)0x8000000;

	memory[0] = memory[0x40000] = 5;
	in[0] = 2;
	in[1] = 0x8000000 | 1 << 11 | 1; /* two large pages */
	check_equal("memory heat hint", umbra_call(&hv, umbra_rep(0x8003, 1), gpa(in), 0),
		    1ull << 32);
	check("cold memory was given away", !memory[0] && !memory[0x40000]);
	check_equal("boot-zeroed memory", umbra_call(&hv, 0x8002, 0, gpa(output_page())), 0);
}

void test_main(void)
{
	hv_open();
	list = new_page();
	conventions();
	own_registers();
	restart();
	change_of_mind();
	hints();
	check_equal("long spin wait", umbra_call(&hv, umbra_fast(8), 1000, 0), 0);
}
