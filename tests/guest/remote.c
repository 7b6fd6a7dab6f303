/*
 * Several processors: remote flushes by every call are exact, processors that flush each other go
 * on, interrupts to sets of them.
 */
#include "hv.h"

enum {
	ROUNDS = 1000,
	FEW_ROUNDS = 160 /* more processors than the host may have: each waits for all */,
	VECTOR = 0x70,
	OTHERS_MAX = 16
};

static volatile uint64_t *const window = (volatile uint64_t *)0x5000000000;
static uint64_t *entry;
static volatile uint64_t epoch __attribute__((aligned(64)));
static volatile uint32_t phase __attribute__((aligned(64))), stale, reads[17], got[17], ready,
	total, mutual[17];
static uint64_t *frames[2];
static uint64_t *inputs[17];

static uint64_t flush(unsigned me, unsigned how, uint64_t targets)
{
	uint64_t *in = inputs[me];

	for (int n = 0; n < 8; n++)
		in[n] = 0;
	switch (how) {
	case 0:
		in[1] = 2, in[2] = targets, in[3] = (uint64_t)window;
		return umbra_call(&hv, umbra_rep(3, 1), gpa(in), 0) - (1ull << 32);
	case 1: in[1] = 2, in[2] = targets; return umbra_call(&hv, 2, gpa(in), 0);
	case 2: in[1] = 3; return umbra_call(&hv, 2, gpa(in), 0); /* all processors */
	case 3:
		in[1] = 2, in[2] = 0, in[3] = 1, in[4] = targets;
		return umbra_call(&hv, umbra_with_header(0x13, 8), gpa(in), 0);
	case 4: in[1] = 2, in[2] = 1; return umbra_call(&hv, 0x13, gpa(in), 0); /* the set of all */
	case 5: in[1] = 2, in[2] = 0, in[3] = 1, in[4] = targets, in[5] = (uint64_t)window;
		return umbra_call(&hv, umbra_with_header(umbra_rep(0x14, 1), 8), gpa(in), 0) -
		       (1ull << 32);
	default:
		in[1] = 2 | 8, in[2] = targets,
		in[3] = (uint64_t)window | 1 << 11; /* a large page's worth */
		return umbra_call(&hv, umbra_rep(3, 1), gpa(in), 0) - (1ull << 32);
	}
}

static bool on_vector(struct frame *frame)
{
	if (frame->vector != VECTOR)
		return false;
	got[apic_id()]++;
	wrmsr(0x80b, 0);
	return true;
}

void test_other(unsigned me)
{
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	sti();
	while (phase == 0)
		cpu_relax();
	for (; phase == 1; reads[me]++) {
		uint64_t before = epoch;

		__asm__ volatile("" : : : "memory");
		if (*window < before)
			__atomic_add_fetch(&stale, 1, __ATOMIC_SEQ_CST);
	}
	for (; phase == 2; mutual[me]++)
		flush(me, mutual[me] % 7, ~0ull);
	for (;;)
		__asm__ volatile("sti; hlt");
}

static void exact(unsigned how, const char *name)
{
	uint64_t bad = 0;

	for (unsigned n = 0; n < (total > 2 ? FEW_ROUNDS / total : ROUNDS); n++) {
		uint64_t next = epoch + 1;
		uint64_t *frame = frames[next & 1];

		*frame = next;
		__atomic_store_n(entry, gpa(frame) | PAGE_P | PAGE_W | PAGE_G, __ATOMIC_SEQ_CST);
		bad |= flush(0, how, ~0ull);
		epoch = next;
		for (int k = 0; k < 20; k++)
			cpu_relax();
	}
	check(name, !bad && !stale);
}

static void send_interrupts(void)
{
	uint64_t *in = inputs[0], all = 0;
	unsigned n;

	check_equal("an interrupt to all but this one",
		    umbra_call(&hv, umbra_fast(0xb), VECTOR, ~1ull), 0);
	in[0] = VECTOR;
	in[1] = 0;
	in[2] = 1;
	in[3] = ~1ull;
	for (n = 1; n < total; n++)
		while (!got[n])
			cpu_relax();
	check_equal("and by a sparse set", umbra_call(&hv, umbra_with_header(0x15, 8), gpa(in), 0),
		    0);
	for (n = 1; n < total; n++)
		while (got[n] < 2)
			cpu_relax();
	in[1] = 1;
	sti();
	check_equal("to all", umbra_call(&hv, 0x15, gpa(in), 0), 0);
	for (n = 0; n < total; n++)
		while (got[n] < (n ? 3 : 1))
			cpu_relax();
	cli();
	for (n = 0; n < total; n++)
		all += got[n];
	check_equal("each came once", all, 3 * (total - 1) + 1);
}

enum { MUTUAL_ROUNDS = 12 };

void test_main(void)
{
	static const char *const names[] = { "flush list",
					     "flush space",
					     "flush space, all processors",
					     "flush space ex, sparse",
					     "flush space ex, all",
					     "flush list ex",
					     "flush list, extended range" };
	uint64_t end;
	unsigned n;

	hv_open();
	on_trap = on_vector;
	for (n = 0; n < 17; n++)
		inputs[n] = new_page();
	frames[0] = new_page();
	frames[1] = new_page();
	entry = map_page((uint64_t)window, gpa(frames[0]), PAGE_P | PAGE_W | PAGE_G);
	write_cr4(read_cr4() | 0x80);
	total = start_processors();
	while (ready < total - 1)
		cpu_relax();
	phase = 1;
	for (unsigned how = 0; how < 7; how++)
		exact(how, names[how]);
	for (n = 1; n < total && reads[n]; n++)
		;
	check_equal("the others were looking", n, total);
	phase = 2;
	end = rdmsr(MSR_TIME) + 2000000;
	/* with more processors than the host has, a round may take a scheduler's slice for each */
	for (n = 0; n < MUTUAL_ROUNDS || rdmsr(MSR_TIME) < end; n++)
		flush(0, n % 7, ~0ull);
	phase = 3;
	check("all flush each other", true);
	send_interrupts();
}
