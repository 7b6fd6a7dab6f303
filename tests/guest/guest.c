/*
 * What every guest begins with and shares: its processors come here out of start.S, exceptions are
 * handed to whoever asked for them, checks are counted and said, and pages are mapped.
 */
#include "guest.h"

extern uint64_t page_tables[], gdt[], try_stack;
extern char stubs[], try_resume[], trampoline[], trampoline_end[];
extern volatile uint32_t cpu_count;
void guest_main(void);
void guest_other(unsigned index);
void guest_trap(struct frame *frame);

struct frame last;
uint64_t last_cr2;
bool (*on_trap)(struct frame *frame);

static struct { uint64_t low, high; } idt[256] __attribute__((aligned(16)));
static struct {
	uint32_t reserved;
	uint64_t rsp[3], zero, ist[7];
	uint8_t rest[10];
	uint16_t io_map;
} __attribute__((packed)) tss[17];
static uint8_t trap_stacks[17][2][16384] __attribute__((aligned(16)));
static uint8_t pages[2048][PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
static unsigned pages_used;

void set_gate(unsigned vector, void *handler, unsigned ist, unsigned dpl)
{
	uint64_t a = (uint64_t)handler;

	idt[vector].low = (a & 0xffff) | 8ull << 16 | (uint64_t)ist << 32 |
			  (0x8e00ull | dpl << 13) << 32 | (a >> 16 & 0xffff) << 48;
	idt[vector].high = a >> 32;
}

void use_trap_stack(unsigned vector) { set_gate(vector, stubs + 16 * vector, 1, 0); }

static void load_tables(unsigned index)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, (uint64_t)idt };
	uint64_t base = (uint64_t)&tss[index];

	tss[index].rsp[0] = (uint64_t)trap_stacks[index][0] + 16384;
	tss[index].ist[0] = (uint64_t)trap_stacks[index][1] + 16384;
	tss[index].io_map = sizeof(tss[0]); /* none: behind the limit */
	gdt[9 + 2 * index] =
		0x0000890000000067ull | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
	gdt[10 + 2 * index] = base >> 32;
	__asm__ volatile("lidt %0; ltr %w1" : : "m"(idtr), "r"(0x48 + 16 * index));
}

void guest_main(void)
{
	for (unsigned value = 0; value < 256; value++)
		set_gate(value, stubs + 16 * value, 0, value == 3 || value == 0x80 ? 3 : 0);
	load_tables(0);
	test_main();
	finish();
}

__attribute__((weak)) void test_other(unsigned index) { (void)index; }

void guest_other(unsigned index)
{
	load_tables(index);
	test_other(index);
	for (;;)
		__asm__ volatile("hlt");
}

void guest_trap(struct frame *frame)
{
	__asm__ volatile("mov %%cr2, %0" : "=r"(last_cr2));
	last = *frame;
	if (on_trap && on_trap(frame))
		return;
	if (!try_stack) {
		check_begin(false);
		print("unexpected trap ");
		print_number(frame->vector);
		print(" at ");
		print_number(frame->rip);
		print("\n");
		finish();
	}
	frame->rax = frame->vector;
	frame->rip = (uint64_t)try_resume;
	frame->cs = 8;
	frame->ss = 0x10;
	frame->rsp = try_stack - 128;
	frame->rflags = 2;
}

void *new_page(void)
{
	/* processors take theirs at the same time */
	uint8_t *page = pages[__atomic_fetch_add(&pages_used, 1, __ATOMIC_SEQ_CST)];

	for (int n = 0; n < PAGE_BYTES; n++)
		page[n] = 0;
	return page;
}

uint64_t *map_page(uint64_t gva, uint64_t gpa, uint64_t flags)
{
	uint64_t *table = page_tables;

	for (int level = 3; level > 0; level--) {
		uint64_t *entry = &table[gva >> (12 + 9 * level) & 511];

		if (!(*entry & PAGE_P) || *entry & 0x80)
			*entry = (uint64_t)new_page() | 7;
		table = (uint64_t *)(*entry & 0xffffffffff000ull);
	}
	table[gva >> 12 & 511] = gpa | flags;
	invlpg(gva);
	return &table[gva >> 12 & 511];
}

unsigned apic_id(void) { return (unsigned)rdmsr(0x802); }

static void wait_cycles(uint64_t cycles)
{
	uint64_t end = rdtsc() + cycles;

	while (rdtsc() < end)
		cpu_relax();
}

unsigned start_processors(void)
{
	uint64_t total = 1;
	uint32_t eax = 1, ebx, ecx, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	total = ebx >> 16 & 0xff;
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	for (char *from = trampoline, *to = (char *)0x8000; from < trampoline_end;)
		*to++ = *from++;
	wrmsr(0x830, 0xc4500);
	wait_cycles(1000000);
	wrmsr(0x830, 0xc4608);
	while (cpu_count < total)
		cpu_relax();
	return (unsigned)total;
}

/* ---- code of users ---- */

void map_user_pages(uint64_t gva, unsigned pages)
{
	for (unsigned n = 0; n < pages; n++)
		map_page(gva + n * PAGE_BYTES, (uint64_t)new_page(), PAGE_P | PAGE_W | PAGE_U);
}

void put_code(uint64_t gva, const uint8_t *code, const uint8_t *end)
{
	while (code < end)
		*(volatile uint8_t *)gva++ = *code++;
}

bool check_user_code(const struct user_place *place, const char *name, const uint8_t *code,
		     const uint8_t *end, int64_t vector, uint64_t rax)
{
	put_code(place->gva, code, end);
	check_equal(name,
		    (uint64_t)try_user((void (*)(void))place->gva, place->stack, place->selector),
		    (uint64_t)vector);
	if (vector != USER_DONE)
		return false;
	check_equal("its result", last.rax, rax);
	return true;
}
