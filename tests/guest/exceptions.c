/* Exceptions: vectors, error codes, CR2, return addresses, nesting. */
#include "guest.h"

#define CODE(name, ...)                        \
	static void name(void *argument)       \
	{                                      \
		(void)argument;                \
		__asm__ volatile(__VA_ARGS__); \
	}

CODE(divide, "xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx"
     :
     :
     : "rax", "rcx", "rdx")
CODE(overflow_divide, "mov $1, %%edx; mov $0, %%eax; mov $1, %%ecx; div %%ecx"
     :
     :
     : "rax", "rcx", "rdx")
CODE(breakpoint, "int3")
CODE(undefined, "ud2")
CODE(bad_selector, "mov $0x1f8, %%eax; mov %%eax, %%ds" : : : "rax")
CODE(system_as_data, "mov $0x48, %%eax; mov %%eax, %%ds" : : : "rax")
CODE(non_canonical, "movabs $0x8000000000000000, %%rax; mov (%%rax), %%rax" : : : "rax")
CODE(non_canonical_stack, "mov %%rsp, %%rbx; movabs $0x8000000000000000, %%rsp; push %%rax"
     :
     :
     : "rax", "rbx")
CODE(bad_cr0, "mov %%cr0, %%rax; and $~1, %%rax; mov %%rax, %%cr0" : : : "rax")
CODE(bad_cr3, "mov %%cr3, %%rax; bts $40, %%rax; mov %%rax, %%cr3" : : : "rax")
CODE(bad_cr4, "mov %%cr4, %%rax; bts $31, %%rax; mov %%rax, %%cr4" : : : "rax")
CODE(bad_msr, "mov $0x12345, %%ecx; rdmsr" : : : "rax", "rcx", "rdx")
CODE(bad_efer, "mov $0xc0000080, %%ecx; mov $-1, %%eax; mov $-1, %%edx; wrmsr"
     :
     :
     : "rax", "rcx", "rdx")
CODE(misaligned_sse, "movaps 1(%%rsp), %%xmm0" : :)
CODE(lock_register, ".byte 0xf0, 0x01, 0xc0")
CODE(interrupt_gate_absent, "int $0x81")
static void read_at(void *a) { (void)*(volatile uint8_t *)a; }
static void write_at(void *a) { *(volatile uint8_t *)a = 1; }
static void write_eight(void *a) { *(volatile uint64_t *)a = 0x1122334455667788; }
static void jump_to(void *a) { ((void (*)(void))a)(); }

/* AVX is off where the first access, the second or none of them is at fault. */
static void load_around_avx(void *at)
{
	__asm__ volatile("mov (%0), %%rax; .byte 0xc5, 0xf8, 0x10, 0x43, 0x08\n" /* vmovups */
			 "mov 16(%0), %%rcx"
			 :
			 : "b"(at)
			 : "rax", "rcx");
}

static void push_around_avx(void *stack)
{
	__asm__ volatile("mov %%rsp, %%rdx; mov %0, %%rsp; push %%rax\n"
			 ".byte 0xc5, 0xf9, 0xef, 0xc0\n" /* vpxor xmm0, xmm0, xmm0 */
			 "push %%rcx; mov %%rdx, %%rsp"
			 :
			 : "b"(stack)
			 : "rdx");
}

/*
 * An instruction that is left to C ends a block in the middle of what would share one lookup: those
 * before it must be looked up all the same.
 */
static void avx_off(void)
{
	enum { CR4_OSXSAVE = 1 << 18 };
	const uint64_t before = read_cr4();
	void *page = new_page();

	write_cr4(before & ~(uint64_t)CR4_OSXSAVE);
	use_trap_stack(14);
	for (unsigned n = 0; n < 3; n++) {
		check_equal("#PF before an instruction that is #UD",
			    (uint64_t)try_code(load_around_avx, (void *)0x7000000010), 14);
		check_equal("CR2", last_cr2, 0x7000000010);
		check_equal("#UD behind a load", (uint64_t)try_code(load_around_avx, page), 6);
		check_equal("#PF of a push before one",
			    (uint64_t)try_code(push_around_avx, (void *)0x7000000800), 14);
		check_equal("CR2", last_cr2, 0x70000007f8);
	}
	write_cr4(before);
}

