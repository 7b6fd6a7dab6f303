/*
 * Real mode: its exceptions through the vector table, the table's limit, 64 KiB of a segment, IRET
 * and its kin, what only protected mode has, TF, an interrupt of the 8259s that ends HLT.
 *
 * Below 1 MiB:  0 vector table   0x7000 what run_real() is given, and what it found
 *               0x8000 the way there and back   0x8800 a stub for each vector
 *               0x10000 code, segment 0x1000   0x20000 data, segment 0x2000   0x30000 stack
 */
#include "guest.h"

enum {
	LOW = 0x8000,
	STUBS = 0x8800,
	STUB_BYTES = 8,
	CODE_SEGMENT = 0x1000,
	DATA_SEGMENT = 0x2000,
	STACK_SEGMENT = 0x3000,
	STACK_POINTER = 0x1000,
	OTHER_TABLE = 0x7800
};

/* At 0x7000; low code knows the offsets. */
struct real {
	/* given */
	uint16_t ip, cs, sp, ss, ds, es, table_limit;
	uint32_t table_base;
	/* found */
	uint16_t vector, end_ip, end_cs, end_flags, end_sp, end_ss, end_ds, end_es;
	uint32_t eax, ebx, ecx, edx, esi, edi;
} __attribute__((packed));
#define real (*(volatile struct real *)0x7000)

void run_real(void);
extern const uint8_t low_begin[], low_end[], low_exit[];
extern uint32_t real_esp;
uint32_t real_esp;
extern uint8_t protected_table[];
uint8_t protected_table[6]; /* SIDT's */
__asm__("run_real: pushal; movl %esp, real_esp\n"
	"sidt protected_table\n"
	"lidt 0x700c\n"
	"movw $0x30, %ax; movw %ax, %ds; movw %ax, %es; movw %ax, %ss; movw %ax, %fs; "
	"movw %ax, %gs\n"
	"ljmp $0x28, $0x8000\n"
	".code16\n"
	"low_begin: movl %cr0, %eax; andl $-2, %eax; movl %eax, %cr0\n"
	"ljmp $0, $0x8000 + 1f - low_begin\n"
	"1: xorl %eax, %eax; movw %ax, %ds; movw %ax, %fs; movw %ax, %gs\n"
	"movw 0x7006, %ss; movzwl 0x7004, %esp; movw 0x700a, %es\n"
	"xorl %ebx, %ebx; xorl %ecx, %ecx; xorl %edx, %edx; xorl %esi, %esi; xorl %edi, %edi; "
	"xorl %ebp, %ebp\n"
	"pushw $2; popfw\n"
	"movw 0x7008, %ds\n"
	"ljmp *%cs:0x7000\n"
	/* every stub leads here; its vector is on the stack, above the frame */
	"low_exit: cli; movl %eax, %cs:0x7022; movl %ebx, %cs:0x7026; movl %ecx, %cs:0x702a\n"
	"movl %edx, %cs:0x702e; movl %esi, %cs:0x7032; movl %edi, %cs:0x7036\n"
	"popw %cs:0x7012; popw %cs:0x7014; popw %cs:0x7016; popw %cs:0x7018; movw %sp, %cs:0x701a\n"
	"movw %ss, %cs:0x701c; movw %ds, %cs:0x701e; movw %es, %cs:0x7020\n"
	"movl %cr0, %eax; orl $1, %eax; movl %eax, %cr0\n"
	"ljmpl $8, $1f\n"
	"low_end: .code32\n"
	"1: movl $0x10, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %fs; movl %eax, %gs; "
	"movl %eax, %ss\n"
	"movl real_esp, %esp; lidt protected_table; pushl $2; popfl; popal; ret");

static void set_vector(uint32_t table, unsigned vector, uint32_t segment, uint32_t offset)
{
	write32(table + 4 * vector, segment << 16 | offset);
}

