/*
 * Virtual-8086 mode: segments, what IOPL decides, INT through a gate and back, ports, what only
 * other modes have, faults and 64 KiB, pages of the kernel, a task of this mode, a step.
 *
 * 0x10000 code, segment 0x1000   0x20000 data, segment 0x2000   0x30000 stack
 */
#include "guest.h"

enum {
	CODE_SEGMENT = 0x1000,
	DATA_SEGMENT = 0x2000,
	STACK_SEGMENT = 0x3000,
	FS_SEGMENT = 0x2100,
	GS_SEGMENT = 0x2200,
	STACK_POINTER = 0x1000,
	INT_VECTOR = 0x61,
	PRIVATE_VECTOR = 0x62,
	OUTER_VECTOR = 0x63,
	CONFORMING_VECTOR = 0x64,
	TASK_OF_VIRTUAL = FREE,
	USER_SEGMENT = USER_CODE & ~3,
	CONFORMING = FREE + 8,
	PORT = 0x3f9
};
enum { IOPL_3 = FLAG_IOPL, BITS_1 = 2 };

static int run_with(const uint8_t *code, const uint8_t *end, uint32_t flags)
{
	const uint32_t frame[] = { 0,
				   CODE_SEGMENT,
				   flags | FLAG_VM | BITS_1,
				   STACK_POINTER,
				   STACK_SEGMENT,
				   DATA_SEGMENT,
				   DATA_SEGMENT,
				   FS_SEGMENT,
				   GS_SEGMENT };

	copy(CODE_SEGMENT * 16, code, end);
	return try_iret(frame, 9);
}

/* Ends with this vector at this offset, with this error code where there is one. */
static void check_run(const char *name, const uint8_t *code, const uint8_t *end, uint32_t flags,
		      int vector, uint32_t ip, uint32_t error)
{
	check_equal(name, (uint32_t)run_with(code, end, flags), (uint32_t)vector);
	check_equal("where", last.eip, ip);
	check_equal("its code", last.code, error);
	check("the frame says which mode", last.eflags & FLAG_VM);
}

