/*
 * Limits and kinds of segments in 16- and 32-bit code, and registers of 16 bits that begin anew.
 */
#include "guest.h"

#define AT 0x40000000ull /* below 4 GiB: code, a stack, and then nothing */
#define STACK_TOP (AT + 2 * PAGE_BYTES)
enum { USER_CODE_32 = 0x23, DONE = 0x80, STACK = 12, GENERAL = 13, CR4_OSXSAVE = 0x40000 };
/* Of a descriptor: user data that is written and read, its limit in bytes. */
#define DATA(limit) (0x0040f30000000000ull | ((limit)&0xffff) | ((uint64_t)(limit) >> 16) << 48)
#define WITH_BASE(base) (((base)&0xffffff) << 16 | ((base) >> 24 & 0xff) << 56)
extern uint64_t gdt[];

#define CODE(bits, name, text)                                                                   \
	__asm__(".code" #bits "\n.globl " #name ", " #name "_end\n" #name ": " text              \
		"; int $0x80\n" #name "_end: .code64\n");                                        \
	extern const uint8_t name[], name##_end[];

/* 0x13b ends behind 0x3ff, 0x143 is read only, 0x133 begins behind 0x3ff, 0x12b is code that cannot
 * be read; 0x123 is 32-bit code that ends behind 0x1ff. All begin at AT. */
#define DS(selector) "movl $" #selector ", %eax; movl %eax, %ds; "
CODE(32, last_byte, DS(0x13b) "movb $7, 0x3ff; movzbl 0x3ff, %eax")
CODE(32, last_word, DS(0x13b) "movl $0x1234567, 0x3fc; movl 0x3fc, %eax")
CODE(32, over, DS(0x13b) "movl 0x3fd, %eax")
CODE(32, over_by_index, DS(0x13b) "movl $0x100, %ecx; movl (,%ecx,4), %eax")
CODE(32, over_written, DS(0x13b) "addl $1, 0x3fe")
CODE(32, over_by_bit, DS(0x13b) "movl $0x2000, %ecx; btl %ecx, 0")
CODE(32, over_by_offset, DS(0x13b) ".byte 0xa1, 0xfd, 3, 0, 0")
CODE(32, byte_by_offset, DS(0x13b) "movb $9, 0x3ff; xorl %eax, %eax; .byte 0xa0, 0xff, 3, 0, 0")
CODE(32, over_by_table, DS(0x13b) "movl $0x3ff, %ebx; movb $1, %al; xlat")
CODE(32, inside_by_table, DS(0x13b) "movb $8, 0x3ff; movl $0x3fe, %ebx; xorl %eax, %eax; "
	"incl %eax; xlat")
CODE(32, table_register, DS(0x13b) "sgdt 0x3fa; xorl %eax, %eax")
CODE(32, over_by_string, "movl $0x13b, %eax; movl %eax, %es; movl $0x3f8, %edi; "
     "movl $4, %ecx; rep stosl")
CODE(32, over_by_fs, "movl $0x13b, %eax; movl %eax, %fs; movl %fs:0x3fd, %eax")
CODE(32, over_by_gs, "movl $0x13b, %eax; movl %eax, %gs; movl %gs:0x3fd, %eax")
CODE(32, inside_fs, "movl $0x13b, %eax; movl %eax, %fs; movl $9, %fs:0x3fc; movl %fs:0x3fc, %eax")
CODE(32, over_by_stack, "movl $0x13b, %eax; movl %eax, %ss; movl $0x402, %esp; pushl %eax")
CODE(32, inside_stack, "movl $0x13b, %eax; movl %eax, %ss; movl $0x400, %esp; pushl $5; popl %eax")
CODE(32, over_by_pop, "movl $0x13b, %eax; movl %eax, %ss; movl $0x3fe, %esp; popl %eax")
CODE(32, over_by_ebp, "movl $0x13b, %eax; movl %eax, %ss; movl $0x3fe, %ebp; movl (%ebp), %eax")
CODE(32, read_only, DS(0x143) "movl 0x10, %eax; movl %eax, 0x10")
CODE(32, from_read_only, DS(0x143) "movl 0x10, %eax; movl $1, %eax")
CODE(32, downward, DS(0x133) "movl $6, 0x400; movl 0x400, %eax")
CODE(32, too_low, DS(0x133) "movl 0x3ff, %eax")
CODE(32, of_code, "movl %cs:0x40000000, %eax; movl $3, %eax")
CODE(32, to_code, "movl %eax, %cs:0x40000000")
CODE(32, to_code_by_register, "movl $0x40000000, %esi; movl %eax, %cs:(%esi)")
CODE(32, null, "xorl %eax, %eax; movl %eax, %ds; movl 0x40000000, %eax")
CODE(32, execute_only, "ljmp $0x12b, $0x40000010; .org execute_only + 16; movl %cs:0, %eax")
CODE(32, jump_out, "ljmp $0x123, $0x10; .org jump_out + 16; movl $0x55, %ebx; jmp .+0x300")
CODE(32, call_out, "ljmp $0x123, $0x10; .org call_out + 16; call .+0x300")
CODE(32, jump_out_if, "ljmp $0x123, $0x10; .org jump_out_if + 16; xorl %ecx, %ecx; je .+0x300")
CODE(32, no_jump_out, "ljmp $0x123, $0x10; .org no_jump_out + 16; xorl %ecx, %ecx; "
     "jne .+0x300; movl $8, %eax")
CODE(32, conditions, "movl $0x13b, %eax; movl %eax, %ss; xorl %eax, %eax;" /* every jump is C's */
     "movl $-1, %ecx; cmpl $1, %ecx; jl 1f; int3; 1: jg 2f; jb 2f; jae 1f; int3; 1: js 1f; int3;"
     "1: jo 2f; jle 1f; int3; 1: jp 2f; ja 1f; int3; 1: movl $3, %ecx; 1: incl %eax; loop 1b;"
     "jecxz 1f; int3; 1: jmp 3f; 2: int3; 3: nop")
/* Four elements, of which the second one is where ECX says; and eight bytes from 0x3fc on. */
#define GATHER                                                                              \
	"vmovd %ecx, %xmm1; vpslldq $4, %xmm1, %xmm1; vpcmpeqd %xmm2, %xmm2, %xmm2; "       \
	"vpxor %xmm0, %xmm0, %xmm0; vpgatherdd %xmm2, (,%xmm1,4), %xmm0; vpextrd $1, %xmm0, %eax"
CODE(32, gather, DS(0x13b) "movl $0x4321, 0x3fc; movl $0xff, %ecx; " GATHER)
CODE(32, over_by_gather, DS(0x13b) "movl $0x100, %ecx; " GATHER)
CODE(32, over_by_mask, DS(0x13b) "pcmpeqd %xmm0, %xmm0; movl $0x3f8, %edi; "
     "maskmovdqu %xmm0, %xmm0")
CODE(32, inside_by_mask, DS(0x13b) "pcmpeqd %xmm0, %xmm0; psrldq $8, %xmm0; movl $0x3f8, %edi; "
     "maskmovdqu %xmm0, %xmm0; movl 0x3fc, %eax; incl %eax")

/*
 * 0x113 is code that ends behind 0x3ff, of the same base as 0x123: the same instructions, once
 * through each, and the second time one of them does not end in time. The stack has where to go.
 */
#define AT_LIMIT "0x1f8"
CODE(32, two_limits,
     "xorl %eax, %eax; pushl $0x23; pushl $0x400001f0; pushl $0x123; pushl $" AT_LIMIT "; "
     "ljmp $0x113, $" AT_LIMIT "; .org two_limits + 0x1f0; int $0x80; "
     ".org two_limits + " AT_LIMIT "; incl %eax; nop; nop; nop; nop; movl $7, %ecx; lret")
/* Its frames are read by SS:EBP, and the last word of what it takes must be writable. */
CODE(32, enter_over, "movl $0x13b, %eax; movl %eax, %ss; movl $0x200, %esp; movl $0x402, %ebp; "
     "enter $0, $2")
CODE(32, enter_below, "movl $0x133, %eax; movl %eax, %ss; movl $0x408, %esp; enter $5, $0")

static void run(const char *name, const uint8_t *code, const uint8_t *end, int64_t vector,
		uint64_t rax)
{
	static const struct user_place place = { AT, STACK_TOP, USER_CODE_32 };

	if (!check_user_code(&place, name, code, end, vector, rax))
		check_equal("its error code", last.code, 0);
}

#define RUN(name, vector, rax) run(#name, name, name##_end, vector, rax)

static void make_segments(void)
{
	const uint64_t execute_only_32 = 0x00cff9000000ffff;

	gdt[0x118 / 8] = 0x000093000000ffff; /* of the kernel, 64 KiB */
	gdt[0x138 / 8] = DATA(0x3ff) | WITH_BASE(AT);
	gdt[0x140 / 8] = (DATA(0xfffff) | WITH_BASE(AT)) & ~(2ull << 40);
	gdt[0x130 / 8] = DATA(0x3ff) | WITH_BASE(AT) | 4ull << 40;
	gdt[0x110 / 8] = (DATA(0x3ff) | WITH_BASE(AT)) | 8ull << 40;
	gdt[0x128 / 8] = execute_only_32;
	gdt[0x120 / 8] = (DATA(0x1ff) | WITH_BASE(AT)) | 8ull << 40;
}

static void segments(void)
{
	RUN(last_byte, DONE, 7);
	RUN(last_word, DONE, 0x1234567);
	RUN(over, GENERAL, 0);
	RUN(over_by_index, GENERAL, 0);
	RUN(over_written, GENERAL, 0);
	RUN(over_by_bit, GENERAL, 0);
	RUN(over_by_offset, GENERAL, 0);
	RUN(byte_by_offset, DONE, 9);
	RUN(over_by_table, GENERAL, 0);
	RUN(inside_by_table, DONE, 8);
	RUN(table_register, DONE, 0);
	RUN(over_by_string, GENERAL, 0);
	check_equal("a string stops at the element", last.rcx, 2);
	RUN(over_by_fs, GENERAL, 0);
	RUN(over_by_gs, GENERAL, 0);
	RUN(inside_fs, DONE, 9);
	RUN(over_by_stack, STACK, 0);
	check_equal("a stack pointer that stays", last.rsp, 0x402);
	RUN(inside_stack, DONE, 5);
	RUN(over_by_pop, STACK, 0);
	RUN(over_by_ebp, STACK, 0);
	RUN(enter_over, STACK, 0);
	RUN(enter_below, STACK, 0);
	RUN(read_only, GENERAL, 0);
	RUN(from_read_only, DONE, 1);
	RUN(downward, DONE, 6);
	RUN(too_low, GENERAL, 0);
	RUN(of_code, DONE, 3);
	RUN(to_code, GENERAL, 0);
	RUN(to_code_by_register, GENERAL, 0);
	RUN(null, GENERAL, 0);
	RUN(execute_only, GENERAL, 0);
}

static void vectors(void)
{
	uint32_t mask;

	RUN(gather, DONE, 0x4321);
	RUN(over_by_gather, GENERAL, 0);
	__asm__ volatile("movmskps %%xmm2, %0" : "=r"(mask));
	check_equal("a gather stops at the element", mask, 0xe);
	RUN(inside_by_mask, DONE, 0);
	RUN(over_by_mask, GENERAL, 0);
}

static void jumps(void)
{
	RUN(jump_out, GENERAL, 0);
	check_equal("a jump beyond the limit faults where it is", last.rip, 0x15);
	RUN(call_out, GENERAL, 0);
	check_equal("and so does a call", last.rip, 0x10);
	check_equal("whose stack pointer stays", last.rsp, STACK_TOP);
	RUN(jump_out_if, GENERAL, 0);
	RUN(no_jump_out, DONE, 8);
	RUN(conditions, DONE, 3);
	RUN(two_limits, GENERAL, 0);
	check_equal("code that is known from a longer segment", last.rip, 0x1fd);
	check_equal("at the second time", last.rax, 2);
	check_equal("and not before", last.rcx, 7);
}

/* ---- 16 bits ---- */

enum { SIXTEEN = 0x9000, CODE_16 = 0x38, DATA_16 = 0x40 };
CODE(16, wrap_forward, "movw $0x40, %ax; movw %ax, %ds; movw %ax, %es; movw $0xfffc, %si; "
     "movw $0x7000, %di; movw $8, %cx; cld; rep movsb")
CODE(16, wrap_backward, "movw $0x40, %ax; movw %ax, %es; movw $3, %di; movw $8, %cx; "
     "movb $0x5a, %al; std; rep stosb; cld")
CODE(16, jump_around, ".byte 0xe9; .word 0x6ffd") /* at 0x9000: to 0x10000, which is 0 */
CODE(16, over_16, "movw $0x118, %ax; movw %ax, %ds; movw $0xffff, %bx; movw (%bx), %ax")

static int64_t run_sixteen(const uint8_t *code, const uint8_t *end)
{
	volatile uint8_t *at = (volatile uint8_t *)SIXTEEN;

	while (code < end)
		*at++ = *code++;
	return try_user((void (*)(void))SIXTEEN, 0x9f00, CODE_16);
}

static uint64_t sum(uint64_t gva, unsigned bytes)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < bytes; n++)
		sum = sum * 16 + ((volatile uint8_t *)gva)[n];
	return sum;
}

