/*
 * SYSCALL and SYSRET with every kind of flags, by two ways: with SMAP on translated code does them
 * in place, with SMAP off C does (src/engine/soft/translate/translate_level.c). Both must leave the
 * same, and that is what the SDM says. CLD, STD, RDTSCP, FS and GS bases and reads of control
 * registers beside them.
 */
#include "guest.h"

#define AT 0x40000000ull
#define STACK (AT + (1 << 12))
enum { STAR = 0xc0000081, LSTAR = 0xc0000082, SFMASK = 0xc0000084, TSC_AUX = 0xc0000103 };
enum { KERNEL_CODE = 8, USER_BASE = 0x23, USER_CODE = 0x33, USER_DATA = 0x2b };
enum { SMAP = 1 << 21, FSGSBASE = 1 << 16, MASK = 0x47700 };
enum { ARITHMETIC = 0x8d5, DF = 0x400, IF = 0x200, AC = 0x40000, ID = 0x200000, RESERVED = 2 };

/* What the kernel finds, and what it goes back with. */
struct seen { uint64_t rcx, r11, rflags, cs, ss, rbx; };
struct seen seen;
uint64_t user_flags, return_flags, user_rsp;

__asm__(".bss; .balign 16; .skip 1024; kernel_stack_end: .text\n"
	"user_call: popfq; mov $5, %eax; syscall\n"
	"behind_call: pushfq; popq %rbx; mov %ss, %esi; mov %cs, %edi; int $0x80\n"
	"user_call_end:\n"
	"level_entry: mov %rsp, user_rsp; mov $kernel_stack_end, %rsp\n"
	"mov %rcx, seen; mov %r11, seen + 8; pushfq; popq seen + 16\n"
	"mov %cs, %eax; mov %rax, seen + 24; mov %ss, %eax; mov %rax, seen + 32\n"
	"mov user_rsp, %rsp; mov return_flags, %r11; sysretq\n");
extern const uint8_t user_call[], behind_call[], user_call_end[], level_entry[];

static void prepare(void)
{
	void *code = new_page();
	void *stack = new_page();

	write_cr4(read_cr4() & ~(uint64_t)SMAP);
	map_page(AT, (uint64_t)code, PAGE_P | PAGE_W | PAGE_U);
	map_page(STACK, (uint64_t)stack, PAGE_P | PAGE_W | PAGE_U);
	for (unsigned n = 0; user_call + n < user_call_end; n++)
		((volatile uint8_t *)AT)[n] = user_call[n];
	wrmsr(STAR, (uint64_t)USER_BASE << 48 | (uint64_t)KERNEL_CODE << 32);
	wrmsr(LSTAR, (uint64_t)level_entry);
	wrmsr(SFMASK, MASK);
}

/* The call with these flags; whether it came back through INT 0x80. */
static bool call(uint64_t flags, uint64_t back, bool smap)
{
	volatile uint64_t *stack = (volatile uint64_t *)(STACK);
	uint64_t cr4 = read_cr4() & ~(uint64_t)SMAP;
	int64_t vector;

	write_cr4(cr4);
	stack[256] = flags;
	return_flags = back;
	seen = (struct seen){ 0 };
	if (smap)
		write_cr4(cr4 | SMAP);
	vector = try_user((void (*)(void))AT, (uint64_t)&stack[256], USER_CODE);
	write_cr4(cr4);
	seen.rbx = last.rbx;
	return vector == 0x80;
}

static void check_call(const char *name, uint64_t flags, uint64_t back, bool smap)
{
	uint64_t want = flags | RESERVED;
	bool good = call(flags, back, smap);

	good &= seen.rcx == AT + (uint64_t)(behind_call - user_call);
	good &= seen.r11 == want && seen.rflags == (want & ~(uint64_t)MASK);
	good &= seen.cs == KERNEL_CODE && seen.ss == KERNEL_CODE + 8;
	good &= seen.rbx == ((back & 0x3c7fd7) | RESERVED);
	good &= (last.rsi & 0xffff) == USER_DATA && (last.rdi & 0xffff) == USER_CODE;
	good &= last.rsp == STACK + 257 * 8;
	check(name, good);
}

