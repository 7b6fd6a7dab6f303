/*
 * What stops an access, or does not: aligned operands (#AC), elements that a mask disables,
 * breakpoints on ports, and RDPMC's right.
 */
#include "guest.h"

#define AT 0x40000000ull /* code, a stack, and then nothing */
#define STACK_TOP (AT + 2 * PAGE_BYTES)
enum { DONE = 0x80, DEBUG = 1, GENERAL = 13, PAGE_FAULT = 14, ALIGNMENT = 17 };

#define CODE(name, text)                                                                    \
	__asm__(".globl " #name ", " #name "_end\n" #name ": " text "; int $0x80\n" #name    \
		"_end:");                                                                   \
	extern const uint8_t name[], name##_end[];

/* ---- alignment ---- */

#define LONG_CODE 0x33
CODE(load, "movl $0x40001001, %esi; movl (%rsi), %eax")
CODE(load_byte, "movl $0x40001001, %esi; movb (%rsi), %al; movl $4, %eax")
CODE(load_aligned, "movl $0x40001004, %esi; movl $11, (%rsi); movl (%rsi), %eax")
CODE(load_long, "movl $0x40001004, %esi; movq (%rsi), %rax")
CODE(push_odd, "subq $1, %rsp; pushq %rax")
CODE(call_odd, "subq $1, %rsp; call .")
CODE(string_odd, "movl $0x40001002, %edi; xorl %eax, %eax; stosl")
CODE(clear, "pushfq; andl $~0x40000, (%rsp); popfq; movl $0x40001001, %esi; "
     "movl (%rsi), %eax; movl $2, %eax")
CODE(set, "pushfq; orl $0x40000, (%rsp); popfq; movl $0x40001001, %esi; movl (%rsi), %eax")
CODE(system_call, "syscall; movl $0x40001001, %esi; movl (%rsi), %eax; movl $2, %eax")

static void run_long(const char *name, const uint8_t *code, const uint8_t *end, int64_t vector,
		     uint64_t rax)
{
	static const struct user_place place = { AT, STACK_TOP, LONG_CODE };

	check_user_code(&place, name, code, end, vector, rax);
}

#define RUN_LONG(name, vector, rax) run_long(#name, name, name##_end, vector, rax)

static volatile uint64_t last_dr6;

static bool note_debug(struct frame *frame)
{
	if (frame->vector != DEBUG)
		return false;
	__asm__ volatile("mov %%dr6, %0" : "=r"(last_dr6));
	__asm__ volatile("mov %0, %%dr6" : : "r"(0ull));
	return true;
}

/* Comes back with AC set. */
__asm__("sysret_with_ac: orl $0x40000, %r11d; sysretq");
extern const uint8_t sysret_with_ac[];

static void alignment(void)
{
	enum { FLAG_TF = 0x100, FLAG_AC = 0x40000, CR0_AM = 0x40000 };

	try_flags = 2 | FLAG_AC;
	RUN_LONG(load, DONE, 0);
	write_cr0(read_cr0() | CR0_AM);
	RUN_LONG(load, ALIGNMENT, 0);
	check_equal("the error code", last.code, 0);
	RUN_LONG(load_byte, DONE, 4);
	RUN_LONG(load_aligned, DONE, 11);
	RUN_LONG(load_long, ALIGNMENT, 0);
	RUN_LONG(push_odd, ALIGNMENT, 0);
	RUN_LONG(call_odd, ALIGNMENT, 0);
	RUN_LONG(string_odd, ALIGNMENT, 0);
	RUN_LONG(clear, DONE, 2);
	try_flags = 2;
	RUN_LONG(set, ALIGNMENT, 0);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
	wrmsr(0xc0000081, 0x20ull << 48 | 8ull << 32);
	wrmsr(0xc0000082, (uint64_t)sysret_with_ac);
	wrmsr(0xc0000084, 0);
	RUN_LONG(system_call, ALIGNMENT, 0);
	/* each instruction is checked, executed, and then stepped */
	on_trap = note_debug;
	try_flags = 2 | FLAG_AC | FLAG_TF;
	RUN_LONG(load_aligned, DONE, 11);
	check_equal("and stepped", last_dr6 >> 14 & 1, 1);
	on_trap = NULL;
	try_flags = 2;
	write_cr0(read_cr0() & ~(uint64_t)CR0_AM);
}

/* ---- masks ---- */

static bool has_avx2(void)
{
	uint32_t eax = 1, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (!(ecx >> 28 & 1))
		return false;
	eax = 7;
	ecx = 0;
	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return ebx >> 5 & 1;
}

static uint32_t mask[8] __attribute__((aligned(32)));
static uint32_t data[8] __attribute__((aligned(32)));
static uint32_t result[8] __attribute__((aligned(32)));