static void page_faults(void)
{
	uint64_t a = 0x8000000000, *entry;
	uint8_t *page = new_page();

	check_equal("#PF read of nothing", (uint64_t)try_code(read_at, (void *)0x7000001234), 14);
	check_equal("#PF CR2", last_cr2, 0x7000001234);
	check_equal("#PF code of a read", last.code, 0);
	try_code(write_at, (void *)0x7000001234);
	check_equal("#PF code of a write", last.code, 2);
	entry = map_page(a, (uint64_t)page, PAGE_P);
	check_equal("read-only page reads", (uint64_t)try_code(read_at, (void *)a), (uint64_t)-1);
	check_equal("A is set", *entry & PAGE_A, PAGE_A);
	check_equal("D is not", *entry & PAGE_D, 0);
	check_equal("WP", (uint64_t)try_code(write_at, (void *)a), 14);
	check_equal("#PF code of a refused write", last.code, 3);
	write_cr0(read_cr0() & ~0x10000ull);
	check_equal("without WP it writes", (uint64_t)try_code(write_at, (void *)a), (uint64_t)-1);
	check_equal("D is set", *entry & PAGE_D, PAGE_D);
	write_cr0(read_cr0() | 0x10000);
	check_equal("WP again", (uint64_t)try_code(write_at, (void *)a), 14);
	page[0] = 0xc3;
	map_page(a, (uint64_t)page, PAGE_P | PAGE_NX);
	check_equal("NX", (uint64_t)try_code(jump_to, (void *)a), 14);
	check_equal("#PF code of NX", last.code, 0x11);
	check_equal("its return address", last.rip, a);
	map_page(a, (uint64_t)page, PAGE_P);
	check_equal("without NX it runs", (uint64_t)try_code(jump_to, (void *)a), (uint64_t)-1);
	map_page(a, (uint64_t)page, PAGE_P | PAGE_W);
	check_equal("a write across pages into nothing",
		    (uint64_t)try_code(write_eight, (void *)(a + 4092)), 14);
	check_equal("CR2 is in the second page", last_cr2, a + PAGE_BYTES);
	check_equal("and nothing was written", *(uint32_t *)(page + 4092), 0);
}

static bool step_over(struct frame *frame)
{
	if (frame->vector != 14)
		return false;
	frame->rip += 3;
	return true;
}

static void precise(void)
{
	register uint64_t b __asm__("rbx") = 5;
	uint64_t sum = 1;

	on_trap = step_over;
	__asm__ volatile(
		"movabs $0x7000000000, %%rax; add $7, %0; mov (%%rax), %%rcx; add $9, %0; inc %1"
		: "+r"(sum), "+r"(b)
		:
		: "rax", "rcx", "memory");
	on_trap = NULL;
	check_equal("registers around a fault", sum + b, 17 + 6);
}

/*
 * RFLAGS in a handler (SDM Vol. 3A 6.12.1.3): AC is the business of who was interrupted and of
 * CLAC, not of delivery.
 */
static uint64_t flags_in_handler;

static bool note_flags(struct frame *frame)
{
	if (frame->vector != 3)
		return false;
	__asm__ volatile("pushf; pop %0" : "=r"(flags_in_handler));
	return true;
}

static void alignment_check(void)
{
	enum { AC = 0x40000, TF = 0x100, NT = 0x4000, IF = 0x200 };
	uint64_t flags;

	on_trap = note_flags;
	__asm__ volatile(
		"pushf; orq $0x44000, (%%rsp); popf; int3; pushf; pop %0; pushf; andq $~0x44000, "
		"(%%rsp); popf"
		: "=r"(flags)
		:
		: "memory", "cc");
	on_trap = NULL;
	check_equal("delivery clears NT, keeps AC", flags_in_handler & (AC | NT | TF | IF), AC);
	check_equal("both are in the frame", last.rflags & (AC | NT), AC | NT);
	check_equal("and come back", flags & (AC | NT), AC | NT);
	on_trap = note_flags;
	__asm__ volatile("int3");
	on_trap = NULL;
	check_equal("AC is not made up", flags_in_handler & AC, 0);
}

/*
 * Pages for the hypervisor where no memory is, the last one before the address space ends among
 * them.
 */
static void odd_pages(void)
{
	static const uint32_t msrs[] = { 0x40000001, 0x40000021, 0x40000073, 0x40000082,
					 0x40000083 };
	static const uint64_t places[] = { 0xfffffffffffff001, 0xffffffff00000001,
					   0x7ffffffffffff001, 0xfee00001, 0xfffff001 };

	wrmsr(0x40000000, 0x8100 << 16 | 1);
	wrmsr(0x40000080, 1);
	for (unsigned m = 0; m < 5; m++)
		for (unsigned n = 0; n < 5; n++)
			wrmsr(msrs[m], places[n]);
	wrmsr(0x400000b1, 1); /* a timer whose message has no page */
	wrmsr(0x400000b0, 1ull << 16 | 1);
	for (volatile unsigned n = 0; n < 1000; n++)
		(void)rdmsr(0x40000020);
	check("pages where no memory is", true);
}

