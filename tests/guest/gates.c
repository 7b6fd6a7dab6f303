/*
 * What privileged transfers check: the code segment that a gate names, stacks and segments that
 * IRET and MOV SS load, task registers, bases of descriptor tables; which faults push RF; and that
 * what faults on the way of an instruction faults at it.
 */
#include "guest.h"

enum { GP = 13, NP = 11, UD = 6, SCRATCH_VECTOR = 0x90, SCRATCH_INDEX = 40, FLAG_RF = 0x10000 };
enum {
	DATA = 0x10,
	CODE_32 = 0x18,
	USER_DATA = 0x28,
	USER_CODE = 0x30,
	TASK = 0x48,
	SCRATCH = SCRATCH_INDEX * 8
};
#define ABSENT_CODE 0x00af1b000000ffffull /* 64 bits, not present */
#define NO_FAULT ((uint64_t)-1)

struct table { uint16_t limit; uint64_t base; } __attribute__((packed));
extern uint64_t gdt[];

#define CODE(name, ...)                        \
	static void name(void *argument)       \
	{                                      \
		(void)argument;                \
		__asm__ volatile(__VA_ARGS__); \
	}

CODE(interrupt, ".globl the_interrupt; the_interrupt: int $0x90")
CODE(undefined, "ud2")
CODE(breakpoint, "int3")
CODE(load_busy_task, "mov $0x48, %%eax; ltr %%ax" : : : "rax")
CODE(load_local_from_data, "mov $0x10, %%eax; lldt %%ax" : : : "rax")
CODE(stack_of_other_rpl, "mov $0x13, %%eax; mov %%eax, %%ss" : : : "rax")
CODE(stack_of_user, "mov $0x28, %%eax; mov %%eax, %%ss" : : : "rax")
CODE(stack_null_of_other_rpl, "mov $3, %%eax; mov %%eax, %%ss" : : : "rax")
CODE(data_for_user_of_kernel, "mov $0x13, %%eax; mov %%eax, %%ds" : : : "rax")
CODE(iret_to_null, "push $0; push %%rsp; push $2; push $0; push $0; iretq" : : )
CODE(iret_to_data, "push $0x10; push %%rsp; push $2; push $0x10; push $0; iretq" : : )
CODE(iret_with_user_stack,
     "push $0x2b; push %%rsp; push $2; push $8; lea 1f(%%rip), %%rax; push %%rax; iretq; 1:"
     :
     :
     : "rax")
CODE(iret_to_nowhere,
     "push $0x10; push %%rsp; push $2; push $8; movabs $0x8000000000000000, %%rax; push %%rax; "
     "iretq"
     :
     :
     : "rax")
CODE(jump_to_nowhere, "movabs $0x8000000000000000, %%rax; .globl the_jump; the_jump: jmp *%%rax"
     :
     :
     : "rax")
CODE(call_to_nowhere, "movabs $0x8000000000000000, %%rax; .globl the_call; the_call: call *%%rax"
     :
     :
     : "rax")
CODE(return_to_nowhere,
     "movabs $0x8000000000000000, %%rax; push %%rax; .globl the_return; the_return: ret"
     :
     :
     : "rax")
extern const uint8_t the_interrupt[], the_jump[], the_call[], the_return[];

/* The gate of SCRATCH_VECTOR names selector. */
static void aim_gate(uint16_t selector)
{
	struct table table;
	uint64_t *gate;

	set_gate(SCRATCH_VECTOR, (void *)the_interrupt, 0, 0);
	__asm__ volatile("sidt %0" : "=m"(table));
	gate = (uint64_t *)table.base + 2 * SCRATCH_VECTOR;
	*gate = (*gate & ~0xffff0000ull) | (uint64_t)selector << 16;
}

static void check_gate(const char *name, uint16_t selector, uint64_t vector)
{
	aim_gate(selector);
	check_equal(name, (uint64_t)try_code(interrupt, NULL), vector);
	check_equal("its code", last.code, selector & 0xfffcu);
	check_equal("it is INT's own", last.rip, (uint64_t)the_interrupt);
}

static void gates(void)
{
	check_gate("a gate without a segment", 0, GP);
	check_gate("a gate beyond the table", 0xfff8, GP);
	check_gate("a gate to data", DATA, GP);
	check_gate("a gate to 32-bit code", CODE_32, GP);
	check_gate("a gate to code of level 3", USER_CODE, GP);
	gdt[SCRATCH_INDEX] = ABSENT_CODE;
	check_gate("a gate to absent code", SCRATCH, NP);
	try_code(undefined, NULL);
	check_equal("a fault pushes RF", last.rflags & FLAG_RF, FLAG_RF);
	try_code(breakpoint, NULL);
	check_equal("a trap does not", last.rflags & FLAG_RF, 0);
}

