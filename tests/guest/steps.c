/*
 * Single steps, breakpoints and watchpoints where instructions are odd: ICEBP, INT3, HLT, MOV SS;
 * and what DR6 says of each.
 */
#include "guest.h"

enum { DR6_NOTHING = 0xffff0ff0, DR6_STEP = 0x4000, FLAG_RF = 0x10000, DR7_NOTHING = 0x400 };

static struct { unsigned count; uint64_t rip[8], dr6[8]; } seen;

#define WRITE_DR(n, value) __asm__ volatile("mov %0, %%dr" #n : : "r"((uint64_t)(value)) : "memory")

static bool note(struct frame *frame)
{
	uint64_t dr6;

	if (frame->vector != 1 || seen.count == 8)
		return false;
	__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
	WRITE_DR(6, 0);
	if (dr6 & 4) /* execution of DR2: once */
		frame->rflags |= FLAG_RF;
	seen.rip[seen.count] = frame->rip;
	seen.dr6[seen.count++] = dr6;
	return true;
}

static void begin(void)
{
	seen.count = 0;
	WRITE_DR(6, 0);
	on_trap = note;
}

#define SET_TF "pushfq; orq $0x100, (%%rsp); popfq; "
#define CLEAR_TF "pushfq; andq $~0x100, (%%rsp); popfq; "

extern const uint8_t behind_icebp[];
extern const uint8_t behind_nop[];
extern const uint8_t behind_halt[];
extern const uint8_t at_breakpoint[];
extern const uint8_t behind_store[];
extern const uint8_t behind_mov_ss[];
extern const uint8_t at_both[];
extern const uint8_t behind_both[];

static void icebp(void)
{
	begin();
	__asm__ volatile(SET_TF ".byte 0xf1; behind_icebp: nop; behind_nop: " CLEAR_TF
			 :
			 :
			 : "memory", "cc");
	check_equal("ICEBP while stepping is one exception", seen.rip[0], (uint64_t)behind_icebp);
	check_equal("which is no step", seen.dr6[0], DR6_NOTHING);
	check_equal("the next instruction is stepped", seen.rip[1], (uint64_t)behind_nop);
	check_equal("and said to be", seen.dr6[1], DR6_NOTHING | DR6_STEP);
}

static void halt(void)
{
	begin();
	__asm__ volatile(SET_TF "hlt; behind_halt: " CLEAR_TF : : : "memory", "cc");
	check_equal("a stepped HLT does not halt", seen.rip[0], (uint64_t)behind_halt);
	check_equal("it is a step", seen.dr6[0], DR6_NOTHING | DR6_STEP);
}

static void breakpoints(void)
{
	begin();
	WRITE_DR(2, at_breakpoint);
	WRITE_DR(6, 2);
	WRITE_DR(7, DR7_NOTHING | 2 << 4);
	__asm__ volatile("at_breakpoint: nop");
	WRITE_DR(7, DR7_NOTHING);
	check_equal("a breakpoint", seen.count, 1);
	check_equal("clears the bit of another in DR6", seen.dr6[0], DR6_NOTHING | 4);
}

static void watchpoints(void)
{
	static uint64_t watched = 0x10;

	begin();
	WRITE_DR(1, &watched);
	WRITE_DR(7, DR7_NOTHING | 2 << 2 | 0xfull << 20); /* four bytes, read or written */
	__asm__ volatile("movl $0x10, %0; behind_store: nop" : "=m"(watched));
	check_equal("a watchpoint", seen.rip[0], (uint64_t)behind_store);
	check_equal("its bit", seen.dr6[0], DR6_NOTHING | 2);
	seen.count = 0;
	__asm__ volatile("mov %0, %%ss; .byte 0xf1; behind_mov_ss: nop"
			 :
			 : "m"(watched)
			 : "memory");
	WRITE_DR(7, DR7_NOTHING);
	check_equal("one that MOV SS met comes with ICEBP", seen.count, 1);
	check_equal("behind it", seen.rip[0], (uint64_t)behind_mov_ss);
}

static bool is_amd(void)
{
	uint32_t eax = 0, ebx, ecx, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	return ecx == 0x444d4163; /* "cAMD" */
}

/*
 * MOV SS from a watched word, then an instruction with a breakpoint: one exception. A second one in
 * its handler would find the first one's stack.
 */
static void watchpoint_and_breakpoint(void)
{
	static uint64_t watched = 0x10;
	bool amd = is_amd(); /* there a breakpoint behind MOV SS counts */

	begin();
	WRITE_DR(1, &watched);
	WRITE_DR(2, at_both);
	WRITE_DR(7, DR7_NOTHING | 2 << 2 | 2 << 4 | 0xfull << 20);
	__asm__ volatile("mov %0, %%ss; at_both: nop; behind_both: nop"
			 :
			 : "m"(watched)
			 : "memory");
	WRITE_DR(7, DR7_NOTHING);
	check_equal("a watchpoint and a breakpoint behind MOV SS are one exception", seen.count, 1);
	check_equal("whose bits are both", seen.dr6[0], DR6_NOTHING | 2 | (amd ? 4 : 0));
	check_equal("at the breakpoint, or behind it",
		    seen.rip[0], (uint64_t)(amd ? at_both : behind_both));
}

void test_main(void)
{
	icebp();
	halt();
	breakpoints();
	watchpoints();
	watchpoint_and_breakpoint();
	on_trap = NULL;
}
