/*
 * Arithmetic flags in the frame of a fault, where instructions behind it overwrite them before
 * anything reads them. Exact with --debug-code flags; without it docs/engine.md, known deviations.
 */
#include "guest.h"

#define AT 0x40000000ull /* code, a stack, and then nothing */
enum { USER_CODE = 0x33, DIVIDE = 0, PAGE_FAULT = 14, ARITHMETIC = 0x8d5 };
enum { CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800 };

/* What makes flags, what faults, and what overwrites them. */
#define BEGIN "movl $0x40002000, %esi; movl %esi, %edi; xorl %edx, %edx; "
#define END "; xorl %eax, %eax; cmpl %edx, %ebx; addl %ecx, %ecx; int $0x80\n"
#define CODE(name, text)                                                                        \
	__asm__(".globl " #name ", " #name "_end\n" #name ": " BEGIN text END #name "_end:\n"); \
	extern const uint8_t name[], name##_end[];

CODE(load, "movl $-1, %eax; addl $1, %eax; movl (%rsi), %ecx")
CODE(store, "movl $0x7fffffff, %eax; addl $1, %eax; movl %ecx, 8(%rsi)")
CODE(after_others,
     "movl $5, %eax; cmpl $9, %eax; movl -8(%rsi), %ecx; movl %ecx, -16(%rsi); movl (%rsi), %ecx")
CODE(push, "movl $1, %eax; subl $2, %eax; lea 0x2000(%rsi), %rsp; pushq %rax")
CODE(string, "movl $0x80, %eax; addb %al, %al; movl $8, %ecx; rep stosb")
CODE(read_and_write, "movb $0x0f, %al; addb $1, %al; addl %ecx, (%rsi)")
CODE(division, "movl $3, %eax; andl $4, %eax; divl %edx")

static void run(const char *name, const uint8_t *code, const uint8_t *end, int64_t vector,
		uint64_t flags)
{
	static const struct user_place place = { AT, AT + PAGE_BYTES, USER_CODE };

	check_user_code(&place, name, code, end, vector, 0);
	check_equal("its flags", last.rflags & ARITHMETIC, flags);
}

#define RUN(name, vector, flags) run(#name, name, name##_end, vector, flags)

void test_main(void)
{
	map_user_pages(AT, 2);
	for (unsigned n = 0; n < 3; n++) { /* the second time the block is known */
		RUN(load, PAGE_FAULT, CF | PF | AF | ZF);
		RUN(store, PAGE_FAULT, PF | AF | SF | OF);
		RUN(after_others, PAGE_FAULT, CF | PF | AF | SF);
		RUN(push, PAGE_FAULT, CF | PF | AF | SF);
		RUN(string, PAGE_FAULT, CF | PF | ZF | OF);
		RUN(read_and_write, PAGE_FAULT, AF);
		RUN(division, DIVIDE, PF | ZF);
	}
}