static void begin(void)
{
	enum { PUSH = 0x68, JMP = 0xe9, JMP_BYTES = 3, PUSH_BYTES = 3 };

	copy(LOW, low_begin, low_end);
	for (unsigned vector = 0; vector < 256; vector++) {
		volatile uint8_t *stub = (volatile uint8_t *)(STUBS + STUB_BYTES * vector);
		uint32_t behind = STUBS + STUB_BYTES * vector + PUSH_BYTES + JMP_BYTES;
		uint32_t distance = LOW + (uint32_t)(low_exit - low_begin) - behind;

		stub[0] = PUSH;
		stub[1] = (uint8_t)vector;
		stub[2] = 0;
		stub[3] = JMP;
		stub[4] = (uint8_t)distance;
		stub[5] = (uint8_t)(distance >> 8);
		set_vector(0, vector, 0, STUBS + STUB_BYTES * vector);
	}
}

static void run_at(uint16_t ip, const uint8_t *code, const uint8_t *end)
{
	copy(CODE_SEGMENT * 16 + ip, code, end);
	real.ip = ip;
	real.cs = CODE_SEGMENT;
	real.ss = STACK_SEGMENT;
	real.sp = STACK_POINTER;
	real.ds = DATA_SEGMENT;
	real.es = DATA_SEGMENT;
	real.end_sp = real.vector = 0xffff;
	run_real();
}

static void set_table(uint32_t base, uint16_t limit)
{
	real.table_base = base;
	real.table_limit = limit;
}

/* Code that ends with this vector at this offset. */
static void check_run(const char *name, const uint8_t *code, const uint8_t *end, int vector,
		      uint16_t ip)
{
	run_at(0, code, end);
	check_equal(name, real.vector, (uint32_t)vector);
	check_equal("where", real.end_ip, ip);
	check_equal("its segment", real.end_cs, CODE_SEGMENT);
	check_equal("three words are on the stack", real.end_sp, STACK_POINTER);
}

#define RUN(name, code, vector, ip) check_run(name, code, code##_end, vector, ip)
#define CODE(name, text) SNIPPET(16, name, text)

CODE(divide, "nop; divw %cx")
CODE(interrupt_3, "int3")
CODE(overflow, "movw $0x7fff, %ax; incw %ax; into")
CODE(no_overflow, "xorw %ax, %ax; into; int $0x80")
CODE(in_bound, "movw $3, 0; movw $9, 2; movw $9, %ax; bound %ax, 0; int $0x80")
CODE(out_of_bound, "movw $3, 0; movw $9, 2; movw $10, %ax; bound %ax, 0")
CODE(undefined, "nop; nop; ud2")
CODE(interrupt, "stc; int $0x44")
CODE(clears, "sti; nop; int $0x44")
CODE(step, "pushfw; popw %ax; orw $0x100, %ax; pushw %ax; popfw; nop; nop")
CODE(task_register, "strw %ax")
CODE(rights, "larw %ax, %bx")
CODE(level, "arpl %ax, %bx")
CODE(local_table, "lldtw %ax")
CODE(system_call, "sysenter")

static void exceptions(void)
{
	RUN("a division by 0", divide, DE, 1);
	RUN("INT3", interrupt_3, BP, 1);
	RUN("INTO", overflow, OF, 5);
	RUN("INTO without overflow", no_overflow, DONE, 5);
	RUN("BOUND", out_of_bound, BR, 15);
	RUN("BOUND inside", in_bound, DONE, 21);
	RUN("an undefined instruction", undefined, UD, 2);
	RUN("INT n", interrupt, 0x44, 3);
	check_equal("flags are pushed", real.end_flags & FLAG_CF, FLAG_CF);
	RUN("with interrupts", clears, 0x44, 4);
	check_equal("which the frame has", real.end_flags & FLAG_IF, FLAG_IF);
	RUN("a step", step, DB, 8);
	check_equal("has TF", real.end_flags & FLAG_TF, FLAG_TF);
}

static void protected_only(void)
{
	RUN("STR is undefined", task_register, UD, 0);
	RUN("LAR", rights, UD, 0);
	RUN("ARPL", level, UD, 0);
	RUN("LLDT", local_table, UD, 0);
	RUN("SYSENTER", system_call, GP, 0);
}

