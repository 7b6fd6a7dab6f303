/*
 * Instructions that only 32-bit code has, and SYSENTER: decimal arithmetic, BOUND, INTO, ARPL,
 * segments on the stack, LAHF, LES.
 */
#include "guest.h"

#define AT 0x40000000ull /* below 4 GiB: for 32-bit code */
enum {
	USER_CODE_32 = 0x23,
	USER_DATA = 0x2b,
	DONE = 0x80,
	DIVIDE = 0,
	OVERFLOW = 4,
	BOUND_RANGE = 5,
	UNDEFINED = 6
};

/* Each: code that ends in INT 80h with its result in EAX and, where it says, EBX. */
#define LEGACY(name, text)                                                                         \
	__asm__(".code32\n.globl " #name ", " #name "_end\n" #name ": " text "; int $0x80\n" #name \
		"_end: .code64\n");                                                                \
	extern const uint8_t name[], name##_end[];

LEGACY(code_daa, "movl $0x79, %eax; addb $0x35, %al; daa; setc %bl; movzbl %bl, %ebx")
LEGACY(code_das, "movl $0x35, %eax; subb $0x47, %al; das; setc %bl; movzbl %bl, %ebx")
LEGACY(code_aaa, "movl $0x0109, %eax; addb $5, %al; aaa")
LEGACY(code_aas, "movl $0x0203, %eax; subb $5, %al; aas")
LEGACY(code_aam, "movl $79, %eax; aam")
LEGACY(code_aam_zero, "movl $79, %eax; aam $0")
LEGACY(code_aad, "movl $0x0709, %eax; aad")
LEGACY(code_salc, "xorl %eax, %eax; stc; .byte 0xd6")
LEGACY(code_lahf,
       "movl $0x4100, %eax; sahf; xorl %eax, %eax; incl %eax; stc; lahf; andl $0x100, %eax")
LEGACY(code_segments,
       "movl $0x2b, %eax; movl %eax, %es; pushl %es; popl %ds; pushl %ds; popl %es; movl %es, %eax")
LEGACY(code_arpl, "movl $0x10, %eax; movl $3, %ecx; arpl %cx, %ax; setz %bl; movzbl %bl, %ebx")
LEGACY(code_into, "movl $0x7fffffff, %eax; incl %eax; into")
LEGACY(code_no_into, "xorl %eax, %eax; into")
LEGACY(code_bound, "pushl $9; pushl $3; movl $9, %eax; bound %eax, (%esp); movl $1, %eax")
LEGACY(code_out_of_bound, "pushl $9; pushl $3; movl $10, %eax; bound %eax, (%esp)")
LEGACY(code_les, "pushl $0x2b; pushl $0x12345678; les (%esp), %eax; movl %es, %ebx")
LEGACY(code_sysenter, "xorl %eax, %eax; movl %esp, %ecx; movl $0x40000800, %edx; sysenter")

/* Where SYSEXIT goes, and what SYSENTER finds. */
LEGACY(code_after_sysexit, "movl $0x77, %ebx")
__asm__("sysenter_entry: add $1, %eax; sysexitl");
extern const uint8_t sysenter_entry[];
extern uint8_t stubs[];

static void run(const char *name, const uint8_t *code, const uint8_t *end, int64_t vector,
		uint64_t rax)
{
	static const struct user_place place = { AT, AT + 2 * PAGE_BYTES, USER_CODE_32 };

	check_user_code(&place, name, code, end, vector, rax);
}

#define RUN(name, vector, rax) run(#name, code_##name, code_##name##_end, vector, rax)

static void decimal(void)
{
	RUN(daa, DONE, 0x14);
	check_equal("its carry", last.rbx, 1);
	RUN(das, DONE, 0x88);
	check_equal("its carry", last.rbx, 1);
	RUN(aaa, DONE, 0x0204);
	RUN(aas, DONE, 0x0108);
	RUN(aam, DONE, 0x0709);
	RUN(aam_zero, DIVIDE, 0);
	RUN(aad, DONE, 79);
	RUN(salc, DONE, 0xff);
}

static void others(void)
{
	RUN(lahf, DONE, 0x100);
	RUN(segments, DONE, USER_DATA);
	RUN(arpl, DONE, 0x13);
	check_equal("its ZF", last.rbx, 1);
	RUN(into, OVERFLOW, 0);
	RUN(no_into, DONE, 0);
	RUN(bound, DONE, 1);
	RUN(out_of_bound, BOUND_RANGE, 0);
	RUN(les, DONE, 0x12345678);
	check_equal("its segment", last.rbx, USER_DATA);
}

static bool is_amd(void)
{
	uint32_t eax = 0, ebx, ecx, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	return ecx == 0x444d4163; /* "cAMD" */
}

/* In long mode only Intel's processors have it. */
static void fast_system_call(void)
{
	wrmsr(0x174, 8); /* user: 0x18 and 0x20, as SYSEXIT to 32 bits has them */
	wrmsr(0x175, (uint64_t)new_page() + PAGE_BYTES);
	wrmsr(0x176, (uint64_t)sysenter_entry);
	put_code(AT + 0x800, code_after_sysexit, code_after_sysexit_end);
	if (is_amd()) {
		RUN(sysenter, UNDEFINED, 0);
		return;
	}
	RUN(sysenter, DONE, 1);
	check_equal("SYSEXIT came back", last.rbx, 0x77);
	check_equal("its code segment", last.cs, (8 + 16) | 3);
	check_equal("its stack segment", last.ss, (8 + 24) | 3);
}

void test_main(void)
{
	map_user_pages(AT, 2);
	set_gate(OVERFLOW, stubs + 16 * OVERFLOW, 0, 3); /* INTO asks for the right to use it */
	decimal();
	others();
	fast_system_call();
}