#define RUN(name, code, flags, vector, ip, error) \
	check_run(name, code, code##_end, flags, vector, ip, error)
#define CODE_OF(name, text) SNIPPET(16, name, text)

CODE_OF(segments,
	"movw $0x1234, 0; movw %fs:0, %ax; movw %gs:0, %bx; movw %cs, %cx; movw %ss, %dx; "
	"int $0x80")
CODE_OF(load_segment,
	"movw $0x2100, %ax; movw %ax, %ds; movw 0, %bx; pushw %ds; popw %es; int $0x80")
CODE_OF(far_call, "lcall $0x1000, $0x20; int $0x80; .org far_call + 0x20; movw %sp, %bx; lret")

static void addresses(void)
{
	write32(DATA_SEGMENT * 16, 0);
	write32(FS_SEGMENT * 16, 0xf5f5);
	write32(GS_SEGMENT * 16, 0x6565);
	RUN("virtual-8086 mode", segments, IOPL_3, DONE, segments_end - segments, 0);
	check_equal("DS is a base", read32(DATA_SEGMENT * 16), 0x1234);
	check_equal("FS", last.eax & 0xffff, 0xf5f5);
	check_equal("GS", last.ebx & 0xffff, 0x6565);
	check_equal("CS is as it was", last.ecx & 0xffff, CODE_SEGMENT);
	check_equal("SS", last.edx & 0xffff, STACK_SEGMENT);
	check_equal("the kernel finds CS in the frame", last.cs & 0xffff, CODE_SEGMENT);
	check_equal("SS", last.ss & 0xffff, STACK_SEGMENT);
	check_equal("SP", last.esp, STACK_POINTER);
	check_equal("ES", last.virtual_es & 0xffff, DATA_SEGMENT);
	check_equal("DS", last.virtual_ds & 0xffff, DATA_SEGMENT);
	check_equal("FS", last.virtual_fs & 0xffff, FS_SEGMENT);
	check_equal("GS", last.virtual_gs & 0xffff, GS_SEGMENT);
	check_equal("and its own data segments null",
		    (last.ds | last.es | last.fs | last.gs) & 0xffff, 0);
	RUN("any selector is loaded", load_segment, IOPL_3, DONE, load_segment_end - load_segment,
	    0);
	check_equal("and is a base at once", last.ebx & 0xffff, 0xf5f5);
	check_equal("ES, by the stack", last.virtual_es & 0xffff, FS_SEGMENT);
	RUN("a far call", far_call, IOPL_3, DONE, 7, 0);
	check_equal("pushes two words", last.ebx & 0xffff, STACK_POINTER - 4);
}

CODE_OF(disable, "cli; int $0x80")
CODE_OF(enable, "sti; nop; cli; int $0x80")
CODE_OF(push_flags, "pushfw; popw %ax; int $0x80")
CODE_OF(pop_flags, "pushw $0x0cd7; popfw; pushfw; popw %ax; int $0x80")
CODE_OF(pop_wide_flags, "pushl $0x40cd7; popfl; pushfl; popl %eax; int $0x80")
CODE_OF(interrupt, "int $0x61")
CODE_OF(interrupt_return,
	"pushw $0x0cd7; pushw $0x1000; pushw $0x20; iretw; .org interrupt_return + 0x20; pushfw; "
	"popw %ax; int $0x80")
CODE_OF(interrupt_3, "int3")
CODE_OF(overflow, "movw $0x7fff, %ax; incw %ax; into")

/* INT 80H asks for IOPL as well: where IOPL is lower, DONE is #GP at its place. */
static void privileged_by_iopl(void)
{
	set_gate(INT_VECTOR, stub_of(INT_VECTOR), 3);
	RUN("CLI", disable, 0, GP, 0, 0);
	RUN("STI", enable, 0, GP, 0, 0);
	RUN("PUSHF", push_flags, 0, GP, 0, 0);
	RUN("POPF", pop_flags, 0, GP, 3, 0);
	RUN("INT n", interrupt, 0, GP, 0, 0);
	RUN("IRET", interrupt_return, 0, GP, 8, 0);
	RUN("also with an IOPL of 2", interrupt, 0x2000, GP, 0, 0);
	RUN("but not INT3", interrupt_3, 0, BP, 1, 0);
	RUN("nor INTO", overflow, 0, OF, 5, 0);
	RUN("CLI with an IOPL of 3", disable, IOPL_3 | FLAG_IF, DONE, 3, 0);
	check("clears IF", !(last.eflags & FLAG_IF));
	RUN("STI", enable, IOPL_3, DONE, 5, 0);
	RUN("PUSHF", push_flags, IOPL_3, DONE, 4, 0);
	check_equal("shows IOPL", last.eax & FLAG_IOPL, IOPL_3);
	RUN("POPF", pop_flags, IOPL_3, DONE, pop_flags_end - pop_flags, 0);
	check_equal("leaves IOPL", last.eax & 0xffff, 0x3cd7);
	RUN("POPFD", pop_wide_flags, IOPL_3, DONE, pop_wide_flags_end - pop_wide_flags, 0);
	check_equal("leaves VM and IOPL, and sets AC", last.eax, 0x43cd7);
	check("VM is as it was", last.eflags & FLAG_VM);
	RUN("INT n", interrupt, IOPL_3, INT_VECTOR, 2, 0);
	RUN("IRET", interrupt_return, IOPL_3, DONE, 0x24, 0);
	check_equal("leaves IOPL", last.eax & 0xffff, 0x3cd7);
}

CODE_OF(private, "int $0x62")
CODE_OF(outer, "int $0x63")
CODE_OF(conforming, "int $0x64")

static void gates(void)
{
	enum { GATE_32_USER = 0xee };

	set_gate(PRIVATE_VECTOR, stub_of(PRIVATE_VECTOR), 0);
	RUN("a gate that is the kernel's", private, IOPL_3, GP, 0, PRIVATE_VECTOR * 8 + 2);
	set_raw_gate(OUTER_VECTOR,
		     (uint64_t)USER_CODE << 16 | (uint64_t)GATE_32_USER << 40 | 0x8000);
	RUN("one to a user's code", outer, IOPL_3, GP, 0, USER_SEGMENT);
	set_descriptor(CONFORMING,
		       descriptor(0, 0xfffff, SEGMENT_G | SEGMENT_D | SEGMENT_P | CODE_KIND | 4));
	set_raw_gate(CONFORMING_VECTOR,
		     (uint64_t)CONFORMING << 16 | (uint64_t)GATE_32_USER << 40 | 0x8000);
	RUN("or to conforming code", conforming, IOPL_3, GP, 0, CONFORMING);
}

CODE_OF(halt, "hlt")
CODE_OF(control, "movl %cr0, %eax")
CODE_OF(load_table, "lgdt 0")
CODE_OF(clear_ts, "clts")
CODE_OF(rights, "lar %ax, %bx")
CODE_OF(local_table, "sldt %ax")
CODE_OF(level, "arpl %ax, %bx")
CODE_OF(status, "smsw %ax; int $0x80")
CODE_OF(over, "movw 0xffff, %ax")
CODE_OF(over_stack, "movw $0xffff, %bp; movw (%bp), %ax")
CODE_OF(over_push, "movw $1, %sp; pushw %ax")
CODE_OF(over_offset, "movl $0x10000, %ebx; movb (%ebx), %al")
CODE_OF(divide, "xorw %cx, %cx; divw %cx")
CODE_OF(undefined, "ud2")
CODE_OF(jump_over, ".byte 0x66, 0xe9; .long 0x10000")

static void faults(void)
{
	RUN("HLT", halt, IOPL_3, GP, 0, 0);
	RUN("MOV from CR0", control, IOPL_3, GP, 0, 0);
	RUN("LGDT", load_table, IOPL_3, GP, 0, 0);
	RUN("CLTS", clear_ts, IOPL_3, GP, 0, 0);
	RUN("LAR is undefined", rights, IOPL_3, UD, 0, 0);
	RUN("SLDT", local_table, IOPL_3, UD, 0, 0);
	RUN("ARPL", level, IOPL_3, UD, 0, 0);
	RUN("SMSW is not", status, IOPL_3, DONE, status_end - status, 0);
	check_equal("PE", last.eax & CR0_PE, CR0_PE);
	RUN("a word at 0xffff", over, IOPL_3, GP, 0, 0);
	RUN("of the stack's", over_stack, IOPL_3, SS, 3, 0);
	RUN("a push to 0xffff", over_push, IOPL_3, SS, 3, 0);
	RUN("an offset of 0x10000", over_offset, IOPL_3, GP, 6, 0);
	RUN("a jump beyond 0xffff", jump_over, IOPL_3, GP, 0, 0);
	RUN("a division by 0", divide, 0, DE, 2, 0);
	RUN("an undefined instruction", undefined, 0, UD, 0, 0);
}

CODE_OF(in, "movw $0x3f9, %dx; inb %dx, %al; int $0x80")
CODE_OF(in_word, "movw $0x3f8, %dx; inw %dx, %ax; int $0x80")
CODE_OF(in_behind, "movw $0x1f8, %dx; inb %dx, %al; int $0x80")

static void set_port(unsigned port, bool refused)
{
	uint8_t bit = (uint8_t)(1 << port % 8);

	main_task.ports[port / 8] = (uint8_t)(refused ? main_task.ports[port / 8] | bit
						      : main_task.ports[port / 8] & ~bit);
}

/* The map has ports up to 0x1ff: another of these is at an offset below it. */
static void ports(void)
{
	enum { SHIFT = 64 };

	main_task.io_map = (uint16_t)(__builtin_offsetof(struct task, ports) -
				      SHIFT); /* of ports 0x200 to 0x3ff */
	main_task.behind_ports = 0xff;
	for (unsigned n = 0; n < sizeof(main_task.ports); n++)
		main_task.ports[n] = 0;
	RUN("a port that the map allows", in, IOPL_3, DONE, in_end - in, 0);
	set_port(PORT - 8 * SHIFT, true);
	RUN("one that it refuses, with an IOPL of 3", in, IOPL_3, GP, 3, 0);
	RUN("and as part of a word", in_word, IOPL_3, GP, 3, 0);
	set_port(PORT - 8 * SHIFT, false);
	RUN("a word that it allows", in_word, IOPL_3, DONE, in_word_end - in_word, 0);
	main_task.io_map = sizeof(main_task);
	RUN("with no map", in_behind, IOPL_3, GP, 3, 0);
}

/* The kernel changes the frame and returns: another IP, with IF on its way. */
static bool go_on(struct frame *frame)
{
	if (frame->vector != INT_VECTOR)
		return false;
	frame->eip += 2;
	frame->eax = 0x8086;
	frame->virtual_es = 0x2222;
	return true;
}

CODE_OF(round, "movw $5, %cx; 1: int $0x61; hlt; hlt; loop 1b; movw %es, %bx; int $0x80")
CODE_OF(one_step, "nop; nop")

static void there_and_back(void)
{
	on_trap = go_on;
	RUN("the kernel returns", round, IOPL_3, DONE, round_end - round, 0);
	on_trap = NULL;
	check_equal("with another register", last.eax & 0xffff, 0x8086);
	check_equal("and another segment", last.ebx & 0xffff, 0x2222);
	check_equal("five times", last.ecx & 0xffff, 0);
	RUN("a step", one_step, FLAG_TF, DB, 1, 0);
	check("has TF in its frame", last.eflags & FLAG_TF);
}

/* ---- a task of this mode ---- */

static struct task virtual_task;
static void call_task(void) { __asm__ volatile("lcall $0x40, $0" : : : "memory"); }
CODE_OF(in_task, "movw %ds, %ax; movw 0, %bx; int $0x80")

static void task(void)
{
	copy(CODE_SEGMENT * 16, in_task, in_task_end);
	virtual_task = (struct task){ .eflags = FLAG_VM | IOPL_3 | BITS_1,
				      .esp = STACK_POINTER,
				      .ss = STACK_SEGMENT,
				      .cs = CODE_SEGMENT,
				      .ds = FS_SEGMENT,
				      .es = DATA_SEGMENT,
				      .esp0 = main_task.esp0,
				      .ss0 = DATA,
				      .io_map = sizeof(virtual_task) };
	set_descriptor(TASK_OF_VIRTUAL, descriptor(at(&virtual_task), sizeof(virtual_task) - 1,
						   SEGMENT_P | TASK_32));
	check_equal("a task of virtual-8086 mode", (uint32_t)try_code(call_task), DONE);
	check_equal("its segment", last.eax & 0xffff, FS_SEGMENT);
	check_equal("is a base", last.ebx & 0xffff, 0xf5f5);
	check("NT, for its return", last.eflags & FLAG_NT);
	set_descriptor(TASK,
		       descriptor(at(&main_task), sizeof(main_task) - 1, SEGMENT_P | TASK_32));
	__asm__ volatile("ltr %w0" : : "r"(TASK));
}

/* ---- pages ---- */

enum { PAGE_FAULT_OF_USER = 5, KERNEL_PAGE = 0x20000 };
static volatile uint32_t directory[1024] __attribute__((aligned(PAGE_BYTES)));
static volatile uint32_t table[1024] __attribute__((aligned(PAGE_BYTES)));
CODE_OF(read_data, "movw 0x10, %ax; int $0x80")

static void pages(void)
{
	for (unsigned n = 0; n < 1024; n++)
		table[n] = n * PAGE_BYTES | PAGE_P | PAGE_W | (n >= 0x10 && n < 0x40 ? PAGE_U : 0);
	directory[0] = at(table) | PAGE_P | PAGE_W | PAGE_U;
	write_cr3(at(directory));
	write_cr0(read_cr0() | CR0_PG);
	RUN("a page of a user's", read_data, IOPL_3, DONE, read_data_end - read_data, 0);
	table[KERNEL_PAGE / PAGE_BYTES] &= ~(uint32_t)PAGE_U;
	invlpg(KERNEL_PAGE);
	RUN("a page of the kernel's", read_data, IOPL_3, PF, 0, PAGE_FAULT_OF_USER);
	check_equal("CR2", last_cr2, KERNEL_PAGE + 0x10);
	table[KERNEL_PAGE / PAGE_BYTES] |= PAGE_U;
	write_cr0(read_cr0() & ~CR0_PG);
}

void test_main(void)
{
	set_gate(DE, stub_of(DE), 0);
	addresses();
	privileged_by_iopl();
	gates();
	faults();
	ports();
	there_and_back();
	task();
	pages();
}