CODE(last_byte, "movb $7, 0xffff; movb 0xffff, %al; int $0x80")
CODE(over_data, "movw 0xffff, %ax")
CODE(over_data_32, "movl %eax, 0xfffd")
CODE(over_offset, "movl $0x10000, %ebx; movb (%ebx), %al")
CODE(over_stack, "movw $0xffff, %bp; movw (%bp), %ax")
CODE(over_string, "movw $0xffff, %si; lodsw")
CODE(around_stack, "xorw %sp, %sp; pushw $0x1234; popw %ax; int $0x80")
CODE(jump_over, ".byte 0x66, 0xe9; .long 0x10000")
CODE(three_bytes, "movw $1, %ax")
CODE(top_of_memory, "movw $0xffff, %ax; movw %ax, %ds; movl 0x10, %eax; int $0x80")

static void borders(void)
{
	RUN("the last byte", last_byte, DONE, 10);
	check_equal("is read", real.eax & 0xff, 7);
	RUN("a word at 0xffff", over_data, GP, 0);
	RUN("four bytes at 0xfffd", over_data_32, GP, 0);
	RUN("an offset of 0x10000", over_offset, GP, 6);
	RUN("a word at 0xffff of the stack's", over_stack, SS, 3);
	RUN("a string's", over_string, GP, 3);
	run_at(0, around_stack, around_stack_end);
	check_equal("SP goes from 0 to 0xfffe", real.vector, DONE);
	check_equal("and back", real.eax & 0xffff, 0x1234);
	RUN("a jump beyond 0xffff", jump_over, GP, 0);
	run_at(0xfffe, three_bytes, three_bytes + 2);
	check_equal("an instruction that does not end", real.vector, GP);
	check_equal("where", real.end_ip, 0xfffe);
	RUN("what is behind 1 MiB", top_of_memory, DONE, 11);
	check_equal("is not what is at 0", real.eax, read32(0x100000));
}

CODE(interrupt_40, "nop; int $0x40")
CODE(to_handler, "sti; movw $5, %ax; int $0x41; pushfw; popw %bx; int $0x80")
CODE(handler, "pushfw; popw %cx; addw $2, %ax; stc; iretw")
CODE(wide_return,
     "pushl $0x246; pushl $0x1000; pushl $0x20; iretl; .org wide_return + 0x20; pushfl; "
     "popl %ebx; int $0x80")
CODE(far_call,
     "movw $7, %ax; lcall $0x1000, $0x40; int $0x80; .org far_call + 0x40; incw %ax; lret")
CODE(far_pointer, "movl $0x12345678, 0; lds 0, %bx; movw %ds, %ax; int $0x80")
CODE(flags,
     "pushw $0x3000; popfw; pushfw; popw %ax; pushw $0xfcd7; popfw; pushfw; popw %bx; int $0x80")
CODE(machine_status, "smsw %ax; int $0x80")

static void returns(void)
{
	set_vector(0, 0x41, CODE_SEGMENT, 0x200);
	copy(CODE_SEGMENT * 16 + 0x200, handler, handler_end);
	RUN("a handler", to_handler, DONE, 10);
	check_equal("was there", real.eax & 0xffff, 7);
	check_equal("without interrupts", real.ecx & FLAG_IF, 0);
	check_equal("IRET brings them back", real.ebx & (FLAG_IF | FLAG_CF), FLAG_IF);
	RUN("IRET of 32 bits", wide_return, DONE, 0x26);
	check_equal("its flags", real.ebx & 0xffff, 0x246);
	RUN("a far call", far_call, DONE, 10);
	check_equal("and back", real.eax & 0xffff, 8);
	RUN("LDS", far_pointer, DONE, 17);
	check_equal("loads the segment", real.eax & 0xffff, 0x1234);
	check_equal("and the offset", real.ebx & 0xffff, 0x5678);
	RUN("POPF", flags, DONE, 14);
	check_equal("changes IOPL", real.eax & FLAG_IOPL, FLAG_IOPL);
	check_equal("and the rest", real.ebx & 0xffff, 0x7cd7);
	RUN("SMSW", machine_status, DONE, 5);
	check_equal("PE is off", real.eax & CR0_PE, 0);
}