static void segments(void)
{
	check_equal("the task register's TSS is busy", gdt[TASK / 8] >> 41 & 1, 1);
	check_equal("LTR of a busy one", (uint64_t)try_code(load_busy_task, NULL), GP);
	check_equal("its code", last.code, TASK);
	check_equal("LLDT of data", (uint64_t)try_code(load_local_from_data, NULL), GP);
	check_equal("SS with another RPL", (uint64_t)try_code(stack_of_other_rpl, NULL), GP);
	check_equal("its code", last.code, DATA);
	check_equal("SS of another level", (uint64_t)try_code(stack_of_user, NULL), GP);
	check_equal("a null SS with another RPL", (uint64_t)try_code(stack_null_of_other_rpl, NULL),
		    GP);
	check_equal("DS more privileged than its RPL",
		    (uint64_t)try_code(data_for_user_of_kernel, NULL), GP);
	gdt[SCRATCH_INDEX] = 0x00cf92000000ffff; /* data, not accessed */
	__asm__ volatile("mov %0, %%es; mov %1, %%es" : : "r"(SCRATCH), "r"(DATA) : "memory");
	check_equal("a load sets the accessed bit", gdt[SCRATCH_INDEX] >> 40 & 1, 1);
}

static void load_global(void *table)
{
	__asm__ volatile("lgdt %0" : : "m"(*(struct table *)table));
}
static void load_interrupts(void *table)
{
	__asm__ volatile("lidt %0" : : "m"(*(struct table *)table));
}

static void tables(void)
{
	struct table nowhere = { 0xff, 0x8000000000000000 };

	check_equal("LGDT of a base that is not canonical",
		    (uint64_t)try_code(load_global, &nowhere), GP);
	check_equal("LIDT of one", (uint64_t)try_code(load_interrupts, &nowhere), GP);
}

static void returns(void)
{
	uint64_t vector;
	uint64_t address;

	check_equal("IRET to no segment", (uint64_t)try_code(iret_to_null, NULL), GP);
	check_equal("IRET to data", (uint64_t)try_code(iret_to_data, NULL), GP);
	check_equal("its code", last.code, DATA);
	check_equal("IRET with the stack of another level",
		    (uint64_t)try_code(iret_with_user_stack, NULL), GP);
	check_equal("its code", last.code, USER_DATA);
	check_equal("IRET to an address that is not canonical",
		    (uint64_t)try_code(iret_to_nowhere, NULL), GP);
	check_equal("JMP to one", (uint64_t)try_code(jump_to_nowhere, NULL), GP);
	check_equal("faults at itself", last.rip, (uint64_t)the_jump);
	check_equal("CALL to one", (uint64_t)try_code(call_to_nowhere, NULL), GP);
	check_equal("faults at itself", last.rip, (uint64_t)the_call);
	vector = (uint64_t)try_code(return_to_nowhere, NULL);
	address = *(volatile uint64_t *)last.rsp; /* before another call has its frame there */
	check_equal("RET to one", vector, GP);
	check_equal("faults at itself", last.rip, (uint64_t)the_return);
	check_equal("with its stack as it was", address, 0x8000000000000000);
}

static void frames(void)
{
	static uint64_t memory[32];
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) pointer = { 0x12345678, DATA };
	uint64_t offset = 0, frame, top, outer = (uint64_t)&memory[16];

	__asm__ volatile("lfs %1, %k0; mov %%fs, %w2" : "=&r"(offset), "+m"(pointer), "=r"(top));
	check_equal("LFS", offset, 0x12345678);
	check_equal("its selector", top & 0xffff, DATA);
	memory[15] = 0x1111;
	__asm__ volatile(
		"mov %%rsp, %%r12; mov %%rbp, %%r13; lea %3, %%rsp; mov %2, %%rbp; enter $16, "
		"$2\n\t"
		"mov %%rbp, %0; mov %%rsp, %1; mov %%r13, %%rbp; mov %%r12, %%rsp"
		: "=&r"(frame), "=&r"(top)
		: "r"(outer), "m"(memory[30])
		: "r12", "r13", "memory");
	check_equal("ENTER's frame", frame, (uint64_t)&memory[29]);
	check_equal("its stack", top, (uint64_t)&memory[25]);
	check_equal("the frame before", memory[29], outer);
	check_equal("the outer procedure's", memory[28], 0x1111);
	check_equal("its own", memory[27], (uint64_t)&memory[29]);
}

void test_main(void)
{
	gates();
	segments();
	tables();
	returns();
	frames();
}