static void sixteen_bits(void)
{
	for (unsigned n = 0; n < 4; n++) {
		((volatile uint8_t *)0xfffc)[n] = (uint8_t)(n + 1);
		((volatile uint8_t *)0x10000)[n] = 0xee;
	}
	*(volatile uint32_t *)4 = 0;
	((volatile uint8_t *)0)[0] = 5;
	((volatile uint8_t *)0)[1] = 6;
	((volatile uint8_t *)0)[2] = 7;
	((volatile uint8_t *)0)[3] = 8;
	check_equal("REP MOVSB of 16 bits", (uint64_t)run_sixteen(wrap_forward, wrap_forward_end),
		    DONE);
	check_equal("goes on at 0", sum(0x7000, 8), 0x12345678);
	check_equal("REP STOSB of 16 bits", (uint64_t)run_sixteen(wrap_backward, wrap_backward_end),
		    DONE);
	check_equal("goes down to 0", sum(0, 4), 0x5aull * 0x1111);
	check_equal("and on at the other end", sum(0xfffc, 4), 0x5aull * 0x1111);
	((volatile uint8_t *)0)[0] = 0xcd;
	((volatile uint8_t *)0)[1] = 0x80;
	check_equal("a jump of 16 bits", (uint64_t)run_sixteen(jump_around, jump_around_end), DONE);
	check_equal("is cut to them", last.rip, 2);
	check_equal("a word at 0xffff", (uint64_t)run_sixteen(over_16, over_16_end), GENERAL);
}

void test_main(void)
{
	map_user_pages(AT, 2);
	make_segments();
	segments();
	write_cr4(read_cr4() | CR4_OSXSAVE);
	__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	vectors();
	jumps();
	sixteen_bits();
}
