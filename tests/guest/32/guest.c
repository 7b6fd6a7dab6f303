/* Bare-metal guests of 32 bits: traps, descriptors, the one task. */
#include "guest.h"

struct table {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed));
enum { GATE_32 = 0x8e, TASK_GATE = 0x85, STACK_BYTES = 16384, STUB_BYTES = 16 };
extern const uint8_t stubs[];
extern uint32_t try_stack;
void guest_main(void);
int guest_trap(struct frame *frame);

struct frame last;
uint32_t last_cr2;
bool (*on_trap)(struct frame *frame);
struct task main_task;
static uint64_t idt[256];
static uint8_t trap_stack[STACK_BYTES] __attribute__((aligned(16)));

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attributes)
{
	return (limit & 0xffff) | (uint64_t)(limit >> 16 & 15) << 48 |
	       (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(base >> 24) << 56 |
	       (uint64_t)attributes << 40;
}

void set_descriptor(unsigned selector, uint64_t value) { gdt[selector / 8] = value; }

static uint64_t gate(unsigned selector, uint32_t offset, unsigned type)
{
	return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)type << 40 |
	       (uint64_t)(offset >> 16) << 48;
}

void set_gate(unsigned vector, const void *handler, unsigned dpl)
{
	idt[vector] = gate(CODE, at(handler), GATE_32 | dpl << 5);
}

void set_raw_gate(unsigned vector, uint64_t value) { idt[vector] = value; }

uint64_t task_gate(unsigned selector, unsigned dpl)
{
	return gate(selector, 0, TASK_GATE | dpl << 5);
}

const void *stub_of(unsigned vector) { return stubs + STUB_BYTES * vector; }

void copy(uint32_t to, const uint8_t *code, const uint8_t *end)
{
	while (code < end)
		*(volatile uint8_t *)to++ = *code++;
}

/* Negative: go on at the frame; the vector: try_code() or try_iret() returns it. */
int guest_trap(struct frame *frame)
{
	bool is_outer = frame->cs & 3 || frame->eflags & FLAG_VM;

	last_cr2 = read_cr2();
	last = *frame;
	if (!is_outer) { /* nothing of it was pushed */
		last.esp = at(&frame->esp);
		last.ss = DATA;
	}
	if (on_trap && on_trap(frame))
		return -1;
	if (try_stack)
		return (int)frame->vector;
	check_begin(false);
	print("unexpected trap ");
	print_number(frame->vector);
	print(" at ");
	print_number(frame->eip);
	print(", code ");
	print_number(frame->code);
	print("\n");
	finish();
}

void guest_main(void)
{
	struct table idtr = { .limit = sizeof(idt) - 1, .base = at(idt) };

	for (unsigned vector = 0; vector < 256; vector++)
		set_gate(vector, stub_of(vector),
			 vector == BP || vector == OF || vector == DONE ? 3 : 0);
	main_task.esp0 = at(trap_stack) + STACK_BYTES;
	main_task.ss0 = DATA;
	main_task.io_map = sizeof(main_task); /* none */
	set_descriptor(TASK,
		       descriptor(at(&main_task), sizeof(main_task) - 1, SEGMENT_P | TASK_32));
	__asm__ volatile("lidt %0; ltr %w1" : : "m"(idtr), "r"(TASK));
	test_main();
	finish();
}