static void calls(bool smap)
{
	check_call(smap ? "SYSCALL in place" : "SYSCALL by C", 0, 0, smap);
	check_call("arithmetic flags go in", ARITHMETIC, 0, smap);
	check_call("arithmetic flags come back", 0, ARITHMETIC, smap);
	check_call("each its own", 0x41, 0x894, smap);
	check_call("DF, which the mask clears", DF | 1, DF | 0x80, smap);
	check_call("ID, which it does not", ID, ID | 4, smap);
	check_call("AC", AC, AC, smap);
	check_call("RF and VM are none of SYSRET's", 0, 0x30000, smap);
}

/* ---- registers of the system */

#define TRY(name, text)                                                                            \
	static void name(void *a)                                                                  \
	{                                                                                          \
		(void)a;                                                                           \
		__asm__ volatile(text : : : "rax", "r10", "memory");                               \
	}
TRY(write_bad_base, "mov $1, %%rax; shl $60, %%rax; wrgsbase %%rax")
TRY(write_bad_base_r10, "mov $1, %%r10; shl $60, %%r10; wrfsbase %%r10")
TRY(read_base, "rdfsbase %%rax")

static void bases(void)
{
	uint64_t value, other;
	uint64_t fs = rdmsr(0xc0000100);

	write_cr4(read_cr4() & ~(uint64_t)FSGSBASE);
	check_equal("RDFSBASE without CR4.FSGSBASE", (uint64_t)try_code(read_base, NULL), 6);
	write_cr4(read_cr4() | FSGSBASE);
	__asm__ volatile("wrfsbase %2; stc; rdfsbase %0; mov %0, %%r10; wrfsbase %%r10d;"
			 "setc %b1; rdfsbase %%r10; mov %%r10, %0"
			 : "=&r"(value), "=&a"(other)
			 : "r"(0xffff812345678000)
			 : "r10");
	check_equal("a base of 32 bits", value, 0x45678000);
	check_equal("no flag changes", other & 0xff, 1);
	check_equal("a base that is not canonical", (uint64_t)try_code(write_bad_base, NULL), 13);
	check_equal("in r10", (uint64_t)try_code(write_bad_base_r10, NULL), 13);
	wrmsr(0xc0000100, fs);
}

static void direction(void)
{
	uint64_t flags;
	uint8_t from[4] = { 1, 2, 3, 4 };
	uint8_t to[4] = { 0 };
	uint8_t *at = to + 3;
	const uint8_t *source = from + 3;

	__asm__ volatile("stc; std; pushfq; popq %0; cld" : "=r"(flags));
	check_equal("STD keeps carry", flags & (DF | 1), DF | 1);
	__asm__ volatile("stc; std; cld; pushfq; popq %0" : "=r"(flags));
	check_equal("CLD keeps carry", flags & (DF | 1), 1);
	__asm__ volatile("std; movsb; movsb; cld" : "+D"(at), "+S"(source) : : "memory");
	check("strings go down", at == to + 1 && to[3] == 4 && to[2] == 3 && !to[1]);
}

static void time_and_control(void)
{
	uint32_t low, high, processor;
	uint64_t before, after, value, other;
	uint8_t carry;

	wrmsr(TSC_AUX, 0x12345);
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	before = (uint64_t)high << 32 | low;
	__asm__ volatile("stc; rdtscp; setc %3"
			 : "=a"(low), "=d"(high), "=c"(processor), "=q"(carry));
	after = (uint64_t)high << 32 | low;
	check("RDTSCP goes on", after >= before && after - before < 1ull << 40);
	check_equal("its processor", processor, 0x12345);
	check_equal("its flags", carry, 1);
	__asm__ volatile("mov %0, %%cr2" : : "r"(0xffff800012345678));
	__asm__ volatile("mov %%cr2, %%r10; mov %%r10, %0; mov %%cr2, %1"
			 : "=r"(value), "=r"(other)
			 :
			 : "r10");
	check("CR2, in r10 as well", value == 0xffff800012345678 && other == value);
	__asm__ volatile("mov %%cr0, %0; smsw %1" : "=r"(value), "=r"(other));
	check_equal("CR0", value & 0xffff, other & 0xffff);
}

void test_main(void)
{
	prepare();
	calls(true);
	calls(false);
	bases();
	direction();
	time_and_control();
}