static uint8_t string_from[64];
static uint8_t string_to[64];

struct string_case { uint64_t from, to; unsigned opcode; };

/* The string instruction with this opcode, eight elements. */
static void string_instruction(void *argument)
{
	const struct string_case *one = argument;

	switch (one->opcode) {
	case 0xa4:
		__asm__ volatile("cld; rep movsb"
				 :
				 : "S"(one->from), "D"(one->to), "c"(8ull)
				 : "memory");
		break;
	case 0xa6:
		__asm__ volatile("cld; repe cmpsb"
				 :
				 : "S"(one->from), "D"(one->to), "c"(8ull)
				 : "memory", "cc");
		break;
	case 0xaa:
		__asm__ volatile("cld; rep stosb" : : "D"(one->to), "c"(8ull), "a"(0) : "memory");
		break;
	default:
		__asm__ volatile("cld; repe scasb"
				 :
				 : "D"(one->to), "c"(8ull), "a"(0)
				 : "memory", "cc");
		break;
	}
}

/*
 * An operand with one upper bit wrong is #GP, and the registers hold the guest's addresses, none of
 * the host's.
 */
static void string_addresses(void)
{
	static const unsigned opcodes[] = { 0xa4, 0xa6, 0xaa, 0xae };
	unsigned wrong = 0;

	for (unsigned n = 0; n < 4; n++)
		for (unsigned bit = 47; bit < 64; bit++)
			for (unsigned destination = opcodes[n] >= 0xaa; destination < 2;
			     destination++) {
				struct string_case one = { (uint64_t)string_from,
							   (uint64_t)string_to, opcodes[n] };

				try_code(string_instruction, &one); /* what can be cached is */
				*(destination ? &one.to : &one.from) ^= 1ull << bit;
				wrong += try_code(string_instruction, &one) != 13 ||
					 last.rdi != one.to || last.rcx != 8;
				wrong += opcodes[n] < 0xaa && last.rsi != one.from;
			}
	check_equal("strings at addresses that are not canonical", wrong, 0);
}

void test_main(void)
{
	check_equal("#DE", (uint64_t)try_code(divide, NULL), 0);
	check_equal("#DE by overflow", (uint64_t)try_code(overflow_divide, NULL), 0);
	check_equal("#BP", (uint64_t)try_code(breakpoint, NULL), 3);
	check("#BP returns behind", *(uint8_t *)(last.rip - 1) == 0xcc);
	check_equal("#UD", (uint64_t)try_code(undefined, NULL), 6);
	check("#UD returns to it", *(uint16_t *)last.rip == 0x0b0f);
	check_equal("#GP bad selector", (uint64_t)try_code(bad_selector, NULL), 13);
	check_equal("#GP code is the selector", last.code, 0x1f8);
	check_equal("#GP system segment as data", (uint64_t)try_code(system_as_data, NULL), 13);
	check_equal("#GP non-canonical", (uint64_t)try_code(non_canonical, NULL), 13);
	string_addresses();
	use_trap_stack(12);
	check_equal("#SS non-canonical", (uint64_t)try_code(non_canonical_stack, NULL), 12);
	check_equal("#GP CR0", (uint64_t)try_code(bad_cr0, NULL), 13);
	check_equal("#GP CR3 beyond the physical addresses", (uint64_t)try_code(bad_cr3, NULL), 13);
	check_equal("#GP CR4", (uint64_t)try_code(bad_cr4, NULL), 13);
	check_equal("#GP unknown MSR", (uint64_t)try_code(bad_msr, NULL), 13);
	check_equal("#GP EFER", (uint64_t)try_code(bad_efer, NULL), 13);
	check_equal("#GP MOVAPS", (uint64_t)try_code(misaligned_sse, NULL), 13);
	check_equal("#UD LOCK with a register", (uint64_t)try_code(lock_register, NULL), 6);
	check_equal("INT to a gate",
		    (uint64_t)try_code(interrupt_gate_absent, NULL) != (uint64_t)-1, 1);
	page_faults();
	avx_off();
	precise();
	alignment_check();
	odd_pages();
}