#define END STACK_TOP /* nothing is there */

static void load_masked(void *at)
{
	__asm__ volatile("vmovdqa %1, %%ymm1; vmovdqa %2, %%ymm0; vpmaskmovd (%3), %%ymm1, %%ymm0;"
			 "vmovdqa %%ymm0, %0"
			 : "=m"(result)
			 : "m"(mask), "m"(data), "r"(at));
}

static void store_masked(void *at)
{
	__asm__ volatile("vmovdqa %0, %%ymm1; vmovdqa %1, %%ymm0; vmaskmovps %%ymm0, %%ymm1, (%2)"
			 :
			 : "m"(mask), "m"(data), "r"(at)
			 : "memory");
}

static void masks(void)
{
	volatile uint32_t *last_words = (volatile uint32_t *)(END - 16);

	if (!has_avx2())
		return;
	write_cr4(read_cr4() | 1 << 18);
	__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	for (unsigned n = 0; n < 8; n++) {
		data[n] = 0x100 + n;
		mask[n] = n == 1 || n == 3 ? 0x80000000 : 0x7fffffff;
	}
	for (unsigned n = 0; n < 4; n++)
		last_words[n] = n;
	check_equal("a masked load across the end",
		    (uint64_t)try_code(load_masked, (void *)(END - 16)), ~0ull);
	check("loads what is enabled, zeros the rest",
	      result[1] == 1 && result[3] == 3 && !result[0] && !result[2] && !result[5]);
	check_equal("a masked store across the end",
		    (uint64_t)try_code(store_masked, (void *)(END - 16)), ~0ull);
	check("stores what is enabled", last_words[0] == 0 && last_words[1] == 0x101 &&
						last_words[2] == 2 && last_words[3] == 0x103);
	mask[4] = 0x80000000;
	check_equal("an element that is not there",
		    (uint64_t)try_code(load_masked, (void *)(END - 16)), PAGE_FAULT);
	check_equal("its address", last_cr2, END);
	check_equal("and for a store", (uint64_t)try_code(store_masked, (void *)(END - 16)),
		    PAGE_FAULT);
	for (unsigned n = 0; n < 8; n++)
		mask[n] = 0;
	check_equal("none enabled", (uint64_t)try_code(store_masked, (void *)END), ~0ull);
}

/* ---- ports ---- */

static void set_port_breakpoint(uint64_t dr7)
{
	last_dr6 = 0;
	__asm__ volatile("mov %0, %%dr0" : : "r"(0x81ull));
	__asm__ volatile("mov %0, %%dr6" : : "r"(0ull));
	__asm__ volatile("mov %0, %%dr7" : : "r"(dr7));
}

static void ports(void)
{
	const uint64_t on = 0x400 | 2 | 2 << 16; /* of one byte */

	on_trap = note_debug;
	write_cr4(read_cr4() | 8);
	set_port_breakpoint(on);
	outb(0x80, 0);
	check_equal("a port beside the breakpoint", last_dr6, 0);
	outb(0x81, 0);
	check_equal("a breakpoint on a port", last_dr6 & 0xf, 1);
	set_port_breakpoint(on);
	__asm__ volatile("outw %%ax, %%dx" : : "a"(0), "d"(0x80));
	check_equal("a port of two bytes that holds it", last_dr6 & 0xf, 1);
	set_port_breakpoint(on);
	__asm__ volatile("outsb" : : "S"(&mask), "d"(0x81));
	check_equal("and by a string", last_dr6 & 0xf, 1);
	set_port_breakpoint(0x400);
	outb(0x81, 0);
	check_equal("disabled", last_dr6, 0);
	on_trap = 0;
}

/* ---- RDPMC ---- */

static void read_counter(void *number)
{
	__asm__ volatile("rdpmc" : : "c"(number) : "rax", "rdx");
}

CODE(counter_of_user, "xorl %ecx, %ecx; rdpmc; movl $1, %eax")

static void counters(void)
{
	uint32_t eax = 0, ebx, ecx, edx;
	int64_t there;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	there = ecx == 0x444d4163 ? -1 : GENERAL; /* "cAMD" */
	check_equal("RDPMC", (uint64_t)try_code(read_counter, (void *)0), (uint64_t)there);
	check_equal("of a counter that is not there", (uint64_t)try_code(read_counter, (void *)99),
		    GENERAL);
	RUN_LONG(counter_of_user, GENERAL, 0);
	write_cr4(read_cr4() | 1 << 8);
	RUN_LONG(counter_of_user, there < 0 ? DONE : GENERAL, 1);
}

void test_main(void)
{
	map_user_pages(AT, 2);
	alignment();
	masks();
	ports();
	counters();
}
