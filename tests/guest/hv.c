/* See hv.h. */
#include "hv.h"

struct umbra hv;
volatile uint32_t taken[256];

void hv_open(void)
{
	void *page = new_page();

	bool open = umbra_find(&hv) && umbra_enable(&hv, OS_ID, gpa(page), page);

	if (!open || (hv_is_umbra() && umbra_agree(&hv, ~0u, UMBRA_1_0))) {
		check("the hypervisor is there", false);
		finish();
	}
}

void check_act(const char *name, uint64_t got, uint64_t want)
{
	bool as_wanted = got == want;

	check_begin(as_wanted || !hv_is_umbra());
	print(name);
	print(": ");
	print_number(got);
	if (!as_wanted) {
		print(" instead of ");
		print_number(want);
	}
	print("\n");
}

static uint64_t last_value;
struct msr_access { uint32_t msr; uint64_t value; };
static void do_rdmsr(void *a) { last_value = rdmsr(((struct msr_access *)a)->msr); }
static void do_wrmsr(void *a)
{
	wrmsr(((struct msr_access *)a)->msr, ((struct msr_access *)a)->value);
}
static void do_store(void *at) { *(volatile uint8_t *)at = 1; }

int64_t try_rdmsr(uint32_t msr)
{
	struct msr_access a = { msr, 0 };

	return try_code(do_rdmsr, &a);
}

int64_t try_wrmsr(uint32_t msr, uint64_t value)
{
	struct msr_access a = { msr, value };

	return try_code(do_wrmsr, &a);
}

static uint64_t outcome(int64_t vector, uint64_t otherwise)
{
	return vector >= 0 ? TRAP((uint64_t)vector) : otherwise;
}
uint64_t outcome_of_wrmsr(uint32_t msr, uint64_t value)
{
	return outcome(try_wrmsr(msr, value), 0);
}
uint64_t outcome_of_rdmsr(uint32_t msr) { return outcome(try_rdmsr(msr), last_value); }
uint64_t outcome_of_store(volatile void *at)
{
	return outcome(try_code(do_store, (void *)(uintptr_t)at), 0);
}

static bool on_interrupt(struct frame *frame)
{
	if (frame->vector < 32)
		return false;
	taken[frame->vector]++;
	wrmsr(0x80b, 0);
	return true;
}

void count_interrupts(void)
{
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	on_trap = on_interrupt;
}

static uint64_t *clean(uint64_t **page)
{
	if (!*page)
		*page = new_page();
	for (int n = 0; n < 512; n++)
		(*page)[n] = 0;
	return *page;
}

uint64_t *input_page(void) { static uint64_t *page; return clean(&page); }
uint64_t *output_page(void) { static uint64_t *page; return clean(&page); }