static void vector_table(void)
{
	set_table(0, 0x7f);
	RUN("a vector behind the table's limit", interrupt_40, GP, 1);
	set_table(0, 4 * GP - 1);
	RUN("where that of #GP is, too", interrupt_40, DF, 1);
	set_vector(OTHER_TABLE, 0x40, 0, STUBS + STUB_BYTES * 0x99);
	set_table(OTHER_TABLE, 0x3ff);
	RUN("a table elsewhere", interrupt_40, 0x99, 3);
	set_table(0, 0x3ff);
}

/* What protected mode left as limit of a segment stays. */
CODE(unreal,
     "cli; movl %cr0, %eax; orl $1, %eax; movl %eax, %cr0; movw $0x10, %bx; movw %bx, %ds; "
     "andl $-2, %eax;"
     "movl %eax, %cr0; movl $0x100000, %esi; movl (%esi), %ecx; movw $0x2000, %bx; movw %bx, %ds;"
     "movw $7, %ax; movl $0x10100, %esi; movw %ax, (%esi); movw (%esi), %dx; int $0x80")

static void left_limit(void)
{
	run_at(0, unreal, unreal_end);
	check_equal("a segment of protected mode goes on", real.vector, DONE);
	check_equal("with its limit", real.ecx, read32(0x100000));
	check_equal("and a new base", real.edx & 0xffff, 7);
}

/* ---- interrupts ---- */

/* Line 6 of the first 8259 (and of the test device) at vector 0x56; the APIC passes it on. */
CODE(from_8259, "cli; movl $0x1b, %ecx; rdmsr; orw $0xc00, %ax; wrmsr;" /* x2APIC */
		"movl $0x80f, %ecx; movl $0x1ff, %eax; xorl %edx, %edx; wrmsr;"
		"movl $0x835, %ecx; movl $0x700, %eax; wrmsr;" /* LINT0: an 8259's */
		"movb $0x11, %al; outb %al, $0x20; movb $0x50, %al; outb %al, $0x21; movb $4, %al; "
		"outb %al, $0x21;"
		"movb $1, %al; outb %al, $0x21; movb $0xbf, %al; outb %al, $0x21;"
		"movw $0x2006, %dx; movb $1, %al; outb %al, %dx;"
		"sti; hlt; .globl behind_halt; behind_halt: int $0x80")
/* The APIC's timer, some time later. */
CODE(from_timer,
     "cli; movl $0x832, %ecx; movl $0x77, %eax; xorl %edx, %edx; wrmsr;"
     "movl $0x83e, %ecx; movl $11, %eax; wrmsr; movl $0x838, %ecx; movl $1000000, %eax; wrmsr;"
     "sti; hlt; .globl behind_wait; behind_wait: int $0x80")
extern const uint8_t behind_halt[], behind_wait[];

static void interrupts(void)
{
	enum { OF_8259 = 0x56, OF_TIMER = 0x77, END = 0x20, MASKED = 0xff, MSR_EOI = 0x80b };

	run_at(0, from_8259, from_8259_end);
	check_equal("an interrupt of the 8259", real.vector, OF_8259);
	check_equal("ends HLT", real.end_ip, (uint32_t)(behind_halt - from_8259));
	check_equal("and is in the frame", real.end_flags & FLAG_IF, FLAG_IF);
	outb(0x2006, 0);
	outb(0x20, END);
	outb(0x21, MASKED);
	run_at(0, from_timer, from_timer_end);
	check_equal("one of the APIC's timer", real.vector, OF_TIMER);
	check_equal("ends HLT, too", real.end_ip, (uint32_t)(behind_wait - from_timer));
	wrmsr(MSR_EOI, 0);
}

void test_main(void)
{
	begin();
	set_table(0, 0x3ff);
	exceptions();
	protected_only();
	borders();
	returns();
	vector_table();
	left_limit();
	interrupts();
}
